"""The tool that runs a command of the shell, in the workspace and in a process group of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Protocol

import anyio
import msgspec
from anyio import to_thread

from .. import processes
from ..conversations import JsonObject, ToolKind
from ..errors import AgentError, MessageProcessingFailed
from ..interfaces import UNWATCHED, Subject, ToolOutput, ToolSpec, ToolUse
from ..processes import ChildRecord
from . import sandbox
from .files import Refused, Workspace

HEAD = TAIL = 24 * 1024
"""Bytes of the output that a model gets to see: errors stand at the end, causes at the start."""
DEFAULT_SECONDS, MOST_SECONDS = 120, 1800
GRACE = 1.0
"""Seconds that a command which is stopped may take to end by itself."""


class Ledger(Protocol):
    """Where children are recorded, for whoever comes after a sidecar that was killed."""

    @property
    def mark(self) -> str: ...
    async def child_started(self, child: ChildRecord) -> None: ...
    async def child_ended(self, child: ChildRecord) -> None: ...


class Arguments(msgspec.Struct, rename="camel"):
    command: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
    folder: str = "."
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=MOST_SECONDS)] = DEFAULT_SECONDS
    network: bool = False


RUN = ToolSpec(
    name="run",
    description="Run a command of the shell in the workspace, without a terminal and without"
    " input. Answers with the exit code and the output, of a long one the beginning and the end."
    " It can write in the workspace only and has no network unless `network` is set. The user is"
    " asked first.",
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
        },
        "required": ["command"],
    },
)


class CommandTool:
    """Asks with the very text that the shell gets."""

    kind = ToolKind.RUN
    spec = RUN

    def __init__(
        self,
        roots: Sequence[Path],
        ledger: Ledger,
        find_sandbox: Callable[[], str | None] = sandbox.bubblewrap,
    ) -> None:
        self._workspace = Workspace(roots)
        self._ledger = ledger
        self._find_sandbox = find_sandbox

    async def subject(self, arguments: JsonObject) -> Subject:
        try:
            asked = msgspec.convert(arguments, Arguments, strict=False)
            folder = await to_thread.run_sync(self._folder, asked.folder)
        except msgspec.ValidationError as error:
            raise MessageProcessingFailed(f"Wrong arguments: {error}.") from None
        except Refused as error:
            raise MessageProcessingFailed(str(error)) from None
        is_confined = await to_thread.run_sync(self._find_sandbox) is not None
        return Subject(
            title=f"Run in {folder}{_conditions(asked, is_confined)}",
            text=asked.command,
            state={"folder": str(folder), "isConfined": is_confined, "network": asked.network},
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
            return await self._run(argv, folder, asked.timeout_seconds)
        except OSError as error:
            return ToolOutput(f"It could not be started: {error.strerror}.", is_error=True)

    def _folder(self, name: str) -> Path:
        entry = self._workspace.locate("" if name in ("", ".", "./") else name)
        folder = entry.root / entry.relative
        if not folder.is_dir():
            raise Refused(f"There is no folder {name[:200]!r} in the workspace.")
        return folder

    async def _run(self, argv: Sequence[str], folder: Path, seconds: float) -> ToolOutput:
        with anyio.CancelScope(shield=True):  # half made, a process could not be ended
            child = await asyncio.create_subprocess_exec(
                *argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=processes.environment(self._ledger.mark),
                **processes.own_group(),
            )
        record = ChildRecord(child.pid, processes.began(child.pid) or "", "command")
        output, code = Excerpt(), None
        try:
            await self._ledger.child_started(record)
            with anyio.move_on_after(seconds):
                assert child.stdout is not None
                while data := await child.stdout.read(65_536):
                    output.add(data)
                code = await child.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(child, record)
        how = f"Stopped after {seconds:g} seconds" if code is None else f"Exit code {code}"
        return ToolOutput(f"{how}.\n{output.text()}", is_error=code != 0)

    async def _end(self, child: asyncio.subprocess.Process, record: ChildRecord) -> None:
        """Also what a command that ended well has left running: nobody else would end it."""
        await processes.end_group(child.pid, GRACE)
        await child.wait()
        with suppress(AgentError):  # the record is checked before it is believed
            await self._ledger.child_ended(record)


class Excerpt:
    """The beginning and the end of an output of any length, in bounded memory."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        room = HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if (excess := len(self._tail) - TAIL) > 0:
            self._left_out += excess
            del self._tail[:excess]

    def text(self) -> str:
        head, tail = (bytes(b).decode("utf-8", "replace") for b in (self._head, self._tail))
        gap = f"\n[… {self._left_out:,} bytes left out …]\n" if self._left_out else ""
        return (head + gap + tail).replace("\r\n", "\n")


def shell(command: str, platform: str = sys.platform) -> list[str]:
    """How the platform's shell is given a command."""
    if platform == "win32":
        return [os.environ.get("COMSPEC", "cmd.exe"), "/d", "/s", "/c", command]
    return ["/bin/sh", "-c", command]


def _conditions(asked: Arguments, is_confined: bool) -> str:
    if not is_confined:
        return " (not confined: as you, with network)"
    return " (with network)" if asked.network else ""
