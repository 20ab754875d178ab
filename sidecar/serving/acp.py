"""Serving an editor that speaks the Agent Client Protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from ..errors import InitializationFailed
from ..events import Delta
from ..faces.acp.client import ClientFiles, ClientTerminal, Permissions
from ..faces.acp.face import AcpFace
from ..faces.acp.narration import Update
from ..faces.acp.own import OwnTurns
from ..faces.acp.protocol import AcpProtocol
from ..faces.acp.session import Room, Session, delta_body, update_body
from ..faces.editor import Editor
from ..faces.permissions import PermissionRequests
from ..faces.rpc import Handler, Rpc, whole_characters
from ..manager import AgentManager
from ..settings import Config, McpServer, patched
from ..stores.sqlite import SqliteStore
from ..toolbox import LateSource, ToolSource
from ..wire import acp
from ..wire.lines import line
from . import factories
from .process import INFORM, WARN, Serving

if TYPE_CHECKING:
    from ..faces.prologue import Handover

logger = logging.getLogger(__name__)


NO_MCP = (
    "The tools of MCP servers are missing: what speaks to them is not installed "
    "(pip install 'agent-sidecar[mcp]')."
)


class _Call(msgspec.Struct):
    params: dict[str, Any]


def run(handover: Handover, stdout: int, store: str | None) -> int:
    """Serve until the editor is gone; returns the exit code."""
    return anyio.run(AcpServing(handover, stdout, store).main)


class AcpServing(Serving):
    def __init__(self, handover: Handover, stdout: int, store: str | None) -> None:
        super().__init__(handover, stdout, store)
        params = initialize_of(handover.initialize)
        self._abilities = params.client_capabilities or acp.ClientAbilities()
        self._is_unstable = params.ours.unstable
        self._sessions: dict[str, Session] = {}
        self._reads_again = Room()
        self._notices: list[Update] = []
        """What no session was there to show yet."""
        try:
            self.config = environment()
        except InitializationFailed as error:
            self._failure = error

    @property
    def is_trusted(self) -> bool:
        """The user chose the folder, and configured the servers, in the client."""
        return True

    def make_protocol(self) -> Rpc:
        return AcpProtocol(lambda name: partial(self.handle, name), unstable=self._is_unstable)

    def wrap(self, body: bytes) -> bytes:
        return line(body)

    def encode(self, delta: Delta) -> bytes:
        return delta_body(delta)

    async def begin(
        self, manager: AgentManager, store: SqliteStore, tasks: TaskGroup
    ) -> Mapping[str, Handler]:
        own = OwnTurns(self.journal)
        asking = Permissions(self.protocol.ask, self._sessions, own)
        permissions = PermissionRequests(
            self.journal, manager.approvals, asking.ask, asking.concerns
        )
        tasks.start_soon(permissions.run, name="permissions")
        self._session_tools = SessionTools(store.mark, tasks, self.show)
        face = AcpFace(
            manager,
            self.writer,
            tasks,
            sessions=self._sessions,
            room=self._reads_again,
            permissions=permissions,
            own=own,
            tools=self._session_tools,
            environment=environment,
            notices=self._notices,
        )
        return face.handlers()

    def editor_of(self, conversation_id: str) -> Editor:
        return ClientFiles(self.protocol.ask, conversation_id, self._abilities.fs)

    def terminal_of(self, conversation_id: str) -> ClientTerminal | None:
        if not self._abilities.terminal:
            return None
        return ClientTerminal(self.protocol.ask, conversation_id, self._sessions)

    def sources(self, conversation_id: str) -> Sequence[ToolSource]:
        return self._session_tools.of(conversation_id)

    def drained(self) -> None:
        self._reads_again.made()

    def show(self, message: str, kind: str = WARN) -> None:
        """A notice, to who has said that it shows them; the log has it in any case."""
        logger.log(logging.INFO if kind == INFORM else logging.WARNING, "%s", message)
        if self._abilities.session is None or self._abilities.session.notices is None:
            return
        notice = {"sessionUpdate": "notice", "severity": kind, "title": message}
        if not self._sessions:
            self._notices.append(notice)
        for session_id in tuple(self._sessions):
            self.writer.send(update_body(session_id, notice))


class SessionTools:
    """The MCP servers that a client names for a session: in memory, and gone with it."""

    def __init__(self, mark: str, tasks: TaskGroup, tell: Callable[[str], None]) -> None:
        self._mark = mark
        self._tell = tell
        self._tasks = tasks
        self._sources: dict[str, LateSource] = {}

    def use(self, session: Session, servers: Sequence[acp.ServerOfTools]) -> None:
        if servers and find_spec("mcp") is None:
            self._tell(NO_MCP)
        wanted = {server.name: settings_of(server) for server in servers}
        source = LateSource(lambda: wanted, partial(factories.make_session_mcp, self._mark))
        self._sources[session.session_id] = source
        self._tasks.start_soon(self._run, session, source, name="mcp of a session")

    async def _run(self, session: Session, source: LateSource) -> None:
        try:
            with session.while_open():
                await source.run()
        finally:
            if self._sources.get(session.session_id) is source:
                del self._sources[session.session_id]

    def of(self, session_id: str) -> Sequence[ToolSource]:
        return [LaterSource(self._sources, session_id)]


class LaterSource:
    """An agent may be older than what a client names when it opens its session anew."""

    def __init__(self, sources: Mapping[str, LateSource], session_id: str) -> None:
        self._sources = sources
        self._session_id = session_id

    async def tools(self) -> Sequence[Any]:
        source = self._sources.get(self._session_id)
        return () if source is None else await source.tools()


def settings_of(server: acp.ServerOfTools) -> McpServer:
    return McpServer(
        command=server.command,
        args=server.args,
        env={pair.name: pair.value for pair in server.env},
        url=server.url,
        headers={pair.name: pair.value for pair in server.headers},
    )


def initialize_of(body: bytes) -> acp.Initialize:
    """It has been answered: what cannot be understood of it is taken as not said."""
    try:
        params = msgspec.json.decode(whole_characters(body), type=_Call).params
    except (msgspec.DecodeError, UnicodeDecodeError):
        logger.warning("initialize was not understood")
        return acp.Initialize()
    return acp.understood(params, acp.Initialize)


def environment() -> Config:
    """Settings and keys as a command in a terminal would have them. Raises
    `InitializationFailed` with what is wrong. Blocks."""
    from argparse import Namespace

    from ..commands.config import UsageError, options_from
    from ..settings import SecretsPatch, SettingsPatch

    nothing = Namespace(config=None, provider=None, model=None, keys_fd=None, store=None, log=None)
    try:
        options = options_from(nothing)
    except UsageError as error:
        raise InitializationFailed(" ".join(filter(None, (error.message, error.hint)))) from None
    return patched(
        Config(),
        msgspec.convert(options.settings, SettingsPatch),
        msgspec.convert(options.secrets, SecretsPatch),
    )
