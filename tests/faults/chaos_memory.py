"""Answers that are too large, or have no end, and what they do to the memory of who reads them.

The reader is a process of its own (`python -m tests.faults.chaos_memory`): a manager with the
vendor's provider, which meets one bomb after the other and says by how much its memory grew at
most. Linux only: it looks into /proc.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

from sidecar.errors import AgentError
from sidecar.providers.pydantic_ai import make
from sidecar.settings import RetrySettings
from tests.faults.chaos_streams import event
from tests.faults.chaos_table import alive, event_of_no_kind, good, streaming
from tests.managers import living
from tests.providers.dialects import DIALECTS, Bedrock, Call, Dialect, Text, Thinking, said
from tests.providers.vendor_server import Answer, Endless, VendorServer
from tests.providers.vendors import config

MIB = 2**20
GROWTH = 64 * MIB
DEADLINE = 120.0
SILENCE_MS = 500
"""As `requestTimeout`: what is never silent and says nothing ends after five times that."""
WORDS = "wörds and more of them, on and on "


def bombs(dialect: Dialect) -> Iterator[tuple[str, Answer]]:
    """Name and answer; every one of them has to end in an error."""
    text = {"content-type": dialect.content_type}
    yield "an endless text", endless(dialect, Text(WORDS * 4))
    yield "endless thinking", endless(dialect, Thinking(WORDS * 4))
    yield "endless arguments", endless_arguments(dialect)
    yield "endless calls", endless_calls(dialect)
    yield "endless signs of life", streaming(dialect, Endless(alive(dialect) * 100))
    yield "endless news", streaming(dialect, Endless(event_of_no_kind(dialect) * 100))
    yield "a line of 100 MB", line(dialect, 100 * 10**6)
    longest = 20 * MIB if isinstance(dialect, Bedrock) else 4 * MIB - 100
    yield "the longest line that is read", line(dialect, longest)
    yield "an event nested 1,000,000 deep", streaming(dialect, event(dialect, b"[" * 1_000_000))
    packed = gzip.compress(b"\n" * 2**30, 1)
    yield "a packed GiB", Answer([packed], headers={**text, "content-encoding": "gzip"})
    yield "an endless error", Answer([Endless(b"x" * 65_536)], 500, text)
    yield "a packed error", Answer([packed], 500, {**text, "content-encoding": "gzip"})
    head = b"HTTP/1.1 200 OK\r\n"
    yield "an endless head", Answer([head, Endless(b"x-y: " + b"z" * 4_000 + b"\r\n")], is_raw=True)
    yield "zeros for ever", streaming(dialect, Endless(b"\x00" * 65_536))


def endless(dialect: Dialect, say: Text | Thinking) -> Answer:
    begun = said(dialect, say)
    piece = b"".join(dialect.encode(say, 0)) * 10
    return Answer([*begun.steps, Endless(piece)], headers=begun.headers)


def endless_arguments(dialect: Dialect) -> Answer:
    """A call that does not end; where a call is one event, it is one long event."""
    if dialect.name == "gemini":
        return line(dialect, 4 * MIB - 1000, prefix=b'{"candidates": [{"content": {"parts": [{"t')
    begun = list(said(dialect, Call("c1", "look", '{"at": "')).steps)
    again = list(dialect.encode(Call("c1", "look", WORDS * 8), 0))[-1]
    return streaming(dialect, *begun, Endless(again * 10))


def endless_calls(dialect: Dialect) -> Answer:
    """Very many calls in one answer; their indexes repeat after a thousand."""
    calls = [step for n in range(1000) for step in one_call(dialect, n)]
    return streaming(dialect, *dialect.opening(), Endless(b"".join(calls)))


def one_call(dialect: Dialect, number: int) -> Iterator[bytes]:
    call = Call(f"c{number}", "look", "{}")
    yield from getattr(dialect, "block_start", lambda *_: ())(call, number)
    yield from dialect.encode(call, number)
    yield from getattr(dialect, "block_end", lambda *_: ())(call, number)


def line(
    dialect: Dialect, length: int, prefix: bytes = b'{"choices": [{"delta": {"content": "'
) -> Answer:
    pieces = [b"x" * MIB] * (length // MIB) + [b"x" * (length % MIB)]
    if isinstance(dialect, Bedrock):
        whole = Bedrock.event("contentBlockDelta", {"x": "x" * min(length, 20 * MIB)})
        start = int.to_bytes(length, 4) if length > 20 * MIB else whole[:4]
        return streaming(dialect, start + whole[4:12], *pieces)
    return streaming(dialect, b"data: " + prefix, *pieces, b"\n\n")


# ---- the reader --------------------------------------------------------------------------


def memory() -> dict[str, int]:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    fields = dict(row.split(":", 1) for row in status.splitlines() if row.startswith("Vm"))
    return {name: int(value.split()[0]) * 1024 for name, value in fields.items()}


def begin_the_peak_anew() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


async def read_bombs(dialect: Dialect) -> None:
    """Meet what each URL on stdin answers; a line of JSON for each on stdout."""
    for url in iter(sys.stdin.readline, ""):
        chosen = config(
            dialect.name,
            url.strip(),
            request_timeout=SILENCE_MS,
            retry=RetrySettings(max_attempts=1),
        )
        async with living(config=chosen, models=make) as world:
            await world.create("a")
            begin_the_peak_anew()
            before = memory()["VmRSS"]
            failed = None
            try:
                await world.send("Look")
            except AgentError as error:
                failed = f"{error.type}: {error.message}"
            grown = memory()["VmHWM"] - before
            length = len((await world.texts())[-1])
        print(json.dumps({"grown": grown, "failed": failed, "text": length}), flush=True)  # noqa: T201


# ---- the experiment ----------------------------------------------------------------------


async def measure(dialect: Dialect, count: int | None = None) -> dict[str, dict[str, Any]]:
    """By bomb: how much the reader grew, and how its turn ended."""
    argv = [sys.executable, "-W", "ignore", "-m", "tests.faults.chaos_memory"]
    reader = await asyncio.create_subprocess_exec(
        *argv,
        "read",
        dialect.name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    found = {}
    try:
        for name, answer in [("warm", good(dialect)), *list(bombs(dialect))[:count]]:
            async with VendorServer() as server:
                server.repeat = answer
                reader.stdin.write(server.url.encode() + b"\n")
                with anyio.fail_after(DEADLINE):
                    said = await reader.stdout.readline()
                assert said, f"{dialect.name}, {name}: the reader died"
                found[name] = json.loads(said)
    finally:
        if reader.returncode is None:
            reader.kill()
        await reader.wait()
    del found["warm"]
    return found


async def experiment(count: int | None) -> str:
    most: dict[str, int] = {}
    number = 0
    for dialect in DIALECTS.values():
        found = await measure(dialect, count)
        for name, seen in found.items():
            assert seen["failed"], f"{dialect.name}, {name}: ended well"
            assert seen["grown"] <= GROWTH, f"{dialect.name}, {name}: {seen['grown']:,} bytes more"
        most[dialect.name] = max(seen["grown"] for seen in found.values())
        number += len(found)
    figures = ", ".join(f"{name} {grown / MIB:.0f}" for name, grown in most.items())
    return f"bombs: {number} survived; memory grew by at most (MiB) {figures}"


def main(count: int = 0) -> str:
    """The first `count` bombs of each dialect, all with 0."""
    return anyio.run(experiment, count or None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        anyio.run(read_bombs, DIALECTS[sys.argv[2]])
    else:
        print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))  # noqa: T201
