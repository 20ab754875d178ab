"""How long requests take, for `sidecar/metrics`. Kept in memory; leaves the machine never."""

from __future__ import annotations

import time
from collections import deque

from ..wire.methods import Latency

WINDOW = 512
"""Requests of one method whose times are remembered; enough for a p99."""


class _Method:
    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.seconds: deque[float] = deque(maxlen=WINDOW)


class Timing:
    """Times one request. Set `failed` when it was answered with an error."""

    def __init__(self, method: _Method) -> None:
        self._method = method
        self.failed = False

    def __enter__(self) -> Timing:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._method.count += 1
        self._method.errors += self.failed
        self._method.seconds.append(time.perf_counter() - self._started)


class Timings:
    def __init__(self) -> None:
        self._methods: dict[str, _Method] = {}

    def of(self, method: str) -> Timing:
        return Timing(self._methods.setdefault(method, _Method()))

    def report(self) -> tuple[Latency, ...]:
        return tuple(_latency(name, m) for name, m in sorted(self._methods.items()) if m.seconds)


def _latency(name: str, method: _Method) -> Latency:
    times = sorted(method.seconds)

    def quantile(q: float) -> float:
        return round(times[min(int(q * len(times)), len(times) - 1)] * 1000, 3)

    return Latency(
        method=name,
        count=method.count,
        errors=method.errors,
        p50_ms=quantile(0.5),
        p99_ms=quantile(0.99),
        max_ms=round(times[-1] * 1000, 3),
    )
