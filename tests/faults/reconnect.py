"""Clients that come and go in any order: what they show in the end is what is stored (P3).

In process, under a virtual clock, with the product's store, manager, journal, connection,
handlers and client; only the pipe between the two is ours, and the store does its work inline.
A process is killed by making its lanes refuse everything and giving back its lock.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import anyio.lowlevel
import msgspec

from sidecar.client import Sidecar
from sidecar.client.live import EventStream, LiveConversation
from sidecar.client.view import Applied, ConversationView
from sidecar.conversations import Message, Prompt
from sidecar.errors import AgentError, StoreUnavailable
from sidecar.events import CatchUp, Delta, Event
from sidecar.faces.connection import Connection
from sidecar.faces.native import NativeFace
from sidecar.faces.rpc import Answer
from sidecar.faces.timing import Timings
from sidecar.interfaces import NewConversation
from sidecar.journal import Journal
from sidecar.manager import AgentManager
from sidecar.providers.scripted import ScriptedProvider
from sidecar.settings import Config, Settings
from sidecar.stores import sqlite, write
from sidecar.stores.lane import InlineLane
from sidecar.stores.sqlite import SqliteStore
from sidecar.toolbox import Toolbox
from sidecar.wire import methods as wire
from tests.fakes import run_virtually

NAME = "c"
SCRIPT = [
    {"thinking": "hm 🤔 ", "repeat": 6, "delayMs": 20},
    {"text": "wörd 🙂 ", "repeat": 30, "delayMs": 30},
    {"tool": "no_such_tool"},
    {"text": "and on 日本 ", "repeat": 20, "delayMs": 30},
]
ROOM = 12
"""Notifications that the pipe takes while nobody reads."""
KEPT_EVENTS = 10
"""So few that whoever was away for a turn needs a snapshot."""
LINGER_SECONDS = 60.0

ACTIONS = ("say", "wait", "wait", "wait", "read", "read", "hide", "show", "leave", "rejoin",
           "forget", "cancel", "reload", "kill")  # fmt: skip
Step = tuple[str, int]


class MortalLane(InlineLane):
    """An inline lane whose process may be killed: from then on nothing is done any more."""

    def __init__(self, name: str, mourned: list[MortalLane]) -> None:
        self.is_dead = False
        mourned.append(self)

    async def run(self, work: Callable[[], Any], then: Any = None) -> Any:
        if self.is_dead:
            await anyio.lowlevel.checkpoint()
            raise StoreUnavailable("This process is dead.")
        return await super().run(work, then)

    def post(self, work: Callable[[], object]) -> None:
        if not self.is_dead:
            super().post(work)


class Pipe:
    """What the sidecar has said and the client not read yet; bounded as the real writer is."""

    def __init__(self) -> None:
        self.said: deque[Callable[[], None]] = deque()
        self.hear: Callable[[str, Any], None] = lambda method, params: None
        self.on_drained: Callable[[], None] = lambda: None
        self._has_refused = False

    def send(self, body: bytes) -> None:
        message = msgspec.json.decode(body)
        self.said.append(lambda: self.hear(message["method"], message["params"]))

    def notify(self, body: bytes, *, key: str | None = None) -> bool:
        if len(self.said) >= ROOM:
            self._has_refused = True
            return False
        self.send(body)
        return True

    def delta(self, event: Delta) -> bool:
        params = msgspec.to_builtins(event)
        return self.notify(msgspec.json.encode({"method": "conversation/event", "params": params}))

    def read(self) -> None:
        while self.said:
            self.said.popleft()()
        if self._has_refused:
            self._has_refused = False
            self.on_drained()


class Process:
    """One sidecar on the store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pipe = Pipe()
        self.lanes: list[MortalLane] = []
        self.stop = anyio.Event()
        self.calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        journal = Journal()
        with mock.patch.object(sqlite, "ThreadLane", lambda name: MortalLane(name, self.lanes)):
            self.store = await SqliteStore.open(self.path, journal.publish)
        self.manager = AgentManager(
            self.store,
            journal,
            make_provider=lambda config: ScriptedProvider(SCRIPT),
            make_tools=lambda _: Toolbox(),
            config=Config(settings=Settings(provider="scripted")),
        )
        self.connection = Connection(self.pipe, journal, self.store, self.manager.flusher)
        self.pipe.on_drained = self.connection.drained
        face = NativeFace(self.manager, self.connection, Timings(), webview_id="w")
        self.handlers = face.handlers()
        await self.store.recover()
        self.serving = asyncio.ensure_future(self._serve())
        await anyio.lowlevel.checkpoint()

    async def _serve(self) -> None:
        async with self.manager.running():
            await self.stop.wait()

    def call(self, method: str, params: Any, on_result: Callable[[Any], None]) -> None:
        """Ask; the answer takes its place in the pipe."""

        async def serve() -> None:
            with suppress(AgentError):
                answer = await self.handlers[method](params)
                result = answer.result if isinstance(answer, Answer) else answer
                self.pipe.said.append(lambda: on_result(result))
                if isinstance(answer, Answer):
                    answer.then()

        task = asyncio.ensure_future(serve())
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    async def end(self) -> None:
        """The editor is gone: the turn may end, then so do we."""
        self.connection.unfollow_all()
        await self.manager.drain()
        with anyio.move_on_after(LINGER_SECONDS):
            await self.manager.pool.quiet()
        await self._stopped()
        await self.store.aclose()

    async def kill(self) -> None:
        for lane in self.lanes:
            lane.is_dead = True
        lock = self.store._instances._lock
        assert lock is not None
        lock.close()
        self.connection.unfollow_all()
        with suppress(AgentError, BaseExceptionGroup):
            await self._stopped()
        # The system closes a dead process's files; SQLite in one process would still count them.
        for database in (self.store._reader, self.store._writer):
            if database is not None:
                database.conn.close()

    async def _stopped(self) -> None:
        for task in tuple(self.calls):
            task.cancel()
        self.stop.set()
        await asyncio.wait((self.serving,))


