"""The bounded writer, in front of a sink that blocks for as long as the test says."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.events import Delta, encode_event, utf16_length
from sidecar.wire.frames import Frame, FrameParser
from sidecar.wire.writer import FRAME_ROOM, PIECE, FrameWriter
from tests.requirements import proves

PATIENCE = 10
"""Seconds after which a test that waits for a thread has failed."""


class Loop:
    """What the writer needs of an event loop. Callbacks wait until the test runs them."""

    def __init__(self) -> None:
        self._callbacks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self._callbacks.put(callback)

    def run_next(self) -> None:
        self._callbacks.get(timeout=PATIENCE)()

    @property
    def is_idle(self) -> bool:
        return self._callbacks.empty()


class Sink:
    """Takes bytes when it is let to, at most `portion` of each write."""

    def __init__(self, portion: int | None = None) -> None:
        self.data = bytearray()
        self.writes: list[int] = []
        self.error: Exception | None = None
        self._portion = portion
        self.is_open = False
        self._permits = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)

    def write(self, data: bytes) -> int:
        self._entered.release()
        if not self.is_open:
            assert self._permits.acquire(timeout=PATIENCE)
        if self.error is not None:
            raise self.error
        taken = data[: self._portion]
        self.data += taken
        self.writes.append(len(taken))
        return len(taken)

    def open(self) -> None:
        self.is_open = True
        self._permits.release()

    def shut(self) -> None:
        self.is_open = False
        while self._permits.acquire(blocking=False):
            pass

    def let_one_through(self) -> None:
        self._permits.release()

    def wait_for_write(self) -> None:
        """Return when the thread has come to one more write."""
        assert self._entered.acquire(timeout=PATIENCE)

    @property
    def bodies(self) -> list[bytes]:
        items = FrameParser().feed(bytes(self.data))
        assert all(isinstance(item, Frame) for item in items)
        return [item.body for item in items if isinstance(item, Frame)]


def make(sink: Sink, loop: Loop | None = None, **options: Any) -> FrameWriter:
    return FrameWriter(sink.write, encode=encode_event, loop=loop or Loop(), **options)  # type: ignore[arg-type]  # a stand-in


def stuck(**options: Any) -> tuple[FrameWriter, Sink, Loop]:
    """A writer whose client does not read: its thread is in the write of `first`."""
    sink, loop = Sink(), Loop()
    writer = make(sink, loop, **options)
    writer.send(b"first")
    sink.wait_for_write()
    return writer, sink, loop


def finish(writer: FrameWriter, sink: Sink) -> list[bytes]:
    """Everything that was written in the end."""
    sink.open()
    assert writer.close(PATIENCE)
    return sink.bodies


def delta(offset: int, text: str, conversation: str = "c", part: int = 0, **fields: Any) -> Delta:
    fields = {"message_id": "m", "kind": "text", "seq": 1, **fields}
    return Delta(conversation_id=conversation, part=part, offset=offset, text=text, **fields)


def texts(bodies: list[bytes]) -> list[str]:
    """The texts of deltas; other bodies as they are."""
    return [json.loads(body)["text"] if body.startswith(b"{") else body.decode() for body in bodies]


# ---- order and merging -------------------------------------------------------------------


def test_frames_are_written_in_order() -> None:
    sink = Sink()
    sink.open()
    writer = make(sink)
    bodies = [b"%d" % number for number in range(1000)]
    for number, body in enumerate(bodies):
        if number % 2:
            writer.send(body)
        else:
            assert writer.notify(body, key="c")
    assert finish(writer, sink) == bodies


def test_an_idle_writer_writes_each_delta_as_it_is() -> None:
    sink = Sink()
    sink.open()
    writer = make(sink)
    for at, text in enumerate("abc"):
        assert writer.delta(delta(at, text))
        sink.wait_for_write()
    assert texts(finish(writer, sink)) == ["a", "b", "c"]


def test_text_that_waits_becomes_one_delta() -> None:
    writer, sink, _ = stuck()
    for at in range(100):
        assert writer.delta(delta(at, "x"))
    first, merged = finish(writer, sink)
    assert first == b"first"
    assert json.loads(merged)["text"] == "x" * 100
    assert json.loads(merged)["offset"] == 0


def test_offsets_count_utf16_code_units() -> None:
    writer, sink, _ = stuck()
    writer.delta(delta(0, "😀"))
    writer.delta(delta(2, "é"))
    writer.delta(delta(3, "!"))
    assert texts(finish(writer, sink)) == ["first", "😀é!"]


@pytest.mark.parametrize(
    "other",
    [
        delta(5, "b"),
        delta(0, "b"),
        delta(1, "b", part=1),
        delta(1, "b", message_id="n"),
        delta(1, "b", kind="thinking"),
        delta(1, "b", seq=2),
        delta(1, "b", conversation="d"),
    ],
    ids=["hole", "repeat", "part", "message", "kind", "seq", "conversation"],
)
def test_only_text_that_continues_a_delta_is_added_to_it(other: Delta) -> None:
    writer, sink, _ = stuck()
    writer.delta(delta(0, "a"))
    writer.delta(other)
    assert texts(finish(writer, sink)) == ["first", "a", "b"]


def test_text_does_not_move_ahead_of_an_event_of_its_conversation() -> None:
    writer, sink, _ = stuck()
    writer.delta(delta(0, "a"))
    writer.notify(b"event", key="c")
    writer.delta(delta(1, "b"))
    assert texts(finish(writer, sink)) == ["first", "a", "event", "b"]


def test_text_moves_ahead_of_an_event_of_another_conversation() -> None:
    writer, sink, _ = stuck()
    writer.delta(delta(0, "a"))
    writer.notify(b"event", key="d")
    writer.delta(delta(0, "x", conversation="d"))
    writer.delta(delta(1, "b"))
    writer.delta(delta(1, "y", conversation="d"))
    assert texts(finish(writer, sink)) == ["first", "ab", "event", "xy"]


@pytest.mark.parametrize("say", ["send", "notify"])
def test_text_does_not_move_ahead_of_what_may_speak_of_it(say: str) -> None:
    """The answer to a subscription says how much text the reader has by then."""
    writer, sink, _ = stuck()
    writer.delta(delta(0, "a"))
    getattr(writer, say)(b"answer")
    writer.delta(delta(1, "b"))
    assert texts(finish(writer, sink)) == ["first", "a", "answer", "b"]


# ---- the bound ---------------------------------------------------------------------------


@proves("P6")
def test_notifications_are_refused_when_there_is_no_room_and_responses_never() -> None:
    writer, sink, _ = stuck(limit=1000)
    assert writer.notify(b"n" * 500)
    assert not writer.is_congested
    assert not writer.notify(b"n" * 500)
    assert writer.is_congested
    assert not writer.delta(delta(0, "x" * 500))
    writer.send(b"r" * 5000)
    writer.send(b"r" * 5000)
    assert writer.queued_bytes > 10_000
    assert [len(body) for body in finish(writer, sink)] == [5, 500, 5000, 5000]


def test_responses_alone_congest_it() -> None:
    writer, sink, _ = stuck(limit=1000)
    writer.send(b"r" * 2000)
    assert writer.is_congested
    finish(writer, sink)
    assert not writer.is_congested


def test_one_notification_larger_than_the_bound_gets_in_when_nothing_waits() -> None:
    sink = Sink()
    writer = make(sink, limit=1000)
    assert writer.notify(b"n" * 5000)
    assert not writer.notify(b"n")
    assert [len(body) for body in finish(writer, sink)] == [5000]


def test_merged_text_counts_against_the_bound() -> None:
    writer, sink, _ = stuck(limit=10_000)
    taken = 0
    while writer.delta(delta(taken, "x")):
        taken += 1
    assert 5_000 < taken <= 10_000
    assert writer.queued_bytes <= 10_000
    assert texts(finish(writer, sink)) == ["first", "x" * taken]


def test_text_behind_a_refused_delta_is_not_added_over_the_hole() -> None:
    writer, sink, _ = stuck(limit=2_000)
    assert writer.delta(delta(0, "a"))
    assert not writer.delta(delta(1, "x" * 2_000))
    assert writer.delta(delta(2_001, "b"))
    assert texts(finish(writer, sink)) == ["first", "a", "b"]


def test_the_loop_is_told_once_when_the_queue_has_drained() -> None:
    told: list[str] = []
    writer, sink, loop = stuck(limit=1000, on_drained=lambda: told.append("drained"))
    assert not writer.notify(b"n" * 1000)
    assert not writer.notify(b"n" * 1000)
    sink.open()
    loop.run_next()
    assert told == ["drained"]
    assert not writer.is_congested
    assert writer.notify(b"again")
    assert finish(writer, sink) == [b"first", b"again"]
    assert loop.is_idle


def test_the_loop_is_told_no_sooner_than_half_of_the_queue_is_written() -> None:
    writer, sink, loop = stuck(limit=4 * PIECE, on_drained=lambda: None)
    for _ in range(4):
        writer.send(b"r" * (PIECE - FRAME_ROOM))
    assert writer.is_congested
    for waiting in (4, 3):
        sink.let_one_through()
        sink.wait_for_write()
        assert (writer.queued_bytes, loop.is_idle) == (waiting * PIECE, True)
    sink.let_one_through()
    loop.run_next()
    assert not writer.is_congested
    finish(writer, sink)
    assert loop.is_idle


def test_the_loop_is_not_told_of_an_ordinary_flow() -> None:
    writer, sink, loop = stuck(on_drained=lambda: None)
    writer.notify(b"n" * 1000)
    finish(writer, sink)
    assert loop.is_idle


# ---- writing -----------------------------------------------------------------------------


@pytest.mark.parametrize("portion", [1, 7, 4096])
def test_what_the_system_takes_in_parts_is_written_whole(portion: int) -> None:
    sink = Sink(portion)
    writer = make(sink)
    bodies = [b"a" * 100, b"b", b"c" * 10_000]
    for body in bodies:
        writer.send(body)
    assert finish(writer, sink) == bodies
    assert max(sink.writes) <= portion


def test_frames_that_wait_share_a_write() -> None:
    writer, sink, _ = stuck()
    for _ in range(100):
        writer.notify(b"x")
    finish(writer, sink)
    assert len(sink.writes) == 2


def test_a_write_without_a_count_took_everything() -> None:
    data = bytearray()
    writer = FrameWriter(data.extend, encode=encode_event, loop=Loop())  # type: ignore[arg-type]  # a stand-in
    writer.send(b"a" * (PIECE + 1))
    assert writer.close(PATIENCE)
    assert FrameParser().feed(bytes(data)) == [Frame(b"a" * (PIECE + 1))]


def test_a_broken_pipe_is_told_once_and_nothing_is_taken_any_more() -> None:
    told: list[str] = []
    writer, sink, loop = stuck(limit=100, on_broken=lambda: told.append("broken"))
    writer.send(b"r" * 1000)
    sink.error = BrokenPipeError()
    sink.open()
    loop.run_next()
    writer.send(b"later")
    assert not writer.notify(b"later")
    assert not writer.delta(delta(0, "later"))
    assert not writer.close(PATIENCE)
    assert told == ["broken"]
    assert loop.is_idle
    assert writer.queued_bytes == 0
    assert not writer.is_congested
    assert sink.bodies == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_ends_the_thread_the_loop_is_told() -> None:
    told: list[str] = []
    writer, sink, loop = stuck(on_broken=lambda: told.append("broken"))
    sink.error = ValueError("I/O operation on closed file")
    sink.open()
    loop.run_next()
    assert told == ["broken"]
    assert not writer.close(PATIENCE)


def test_closing_gives_up_on_a_client_that_does_not_read() -> None:
    writer, sink, _ = stuck()
    assert not writer.close(0)
    writer.send(b"later")
    assert not writer.notify(b"later")
    assert finish(writer, sink) == [b"first"]


def test_it_goes_on_when_the_loop_has_ended() -> None:
    class Ended(Loop):
        def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
            raise RuntimeError("Event loop is closed")

    sink = Sink()
    writer = make(sink, Ended(), limit=10, on_drained=lambda: None)
    writer.send(b"r" * 100)
    writer.send(b"s")
    assert finish(writer, sink) == [b"r" * 100, b"s"]


def test_its_repr_shows_the_state() -> None:
    writer, sink, _ = stuck(limit=1000)
    writer.send(b"x" * (1000 - FRAME_ROOM))
    assert repr(writer) == "<FrameWriter: 1 frames, 1069 bytes, congested>"
    finish(writer, sink)
    assert repr(writer) == "<FrameWriter: 0 frames, 0 bytes, closed>"


# ---- in the real world -------------------------------------------------------------------


@proves("P11")
@pytest.mark.anyio
async def test_the_event_loop_goes_on_while_the_client_does_not_read() -> None:
    reading, writing = os.pipe()
    drained = anyio.Event()
    writer = FrameWriter(
        lambda data: os.write(writing, data),
        encode=encode_event,
        limit=100_000,
        on_drained=drained.set,
    )
    body = b"x" * 1_000_000
    with anyio.fail_after(PATIENCE):
        writer.send(body)
        assert not writer.notify(b"no room")
        parser = FrameParser()
        items: list[object] = []
        while not items:
            items += parser.feed(await anyio.to_thread.run_sync(os.read, reading, 65536))
        await drained.wait()
    assert items == [Frame(body)]
    assert writer.close(PATIENCE)
    os.close(reading)
    os.close(writing)


@pytest.mark.anyio
async def test_the_event_loop_hears_of_a_client_that_is_gone() -> None:
    reading, writing = os.pipe()
    broken = anyio.Event()
    writer = FrameWriter(
        lambda data: os.write(writing, data), encode=encode_event, on_broken=broken.set
    )
    os.close(reading)
    writer.send(b"anybody?")
    with anyio.fail_after(PATIENCE):
        await broken.wait()
    os.close(writing)


# ---- whatever happens, in whatever order -------------------------------------------------


class Reader:
    """Keeps what a client could tell apart: the lines of each conversation, where text that
    follows on is one line, and what had been said when something concerned everybody."""

    def __init__(self) -> None:
        self.conversations: dict[str, list[str]] = {}
        self.seen: list[tuple[str, dict[str, list[str]]]] = []
        self._end: dict[str, tuple[int, int]] = {}

    def apply(self, body: bytes) -> None:
        message = json.loads(body)
        if "type" in message:
            self._apply_text(decode_delta(body))
        elif message["key"] is None:
            lines = {key: list(lines) for key, lines in self.conversations.items()}
            self.seen.append((message["say"], lines))
        else:
            self.conversations.setdefault(message["key"], []).append(message["say"])
            self._end.pop(message["key"], None)

    def _apply_text(self, delta: Delta) -> None:
        lines = self.conversations.setdefault(delta.conversation_id, [])
        if self._end.get(delta.conversation_id) == (delta.part, delta.offset):
            lines[-1] += delta.text
        else:
            lines.append(f"{delta.part}@{delta.offset}:{delta.text}")
        end = delta.offset + utf16_length(delta.text)
        self._end[delta.conversation_id] = (delta.part, end)


decode_delta = msgspec.json.Decoder(Delta).decode

keys = st.sampled_from(["c", "d", "e"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("delta"), keys, st.integers(0, 1), st.text("a😀é\n", max_size=3)),
        st.tuples(st.just("notify"), st.one_of(keys, st.none())),
        st.tuples(st.just("send")),
        st.tuples(st.sampled_from(["open", "shut", "let_one_through"])),
    ),
    max_size=60,
)


@proves("P3")
@given(
    steps,
    st.sampled_from([None, 1, 30]),
    st.sampled_from([1 << 20, 1500]),
    st.sampled_from([0, 100, 4096]),
)
def test_a_client_reads_what_was_taken_in_order_however_it_stalls(
    steps: list[tuple[Any, ...]], portion: int | None, limit: int, room: int
) -> None:
    sink = Sink(portion)
    writer = make(sink, limit=limit, room=lambda: room if sink.is_open else 0)
    expected = Reader()
    lengths: Counter[tuple[str, int]] = Counter()
    for number, (do, *arguments) in enumerate(steps):
        if do == "delta":
            key, part, text = arguments
            event = delta(lengths[key, part], text, key, part)
            lengths[key, part] += utf16_length(text)
            if writer.delta(event):
                expected.apply(encode_event(event))
        elif do == "notify":
            body = json.dumps({"key": arguments[0], "say": str(number)}).encode()
            if writer.notify(body, key=arguments[0]):
                expected.apply(body)
        elif do == "send":
            body = json.dumps({"key": None, "say": str(number)}).encode()
            writer.send(body)
            expected.apply(body)
        else:
            getattr(sink, do)()
    actual = Reader()
    for body in finish(writer, sink):
        actual.apply(body)
    assert actual.conversations == expected.conversations
    assert actual.seen == expected.seen
    assert writer.queued_bytes == 0
