"""The tools that run commands of the shell, in the workspace and in process groups of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
from anyio import to_thread

from ..conversations import JsonObject, ToolKind
from ..errors import MessageProcessingFailed
from ..interfaces import UNWATCHED, Subject, Tool, ToolOutput, ToolSpec, ToolUse
from . import sandbox
from .child import Child, Excerpt, Ledger
from .files import Refused, Workspace
from .rules import proposed
from .snapshots import Snapshot

__all__ = ["Background", "CommandTool", "Excerpt", "Ledger", "command_tools", "shell"]

DEFAULT_SECONDS, MOST_SECONDS = 120, 1800
MOST_IN_BACKGROUND = 8
LIMITS = "ulimit -c 0; ulimit -f 8388608"
"""No dumps of memory, and no file over four (in some shells eight) gigabytes."""


class Arguments(msgspec.Struct, rename="camel"):
    command: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
    folder: str = "."
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=MOST_SECONDS)] = DEFAULT_SECONDS
    network: bool = False
    background: bool = False


class OfBackground(msgspec.Struct):
    id: str


RUN = ToolSpec(
    name="run",
    description="Run a command of the shell in the workspace, without a terminal and without"
    " input. Answers with the exit code and the output, of a long one the beginning and the end."
    " It can write in the workspace only and has no network unless `network` is set. With"
    " `background` it goes on after the answer, until `stop` or the end of the agent; `output`"
    " tells how it goes. The user is asked first.",
    input_schema={
        "type": "object",
        "properties": {
            "command": {"type": "string", "minLength": 1},
            "folder": {"type": "string", "description": "Where it runs; the workspace if absent."},
            "timeoutSeconds": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_SECONDS,
                "default": DEFAULT_SECONDS,
            },
            "network": {"type": "boolean", "default": False},
            "background": {"type": "boolean", "default": False},
        },
        "required": ["command"],
    },
)
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


def command_tools(roots: Sequence[Path], ledger: Ledger) -> tuple[list[Tool], Background]:
    """The tools, and what goes on behind them."""
    background = Background()
    tools: list[Tool] = [
        CommandTool(roots, ledger, background=background),
        BackgroundTool(OUTPUT, background),
        BackgroundTool(STOP, background),
    ]
    return tools, background


class Background:
    """The commands of one agent that go on by themselves."""

    def __init__(self) -> None:
        self._running: dict[str, Child] = {}
        self._ids = count(1)

    @property
    def is_busy(self) -> bool:
        return any(not child.exited.is_set() for child in self._running.values())

    @property
    def is_full(self) -> bool:
        return sum(not c.exited.is_set() for c in self._running.values()) >= MOST_IN_BACKGROUND

    def add(self, child: Child) -> str:
        id_ = f"command-{next(self._ids)}"
        self._running[id_] = child
        return id_

    def find(self, id_: str) -> Child:
        if (child := self._running.get(id_)) is None:
            known = ", ".join(self._running) or "none"
            raise Refused(f"There is no command {id_[:80]!r} in the background: {known}.")
        return child

    async def end(self, id_: str) -> Child:
        child = self.find(id_)
        del self._running[id_]
        with anyio.CancelScope(shield=True):
            await child.end()
        return child

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
                child = await self._background.end(id_)
                return ToolOutput(f"Stopped.\n{child.output.text()}")
            child = self._background.find(id_)
        except (msgspec.ValidationError, Refused) as error:
            return ToolOutput(str(error), is_error=True)
        how = f"Exit code {child.code}" if child.exited.is_set() else "It runs"
        return ToolOutput(f"{how}.\n{child.output.text()}")


class CommandTool:
    """Asks with the very text that the shell gets."""

    kind = ToolKind.RUN
    spec = RUN

    def __init__(
        self,
        roots: Sequence[Path],
        ledger: Ledger,
        find_sandbox: Callable[[], str | None] = sandbox.bubblewrap,
        background: Background | None = None,
    ) -> None:
        self._workspace = Workspace(roots)
        self._ledger = ledger
        self._find_sandbox = find_sandbox
        self._background = background or Background()

    async def subject(self, arguments: JsonObject) -> Subject:
        try:
            asked = msgspec.convert(arguments, Arguments, strict=False)
            folder = await to_thread.run_sync(self._folder, asked.folder)
        except msgspec.ValidationError as error:
            raise MessageProcessingFailed(f"Wrong arguments: {error}.") from None
        except Refused as error:
            raise MessageProcessingFailed(str(error)) from None
        is_confined = await to_thread.run_sync(self._find_sandbox) is not None
        roots = [str(root) for root in self._workspace.roots.values()]
        return Subject(
            title=f"Run in {folder}{_conditions(asked, is_confined)}",
            text=asked.command,
            state={
                "folder": str(folder),
                "isConfined": is_confined,
                "network": asked.network,
                "background": asked.background,
            },
            # What goes on unseen is asked every time.
            always=()
            if asked.background
            else proposed(
                asked.command,
                folder=str(folder),
                roots=roots,
                network=asked.network,
                is_confined=is_confined,
            ),
        )

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        try:
            asked = msgspec.convert(arguments, Arguments, strict=False)
            folder = await to_thread.run_sync(self._folder, asked.folder)
            program = await to_thread.run_sync(self._find_sandbox)
        except (msgspec.ValidationError, Refused) as error:
            return ToolOutput(str(error), is_error=True)
        argv = shell(asked.command)
        if program is not None:
            roots = list(self._workspace.roots.values())
            argv = sandbox.wrapped(program, argv, folder, roots, network=asked.network)
        try:
            if asked.background:
                return await self._begin(argv, folder, use)
            return await self._run(argv, folder, asked.timeout_seconds, use)
        except OSError as error:
            return ToolOutput(f"It could not be started: {error.strerror}.", is_error=True)

    def _folder(self, name: str) -> Path:
        entry = self._workspace.locate("" if name in ("", ".", "./") else name)
        folder = entry.root / entry.relative
        if not os.path.isdir(folder):
            raise Refused(f"There is no folder {name[:200]!r} in the workspace.")
        return folder

    async def _begin(self, argv: Sequence[str], folder: Path, use: ToolUse) -> ToolOutput:
        if self._background.is_full:
            return ToolOutput(
                f"{MOST_IN_BACKGROUND} commands run in the background: stop one first.",
                is_error=True,
            )
        child = await Child.start(argv, folder, self._ledger, use.report)
        return ToolOutput(
            f"It runs in the background as {self._background.add(child)}. What it changes cannot "
            "be undone."
        )

    async def _run(
        self, argv: Sequence[str], folder: Path, seconds: float, use: ToolUse
    ) -> ToolOutput:
        before = await to_thread.run_sync(Snapshot, self._workspace)
        child = await Child.start(argv, folder, self._ledger, use.report)
        try:
            with anyio.move_on_after(seconds) as patience:
                await child.exited.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await child.end()
                for image in await to_thread.run_sync(list, before.changes()):
                    await use.keep(image)
        is_late = patience.cancelled_caught
        how = f"Stopped after {seconds:g} seconds" if is_late else f"Exit code {child.code}"
        return ToolOutput(f"{how}.\n{child.output.text()}", is_error=is_late or child.code != 0)


def shell(command: str, platform: str = sys.platform) -> list[str]:
    """How the platform's shell is given a command."""
    if platform == "win32":
        return [os.environ.get("COMSPEC", "cmd.exe"), "/d", "/s", "/c", command]
    return ["/bin/sh", "-c", f'{LIMITS}; exec /bin/sh -c "$1"', "sh", command]


def _conditions(asked: Arguments, is_confined: bool) -> str:
    notes = [
        *(["not confined: as you, with network"] if not is_confined else []),
        *(["with network"] if is_confined and asked.network else []),
        *(["in the background"] if asked.background else []),
    ]
    return f" ({', '.join(notes)})" if notes else ""
