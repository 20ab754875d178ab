"""Whatever bytes arrive: one answer each with the right code, and the next request is answered.

`main` plays the table of `tests/malformed.py` against a process and, cut at every byte, against
the whole server in this process; then mutated conversations (`fuzz`), the steps of the lifecycle
in any order (`lifecycle`), and floods and noise (`flood`). Linux only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.e2e.raw_client import RawClient, body_of, command, frame, request
from tests.fakes import run_virtually
from tests.faults import flood, fuzz, lifecycle
from tests.malformed import MALFORMED, TABLE, Input
from tests.whole_server import WholeServer, whole_server

FIRST = frame(body_of({"jsonrpc": "2.0", "method": "$/harmless"}))
"""The first byte tells the protocol, and some of the table begins with a brace."""
INITIALIZE = frame(body_of(request("start", "initialize", {})))
PING = frame(body_of(request("ping", "agent/count")))
SHORT = 400
"""Inputs up to this many bytes are cut everywhere."""
CUTS = 100
"""In one conversation."""

Codes = Counter[int | None]


# ---- the table in this process -------------------------------------------------------------


async def cut_everywhere(server: WholeServer, row: Input) -> int:
    """The input in two pieces, cut at each byte, in both phases; returns how many there were."""
    data = row.data
    cuts: Sequence[int] = range(len(data)) if len(data) <= SHORT else [len(data) // 2]
    for some in (cuts[at : at + CUTS] for at in range(0, len(cuts), CUTS)):
        pieces = [piece for cut in some for piece in (data[:cut], data[cut:], PING)]
        early = (await server.talk([FIRST, *pieces])).codes
        assert Counter(early) == _times(len(some), [*row.before, -32002]), f"early, cut at {some}"
        talk = await server.talk([FIRST + INITIALIZE], later=[piece for piece in pieces if piece])
        expected = _times(len(some), [*row.codes, None]) + Codes([None])
        assert Counter(talk.codes) == expected, f"cut at {some}"
    return len(cuts)


def _times(count: int, codes: Iterable[int | None]) -> Codes:
    return Codes({code: n * count for code, n in Counter(codes).items()})


async def _table_in_process(names: Iterable[str]) -> int:
    cuts = 0
    async with whole_server() as server:
        for name in names:
            try:
                cuts += await cut_everywhere(server, TABLE[name])
            except BaseException as error:
                error.add_note(name)
                raise
    return cuts


def table_in_process(names: Iterable[str] = TABLE) -> int:
    cuts: int = run_virtually(lambda: _table_in_process(names))
    return cuts


# ---- the table against a process -----------------------------------------------------------


def table_in_a_process(folder: Path) -> float:
    """Returns the longest that an answer took, in milliseconds."""
    client = RawClient(command(folder / "table.db"))
    try:
        client.send_bytes(FIRST)
        took = [_timed(client, name, row.before) for name, row in TABLE.items()]
        client.start()
        took += [_timed(client, name, row.codes) for name, row in TABLE.items()]
        client.ping()
    finally:
        client.dispose()
    return max(took) * 1000


def _timed(client: RawClient, name: str, codes: Sequence[int | None]) -> float:
    """How long until all is answered that is due, and the request behind it."""
    before, began = len(client.frames), time.perf_counter()
    client.send_bytes(TABLE[name].data + PING)
    client.wait_for(lambda m: m.get("id") == "ping", after=before, what=f"answers to {name}")
    took = time.perf_counter() - began
    answers = [m for m in client.frames[before:] if "method" not in m and m["id"] != "ping"]
    assert [m.get("error", {}).get("code") for m in answers] == list(codes), name
    return took


def main(count: int = 20_000) -> str:
    """`count` mutated conversations, and everything else in proportion."""
    with tempfile.TemporaryDirectory() as folder:
        worst = table_in_a_process(Path(folder))
    cuts = table_in_process()
    return "; ".join(
        (
            f"frames: {len(TABLE)} inputs ({len(MALFORMED)} malformed) in two phases, one answer "
            f"each with its code within {worst:.0f} ms, and cut at {cuts:,} places",
            fuzz.run(count),
            lifecycle.run(max(count // 2, 5), max(count // 100, 2)),
            flood.run(count * 5, count * 50, count * 5),
        )
    )


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))  # noqa: T201
