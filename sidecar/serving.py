"""The second half of the composition root: parts, wiring, and the order in which they end.

    reader ─▶ protocol ─▶ native face ─▶ manager ─▶ agents ─▶ providers, tools
                 writer ◀─ connection ◀─ journal ◀──── store

Requests are taken from the first moment; those that need the store wait until it is open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import anyio

from . import log, paths, retention
from .conversations import Conversation
from .errors import AgentError, InitializationFailed
from .faces.connection import Connection, encode, notification
from .faces.editor import EditorFiles, offers
from .faces.jsonrpc import SidecarProtocol, make_server
from .faces.native import NativeFace
from .faces.options import process_to_watch, read_initialize
from .faces.parent import exit_of
from .faces.permissions import PermissionRequests
from .faces.rpc import Handler
from .faces.stdio import reader_of, room_in
from .faces.watchdog import Watchdog, editor_is_gone, leave_within, receive_signals
from .interfaces import ModelProvider
from .journal import Journal
from .manager import AgentManager
from .rewinding import FileUndo
from .settings import Config, McpServer, patched, problems
from .stores.sqlite import SqliteStore
from .toolbox import LateSource, Servers, Toolbox
from .wire import methods as wire
from .wire.frames import Frame, FrameError
from .wire.writer import FrameWriter

if TYPE_CHECKING:
    from .faces.prologue import Handover
    from .providers.worker import Workers

logger = logging.getLogger(__name__)

CHANGES_INTERVAL = 0.05
"""Seconds in which changes of the conversation list become one notification."""
AT_ONCE = 16
"""Requests that are taken before those before them are looked after."""
FLUSH_SECONDS = 1.0
"""How long the client gets to read what is left when we leave."""
REAP_INTERVAL = 5.0
"""Seconds between looks for children of sidecars that have died meanwhile."""
PATIENCE = 2.0
"""Seconds that opening the store may take before the user is told."""
SLOW_OPENING = (
    "It takes long to open the conversations. If it goes on: another program may hold the store; "
    "close other programs that use it."
)
READ_ONLY = (
    "The conversations can only be read: their folder cannot be written. Check its permissions "
    "and the room on its disk, then start again."
)
CLOSE_SECONDS = 5.0
"""How long everything gets to end; after that we leave anyway (P7)."""


def run(handover: Handover, stdout: int, store: str | None) -> int:
    """Serve until the editor says goodbye or is gone; returns the exit code."""
    return anyio.run(Serving(handover, stdout, store).main)


class Serving:
    """One editor's process. `main` owns everything; what it enters, it leaves."""

    def __init__(self, handover: Handover, stdout: int, store: str | None) -> None:
        self._handover = handover
        self._stdout = stdout
        self._path = Path(store) if store else paths.default_store()
        self._params, self._complaint = read_initialize(handover.initialize)
        self._journal = Journal()
        self._parser = handover.parser
        self._manager: AgentManager | None = None
        self._connection: Connection | None = None
        self._handlers: Mapping[str, Handler] = {}
        self._failure: AgentError | None = None
        self._opened = anyio.Event()
        self._over = anyio.Event()
        self._room = anyio.Event()
        self._arrival = asyncio.Event()  # set and cleared at every request; anyio's is made anew
        self._piece = b""
        self._in_a_hurry = False
        self._workers: Workers | None = None

    async def main(self) -> int:
        config = initial_config(self._params)
        log.set_up(config.settings.log_level, log.Redactor(lambda: self._secrets_in_use(config)))
        server = make_server(
            {m.name: partial(self._handle, m.name) for m in wire.METHODS}
            | {n.name: partial(self._handle, n.name) for n in wire.CLIENT_NOTIFICATIONS}
        )
        protocol = server.protocol
        assert isinstance(protocol, SidecarProtocol)
        async with anyio.create_task_group() as tasks:
            writer = FrameWriter(
                self._write,
                encode=lambda delta: notification("conversation/event", delta),
                room=room_in(self._stdout),
                on_drained=self._drained,
                on_broken=self._editor_gone,
            )
            self._writer, self._protocol = writer, protocol
            protocol.attach(tasks, writer.send)
            self._reader = reader_of(0, self._arrived, self._editor_gone)
            tasks.start_soon(self._receive, name="receiver")
            tasks.start_soon(self._watch_exit, name="exit")
            tasks.start_soon(self._watch_opening, name="opening")
            tasks.start_soon(self._tell_of_waiting, name="waiting for the store")
            if (editor := process_to_watch(self._params)) is not None:
                tasks.start_soon(self._watch_parent, editor, name="parent")
            self._watch_signals()
            watchdog = Watchdog(
                on_stall=self._stalled,
                is_alone=partial(editor_is_gone, 0, editor),
                leave=partial(os._exit, 1),
            )
            await self._serve(config)
            watchdog.close()
            tasks.cancel_scope.cancel()
        writer.close(FLUSH_SECONDS)
        return protocol.exit_code if protocol.exit_code is not None else 0

    # ---- the store and the manager ----

    async def _serve(self, config: Config) -> None:
        try:
            store = await SqliteStore.open(self._path, self._journal.publish)
        except AgentError as error:
            logger.error("the store cannot be opened", extra={"cause": error.message})
            self._failure = error
            self._opened.set()
            self._say_ready("", error.message)
            self._show(" ".join(filter(None, (error.message, error.hint))), kind=1)
            await self._over.wait()
            return
        self._mcp = LateSource(self._mcp_servers, partial(make_mcp, store.mark))
        manager = self._manager = self._make_manager(store, config)
        connection = Connection(self._writer, self._journal, store, manager.flusher)
        self._connection = connection
        manager.on_state = partial(connection.notify, "agent/state")
        manager.on_degraded = self._degraded
        manager.on_output = connection.tool_output
        store.on_damage = self._show
        store.on_held = manager.flusher.held
        told = store.change_no
        try:
            await self._settle_dead(store)
            async with manager.running(), anyio.create_task_group() as tasks:
                face = NativeFace(
                    manager,
                    connection,
                    self._protocol.timings,
                    webview_id=self._options.webview_id,
                    other_windows=store.other_windows,
                    mcp_states=self._mcp.states,
                )
                self._handlers = face.handlers()
                if offers(self._params.capabilities, "permissionRequest"):
                    permissions = PermissionRequests(
                        self._journal, manager.approvals, self._protocol.ask, manager.has_agent
                    )
                    tasks.start_soon(permissions.run, name="permissions")
                self._opened.set()
                self._say_ready(store.store_id, store.degraded)
                for line in (self._complaint, store.notice, store.degraded and READ_ONLY):
                    if line:
                        self._show(line)
                tasks.start_soon(self._tell_changes, store, connection, told, name="changes")
                tasks.start_soon(warm_up, self._make_workers(store), config, name="warm-up")
                tasks.start_soon(self._reap, store, name="reaper")
                tasks.start_soon(self._mcp.run, name="mcp")
                tasks.start_soon(store.keep_up, name="upkeep")
                tasks.start_soon(retention.sweep, manager, name="retention")
                await self._over.wait()
                await self._linger(manager)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
                if self._workers is not None:
                    self._workers.close()
                await store.aclose()

    async def _reap(self, store: SqliteStore) -> None:
        """End the children of sidecars that were killed: what their own end did not end."""
        thoroughly = store.was_left_unclean
        while store.degraded is None:
            try:
                if count := await store.reap_children(thoroughly=thoroughly):
                    logger.warning("children of a dead sidecar were ended", extra={"count": count})
            except AgentError as error:
                logger.info("no look for orphans", extra={"cause": error.message})
            thoroughly = False
            await anyio.sleep(REAP_INTERVAL)

    async def _settle_dead(self, store: SqliteStore) -> None:
        """What a process that died left running is settled before anybody looks at it."""
        if store.degraded is None:
            try:
                await store.recover()
            except AgentError as error:
                logger.error("dead turns cannot be settled", extra={"cause": error.message})

    def _make_manager(self, store: SqliteStore, config: Config) -> AgentManager:
        return AgentManager(
            store,
            self._journal,
            make_provider=partial(make_provider, store, self._make_workers(store)),
            make_tools=partial(make_tools, store, self._editor_files(), self._agents, self._mcp),
            config=config,
            session_id=self._options.session_id or "user",
            roots=roots_of(self._params),
            make_undo=partial(make_undo, self._editor_files()),
        )

    def _mcp_servers(self) -> Mapping[str, McpServer]:
        """None in a workspace that is not trusted."""
        manager = self._agents()
        return manager.config.settings.mcp_servers if manager.roots else {}

    def _agents(self) -> AgentManager:
        assert self._manager is not None
        return self._manager

    def _editor_files(self) -> EditorFiles:
        return EditorFiles(self._protocol.ask, self._params.capabilities)

    def _make_workers(self, store: SqliteStore) -> Callable[[], Workers]:
        """Who makes processes for models, made itself when the first is asked for."""

        def workers() -> Workers:
            if self._workers is None:
                from .providers.worker import Workers

                self._workers = Workers(store, on_stall=self._model_stalled)
            return self._workers

        return workers

    def _secrets_in_use(self, initial: Config) -> set[str]:
        """Those of the settings, and of agents that still run with older ones. Also as they are
        sent: a key that was pasted with a line break goes out without it."""
        manager = self._manager
        agents = [agent.config for agent in manager.registry] if manager else []
        configs = [manager.config if manager else initial, *agents]
        keys = {key for config in configs for key in config.secrets.revealed()}
        return {used for key in keys for used in (key, key.strip()) if used}

    async def _linger(self, manager: AgentManager) -> None:
        """The editor is gone: let running turns end, up to `lingerTimeout`; then be quick. Who
        would have been asked for approval is not there any more."""
        manager.approvals.close()
        await manager.drain()
        if not self._in_a_hurry:
            with anyio.move_on_after(manager.config.settings.linger_timeout / 1000):
                await manager.pool.quiet()
        self._leave_soon()

    def _leave_soon(self) -> None:
        """A provider or tool that does not stop must not keep the process alive."""
        leave_within(CLOSE_SECONDS, lambda: self._protocol.exit_code or 0)

    async def _tell_changes(self, store: SqliteStore, connection: Connection, told: int) -> None:
        """Changes after `told`, of this window and of all others."""
        while True:
            changed = self._journal.changed
            if store.change_no != told:
                told = store.change_no
                connection.notify(
                    "conversations/changed", wire.ConversationsChanged(change_no=told)
                )
                await anyio.sleep(CHANGES_INTERVAL)
            else:
                await changed.wait()

    @property
    def _options(self) -> wire.InitializationOptions:
        return self._params.initialization_options or wire.InitializationOptions()

    # ---- requests ----

    async def _handle(self, name: str, params: Any) -> Any:
        if not self._opened.is_set():  # waiting costs a turn of the loop even when it is
            await self._opened.wait()
        if self._failure is not None:
            raise self._failure
        return await self._handlers[name](params)

    def _arrived(self, data: bytes) -> None:
        """One piece at a time: the next is read when this one has been taken."""
        self._reader.pause()
        self._piece = data
        self._arrival.set()

    async def _receive(self) -> None:
        await self._take(self._handover.items)
        self._reader.start()
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            await self._take(self._parser.feed(self._piece))
            self._reader.resume()

    async def _take(self, items: Sequence[Frame | FrameError]) -> None:
        """Take requests some at a time, so that a flood of them keeps the loop from nothing
        else; none while so many responses wait to be read that memory would fill."""
        for at in range(0, len(items), AT_ONCE):
            if at:
                await asyncio.sleep(0)
            for item in items[at : at + AT_ONCE]:
                if isinstance(item, Frame):
                    self._protocol.receive(item.body)
                else:
                    self._protocol.refuse(None, item.code, item.message)
            while self._writer.is_congested:
                await self._room.wait()

    def _drained(self) -> None:
        self._room.set()
        self._room = anyio.Event()
        if self._connection is not None:
            self._connection.drained()

    # ---- what the client is told ----

    def _write(self, data: bytes) -> int:
        return os.write(self._stdout, data)

    def _say_ready(self, store_id: str, degraded: str | None) -> None:
        import sqlite3

        from .settings import PROVIDERS

        ready = wire.Ready(
            store_id=store_id,
            sqlite_version=sqlite3.sqlite_version,
            providers=PROVIDERS,
            degraded=degraded,
        )
        self._writer.send(notification("sidecar/ready", ready))

    def _degraded(self, reason: str | None) -> None:
        if reason is not None:
            self._show(f"Conversations cannot be saved right now: {reason} Nothing is lost.")
        else:
            self._show("Conversations are saved again.", kind=3)

    def _show(self, message: str, kind: int = 2) -> None:
        """A line for the user: LSP's `window/showMessage` (2 warns, 3 informs)."""
        params = {"type": kind, "message": message}
        self._writer.send(
            encode({"jsonrpc": "2.0", "method": "window/showMessage", "params": params})
        )

    # ---- the end ----

    def _editor_gone(self) -> None:
        """Nobody reads us, or writes to us, any more."""
        self._over.set()

    async def _watch_exit(self) -> None:
        await self._protocol.exited.wait()
        self._over.set()

    async def _watch_parent(self, pid: int) -> None:
        await exit_of(pid)
        logger.warning("the editor ended", extra={"processId": pid})
        self._editor_gone()

    async def _watch_opening(self) -> None:
        """A store that another program holds takes a minute to give up; we have five seconds."""
        await self._over.wait()
        if not self._opened.is_set():
            self._leave_soon()

    async def _tell_of_waiting(self) -> None:
        with anyio.move_on_after(PATIENCE):
            await self._opened.wait()
            return
        self._show(SLOW_OPENING)

    def _stalled(self, task: str) -> None:
        """Called on the watchdog's thread."""
        self._show(f"The sidecar cannot answer: '{task}' keeps it busy and does not yield.")

    def _model_stalled(self, task: str) -> None:
        self._show(f"The model's library hangs in '{task}'. Stop the turn, or restart the agent.")

    def _watch_signals(self) -> None:
        if sys.platform == "win32":
            return  # Windows has no SIGTERM to catch; closing stdin is the way there
        loop = asyncio.get_running_loop()

        def heard(number: int) -> None:
            self._leave_soon()
            with suppress(RuntimeError):  # the loop has ended; we are leaving already
                loop.call_soon_threadsafe(self._take_signal, number)

        receive_signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), heard)

    def _take_signal(self, number: int) -> None:
        logger.info("signal", extra={"signal": number})
        self._in_a_hurry = True
        self._over.set()


