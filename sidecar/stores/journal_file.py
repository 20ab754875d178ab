"""The `-wal` and `-journal` files beside the store, looked at before SQLite does.

SQLite applies any well-formed journal that lies there, also one of another database (a copied
folder, a restored backup). Our `-wal` is known by its pages: every transaction of ours writes
the one row of `meta`, which holds the store's id. A `-journal` is ours only while the store is
born: its first two writes, before there is a table, are made with one.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from ..ids import now_ms

_HEADER, _FRAME = 32, 24
_NEWBORN = 4096
"""Bytes of a store without a table."""


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def rollback_of(path: Path) -> Path:
    return path.with_name(path.name + "-journal")


def move_foreign_aside(path: Path) -> str | None:
    """Keep a journal that is not this store's from being applied. Returns what to tell the
    user. Nobody may have the store open."""
    if _is_newborn(path):
        _finish_birth(path)
    elif rollback_of(path).exists():
        return _put_aside(path, rollback_of(path))
    if not is_foreign(path):
        return None
    notice = _put_aside(path, wal_of(path))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return notice


def _is_newborn(path: Path) -> bool:
    """Whether the file is too small to hold anything of ours yet."""
    return path.stat().st_size <= _NEWBORN


def _finish_birth(path: Path) -> None:
    """Have SQLite undo a first write that a power cut has interrupted, while it may write: who
    only reads cannot open such a file."""
    if rollback_of(path).exists():
        with closing(sqlite3.connect(path)) as conn:
            conn.execute("PRAGMA user_version").fetchone()


def _put_aside(path: Path, journal: Path) -> str:
    kind = journal.name.removeprefix(path.name)
    aside = path.with_name(f"{path.name}.foreign-{now_ms()}{kind}")
    journal.rename(aside)
    return (
        "Beside the conversation store lay the journal of another database. "
        f"It was not used and is kept as {aside.name}."
    )


def is_foreign(path: Path) -> bool:
    """Whether there is a journal with something in it that is not this store's."""
    wal = wal_of(path)
    try:
        if wal.stat().st_size <= _HEADER:
            return False
    except FileNotFoundError:
        return False
    identity = _identity(path)
    if identity is None:
        return False  # the store itself is still in the journal, or damaged
    store_id, meta_page, page_size = identity
    with wal.open("rb") as file:
        if _page_size(file) != page_size:
            return True
        pages = list(_committed(file, page_size))
        if not pages:
            return False
        for number, at in reversed(pages):
            if number == meta_page:
                file.seek(at)
                return store_id.encode() not in file.read(page_size)
    return True


def _identity(path: Path) -> tuple[str, int, int] | None:
    """The store's id, the page that holds it and a page's size, from the file alone."""
    conn = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        (store_id,) = conn.execute("SELECT store_id FROM meta").fetchone()
        (page,) = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'meta'").fetchone()
        (size,) = conn.execute("PRAGMA page_size").fetchone()
    except (sqlite3.Error, TypeError):
        return None
    finally:
        conn.close()
    return store_id, page, size


def _page_size(file: BinaryIO) -> int:
    file.seek(8)
    return int.from_bytes(file.read(4), "big")


def _committed(file: BinaryIO, page_size: int) -> Iterator[tuple[int, int]]:
    """(page number, where its content is) of each frame up to the last commit."""
    file.seek(16)
    salts = file.read(8)
    waiting: list[tuple[int, int]] = []
    at = _HEADER
    while True:
        file.seek(at)
        frame = file.read(_FRAME)
        if len(frame) < _FRAME or frame[8:16] != salts:
            return
        number, commit = struct.unpack(">II", frame[:8])
        waiting.append((number, at + _FRAME))
        if commit:
            yield from waiting
            waiting.clear()
        at += _FRAME + page_size
