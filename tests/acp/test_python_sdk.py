"""The protocol's own Python client holds conversations with the real process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acp.conftest import Agent
from tests.acp.official import needs_schema
from tests.e2e.raw_client import RawClient
from tests.e2e.raw_client import command as native
from tests.requirements import proves

acp = pytest.importorskip("acp", reason="needs the extra 'test'")
from acp import schema, text_block  # noqa: E402

pytestmark = [needs_schema, pytest.mark.anyio]
DEADLINE = 30.0


class Editor(acp.Client):
    """What an editor does: shows updates, asks the user, knows unsaved texts."""

    def __init__(self) -> None:
        self.updates: dict[str, list[Any]] = {}
        self.choose: Callable[[str, list[Any]], str | None] = lambda title, options: "allow"
        self.asked: list[str] = []
        self.thinks: asyncio.Event | None = None
        """The user takes until this is set."""
        self.unsaved: dict[str, str] = {}
        self.news = asyncio.Event()
        self.terminals: dict[str, asyncio.subprocess.Process] = {}
        self.released: list[str] = []

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.updates.setdefault(session_id, []).append(update)
        self.news.set()

    async def request_permission(
        self, options: Any = None, session_id: str = "", tool_call: Any = None, **_: Any
    ) -> Any:
        self.asked.append(tool_call.title)
        self.news.set()
        if self.thinks is not None:
            await self.thinks.wait()
        chosen = self.choose(tool_call.title, options)
        if chosen is None:
            outcome: Any = schema.DeniedOutcome(outcome="cancelled")
        else:
            outcome = schema.AllowedOutcome(outcome="selected", option_id=chosen)
        return schema.RequestPermissionResponse(outcome=outcome)

    async def read_text_file(self, path: str, session_id: str = "", **_: Any) -> Any:
        text = self.unsaved.get(path) or Path(path).read_text()  # noqa: ASYNC240
        return schema.ReadTextFileResponse(content=text)

    async def write_text_file(self, content: str, path: str, session_id: str = "", **_: Any) -> Any:
        self.unsaved[path] = content
        return schema.WriteTextFileResponse()

    async def create_terminal(
        self, command: str, session_id: str = "", args: Any = None, cwd: Any = None, **_: Any
    ) -> Any:
        process = await asyncio.create_subprocess_exec(
            command,
            *(args or []),
            cwd=cwd,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.terminals[str(process.pid)] = process
        return schema.CreateTerminalResponse(terminal_id=str(process.pid))

    async def wait_for_terminal_exit(
        self, session_id: str = "", terminal_id: str = "", **_: Any
    ) -> Any:
        code = await self.terminals[terminal_id].wait()
        return schema.WaitForTerminalExitResponse(exit_code=code if code >= 0 else None)

    async def terminal_output(self, session_id: str = "", terminal_id: str = "", **_: Any) -> Any:
        process = self.terminals[terminal_id]
        assert process.stdout is not None
        text = (await process.stdout.read()).decode()
        code = await process.wait()
        status = schema.TerminalExitStatus(exit_code=code if code >= 0 else None)
        return schema.TerminalOutputResponse(output=text, truncated=False, exit_status=status)

    async def kill_terminal(self, session_id: str = "", terminal_id: str = "", **_: Any) -> Any:
        os.killpg(int(terminal_id), signal.SIGKILL)
        return schema.KillTerminalResponse()

    async def release_terminal(self, session_id: str = "", terminal_id: str = "", **_: Any) -> Any:
        if self.terminals[terminal_id].returncode is None:
            os.killpg(int(terminal_id), signal.SIGKILL)
        self.released.append(terminal_id)
        return schema.ReleaseTerminalResponse()

    def text(self, session_id: str, kind: str = "agent_message_chunk") -> str:
        return "".join(
            u.content.text
            for u in self.updates.get(session_id, [])
            if u.session_update == kind and u.content.type == "text"
        )

    def kinds(self, session_id: str) -> list[str]:
        return [u.session_update for u in self.updates.get(session_id, [])]

    async def until(self, is_so: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not is_so():
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def connected(agent: Agent) -> AsyncIterator[tuple[Any, Editor]]:
    """A process and the SDK's end of it. It leaves when its stdin is closed."""
    editor = Editor()
    process = await asyncio.create_subprocess_exec(
        *agent.command(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=agent.env,
        cwd=agent.workspace,
        limit=1 << 24,
    )
    connection = acp.connect_to_agent(editor, process.stdin, process.stdout)
    try:
        async with asyncio.timeout(DEADLINE * 2):
            yield connection, editor
    finally:
        await connection.close()
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 0


@asynccontextmanager
async def editing(
    agent: Agent, terminal: bool = False, **fs: bool
) -> AsyncIterator[tuple[Any, Editor]]:
    async with connected(agent) as (connection, editor):
        abilities = schema.ClientCapabilities(
            fs=schema.FileSystemCapabilities(**fs), terminal=terminal
        )
        answer = await connection.initialize(protocol_version=1, client_capabilities=abilities)
        assert answer.protocol_version == 1
        assert answer.agent_capabilities.load_session
        yield connection, editor


async def session(connection: Any, agent: Agent, mode: str = "chat", **more: Any) -> str:
    made = await connection.new_session(cwd=str(agent.workspace), mcp_servers=[], **more)
    assert made.modes.current_mode_id == "chat"
    if mode != "chat":
        await connection.set_session_mode(mode_id=mode, session_id=made.session_id)
    return str(made.session_id)


async def ask(connection: Any, session_id: str, text: str) -> str:
    answer = await connection.prompt(prompt=[text_block(text)], session_id=session_id)
    return str(answer.stop_reason)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@proves("ACP", "P1")
async def test_three_sessions_at_once_each_hear_their_own(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        sessions = [await session(connection, agent) for _ in range(3)]
        reasons = await asyncio.gather(
            *(ask(connection, id_, f"repeat 50 {n} ") for n, id_ in enumerate(sessions))
        )
        assert reasons == ["end_turn"] * 3
        for number, id_ in enumerate(sessions):
            assert editor.text(id_) == str(number) * 50
            assert "available_commands_update" in editor.kinds(id_)
            assert editor.text(id_, "user_message_chunk") == "", "the client has shown it itself"


@proves("ACP", "P9")
@pytest.mark.parametrize(
    ("chosen", "made"), [("allow", True), ("reject", False), (None, False), ("nonsense", False)]
)
async def test_a_tool_asks_and_does_as_it_is_told(
    agent: Agent, chosen: str | None, made: bool
) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent, "build")
        editor.choose = lambda *_: chosen
        reason = await ask(connection, id_, 'tool create {"path": "new.txt", "text": "hi"}')
        assert reason == "end_turn"
        assert (agent.workspace / "new.txt").exists() == made
        assert editor.asked == ["Create new.txt"]
        calls = [u for u in editor.updates[id_] if u.session_update.startswith("tool_call")]
        assert len({call.tool_call_id for call in calls}) == 1
        assert [call.status for call in calls] == [
            "pending",
            "in_progress",
            "completed" if made else "failed",
        ]


@proves("ACP", "RULES")
async def test_what_is_always_allowed_is_not_asked_again(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent, "build")
        offered: list[str] = []

        def choose(_: str, options: list[Any]) -> str:
            offered.extend(option.kind for option in options)
            return "always"

        editor.choose = choose
        for _ in range(2):
            await ask(connection, id_, 'tool run {"command": "echo again"}')
        assert offered == ["allow_once", "allow_always", "reject_once"]
        assert len(editor.asked) == 1


@proves("ACP", "P7")
async def test_cancelling_in_flight_and_idle(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent)
        await connection.cancel(session_id=id_)
        assert await ask(connection, id_, "echo still here") == "end_turn"
        endless = asyncio.ensure_future(ask(connection, id_, "repeat 90000 more"))
        waiting = asyncio.ensure_future(ask(connection, id_, "echo never"))
        await editor.until(lambda: "more" in editor.text(id_))
        await connection.cancel(session_id=id_)
        assert await asyncio.gather(endless, waiting) == ["cancelled", "cancelled"]
        assert await ask(connection, id_, "echo after") == "end_turn"
        assert editor.text(id_).endswith("after")
        assert "never" not in editor.text(id_)


@proves("ACP", "P9", "P7")
async def test_cancelling_while_a_question_is_open_withdraws_it(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent, "build")
        editor.thinks = asyncio.Event()
        call = 'tool create {"path": "new.txt", "text": "hi"}'
        asking = asyncio.ensure_future(ask(connection, id_, call))
        await editor.until(lambda: editor.asked)
        await connection.cancel(session_id=id_)
        assert await asking == "cancelled"
        editor.thinks.set()
        assert not (agent.workspace / "new.txt").exists()
    assert "$/cancel_request" in [frame.get("method") for frame in agent.said()]


@proves("ACP", "P1")
async def test_a_prompt_behind_another_is_answered_after_it(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent)
        asked = [ask(connection, id_, f"echo {n}.") for n in range(5)]
        assert await asyncio.gather(*asked) == ["end_turn"] * 5
        assert editor.text(id_) == "0.1.2.3.4."


@proves("ACP", "P2", "P3")
async def test_what_was_said_is_told_again_by_another_process(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent, "build")
        await ask(connection, id_, "think hm")
        await ask(connection, id_, 'tool create {"path": "new.txt", "text": "hi"}')
        before = editor.text(id_)
        listed = await connection.list_sessions(cwd=str(agent.workspace))
        assert [s.session_id for s in listed.sessions] == [id_]
        elsewhere = await connection.list_sessions(cwd=str(agent.store.parent))
        assert elsewhere.sessions == []
    async with editing(agent) as (connection, editor):
        loaded = await connection.load_session(
            cwd=str(agent.workspace), session_id=id_, mcp_servers=[]
        )
        assert loaded.modes.current_mode_id == "build"
        assert editor.text(id_) == before, "all of it, before the answer"
        assert editor.text(id_, "user_message_chunk").startswith("think hm")
        assert editor.text(id_, "agent_thought_chunk") == "hm"
        calls = [u for u in editor.updates[id_] if u.session_update.startswith("tool_call")]
        assert [call.status for call in calls] == ["in_progress", "completed"]
    async with editing(agent) as (connection, editor):
        await connection.resume_session(cwd=str(agent.workspace), session_id=id_, mcp_servers=[])
        await ask(connection, id_, "echo more")
        assert editor.text(id_) == "more", "nothing of before"


@proves("ACP")
async def test_closing_and_deleting(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent)
        hanging = asyncio.ensure_future(ask(connection, id_, "hang"))
        await editor.until(lambda: "session_info_update" in editor.kinds(id_))
        await connection.close_session(session_id=id_)
        assert await hanging == "cancelled"
        with pytest.raises(acp.RequestError) as failed:
            await ask(connection, id_, "echo closed")
        assert failed.value.code == -32002
        await connection.load_session(cwd=str(agent.workspace), session_id=id_, mcp_servers=[])
        await connection._conn.send_request("session/delete", {"sessionId": id_})
        assert (await connection.list_sessions()).sessions == []
        for method in ("session/load", "session/resume", "session/delete", "session/close"):
            params = {"sessionId": id_, "cwd": str(agent.workspace), "mcpServers": []}
            with pytest.raises(acp.RequestError) as failed:
                await connection._conn.send_request(method, params)
            assert failed.value.code == -32002, method


@proves("ACP", "P6")
@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("session/new", {"mcpServers": []}, -32602),
        ("session/new", {"cwd": "relative", "mcpServers": []}, -32602),
        ("session/new", {"cwd": "/no/such/folder", "mcpServers": []}, -32602),
        ("session/new", {"cwd": "/", "mcpServers": "none"}, -32602),
        ("session/prompt", {"sessionId": "{}", "prompt": [{"type": "text"}]}, -32602),
        ("session/prompt", {"sessionId": "{}", "prompt": []}, -32602),
        (
            "session/prompt",
            {"sessionId": "{}", "prompt": [{"type": "image", "mimeType": "a/b", "data": ""}]},
            -32602,
        ),
        ("session/prompt", {"sessionId": "nobody", "prompt": []}, -32002),
        ("session/set_mode", {"sessionId": "{}", "modeId": "root"}, -32602),
        (
            "session/set_config_option",
            {"sessionId": "{}", "configId": "colour", "value": "red"},
            -32602,
        ),
        ("session/list", {"cursor": "nonsense"}, -32602),
        ("authenticate", {"methodId": "nothing"}, -32602),
        ("session/fork", {"sessionId": "{}", "cwd": "/"}, -32601),
        ("no/such_method", {}, -32601),
        ("initialize", {"protocolVersion": 1}, -32600),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_answered_and_costs_nothing(
    agent: Agent, method: str, params: dict[str, Any], code: int
) -> None:
    async with editing(agent) as (connection, _):
        id_ = await session(connection, agent)
        given = {k: id_ if v == "{}" else v for k, v in params.items()}
        with pytest.raises(acp.RequestError) as failed:
            await connection._conn.send_request(method, given)
        assert failed.value.code == code
        assert str(failed.value)
        assert await ask(connection, id_, "echo fine") == "end_turn"


@proves("ACP")
async def test_mode_and_options_can_be_chosen(agent: Agent) -> None:
    agent.env |= {"AGENT_SIDECAR_PROVIDER": "openai", "OPENAI_API_KEY": "sk-test-of-nothing"}
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent)

        async def choose(option: str, value: str) -> dict[str, str]:
            answer = await connection.set_config_option(
                config_id=option, value=value, session_id=id_
            )
            return {o.id: o.current_value for o in answer.config_options}

        assert (await choose("mode", "feedback"))["mode"] == "feedback"
        assert (await choose("thought_level", "high"))["thought_level"] == "high"
        assert (await choose("thought_level", "default"))["thought_level"] == "default"
        assert (await choose("model", "gpt-5.4-mini"))["model"] == "gpt-5.4-mini"
        assert "current_mode_update" in editor.kinds(id_)
        assert "config_option_update" in editor.kinds(id_)
        other = await session(connection, agent)
        editor.updates.clear()
        await choose("model", "gpt-5.4-mini")
        await editor.until(lambda: "config_option_update" in editor.kinds(other))


