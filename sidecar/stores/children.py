"""The child processes of all sidecars of this store, for who comes after one that was killed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ..processes import ChildRecord
from .owners import IsDead
from .write import Write


def started(write: Write, child: ChildRecord) -> None:
    write.conn.execute(
        "INSERT OR REPLACE INTO children VALUES (?, ?, ?, ?)",
        (child.pid, child.began, write.instance, child.kind),
    )


def ended(write: Write, child: ChildRecord) -> None:
    write.conn.execute("DELETE FROM children WHERE pid = ? AND began = ?", (child.pid, child.began))


def orphans(conn: sqlite3.Connection, is_dead: IsDead) -> tuple[ChildRecord, ...]:
    """The children of sidecars that are dead."""
    rows = conn.execute("SELECT pid, began, kind, instance FROM children").fetchall()
    dead = {instance for instance in {row[3] for row in rows} if is_dead(instance)}
    return tuple(ChildRecord(*row[:3]) for row in rows if row[3] in dead)


def forget(write: Write, children: Sequence[ChildRecord]) -> None:
    for child in children:
        ended(write, child)
