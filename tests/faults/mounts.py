"""Disks for the experiments: small ones, and ones that cannot be written. Root's, and Linux's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


def why_not_mount() -> str | None:
    """What is missing here for mounting, if anything."""
    programs = ("mount", "umount", "unshare")
    missing = [name for name in programs if shutil.which(name) is None]
    if not sys.platform.startswith("linux") or missing or os.geteuid() != 0:
        return f"needs Linux, root and {', '.join(programs)}"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        return "needs the right to mount"
    return None


def needs_mounts() -> None:
    """Skip without the right to mount; in CI that is a failure, CI runs as root."""
    if reason := why_not_mount():
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on `disk`; returns the file to remove."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return ballast


def read_only(folder: Path, argv: list[str]) -> list[str]:
    """The command, run where `folder` cannot be written."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return ["unshare", "-m", "sh", "-c", mount, str(folder), *argv]
