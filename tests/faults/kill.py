"""SIGKILL at a random instant under load, a thousand times (A1).

Each run starts a sidecar on the store that the one before was killed on. It sends everything at
once (prompts in four conversations, the unanswered ones of before and some answered ones again
under their request keys, renames, settings, a conversation made and one deleted), kills the
process some time later, in the start or under load, and compares the files with what was
acknowledged. After some runs everything may end, and every turn must have had its end.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.raw_client import Message, RawClient, command, request
from tests.faults.harness import (
    CONVERSATIONS,
    Oracle,
    options,
    seed_of,
    settle,
    stored_in,
)

RUNS_PER_STORE = 20
MOST_UNENDED = 24
"""Prompts that may wait before no more are added."""
IN_THE_START, UNDER_LOAD = 0.3, 0.3
"""Seconds after the spawn, or after `sidecar/ready`, within which the process is killed."""

Command = Callable[[Path], list[str]]


@dataclass
class Figures:
    kills: int = 0
    acked: int = 0
    repeated: int = 0
    interrupted: int = 0
    ready: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        ready = sorted(self.ready) or [0.0]
        return (
            f"{self.kills} kills, {self.acked} acknowledged prompts "
            f"({self.repeated} sent again, {self.interrupted} turns interrupted), "
            f"{len(self.problems)} lost, doubled, reordered or damaged; "
            f"ready p95 {ready[len(ready) * 95 // 100]:.2f} s"
        )


def load(oracle: Oracle, rng: random.Random, run: int) -> list[Message]:
    """What one run sends, in one piece."""
    again = oracle.unacked() + rng.sample(sorted(oracle.acked), min(2, len(oracle.acked)))
    again = [key for key in again if oracle.sent[key].conversation not in oracle.deleting]
    messages = [oracle.repeat(key) for key in dict.fromkeys(again)]
    if unended(oracle) < MOST_UNENDED:
        messages += [oracle.prompt(name) for name in CONVERSATIONS for _ in range(2)]
    settings = {"maxActiveAgents": rng.choice([3, 4, 10]), "inactivityTimeout": 60_000 + run}
    messages.append(request(f"settings-{run}", "settings/update", {"settings": settings}))
    messages.append(oracle.rename(rng.choice(CONVERSATIONS), f"title {run}"))
    for name in sorted(oracle.created - set(CONVERSATIONS) - oracle.deleted):
        messages += [oracle.prompt(name), oracle.delete(name)]
    return [*messages, oracle.create(f"d{run}")]


def unended(oracle: Oracle) -> int:
    ended = {e["messageId"] for e in oracle.events.values() if e["type"] == "turnEnded"}
    return sum(message_id not in ended for message_id in oracle.acked.values())


def one_store(store: Path, runs: int, rng: random.Random, figures: Figures, argv: Command) -> None:
    oracle = Oracle()
    with_sidecar(argv(store), lambda client: begin(client, oracle), oracle)
    for run in range(runs):
        kill_once(store, oracle, rng, run, figures, argv)
        if figures.problems:
            return
    with_sidecar(argv(store), lambda client: finish(client, oracle), oracle)
    stored = stored_in(store)
    figures.problems += oracle.compare(stored, settled=True)
    figures.acked += len(oracle.acked)
    figures.repeated += oracle.repeats
    figures.interrupted += sum(
        status == "interrupted" for replies in stored.replies.values() for _, status, _ in replies
    )


def with_sidecar(argv: list[str], act: Callable[[RawClient], None], oracle: Oracle) -> None:
    client = RawClient(argv)
    try:
        act(client)
    finally:
        client.dispose()
        oracle.hear(client.frames)
    client.check_promises()


def begin(client: RawClient, oracle: Oracle) -> None:
    client.start(options())
    for name in CONVERSATIONS:
        message = oracle.create(name)
        client.send(message)
        client.response(message["id"])


def finish(client: RawClient, oracle: Oracle) -> None:
    client.start(options())
    settle(client, oracle, CONVERSATIONS)
    assert client.shut_down() == 0


def kill_once(
    store: Path, oracle: Oracle, rng: random.Random, run: int, figures: Figures, argv: Command
) -> None:
    messages = load(oracle, rng, run)
    subscribe = [
        request(f"subscribe-{name}", "conversation/subscribe", {"conversationId": name})
        for name in CONVERSATIONS
    ]
    first = request("first", "initialize", {"initializationOptions": options()})
    spawned = time.monotonic()
    client = RawClient(argv(store))
    try:
        client.send(first, {"jsonrpc": "2.0", "method": "initialized"}, *subscribe, *messages)
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0, IN_THE_START))
        else:
            client.notification("sidecar/ready")
            figures.ready.append(time.monotonic() - spawned)
            time.sleep(rng.uniform(0, UNDER_LOAD))
        client.kill()
    finally:
        client.dispose()
    # What was written before the kill is an ack, even the part of it that only we can see now.
    oracle.hear(client.frames)
    figures.kills += 1
    figures.problems += [f"run {run}: {line}" for line in oracle.compare(stored_in(store))]


def experiment(
    folder: Path, count: int, seed: int | None = None, argv: Command = command
) -> tuple[int, Figures]:
    seed, rng = seed_of(seed)
    figures = Figures()
    while figures.kills < count and not figures.problems:
        store = folder / str(figures.kills) / "c.db"
        runs = min(RUNS_PER_STORE, count - figures.kills)
        one_store(store, runs, rng, figures, argv)
    return seed, figures


def main(count: int = 1_000, seed: int | None = None) -> str:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seed, figures = experiment(Path(folder), count, seed)
    line = f"kill: {figures.line()}; {time.monotonic() - began:.0f} s; seed {seed}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems[:20])
    return line


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))  # noqa: T201
