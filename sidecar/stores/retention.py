"""Which conversations are given up when the store is to forget old ones: archived, not in use,
the one put away longest ago first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Set

from ..interfaces import PrunedConversation
from . import conversations
from .owners import IsDead
from .rows import part_range
from .write import Write

PAUSE = 7 * 24 * 3600 * 1000
"""Milliseconds that a time in which nobody wrote anything counts for at most."""

_PUT_AWAY = "max(c.updated_at, c.archived_at)"
_ARCHIVED = f"""
    SELECT c.key, c.id, c.title, {_PUT_AWAY}, o.instance
    FROM conversations c LEFT JOIN owners o ON o.conversation = c.key
    WHERE c.archived_at IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM queue q WHERE q.conversation = c.key AND q.state IN ('queued', 'running'))
"""


def prunable(
    conn: sqlite3.Connection,
    *,
    before: int | None,
    max_bytes: int | None,
    in_use: Set[str],
    is_dead: IsDead,
) -> tuple[PrunedConversation, ...]:
    """Those put away before `before`, and further ones until the rest fits into `max_bytes`."""
    excess = None if max_bytes is None else _size(conn) - max_bytes
    found: list[PrunedConversation] = []
    for conversation in _idle(conn, in_use, is_dead):
        is_old = before is not None and conversation.put_away_at < before
        if not is_old and (excess is None or excess <= 0):
            break
        found.append(conversation)
        if excess is not None:
            excess -= conversation.bytes
    return tuple(found)


def use_ago(conn: sqlite3.Connection, age: int, now: int) -> int:
    """The moment before which lies `age` of use, in milliseconds; 0 when there was less.

    Age is counted along the messages, whose ids tell when they were made, and a longer pause
    counts as `PAUSE`. So neither a clock that jumps by years, whatever is written then, nor a
    long journey makes everything old at once.
    """
    at = now
    while age > 0:
        (first,) = conn.execute(
            "SELECT min(id) FROM messages WHERE id >= ? AND id < ?", (_ids(at - PAUSE), _ids(at))
        ).fetchone()
        before = first
        if first is None:
            (before,) = conn.execute(
                "SELECT max(id) FROM messages WHERE id < ?", (_ids(at - PAUSE),)
            ).fetchone()
        if before is None:
            return 0
        step = PAUSE if first is None else at - _made_at(first)
        if step >= age:
            return at - age
        age -= step
        at = _made_at(before)
    return at


def _ids(at: int) -> bytes:
    """Where the ids begin that were made at this time or later."""
    return max(0, at).to_bytes(6, "big") + bytes(10)


def _made_at(id: bytes) -> int:
    return int.from_bytes(id[:6], "big")


def prune(write: Write, conversation_id: str, in_use: Set[str], is_dead: IsDead) -> bool:
    """Delete it, unless somebody has begun to use it since."""
    row = write.conn.execute(f"{_ARCHIVED} AND c.id = ?", (conversation_id,)).fetchone()
    if row is None or _is_used(row[1], row[4], in_use, is_dead):
        return False
    conversations.delete(write, conversation_id)
    return True


def _idle(
    conn: sqlite3.Connection, in_use: Set[str], is_dead: IsDead
) -> Iterator[PrunedConversation]:
    rows = conn.execute(f"{_ARCHIVED} ORDER BY {_PUT_AWAY}, c.key").fetchall()
    for key, id, title, put_away_at, owner in rows:
        if not _is_used(id, owner, in_use, is_dead):
            yield PrunedConversation(
                conversation_id=id, title=title, put_away_at=put_away_at, bytes=_bytes(conn, key)
            )


def _is_used(id: str, owner: str | None, in_use: Set[str], is_dead: IsDead) -> bool:
    return id in in_use or (owner is not None and not is_dead(owner))


def _size(conn: sqlite3.Connection) -> int:
    pages, free, size = (
        conn.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _bytes(conn: sqlite3.Connection, key: int) -> int:
    """About what a conversation takes: its text."""
    keys = conn.execute("SELECT key FROM messages WHERE conversation = ?", (key,)).fetchall()
    return sum(
        int(
            conn.execute(
                "SELECT total(length(CAST(text AS BLOB))) + total(length(data)) FROM parts "
                "WHERE key >= ? AND key < ?",
                part_range(message),
            ).fetchone()[0]
        )
        for (message,) in keys
    )
