"""An agent that does nothing, in asyncio and the standard library: the floor of a JSON-RPC
program in Python. Imports nothing else, because its start is measured."""

from __future__ import annotations

import asyncio
import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _BareAgent:
    """Answers every request; streams `n` notifications before it answers `stream`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while (message := await self._message()) and message["method"] != "exit":
                tasks.create_task(self._answer(message))

    async def _answer(self, message: dict[str, Any]) -> None:
        if message["method"] == "stream":
            await self._stream(**message["params"])
        if "id" in message:
            self._send({"jsonrpc": "2.0", "id": message["id"], "result": {}})
        await self._writer.drain()

    async def _message(self) -> Any:
        length = 0
        while (line := await self._reader.readline()) not in (b"\r\n", b""):
            length = int(line.partition(b":")[2])
        return json.loads(await self._reader.readexactly(length)) if length else None

    async def _stream(self, n: int, delay: float, text: str) -> None:
        for offset in range(0, n * len(text), len(text)):
            await asyncio.sleep(delay)
            params = {"conversationId": "c", "offset": offset, "text": text, "type": "delta"}
            self._send({"jsonrpc": "2.0", "method": "conversation/event", "params": params})
            await self._writer.drain()

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        self._writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, sys.stdout
    )
    await _BareAgent(reader, asyncio.StreamWriter(transport, protocol, reader, loop)).serve()


def main() -> None:
    asyncio.run(_serve())
