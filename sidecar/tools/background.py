"""Commands while they run and when they have ended, and those that go on after their tool call."""

from __future__ import annotations

from itertools import count

import anyio
import msgspec
from anyio import to_thread

from ..conversations import JsonObject, ToolKind
from ..interfaces import UNWATCHED, Subject, ToolOutput, ToolSpec, ToolUse
from .child import Child
from .files import Refused
from .guarded import Guarded

MOST_IN_BACKGROUND = 8

_BY_ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
OUTPUT = ToolSpec(
    name="output",
    description="How a command goes that `run` began in the background, and what it said so far.",
    input_schema=_BY_ID,
)
STOP = ToolSpec(
    name="stop",
    description="End a command that `run` began in the background, with all that it began.",
    input_schema=_BY_ID,
)


class Running:
    """A command, and what governed the workspace when it began. `end` has to follow.

    What it made that governs is put aside if `puts_aside`: nobody was asked about that. Not so for
    one that goes on in the background, as the user and other agents make such files meanwhile."""

    def __init__(self, child: Child, guarded: Guarded, *, puts_aside: bool) -> None:
        self.child = child
        self._guarded = guarded
        self._puts_aside = puts_aside
        self._notes = ""
        self._settling = anyio.Lock()
        self._is_settled = False

    @property
    def has_ended(self) -> bool:
        return self.child.exited.is_set()

    @property
    def text(self) -> str:
        """What it said, and what became of what it made."""
        return f"{self.child.output.text()}{self._notes}"

    async def end(self) -> None:
        """Also what it left running."""
        with anyio.CancelScope(shield=True):
            await self.child.end()
            await self.settle()

    async def settle(self) -> None:
        """It has ended: look at what it made."""
        with anyio.CancelScope(shield=True):
            async with self._settling:
                if not self._is_settled:
                    self._notes = await to_thread.run_sync(self._settle)
                    self._is_settled = True

    def _settle(self) -> str:
        notes = self._put_aside() if self._puts_aside else self._changed()
        if not self._guarded.is_complete:
            notes.append("Not all of this large workspace was looked at for that.")
        return f"\n[{' '.join(notes)}]\n" if notes else ""

    def _changed(self) -> list[str]:
        names = ", ".join(path.name for path in self._guarded.changed())
        if not names:
            return []
        return [f"Meanwhile, what governs editors, agents or git has changed: {names}."]

    def _put_aside(self) -> list[str]:
        lines = [
            f"{old} is now {new}" if new else f"{old} could not be put aside: look at it"
            for old, new in self._guarded.put_aside()
        ]
        if not lines:
            return []
        return [
            "Put aside, because it governs editors, agents or git, and nobody was asked: "
            f"{'; '.join(lines)}. Use `create` or `edit` for it, or `run` with `unconfined`."
        ]


class OfBackground(msgspec.Struct):
    id: str


class Background:
    """The commands of one agent that go on by themselves."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}
        self._ids = count(1)

    @property
    def is_busy(self) -> bool:
        return any(not command.has_ended for command in self._running.values())

    @property
    def is_full(self) -> bool:
        return sum(not c.has_ended for c in self._running.values()) >= MOST_IN_BACKGROUND

    def add(self, command: Running) -> str:
        id_ = f"command-{next(self._ids)}"
        self._running[id_] = command
        return id_

    def find(self, id_: str) -> Running:
        if (command := self._running.get(id_)) is None:
            known = ", ".join(self._running) or "none"
            raise Refused(f"There is no command {id_[:80]!r} in the background: {known}.")
        return command

    async def end(self, id_: str) -> Running:
        command = self.find(id_)
        del self._running[id_]
        await command.end()
        return command

    async def end_all(self) -> None:
        for id_ in tuple(self._running):
            await self.end(id_)


class BackgroundTool:
    """`output` or `stop`. Neither does more than the command that the user allowed."""

    kind = ToolKind.READ

    def __init__(self, spec: ToolSpec, background: Background) -> None:
        self.spec = spec
        self._background = background

    async def subject(self, arguments: JsonObject) -> Subject:
        return Subject(title=self.spec.name, text=str(arguments.get("id", "")))

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        try:
            id_ = msgspec.convert(arguments, OfBackground).id
            if self.spec is STOP:
                command = await self._background.end(id_)
                return ToolOutput(f"Stopped.\n{command.text}")
            command = self._background.find(id_)
        except (msgspec.ValidationError, Refused) as error:
            return ToolOutput(str(error), is_error=True)
        if not command.has_ended:
            return ToolOutput(f"It runs.\n{command.text}")
        await command.settle()
        return ToolOutput(f"Exit code {command.child.code}.\n{command.text}")
