"""One connection to the file, its transactions, and what SQLite's errors mean to us."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from ..errors import AgentError, LoadFailed, PersistenceFailed, StoreUnavailable
from .oslock import OsLock
from .schema import SCHEMA_VERSION

T = TypeVar("T")

BUSY_LIMIT = 60.0
"""Seconds that a write waits for other writers before it is refused, counted from when it was
asked for: many that wait behind one another are refused together."""
TELL_AFTER = 2.0
"""Seconds that a write waits before the user is told so; busy windows wait for less."""
PARTING_LIMIT = 1.0
CHECKPOINT_BYTES = 4 << 20
_COMMITS_PER_LOOK = 64
"""How many commits pass before the journal's size is looked at again."""
_VACUUM_STEP = 256
"""Pages given back at a time; bounds how long other writers wait."""

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
NEXT_STEP = (
    "Close every window that uses it and start again, or run `agent-sidecar doctor --repair`: "
    "what can be read is saved then, and the damaged file kept."
)
_SCHEMA_DAMAGE = (
    "no such table",
    "no such column",
    "malformed database schema",
    "unsupported file format",
    "vtable constructor failed",
)
"""What SQLite calls plain errors: with statements that never change, the file has."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    code = primary_code(error)
    return code in _DAMAGE or (
        code == sqlite3.SQLITE_ERROR and str(error).startswith(_SCHEMA_DAMAGE)
    )


def is_index_damage(error: sqlite3.Error) -> bool:
    """Only the search index is meant, which can be made anew."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code == sqlite3.SQLITE_CORRUPT_VTAB or str(error).startswith("vtable constructor failed")


def translated(error: sqlite3.Error) -> AgentError:
    """What a client is told. SQLite's own text may name files and stays in the cause."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return disk_full()
    if code == sqlite3.SQLITE_READONLY:
        return StoreUnavailable(
            "The store cannot be written.", hint="Check the permissions of its folder."
        )
    if code in _BUSY:
        return busy()
    if is_damage(error):
        return StoreUnavailable("The store is damaged.", hint=NEXT_STEP, retryable=False)
    return failed()


def unreachable(error: OSError) -> AgentError:
    """The same for a file beside the store: a lock, the backup."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full()
    return failed()


def failed() -> PersistenceFailed:
    return PersistenceFailed(
        "The store could not be read or written.",
        hint="The log has the cause. If it stays so, run `agent-sidecar doctor --repair`.",
    )


def disk_full() -> PersistenceFailed:
    return PersistenceFailed("The disk is full.", hint="Free some space, then try again.")


class _Garbled(Exception):
    """Text was met that is no UTF-8; reading again puts up with it."""


def busy() -> StoreUnavailable:
    return StoreUnavailable(
        "Another program holds the store.", hint="Close other programs that use it."
    )


