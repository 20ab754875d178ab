"""Noticing that the editor is gone although our stdin is still open (somebody else may hold
the other end)."""

from __future__ import annotations

import os
import sys

import anyio
import anyio.to_thread

POLL_SECONDS = 3.0
"""How often a process is looked up where the system cannot tell us of its end."""
FOR_EVER = 0xFFFFFFFF
"""Milliseconds, as Windows has it."""


async def exit_of(pid: int) -> None:
    """Return when the process `pid` has ended, or if there is no such process."""
    if sys.platform == "win32":
        await anyio.to_thread.run_sync(_windows_wait, pid, abandon_on_cancel=True)
        return
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError:
            await _poll(pid)
            return
        try:
            # Readable when the process ends, even while nobody reaps it.
            await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        return
    await _poll(pid)


def has_ended(pid: int) -> bool:
    """Whether the process `pid` has ended or never was. For a thread; does not wait."""
    if sys.platform == "win32":
        return _windows_wait(pid, 0)
    if hasattr(os, "pidfd_open"):
        from select import POLLIN, poll

        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return not is_alive(pid)
        try:
            watched = poll()
            watched.register(descriptor, POLLIN)
            return bool(watched.poll(0))
        finally:
            os.close(descriptor)
    return not is_alive(pid)


async def _poll(pid: int) -> None:
    while is_alive(pid):  # noqa: ASYNC110  # there is no event to wait for
        await anyio.sleep(POLL_SECONDS)


def is_alive(pid: int) -> bool:
    """Whether a process of this id exists (POSIX). One that we may not signal does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _windows_wait(pid: int, milliseconds: int = FOR_EVER) -> bool:
    """Whether the process has ended by then."""
    import ctypes

    synchronize, timed_out = 0x00100000, 0x102
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]  # Windows only
    handle = kernel.OpenProcess(synchronize, False, pid)
    if not handle:
        return True
    try:
        return bool(kernel.WaitForSingleObject(handle, milliseconds) != timed_out)
    finally:
        kernel.CloseHandle(handle)
