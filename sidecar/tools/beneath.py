"""Opening what lies below a folder, through no link on the way: what is swapped meanwhile leads
nowhere. Linux does it in one call, `openat2`; elsewhere each name is opened in the folder before.

A hard link cannot be told from the file that it is: who can make one can read the file anyway.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path

WALKS = os.open in os.supports_dir_fd
"""Windows has no such descriptors: there the way is checked, then used by its name."""
FOLDER = sum(
    getattr(os, flag, 0) for flag in ("O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")
)
FILE = sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Added to how a file is opened: never a link, never waiting for a pipe's writer."""

_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(root: Path, relative: str, flags: int) -> int:
    """A descriptor of what `relative` (names joined by `/`, or `.`) is below `root`. Raises
    `OSError`: ELOOP or ENOTDIR where a link or a file is in the way."""
    names = [] if relative == "." else relative.split("/")
    if any(name in ("", ".", "..") for name in names):
        raise OSError(errno.EINVAL, "not a plain path")
    if not WALKS:
        return os.open(_checked(root, relative), flags)
    folder = os.open(root, FOLDER)
    try:
        if not names:
            return os.dup(folder)
        if _has_openat2():
            return _openat2(folder, relative, flags)
        return _walked(folder, names, flags)
    finally:
        os.close(folder)


def _walked(folder: int, names: list[str], flags: int) -> int:
    fd = os.dup(folder)
    try:
        for name in names[:-1]:
            inner = os.open(name, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
        return os.open(names[-1], flags | getattr(os, "O_NOFOLLOW", 0), dir_fd=fd)
    finally:
        os.close(fd)


def _checked(root: Path, relative: str) -> Path:
    path = root / relative
    if Path(os.path.realpath(path)) != path:
        raise OSError(errno.ELOOP, "a link")
    return path


def _openat2(folder: int, relative: str, flags: int) -> int:
    how = _How(flags | os.O_CLOEXEC, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    name = os.fsencode(relative)
    fd: int = _libc().syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(folder),
        ctypes.c_char_p(name),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        number = ctypes.get_errno()
        if number == errno.EXDEV:  # out of the folder: to the caller one kind of wrong way
            number = errno.ELOOP
        raise OSError(number, os.strerror(number))
    return fd


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _has_openat2() -> bool:
    """Old kernels do not have it, and some containers forbid it."""
    if sys.platform != "linux":
        return False
    try:
        folder = os.open("/", FOLDER)
    except OSError:
        return False
    try:
        os.close(_openat2(folder, "proc", FOLDER))
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES)
    finally:
        os.close(folder)
    return True
