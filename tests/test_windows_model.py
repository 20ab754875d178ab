"""Windows on one file in any interleaving of what their stores are asked for: no prompt stays
behind without a living owner that will run it, and no conversation has two turns (P1, P2, P8).

Nothing that a window asks of the store happens before a step lets it, and the window learns of it
with a later one; so a window can be overtaken by the others, stand still or die between any two
transactions, and between a commit and its announcement.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sidecar import manager
from sidecar.conversations import Message
from sidecar.errors import AgentError, Conflict
from sidecar.events import Delta, Event
from sidecar.journal import Journal
from sidecar.stores import following, owners, recovery, running, turns
from sidecar.waiters import Waiters
from tests.fakes import VirtualClockLoop
from tests.requirements import proves
from tests.windows import Window, Windows, settle

EXAMPLES = int(os.environ.get("SIDECAR_MODEL_EXAMPLES", "120")) // 8
STEPS = int(os.environ.get("SIDECAR_MODEL_STEPS", "40"))
IDS = ("c", "d")
MOST_WINDOWS = 3

WHICH = st.integers(0, MOST_WINDOWS - 1)
ID = st.sampled_from(IDS)


class Reader:
    """Somebody who reads a conversation in a window, from some moment on."""

    def __init__(self, window: Window, conversation_id: str) -> None:
        self.heard: list[int] = []
        window.journal.subscribe(conversation_id, self._hear, self.heard.clear).start()

    def _hear(self, event: Event) -> None:
        if not isinstance(event, Delta):
            self.heard.append(event.seq)


class Sharing(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.loop = VirtualClockLoop()
        self.tasks: list[asyncio.Task[None]] = []
        self.readers: list[Reader] = []
        self.said = 0
        self.forced: set[str] = set()
        self.windows = Windows(self.folder / "c.db")
        for _ in range(MOST_WINDOWS):
            self.open()
        self.conn = sqlite3.connect(self.windows.path)
        first = self.windows.all[0]
        first.is_held = False
        for id_ in IDS:
            self.do(first.create(id_))
        first.is_held = True

    def do(self, call: Awaitable[Any]) -> Any:
        async def go() -> Any:
            result = await call
            await settle()
            return result

        return self.loop.run_until_complete(go())

    def ask(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Begin something that goes on as it is let to. Being refused is a fine answer."""

        async def go() -> None:
            try:
                await call()
            except AgentError:
                return

        async def begin() -> None:
            self.tasks.append(asyncio.ensure_future(go()))
            await settle()

        self.loop.run_until_complete(begin())

    def window(self, which: int) -> Window:
        return self.windows.living[which % len(self.windows.living)]

    # ---- what can happen ----

    @precondition(lambda self: len(self.windows.living) < MOST_WINDOWS)
    @rule()
    def open(self) -> None:
        window = self.do(self.windows.open())
        window.is_held = True

    @rule(which=WHICH, id_=ID, kind=st.sampled_from(["say", "tool"]))
    def enqueue(self, which: int, id_: str, kind: str) -> None:
        self.said += 1
        text, window = f"{kind} {self.said}", self.window(which)
        self.ask(lambda: window.enqueue(id_, text))

    @rule(which=WHICH, id_=ID)
    def cancel(self, which: int, id_: str) -> None:
        window = self.window(which)
        self.ask(lambda: window.manager.cancel_turn(id_))

    @rule(which=WHICH, id_=ID, force=st.booleans())
    def take_over(self, which: int, id_: str, force: bool) -> None:
        window = self.window(which)
        self.forced |= {id_} if force else set()
        self.ask(lambda: window.manager.take_over(id_, force=force))

    @rule(which=WHICH, id_=ID)
    def evict(self, which: int, id_: str) -> None:
        agent = self.window(which).manager.registry.get(id_)
        if agent is not None and agent.is_quiescent:
            agent.close("least recently used", now=False)
            self.do(settle())

    @rule(which=WHICH, id_=ID)
    def read(self, which: int, id_: str) -> None:
        self.readers.append(Reader(self.window(which), id_))

    @rule(picks=st.lists(st.tuples(WHICH, st.integers(0, 1)), min_size=5, max_size=40))
    def go_on(self, picks: Sequence[tuple[int, int]]) -> None:
        """Let the windows' lanes do the next thing, one at a time in this order."""

        async def go() -> None:
            for which, lane in picks:
                busy = [w for w in self.windows.all if not w.is_dead]
                busy[which % len(busy)].lanes[lane].let_go()
                await settle(12)

        self.do(go())

    @rule(which=WHICH, seconds=st.sampled_from([0.1, 0.5, 2]))
    def run_alone(self, which: int, seconds: float) -> None:
        """One window goes on as fast as it likes, the others stand still."""
        window = self.window(which)
        self._let_go([window])
        self.do(anyio.sleep(seconds))
        window.is_held = True

    @rule(seconds=st.sampled_from([0.1, 0.5]))
    def time_passes(self, seconds: float) -> None:
        self.do(anyio.sleep(seconds))

    @precondition(lambda self: len(self.windows.living) > 1)
    @rule(which=WHICH)
    def kill(self, which: int) -> None:
        self.window(which).kill()
        self.do(settle())

    @precondition(lambda self: len(self.windows.living) > 1)
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        window = self.window(which)

        async def leave() -> None:
            self.windows.leave(window)

        self.do(leave())

    # ---- what is always true ----

    @invariant()
    def no_conversation_has_two_turns(self) -> None:
        if hasattr(self, "conn"):
            found = self.conn.execute(
                "SELECT count(*) FROM queue WHERE state = 'running' GROUP BY conversation"
            ).fetchall()
            assert all(count == 1 for (count,) in found)

    @invariant()
    def no_prompt_s_tool_is_used_twice(self) -> None:
        if hasattr(self, "windows"):
            used = Counter(json.dumps(call) for call in self.windows.tool.calls)
            assert all(times == 1 for times in used.values()), used

    # ---- the end ----

    def teardown(self) -> None:
        if not hasattr(self, "windows"):
            return
        try:
            self.finish()
        finally:
            self._close()

    def finish(self) -> None:
        """Let everything go on until all is quiet."""
        self._let_go([w for w in self.windows.all if not w.is_dead])
        self._wait()
        ended = self.ended()
        for window in self.windows.living:
            left = [m for m in window.accepted if m not in ended]
            assert not left, f"stranded while who accepted it lives: {left}"
        last = self.do(self.windows.open())
        for id_ in IDS:
            last.read(id_)
            self.do(last.manager.resume(self.do(last.store.get(id_))))
        self._wait()
        ended = self.ended()
        for window in self.windows.all:
            left = [m for m in window.accepted if m not in ended]
            assert not left, f"lost or stranded: {left}"
        self._check_turns()
        self._check_windows()
        for id_ in IDS:
            self._check_texts(self.do(last.store.messages(id_)))

    def _check_texts(self, messages: Sequence[Message]) -> None:
        """Each answer is that to its own prompt, whole where it says so."""
        for prompt, reply in zip(messages[::2], messages[1::2], strict=True):
            whole = f"{prompt.text}: done"
            assert (
                reply.text == whole if reply.status == "complete" else whole.startswith(reply.text)
            )

    def _wait(self) -> None:
        """As long as it may take what is there to run, and then for the windows to see it."""
        for _ in range(40):
            self.do(anyio.sleep(2))
            if not self.conn.execute(
                "SELECT 1 FROM queue WHERE state IN ('queued', 'running')"
            ).fetchone():
                break
        self.do(anyio.sleep(1))

    def _let_go(self, windows: Sequence[Window]) -> None:
        for window in windows:
            window.is_held = False
        for window in windows:
            self.do(window.go_on())

    def stored(self) -> dict[str, list[tuple[int, dict[str, Any]]]]:
        rows = self.conn.execute(
            "SELECT c.id, e.seq, e.payload FROM events e "
            "JOIN conversations c ON c.key = e.conversation ORDER BY e.conversation, e.seq"
        )
        found: dict[str, list[tuple[int, dict[str, Any]]]] = {id_: [] for id_ in IDS}
        for id_, seq, payload in rows:
            found[id_].append((seq, json.loads(payload)))
        return found

    def ended(self) -> set[str]:
        """What has had its end, or was parked because it took its process down three times."""
        parked = self.conn.execute("SELECT message_id FROM queue WHERE state = 'parked'")
        ends = {
            event["messageId"]
            for events in self.stored().values()
            for _, event in events
            if event["type"] == "turnEnded"
        }
        return ends | {str(UUID(bytes=packed)) for (packed,) in parked}

    def _check_interruptions(self, id_: str, events: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """A turn is broken off by the death of its process or a forced take-over only."""
        dead = {turn for w in self.windows.all if w.is_dead for turn in w.ran}
        for _, event in events:
            if event["type"] == "turnEnded" and event["stopReason"] == "interrupted":
                assert id_ in self.forced or event["turnId"] in dead

    def _check_turns(self) -> None:
        for id_, events in self.stored().items():
            self._check_interruptions(id_, events)
            assert [seq for seq, _ in events] == list(range(1, len(events) + 1))
            runs: str | None = None
            begun: list[str] = []
            ends: Counter[str] = Counter()
            for _, event in events:
                kind, message_id = event["type"], event.get("messageId")
                if kind == "turnStarted":
                    assert runs is None, f"{message_id} was begun while {runs} ran"
                    runs = message_id
                    begun += [] if message_id in begun else [message_id]
                elif kind == "turnEnded":
                    ends[message_id] += 1
                    runs = None if runs == message_id else runs
                elif kind == "queueChanged" and event["state"] in ("queued", "parked"):
                    runs = None if runs == message_id else runs  # put back
            assert runs is None
            assert not ends or max(ends.values()) == 1
            for window in self.windows.all:
                order = [begun.index(m) for m in window.accepted if m in begun]
                assert order == sorted(order)

    def _check_windows(self) -> None:
        stored = {(id_, seq): e for id_, events in self.stored().items() for seq, e in events}
        for window in self.windows.all:
            for event in window.events:
                known = stored[event.conversation_id, event.seq]
                assert known["type"] == type(event).__struct_config__.tag
                assert known.get("messageId") == getattr(event, "message_id", None)
        for reader in self.readers:
            assert all(b == a + 1 for a, b in pairwise(reader.heard)), reader.heard

    def _close(self) -> None:
        async def close() -> None:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await self.windows.close()

        self.loop.run_until_complete(close())
        self.conn.close()
        self.loop.close()
        shutil.rmtree(self.folder)


@proves("P1", "P2", "P3", "P8")
class TestSharing(Sharing.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# ---- what the model notices ----------------------------------------------------------------

Step = tuple[Any, ...]
BEGUN: Sequence[Step] = [("enqueue", 0, "c", "tool"), ("run_alone", 0, 0.1)]
"""The first window is in the middle of a turn."""
FROZEN: Sequence[Step] = [
    *BEGUN,
    ("take_over", 1, "c", True),
    ("enqueue", 1, "c", "say"),
    ("run_alone", 1, 0.5),
    ("run_alone", 0, 0.1),
]
EVICTED: Sequence[Step] = [
    ("enqueue", 0, "c", "say"),
    ("run_alone", 0, 2),
    ("evict", 0, "c"),
    ("enqueue", 1, "c", "say"),
    ("run_alone", 1, 0.5),
]
BUSY_ELSEWHERE: Sequence[Step] = [*BEGUN, ("enqueue", 1, "c", "say"), ("run_alone", 1, 0.5)]
OVERTAKEN: Sequence[Step] = [
    ("read", 0, "c"),
    ("enqueue", 0, "c", "say"),
    ("run_alone", 0, 2),
    ("enqueue", 1, "c", "say"),
    ("run_alone", 1, 0.1),
    ("enqueue", 0, "c", "say"),
    ("go_on", [(0, 0)] * 4),
]
"""The first window's writer goes on and its reader does not."""
DEAD: Sequence[Step] = [*BEGUN, ("kill", 0)]
DEAD_AND_OWNED: Sequence[Step] = [*DEAD, ("enqueue", 0, "c", "say"), ("go_on", [(0, 0)] * 4)]
"""A prompt comes before anybody has settled the turn."""


def play(steps: Sequence[Step]) -> None:
    machine = Sharing()
    machine.begin()
    try:
        for name, *arguments in steps:
            rule_of = getattr(Sharing, name)
            getattr(rule_of, "hypothesis_stateful_rule", rule_of).function(machine, *arguments)
            machine.no_conversation_has_two_turns()
            machine.no_prompt_s_tool_is_used_twice()
    finally:
        machine.teardown()


def unfenced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(running.Running, "is_turn", lambda *_: True)


def released_blindly(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the queue: not in the release, not after it, and what has no owner is
    nobody's. Each of the three alone is enough."""
    delete = "DELETE FROM owners WHERE instance = ?"
    patch.setattr(
        following, "release", lambda write, _: write.conn.execute(delete, [write.instance])
    )
    patch.setattr(following, "orphaned", lambda *_: ())
    patch.setattr(manager, "FINAL", manager.FINAL | {"least recently used"})


def claimed_of_the_living(patch: pytest.MonkeyPatch) -> None:
    def claim(write: Any, row: Any, _: Any, *, force: bool = False) -> int:
        return owners.claim(write, row, lambda _: True, force=force)

    patch.setattr(recovery, "claim", claim)
    patch.setattr(turns, "claim", claim)


def unsettled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "_settle", lambda *_: None)


def owned_unsettled(patch: pytest.MonkeyPatch) -> None:
    def is_run(turn: running.Running, is_dead: owners.IsDead) -> bool:
        return turn.owner is not None and not is_dead(turn.owner)

    def own(write: Any, row: Any, is_dead: owners.IsDead) -> None:
        with suppress(Conflict):
            owners.claim(write, row, is_dead)

    patch.setattr(recovery, "_is_run", is_run)
    patch.setattr(recovery, "own_if_free", own)


def passed_on_with_holes(patch: pytest.MonkeyPatch) -> None:
    def publish(journal: Journal, events: Sequence[Any]) -> None:
        for event in events:
            if event.seq > journal.last_seq(event.conversation_id):
                journal._pass_on(event)
        journal.announce()

    patch.setattr(Journal, "publish", publish)


def forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Waiters, "expect", lambda *_: None)


MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Sequence[Step]]] = {
    "neither turn nor generation is checked": (unfenced, FROZEN),
    "a release does not look at the queue": (released_blindly, EVICTED),
    "a claim does not ask who is dead": (claimed_of_the_living, BUSY_ELSEWHERE),
    "a recovery settles nothing": (unsettled, DEAD),
    "who becomes the owner settles nothing": (owned_unsettled, DEAD_AND_OWNED),
    "events are passed on with holes": (passed_on_with_holes, OVERTAKEN),
    "who accepts a prompt forgets it": (forgotten, [*BUSY_ELSEWHERE, ("kill", 0)]),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_model_notices_a_defence_that_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, steps = MUTANTS[name]
    play(steps)
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        play(steps)
