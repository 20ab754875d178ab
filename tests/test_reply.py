"""A reply while it is made: its parts, its deltas, and how it gets into the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.conversations import StopReason, TextPart, ThinkingPart, ToolCallPart
from sidecar.errors import PersistenceFailed
from sidecar.events import Delta, utf16_length
from sidecar.interfaces import ModelStop, TextChunk, TextDelta
from sidecar.journal import Journal
from sidecar.reply import END_PATIENCE, FLUSH_INTERVAL, FLUSH_UNITS, RETRY_INTERVAL, Flusher, Reply
from tests.fakes import FakeModel
from tests.managers import VIRTUAL, begin, living, recorded, settle, until
from tests.requirements import proves

END = ModelStop("endTurn")


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


def heard(reply_of: str = "a") -> tuple[Reply, list[Delta]]:
    journal, deltas = Journal(), []
    journal.subscribe(reply_of, deltas.append).start()  # type: ignore[arg-type]
    return Reply(journal, reply_of, "turn", "reply"), deltas


# ---- text ----


@proves("D4-STREAM-4")
def test_a_pair_that_comes_in_two_pieces_is_sent_as_one() -> None:
    reply, deltas = heard()
    for piece in ("a\ud83d", "\ude00b"):
        reply.append("text", piece)
    assert [d.text for d in deltas] == ["a", "😀b"]
    assert [d.offset for d in deltas] == [0, 1]
    assert reply.parts == (TextPart(text="a😀b"),)


@proves("D4-STREAM-4")
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["\ude00x"], "\ufffdx"),
        (["a\ud83d", "b", "\ude00c"], "a\ufffdb\ufffdc"),
        (["\ud83d\ud83d", "\ude00"], "\ufffd😀"),
        (["\ud83d", "", "\ude00"], "😀"),
    ],
)
def test_half_a_pair_becomes_the_replacement_character(pieces: list[str], text: str) -> None:
    reply, _ = heard()
    for piece in pieces:
        reply.append("text", piece)
    assert reply.parts == (TextPart(text=text),)


@proves("D4-STREAM-4")
def test_half_a_pair_at_the_end_of_a_part_is_not_lost_nor_moved_to_the_next() -> None:
    reply, deltas = heard()
    reply.append("text", "a\ud83d")
    reply.append("thinking", "b\ud83d")
    reply.add(ToolCallPart(tool_call_id="t", name="look", arguments={}))
    reply.append("text", "c\ud83d")
    reply.end_text()
    assert reply.parts == (
        TextPart(text="a\ufffd"),
        ThinkingPart(text="b\ufffd"),
        ToolCallPart(tool_call_id="t", name="look", arguments={}),
        TextPart(text="c\ufffd"),
    )
    assert "".join(d.text for d in deltas) == "a\ufffdb\ufffdc\ufffd"


CHARS = st.text(st.sampled_from(["a", "é", "😀", "\ud83d", "\ude00"]), max_size=4)


@proves("D4-STREAM-4", "P3")
@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["text", "thinking"]), CHARS), max_size=12))
def test_deltas_put_together_are_the_parts_and_never_split_a_pair(pieces: Sequence[Any]) -> None:
    reply, deltas = heard()
    for kind, text in pieces:
        reply.append(kind, text)
    reply.end_text()
    built: list[str] = []
    for delta in deltas:
        delta.text.encode()  # no lone surrogate
        if delta.part == len(built):
            built.append("")
        assert delta.part == len(built) - 1
        assert delta.offset == utf16_length(built[-1])
        built[-1] += delta.text
    assert built == [part.text for part in reply.parts]  # type: ignore[union-attr]
    said = "".join(text for _, text in pieces)
    if not any("\ud800" <= char <= "\udfff" for char in said):
        assert "".join(built) == said


def test_what_is_not_stored_yet_is_one_chunk_a_part() -> None:
    reply, _ = heard()
    for kind, text in (("thinking", "h"), ("thinking", "m"), ("text", "so"), ("text", "😀")):
        reply.append(kind, text)  # type: ignore[arg-type]
    taken = reply.unstored()
    assert [(c.part, c.offset, c.text) for _, c, _ in taken] == [(0, 0, "hm"), (1, 0, "so😀")]
    reply.append("text", "!")
    for part, chunk, reach in taken:
        reply.mark_stored(part, chunk, reach)
    assert [(c.part, c.offset, c.text) for _, c, _ in reply.unstored()] == [(1, 4, "!")]
    assert reply.unstored_units == 1


def test_a_closed_reply_takes_no_more_text() -> None:
    reply, deltas = heard()
    reply.append("text", "a")
    reply.close()
    reply.append("text", "b")
    assert reply.parts == (TextPart(text="a"),)
    assert [d.text for d in deltas] == ["a"]


# ---- the store ----


class Sink:
    """The one method of a store that a flusher calls."""

    def __init__(self) -> None:
        self.commits: list[list[TextChunk]] = []
        self.fails = False

    async def append_text(self, chunks: Sequence[TextChunk]) -> None:
        if self.fails:
            raise PersistenceFailed("The disk is full.")
        self.commits.append(list(chunks))


def flushing() -> tuple[Sink, Flusher, list[str | None]]:
    sink, news = Sink(), []
    return sink, Flusher(sink, news.append), news  # type: ignore[arg-type]


@proves("D4-STREAM-1", "P4")
@pytest.mark.anyio
async def test_text_of_all_conversations_is_stored_four_times_a_second_in_one_go() -> None:
    sink, flusher, _ = flushing()
    replies = [heard(id_)[0] for id_ in "abc"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flusher.run)
        await settle()
        for reply in replies:
            flusher.attach(reply)
            for _ in range(100):
                reply.append("text", "x")
                flusher.notice(reply)
        await settle()
        assert sink.commits == []
        await anyio.sleep(FLUSH_INTERVAL + 0.01)
        (commit,) = sink.commits
        assert [(c.conversation_id, len(c.text)) for c in commit] == [
            ("a", 100),
            ("b", 100),
            ("c", 100),
        ]
        await anyio.sleep(10)
        assert len(sink.commits) == 1, "nothing new, nothing written"
        tasks.cancel_scope.cancel()


@proves("D4-STREAM-1")
@pytest.mark.anyio
async def test_text_that_runs_far_ahead_is_stored_at_once() -> None:
    sink, flusher, _ = flushing()
    reply, _ = heard()
    async with anyio.create_task_group() as tasks:
        flusher.attach(reply)
        tasks.start_soon(flusher.run)
        await settle()
        began = anyio.current_time()
        reply.append("text", "x" * (FLUSH_UNITS - 1))
        flusher.notice(reply)
        await settle()
        assert sink.commits == []
        reply.append("text", "x")
        flusher.notice(reply)
        await until(lambda: sink.commits)
        assert anyio.current_time() - began < FLUSH_INTERVAL
        tasks.cancel_scope.cancel()


@proves("D4-STREAM-2", "S003-PERSIST-3", "P4")
@pytest.mark.anyio
async def test_a_failing_store_is_announced_once_and_its_recovery_once() -> None:
    sink, flusher, news = flushing()
    reply, _ = heard()
    async with anyio.create_task_group() as tasks:
        flusher.attach(reply)
        tasks.start_soon(flusher.run)
        sink.fails = True
        with recorded() as records:
            for number in range(5):
                reply.append("text", str(number))
                await anyio.sleep(RETRY_INTERVAL)
        assert news == ["The disk is full."]
        assert len(records.of("text could not be stored")) > 1
        sink.fails = False
        await anyio.sleep(2 * RETRY_INTERVAL)
        assert news == ["The disk is full.", None]
        assert "".join(c.text for commit in sink.commits for c in commit) == "01234"
        assert [c.offset for commit in sink.commits for c in commit] == [0]
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_failing_store_is_not_asked_more_often_because_more_text_comes() -> None:
    sink, flusher, _ = flushing()
    reply, _ = heard()
    async with anyio.create_task_group() as tasks:
        flusher.attach(reply)
        tasks.start_soon(flusher.run)
        sink.fails = True
        with recorded() as records:
            for _ in range(100):
                reply.append("text", "x" * FLUSH_UNITS)
                flusher.notice(reply)
                await anyio.sleep(0.01)
        assert len(records.of("text could not be stored")) <= 2
        tasks.cancel_scope.cancel()


@proves("P3")
@pytest.mark.anyio
async def test_a_reader_that_comes_while_the_end_is_being_stored_waits_for_it() -> None:
    """The last words are in no chunk: without the end they would be missing from its page."""
    _, flusher, _ = flushing()
    reply, _ = heard("a")
    flusher.attach(reply)
    reply.append("text", "the last words")
    flusher.detach(reply)
    async with anyio.create_task_group() as tasks:
        come = begin(tasks, flusher.flush_conversation, "a")
        await settle()
        assert not come.done.is_set()
        flusher.ended(reply)
        await settle()
        assert come.done.is_set()
    await flusher.flush_conversation("a")


@pytest.mark.anyio
async def test_a_reader_does_not_wait_for_ever_for_an_end_that_cannot_be_stored() -> None:
    _, flusher, _ = flushing()
    reply, _ = heard("a")
    flusher.attach(reply)
    flusher.detach(reply)
    before = anyio.current_time()
    await flusher.flush_conversation("a")
    assert anyio.current_time() - before == pytest.approx(END_PATIENCE, rel=0.01)


@pytest.mark.anyio
async def test_a_detached_reply_is_not_stored_and_a_newer_one_not_detached_for_it() -> None:
    sink, flusher, _ = flushing()
    old, new = heard()[0], heard()[0]
    flusher.attach(old)
    flusher.attach(new)
    flusher.detach(old)
    old.append("text", "old")
    new.append("text", "new")
    await flusher.flush_conversation("a")
    assert [c.text for (c,) in sink.commits] == ["new"]
    flusher.detach(new)
    await flusher.flush_conversation("a")
    assert len(sink.commits) == 1


# ---- both in a turn ----


class Streaming(FakeModel):
    """Sends what the test hands over, until it says stop."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.more = anyio.Event()

    def give(self, event: Any) -> None:
        self.events.append(event)
        self.more.set()

    async def stream(self, request: Any) -> Any:
        self.requests.append(request)
        while True:
            await self.more.wait()
            self.more = anyio.Event()
            while self.events:
                event = self.events.pop(0)
                yield event
                if isinstance(event, ModelStop):
                    return


