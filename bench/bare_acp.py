"""An agent that does nothing but speak the Agent Client Protocol, in asyncio and the standard
library: the floor of such a program in Python. Imports nothing else, because its start is
measured."""

from __future__ import annotations

import asyncio
import json
import sys


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, sys.stdout
    )
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    def send(message: dict[str, object]) -> None:
        writer.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    while line := await reader.readline():
        message = json.loads(line)
        result: dict[str, object] = {}
        if message["method"] == "initialize":
            result = {"protocolVersion": 1}
        elif message["method"] == "session/new":
            result = {"sessionId": "s"}
        elif message["method"] == "session/prompt":
            _, count, text = message["params"]["prompt"][0]["text"].split(" ", 2)
            for _ in range(int(count)):
                chunk = {
                    "sessionUpdate": "agent_message_chunk",
                    "content": {"type": "text", "text": text},
                }
                params = {"sessionId": "s", "update": chunk}
                send({"method": "session/update", "params": params})
                await writer.drain()
            result = {"stopReason": "end_turn"}
        if "id" in message:
            send({"id": message["id"], "result": result})
            await writer.drain()


def main() -> None:
    asyncio.run(_serve())
