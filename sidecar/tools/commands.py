"""The tools that run commands of the shell, in the workspace and in process groups of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Protocol

import anyio
import msgspec
from anyio import to_thread

from ..conversations import JsonObject, ToolKind
from ..errors import MessageProcessingFailed
from ..interfaces import CHANGED, UNWATCHED, Subject, Tool, ToolOutput, ToolSpec, ToolUse
from . import sandbox
from .background import MOST_IN_BACKGROUND, OUTPUT, STOP, Background, BackgroundTool, Running
from .child import Child, Excerpt, Ledger
from .files import Refused, Workspace
from .guarded import Guarded
from .rules import proposed
from .snapshots import Snapshot

__all__ = ["Background", "CommandTool", "Excerpt", "Ledger", "command_tools", "shell"]

DEFAULT_SECONDS, MOST_SECONDS = 120, 1800
LIMITS = "ulimit -c 0; ulimit -f 8388608"
"""No dumps of memory, and no file over four (in some shells eight) gigabytes."""


READ_ONLY = "Read-only file system"
SANDBOXED = (
    "\n[In the sandbox only the workspace can be written, and not .git nor what governs editors"
    " and agents. If that is needed, ask for it with `unconfined`.]\n"
)


class Arguments(msgspec.Struct, rename="camel"):
    command: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
    folder: str = "."
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=MOST_SECONDS)] = DEFAULT_SECONDS
    network: bool = False
    background: bool = False
    unconfined: bool = False


RUN = ToolSpec(
    name="run",
    description="Run a command of the shell in the workspace, without a terminal and without"
    " input. Answers with the exit code and the output, of a long one the beginning and the end."
    " It can write in the workspace only, but not in .git nor what governs editors and agents, and"
    " has no network unless `network` is set. `unconfined` is for what needs more, such as a"
    " commit. With `background` it goes on after the answer, until `stop` or the end of the agent;"
    " `output` tells how it goes. The user is asked first.",
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
            "unconfined": {"type": "boolean", "default": False},
        },
        "required": ["command"],
    },
)


class Terminal(Protocol):
    """The editor's own, where its user can watch and stop a command. It cannot be confined."""

    async def run(
        self, argv: Sequence[str], folder: Path, seconds: float, use: ToolUse
    ) -> tuple[str, int | None]:
        """What it said and its exit code; None: it was ended after `seconds`, or by the user.
        Raises `OSError` when the editor refuses."""
        ...


