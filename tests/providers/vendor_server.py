"""A server on 127.0.0.1 that speaks the vendors' wires, with their faults.

It runs in the event loop of the test: what happens there is seen as `anyio.Event`s, not by
waiting a while. A test scripts one `Answer` a request, in order; every request is kept with its
headers and body, and says by `gone` when its client went away.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

import anyio

_REASONS = {200: "OK", 302: "Found", 307: "Temporary Redirect", 401: "Unauthorized"}


class Gate:
    """A place in an answer where the server waits: `reached` by the server, opened by a test."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self._opened = anyio.Event()

    def open(self) -> None:
        self._opened.set()

    async def wait(self) -> None:
        self.reached.set()
        await self._opened.wait()


class Fault:
    """How a body may end other than by its proper end."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


STALL = Fault("STALL")
"""Nothing more, connection open, until the client leaves."""
CUT = Fault("CUT")
"""The connection is closed in the middle of the chunked body."""
RESET = Fault("RESET")
"""The connection is reset (RST)."""


@dataclass(frozen=True)
class Endless:
    """The same piece again and again, until the client leaves; `every` so many seconds, or as
    fast as it is read."""

    piece: bytes
    every: float = 0.0


Step = bytes | Gate | Fault | Endless


@dataclass
class Answer:
    """Status, headers and what the body consists of, step by step; each bytes step is one chunk.
    `before` comes ahead of the first byte. With `is_raw` the steps are all that is sent, status
    line and framing included, and the connection is closed after them."""

    steps: Sequence[Step] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    before: Gate | Fault | None = None
    is_raw: bool = False

    @classmethod
    def json(cls, status: int, body: object, **headers: str) -> Self:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(
            [json.dumps(body).encode()], status, {"content-type": "application/json", **named}
        )


@dataclass
class Received:
    """A request as it came in. `gone` is set when its connection is no more."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    gone: anyio.Event = field(default_factory=anyio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def raw(self) -> str:
        """Everything the client said, for looking for what it must not say."""
        return "\n".join([self.path, *self.headers.values(), self.body.decode("latin-1")])


class VendorServer:
    """`async with VendorServer() as server`: listens at `server.url` until the block ends."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.requests: list[Received] = []
        self.connections = 0
        self.repeat: Answer | None = None
        """What to answer when the script is used up."""
        self.url = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        self._open: set[_Connection] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = [task for connection in self._open if (task := connection.abort())]
        await asyncio.gather(*tasks, return_exceptions=True)

    def will(self, *answers: Answer) -> None:
        """Answer the next requests so."""
        self.answers.extend(answers)

    def next_answer(self) -> Answer:
        if self.answers:
            return self.answers.popleft()
        return self.repeat or Answer.json(599, {"error": {"message": "the script is used up"}})


class _Connection(asyncio.Protocol):
    """One TCP connection: HTTP/1.1, keep-alive, requests one after the other."""

    def __init__(self, server: VendorServer) -> None:
        self._owner = server
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._received: Received | None = None
        self._drained = asyncio.Event()
        self._drained.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        self._owner._open.add(self)
        self._owner.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner._open.discard(self)
        self._drained.set()
        if self._received:
            self._received.gone.set()
        if self._task:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = first.split(" ", 2)
        self._received = Received(method, unquote(path), headers, rest[:length])
        self._owner.requests.append(self._received)
        self._task = asyncio.get_running_loop().create_task(
            self._answer(self._owner.next_answer(), self._received), name=f"answer {path}"
        )

    def abort(self) -> asyncio.Task[None] | None:
        self._transport.abort()
        return self._task

    async def _answer(self, answer: Answer, received: Received) -> None:
        if isinstance(answer.before, Gate):
            await answer.before.wait()
        elif answer.before:
            await self._fail(answer.before, received)
            return
        if not answer.is_raw:
            self._transport.write(_head(answer))
        for step in answer.steps:
            if isinstance(step, Gate):
                await step.wait()
            elif isinstance(step, Fault):
                await self._fail(step, received)
                return
            elif isinstance(step, Endless):
                while True:
                    await self._write(step.piece, answer)
                    await asyncio.sleep(step.every)
            else:
                await self._write(step, answer)
        if answer.is_raw:
            self._transport.close()
        else:
            self._transport.write(b"0\r\n\r\n")

    async def _write(self, piece: bytes, answer: Answer) -> None:
        if piece:
            framed = piece if answer.is_raw else b"%x\r\n%b\r\n" % (len(piece), piece)
            self._transport.write(framed)
            await self._drained.wait()

    async def _fail(self, fault: Fault, received: Received) -> None:
        if fault is STALL:
            await received.gone.wait()
        elif fault is CUT:
            self._transport.close()
        else:
            with suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self._transport.abort()


def _head(answer: Answer) -> bytes:
    headers = {"transfer-encoding": "chunked", **answer.headers}
    reason = _REASONS.get(answer.status, "Scripted")
    head = [f"HTTP/1.1 {answer.status} {reason}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*head, "", ""]).encode("latin-1")