# ---- what initialize says ------------------------------------------------------------------


def initial_config(params: wire.Initialize) -> Config:
    options = params.initialization_options
    return Config() if options is None else patched(Config(), options.settings, options.secrets)


def roots_of(params: wire.Initialize) -> tuple[str, ...]:
    """The workspace's folders as canonical paths; none for an untrusted workspace."""
    options = params.initialization_options
    if options is not None and not options.workspace_trusted:
        return ()
    uris = [folder.uri for folder in params.workspace_folders or ()]
    if not uris and params.root_uri:
        uris = [params.root_uri]
    return tuple(sorted({os.path.realpath(path) for uri in uris if (path := path_of(uri))}))


def path_of(uri: str) -> str | None:
    """The local path of a file URI; None for any other (a remote or virtual folder)."""
    parsed = urlparse(uri)
    if parsed.scheme != "file":
        return None
    if sys.platform == "win32":
        # Imported here: it brings all of http.client along.
        from urllib.request import url2pathname

        return url2pathname(parsed.path)
    return unquote(parsed.path) or None


# ---- providers and tools -------------------------------------------------------------------


def make_provider(
    store: SqliteStore, workers: Callable[[], Workers], config: Config
) -> ModelProvider:
    """The provider that the settings name, made for one agent."""
    match config.settings.provider:
        case "offline":
            from .providers.offline import OfflineProvider

            return OfflineProvider(partial(product_status, store))
        case "scripted":
            from .providers.scripted import ScriptedProvider

            return ScriptedProvider(config.settings.script)
        case "gemini" | "bedrock" | "anthropic" | "openai":
            from .providers.pydantic_ai import make
            from .providers.worker import WorkerProvider

            make(config)  # says at once what cannot work; loads nothing
            return WorkerProvider(config, workers())
        case other:
            raise InitializationFailed(f"There is no provider '{other}'.")