@proves("ACP", "P10")
async def test_a_key_that_is_missing_is_asked_for_in_words(agent: Agent) -> None:
    agent.env |= {"AGENT_SIDECAR_PROVIDER": "anthropic"}
    async with editing(agent) as (connection, _):
        id_ = await session(connection, agent)
        for call in (
            ask(connection, id_, "echo x"),
            connection.authenticate(method_id="environment"),
        ):
            with pytest.raises(acp.RequestError) as failed:
                await call
            assert failed.value.code == -32000
            assert "ANTHROPIC_API_KEY" in f"{failed.value} {failed.value.data}"
    agent.env |= {"ANTHROPIC_API_KEY": "sk-test-of-nothing"}
    async with editing(agent) as (connection, _):
        id_ = await session(connection, agent)
        await connection.authenticate(method_id="environment")
        await connection._conn.send_request("logout", {})
        with pytest.raises(acp.RequestError) as failed:
            await ask(connection, id_, "echo x")
        assert failed.value.code == -32000


@proves("ACP", "TOOLS-EDIT")
async def test_agents_read_and_change_what_the_editor_shows(agent: Agent) -> None:
    file = agent.workspace / "a.txt"
    file.write_text("saved\n")
    async with editing(agent, read_text_file=True, write_text_file=True) as (connection, editor):
        editor.unsaved[str(file)] = "unsaved\n"
        id_ = await session(connection, agent, "build")
        await ask(connection, id_, 'tool read {"path": "a.txt"}')
        assert "unsaved" in editor.text(id_)
        change = '{"path": "a.txt", "oldText": "unsaved", "newText": "changed"}'
        await ask(connection, id_, f"tool edit {change}")
        assert editor.unsaved[str(file)] == "changed\n"
        assert file.read_text() == "saved\n", "its user decides when it is saved"