class Strict(LiveConversation):
    """The product's client, with a note of all that came twice or out of turn. Who catches up
    while the connection is followed already, for another reader of it, is told what happened
    meanwhile as events, too: that is once in the catch-up and once for the other reader."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.wrong: list[tuple[Applied, Event]] = []
        apply, live = self.view.apply, set[int]()

        def noted(event: Any) -> Applied:
            applied = apply(event)
            is_again = event.seq in live or isinstance(event, Delta)
            live.add(event.seq)
            is_wrong = applied is Applied.HOLE or (applied is Applied.KNOWN and is_again)
            if is_wrong and not self._catching_up:
                self.wrong.append((applied, event))
            return applied

        self.view.apply = noted  # type: ignore[method-assign]


class Client:
    """An editor with a webview on one conversation, which it loses and finds again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = Process(path)
        self.past: list[asyncio.Task[None]] = []
        self.is_hidden = False
        self.said = 0
        self.stream = EventStream(NAME, lambda _: None)
        self.live = Strict(self.stream, self._subscribe, lambda: self.process.store.store_id)

    async def begin(self) -> None:
        await self._connect()
        new = NewConversation(conversation_id=NAME, mode="chat", session_id="user")  # type: ignore[arg-type]
        await self.process.store.create(new)
        self.live.catch_up()

    async def _connect(self) -> None:
        await self.process.start()
        self.process.pipe.hear = self._hear

    def _hear(self, method: str, params: Any) -> None:
        if method == "conversation/event":
            self.stream.offer(msgspec.convert(params, Event))
        elif method == "conversation/resync":
            self.stream.offer(msgspec.convert(params, wire.Resync))
        elif method == "agents/restored":
            for answer in msgspec.convert(params, wire.Restored).restored:
                self.stream.offer(answer)

    def _subscribe(
        self,
        view: ConversationView,
        on_result: Callable[[CatchUp], None],
        on_error: Callable[[AgentError], None],
    ) -> Any:
        cursor = view.cursor if view.store_id else None
        params = wire.Subscribe(conversation_id=NAME, cursor=cursor)
        self.process.call("conversation/subscribe", params, on_result)

    # ---- what can happen ----

    async def do(self, step: Step) -> None:
        action, amount = step
        await getattr(self, f"_{action}")(amount)
        await anyio.sleep(0.001)

    async def _say(self, _: int) -> None:
        self.said += 1
        await self.process.manager.enqueue(NAME, Prompt(input=f"prompt {self.said}"))

    async def _wait(self, amount: int) -> None:
        await anyio.sleep(amount * 0.1)

    async def _read(self, _: int) -> None:
        self.process.pipe.read()
        while self.stream._waiting:
            for item in await self.stream.take():
                self.live._take(item)

    async def _hide(self, _: int) -> None:
        self.is_hidden = True
        self.process.call("webview/preserve", wire.WebviewGone(webview_id="w"), lambda _: None)

    async def _show(self, amount: int) -> None:
        """The webview is back, with its cursor or, made anew, without one."""
        if not self.is_hidden:
            return
        self.is_hidden = False
        await self._read(0)
        cursor = None if amount % 3 == 0 else self.live.view.cursor
        position = wire.ConversationCursor(conversation_id=NAME, cursor=cursor)
        back = wire.WebviewBack(webview_id="w", cursors=(position,))
        self.live._catching_up = True

        def restored(result: wire.Restored) -> None:
            for answer in result.restored:
                self.stream.offer(answer)

        self.process.call("webview/restore", back, restored)

    async def _leave(self, _: int) -> None:
        params = wire.OfConversation(conversation_id=NAME)
        self.process.call("conversation/unsubscribe", params, lambda _: None)

    async def _subscribe_again(self) -> None:
        await self._read(0)
        self.live.catch_up()

    async def _rejoin(self, _: int) -> None:
        await self._subscribe_again()

    async def _forget(self, _: int) -> None:
        self.live.view.store_id = ""
        self.live.catch_up()

    async def _cancel(self, _: int) -> None:
        with suppress(AgentError), anyio.move_on_after(1):
            await self.process.manager.cancel_turn(NAME)

    async def _reload(self, _: int) -> None:
        """The window is loaded anew: the old process lingers, a new one takes over."""
        self.past.append(asyncio.ensure_future(self.process.end()))
        await self._reconnect()

    async def _kill(self, _: int) -> None:
        await self.process.kill()
        await self._reconnect()

    async def _reconnect(self) -> None:
        self.process = Process(self.path)
        self.is_hidden = False
        await self._connect()
        self.live.catch_up()

    # ---- the end ----

    async def finish(self) -> tuple[Sequence[Message], Sequence[Message]]:
        """Let everything end; returns what the client shows and what is stored."""
        await self._show(1)
        await self._subscribe_again()
        await self.process.manager.resume(await self.process.store.get(NAME))
        for _ in range(4 * self.said + 8):
            await anyio.sleep(2)
            await self._read(0)
        shown = self.live.view.messages
        stored = (await self.process.store.page(NAME, limit=500)).messages
        queue = await self.process.store.queue(NAME)
        assert not [e for e in queue if e.state in ("queued", "running")], "somebody still waits"
        assert self.live.view.seq == (await self.process.store.get(NAME)).last_seq
        for task in self.past:
            await task
        await self.process.end()
        return shown, stored


