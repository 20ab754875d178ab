"""One write transaction: the rows it touches and the events it makes true."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

import msgspec

from ..events import (
    DurableEvent,
    MessageCompleted,
    ToolFinished,
    ToolStarted,
    encode_event,
)
from ..ids import now_ms
from .rows import CONVERSATION, ConversationRow, get_conversation, unknown_conversation

KEPT_EVENTS = 1_000
KEPT_BYTES = 1 << 20
"""A reader that is further behind gets a snapshot."""

_ROW_COST = 24
"""About what an event's row costs beside its payload."""

_WRITE_BACK = """
    UPDATE conversations SET title = ?, mode = ?, updated_at = ?, archived_at = ?,
        message_count = ?, queue_length = ?, next_ordinal = ?, revision = ?, change_no = ?,
        last_seq = ?, first_seq = ?, event_bytes = ?
    WHERE key = ?
"""


@dataclass
class Write:
    """What the functions of this room get to work with inside a write transaction."""

    conn: sqlite3.Connection
    instance: str
    """Who writes, as an owner of conversations."""
    now: int = field(default_factory=now_ms)
    events: list[DurableEvent] = field(default_factory=list)
    _rows: dict[int, ConversationRow] = field(default_factory=dict)
    _change_no: int | None = None

    @property
    def change_no(self) -> int:
        """This commit's number in the store-wide count of changes."""
        if self._change_no is None:
            (self._change_no,) = self.conn.execute(
                "UPDATE meta SET change_no = change_no + 1 RETURNING change_no"
            ).fetchone()
        return self._change_no

    @property
    def has_changed(self) -> bool:
        """Whether this commit changes anything that a list of conversations shows."""
        return self._change_no is not None

    def conversation(self, conversation_id: str) -> ConversationRow:
        row = get_conversation(self.conn, conversation_id)
        return self._rows.get(row.key, row)

    def conversation_by_key(self, key: int) -> ConversationRow:
        if known := self._rows.get(key):
            return known
        row = self.conn.execute(
            f"SELECT {CONVERSATION} FROM conversations WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            raise unknown_conversation("")
        return ConversationRow(*row)

    def touch(self, row: ConversationRow) -> None:
        """Have `row` written back, stamped with this commit's change number."""
        row.change_no = self.change_no
        self._rows[row.key] = row

    def emit(self, row: ConversationRow, event: DurableEvent) -> None:
        """Store an event under the next seq and have it published after the commit."""
        row.last_seq += 1
        row.updated_at = self.now
        payload = encode_event(_stored_form(event))
        self.conn.execute(
            "INSERT INTO events (conversation, seq, at, payload) VALUES (?, ?, ?, ?)",
            (row.key, row.last_seq, self.now, payload),
        )
        row.event_bytes += len(payload) + _ROW_COST
        self.events.append(
            msgspec.structs.replace(event, conversation_id=row.id, seq=row.last_seq, at=self.now)
        )
        self.touch(row)

    def finish(self) -> None:
        """Write back the touched rows: the last thing before the commit."""
        for row in self._rows.values():
            trim_events(self.conn, row)
            self.conn.execute(
                _WRITE_BACK,
                (
                    row.title,
                    row.mode,
                    row.updated_at,
                    row.archived_at,
                    row.message_count,
                    row.queue_length,
                    row.next_ordinal,
                    row.revision,
                    row.change_no,
                    row.last_seq,
                    row.first_seq,
                    row.event_bytes,
                    row.key,
                ),
            )


def _stored_form(event: DurableEvent) -> DurableEvent:
    """An event without what stands in its message's own rows; `reading.hydrated` undoes it."""
    if isinstance(event, MessageCompleted):
        return msgspec.structs.replace(event, message=None)
    if isinstance(event, ToolStarted):
        return msgspec.structs.replace(event, arguments={})
    if isinstance(event, ToolFinished):
        return msgspec.structs.replace(event, content="")
    return event


def trim_events(conn: sqlite3.Connection, row: ConversationRow) -> None:
    """Forget the oldest events beyond the budget."""
    first, freed = row.first_seq, 0
    excess = row.last_seq - first + 1 - KEPT_EVENTS
    if excess <= 0 and row.event_bytes <= KEPT_BYTES:
        return
    for seq, size in conn.execute(
        "SELECT seq, length(payload) FROM events WHERE conversation = ? ORDER BY seq", (row.key,)
    ):
        if excess <= 0 and row.event_bytes - freed <= KEPT_BYTES:
            break
        first, freed, excess = seq + 1, freed + size + _ROW_COST, excess - 1
    conn.execute("DELETE FROM events WHERE conversation = ? AND seq < ?", (row.key, first))
    row.first_seq = first
    row.event_bytes -= freed