@proves("ACP", "TOOLS-RUN")
@pytest.mark.skipif(os.name == "nt", reason="commands of a POSIX shell")
async def test_what_is_not_confined_runs_in_the_editors_terminal(agent: Agent) -> None:
    async with editing(agent, terminal=True) as (connection, editor):
        id_ = await session(connection, agent, "build")
        for command, said in (
            ("echo seen; pwd", f"Exit code 0.\\nseen\\n{agent.workspace}"),
            ("exit 3", "Exit code 3."),
            ("sleep 600", "Stopped."),
        ):
            before = len(editor.text(id_))
            arguments = f'{{"command": "{command}", "unconfined": true, "timeoutSeconds": 1}}'
            await ask(connection, id_, f"tool run {arguments}")
            assert said.replace("\\n", "\n") in editor.text(id_)[before:]
        assert (
            editor.asked
            == [
                f"Run in {agent.workspace} (not confined: as you, with network, in the editor's "
                "terminal)"
            ]
            * 3
        )
        assert sorted(editor.released) == sorted(editor.terminals)
        shown = [
            part.terminal_id
            for update in editor.updates[id_]
            if update.session_update == "tool_call_update"
            for part in update.content or []
            if part.type == "terminal"
        ]
        assert shown == list(editor.terminals)


