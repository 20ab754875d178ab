"""The tables, and how an older store becomes a current one.

Rows are lean: integer keys inside, our own ids (UUIDs) as 16 bytes, and nothing twice. A part's
key is its message's key and its index in one number, so that parts need no second index and a
message's parts lie side by side.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..ids import new_id, now_ms

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

PART_BITS = 16
"""A message has at most 65,536 parts."""

FIRST = """
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    store_id TEXT NOT NULL,
    change_no INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE conversations (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    title TEXT,
    mode TEXT NOT NULL,
    session_id TEXT NOT NULL,
    roots TEXT NOT NULL CHECK (json_valid(roots)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    archived_at INTEGER,
    forked_from TEXT CHECK (forked_from IS NULL OR json_valid(forked_from)),
    message_count INTEGER NOT NULL,
    queue_length INTEGER NOT NULL,
    next_ordinal INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    change_no INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    event_bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX conversations_listed ON conversations (archived_at, updated_at);
CREATE INDEX conversations_changed ON conversations (change_no);
CREATE TABLE tombstones (
    change_no INTEGER NOT NULL,
    conversation_id TEXT NOT NULL,
    PRIMARY KEY (change_no, conversation_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE messages (
    key INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversations (key),
    ordinal INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    status TEXT NOT NULL,
    turn BLOB,
    usage TEXT CHECK (usage IS NULL OR json_valid(usage)),
    created_at INTEGER NOT NULL,
    completed_at INTEGER,
    hidden INTEGER
) STRICT;
CREATE INDEX messages_read ON messages (conversation, hidden);
CREATE TABLE parts (
    key INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    text TEXT,
    data TEXT CHECK (data IS NULL OR json_valid(data))
) STRICT;
CREATE TABLE chunks (
    part INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (part, offset)
) STRICT, WITHOUT ROWID;
CREATE TABLE queue (
    key INTEGER PRIMARY KEY,
    message_id BLOB NOT NULL UNIQUE,
    conversation INTEGER NOT NULL REFERENCES conversations (key),
    position INTEGER NOT NULL,
    state TEXT NOT NULL,
    prompt TEXT NOT NULL CHECK (json_valid(prompt)),
    request_key TEXT,
    turn BLOB,
    reply INTEGER,
    generation INTEGER,
    requested INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    provider TEXT,
    enqueued_at INTEGER NOT NULL
) STRICT;
CREATE INDEX queue_order ON queue (conversation, state, position);
CREATE INDEX queue_running ON queue (conversation) WHERE state = 'running';
CREATE TABLE request_keys (
    conversation INTEGER NOT NULL,
    request_key TEXT,
    hash BLOB,
    message_id BLOB,
    result TEXT
) STRICT;
CREATE UNIQUE INDEX request_keys_used ON request_keys (conversation, request_key)
    WHERE request_key IS NOT NULL;
CREATE UNIQUE INDEX request_keys_message ON request_keys (message_id)
    WHERE message_id IS NOT NULL;
CREATE TABLE events (
    conversation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE owners (
    conversation INTEGER PRIMARY KEY,
    instance TEXT NOT NULL,
    generation INTEGER NOT NULL
) STRICT;
CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;
CREATE TABLE to_index (message INTEGER PRIMARY KEY) STRICT;
CREATE VIEW searchable AS
    SELECT m.key AS key, (
        SELECT group_concat(p.text, char(10)) FROM parts p
        WHERE p.key >= (m.key << 16) AND p.key < ((m.key + 1) << 16)
            AND p.kind IN ('text', 'steering')
    ) AS text
    FROM messages m;
CREATE VIRTUAL TABLE messages_fts USING fts5 (
    text, content = 'searchable', content_rowid = 'key',
    tokenize = 'unicode61 remove_diacritics 2'
);
"""


def first(conn: sqlite3.Connection) -> None:
    # Not `executescript`: it would commit the migration's transaction.
    for statement in FIRST.split(";\n"):
        if statement.strip():
            conn.execute(statement)
    conn.execute("INSERT INTO meta VALUES (1, ?, 0, ?)", (new_id(), now_ms()))


def commits(conn: sqlite3.Connection) -> None:
    """Bumped by every commit, so that each one writes this page: by it a journal is known as
    this store's. `change_no` counts only what a list of conversations shows."""
    conn.execute("ALTER TABLE meta ADD COLUMN commits INTEGER NOT NULL DEFAULT 0")


def children(conn: sqlite3.Connection) -> None:
    conn.execute(
        """
        CREATE TABLE children (
            pid INTEGER NOT NULL,
            began TEXT NOT NULL,
            instance TEXT NOT NULL,
            kind TEXT NOT NULL,
            PRIMARY KEY (pid, began)
        ) STRICT, WITHOUT ROWID
        """
    )


def approvals(conn: sqlite3.Connection) -> None:
    conn.execute(
        """
        CREATE TABLE approvals (
            key INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE,
            conversation INTEGER NOT NULL REFERENCES conversations (key),
            turn BLOB NOT NULL,
            tool_call_id TEXT NOT NULL,
            tool TEXT NOT NULL,
            title TEXT NOT NULL,
            text TEXT NOT NULL,
            hash TEXT NOT NULL,
            state TEXT NOT NULL,
            requested_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL
        ) STRICT
        """
    )
    conn.execute(
        "CREATE INDEX approvals_open ON approvals (conversation, turn) WHERE state = 'pending'"
    )


def ends(conn: sqlite3.Connection) -> None:
    """Where a deleted conversation stood: one that is made under its id later goes on from
    there, so that no reader takes the new events for some that it has had."""
    for column in ("last_seq", "revision"):
        conn.execute(f"ALTER TABLE tombstones ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    conn.execute("CREATE INDEX tombstones_of ON tombstones (conversation_id)")


def acting(conn: sqlite3.Connection) -> None:
    """What agents that act leave behind: who allowed what, what files held before, and what the
    user has settled for good."""
    for statement in (
        "ALTER TABLE approvals ADD COLUMN protected INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE approvals ADD COLUMN rules TEXT NOT NULL DEFAULT '[]'",
        "CREATE TABLE rules (key INTEGER PRIMARY KEY, root TEXT NOT NULL, rule TEXT NOT NULL "
        "CHECK (json_valid(rule)), made_at INTEGER NOT NULL, UNIQUE (root, rule)) STRICT",
        "CREATE TABLE personas (id TEXT PRIMARY KEY, persona TEXT NOT NULL "
        "CHECK (json_valid(persona)), saved_at INTEGER NOT NULL) STRICT",
        "CREATE TABLE helpers (conversation INTEGER PRIMARY KEY REFERENCES conversations (key), "
        "parent TEXT NOT NULL) STRICT",
        "CREATE TABLE pre_images (key INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, "
        "size INTEGER NOT NULL, data BLOB NOT NULL) STRICT",
        "CREATE TABLE checkpoints (key INTEGER PRIMARY KEY, conversation INTEGER NOT NULL "
        "REFERENCES conversations (key), reply INTEGER NOT NULL, root TEXT NOT NULL, "
        "relative TEXT NOT NULL, before BLOB, after BLOB, undone INTEGER NOT NULL) STRICT",
        "CREATE INDEX checkpoints_of ON checkpoints (conversation, reply)",
        "CREATE INDEX checkpoints_before ON checkpoints (before)",
        "CREATE TABLE audit (key INTEGER PRIMARY KEY, entry TEXT NOT NULL "
        "CHECK (json_valid(entry)), hash BLOB NOT NULL) STRICT",
        "CREATE TABLE audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), "
        "count INTEGER NOT NULL, hash BLOB NOT NULL) STRICT",
        "INSERT INTO audit_head VALUES (1, 0, zeroblob(32))",
        "CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END",
        "CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END",
    ):
        conn.execute(statement)


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    first,
    commits,
    children,
    approvals,
    ends,
    acting,
)
"""Every step from an empty file to the current schema, in order. A step that was released is
never changed; its name is kept in the store."""

SCHEMA_VERSION = len(STEPS)
"""Kept in `PRAGMA user_version`; every write transaction compares it."""


def migrations() -> Migrations:
    from sqlite_utils.migrations import Migrations

    found = Migrations("agent-sidecar")
    for step in STEPS:
        found(name=step.__name__)(_on_connection(step))
    return found


def _on_connection(step: Callable[[sqlite3.Connection], None]) -> Callable[[Database], None]:
    def apply(db: Database) -> None:
        step(db.conn)
        # Like every commit, so that a journal that has this one alone is known as this store's.
        db.conn.execute("UPDATE meta SET change_no = change_no + 1")

    return apply


def read_store_id(conn: sqlite3.Connection) -> str:
    store_id: str = conn.execute("SELECT store_id FROM meta").fetchone()[0]
    return store_id


def migrate(conn: sqlite3.Connection) -> None:
    """Bring the store up to date; one transaction per step. The caller holds the writer lock."""
    from sqlite_utils import Database

    migrations().apply(Database(conn, execute_plugins=False))
    conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def create(conn: sqlite3.Connection) -> None:
    """The current schema in an empty database that nobody will ever migrate."""
    conn.execute("BEGIN")
    for step in STEPS:
        step(conn)
    conn.execute("COMMIT")
    conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