class Database:
    """A connection and the lock under which it writes; used by one thread at a time.

    `connect` is called again after an I/O error: such a connection is not to be trusted.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        lock: OsLock | None = None,
        wal: Path | None = None,
    ) -> None:
        self._connect = connect
        self.conn = connect()
        self._lock = lock
        self._wal = wal
        self._commits = 0
        self._broken = False
        self._is_tolerant = False
        self.bytes_written = 0
        """Into the file, by checkpoints of this process."""
        self.on_held: Callable[[bool], None] = lambda _: None
        """Hears that somebody keeps us from writing, and that nobody does any more."""
        self._is_held = False

    def close(self, last: Callable[[OsLock], None] | None = None) -> None:
        """`last` is done with the store closed, while nobody else can write to it."""
        self.conn.close()
        if self._lock is not None:
            if last is not None and self._lock.acquire(PARTING_LIMIT):
                last(self._lock)
            self._lock.close()

    def while_locked(self, work: Callable[[OsLock | None], T]) -> T:
        """Do `work`, no transaction of ours, while no sidecar writes."""
        with self._translating(), self._holding(patience()):
            self._tell_held(False)
            return work(self._lock)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` on one state of the store; again if text in it turned out to be garbled."""
        try:
            return self._read(work)
        except _Garbled:
            return self._read(work)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._mend()
            self.conn.execute("BEGIN")
            return work(self.conn)
        except sqlite3.Error as error:
            if self._puts_up_with(error):
                raise _Garbled from error
            self._raise(error)
        except (ValueError, msgspec.MsgspecError) as error:
            # A flipped bit that SQLite cannot know of: a state or a JSON text that is none.
            raise LoadFailed("Something in the store is garbled and cannot be read.") from error
        except OSError as error:
            raise unreachable(error) from error
        finally:
            self._rollback()

    def data_version(self) -> int:
        """A number that changes when any other connection has committed (6 µs to ask)."""
        with self._translating():
            self._mend()
            version: int = self.conn.execute("PRAGMA data_version").fetchone()[0]
        return version

    def write(self, work: Callable[[sqlite3.Connection], T], *, until: float | None = None) -> T:
        """Do `work` and commit it, or raise and leave no trace. Nothing changed, nothing
        committed: a question costs no flush of the disk. Waits for others `until` then."""
        until = patience() if until is None else until
        with self._translating(), self._holding(until), self._rolling_back():
            self._mend()
            self._begin(until)
            changes = self.conn.total_changes
            result = work(self.conn)
            if self.conn.total_changes != changes:
                # A new number, because SQLite does not write what stays as it was; see `schema`.
                self.conn.execute("UPDATE meta SET commits = commits + 1")
                self.conn.execute("COMMIT")
                self._commits += 1
            return result

    @contextmanager
    def _holding(self, until: float) -> Iterator[None]:
        """Keep the lock meanwhile; every other sidecar waits."""
        if self._lock is None:
            yield
            return
        if not self._lock.acquire(min(TELL_AFTER, _left(until))):
            self._tell_held(True)
            if not self._lock.acquire(_left(until)):
                raise busy()
        try:
            yield
        finally:
            self._lock.release()

    def _begin(self, until: float) -> None:
        """Sidecars queue at the lock; what is waited for here is a foreign program."""
        began = time.monotonic()
        while True:
            try:
                self.conn.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                if primary_code(error) not in _BUSY or time.monotonic() > until:
                    raise
                if time.monotonic() - began > TELL_AFTER:
                    self._tell_held(True)
        self._tell_held(False)
        check_version(self.conn)

    def _tell_held(self, is_held: bool) -> None:
        if self._is_held != is_held:
            self._is_held = is_held
            self.on_held(is_held)

    @contextmanager
    def _rolling_back(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._rollback()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._raise(error)
        except OSError as error:
            raise unreachable(error) from error

    def _rollback(self) -> None:
        # A connection that cannot even do this is replaced before the next transaction.
        with suppress(sqlite3.Error):
            if self.conn.in_transaction:
                self.conn.execute("ROLLBACK")

    def _raise(self, error: sqlite3.Error) -> NoReturn:
        self._broken |= primary_code(error) == sqlite3.SQLITE_IOERR
        self._puts_up_with(error)
        raise translated(error) from error

    def _puts_up_with(self, error: sqlite3.Error) -> bool:
        """Whether it was text that is no UTF-8: one character must not cost a conversation. The
        connection replaces such characters from now on, and is slower for it."""
        if not str(error).startswith("Could not decode to UTF-8") or self._is_tolerant:
            return False
        self._is_tolerant = True
        self.conn.text_factory = lambda data: data.decode("utf-8", errors="replace")
        return True

    def _mend(self) -> None:
        """Replace a connection that had an I/O error."""
        if self._broken:
            self.conn.close()
            self.conn = self._connect()
            self._broken = self._is_tolerant = False

    # ---- keeping the files small ----

    def checkpoint_is_due(self) -> bool:
        if self._wal is None or self._commits < _COMMITS_PER_LOOK:
            return False
        self._commits = 0
        return self.wal_size() > CHECKPOINT_BYTES

    def wal_size(self) -> int:
        try:
            return 0 if self._wal is None else self._wal.stat().st_size
        except OSError:
            return 0

    def checkpoint(self) -> bool:
        """Bring the journal into the file and empty it; False when a reader is in the way."""
        size = self.wal_size()
        busy: int = self._maintain("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]
        self.bytes_written += size
        return not busy

    def give_back_some(self) -> bool:
        """Return unused pages to the file system; False when there are none left to return:
        a database in memory keeps its own."""
        if not (before := self._free_pages()):
            return False

        def vacuum(conn: sqlite3.Connection) -> None:
            # Marks the journal as ours, like every other transaction: it may hold nothing else.
            conn.execute("UPDATE meta SET commits = commits + 1")
            conn.execute(f"PRAGMA incremental_vacuum({_VACUUM_STEP})").fetchall()

        self.write(vacuum)
        return 0 < self._free_pages() < before

    def _free_pages(self) -> int:
        return self._maintain("PRAGMA freelist_count")[0][0]

    def _maintain(self, statement: str) -> Sequence[tuple[int, ...]]:
        with self._translating(), self._holding(patience()):
            self._tell_held(False)
            self._mend()
            return self.conn.execute(statement).fetchall()


def patience() -> float:
    """Until when somebody waits who asks now."""
    return time.monotonic() + BUSY_LIMIT


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def check_version(conn: sqlite3.Connection) -> None:
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise wrong_version(version)


def wrong_version(version: int) -> StoreUnavailable:
    return StoreUnavailable(
        f"The store has version {version}, this program reads version {SCHEMA_VERSION}.",
        hint="Update agent-sidecar, or restart this one if it has been updated.",
        retryable=False,
    )
