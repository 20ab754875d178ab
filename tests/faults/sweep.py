"""The N-th call of the disk fails, for every N (A4).

A sidecar lives a short life under strace, which makes one kind of call on the store's files fail
with one error the N-th time that a thread makes it. Every request is to be answered, the process
is to leave as asked, and what is stored then is compared with what was acknowledged. After a sync
that failed, nothing is written before the connection was opened anew. Linux only.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from sidecar.errors import AgentError
from sidecar.stores.sqlite import SqliteStore
from tests.e2e.raw_client import Message, RawClient
from tests.faults.harness import Oracle, options, patched, seed_of, stored_in
from tests.faults.needs import missing

CALLS = (
    "openat",
    "pwrite64",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "unlink",
    "rename",
    "mmap",
)
ERRORS = ("EIO", "ENOSPC", "EINTR", "EDQUOT", "EACCES")
FILES = (
    "",
    "-wal",
    "-shm",
    ".lock",
    ".instances",
    ".instances/life.lock",
    ".copy-life",
    ".backup",
)

HASTY = """
from sidecar import agent, reply
from sidecar.stores import owners, upkeep
owners.new_id = lambda: "life"
agent.RETRY_INTERVAL = reply.RETRY_INTERVAL = 0.1
upkeep.FIRST_LOOK = upkeep.TOGETHER = 0.0
"""
"""What waits for seconds, so that a life of a second has it all; and names known beforehand."""

CARELESS = """
import sqlite3
from sidecar.stores.database import Database
write = Database.write
class Swallows:
    def __init__(self, conn): self.conn = conn
    def __getattr__(self, name): return getattr(self.conn, name)
    def execute(self, statement, *args):
        try:
            return self.conn.execute(statement, *args)
        except sqlite3.Error:
            if statement != "COMMIT": raise
def careless(self, *args, **kwargs):
    if not isinstance(self.conn, Swallows): self.conn = Swallows(self.conn)
    return write(self, *args, **kwargs)
Database.write = careless
"""
"""A commit's error is swallowed: acknowledged, but not stored."""

TRUSTING = """
from sidecar.stores.database import Database
Database._mend = lambda self: None
"""
"""A connection that had an I/O error is used on."""

Command = Callable[[Path], list[str]]


def hasty(store: Path) -> list[str]:
    return patched(store, HASTY)


@dataclass(frozen=True)
class Point:
    call: str
    error: str
    number: int

    def __str__(self) -> str:
        return f"{self.call}:error={self.error}:when={self.number}"


@dataclass
class Figures:
    points: int = 0
    of: int = 0
    """How many there are."""
    hit: int = 0
    """In how many the call that was to fail came to pass."""
    refused: int = 0
    """Requests that were answered with an error."""
    acked: int = 0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.points} of {self.of} points, {self.hit} calls failed, "
            f"{self.refused} requests refused, {self.acked} acknowledged prompts, "
            f"{len(self.problems)} lost, damaged, unanswered or crashed"
        )


# ---- one life ----------------------------------------------------------------------------------


def failing(trace: Path, store: Path, argv: Sequence[str], point: Point | None) -> list[str]:
    paths = [word for suffix in FILES for word in ("-P", f"{store}{suffix}")]
    inject = [] if point is None else ["-e", f"inject={point}"]
    flags = ["-f", "--seccomp-bpf", "-y", "-o", str(trace), "-e", f"trace={','.join(CALLS)}"]
    return ["strace", *flags, *paths, *inject, *argv]


def live(client: RawClient, oracle: Oracle) -> int:
    """Ask one thing after the other; returns how many were refused. Whatever was refused before
    its commit is the client's to repeat; here nobody does."""
    client.start(options())
    refused = 0

    def ask(message: Message) -> Message:
        nonlocal refused
        client.send(message)
        answer = client.response(message["id"])
        refused += "error" in answer
        oracle.hear(client.frames)
        return answer

    for name in ("a", "b"):
        ask(oracle.create(name))
    for name in ("a", "a", "b"):
        wait_for_end(client, name, ask(oracle.prompt(name)))
    ask(oracle.rename("a", "title 1"))
    ask(oracle.delete("b"))
    wait_for_end(client, "a", ask(oracle.prompt("a")))
    return refused