@proves("ACP", "MCP")
async def test_the_clients_servers_of_tools_are_that_sessions(agent: Agent) -> None:
    script = Path(__file__).parents[1] / "tools" / "mcp_server.py"
    server = schema.McpServerStdio(
        name="s",
        command=sys.executable,
        args=[str(script), str(agent.workspace)],
        env=[schema.EnvVariable(name="API_KEY", value="canary")],
    )
    async with editing(agent) as (connection, editor):
        made = await connection.new_session(cwd=str(agent.workspace), mcp_servers=[server])
        with_it, without = made.session_id, await session(connection, agent, "build")
        await connection.set_session_mode(mode_id="build", session_id=with_it)
        for id_ in (with_it, without):
            await ask(connection, id_, "tool s__look {}")
        assert "looked around" in editor.text(with_it)
        assert "There is no tool 's__look'" in editor.text(without)
        assert editor.asked == ["Use look of the MCP server s"]


@proves("ACP", "P8", "P9")
async def test_an_editor_with_the_native_face_has_the_same_conversation(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent, "build")
        window = await asyncio.to_thread(Window, agent, id_)
        try:
            editor.thinks = asyncio.Event()
            call = 'tool create {"path": "new.txt", "text": "hi"}'
            asking = asyncio.ensure_future(ask(connection, id_, call))
            await editor.until(lambda: editor.asked)
            await asyncio.to_thread(window.answer, "deny")
            assert await asking == "end_turn"
            editor.thinks.set()
            assert not (agent.workspace / "new.txt").exists(), "the first answer counted"
            await asyncio.to_thread(window.send, "echo from the window")
            await editor.until(lambda: editor.text(id_).endswith("from the window"))
            assert editor.text(id_, "user_message_chunk") == "echo from the window"
        finally:
            await asyncio.to_thread(window.close)


