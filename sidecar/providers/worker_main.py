"""The process that calls a model for one agent: runs a vendor's library, and nothing else.

Requests come on file descriptor 0, events leave on 1. It ends when 0 does, whatever the library
is doing at that moment, and with its parent where the system can arrange that. The fork server
loads the libraries once and makes such processes in milliseconds (Linux).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import NoneType
from typing import NoReturn

import anyio

from .. import log
from ..errors import AgentError
from ..interfaces import ModelEvent, ModelProvider
from ..processes import die_with_parent
from ..settings import Config
from . import worker_wire as wire

HEARTBEAT = 1.0
"""Seconds between two signs of life while a call runs."""
MOST_UNREAD = 256 * 1024
"""Bytes that may wait to be read before the model is read no further."""
GATHERING = 0.005
"""Seconds between two frames of events."""
_CHUNK = 1 << 16

MakeProvider = Callable[[Config], ModelProvider]


def main() -> None:
    """Arguments: `worker` or `fork-server`, and a module with `make(config)`."""
    role, module = sys.argv[-2:]
    die_with_parent()
    if role == "fork-server":
        serve_forks(module)
    serve(module)


def serve(module: str) -> NoReturn:
    """Answer calls until nobody can ask any more."""
    out = os.dup(1)
    keep_libraries_quiet()
    anyio.run(Worker(out, importlib.import_module(module).make).run)
    os._exit(0)


def keep_libraries_quiet() -> None:
    """What a library prints or warns of may quote a vendor, or get between the frames: it goes
    nowhere. Our own log goes to the parent, see `ToParent`."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    sys.stdout = sys.stderr = os.fdopen(nowhere, "w", encoding="utf-8", errors="replace")
    logging.captureWarnings(True)
    logging.lastResort = logging.NullHandler()


class ToParent(logging.Handler):
    """Sends our log's lines, from whichever thread, the way that events go."""

    def __init__(self, send: Callable[[wire.FromWorker], None]) -> None:
        super().__init__()
        self._send = send
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        logged = wire.Logged(record.name, record.levelno, record.getMessage(), extra_of(record))
        with suppress(RuntimeError):  # the loop has ended, and this process with it
            self._loop.call_soon_threadsafe(self._send, logged)


def extra_of(record: logging.LogRecord) -> dict[str, str | int | float | bool | None]:
    plain = (str, int, float, bool, NoneType)
    return {
        name: value if isinstance(value, plain) else str(value)
        for name, value in log.extra_of(record).items()
    }


class Worker:
    def __init__(self, out: int, make: MakeProvider) -> None:
        self._out = out
        self._make = make
        self._provider: ModelProvider | None = None
        self._failure: wire.Failure | None = None
        self._scope: anyio.CancelScope | None = None

    async def run(self) -> None:
        self._outbox = Outbox(self._out)
        self._loop = asyncio.get_running_loop()
        logging.getLogger("sidecar").handlers[:] = [ToParent(self._outbox.send)]
        logging.getLogger("sidecar").propagate = False
        self._calls = asyncio.Queue[wire.Call]()
        threading.Thread(target=self._listen, name="requests", daemon=True).start()
        while True:
            await self._answer(await self._calls.get())

    def _listen(self) -> NoReturn:
        """A thread: the loop may be stuck in a library when our parent goes."""
        frames = wire.Frames(wire.to_worker)
        with suppress(OSError):
            while data := os.read(0, _CHUNK):
                for message in frames.feed(data):
                    self._loop.call_soon_threadsafe(self._take, message)
        os._exit(0)

    def _take(self, message: wire.ToWorker) -> None:
        if isinstance(message, wire.Call):
            self._calls.put_nowait(message)
        elif isinstance(message, wire.Cancel):
            if self._scope is not None:
                self._scope.cancel()
        else:
            config = message.config()
            log.set_level(config.settings.log_level)
            try:
                self._provider = self._make(config)
            except AgentError as error:
                self._failure = wire.Failure.of(error)

    async def _answer(self, call: wire.Call) -> None:
        failure = self._failure
        with anyio.CancelScope() as self._scope:
            if self._provider is not None:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._beat, name="heartbeat")
                    failure = await self._stream(self._provider, call)
                    tasks.cancel_scope.cancel()
        self._scope = None
        self._outbox.send(wire.Finished(failure))

    async def _stream(self, provider: ModelProvider, call: wire.Call) -> wire.Failure | None:
        try:
            async for event in provider.stream(call.request):
                self._outbox.add(event)
                await self._outbox.room()
        except AgentError as error:
            return wire.Failure.of(error)
        return None

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(HEARTBEAT)
            self._outbox.send(wire.Alive())


