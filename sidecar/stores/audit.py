"""The audit's rows. Written in the transaction of what they tell of: both are there, or neither."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from ..audit import AuditEntry, AuditReport, chained, encode, verify
from .write import Write

_entry_from = msgspec.json.Decoder(AuditEntry).decode


def note(write: Write, entry: AuditEntry) -> None:
    conn = write.conn
    count, head = conn.execute("SELECT count, hash FROM audit_head").fetchone()
    data = encode(msgspec.structs.replace(entry, at=write.now))
    digest = chained(head, data)
    conn.execute("INSERT INTO audit VALUES (?, ?, ?)", (count + 1, data.decode(), digest))
    conn.execute("UPDATE audit_head SET count = ?, hash = ?", (count + 1, digest))


def check(conn: sqlite3.Connection) -> AuditReport:
    count, head = conn.execute("SELECT count, hash FROM audit_head").fetchone()
    return verify(conn.execute("SELECT key, entry, hash FROM audit ORDER BY key"), count, head)


def newest(
    conn: sqlite3.Connection, conversation_id: str | None, limit: int
) -> Sequence[AuditEntry]:
    """Oldest first."""
    rows = conn.execute(
        "SELECT entry FROM audit WHERE ?1 IS NULL OR json_extract(entry, '$.conversationId') = ?1 "
        "OR json_extract(entry, '$.otherId') = ?1 ORDER BY key DESC LIMIT ?2",
        (conversation_id, limit),
    )
    return [_entry_from(entry) for (entry,) in rows][::-1]
