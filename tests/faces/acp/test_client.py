"""What is asked of an ACP client, when the client or its session is gone, or says odd things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sidecar.conversations import Approval, ApprovalState
from sidecar.faces.acp.client import ClientTerminal, Permissions
from sidecar.faces.permissions import PermissionRequests
from sidecar.journal import Journal
from sidecar.serving.acp import SessionTools, initialize_of
from sidecar.wire import acp
from tests.fakes import run_virtually
from tests.managers import settle
from tests.requirements import proves

QUESTION = Approval(
    approval_id="q",
    conversation_id="a",
    turn_id="t",
    tool_call_id="c",
    tool="run",
    title="T",
    text="x",
    content_hash="h",
    state=ApprovalState.PENDING,
    requested_at=0,
    expires_at=0,
)


@proves("ACP", "P11")
def test_a_session_that_is_closed_before_it_is_asked_is_not_asked() -> None:
    async def run() -> None:
        sessions: dict[str, Any] = {"a": SimpleNamespace()}
        asked: list[str] = []

        async def ask(method: Any, params: Any) -> None:
            asked.append(method.name)

        own: Any = SimpleNamespace(has_turn=lambda turn_id: False)
        permissions = Permissions(ask, sessions, own)
        approvals: Any = SimpleNamespace()
        requests = PermissionRequests(Journal(), approvals, permissions.ask, permissions.concerns)
        async with anyio.create_task_group() as tasks:
            requests.ask_again([QUESTION])
            tasks.start_soon(requests.run)
            await anyio.lowlevel.checkpoint()
            sessions.clear()
            await settle()
            tasks.cancel_scope.cancel()
        assert asked == []

    run_virtually(run)


class OpenSession:
    session_id = "a"

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()

    @contextmanager
    def while_open(self) -> Iterator[None]:
        with self.scope:
            yield


@proves("ACP", "MCP", "P10")
def test_servers_of_a_closed_session_are_gone_with_their_keys_and_hold_nobody_up() -> None:
    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tools = SessionTools("", tasks, lambda text: None)
            session: Any = OpenSession()
            tools.use(session, [acp.ServerOfTools(name="x", command="nothing")])
            (source,) = tools.of("a")
            await settle()
            session.scope.cancel()
            await settle()
            with anyio.fail_after(2):
                assert list(await source.tools()) == []
            assert not tools._sources
            tasks.cancel_scope.cancel()

    run_virtually(run)


@proves("ACP")
@pytest.mark.parametrize(
    "abilities",
    [
        {"fs": None, "terminal": True},
        {"fs": {"readTextFile": "x"}, "terminal": True},
        {"terminal": True, "session": 3},
        {"terminal": True, "fs": 7, "unheardOf": {}},
    ],
)
def test_an_ability_that_makes_no_sense_costs_no_other(abilities: dict[str, Any]) -> None:
    meta = {"agent-sidecar": {"unstable": True}}
    params = {"protocolVersion": 1, "clientCapabilities": abilities, "_meta": meta}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    found = initialize_of(json.dumps(request).encode())
    assert found.ours.unstable
    assert found.client_capabilities is not None
    assert found.client_capabilities.terminal


@proves("ACP", "P7")
def test_a_terminal_that_is_made_while_the_turn_is_cancelled_is_released() -> None:
    said: list[str] = []

    async def run() -> None:
        made = anyio.Event()

        async def ask(method: Any, params: Any) -> Any:
            said.append(method.name)
            if method is acp.MAKE_TERMINAL:
                await made.wait()
                return acp.TerminalMade(terminal_id="1")
            await anyio.lowlevel.checkpoint()
            return acp.TerminalOutput(output="")

        use: Any = SimpleNamespace(turn_id="", tool_call_id="")
        terminal = ClientTerminal(ask, "a", {})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(terminal.run, ["x"], Path("/"), 10, use)
            await settle()
            tasks.cancel_scope.cancel()
            made.set()

    run_virtually(run)
    assert said[0] == "terminal/create"
    assert said[-1] == "terminal/release"
