"""Prompts: how fast one is accepted, what a turn costs and leaves behind, how fast it stops."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from . import floors
from .child import Child, scripted, sidecar
from .figures import Figure, amount, latency, median_ratio

LONG_QUEUE = {"maxQueueLength": 100_000}


def enqueue(folder: Path, quick: bool) -> list[Figure]:
    """`message/enqueue`: round trip with its commit, against a raw commit on the same disk."""
    count = 300 if quick else 1_500
    raw = floors.FullCommits(folder / "raw.db")
    ours, floor = [], []
    # The first prompt hangs, so that those behind it are only stored.
    with sidecar(folder / "queue.db", **scripted({"hang": True}, **LONG_QUEUE)) as child:
        conversation_id = child.call("conversation/create", {})["conversationId"]
        params = {"conversationId": conversation_id, "input": "x" * 600}
        child.call("message/enqueue", params)
        time.sleep(0.5)
        began = child.cpu_ms()
        for _ in range(count):
            begin = time.perf_counter()
            child.call("message/enqueue", params)
            ours.append((time.perf_counter() - begin) * 1e6)
            floor.append(raw.commit_us())
        cpu = (child.cpu_ms() - began) * 1000 / count
        empty = [_round_trip_us(child) for _ in range(count)]
        child.call("agent/cancel", {"conversationId": conversation_id})
        child.kill()
    raw.close()
    return [
        median_ratio(
            "message/enqueue, commit and reply, p50",
            ours,
            floor,
            goal=3.0,
            unit="µs",
            floor_name="raw FULL commit",
        ),
        Figure(
            "message/enqueue less a round trip that stores nothing, p50",
            (statistics.median(ours) - statistics.median(empty)) / statistics.median(floor),
            "x",
            None,
            f"agent/count p50 {amount(statistics.median(empty), 'µs')}; "
            f"CPU {amount(cpu, 'µs')} a prompt",
        ),
    ]


def _round_trip_us(child: Child) -> float:
    begin = time.perf_counter()
    child.call("agent/count")
    return (time.perf_counter() - begin) * 1e6


def growing(folder: Path, quick: bool) -> list[Figure]:
    """Turn 200 of a conversation against turn 5."""
    conversations = 4 if quick else 10
    early, late = [], []
    with sidecar(folder / "growing.db", **scripted({"text": "ok"})) as child:
        _turns(child, 20)
        for _ in range(conversations):
            costs = _turns(child, 205)
            early += costs[2:10]
            late += costs[196:204]
    return [
        Figure(
            "turn 200 against turn 5, CPU",
            statistics.median(late) / statistics.median(early),
            "x",
            1.1,
            f"medians {amount(statistics.median(late), 'ms')} and "
            f"{amount(statistics.median(early), 'ms')}; minima {amount(min(late), 'ms')} and "
            f"{amount(min(early), 'ms')}",
        )
    ]


def _turns(child: Child, count: int) -> list[float]:
    """CPU ms of each turn of a new conversation."""
    conversation_id = child.call("conversation/create", {})["conversationId"]
    costs = []
    for _ in range(count):
        began = child.cpu_ms()
        child.call("message/send", {"conversationId": conversation_id, "input": "hi"})
        costs.append(child.cpu_ms() - began)
    return costs


def disk(folder: Path, quick: bool) -> list[Figure]:
    """What a tiny turn leaves on the disk, once the journal is emptied."""
    turns = 1_000 if quick else 3_000
    store = folder / "disk.db"
    with sidecar(store, **scripted({"text": "ok"})):
        pass
    before = store.stat().st_size
    with sidecar(store, **scripted({"text": "ok"})) as child:
        began = child.cpu_ms()
        _turns(child, turns)
        cpu = (child.cpu_ms() - began) / turns
    size = store.stat().st_size - before
    return [
        Figure(
            "disk for one tiny turn",
            size / turns,
            "bytes",
            1_024,
            f"{turns:,} turns of one conversation, {size / 1024:,.0f} KiB; "
            f"CPU {amount(cpu, 'ms')} a turn",
        )
    ]


def cancel(folder: Path, quick: bool) -> list[Figure]:
    """`agent/cancel` → `turnEnded` on the wire; the end is committed in between. The goal is the
    bar for a cancellation's answer; nobody set one for this."""
    times, begin = [], 0.0
    with sidecar(folder / "cancel.db", **scripted({"text": "so "}, {"hang": True})) as child:
        conversation_id = child.call("conversation/create", {})["conversationId"]
        for _ in range(30 if quick else 100):
            number = child.write("message/send", {"conversationId": conversation_id, "input": "hi"})
            for body in child.until(number):
                if b'"delta"' in body:
                    begin = time.perf_counter()
                    child.write("agent/cancel", {"conversationId": conversation_id})
                elif b'"turnEnded"' in body:
                    times.append((time.perf_counter() - begin) * 1000)
                    assert json.loads(body)["params"]["stopReason"] == "cancelled"
    return [latency("cancel → turnEnded, p99", times, goal=10.0, q=0.99)]
