"""Running the command line as a user does: as a process, in a pipe or in a terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "sidecar"]
SLOW = 60.0
AGAIN = 1.0
"""Seconds after which somebody presses a key again that did nothing."""
HUMAN = 0.2
"""Seconds that nobody is faster than."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])|[\x01\x02]")


class Shell:
    """A user with a home of their own, in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.home, self.folder = root / "home", root / "project"
        for folder in (self.home, self.folder):
            folder.mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.getcwd(),
        }
        for kept in ("SYSTEMROOT", "TEMP", "COVERAGE_PROCESS_START"):
            if kept in os.environ:
                self.env[kept] = os.environ[kept]

    @property
    def data(self) -> Path:
        return self.home / ".local" / "share" / "agent-sidecar"

    def run(self, *arguments: str, input: str | None = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            input=input,
            capture_output=True,
            encoding="utf-8",
            cwd=self.folder,
            env=self.env,
            timeout=SLOW,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.env,
        )

    def terminal(self, *arguments: str, **env: str) -> Terminal:
        return Terminal([*COMMAND, *arguments], self.folder, {**self.env, **env})


class Terminal:
    """A process on a pseudo-terminal, and what a person would have read there so far."""

    def __init__(self, argv: list[str], folder: Path, env: dict[str, str]) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:  # pragma: no cover  # the child
            os.chdir(folder)
            os.execve(argv[0], argv, {"TERM": "xterm-256color", **env})
        size = struct.pack("HHHH", 40, 100, 0, 0)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, size)
        self._raw = b""
        self._seen = 0
        self._code: int | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._descriptor)

    @property
    def raw(self) -> str:
        return self._raw.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self.raw)

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, words: str) -> str:
        """Read until `words` appear behind what was waited for last; returns what led there."""
        deadline = time.monotonic() + SLOW
        while words not in self.text[self._seen :]:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{words!r} never came in:\n{self.text}")
        before = self._seen
        self._seen = self.text.index(words, self._seen) + len(words)
        return self.text[before : self._seen]

    def interrupt(self) -> None:
        """Press Ctrl-C as a person does: after what was shown. In the microseconds between
        that and waiting for a key, Python's readline does not notice a signal."""
        while select.select([self._descriptor], [], [], HUMAN)[0] and self._read(SLOW):
            pass
        for _ in range(5):
            self.type("\x03")
            if select.select([self._descriptor], [], [], AGAIN)[0]:
                break  # it was noticed; on a busy machine those microseconds can be long

    def exit_code(self) -> int:
        """Read to the end."""
        deadline = time.monotonic() + SLOW
        while self._read(deadline - time.monotonic()):
            pass
        _, status = os.waitpid(self.pid, 0)
        self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], max(0, seconds))
        if not ready:
            raise AssertionError(f"nothing more came after:\n{self.text}")
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # how a Linux terminal says that its process ended
            return False
        self._raw += data
        return bool(data)
