"""What a start, and the look after a crash, make of a damaged store; see `tests.faults.damage`
for many more ways to damage one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from sidecar.conversations import Prompt
from sidecar.errors import LoadFailed, StoreUnavailable
from sidecar.stores import pages, upkeep
from sidecar.stores.backup import backup_of
from sidecar.stores.journal_file import is_foreign
from sidecar.stores.sqlite import SqliteStore
from tests.faults.damage import contents, fill, forget_the_ending, ignore, new

pytestmark = pytest.mark.anyio

PAGE = 4096


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    await fill(path, conversations=6, turns=3)
    return path


def root_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as conn:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        return int(conn.execute(query, (table,)).fetchone()[0])


def destroy_page(path: Path, number: int) -> bytes:
    """Overwrite a page with noise; returns the whole file as it is then."""
    data = bytearray(path.read_bytes())
    data[(number - 1) * PAGE : number * PAGE] = b"\xa5" * PAGE
    path.write_bytes(data)
    return bytes(data)


def cut_off(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def remove(path: Path) -> None:
    path.unlink()


def kept(path: Path) -> list[Path]:
    return sorted(path.parent.glob("store.db.damaged-*"))


async def test_rows_behind_a_damaged_page_are_saved_from_their_own_pages(path: Path) -> None:
    before = contents(path)
    found = destroy_page(path, root_of(path, "parts"))
    store = await SqliteStore.open(path, ignore)
    assert "damaged" in (store.notice or "")
    assert kept(path)[0].read_bytes() == found
    await store.aclose()
    assert contents(path).messages == before.messages


async def test_the_backup_gives_what_the_damaged_file_has_lost(path: Path) -> None:
    before = contents(path)
    shutil.copy(path, backup_of(path))
    cut_off(path, 10 * PAGE)
    store = await SqliteStore.open(path, ignore)
    assert "from the backup" in (store.notice or "")
    assert contents(path) == before
    await store.aclose()


async def test_what_waited_when_the_backup_was_made_is_not_run_from_it(path: Path) -> None:
    shutil.copy(path, backup_of(path))
    cut_off(path, 0)
    store = await SqliteStore.open(path, ignore)
    assert await store.waiting() == {}
    assert [entry.state for entry in await store.queue("c0")] == ["parked"]
    await store.aclose()


async def test_what_was_deleted_does_not_come_back_from_the_backup(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.delete("c1")
    await store.aclose()
    destroy_page(path, root_of(path, "meta"))
    store = await SqliteStore.open(path, ignore)
    assert store.notice is not None
    listed = (await store.list()).conversations
    assert sorted(one.conversation_id for one in listed) == ["c0", "c2", "c3", "c4", "c5"]
    await store.aclose()


async def test_a_store_that_is_gone_is_brought_back_from_its_backup_and_the_user_told(
    path: Path,
) -> None:
    before = contents(path)
    shutil.copy(path, backup_of(path))
    remove(path)
    store = await SqliteStore.open(path, ignore)
    assert "was gone" in (store.notice or "")
    assert contents(path) == before
    await store.aclose()


async def test_another_stores_journal_is_set_aside_and_not_applied(path: Path) -> None:
    before = contents(path)
    other = path.with_name("other.db")
    shutil.copy(path, other)
    with closing(sqlite3.connect(other, isolation_level=None)) as conn:
        conn.execute("UPDATE meta SET store_id = 'another'")
        conn.execute("DELETE FROM parts")
        shutil.copy(other.with_name("other.db-wal"), path.with_name("store.db-wal"))
    journal = path.with_name("store.db-wal").read_bytes()
    store = await SqliteStore.open(path, ignore)
    assert "another database" in (store.notice or "")
    assert contents(path) == before
    await store.aclose()
    (aside,) = path.parent.glob("store.db.foreign-*-wal")
    assert aside.read_bytes() == journal


async def test_the_stores_own_journal_is_applied(path: Path, tmp_path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    await store.create(new("late"))
    copy = tmp_path / "copy" / "store.db"
    copy.parent.mkdir()
    for suffix in ("", "-wal", ".lock"):
        shutil.copy(path.with_name(path.name + suffix), copy.with_name(copy.name + suffix))
    assert not is_foreign(copy)
    again = await SqliteStore.open(copy, ignore)
    assert again.notice is None
    assert (await again.get("late")).conversation_id == "late"
    for each in (store, again):
        await each.aclose()


async def test_after_an_unclean_end_damage_is_found_in_the_background(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "FIRST_LOOK", 0.0)
    before = contents(path)
    shutil.copy(path, backup_of(path))  # so that none is due
    destroy_page(path, root_of(path, "messages_read"))
    forget_the_ending(path)
    store = await SqliteStore.open(path, ignore)
    assert (store.notice, store.degraded) == (None, None)
    told, found = [], anyio.Event()

    def tell(reason: str) -> None:
        told.append(reason)
        found.set()

    store.on_damage = tell
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.keep_up)
        with anyio.fail_after(10):
            await found.wait()
        tasks.cancel_scope.cancel()
    assert "doctor --repair" in told[0]
    assert store.degraded == told[0]
    with pytest.raises(StoreUnavailable):
        await store.create(new("more"))
    await store.aclose()
    store = await SqliteStore.open(path, ignore)
    assert "damaged" in (store.notice or "")
    await store.create(new("more"))
    await store.delete("more")
    await store.aclose()
    assert contents(path) == before


async def test_damage_that_a_statement_meets_degrades_the_store(path: Path) -> None:
    destroy_page(path, root_of(path, "parts"))
    forget_the_ending(path)
    store = await SqliteStore.open(path, ignore)
    told: list[str] = []
    store.on_damage = told.append
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.messages("c1")
    assert len(told) == 1
    await store.aclose()


async def test_a_store_that_another_window_has_open_is_not_replaced(path: Path) -> None:
    window = await SqliteStore.open(path, ignore)
    window._opened.writer.checkpoint()  # type: ignore[union-attr]  # damage beneath its hands
    # The first is met at once, and mended by the window, which has it in memory, as it leaves.
    for table in ("meta", "parts"):
        destroy_page(path, root_of(path, table))
    with pytest.raises(StoreUnavailable) as refused:
        await SqliteStore.open(path, ignore)
    assert "Close every window" in (refused.value.hint or "")
    assert kept(path) == []
    await window.aclose()
    store = await SqliteStore.open(path, ignore)
    assert store.notice is not None
    assert kept(path) != []
    await store.aclose()


async def test_an_older_store_is_not_brought_up_to_date_while_another_window_has_it_open(
    path: Path,
) -> None:
    window = await SqliteStore.open(path, ignore)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 0")
    with pytest.raises(StoreUnavailable) as refused:
        await SqliteStore.open(path, ignore)
    assert "Close the other windows" in (refused.value.hint or "")
    await window.aclose()
    await (await SqliteStore.open(path, ignore)).aclose()


async def test_a_damaged_search_index_is_made_anew(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("UPDATE messages_fts_data SET block = x'ffffffffffff'")
    forget_the_ending(path)
    store = await SqliteStore.open(path, ignore)
    with pytest.raises(StoreUnavailable):
        await store.search("answer")
    assert store.degraded is None
    await store.rename("c1", "behind the mending")
    assert len((await store.search("answer", limit=100)).hits) == 18
    await store.aclose()


async def test_a_character_that_a_flipped_bit_spoiled_costs_only_itself(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(
            "UPDATE parts SET text = CAST(x'61ff62' AS TEXT) WHERE text LIKE 'question 1 0%'"
        )
    store = await SqliteStore.open(path, ignore)
    assert (await store.messages("c1"))[0].text == "a�b"
    await store.aclose()


async def test_a_garbled_state_is_an_error_of_its_conversation_alone(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("UPDATE messages SET status = 'coiplete' WHERE conversation = 1")
    store = await SqliteStore.open(path, ignore)
    with pytest.raises(LoadFailed):
        await store.messages("c0")
    assert len(await store.messages("c1")) == 6
    await store.aclose()


async def test_after_an_ending_in_order_a_start_checks_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.stores.files.check", lambda path: pytest.fail("checked"))
    for _ in range(2):
        store = await SqliteStore.open(path, ignore)
        assert not store._opened.unclean
        await store.enqueue("c1", Prompt(input="x"), limit=99)
        await store.aclose()


def test_every_row_is_read_from_the_pages_themselves(tmp_path: Path) -> None:
    path = tmp_path / "plain.db"
    rows = [
        (None, -5, 2.5, "text" * 5_000, b"\0" * 3),
        (None, 1 << 40, None, "ä", b""),
        (None, 0, -1.0, "", b"x" * 4_100),
        (None, 1, 0.0, "é" * 2_000, None),
    ]
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB)")
        conn.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
        conn.commit()
    found = [row for row in pages.rows(path.read_bytes()) if len(row.values) == 5][-4:]
    assert [row.rowid for row in found] == [1, 2, 3, 4]
    assert [row.values for row in found] == rows


def test_pages_that_make_no_sense_have_no_rows() -> None:
    assert list(pages.rows(b"")) == []
    assert list(pages.rows(b"\x0d\xa5" * 20_000)) == []


def cut_in_a_write(path: Path, version: int) -> None:
    """What a power cut leaves at `path` of a write with a rollback journal."""
    life = path.with_name("life")
    life.mkdir()
    with closing(sqlite3.connect(life / path.name, isolation_level=None)) as conn:
        conn.execute("PRAGMA user_version = 0")
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(f"PRAGMA user_version = {version}")
        for file in life.iterdir():
            shutil.copy(file, path.parent)
    assert path.with_name(path.name + "-journal").stat().st_size > 0


async def test_a_store_whose_birth_was_cut_off_is_made(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    cut_in_a_write(path, 1)
    store = await SqliteStore.open(path, ignore)
    assert store.notice is None
    assert store.degraded is None
    await store.aclose()
    assert not path.with_name("store.db-journal").exists()


async def test_a_rollback_journal_beside_a_grown_store_is_not_used(path: Path) -> None:
    before = contents(path)
    foreign = path.with_name("other") / path.name
    foreign.parent.mkdir()
    cut_in_a_write(foreign, 1)
    shutil.copy(foreign.with_name("store.db-journal"), path.parent)
    store = await SqliteStore.open(path, ignore)
    assert "journal of another database" in (store.notice or "")
    await store.aclose()
    assert contents(path) == before
    assert len(list(path.parent.glob("store.db.foreign-*-journal"))) == 1
