"""Opening the store's file: made, brought up to date, rescued, or read only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from ..errors import StoreUnavailable
from . import owners
from .database import BUSY_LIMIT, Database, busy, is_damage, primary_code, translated, wrong_version
from .oslock import OsLock
from .owners import Instances
from .salvage import rescue
from .schema import SCHEMA_VERSION, migrate
from .write import Write

_SQLITE_TIMEOUT = 0.1
"""Seconds that SQLite itself waits for a lock before our own bounded retry looks again."""

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


def open_file(path: Path, instance_id: str | None) -> OpenedFile:
    """Open the store at `path`; as a last resort for reading only, with the reason given."""
    try:
        return _open_writable(path, instance_id)
    except OSError as error:
        return _open_read_only(path, instance_id, error.strerror or "no access", error)
    except sqlite3.Error as error:
        if primary_code(error) not in _UNWRITABLE:
            raise translated(error) from error
        return _open_read_only(path, instance_id, str(error), error)


def _open_writable(path: Path, instance_id: str | None) -> OpenedFile:
    _make_private(path)
    lock = OsLock(path.with_name(path.name + ".lock"))
    try:
        if not lock.acquire(BUSY_LIMIT):
            raise busy()
        try:
            notice = _make_ready(path)
        finally:
            lock.release()
        return _connected(path, lock, instance_id, notice)
    except BaseException:
        lock.close()
        raise


def _make_private(path: Path) -> None:
    """The folder and the file, for nobody but their owner."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def _make_ready(path: Path) -> str | None:
    """Have a store of the current version at `path`. Returns what the user is to be told."""
    try:
        _bring_up_to_date(path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return rescue(path, partial(_bring_up_to_date, path))
    return None


def _bring_up_to_date(path: Path) -> None:
    conn = connect(path)
    try:
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise wrong_version(version)
        if version < SCHEMA_VERSION:
            # Takes effect only before the first table is made.
            conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
            conn.execute("PRAGMA journal_mode = WAL")
            migrate(conn)
        conn.execute("SELECT store_id FROM meta").fetchone()
    finally:
        conn.close()


def _connected(path: Path, lock: OsLock, instance_id: str | None, notice: str | None) -> OpenedFile:
    instances = Instances(path.with_name(path.name + ".instances"), instance_id)
    instances.join()
    try:
        wal = path.with_name(path.name + "-wal")
        writer = Database(partial(connect, path), lock=lock, wal=wal)
        writer.write(lambda conn: owners.announce(Write(conn, instances.own)))
        reader = Database(partial(connect, path, query_only=True))
    except BaseException:
        instances.leave()
        raise
    return OpenedFile(writer=writer, reader=reader, instances=instances, notice=notice)


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


def _open_read_only(
    path: Path, instance_id: str | None, reason: str, cause: Exception
) -> OpenedFile:
    if not path.is_file():
        raise StoreUnavailable(
            "The store cannot be opened.",
            hint=f"Check the folder it is to be in: {reason}.",
            retryable=False,
        ) from cause
    # `immutable` last: it works without any write access, but does not see the journal.
    for how in ("mode=ro", "immutable=1"):
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
    return lambda: sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_SQLITE_TIMEOUT
    )
