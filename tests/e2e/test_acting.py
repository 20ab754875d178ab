"""Agents that act, through the real process: allowed once or for good, undone, carried on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar import processes
from tests.e2e.acting import new
from tests.e2e.raw_client import Message, RawClient
from tests.requirements import proves

Spawn = Callable[..., RawClient]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands of a POSIX shell")


def start(spawn: Spawn, folder: Path, *turns: list[Any], **settings: Any) -> RawClient:
    client = spawn()
    client.start(
        {
            "settings": {
                "provider": "scripted",
                "script": [{"turn": turn} for turn in turns],
                **settings,
            }
        },
        workspaceFolders=[{"uri": folder.as_uri(), "name": "w"}],
    )
    return client


def tool(name: str, **arguments: Any) -> Message:
    return {"tool": name, "arguments": arguments}


def answered(client: RawClient, conversation_id: str, after: int = 0, **answer: Any) -> Message:
    """The next question, answered."""
    asked: Message = client.event(conversation_id, "approvalRequested", after=after)["approval"]
    params = {"approvalId": asked["approvalId"], "contentHash": asked["contentHash"]}
    client.call("approval/respond", {"decision": "allow", **params, **answer})
    return asked


def ask(client: RawClient, conversation_id: str, text: str = "go") -> int | str:
    return client.start_request("message/send", {"conversationId": conversation_id, "input": text})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    (made / "a.txt").write_text("one\n")
    return made


@proves("RULES", "P9", "AUDIT")
def test_what_is_allowed_for_good_is_not_asked_again_and_nothing_else_is_let_through(
    spawn: Spawn, folder: Path
) -> None:
    commands = ["echo hi", "echo hi", "echo hi && echo hi", "echo hi; touch evil"]
    client = start(spawn, folder, *([tool("run", command=c)] for c in commands))
    c = new(client, mode="build")
    send = ask(client, c)
    question = answered(client, c, always=True)
    assert [rule["argv"] for rule in question["always"]] == [["echo", "hi"]]
    client.result(send)
    assert len(client.call("rule/list")["rules"]) == 1
    for _ in range(2):
        client.result(ask(client, c))
    mark = len(client.frames)
    last = ask(client, c)
    answered(client, c, after=mark, decision="deny")
    client.result(last)
    assert not (folder / "evil").exists()
    assert "always" not in [m for m in client.frames if "approval" in str(m)][-1]
    why = [e["why"] for e in client.call("audit/read")["entries"] if e["action"] == "tool"]
    assert why == ["approval", "rule", "rule", "denied"]
    (rule,) = client.call("rule/list")["rules"]
    client.call("rule/remove", {"rule": rule})
    assert client.call("rule/list") == {"rules": []}


@proves("UNDO", "TOOLS-EDIT")
def test_talk_and_files_are_rewound_together_after_a_look(spawn: Spawn, folder: Path) -> None:
    client = start(
        spawn,
        folder,
        [{"text": "Hello."}],
        [tool("edit", path="a.txt", oldText="one", newText="two")],
        [tool("run", command="echo made > b.txt; echo more >> a.txt")],
    )
    c = new(client, mode="build")
    client.result(ask(client, c, "hi"))
    kept = client.call("conversation/get", {"conversationId": c})["page"]["messages"][-1]
    for _ in range(2):
        mark = len(client.frames)
        send = ask(client, c)
        answered(client, c, after=mark)
        client.result(send)
    assert (folder / "a.txt").read_text() == "two\nmore\n"
    rewind = {"conversationId": c, "toMessageId": kept["messageId"], "files": True}
    seen = client.call("conversation/rewind", {**rewind, "preview": True})
    assert [(f["path"], f["action"], f["state"]) for f in seen["files"]] == [
        ("a.txt", "restore", "ready"),
        ("b.txt", "delete", "ready"),
    ]
    assert len(seen["hidden"]) == 4
    assert (folder / "a.txt").read_text() == "two\nmore\n"

    mark = len(client.frames)
    hanging = ask(client, c, "hang")
    client.event(c, "turnStarted", after=mark)
    assert client.error("conversation/rewind", rewind)["data"]["type"] == "INVALID_STATE"
    assert (folder / "a.txt").read_text() == "two\nmore\n"
    client.call("agent/cancel", {"conversationId": c})
    client.result(hanging)

    (folder / "b.txt").write_text("the user's")
    error = client.error("conversation/rewind", rewind)
    assert error["data"]["type"] == "CONFLICT"
    assert "b.txt" in error["message"]
    assert (folder / "a.txt").read_text() == "two\nmore\n"

    done = client.call("conversation/rewind", {**rewind, "force": True})
    assert {f["state"] for f in done["files"]} == {"done"}
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"a.txt": "one\n"}
    left = client.call("conversation/get", {"conversationId": c})["page"]["messages"]
    assert [m["messageId"] for m in left][-1] == kept["messageId"]


@proves("TOOLS-RUN")
def test_output_is_shown_to_who_follows_while_the_command_runs(spawn: Spawn, folder: Path) -> None:
    client = start(spawn, folder, [tool("run", command="echo first; sleep 0.2; echo last")])
    c = new(client, mode="build")
    send = ask(client, c)
    answered(client, c)
    client.result(send)
    shown = [m["params"] for m in client.frames if m.get("method") == "tool/output"]
    assert "".join(output["text"] for output in shown) == "first\nlast\n"
    assert {output["conversationId"] for output in shown} == {c}


@proves("FEEDBACK", "P1", "P2")
def test_feedback_whose_process_was_killed_is_finished_by_the_next(
    spawn: Spawn, folder: Path
) -> None:
    """Three reviewers have begun and none has ended when the process is killed. Whoever asks
    with the same key again, in whatever process, gets the one report."""
    review = '```json\n{"rating": 4, "summary": "Good.", "findings": []}\n```'
    client = start(spawn, folder)
    file = {"uri": (folder / "a.txt").as_uri()}
    personas = [
        {"personaId": id_, "name": id_.title(), "instruction": f"You are {id_}."}
        for id_ in ("fast", "slow", "late")
    ]
    for persona in personas:
        client.call("persona/save", {"persona": persona})
    client.call("settings/update", {"settings": {"script": [{"text": review}, {"hang": True}]}})
    c = new(client, mode="feedback")
    params = {
        "conversationId": c,
        "contextFiles": [file],
        "personaIds": ["fast", "slow", "late"],
        "requestKey": "once",
    }
    client.start_request("feedback/run", params)
    client.event(c, "progress")
    helpers = client.wait_for(lambda m: m.get("method") == "agent/state" and c not in str(m))
    assert helpers
    os.kill(client.process.pid, signal.SIGKILL)
    client.process.wait()

    again = start(spawn, folder)
    again.call("settings/update", {"settings": {"script": [{"text": review}]}})
    done = again.call("feedback/run", params)
    assert done["turn"]["stopReason"] == "endTurn"
    assert [(r["name"], r["rating"]) for r in done["reviews"]] == [
        ("Fast", 4),
        ("Slow", 4),
        ("Late", 4),
    ]
    assert done["report"].startswith("# Feedback on `a.txt`")
    listed = again.call("conversation/list")["conversations"]
    assert [conversation["conversationId"] for conversation in listed] == [c]
    agents = again.call("agent/list")["agents"]
    assert {agent["conversationId"] for agent in agents} <= {c}


@proves("MCP", "P9")
def test_a_tool_of_an_mcp_server_is_asked_for_and_gone_with_the_sidecar(
    spawn: Spawn, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("mcp", reason="needs the extra 'mcp'")
    script = Path(__file__).parents[1] / "tools" / "mcp_server.py"
    server = {"command": sys.executable, "args": [str(script), str(tmp_path)]}
    turn = [tool("s__look", what="here")]
    client = start(spawn, folder, turn, turn, mcpServers={"s": server})
    assert client.call("sidecar/status")["mcpServers"] == {"s": "not started"}
    c = new(client, mode="build")
    send = ask(client, c)
    question = answered(client, c)
    assert question["title"] == "Use look of the MCP server s"
    client.result(send)
    assert (tmp_path / "effects").read_text() == "here\n"
    assert client.call("sidecar/status")["mcpServers"] == {"s": "ready"}
    names = [
        tool["name"]
        for tool in client.call("capability/list", {"conversationId": c})["capabilities"]
    ]
    assert {"s__look", "read", "run"} <= set(names)
    found = client.call("capability/find", {"name": "s__look"})["conversationIds"]
    assert found == [c]
    mark = len(client.frames)
    send = ask(client, c)
    answered(client, c, after=mark, decision="deny")
    client.result(send)
    assert (tmp_path / "effects").read_text() == "here\n"
    pid = int((tmp_path / "pid").read_text())
    client.notify("exit")
    client.process.wait(10)
    deadline = time.monotonic() + 10
    while processes.began(pid) is not None:
        assert time.monotonic() < deadline, "it outlives the sidecar"