@proves("ACP", "P8")
async def test_closing_a_session_stops_nobody_elses_turn(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent)
        await ask(connection, id_, "echo mine")  # its agent is here from now on
        window = await asyncio.to_thread(Window, agent, id_)
        try:
            sent = asyncio.create_task(asyncio.to_thread(window.send, "repeat 20000 theirs"))
            await editor.until(lambda: "theirs" in editor.text(id_))
            await connection.close_session(session_id=id_)
            assert await sent == "endTurn"
        finally:
            await asyncio.to_thread(window.close)


@proves("ACP", "P3")
async def test_opening_a_session_again_stops_nothing(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent)
        asked = asyncio.create_task(ask(connection, id_, "repeat 20000 more"))
        await editor.until(lambda: "more" in editor.text(id_))
        editor.updates.clear()
        await connection.load_session(cwd=str(agent.workspace), session_id=id_, mcp_servers=[])
        assert await asked == "end_turn"
        assert editor.text(id_).count("more") >= 20_000


@proves("ACP", "P8", "P9")
@pytest.mark.parametrize("how", ["closes", "does not answer"])
async def test_who_only_looks_on_denies_nothing_by_leaving(agent: Agent, how: str) -> None:
    async with editing(agent) as (connection, editor):
        id_, other = [await session(connection, agent, "build") for _ in "ab"]
        window = await asyncio.to_thread(Window, agent, id_)
        try:
            editor.thinks = asyncio.Event()
            editor.choose = lambda *_: None
            call = 'tool create {"path": "n.txt", "text": "hi"}'
            sent = asyncio.create_task(asyncio.to_thread(window.send, call))
            await editor.until(lambda: editor.asked)
            if how == "closes":
                await connection.close_session(session_id=id_)
            editor.thinks.set()
            await ask(connection, other, "echo behind the answer")
            await asyncio.to_thread(window.answer, "allow")
            assert await sent == "endTurn"
            assert (agent.workspace / "n.txt").exists()
        finally:
            await asyncio.to_thread(window.close)


