"""Memory and CPU of this process, with a branch for each platform."""

from __future__ import annotations

import os
import sys


def cpu_ms() -> int:
    times = os.times()
    return round((times.user + times.system) * 1000)


def rss_bytes() -> int:
    """Resident memory now; its peak where the platform tells only that."""
    if sys.platform.startswith("linux"):
        with open("/proc/self/statm", encoding="ascii") as file:
            return resident(file.read(), os.sysconf("SC_PAGE_SIZE"))
    if sys.platform == "win32":
        return _windows_working_set()
    import resource

    return peak(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.platform)


def resident(statm: str, page_size: int) -> int:
    """The second field of `/proc/self/statm`, in bytes."""
    return int(statm.split()[1]) * page_size


def peak(maxrss: int, platform: str) -> int:
    """`ru_maxrss` in bytes: macOS counts bytes, the others KiB."""
    return maxrss if platform == "darwin" else maxrss * 1024


def _windows_working_set() -> int:
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        _fields_ = [
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            ("PeakWorkingSetSize", ctypes.c_size_t),
            ("WorkingSetSize", ctypes.c_size_t),
            ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
            ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
            ("PagefileUsage", ctypes.c_size_t),
            ("PeakPagefileUsage", ctypes.c_size_t),
        ]

    counters = Counters(cb=ctypes.sizeof(Counters))
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]  # Windows only
    kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.WorkingSetSize)
