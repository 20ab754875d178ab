"""The file behind `SqliteStore`: shared, damaged, newer, read-only, full."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from sidecar.conversations import (
    AgentMode,
    MessageStatus,
    Prompt,
    QueueState,
    Receipt,
    StopReason,
    TextPart,
)
from sidecar.errors import Conflict, InvalidState, PersistenceFailed, StoreUnavailable
from sidecar.events import Cursor, DurableEvent, QueueChanged, Replay, Snapshot, TurnEnded
from sidecar.interfaces import NewConversation, StartedTurn, TextChunk, TurnOutcome
from sidecar.stores.journal_file import is_foreign
from sidecar.stores.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

DONE = TurnOutcome(
    stop_reason=StopReason.END_TURN,
    status=MessageStatus.COMPLETE,
    queue_state=QueueState.DONE,
    parts=(TextPart(text="answer"),),
)


def content(path: Path) -> bytes:
    return path.read_bytes()


def ignore(_: object) -> None:
    pass


def new(conversation_id: str = "c") -> NewConversation:
    return NewConversation(conversation_id=conversation_id, mode=AgentMode.CHAT, session_id="s")


async def start(store: SqliteStore) -> StartedTurn:
    await store.enqueue("c", Prompt(input="question"), limit=1_000)
    turn = await store.start_turn("c", "p")
    assert turn is not None
    return turn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.db"


async def test_a_closed_store_is_all_there_when_opened_again(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.create(new())
    turn = await start(store)
    await store.end_turn("c", turn.turn_id, DONE)
    messages, store_id = await store.messages("c"), store.store_id
    await store.aclose()
    assert [file.name for file in path.parent.iterdir() if file.name.endswith("-wal")] == []
    assert list((path.parent / "store.db.instances").iterdir()) == []
    store = await SqliteStore.open(path, ignore)
    assert (await store.messages("c"), store.store_id) == (messages, store_id)
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await store.get("c")
    with pytest.raises(StoreUnavailable):
        await store.create(new("d"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
async def test_only_its_user_can_read_the_store(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.create(new())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    await store.aclose()


async def test_an_up_to_date_store_is_opened_without_sqlite_utils(path: Path) -> None:
    await (await SqliteStore.open(path, ignore)).aclose()
    program = (
        "import sys, anyio, pathlib\n"
        "from sidecar.stores.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = await SqliteStore.open(pathlib.Path(sys.argv[1]), print)\n"
        "    await store.aclose()\n"
        "anyio.run(main)\n"
        "assert not {'sqlite_utils', 'filelock'} & set(sys.modules)\n"
    )
    await anyio.run_process([sys.executable, "-c", program, str(path)])


# ---- two windows -------------------------------------------------------------------------


async def test_two_windows_write_at_once_without_a_failure(path: Path) -> None:
    stores = [await SqliteStore.open(path, ignore) for _ in range(2)]

    async def write(store: SqliteStore, name: str) -> None:
        await store.create(new(name))
        for index in range(200):
            await store.enqueue(name, Prompt(input=f"{index}"), limit=1_000)

    async with anyio.create_task_group() as tasks:
        for index, store in enumerate(stores):
            tasks.start_soon(write, store, f"c{index}")
    assert await stores[0].waiting() == {"c0": 200, "c1": 200}
    for store in stores:
        await store.aclose()


async def test_a_living_owner_keeps_its_conversation(path: Path) -> None:
    first = await SqliteStore.open(path, ignore)
    second = await SqliteStore.open(path, ignore)
    await first.create(new())
    turn = await start(first)
    await second.enqueue("c", Prompt(input="more"), limit=9)
    assert await second.recover() == 0
    with pytest.raises(Conflict):
        await second.start_turn("c", "p")
    with pytest.raises(InvalidState):
        await second.end_turn("c", turn.turn_id, DONE)
    await first.end_turn("c", turn.turn_id, DONE)
    await first.aclose()
    assert await second.start_turn("c", "p") is not None
    await second.aclose()


async def test_a_forced_take_over_shuts_the_former_owner_out(path: Path) -> None:
    first = await SqliteStore.open(path, ignore)
    second = await SqliteStore.open(path, ignore)
    await first.create(new())
    turn = await start(first)
    await first.request_started("c", turn.turn_id)
    with pytest.raises(Conflict):
        await second.take_over("c", force=False)
    await second.take_over("c", force=True)
    await first.append_text([TextChunk("c", turn.turn_id, turn.reply_id, 0, "text", 0, "late")])
    with pytest.raises(InvalidState):
        await first.end_turn("c", turn.turn_id, DONE)
    await first.take_over("c", force=True)
    with pytest.raises(InvalidState):
        await first.end_turn("c", turn.turn_id, DONE)
    _, reply = await first.messages("c")
    assert (reply.status, reply.parts) == (MessageStatus.INTERRUPTED, ())
    for store in (first, second):
        await store.aclose()


async def test_taking_over_what_one_owns_changes_nothing(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.create(new())
    turn = await start(store)
    await store.take_over("c", force=True)
    await store.end_turn("c", turn.turn_id, DONE)
    await store.aclose()


# ---- crashes -----------------------------------------------------------------------------

_VICTIM = """
import pathlib, sys, anyio
from sidecar.conversations import *
from sidecar.interfaces import *
from sidecar.stores.sqlite import SqliteStore

