"""A log on the disk that stays small: `FILE`, and before it `FILE.1` and `FILE.2`."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

MAX_BYTES = 5 << 20
"""Of each file."""
KEPT = 2
"""Files beside the one that is written."""


class RotatingFile:
    """Appends bytes; begins a new file when the old one is full. Several processes may write to
    one. Raises `OSError` when it cannot be opened; what cannot be written later is left out, for
    a log must not get into the way of what it tells about."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._fd = self._open()

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            if os.fstat(self._fd).st_size + len(data) > self._max_bytes:
                self._rotate()
            os.write(self._fd, data)

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _rotate(self) -> None:
        """Begin a new file, unless another process has done so meanwhile."""
        is_current = self._is_current()
        # Let go first: on Windows an open file cannot be renamed.
        self.close()
        try:
            if is_current:
                self._shift()
        finally:
            self._fd = self._open()

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _shift(self) -> None:
        names = [self._path.name, *(f"{self._path.name}.{n + 1}" for n in range(self._kept))]
        files = [self._path.with_name(name) for name in names]
        for newer, older in reversed(list(pairwise(files))):
            with suppress(FileNotFoundError):
                newer.replace(older)


class LogFileHandler(logging.Handler):
    """Writes records to a `RotatingFile`."""

    def __init__(self, file: RotatingFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        self._file.write(f"{self.format(record)}\n".encode(errors="replace"))
