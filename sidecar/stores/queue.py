"""Prompts that wait: accepted, shown, edited, moved, taken out, tried again."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from ..conversations import (
    ContextFile,
    Prompt,
    QueueEntry,
    QueueState,
    Receipt,
    StopReason,
    TurnError,
    TurnResult,
    Usage,
)
from ..errors import InvalidState, QueueFull
from ..events import QueueChanged, TurnEnded, TurnQueued
from ..ids import new_id
from ..interfaces import KnownKey
from .conversations import HASH_BYTES, key_conflict
from .rows import (
    ENTRY,
    ConversationRow,
    entry_value,
    get_conversation,
    json_text,
    pack_id,
    to_json,
    unknown_message,
    unpack_id,
)
from .write import Write


def enqueue(
    write: Write,
    conversation_id: str,
    prompt: Prompt,
    limit: int,
    request_key: str | None,
    params_hash: bytes,
) -> Receipt:
    row = write.conversation(conversation_id)
    if known := _receipt_before(write.conn, row, request_key, params_hash):
        return known
    if row.queue_length >= limit:
        raise QueueFull(
            f"{limit} prompts are waiting in this conversation already.",
            conversation_id=conversation_id,
            hint="Wait for a turn to end, or take a prompt out of the queue.",
        )
    return _append(write, row, json_text(prompt) or "", request_key, params_hash)


def _receipt_before(
    conn: sqlite3.Connection, row: ConversationRow, request_key: str | None, params_hash: bytes
) -> Receipt | None:
    if request_key is None:
        return None
    known = conn.execute(
        "SELECT hash, message_id FROM request_keys WHERE conversation = ? AND request_key = ?",
        (row.key, request_key),
    ).fetchone()
    if known is None:
        return None
    if known[0] != params_hash[:HASH_BYTES]:
        raise key_conflict(row.id)
    return Receipt(
        message_id=unpack_id(known[1]), position=_position(conn, known[1]) or 0, duplicate=True
    )


def _append(
    write: Write, row: ConversationRow, prompt: str, request_key: str | None, params_hash: bytes
) -> Receipt:
    conn, message_id = write.conn, new_id()
    packed = pack_id(message_id)
    conn.execute(
        """
        INSERT INTO queue (message_id, conversation, position, state, prompt, request_key,
            enqueued_at)
        VALUES (?1, ?2, (SELECT coalesce(max(position), 0) + 1 FROM queue
            WHERE conversation = ?2 AND state = 'queued'), 'queued', ?3, ?4, ?5)
        """,
        (packed, row.key, prompt, request_key, write.now),
    )
    conn.execute(
        "INSERT INTO request_keys (conversation, request_key, hash, message_id) "
        "VALUES (?, ?, ?, ?)",
        (
            row.key,
            request_key,
            None if request_key is None else params_hash[:HASH_BYTES],
            packed,
        ),
    )
    row.queue_length += 1
    write.emit(row, TurnQueued(message_id=message_id, request_key=request_key))
    return Receipt(message_id=message_id, position=row.queue_length - 1)


def _position(conn: sqlite3.Connection, packed: bytes) -> int | None:
    """How many run before this entry; None when it is not waiting."""
    found = conn.execute(
        """
        SELECT (SELECT count(*) FROM queue o WHERE o.conversation = q.conversation
            AND o.state = 'queued' AND o.position < q.position)
        FROM queue q WHERE q.message_id = ? AND q.state = 'queued'
        """,
        (packed,),
    ).fetchone()
    return None if found is None else int(found[0])


# ---- how it ended ------------------------------------------------------------------------


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a result; ids and usage stand in the messages' own rows."""

    stop_reason: StopReason
    error: TurnError | None = None


_ending_from = msgspec.json.Decoder(Ending).decode


def store_ending(
    conn: sqlite3.Connection, packed: bytes, reason: StopReason, error: TurnError | None
) -> None:
    conn.execute(
        "UPDATE request_keys SET result = ? WHERE message_id = ?",
        (json_text(Ending(reason, error)), packed),
    )