async def main(path, how_far):
    store = await SqliteStore.open(pathlib.Path(path), lambda events: None)
    turn = await store.start_turn("c", "p")
    if how_far == "requested":
        await store.request_started("c", turn.turn_id)
    if how_far == "streaming":
        chunk = TextChunk("c", turn.turn_id, turn.reply_id, 0, "text", 0, "half an ans")
        await store.append_text([chunk])
    print(turn.reply_id, flush=True)
    await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""


async def die_in_a_turn(path: Path, how_far: str) -> str:
    """Have another process start the first turn and kill it there; returns the reply's id."""
    arguments = [sys.executable, "-c", _VICTIM, str(path), how_far]

    def run() -> str:
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdout is not None
            reply_id = victim.stdout.readline().strip()
            victim.kill()
        return reply_id

    with anyio.fail_after(20):
        return await anyio.to_thread.run_sync(run)


async def sent_by_a_window_that_closed(path: Path, text: str) -> Receipt:
    """Who accepts a prompt owns its conversation: for another to run it, that one has to go."""
    window = await SqliteStore.open(path, ignore)
    try:
        return await window.enqueue("c", Prompt(input=text), limit=9)
    finally:
        await window.aclose()


async def test_a_turn_that_had_done_nothing_runs_anew(path: Path) -> None:
    published: list[DurableEvent] = []
    store = await SqliteStore.open(path, published.extend)
    await store.create(new())
    receipt = await sent_by_a_window_that_closed(path, "question")
    await sent_by_a_window_that_closed(path, "second")
    for attempt in (1, 2):
        await die_in_a_turn(path, "started")
        assert await store.recover() == 1
        entries = await store.queue("c")
        assert [entry.prompt.input for entry in entries] == ["question", "second"]
        assert (entries[0].attempts, entries[0].state) == (attempt, QueueState.QUEUED)
        assert await store.messages("c") == []
        assert (await store.get("c")).queue_length == 2
    await die_in_a_turn(path, "started")
    assert await store.recover() == 1
    entries = await store.queue("c")
    assert [(entry.prompt.input, entry.state) for entry in entries] == [
        ("second", QueueState.QUEUED),
        ("question", QueueState.PARKED),
    ]
    changes = [event.state for event in published if isinstance(event, QueueChanged)]
    assert changes == [QueueState.QUEUED, QueueState.QUEUED, QueueState.PARKED]
    assert (await store.retry(receipt.message_id))[1].position == 1
    ends = [event.message_id for event in published if isinstance(event, TurnEnded)]
    assert ends == [receipt.message_id]
    await store.aclose()


@pytest.mark.parametrize(
    ("how_far", "kept"), [("requested", ()), ("streaming", (TextPart(text="half an ans"),))]
)
async def test_a_turn_that_may_have_had_an_effect_is_interrupted(
    path: Path, how_far: str, kept: tuple[TextPart, ...]
) -> None:
    published: list[DurableEvent] = []
    store = await SqliteStore.open(path, published.extend)
    await store.create(new())
    receipt = await sent_by_a_window_that_closed(path, "question")
    reply_id = await die_in_a_turn(path, how_far)
    assert await store.recover() == 1
    assert await store.recover() == 0
    _, reply = await store.messages("c")
    assert (reply.message_id, reply.status) == (reply_id, MessageStatus.INTERRUPTED)
    assert reply.parts == kept
    known = await store.known_key("c", receipt.message_id)
    assert known.result is not None
    assert known.result.stop_reason == StopReason.INTERRUPTED
    row = await store.get("c")
    seen = await store.catch_up("c", Cursor(store_id=store.store_id, seq=row.last_seq - 2))
    assert isinstance(seen, Replay)
    assert list(seen.events) == published[-2:]
    assert (await store.retry(receipt.message_id))[1].position == 0
    await store.aclose()


