"""The second half of the composition root: parts, wiring, and the order in which they end.

    reader ─▶ protocol ─▶ face ─▶ manager ─▶ agents ─▶ providers, tools
                 writer ◀─ connection ◀─ journal ◀──── store

What every face needs is here; what is said to a client, and how, is the face's (`serving.native`,
`serving.acp`). Requests are taken from the first moment; those that need the store wait until it
is open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from .. import log, paths, retention
from ..conversations import Conversation
from ..errors import AgentError
from ..events import Delta
from ..faces.editor import Editor
from ..faces.parent import exit_of
from ..faces.rpc import Handler, Rpc
from ..faces.stdio import reader_of, room_in
from ..faces.watchdog import Watchdog, editor_is_gone, leave_within, receive_signals
from ..journal import Journal
from ..manager import AgentManager
from ..settings import Config, McpServer
from ..stores.sqlite import SqliteStore
from ..toolbox import LateSource, ToolSource
from ..wire.frames import Frame, FrameError
from ..wire.writer import FrameWriter
from . import factories

if TYPE_CHECKING:
    from ..faces.prologue import Handover
    from ..providers.worker import Workers

logger = logging.getLogger(__name__)

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

INFORM, WARN, FAIL = "info", "warning", "error"


class Serving(ABC):
    """One editor's process. `main` owns everything; what it enters, it leaves."""

    config = Config()
    session_id = "user"
    roots: tuple[str, ...] = ()
    editor: int | None = None
    """The editor's process, if it said which it is."""
    complaint: str | None = None
    """What the user is to be told once the store is open."""

    def __init__(self, handover: Handover, stdout: int, store: str | None) -> None:
        self._handover = handover
        self._stdout = stdout
        self._path = Path(store) if store else paths.default_store()
        self.journal = Journal()
        self._parser = handover.parser
        self._manager: AgentManager | None = None
        self._handlers: Mapping[str, Handler] = {}
        self._failure: AgentError | None = None
        self._opened = anyio.Event()
        self._over = anyio.Event()
        self._room = anyio.Event()
        self._arrival = asyncio.Event()  # set and cleared at every request; anyio's is made anew
        self._piece = b""
        self._in_a_hurry = False
        self._workers: Workers | None = None

    # ---- what a face says ----

    @abstractmethod
    def make_protocol(self) -> Rpc:
        """Its handlers are all `self.handle`."""

    @abstractmethod
    def wrap(self, body: bytes) -> bytes:
        """A body as it is framed."""

    @abstractmethod
    def encode(self, delta: Delta) -> bytes:
        """Streamed text as a body."""

    @abstractmethod
    async def begin(
        self, manager: AgentManager, store: SqliteStore, tasks: TaskGroup
    ) -> Mapping[str, Handler]:
        """The store is open: the handlers of requests, from now on."""

    @abstractmethod
    def show(self, message: str, kind: str = WARN) -> None:
        """A line for the user. Also called on other threads."""

    @abstractmethod
    def drained(self) -> None:
        """The client reads again."""

    @abstractmethod
    def editor_of(self, conversation_id: str) -> Editor:
        """What the client's editor does for the agent of a conversation."""

    def say_ready(self, store_id: str, degraded: str | None) -> None:  # noqa: B027  # ACP has no word for it
        """The store is open, or cannot be."""

    def sources(self, conversation_id: str) -> Sequence[ToolSource]:
        """Tools from elsewhere, beside those of configured servers."""
        return ()

    def terminal_of(self, conversation_id: str) -> Any:
        """The client's terminal, if it has one for agents."""
        return None

    @property
    def exit_code(self) -> int:
        return 0

    # ---- the life of the process ----

    async def main(self) -> int:
        log.set_up(self.config.settings.log_level, log.Redactor(self._secrets_in_use))
        async with anyio.create_task_group() as tasks:
            self.writer = FrameWriter(
                self._write,
                encode=self.encode,
                wrap=self.wrap,
                room=room_in(self._stdout),
                on_drained=self._drained,
                on_broken=self.leave,
            )
            self.protocol = self.make_protocol()
            self.protocol.attach(tasks, self.writer.send)
            self._reader = reader_of(0, self._arrived, self.leave)
            tasks.start_soon(self._receive, name="receiver")
            tasks.start_soon(self._watch_opening, name="opening")
            tasks.start_soon(self._tell_of_waiting, name="waiting for the store")
            if self.editor is not None:
                tasks.start_soon(self._watch_parent, self.editor, name="parent")
            self._watch_signals()
            watchdog = Watchdog(
                on_stall=self._stalled,
                is_alone=partial(editor_is_gone, 0, self.editor),
                leave=partial(os._exit, 1),
            )
            await self._serve()
            watchdog.close()
            tasks.cancel_scope.cancel()
        self.writer.close(FLUSH_SECONDS)
        return self.exit_code

    async def _serve(self) -> None:
        try:
            store = await SqliteStore.open(self._path, self.journal.publish)
        except AgentError as error:
            logger.error("the store cannot be opened", extra={"cause": error.message})
            self._failure = error
            self._opened.set()
            self.say_ready("", error.message)
            self.show(" ".join(filter(None, (error.message, error.hint))), FAIL)
            await self._over.wait()
            return
        self.mcp = LateSource(self._mcp_servers, partial(factories.make_mcp, store.mark))
        manager = self._manager = self._make_manager(store)
        manager.on_degraded = self._degraded
        store.on_damage = self.show
        store.on_held = manager.flusher.held
        try:
            await self._settle_dead(store)
            async with manager.running(), anyio.create_task_group() as tasks:
                self._handlers = await self.begin(manager, store, tasks)
                self._opened.set()
                self.say_ready(store.store_id, store.degraded)
                for line in (self.complaint, store.notice, store.degraded and READ_ONLY):
                    if line:
                        self.show(line)
                workers = self._make_workers(store)
                tasks.start_soon(factories.warm_up, workers, self.config, name="warm-up")
                tasks.start_soon(self._reap, store, name="reaper")
                tasks.start_soon(self.mcp.run, name="mcp")
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

    # ---- the manager and what its agents are made with ----

    def _make_manager(self, store: SqliteStore) -> AgentManager:
        def make_tools(conversation: Conversation) -> Any:
            id_ = conversation.conversation_id
            sources = [self.mcp, *self.sources(id_)]
            return factories.make_tools(
                store,
                self.editor_of(id_),
                self._agents,
                sources,
                self.terminal_of(id_),
                conversation,
            )

        def make_undo(conversation: Conversation) -> Any:
            return factories.make_undo(self.editor_of(conversation.conversation_id), conversation)

        def make_provider(config: Config) -> Any:
            return factories.make_provider(store, self._make_workers(store), config)

        return AgentManager(
            store,
            self.journal,
            make_provider=make_provider,
            make_tools=make_tools,
            config=self.config,
            session_id=self.session_id,
            roots=self.roots,
            make_undo=make_undo,
        )

    def _mcp_servers(self) -> Mapping[str, McpServer]:
        """Those of the settings; none in a workspace that is not trusted."""
        return self._agents().config.settings.mcp_servers if self.is_trusted else {}

    @property
    def is_trusted(self) -> bool:
        return bool(self.roots)

    def _agents(self) -> AgentManager:
        assert self._manager is not None
        return self._manager

    def _make_workers(self, store: SqliteStore) -> Callable[[], Workers]:
        """Who makes processes for models, made itself when the first is asked for."""

        def workers() -> Workers:
            if self._workers is None:
                from ..providers.worker import Workers

                self._workers = Workers(store, on_stall=self._model_stalled)
            return self._workers

        return workers

    def _secrets_in_use(self) -> set[str]:
        """Those of the settings, and of agents that still run with older ones. Also as they are
        sent: a key that was pasted with a line break goes out without it."""
        manager = self._manager
        agents = [agent.config for agent in manager.registry] if manager else []
        configs = [manager.config if manager else self.config, *agents]
        keys = {key for config in configs for key in config.secrets.revealed()}
        return {used for key in keys for used in (key, key.strip()) if used}

    # ---- requests ----

    async def handle(self, name: str, params: Any) -> Any:
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
                    self.protocol.receive(item.body)
                else:
                    self.protocol.refuse(None, item.code, item.message)
            while self.writer.is_congested:
                await self._room.wait()

    def _drained(self) -> None:
        self._room.set()
        self._room = anyio.Event()
        self.drained()

    def _write(self, data: bytes) -> int:
        return os.write(self._stdout, data)

    # ---- what the user is told ----

    def _degraded(self, reason: str | None) -> None:
        if reason is not None:
            self.show(f"Conversations cannot be saved right now: {reason} Nothing is lost.")
        else:
            self.show("Conversations are saved again.", INFORM)

    async def _tell_of_waiting(self) -> None:
        with anyio.move_on_after(PATIENCE):
            await self._opened.wait()
            return
        self.show(SLOW_OPENING)

    def _stalled(self, task: str) -> None:
        """Called on the watchdog's thread."""
        self.show(f"The sidecar cannot answer: '{task}' keeps it busy and does not yield.")

    def _model_stalled(self, task: str) -> None:
        self.show(f"The model's library hangs in '{task}'. Stop the turn, or restart the agent.")

    # ---- the end ----

    def leave(self) -> None:
        """The editor said goodbye, or nobody reads us or writes to us any more."""
        self._over.set()

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
        leave_within(CLOSE_SECONDS, lambda: self.exit_code)

    async def _watch_parent(self, pid: int) -> None:
        await exit_of(pid)
        logger.warning("the editor ended", extra={"processId": pid})
        self.leave()

    async def _watch_opening(self) -> None:
        """A store that another program holds takes a minute to give up; we have five seconds."""
        await self._over.wait()
        if not self._opened.is_set():
            self._leave_soon()

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
