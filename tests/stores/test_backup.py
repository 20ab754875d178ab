"""The rolling backup, and that what was deleted is gone from everywhere."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from sidecar.conversations import Prompt
from sidecar.stores import backup, search, upkeep
from sidecar.stores.backup import Damaged, backup_of, make_copy, put_in_place
from sidecar.stores.sqlite import SqliteStore
from sidecar.stores.upkeep import Upkeep
from tests.faults.damage import contents, done, fill, ignore, new
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    await fill(path, conversations=6, turns=3)
    return path


def upkeep_of(store: SqliteStore) -> Upkeep:
    opened = store._opened
    assert opened.path is not None
    assert opened.writer is not None
    return Upkeep(
        opened.path,
        opened.writer,
        opened.write_lane,
        opened.instances,
        forget=store.forget_deleted,
        on_damage=store._found_damage,
    )


def make_older(path: Path) -> None:
    old = path.stat().st_mtime - upkeep.BACKUP_AGE - 60
    os.utime(backup_of(path), (old, old))


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_a_backup_holds_what_the_store_holds_for_its_user_only(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.create(new("only in the journal"[:4]))
    care = upkeep_of(store)
    assert care.is_backup_due()
    assert await care.back_up()
    assert not care.is_backup_due()
    assert contents(backup_of(path)) == contents(path)
    if sys.platform != "win32":
        assert stat.S_IMODE(backup_of(path).stat().st_mode) == 0o600
    await store.aclose()
    assert list(path.parent.glob("*.copy-*")) == []


async def test_a_backup_is_due_again_after_a_day_or_many_bytes(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    care = upkeep_of(store)
    await care.back_up()
    make_older(path)
    assert care.is_backup_due()
    await care.back_up()
    assert not care.is_backup_due()
    writer = store._opened.writer
    assert writer is not None
    writer.bytes_written += upkeep.BACKUP_BYTES + 1
    assert care.is_backup_due()
    await store.aclose()


async def test_writers_go_on_while_a_backup_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    monkeypatch.setattr(backup, "STEP_PAUSE", 0.0005)
    first = await SqliteStore.open(path, ignore)
    second = await SqliteStore.open(path, ignore)
    made = anyio.Event()

    async def make() -> None:
        assert await upkeep_of(first).back_up()
        made.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(make)
            number = 0
            while not made.is_set():
                await second.create(new(f"more{number}"))
                number += 1
    assert number > 0
    backup.check(backup_of(path))
    for store in (first, second):
        await store.aclose()


async def test_a_backup_that_is_not_wanted_any_more_leaves_nothing(path: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert make_copy(path, "me", stop) is None
    assert list(path.parent.glob("*.copy-*")) == []


async def test_a_damaged_store_does_not_replace_a_good_backup(path: Path) -> None:
    assert (copy := make_copy(path, "me", threading.Event())) is not None
    assert put_in_place(path, copy)
    good = backup_of(path).read_bytes()
    damage(path)
    with pytest.raises(Damaged):
        make_copy(path, "me", threading.Event())
    assert backup_of(path).read_bytes() == good
    assert list(path.parent.glob("*.copy-*")) == []


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8 * 4096 : 12 * 4096] = b"\xa5" * (4 * 4096)
    path.write_bytes(data)


async def test_a_copy_that_was_begun_before_a_deletion_is_not_kept(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    copy = make_copy(path, "me", threading.Event())
    assert copy is not None
    saved = copy.read_bytes()
    await store.delete("c1")
    copy.write_bytes(saved)
    assert not put_in_place(path, copy)
    assert not backup_of(path).exists()
    assert not copy.exists()
    await store.aclose()


async def test_a_copy_whose_index_still_has_deleted_words_is_not_kept(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.index_pending()
    await store.delete("c1")
    copy = make_copy(path, "me", threading.Event())
    assert copy is not None
    assert not put_in_place(path, copy)
    await store.forget_deleted()
    copy = make_copy(path, "me", threading.Event())
    assert copy is not None
    assert put_in_place(path, copy)
    await store.aclose()


async def test_a_copy_that_a_deletion_took_away_is_no_sign_of_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_copy", lambda path, copy, stop: copy.unlink())
    with pytest.raises(sqlite3.OperationalError):
        make_copy(path, "me", threading.Event())
    monkeypatch.undo()
    copy = make_copy(path, "me", threading.Event())
    assert copy is not None
    copy.unlink()
    with pytest.raises(sqlite3.OperationalError):
        put_in_place(path, copy)
    assert not backup_of(path).exists()


@proves("P4")
async def test_a_deleted_conversation_leaves_no_trace_in_any_file(path: Path) -> None:
    word = "xylophonquartz"
    store = await SqliteStore.open(path, ignore)
    await store.create(new("secret"))
    for index in range(3):
        await store.enqueue("secret", Prompt(input=f"{word} {index}"), limit=99)
        turn = await store.start_turn("secret", "p")
        assert turn is not None
        await store.end_turn("secret", turn.turn_id, done(f"about {word} and {word}ish " * 50))
        await store.index_pending()
    await store.rename("secret", f"all about {word}")
    assert await upkeep_of(store).back_up()
    assert len((await store.search(word)).hits) == 6
    assert word.encode() in everything_in(path.parent)
    await store.delete("secret")
    await store.forget_deleted()
    # FTS5 keeps of a word what differs from the one before it: look for its end, too.
    left = everything_in(path.parent)
    for trace in (word, word[1:], word[4:]):
        assert trace.encode() not in left
    assert (await store.status()).wal_size == 0
    assert await upkeep_of(store).back_up()
    assert word[4:].encode() not in everything_in(path.parent)
    await store.aclose()


async def test_forgetting_that_a_crash_cut_short_is_done_by_the_next_sidecar(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.delete("c1")
    await store.aclose()
    monkeypatch.setattr(upkeep, "FIRST_LOOK", 0.0)
    store = await SqliteStore.open(path, ignore)
    assert await store._read(search.has_to_purge)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.keep_up)
        with anyio.fail_after(10):
            while await store._read(search.has_to_purge):
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await store.aclose()


async def test_searching_and_indexing_go_on_while_words_are_to_be_forgotten(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.delete("c1")
    assert not await store._read(search.has_pending)
    assert {hit.conversation_id for hit in (await store.search("answer", limit=99)).hits} == {
        "c0",
        "c2",
        "c3",
        "c4",
        "c5",
    }
    await store.aclose()


async def test_what_a_dead_process_had_begun_is_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "FIRST_LOOK", 0.0)
    begun = path.with_name("store.db.copy-dead")
    begun.write_bytes(b"half a copy")
    store = await SqliteStore.open(path, ignore)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.keep_up)
        with anyio.fail_after(10):
            while begun.exists():
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await store.aclose()


def test_a_copy_that_is_overtaken_too_often_is_given_up() -> None:
    pace = backup._Pace(threading.Event(), 1)
    pace(0, 10, 20)
    with pytest.raises(backup._Overtaken):
        pace(0, 15, 20)
