"""What an editor shows is what an agent reads, unsaved changes included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.raw_client import Message, RawClient
from tests.requirements import proves

Spawn = Callable[..., RawClient]
CAPABLE = {"experimental": {"sidecar": {"readFile": True}}}
READ = 'tool read {"path": "a.txt"}'


def start(spawn: Spawn, folder: Path, capabilities: dict[str, Any]) -> tuple[RawClient, str]:
    (folder / "a.txt").write_text("saved\n")
    client = spawn()
    client.start(
        {"settings": {"provider": "scripted"}},
        capabilities=capabilities,
        workspaceFolders=[{"uri": folder.as_uri(), "name": "w"}],
    )
    return client, str(client.call("conversation/create", {})["conversationId"])


def said(client: RawClient, conversation_id: str) -> str:
    page = client.call("conversation/get", {"conversationId": conversation_id})["page"]
    results = [p for m in page["messages"] for p in m["parts"] if p["kind"] == "toolResult"]
    return str(results[-1]["content"])


def read(client: RawClient, conversation_id: str, answer: Message) -> str:
    """What the tool says when the editor answers so."""
    call = client.start_request("message/send", {"conversationId": conversation_id, "input": READ})
    request = client.wait_for(lambda m: m.get("method") == "editor/readFile")
    assert request["params"]["uri"].endswith("/a.txt")
    client.send({"jsonrpc": "2.0", "id": request["id"], **answer})
    client.response(call)
    return said(client, conversation_id)


@proves("VSCODE-FILES")
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"result": {"text": "unsaved\n"}}, "unsaved"),
        ({"result": {"text": None}}, "saved"),
        ({"result": {}}, "saved"),
        ({"result": 7}, "saved"),
        ({"error": {"code": -32601, "message": "I cannot"}}, "saved"),
    ],
    ids=str,
)
def test_an_agent_reads_what_the_editor_shows(
    spawn: Spawn, tmp_path: Path, answer: Message, text: str
) -> None:
    client, conversation_id = start(spawn, tmp_path, CAPABLE)
    title, line = read(client, conversation_id, answer).splitlines()
    assert (title, line) == ("a.txt, lines 1-1 of 1", text)


@proves("VSCODE-FILES")
def test_an_editor_that_did_not_offer_it_is_not_asked(spawn: Spawn, tmp_path: Path) -> None:
    client, conversation_id = start(spawn, tmp_path, {})
    client.call("message/send", {"conversationId": conversation_id, "input": READ})
    assert said(client, conversation_id).endswith("saved")
    assert not [m for m in client.frames if m.get("method") == "editor/readFile"]


EDIT = 'tool edit {"path": "a.txt", "oldText": "saved", "newText": "mine"}'


@proves("TOOLS-EDIT", "VSCODE-FILES", "P9")
@pytest.mark.parametrize(
    ("decision", "applied", "on_disk"),
    [("allow", True, "saved\n"), ("allow", False, "mine\n"), ("deny", False, "saved\n")],
)
def test_an_edit_is_approved_and_then_made_where_the_user_sees_it(
    spawn: Spawn, tmp_path: Path, decision: str, applied: bool, on_disk: str
) -> None:
    abilities = {"readFile": True, "applyEdit": True, "permissionRequest": True}
    client, conversation_id = start(spawn, tmp_path, {"experimental": {"sidecar": abilities}})
    client.call("conversation/setMode", {"conversationId": conversation_id, "mode": "build"})
    send = client.start_request("message/send", {"conversationId": conversation_id, "input": EDIT})

    asked: list[str] = []
    answered = 0
    while send not in [m.get("id") for m in client.frames if "method" not in m]:
        request = client.wait_for(
            lambda m: m.get("id") == send or m.get("method") in ANSWERS, after=answered
        )
        answered = client.frames.index(request) + 1
        if "method" in request:
            asked.append(request["method"])
            answer = ANSWERS[request["method"]](request["params"], decision, applied)
            client.send({"jsonrpc": "2.0", "id": request["id"], "result": answer})

    assert (tmp_path / "a.txt").read_text() == on_disk
    assert asked[:2] == ["editor/readFile", "permission/request"]
    assert ("editor/applyEdit" in asked) == (decision == "allow")


ANSWERS: dict[str, Callable[[Message, str, bool], Message]] = {
    "editor/readFile": lambda params, decision, applied: {},
    "editor/applyEdit": lambda params, decision, applied: {"applied": applied},
    "permission/request": lambda params, decision, applied: {
        "decision": decision,
        "contentHash": params["contentHash"],
    },
}


@proves("TOOLS-EDIT", "P9")
def test_nothing_is_edited_in_chat_mode(spawn: Spawn, tmp_path: Path) -> None:
    client, conversation_id = start(spawn, tmp_path, {})
    client.call("message/send", {"conversationId": conversation_id, "input": EDIT})
    assert "not allowed in this mode" in said(client, conversation_id)
    assert (tmp_path / "a.txt").read_text() == "saved\n"
