"""The whole server in this process: bytes in, bytes out, through the prologue, the parser, the
protocol, the face, a manager and a store in memory. Only the pipes and the disk are missing.

It runs under a virtual clock, so what waits for time costs none. Linux only: the pieces that
arrive are packets of a socket, as the prologue reads a descriptor.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any

import anyio

from sidecar.faces import prologue
from sidecar.faces.connection import Connection, notification
from sidecar.faces.jsonrpc import SidecarProtocol, make_server
from sidecar.faces.native import NativeFace
from sidecar.faces.options import read_initialize
from sidecar.faces.prologue import Handover
from sidecar.faces.rpc import Handler
from sidecar.faces.timing import Timings
from sidecar.journal import Journal
from sidecar.manager import AgentManager
from sidecar.providers.scripted import ScriptedProvider
from sidecar.settings import Config, Settings
from sidecar.stores.memory import MemoryStore
from sidecar.toolbox import Toolbox
from sidecar.wire import methods as wire
from sidecar.wire.frames import Frame, FrameError, FrameParser
from sidecar.wire.writer import FrameWriter

Message = dict[str, Any]

PATIENCE = 10.0
"""Real seconds that an answer may take which nothing holds back any more."""
ROOM = 1 << 30
PACKET = 32 * 1024
"""What arrives at once, at most: no more than the prologue reads at once."""


class Talk:
    """All that one client was sent, and how it ended."""

    def __init__(self, output: bytes, exit_code: int | None, unanswered: Sequence[object]) -> None:
        items = FrameParser().feed(output)
        assert all(isinstance(item, Frame) for item in items), "stdout holds what is no frame"
        self.messages: list[Message] = [json.loads(i.body) for i in items if isinstance(i, Frame)]
        self.exit_code = exit_code
        """None: the client hung up without a word."""
        self.unanswered = unanswered

    @property
    def answers(self) -> list[Message]:
        return [message for message in self.messages if "method" not in message]

    @property
    def answered(self) -> Counter[int | str | None]:
        return Counter(answer["id"] for answer in self.answers)

    @property
    def codes(self) -> list[int | None]:
        """Those of the errors, None for a result."""
        return [answer.get("error", {}).get("code") for answer in self.answers]


class WholeServer:
    """What one process has once. Clients talk to it one after the other."""

    def __init__(self, store: MemoryStore, journal: Journal) -> None:
        self.journal = journal
        self.store = store
        self.manager = AgentManager(
            store,
            journal,
            make_provider=lambda config: ScriptedProvider(),
            make_tools=lambda _: Toolbox(),
            config=Config(settings=Settings(provider="scripted")),
        )
        self._handlers: dict[str, Handler] = {}
        handled = [*wire.METHODS, *wire.CLIENT_NOTIFICATIONS]
        self._rpc = make_server({m.name: partial(self._handle, m.name) for m in handled})

    def protocol(self) -> SidecarProtocol:
        """One for a client, with the handlers that all share: to register them takes long."""
        protocol = SidecarProtocol(self._rpc, None)
        protocol.fm = self._rpc.protocol.fm
        return protocol

    async def _handle(self, name: str, params: Any) -> Any:
        return await self._handlers[name](params)

    def serve(self, face: NativeFace) -> None:
        """From now on requests are those of this face's client."""
        self._handlers = face.handlers()

    async def talk(
        self,
        pieces: Sequence[bytes],
        *,
        later: Iterable[bytes] = (),
        last: bytes = b"",
        pause: float = 0,
    ) -> Talk:
        """Let a client send `pieces`, and `later` what the prologue need not see, with a `pause`
        behind each; wait for the answers, send `last` and hang up. What does not end by itself
        is cancelled before that."""
        stdin, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stdout = os.memfd_create("stdout")
        try:
            sender = threading.Thread(target=_send, args=(client, pieces), daemon=True)
            sender.start()
            handover = prologue.run(stdin.fileno(), stdout)
            answered = os.pread(stdout, ROOM, 0)
            if handover.exit_code is not None:
                return Talk(answered, handover.exit_code, ())
            if handover.kind == "acp":
                return Talk(answered, None, ())
            client_of_server = _Client(self, handover)
            arriving = chain(iter(lambda: stdin.recv(ROOM), b""), later)
            return await client_of_server.run(arriving, last, pause, answered)
        finally:
            stdin.close()
            os.close(stdout)


class _Client:
    """The part that `sidecar.serving` has: from bytes to the protocol and back."""

    def __init__(self, server: WholeServer, handover: Handover) -> None:
        self._handover = handover
        self._manager = server.manager
        self._output = bytearray()
        self._writer = FrameWriter(
            self._output.extend,
            encode=lambda delta: notification("conversation/event", delta),
            room=lambda: ROOM,
        )
        self._connection = Connection(
            self._writer, server.journal, server.store, server.manager.flusher
        )
        params, _ = read_initialize(handover.initialize)
        options = params.initialization_options
        webview_id = options.webview_id if options else None
        server.serve(NativeFace(server.manager, self._connection, Timings(), webview_id=webview_id))
        self.protocol = server.protocol()
        self._parser = handover.parser

    async def run(
        self, arriving: Iterator[bytes], last: bytes, pause: float, answered: bytes
    ) -> Talk:
        self._manager.on_state = partial(self._connection.notify, "agent/state")
        async with anyio.create_task_group() as tasks:
            self.protocol.attach(tasks, self._writer.send)
            self._take(self._handover.items)
            await anyio.sleep(pause)
            for piece in arriving:
                self._take(self._parser.feed(piece))
                await anyio.sleep(pause)
                if self.protocol.exit_code is not None:
                    break
            await self._settle()
            if self.protocol.exit_code is None:
                self._take(self._parser.feed(last))
                await self._settle()
            unanswered = tuple(self.protocol._requests)
            if unanswered:
                self._tear_out()
            tasks.cancel_scope.cancel()
        self._connection.unfollow_all()
        assert self._writer.close(PATIENCE)
        return Talk(answered + bytes(self._output), self.protocol.exit_code, unanswered)

    def _take(self, items: Sequence[Frame | FrameError]) -> None:
        for item in items:
            if isinstance(item, Frame):
                self.protocol.receive(item.body)
            else:
                self.protocol.refuse(None, item.code, item.message)

    async def _settle(self) -> None:
        """Until everything is answered: by itself, or because it was cancelled."""
        for _ in range(40):
            await anyio.sleep(1)
            if not self.protocol._requests:
                return
        deadline = time.monotonic() + PATIENCE
        while (waiting := tuple(self.protocol._requests)) and time.monotonic() < deadline:
            for msg_id in waiting:
                cancel = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": msg_id}}
                self.protocol.receive(json.dumps(cancel).encode())  # whatever is half read
            await anyio.sleep(1)

    def _tear_out(self) -> None:
        """End what does not end, shielded or not, so that a test fails instead of hanging."""
        for task in asyncio.all_tasks():
            if task.get_name() in self.protocol._methods:
                task.cancel()


@asynccontextmanager
async def whole_server() -> AsyncIterator[WholeServer]:
    journal = Journal()
    server = WholeServer(await MemoryStore.open(journal.publish), journal)
    try:
        async with server.manager.running():
            yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.store.aclose()


def _send(client: socket.socket, pieces: Sequence[bytes]) -> None:
    """On a thread: a socket takes only so much before somebody reads it."""
    with client, suppress(OSError):  # the server may leave before it has read everything
        for piece in pieces:
            for at in range(0, len(piece), PACKET):
                client.send(piece[at : at + PACKET])
