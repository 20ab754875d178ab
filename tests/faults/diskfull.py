"""A disk that is full in the middle of a turn, and then is not any more (A3).

The store is on a disk of a few MiB. While agents stream, a neighbour fills what is left: prompts
are refused until it is gone, the turns go on, their ends wait. Nothing that was acknowledged may
be lost, and the user is told once that nothing can be saved and once that it can. Root's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.e2e.raw_client import Message, RawClient, command
from tests.faults.harness import REPEAT, Oracle, answer_to, options, settle, stored_in
from tests.faults.mounts import MIB, fill, small_disk, why_not_mount

SIZES = (2, 4, 8)
STREAMING = ("a", "b")
REFUSAL_LIMIT, RESUME_LIMIT, GROWTH_LIMIT = 2.0, 5.0, 32 * MIB
"""Seconds for a refusal; seconds from the room to the ends; bytes of memory meanwhile."""
SLOW = options(script=[{"text": "{input} ", "repeat": REPEAT, "delayMs": 100}])
PADDING = "x" * 2_000

CHATTY = """
from sidecar.reply import Flusher
def failed(self, error):
    self._failing = True
    self._on_degraded(error.message)
Flusher.failed = failed
"""
"""Each failure is told, not only the first."""

IMPATIENT = """
import anyio
from sidecar import agent
async def commit_end(self, started, outcome):
    try:
        await self._host.store.end_turn(self.conversation_id, started.turn_id, outcome)
    except agent.PersistenceFailed as error:
        self._host.flusher.failed(error)
agent.Agent._commit_end = commit_end
"""
"""An end that cannot be committed is given up."""

Command = Callable[[Path], list[str]]


@dataclass
class Figures:
    episodes: int = 0
    acked: int = 0
    refusals: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    growth: int = 0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.episodes} episodes, {self.acked} acknowledged prompts, "
            f"{len(self.refusals)} refused within {max(self.refusals, default=0):.2f} s, ends "
            f"committed {max(self.resumed, default=0):.2f} s after there was room, "
            f"{self.growth / MIB:.1f} MiB grown, {len(self.problems)} lost or told wrongly"
        )


def prompt(oracle: Oracle, conversation: str) -> Message:
    """One that fills pages."""
    message = oracle.prompt(conversation)
    key = message["params"]["requestKey"]
    oracle.sent[key] = replace(oracle.sent[key], text=f"{oracle.sent[key].text} {PADDING}")
    return oracle.repeat(key)


def ask(client: RawClient, message: Message) -> Message:
    client.send(message)
    return client.response(message["id"])


def episode(client: RawClient, oracle: Oracle, disk: Path, figures: Figures) -> None:
    """Fill the disk while turns run, wait until their text has ended, make room."""
    before, rss = len(client.frames), client.rss()
    running = [start(client, oracle, name) for name in STREAMING]
    ballast = fill(disk)
    figures.refusals.append(until_refused(client, oracle))
    full = len(client.frames)
    client.notification("window/showMessage", after=before, type=2)
    for name, message_id, text in running:
        wait_for_text(client, name, text, before)
        figures.problems += [
            f"{name} ended before that was stored"
            for event in client.events(name)
            if event["type"] == "turnEnded" and event["messageId"] == message_id
        ]
    figures.growth = max(figures.growth, client.rss() - rss)
    ballast.unlink()
    freed = time.monotonic()
    for name, message_id, _ in running:
        end = client.event(name, "turnEnded", after=full, messageId=message_id)
        figures.problems += [f"{name}: {end}"] * (end["stopReason"] != "endTurn")
    figures.resumed.append(time.monotonic() - freed)
    client.notification("window/showMessage", after=before, type=3)
    figures.problems += [f"refused afterwards: {m}" for m in sends(client, oracle) if "error" in m]
    figures.problems += told_wrongly(client.frames[before:])
    figures.episodes += 1


def start(client: RawClient, oracle: Oracle, name: str) -> tuple[str, str, str]:
    """A turn whose first text is there: its conversation, its prompt's id and its whole text."""
    message = prompt(oracle, name)
    after = len(client.frames)
    message_id = ask(client, message)["result"]["messageId"]
    client.event(name, "delta", after=after)
    return name, message_id, answer_to(message["params"]["input"])


def until_refused(client: RawClient, oracle: Oracle) -> float:
    """Send until there is no room; how long the refusal took."""
    while True:
        message = prompt(oracle, "other")
        began = time.monotonic()
        answer = ask(client, message)
        if "error" in answer:
            error = answer["error"]
            assert error["data"]["type"] == "PERSISTENCE_FAILED", error
            assert error["data"]["retryable"], error
            assert error["data"]["hint"], error
            return time.monotonic() - began


def wait_for_text(client: RawClient, name: str, text: str, after: int) -> None:
    """Until the whole of it was streamed."""
    client.wait_for(
        lambda m: (
            m.get("method") == "conversation/event"
            and m["params"]["conversationId"] == name
            and m["params"]["type"] == "delta"
            and m["params"]["offset"] + len(m["params"]["text"]) == len(text)
        ),
        after=after,
        what=f"the end of {name}'s text",
    )


def sends(client: RawClient, oracle: Oracle) -> list[Message]:
    return [ask(client, oracle.repeat(key)) for key in oracle.unacked()[-1:]]


def told_wrongly(frames: Sequence[Message]) -> list[str]:
    shown = [m["params"] for m in frames if m.get("method") == "window/showMessage"]
    if [message["type"] for message in shown] == [2, 3]:
        return []
    return [f"the user was told {[message['message'] for message in shown]}"]


def one_disk(folder: Path, size: int, episodes: int, figures: Figures, argv: Command) -> None:
    with small_disk(folder, size * MIB) as disk:
        store, oracle = disk / "c.db", Oracle()
        client = RawClient(argv(store))
        try:
            client.start(SLOW)
            for name in (*STREAMING, "other"):
                ask(client, oracle.create(name))
            for _ in range(episodes):
                episode(client, oracle, disk, figures)
                oracle.hear(client.frames)
            client.check_promises()
            client.kill()
        finally:
            client.dispose()
        oracle.hear(client.frames)
        figures.problems += oracle.compare(stored_in(store))
        again = RawClient(argv(store))
        try:
            again.start(options())
            settle(again, oracle, (*STREAMING, "other"))
            assert again.shut_down() == 0
        finally:
            again.dispose()
        oracle.hear(again.frames)
        figures.problems += oracle.compare(stored_in(store), settled=True)
        figures.acked += len(oracle.acked)


def experiment(folder: Path, count: int, argv: Command = command) -> Figures:
    """`count` episodes, two on each disk."""
    figures = Figures()
    number = 0
    while figures.episodes < count and not figures.problems:
        size, number = SIZES[number % len(SIZES)], number + 1
        episodes = min(2, count - figures.episodes)
        one_disk(folder / str(number), size, episodes, figures, argv)
    return figures


def check(figures: Figures) -> str:
    line = f"diskfull: {figures.line()}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems[:20])
    assert max(figures.refusals) <= REFUSAL_LIMIT, line
    assert max(figures.resumed) <= RESUME_LIMIT, line
    assert figures.growth <= GROWTH_LIMIT, line
    return line


def main(count: int = 60) -> str:
    if reason := why_not_mount():
        return f"diskfull: not run, {reason}"
    with tempfile.TemporaryDirectory() as folder:
        return check(experiment(Path(folder), count))


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 6))  # noqa: T201
