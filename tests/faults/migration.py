"""Stores of every older version, brought up to date through crashes and by two at once (A9).

An older store is made by the older steps alone and filled with a current one's rows. The process
that migrates it dies before each statement in turn; the next start must find all of it, as if
nothing had happened.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from sidecar.stores.schema import SCHEMA_VERSION, STEPS
from tests.e2e.raw_client import Message, RawClient, command
from tests.faults.harness import Stored, options, patched, stored_in
from tests.faults.unopenable import hash_of, make

START_LIMIT = 3.0
DIED = 9
RACERS = 3

DYING = """
import os
from sidecar.stores import files
migrate = files.migrate
def dying(conn):
    left = {left}
    def statement(_):
        nonlocal left
        if left == 0: os._exit(9)
        left -= 1
    conn.set_trace_callback(statement)
    migrate(conn)
    if left == 0: os._exit(9)
files.migrate = dying
"""
"""Ends the process before the statement of this number of the migration."""

HALVING = """
from sidecar.stores import schema
def halving(step):
    def half(conn):
        step(conn)
        conn.execute("COMMIT")
        conn.execute("BEGIN")
    half.__name__ = step.__name__
    return half
schema.STEPS = tuple(map(halving, schema.STEPS))
"""
"""A step is committed before it is noted as done."""


@dataclass
class Figures:
    versions: int = 0
    crashes: int = 0
    races: int = 0
    slowest: float = 0.0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.versions} older versions, {self.crashes} crashes (one before each statement), "
            f"{self.races} races of {RACERS}; slowest start {self.slowest:.2f} s, "
            f"{len(self.problems)} half states or losses"
        )


def make_older(path: Path, version: int) -> Stored:
    """A store of this version with something in it; returns what."""
    current = path.with_name("current.db")
    make(current)
    steps = Migrations("agent-sidecar")
    for step in STEPS[:version]:
        steps(name=step.__name__)(lambda db, step=step: step(db.conn))
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        conn.execute("PRAGMA journal_mode = WAL")
        steps.apply(Database(conn, execute_plugins=False))
        conn.execute(f"PRAGMA user_version = {version}")
        conn.execute("ATTACH ? AS current", (str(current),))
        for (table,) in conn.execute(
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE '%fts%' "
            "AND name NOT LIKE '\\_%' ESCAPE '\\'"
        ).fetchall():
            names = ", ".join(row[1] for row in conn.execute(f"PRAGMA main.table_info({table})"))
            conn.execute(
                f"INSERT OR REPLACE INTO main.{table} ({names}) SELECT {names} FROM current.{table}"
            )
    for file in path.parent.glob("current.db*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return stored_in(path)


@contextmanager
def copied(original: Path, folder: Path) -> Iterator[Path]:
    shutil.copytree(original.parent, folder)
    yield folder / original.name
    shutil.rmtree(folder)


def start(path: Path, argv: list[str], figures: Figures) -> tuple[RawClient, Message]:
    began = time.monotonic()
    client = RawClient(argv)
    ready = client.start(options())
    figures.slowest = max(figures.slowest, time.monotonic() - began)
    return client, ready


def look(path: Path, before: Stored, figures: Figures, what: str, mutation: str) -> None:
    """Start on the store: everything is there, in the current version, and goes on."""
    client, ready = start(path, patched(path, mutation), figures)
    try:
        if "degraded" in ready:
            figures.problems.append(f"{what}: {ready['degraded']}")
            return
        client.call("message/send", {"conversationId": "a", "input": "go on"})
        assert client.shut_down() == 0
        shown = [m["params"] for m in client.frames if m.get("method") == "window/showMessage"]
        figures.problems += [f"{what}: the user was told {message}" for message in shown]
    finally:
        client.dispose()
    figures.problems += [f"{what}: {line}" for line in differences(before, path)]


def differences(before: Stored, path: Path) -> list[str]:
    after = stored_in(path)
    found = [] if after.integrity == "ok" else [after.integrity]
    with closing(sqlite3.connect(path)) as conn:
        version = conn.execute("PRAGMA user_version").fetchone()[0]
    found += [f"is of version {version}"] * (version != SCHEMA_VERSION)
    for name in ("titles", "keys", "replies", "events"):
        old, new = getattr(before, name), getattr(after, name)
        for conversation, rows in old.items():
            if not is_kept(rows, new.get(conversation)):
                found.append(f"{name} of {conversation} differ")
    return found


def is_kept(old: Any, new: Any) -> bool:
    """Whether all is there as it was; more may have come."""
    if isinstance(old, dict):
        return isinstance(new, dict) and old.items() <= new.items()
    return bool(new == old or (isinstance(old, list) and new and new[: len(old)] == old))


def crash(path: Path, number: int, mutation: str) -> bool:
    """Have the migration die before its statement `number`; False when it has fewer."""
    client = RawClient(patched(path, mutation + DYING.format(left=number)))
    try:
        client.start(options())
        return False
    except AssertionError:
        assert client.exit_code() == DIED, client.told()
        return True
    finally:
        client.dispose()


def race(path: Path, before: Stored, figures: Figures) -> None:
    clients = [RawClient(command(path)) for _ in range(RACERS)]
    try:
        for client in clients:
            client.start_request("initialize", {"initializationOptions": options()})
        for client in clients:
            ready = client.notification("sidecar/ready")
            if "degraded" in ready:
                figures.problems.append(f"race: {ready['degraded']}")
    finally:
        for client in clients:
            client.dispose()
    figures.races += 1
    figures.problems += [f"race: {line}" for line in differences(before, path)]


def in_use(path: Path, figures: Figures) -> None:
    """While another sidecar has it open, an older store is left alone."""
    folder = path.with_name(path.name + ".instances")
    folder.mkdir()
    with (folder / "other.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = hash_of(path)
        client, ready = start(path, command(path), figures)
        try:
            error = client.error("conversation/list")
            if "older version" not in ready.get("degraded", "") or "Close" not in str(error):
                figures.problems.append(f"in use: {ready} {error}")
        finally:
            client.dispose()
        figures.problems += ["in use: changed"] * (hash_of(path) != before)


def one_version(
    folder: Path, version: int, figures: Figures, numbers: Iterator[int], mutation: str = ""
) -> None:
    original = folder / "original" / "c.db"
    original.parent.mkdir(parents=True)
    before = make_older(original, version)
    for number in numbers:
        with copied(original, folder / "crashed") as path:
            has_died = crash(path, number, mutation)
            if has_died:
                figures.crashes += 1
            look(path, before, figures, f"version {version}, statement {number}", mutation)
        if not has_died:
            break
    with copied(original, folder / "race") as path:
        race(path, before, figures)
    with copied(original, folder / "in-use") as path:
        in_use(path, figures)
    figures.versions += 1


def check(figures: Figures) -> str:
    line = f"migration: {figures.line()}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems[:20])
    assert figures.slowest <= START_LIMIT, line
    return line


def main(count: int = 1_000) -> str:
    """Every older version, with at most `count` crashes each."""
    if sys.platform == "win32":
        return "migration: not run, needs POSIX locks"
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        for version in range(1, SCHEMA_VERSION):
            one_version(Path(folder, str(version)), version, figures, iter(range(count)))
    return check(figures)


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000))  # noqa: T201
