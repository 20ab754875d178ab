"""A lock on a file that the operating system gives back when its holder dies.

It says who is alive and who may write, without clocks or process ids. `filelock` does the same
with more checks, but costs 83 µs for a pair of calls (this: about 2) and 40 ms to import.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_FIRST_WAIT = 0.0005
_LONGEST_WAIT = 0.01
"""Seconds between two looks; writers hold the lock for a millisecond or so."""
_NOTE_BYTES = 256

if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    _is_held_by_none = _try_lock

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_held_by_none(fd: int) -> bool:
        # Shared: two that look at the same time do not take each other for the holder.
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


class OsLock:
    """Exclusive among all openers of `path`, other objects of this process included."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def try_acquire(self) -> bool:
        return _try_lock(self._fd)

    def acquire(self, timeout: float) -> bool:
        """False when somebody else held it for `timeout` seconds."""
        if _try_lock(self._fd):
            return True
        deadline = time.monotonic() + timeout
        wait = _FIRST_WAIT
        while time.monotonic() < deadline:
            time.sleep(wait)
            if _try_lock(self._fd):
                return True
            wait = min(wait * 1.5, _LONGEST_WAIT)
        return False

    def release(self) -> None:
        _unlock(self._fd)

    def read_note(self) -> str:
        """What its holder left for the next one."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        return os.read(self._fd, _NOTE_BYTES).decode(errors="replace")

    def write_note(self, note: str) -> None:
        """Only for its holder, and only a line: nothing here is flushed to the disk."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.write(self._fd, note.encode())

    def close(self) -> None:
        """Release and forget. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock on `path`; a file that is not there is held by nobody."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return _is_held_by_none(fd)
    finally:
        os.close(fd)
