"""Which conversations are given up, and which never."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sidecar import retention
from sidecar.conversations import Prompt
from sidecar.ids import now_ms
from sidecar.journal import Journal
from sidecar.manager import AgentManager
from sidecar.settings import RetentionSettings
from sidecar.stores.backup import backup_of
from sidecar.stores.sqlite import SqliteStore
from sidecar.toolbox import Toolbox
from tests.faults.damage import done, ignore, new

pytestmark = pytest.mark.anyio

DAY = retention.DAY_MS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def talk(store: SqliteStore, name: str, size: int) -> None:
    await store.create(new(name))
    await store.enqueue(name, Prompt(input="question"), limit=9)
    turn = await store.start_turn(name, "p")
    assert turn is not None
    await store.end_turn(name, turn.turn_id, done("x" * size))
    await store.release(name)


def age(path: Path, name: str, days: int) -> None:
    then = now_ms() - days * DAY
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(
            "UPDATE conversations SET updated_at = ?1, "
            "archived_at = CASE WHEN archived_at IS NULL THEN NULL ELSE ?1 END WHERE id = ?2",
            (then, name),
        )
        rows = conn.execute(
            "SELECT m.key, m.id FROM messages m JOIN conversations c ON c.key = m.conversation "
            "WHERE c.id = ?",
            (name,),
        ).fetchall()
        for key, id in rows:
            conn.execute("UPDATE messages SET id = ? WHERE key = ?", (made_at(then, id), key))


def made_at(then: int, id: bytes) -> bytes:
    return then.to_bytes(6, "big") + id[6:]


async def some(path: Path) -> SqliteStore:
    """Four of 100 KB each, archived 40, 30, 20 and 10 days ago; one that is not archived."""
    store = await SqliteStore.open(path, ignore)
    for name, days in (("a", 40), ("b", 30), ("c", 20), ("d", 10), ("live", 50)):
        await talk(store, name, 100_000)
        if name != "live":
            await store.archive(name, True)
        age(path, name, days)
    return store


async def prune(
    store: SqliteStore,
    *,
    days: int | None = None,
    max_bytes: int | None = None,
    in_use: frozenset[str] = frozenset(),
    dry_run: bool = False,
) -> list[str]:
    before = None if days is None else now_ms() - days * DAY
    pruned = await store.prune(before=before, max_bytes=max_bytes, in_use=in_use, dry_run=dry_run)
    return [one.conversation_id for one in pruned]


async def names(store: SqliteStore) -> set[str]:
    rows = [*(await store.list()).conversations, *(await store.list(archived=True)).conversations]
    return {row.conversation_id for row in rows}


async def test_the_oldest_archived_ones_are_given_up_by_age(path: Path) -> None:
    store = await some(path)
    backup_of(path).touch()
    assert await prune(store, days=25, dry_run=True) == ["a", "b"]
    assert await names(store) == {"a", "b", "c", "d", "live"}
    assert backup_of(path).exists()
    size = (await store.status()).size
    assert await prune(store, days=25) == ["a", "b"]
    assert await names(store) == {"c", "d", "live"}
    assert (await store.status()).size < size - 150_000
    assert not backup_of(path).exists()
    assert await prune(store, days=25) == []
    await store.aclose()


async def test_as_many_are_given_up_as_make_the_store_fit(path: Path) -> None:
    store = await some(path)
    size = (await store.status()).size
    assert await prune(store, max_bytes=size) == []
    assert await prune(store, max_bytes=size - 150_000) == ["a", "b"]
    assert await prune(store, max_bytes=1) == ["c", "d"]
    assert await names(store) == {"live"}
    await store.aclose()


async def test_what_is_in_use_waits_or_is_owned_by_a_living_window_is_kept(path: Path) -> None:
    store = await some(path)
    window = await SqliteStore.open(path, ignore)
    await window.take_over("b", force=True)
    await store.enqueue("c", Prompt(input="more"), limit=9)
    for name in ("a", "b", "c", "d"):
        age(path, name, 50)
    assert await prune(store, days=1, in_use=frozenset({"d"})) == ["a"]
    await window.aclose()
    assert await prune(store, days=1) == ["b", "d"]
    await store.aclose()


async def test_one_put_away_today_is_not_old_however_old_its_messages(path: Path) -> None:
    store = await some(path)
    await store.archive("live", True)
    assert await prune(store, days=45) == []
    await store.aclose()


@pytest.mark.parametrize("rule", [RetentionSettings(), RetentionSettings(max_age_days=25)])
async def test_the_setting_decides_and_nothing_is_the_default(
    rule: RetentionSettings, path: Path
) -> None:
    store = await some(path)
    journal = Journal()
    manager = AgentManager(
        store,
        journal,
        make_provider=lambda _: pytest.fail("needs none"),
        make_tools=lambda _: Toolbox(),
    )
    journal.subscribe("b", ignore)
    found = await retention.prune(manager, rule, dry_run=False)
    expected = ["a"] if rule.max_age_days else []
    assert [one.conversation_id for one in found] == expected
    await store.aclose()


async def used_daily(path: Path, days: int) -> SqliteStore:
    store = await SqliteStore.open(path, ignore)
    for day in range(days):
        await talk(store, f"day{day}", 10)
        age(path, f"day{day}", day)
    return store


async def test_age_is_counted_by_the_calendar_while_the_store_is_used(path: Path) -> None:
    store = await used_daily(path, 40)
    now = now_ms()
    assert abs(await store.use_ago(30 * DAY, now) - (now - 30 * DAY)) < DAY
    assert await store.use_ago(60 * DAY, now) == 0
    await store.aclose()


@pytest.mark.parametrize("years", [1, 10, 60])
async def test_a_clock_that_jumps_makes_nothing_older_than_a_week(path: Path, years: int) -> None:
    store = await used_daily(path, 40)
    now = now_ms()
    wild = now + years * 365 * DAY
    assert await store.use_ago(30 * DAY, wild) <= now - 22 * DAY
    await talk(store, "wild", 10)  # what is written then makes the jump no more believable
    age(path, "wild", -years * 365)
    assert await store.use_ago(30 * DAY, wild + DAY) <= now - 21 * DAY
    assert abs(await store.use_ago(30 * DAY, now) - (now - 30 * DAY)) < DAY
    assert await store.use_ago(30 * DAY, now - 365 * DAY) == 0
    await store.aclose()