@contextmanager
def folder() -> Iterator[Path]:
    """In memory where there is such a place: thousands of stores are made."""
    memory = Path("/dev/shm")
    made = tempfile.mkdtemp(dir=memory if memory.is_dir() else None)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made)


def play(steps: Sequence[Step]) -> Strict:
    """Follow a schedule to its end. Raises `AssertionError` unless the transcript is the stored
    one, with no event twice and none left out."""

    async def run(path: Path) -> Strict:
        client = Client(path)
        with anyio.fail_after(86_400):
            await client.begin()
            for step in steps:
                await client.do(step)
            shown, stored = await client.finish()
        assert msgspec.json.encode(shown) == msgspec.json.encode(stored)
        wrong = [noted for noted in client.live.wrong if not isinstance(noted[1], Delta)]
        assert wrong == [], f"an event came twice or out of turn: {wrong}"
        return client.live

    with folder() as made, mock.patch.object(write, "KEPT_EVENTS", KEPT_EVENTS):
        live: Strict = run_virtually(lambda: run(made / "c.db"))
        return live


# ---- with real processes -------------------------------------------------------------------


def play_for_real(store: Path, *, disconnections: int, seed: int) -> int:
    """The same with processes of their own: a turn streams while its reader loses it in every
    way, in random order; returns how many turns there were."""
    return anyio.run(_Real(store, random.Random(seed)).play, disconnections)


