"""The queue against a list: first in first out, and everything accepted ends exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.conversations import AgentMode, MessageStatus, Prompt, QueueState, StopReason
from sidecar.events import DurableEvent, TurnEnded, TurnQueued
from sidecar.interfaces import NewConversation, StartedTurn, TurnOutcome
from sidecar.stores.memory import MemoryStore

T = TypeVar("T")

ENDS = [
    (StopReason.END_TURN, MessageStatus.COMPLETE, QueueState.DONE),
    (StopReason.ERROR, MessageStatus.ERROR, QueueState.FAILED),
    (StopReason.CANCELLED, MessageStatus.CANCELLED, QueueState.CANCELLED),
]


class Queue(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.events: list[DurableEvent] = []
        self.store = self.do(MemoryStore.open(self.events.extend))
        new = NewConversation(conversation_id="c", mode=AgentMode.CHAT, session_id="s")
        self.do(self.store.create(new))
        self.waiting: list[tuple[str, str]] = []
        self.retryable: list[tuple[str, str]] = []
        self.running: StartedTurn | None = None

    def do(self, call: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await call

        return self.loop.run_until_complete(awaited())

    def teardown(self) -> None:
        self.do(self.store.aclose())
        self.loop.close()

    @rule(text=st.text(max_size=5).filter(lambda text: text.isprintable()))
    def enqueue(self, text: str) -> None:
        receipt = self.do(self.store.enqueue("c", Prompt(input=text), limit=1_000))
        assert receipt.position == len(self.waiting)
        self.waiting.append((receipt.message_id, text))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.waiting) - 1))
        message_id, _ = self.waiting[index]
        self.do(self.store.update_entry(message_id, "edited"))
        self.waiting[index] = (message_id, "edited")

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), place=st.integers(-2, 10))
    def reorder(self, data: st.DataObject, place: int) -> None:
        entry = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.waiting.insert(max(0, place), entry)
        self.do(self.store.reorder(entry[0], place))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        entry = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.do(self.store.cancel_entry(entry[0]))
        self.retryable.append(entry)

    @precondition(lambda self: self.retryable)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        entry = self.retryable.pop(data.draw(st.integers(0, len(self.retryable) - 1)))
        _, receipt = self.do(self.store.retry(entry[0]))
        self.waiting.append((receipt.message_id, entry[1]))

    @precondition(lambda self: self.running is None)
    @rule()
    def start(self) -> None:
        self.running = self.do(self.store.start_turn("c", "p"))
        if self.running is None:
            assert self.waiting == []
        else:
            entry = self.running.entry
            assert (entry.message_id, entry.prompt.input) == self.waiting.pop(0)

    @precondition(lambda self: self.running is not None)
    @rule(end=st.sampled_from(ENDS))
    def end(self, end: tuple[StopReason, MessageStatus, QueueState]) -> None:
        assert self.running is not None
        reason, status, state = end
        outcome = TurnOutcome(stop_reason=reason, status=status, queue_state=state, parts=())
        self.do(self.store.end_turn("c", self.running.turn_id, outcome))
        if state != QueueState.DONE:
            entry = self.running.entry
            self.retryable.append((entry.message_id, entry.prompt.input))
        self.running = None

    @invariant()
    def the_queue_is_the_list(self) -> None:
        entries = self.do(self.store.queue("c"))
        expected = [(id, text, QueueState.QUEUED) for id, text in self.waiting]
        if self.running is not None:
            entry = self.running.entry
            expected.insert(0, (entry.message_id, entry.prompt.input, QueueState.RUNNING))
        assert [(e.message_id, e.prompt.input, e.state) for e in entries] == expected
        assert self.do(self.store.get("c")).queue_length == len(self.waiting)

    @invariant()
    def everything_accepted_is_waiting_running_or_ended_once(self) -> None:
        accepted = [e.message_id for e in self.events if isinstance(e, TurnQueued)]
        ended = [e.message_id for e in self.events if isinstance(e, TurnEnded)]
        open_ids = [id for id, _ in self.waiting]
        if self.running is not None:
            open_ids.append(self.running.entry.message_id)
        assert sorted(ended + open_ids) == sorted(accepted)
        assert [e.seq for e in self.events] == list(range(1, len(self.events) + 1))


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
