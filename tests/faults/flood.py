"""More requests and notifications than anybody sends, and parts of us that write to stdout.

The process measures how late its event loop is (a task in it sleeps and looks at the clock) and
says so when it ends. Linux only: it looks into /proc.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.raw_client import RawClient, body_of, frame, frames_of, request

MIB = 1024 * 1024
RATE = 2_000
"""Requests per second that must be answered, whoever else uses the machine."""
GROWTH = 10 * MIB
PROBE_MS = 5

PROBED = r"""
import time
import anyio
from sidecar.serving import factories as serving

async def probe(*_):
    late = []
    try:
        while True:
            began = time.perf_counter()
            await anyio.sleep(%d / 1000)
            late.append((time.perf_counter() - began) * 1000 - %d)
    finally:
        late.sort()
        print("loop lag", late[int(len(late) * 0.99)], late[-1], len(late), flush=True)

serving.warm_up = probe
from sidecar.__main__ import main
""" % (PROBE_MS, PROBE_MS)  # noqa: UP031  # braces are for the program

NOISY = r"""
import ctypes, os, subprocess, sys, warnings
from sidecar.serving import factories as serving
from sidecar.interfaces import ModelStop, TextDelta

class Noisy:
    name = "noisy"

    async def stream(self, request):
        libc = ctypes.CDLL(None)
        for number in range(int(request.prompt.input)):
            print("a print", number)
            sys.stdout.write("Content-Length: 3\r\n\r\n{}\n")
            os.write(1, b"straight to the descriptor\n")
            libc.write(1, b"from C\n", 7)
            libc.puts(b"through C's own buffer")
            warnings.warn(f"a warning {number}")
            if number % 250 == 0:
                subprocess.run(["echo", "a child that inherits stdout"])
                subprocess.run("echo a child with fd 1 >&1", shell=True)
            yield TextDelta(f"{number} ")
        libc.fflush(None)
        yield ModelStop("endTurn")

    async def aclose(self):
        print("closing")

serving.make_provider = lambda *_: Noisy()
from sidecar.__main__ import main
"""
"""The product with a provider that knows nothing of whose stdout it is."""


def patched(program: str, store: Path) -> list[str]:
    return [sys.executable, "-I", "-c", f"{program}\nmain()", "serve", "--store", str(store)]


class Flood:
    """A client that writes as fast as it can and only counts what comes back."""

    def __init__(self, store: Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            patched(PROBED, store), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
        )
        self.answered: Counter[bytes] = Counter()
        self._rest = b""

    def rss(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def send(self, data: bytes, last: bytes) -> float:
        """Send, and read until `last` was answered; returns the seconds that it took."""
        began = time.monotonic()
        writer = threading.Thread(target=self._write, args=(data,), daemon=True)
        writer.start()
        while not self.answered[last]:
            assert self.process.stdout is not None
            piece = self.process.stdout.read(MIB)
            assert piece, "the process ended"
            data = self._rest + piece
            end = data.rfind(b"Content-Length")  # what is behind it may not be whole
            self._rest = data[end:]
            self._count(data[:end])
            if self._rest.endswith(b"}"):
                self._count(self._rest)
                self._rest = b""
        writer.join()
        return time.monotonic() - began

    def _count(self, data: bytes) -> None:
        self.answered.update(re.findall(rb'"id":("?\w+"?),"result"', data))

    def _write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) or 0 :]

    def lag(self) -> tuple[float, float]:
        """Say goodbye; returns the 99th percentile and the most, in milliseconds."""
        goodbye = [request("bye", "shutdown"), {"jsonrpc": "2.0", "method": "exit"}]
        self.send(frames_of(goodbye), b'"bye"')
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        assert self.process.wait(20) == 0
        p99, most, _ = re.search(r"loop lag (\S+) (\S+) (\d+)", said).groups()  # type: ignore[union-attr]
        return float(p99), float(most)

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def flood(folder: Path, requests: int, notifications: int) -> str:
    unknown = frame(body_of({"jsonrpc": "2.0", "method": "editor/blinked", "params": {"n": 1}}))
    cancel = frame(body_of({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 7}}))
    asked = frames_of(
        request(number, "agent/count" if number % 3 else "settings/get", {})
        for number in range(1, requests + 1)
    )
    with Flood(folder / "flood.db") as client:
        client.send(frames_of([request(0, "initialize", {}), request("a", "agent/list")]), b'"a"')
        client.answered.clear()
        before = client.rss()
        seconds = client.send(asked, str(requests).encode())
        client.send(frames_of([request("b", "agent/list")]), b'"b"')
        wanted = Counter({str(number).encode(): 1 for number in range(1, requests + 1)})
        assert client.answered - Counter([b'"b"']) == wanted, "a request was answered not once"
        blow = (unknown + cancel) * (notifications // 2) + frames_of([request("c", "agent/list")])
        noted = client.send(blow, b'"c"')
        growth = client.rss() - before
        p99, most = client.lag()
    rate = requests / seconds
    line = (
        f"{requests:,} pipelined requests answered once at {rate:,.0f}/s, {notifications:,} "
        f"notifications and cancels in {noted:.1f} s, {growth / MIB:.1f} MiB more, "
        f"loop lag p99 {p99:.0f} ms, at most {most:.0f} ms"
    )
    assert rate >= RATE, line
    assert growth <= GROWTH, line
    return line


def noise(folder: Path, deltas: int) -> str:
    """`deltas` messages from a provider that writes to stdout in every way there is."""
    client = RawClient(patched(NOISY, folder / "noise.db"), stderr=subprocess.DEVNULL)
    try:
        client.start({"settings": {"provider": "scripted"}})
        client.call("conversation/create", {"conversationId": "c"})
        for _ in range(-(-deltas // 1000)):
            result: Any = client.call("message/send", {"conversationId": "c", "input": "1000"})
            assert result["stopReason"] == "endTurn", result
        assert client.shut_down() == 0
        client.check_promises()
        events = client.events("c")
        text = "".join(e["text"] for e in events if e["type"] == "delta")
        assert text.split() == [str(n) for n in range(1000)] * (-(-deltas // 1000))
    finally:
        client.dispose()
    return f"{len(client.frames):,} messages of a provider that prints, 0 framing errors"


def run(requests: int, notifications: int, deltas: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        first = flood(Path(folder), requests, notifications)
        return f"{first}; {noise(Path(folder), deltas)}"


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    print(run(*(arguments or [10_000, 100_000, 2_000])))  # noqa: T201