class _Real:
    """A client of the product in an editor that is reloaded and whose sidecars are killed."""

    WAYS = ("rejoin", "hide", "reload", "kill")

    def __init__(self, store: Path, chance: random.Random) -> None:
        self._store = store
        self._chance = chance
        self._turns = 0

    async def play(self, disconnections: int) -> int:
        with anyio.fail_after(60 + 10 * disconnections):
            async with AsyncExitStack() as self._editors:
                await self._open()
                await self._sidecar.call("conversation/create", conversation_id=NAME)
                await self._follow()
                for _ in range(disconnections):
                    self._turns += 1
                    said = f"go {self._turns}"
                    await self._sidecar.call("message/enqueue", conversation_id=NAME, input=said)
                    for _ in range(self._chance.randint(1, 60)):
                        await self._live.changes()
                    await getattr(self, f"_{self._chance.choice(self.WAYS)}")()
                await self._until_whole(self._sidecar, self._live)
        return self._turns

    async def _open(self) -> None:
        found = {"provider": "scripted", "script": SCRIPT, "lingerTimeout": 60_000}
        editor = Sidecar.spawn(store=self._store, settings=found)
        self._sidecar = await self._editors.enter_async_context(editor)

    async def _follow(self) -> None:
        self._live = await self._editors.enter_async_context(self._sidecar.follow(NAME))

    async def _rejoin(self) -> None:
        await self._sidecar.call("conversation/unsubscribe", conversation_id=NAME)
        await self._live.catch_up().answered()

    async def _hide(self) -> None:
        await self._sidecar.call("webview/preserve", webview_id="w")
        await anyio.sleep(self._chance.random())
        await self._live.catch_up().answered()

    async def _reload(self) -> None:
        """Its stdin closes; it lingers beside its successor, which gets the old view's cursor."""
        view = self._live.view
        self._sidecar._link._hang_up()
        await self._open()
        await self._follow()
        self._live.view = view
        await self._live.catch_up().answered()

    async def _kill(self) -> None:
        os.kill((await self._sidecar.call("sidecar/status")).pid, signal.SIGKILL)
        await self._sidecar.reconnect()

    async def _until_whole(self, sidecar: Sidecar, live: LiveConversation) -> None:
        while True:
            entries = (await sidecar.call("message/queue", conversation_id=NAME)).entries
            page = (await sidecar.call("conversation/get", conversation_id=NAME, limit=500)).page
            if not any(e.state in ("queued", "running") for e in entries):
                break
            await anyio.sleep(0.2)
        while live.view.messages != page.messages:
            await live.changes()


def main(count: int = 1_000) -> str:
    """Play `count` random schedules, and a twentieth as many disconnections for real."""
    chance = random.Random(count)
    steps = gone = odd = 0
    for _ in range(count):
        schedule = [
            (chance.choice(ACTIONS), chance.randint(0, 9)) for _ in range(chance.randint(5, 40))
        ]
        live = play([("say", 0), *schedule])
        steps += len(schedule)
        gone += sum(action not in ("say", "wait", "read", "cancel") for action, _ in schedule)
        odd += len(live.wrong)
    real = max(8, count // 20)
    with folder() as made:
        play_for_real(made / "c.db", disconnections=real, seed=count)
    return (
        f"reconnect: {count} schedules, {steps} steps, {gone} disconnections; every transcript "
        f"equals the stored one, 0 events twice or out of turn, {odd} deltas asked for again; "
        f"{real} disconnections of real processes likewise"
    )


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))  # noqa: T201
