"""MCP servers as a source of tools, of which nothing is loaded before one is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio

from ..interfaces import Tool
from ..settings import McpServer

if TYPE_CHECKING:
    from .mcp import McpServers


class McpSource:
    """`wanted` says which servers there are to be, now. `run` has to be running."""

    def __init__(self, wanted: Callable[[], Mapping[str, McpServer]], mark: str) -> None:
        self._wanted = wanted
        self._mark = mark
        self._demand = anyio.Event()
        self._made = anyio.Event()
        self._servers: McpServers | None = None

    async def run(self) -> None:
        await self._demand.wait()
        from .mcp import McpServers

        self._servers = McpServers(self._mark)
        await self._servers.run(on_running=self._made.set)

    def states(self) -> Mapping[str, str]:
        """How each configured server is doing."""
        running = self._servers.states() if self._servers else {}
        return {name: running.get(name, "not started") for name in self._wanted()}

    async def tools(self) -> Sequence[Tool]:
        wanted = self._wanted()
        if not wanted and self._servers is None:
            return ()
        self._demand.set()
        await self._made.wait()
        assert self._servers is not None
        self._servers.update(wanted)
        return await self._servers.tools()
