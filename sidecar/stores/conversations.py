"""Conversations' own rows: made, listed, changed, deleted."""

from __future__ import annotations

import sqlite3

from ..conversations import AgentMode, Conversation, ForkedFrom
from ..errors import Conflict, InvalidState
from ..events import ModeChanged, TitleChanged
from ..interfaces import ConversationList, NewConversation
from . import checkpoints
from .rows import (
    CONVERSATION,
    ConversationRow,
    find_conversation,
    get_conversation,
    json_text,
    make_cursor,
    part_range,
    read_cursor,
)
from .search import unindex
from .write import Write

HASH_BYTES = 16
_IN_LISTS = "key NOT IN (SELECT conversation FROM helpers)"
STORE_WIDE = 0
"""Stands for a conversation in `request_keys` where there is none yet."""


def create(
    write: Write, new: NewConversation, request_key: str | None, params_hash: bytes
) -> Conversation:
    if made := made_before(write.conn, request_key, params_hash):
        return made
    row = add(write, new)
    remember(write.conn, row.id, request_key, params_hash)
    return row.value()


def made_before(
    conn: sqlite3.Connection, request_key: str | None, params_hash: bytes
) -> Conversation | None:
    """The conversation that this key already made. Raises `Conflict` for other params."""
    if request_key is None:
        return None
    known = conn.execute(
        "SELECT hash, result FROM request_keys WHERE conversation = ? AND request_key = ?",
        (STORE_WIDE, request_key),
    ).fetchone()
    if known is None:
        return None
    if known[0] != params_hash[:HASH_BYTES]:
        raise key_conflict(None)
    return get_conversation(conn, known[1]).value()


def key_conflict(conversation_id: str | None) -> Conflict:
    return Conflict(
        "This request key was used for something else.",
        conversation_id=conversation_id,
        hint="Use a new key for a new request.",
    )


def remember(
    conn: sqlite3.Connection, conversation_id: str, request_key: str | None, params_hash: bytes
) -> None:
    if request_key is not None:
        conn.execute(
            "INSERT INTO request_keys (conversation, request_key, hash, result) "
            "VALUES (?, ?, ?, ?)",
            (STORE_WIDE, request_key, params_hash[:HASH_BYTES], conversation_id),
        )


def add(
    write: Write, new: NewConversation, forked_from: ForkedFrom | None = None
) -> ConversationRow:
    if find_conversation(write.conn, new.conversation_id) is not None:
        raise Conflict(
            "A conversation with this id exists already.", conversation_id=new.conversation_id
        )
    last_seq, revision = _left_off(write.conn, new.conversation_id)
    (key,) = write.conn.execute(
        """
        INSERT INTO conversations (id, title, mode, session_id, roots, created_at, updated_at,
            forked_from, message_count, queue_length, next_ordinal, revision, change_no,
            last_seq, first_seq, event_bytes)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?, ?, ?, ?, 0) RETURNING key
        """,
        (
            new.conversation_id,
            new.title,
            new.mode,
            new.session_id,
            json_text(new.roots),
            write.now,
            write.now,
            json_text(forked_from),
            revision,
            write.change_no,
            last_seq,
            last_seq + 1,
        ),
    ).fetchone()
    if new.parent_id is not None:
        write.conn.execute("INSERT INTO helpers VALUES (?, ?)", (key, new.parent_id))
    return write.conversation_by_key(key)


def helpers(conn: sqlite3.Connection, parent_id: str) -> tuple[str, ...]:
    found = conn.execute(
        "SELECT c.id FROM helpers h JOIN conversations c ON c.key = h.conversation "
        "WHERE h.parent = ? ORDER BY c.key",
        (parent_id,),
    )
    return tuple(id_ for (id_,) in found)


def _left_off(conn: sqlite3.Connection, conversation_id: str) -> tuple[int, int]:
    """Where events and revisions go on, if a conversation of this id was deleted: what readers
    know of that one must not fit this one."""
    last_seq, revision = conn.execute(
        "SELECT max(last_seq), max(revision) + 1 FROM tombstones WHERE conversation_id = ?",
        (conversation_id,),
    ).fetchone()
    return last_seq or 0, revision or 0


