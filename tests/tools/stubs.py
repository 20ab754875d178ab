"""Real shells in a world where every program only notes down how it was called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SHELLS = {
    "sh": ["/bin/sh", "-c"],
    "dash": ["dash", "-c"],
    "bash": ["bash", "-c"],
    "bash as sh": ["bash", "--posix", "-c"],
    "zsh": ["zsh", "-f", "-c"],
    "zsh as sh": ["zsh", "--emulate", "sh", "-f", "-c"],
    "busybox": ["busybox", "sh", "-c"],
    "mksh": ["mksh", "-c"],
    "ksh93": ["ksh93", "-c"],
    "yash": ["yash", "-c"],
}
BUILT_IN = frozenset({"echo", "true", "false", "pwd", "sleep"})
"""What a shell does by itself, and so leaves no note."""

STUB = """#!/bin/sh
printf '%s\\0' "$#" "${0##*/}" "$@" >> "${NOTES:?}"
"""


def shells() -> dict[str, list[str]]:
    """Those of this machine, by their full names: they run without a PATH that they are on."""
    found = {name: shutil.which(argv[0]) for name, argv in SHELLS.items()}
    return {name: [path, *SHELLS[name][1:]] for name, path in found.items() if path}


class Stubs:
    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.work = folder / "work"
        self.programs.mkdir()
        self.work.mkdir()
        self._notes = folder / "notes"

    def add(self, program: str) -> None:
        """`program` as it stands in a command: a name, or a path below the folder it runs in."""
        folder = self.work if "/" in program else self.programs
        file = folder / program
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(STUB)
            file.chmod(0o755)

    def run(self, shell: list[str], command: str) -> list[tuple[str, ...]]:
        """The argv of every program that `command` ran, in any order, the first word bare."""
        self._notes.write_bytes(b"")
        # All programs share stderr; its end is reached when the last of them has ended.
        subprocess.run(
            [*shell, command],
            cwd=self.work,
            env={"PATH": str(self.programs), "HOME": str(self.work), "NOTES": str(self._notes)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        words = self._notes.read_bytes().decode().split("\0")[:-1]
        ran = []
        while words:
            end = int(words[0]) + 2
            ran.append(tuple(words[1:end]))
            words = words[end:]
        return ran
