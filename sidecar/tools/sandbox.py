"""Where a command may write and whether it has a network: bubblewrap, where Linux has it.

Inside, what the user can read can be read, except for keys and our own store; only the workspace
and a temporary folder can be written, what governs agents, editors and git cannot be changed
(`tools.guarded`), no service of the machine is within reach, and there is no network unless it was
asked for. Elsewhere a command runs as the user, and the question says so.
"""

from __future__ import annotations

import glob
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .. import paths

KEYS = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".git-credentials"),
    *(".config/gcloud", ".config/gh", ".config/agent-sidecar", ".password-store", ".pypirc"),
    *(".local/share/keyrings", ".mozilla", ".config/google-chrome", ".config/chromium"),
)
"""Below the home folder: what no build needs, and no answer should quote."""
SERVICES = ("/run", "/var/run")
"""Where a machine's services listen; a socket can be used in a place that cannot be written."""
NEEDED_OF_SERVICES = (
    *("/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf"),
    *("/run/NetworkManager/resolv.conf", "/run/resolvconf/resolv.conf", "/run/media"),
    *("/run/current-system", "/run/booted-system", "/run/opengl-driver"),
)
"""What is only read there: the names of servers, disks, the programs of NixOS."""

CACHES = {
    "npm_config_cache": "npm",
    "YARN_GLOBAL_FOLDER": "yarn",
    "PIP_CACHE_DIR": "pip",
    "UV_CACHE_DIR": "uv",
    "GOCACHE": "go-build",
}
"""What does not work without a folder to write to, and how it is told of another one."""


class View(NamedTuple):
    """What a command sees: `roots` can be written, `guarded` in them cannot, `hidden` is empty.
    What tools would keep for the next time goes to `cache`, as the user's own cannot be written:
    what is put there only ever reaches commands that are confined to the same workspace."""

    roots: Sequence[Path] = ()
    guarded: Sequence[Path] = ()
    hidden: Sequence[Path] = ()
    cache: Path | None = None

    def arguments(self) -> list[str]:
        view = ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--ro-bind", "/", "/"]
        view += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
        for place in SERVICES:
            if Path(place).is_dir() and not Path(place).is_symlink():
                view += ["--tmpfs", place]
        view += [word for p in NEEDED_OF_SERVICES for word in ("--ro-bind-try", p, p)]
        within = [p for p in self.hidden if any(root in p.parents for root in self.roots)]
        view += _empty(path for path in self.hidden if path not in within)
        view += [word for root in self.roots for word in ("--bind", str(root), str(root))]
        view += _empty(within)
        if self.cache is not None:
            view += ["--bind", str(self.cache), str(self.cache)]
            for name, folder in CACHES.items():
                view += ["--setenv", name, str(self.cache / folder)]
        return view + [w for p in self.guarded for w in ("--ro-bind-try", str(p), str(p))]


def hidden(home: Path, store: Path | None) -> list[Path]:
    """What is not to be seen, of what is there; also the backups beside a store."""
    ours = [] if store is None else store.parent.glob(f"{glob.escape(store.name)}*")
    places = (*(home / name for name in KEYS), paths.default_store().parent, *ours)
    return [p for p in dict.fromkeys(places) if p.exists() and not p.is_symlink()]


def cache_of(roots: Sequence[Path]) -> Path | None:
    """That of a workspace, made if it is not there; None where none can be made."""
    name = hashlib.sha256("\0".join(map(str, roots)).encode("utf-8", "surrogateescape")).hexdigest()
    folder = paths.default_cache() / "sandbox" / name[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def _empty(places: Iterable[Path]) -> list[str]:
    return [
        word
        for place in places
        for word in (
            ("--tmpfs", str(place)) if place.is_dir() else ("--ro-bind", "/dev/null", str(place))
        )
    ]


@cache
def bubblewrap() -> str | None:
    """Its path, if it works here: containers often forbid what it needs. Blocks."""
    program = shutil.which("bwrap") if sys.platform == "linux" else None
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *View().arguments(), "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else program


def wrapped(
    program: str, argv: Sequence[str], folder: Path, view: View, *, network: bool
) -> list[str]:
    """`argv` so that it runs in the sandbox, in `folder`."""
    return [
        program,
        *view.arguments(),
        *(("--share-net",) if network else ()),
        *("--chdir", str(folder), "--", *argv),
    ]
