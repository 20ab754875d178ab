"""The store for tests and for sessions that shall leave nothing behind."""

from __future__ import annotations

import sqlite3

from ..interfaces import Publish
from .database import Database
from .lane import InlineLane
from .opened import Opened
from .owners import Instances
from .schema import create, read_store_id
from .sql import SqlStore


class MemoryStore(SqlStore):
    """The same SQL in memory, done at once on the event loop."""

    @classmethod
    async def open(cls, publish: Publish) -> MemoryStore:
        return cls(open_in_memory(), publish)


def open_in_memory(instance_id: str | None = None) -> Opened:
    database, lane = Database(_connect), InlineLane()
    return Opened(
        writer=database,
        write_lane=lane,
        reader=database,
        read_lane=lane,
        instances=Instances(None, instance_id),
        store_id=database.read(read_store_id),
        path=None,
    )


def _connect() -> sqlite3.Connection:
    conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    conn.execute("PRAGMA foreign_keys = ON")
    create(conn)
    return conn
