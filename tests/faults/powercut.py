"""A power cut at any instant, by replaying what a sidecar asked of the disk (A2).

A sidecar works on a store under strace, is killed, works on and says goodbye. From the record
come images of the disk at random instants: everything that was synced, and of the rest any part,
perhaps torn. Each image is opened as at a start, and compared with what the sidecar had said
until that instant. Linux only.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from sidecar.errors import AgentError
from sidecar.stores.sqlite import SqliteStore
from tests.e2e.raw_client import RawClient, command
from tests.faults.disk import Disk, Op, frames_in, ops_of, strace
from tests.faults.harness import CONVERSATIONS, Oracle, Stored, options, seed_of, settle
from tests.faults.needs import missing

IMAGES_PER_RECORD = 250
Command = Callable[[Path], list[str]]


@dataclass
class Record:
    oracle: Oracle
    ops: list[Op]


@dataclass
class Figures:
    images: int = 0
    lossy: int = 0
    damaged: int = 0
    acked: int = 0
    """The acknowledged prompts of all images."""
    calls: int = 0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.images} images of {self.calls} calls, {self.acked} acknowledged prompts "
            f"looked for, {self.lossy} images with a loss, {self.damaged} damaged"
        )


# ---- recording ---------------------------------------------------------------------------------


def record(folder: Path, rng: random.Random, argv: Command = command) -> Record:
    store, oracle, ops = folder / "store" / "c.db", Oracle(), list[Op]()
    for number, live in enumerate((live_and_die, live_and_leave)):
        trace = folder / f"trace-{number}"
        client = RawClient(strace(trace, argv(store)))
        try:
            client.start(options())
            live(client, oracle, rng)
        finally:
            client.dispose()
            oracle.hear(client.frames)
        ops += [Op("start"), *ops_of(trace, store.parent)]
    return Record(oracle, ops)


def live_and_die(client: RawClient, oracle: Oracle, rng: random.Random) -> None:
    for name in (*CONVERSATIONS, "d0"):
        ask(client, oracle.create(name))
    busy(client, oracle, rng)
    client.send(*(oracle.prompt(name) for name in CONVERSATIONS))
    os.kill(client.call("sidecar/status")["pid"], signal.SIGKILL)
    client.exit_code()


def live_and_leave(client: RawClient, oracle: Oracle, rng: random.Random) -> None:
    for key in oracle.unacked():
        ask(client, oracle.repeat(key))
    ask(client, oracle.create("d1"))
    busy(client, oracle, rng)
    ask(client, oracle.prompt("d1"))
    ask(client, oracle.delete("d1"))
    oracle.hear(client.frames)
    settle(client, oracle, CONVERSATIONS)
    client.shut_down()


def busy(client: RawClient, oracle: Oracle, rng: random.Random) -> None:
    """Prompts that are waited for one by one, so that there are many instants between."""
    for number in range(12):
        ask(client, oracle.prompt(rng.choice(CONVERSATIONS)))
        if number == 6:
            ask(client, oracle.rename(rng.choice(CONVERSATIONS), f"title {len(oracle.asked)}"))
        if number == 8 and "d0" not in oracle.deleting:
            ask(client, oracle.delete("d0"))


def ask(client: RawClient, message: dict[str, object]) -> None:
    client.send(message)
    client.response(str(message["id"]))


# ---- images ------------------------------------------------------------------------------------


async def look_at_images(
    folder: Path, recorded: Record, count: int, rng: random.Random, figures: Figures
) -> None:
    cuts = sorted(rng.randrange(len(recorded.ops)) for _ in range(count))
    disk, said, done = Disk(), list[bytearray](), 0
    figures.calls += len(recorded.ops)
    for cut in cuts:
        for op in recorded.ops[done:cut]:
            disk.do(op)
            if op.kind == "start":
                said.append(bytearray())
            elif op.kind == "say":
                said[-1] += op.data
        done = max(done, cut)
        oracle = recorded.oracle.deaf()
        for stream in said:
            oracle.hear(frames_in(bytes(stream)))
        problems = await look_at(folder / "image", disk.image(rng), oracle)
        note(figures, oracle, [f"cut at {cut}: {line}" for line in problems])


def note(figures: Figures, oracle: Oracle, problems: Sequence[str]) -> None:
    figures.images += 1
    figures.acked += len(oracle.acked)
    figures.problems += problems
    figures.damaged += any("damage" in line or "integrity" in line for line in problems)
    figures.lossy += any("lost" in line or "back" in line for line in problems)


async def look_at(folder: Path, files: dict[str, bytearray], oracle: Oracle) -> list[str]:
    """Start on an image as a sidecar does; what is wrong with it."""
    lay_out(folder, files)
    try:
        store = await SqliteStore.open(folder / "c.db", lambda _: None)
        try:
            await store.recover()
        finally:
            await store.aclose()
        found = oracle.compare(Stored.read(folder / "c.db"))
    except (AgentError, sqlite3.Error) as error:
        return [f"damaged: {error!r}"]
    return found + [f"damaged: {store.notice}"] * bool(store.notice)


def lay_out(folder: Path, files: dict[str, bytearray]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


async def experiment(
    folder: Path, count: int, seed: int | None = None, argv: Command = command
) -> tuple[int, Figures]:
    seed, rng = seed_of(seed)
    figures = Figures()
    while figures.images < count:
        inner = folder / str(figures.images)
        inner.mkdir()
        recorded = record(inner, rng, argv)
        images = min(IMAGES_PER_RECORD, count - figures.images)
        await look_at_images(inner, recorded, images, rng, figures)
    return seed, figures


def main(count: int = 1_000, seed: int | None = None) -> str:
    if reason := missing("strace"):
        return f"powercut: not run, {reason}"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seed, figures = anyio.run(experiment, Path(folder), count, seed)
    line = f"powercut: {figures.line()}; {time.monotonic() - began:.0f} s; seed {seed}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems[:20])
    return line


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))  # noqa: T201
