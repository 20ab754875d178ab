"""What the conformance suite runs: connects to the server at the given address, and uses every tool
that it has, through the very code that agents use."""

from __future__ import annotations

import sys

import anyio

from sidecar.settings import McpServer
from sidecar.tools.mcp import McpServers

ARGUMENTS = {"add_numbers": {"a": 5, "b": 3}}


async def main(url: str) -> None:
    servers = McpServers()
    async with anyio.create_task_group() as tasks:
        await tasks.start(_start, servers)
        servers.update({"s": McpServer(url=url)})
        for tool in await servers.tools():
            name = tool.spec.name.removeprefix("s__")
            await tool.run(ARGUMENTS.get(name, {}))
        tasks.cancel_scope.cancel()


async def _start(servers: McpServers, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    await servers.run(on_running=task_status.started)


if __name__ == "__main__":
    anyio.run(main, sys.argv[-1])
