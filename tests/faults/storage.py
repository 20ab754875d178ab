"""What streaming costs on the disk: bytes written for each delta, and what is left at the end.

`experiment` streams as a running agent does, a few deltas for each transaction and many
transactions for each turn, and counts what the process had written meanwhile. A store that
rewrites what it has at each step shows as a cost per delta that grows with their number.
"""

from __future__ import annotations

import random
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import anyio
import msgspec

from sidecar.conversations import Prompt
from sidecar.interfaces import TextChunk
from sidecar.stores.sqlite import SqliteStore
from tests.faults.damage import done, ignore, new

DELTAS_PER_TICK = 20
"""A hundred a second, written every 200 ms: the slow stream, which costs the most."""
TICKS_PER_TURN = 200
BOUND = 2.0
"""How much larger than the text the store may be in the end (P4)."""
SLACK = 128 << 10
"""Pages that are not full yet; of no weight in the long run."""
GROWTH = 1.25
"""How much more a delta may cost where there are ten times as many."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of streaming so many deltas, in bytes; what an empty store takes is not counted."""

    deltas: int
    text: int
    written: int
    stored: int

    @property
    def per_delta(self) -> float:
        return self.written / self.deltas

    @property
    def share(self) -> float:
        return self.stored / self.text

    def line(self) -> str:
        return (
            f"{self.deltas:,} deltas, {self.text:,} bytes of text: {self.per_delta:.0f} bytes "
            f"written for each, {self.share:.2f}x stored"
        )


def bytes_written() -> int:
    """By this process so far, through system calls."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("wchar:")).split()[1])


def vocabulary() -> list[str]:
    """Words as frequent as in a language: few make up most of a text."""
    rng = random.Random(3)
    letters = "etaoinshrdlucm"
    words = ["".join(rng.choices(letters, k=rng.randrange(2, 9))) for _ in range(20_000)]
    return [word for rank, word in enumerate(words) for _ in range(max(1, 2_000 // (rank + 1)))]


async def stream(path: Path, deltas: int) -> Cost:
    """Stream so many into a new store, in as many turns as it takes, and close it."""
    rng, words, text_size = random.Random(deltas), vocabulary(), 0
    await (await SqliteStore.open(path, ignore)).aclose()
    before, empty = bytes_written(), size_of(path.parent)
    store = await SqliteStore.open(path, ignore)
    await store.create(new("c"))
    for _ in range(-(-deltas // (DELTAS_PER_TICK * TICKS_PER_TURN))):
        text_size += await _turn(store, rng, words)
    await store.index_pending()
    await store.shrink()
    await store.aclose()
    return Cost(
        deltas=deltas,
        text=text_size,
        written=bytes_written() - before,
        stored=size_of(path.parent) - empty,
    )


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


async def _turn(store: SqliteStore, rng: random.Random, words: list[str]) -> int:
    await store.enqueue("c", Prompt(input="go on"), limit=9)
    turn = await store.start_turn("c", "p")
    assert turn is not None
    text = ""
    for _ in range(TICKS_PER_TURN):
        piece = "".join(word + " " for word in rng.choices(words, k=DELTAS_PER_TICK))
        chunk = TextChunk("c", turn.turn_id, turn.reply_id, 0, "text", len(text), piece)
        await store.append_text([chunk])
        text += piece
    await store.end_turn("c", turn.turn_id, done(text))
    return len(text)


async def experiment(folder: Path, counts: list[int]) -> list[Cost]:
    """The cost of each count of deltas, each in a store of its own."""
    costs = []
    for count in counts:
        inner = folder / str(count)
        inner.mkdir()
        costs.append(await stream(inner / "store.db", count))
    return costs


def check(costs: list[Cost]) -> None:
    for cost in costs:
        assert cost.stored <= BOUND * cost.text + SLACK, cost.line()
    for smaller, larger in pairwise(costs):
        assert larger.per_delta <= smaller.per_delta * GROWTH, (smaller.line(), larger.line())


def main(count: int = 1_000_000) -> str:
    """A hundredth, a tenth and all of `count` deltas. Raises `AssertionError` when the cost is
    not linear or the store too large."""
    with tempfile.TemporaryDirectory() as folder:
        costs = anyio.run(experiment, Path(folder), [count // 100, count // 10, count])
    check(costs)
    return "storage: " + "; ".join(cost.line() for cost in costs)


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000))  # noqa: T201
