"""The audit's rows. Written in the transaction of what they tell of: both are there, or neither."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from ..audit import GENESIS, AuditEntry, AuditReport, chained, encode, verify
from .write import Write

_entry_from = msgspec.json.Decoder(AuditEntry).decode


def note(write: Write, entry: AuditEntry) -> None:
    """A record that was tampered with goes on as it is: nobody is kept from acting by that, and
    `check` finds the place."""
    conn = write.conn
    last = conn.execute("SELECT key, hash FROM audit ORDER BY key DESC LIMIT 1").fetchone()
    known = _head(conn)
    number = 1 + (last[0] if last else 0)
    before = known[1] if known else last[1] if last else GENESIS
    data = encode(msgspec.structs.replace(entry, at=write.now))
    digest = chained(before, data)
    conn.execute("INSERT INTO audit VALUES (?, ?, ?)", (number, data.decode(), digest))
    conn.execute("UPDATE audit_head SET count = count + 1, hash = ?", (digest,))


def check(conn: sqlite3.Connection) -> AuditReport:
    rows = conn.execute("SELECT key, entry, hash FROM audit ORDER BY key")
    return verify(rows, _head(conn))


def allowed(conn: sqlite3.Connection, conversation_id: str, content_hash: str) -> bool:
    """Whether the user said yes to exactly this there."""
    found = conn.execute(
        "SELECT 1 FROM audit WHERE json_extract(entry, '$.conversationId') = ? "
        "AND json_extract(entry, '$.contentHash') = ? AND json_extract(entry, '$.action') = 'tool' "
        "AND json_extract(entry, '$.why') = 'approval' AND json_extract(entry, '$.allowed') "
        "LIMIT 1",
        (conversation_id, content_hash),
    )
    return found.fetchone() is not None


def _head(conn: sqlite3.Connection) -> tuple[int, bytes] | None:
    """How many there are and the last one's hash; None if that was taken away."""
    head: tuple[int, bytes] | None = conn.execute("SELECT count, hash FROM audit_head").fetchone()
    return head


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
