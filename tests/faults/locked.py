"""Another program holds the store for a while (A7).

A process of its own begins a transaction on the file, or takes the lock that all sidecars write
under, and keeps it. Meanwhile prompts are sent and a turn streams: none may be acknowledged
before it is stored, everything else must answer as ever, the user must be told, and all must be
stored soon after the release. A holder that stays for too long gets every prompt refused.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.raw_client import Message, RawClient, command
from tests.faults.harness import Oracle, options, patched, settle, stored_in

HOLDER = """
import fcntl, os, sqlite3, sys
path, how = sys.argv[1:]
if how == "LOCK":
    fd = os.open(path + ".lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
else:
    conn = sqlite3.connect(path, isolation_level=None, timeout=20)
    conn.execute("BEGIN " + how)
print("held", flush=True)
sys.stdin.read()
"""
WAYS = ("IMMEDIATE", "EXCLUSIVE", "LOCK")
PROMPTS = 6
PING_LIMIT, RELEASE_LIMIT, REFUSAL_LIMIT = 0.1, 2.0, 2.0
"""Seconds: a ping meanwhile (p99), until all is stored, and for a refusal after the limit."""

SOON = """
from sidecar.stores import database
database.TELL_AFTER = 0.4
"""
"""The user is told sooner than the product does."""

SHORT = """
from sidecar.stores import database
database.BUSY_LIMIT = 1.5
"""
"""The limit of the product, lowered."""

ASSURING = """
import asyncio
from sidecar.conversations import Receipt
from sidecar.ids import new_id
from sidecar.stores.sql import SqlStore
enqueue = SqlStore.enqueue
async def early(self, *args, **kwargs):
    task = asyncio.ensure_future(enqueue(self, *args, **kwargs))
    done, _ = await asyncio.wait([task], timeout=0.3)
    return task.result() if done else Receipt(message_id=new_id(), position=0)
SqlStore.enqueue = early
"""
"""A prompt that waits for too long is acknowledged all the same."""

EACH_FOR_ITSELF = """
from sidecar.stores.database import Database
write = Database.write
Database.write = lambda self, work, *, until=None: write(self, work)
"""
"""Who waits behind others waits for the limit once for each of them."""

BLOCKING = """
from sidecar.stores import sqlite
from sidecar.stores.lane import InlineLane
class Inline(InlineLane):
    def __init__(self, name): pass
sqlite.ThreadLane = Inline
"""
"""The event loop waits for the disk."""

MUTE = """
from sidecar.reply import Flusher
Flusher.held = lambda self, is_held: None
"""
"""Nobody is told."""

Command = Callable[[Path], list[str]]


def short(store: Path) -> list[str]:
    return patched(store, SHORT)


@dataclass
class Figures:
    holds: int = 0
    held: float = 0.0
    acked: int = 0
    pings: list[float] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return sorted(self.pings)[len(self.pings) * 99 // 100] if self.pings else 0.0

    def line(self) -> str:
        return (
            f"{self.holds} holds of {self.held:g} s, {self.acked} prompts, all stored "
            f"{max(self.stored, default=0):.2f} s after the release, ping p99 "
            f"{self.p99 * 1000:.0f} ms of {len(self.pings)}, {len(self.refusals)} refused "
            f"{max(self.refusals, default=0):.2f} s after the limit, "
            f"{len(self.problems)} lost or acknowledged too early"
        )


@contextmanager
def holding(store: Path, how: str) -> Iterator[None]:
    """Until the end of the block, unless it was released before."""
    argv = [sys.executable, "-I", "-c", HOLDER, str(store), how]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.kill()


def answered(client: RawClient, messages: Sequence[Message]) -> list[Message]:
    ids = {message["id"] for message in messages}
    return [m for m in client.frames if "method" not in m and m.get("id") in ids]


def pinged(client: RawClient, seconds: float) -> Iterator[float]:
    """How long a ping takes, for so long: of the process, and of what reads the store."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for method, params in (
            ("agent/count", None),
            ("conversation/get", {"conversationId": "a"}),
        ):
            began = time.monotonic()
            client.call(method, params)
            yield time.monotonic() - began
        time.sleep(0.01)


