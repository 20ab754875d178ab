"""What a reader has missed: events brought back to their published form, or a snapshot."""

from __future__ import annotations

import sqlite3

import msgspec

from ..conversations import Message, MessageStatus, ToolCallPart, ToolResultPart
from ..events import (
    CatchUp,
    Cursor,
    DurableEvent,
    MessageCompleted,
    Missing,
    OpenPart,
    Replay,
    Snapshot,
    ToolFinished,
    ToolStarted,
    decode_event,
    utf16_length,
)
from .rows import (
    ConversationRow,
    find_conversation,
    load_message,
    pack_id,
    part_index,
    part_range,
)
from .transcript import newest


def catch_up(
    conn: sqlite3.Connection,
    store_id: str,
    conversation_id: str,
    cursor: Cursor | None,
    page_size: int,
) -> CatchUp:
    row = find_conversation(conn, conversation_id)
    if row is None:
        return Missing(conversation_id=conversation_id)
    if cursor is not None and _can_replay(row, store_id, cursor):
        return _replay(conn, row, cursor)
    page = newest(conn, row, page_size)
    streaming = _streaming(conn, row)
    return Snapshot(
        conversation_id=row.id,
        last_seq=row.last_seq,
        revision=row.revision,
        messages=page.messages,
        page_cursor=page.page_cursor,
        open_parts=() if streaming is None else _open_parts(conn, *streaming),
    )


def _can_replay(row: ConversationRow, store_id: str, cursor: Cursor) -> bool:
    return (
        cursor.store_id == store_id
        and cursor.revision == row.revision
        and row.first_seq - 1 <= cursor.seq <= row.last_seq
    )


def _replay(conn: sqlite3.Connection, row: ConversationRow, cursor: Cursor) -> Replay:
    messages = _Messages(conn)
    events = [
        messages.hydrated(
            msgspec.structs.replace(decode_event(payload), conversation_id=row.id, seq=seq, at=at)
        )
        for seq, at, payload in conn.execute(
            "SELECT seq, at, payload FROM events WHERE conversation = ? AND seq > ? ORDER BY seq",
            (row.key, cursor.seq),
        )
    ]
    streaming = _streaming(conn, row)
    return Replay(
        conversation_id=row.id,
        last_seq=row.last_seq,
        revision=row.revision,
        events=tuple(events),
        open_message=None if streaming is None else streaming[1],
        open_parts=() if streaming is None else _open_parts(conn, *streaming),
    )


class _Messages:
    """Messages that events speak of, each loaded once."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._loaded: dict[str, Message | None] = {}

    def _get(self, message_id: str) -> Message | None:
        if message_id not in self._loaded:
            found = self._conn.execute(
                "SELECT key FROM messages WHERE id = ?", (pack_id(message_id),)
            ).fetchone()
            self._loaded[message_id] = None if found is None else load_message(self._conn, *found)
        return self._loaded[message_id]

    def hydrated(self, event: DurableEvent) -> DurableEvent:
        """The event with what was left out of it when it was stored."""
        if isinstance(event, MessageCompleted):
            return msgspec.structs.replace(event, message=self._get(event.message_id))
        if isinstance(event, ToolStarted | ToolFinished):
            message = self._get(event.message_id)
            return event if message is None else _with_tool_part(event, message)
        return event


def _with_tool_part(event: ToolStarted | ToolFinished, message: Message) -> DurableEvent:
    # By the call's id: the final content of a reply may count its parts differently.
    for part in message.parts:
        if isinstance(event, ToolStarted) and isinstance(part, ToolCallPart):
            if part.tool_call_id == event.tool_call_id:
                return msgspec.structs.replace(event, arguments=part.arguments)
        elif (
            isinstance(event, ToolFinished)
            and isinstance(part, ToolResultPart)
            and part.tool_call_id == event.tool_call_id
        ):
            return msgspec.structs.replace(event, content=part.content)
    return event


def _streaming(conn: sqlite3.Connection, row: ConversationRow) -> tuple[int, Message] | None:
    """The reply being written, as far as it is stored."""
    found = conn.execute(
        "SELECT q.reply FROM queue q JOIN messages m ON m.key = q.reply "
        "WHERE q.conversation = ? AND q.state = 'running' AND m.status = ?",
        (row.key, MessageStatus.STREAMING),
    ).fetchone()
    return None if found is None else (found[0], load_message(conn, found[0]))


def _open_parts(conn: sqlite3.Connection, key: int, message: Message) -> tuple[OpenPart, ...]:
    parts = conn.execute(
        "SELECT DISTINCT part FROM chunks WHERE part >= ? AND part < ? ORDER BY part",
        part_range(key),
    )
    indexes = [part_index(part) for (part,) in parts]
    return tuple(
        OpenPart(
            message_id=message.message_id,
            part=index,
            length=utf16_length(getattr(message.parts[index], "text", "")),
        )
        for index in indexes
    )
