"""Where a command may write and whether it has a network: bubblewrap, where Linux has it.

Inside, everything can be read that the user can read, only the workspace and a temporary folder
can be written, what git runs by itself cannot be changed, and there is no network unless it was
asked for. Elsewhere a command runs as the user, and the question says so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

GUARDED = (".git/hooks", ".git/config", ".vscode", ".idea")
"""What runs programs later, outside of any sandbox."""


@cache
def bubblewrap() -> str | None:
    """Its path, if it works here: containers often forbid what it needs. Blocks."""
    program = shutil.which("bwrap") if sys.platform == "linux" else None
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *_view(()), "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else program


def wrapped(
    program: str, argv: Sequence[str], folder: Path, roots: Sequence[Path], *, network: bool
) -> list[str]:
    """`argv` so that it runs in the sandbox, in `folder`."""
    return [
        program,
        *_view(roots),
        *(("--share-net",) if network else ()),
        *("--chdir", str(folder), "--", *argv),
    ]


def _view(roots: Sequence[Path]) -> list[str]:
    view = ["--unshare-all", "--die-with-parent", "--ro-bind", "/", "/"]
    view += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    for root in roots:
        view += ["--bind", str(root), str(root)]
        for name in GUARDED:
            view += ["--ro-bind-try", str(root / name), str(root / name)]
    return view
