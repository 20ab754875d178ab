"""Saving what can be read of a damaged store. The damaged file is kept, never deleted or changed.

Three sources, the best first: what SQL still reads; rows on pages that SQL cannot get to any
more; and what only the backup holds. A row that is there already is never replaced.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from ..ids import new_id, now_ms
from . import pages
from .backup import backup_of

_LEFT_BEHIND = ("meta", "events", "instances", "to_index", "_sqlite_migrations")
"""Of no use in a new store; its new id sends every reader of events to a snapshot."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "INTEGER": (int,),
    "TEXT": (str,),
    "BLOB": (bytes,),
    "REAL": (int, float),
    "ANY": (int, float, str, bytes),
}
_READ_AT_ONCE = 200


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What a salvage brought into the new store."""

    aside: Path | None
    """Where the damaged file is now; None when there was none."""
    conversations: int
    messages: int
    from_backup: int
    """Messages that only the backup had."""
    backup_at: int | None = None

    def sentence(self) -> str:
        saved = f"{self.conversations} conversations with {self.messages} messages could be saved"
        extra = f", {self.from_backup} of these from the backup" if self.from_backup else ""
        if self.aside is None:
            return f"The conversation store was gone. {saved}{extra}."
        kept = f"the damaged file was kept as {self.aside.name}"
        return f"The conversation store was damaged. {saved}{extra}; {kept}."


def rescue(path: Path, make_new: Callable[[Path], None]) -> Saved:
    """Fill a new store with what can be saved and put it in the damaged one's place, which is
    kept aside. A crash at any point leaves one or the other. Nobody may have it open."""
    with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.salvage-") as name:
        folder = Path(name)
        fresh = folder / "new"
        make_new(fresh)
        new = sqlite3.connect(fresh, isolation_level=None, uri=True)
        try:
            saved = _fill(new, path, backup_of(path), folder)
        finally:
            new.close()
        aside = _put_aside(path)
        fresh.replace(path)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return msgspec.structs.replace(saved, aside=aside)


def _put_aside(path: Path) -> Path | None:
    """Give the file and its journal another name as well."""
    aside = path.with_name(f"{path.name}.damaged-{now_ms()}")
    wal = path.with_name(path.name + "-wal")
    if path.exists():
        _link(path, aside)
    if has_journal := wal.exists() and wal.stat().st_size > 0:
        _link(wal, aside.with_name(aside.name + "-wal"))
    return aside if path.exists() or has_journal else None


def _link(file: Path, other: Path) -> None:
    try:
        other.hardlink_to(file)
    except OSError:  # not every file system can
        shutil.copy2(file, other)


def _fill(new: sqlite3.Connection, damaged: Path, backup: Path, folder: Path) -> Saved:
    new.execute("PRAGMA foreign_keys = OFF")
    if has_backup := backup.is_file():
        new.execute("ATTACH ? AS backup", (f"{backup.absolute().as_uri()}?mode=ro&immutable=1",))
    new.execute("BEGIN IMMEDIATE")
    _take_from(new, _working_copy(damaged, folder))
    before = _count(new, "messages")
    if has_backup:
        _add_from_backup(new)
    _settle(new)
    from_backup = _count(new, "messages") - before
    new.execute("COMMIT")
    return Saved(
        aside=None,
        conversations=_count(new, "conversations"),
        messages=_count(new, "messages"),
        from_backup=max(0, from_backup),
        backup_at=int(backup.stat().st_mtime * 1000) if has_backup else None,
    )


def _count(conn: sqlite3.Connection, table: str) -> int:
    count: int = conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


def _working_copy(damaged: Path, folder: Path) -> Path:
    """A copy that SQLite may bring the journal into; the file itself stays as it was found."""
    copy = folder / "copy"
    for suffix in ("", "-wal"):
        part = damaged.with_name(damaged.name + suffix)
        if part.exists():
            shutil.copyfile(part, copy.with_name(copy.name + suffix))
    if not copy.exists():
        copy.touch()
    return copy


# ---- from the damaged file ---------------------------------------------------------------


def _take_from(new: sqlite3.Connection, copy: Path) -> None:
    wanted = _tables(new)
    # As it is found or not at all: what is missing of the audit is not to look like its end.
    new.execute("DELETE FROM audit_head")
    # Decoded with replacement: one bad character must not cost the row.
    with closing(sqlite3.connect(copy, isolation_level=None)) as old:
        old.text_factory = lambda data: data.decode("utf-8", errors="replace")
        for table, columns in wanted.items():
            for row in _readable(old, table, columns):
                _insert(new, table, row)
    shapes = {table: _shape(new, table) for table in wanted}
    for row in _scanned(copy):
        fitting = [table for table, shape in shapes.items() if shape.fits(row)]
        if len(fitting) == 1:
            _insert(new, fitting[0], shapes[fitting[0]].completed(row))


def _tables(new: sqlite3.Connection) -> dict[str, Sequence[str]]:
    """The tables worth saving and their columns, parents first."""
    named = new.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE TABLE%' "
        "AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'messages_fts%' ORDER BY rowid"
    )
    names = [name for (name,) in named if name not in _LEFT_BEHIND]
    return {name: [c[1] for c in new.execute(f"PRAGMA table_info({name})")] for name in names}


def _insert(new: sqlite3.Connection, table: str, row: Sequence[Any]) -> None:
    marks = ", ".join("?" * len(row))
    # Damaged content may break a constraint or a type; the rest is still worth having.
    with suppress(sqlite3.IntegrityError, sqlite3.DataError, OverflowError):
        new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)


def _readable(
    old: sqlite3.Connection, table: str, columns: Sequence[str]
) -> Iterator[Sequence[Any]]:
    """The rows before the damage and, reading backwards, those behind it."""
    order = columns[0] if table in ("chunks", "tombstones") else "rowid"
    for direction in ("", " DESC"):
        try:
            found = old.execute(
                f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}{direction}"
            )
            while some := found.fetchmany(_READ_AT_ONCE):
                yield from some
        except (sqlite3.Error, UnicodeError, MemoryError):
            continue
        return


class _Shape(msgspec.Struct, frozen=True):
    """What a table's rows look like inside the file."""

    types: tuple[tuple[type, ...], ...]
    required: tuple[bool, ...]
    key: int | None
    """The column that is the rowid, and as such stored as NULL."""
    has_rowid: bool

    def fits(self, row: pages.Row) -> bool:
        if len(row.values) != len(self.types) or (row.rowid is not None) != self.has_rowid:
            return False
        return all(
            value is None
            if index == self.key
            else isinstance(value, types)
            if value is not None
            else not required
            for index, (value, types, required) in enumerate(
                zip(row.values, self.types, self.required, strict=True)
            )
        )

    def completed(self, row: pages.Row) -> list[pages.Value]:
        values = list(row.values)
        if self.key is not None:
            values[self.key] = row.rowid
        return values