def hold(client: RawClient, oracle: Oracle, store: Path, how: str, figures: Figures) -> None:
    """A turn streams, somebody takes the store, prompts are sent; then it is given back."""
    before = len(client.frames)
    first = oracle.prompt("a")
    client.send(first)
    client.event("a", "delta", after=before)
    with holding(store, how):
        sent = [oracle.prompt(name) for name in ("b", "c") for _ in range(PROMPTS // 2)]
        client.send(*sent)
        figures.pings += pinged(client, figures.held)
        client.notification("window/showMessage", after=before, type=2)
        figures.problems += [f"{how}: answered early: {m}" for m in answered(client, sent)]
    released = time.monotonic()
    answers = [client.response(message["id"]) for message in sent]
    figures.problems += [f"{how}: refused: {m}" for m in answers if "error" in m]
    figures.stored.append(time.monotonic() - released)
    client.notification("window/showMessage", after=before, type=3)
    shown = [m["params"]["type"] for m in client.frames[before:]
             if m.get("method") == "window/showMessage"]  # fmt: skip
    figures.problems += [f"{how}: the user was told {shown}"] * (shown != [2, 3])
    client.event("a", "turnEnded", after=before)
    figures.holds += 1


def outlast(client: RawClient, oracle: Oracle, store: Path, how: str, figures: Figures) -> None:
    """The holder stays for longer than the limit: every prompt is refused, none is swallowed."""
    with holding(store, how):
        began = time.monotonic()
        sent = [oracle.prompt("d") for _ in range(PROMPTS)]
        client.send(*sent)
        for message in sent:
            answer = client.response(message["id"])
            figures.refusals.append(time.monotonic() - began - 1.5)
            error = answer.get("error", {})
            if error.get("data", {}).get("type") != "STORE_UNAVAILABLE":
                figures.problems.append(f"{how}: not refused: {answer}")
            elif not (error["data"]["retryable"] and error["data"]["hint"]):
                figures.problems.append(f"{how}: says not what to do: {error}")
    oracle.hear(client.frames)
    for key in oracle.unacked():
        message = oracle.repeat(key)
        client.send(message)
        if "error" in (answer := client.response(message["id"])):
            figures.problems.append(f"{how}: refused afterwards: {answer}")


def run(
    store: Path, ways: Sequence[str], act: Callable[..., None], figures: Figures, argv: list[str]
) -> None:
    oracle, names = Oracle(), ("a", "b", "c", "d")
    client = RawClient(argv)
    try:
        client.start(options())
        for name in names:
            message = oracle.create(name)
            client.send(message)
            client.response(message["id"])
        for how in ways:
            act(client, oracle, store, how, figures)
            oracle.hear(client.frames)
            figures.problems += oracle.compare(stored_in(store))
        settle(client, oracle, names)
        client.check_promises()
        assert client.shut_down() == 0
    finally:
        client.dispose()
    oracle.hear(client.frames)
    figures.problems += oracle.compare(stored_in(store), settled=True)
    figures.acked += len(oracle.acked)


def holds(folder: Path, seconds: float, ways: Sequence[str], argv: Command = command) -> Figures:
    figures = Figures(held=seconds)
    run(folder / "c.db", ways, hold, figures, argv(folder / "c.db"))
    return figures


def outlasts(
    folder: Path, ways: Sequence[str], argv: Command = short, figures: Figures | None = None
) -> Figures:
    figures = figures or Figures()
    run(folder / "c.db", ways, outlast, figures, argv(folder / "c.db"))
    return figures


def check(figures: Figures) -> str:
    line = f"locked: {figures.line()}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems[:20])
    assert figures.p99 <= PING_LIMIT, line
    assert max(figures.stored, default=0) <= RELEASE_LIMIT, line
    assert max(figures.refusals, default=0) <= REFUSAL_LIMIT, line
    return line


def main(seconds: int = 30) -> str:
    """Each way once, for `seconds`."""
    if sys.platform == "win32":
        return "locked: not run, needs POSIX locks"
    with tempfile.TemporaryDirectory() as folder:
        figures = holds(Path(folder, "holds"), seconds, WAYS)
        return check(outlasts(Path(folder, "outlasts"), WAYS, figures=figures))


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))  # noqa: T201