async def test_the_next_window_takes_over_a_dead_ones_conversation(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.create(new())
    for text in ("first", "second"):
        await sent_by_a_window_that_closed(path, text)
    await die_in_a_turn(path, "requested")
    turn = await store.start_turn("c", "p")
    assert turn is not None
    assert turn.entry.prompt.input == "second"
    await store.end_turn("c", turn.turn_id, DONE)
    assert len(list((path.parent / "store.db.instances").iterdir())) == 2
    await store.recover()
    assert len(list((path.parent / "store.db.instances").iterdir())) == 1
    await store.aclose()


# ---- trouble with the file ---------------------------------------------------------------


async def test_a_newer_store_is_left_untouched(path: Path) -> None:
    await (await SqliteStore.open(path, ignore)).aclose()
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA user_version = 99")
    conn.close()
    before = content(path)
    with pytest.raises(StoreUnavailable) as refused:
        await SqliteStore.open(path, ignore)
    assert "Update" in (refused.value.hint or "")
    assert content(path) == before


async def test_a_store_that_was_upgraded_meanwhile_refuses_writes(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA user_version = 99")
    conn.close()
    with pytest.raises(StoreUnavailable):
        await store.create(new())
    await store.aclose()


def make_garbage(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all " * 500)


async def test_what_is_no_database_is_moved_aside_and_kept(path: Path) -> None:
    make_garbage(path)
    store = await SqliteStore.open(path, ignore)
    assert store.notice is not None
    kept = [file for file in path.parent.iterdir() if ".damaged-" in file.name]
    assert kept[0].read_bytes() == b"no database at all " * 500
    await store.create(new())
    await store.aclose()


async def test_what_a_damaged_store_still_holds_is_saved(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    for index in range(40):
        await store.create(new(f"c{index}"))
    await store.create(new())
    turn = await start(store)
    await store.end_turn("c", turn.turn_id, DONE)
    await store.enqueue("c", Prompt(input="waits"), limit=9)
    store_id = store.store_id
    await store.aclose()
    conn = sqlite3.connect(path)
    (page,) = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'meta'").fetchone()
    (size,) = conn.execute("PRAGMA page_size").fetchone()
    conn.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    store = await SqliteStore.open(path, ignore)
    assert "41 conversations" in (store.notice or "")
    assert store.store_id != store_id
    assert [m.text for m in await store.messages("c")] == ["question", "answer"]
    assert [entry.prompt.input for entry in await store.queue("c")] == ["waits"]
    assert len((await store.search("answer")).hits) == 1
    seen = await store.catch_up("c", Cursor(store_id=store_id, seq=1))
    assert isinstance(seen, Snapshot)
    turn = await start(store)
    await store.end_turn("c", turn.turn_id, DONE)
    await store.aclose()


async def test_a_place_that_cannot_be_a_store_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path, tmp_path / "file" / "store.db"):
        with pytest.raises(StoreUnavailable) as refused:
            await SqliteStore.open(place, ignore)
        assert refused.value.hint
        assert str(tmp_path) not in str(refused.value)


async def test_a_store_that_cannot_be_locked_is_read_and_not_written(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.create(new())
    turn = await start(store)
    await store.end_turn("c", turn.turn_id, DONE)
    await store.aclose()
    lock = path.with_name("store.db.lock")
    lock.unlink()
    lock.mkdir()
    store = await SqliteStore.open(path, ignore)
    assert (store.degraded or "").startswith("read-only")
    assert len((await store.export("c", None)).messages) == 2
    assert (await store.status()).degraded == store.degraded
    with pytest.raises(StoreUnavailable) as refused:
        await store.rename("c", "x")
    assert refused.value.hint
    await store.aclose()


async def test_a_full_disk_refuses_the_write_and_recovers(path: Path) -> None:
    published: list[DurableEvent] = []
    store = await SqliteStore.open(path, published.extend)
    await store.create(new())
    connection = store._opened.writer.conn  # type: ignore[union-attr]  # the disk is in there
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(PersistenceFailed) as refused:
        await store.enqueue("c", Prompt(input="x" * 100_000), limit=9)
    assert refused.value.hint
    assert published == []
    assert await store.queue("c") == []
    connection.execute("PRAGMA max_page_count = 1073741823")
    await store.enqueue("c", Prompt(input="x" * 100_000), limit=9)
    assert len(published) == 1
    await store.aclose()


async def test_deleting_gives_the_bytes_back(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.create(new())
    empty = (await store.status()).size
    for _ in range(5):
        turn = await start(store)
        text = "lorem ipsum " * 20_000
        chunks = [
            TextChunk("c", turn.turn_id, turn.reply_id, 0, "text", at, text[at : at + 8_000])
            for at in range(0, len(text), 8_000)
        ]
        await store.append_text(chunks)
        await store.end_turn("c", turn.turn_id, DONE)
    assert (await store.status()).size > empty + 200_000
    await store.delete("c")
    status = await store.status()
    assert status.size <= empty + 8_192
    assert status.wal_size == 0
    assert b"lorem ipsum" not in content(path)
    await store.aclose()


async def test_a_journal_that_holds_only_housekeeping_is_known_as_ours(path: Path) -> None:
    """What a power cut leaves that comes right after room was given back."""
    store = await SqliteStore.open(path, lambda _: None)
    await store.create(new())
    writer = store._writer
    assert writer is not None
    writer.conn.execute("CREATE TABLE filler (data BLOB)")
    writer.conn.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
    writer.conn.execute("DROP TABLE filler")
    writer.checkpoint()
    writer.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert writer.give_back_some()
    image = path.parent / "image" / path.name
    image.parent.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{image}{suffix}")
    assert Path(f"{image}-wal").stat().st_size > 32  # noqa: ASYNC240
    assert not is_foreign(image)
    await store.aclose()
