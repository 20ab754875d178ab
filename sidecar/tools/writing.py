"""Changing one file below a folder, and nothing anywhere else.

The way to the file is walked with descriptors, one name at a time and through no link, so what is
swapped meanwhile leads nowhere. A file is replaced whole: a reader, or a crash, sees the old or
the new one. Everything here blocks and is called in a worker thread.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .beneath import FILE, FOLDER, WALKS, open_beneath
from .files import Refused

MAX_BYTES = 8 * 1024 * 1024
"""Of a file that is changed. What is larger is data, and nobody can read what changes in it."""
Place = tuple[int | None, str]
"""A folder's descriptor and a name in it; or no descriptor and a whole path."""


def change(root: Path, relative: str, old: bytes | None, new: bytes | None) -> None:
    """Make the file that holds `old` hold `new`; None is for no file. Folders that are missing on
    the way to a new file are made. Raises `Refused` if it holds something else by now, if the way
    leads through a link, or if it is not a regular file."""
    try:
        with _place(root, relative, make_folders=old is None) as place:
            if _held(place) != old:
                raise Refused(f"'{relative}' has changed meanwhile. Read it again.")
            _put(place, old, new)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused(f"'{relative}' leads through a link or a file.") from None
        raise Refused(f"'{relative}' could not be changed: {error.strerror}.") from None


def held(root: Path, relative: str) -> bytes | None:
    """What a file holds now; None where there is none. Raises `Refused` as `change` does."""
    try:
        with _place(root, relative) as place:
            return _held(place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"'{relative}' could not be read: {error.strerror}.") from None


@contextmanager
def _place(root: Path, relative: str, make_folders: bool = False) -> Iterator[Place]:
    *folders, name = relative.split("/")
    if not name or any(part in ("", ".", "..") for part in (*folders, name)):
        raise Refused(f"'{relative}' does not name a file.")
    if not WALKS:
        yield None, str(_checked(root, relative, make_folders))
        return
    if make_folders:
        _make_folders(root, folders)
    fd = open_beneath(root, "/".join(folders) or ".", FOLDER)
    try:
        yield fd, name
    finally:
        os.close(fd)


def _make_folders(root: Path, folders: Sequence[str]) -> None:
    for depth, folder in enumerate(folders):
        fd = open_beneath(root, "/".join(folders[:depth]) or ".", FOLDER)
        try:
            with suppress(FileExistsError):
                os.mkdir(folder, dir_fd=fd)
        finally:
            os.close(fd)


def _checked(root: Path, relative: str, make_folders: bool) -> Path:
    """One folder after the other, so that none is made at the end of a link."""
    path = root / relative
    for folder in reversed([path.parent, *path.parent.parents]):
        if root not in (folder, *folder.parents):
            continue
        if make_folders:
            folder.mkdir(exist_ok=True)
        if Path(os.path.realpath(folder)) != folder:
            raise OSError(errno.ELOOP, "a link")
    return path


def _held(place: Place) -> bytes | None:
    folder, name = place
    try:
        fd = os.open(name, os.O_RDONLY | FILE, dir_fd=folder)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused(f"'{Path(name).name}' is not a regular file.")
    with open(fd, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Refused(f"'{Path(name).name}' is larger than {MAX_BYTES >> 20} MiB.")
    return data


def _put(place: Place, old: bytes | None, new: bytes | None) -> None:
    folder, name = place
    if new is None:
        if old is not None:
            os.unlink(name, dir_fd=folder)
        return
    if old is None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE, 0o666, dir_fd=folder)
        _write(fd, new)
        return
    mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    draft = f".{secrets.token_hex(8)}.tmp"  # not longer than a name that is as long as it may be
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE, 0o600, dir_fd=folder)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(fd, mode)  # by its name somebody could have it be another file's
        _write(fd, new)
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(draft, dir_fd=folder)
        raise


def _write(fd: int, data: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
