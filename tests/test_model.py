"""Everything a user can do to the manager, in any order, with time passing in between.

The manager runs under a private virtual clock. After each step all that can happen without
time passing has happened, and what must always be true is looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import anyio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.conversations import AgentMode, Prompt, QueueState, StopReason, TurnResult
from sidecar.errors import AgentError, MessageProcessingFailed
from sidecar.events import (
    Cursor,
    Delta,
    Event,
    Replay,
    Snapshot,
    TurnEnded,
    TurnQueued,
    TurnStarted,
)
from sidecar.interfaces import ModelEvent, ModelRequest, ModelStop, TextDelta
from sidecar.journal import Journal, Subscription
from sidecar.lifecycle import AgentState
from sidecar.manager import AgentManager
from sidecar.settings import Config, Settings
from sidecar.stores.memory import MemoryStore
from sidecar.toolbox import Toolbox
from tests.fakes import FakeTool, VirtualClockLoop
from tests.requirements import proves

EXAMPLES = int(os.environ.get("SIDECAR_MODEL_EXAMPLES", "120"))
STEPS = int(os.environ.get("SIDECAR_MODEL_STEPS", "40"))
IDS = ("a", "b", "c", "d", "e")


class HeldModel:
    """Answers when it is told to, or fails then. One per agent."""

    def __init__(self, held: list[HeldModel], name: str) -> None:
        self.name = name
        self.order: asyncio.Future[str] | None = None
        self._held = held

    async def stream(self, request: ModelRequest) -> Any:
        yield TextDelta(f"to {request.prompt.input}: ")
        self.order = asyncio.get_running_loop().create_future()
        self._held.append(self)
        try:
            answer = await self.order
        finally:
            self._held.remove(self)
        if answer == "fail":
            raise MessageProcessingFailed("told to")
        yield TextDelta(answer)
        end: ModelEvent = ModelStop("endTurn")
        yield end

    async def aclose(self) -> None:
        return None


class Sent:
    """A prompt on its way: its message, and how often and how its call was settled."""

    def __init__(self) -> None:
        self.settled = 0
        self.result: TurnResult | None = None
        self.error: AgentError | None = None
        self.task: asyncio.Task[None] | None = None


class Managing(RuleBasedStateMachine):
    @initialize(limit=st.integers(1, 3))
    def start(self, limit: int) -> None:
        self.loop = VirtualClockLoop()
        self.limit = limit
        self.held: list[HeldModel] = []
        self.journal = Journal()
        self.events: list[Any] = []
        self.sent: list[Sent] = []
        self.accepted: dict[str, str] = {}
        self.reordered: set[str] = set()
        self.readers: list[tuple[Subscription, list[Event]]] = []
        self.away: list[tuple[str, list[Event]]] = []
        """Readers that are gone and may come back with what they have heard."""
        self.config = Config(settings=Settings(max_active_agents=limit))
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.journal.listen(self.events.append)
        self.store = await MemoryStore.open(self.journal.publish)
        self.manager = AgentManager(
            self.store,
            self.journal,
            make_provider=lambda config: HeldModel(self.held, config.settings.gemini_model),
            make_tools=lambda _: Toolbox([FakeTool()]),
            config=self.config,
        )
        self.stop = asyncio.Event()
        self.serving = asyncio.ensure_future(self._serve())
        await self._settle()

    async def _serve(self) -> None:
        async with self.manager.running():
            await self.stop.wait()

    async def _settle(self) -> None:
        """Let all that needs no time happen: until nothing else is ready to run."""
        for _ in range(80):
            await asyncio.sleep(0)
            if not self.loop.has_more_to_do:
                return

    def do(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call the manager and let what follows happen. An `AgentError` is a fine answer."""

        async def go() -> Any:
            try:
                return await call()
            except AgentError as error:
                return error
            finally:
                await self._settle()

        return self.loop.run_until_complete(go())

    def later(self, call: Callable[[], Awaitable[Any]]) -> Sent:
        """Begin a call that may take long."""
        sent = Sent()

        async def go() -> None:
            try:
                sent.result = await call()
            except AgentError as error:
                sent.error = error
            sent.settled += 1

        async def begin() -> None:
            sent.task = asyncio.ensure_future(go())
            await self._settle()

        self.loop.run_until_complete(begin())
        self.sent.append(sent)
        return sent

    @contextmanager
    def nothing_is_cancelled(self) -> Iterator[None]:
        """What runs is not stopped by what is done here."""
        before = self._cancelled()
        yield
        assert self._cancelled() == before

    def _cancelled(self) -> int:
        return sum(
            e.stop_reason is StopReason.CANCELLED for e in self.events if isinstance(e, TurnEnded)
        )

    # ---- what can be done ----

    @rule(id_=st.sampled_from(IDS), mode=st.sampled_from([None, *AgentMode]))
    def get_or_create(self, id_: str, mode: AgentMode | None) -> None:
        with self.nothing_is_cancelled():
            self.later(lambda: self.manager.get_or_create_agent(id_, mode))

    @rule(id_=st.sampled_from(IDS))
    def switch(self, id_: str) -> None:
        with self.nothing_is_cancelled():
            self.later(lambda: self.manager.switch_conversation(None, id_))

    @rule(id_=st.sampled_from(IDS), key=st.sampled_from([None, None, "k1", "k2"]))
    def send(self, id_: str, key: str | None) -> None:
        prompt = Prompt(input=f"send {len(self.sent)}")
        self.later(lambda: self.manager.send_message(id_, prompt, request_key=key))

    @rule(id_=st.sampled_from(IDS))
    def enqueue(self, id_: str) -> None:
        receipt = self.do(lambda: self.manager.enqueue(id_, Prompt(input="enqueued")))
        if not isinstance(receipt, AgentError):
            self.accepted[receipt.message_id] = id_

    @rule(which=st.integers(0, 50))
    def cancel_a_call(self, which: int) -> None:
        going = [sent for sent in self.sent if sent.task and not sent.task.done()]
        if going:
            sent = going[which % len(going)]
            assert sent.task is not None
            sent.task.cancel()
            self.do(self._settle)
            if sent.task.cancelled():
                sent.settled += 1

    @rule(id_=st.sampled_from(IDS))
    def cancel_turn(self, id_: str) -> None:
        self.do(lambda: self.manager.cancel_turn(id_))

    @rule(id_=st.sampled_from(IDS), which=st.integers(0, 5))
    def remove(self, id_: str, which: int) -> None:
        if entries := self._queued(id_):
            entry = entries[which % len(entries)]
            self.do(lambda: self.manager.remove_message(entry.message_id))

    @rule(id_=st.sampled_from(IDS), which=st.integers(0, 5), to=st.integers(0, 5))
    def reorder(self, id_: str, which: int, to: int) -> None:
        if entries := self._queued(id_):
            entry = entries[which % len(entries)]
            self.reordered.add(id_)
            self.do(lambda: self.store.reorder(entry.message_id, to))

    @rule(which=st.integers(0, 50))
    def retry(self, which: int) -> None:
        ended = [event.message_id for event in self.events if isinstance(event, TurnEnded)]
        if ended:
            message_id = ended[which % len(ended)]
            self.do(lambda: self.manager.retry_message(message_id))

    @rule(id_=st.sampled_from(IDS))
    def dispose(self, id_: str) -> None:
        self.do(lambda: self.manager.dispose_agent(id_))

    @rule()
    def dispose_all(self) -> None:
        self.do(self.manager.dispose_all_agents)

    @rule(id_=st.sampled_from(IDS))
    def abort(self, id_: str) -> None:
        self.later(lambda: self.manager.abort_and_restart_agent(id_))

    @rule(id_=st.sampled_from(IDS), mode=st.sampled_from(list(AgentMode)))
    def set_mode(self, id_: str, mode: AgentMode) -> None:
        self.do(lambda: self.manager.set_mode(id_, mode))

    @rule(
        model=st.sampled_from(["m1", "m2"]),
        limit=st.integers(1, 3),
        force=st.booleans(),
        provider=st.sampled_from(["offline", "offline", "gemini"]),
    )
    def settings_change(self, model: str, limit: int, force: bool, provider: Any) -> None:
        new = Config(
            settings=Settings(gemini_model=model, max_active_agents=limit, provider=provider)
        )
        with nullcontext() if force else self.nothing_is_cancelled():
            done = self.do(lambda: self.manager.update_settings(new, force=force))
        if not done.problems:
            self.limit = limit

    @rule(seconds=st.sampled_from([0.1, 1, 9, 200, 301, 1_300]))
    def time_passes(self, seconds: float) -> None:
        with self.nothing_is_cancelled():
            self.do(lambda: anyio.sleep(seconds))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 5), answer=st.sampled_from(["well", "well", "fail"]))
    def a_turn_goes_on(self, which: int, answer: str) -> None:
        model = self.held[which % len(self.held)]
        assert model.order is not None
        if not model.order.done():
            model.order.set_result(answer)
        self.do(self._settle)

    @rule(id_=st.sampled_from(IDS))
    def subscribe(self, id_: str) -> None:
        heard: list[Event] = []
        subscription = self.journal.subscribe(id_, heard.append)
        subscription.start()
        self.readers.append((subscription, heard))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 5))
    def unsubscribe(self, which: int) -> None:
        subscription, _ = self.readers.pop(which % len(self.readers))
        self.journal.unsubscribe(subscription)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 5))
    def disconnect(self, which: int) -> None:
        subscription, heard = self.readers.pop(which % len(self.readers))
        self.journal.unsubscribe(subscription)
        states, failed = self.do(self.manager.preserve)
        assert failed == ()
        assert {s.conversation_id for s in states} == {
            a.conversation_id for a in self.manager.registry
        }
        self.away.append((subscription.conversation_id, heard))

    @precondition(lambda self: self.away)
    @rule(which=st.integers(0, 5))
    def reconnect(self, which: int) -> None:
        """Come back with the cursor; what was missed is replayed, what follows is live."""
        id_, heard = self.away.pop(which % len(self.away))
        subscription = self.journal.subscribe(id_, heard.append)
        seqs = [event.seq for event in heard if not isinstance(event, Delta)]
        cursor = Cursor(store_id=self.store.store_id, seq=seqs[-1] if seqs else 0)
        caught_up = self.do(lambda: self.store.catch_up(id_, cursor))
        if isinstance(caught_up, Replay):
            heard += caught_up.events
            subscription.release(caught_up)
            self.readers.append((subscription, heard))
        else:
            assert not isinstance(caught_up, Snapshot), "nothing was trimmed or rewound"
            self.journal.unsubscribe(subscription)

    @rule(id_=st.sampled_from(IDS))
    def export(self, id_: str) -> None:
        exported = self.do(lambda: self.store.export(id_, None))
        if isinstance(exported, AgentError):
            assert exported.type == "NOT_FOUND"
        else:
            stored = self.do(lambda: self.store.messages(id_))
            assert list(exported.messages) == list(stored)

    # ---- what is always true ----

    def _queued(self, id_: str) -> list[Any]:
        entries = self.do(lambda: self.store.queue(id_))
        if isinstance(entries, AgentError):
            return []
        return [e for e in entries if e.state is QueueState.QUEUED]

    @invariant()
    def live_agents_are_within_the_limit(self) -> None:
        # A limit that was lowered does not stop turns that run.
        idle = [a for a in self.manager.registry if a.is_quiescent]
        assert len(self.manager.registry) <= self.limit or not idle

    @invariant()
    def capabilities_are_those_of_live_agents(self) -> None:
        ready = {a.conversation_id for a in self.manager.registry if a.state != AgentState.NEW}
        assert self.manager.capabilities.conversations() == ready

    @invariant()
    def a_turn_runs_in_each_busy_agent_and_nowhere_else(self) -> None:
        running = {a.conversation_id for a in self.manager.registry if a.turn is not None}
        open_ = {e.conversation_id for e in self._started_and_not_ended()}
        assert running == open_
        assert len(self.held) == len(running)

    def _started_and_not_ended(self) -> list[TurnStarted]:
        ended = {e.turn_id for e in self.events if isinstance(e, TurnEnded)}
        return [e for e in self.events if isinstance(e, TurnStarted) and e.turn_id not in ended]

    @invariant()
    def no_work_is_forgotten(self) -> None:
        """A queue that may run has an agent at it, or is in line for one."""
        pool, at_work = self.manager.pool, {a.conversation_id for a in self.manager.registry}
        for id_ in IDS:
            agent = self.manager.registry.get(id_)
            if agent is not None and agent.is_quiescent:
                assert self._queued(id_) == []
        if len(at_work) < self.limit:
            assert not pool._ready.keys() - at_work

    @invariant()
    def events_are_numbered_without_gaps(self) -> None:
        last: dict[str, int] = {}
        for event in self.events:
            assert event.seq == last.get(event.conversation_id, 0) + 1
            last[event.conversation_id] = event.seq

    @invariant()
    def no_prompt_ends_twice_and_none_that_was_not_accepted(self) -> None:
        ended = [e.message_id for e in self.events if isinstance(e, TurnEnded)]
        assert len(ended) == len(set(ended))
        assert set(ended) <= {e.message_id for e in self.events if isinstance(e, TurnQueued)}

    @invariant()
    def turns_start_in_the_order_in_which_they_were_queued(self) -> None:
        queued = [e.message_id for e in self.events if isinstance(e, TurnQueued)]
        for id_ in set(IDS) - self.reordered:
            started = [
                queued.index(e.message_id)
                for e in self.events
                if isinstance(e, TurnStarted) and e.conversation_id == id_
            ]
            assert started == sorted(started)

    @invariant()
    def no_call_is_settled_twice(self) -> None:
        assert all(sent.settled <= 1 for sent in self.sent)

    # ---- the end ----

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.loop.run_until_complete(self._finish())
            self._check_the_end()
        finally:
            self.loop.close()

    async def _finish(self) -> None:
        """Let all go on that can, then shut down."""
        self.manager.pool.config = Config(settings=Settings(max_active_agents=10))
        self.manager.pool.enforce_limit()
        for id_ in IDS:
            self.manager.pool.schedule(id_)
        for _ in range(400):
            await self._settle()
            waiting = [m for m in self.held if m.order is not None and not m.order.done()]
            if not waiting:
                break
            for model in waiting:
                assert model.order is not None
                model.order.set_result("the end")
        await anyio.sleep(20)  # longer than a caller waits for a free agent
        self.stop.set()
        await self.serving
        await self._settle()
        self.stored = {id_: await self._stored(id_) for id_ in IDS}
        await self.store.aclose()

    async def _stored(self, id_: str) -> dict[str, str]:
        try:
            return {m.message_id: m.status for m in await self.store.messages(id_)}
        except AgentError:
            return {}

    def _check_the_end(self) -> None:
        queued = [e for e in self.events if isinstance(e, TurnQueued)]
        ended = [e.message_id for e in self.events if isinstance(e, TurnEnded)]
        assert sorted(ended) == sorted(e.message_id for e in queued), "each has exactly one end"
        assert set(self.accepted) <= set(ended)
        assert all(sent.settled == 1 for sent in self.sent), "each call has exactly one answer"
        assert len(self.manager.waiters) == 0
        assert len(self.manager.registry) == 0
        assert self.manager.capabilities.conversations() == frozenset()
        for event in self.events:
            if isinstance(event, TurnStarted):
                assert event.message_id in self.stored[event.conversation_id]
        statuses = {status for stored in self.stored.values() for status in stored.values()}
        assert "streaming" not in statuses
        for subscription, heard in self.readers:
            seqs = [e.seq for e in heard if not isinstance(e, Delta)]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
            self.journal.unsubscribe(subscription)


@proves("P1", "P5", "P6", "S003-QUEUE-1", "S003-QUEUE-3", "S003-QUEUE-4")
class TestManaging(Managing.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
