"""Stand-ins for what costs money or time: models that do as the test says, and a clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from sidecar.conversations import ToolKind
from sidecar.errors import AgentError
from sidecar.interfaces import (
    ModelEvent,
    ModelRequest,
    ModelStop,
    Subject,
    TextDelta,
    ToolOutput,
    ToolSpec,
)
from sidecar.settings import Config


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer as soon as nothing else is to be done.

    Use it with parts that do not leave the loop (the in-memory store, fake providers): five
    minutes of idleness pass in no time, and always in the same order.
    """

    def __init__(self) -> None:
        super().__init__()
        self._offset = 0.0

    def time(self) -> float:
        return super().time() + self._offset

    @property
    def has_more_to_do(self) -> bool:
        """Whether anything is ready to run beside who asks."""
        return bool(self._ready)  # type: ignore[attr-defined]

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            delay = self._scheduled[0].when() - self.time()  # type: ignore[attr-defined]
            self._offset += max(0.0, delay)
        super()._run_once()  # type: ignore[misc]


def run_virtually(function: Callable[[], Any]) -> Any:
    """Run an async function to its end under a `VirtualClockLoop`."""
    return anyio.run(
        function, backend="asyncio", backend_options={"loop_factory": VirtualClockLoop}
    )


class FakeModel:
    """Plays what the test puts into it, and shows what it was asked.

    Each call takes the next of `answers`: a text, an error to raise, or a list of events. When
    there is none it answers "ok". With `gate` set it waits there before it answers, so a test
    can hold a turn in the middle; `entered` tells that it has come so far.
    """

    def __init__(self, *answers: Any) -> None:
        self.name = "fake"
        self.answers = list(answers)
        self.requests: list[ModelRequest] = []
        self.gate: anyio.Event | None = None
        self.entered = anyio.Event()
        self.closed = 0
        self.stubborn = False
        """Swallows being cancelled: what a hung provider does."""

    def hold(self) -> anyio.Event:
        self.gate = anyio.Event()
        self.entered = anyio.Event()
        return self.gate

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else "ok"
        if isinstance(answer, AgentError):
            raise answer
        events = [TextDelta(answer), ModelStop("endTurn")] if isinstance(answer, str) else answer
        for index, event in enumerate(events):
            if index == len(events) - 1:
                await self._wait()
            yield event

    async def _wait(self) -> None:
        self.entered.set()
        if self.gate is None:
            return
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise

    async def aclose(self) -> None:
        self.closed += 1


class FakeModels:
    """One `FakeModel` per agent, all playing from the same `answers`; remembers the settings
    that each was made from."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.made: list[tuple[FakeModel, Config]] = []
        self.next_gate: anyio.Event | None = None

    def __call__(self, config: Config) -> FakeModel:
        model = FakeModel()
        model.answers = self.answers
        model.gate = self.next_gate
        self.made.append((model, config))
        return model

    @property
    def last(self) -> FakeModel:
        return self.made[-1][0]


class FakeTool:
    """Says back what it was asked. `state` is what else an approval of it is bound to."""

    def __init__(self, name: str = "look", *, kind: ToolKind = ToolKind.READ) -> None:
        self.spec = ToolSpec(name=name, description=f"{name}s", input_schema={"type": "object"})
        self.kind = kind
        self.state: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []

    async def subject(self, arguments: dict[str, Any]) -> Subject:
        return Subject(title=self.spec.name, text=repr(arguments), state=dict(self.state))

    async def run(self, arguments: dict[str, Any], use: Any = None) -> ToolOutput:
        self.calls.append(arguments)
        return ToolOutput(f"looked at {arguments}")