async def warm_up(workers: Callable[[], Workers], config: Config) -> None:
    """Have the vendor's libraries loaded while nobody waits for them."""
    if config.settings.provider in ("offline", "scripted") or problems(config):
        return
    from .providers.pydantic_ai import make

    try:
        make(config)
        await workers().warm_up(config)
    except (AgentError, OSError) as error:
        logger.warning("the provider cannot be used", extra={"cause": str(error)})


async def product_status(store: SqliteStore) -> str:
    """What the offline provider says when it is asked how things stand."""
    status = await store.status()
    return (
        f"{status.conversations} conversations with {status.messages} messages are stored, "
        f"{status.queued} prompts are waiting. The store has {status.size // 1024} KiB."
    )


def make_mcp(mark: str) -> Servers:
    from .tools.mcp import McpServers

    return McpServers(mark)


def make_undo(editor: EditorFiles, conversation: Conversation) -> FileUndo:
    from .tools.undo import Undo

    return Undo(conversation.roots, editor)


def make_tools(
    store: SqliteStore,
    editor: EditorFiles,
    agents: Callable[[], AgentManager],
    mcp: LateSource,
    conversation: Conversation,
) -> Toolbox:
    """What an agent may ask for; whether it may is decided by mode, kind and approval."""
    from .tools.agents import AskAgentTool

    asking = AskAgentTool(agents())
    if not conversation.roots:
        return Toolbox([asking])
    from .tools.commands import command_tools
    from .tools.editing import editing_tools
    from .tools.workspace import workspace_tools

    roots = [Path(root) for root in conversation.roots]
    tools = [*workspace_tools(roots, editor.read), *editing_tools(roots, editor)]
    running, background = command_tools(roots, store, store.path)
    return Toolbox([*tools, *running, asking], sources=[mcp], background=background)
