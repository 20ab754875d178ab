"""Ten windows that write to one store at the same time (A8): half of each window's prompts go
into a conversation of its own, half into one that all share."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.raw_client import Message, RawClient, command
from tests.faults.harness import REPEAT, Oracle, options, settle, stored_in

WINDOWS = 10
TOGETHER = 10
"""Prompts that a window sends before it waits for their answers."""
QUICK = options(script=[{"text": "{input} ", "repeat": REPEAT}], maxQueueLength=100_000)


@dataclass
class Figures:
    prompts: int = 0
    failed: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    """The longest that a window waited for the answers to what it sent together."""
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{WINDOWS} windows, {self.prompts} prompts in {self.seconds:.0f} s, "
            f"{self.failed} failed, {len(self.problems)} lost, doubled, reordered or forked; "
            f"slowest answer {self.slowest:.2f} s"
        )


def experiment(folder: Path, count: int) -> Figures:
    """`count` prompts in each window."""
    store, oracle = folder / "store" / "c.db", Oracle()
    names = [f"w{number}" for number in range(WINDOWS)]
    with ThreadPoolExecutor(WINDOWS) as pool:
        clients = list(pool.map(lambda _: RawClient(command(store)), names))
        try:
            list(pool.map(lambda client: client.start(QUICK), clients))
            return play(store, oracle, dict(zip(names, clients, strict=True)), count, pool)
        finally:
            for client in clients:
                client.dispose()


def play(
    store: Path,
    oracle: Oracle,
    windows: dict[str, RawClient],
    count: int,
    pool: ThreadPoolExecutor,
) -> Figures:
    first, *_ = windows.values()
    for name in (*windows, "shared"):
        message = oracle.create(name)
        first.send(message)
        first.response(message["id"])
    plans = {
        name: [oracle.prompt(("shared", name)[n % 2], sender=name) for n in range(count)]
        for name in windows
    }
    began = time.monotonic()
    waits = list(pool.map(lambda name: send_all(windows[name], plans[name]), windows))
    for client in windows.values():
        oracle.hear(client.frames)
    figures = Figures(
        prompts=len(oracle.sent), failed=len(oracle.unacked()), slowest=max(map(max, waits))
    )
    settle(first, oracle, (*windows, "shared"))
    figures.seconds = time.monotonic() - began
    for client in windows.values():
        assert client.shut_down() == 0
        oracle.hear(client.frames)
        client.check_promises()
    figures.problems = oracle.compare(stored_in(store), settled=True)
    return figures


def send_all(client: RawClient, messages: Sequence[Message]) -> list[float]:
    """How long each handful took to be answered."""
    waits = []
    for start in range(0, len(messages), TOGETHER):
        sent, handful = time.monotonic(), messages[start : start + TOGETHER]
        client.send(*handful)
        for message in handful:
            client.response(message["id"])
        waits.append(time.monotonic() - sent)
    return waits


def main(count: int = 200) -> str:
    with tempfile.TemporaryDirectory() as folder:
        figures = experiment(Path(folder), count)
    line = f"writers: {figures.line()}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems[:20])
    assert not figures.failed, line
    return line


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))  # noqa: T201
