"""Where a connection's work is done, one job after the other.

A `ThreadLane` owns a thread, so that no disk ever stops the event loop. An `InlineLane` does
the work where it is asked for: with the database in memory there is nothing to wait for, and a
test under a virtual clock stays deterministic.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

import anyio
import anyio.lowlevel

from ..errors import AgentError, StoreUnavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Lane(Protocol):
    async def run(self, work: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        """Do `work`; call `then` with its result on the event loop before anybody learns of it.

        A caller that is cancelled before `work` began revokes it. Once begun, `work` is waited
        for and its result returned; the cancellation arrives at the caller's next await.
        """
        ...

    def post(self, work: Callable[[], object]) -> None:
        """Do `work` some time; nobody waits for it, and a failure is only logged."""
        ...

    async def aclose(self) -> None:
        """Finish what was asked for and stop."""
        ...


class InlineLane:
    async def run(self, work: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        await anyio.lowlevel.checkpoint()
        result = work()
        if then is not None:
            then(result)
        return result

    def post(self, work: Callable[[], object]) -> None:
        _do_logged(work)

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


class ThreadLane:
    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ThreadLane {self._thread.name}: {self._jobs.qsize()} waiting>"

    async def run(self, work: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise closed()
        job = _Job(work, then)
        self._jobs.put(job.do)
        return await job.outcome()

    def post(self, work: Callable[[], object]) -> None:
        self._jobs.put(lambda: _do_logged(work))

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        with anyio.CancelScope(shield=True):
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def closed() -> StoreUnavailable:
    return StoreUnavailable("The store is closed.", retryable=False)


def _do_logged(work: Callable[[], object]) -> None:
    try:
        work()
    except (AgentError, OSError, sqlite3.Error):
        _log.warning("housekeeping of the store failed", exc_info=True)


class _Job(Generic[T]):
    """One piece of work, its way to the thread and back."""

    def __init__(self, work: Callable[[], T], then: Callable[[T], None] | None) -> None:
        self._work = work
        self._then = then
        self._loop = asyncio.get_running_loop()
        self._finished = anyio.Event()
        # Taken once: by the thread to begin, or by the caller to revoke.
        self._claim = threading.Lock()
        self._result: T
        self._error: BaseException | None = None

    def do(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller, who gets it
            self._error = error
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        try:
            if self._error is None and self._then is not None:
                self._then(self._result)
        except Exception as error:  # noqa: BLE001 - as above
            self._error = error
        finally:
            self._finished.set()

    async def outcome(self) -> T:
        try:
            await self._finished.wait()
        except asyncio.CancelledError:
            if self._claim.acquire(blocking=False):
                raise
            await self._wait_shielded()
            _cancel_later()
        if self._error is not None:
            raise self._error
        return self._result

    async def _wait_shielded(self) -> None:
        with anyio.CancelScope(shield=True):
            while not self._finished.is_set():
                try:
                    await self._finished.wait()
                except asyncio.CancelledError:
                    # A second `task.cancel()`; `_cancel_later` speaks for all of them.
                    continue


def _cancel_later() -> None:
    """Have the cancellation that we held back delivered at the next await.

    A cancel scope does so by itself; a plain `task.cancel()` is said only once and would be
    lost. `uncancel` keeps the count of requests as it was.
    """
    task = asyncio.current_task()
    if task is not None and anyio.current_effective_deadline() != -math.inf:
        task.uncancel()
        task.cancel()
