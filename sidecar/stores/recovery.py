"""What becomes of turns whose process died."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from ..conversations import MessageStatus, QueueState, StopReason
from ..errors import Conflict
from ..events import QueueChanged, Rewound
from ..interfaces import TurnOutcome
from .owners import IsDead, claim
from .rows import ConversationRow, load_message, part_range, unpack_id
from .running import Running, find_running, finish
from .write import Write

MAX_ATTEMPTS = 3
"""A prompt that took its process down this often is not run again unasked."""


def recover(write: Write, is_dead: IsDead) -> int:
    """Settle every entry that a dead process left running; returns how many there were."""
    conversations = write.conn.execute(
        "SELECT conversation FROM queue WHERE state = 'running'"
    ).fetchall()
    return sum(
        settle_dead(write, write.conversation_by_key(key), is_dead) for (key,) in conversations
    )


def settle_dead(write: Write, row: ConversationRow, is_dead: IsDead) -> bool:
    """Settle what runs here if nobody runs it any more; False when there is nothing to settle."""
    turn = find_running(write.conn, row)
    if turn is None or _is_run(turn, is_dead):
        return False
    _settle(write, row, turn)
    return True


def _is_run(turn: Running, is_dead: IsDead) -> bool:
    """Whether who began it still owns the conversation, and lives."""
    return (
        turn.owner is not None
        and turn.owner_generation == turn.generation
        and not is_dead(turn.owner)
    )


def own_if_free(write: Write, row: ConversationRow, is_dead: IsDead) -> None:
    """Own the conversation unless another living sidecar does. What a dead one left running is
    settled first: later nobody could tell that its owner has died."""
    settle_dead(write, row, is_dead)
    with suppress(Conflict):
        claim(write, row, is_dead)


def take_over(write: Write, conversation_id: str, is_dead: IsDead, force: bool) -> None:
    """Become the owner; a turn of the former one ends here as if its process had died."""
    row = write.conversation(conversation_id)
    claim(write, row, is_dead, force=force)
    turn = find_running(write.conn, row)
    if turn is not None and turn.generation != turn.owner_generation:
        _settle(write, row, turn)
    write.touch(row)


def _settle(write: Write, row: ConversationRow, turn: Running) -> None:
    if _has_begun(write.conn, turn):
        _interrupt(write, row, turn)
    else:
        _put_back(write, row, turn)


def _has_begun(conn: sqlite3.Connection, turn: Running) -> bool:
    """Whether the turn may have had any effect."""
    if turn.requested:
        return True
    low, high = part_range(turn.reply)
    return (
        conn.execute(
            "SELECT 1 FROM chunks WHERE part >= ?1 AND part < ?2 UNION ALL "
            "SELECT 1 FROM parts WHERE key >= ?1 AND key < ?2 LIMIT 1",
            (low, high),
        ).fetchone()
        is not None
    )


def _interrupt(write: Write, row: ConversationRow, turn: Running) -> None:
    finish(
        write,
        row,
        turn,
        TurnOutcome(
            stop_reason=StopReason.INTERRUPTED,
            status=MessageStatus.INTERRUPTED,
            queue_state=QueueState.INTERRUPTED,
            parts=load_message(write.conn, turn.reply).parts,
        ),
    )


def _put_back(write: Write, row: ConversationRow, turn: Running) -> None:
    """Undo a turn that did nothing. Readers have seen its messages: they are told by `rewound`
    and a new revision that these are gone."""
    conn = write.conn
    _remove_messages(write, row, turn)
    attempts = turn.attempts + 1
    state = QueueState.QUEUED if attempts < MAX_ATTEMPTS else QueueState.PARKED
    conn.execute(
        """
        UPDATE queue SET state = ?, attempts = ?, turn = NULL, reply = NULL, generation = NULL,
            position = (SELECT coalesce(min(position), 1) - 1 FROM queue
                WHERE conversation = ? AND state = 'queued')
        WHERE key = ?
        """,
        (state, attempts, row.key, turn.entry),
    )
    if state == QueueState.QUEUED:
        row.queue_length += 1
    write.emit(row, QueueChanged(message_id=unpack_id(turn.message_id), state=state))


def _remove_messages(write: Write, row: ConversationRow, turn: Running) -> None:
    conn = write.conn
    (user,) = conn.execute("SELECT key FROM messages WHERE id = ?", (turn.message_id,)).fetchone()
    for key in (user, turn.reply):
        conn.execute("DELETE FROM parts WHERE key >= ? AND key < ?", part_range(key))
        conn.execute("DELETE FROM messages WHERE key = ?", (key,))
    last = conn.execute(
        "SELECT id FROM messages WHERE conversation = ? AND hidden IS NULL "
        "ORDER BY key DESC LIMIT 1",
        (row.key,),
    ).fetchone()
    row.message_count -= 2
    row.revision += 1
    write.emit(
        row,
        Rewound(revision=row.revision, to_message_id=None if last is None else unpack_id(last[0])),
    )
