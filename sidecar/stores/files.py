"""Opening the store's file: made, brought up to date, rescued, or read only."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..errors import AgentError, PersistenceFailed, StoreUnavailable
from . import owners
from .backup import Damaged, backup_of, check, opened
from .condition import Condition, note_clean, note_damage, note_open, read_condition
from .database import BUSY_LIMIT, Database, busy, is_damage, primary_code, translated, wrong_version
from .journal_file import move_foreign_aside, wal_of
from .mounts import refuse_remote
from .oslock import OsLock
from .owners import Instances
from .schema import SCHEMA_VERSION, migrate
from .write import Write

if TYPE_CHECKING:
    from .salvage import Saved

_SQLITE_TIMEOUT = 0.1
"""Seconds that SQLite itself waits for a lock before our own bounded retry looks again."""

CHECKED_AT_START = 32 << 20
"""Bytes of a file changed by others that are checked before it is used (1 ms for each MiB);
a larger one is checked in the background."""

_UNWRITABLE = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
)


class OpenedFile(msgspec.Struct, frozen=True, kw_only=True):
    writer: Database | None
    reader: Database
    instances: Instances
    degraded: str | None = None
    notice: str | None = None
    unclean: bool = False
    """Whether whoever had it open last did not come to closing it."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A store of the current version is there. `notice` is what the user is to be told."""

    notice: str | None = None
    unclean: bool = False


def open_file(path: Path, instance_id: str | None) -> OpenedFile:
    """Open the store at `path`; as a last resort for reading only, with the reason given."""
    try:
        try:
            return _open_writable(path, instance_id)
        except (AgentError, sqlite3.DatabaseError) as error:
            if not _is_known_as_damaged(path, error):
                raise
            return _open_writable(path, instance_id)
    except OSError as error:
        return _open_read_only(path, instance_id, error.strerror or "no access", error)
    except PersistenceFailed as error:
        return _open_read_only(path, instance_id, error.message, error)
    except sqlite3.Error as error:
        if primary_code(error) not in _UNWRITABLE:
            raise translated(error) from error
        return _open_read_only(path, instance_id, str(error), error)


def _open_writable(path: Path, instance_id: str | None) -> OpenedFile:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_remote(path.parent)
    lock = OsLock(path.with_name(path.name + ".lock"))
    instances = Instances(path.with_name(path.name + ".instances"), instance_id)
    try:
        if not lock.acquire(BUSY_LIMIT):
            raise busy()
        try:
            # Before the store is touched: from here on nobody else moves or migrates it.
            instances.join()
            ready = _make_ready(path, lock, is_alone=instances.are_alone())
            writer = Database(partial(connect, path), lock=lock, wal=wal_of(path))
            reader = Database(partial(connect, path, query_only=True))
        finally:
            lock.release()
        writer.write(lambda conn: owners.announce(Write(conn, instances.own)))
    except BaseException:
        instances.leave()
        lock.close()
        raise
    return OpenedFile(
        writer=writer,
        reader=reader,
        instances=instances,
        notice=ready.notice,
        unclean=ready.unclean,
    )


def _is_known_as_damaged(path: Path, error: Exception) -> bool:
    """Whether it was damage that kept the store from opening. It is noted: the next one who is
    alone with the store rescues it, which may be our own second try."""
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    if not (isinstance(cause, sqlite3.Error) and is_damage(cause)):
        return False
    lock = OsLock(path.with_name(path.name + ".lock"))
    try:
        if lock.acquire(BUSY_LIMIT):
            note_damage(lock)
        return True
    finally:
        lock.close()


def _make_ready(path: Path, lock: OsLock, *, is_alone: bool) -> Ready:
    """Have a store of the current version at `path`. The caller holds the lock."""
    if not is_alone:
        bring_up_to_date(path, is_alone=False)
        return Ready()
    condition = read_condition(lock, path)
    if _has_vanished(path, condition):
        ready = Ready(notice=salvage(path).sentence())
    else:
        _make_private(path)
        notice = move_foreign_aside(path)
        try:
            if is_to_be_checked(path, condition):
                check(path)
            bring_up_to_date(path, is_alone=True)
        except (sqlite3.DatabaseError, Damaged) as error:
            if isinstance(error, sqlite3.DatabaseError) and not is_damage(error):
                raise
            notice = " ".join(filter(None, (notice, salvage(path).sentence())))
        ready = Ready(notice=notice, unclean=condition in ("unclean", "changed"))
    note_open(lock)
    return ready


