"""What files held before agents changed them, each content once, within a budget."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Sequence

from ..interfaces import PreImage, TouchedFile

BUDGET = 256 << 20
"""Bytes of pre-images in a store, as they are kept. The oldest are given up for new ones; what
they were of cannot be put back any more."""

_ORPHANS = "hash NOT IN (SELECT before FROM checkpoints WHERE before IS NOT NULL)"


def keep(conn: sqlite3.Connection, conversation: int, reply: int, image: PreImage) -> None:
    before, after = digest(image.before), digest(image.after)
    if image.before is not None:
        data = zlib.compress(image.before, 1)
        conn.execute(
            "INSERT OR IGNORE INTO pre_images (hash, size, data) VALUES (?, ?, ?)",
            (before, len(data), data),
        )
    conn.execute(
        "INSERT INTO checkpoints (conversation, reply, root, relative, before, after, undone) "
        "VALUES (?, ?, ?, ?, ?, ?, 0)",
        (conversation, reply, image.root, image.relative, before, after),
    )
    _stay_within_budget(conn)


def digest(data: bytes | None) -> bytes | None:
    return None if data is None else hashlib.sha256(data).digest()


def _stay_within_budget(conn: sqlite3.Connection) -> None:
    (size,) = conn.execute("SELECT total(size) FROM pre_images").fetchone()
    while size > BUDGET:
        oldest = conn.execute(
            "SELECT p.key, p.size, p.hash FROM checkpoints c JOIN pre_images p "
            "ON p.hash = c.before ORDER BY c.key LIMIT 1"
        ).fetchone()
        if oldest is None:
            return
        key, freed, hash_ = oldest
        conn.execute("DELETE FROM checkpoints WHERE before = ?", (hash_,))
        conn.execute("DELETE FROM pre_images WHERE key = ?", (key,))
        size -= freed


def touched(conn: sqlite3.Connection, conversation: int, after: int) -> Sequence[TouchedFile]:
    """The files that were changed for replies after one: what each held before the first of
    these changes, and the hash of what the last of them left."""
    files: dict[tuple[str, str], TouchedFile] = {}
    for root, relative, before, left in conn.execute(
        "SELECT root, relative, before, after FROM checkpoints "
        "WHERE conversation = ? AND reply > ? AND undone = 0 ORDER BY key",
        (conversation, after),
    ):
        first = files.get((root, relative))
        files[root, relative] = TouchedFile(
            root=root,
            relative=relative,
            before=first.before if first else _content(conn, before),
            after=left,
        )
    return tuple(files.values())


def _content(conn: sqlite3.Connection, hash_: bytes | None) -> bytes | None:
    if hash_ is None:
        return None
    (data,) = conn.execute("SELECT data FROM pre_images WHERE hash = ?", (hash_,)).fetchone()
    return zlib.decompress(data)


def mark_undone(
    conn: sqlite3.Connection, conversation: int, after: int, files: Iterable[tuple[str, str]]
) -> None:
    conn.executemany(
        "UPDATE checkpoints SET undone = 1 WHERE conversation = ? AND reply > ? AND root = ? "
        "AND relative = ?",
        [(conversation, after, root, relative) for root, relative in files],
    )


def forget(conn: sqlite3.Connection, conversation: int) -> None:
    """The conversation is deleted: what only it kept goes with it."""
    conn.execute("DELETE FROM checkpoints WHERE conversation = ?", (conversation,))
    conn.execute(f"DELETE FROM pre_images WHERE {_ORPHANS}")
