"""Child processes: what they get to see, how they are known again, how they end with all theirs.

A child gets a group of its own and a short list of our environment, in which there is no key. It
is recorded in the store under its process id and the moment it began, which together are never
given out twice; so the children of a sidecar that was killed are found and ended by the next.
Where the system shows environments (Linux), descendants that left the group are found as well:
each carries the name of the sidecar that it belongs to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec

MARK = "AGENT_SIDECAR_INSTANCE"
"""The environment variable that says which sidecar a process belongs to."""

PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM"),
        *("TMPDIR", "TEMP", "TMP", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"),
        *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROGRAMDATA"),
        *("USERPROFILE", "APPDATA", "LOCALAPPDATA"),
        *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
    }
)
"""What a child sees of our environment, and `LC_…`. Everything else may be a key."""

TERM_GRACE = 1.0
"""Seconds between asking a process to end and ending it."""
_LOOK = 0.02


class ChildRecord(msgspec.Struct, frozen=True):
    """A child as the store knows it."""

    pid: int
    began: str
    """Of no meaning but to be compared; see `began`."""
    kind: str


def environment(mark: str, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a child of the sidecar that is called `mark`."""
    kept = {
        name: value
        for name, value in env.items()
        if name.upper() in PASSED_ON or name.upper().startswith("LC_")
    }
    return kept | ({MARK: mark} if mark else {})


def own_group() -> dict[str, Any]:
    """Arguments of `Popen` that put a child into a group of its own."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


# ---- who is who ----------------------------------------------------------------------------


def began(pid: int) -> str | None:
    """When the process began, by a clock of the system's; None if there is none (any more)."""
    if sys.platform == "linux":
        return _began_on_linux(pid)
    if sys.platform == "win32":
        return _began_on_windows(pid)
    command = ["ps", "-o", "lstart=,state=", "-p", str(pid)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return None if not said or said.split()[-1].startswith("Z") else said.rsplit(" ", 1)[0]


def _began_on_linux(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return parse_stat(stat, boot)


def parse_stat(stat: str, boot: str) -> str | None:
    """Of /proc/PID/stat; a process that has ended and waits to be reaped is none. The name in
    it may hold anything, so the fields are counted from its closing bracket."""
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _began_on_windows(pid: int) -> str | None:
    import ctypes

    query = 0x1000
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]  # Windows only
    handle = kernel.OpenProcess(query, False, pid)
    if not handle:
        return None
    try:
        times = [ctypes.c_uint64() for _ in range(4)]
        fine = kernel.GetProcessTimes(handle, *map(ctypes.byref, times))
        # A handle outlives its process: one that has an exit time has ended.
        return str(times[0].value) if fine and not times[1].value else None
    finally:
        kernel.CloseHandle(handle)


def is_same(child: ChildRecord) -> bool:
    """Whether the process of this id is still the one that was recorded."""
    return began(child.pid) == child.began


def marked(is_meant: Callable[[str], bool]) -> Iterator[int]:
    """Processes that carry the name of a sidecar that `is_meant` (Linux; elsewhere none)."""
    if sys.platform != "linux":
        return
    wanted = MARK.encode() + b"="
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # not ours to see, or gone
            for variable in (entry / "environ").read_bytes().split(b"\0"):
                if variable.startswith(wanted) and is_meant(variable[len(wanted) :].decode()):
                    yield int(entry.name)


# ---- the end -------------------------------------------------------------------------------


def kill_group(pid: int) -> None:
    """End a child and all that is in its group, now."""
    if sys.platform == "win32":
        command = ["taskkill", "/F", "/T", "/PID", str(pid)]
        subprocess.run(command, capture_output=True, check=False)
        return
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


async def end_group(pid: int, grace: float = TERM_GRACE) -> None:
    """Ask a child and its group to end, and end what does not within `grace` seconds."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGTERM)
        with anyio.move_on_after(grace):
            while _is_there(pid):  # noqa: ASYNC110  # a group has no event to wait for
                await anyio.sleep(_LOOK)
    kill_group(pid)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # One that has ended and that nobody reaps, as in many containers, is nothing to wait for.
    return sys.platform != "linux" or any(_members(group))


def _members(group: int) -> Iterator[int]:
    """The processes of a group that have not ended (Linux)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] not in "ZX":
                    yield int(entry.name)


def reap(children: Sequence[ChildRecord], is_orphaned: Callable[[str], bool]) -> int:
    """End what is left of `children`, and every process whose mark `is_orphaned`; returns how
    many there were. Blocks for as long as it takes to look."""
    left = [child.pid for child in children if is_same(child)]
    for pid in left:
        kill_group(pid)
    return len(left) + _kill_all(set(marked(is_orphaned)) - set(left))


def _kill_all(pids: Iterable[int]) -> int:
    count = 0
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            count += 1
    return count


def die_with_parent() -> None:
    """Have the system end this process when the thread that made it ends (Linux). For a child's
    own first lines; elsewhere the end of its stdin has to do."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