def wait_for_end(client: RawClient, name: str, answer: Message) -> None:
    if "result" in answer:
        client.event(name, "turnEnded", messageId=answer["result"]["messageId"])


def one(folder: Path, point: Point | None, figures: Figures, argv: Command = hasty) -> Counter[str]:
    """A life on a new store; returns how often each call was made."""
    store, trace, oracle = folder / "store" / "c.db", folder / "trace", Oracle()
    store.parent.mkdir(parents=True)
    client = RawClient(failing(trace, store, argv(store), point))
    try:
        figures.refused += live(client, oracle)
        code = client.shut_down()
        found = [] if code == 0 else [f"exit code {code}; {client.told()}"]
    except AssertionError as error:
        found = [f"not answered: {error}"]
    finally:
        client.dispose()
        oracle.hear(client.frames)
    lines = calls_in(trace)
    found += what_is_wrong(client, store, oracle)
    if point is not None and point.call in ("fsync", "fdatasync"):
        found += trusted(lines, store)
    figures.points += 1
    figures.hit += any("(INJECTED)" in line for line in lines)
    figures.acked += len(oracle.acked)
    figures.problems += [f"{point}: {line}" for line in found]
    return Counter(line.partition("(")[0] for line in lines)


def calls_in(trace: Path) -> list[str]:
    text = trace.read_text(encoding="utf-8", errors="replace")
    return [found[1] for found in re.finditer(r"^\d+ +(\w+\(.*)$", text, re.MULTILINE)]


def what_is_wrong(client: RawClient, store: Path, oracle: Oracle) -> list[str]:
    found = []
    try:
        client.check_promises()
    except AssertionError as error:
        found.append(f"wire: {error}")
    if not store.exists() or store.stat().st_size == 0:
        return found + ["lost: everything"] * bool(oracle.acked or oracle.created)
    try:
        found += oracle.compare(stored_in(store))
        anyio.run(open_again, store)
        found += oracle.compare(stored_in(store))
    except (AgentError, sqlite3.Error, AssertionError) as error:
        if oracle.acked or oracle.created or "no such table" not in str(error):
            found.append(f"damaged: {error!r}")
    return found


async def open_again(store: Path) -> None:
    """The next start finds nothing to say."""
    opened = await SqliteStore.open(store, lambda _: None)
    await opened.recover()
    await opened.aclose()
    assert opened.degraded is None, opened.degraded
    assert opened.notice is None, opened.notice
    with closing(sqlite3.connect(store)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def trusted(lines: Sequence[str], store: Path) -> list[str]:
    """After a sync of the journal failed, a write to it needs a connection opened since. (Its own
    file may be the old one: SQLite keeps what it has locks on.)"""
    failed = next(
        (at for at, line in enumerate(lines) if "(INJECTED)" in line and f"{store}-wal>" in line),
        None,
    )
    for line in lines[failed + 1 :] if failed is not None else []:
        if line.startswith("openat(") and f'{store}-wal"' in line:
            break
        if line.startswith("pwrite64(") and f"{store}-wal>" in line:
            return ["a connection was trusted after a sync that failed"]
    return []


# ---- the sweep ---------------------------------------------------------------------------------


def points_of(counts: Counter[str]) -> list[Point]:
    """One for each call that a life makes, and some more: a failure may need further calls."""
    return [
        Point(call, error, number)
        for call in CALLS
        for error in ERRORS
        for number in range(1, counts[call] + 2)
    ]


def experiment(
    folder: Path, count: int, seed: int | None = None, argv: Command = hasty
) -> tuple[int, Figures]:
    """All points, or `count` of them that were drawn."""
    seed, rng = seed_of(seed)
    figures = Figures()
    points = points_of(one(folder / "clean", None, figures, argv))
    chosen = points if count >= len(points) else rng.sample(points, count)
    figures.points, figures.of = 0, len(points)
    for number, point in enumerate(chosen):
        one(folder / str(number), point, figures, argv)
    return seed, figures


def main(count: int = 10_000, seed: int | None = None) -> str:
    if reason := missing("strace"):
        return f"sweep: not run, {reason}"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seed, figures = experiment(Path(folder), count, seed)
    line = f"sweep: {figures.line()}; {time.monotonic() - began:.0f} s; seed {seed}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems[:20])
    return line


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))  # noqa: T201
