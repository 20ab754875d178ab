"""What the reading tools share: their bounds, and doing blocking work beside the loop."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

from .files import Entry, Refused, opened, text_of
from .question import words_of

T = TypeVar("T")
Stopped = Callable[[], bool]
"""Whether nobody waits for the answer any more."""

OUTPUT_BYTES = 64 * 1024
READ_BYTES = 8 * 1024 * 1024
SEARCH_BYTES = 1024 * 1024
"""Per file. What is larger is data or generated; nobody asks where it is defined."""
SKIPPED_SUFFIXES = words_of("""
    .png .jpg .jpeg .gif .webp .ico .icns .bmp .pdf .zip .gz .bz2 .xz .zst .7z .tar .jar .whl
    .so .dylib .dll .exe .o .a .pyc .class .wasm .woff .woff2 .ttf .otf .eot .mp3 .mp4 .mov
    .sqlite .sqlite3 .db .lock .map .min.js .min.css package-lock.json
    """)


async def in_thread(work: Callable[[Stopped], T]) -> T:
    """Run blocking work off the loop. A cancelled caller does not wait for it, and it is told."""
    stop = threading.Event()
    try:
        return await to_thread.run_sync(work, stop.is_set, abandon_on_cancel=True)
    finally:
        stop.set()


def matches(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(tail, pattern) for tail in (name, name.rpartition("/")[2]))


def bounded(lines: list[str]) -> tuple[list[str], int]:
    """As many lines as an output may hold, at least a piece of the first; how many are left."""
    room = OUTPUT_BYTES - 1024
    for number, line in enumerate(lines):
        room -= len(line.encode("utf-8", "replace")) + 1
        if room < 0:
            shown = lines[:number] or [line[: OUTPUT_BYTES // 4] + " […]"]
            return shown, len(lines) - len(shown)
    return lines, 0


def scanned(entry: Entry) -> str | None:
    """A file's text for weighing it. What is quoted is read again, with every check."""
    if entry.relative.lower().endswith(SKIPPED_SUFFIXES):
        return None
    try:
        with opened(entry) as file:
            data = file.read(SEARCH_BYTES + 1)
    except (Refused, OSError):
        return None
    return text_of(data) if len(data) <= SEARCH_BYTES else None
