"""`doctor --repair`: a whole check of a store that nobody has open, and what follows from it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import StoreUnavailable
from . import search
from .condition import note_clean, note_open
from .database import busy, is_damage, translated
from .files import bring_up_to_date, connect, in_use, salvage
from .journal_file import move_foreign_aside
from .mounts import refuse_remote
from .oslock import OsLock
from .owners import Instances

_PATIENCE = 2.0
"""Seconds to wait for a sidecar that is just leaving."""


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and done. `problems` are SQLite's own words."""

    outcome: Literal["sound", "salvaged"]
    problems: tuple[str, ...]
    notice: str | None
    store_id: str
    messages_indexed: int


def repair(path: Path) -> Repaired:
    """Raises `StoreUnavailable` while a sidecar has the store open, and for a store that is not
    there or is of a newer version."""
    if not path.parent.is_dir():
        raise _nothing_there()
    refuse_remote(path.parent)
    lock = OsLock(path.with_name(path.name + ".lock"))
    instances = Instances(path.with_name(path.name + ".instances"))
    try:
        if not lock.acquire(_PATIENCE):
            raise busy()
        instances.join()
        if not instances.are_alone():
            raise in_use("Another sidecar has the store open.")
        note_open(lock)
        try:
            repaired = _repair(path)
        except sqlite3.Error as error:
            raise translated(error) from error
        note_clean(lock, path)
        return repaired
    finally:
        instances.leave()
        lock.close()


def _repair(path: Path) -> Repaired:
    if not (path.exists() or path.with_name(path.name + ".backup").exists()):
        raise _nothing_there()
    notices = [move_foreign_aside(path)] if path.exists() else []
    problems = _problems(path)
    if problems:
        notices.append(salvage(path).sentence())
    count, store_id = _index_anew(path)
    return Repaired(
        outcome="salvaged" if problems else "sound",
        problems=problems,
        notice=" ".join(filter(None, notices)) or None,
        store_id=store_id,
        messages_indexed=count,
    )


def _nothing_there() -> StoreUnavailable:
    return StoreUnavailable(
        "There is no store at this place.", hint="Name its file with --store.", retryable=False
    )


def _problems(path: Path) -> tuple[str, ...]:
    """What SQLite's whole check finds fault with, the first hundred."""
    if not path.exists() or path.stat().st_size == 0:
        return ("the file is empty or gone",)
    try:
        bring_up_to_date(path, is_alone=True)
        with closing(connect(path, query_only=True)) as conn:
            found = conn.execute("PRAGMA integrity_check").fetchall()
            found += [
                (f"a row of {table} points nowhere",)
                for table, *_ in conn.execute("PRAGMA foreign_key_check")
            ]
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return (str(error),)
    return tuple(text for (text,) in found if text != "ok")


def _index_anew(path: Path) -> tuple[int, str]:
    """Make the search index anew, whole; returns how many messages it has, and the store's id."""
    with closing(connect(path)) as conn:
        conn.execute("BEGIN IMMEDIATE")
        search.empty(conn)
        count = conn.execute(
            "INSERT INTO messages_fts (rowid, text) SELECT s.key, s.text FROM searchable s "
            "JOIN messages m ON m.key = s.key WHERE s.text IS NOT NULL AND m.status <> 'streaming'"
        ).rowcount
        conn.execute("DELETE FROM to_index")
        conn.execute("COMMIT")
        conn.execute("INSERT INTO messages_fts (messages_fts) VALUES ('optimize')")
        conn.execute("PRAGMA incremental_vacuum").fetchall()
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store_id: str = conn.execute("SELECT store_id FROM meta").fetchone()[0]
    return count, store_id
