"""A wall clock that jumps under a living sidecar (A10).

By a year back, ten years on, an hour to and fro, to the end of 32-bit time. Order is that of the
sequence and not of the clock, ids go on and never repeat, no idle agent is disposed of, nothing is
given up for its age, and a start in the right time afterwards finds all of it. With libfaketime
where it is installed, which fakes the clock of the whole process; otherwise only ours.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.e2e.raw_client import Message, RawClient, command
from tests.faults.harness import Oracle, options, patched, settle, stored_in

DAY = 24 * 3600
END_OF_32_BITS = 2**31
JUMPS = ("back a year", "on ten years", "on an hour", "back an hour", "to 2038", "right again")
NAMES = ("a", "b")
SWEEPS = 0.3
"""Seconds in which everything that sweeps has done so."""

EAGER = """
from sidecar import pool, retention
pool.SWEEP_INTERVAL = retention.FIRST_SWEEP = retention.SWEEP_INTERVAL = 0.1
"""
"""What is done every few minutes, or once a day, is done ten times a second."""

OWN_CLOCK = """
import os, time
from sidecar import ids
def now_ms():
    with open(os.environ["FAKETIME_TIMESTAMP_FILE"]) as file:
        return time.time_ns() // 1_000_000 + int(file.read() or 0) * 1_000
ids.now_ms = now_ms
"""
"""The same without libfaketime."""

BY_CALENDAR = """
from sidecar.stores.sql import SqlStore
async def use_ago(self, age, now): return now - age
SqlStore.use_ago = use_ago
"""
"""Retention believes the clock."""

BY_WALL = """
from sidecar import pool
def sweep(self):
    for agent in self.registry:
        idle = ids.now_ms() - agent.last_access_at
        if agent.is_quiescent and idle > self.config.settings.inactivity_timeout:
            agent.close("inactive", now=False)
pool.AgentPool.sweep = sweep
"""
"""Idleness is measured by the clock on the wall."""

FOLLOWING_IDS = """
import os
def new_id():
    stamp, noise = ids.now_ms(), os.urandom(10)
    digits = (stamp.to_bytes(6, "big") + bytes([0x70 | noise[0] & 15, noise[1],
              0x80 | noise[2] & 63]) + noise[3:]).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
ids.new_id = new_id
"""
"""Ids follow the clock back."""


@dataclass
class Figures:
    jumps: int = 0
    acked: int = 0
    ids: int = 0
    is_whole: bool = False
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        how = "of the whole process" if self.is_whole else "of ours alone"
        return (
            f"{self.jumps} jumps of the clock {how}, {self.acked} prompts, {self.ids} ids, "
            f"{len(self.problems)} out of order, repeated, disposed of or given up"
        )


def library() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def offset_of(jump: str) -> int:
    """Seconds that the clock is wrong by after this jump."""
    return {
        "back a year": -365 * DAY,
        "on ten years": 3650 * DAY,
        "on an hour": 3600,
        "back an hour": -3600,
        "to 2038": END_OF_32_BITS - int(time.time()),
    }.get(jump, 0)


def live(client: RawClient, oracle: Oracle, clock: Path, jumps: Sequence[str]) -> list[str]:
    client.start(options(retention={"maxAgeDays": 30}))
    for name in (*NAMES, "old"):
        ask(client, oracle.create(name))
    talk(client, oracle, ("old",))
    ask_for(client, "agent/dispose", conversationId="old")
    ask_for(client, "conversation/archive", conversationId="old", archived=True)
    ask_for(client, "conversation/unsubscribe", conversationId="old")
    talk(client, oracle, NAMES)
    for jump in jumps:
        clock.write_text(f"{offset_of(jump):+d}")
        time.sleep(SWEEPS)
        talk(client, oracle, NAMES)
        time.sleep(SWEEPS)
    return alive(client) + ordered(client)


def ask(client: RawClient, message: Message) -> Message:
    client.send(message)
    answer = client.response(message["id"])
    assert "result" in answer, answer
    result: Message = answer["result"]
    return result


def ask_for(client: RawClient, method: str, **params: object) -> None:
    client.call(method, params)


def talk(client: RawClient, oracle: Oracle, names: Sequence[str]) -> None:
    for name in names:
        message_id = ask(client, oracle.prompt(name))["messageId"]
        client.event(name, "turnEnded", messageId=message_id)


def alive(client: RawClient) -> list[str]:
    agents = {agent["conversationId"] for agent in client.call("agent/list")["agents"]}
    found = [f"disposed of: {name}" for name in NAMES if name not in agents]
    states = [m["params"] for m in client.frames if m.get("method") == "agent/state"]
    found += [f"{s['conversationId']} was {s['state']}" for s in states
              if s["state"] in ("CLOSED", "FAILED") and s["conversationId"] in NAMES]  # fmt: skip
    archived = client.call("conversation/list", {"archived": True})["conversations"]
    if [conversation["conversationId"] for conversation in archived] != ["old"]:
        found.append("given up: the archived conversation")
    return found


def ordered(client: RawClient) -> list[str]:
    """Ids in the order in which they were given out, and none twice."""
    ids = [e["messageId"] for e in client.events() if e["type"] == "turnQueued"]
    found = [f"{a} before {b}" for a, b in pairwise(ids) if a >= b]
    for name in NAMES:
        page = client.call("conversation/get", {"conversationId": name, "limit": 500})["page"]
        ordinals = [message["ordinal"] for message in page["messages"]]
        if ordinals != sorted(ordinals):
            found.append(f"{name} is shown as {ordinals}")
    return found


def experiment(
    folder: Path, jumps: Sequence[str], *, mutation: str = "", fake: Path | None = None
) -> Figures:
    """`fake`: libfaketime, if it is to be used."""
    store, clock, oracle, figures = folder / "s" / "c.db", folder / "clock", Oracle(), Figures()
    clock.write_text("+0")
    env = dict(os.environ) | {"FAKETIME_TIMESTAMP_FILE": str(clock)}
    if fake is not None:
        figures.is_whole = True
        env |= {
            "LD_PRELOAD": str(fake),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    own = "" if fake else OWN_CLOCK
    client = RawClient(patched(store, own + mutation + EAGER), env=env)
    try:
        figures.problems += live(client, oracle, clock, jumps)
        assert client.shut_down() == 0
    finally:
        client.dispose()
    client.check_promises()
    oracle.hear(client.frames)
    figures.problems += oracle.compare(stored_in(store))
    again = RawClient(command(store))
    try:
        again.start(options())
        settle(again, oracle, NAMES)
        talk(again, oracle, NAMES)
        assert again.shut_down() == 0
    finally:
        again.dispose()
    oracle.hear(again.frames)
    figures.problems += oracle.compare(stored_in(store), settled=True)
    figures.jumps, figures.acked = len(jumps), len(oracle.acked)
    figures.ids = len(set(oracle.acked.values()))
    figures.problems += ["an id twice"] * (figures.ids != figures.acked)
    return figures


def check(figures: Figures) -> str:
    line = f"clocks: {figures.line()}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems[:20])
    return line


def main(count: int = 120) -> str:
    jumps = [JUMPS[number % len(JUMPS)] for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        return check(experiment(Path(folder), jumps, fake=library()))


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else len(JUMPS)))  # noqa: T201
