"""The entry that runs in a conversation, and what happens when it ends."""

from __future__ import annotations

import sqlite3

import msgspec

from ..conversations import QueueState, TurnResult
from ..events import MessageCompleted, TurnEnded, UsageReported
from ..interfaces import TurnOutcome
from . import approvals, search
from .queue import store_ending
from .rows import (
    ConversationRow,
    json_text,
    load_message,
    pack_id,
    part_range,
    put_parts,
    unpack_id,
)
from .write import Write


class Running(msgspec.Struct):
    """A running queue entry together with the owner of its conversation."""

    entry: int
    message_id: bytes
    turn: bytes
    reply: int
    requested: int
    attempts: int
    generation: int
    owner: str | None
    owner_generation: int | None

    def is_turn(self, turn_id: str, instance: str) -> bool:
        """Whether it is this turn, and `instance` has owned it from its start until now."""
        return (
            self.turn == pack_id(turn_id)
            and self.owner == instance
            and self.owner_generation == self.generation
        )


def find_running(conn: sqlite3.Connection, row: ConversationRow) -> Running | None:
    found = conn.execute(
        """
        SELECT q.key, q.message_id, q.turn, q.reply, q.requested, q.attempts, q.generation,
            o.instance, o.generation
        FROM queue q LEFT JOIN owners o ON o.conversation = q.conversation
        WHERE q.conversation = ? AND q.state = 'running'
        """,
        (row.key,),
    ).fetchone()
    return None if found is None else Running(*found)


def finish(write: Write, row: ConversationRow, turn: Running, outcome: TurnOutcome) -> TurnResult:
    """Fold the reply, end the entry and store how it ended."""
    conn = write.conn
    conn.execute("DELETE FROM chunks WHERE part >= ? AND part < ?", part_range(turn.reply))
    conn.execute("DELETE FROM parts WHERE key >= ? AND key < ?", part_range(turn.reply))
    put_parts(conn, turn.reply, outcome.parts)
    conn.execute(
        "UPDATE messages SET status = ?, usage = ?, completed_at = ? WHERE key = ?",
        (outcome.status, json_text(outcome.usage), write.now, turn.reply),
    )
    (user,) = conn.execute("SELECT key FROM messages WHERE id = ?", (turn.message_id,)).fetchone()
    search.note(conn, (user, turn.reply))
    approvals.expire(write, row, turn.turn)
    store_ending(conn, turn.message_id, outcome.stop_reason, outcome.error)
    _end_entry(conn, turn, outcome.queue_state)
    return _tell(write, row, turn, outcome)


def _end_entry(conn: sqlite3.Connection, turn: Running, state: QueueState) -> None:
    """A prompt that was answered leaves the queue; any other stays, so that it can be retried."""
    if state == QueueState.DONE:
        conn.execute("DELETE FROM queue WHERE key = ?", (turn.entry,))
    else:
        conn.execute("UPDATE queue SET state = ? WHERE key = ?", (state, turn.entry))


def _tell(write: Write, row: ConversationRow, turn: Running, outcome: TurnOutcome) -> TurnResult:
    reply, turn_id = load_message(write.conn, turn.reply), unpack_id(turn.turn)
    result = TurnResult(
        message_id=unpack_id(turn.message_id),
        turn_id=turn_id,
        stop_reason=outcome.stop_reason,
        usage=outcome.usage,
        reply_id=reply.message_id,
        error=outcome.error,
    )
    write.emit(row, MessageCompleted(message_id=reply.message_id, message=reply))
    if outcome.usage is not None:
        write.emit(row, UsageReported(turn_id=turn_id, usage=outcome.usage))
    write.emit(
        row,
        TurnEnded(
            message_id=result.message_id,
            stop_reason=result.stop_reason,
            turn_id=turn_id,
            reply_id=result.reply_id,
            usage=result.usage,
            error=result.error,
        ),
    )
    return result