def known_key(conn: sqlite3.Connection, conversation_id: str, message_id: str) -> KnownKey:
    row = get_conversation(conn, conversation_id)
    known = conn.execute(
        "SELECT result FROM request_keys WHERE message_id = ? AND conversation = ?",
        (pack_id(message_id), row.key),
    ).fetchone()
    if known is None:
        raise unknown_message(conversation_id)
    return KnownKey(message_id=message_id, result=_result(conn, message_id, known[0]))


def _result(conn: sqlite3.Connection, message_id: str, stored: str | None) -> TurnResult | None:
    if stored is None:
        return None
    ending = _ending_from(stored)
    # A reply comes right after the prompt that it answers.
    reply = conn.execute(
        """
        SELECT r.turn, r.id, r.usage FROM messages u JOIN messages r ON r.key = (
            SELECT min(n.key) FROM messages n WHERE n.conversation = u.conversation
                AND n.key > u.key)
        WHERE u.id = ? AND r.turn = u.turn
        """,
        (pack_id(message_id),),
    ).fetchone()
    turn, reply_id, usage = reply or (None, None, None)
    return TurnResult(
        message_id=message_id,
        turn_id=None if turn is None else unpack_id(turn),
        stop_reason=ending.stop_reason,
        usage=None if usage is None else msgspec.json.decode(usage, type=Usage),
        reply_id=None if reply_id is None else unpack_id(reply_id),
        error=ending.error,
    )


# ---- what waits --------------------------------------------------------------------------


def entries(conn: sqlite3.Connection, row: ConversationRow) -> Sequence[QueueEntry]:
    found: list[QueueEntry] = []
    for state in (QueueState.RUNNING, QueueState.QUEUED, QueueState.PARKED):
        rows = conn.execute(
            f"SELECT {ENTRY} FROM queue q WHERE conversation = ? AND state = ? ORDER BY position",
            (row.key, state),
        )
        found.extend(
            entry_value(row.id, entry, index if state == QueueState.QUEUED else None)
            for index, entry in enumerate(rows)
        )
    return found


class _Found(msgspec.Struct):
    key: int
    packed: bytes
    row: ConversationRow
    state: QueueState
    prompt: str


def _find(write: Write, message_id: str) -> _Found:
    """The entry of a message. Raises `NotFound`, or `InvalidState` when it is done with."""
    packed = pack_id(message_id)
    found = write.conn.execute(
        "SELECT key, conversation, state, prompt FROM queue WHERE message_id = ?", (packed,)
    ).fetchone()
    if found is None:
        known = write.conn.execute(
            "SELECT 1 FROM request_keys WHERE message_id = ?", (packed,)
        ).fetchone()
        raise unknown_message() if known is None else _not_waiting()
    key, conversation, state, prompt = found
    row = write.conversation_by_key(conversation)
    return _Found(key, packed, row, QueueState(state), prompt)


def _find_queued(write: Write, message_id: str) -> _Found:
    found = _find(write, message_id)
    if found.state != QueueState.QUEUED:
        raise _not_waiting(found.row.id)
    return found


def _not_waiting(conversation_id: str | None = None) -> InvalidState:
    return InvalidState(
        "This prompt is not waiting in the queue any more.", conversation_id=conversation_id
    )


def _entry(conn: sqlite3.Connection, found: _Found) -> QueueEntry:
    row = conn.execute(f"SELECT {ENTRY} FROM queue q WHERE key = ?", (found.key,)).fetchone()
    return entry_value(found.row.id, row, _position(conn, found.packed))


