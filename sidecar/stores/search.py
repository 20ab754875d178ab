"""Finding words in messages. The index is kept up off the hot path: a turn only notes which
messages are new, and whoever searches first has them indexed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from ..interfaces import SearchHit, SearchResult
from .rows import get_conversation, unpack_id
from .write import Write

MIN_PREFIX = 3
"""A shorter last word stands for itself: as a beginning it would match half of the vocabulary,
and that takes longer than a user waits."""

INDEX_STEP = 200
"""Messages indexed in one transaction, so that nobody waits long for the writer."""


PURGE, PURGING = 0, -1
"""Stand in `to_index` for no message: the words of deleted ones are still in the index, or are
being got out of it; see `purge_some`. Two, for what is deleted meanwhile."""
_PURGE_PAGES = 256


def note(conn: sqlite3.Connection, messages: Iterable[int]) -> None:
    """Have these messages indexed when there is time."""
    conn.executemany(
        "INSERT OR IGNORE INTO to_index (message) VALUES (?)", [(key,) for key in messages]
    )


def has_pending(conn: sqlite3.Connection) -> bool:
    return conn.execute("SELECT 1 FROM to_index WHERE message > 0 LIMIT 1").fetchone() is not None


def index_some(write: Write) -> bool:
    """Index the next messages; False when there are no more."""
    conn = write.conn
    keys = conn.execute(
        "SELECT message FROM to_index WHERE message > 0 ORDER BY message LIMIT ?", (INDEX_STEP,)
    ).fetchall()
    conn.executemany(
        "INSERT INTO messages_fts (rowid, text) "
        "SELECT key, text FROM searchable WHERE key = ? AND text IS NOT NULL",
        keys,
    )
    conn.executemany("DELETE FROM to_index WHERE message = ?", keys)
    return len(keys) == INDEX_STEP


def unindex(conn: sqlite3.Connection, messages: Sequence[int]) -> None:
    """Forget messages. Comes before their parts are deleted: the index has to be told what it
    holds."""
    note(conn, [PURGE])
    for key in messages:
        if conn.execute("DELETE FROM to_index WHERE message = ?", (key,)).rowcount == 0:
            conn.execute(
                "INSERT INTO messages_fts (messages_fts, rowid, text) SELECT 'delete', key, text "
                "FROM searchable WHERE key = ? AND text IS NOT NULL",
                (key,),
            )


def has_to_purge(conn: sqlite3.Connection) -> bool:
    return conn.execute("SELECT 1 FROM to_index WHERE message <= 0").fetchone() is not None


def purge_some(write: Write, *, first: bool) -> bool:
    """Get the words of deleted messages out of the index; False when they all are. FTS5 only
    notes that they are gone, until what it wrote earlier is merged with the note."""
    conn = write.conn
    before = conn.total_changes
    pages = -_PURGE_PAGES if first else _PURGE_PAGES
    conn.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('merge', ?)", (pages,))
    # FTS5 says by the count of changes whether there was anything to merge.
    is_done = not first and conn.total_changes - before < 2
    if first:
        note(conn, [PURGING])
        conn.execute("DELETE FROM to_index WHERE message = ?", (PURGE,))
    elif is_done:
        conn.execute("DELETE FROM to_index WHERE message = ?", (PURGING,))
    return not is_done


def empty(conn: sqlite3.Connection) -> None:
    """Have nothing indexed. By way of the index's own tables: one that is damaged takes no
    orders."""
    for table in ("data", "idx", "docsize"):
        conn.execute(f"DELETE FROM messages_fts_{table}")
    # What FTS5 begins with: no averages, and a structure without levels and segments.
    conn.execute("INSERT INTO messages_fts_data VALUES (1, x''), (10, x'00000000000000')")
    conn.execute("INSERT INTO messages_fts (messages_fts) VALUES ('delete-all')")


def rebuild(write: Write) -> None:
    """Empty the index and have every finished message indexed again, step by step."""
    conn = write.conn
    empty(conn)
    conn.execute("DELETE FROM to_index")
    conn.execute("INSERT INTO to_index SELECT key FROM messages WHERE status <> 'streaming'")


def search(
    conn: sqlite3.Connection, query: str, conversation_id: str | None, limit: int
) -> SearchResult:
    """The newest messages with these words; where they are not enough, the last word may be the
    beginning of one. In a large store a beginning takes a hundred times as long as a word."""
    where, params = "", []
    if conversation_id is not None:
        row = get_conversation(conn, conversation_id)
        low, high = conn.execute(
            "SELECT min(key), max(key) FROM messages WHERE conversation = ?", (row.key,)
        ).fetchone()
        where = "AND f.rowid BETWEEN ? AND ? AND m.conversation = ?"
        params = [low, high, row.key]
    hits: tuple[SearchHit, ...] = ()
    for terms in _terms(query):
        hits = _newest(conn, terms, where, params, limit)
        if len(hits) == limit:
            break
    return SearchResult(hits=hits)


def _newest(
    conn: sqlite3.Connection, terms: str, where: str, params: Sequence[int], limit: int
) -> tuple[SearchHit, ...]:
    rows = conn.execute(
        f"""
        SELECT c.id, c.title, m.id, m.role, snippet(messages_fts, 0, char(2), char(3), '…', 24),
            m.created_at
        FROM messages_fts f CROSS JOIN messages m ON m.key = f.rowid
            CROSS JOIN conversations c ON c.key = m.conversation
        WHERE messages_fts MATCH ? {where} AND m.hidden IS NULL
        ORDER BY f.rowid DESC LIMIT ?
        """,
        (terms, *params, limit),
    )
    return tuple(
        SearchHit(
            conversation_id=conversation,
            title=title,
            message_id=unpack_id(message),
            role=role,
            snippet=snippet,
            created_at=created_at,
        )
        for conversation, title, message, role, snippet, created_at in rows
    )


def _terms(query: str) -> Sequence[str]:
    """What the user typed as quoted words, never as syntax; then with the last one as a
    beginning."""
    words = [
        word for word in query.replace("\0", " ").split() if any(char.isalnum() for char in word)
    ]
    if not words:
        return ()
    quoted = " ".join('"' + word.replace('"', '""') + '"' for word in words)
    return (quoted,) if len(words[-1]) < MIN_PREFIX else (quoted, quoted + "*")
