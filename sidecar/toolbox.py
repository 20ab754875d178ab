"""What one agent has to work with: its own tools, and those of servers that it shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import anyio

from .interfaces import Tool
from .settings import McpServer


class ToolSource(Protocol):
    """Somewhere that tools come from and go to while an agent lives."""

    async def tools(self) -> Sequence[Tool]:
        """Those that can be used now. Waits a bounded time for what is just starting."""
        ...


class Servers(Protocol):
    """Programs of others that have tools."""

    async def run(self, on_running: Callable[[], None]) -> None: ...
    def update(self, wanted: Mapping[str, McpServer]) -> None: ...
    async def tools(self) -> Sequence[Tool]: ...
    def states(self) -> Mapping[str, str]: ...


class LateSource:
    """Servers as a source of tools, of which nothing is made before one is configured. `wanted`
    says which there are to be, now. `run` has to be running."""

    def __init__(
        self, wanted: Callable[[], Mapping[str, McpServer]], make: Callable[[], Servers]
    ) -> None:
        self._wanted = wanted
        self._make = make
        self._demand = anyio.Event()
        self._made = anyio.Event()
        self._servers: Servers | None = None

    async def run(self) -> None:
        try:
            await self._demand.wait()
            self._servers = self._make()
            await self._servers.run(self._made.set)
        finally:  # there are none any more, and who waits for them is told so
            self._servers = None
            self._made.set()

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
        if self._servers is None:
            return ()
        self._servers.update(wanted)
        return await self._servers.tools()


class Background(Protocol):
    """What goes on after the tool call that began it."""

    @property
    def is_busy(self) -> bool: ...
    async def end_all(self) -> None: ...


class Toolbox:
    """Made when an agent starts; `close` when it ends."""

    def __init__(
        self,
        tools: Iterable[Tool] = (),
        *,
        sources: Sequence[ToolSource] = (),
        background: Background | None = None,
    ) -> None:
        self.own: Mapping[str, Tool] = {tool.spec.name: tool for tool in tools}
        self._sources = sources
        self._background = background

    async def current(self) -> Mapping[str, Tool]:
        """By name. An own tool is never replaced by one from elsewhere."""
        found: dict[str, Tool] = {}
        for source in self._sources:
            found |= {tool.spec.name: tool for tool in await source.tools()}
        return found | dict(self.own)

    @property
    def is_busy(self) -> bool:
        """Whether something that was begun with these tools still runs: the agent stays then."""
        return self._background is not None and self._background.is_busy

    async def end_background(self) -> None:
        """The turn that began it was cancelled, or the agent goes."""
        if self._background is not None:
            await self._background.end_all()