@proves("ACP", "P8")
async def test_a_question_that_is_open_already_is_about_a_call_that_was_told(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent, "build")
        window = await asyncio.to_thread(Window, agent, id_)
        try:
            await connection.close_session(session_id=id_)
            call = 'tool create {"path": "n.txt", "text": "hi"}'
            sent = asyncio.create_task(asyncio.to_thread(window.send, call))
            while not await asyncio.to_thread(window.questions):
                continue
            await connection.load_session(cwd=str(agent.workspace), session_id=id_, mcp_servers=[])
            await editor.until(lambda: editor.asked)
            assert await sent == "endTurn"
            await editor.until(lambda: "said" in editor.text(id_))
            calls = [u for u in editor.updates[id_] if u.session_update.startswith("tool_call")]
            assert calls[0].session_update == "tool_call"
            assert [call.status for call in calls] == ["pending", "in_progress", "completed"]
        finally:
            await asyncio.to_thread(window.close)


@proves("ACP", "P9")
async def test_opening_a_session_again_asks_again_and_denies_nothing(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent, "build")
        editor.thinks = asyncio.Event()
        call = 'tool create {"path": "n.txt", "text": "hi"}'
        asked = asyncio.create_task(ask(connection, id_, call))
        await editor.until(lambda: editor.asked)
        editor.updates.clear()
        await connection.load_session(cwd=str(agent.workspace), session_id=id_, mcp_servers=[])
        await editor.until(lambda: len(editor.asked) == 2)
        editor.thinks.set()
        assert await asked == "end_turn"
        assert (agent.workspace / "n.txt").exists()
        calls = [u for u in editor.updates[id_] if u.session_update.startswith("tool_call")]
        assert [call.status for call in calls] == ["pending", "in_progress", "completed"]
        assert [call.session_update for call in calls] == ["tool_call", *["tool_call_update"] * 2]


@proves("ACP", "P7")
async def test_a_prompt_can_be_cancelled_before_it_is_one(agent: Agent) -> None:
    file = agent.workspace / "a.txt"
    file.write_text("x\n")
    link = schema.ResourceContentBlock(type="resource_link", name="a", uri=file.as_uri())
    async with editing(agent) as (connection, _):
        id_ = await session(connection, agent)
        prompt = [text_block("/feedback x"), link]
        asked = asyncio.ensure_future(connection.prompt(prompt=prompt, session_id=id_))
        await asyncio.ensure_future(connection.cancel(session_id=id_))
        assert (await asked).stop_reason == "cancelled"


