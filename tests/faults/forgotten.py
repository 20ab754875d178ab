"""Whether a deleted conversation is gone: its words in the raw bytes of every file (P4).

A conversation is filled with words that stand nowhere else, in every field that takes text; its
sidecar indexes it and backs the store up. Then it is deleted, by a client that waits or by one
whose sidecar is killed in the middle, alone or beside a second window. Within a minute no file of
the store's folder may hold any of the words, and the bytes must be back.
"""

from __future__ import annotations

import random
import sqlite3
import string
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.stores.backup import backup_of
from tests.e2e.raw_client import RawClient, command, request
from tests.faults.harness import options, patched, seed_of

LIMIT = 60.0
SLACK = 256 << 10
"""Bytes that a store may be larger than one in which there never was more."""
TURNS = 6
LATEST_KILL = 0.15
"""Seconds after the request within which a sidecar is killed."""

HASTY = """
from sidecar.stores import upkeep
upkeep.FIRST_LOOK = upkeep.TOGETHER = 0.1
"""
"""What comes seconds later comes at once."""

NO_PURGE = """
from sidecar.stores.sql import SqlStore
async def forget_deleted(self): self._deleted = __import__("anyio").Event()
SqlStore.forget_deleted = forget_deleted
"""
BACKUP_KEPT = """
from sidecar.stores.sql import SqlStore
SqlStore._discard_backup = lambda self: None
"""
NOT_OVERWRITTEN = """
from sidecar.stores import files
connect = files.connect
def careless(path, *, query_only=False):
    conn = connect(path, query_only=query_only)
    conn.execute("PRAGMA secure_delete = OFF")
    return conn
files.connect = careless
"""
JOURNAL_KEPT = """
from sidecar.stores.sql import SqlStore
async def shrink(self): pass
SqlStore.shrink = shrink
"""

Command = Callable[[Path], list[str]]


@dataclass
class Figures:
    deletions: int = 0
    kills: int = 0
    slowest: float = 0.0
    words: int = 0
    returned: int = 0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.deletions} deletions ({self.kills} killed in the middle), {self.words} words "
            f"looked for in every file, gone within {self.slowest:.1f} s, "
            f"{self.returned >> 10} KiB given back, {len(self.problems)} left"
        )


def word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=24))


def fill(client: RawClient, name: str, words: Sequence[str]) -> None:
    """A conversation that has these words in its title, prompts, files, replies and queue."""
    title, *rest = words
    client.call("conversation/create", {"conversationId": name, "title": title})
    for text in rest[:TURNS]:
        params = {
            "conversationId": name,
            "input": f"{text} " * 200,
            "contextFiles": [{"uri": f"file:///{rest[-2]}.py", "text": rest[-1]}],
            "systemInstruction": rest[-3],
            "requestKey": text,
        }
        client.call("message/send", params)


def left_in(folder: Path, words: Sequence[str]) -> list[str]:
    """Files that hold a word. Its end is enough: an index leaves out what words begin with."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file():
            try:
                data = file.read_bytes()
            except FileNotFoundError:
                continue  # it is gone meanwhile, and what it held
            found += [f"{w} in {file.name}" for w in words if w[-12:].encode() in data]
    return found


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def wait_until_gone(folder: Path, words: Sequence[str], limit: float) -> tuple[float, list[str]]:
    """How long it took, and what is left after the limit."""
    began = time.monotonic()
    while (left := left_in(folder, words)) and time.monotonic() - began < limit:
        time.sleep(0.05)
    return time.monotonic() - began, left


def back_up(store: Path) -> None:
    """Let the words be in the backup as well: wait for the sidecar's own, which was made before
    them, and put a newer one in its place."""
    deadline = time.monotonic() + LIMIT
    while not backup_of(store).exists():
        assert time.monotonic() < deadline, "no backup was made"
        time.sleep(0.02)
    copy = store.parent.with_name(f"{store.parent.name}-copy")  # where no sidecar tidies up
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    copy.replace(backup_of(store))


def delete(client: RawClient, rng: random.Random, is_killed: bool) -> None:
    if not is_killed:
        client.call("conversation/delete", {"conversationId": "gone"})
        return
    client.send(request("delete", "conversation/delete", {"conversationId": "gone"}))
    time.sleep(rng.uniform(0, LATEST_KILL))
    client.kill()


def start(stack: ExitStack, argv: list[str]) -> RawClient:
    client = RawClient(argv)
    stack.callback(client.dispose)
    client.start(options(script=[{"text": "{input}"}]))
    return client


def one(
    folder: Path,
    rng: random.Random,
    figures: Figures,
    argv: Command,
    *,
    is_killed: bool,
    has_window: bool,
    limit: float = LIMIT,
) -> None:
    store = folder / "c.db"
    words = [word(rng) for _ in range(TURNS + 4)]
    with ExitStack() as stack:
        client = start(stack, argv(store))
        window = start(stack, argv(store)) if has_window else None
        client.call("conversation/create", {"conversationId": "kept"})
        client.call("message/send", {"conversationId": "kept", "input": "kept"})
        empty = size_of(folder)
        fill(client, "gone", words)
        if rng.random() < 0.7:
            assert client.call("conversation/search", {"query": words[1]})["hits"]
        back_up(store)
        before = size_of(folder)
        delete(client, rng, is_killed)
        if is_killed:
            figures.kills += 1
            client = start(stack, argv(store))
            names = [c["conversationId"] for c in client.call("conversation/list")["conversations"]]
            if "gone" in names:
                client.call("conversation/delete", {"conversationId": "gone"})
        seconds, left = wait_until_gone(folder, words, limit)
        figures.slowest = max(figures.slowest, seconds)
        figures.problems += left[:3]
        for living in filter(None, (client, window)):
            assert living.shut_down() == 0
        figures.problems += [f"at rest: {line}" for line in left_in(folder, words)[:3]]
        after = size_of(folder)
        # What is kept is there twice, in the store and in its backup.
        if after > 2 * empty + SLACK:
            figures.problems.append(f"{after} bytes are left of {before}; {empty} before")
        figures.returned += before - after
    figures.words += len(words)
    figures.deletions += 1


def experiment(
    folder: Path, count: int, seed: int | None = None, argv: Command = command
) -> tuple[int, Figures]:
    seed, rng = seed_of(seed)
    figures = Figures()
    for number in range(count):
        inner = folder / str(number)
        inner.mkdir()
        one(inner, rng, figures, argv, is_killed=number % 2 == 1, has_window=number % 3 == 2)
        if figures.problems:
            break
    return seed, figures


def check(figures: Figures) -> str:
    line = f"forgotten: {figures.line()}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems)
    return line


def main(count: int = 100, seed: int | None = None) -> str:
    with tempfile.TemporaryDirectory() as folder:
        seed, figures = experiment(Path(folder), count, seed)
    return f"{check(figures)}; seed {seed}"


def hasty(store: Path) -> list[str]:
    return patched(store, HASTY)


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 6))  # noqa: T201
