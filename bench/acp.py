"""The Agent Client Protocol: from spawning to the first words, and how fast they stream."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .child import ROOT, Child
from .figures import Figure, in_turn, latency, ratio

PROMPT = "repeat {} sixty bytes of an answer, as a model sends them, in a stream"
TEXT = PROMPT.split(" ", 2)[2]


class AcpChild(Child):
    """As its parent, with a message on each line."""

    def write(self, method: str, params: Any = None, *, request: bool = True) -> int:
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._in, data) :]
        return self._number

    def body(self) -> bytes | None:
        while (end := self._buffer.find(b"\n")) < 0:
            if not self._read():
                return None
        body = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return body

    def begin(self) -> str:
        """Until there is a session."""
        self.call("initialize", {"protocolVersion": 1, "clientCapabilities": {}})
        return self.session()

    def session(self) -> str:
        made = self.call("session/new", {"cwd": str(ROOT), "mcpServers": []})
        return str(made["sessionId"])

    def ask(self, session: str, count: int) -> int:
        prompt = [{"type": "text", "text": PROMPT.format(count)}]
        return self.write("session/prompt", {"sessionId": session, "prompt": prompt})

    def end(self) -> float:
        os.close(self._in)
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = status
        os.close(self._out)
        self._process.stdin = self._process.stdout = None
        return (usage.ru_utime + usage.ru_stime) * 1000


def ours(store: Path) -> AcpChild:
    settings = ["env", "AGENT_SIDECAR_PROVIDER=scripted", "AGENT_SIDECAR_CONFIG="]
    return AcpChild([*settings, sys.executable, "-m", "sidecar", "acp", "--store", str(store)])


def bare(_: Path) -> AcpChild:
    return AcpChild([sys.executable, "-c", "from bench.bare_acp import main; main()"])


def acp(folder: Path, quick: bool) -> list[Figure]:
    runs = 6 if quick else 20
    return [*_start(folder, runs), *_stream(folder, runs // 2), *_ten(folder, max(2, runs // 4))]


def _start(folder: Path, runs: int) -> list[Figure]:
    store = folder / "start.db"
    ours(store).end()  # makes the store
    walls: list[float] = []
    sessions: list[tuple[float, float]] = []

    def first_chunk(make: Callable[[Path], AcpChild], times: list[float] | None) -> float:
        child = make(store)
        session = child.begin()
        if times is not None:
            wall = (time.perf_counter() - child.spawned) * 1000
            sessions.append((child.cpu_ms(), wall))
        number = child.ask(session, 1)
        for body in child.until(number):
            if b"agent_message_chunk" in body:
                break
        cpu = child.cpu_ms()
        if times is not None:
            times.append((time.perf_counter() - child.spawned) * 1000)
        child.end()
        return cpu

    mine, floor = in_turn(runs, lambda: first_chunk(ours, walls), lambda: first_chunk(bare, None))
    return [
        ratio(
            "ACP: spawn → initialize → session/new → first chunk, CPU",
            mine,
            floor,
            goal=4.0,
            unit="ms",
            floor_name="bare asyncio agent",
        ),
        Figure("ACP: session, CPU", min(c for c, _ in sessions), "ms", None, "the minimum"),
        latency("ACP: session, wall", [wall for _, wall in sessions], goal=None, q=0.5),
        Figure("ACP: first chunk, CPU", min(mine), "ms", None, "the minimum, from the spawn"),
        latency("ACP: first chunk, wall", walls, goal=None, q=0.5),
    ]


def _stream(folder: Path, runs: int) -> list[Figure]:
    count = 2_000
    frames: list[int] = []

    def rate(make: Callable[[Path], AcpChild]) -> float:
        """Updates in a second, as their reader sees them."""
        child = make(folder / "stream.db")
        session = child.begin()
        best = 0.0
        for _ in range(5):
            began = time.perf_counter()
            number = child.ask(session, count)
            bodies = list(child.until(number))
            seconds = time.perf_counter() - began
            chunks = [json.loads(b)["params"]["update"] for b in bodies]
            texts = [u["content"]["text"] for u in chunks if "agent_message" in u["sessionUpdate"]]
            assert "".join(texts) == TEXT * count, "something was lost"
            frames.append(len(texts))
            best = max(best, count / seconds)
        child.end()
        return best

    mine, floor = in_turn(runs, lambda: rate(ours), lambda: rate(bare))
    return [
        Figure(
            "ACP: updates in a second, 2,000 of a turn, to a reader that keeps up",
            max(mine),
            "",
            20_000,
            f"in {min(frames):,} to {max(frames):,} frames, text complete, the turn stored; "
            f"bare asyncio agent {max(floor):,.0f}",
            better="higher",
        )
    ]


def _ten(folder: Path, runs: int) -> list[Figure]:
    count = 500

    def all_cpu(make: Callable[[Path], AcpChild]) -> float:
        child = make(folder / "ten.db")
        child.begin()
        sessions = [child.session() for _ in range(10)]
        before = child.cpu_ms()
        numbers = {child.ask(session, count) for session in sessions}
        received = sum(body.count(TEXT.encode()) for body in child.until_all(numbers))
        assert received == 10 * count, f"{received} of {10 * count} came"
        cpu = child.cpu_ms() - before
        child.end()
        return cpu

    mine, floor = in_turn(runs, lambda: all_cpu(ours), lambda: all_cpu(bare))
    return [
        Figure(
            "ACP: ten sessions of 500 chunks at once, CPU",
            min(mine),
            "ms",
            1_430,
            f"the goal is codex; best of {len(mine)}, bare asyncio agent {min(floor):.0f} ms",
        )
    ]
