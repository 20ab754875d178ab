"""Defences taken out one by one: each experiment has to find what is broken then.

An experiment that stays green without the defence proves nothing. Every mutant is a few lines
that are run in the sidecar's process before it starts (or in ours, for images of the disk).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults import kill, powercut
from tests.faults.harness import EARLY, LOWERED, patched

DOUBLING = """
from sidecar.stores import queue
queue._receipt_before = lambda *_: None
import sidecar.stores.schema as schema
unique = "CREATE UNIQUE INDEX request_keys_used"
schema.FIRST = schema.FIRST.replace(unique, "CREATE INDEX request_keys_used")
"""
"""Request keys that are stored and never looked at."""

AGAIN = """
from sidecar.stores import recovery
recovery._has_begun = lambda *_: False
"""
"""A turn that had begun is run again after the crash."""

UNNUMBERED = """
from sidecar.stores.write import Write
emit = Write.emit
def emitted(self, row, event):
    emit(self, row, event)
    if event.__class__.__name__ == "TurnEnded":
        row.last_seq -= 1
        rest = "DELETE FROM events WHERE conversation = ? AND seq > ?"
        self.conn.execute(rest, (row.key, row.last_seq))
Write.emit = emitted
"""
"""An event is told that the commit does not hold."""


@dataclass(frozen=True)
class Mutant:
    name: str
    program: str
    notice: Callable[[Path, Callable[[Path], list[str]]], list[str]]
    """Runs an experiment and returns what it found."""


def by_kills(folder: Path, argv: Callable[[Path], list[str]]) -> list[str]:
    _, figures = kill.experiment(folder, 12, seed=1, argv=argv)
    return figures.problems


def by_power_cuts(folder: Path, argv: Callable[[Path], list[str]]) -> list[str]:
    _, figures = asyncio.run(powercut.experiment(folder, 120, seed=1, argv=argv))
    return figures.problems


MUTANTS: Sequence[Mutant] = (
    Mutant("acknowledged before the commit", EARLY, by_kills),
    Mutant("request keys are not looked at", DOUBLING, by_kills),
    Mutant("begun turns are run again", AGAIN, by_kills),
    Mutant("an event that the commit does not hold", UNNUMBERED, by_kills),
    Mutant("synchronous lowered to NORMAL", LOWERED, by_power_cuts),
)


def found(mutant: Mutant) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return mutant.notice(Path(folder), lambda store: patched(store, mutant.program))


def main(_: int = 1) -> str:
    began = time.monotonic()
    said = {mutant.name: len(found(mutant)) for mutant in MUTANTS}
    line = "; ".join(f"{name}: {count} findings" for name, count in said.items())
    line = f"mutants: {line}; {time.monotonic() - began:.0f} s"
    assert all(said.values()), line
    return line


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))  # noqa: T201
