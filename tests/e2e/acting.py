"""A scenario for each method about acting; `test_conversations` runs them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.e2e.raw_client import RawClient

SCENARIOS: dict[str, Callable[[RawClient], None]] = {}
ADA = {"personaId": "ada", "name": "Ada", "role": "Counts", "instruction": "You are Ada."}


def of(method: str) -> Callable[[Callable[[RawClient], None]], Callable[[RawClient], None]]:
    def note(scenario: Callable[[RawClient], None]) -> Callable[[RawClient], None]:
        SCENARIOS[method] = scenario
        return scenario

    return note


def new(client: RawClient, **params: object) -> str:
    return str(client.call("conversation/create", params)["conversationId"])


def plan_asked(client: RawClient, conversation_id: str, task: str) -> tuple[Any, Any]:
    """A build that waits for its plan to be accepted: its receipt and the question."""
    params = {"conversationId": conversation_id, "task": task}
    receipt = client.call("build/start", params)
    asked = client.event(conversation_id, "approvalRequested")
    return receipt, asked["approval"]


PLANNED = 'tool plan {"steps": ["Write a"], "summary": "One file."}'


@of("rule/list")
def _(client: RawClient) -> None:
    assert client.call("rule/list") == {"rules": []}


@of("rule/remove")
def _(client: RawClient) -> None:
    rule = {"tool": "run", "argv": ["make"], "root": "/w"}
    assert client.error("rule/remove", {"rule": rule})["data"]["type"] == "NOT_FOUND"


@of("audit/read")
def _(client: RawClient) -> None:
    c = new(client)
    client.call("message/send", {"conversationId": c, "input": "tool teleport"})
    found = client.call("audit/read", {"conversationId": c})
    [entry] = found["entries"]
    assert (entry["action"], entry["allowed"], entry["why"]) == ("tool", False, "unknown")
    assert "teleport" not in str(found), "a name that a model made up is content"
    assert "problem" not in found["report"]
    assert found["report"]["entries"] >= 1
    assert "report" not in client.call("audit/read", {"limit": 0, "verify": False})


@of("persona/list")
def _(client: RawClient) -> None:
    personas = client.call("persona/list")["personas"]
    assert [p["personaId"] for p in personas[:3]] == ["correctness", "security", "newcomer"]
    assert all(p["isBuiltIn"] and p["instruction"] for p in personas[:3])


@of("persona/save")
def _(client: RawClient) -> None:
    assert client.call("persona/save", {"persona": ADA}) == ADA
    assert ADA in client.call("persona/list")["personas"]
    for wrong in ({**ADA, "name": ""}, {**ADA, "personaId": "a b"}, {"personaId": "x"}):
        assert client.error("persona/save", {"persona": wrong})["code"] == -32602


@of("persona/delete")
def _(client: RawClient) -> None:
    client.call("persona/save", {"persona": {**ADA, "personaId": "gone"}})
    client.call("persona/delete", {"personaId": "gone"})
    assert client.error("persona/delete", {"personaId": "gone"})["data"]["type"] == "NOT_FOUND"
    error = client.error("persona/delete", {"personaId": "security"})
    assert error["data"]["type"] == "INVALID_STATE"


@of("feedback/run")
def _(client: RawClient) -> None:
    file = {"uri": "file:///w/a.py", "text": "x = 1\n"}
    params = {"contextFiles": [file], "requestKey": "feedback-once"}
    done = client.call("feedback/run", params)
    assert done["turn"]["stopReason"] == "endTurn"
    assert [r["name"] for r in done["reviews"]] == ["Correctness", "Security", "Newcomer"]
    assert done["report"].startswith("# Feedback on `a.py`")
    assert client.call("feedback/run", params) == done, "the same key is the same run"
    listed = client.call("conversation/list")["conversations"]
    assert [c["mode"] for c in listed if c["conversationId"] == done["conversationId"]] == [
        "feedback"
    ]
    error = client.error("feedback/run", {})
    assert error["data"]["type"] == "INVALID_STATE"
    assert "contextFiles" in error["data"]["hint"]


@of("build/start")
def _(client: RawClient) -> None:
    c = new(client)
    receipt, question = plan_asked(client, c, PLANNED)
    assert receipt["position"] == 0
    assert (question["tool"], question["title"]) == ("plan", "Carry out this plan")
    assert question["text"] == "One file.\n\n1. Write a"
    assert client.call("conversation/get", {"conversationId": c})["conversation"]["mode"] == "build"
    client.call("build/cancel", {"conversationId": c})


@of("build/approve")
def _(client: RawClient) -> None:
    c = new(client)
    error = client.error("build/approve", {"conversationId": c})
    assert error["data"]["type"] == "NOT_FOUND"
    plan_asked(client, c, PLANNED)
    client.call("build/approve", {"conversationId": c, "decision": "deny"})
    resolved = client.event(c, "approvalResolved")
    assert resolved["state"] == "denied"
    client.call("build/cancel", {"conversationId": c})


@of("build/cancel")
def _(client: RawClient) -> None:
    c = new(client)
    assert client.call("build/cancel", {"conversationId": c}) == {"cancelled": False}
    plan_asked(client, c, PLANNED)
    assert client.call("build/cancel", {"conversationId": c}) == {"cancelled": True}
    assert client.event(c, "turnEnded")["stopReason"] == "cancelled"
    assert client.event(c, "approvalResolved")["state"] == "expired"
