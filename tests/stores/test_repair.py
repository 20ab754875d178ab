"""`doctor --repair`, from the store's side and from the command line."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.app import repair_store
from sidecar.commands.cli import main
from sidecar.conversations import Rule
from sidecar.errors import StoreUnavailable
from sidecar.stores.backup import backup_of
from sidecar.stores.sqlite import SqliteStore
from tests.faults.damage import contents, fill, foreign_journal, ignore
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    await fill(path, conversations=6, turns=3)
    return path


def store_id(path: Path) -> str:
    with closing(sqlite3.connect(path)) as conn:
        return str(conn.execute("SELECT store_id FROM meta").fetchone()[0])


def found(path: Path) -> bytes:
    return path.read_bytes()


def damage(path: Path) -> bytes:
    """Make an index disagree with its table, which only the whole check sees."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA writable_schema = ON")
        conn.execute("DELETE FROM sqlite_schema WHERE name = 'messages_read'")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


async def test_a_sound_store_keeps_its_id_and_gets_a_new_index(path: Path) -> None:
    before, id = contents(path), store_id(path)
    done = repair_store(path)
    assert (done.outcome, done.problems, done.store_id) == ("sound", (), id)
    assert done.messages_indexed == 36
    assert contents(path) == before
    store = await SqliteStore.open(path, ignore)
    assert not store._opened.unclean
    assert len((await store.search("answer", limit=99)).hits) == 18
    await store.aclose()


async def test_a_damaged_store_is_replaced_by_what_could_be_saved(path: Path) -> None:
    before, id, found = contents(path), store_id(path), damage(path)
    done = repair_store(path)
    assert done.outcome == "salvaged"
    assert done.problems
    assert done.store_id == store_id(path) != id
    assert "6 conversations" in (done.notice or "")
    (aside,) = path.parent.glob("store.db.damaged-*")
    assert aside.read_bytes() == found
    assert contents(path) == before
    store = await SqliteStore.open(path, ignore)
    assert store.notice is None
    assert len((await store.search("answer", limit=99)).hits) == 18
    await store.aclose()


async def test_a_store_that_somebody_has_open_is_not_touched(path: Path) -> None:
    store = await SqliteStore.open(path, ignore)
    with pytest.raises(StoreUnavailable) as refused:
        repair_store(path)
    assert "Close the other windows" in (refused.value.hint or "")
    await store.aclose()
    assert repair_store(path).outcome == "sound"


async def test_where_there_is_no_store_none_is_made(tmp_path: Path) -> None:
    for place in (tmp_path / "none.db", tmp_path / "no folder" / "none.db"):
        with pytest.raises(StoreUnavailable):
            repair_store(place)
        assert not place.exists()


async def test_the_command_says_what_it_did(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--repair", "--store", str(path)]) == 0
    assert "sound" in capsys.readouterr().out
    damage(path)
    assert main(["doctor", "--repair", "--store", str(path)]) == 0
    told = capsys.readouterr().out
    assert "could be saved" in told
    assert "search index was made anew: 36 messages" in told


async def test_the_journal_of_another_store_is_kept_aside_and_named(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(path)
    foreign_journal(path, random.Random(1))
    journal = path.with_name("store.db-wal").read_bytes()
    assert main(["doctor", "--repair", "--store", str(path)]) == 0
    told = capsys.readouterr().out
    (aside,) = path.parent.glob("store.db.foreign-*")
    assert aside.read_bytes() == journal
    assert aside.name in told
    assert "sound" in told
    assert contents(path) == before


async def test_what_the_damage_took_comes_from_the_backup_and_is_said(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(path)
    shutil.copy(path, backup_of(path))
    with closing(sqlite3.connect(path)) as conn:
        (page,) = conn.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'messages'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    assert main(["doctor", "--repair", "--store", str(path)]) == 0
    assert "from the backup" in capsys.readouterr().out
    assert contents(path) == before


async def test_a_newer_store_is_not_touched(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 99")
    before = found(path)
    assert main(["doctor", "--repair", "--store", str(path)]) == 1
    assert "Update agent-sidecar" in capsys.readouterr().err
    assert found(path) == before


@proves("AUDIT")
@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_repair_does_not_make_a_cut_record_whole(path: Path, is_cut: bool) -> None:
    store = await SqliteStore.open(path, ignore)
    for word in "abc":
        await store.add_rule(Rule(tool="run", argv=(word,), root="/w"))
    await store.aclose()
    if is_cut:
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute("DROP TRIGGER audit_is_not_cut")
            conn.execute("DELETE FROM audit WHERE key = 3")
    damage(path)
    assert repair_store(path).outcome == "salvaged"
    store = await SqliteStore.open(path, ignore)
    report = await store.check_audit()
    assert (report.problem is not None) == is_cut
    await store.add_rule(Rule(tool="run", argv=("d",), root="/w"))
    assert ((await store.check_audit()).problem is not None) == is_cut
    await store.aclose()
    store._tidy(store._writer)  # posted just before the end, done just behind it: nothing happens
