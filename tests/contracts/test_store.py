"""What every `ConversationStore` promises, over every store that ships."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from sidecar.conversations import (
    AgentMode,
    ContextFile,
    ErrorPart,
    FilePart,
    MessageStatus,
    Part,
    Prompt,
    QueueState,
    SteeringPart,
    StopReason,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    TurnError,
    TurnResult,
    Usage,
)
from sidecar.errors import AgentError, Conflict, InvalidState, NotFound, QueueFull
from sidecar.events import (
    Cursor,
    DurableEvent,
    MessageCompleted,
    Missing,
    QueueChanged,
    Replay,
    Snapshot,
    TurnEnded,
    utf16_length,
)
from sidecar.ids import new_id
from sidecar.interfaces import (
    ConversationStore,
    NewConversation,
    StartedTurn,
    TextChunk,
    ToolCall,
    ToolOutput,
    TurnOutcome,
)
from sidecar.stores.memory import MemoryStore
from sidecar.stores.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

Published = list[DurableEvent]


@pytest.fixture
def published() -> Published:
    return []


@pytest.fixture(params=["memory", "sqlite"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, published: Published
) -> AsyncIterator[ConversationStore]:
    opened: MemoryStore | SqliteStore
    if request.param == "memory":
        opened = await MemoryStore.open(published.extend)
    else:
        opened = await SqliteStore.open(tmp_path / "store.db", published.extend)
    yield opened
    await opened.aclose()


def new(conversation_id: str = "c", **fields: object) -> NewConversation:
    return NewConversation(
        conversation_id=conversation_id, mode=AgentMode.CHAT, session_id="s", **fields
    )


async def started(store: ConversationStore, text: str = "question") -> StartedTurn:
    await store.enqueue("c", Prompt(input=text), limit=100)
    turn = await store.start_turn("c", "scripted")
    assert turn is not None
    return turn


def chunk(turn: StartedTurn, offset: int, text: str, part: int = 0) -> TextChunk:
    return TextChunk("c", turn.turn_id, turn.reply_id, part, "text", offset, text)


def outcome(*parts: Part, **fields: object) -> TurnOutcome:
    given = {
        "stop_reason": StopReason.END_TURN,
        "status": MessageStatus.COMPLETE,
        "queue_state": QueueState.DONE,
    }
    return TurnOutcome(parts=parts, **(given | fields))


FAILED = {
    "stop_reason": StopReason.ERROR,
    "status": MessageStatus.ERROR,
    "queue_state": QueueState.FAILED,
}


async def exchange(store: ConversationStore, question: str, answer: str) -> TurnResult:
    turn = await started(store, question)
    return await store.end_turn("c", turn.turn_id, outcome(TextPart(text=answer)))


def types(events: Published) -> list[str]:
    return [str(event.__struct_config__.tag) for event in events]


# ---- conversations -----------------------------------------------------------------------


async def test_a_conversation_is_there_as_it_was_made(store: ConversationStore) -> None:
    made = await store.create(new(title="T", roots=("/a", "/b")))
    assert made.roots == ("/a", "/b")
    assert made.title == "T"
    assert (made.last_seq, made.revision, made.message_count, made.queue_length) == (0, 0, 0, 0)
    assert await store.get("c") == made


async def test_an_id_is_given_once(store: ConversationStore) -> None:
    await store.create(new())
    with pytest.raises(Conflict):
        await store.create(new())


async def test_the_same_key_makes_one_conversation(store: ConversationStore) -> None:
    made = await store.create(new("a"), "key", b"hash")
    assert await store.create(new("b"), "key", b"hash") == made
    with pytest.raises(Conflict):
        await store.create(new("b"), "key", b"other")
    with pytest.raises(NotFound):
        await store.get("b")


async def test_what_is_unknown_is_not_found(store: ConversationStore) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get("x"),
        lambda: store.page("x"),
        lambda: store.messages("x"),
        lambda: store.rename("x", None),
        lambda: store.set_mode("x", AgentMode.BUILD),
        lambda: store.archive("x", True),
        lambda: store.delete("x"),
        lambda: store.fork("x", new(), None),
        lambda: store.rewind("x", None, preview=False),
        lambda: store.search("word", conversation_id="x"),
        lambda: store.export("x", None),
        lambda: store.enqueue("x", Prompt(input=""), limit=1),
        lambda: store.known_key("x", new_id()),
        lambda: store.queue("x"),
        lambda: store.update_entry(new_id(), ""),
        lambda: store.reorder("nonsense", 0),
        lambda: store.cancel_entry(new_id()),
        lambda: store.retry(new_id()),
        lambda: store.start_turn("x", "p"),
        lambda: store.take_over("x", force=True),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call()


async def test_a_list_has_the_newest_first_and_goes_on_at_its_cursor(
    store: ConversationStore,
) -> None:
    for index in range(5):
        await store.create(new(f"c{index}"))
    await store.rename("c1", "moved up")
    listed: list[str] = []
    cursor = None
    while True:
        page = await store.list(cursor=cursor, limit=2)
        listed += [row.conversation_id for row in page.conversations]
        if (cursor := page.cursor) is None:
            break
    assert sorted(listed) == [f"c{index}" for index in range(5)]
    times = [(await store.get(id)).updated_at for id in listed]
    assert times == sorted(times, reverse=True)


async def test_an_archived_conversation_is_listed_apart(store: ConversationStore) -> None:
    await store.create(new("a"))
    await store.create(new("b"))
    await store.archive("a", True)
    assert [c.conversation_id for c in (await store.list()).conversations] == ["b"]
    archived = (await store.list(archived=True)).conversations
    assert [c.conversation_id for c in archived] == ["a"]
    assert (await store.archive("a", False)).archived_at is None


async def test_changes_since_are_rows_and_tombstones(store: ConversationStore) -> None:
    for name in "abc":
        await store.create(new(name))
    before = (await store.list()).change_no
    await store.rename("b", "B")
    await store.delete("a")
    changed = await store.list(since_change=before)
    assert [c.conversation_id for c in changed.conversations] == ["b"]
    assert changed.deleted == ("a",)
    nothing = await store.list(since_change=changed.change_no)
    assert (nothing.conversations, nothing.deleted) == ((), ())


async def test_many_changes_come_in_steps(store: ConversationStore) -> None:
    for index in range(5):
        await store.create(new(f"c{index}"))
    seen: list[str] = []
    since = 0
    while (step := await store.list(since_change=since, limit=2)).conversations:
        seen += [c.conversation_id for c in step.conversations]
        since = step.change_no
    assert seen == [f"c{index}" for index in range(5)]


async def test_an_unchanged_mode_or_title_is_no_event(
    store: ConversationStore, published: Published
) -> None:
    await store.create(new())
    await store.set_mode("c", AgentMode.CHAT)
    await store.rename("c", None)
    assert published == []
    await store.set_mode("c", AgentMode.BUILD)
    await store.rename("c", "T")
    assert types(published) == ["modeChanged", "titleChanged"]


async def test_a_deleted_conversation_leaves_nothing(store: ConversationStore) -> None:
    await store.create(new(), "key", b"h")
    await exchange(store, "needle", "haystack")
    assert (await store.search("needle")).hits
    await store.delete("c")
    assert (await store.search("needle")).hits == ()
    assert await store.catch_up("c", None) == Missing(conversation_id="c")
    assert (await store.status()).messages == 0
    assert (await store.create(new(), "key", b"h")).message_count == 0


async def test_a_deleted_conversation_s_id_begins_anew_where_no_reader_has_been(
    store: ConversationStore,
) -> None:
    await store.create(new())
    await exchange(store, "needle", "haystack")
    old = await store.get("c")
    cursor = Cursor(store_id=store.store_id, seq=old.last_seq, revision=old.revision)
    for _ in range(2):
        await store.delete("c")
        made = await store.create(new())
        assert (made.last_seq, made.message_count) == (old.last_seq, 0)
        assert isinstance(await store.catch_up("c", cursor), Snapshot)


async def test_deleting_much_comes_to_an_end(store: ConversationStore) -> None:
    await store.create(new())
    await exchange(store, "many " * 50_000, "words " * 50_000)
    await store.delete("c")
    assert (await store.list()).conversations == ()


async def test_a_conversation_with_work_is_not_deleted(store: ConversationStore) -> None:
    await store.create(new())
    await store.enqueue("c", Prompt(input="p"), limit=1)
    with pytest.raises(InvalidState):
        await store.delete("c")
    await store.start_turn("c", "p")
    with pytest.raises(InvalidState):
        await store.delete("c")


# ---- queue -------------------------------------------------------------------------------


async def test_prompts_run_in_the_order_they_came(store: ConversationStore) -> None:
    await store.create(new())
    receipts = [await store.enqueue("c", Prompt(input=str(i)), limit=9) for i in range(3)]
    assert [receipt.position for receipt in receipts] == [0, 1, 2]
    for receipt in receipts:
        turn = await store.start_turn("c", "p")
        assert turn is not None
        assert turn.entry.message_id == receipt.message_id
        await store.end_turn("c", turn.turn_id, outcome())
    assert await store.start_turn("c", "p") is None


async def test_a_full_queue_refuses_and_a_repeat_is_still_answered(
    store: ConversationStore,
) -> None:
    await store.create(new())
    first = await store.enqueue("c", Prompt(input="a"), limit=1, request_key="k", params_hash=b"1")
    with pytest.raises(QueueFull):
        await store.enqueue("c", Prompt(input="b"), limit=1)
    again = await store.enqueue("c", Prompt(input="a"), limit=1, request_key="k", params_hash=b"1")
    assert again == msgspec.structs.replace(first, duplicate=True)
    assert (await store.get("c")).queue_length == 1


async def test_a_key_outlives_its_turn_and_refuses_other_params(store: ConversationStore) -> None:
    await store.create(new())
    first = await store.enqueue("c", Prompt(input="a"), limit=1, request_key="k", params_hash=b"1")
    turn = await store.start_turn("c", "p")
    assert turn is not None
    result = await store.end_turn("c", turn.turn_id, outcome(usage=Usage(input_tokens=1)))
    await store.rewind("c", None, preview=False)
    again = await store.enqueue("c", Prompt(input="a"), limit=1, request_key="k", params_hash=b"1")
    assert (again.message_id, again.duplicate) == (first.message_id, True)
    assert (await store.known_key("c", first.message_id)).result == result
    with pytest.raises(Conflict):
        await store.enqueue("c", Prompt(input="a"), limit=1, request_key="k", params_hash=b"2")


async def test_a_waiting_prompt_can_be_edited_moved_and_taken_out(
    store: ConversationStore, published: Published
) -> None:
    await store.create(new())
    a, b, c = [(await store.enqueue("c", Prompt(input=text), limit=9)).message_id for text in "abc"]
    published.clear()
    file = ContextFile(uri="file:///a")
    edited = (await store.update_entry(b, "B", (file,))).prompt
    assert edited == Prompt(input="B", context_files=(file,))
    assert (await store.update_entry(b, "B")).prompt == edited
    assert [entry.message_id for entry in await store.reorder(c, 0)] == [c, a, b]
    ended = await store.cancel_entry(a)
    assert ended == TurnResult(message_id=a, stop_reason=StopReason.CANCELLED)
    assert types(published) == ["queueChanged"] * 4 + ["turnEnded"]
    assert [(e.message_id, e.position) for e in await store.queue("c")] == [(c, 0), (b, 1)]
    assert (await store.known_key("c", a)).result == ended
    assert await store.cancel_entry(a) == ended
    assert await store.waiting() == {"c": 2}


async def test_a_running_prompt_is_left_to_its_turn(store: ConversationStore) -> None:
    await store.create(new())
    turn = await started(store)
    message_id = turn.entry.message_id
    assert await store.cancel_entry(message_id) is None
    for call in (
        lambda: store.update_entry(message_id, "x"),
        lambda: store.reorder(message_id, 0),
        lambda: store.retry(message_id),
        lambda: store.start_turn("c", "p"),
    ):
        with pytest.raises(InvalidState):
            await call()
    assert (await store.known_key("c", message_id)).result is None


async def test_held_entries_say_why_until_they_run(
    store: ConversationStore, published: Published
) -> None:
    await store.create(new())
    await store.enqueue("c", Prompt(input="a"), limit=9)
    published.clear()
    await store.hold_entries("c", "needsProvider")
    await store.hold_entries("c", "needsProvider")
    assert [entry.reason for entry in await store.queue("c")] == ["needsProvider"]
    await store.hold_entries("c", None)
    assert [e.reason for e in published if isinstance(e, QueueChanged)] == ["needsProvider", None]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (MessageStatus.ERROR, QueueState.FAILED),
        (MessageStatus.CANCELLED, QueueState.CANCELLED),
        (MessageStatus.INTERRUPTED, QueueState.INTERRUPTED),
    ],
)
async def test_a_turn_that_did_not_succeed_can_be_retried_once(
    store: ConversationStore, status: MessageStatus, state: QueueState
) -> None:
    await store.create(new())
    turn = await started(store, "again")
    ended = outcome(stop_reason=StopReason.ERROR, status=status, queue_state=state)
    await store.end_turn("c", turn.turn_id, ended)
    assert await store.queue("c") == []
    conversation_id, receipt = await store.retry(turn.entry.message_id)
    assert conversation_id == "c"
    assert receipt.message_id != turn.entry.message_id
    assert [entry.prompt.input for entry in await store.queue("c")] == ["again"]
    with pytest.raises(InvalidState):
        await store.retry(turn.entry.message_id)


async def test_an_answered_prompt_is_not_retried(store: ConversationStore) -> None:
    await store.create(new())
    result = await exchange(store, "q", "a")
    with pytest.raises(InvalidState):
        await store.retry(result.message_id)


# ---- turns -------------------------------------------------------------------------------


async def test_a_turn_tells_its_story_in_order(
    store: ConversationStore, published: Published
) -> None:
    await store.create(new())
    turn = await started(store, "  A title\nand more")
    await store.append_text([chunk(turn, 0, "so")])
    await store.request_started("c", turn.turn_id)
    call = ToolCall("t", "read", {"path": "x"})
    await store.tool_started("c", turn.turn_id, turn.reply_id, 1, call)
    await store.tool_finished("c", turn.turn_id, turn.reply_id, 2, "t", ToolOutput("found"))
    await store.steer("c", turn.turn_id, turn.reply_id, 3, SteeringPart(text="faster"))
    parts = (
        TextPart(text="so"),
        ToolCallPart(tool_call_id="t", name="read", arguments={"path": "x"}),
        ToolResultPart(tool_call_id="t", content="found"),
    )
    await store.end_turn("c", turn.turn_id, outcome(*parts, usage=Usage(output_tokens=2)))
    assert types(published) == [
        "turnQueued",
        "titleChanged",
        "turnStarted",
        "messageCompleted",
        "messageStarted",
        "toolStarted",
        "toolFinished",
        "turnSteered",
        "messageCompleted",
        "usage",
        "turnEnded",
    ]
    assert [event.seq for event in published] == list(range(1, 12))
    row = await store.get("c")
    assert (row.title, row.last_seq, row.message_count) == ("A title", 11, 2)


async def test_the_user_message_holds_the_text_and_then_the_files(
    store: ConversationStore,
) -> None:
    await store.create(new())
    file = ContextFile(uri="file:///a", text="body")
    await store.enqueue("c", Prompt(input="look", context_files=(file,)), limit=1)
    turn = await store.start_turn("c", "p")
    assert turn is not None
    assert turn.user_message.parts == (TextPart(text="look"), FilePart(file=file))
    assert turn.user_message.message_id == turn.entry.message_id
    assert (await store.messages("c"))[0] == turn.user_message


async def test_every_kind_of_part_comes_back_as_it_was(store: ConversationStore) -> None:
    await store.create(new())
    turn = await started(store, "nul \0 and 😀")
    parts = (
        ThinkingPart(text="hm\0m"),
        TextPart(text=""),
        ToolCallPart(tool_call_id="1", name="n", arguments={"a": [1, None, {"b": "\0"}]}),
        ToolResultPart(tool_call_id="1", content="\0x", is_error=True),
        ErrorPart(type="NETWORK_ERROR", message="m", hint="h"),
        TextPart(text="😀" * 10),
    )
    await store.end_turn("c", turn.turn_id, outcome(*parts))
    user, reply = await store.messages("c")
    assert user.text == "nul \0 and 😀"
    assert reply.parts == parts


async def test_streamed_text_is_readable_at_once_and_replaced_at_the_end(
    store: ConversationStore,
) -> None:
    await store.create(new())
    turn = await started(store)
    await store.append_text([chunk(turn, 0, "a😀"), chunk(turn, 3, "b"), chunk(turn, 0, "c", 1)])
    seen = await store.catch_up("c", None)
    assert isinstance(seen, Snapshot)
    assert seen.messages[-1].parts == (TextPart(text="a😀b"), TextPart(text="c"))
    assert [(part.part, part.length) for part in seen.open_parts] == [(0, 4), (1, 1)]
    await store.end_turn("c", turn.turn_id, outcome(TextPart(text="whole")))
    after = await store.catch_up("c", None)
    assert isinstance(after, Snapshot)
    assert after.messages[-1].parts == (TextPart(text="whole"),)
    assert after.open_parts == ()


async def test_a_repeated_chunk_counts_once(store: ConversationStore) -> None:
    await store.create(new())
    turn = await started(store)
    for _ in range(2):
        await store.append_text([chunk(turn, 0, "once")])
    assert (await store.messages("c"))[-1].text == "once"


async def test_nothing_is_written_for_a_turn_that_is_over(
    store: ConversationStore, published: Published
) -> None:
    await store.create(new())
    turn = await started(store)
    await store.end_turn("c", turn.turn_id, outcome(TextPart(text="end")))
    published.clear()
    ids = ("c", turn.turn_id, turn.reply_id)
    for call in (
        lambda: store.request_started("c", turn.turn_id),
        lambda: store.tool_started(*ids, 1, ToolCall("t", "n", {})),
        lambda: store.tool_finished(*ids, 1, "t", ToolOutput("")),
        lambda: store.steer(*ids, 1, SteeringPart(text="x")),
        lambda: store.end_turn("c", turn.turn_id, outcome()),
    ):
        with pytest.raises(InvalidState):
            await call()
    await store.append_text([chunk(turn, 0, "late")])
    assert (await store.messages("c"))[-1].text == "end"
    assert published == []


async def test_a_failed_turn_keeps_its_error_for_its_key(store: ConversationStore) -> None:
    await store.create(new())
    turn = await started(store)
    error = TurnError(type="NETWORK_ERROR", message="gone", retryable=True, attempts=3)
    result = await store.end_turn("c", turn.turn_id, outcome(error=error, **FAILED))
    assert result.error == error
    assert (await store.known_key("c", result.message_id)).result == result


async def test_recover_leaves_the_living_alone(store: ConversationStore) -> None:
    await store.create(new())
    turn = await started(store)
    assert await store.recover() == 0
    await store.end_turn("c", turn.turn_id, outcome())


# ---- transcripts -------------------------------------------------------------------------


async def test_pages_go_back_to_the_beginning(store: ConversationStore) -> None:
    await store.create(new())
    for index in range(5):
        await exchange(store, f"q{index}", f"a{index}")
    read: list[str] = []
    cursor = None
    while True:
        page = await store.page("c", cursor=cursor, limit=3)
        read = [message.text for message in page.messages] + read
        if (cursor := page.page_cursor) is None:
            break
    assert read == [text for i in range(5) for text in (f"q{i}", f"a{i}")]
    assert [m.text for m in await store.messages("c")] == read
    assert [m.ordinal for m in await store.messages("c")] == list(range(10))


async def test_a_rewind_hides_and_voids_cursors(
    store: ConversationStore, published: Published
) -> None:
    await store.create(new())
    first = await exchange(store, "one", "eins")
    await exchange(store, "two", "zwei")
    cursor = (await store.page("c", limit=1)).page_cursor
    preview = await store.rewind("c", first.reply_id, preview=True)
    assert len(preview) == 2
    assert (await store.get("c")).message_count == 4
    published.clear()
    assert await store.rewind("c", first.reply_id, preview=False) == preview
    assert types(published) == ["rewound"]
    assert [m.text for m in await store.messages("c")] == ["one", "eins"]
    assert (await store.search("zwei")).hits == ()
    with pytest.raises(Conflict):
        await store.page("c", cursor=cursor)
    assert await store.rewind("c", first.reply_id, preview=False) == ()
    row = await store.get("c")
    assert (row.revision, row.message_count) == (1, 2)
    await exchange(store, "three", "drei")
    assert [m.ordinal for m in await store.messages("c")] == [0, 1, 4, 5]


async def test_a_running_turn_is_not_rewound_away(store: ConversationStore) -> None:
    await store.create(new())
    await started(store)
    with pytest.raises(InvalidState):
        await store.rewind("c", None, preview=False)


async def test_a_garbled_cursor_is_refused_as_ours(store: ConversationStore) -> None:
    await store.create(new())
    for cursor in ("", "x", "ÿ", "MS4y.", "MQ=="):
        with pytest.raises(AgentError):
            await store.page("c", cursor=cursor)
        with pytest.raises(AgentError):
            await store.list(cursor=cursor)


async def test_a_fork_is_a_copy_under_new_ids(store: ConversationStore) -> None:
    await store.create(new(title="T"))
    first = await exchange(store, "one", "eins")
    await exchange(store, "two", "zwei")
    forked = await store.fork("c", new("f"), first.reply_id, "k", b"h")
    assert await store.fork("c", new("g"), first.reply_id, "k", b"h") == forked
    assert (forked.title, forked.message_count) == ("T", 2)
    assert forked.forked_from is not None
    assert forked.forked_from.conversation_id == "c"
    copies, originals = await store.messages("f"), await store.messages("c")
    assert [m.text for m in copies] == ["one", "eins"]
    assert not {m.message_id for m in copies} & {m.message_id for m in originals}
    await store.delete("c")
    assert [m.text for m in await store.messages("f")] == ["one", "eins"]
    assert len((await store.search("eins")).hits) == 1


async def test_what_is_exported_can_be_imported(store: ConversationStore) -> None:
    await store.create(new(title="T"))
    await exchange(store, "one", "eins")
    await started(store, "open")
    exported = await store.export("c", "backup")
    assert exported.queue[0].prompt.input == "open"
    decoded = msgspec.json.decode(msgspec.json.encode(exported), type=type(exported))
    assert decoded == exported
    imported = await store.import_(decoded, new("i"), "k", b"h")
    assert await store.import_(decoded, new("j"), "k", b"h") == imported
    copies = await store.messages("i")
    assert [m.parts for m in copies] == [m.parts for m in exported.messages]
    assert copies[-1].status == MessageStatus.INTERRUPTED
    assert imported.title == "T"


async def test_all_words_must_match_and_the_newest_hit_comes_first(
    store: ConversationStore,
) -> None:
    await store.create(new())
    await exchange(store, "Füße im Schnee", "kalt")
    await exchange(store, "Fusse im Sand", "warm")
    assert [hit.role for hit in (await store.search("fuße schnee")).hits] == ["user"]
    hits = (await store.search("fusse")).hits
    assert [hit.snippet for hit in hits] == ["\2Fusse\3 im Sand"]
    assert len((await store.search("im")).hits) == 2
    assert len((await store.search("im", limit=1)).hits) == 1
    assert (await store.search("im san")).hits[0].snippet.endswith("\2Sand\3")
    assert (await store.search("im s")).hits == ()
    assert (await store.search("schnee kalt")).hits == ()


async def test_a_query_is_never_syntax(store: ConversationStore) -> None:
    await store.create(new())
    await exchange(store, 'say "NEAR" OR text:x*', "-")
    for query in ('"', "*", "a AND", "NEAR(", 'text:"x', "^x", "-", "", "\0", '"" *', "a\0b"):
        await store.search(query)
    assert len((await store.search('"near" or')).hits) == 1


# ---- readers -----------------------------------------------------------------------------


async def test_a_replay_equals_what_was_published(
    store: ConversationStore, published: Published
) -> None:
    await store.create(new())
    turn = await started(store)
    call = ToolCall("t", "read", {"path": "x"})
    await store.tool_started("c", turn.turn_id, turn.reply_id, 0, call)
    await store.tool_finished("c", turn.turn_id, turn.reply_id, 1, "t", ToolOutput("found"))
    await store.append_text([chunk(turn, 0, "😀", 2)])
    for seq in range(len(published) + 1):
        seen = await store.catch_up("c", Cursor(store_id=store.store_id, seq=seq))
        assert isinstance(seen, Replay)
        assert list(seen.events) == published[seq:]
        assert seen.open_message is not None
        assert [(part.part, part.length) for part in seen.open_parts] == [(2, utf16_length("😀"))]
    parts = (
        ToolCallPart(tool_call_id="t", name="read", arguments={"path": "x"}),
        ToolResultPart(tool_call_id="t", content="found"),
        TextPart(text="😀"),
    )
    await store.end_turn("c", turn.turn_id, outcome(*parts, usage=Usage(requests=1)))
    queued = await store.enqueue("c", Prompt(input="x"), limit=9, request_key="k")
    await store.cancel_entry(queued.message_id)
    seen = await store.catch_up("c", Cursor(store_id=store.store_id, seq=0))
    assert isinstance(seen, Replay)
    assert list(seen.events) == published
    assert seen.open_message is None


async def test_a_cursor_that_cannot_be_continued_gets_a_snapshot(
    store: ConversationStore,
) -> None:
    await store.create(new())
    await exchange(store, "q", "a")
    row = await store.get("c")
    good = Cursor(store_id=store.store_id, seq=row.last_seq)
    assert isinstance(await store.catch_up("c", good), Replay)
    for bad in (
        None,
        Cursor(store_id="other", seq=1),
        Cursor(store_id=store.store_id, seq=row.last_seq + 1),
        Cursor(store_id=store.store_id, seq=1, revision=1),
        Cursor(store_id=store.store_id, seq=-1),
    ):
        seen = await store.catch_up("c", bad)
        assert isinstance(seen, Snapshot)
        assert [m.text for m in seen.messages] == ["q", "a"]
        assert (seen.last_seq, seen.revision) == (row.last_seq, 0)


async def test_only_the_newest_thousand_events_are_kept(store: ConversationStore) -> None:
    await store.create(new())
    for index in range(1_010):
        await store.rename("c", f"{index}")
    assert isinstance(await store.catch_up("c", Cursor(store_id=store.store_id, seq=9)), Snapshot)
    seen = await store.catch_up("c", Cursor(store_id=store.store_id, seq=10))
    assert isinstance(seen, Replay)
    assert len(seen.events) == 1_000


async def test_big_events_are_kept_up_to_a_mebibyte(store: ConversationStore) -> None:
    await store.create(new())
    turn = await started(store)
    for part in range(4):
        await store.steer("c", turn.turn_id, turn.reply_id, part, SteeringPart(text="x" * 400_000))
    row = await store.get("c")
    kept = [
        isinstance(
            await store.catch_up("c", Cursor(store_id=store.store_id, seq=row.last_seq - back)),
            Replay,
        )
        for back in (2, 3)
    ]
    assert kept == [True, False]


async def test_every_queued_prompt_ends_once(
    store: ConversationStore, published: Published
) -> None:
    await store.create(new())
    await exchange(store, "a", "b")
    turn = await started(store)
    await store.end_turn("c", turn.turn_id, outcome(**FAILED))
    _, receipt = await store.retry(turn.entry.message_id)
    await store.cancel_entry(receipt.message_id)
    queued = [e.message_id for e in published if type(e).__name__ == "TurnQueued"]
    assert sorted(e.message_id for e in published if isinstance(e, TurnEnded)) == sorted(queued)
    completed = [e for e in published if isinstance(e, MessageCompleted)]
    assert all(event.message is not None for event in completed)


async def test_status_counts(store: ConversationStore) -> None:
    await store.create(new())
    await exchange(store, "a", "b")
    await store.enqueue("c", Prompt(input="x"), limit=9)
    status = await store.status()
    assert (status.conversations, status.messages, status.queued) == (1, 2, 1)
    assert status.size > 0
    assert status.store_id == store.store_id


async def test_who_steered_a_turn_is_kept(store: ConversationStore, published: Published) -> None:
    await store.create(new())
    turn = await started(store, "x")
    parts = (SteeringPart(text="mine"), SteeringPart(text="Step 1", by="workflow"))
    for index, part in enumerate(parts):
        await store.steer("c", turn.turn_id, turn.reply_id, index, part)
    await store.end_turn("c", turn.turn_id, outcome(*parts))
    assert (await store.messages("c"))[-1].parts == parts
    steered = [event.by for event in published if type(event).__name__ == "TurnSteered"]
    assert steered == ["user", "workflow"]
