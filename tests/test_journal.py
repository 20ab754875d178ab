"""Who hears what, and that a reader who comes late, or comes back, misses and repeats nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.conversations import (
    AgentMode,
    MessageStatus,
    Prompt,
    QueueState,
    SteeringPart,
    StopReason,
    ToolCallPart,
    ToolResultPart,
)
from sidecar.events import (
    Cursor,
    Delta,
    Event,
    MessageCompleted,
    MessageStarted,
    Missing,
    OpenPart,
    Replay,
    Snapshot,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnQueued,
    TurnSteered,
    utf16_length,
)
from sidecar.interfaces import NewConversation, ToolCall, ToolOutput, TurnOutcome
from sidecar.journal import Journal, Subscription
from sidecar.reply import Flusher, Reply
from sidecar.stores.memory import MemoryStore
from tests.managers import recorded
from tests.requirements import proves


def queued(seq: int, conversation_id: str = "a") -> TurnQueued:
    return TurnQueued(conversation_id=conversation_id, seq=seq, message_id=f"m{seq}")


def delta(seq: int, offset: int, text: str) -> Delta:
    return Delta(
        conversation_id="a",
        seq=seq,
        message_id="r",
        part=0,
        kind="text",
        offset=offset,
        text=text,
    )


# ---- one event at a time ----


def test_readers_hear_only_of_their_own_conversation_until_they_leave() -> None:
    journal, heard = Journal(), []
    reader = journal.subscribe("a", heard.append)
    reader.start()
    journal.publish([queued(1), queued(1, "b"), queued(2)])
    assert [(e.conversation_id, e.seq) for e in heard] == [("a", 1), ("a", 2)]
    assert journal.followed() == ("a",)
    journal.unsubscribe(reader)
    journal.unsubscribe(reader)
    journal.publish([queued(3)])
    assert len(heard) == 2
    assert not journal.has_readers("a")


@proves("P3")
def test_an_event_that_comes_twice_is_told_once() -> None:
    journal, heard, listened = Journal(), [], []
    journal.listen(listened.append)
    journal.subscribe("a", heard.append).start()
    journal.publish([queued(1), queued(2)])
    journal.publish([queued(2), queued(1), queued(3)])
    assert [e.seq for e in heard] == [e.seq for e in listened] == [1, 2, 3]
    assert journal.last_seq("a") == 3


def test_listeners_hear_an_event_before_its_readers_do() -> None:
    journal, order = Journal(), []
    journal.subscribe("a", lambda _: order.append("reader")).start()
    journal.listen(lambda _: order.append("listener"))
    journal.publish([queued(1)])
    assert order == ["listener", "reader"]


@proves("P11")
def test_a_reader_that_fails_harms_no_other() -> None:
    journal, heard = Journal(), []

    def broken(_: Event) -> None:
        raise OSError("the pipe is gone")

    journal.subscribe("a", broken).start()
    journal.subscribe("a", heard.append).start()
    with recorded() as records:
        journal.publish([queued(1)])
    assert [e.seq for e in heard] == [1]
    assert len(records.of("a reader failed")) == 1


def test_a_reader_that_leaves_while_it_is_told_does_not_upset_the_others() -> None:
    journal, heard = Journal(), []
    leaving: list[Subscription] = []
    leaving.append(journal.subscribe("a", lambda _: journal.unsubscribe(leaving[0])))
    leaving[0].start()
    journal.subscribe("a", heard.append).start()
    journal.publish([queued(1)])
    assert [e.seq for e in heard] == [1]


def caught(last_seq: int, length: int | None, *, ended: bool = False) -> Replay:
    parts = () if length is None else (OpenPart(message_id="r", part=0, length=length),)
    return Replay(
        conversation_id="a",
        last_seq=last_seq,
        revision=0,
        events=(),
        open_message=None if ended else open_message(),
        open_parts=parts,
    )


def open_message() -> Any:
    from sidecar.conversations import Message

    return Message(
        message_id="r",
        ordinal=1,
        role="assistant",
        status=MessageStatus.STREAMING,
        parts=(),
        created_at=0,
    )


def released(held: list[Event], caught_up: Any) -> list[Event]:
    heard: list[Event] = []
    reader = Subscription("a", heard.append)
    for event in held:
        reader.offer(event)
    assert heard == [], "nothing before the catch-up was answered"
    reader.release(caught_up)
    return heard


def test_what_the_catch_up_tells_is_not_told_again() -> None:
    heard = released([queued(1), queued(2), queued(3)], caught(2, None))
    assert [e.seq for e in heard] == [3]


def test_a_delta_that_is_half_known_is_cut() -> None:
    (rest,) = released([delta(2, 0, "a😀b")], caught(2, 3))
    assert (rest.offset, rest.text) == (3, "b")  # type: ignore[union-attr]


def test_a_delta_before_a_later_event_of_a_reply_that_still_grows_is_told() -> None:
    (rest,) = released([delta(2, 0, "early"), queued(3)], caught(3, None))
    assert (rest.seq, rest.text) == (3, "early")  # type: ignore[union-attr]


def test_a_delta_of_a_reply_that_has_ended_is_not_told() -> None:
    assert released([delta(2, 0, "old"), queued(3)], caught(3, None, ended=True)) == []


def test_of_a_conversation_that_is_missing_nothing_is_told() -> None:
    assert released([queued(1)], Missing(conversation_id="a")) == []


# ---- any order of everything ----


class Reader:
    """What a client keeps. Asserts at each step that nothing is missing and nothing repeated."""

    def __init__(self, store_id: str) -> None:
        self.store_id = store_id
        self.seq = 0
        self.knows = False
        self.parts: dict[str, dict[int, Any]] = {}
        self.final: dict[str, tuple[Any, ...]] = {}
        self.upset: AssertionError | None = None

    def hear(self, event: Event) -> None:
        try:
            self.apply(event)
        except AssertionError as error:  # the journal would log it and go on
            self.upset = self.upset or error

    def cursor(self) -> Cursor | None:
        return Cursor(store_id=self.store_id, seq=self.seq) if self.knows else None

    def catch_up(self, caught_up: Any) -> None:
        if isinstance(caught_up, Snapshot):
            self.parts, self.final = {}, {}
            for message in caught_up.messages:
                if message.status is MessageStatus.STREAMING:
                    self._open(message)
                else:
                    self.final[message.message_id] = message.parts
        else:
            assert isinstance(caught_up, Replay)
            for event in caught_up.events:
                self.apply(event)
            if caught_up.open_message is not None:
                self._open(caught_up.open_message)
        self.seq, self.knows = caught_up.last_seq, True

    def _open(self, message: Any) -> None:
        parts = enumerate(message.parts)
        self.parts[message.message_id] = {
            index: part.text if part.__struct_config__.tag in ("text", "thinking") else part
            for index, part in parts
        }

    def apply(self, event: Event) -> None:
        if isinstance(event, Delta):
            assert event.seq == self.seq
            own = self.parts[event.message_id]
            have = own.setdefault(event.part, "")
            assert utf16_length(have) == event.offset, "a gap or a repeat"
            own[event.part] = have + event.text
            return
        assert event.seq == self.seq + 1, "a gap or a repeat"
        self.seq = event.seq
        match event:
            case MessageStarted():
                self.parts[event.message_id] = {}
            case MessageCompleted(message_id=id_, message=message) if message is not None:
                streamed = self.parts.pop(id_, None)
                self.final[id_] = message.parts
                if streamed is not None and message.status is not MessageStatus.STREAMING:
                    self._compare(streamed, message.parts)
            case ToolStarted() | ToolFinished() | TurnSteered():
                self.parts[event.message_id][event.part] = event

    def _compare(self, streamed: dict[int, Any], parts: tuple[Any, ...]) -> None:
        """What was put together from deltas is what is stored in the end."""
        texts = {i: p.text for i, p in enumerate(parts) if hasattr(p, "text")}
        for index, text in streamed.items():
            if isinstance(text, str):
                assert text == texts[index]


class Play:
    """A conversation that streams, and readers who come and go at any moment."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.turn: Any = None
        self.reply: Any = None
        self.calls = 0
        self.readers: list[Any] = [None, None]
        self.phases = [0, 0]
        self.subscriptions: list[Any] = [None, None]
        self.caught: list[Any] = [None, None]

    async def run(self, steps: list[tuple[str, int]]) -> None:
        self.store = await MemoryStore.open(self.journal.publish)
        self.flusher = Flusher(self.store, lambda _: None)
        new = NewConversation(conversation_id="a", mode=AgentMode.CHAT, session_id="user")
        await self.store.create(new)
        self.readers = [Reader(self.store.store_id), Reader(self.store.store_id)]
        for step, which in steps:
            await getattr(self, step)(which)
        await self.end(0)
        for which in (0, 1):
            for _ in range(4):
                await self.advance(which)
        stored = {m.message_id: m.parts for m in await self.store.messages("a")}
        for reader in self.readers:
            assert reader.upset is None
            assert reader.final == stored
            assert reader.seq == (await self.store.get("a")).last_seq
        await self.store.aclose()

    async def begin(self, _: int) -> None:
        if self.turn is None:
            await self.queue(0)
            self.turn = await self.store.start_turn("a", "fake")
            self.reply = Reply(self.journal, "a", self.turn.turn_id, self.turn.reply_id)
            self.flusher.attach(self.reply)

    async def text(self, which: int) -> None:
        if self.turn is not None:
            self.reply.append("text" if which else "thinking", "x😀"[: which + 1])

    async def queue(self, _: int) -> None:
        await self.store.enqueue("a", Prompt(input="hi"), limit=1_000)

    async def flush(self, _: int) -> None:
        await self.flusher.flush_conversation("a")

    async def tool(self, _: int) -> None:
        if self.turn is None:
            return
        await self.flush(0)
        self.calls += 1
        call = ToolCall(f"t{self.calls}", "look", {})
        ids = ("a", self.turn.turn_id, self.turn.reply_id)
        part = self.reply.add(
            ToolCallPart(tool_call_id=call.tool_call_id, name="look", arguments={})
        )
        await self.store.tool_started(*ids, part, call)
        part = self.reply.add(ToolResultPart(tool_call_id=call.tool_call_id, content="seen"))
        await self.store.tool_finished(*ids, part, call.tool_call_id, ToolOutput("seen"))

    async def steer(self, _: int) -> None:
        if self.turn is not None:
            part = self.reply.add(SteeringPart(text="quick"))
            await self.store.steer(
                "a", self.turn.turn_id, self.turn.reply_id, part, SteeringPart(text="quick")
            )

    async def end(self, _: int) -> None:
        if self.turn is None:
            return
        self.flusher.detach(self.reply)
        self.flusher.ended(self.reply)
        outcome = TurnOutcome(
            stop_reason=StopReason.END_TURN,
            status=MessageStatus.COMPLETE,
            queue_state=QueueState.DONE,
            parts=self.reply.parts,
        )
        await self.store.end_turn("a", self.turn.turn_id, outcome)
        self.turn = self.reply = None

    async def advance(self, which: int) -> None:
        """Subscribe, have what is in memory stored, ask what was missed, be released."""
        phase, reader = self.phases[which], self.readers[which]
        if phase == 0:
            self.subscriptions[which] = self.journal.subscribe("a", reader.hear)
        elif phase == 1:
            await self.flush(0)
        elif phase == 2:
            self.caught[which] = await self.store.catch_up("a", reader.cursor())
        elif phase == 3:
            reader.catch_up(self.caught[which])
            self.subscriptions[which].release(self.caught[which])
        self.phases[which] = min(phase + 1, 4)

    async def leave(self, which: int) -> None:
        if self.subscriptions[which] is not None:
            self.journal.unsubscribe(self.subscriptions[which])
        self.phases[which], self.subscriptions[which] = 0, None


STEPS = st.sampled_from(
    ["begin", "text", "text", "text", "queue", "flush", "tool", "steer", "end", "advance"] * 2
    + ["advance", "advance", "leave"]
)


@proves("P3")
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(STEPS, st.integers(0, 1)), max_size=40))
@example(
    [
        *[("begin", 0), ("advance", 0), ("advance", 0), ("text", 1), ("queue", 0)],
        *[("advance", 0), ("advance", 0), ("text", 1)],
    ]
)
def test_whenever_a_reader_comes_and_goes_it_has_the_stored_transcript(
    steps: list[tuple[str, int]],
) -> None:
    asyncio.run(Play().run(steps))


def test_each_turn_is_told_to_have_ended_once() -> None:
    journal, ends = Journal(), []
    journal.listen(lambda e: ends.append(e) if isinstance(e, TurnEnded) else None)
    journal.publish(
        [TurnEnded(conversation_id="a", seq=1, message_id="m", stop_reason=StopReason.END_TURN)] * 2
    )
    assert len(ends) == 1
