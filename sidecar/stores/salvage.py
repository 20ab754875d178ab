"""Saving what can be read of a damaged store. The damaged file is kept, never deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..ids import new_id, now_ms

_TABLES = ("conversations", "messages", "parts", "chunks", "queue", "request_keys", "owners")
"""Parents first. Events are left behind: a new store id sends every reader to a snapshot."""


def rescue(path: Path, make_new: Callable[[], None]) -> str:
    """Move the damaged store aside, make a new one, fill it. Returns what to tell the user."""
    aside = _move_aside(path)
    make_new()
    new = sqlite3.connect(path, isolation_level=None)
    try:
        saved = _fill(new, aside)
    finally:
        new.close()
    return (
        f"The conversation store was damaged. {saved} conversations could be saved; "
        f"the damaged file was kept as {aside.name}."
    )


def _move_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{now_ms()}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _fill(new: sqlite3.Connection, aside: Path) -> int:
    # Not through `immutable`: what the journal holds is wanted too.
    old = sqlite3.connect(aside, isolation_level=None)
    try:
        new.execute("PRAGMA foreign_keys = OFF")
        new.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            _copy(old, new, table)
        _settle(new)
        new.execute("COMMIT")
    finally:
        old.close()
    count: int = new.execute("SELECT count(*) FROM conversations").fetchone()[0]
    return count


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> None:
    columns = [name for _, name, *_ in new.execute(f"PRAGMA table_info({table})")]
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    for row in _readable(old, table, names):
        # Damaged content may break a constraint; the rest is still worth having.
        new.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", row)


def _readable(old: sqlite3.Connection, table: str, names: str) -> Iterator[tuple[Any, ...]]:
    """The rows before the damage and, reading backwards, those behind it."""
    for direction in ("", " DESC"):
        order = "part" if table == "chunks" else "rowid"
        try:
            yield from old.execute(f"SELECT {names} FROM {table} ORDER BY {order}{direction}")
        except sqlite3.DatabaseError:
            continue
        return


def _settle(new: sqlite3.Connection) -> None:
    """Make the counts agree with what was saved, and have everything indexed again."""
    orphan = "NOT IN (SELECT key FROM conversations)"
    for table in ("messages", "queue", "owners"):
        new.execute(f"DELETE FROM {table} WHERE conversation {orphan}")
    new.execute("DELETE FROM parts WHERE key >> 16 NOT IN (SELECT key FROM messages)")
    new.execute("DELETE FROM chunks WHERE part >> 16 NOT IN (SELECT key FROM messages)")
    new.execute(
        "UPDATE queue SET state = 'queued', turn = NULL, reply = NULL WHERE state = 'running' "
        "AND (reply NOT IN (SELECT key FROM messages) "
        "OR message_id NOT IN (SELECT id FROM messages))"
    )
    new.execute(
        """
        UPDATE conversations SET first_seq = last_seq + 1, event_bytes = 0, change_no = 1,
            message_count = (SELECT count(*) FROM messages m
                WHERE m.conversation = conversations.key AND m.hidden IS NULL),
            next_ordinal = (SELECT coalesce(max(m.ordinal), -1) + 1 FROM messages m
                WHERE m.conversation = conversations.key),
            queue_length = (SELECT count(*) FROM queue q
                WHERE q.conversation = conversations.key AND q.state = 'queued')
        """
    )
    new.execute("UPDATE meta SET store_id = ?, change_no = 1", (new_id(),))
    new.execute("INSERT INTO to_index SELECT key FROM messages WHERE status <> 'streaming'")
