"""The reducer: whatever arrives, in whatever pieces, the transcript is the stored one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.client import Applied, ConversationView, UnknownEvent
from sidecar.conversations import Message, MessageStatus, Part, StopReason, TextPart
from sidecar.events import (
    Delta,
    Event,
    MessageCompleted,
    MessageStarted,
    Missing,
    OpenPart,
    QueueChanged,
    Replay,
    Rewound,
    Snapshot,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    utf16_length,
)

ID, STORE = "c-1", "store-1"


def message(
    number: int,
    *parts: Part,
    status: MessageStatus = MessageStatus.STREAMING,
    role: str = "assistant",
) -> Message:
    return Message(
        message_id=f"m-{number}",
        ordinal=number,
        role="user" if role == "user" else "assistant",
        status=status,
        parts=parts,
        turn_id="t-1",
        created_at=0,
    )


def snapshot(*messages: Message, seq: int = 0, revision: int = 0) -> Snapshot:
    return Snapshot(
        conversation_id=ID, last_seq=seq, revision=revision, messages=messages, open_parts=()
    )


def delta(text: str, *, at: int, part: int = 0, seq: int = 1, number: int = 1) -> Delta:
    return Delta(
        conversation_id=ID,
        seq=seq,
        message_id=f"m-{number}",
        part=part,
        kind="text",
        offset=at,
        text=text,
    )


def started(seq: int = 1, number: int = 1) -> MessageStarted:
    return MessageStarted(
        conversation_id=ID, seq=seq, message_id=f"m-{number}", turn_id="t-1", ordinal=number
    )


def streaming() -> ConversationView:
    """A view with one message that has just begun, at seq 1."""
    view = ConversationView(ID)
    view.caught_up(snapshot(), STORE)
    assert view.apply(started()) is Applied.NEW
    return view


def text_of(view: ConversationView) -> str:
    return view.messages[-1].text


def test_deltas_become_the_text_of_their_part() -> None:
    view = streaming()
    assert view.apply(delta("Hel", at=0)) is Applied.NEW
    assert view.apply(delta("lo", at=3)) is Applied.NEW
    assert text_of(view) == "Hello"


def test_a_repeated_delta_is_passed_over() -> None:
    view = streaming()
    view.apply(delta("Hello", at=0))
    assert view.apply(delta("Hello", at=0)) is Applied.KNOWN
    assert view.apply(delta("ell", at=1)) is Applied.KNOWN
    assert text_of(view) == "Hello"


def test_of_a_delta_that_overlaps_only_the_rest_is_taken() -> None:
    view = streaming()
    view.apply(delta("a😀", at=0))
    assert view.apply(delta("😀b", at=1)) is Applied.NEW
    assert text_of(view) == "a😀b"


def test_offsets_count_utf16_code_units() -> None:
    view = streaming()
    view.apply(delta("😀", at=0))
    assert view.apply(delta("!", at=2)) is Applied.NEW
    assert view.cursor.parts == (OpenPart(message_id="m-1", part=0, length=3),)


def test_a_delta_behind_a_hole_changes_nothing() -> None:
    view = streaming()
    assert view.apply(delta("later", at=7)) is Applied.HOLE
    assert view.apply(delta("x", at=0, part=1)) is Applied.HOLE
    assert view.apply(delta("x", at=0, seq=9)) is Applied.HOLE
    assert view.apply(delta("x", at=0, number=5)) is Applied.HOLE
    assert view.messages[0].parts == ()


def test_an_event_behind_a_hole_changes_nothing() -> None:
    view = streaming()
    assert view.apply(started(seq=3, number=2)) is Applied.HOLE
    assert len(view.messages) == 1
    assert view.seq == 1


def test_a_tool_whose_text_is_missing_is_a_hole() -> None:
    view = streaming()
    used = ToolStarted(
        conversation_id=ID,
        seq=2,
        message_id="m-1",
        turn_id="t-1",
        tool_call_id="c",
        name="x",
        part=1,
    )
    assert view.apply(used) is Applied.HOLE
    assert view.seq == 1


def test_an_event_that_is_known_is_passed_over() -> None:
    view = streaming()
    view.apply(delta("Hello", at=0))
    assert view.apply(started()) is Applied.KNOWN
    assert text_of(view) == "Hello"


def test_the_end_of_a_message_replaces_what_was_streamed() -> None:
    view = streaming()
    view.apply(delta("Hel", at=0))
    whole = message(1, TextPart(text="Hello."), status=MessageStatus.COMPLETE)
    done = MessageCompleted(conversation_id=ID, seq=2, message_id="m-1", message=whole)
    assert view.apply(done) is Applied.NEW
    assert view.messages == (whole,)
    assert view.apply(delta("lo", at=3)) is Applied.KNOWN
    assert view.cursor.parts == ()


def test_a_replay_gives_the_text_that_is_stored_even_if_it_is_less() -> None:
    view = streaming()
    view.apply(delta("Hello world", at=0))
    stored = message(1, TextPart(text="Hello"))
    part = OpenPart(message_id="m-1", part=0, length=5)
    view.caught_up(
        Replay(
            conversation_id=ID,
            last_seq=2,
            revision=0,
            events=(QueueChanged(conversation_id=ID, seq=2, message_id="m-9", state="queued"),),
            open_message=stored,
            open_parts=(part,),
        ),
        STORE,
    )
    assert text_of(view) == "Hello"
    assert view.apply(delta(" there", at=5, seq=2)) is Applied.NEW
    assert text_of(view) == "Hello there"


def test_a_replay_with_tools_between_unseen_texts_ends_in_the_whole_message() -> None:
    view = streaming()
    whole = message(1, TextPart(text="a"), TextPart(text="b"), status=MessageStatus.COMPLETE)
    events = (
        ToolStarted(
            conversation_id=ID,
            seq=2,
            message_id="m-1",
            turn_id="t",
            tool_call_id="c",
            name="x",
            part=1,
        ),
        ToolFinished(
            conversation_id=ID, seq=3, message_id="m-1", turn_id="t", tool_call_id="c", part=2
        ),
        MessageCompleted(conversation_id=ID, seq=4, message_id="m-1", message=whole),
        TurnEnded(conversation_id=ID, seq=5, message_id="m-0", stop_reason=StopReason.END_TURN),
    )
    view.caught_up(
        Replay(conversation_id=ID, last_seq=5, revision=0, events=events, open_parts=()), STORE
    )
    assert view.messages == (whole,)
    assert view.seq == 5


def test_a_rewind_hides_what_follows_and_changes_the_revision() -> None:
    view = ConversationView(ID)
    kept = message(0, TextPart(text="a"), status=MessageStatus.COMPLETE, role="user")
    hidden = message(1, TextPart(text="b"), status=MessageStatus.COMPLETE)
    view.caught_up(snapshot(kept, hidden), STORE)
    rewound = Rewound(conversation_id=ID, seq=1, revision=1, to_message_id="m-0")
    assert view.apply(rewound) is Applied.NEW
    assert view.messages == (kept,)
    assert view.cursor.revision == 1


def test_a_rewind_to_a_message_that_was_never_seen_is_a_hole() -> None:
    view = streaming()
    rewound = Rewound(conversation_id=ID, seq=2, revision=1, to_message_id="m-77")
    assert view.apply(rewound) is Applied.HOLE


def test_a_message_that_was_removed_since_is_removed() -> None:
    view = streaming()
    view.apply(MessageCompleted(conversation_id=ID, seq=2, message_id="m-1"))
    assert view.messages == ()


def test_an_event_of_a_newer_sidecar_counts_and_says_nothing() -> None:
    view = streaming()
    assert view.apply(UnknownEvent(conversation_id=ID, seq=2, type="moonRisen")) is Applied.NEW
    assert view.apply(TurnStarted(conversation_id=ID, seq=3, message_id="m", turn_id="t")) is (
        Applied.NEW
    )


def test_a_conversation_that_is_gone_has_no_messages() -> None:
    view = streaming()
    view.caught_up(Missing(conversation_id=ID), STORE)
    assert view.is_missing
    assert view.messages == ()


# ---- any disconnect schedule -------------------------------------------------------------


class Stored:
    """One message being written, as a store has it, and the events that told of it."""

    def __init__(self, texts: list[str]) -> None:
        self.states: list[Snapshot] = []
        self.events: list[Event] = []
        parts: list[TextPart] = []
        self._add(started(), ())
        for index, text in enumerate(texts):
            parts.append(TextPart(text=""))
            for char in text:
                at = utf16_length(parts[-1].text)
                parts[-1] = TextPart(text=parts[-1].text + char)
                self._add(delta(char, at=at, part=index), tuple(parts))
        self.whole = message(1, *parts, status=MessageStatus.COMPLETE)
        self.events.append(
            MessageCompleted(conversation_id=ID, seq=2, message_id="m-1", message=self.whole)
        )
        self.states.append(snapshot(self.whole, seq=2))

    def _add(self, event: Event, parts: tuple[TextPart, ...]) -> None:
        self.events.append(event)
        self.states.append(snapshot(message(1, *parts), seq=1))


@given(
    texts=st.lists(st.text("ab😀é", min_size=1, max_size=8), min_size=1, max_size=3),
    schedule=st.lists(st.sampled_from(["see", "miss", "twice", "again"]), max_size=40),
)
def test_no_schedule_of_losses_and_repeats_ends_in_another_transcript(
    texts: list[str], schedule: list[str]
) -> None:
    stored = Stored(texts)
    view = ConversationView(ID)
    view.caught_up(snapshot(), STORE)
    last = len(stored.events) - 1
    for index, event in enumerate(stored.events):
        fate = schedule[index] if index < len(schedule) else "see"
        if fate == "miss" and index != last:
            continue
        for _ in range(2 if fate == "twice" else 1):
            if view.apply(event) is Applied.HOLE or fate == "again":
                view.caught_up(stored.states[index], STORE)
        # The loss of a part's last delta shows when its message ends, never as wrong text.
        for mine, theirs in zip(view.messages[0].parts, stored.whole.parts, strict=False):
            assert isinstance(mine, TextPart)
            assert isinstance(theirs, TextPart)
            assert theirs.text.startswith(mine.text)
    assert view.messages == (stored.whole,)