def command_tools(
    roots: Sequence[Path],
    ledger: Ledger,
    store: Path | None = None,
    terminal: Terminal | None = None,
) -> tuple[list[Tool], Background]:
    """The tools, and what goes on behind them. `store` is not shown to what is confined; what
    cannot be confined here runs in the `terminal`, if there is one."""
    background = Background()
    tools: list[Tool] = [
        CommandTool(roots, ledger, background=background, store=store, terminal=terminal),
        BackgroundTool(OUTPUT, background),
        BackgroundTool(STOP, background),
    ]
    return tools, background


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
        store: Path | None = None,
        terminal: Terminal | None = None,
    ) -> None:
        self._terminal = terminal
        self._workspace = Workspace(roots)
        self._ledger = ledger
        self._find_sandbox = find_sandbox
        self._background = background or Background()
        self._store = store

    async def subject(self, arguments: JsonObject) -> Subject:
        try:
            asked, folder, program = await self._understood(arguments)
        except (msgspec.ValidationError, Refused) as error:
            raise MessageProcessingFailed(str(error)) from None
        return self._subject(asked, folder, is_confined=program is not None)

    async def _understood(self, arguments: JsonObject) -> tuple[Arguments, Path, str | None]:
        """What to run, where, and the sandbox to run it in."""
        try:
            asked = msgspec.convert(arguments, Arguments, strict=False)
        except msgspec.ValidationError as error:
            raise Refused(f"Wrong arguments: {error}.") from None
        folder = await to_thread.run_sync(self._folder, asked.folder)
        return asked, folder, await to_thread.run_sync(self._sandbox_for, asked)

    def _sandbox_for(self, asked: Arguments) -> str | None:
        """None where the workspace is all there is: it can be written, so nothing would be kept
        from anything."""
        is_everything = any(root == root.parent for root in self._workspace.roots.values())
        return None if asked.unconfined or is_everything else self._find_sandbox()

    def _is_for_terminal(self, asked: Arguments, is_confined: bool) -> bool:
        return self._terminal is not None and not is_confined and not asked.background

    def _subject(self, asked: Arguments, folder: Path, *, is_confined: bool) -> Subject:
        # What goes on unseen, or with all the rights of the user, is asked every time.
        is_special = asked.background or asked.unconfined
        in_terminal = self._is_for_terminal(asked, is_confined)
        return Subject(
            title=f"Run in {folder}{_conditions(asked, is_confined, in_terminal)}",
            text=asked.command,
            state={
                "folder": str(folder),
                "isConfined": is_confined,
                "network": asked.network,
                "background": asked.background,
                **({"terminal": True} if in_terminal else {}),
            },
            is_protected=asked.unconfined,
            always=()
            if is_special
            else proposed(
                asked.command,
                folder=str(folder),
                roots=[str(root) for root in self._workspace.roots.values()],
                network=asked.network,
                is_confined=is_confined,
            ),
        )

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        try:
            asked, folder, program = await self._understood(arguments)
        except Refused as error:
            return ToolOutput(str(error), is_error=True)
        if not use.still_is(self._subject(asked, folder, is_confined=program is not None)):
            return ToolOutput(CHANGED, is_error=True)
        try:
            if asked.background:
                return await self._begin(asked, folder, program, use)
            return await self._run(asked, folder, program, use)
        except OSError as error:
            return ToolOutput(f"It could not be started: {error.strerror}.", is_error=True)

    def _folder(self, name: str) -> Path:
        entry = self._workspace.locate("" if name in ("", ".", "./") else name)
        folder = entry.root / entry.relative
        if not os.path.isdir(folder):
            raise Refused(f"There is no folder {name[:200]!r} in the workspace.")
        return folder

    async def _begin(
        self, asked: Arguments, folder: Path, program: str | None, use: ToolUse
    ) -> ToolOutput:
        if self._background.is_full:
            return ToolOutput(
                f"{MOST_IN_BACKGROUND} commands run in the background: stop one first.",
                is_error=True,
            )
        command = await self._start(asked, folder, program, use)
        return ToolOutput(
            f"It runs in the background as {self._background.add(command)}. What it changes "
            "cannot be undone."
        )

    async def _run(
        self, asked: Arguments, folder: Path, program: str | None, use: ToolUse
    ) -> ToolOutput:
        before = await to_thread.run_sync(Snapshot, self._workspace)
        if self._terminal is not None and self._is_for_terminal(asked, program is not None):
            return await self._run_in(self._terminal, before, asked, folder, use)
        command = await self._start(asked, folder, program, use)
        try:
            with anyio.move_on_after(asked.timeout_seconds) as patience:
                await command.child.exited.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await command.end()
                for image in await to_thread.run_sync(list, before.changes()):
                    await use.keep(image)
        is_late, code = patience.cancelled_caught, command.child.code
        how = f"Stopped after {asked.timeout_seconds:g} seconds" if is_late else f"Exit code {code}"
        is_error = is_late or code != 0
        hint = SANDBOXED if program and is_error and READ_ONLY in command.text else ""
        return ToolOutput(f"{how}.\n{command.text}{hint}", is_error=is_error)

    async def _run_in(
        self, terminal: Terminal, before: Snapshot, asked: Arguments, folder: Path, use: ToolUse
    ) -> ToolOutput:
        try:
            argv = shell(asked.command)
            text, code = await terminal.run(argv, folder, asked.timeout_seconds, use)
        finally:
            with anyio.CancelScope(shield=True):
                for image in await to_thread.run_sync(list, before.changes()):
                    await use.keep(image)
        how = "Stopped" if code is None else f"Exit code {code}"
        return ToolOutput(f"{how}.\n{text}", is_error=code != 0)

    async def _start(
        self, asked: Arguments, folder: Path, program: str | None, use: ToolUse
    ) -> Running:
        roots = list(self._workspace.roots.values())
        guarded = await to_thread.run_sync(Guarded, roots)
        argv = shell(asked.command)
        if program is not None:
            hidden = await to_thread.run_sync(sandbox.hidden, Path.home(), self._store)
            cache = await to_thread.run_sync(sandbox.cache_of, roots)
            view = sandbox.View(roots, guarded.mounts, hidden, cache)
            argv = sandbox.wrapped(program, argv, folder, view, network=asked.network)
        child = await Child.start(argv, folder, self._ledger, use.report)
        puts_aside = program is not None and not asked.background
        return Running(child, guarded, puts_aside=puts_aside)


def shell(command: str, platform: str = sys.platform) -> list[str]:
    """How the platform's shell is given a command."""
    if platform == "win32":
        return [os.environ.get("COMSPEC", "cmd.exe"), "/d", "/s", "/c", command]
    return ["/bin/sh", "-c", f'{LIMITS}; exec /bin/sh -c "$1"', "sh", command]


def _conditions(asked: Arguments, is_confined: bool, in_terminal: bool) -> str:
    notes = [
        *(["not confined: as you, with network"] if not is_confined else []),
        *(["in the editor's terminal"] if in_terminal else []),
        *(["with network"] if is_confined and asked.network else []),
        *(["in the background"] if asked.background else []),
    ]
    return f" ({', '.join(notes)})" if notes else ""
