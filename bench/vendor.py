"""A real provider adapter: `pydantic_ai` against a local server that speaks OpenAI's wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

from .child import Child, sidecar
from .figures import Figure, amount, latency, quantile
from .streaming import is_delta, send

CODEX_CHUNKS = 6_250
"""Chunks in a CPU second."""
PIECE = "a few words of it "


def vendor(folder: Path, quick: bool) -> list[Figure]:
    """First chunk, throughput and cancellation through the whole sidecar."""
    if not find_spec("pydantic_ai") or not find_spec("openai"):
        print("(skipped: the extra 'llm' is not installed)")
        return []
    with _server() as server, sidecar(folder / "vendor.db", **_options(server)) as child:
        ids = [child.call("conversation/create", {})["conversationId"] for _ in range(10)]
        _first_chunks(server, child, ids[0], 5)  # imports, the connection, the validators
        added = _first_chunks(server, child, ids[0], 20 if quick else 60)
        chunks = 2_000 if quick else 5_000
        streams = [_stream(server, child, ids[0], chunks) for _ in range(2 if quick else 5)]
        sessions = [_sessions(server, child, ids) for _ in range(2 if quick else 5)]
        closed = _cancellations(server, child, ids[0], 30 if quick else 100)
        rss, pss = child.memory_mib()
    late = sum(ms > 5 for ms in closed)
    return [
        latency("openai wire: added to the first chunk, p50", added, goal=6, q=0.5),
        Figure(
            "openai wire: chunks in a CPU second",
            max(streams),
            "",
            CODEX_CHUNKS,
            f"best of {len(streams)} turns of {chunks:,} chunks; "
            f"{amount(1e6 / max(streams), 'µs')} a chunk; "
            f"{rss:.0f} MiB RSS, with the models' processes {pss:.0f} MiB PSS",
            better="higher",
        ),
        Figure(
            "openai wire: ten sessions of 500 chunks, CPU",
            min(sessions),
            "ms",
            1_430,
            f"the goal is codex; best of {len(sessions)}",
        ),
        Figure(
            "openai wire: cancel → connection closed, p99",
            quantile(closed, 0.99),
            "ms",
            5,
            f"p50 {amount(quantile(closed, 0.5), 'ms')}, max {amount(max(closed), 'ms')}; "
            f"{len(closed) - late} of {len(closed)} within 5 ms",
        ),
    ]


def _options(server: _Server) -> dict[str, Any]:
    settings = {
        "provider": "openai",
        "openaiBaseUrl": f"{server.url}/v1",
        "openaiModel": "bench",
        "logLevel": "error",
        "maxActiveAgents": 20,
    }
    return {"settings": settings, "secrets": {"openaiApiKey": "bench"}}


def _first_chunks(server: _Server, child: Child, conversation_id: str, count: int) -> list[float]:
    """From the server's sending of the first chunk to its delta on our stdout, in ms."""
    times = []
    for _ in range(count):
        gate = server.script_gated()
        number = send(child, conversation_id)
        server.wait_for(gate.reached)
        time.sleep(0.01)  # everything is quiet, as it is while a model thinks
        begin = server.open(gate)
        for body in child.until(number):
            if begin and is_delta(body):
                times.append((time.perf_counter() - begin) * 1000)
                begin = 0.0
    return times


def _stream(server: _Server, child: Child, conversation_id: str, chunks: int) -> float:
    """Chunks in a CPU second of one turn, everything of the turn counted."""
    server.script(chunks)
    began = child.cpu_ms()
    child.result(send(child, conversation_id))
    return chunks / (child.cpu_ms() - began) * 1000


def _sessions(server: _Server, child: Child, ids: list[str]) -> float:
    for _ in ids:
        server.script(500)
    began = child.cpu_ms()
    numbers = {send(child, conversation_id) for conversation_id in ids}
    for _ in child.until_all(numbers):
        pass
    return child.cpu_ms() - began


def _cancellations(server: _Server, child: Child, conversation_id: str, count: int) -> list[float]:
    """From `agent/cancel` leaving us to the server's seeing its connection closed, in ms."""
    times = []
    for _ in range(count):
        server.script_stalling()
        number = send(child, conversation_id)
        for body in child.until(number):
            if is_delta(body):
                gone = server.watch_last()
                begin = time.perf_counter()
                child.write("agent/cancel", {"conversationId": conversation_id})
                times.append((gone() - begin) * 1000)
    return times


# ---- the server --------------------------------------------------------------------------


class _Server:
    """The tests' vendor server, in an event loop on a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner
        self.url: str = inner.url

    def script(self, chunks: int) -> None:
        from tests.providers.dialects import OpenAI, Stop, Text, said

        self._inner.will(said(OpenAI(), *[Text(PIECE)] * chunks, Stop()))

    def script_gated(self) -> Any:
        from tests.providers.dialects import OpenAI, Stop, Text, said
        from tests.providers.vendor_server import Gate

        async def make() -> Any:
            return Gate()

        gate = self._do(make())
        self._inner.will(said(OpenAI(), gate, Text(PIECE), Stop()))
        return gate

    def script_stalling(self) -> None:
        from tests.providers.dialects import OpenAI, Text, said
        from tests.providers.vendor_server import STALL

        self._inner.will(said(OpenAI(), Text(PIECE), STALL))

    def wait_for(self, event: Any) -> None:
        self._do(event.wait())

    def open(self, gate: Any) -> float:
        """Open a gate; returns when."""

        async def opened() -> float:
            now = time.perf_counter()
            gate.open()
            return now

        began: float = self._do(opened())
        return began

    def watch_last(self) -> Callable[[], float]:
        """A function that waits until the last request's client is gone, and returns when."""
        received = self._inner.requests[-1]

        async def gone() -> float:
            await received.gone.wait()
            return time.perf_counter()

        future = asyncio.run_coroutine_threadsafe(gone(), self._loop)
        return lambda: future.result(10)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextmanager
def _server() -> Iterator[_Server]:
    from tests.providers.vendor_server import VendorServer

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="vendor", daemon=True)
    thread.start()
    inner = VendorServer()
    asyncio.run_coroutine_threadsafe(inner.__aenter__(), loop).result(10)
    try:
        yield _Server(loop, inner)
    finally:
        asyncio.run_coroutine_threadsafe(inner.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