def _has_vanished(path: Path, condition: Condition) -> bool:
    """Whether there is nothing where a store once was. A journal without its file is none:
    SQLite would throw it away."""
    if path.exists() and path.stat().st_size > 0:
        return False
    wal = wal_of(path)
    has_journal = wal.exists() and wal.stat().st_size > 0
    return has_journal or backup_of(path).exists() or condition != "unknown"


def is_to_be_checked(path: Path, condition: Condition) -> bool:
    """Whether damage is likely enough for a start to wait for SQLite's check of the file."""
    if condition == "damaged":
        return True
    return condition == "changed" and path.stat().st_size <= CHECKED_AT_START


def salvage(path: Path) -> Saved:
    # Imported here: it brings a lot along that a store in order never needs.
    from .salvage import rescue

    def make_new(fresh: Path) -> None:
        _make_private(fresh)
        bring_up_to_date(fresh, is_alone=True)

    return rescue(path, make_new)


def _make_private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def bring_up_to_date(path: Path, *, is_alone: bool) -> None:
    if _is_up_to_date(path):
        return
    if not is_alone:
        raise in_use("The store is of an older version and has to be brought up to date.")
    conn = connect(path)
    try:
        # Takes effect only before the first table is made.
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        migrate(conn)
    finally:
        conn.close()


def _is_up_to_date(path: Path) -> bool:
    """Read only: a connection that may write brings the journal into the file when it ends, and
    a damaged file is to be kept as it was found."""
    with opened(path, "mode=ro") as conn:
        version: int = conn.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise wrong_version(version)
        if version == SCHEMA_VERSION:
            conn.execute("SELECT store_id FROM meta").fetchone()
        return version == SCHEMA_VERSION


def in_use(message: str) -> StoreUnavailable:
    return StoreUnavailable(
        message, hint="Close the other windows that use it, then start again.", retryable=False
    )


def part(path: Path, instances: Instances, lock: OsLock) -> None:
    """Say that the store was closed in order. The last thing, with the lock held."""
    instances.leave()
    if instances.are_alone():
        note_clean(lock, path)


def connect(path: Path, *, query_only: bool = False) -> sqlite3.Connection:
    conn = sqlite3.connect(
        path,
        timeout=_SQLITE_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        conn.execute("PRAGMA secure_delete = ON")
        conn.execute("PRAGMA foreign_keys = ON")
        if query_only:
            conn.execute("PRAGMA query_only = ON")
    except BaseException:
        conn.close()
        raise
    return conn


# ---- for reading only --------------------------------------------------------------------


_ALONE = f"mode=ro&vfs={'win32' if sys.platform == 'win32' else 'unix'}-none"
_WAYS_TO_READ = ("mode=ro", _ALONE, "immutable=1")
"""With the journal's index in the file beside it; with one in memory and without any lock, where
that file cannot be made (so nobody writes); last, without what is only in the journal."""


def _open_read_only(
    path: Path, instance_id: str | None, reason: str, cause: Exception
) -> OpenedFile:
    if not path.is_file():
        raise StoreUnavailable(
            "The store cannot be opened.",
            hint=f"Check the folder it is to be in: {reason}.",
            retryable=False,
        ) from cause
    for how in _WAYS_TO_READ:
        try:
            reader = Database(_read_only_connection(path, how))
            version = reader.conn.execute("PRAGMA user_version").fetchone()[0]
            reader.conn.execute("SELECT store_id FROM meta").fetchone()
        except sqlite3.Error:
            continue
        if version != SCHEMA_VERSION:
            raise wrong_version(version)
        return OpenedFile(
            writer=None,
            reader=reader,
            instances=Instances(None, instance_id),
            degraded=f"read-only: {reason}",
        )
    raise StoreUnavailable(
        "The store cannot be opened.", hint=f"Check the file: {reason}.", retryable=False
    ) from cause


def _read_only_connection(path: Path, how: str) -> Callable[[], sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?{how}"

    def open_again() -> sqlite3.Connection:
        conn = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_SQLITE_TIMEOUT
        )
        if how == _ALONE:
            conn.execute("PRAGMA locking_mode = EXCLUSIVE")
        return conn

    return open_again