def update_entry(
    write: Write, message_id: str, text: str, files: tuple[ContextFile, ...] | None
) -> QueueEntry:
    found = _find_queued(write, message_id)
    prompt = msgspec.structs.replace(_entry(write.conn, found).prompt, input=text)
    if files is not None:
        prompt = msgspec.structs.replace(prompt, context_files=files)
    write.conn.execute(
        "UPDATE queue SET prompt = ? WHERE key = ?", (to_json(prompt).decode(), found.key)
    )
    entry = _entry(write.conn, found)
    write.emit(
        found.row, QueueChanged(message_id=message_id, state=found.state, reason=entry.reason)
    )
    return entry


def reorder(write: Write, message_id: str, position: int) -> Sequence[QueueEntry]:
    found, conn = _find_queued(write, message_id), write.conn
    keys = [
        key
        for (key,) in conn.execute(
            "SELECT key FROM queue WHERE conversation = ? AND state = 'queued' ORDER BY position",
            (found.row.key,),
        )
    ]
    before = list(keys)
    keys.remove(found.key)
    keys.insert(max(0, position), found.key)
    if keys != before:
        conn.executemany(
            "UPDATE queue SET position = ? WHERE key = ?",
            [(place, key) for place, key in enumerate(keys, 1)],
        )
        reason = _entry(conn, found).reason
        write.emit(found.row, QueueChanged(message_id=message_id, state=found.state, reason=reason))
    return entries(conn, found.row)


def hold_entries(write: Write, conversation_id: str, reason: str | None) -> None:
    row = write.conversation(conversation_id)
    held = write.conn.execute(
        "UPDATE queue SET reason = ?1 WHERE conversation = ?2 AND state = 'queued' "
        "AND reason IS NOT ?1 RETURNING position, message_id",
        (reason, row.key),
    ).fetchall()
    for _, packed in sorted(held):
        write.emit(
            row,
            QueueChanged(message_id=unpack_id(packed), state=QueueState.QUEUED, reason=reason),
        )


def cancel_entry(write: Write, message_id: str) -> TurnResult | None:
    """Take out an entry. One that has ended already is left alone and its result returned."""
    conn, packed = write.conn, pack_id(message_id)
    known = conn.execute(
        "SELECT result FROM request_keys WHERE message_id = ?", (packed,)
    ).fetchone()
    if known is not None and known[0] is not None:
        return _result(conn, message_id, known[0])
    found = _find(write, message_id)
    if found.state == QueueState.RUNNING:
        return None
    _end_unrun(write, found)
    conn.execute("UPDATE queue SET state = 'cancelled', reason = NULL WHERE key = ?", (found.key,))
    return TurnResult(message_id=message_id, stop_reason=StopReason.CANCELLED)


def _end_unrun(write: Write, found: _Found) -> None:
    """Say that an entry that does not run is cancelled."""
    message_id = unpack_id(found.packed)
    if found.state == QueueState.QUEUED:
        found.row.queue_length -= 1
    store_ending(write.conn, found.packed, StopReason.CANCELLED, None)
    write.emit(found.row, QueueChanged(message_id=message_id, state=QueueState.CANCELLED))
    write.emit(found.row, TurnEnded(message_id=message_id, stop_reason=StopReason.CANCELLED))


_RETRYABLE = (QueueState.FAILED, QueueState.CANCELLED, QueueState.INTERRUPTED, QueueState.PARKED)


def retry(write: Write, message_id: str) -> tuple[str, Receipt]:
    found = _find(write, message_id)
    if found.state not in _RETRYABLE:
        raise InvalidState("This prompt has not ended yet.", conversation_id=found.row.id)
    if found.state == QueueState.PARKED:
        _end_unrun(write, found)
    # The old row goes: one entry can be tried again once, however often it is asked for.
    write.conn.execute("DELETE FROM queue WHERE key = ?", (found.key,))
    return found.row.id, _append(write, found.row, found.prompt, None, b"")


def waiting(conn: sqlite3.Connection) -> dict[str, int]:
    return dict(
        conn.execute(
            "SELECT c.id, count(*) FROM queue q JOIN conversations c ON c.key = q.conversation "
            "WHERE q.state = 'queued' GROUP BY q.conversation"
        )
    )
