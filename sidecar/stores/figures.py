"""The store in numbers, for `sidecar/status`."""

from __future__ import annotations

import sqlite3

from ..interfaces import StoreStatus
from .schema import SCHEMA_VERSION, read_store_id


def figures(
    conn: sqlite3.Connection, path: str | None, wal_size: int, degraded: str | None
) -> StoreStatus:
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    (page_size,) = conn.execute("PRAGMA page_size").fetchone()
    count, messages, queued = conn.execute(
        "SELECT count(*), total(message_count), total(queue_length) FROM conversations"
    ).fetchone()
    return StoreStatus(
        store_id=read_store_id(conn),
        schema_version=SCHEMA_VERSION,
        sqlite_version=sqlite3.sqlite_version,
        path=path,
        size=pages * page_size,
        wal_size=wal_size,
        conversations=count,
        messages=int(messages),
        queued=int(queued),
        degraded=degraded,
    )
