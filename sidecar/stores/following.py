"""What other sidecars did to the conversations of this store, and asking one of them to stop."""

from __future__ import annotations

import sqlite3

from ..conversations import MessageStatus, QueueState
from ..events import Delta, OpenPart, QueueChanged
from ..interfaces import CANCEL_REQUESTED, ChangedConversation, Changes
from .conversations import change_no as newest_change
from .owners import IsDead
from .rows import get_conversation, part_index, part_key, part_range, unpack_id
from .running import find_running
from .write import Write

MOST = 200
"""Conversations told of at a time; the rest comes with the next look."""


def changed_since(conn: sqlite3.Connection, change_no: int, own: str) -> Changes:
    """Conversations that changed after `change_no`, oldest change first."""
    full = conn.execute(
        "SELECT change_no FROM conversations WHERE change_no > ? "
        "ORDER BY change_no LIMIT 1 OFFSET ?",
        (change_no, MOST - 1),
    ).fetchone()
    # Rows of one commit are never separated.
    until = newest_change(conn) if full is None else int(full[0])
    rows = conn.execute(
        """
        SELECT c.id, c.last_seq, c.revision, c.queue_length, o.instance
        FROM conversations c LEFT JOIN owners o ON o.conversation = c.key
        WHERE c.change_no > ? AND c.change_no <= ? ORDER BY c.change_no
        """,
        (change_no, until),
    )
    conversations = tuple(
        ChangedConversation(
            conversation_id=id,
            last_seq=last_seq,
            revision=revision,
            queue_length=queue_length,
            owned_here=owner == own,
            owned_elsewhere=owner not in (None, own),
        )
        for id, last_seq, revision, queue_length, owner in rows
    )
    deleted = conn.execute(
        "SELECT conversation_id FROM tombstones WHERE change_no > ? AND change_no <= ?",
        (change_no, until),
    )
    return Changes(
        change_no=until, conversations=conversations, deleted=tuple(id for (id,) in deleted)
    )


def streamed_after(
    conn: sqlite3.Connection, conversation_id: str, known: OpenPart | None
) -> tuple[Delta, ...]:
    """The stored text of the running reply beyond `known`, in order; all of it when `known`
    belongs to another message."""
    row = get_conversation(conn, conversation_id)
    found = conn.execute(
        "SELECT m.key, m.id FROM queue q JOIN messages m ON m.key = q.reply "
        "WHERE q.conversation = ? AND q.state = 'running' AND m.status = ?",
        (row.key, MessageStatus.STREAMING),
    ).fetchone()
    if found is None:
        return ()
    reply, message_id = found[0], unpack_id(found[1])
    low, high = part_range(reply)
    offset = 0
    if known is not None and known.message_id == message_id:
        low, offset = part_key(reply, known.part), known.length
    chunks = conn.execute(
        "SELECT part, offset, kind, text FROM chunks "
        "WHERE part >= ?1 AND part < ?2 AND (part > ?1 OR offset >= ?3) ORDER BY part, offset",
        (low, high, offset),
    )
    return tuple(
        Delta(
            conversation_id=conversation_id,
            seq=row.last_seq,
            message_id=message_id,
            part=part_index(part),
            kind=kind,
            offset=offset,
            text=text,
        )
        for part, offset, kind, text in chunks
    )


def request_cancel(write: Write, conversation_id: str, of: str | None) -> str | None:
    """Ask whoever runs a turn here (that of the prompt `of`) to cancel it. Returns its prompt's
    id, None without one."""
    row = write.conversation(conversation_id)
    turn = find_running(write.conn, row)
    if turn is None:
        return None
    message_id = unpack_id(turn.message_id)
    if of not in (None, message_id):
        return None
    write.emit(
        row,
        QueueChanged(message_id=message_id, state=QueueState.RUNNING, reason=CANCEL_REQUESTED),
    )
    return message_id


def release(write: Write, conversation_id: str) -> None:
    """Own the conversation no longer, unless something waits or runs in it."""
    row = write.conversation(conversation_id)
    write.conn.execute(
        """
        DELETE FROM owners WHERE conversation = ?1 AND instance = ?2 AND NOT EXISTS (
            SELECT 1 FROM queue WHERE conversation = ?1 AND state IN ('queued', 'running'))
        """,
        (row.key, write.instance),
    )


def hand_over(write: Write) -> None:
    """Own nothing any more but what has a turn running. What waits there is left to whichever
    window takes it up."""
    write.conn.execute(
        """
        DELETE FROM owners WHERE instance = ? AND NOT EXISTS (
            SELECT 1 FROM queue q
            WHERE q.conversation = owners.conversation AND q.state = 'running')
        """,
        (write.instance,),
    )


def orphaned(conn: sqlite3.Connection, is_dead: IsDead) -> tuple[str, ...]:
    """Conversations with something queued or running and nobody alive who owns them."""
    rows = conn.execute(
        """
        SELECT DISTINCT c.id, o.instance FROM queue q
        JOIN conversations c ON c.key = q.conversation
        LEFT JOIN owners o ON o.conversation = q.conversation
        WHERE q.state IN ('queued', 'running')
        """
    ).fetchall()
    owners = {owner for _, owner in rows}
    dead = {owner for owner in owners if owner is None or is_dead(owner)}
    return tuple(id for id, owner in rows if owner in dead)
