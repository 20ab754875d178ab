"""What a confined command may not change: the files that govern agents, editors, shells and git.

Those that exist are mounted read-only for it (`tools.sandbox`). A mount cannot keep new ones from
being made, so what was made is looked for when the command has ended, and put aside: renamed
where it stands, so that it governs nothing and nothing is lost. Everything here blocks.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .beneath import FOLDER, WALKS, open_beneath
from .protected import governs

MAX_NAMES = 200_000
"""Looked at for one command. In a larger workspace what lies behind them is not guarded."""
INSTALLED = frozenset(
    {"node_modules", "bower_components", "__pycache__", "site-packages", "dist-packages"}
)
"""Not looked into: full of files of such names that govern nobody but their package."""


class Identity(NamedTuple):
    """Of a file or folder. Moved it is the same, replaced or rewritten it is not."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        is_folder = stat.S_ISDIR(status.st_mode)
        content = (0, 0) if is_folder else (status.st_size, status.st_mtime_ns)
        return cls(status.st_dev, status.st_ino, *content)


class Guarded:
    """What governs below some folders, as it is now."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self.is_complete = True
        """Whether all names were looked at, this time and since."""
        self._found = {path: (identity, _parent(path)) for path, identity in self._look()}

    @property
    def mounts(self) -> Sequence[Path]:
        """To be made read-only. A link is none: mounting would follow it."""
        return [path for path in self._found if not path.is_symlink()]

    def changed(self) -> list[Path]:
        """What governs now and did not before, or is not what it was."""
        known = {identity for identity, _ in self._found.values()}
        return [path for path, identity in self._look() if identity not in known]

    def made(self) -> list[Path]:
        """Of that, what a command can have made to which the rest was read-only: a file that
        was there before, in the folder that was there before, has been changed by somebody else."""
        return [
            path
            for path in self.changed()
            if path not in self._found or self._found[path][1] != _parent(path)
        ]

    def put_aside(self) -> list[tuple[str, str]]:
        """Rename what was made; returns old and new names, from the workspace folder on. One that
        cannot be renamed is named with "" for its new name."""
        done: dict[Path, tuple[str, str]] = {}
        # A folder that governs no more may have another in it that still does.
        while fresh := [path for path in self.made() if path not in done]:
            done |= {path: _put_aside(path, self._root_of(path)) for path in fresh}
        return list(done.values())

    def _root_of(self, path: Path) -> Path:
        return max((r for r in self._roots if r in path.parents), key=lambda r: len(r.parts))

    def _look(self) -> Iterator[tuple[Path, Identity]]:
        """The outermost ones, without what is installed."""
        left = MAX_NAMES
        for root in self._roots:
            for folder, folders, files in os.walk(root):
                below = Path(folder).relative_to(root).as_posix()
                names = {f for f in folders if governs(below, f, is_folder=True)}
                left -= len(folders) + len(files)
                if left < 0:
                    self.is_complete = False
                folders[:] = [f for f in folders if left > 0 and f not in names | INSTALLED]
                for name in sorted(names.union(f for f in files if governs(below, f))):
                    path = Path(folder, name)
                    with suppress(OSError):  # it went meanwhile
                        yield path, Identity.of(path.lstat())


def _parent(path: Path) -> Identity | None:
    with suppress(OSError):
        return Identity.of(path.parent.lstat())
    return None


def _put_aside(path: Path, root: Path) -> tuple[str, str]:
    relative = path.relative_to(root).as_posix()
    # Neither how it begins nor how it ends is a name that governs.
    name = f"{secrets.token_hex(3)}-{path.name[:200]}.aside"
    try:
        if not WALKS:
            path.rename(path.with_name(name))
        else:
            folder = open_beneath(root, path.parent.relative_to(root).as_posix(), FOLDER)
            try:
                _rename_in(folder, path.name, name)
            finally:
                os.close(folder)
    except OSError:
        return relative, ""
    return relative, f"{relative.removesuffix(path.name)}{name}"


def _rename_in(folder: int, old: str, new: str) -> None:
    """Also where the folder was made read-only to keep us from it."""
    try:
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
    except PermissionError:
        mode = stat.S_IMODE(os.fstat(folder).st_mode)
        os.fchmod(folder, mode | stat.S_IRWXU)
        try:
            os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.fchmod(folder, mode)