@proves("D4-STREAM-2", "D4-STREAM-3", "P1", "S003-PERSIST-3", "S003-PERSIST-4")
@pytest.mark.anyio
async def test_a_turn_goes_on_while_the_store_refuses_and_ends_when_it_takes_the_end() -> None:
    model = Streaming()
    async with living(models=lambda _: model) as world, anyio.create_task_group() as tasks:
        await world.create("a")
        call = begin(tasks, world.send, "hi")
        model.give(TextDelta("one "))
        await anyio.sleep(1)
        world.store.refuse("append_text", "end_turn")
        with recorded() as records:
            for text in ("two ", "three"):
                model.give(TextDelta(text))
                await anyio.sleep(5)
            model.give(END)
            await anyio.sleep(20)
        assert not call.is_done
        assert world.types()[-1] == "MessageStarted"
        assert world.degraded == ["The disk is full."]
        failures = records.of("text could not be stored")
        assert {(r["type"], r["cause"]) for r in failures} == {
            ("PERSISTENCE_FAILED", "The disk is full.")
        }
        world.store.refused.clear()
        await call.done.wait()
        assert call.result.stop_reason is StopReason.END_TURN
        assert world.degraded == ["The disk is full.", None]
        assert await world.texts() == ["hi", "one two three"]


@pytest.mark.anyio
async def test_a_prompt_is_taken_up_when_the_store_is_well_again() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.create("a")
        world.store.refuse("start_turn")
        call = begin(tasks, world.send, "hi")
        await anyio.sleep(30)
        assert world.degraded == ["The disk is full."]
        assert not call.is_done
        world.store.refused.clear()
        await call.done.wait()
        assert world.degraded == ["The disk is full.", None]
        assert await world.texts() == ["hi", "ok"]


@pytest.mark.anyio
async def test_a_store_that_is_held_is_told_once_like_one_that_fails() -> None:
    async with living() as world:
        flusher = world.manager.flusher
        for is_held in (True, True, False, False):
            flusher.held(is_held)
        assert world.degraded == ["Another program holds the store.", None]


@proves("P3")
@pytest.mark.anyio
async def test_what_a_cancelled_turn_had_said_is_kept() -> None:
    model = Streaming()
    async with living(models=lambda _: model) as world:
        await world.create("a")
        await world.enqueue("hi")
        model.give(TextDelta("half"))
        await settle()
        await world.manager.cancel_turn("a")
        assert await world.texts() == ["hi", "half"]
