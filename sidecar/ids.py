"""New identifiers, and the wall clock.

Ids are UUIDv7 (RFC 9562): they sort by the time they were made, so an index over them grows at
its end. Within a process they never repeat and never go backwards, whatever the clock does.
"""

from __future__ import annotations

import os
import threading
import time

_RANDOM_BITS = 62
_COUNTER_BITS = 12

_lock = threading.Lock()
_last = 0
"""Milliseconds and counter of the id made last, as one number."""


def now_ms() -> int:
    """Milliseconds since the epoch; for what is stored and shown, never for measuring."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A UUIDv7 greater than every one this process made before."""
    global _last
    with _lock:
        _last = max(now_ms() << _COUNTER_BITS, _last + 1)
        stamp = _last
    milliseconds, counter = stamp >> _COUNTER_BITS, stamp & 0xFFF
    random = int.from_bytes(os.urandom(8), "big") >> 2
    number = milliseconds << 80 | 0x7 << 76 | counter << 64 | 0b10 << _RANDOM_BITS | random
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
