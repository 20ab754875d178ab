"""The sidecar's process as a client has it: started apart from us, stopped on a ladder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio
from anyio.abc import Process

from .errors import SidecarDied

EXIT_SECONDS = 7.0
"""From `exit` to the end: the sidecar gives itself five seconds to close what it has open."""
TERMINATE_SECONDS = 2.0
LAST_WORDS = 64 * 1024
"""Bytes of the child's stderr that are kept for error messages."""

KEY_VARIABLES: Mapping[str, str] = {
    "GEMINI_API_KEY": "gemini_api_key",
    "GOOGLE_API_KEY": "gemini_api_key",
    "ANTHROPIC_API_KEY": "anthropic_api_key",
    "OPENAI_API_KEY": "openai_api_key",
    "AWS_ACCESS_KEY_ID": "aws_access_key",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}
"""Where keys usually are, and the secret that each of them is. A child's environment has none
of these: its keys come with `initialize` and stay in its memory."""


def default_command() -> list[str]:
    # -I: what lies in the workspace or in PYTHON… variables is not imported.
    return [sys.executable, "-I", "-m", "sidecar", "serve"]


def environment_without_keys(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.upper() not in KEY_VARIABLES}


async def start(
    command: Sequence[str], cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None
) -> Process:
    """Raises `SidecarDied` if there is no such command."""
    flags: dict[str, int] = {}
    if sys.platform == "win32":
        flags = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    try:
        return await anyio.open_process(
            list(command),
            cwd=cwd,
            env=environment_without_keys(os.environ if env is None else env),
            # Ctrl-C in a terminal goes to everybody in its group; what it means is our decision.
            start_new_session=sys.platform != "win32",
            **flags,
        )
    except OSError as error:
        name = Path(command[0]).name
        raise SidecarDied(None, f"'{name}' cannot be run: {error.strerror}.") from error


async def stop(process: Process) -> None:
    """Close its stdin and wait, then terminate and wait, then kill. Returns when it is gone."""
    with anyio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        for seconds, force in ((EXIT_SECONDS, process.terminate), (TERMINATE_SECONDS, process.kill)):
            with anyio.move_on_after(seconds):
                await process.wait()
                break
            try:
                force()
            except ProcessLookupError:
                break
        await process.aclose()


class LastWords:
    """The end of what the child wrote to stderr, for whoever must explain its death."""

    def __init__(self, log: Callable[[bytes], None] | None) -> None:
        self._log = log
        self._kept = bytearray()

    async def collect(self, process: Process) -> None:
        assert process.stderr is not None
        try:
            async for chunk in process.stderr:
                self._kept += chunk
                del self._kept[:-LAST_WORDS]
                if self._log is not None:
                    self._log(chunk)
        except anyio.BrokenResourceError:
            return  # it is gone, and what it said is here

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace").rstrip()

    @property
    def summary(self) -> str:
        """The last line that is not a log entry (a traceback ends in one), else nothing."""
        lines = [line for line in self.text.splitlines() if line and not line.startswith("{")]
        return lines[-1][:500] if lines else ""
