"""The way into the workspace: which files there are, and reading one of them safely.

Every path that an agent names is resolved, must lie inside a workspace folder, and is checked
again once the file is open. Everything here blocks and is called in a worker thread.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
import sys
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .beneath import FILE, open_beneath
from .windows_names import refusal

MAX_FILES = 50_000
GIT_SECONDS = 5.0
GIT_ENVIRONMENT = (
    "PATH",
    "HOME",
    "XDG_CONFIG_HOME",
    "USERPROFILE",
    "APPDATA",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
)
"""All of our environment that git gets to see: there may be keys in the rest."""

SKIPPED_FOLDERS = frozenset(
    {
        "node_modules",
        "bower_components",
        "__pycache__",
        "venv",
        "dist",
        "build",
        "out",
        "target",
        "site-packages",
        "coverage",
        "htmlcov",
    }
)
SECRETS = (".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*")
"""Never listed and never searched, so that no key is quoted by accident."""


class Refused(Exception):
    """An everyday failure, in words for the model. Becomes an `is_error` output."""


class Entry(NamedTuple):
    """A file: its workspace folder, its path below that, and the name agents know it by."""

    root: Path
    relative: str
    name: str


class Workspace:
    """Some folders, and the only way for these tools to reach a file. Every method blocks.

    With several folders a name begins with its folder's, as editors show it.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._given = roots

    @cached_property
    def roots(self) -> dict[str, Path]:
        roots: dict[str, Path] = {}
        for root in dict.fromkeys(Path(os.path.realpath(root)) for root in self._given):
            twins = sum(other.name == root.name for other in roots.values())
            roots[f"{root.name}-{twins + 1}" if twins else root.name] = root
        return roots

    def locate(self, name: str) -> Entry:
        """The file or folder that `name` means; the first meaning that exists wins."""
        if problem := refusal(name, sys.platform):
            raise Refused(f"{name[:200]!r} cannot be used: {problem}")
        inside: list[Entry] = []
        named: list[Entry] = []
        """Where the name begins with that of the folder: what a new file is meant to be."""
        for label, root in self.roots.items():
            head, _, tail = name.partition("/")
            for guess in [name] + [tail] * (head == label):
                try:
                    real = Path(os.path.realpath(root / guess))
                except ValueError:  # a null byte, a lone surrogate
                    continue
                if real == root or root in real.parents:
                    entry = self._entry(label, real.relative_to(root).as_posix())
                    inside.append(entry)
                    if guess is tail and head == label and len(self.roots) > 1:
                        named.append(entry)
        if not inside:
            raise Refused(f"{name[:200]!r} is not inside the workspace folders.")
        there = (e for e in inside if os.path.exists(e.root / e.relative))
        return next(there, (named or inside)[0])

    def files(self) -> list[Entry]:
        """Every file but the ignored, the generated and the likely secret."""
        found: list[Entry] = []
        for label, root in self.roots.items():
            for relative in sorted(_git_files(root, self.roots.values()) or _walk(root)):
                if relative.isprintable() and not is_secret(relative):
                    found.append(self._entry(label, relative))
        return found[:MAX_FILES]

    def alike(self, name: str) -> Entry:
        """The file nearest to the top whose path ends in `name`, for an agent that knows only
        that much; case and a missing suffix are forgiven."""
        wanted = f"/{name.lower()}"
        found: dict[int, list[Entry]] = {}
        for entry in self.files():
            path = f"/{entry.name.lower()}"
            if path.endswith(wanted) or path.rpartition(".")[0].endswith(wanted):
                found.setdefault(path.count("/"), []).append(entry)
        if not found:
            raise Refused(f"There is no file {name[:200]!r} in the workspace.")
        nearest = found[min(found)]
        if len(nearest) > 1:
            names = ", ".join(entry.name for entry in nearest[:10])
            raise Refused(f"There are {len(nearest)} such files: {names}.")
        return nearest[0]

    def read(self, entry: Entry, limit: int) -> str:
        """The text of a regular file. `locate` has followed the links; by now there are none."""
        with opened(entry) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Refused(f"'{entry.name}' is larger than {limit // 1024} KiB.")
        if (text := text_of(data)) is None:
            raise Refused(f"'{entry.name}' is not a text file.")
        return text

    def _entry(self, label: str, relative: str) -> Entry:
        name = relative if len(self.roots) == 1 else f"{label}/{relative}".removesuffix("/.")
        return Entry(self.roots[label], relative, name)


def is_secret(relative: str) -> bool:
    base = relative.rpartition("/")[2].lower()
    return any(fnmatch.fnmatchcase(base, secret) for secret in SECRETS)


def is_outside(program: str, roots: Iterable[Path]) -> bool:
    """Whether a program is the user's: one that lies in the workspace is the workspace's."""
    real = Path(os.path.realpath(program))
    return not any(root in real.parents for root in roots)


def opened(entry: Entry) -> BinaryIO:
    """A regular file, through no link on the way."""
    try:
        fd = open_beneath(entry.root, entry.relative, os.O_RDONLY | FILE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused(f"'{entry.name}' changed while it was being read.") from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused("That is not a file. A folder can be listed.")
    return open(fd, "rb")


def text_of(data: bytes) -> str | None:
    """Text with `\\n` line ends, or None for a binary file."""
    if b"\0" in data[:8192]:
        return None
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _git_files(root: Path, roots: Collection[Path]) -> list[str]:
    """What git tracks or would track below `root`; empty when git cannot tell."""
    import shutil
    import subprocess

    git = shutil.which("git")
    if git is None or not is_outside(git, roots):
        return []
    environment = {name: os.environ[name] for name in GIT_ENVIRONMENT if name in os.environ}
    try:
        result = subprocess.run(
            # The repository's own configuration could name a program to run as its monitor.
            [git, "-c", "core.fsmonitor=false", "ls-files", "-coz", "--exclude-standard"],
            cwd=root,
            # Listing must run nothing: a repository can name a program to fetch with.
            env=environment
            | {
                "GIT_OPTIONAL_LOCKS": "0",
                "GIT_NO_LAZY_FETCH": "1",
                "GIT_ALLOW_PROTOCOL": "none",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    names: list[str] = []
    for name in dict.fromkeys(map(os.fsdecode, result.stdout.split(b"\0"))):
        if name.endswith("/"):  # another work tree inside this one
            names += [name + inner for inner in _walk(root / name)]
        elif (
            name
            and not name.startswith("/")
            and ".." not in name.split("/")
            and os.path.lexists(root / name)  # one that is tracked but deleted is left out
        ):
            names.append(name)
    # What an index names may lie behind a folder that is a link by now.
    folders = {name.rpartition("/")[0] for name in names}
    real = {f for f in folders if Path(os.path.realpath(root / f)) == root / f}
    return [name for name in names if name.rpartition("/")[0] in real]


def _walk(root: Path) -> list[str]:
    """Files below a folder that git does not know, hidden and generated folders left out."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED_FOLDERS and (name[0] != "." or name == ".github")
        )
        below = Path(folder).relative_to(root)
        found += [(below / name).as_posix() for name in files]
        if len(found) >= MAX_FILES:
            break
    return found
