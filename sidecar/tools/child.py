"""A command while it runs: its group, its record, the beginning and the end of its output."""

from __future__ import annotations

import asyncio
import codecs
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import anyio

from .. import processes
from ..errors import AgentError
from ..processes import ChildRecord

HEAD = TAIL = 24 * 1024
"""Bytes of the output that a model gets to see: errors stand at the end, causes at the start."""
REPORTED = 256 * 1024
"""Bytes of the output that are shown while they come: more scrolls past faster than it is read."""
GRACE = 1.0
"""Seconds that a command which is stopped may take to end by itself."""


class Ledger(Protocol):
    """Where children are recorded, for whoever comes after a sidecar that was killed."""

    @property
    def mark(self) -> str: ...
    async def child_started(self, child: ChildRecord) -> None: ...
    async def child_ended(self, child: ChildRecord) -> None: ...


class Child(asyncio.SubprocessProtocol):
    """Takes up the output as it comes, in bounded memory. `exited` is set when the command has
    ended, whatever it has left behind."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.output = Excerpt()
        self.exited = anyio.Event()
        self._closed = anyio.Event()
        self.code: int | None = None
        self._report = report
        self._reported = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @classmethod
    async def start(
        cls, argv: Sequence[str], folder: Path, ledger: Ledger, report: Callable[[str], None]
    ) -> Child:
        """`end` has to follow. Raises `OSError` when there is no such program."""
        with anyio.CancelScope(shield=True):  # half made, a process could not be ended
            transport, child = await asyncio.get_running_loop().subprocess_exec(
                lambda: cls(report),
                *argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=processes.environment(ledger.mark),
                **processes.own_group(),
            )
        child._transport, child._ledger = transport, ledger
        pid = transport.get_pid()
        child._record = ChildRecord(pid, processes.began(pid) or "", "command")
        try:
            await ledger.child_started(child._record)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await child.end()
            raise
        return child

    async def end(self) -> None:
        """Also what a command that ended well has left running: nobody else would end it."""
        await processes.end_group(self._record.pid, GRACE)
        with anyio.move_on_after(GRACE):  # what has left the group may keep the pipe open
            await self._closed.wait()
        self._transport.close()
        with suppress(AgentError):  # the record is checked before it is believed
            await self._ledger.child_ended(self._record)

    # ---- called by the event loop ----

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output.add(data)
        if self._reported < REPORTED:
            self._reported += len(data)
            cut = "" if self._reported < REPORTED else "\n[… more than is shown here …]\n"
            self._report(self._decoder.decode(data) + cut)

    def process_exited(self) -> None:
        self.code = self._transport.get_returncode()
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    _transport: asyncio.SubprocessTransport
    _ledger: Ledger
    _record: ChildRecord


class Excerpt:
    """The beginning and the end of an output of any length, in bounded memory."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        room = HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if (excess := len(self._tail) - TAIL) > 0:
            self._left_out += excess
            del self._tail[:excess]

    def text(self) -> str:
        head, tail = (bytes(b).decode("utf-8", "replace") for b in (self._head, self._tail))
        gap = f"\n[… {self._left_out:,} bytes left out …]\n" if self._left_out else ""
        return (head + gap + tail).replace("\r\n", "\n")
