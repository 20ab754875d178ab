"""Stores with a past, written straight into the product's own schema.

Through the product a million messages would take an hour. The rows are the same.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sidecar.ids import new_id
from sidecar.stores.schema import PART_BITS, SCHEMA_VERSION, create

VOCABULARY = 40_000
WORDS = 36
"""Words in a message; 200 characters or so."""

Say = Callable[[], str]


def conversations(path: Path, count: int) -> Path:
    """Many conversations of two messages each."""
    return _store(path, ((2, f"c{number}") for number in range(count)))


def history(path: Path, **messages: int) -> Path:
    """Conversations by id, each with that many messages."""
    return _store(path, ((count, conversation_id) for conversation_id, count in messages.items()))


def library(path: Path, count: int) -> Path:
    """`count` messages in conversations of a thousand, indexed for search. Kept from run to
    run, because it takes long to make."""
    done = path.with_suffix(f".v{SCHEMA_VERSION}")
    if done.exists() and path.exists():
        return path
    _store(path, ((1_000, f"c{number}") for number in range(count // 1_000)), indexed=True)
    done.touch()
    return path


def _store(path: Path, plan: Iterator[tuple[int, str]], *, indexed: bool = False) -> Path:
    if path.exists() and not indexed:
        return path
    for old in path.parent.glob(f"{path.name}*"):
        if old.is_file():
            old.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("PRAGMA wal_autocheckpoint = 0")
    create(conn)
    conn.execute("BEGIN")
    say = speaker()
    for number, (count, conversation_id) in enumerate(plan, 1):
        _conversation(conn, number, conversation_id, count, say)
    conn.execute("UPDATE meta SET change_no = (SELECT count(*) FROM conversations)")
    if indexed:
        conn.execute("INSERT INTO messages_fts (messages_fts) VALUES ('rebuild')")
    conn.execute("COMMIT")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    return path


def _conversation(
    conn: sqlite3.Connection, number: int, conversation_id: str, count: int, say: Say
) -> None:
    now = time.time_ns() // 1_000_000
    first = conn.execute("SELECT coalesce(max(key), 0) + 1 FROM messages").fetchone()[0]
    conn.execute(
        "INSERT INTO conversations VALUES (?, ?, ?, 'chat', 'user', ?, ?, ?, NULL, NULL, ?, 0, ?, "
        "0, ?, 0, 1, 0)",
        (
            number,
            conversation_id,
            f"Conversation {number}",
            json.dumps([]),
            now,
            now + number,
            count,
            count,
            number,
        ),
    )
    rows = [
        (
            first + index,
            number,
            index,
            bytes.fromhex(new_id().replace("-", "")),
            "user" if index % 2 == 0 else "assistant",
            now,
            now,
        )
        for index in range(count)
    ]
    conn.executemany(
        "INSERT INTO messages (key, conversation, ordinal, id, role, status, created_at, "
        "completed_at) VALUES (?, ?, ?, ?, ?, 'complete', ?, ?)",
        rows,
    )
    conn.executemany(
        "INSERT INTO parts (key, kind, text) VALUES (?, 'text', ?)",
        ((row[0] << PART_BITS, say()) for row in rows),
    )


# ---- text --------------------------------------------------------------------------------


def vocabulary() -> list[str]:
    """Words made of syllables, so that they share beginnings as real ones do; the commonest
    first."""
    chance = random.Random(7)
    syllables = [a + b for a in "bcdfglmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er")]
    words: dict[str, None] = {}
    while len(words) < VOCABULARY:
        words["".join(chance.choices(syllables, k=chance.choice((2, 3, 3, 4))))] = None
    return list(words)


def speaker() -> Say:
    """Says something new at each call. Words are as frequent as in real texts (Zipf)."""
    chance = random.Random(11)
    words = vocabulary()
    weights = [1 / rank for rank in range(10, len(words) + 10)]
    third = WORDS // 3
    drawn = chance.choices(words, weights, k=third * 60_000)
    pieces = [" ".join(drawn[at : at + third]) for at in range(0, len(drawn), third)]
    return lambda: " ".join(chance.choices(pieces, k=3))