def list_page(
    conn: sqlite3.Connection, cursor: str | None, archived: bool, limit: int
) -> ConversationList:
    params: list[object] = []
    before = ""
    if cursor is not None:
        before = "AND (updated_at, key) < (?, ?)"
        params.extend(read_cursor(cursor))
    rows = conn.execute(
        f"""
        SELECT {CONVERSATION} FROM conversations
        WHERE archived_at IS {"NOT" if archived else ""} NULL {before} AND {_IN_LISTS}
        ORDER BY updated_at DESC, key DESC LIMIT ?
        """,
        (*params, limit + 1),
    ).fetchall()
    found = [ConversationRow(*row) for row in rows[:limit]]
    more = found and len(rows) > limit
    return ConversationList(
        conversations=tuple(row.value() for row in found),
        deleted=(),
        change_no=change_no(conn),
        cursor=make_cursor(found[-1].updated_at, found[-1].key) if more else None,
    )


def list_changes(conn: sqlite3.Connection, since: int, limit: int) -> ConversationList:
    """What changed after `since`, oldest change first. When there is more than `limit`, the
    answer's `change_no` is that of the last row, to be asked from next; rows of one commit are
    never separated."""
    full = conn.execute(
        "SELECT change_no FROM conversations WHERE change_no > ? "
        f"AND {_IN_LISTS} ORDER BY change_no LIMIT 1 OFFSET ?",
        (since, limit - 1),
    ).fetchone()
    until = change_no(conn) if full is None else int(full[0])
    rows = [
        ConversationRow(*row)
        for row in conn.execute(
            f"SELECT {CONVERSATION} FROM conversations WHERE change_no > ? AND change_no <= ? "
            f"AND {_IN_LISTS} ORDER BY change_no",
            (since, until),
        )
    ]
    deleted = conn.execute(
        "SELECT conversation_id FROM tombstones WHERE change_no > ? AND change_no <= ?",
        (since, until),
    )
    return ConversationList(
        conversations=tuple(row.value() for row in rows),
        deleted=tuple(id for (id,) in deleted),
        change_no=until,
    )


def change_no(conn: sqlite3.Connection) -> int:
    number: int = conn.execute("SELECT change_no FROM meta").fetchone()[0]
    return number


def rename(write: Write, conversation_id: str, title: str | None) -> Conversation:
    row = write.conversation(conversation_id)
    if row.title != title:
        row.title = title
        write.emit(row, TitleChanged(title=title))
    return row.value()


def set_mode(write: Write, conversation_id: str, mode: AgentMode) -> Conversation:
    row = write.conversation(conversation_id)
    if row.mode != mode:
        row.mode = mode
        write.emit(row, ModeChanged(mode=mode))
    return row.value()


def archive(write: Write, conversation_id: str, archived: bool) -> Conversation:
    row = write.conversation(conversation_id)
    if (row.archived_at is not None) != archived:
        row.archived_at = write.now if archived else None
        write.touch(row)
    return row.value()


def delete(write: Write, conversation_id: str) -> None:
    row = write.conversation(conversation_id)
    conn = write.conn
    if conn.execute(
        "SELECT 1 FROM queue WHERE conversation = ? AND state IN ('queued', 'running') LIMIT 1",
        (row.key,),
    ).fetchone():
        raise InvalidState(
            "This conversation still has work to do.",
            conversation_id=conversation_id,
            hint="Cancel its turn and take its prompts out of the queue first.",
        )
    keys = [
        key
        for (key,) in conn.execute("SELECT key FROM messages WHERE conversation = ?", (row.key,))
    ]
    unindex(conn, keys)
    ranges = [part_range(key) for key in keys]
    conn.executemany("DELETE FROM parts WHERE key >= ? AND key < ?", ranges)
    conn.executemany("DELETE FROM chunks WHERE part >= ? AND part < ?", ranges)
    checkpoints.forget(conn, row.key)
    for table in ("approvals", "helpers", "messages", "queue", "request_keys", "events", "owners"):
        conn.execute(f"DELETE FROM {table} WHERE conversation = ?", (row.key,))
    conn.execute(
        "DELETE FROM request_keys WHERE conversation = ? AND result = ?", (STORE_WIDE, row.id)
    )
    conn.execute("DELETE FROM conversations WHERE key = ?", (row.key,))
    conn.execute(
        "INSERT INTO tombstones (change_no, conversation_id, last_seq, revision) "
        "VALUES (?, ?, ?, ?)",
        (write.change_no, row.id, row.last_seq, row.revision),
    )
