"""Several windows on one file in one process, each with its own instance id and manager, under a
virtual clock; what their stores are asked for happens when the test lets it.

A window is killed by making its lanes refuse everything and giving back its lock, as the system
does; a frozen one is one whose lanes are not let go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import anyio.lowlevel

from sidecar.conversations import AgentMode, Prompt
from sidecar.errors import StoreUnavailable
from sidecar.events import DurableEvent
from sidecar.interfaces import ModelEvent, ModelRequest, ModelStop, NewConversation, TextDelta
from sidecar.interfaces import ToolCall as Call
from sidecar.journal import Journal
from sidecar.manager import AgentManager
from sidecar.settings import Config, Settings
from sidecar.stores import sqlite
from sidecar.stores.lane import InlineLane
from sidecar.stores.sqlite import SqliteStore
from sidecar.toolbox import Toolbox
from tests.fakes import FakeTool

SECONDS = 0.4
"""What each half of a turn takes."""


class GatedLane(InlineLane):
    """Does one thing after the other, each when it is let to: first the work, then telling."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.gates: deque[asyncio.Future[None]] = deque()

    async def run(self, work: Callable[[], Any], then: Any = None) -> Any:
        await self._gate()
        try:
            result: Any = work()
        except BaseException:
            await self._told()
            raise
        await self._told()
        if then is not None:
            then(result)
        return result

    async def _told(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._gate()

    async def _gate(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self._window.is_dead:
            raise StoreUnavailable("This process is dead.")
        if self._window.is_held or self.gates:  # a lane overtakes nothing
            gate = asyncio.get_running_loop().create_future()
            self.gates.append(gate)
            try:
                await gate
            finally:
                if gate in self.gates:
                    self.gates.remove(gate)

    def let_go(self) -> bool:
        """Let the oldest thing go on. False: there is none."""
        while self.gates:
            gate = self.gates.popleft()
            if not gate.done():
                gate.set_result(None)
                return True
        return False

    def post(self, work: Callable[[], object]) -> None:
        if not self._window.is_dead:
            super().post(work)


class Talker:
    """Says the prompt back in two halves; one that begins with "tool" uses a tool in between."""

    name = "talker"

    def __init__(self, window: Window) -> None:
        self._window = window

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self._window.requests.append(request)
        self._window.histories.append([message.text for message in request.history])
        said = request.prompt.input
        if not request.steps:
            yield TextDelta(f"{said}: ")
            await anyio.sleep(SECONDS)
            if said.startswith("tool"):
                yield Call(tool_call_id="t", name="look", arguments={"prompt": said})
                yield ModelStop("toolCalls")
                return
            if said.startswith("hang"):
                await anyio.sleep_forever()
        await anyio.sleep(SECONDS)
        yield TextDelta("done")
        yield ModelStop("endTurn")

    async def aclose(self) -> None:
        return None


class Window:
    """One process on the store."""

    def __init__(self, path: Path, tool: FakeTool, limit: int) -> None:
        self.path = path
        self.tool = tool
        self.limit = limit
        self.is_dead = False
        self.is_held = False
        self.is_leaving = False
        self.lanes: list[GatedLane] = []
        self.requests: list[ModelRequest] = []
        self.histories: list[list[str]] = []
        self.ran: set[str] = set()
        """The turns that were begun here."""
        self.events: list[DurableEvent] = []
        self.accepted: list[str] = []
        self.stop = anyio.Event()

    async def start(self) -> None:
        self.journal = Journal()
        self.journal.listen(self.events.append)

        def lane(name: str) -> GatedLane:
            self.lanes.append(GatedLane(self))
            return self.lanes[-1]

        with mock.patch.object(sqlite, "ThreadLane", lane):
            self.store = await SqliteStore.open(self.path, self.journal.publish)
        request_started = self.store.request_started

        async def noted(conversation_id: str, turn_id: str) -> None:
            self.ran.add(turn_id)
            await request_started(conversation_id, turn_id)

        self.store.request_started = noted  # type: ignore[method-assign]
        self.manager = AgentManager(
            self.store,
            self.journal,
            make_provider=lambda _: Talker(self),  # type: ignore[arg-type,return-value]
            make_tools=lambda _: Toolbox([self.tool]),
            config=Config(settings=Settings(max_active_agents=self.limit)),
        )
        await self.store.recover()
        self.serving = asyncio.ensure_future(self._serve())
        await settle()

    async def _serve(self) -> None:
        async with self.manager.running():
            await self.stop.wait()

    async def go_on(self) -> None:
        """After it was held: do all that waits, and what comes."""
        self.is_held = False
        for lane in self.lanes:
            while lane.let_go():
                await settle(12)

    # ---- what its client does ----

    async def create(self, conversation_id: str) -> None:
        await self.store.create(
            NewConversation(conversation_id=conversation_id, mode=AgentMode.CHAT, session_id="user")
        )

    def read(self, conversation_id: str, heard: list[Any] | None = None) -> None:
        subscription = self.journal.subscribe(
            conversation_id, (heard if heard is not None else []).append
        )
        subscription.start()

    async def enqueue(self, conversation_id: str, text: str) -> str:
        receipt = await self.manager.enqueue(conversation_id, Prompt(input=text))
        self.accepted.append(receipt.message_id)
        return receipt.message_id

    # ---- its end ----

    def kill(self) -> None:
        """Nothing more of it reaches the store; what was committed and not told is not told."""
        self.is_dead = True
        for lane in self.lanes:
            while lane.gates:
                gate = lane.gates.popleft()
                if not gate.done():
                    gate.set_exception(StoreUnavailable("This process is dead."))
        lock = self.store._instances._lock
        assert lock is not None
        lock.close()
        self.stop.set()

    async def leave(self) -> None:
        """The editor is gone: the turn may end, nothing else is begun."""
        self.is_leaving = True
        await self.manager.drain()
        await self.manager.pool.quiet()
        self.stop.set()
        await asyncio.wait((self.serving,))
        await self.store.aclose()

    async def dispose(self) -> None:
        self.stop.set()
        await asyncio.wait((self.serving,))
        if self.is_dead:
            for database in (self.store._reader, self.store._writer):
                if database is not None:
                    database.conn.close()
        else:
            await self.store.aclose()


class Windows:
    """All windows of a test. `close` leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[Window] = []
        self.tool = FakeTool("look")
        self.leaving: list[asyncio.Task[None]] = []

    @property
    def living(self) -> list[Window]:
        return [w for w in self.all if not w.is_dead and not w.is_leaving]

    async def open(self, limit: int = 10) -> Window:
        window = Window(self.path, self.tool, limit)
        await window.start()
        self.all.append(window)
        return window

    def leave(self, window: Window) -> None:
        window.is_leaving = True
        self.leaving.append(asyncio.ensure_future(window.leave()))

    async def close(self) -> None:
        for window in self.all:
            await window.go_on()
        for task in self.leaving:
            await task
        for window in self.all:
            if not window.is_leaving:
                await window.dispose()


@asynccontextmanager
async def windows(path: Path) -> AsyncIterator[Windows]:
    made = Windows(path)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.close)
        with anyio.fail_after(86_400):
            yield made


async def settle(steps: int = 40) -> None:
    """Let all happen that needs no time."""
    for _ in range(steps):
        await asyncio.sleep(0)