@proves("ACP")
async def test_a_session_is_opened_with_folders_that_are_its_own(
    agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "extra").mkdir()
    async with editing(agent) as (connection, _):
        id_ = await session(connection, agent)
        for more in (str(tmp_path / "extra"), "relative", "/no/such/folder"):
            with pytest.raises(acp.RequestError) as failed:
                await connection.load_session(
                    cwd=str(agent.workspace),
                    session_id=id_,
                    mcp_servers=[],
                    additional_directories=[more],
                )
            assert failed.value.code == -32602


class Window:
    """Another editor on the same store."""

    def __init__(self, agent: Agent, conversation_id: str) -> None:
        self._id = conversation_id
        self._client = RawClient(native(agent.store), env=agent.env, cwd=agent.workspace)
        options = {"settings": {"provider": "scripted"}}
        self._client.start(initializationOptions=options)
        self._client.call("conversation/subscribe", {"conversationId": conversation_id})

    def questions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.call("approval/list", {})["approvals"]
        return found

    def answer(self, decision: str) -> None:
        open_ = self.questions()
        params = {
            "approvalId": open_[0]["approvalId"],
            "contentHash": open_[0]["contentHash"],
            "decision": decision,
        }
        self._client.call("approval/respond", params)

    def send(self, text: str) -> str:
        params = {"conversationId": self._id, "input": text}
        return str(self._client.call("message/send", params)["stopReason"])

    def close(self) -> None:
        self._client.dispose()


@proves("ACP", "P1")
async def test_a_prompt_that_is_sent_again_under_its_key_is_not_asked_again(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent)
        params = {
            "sessionId": id_,
            "prompt": [{"type": "text", "text": "echo once"}],
            "_meta": {"agent-sidecar": {"requestKey": "k-1"}},
        }
        answers = [await connection._conn.send_request("session/prompt", params) for _ in "ab"]
        assert answers[0]["_meta"] == answers[1]["_meta"]
        assert answers[0]["_meta"]["agent-sidecar"]["requestKey"] == "k-1"
        assert editor.text(id_) == "once"
    seqs = [
        frame["params"]["_meta"]["agent-sidecar"]["seq"]  # type: ignore[index]
        for frame in agent.said()
        if frame.get("method") == "session/update" and "_meta" in frame["params"]  # type: ignore[operator]
    ]
    assert seqs == sorted(seqs)


@proves("ACP")
async def test_a_copy_goes_on_by_itself(agent: Agent) -> None:
    agent.schema = "schema.unstable.json"
    async with connected(agent) as (connection, editor):
        meta = {"agent-sidecar": {"unstable": True}}
        await connection._conn.send_request("initialize", {"protocolVersion": 1, "_meta": meta})
        id_ = await session(connection, agent)
        await ask(connection, id_, "echo one")
        copy = await connection._conn.send_request(
            "session/fork", {"sessionId": id_, "cwd": str(agent.workspace), "mcpServers": []}
        )
        await ask(connection, copy["sessionId"], "echo two")
        assert editor.text(id_) == "one"
        assert editor.text(copy["sessionId"]) == "two"
        await ask(connection, copy["sessionId"], 'tool list {"path": "."}')
        assert "There is no tool" not in editor.text(copy["sessionId"])


@proves("ACP", "P7")
async def test_nothing_listens(agent: Agent) -> None:
    async with editing(agent) as (connection, editor):
        id_ = await session(connection, agent, "build")
        command = "ls -l /proc/*/fd 2>/dev/null | grep -c socket; true"
        await ask(connection, id_, f'tool run {{"command": "{command}", "unconfined": true}}')
        found = await asyncio.to_thread(listening, agent.store)
        assert found == []
        assert editor.asked


def listening(store: Path) -> list[str]:
    """Sockets that our processes wait for connections on."""
    if not Path("/proc/self/net/tcp").exists():
        return []
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(store).encode() not in (process / "cmdline").read_bytes():
                continue
            inodes = {os.readlink(fd) for fd in (process / "fd").iterdir()}
        except OSError:  # it ended meanwhile
            continue
        for table in ("tcp", "tcp6"):
            for line in (process / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    found.append(line)
    return found
