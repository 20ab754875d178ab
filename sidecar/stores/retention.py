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
