"""A child process that speaks JSON-RPC over its stdio, watched from outside.

Deliberately plain and blocking: what is measured is the child, and the reader must not be what
takes the time. CPU time is the child's own, all of its threads, to the nanosecond.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_READ = 1 << 20


class Child:
    """A process and the requests made of it. `messages` are all that came without being
    asked for, as raw bodies."""

    def __init__(self, command: Sequence[str], *, log: Path | None = None) -> None:
        self.spawned = time.perf_counter()
        with open(log or os.devnull, "ab") as stderr:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT
            )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        self._buffer = bytearray()
        self._number = 0

    # ---- what is said ----

    def write(self, method: str, params: Any = None, *, request: bool = True) -> int:
        """Send a request, or a notification; returns the number of the request."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        if request:
            self._number += 1
            message["id"] = self._number
        body = json.dumps(message).encode()
        data = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        while data:
            data = data[os.write(self._in, data) :]
        return self._number

    def call(self, method: str, params: Any = None) -> Any:
        """The result of one request; what else comes until then is passed over."""
        return self.result(self.write(method, params))

    def result(self, number: int) -> Any:
        for _ in self.until(number):
            pass
        return self.answer

    def until(self, number: int) -> Iterator[bytes]:
        """The bodies that come before the answer to request `number`, which is then in
        `answer`. Raises for an error."""
        for body in self.bodies():
            if b'"method":' in body[:40]:
                yield body
                continue
            message = json.loads(body)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"refused: {message['error']}")
                self.answer = message["result"]
                return
        raise RuntimeError("the child ended without an answer")

    def until_all(self, numbers: set[int]) -> Iterator[bytes]:
        """Every body that comes before the last of several answers, which are not looked at."""
        waiting = set(numbers)
        while waiting and (body := self.body()) is not None:
            if b'"method":' in body[:40]:
                yield body
            else:
                waiting.discard(json.loads(body)["id"])

    def bodies(self) -> Iterator[bytes]:
        """Every body from now on."""
        while (body := self.body()) is not None:
            yield body

    def body(self) -> bytes | None:
        """The next body; None at the end."""
        buffer = self._buffer
        while (head := buffer.find(b"\r\n\r\n")) < 0:
            if not self._read():
                return None
        length = int(bytes(buffer[:head]).rpartition(b":")[2])
        while len(buffer) < head + 4 + length:
            if not self._read():
                return None
        body = bytes(buffer[head + 4 : head + 4 + length])
        del buffer[: head + 4 + length]
        return body

    def _read(self) -> bool:
        data = os.read(self._out, _READ)
        self._buffer += data
        return bool(data)

    # ---- what it costs ----

    def cpu_ms(self) -> float:
        """CPU time used so far, by the processes that it made too."""
        return sum(map(cpu_ms, family(self.pid)))

    def memory_mib(self) -> tuple[float, float]:
        """Resident set size, and the proportional one of it and of the processes it made."""
        rss, _ = memory_mib(self.pid)
        return rss, sum(memory_mib(pid)[1] for pid in family(self.pid))

    # ---- its life ----

    def initialize(self, **options: Any) -> Any:
        params = {
            "processId": os.getpid(),
            "capabilities": {},
            "workspaceFolders": None,
            "initializationOptions": {"protocolVersions": [1], **options},
        }
        result = self.call("initialize", params)
        self.write("initialized", {}, request=False)
        return result

    def end(self) -> float:
        """Say goodbye and wait; returns all CPU time that it used, in ms."""
        self.call("shutdown")
        self.write("exit", request=False)
        _, status, usage = os.wait4(self.pid, 0)
        self._forget(status)
        return (usage.ru_utime + usage.ru_stime) * 1000

    def kill(self) -> None:
        self._process.kill()
        self._forget(self._process.wait())

    def _forget(self, status: int) -> None:
        self._process.returncode = status  # waited for by us, not by subprocess
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def is_over(self) -> bool:
        return self._process.returncode is not None


@contextmanager
def sidecar(
    store: Path, *, start: bool = True, log: Path | None = None, **options: Any
) -> Iterator[Child]:
    """A sidecar on `store`; initialized with `options`, unless told not to `start`."""
    child = Child([sys.executable, "-m", "sidecar", "serve", "--store", str(store)], log=log)
    try:
        if start:
            child.initialize(**options)
        yield child
        if not child.is_over:
            child.end()
    finally:
        if not child.is_over:
            child.kill()


def scripted(*steps: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Options of `initialize` for a sidecar whose model plays `steps` at every prompt."""
    quiet = {"logLevel": "error", "provider": "scripted", "script": list(steps)}
    return {"settings": {**quiet, **settings}}


def family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident and proportional set size."""
    sizes = dict.fromkeys(("Rss", "Pss"), 0.0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name] = int(rest.split()[0]) / 1024
    return sizes["Rss"], sizes["Pss"]


def cpu_ms(pid: int) -> float:
    # Linux' CPU clock of another process: see clock_getcpuclockid(3).
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e6


def cpu_of(command: Sequence[str]) -> float:
    """CPU time of a command from its start to its end, in ms."""
    pid = subprocess.Popen(command, stdin=subprocess.DEVNULL).pid
    _, _, usage = os.wait4(pid, 0)
    return (usage.ru_utime + usage.ru_stime) * 1000
