"""The real process over real pipes, as an ACP client that is slow, rude or gone sees it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.requirements import proves

Message = dict[str, Any]
LONG = 20_000
"""Chunks of a kilobyte each: several times what the process keeps for a client."""


class Talk:
    """One process; lines in, lines out."""

    def __init__(self, store: Path, workspace: Path, *arguments: str, config: str = "") -> None:
        self.workspace = workspace
        provider = {} if config else {"AGENT_SIDECAR_PROVIDER": "scripted"}
        env = os.environ | provider | {"AGENT_SIDECAR_CONFIG": config}
        command = [sys.executable, "-I", "-m", "sidecar", *arguments, "--store", str(store)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
        )
        self.updates: list[Message] = []
        self._number = 0

    def send(self, method: str, **params: Any) -> int:
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self.write(json.dumps(message).encode() + b"\n")
        return self._number

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self) -> Message:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        message: Message = json.loads(line)
        if message.get("method") == "session/update":
            self.updates.append(message["params"]["update"])
        return message

    def answer(self, number: int | None) -> Message:
        while (message := self.read()).get("id", "") != number or "method" in message:
            continue
        return message

    def call(self, method: str, **params: Any) -> Any:
        return self.answer(self.send(method, **params))["result"]

    def begin(self) -> str:
        self.call("initialize", protocolVersion=1)
        made = self.call("session/new", cwd=str(self.workspace), mcpServers=[])
        return str(made["sessionId"])

    def prompt(self, session: str, text: str) -> int:
        return self.send(
            "session/prompt", sessionId=session, prompt=[{"type": "text", "text": text}]
        )

    @property
    def text(self) -> str:
        kind = "agent_message_chunk"
        return "".join(u["content"]["text"] for u in self.updates if u["sessionUpdate"] == kind)

    def end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait()


@pytest.fixture
def talks(tmp_path: Path) -> Iterator[Any]:
    workspace = tmp_path / "w"
    workspace.mkdir()
    made: list[Talk] = []

    def start(*arguments: str, config: str = "") -> Talk:
        made.append(Talk(tmp_path / "c.db", workspace, *(arguments or ("acp",)), config=config))
        return made[-1]

    yield start
    for talk in made:
        talk.process.kill()
        talk.process.wait()
        for pipe in (talk.process.stdin, talk.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


@proves("ACP", "P3", "P11")
def test_a_client_that_does_not_read_is_told_everything_later(talks: Any) -> None:
    talk = talks()
    session, other = talk.begin(), None
    long = talk.prompt(session, f"repeat {LONG} {'x' * 1000}")
    # Nothing is read until another client, of the same store, has seen the end of the turn.
    watcher = talks()
    watcher.call("initialize", protocolVersion=1)
    other = watcher.send("session/load", sessionId=session, cwd=str(talk.workspace), mcpServers=[])
    watcher.answer(other)
    while len(watcher.text) < LONG * 1000:
        watcher.read()
    assert watcher.text == "x" * LONG * 1000
    assert talk.answer(long)["result"]["stopReason"] == "end_turn"
    assert talk.text == "x" * LONG * 1000
    assert talk.end() == watcher.end() == 0


@proves("ACP", "P2", "P7")
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_what_was_told_before_a_kill_is_there_after_it(talks: Any) -> None:
    talk = talks()
    session = talk.begin()
    talk.answer(talk.prompt(session, "echo first "))
    talk.prompt(session, "repeat 90000 more")
    talk.prompt(session, "echo behind it")
    while len(talk.text) < 10_000:
        talk.read()
    talk.process.send_signal(signal.SIGKILL)
    talk.process.wait()
    again = talks()
    again.call("initialize", protocolVersion=1)
    opened = again.send("session/load", sessionId=session, cwd=str(talk.workspace), mcpServers=[])
    again.answer(opened)
    assert again.text.startswith("first")
    while not again.text.endswith("behind it"):  # what waited runs, once
        again.read()
    assert again.text.count("behind it") == 1
    assert again.end() == 0


@proves("ACP", "P6")
def test_noise_on_the_line_is_answered_and_costs_nothing(talks: Any) -> None:
    talk = talks()
    session = talk.begin()
    talk.call("session/list")
    for noise, code in (
        (b"{nonsense}\n", -32700),
        (b'"text"\n', -32600),
        (b"[]\n", -32600),
        (b'{"jsonrpc":"1.0","id":7}\n', -32600),
        (b"\xff\xfe\n", -32700),
        (b"[" * 5_000 + b"\n", -32600),
    ):
        talk.write(noise)
        assert talk.read()["error"]["code"] == code, noise[:20]
    talk.write(b"\r\n \n\n")
    assert talk.answer(talk.prompt(session, "echo fine"))["result"]["stopReason"] == "end_turn"
    assert talk.end() == 0


VALUES: list[Any] = [
    *(None, True, 0, -1, 1e300, "", "x", "/", "\ud800", [], {}, [[]], {"type": "text"}),
    *([{"type": "text", "text": "hi"}], [{"type": "resource"}], "a" * 5_000, {"_meta": 7}),
]
FIELDS = (
    *("sessionId", "cwd", "mcpServers", "prompt", "modeId", "configId", "value", "cursor"),
    *("methodId", "additionalDirectories", "_meta", "requestId"),
)
METHODS = (
    *("session/new", "session/load", "session/resume", "session/list", "session/close"),
    *("session/delete", "session/prompt", "session/set_mode", "session/set_config_option"),
    *("authenticate", "initialize", "session/fork", "session/cancel", "$/cancel_request", "a/b"),
)


@proves("ACP", "P6")
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_asked_is_answered_once(talks: Any, seed: int) -> None:
    rng = random.Random(seed)
    talk = talks()
    session = talk.begin()
    asked = []
    for _ in range(300):
        params = {field: rng.choice(VALUES) for field in rng.sample(FIELDS, rng.randrange(6))}
        params |= {"sessionId": session} if rng.random() < 0.3 else {}
        params |= {"cwd": str(talk.workspace)} if rng.random() < 0.3 else {}
        asked.append(talk.send(rng.choice(METHODS), **params))
    asked.append(talk.send("session/list"))
    waiting = set(asked)
    while waiting:
        message = talk.read()
        if "method" not in message:
            assert message["id"] in waiting, "answered twice, or never asked"
            waiting.remove(message["id"])
            assert ("result" in message) != ("error" in message)
            assert message.get("error", {}).get("code") != -32603, message
    assert talk.end() == 0


@proves("ACP", "P6")
def test_the_first_byte_tells_and_the_word_acp_decides(talks: Any) -> None:
    for arguments in (("serve",), ("acp",)):
        talk = talks(*arguments)
        assert talk.begin()
        assert talk.end() == 0
    talk = talks("acp")
    talk.write(b"Content-Length: 2\r\n\r\n")
    assert talk.read()["error"]["code"] == -32700
    assert talk.begin()
    assert talk.end() == 0


@proves("ACP", "P6")
def test_a_request_can_be_withdrawn(talks: Any) -> None:
    talk = talks()
    session = talk.begin()
    number = talk.prompt(session, "repeat 90000 more")
    while "more" not in talk.text:
        talk.read()
    note = {"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": number}}
    talk.write(json.dumps(note).encode() + b"\n")
    assert talk.answer(number)["result"]["stopReason"] == "cancelled"
    assert talk.end() == 0


@proves("ACP", "P1")
def test_settings_that_cannot_be_read_are_said_at_every_request(talks: Any, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("provider = 'nobody'\n")
    talk = talks(config=str(file))
    talk.call("initialize", protocolVersion=1)
    number = talk.send("session/new", cwd=str(tmp_path), mcpServers=[])
    error = talk.answer(number)["error"]
    assert "settings.toml" in error["message"]
    assert talk.end() == 0
