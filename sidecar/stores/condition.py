"""What state the last sidecar left the store in: a line in the lock file.

It is written without a flush: what a power cut takes away only makes the next start more
careful, never less.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from .oslock import OsLock

Condition = Literal["unknown", "clean", "unclean", "changed", "damaged"]
"""`clean`: as the last sidecar left it. `unclean`: it never came to leaving. `changed`: somebody
else has been at the file since. `damaged`: a sidecar has met damage."""

_OPEN, _DAMAGED = "open", "damaged"


def read_condition(lock: OsLock, path: Path) -> Condition:
    """The caller holds the lock and is alone."""
    note = lock.read_note()
    if note == _DAMAGED:
        return "damaged"
    if note == _OPEN:
        return "unclean"
    if not note:
        return "unknown"
    return "clean" if note == _looks(path) else "changed"


def note_open(lock: OsLock) -> None:
    lock.write_note(_OPEN)


def note_damage(lock: OsLock | None) -> None:
    """The next sidecar that is alone with the store checks and rescues it."""
    if lock is not None:
        lock.write_note(_DAMAGED)


def note_clean(lock: OsLock, path: Path) -> None:
    """Nobody has the store open any more."""
    if lock.read_note() != _DAMAGED:
        lock.write_note(_looks(path) or "")


def _looks(path: Path) -> str | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return f"{found.st_size} bytes, changed at {found.st_mtime_ns}"
