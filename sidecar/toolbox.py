"""What one agent has to work with: its own tools, and those of servers that it shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from .interfaces import Tool


class ToolSource(Protocol):
    """Somewhere that tools come from and go to while an agent lives."""

    async def tools(self) -> Sequence[Tool]:
        """Those that can be used now. Waits a bounded time for what is just starting."""
        ...


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
