"""Reading messages by pages, hiding them, and copying them into other conversations."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from ..conversations import (
    Conversation,
    ForkedFrom,
    Message,
    MessageStatus,
    Page,
)
from ..errors import Conflict, InvalidState
from ..events import Rewound
from ..ids import new_id
from ..interfaces import ConversationExport, NewConversation
from . import search
from .conversations import add, made_before, remember
from .rows import (
    ConversationRow,
    get_conversation,
    json_text,
    load_messages,
    make_cursor,
    pack_id,
    put_parts,
    read_cursor,
    unknown_message,
    unpack_id,
)
from .write import Write

_VISIBLE = "SELECT * FROM messages WHERE conversation = ? AND hidden IS NULL"


def page(conn: sqlite3.Connection, conversation_id: str, cursor: str | None, limit: int) -> Page:
    row = get_conversation(conn, conversation_id)
    before = None
    if cursor is not None:
        revision, before = read_cursor(cursor)
        if revision != row.revision:
            raise Conflict(
                "The conversation has been rewound since this page was read.",
                conversation_id=conversation_id,
                hint="Start again from the newest page.",
            )
    return newest(conn, row, limit, before)


def newest(
    conn: sqlite3.Connection, row: ConversationRow, limit: int, before: int | None = None
) -> Page:
    bound = "" if before is None else "AND key < ?"
    params = (row.key,) if before is None else (row.key, before)
    found = load_messages(
        conn, f"{_VISIBLE} {bound} ORDER BY key DESC LIMIT ?", (*params, limit + 1)
    )
    more = len(found) > limit
    kept = found[1:] if more else found
    return Page(
        messages=tuple(message for _, message in kept),
        revision=row.revision,
        page_cursor=make_cursor(row.revision, kept[0][0]) if more and kept else None,
    )


def following(
    conn: sqlite3.Connection, conversation_id: str, after: int, limit: int
) -> tuple[int, list[tuple[int, Message]]]:
    """The revision, and up to `limit` visible messages after the one with key `after`."""
    row = get_conversation(conn, conversation_id)
    return row.revision, load_messages(
        conn, f"{_VISIBLE} AND key > ? ORDER BY key LIMIT ?", (row.key, after, limit)
    )


def to_hide(
    conn: sqlite3.Connection, conversation_id: str, to_message_id: str | None
) -> tuple[str, ...]:
    """The messages that a rewind would hide."""
    row = get_conversation(conn, conversation_id)
    return _ids_after(conn, row, last_kept(conn, row, to_message_id))


def rewind(write: Write, conversation_id: str, to_message_id: str | None) -> tuple[str, ...]:
    row, conn = write.conversation(conversation_id), write.conn
    after = last_kept(conn, row, to_message_id)
    _refuse_while_running(conn, row)
    ids = _ids_after(conn, row, after)
    if ids:
        row.revision += 1
        row.message_count -= len(ids)
        conn.execute(
            "UPDATE messages SET hidden = ? WHERE conversation = ? AND hidden IS NULL AND key > ?",
            (row.revision, row.key, after),
        )
        write.emit(row, Rewound(revision=row.revision, to_message_id=to_message_id))
    return ids


def last_kept(conn: sqlite3.Connection, row: ConversationRow, to_message_id: str | None) -> int:
    return -1 if to_message_id is None else visible_key(conn, row, to_message_id)


def _ids_after(conn: sqlite3.Connection, row: ConversationRow, after: int) -> tuple[str, ...]:
    found = conn.execute(
        "SELECT id FROM messages WHERE conversation = ? AND hidden IS NULL AND key > ? "
        "ORDER BY key",
        (row.key, after),
    )
    return tuple(unpack_id(packed) for (packed,) in found)


def visible_key(conn: sqlite3.Connection, row: ConversationRow, message_id: str) -> int:
    found = conn.execute(
        "SELECT key FROM messages WHERE id = ? AND conversation = ? AND hidden IS NULL",
        (pack_id(message_id), row.key),
    ).fetchone()
    if found is None:
        raise unknown_message(row.id)
    return int(found[0])


def _refuse_while_running(conn: sqlite3.Connection, row: ConversationRow) -> None:
    if conn.execute(
        "SELECT 1 FROM queue WHERE conversation = ? AND state = 'running'", (row.key,)
    ).fetchone():
        raise InvalidState(
            "A turn is running in this conversation.",
            conversation_id=row.id,
            hint="Cancel it first.",
        )


# ---- copies ------------------------------------------------------------------------------


def fork(
    write: Write,
    conversation_id: str,
    new: NewConversation,
    to_message_id: str | None,
    request_key: str | None,
    params_hash: bytes,
) -> Conversation:
    conn = write.conn
    if made := made_before(conn, request_key, params_hash):
        return made
    source = write.conversation(conversation_id)
    last = None if to_message_id is None else visible_key(conn, source, to_message_id)
    bound = "" if last is None else "AND key <= ?"
    found = load_messages(
        conn,
        f"{_VISIBLE} {bound} ORDER BY key",
        (source.key,) if last is None else (source.key, last),
    )
    if new.title is None and source.title is not None:
        new = msgspec.structs.replace(new, title=source.title)
    row = add(write, new, ForkedFrom(conversation_id=conversation_id, message_id=to_message_id))
    finished = [m for _, m in found if m.status != MessageStatus.STREAMING]
    copy_messages(write, row, finished)
    remember(conn, row.id, request_key, params_hash)
    return row.value()


def import_(
    write: Write,
    export: ConversationExport,
    new: NewConversation,
    request_key: str | None,
    params_hash: bytes,
) -> Conversation:
    if made := made_before(write.conn, request_key, params_hash):
        return made
    if new.title is None and export.conversation.title is not None:
        new = msgspec.structs.replace(new, title=export.conversation.title)
    row = add(write, new, export.conversation.forked_from)
    copy_messages(write, row, export.messages)
    remember(write.conn, row.id, request_key, params_hash)
    return row.value()


def copy_messages(write: Write, row: ConversationRow, messages: Sequence[Message]) -> None:
    """Append messages under new ids. One that was still being written counts as interrupted."""
    turns: dict[str, bytes] = {}
    for message in messages:
        turn = message.turn_id
        if turn is not None and turn not in turns:
            turns[turn] = pack_id(new_id())
        status = message.status
        if status == MessageStatus.STREAMING:
            status = MessageStatus.INTERRUPTED
        key = add_message(
            write,
            row,
            pack_id(new_id()),
            role=message.role,
            status=status,
            turn=None if turn is None else turns[turn],
            usage=json_text(message.usage),
            created_at=message.created_at,
            completed_at=message.completed_at,
        )
        put_parts(write.conn, key, message.parts)
        search.note(write.conn, [key])
    write.touch(row)


def add_message(
    write: Write,
    row: ConversationRow,
    packed_id: bytes,
    *,
    role: str,
    status: MessageStatus,
    turn: bytes | None,
    usage: str | None = None,
    created_at: int,
    completed_at: int | None,
) -> int:
    (key,) = write.conn.execute(
        "INSERT INTO messages (conversation, ordinal, id, role, status, turn, usage, created_at, "
        "completed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING key",
        (row.key, row.next_ordinal, packed_id, role, status, turn, usage, created_at, completed_at),
    ).fetchone()
    row.next_ordinal += 1
    row.message_count += 1
    return int(key)
