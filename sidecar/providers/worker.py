"""A model that is called in a process of its own.

The vendors' libraries are not ours: they take seconds to import, and what in them spins, blocks
or does not let itself be cancelled would stop every agent if it ran here. In a process it stops
one, which is told by name, and is ended like any process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Protocol

import anyio

from .. import processes
from ..errors import AgentError, InitializationFailed, NetworkError
from ..interfaces import ModelEvent, ModelRequest
from ..processes import ChildRecord
from ..settings import Config
from . import worker_wire as wire

logger = logging.getLogger(__name__)

STALL = 5.0
"""Seconds without a sign of life after which the user is told. Signs come every second, and not
from the model: one that thinks for an hour is alive."""
GIVE_UP = 120.0
"""Seconds without a sign of life after which the process is ended: nothing will come of it."""
CANCEL_GRACE = 0.5
"""Seconds that a cancelled call gets to end by itself; the process is ended then."""
_CHUNK = 1 << 16

# The path is handed over: the interpreter's own, in isolation, may not lead to this package.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from sidecar.providers.worker_main import main; main()"
)


class Ledger(Protocol):
    """Where children are written down; see `ConversationStore`."""

    @property
    def mark(self) -> str: ...
    async def child_started(self, child: ChildRecord) -> None: ...
    async def child_ended(self, child: ChildRecord) -> None: ...


class Process:
    """A worker that runs: its stream, and the means to end it."""

    def __init__(
        self, record: ChildRecord, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.record = record
        self.reader = reader
        self.writer = writer
        self.has_ended = False
        self._frames = wire.Frames(wire.from_worker)

    def said(self, data: bytes) -> Iterator[wire.FromWorker]:
        """What a piece of its stream says; what it logged is logged."""
        for message in self._frames.feed(data):
            if isinstance(message, wire.Logged):
                extra = message.extra | {"worker": self.record.pid}
                logging.getLogger(message.logger).log(message.level, message.message, extra=extra)
            else:
                yield message

    def kill(self) -> None:
        self.has_ended = True
        if processes.is_same(self.record):
            processes.kill_group(self.record.pid)
        self.writer.close()


class Workers:
    """Makes worker processes, and has one's libraries loaded before they are needed.

    On Linux they are forked off a server that has everything loaded: the first agent of a
    provider waits for that once, the others milliseconds. Elsewhere each loads its own.
    `on_stall` hears the name of the task that waits for a worker which gives no sign of life.
    """

    def __init__(
        self,
        ledger: Ledger,
        module: str = "sidecar.providers.pydantic_ai",
        *,
        on_stall: Callable[[str], None] = lambda _: None,
        program: str = _START,
    ) -> None:
        self.on_stall = on_stall
        self._ledger = ledger
        self._module = module
        self._program = program
        self._server: _ForkServer | None = None
        self._starting = anyio.Lock()

    async def warm_up(self, config: Config) -> None:
        if sys.platform == "linux":
            async with self._starting:
                await self._fork_server(config)

    async def start(self, config: Config) -> Process:
        """A worker with its configuration. Raises `InitializationFailed`."""
        try:
            if sys.platform == "linux":
                async with self._starting:
                    process = await (await self._fork_server(config)).fork()
            else:
                process = await self._spawn()
        except OSError as error:
            raise InitializationFailed(
                "The process that calls the model could not be started.", retryable=True
            ) from error
        process.writer.write(wire.frame(wire.Configure.of(config)))
        await self._ledger.child_started(process.record)
        return process

    async def end(self, process: Process) -> None:
        """Let go of a worker: it ends with its stream, or is ended."""
        process.kill()
        with suppress(AgentError):  # the record is checked before it is believed
            await self._ledger.child_ended(process.record)

    def close(self) -> None:
        """End what made the workers. Theirs is up to whoever has one; they end with us at last."""
        if self._server is not None:
            self._server.kill()
            self._server = None

    async def _fork_server(self, config: Config) -> _ForkServer:
        if self._server is None or not self._server.is_alive:
            self._server = await _ForkServer.start(self._popen, config)
            await self._ledger.child_started(self._server.record)
        return self._server

    async def _spawn(self) -> Process:
        child = await asyncio.create_subprocess_exec(
            *self._command("worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=processes.environment(self._ledger.mark),
            **processes.own_group(),
        )
        assert child.stdout is not None
        assert child.stdin is not None
        return Process(_recorded(child.pid), child.stdout, child.stdin)

    def _popen(self, control: socket.socket) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command("fork-server"),
            stdin=control.fileno(),
            stdout=subprocess.DEVNULL,
            env=processes.environment(self._ledger.mark),
            start_new_session=True,
        )

    def _command(self, role: str) -> list[str]:
        path = json.dumps(sys.path)
        return [sys.executable, "-I", "-X", "utf8", "-c", self._program, path, role, self._module]


class _ForkServer:
    def __init__(self, child: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.record = _recorded(child.pid)
        self._child = child
        self._control = control

    @classmethod
    async def start(
        cls, popen: Callable[[socket.socket], subprocess.Popen[bytes]], config: Config
    ) -> _ForkServer:
        ours, theirs = socket.socketpair()
        with theirs:
            server = cls(popen(theirs), ours)
        ours.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_sendall(
                ours, wire.frame(wire.Configure.of(config))
            )
            await server._answer()
        except BaseException:
            server.kill()
            raise
        return server

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    async def fork(self) -> Process:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
                pid = await self._answer()
        except BaseException:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours)
        return Process(_recorded(pid), reader, writer)

    def kill(self) -> None:
        processes.kill_group(self._child.pid)
        self._child.wait()
        self._control.close()

    async def _answer(self) -> int:
        data = b""
        while len(data) < 8:
            piece = await asyncio.get_running_loop().sock_recv(self._control, 8 - len(data))
            if not piece:
                raise ConnectionError("the fork server ended")
            data += piece
        return int.from_bytes(data, "big")


def _recorded(pid: int) -> ChildRecord:
    return ChildRecord(pid, processes.began(pid) or "", "worker")


class WorkerProvider:
    """See `ModelProvider`. One process per agent, made with the first call."""

    def __init__(self, config: Config, workers: Workers) -> None:
        self.name: str = config.settings.provider
        self._config = config
        self._workers = workers
        self._process: Process | None = None

    def __repr__(self) -> str:
        state = "no process" if self._process is None else f"process {self._process.record.pid}"
        return f"<WorkerProvider {self.name}: {state}>"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        if self._process is None or self._process.has_ended:
            self._process = await self._workers.start(self._config)
        process, is_over = self._process, False
        try:
            process.writer.write(wire.frame(wire.Call(request)))
            async for message in self._heard(process):
                if isinstance(message, wire.Finished):
                    is_over = True
                    if message.failure is not None:
                        raise message.failure.error()
                    return
                if isinstance(message, wire.Events):
                    for event in message.events:
                        yield event
        finally:
            if not is_over:
                await self._cancel(process)

    async def aclose(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await self._workers.end(process)

    async def _heard(self, process: Process) -> AsyncIterator[wire.FromWorker]:
        """What the worker says. Raises `NetworkError` when it ends in between."""
        while True:
            data = await self._patiently(process)
            if not data:
                raise self._lost(process, "The process that calls the model ended unexpectedly.")
            for message in process.said(data):
                yield message

    async def _patiently(self, process: Process) -> bytes:
        """Wait for bytes; tell when no sign of life comes, and give up in the end."""
        with anyio.move_on_after(STALL):
            return await process.reader.read(_CHUNK)
        task = asyncio.current_task()
        who = task.get_name() if task else self.name
        logger.error("a model's process does not answer", extra={"task": who})
        self._workers.on_stall(who)
        with anyio.move_on_after(GIVE_UP - STALL):
            return await process.reader.read(_CHUNK)
        raise self._lost(process, "The model's library hung and was ended.")

    def _lost(self, process: Process, text: str) -> NetworkError:
        process.kill()
        return NetworkError(text, hint="Try again; the log may have the cause.", retryable=True)

    async def _cancel(self, process: Process) -> None:
        """Have the call end at once: by itself, or with its process."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CANCEL_GRACE), suppress(OSError):
                process.writer.write(wire.frame(wire.Cancel()))
                while data := await process.reader.read(_CHUNK):
                    if any(isinstance(m, wire.Finished) for m in process.said(data)):
                        return
            self._process = None
            await self._workers.end(process)
