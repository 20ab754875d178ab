"""Cancellation and order in the lane that a connection's thread serves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from sidecar.errors import StoreUnavailable
from sidecar.stores.lane import ThreadLane

pytestmark = pytest.mark.anyio


@pytest.fixture
async def lane() -> AsyncIterator[ThreadLane]:
    lane = ThreadLane("test")
    yield lane
    await lane.aclose()


class Gate:
    """Work that tells when it has begun and waits to be let through."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = anyio.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.loop.call_soon_threadsafe(self.begun.set)
        assert self.open.wait(5)
        return "done"


async def test_work_that_was_cancelled_before_it_began_is_never_done(lane: ThreadLane) -> None:
    gate, done = Gate(), []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lane.run, gate)
            await gate.begun.wait()
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(lane.run, lambda: done.append("late"))
                await anyio.wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
            gate.open.set()
        await lane.run(lambda: done.append("next"))
    assert done == ["next"]


async def test_work_that_had_begun_is_finished_and_the_cancellation_comes_after(
    lane: ThreadLane,
) -> None:
    gate, results = Gate(), []

    async def caller() -> None:
        results.append(await lane.run(gate, results.append))
        await anyio.lowlevel.checkpoint()
        results.append("not cancelled")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller)
            await gate.begun.wait()
            tasks.cancel_scope.cancel()
            gate.open.set()
    assert results == ["done", "done"]


async def test_a_plain_task_cancel_is_not_lost_either(lane: ThreadLane) -> None:
    gate, results = Gate(), []

    async def caller() -> None:
        results.append(await lane.run(gate))
        await asyncio.sleep(0)
        results.append("not cancelled")

    with anyio.fail_after(5):
        task = asyncio.create_task(caller())
        await gate.begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert results == ["done"]


async def test_what_follows_is_called_in_order_before_anybody_goes_on(lane: ThreadLane) -> None:
    seen: list[str] = []

    async def caller(name: str) -> None:
        await lane.run(lambda: name, lambda result: seen.append(f"{result} committed"))
        seen.append(f"{name} goes on")

    async with anyio.create_task_group() as tasks:
        for name in "ab":
            tasks.start_soon(caller, name)
    for name in "ab":
        assert seen.index(f"{name} committed") < seen.index(f"{name} goes on")
    assert seen.index("a committed") < seen.index("b committed")


async def test_a_failure_belongs_to_its_caller(lane: ThreadLane) -> None:
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 // 0)
    assert await lane.run(lambda: "alive") == "alive"


async def test_a_closed_lane_refuses(lane: ThreadLane) -> None:
    await lane.aclose()
    with pytest.raises(StoreUnavailable):
        await lane.run(lambda: None)
