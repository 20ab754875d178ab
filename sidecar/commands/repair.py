"""What `doctor --repair` says and does: check the store, save what can be saved."""

from __future__ import annotations

from pathlib import Path

from ..app import repair_store
from .render import counted
from .screen import Screen

PROBLEMS_SHOWN = 5


def run(screen: Screen, path: Path) -> int:
    """Repair the store at `path`. Raises `StoreUnavailable` while a sidecar has it open."""
    screen.line(f"Checking {path}")
    done = repair_store(path)
    for problem in done.problems[:PROBLEMS_SHOWN]:
        screen.line(f"  {problem}", "yellow")
    if len(done.problems) > PROBLEMS_SHOWN:
        screen.line(f"  and {len(done.problems) - PROBLEMS_SHOWN} more", "yellow")
    if done.outcome == "sound":
        screen.line("The store is sound.")
    if done.notice:
        screen.line(done.notice)
    count = counted(done.messages_indexed, "message")
    screen.line(f"The search index was made anew: {count}.")
    return 0
