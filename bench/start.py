"""From spawning to the first answers, and what an idle process takes."""

from __future__ import annotations

import time
from pathlib import Path

from . import floors, stores
from .child import Child, sidecar
from .figures import Figure, in_turn, latency, ratio

IDLE_SECONDS = 10.0


def start(folder: Path, quick: bool) -> list[Figure]:
    """Spawn → `initialize` answered, and → the first `conversation/list` answered."""
    runs = 8 if quick else 30
    store = stores.conversations(folder / "list.db", 1_000)
    walls, lists, list_walls, bare_lists = [], [], [], []

    def start_ours() -> float:
        with sidecar(store, start=False) as child:
            child.initialize()
            cpu, wall = child.cpu_ms(), _ms_since_spawn(child)
            assert len(child.call("conversation/list")["conversations"]) == 100
            lists.append(child.cpu_ms())
            list_walls.append(_ms_since_spawn(child))
            walls.append(wall)
        return cpu

    def start_bare() -> float:
        child = floors.asyncio_agent()
        child.initialize()
        cpu = child.cpu_ms()
        child.call("conversation/list")
        bare_lists.append(child.cpu_ms())
        child.end()
        return cpu

    ours, imports, _ = in_turn(runs, start_ours, floors.imports_cpu, start_bare)
    return [
        ratio(
            "initialize answered, CPU against `python -c`",
            ours,
            imports,
            goal=2.0,
            unit="ms",
            floor_name='`python -c "import json, sys"`',
        ),
        Figure("initialize, CPU", min(ours), "ms", None, "the minimum, from the spawn"),
        latency("initialize, wall", walls, goal=None, q=0.5),
        ratio(
            "first conversation/list of 1,000, CPU against asyncio",
            lists,
            bare_lists,
            goal=3.0,
            unit="ms",
            floor_name="bare asyncio agent",
        ),
        Figure("first list, CPU", min(lists), "ms", None, "the minimum, from the spawn"),
        latency("first list, wall", list_walls, goal=None, q=0.5),
    ]


def _ms_since_spawn(child: Child) -> float:
    return (time.perf_counter() - child.spawned) * 1000


def idle(folder: Path, quick: bool) -> list[Figure]:
    """Memory and CPU of a sidecar that has answered and has nothing to do."""
    seconds = IDLE_SECONDS / 4 if quick else IDLE_SECONDS
    with sidecar(stores.conversations(folder / "list.db", 1_000)) as child:
        child.call("conversation/list")
        time.sleep(1.0)
        cpu = child.cpu_ms()
        time.sleep(seconds)
        cpu = (child.cpu_ms() - cpu) * IDLE_SECONDS / seconds
        rss, pss = child.memory_mib()
    with sidecar(folder / "new.db") as child:
        child.call("conversation/list")
        time.sleep(1.0)
        new_rss, _ = child.memory_mib()
    bare = floors.asyncio_agent()
    bare.initialize()
    bare_rss, bare_pss = bare.memory_mib()
    bare.end()
    return [
        Figure("memory idle, RSS", rss, "MiB", 32, f"bare asyncio agent {bare_rss:.1f} MiB"),
        Figure("memory idle, RSS, where the store was made", new_rss, "MiB", None, "once a store"),
        Figure("memory idle, PSS", pss, "MiB", None, f"bare asyncio agent {bare_pss:.1f} MiB"),
        Figure("CPU in 10 s of doing nothing", cpu, "ms", None, f"measured over {seconds:g} s"),
    ]
