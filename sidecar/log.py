"""Logging: one JSON object a line on stderr, and in a file if one is named; secrets never.

Use the stdlib: `logger.info("agent created", extra={"conversationId": …})`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

Redact = Callable[[str], str]


class JsonLines(logging.Formatter):
    """`{"at", "level", "logger", "message", …extra}`; a traceback under `stack`."""

    def __init__(self, redact: Redact | None = None) -> None:
        super().__init__()
        self.redact: Redact = redact or (lambda line: line)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": round(record.created * 1000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(extra_of(record))
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return self.redact(json.dumps(line, default=str, ensure_ascii=False))


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class Redactor:
    """Replaces every secret that was ever in use wherever it turns up in a log line."""

    def __init__(self, in_use: Callable[[], Iterable[str]]) -> None:
        self._in_use = in_use
        self._seen: set[str] = set()

    def __call__(self, line: str) -> str:
        self._seen.update(self._in_use())
        for secret in self._seen:
            line = line.replace(secret, "<secret>")
        return line


class StderrHandler(logging.StreamHandler[Any]):
    """Writes to stderr; goes quiet when nobody reads it any more.

    An editor that closed our stderr must not make every log call fail, or log about itself.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], (BrokenPipeError, ValueError, OSError)):
            self.setStream(_Nowhere())
        else:
            super().handleError(record)


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None


FILE_VARIABLE = "AGENT_SIDECAR_LOG"
"""Names a file that the log is written to as well, for editors that throw stderr away. Not a
setting: what a workspace may set must not choose where we write."""


def set_up(level: str, redact: Redact | None = None) -> None:
    """Send the package's logs to stderr, and to the file that the environment names. Called once
    by the composition root."""
    root = logging.getLogger("sidecar")
    root.handlers[:] = [StderrHandler(sys.stderr)]
    root.propagate = False
    set_level(level)
    # What the libraries say for themselves would go to stderr as it is, and some of it quotes
    # what a vendor sent: it goes nowhere.
    logging.captureWarnings(True)
    logging.lastResort = logging.NullHandler()
    if path := os.environ.get(FILE_VARIABLE):
        _add_file(root, path)
    for handler in root.handlers:
        handler.setFormatter(JsonLines(redact))


def _add_file(root: logging.Logger, path: str) -> None:
    # Imported here: most starts need none.
    from .log_file import LogFileHandler, RotatingFile

    try:
        root.addHandler(LogFileHandler(RotatingFile(Path(path))))
    except OSError as error:
        root.warning("the log file cannot be written", extra={"cause": error.strerror})


def set_level(level: str) -> None:
    logging.getLogger("sidecar").setLevel(level.upper())


class Stopwatch:
    """`with Stopwatch() as watch: …`, then `watch.ms`."""

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter()
        self.ms = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.ms = round((time.perf_counter() - self._started) * 1000, 3)
