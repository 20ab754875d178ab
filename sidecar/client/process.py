"""The sidecar's process as a client has it: started apart from us, stopped on a ladder."""

from __future__ import annotations

import os
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


def creation_flags(platform: str) -> int:
    """On Windows: no console window, and a process group of its own."""
    create_no_window, create_new_process_group = 0x08000000, 0x00000200
    return create_no_window | create_new_process_group if platform == "win32" else 0


async def start(
    command: Sequence[str], cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None
) -> Process:
    """Raises `SidecarDied` if there is no such command."""
    try:
        return await anyio.open_process(
            list(command),
            cwd=cwd,
            env=environment_without_keys(os.environ if env is None else env),
            # Ctrl-C in a terminal goes to everybody in its group; what it means is our decision.
            start_new_session=sys.platform != "win32",
            creationflags=creation_flags(sys.platform),
        )
    except OSError as error:
        name = Path(command[0]).name
        raise SidecarDied(None, f"'{name}' cannot be run: {error.strerror}.") from error


async def stop(process: Process) -> None:
    """Wait for its end, then terminate and wait, then kill. Returns when it is gone."""
    for seconds, force in ((EXIT_SECONDS, process.terminate), (TERMINATE_SECONDS, process.kill)):
        with anyio.move_on_after(seconds):
            await process.wait()
            return
        if process.returncode is None:
            force()
    await process.wait()


class LastWords:
    """The end of what the child wrote to stderr, for whoever must explain its death."""

    def __init__(self, log: Callable[[bytes], None] | None) -> None:
        self._log = log
        self._kept = bytearray()
        self.complete = anyio.Event()

    async def collect(self, process: Process) -> None:
        assert process.stderr is not None
        try:
            async for chunk in process.stderr:
                self._kept += chunk
                del self._kept[:-LAST_WORDS]
                if self._log is not None:
                    self._log(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # it is gone, and what it said is here
        finally:
            self.complete.set()

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace").rstrip()

    @property
    def summary(self) -> str:
        """The last line that is not a log entry (what a traceback ends in), else nothing."""
        lines = (line.strip(" |+-") for line in self.text.splitlines())
        said = [line for line in lines if line and not line.startswith("{")]
        return said[-1][:500] if said else ""