class Outbox:
    """What is to be written. The first event after a pause goes at once; what comes close behind
    it is gathered, so that a fast model costs a frame every few milliseconds and not every token.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._events: list[ModelEvent] = []
        self._gathered_at = 0.0
        self._bytes = bytearray()
        self._has_room = anyio.Event()
        self._is_watching = False
        self._put = writing(descriptor)

    def add(self, event: ModelEvent) -> None:
        if not self._events:
            due = self._gathered_at + GATHERING
            if due <= self._loop.time():
                self._loop.call_soon(self._gather)
            else:
                self._loop.call_at(due, self._gather)
        self._events.append(event)

    def send(self, message: wire.FromWorker) -> None:
        self._gather()
        self._bytes += wire.frame(message)
        self._write()

    async def room(self) -> None:
        """Wait until what waits to be read is little enough."""
        while len(self._bytes) > MOST_UNREAD:
            self._has_room = anyio.Event()
            await self._has_room.wait()

    def _gather(self) -> None:
        if self._events:
            self._gathered_at = self._loop.time()
            events, self._events = self._events, []
            self._bytes += wire.frame(wire.Events(events))
            self._write()

    def _write(self) -> None:
        try:
            while self._bytes:
                del self._bytes[: self._put(self._bytes)]
        except BlockingIOError:
            if not self._is_watching:
                self._is_watching = True
                self._loop.add_writer(self._descriptor, self._write)
        else:
            if self._is_watching:
                self._is_watching = False
                self._loop.remove_writer(self._descriptor)
        if len(self._bytes) <= MOST_UNREAD:
            self._has_room.set()


def writing(descriptor: int) -> Callable[[bytearray], int]:
    """Writes what fits and raises `BlockingIOError` when nothing does."""
    if sys.platform == "win32":  # a write waits there, and the other end reads
        return partial(os.write, descriptor)
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        # Not the socket itself is made so: it is the one that requests are waited for on.
        connection = socket.socket(fileno=descriptor)
        return lambda data: connection.send(data, socket.MSG_DONTWAIT)
    os.set_blocking(descriptor, False)
    return partial(os.write, descriptor)


# ---- the fork server -----------------------------------------------------------------------


def serve_forks(module: str) -> NoReturn:
    """Load the libraries, then make a worker on each socket that comes on descriptor 0, and
    answer with its process id."""
    control = socket.socket(fileno=os.dup(0))
    warm_up(control, module)
    # Ours are reaped by the system, and shared memory stays shared when garbage is looked for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            os._exit(0)
        (connection,) = descriptors
        pid = os.fork()
        if pid == 0:
            become_worker(control, connection, module)
        os.close(connection)
        control.sendall(pid.to_bytes(8, "big"))


def become_worker(control: socket.socket, connection: int, module: str) -> NoReturn:
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()  # a group of its own, as a child of the sidecar's would have
    die_with_parent()
    for descriptor in (0, 1):
        os.dup2(connection, descriptor)
    os.close(connection)
    serve(module)


def warm_up(control: socket.socket, module: str) -> None:
    """The first frame is a configuration: make a provider of it once, so that everything that it
    loads is loaded. The workers get theirs anew."""
    frames = wire.Frames(wire.to_worker)
    while data := control.recv(_CHUNK):
        for message in frames.feed(data):
            assert isinstance(message, wire.Configure)
            with suppress(AgentError):  # each worker says so when it is asked
                provider = importlib.import_module(module).make(message.config())
                if hasattr(provider, "warm_up"):
                    provider.warm_up()
            control.sendall(b"\0" * 8)
            return
    os._exit(0)


if __name__ == "__main__":
    main()
