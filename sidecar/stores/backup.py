"""One copy of the store beside it, made in steps while everybody goes on.

It is read back and checked before it replaces the one before, so there is always one that is
whole. Nothing that was deleted outlives the deletion in it: a deletion removes the backup in
its own transaction, and a copy that was begun before one is not kept, nor one that was made
before the deleted words had left the search index.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .database import is_damage
from .search import has_to_purge

STEP_PAGES = 128
"""Copied at a time (0.5 MiB): a step lasts about a millisecond."""
STEP_PAUSE = 0.004
RESTARTS = 3
"""Another process's commit makes SQLite begin again; after so many, one state is held fast and
copied, and emptying the journal waits for it."""


class Damaged(Exception):
    """The copy, and so the store that it is of, does not pass SQLite's check."""


class _Stopped(Exception):
    """The copy is not wanted any more."""


class _Overtaken(Exception):
    """The store changes faster than it is copied in steps."""


def backup_of(path: Path) -> Path:
    return path.with_name(path.name + ".backup")


def discard(path: Path) -> None:
    """Remove the backup, and copies that were not finished."""
    for file in (backup_of(path), *unfinished(path)):
        # Somebody is writing it, on Windows: its deletions differ from ours, it is not kept.
        with suppress(PermissionError):
            file.unlink(missing_ok=True)


def unfinished(path: Path) -> Iterator[Path]:
    yield from path.parent.glob(f"{path.name}.copy-*")


def make_copy(path: Path, instance: str, stop: threading.Event) -> Path | None:
    """A copy of the store that passed the check; None when `stop` was set meanwhile. Raises
    `Damaged`."""
    copy = path.with_name(f"{path.name}.copy-{instance}")
    try:
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        _copy(path, copy, stop)
        check(copy)
        if stop.is_set():
            raise _Stopped
    except BaseException as error:
        copy.unlink(missing_ok=True)
        if isinstance(error, _Stopped):
            return None
        raise
    return copy


def put_in_place(path: Path, copy: Path) -> bool:
    """Let the copy be the backup, unless a conversation was deleted since, or the words of one
    were still in its index. The caller holds the writer lock."""
    try:
        if _deletions(path) != _deletions(copy) or _has_to_forget(copy):
            return False
        with copy.open("r+b") as file:
            os.fsync(file.fileno())
        copy.replace(backup_of(path))
        return True
    finally:
        copy.unlink(missing_ok=True)


def check(path: Path) -> None:
    """Raise `Damaged` for a file that SQLite's check finds fault with. Nobody may write it; it
    stays as it is, byte for byte."""
    try:
        with opened(path, _as_it_is(path)) as conn:
            found = conn.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):  # somebody deleted a conversation, and this file with it
            raise
        raise Damaged from error
    if found != ("ok",):
        raise Damaged(found[0])


def _copy(path: Path, copy: Path, stop: threading.Event) -> None:
    with opened(path, "mode=ro") as source, opened(copy, "mode=rw") as target:
        # A copy that a crash leaves half made is thrown away: it needs no journal.
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        try:
            source.backup(target, pages=STEP_PAGES, progress=_Pace(stop, RESTARTS))
        except _Overtaken:
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM meta").fetchone()
            source.backup(target, pages=STEP_PAGES, progress=_Pace(stop, None))


class _Pace:
    """Called between two steps: leaves room for others, and knows when to give up."""

    def __init__(self, stop: threading.Event, restarts: int | None) -> None:
        self._stop = stop
        self._restarts = restarts
        self._left: int | None = None

    def __call__(self, status: int, left: int, total: int) -> None:
        if self._stop.wait(STEP_PAUSE):
            raise _Stopped
        if self._restarts is not None and self._left is not None and left > self._left:
            self._restarts -= 1
            if self._restarts == 0:
                raise _Overtaken
        self._left = left


def _deletions(path: Path) -> tuple[int, int]:
    with opened(path, _as_it_is(path)) as conn:
        found: tuple[int, int] = conn.execute(
            "SELECT count(*), total(change_no) FROM tombstones"
        ).fetchone()
    return found


def _has_to_forget(path: Path) -> bool:
    with opened(path, _as_it_is(path)) as conn:
        return has_to_purge(conn)


def _as_it_is(path: Path) -> str:
    """How to read a file with its journal, if it has one, and without making one."""
    return "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"


@contextmanager
def opened(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    """A connection that never makes a file; `how` in the words of SQLite's URIs."""
    uri = f"{path.absolute().as_uri()}?{how}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as conn:
        yield conn
