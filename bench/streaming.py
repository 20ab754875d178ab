"""Text that streams: what one delta costs, alone and among ten conversations."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import floors
from .child import ROOT, Child, scripted, sidecar
from .figures import Figure, amount, in_turn, quantile

TEXT = "sixty bytes of an answer, as a model sends them, in a stream"
ENOUGH = {"maxQueueLength": 10_000, "maxActiveAgents": 20}


def send(child: Child, conversation_id: str, text: str = "go") -> int:
    return child.write("message/send", {"conversationId": conversation_id, "input": text})


def is_delta(body: bytes) -> bool:
    return b'"type":"delta"' in body[:100]


def streaming(folder: Path, quick: bool) -> list[Figure]:
    """CPU per delta, from the provider that yields it to the bytes on the pipe."""
    burst, paced = (20_000, 1_000) if quick else (30_000, 2_000)
    runs = 2 if quick else 8
    fast, slow, late = [], [], []
    frames: dict[str, int] = {}

    def at_once() -> float:
        return _streamed(folder, burst, 0, frames, "at once")

    def with_pauses() -> float:
        return _streamed(folder, paced, 1, frames, "with pauses")

    def unread() -> float:
        return _streamed(folder, burst, 0, frames, "unread", lag=2.0)

    def bare() -> float:
        return _bare_stream(paced, 0.001)

    fast, slow, late, provider, pauses, bare_paced = in_turn(
        runs,
        at_once,
        with_pauses,
        unread,
        lambda: _provider_alone(burst, 0),
        lambda: _provider_alone(paced, 1),
        bare,
        warm_up=0,
    )
    return [
        _per_delta("one delta, provider → wire, at once", fast, provider, burst, frames["at once"]),
        _per_delta(
            "one delta, provider → wire, 1 ms apart", slow, pauses, paced, frames["with pauses"]
        ),
        _per_delta("one delta, client reads 2 s late", late, provider, burst, frames["unread"]),
        Figure(
            "one delta of the bare asyncio agent, 1 ms apart, its sleeping included",
            min(bare_paced),
            "µs",
            None,
            f"ours, its sleeping included: {amount(min(slow), 'µs')}",
        ),
    ]


def _per_delta(
    name: str, ours: list[float], provider: list[float], count: int, frames: int
) -> Figure:
    return Figure(
        name,
        min(ours) - min(provider),
        "µs",
        40.0,
        f"CPU {amount(min(ours), 'µs')} less {amount(min(provider), 'µs')} of the scripted "
        f"provider alone; {count:,} deltas in {frames:,} frames",
    )


def _streamed(
    folder: Path,
    count: int,
    delay: int,
    frames: dict[str, int],
    name: str,
    *,
    lag: float = 0.0,
) -> float:
    """CPU µs per delta of a turn; how many frames it took is left in `frames`."""
    step = {"text": TEXT, "repeat": count, "delayMs": delay}
    with sidecar(folder / "stream.db", **scripted(step)) as child:
        made = child.call("conversation/create", {"mode": "chat"})
        began = child.cpu_ms()
        number = send(child, made["conversationId"])
        time.sleep(lag)
        seen = units = 0
        for body in child.until(number):
            if is_delta(body):
                seen += 1
                units += body.count(b"sixty")
        took = child.cpu_ms() - began
        assert units == count, f"{units} of {count} deltas arrived"
    frames[name] = seen
    return took * 1000 / count


def _provider_alone(count: int, delay: int) -> float:
    """CPU µs per delta of a process that takes what the scripted provider yields, and no more."""
    code = f"from bench.streaming import drain; print(drain({count}, {delay}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    return float(done.stdout)


def drain(count: int, delay: int) -> float:
    """CPU µs per delta of doing nothing with a scripted turn."""
    import anyio

    from sidecar.conversations import Prompt
    from sidecar.interfaces import ModelRequest
    from sidecar.providers.scripted import ScriptedProvider

    async def main() -> float:
        provider = ScriptedProvider([{"text": TEXT, "repeat": count, "delayMs": delay}])
        request = ModelRequest(instructions="", history=(), prompt=Prompt(input="go"))
        began = time.process_time()
        async for _ in provider.stream(request):
            pass
        return (time.process_time() - began) * 1e6 / count

    return anyio.run(main)


def _bare_stream(count: int, delay: float) -> float:
    child = floors.asyncio_agent()
    child.initialize()
    began = child.cpu_ms()
    child.call("stream", {"n": count, "delay": delay, "text": TEXT})
    took = child.cpu_ms() - began
    child.end()
    return took * 1000 / count


# ---- ten at once -------------------------------------------------------------------------


def ten_at_once(folder: Path, quick: bool) -> list[Figure]:
    """How much later a delta comes when nine other conversations stream, too."""
    pause, count = 10, 100 if quick else 300
    options = scripted({"text": TEXT, "repeat": count, "delayMs": pause}, **ENOUGH)
    with sidecar(folder / "ten.db", **options) as child:
        _gaps(child, 1)  # agents are made, everything is imported
        alone = _gaps(child, 1)
        together = _gaps(child, 10)
    chunks = [_ten_sessions(folder) for _ in range(2 if quick else 5)]
    bare = [_bare_sessions() for _ in range(2 if quick else 5)]
    return [
        Figure(
            "ten conversations at once: a delta comes later by, p99",
            max(quantile(together, 0.99) - quantile(alone, 0.99), 0.0),
            "ms",
            10.0,
            f"gap beyond the pause of {pause} ms: p99 {amount(quantile(together, 0.99), 'ms')}, "
            f"alone {amount(quantile(alone, 0.99), 'ms')}; "
            f"p50 {amount(quantile(together, 0.5), 'ms')}, "
            f"alone {amount(quantile(alone, 0.5), 'ms')}",
        ),
        Figure(
            "ten scripted sessions of 500 chunks, all CPU but the start",
            min(chunks),
            "ms",
            1_430,
            f"the goal is codex; {len(chunks)} runs, bare asyncio agent {amount(min(bare), 'ms')}",
        ),
    ]


def _gaps(child: Child, conversations: int) -> list[float]:
    """Time between two deltas of a conversation, less the provider's pause, in ms."""
    ids = [child.call("conversation/create", {})["conversationId"] for _ in range(conversations)]
    numbers = {send(child, conversation_id) for conversation_id in ids}
    last: dict[str, float] = {}
    gaps: list[float] = []
    for params, now in _deltas(child, numbers):
        of = params["conversationId"]
        if of in last:
            gaps.append((now - last[of]) * 1000 - 10)
        last[of] = now
    return gaps


def _deltas(child: Child, numbers: set[int]) -> Iterator[tuple[dict[str, Any], float]]:
    """Every delta with the time of its arrival, until all `numbers` are answered."""
    for body in child.until_all(numbers):
        now = time.perf_counter()
        if is_delta(body):
            yield json.loads(body)["params"], now


def _ten_sessions(folder: Path) -> float:
    """CPU ms of ten turns of 500 chunks, 2 ms apart, at the same time."""
    options = scripted({"text": TEXT, "repeat": 500, "delayMs": 2}, **ENOUGH)
    with sidecar(folder / "sessions.db", **options) as child:
        ids = [child.call("conversation/create", {})["conversationId"] for _ in range(10)]
        began = child.cpu_ms()
        numbers = {send(child, conversation_id) for conversation_id in ids}
        for _ in child.until_all(numbers):
            pass
        return child.cpu_ms() - began


def _bare_sessions() -> float:
    child = floors.asyncio_agent()
    child.initialize()
    began = child.cpu_ms()
    stream = {"n": 500, "delay": 0.002, "text": TEXT}
    numbers = {child.write("stream", stream) for _ in range(10)}
    for _ in child.until_all(numbers):
        pass
    took = child.cpu_ms() - began
    child.end()
    return took