def _shape(new: sqlite3.Connection, table: str) -> _Shape:
    columns = new.execute(f"PRAGMA table_info({table})").fetchall()
    (sql,) = new.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    has_rowid = "WITHOUT ROWID" not in sql.upper()
    keys = [c[0] for c in columns if c[5]]
    is_key = has_rowid and len(keys) == 1 and columns[keys[0]][2].upper() == "INTEGER"
    return _Shape(
        types=tuple(_TYPES[c[2].upper()] for c in columns),
        required=tuple(bool(c[3]) for c in columns),
        key=keys[0] if is_key else None,
        has_rowid=has_rowid,
    )


def _scanned(copy: Path) -> Iterator[pages.Row]:
    if copy.stat().st_size == 0:
        return
    with copy.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield from pages.rows(data)


# ---- from the backup ---------------------------------------------------------------------

_SAME_CONVERSATIONS = (
    "SELECT o.key FROM backup.conversations o JOIN main.conversations n USING (key, id)"
)
_SAME_MESSAGES = "SELECT o.key FROM backup.messages o JOIN main.messages n USING (key, id)"
_FROM_BACKUP = (
    "INSERT OR IGNORE INTO main.conversations SELECT * FROM backup.conversations "
    "WHERE id NOT IN (SELECT conversation_id FROM main.tombstones)",
    # A reply that was being written then has ended since, or was undone.
    "INSERT OR IGNORE INTO main.messages SELECT * FROM backup.messages "
    f"WHERE status <> 'streaming' AND conversation IN ({_SAME_CONVERSATIONS})",
    "INSERT OR IGNORE INTO main.parts SELECT * FROM backup.parts "
    f"WHERE key >> 16 IN ({_SAME_MESSAGES})",
    "INSERT OR IGNORE INTO main.request_keys SELECT * FROM backup.request_keys "
    f"WHERE conversation = 0 OR conversation IN ({_SAME_CONVERSATIONS})",
    # What waited then may have run since; nothing runs twice, so the user is to decide.
    "INSERT OR IGNORE INTO main.queue SELECT * FROM backup.queue "
    f"WHERE conversation IN ({_SAME_CONVERSATIONS}) "
    "AND message_id NOT IN (SELECT id FROM main.messages)",
)


def _add_from_backup(new: sqlite3.Connection) -> None:
    known = {key for (key,) in new.execute("SELECT key FROM queue")}
    for statement in _FROM_BACKUP:
        # A backup that is damaged as well is used as far as it goes.
        with suppress(sqlite3.Error):
            new.execute(statement)
    added = [(key,) for (key,) in new.execute("SELECT key FROM queue") if key not in known]
    new.executemany(
        "UPDATE queue SET state = 'parked', turn = NULL, reply = NULL "
        "WHERE key = ? AND state IN ('queued', 'running')",
        added,
    )


# ---- the new store -----------------------------------------------------------------------


def _settle(new: sqlite3.Connection) -> None:
    """Make the counts agree with what was saved, and have everything indexed again."""
    new.execute("DELETE FROM conversations WHERE id IN (SELECT conversation_id FROM tombstones)")
    orphan = "NOT IN (SELECT key FROM conversations)"
    for table in ("messages", "queue", "owners", "approvals", "helpers", "checkpoints"):
        new.execute(f"DELETE FROM {table} WHERE conversation {orphan}")
    new.execute("DELETE FROM parts WHERE key >> 16 NOT IN (SELECT key FROM messages)")
    new.execute("DELETE FROM chunks WHERE part >> 16 NOT IN (SELECT key FROM messages)")
    new.execute(
        "UPDATE queue SET state = 'queued', turn = NULL, reply = NULL WHERE state = 'running' "
        "AND (reply NOT IN (SELECT key FROM messages) "
        "OR message_id NOT IN (SELECT id FROM messages))"
    )
    new.execute("DELETE FROM tombstones")
    new.execute(
        """
        UPDATE conversations SET first_seq = last_seq + 1, event_bytes = 0, change_no = 1,
            message_count = (SELECT count(*) FROM messages m
                WHERE m.conversation = conversations.key AND m.hidden IS NULL),
            next_ordinal = (SELECT coalesce(max(m.ordinal), -1) + 1 FROM messages m
                WHERE m.conversation = conversations.key),
            queue_length = (SELECT count(*) FROM queue q
                WHERE q.conversation = conversations.key AND q.state = 'queued')
        """
    )
    new.execute("UPDATE meta SET store_id = ?, change_no = 1", (new_id(),))
    new.execute("INSERT INTO to_index SELECT key FROM messages WHERE status <> 'streaming'")
