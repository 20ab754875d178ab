"""Callers that wait for the end of a turn."""

from __future__ import annotations

import anyio
import pytest

from sidecar.conversations import StopReason, TurnResult
from sidecar.errors import InvalidState
from sidecar.waiters import Waiters
from tests.requirements import proves

pytestmark = pytest.mark.anyio


def result(message_id: str) -> TurnResult:
    return TurnResult(message_id=message_id, stop_reason=StopReason.END_TURN)


@proves("P6")
async def test_all_who_wait_for_a_message_get_its_end_and_are_forgotten() -> None:
    waiters = Waiters()
    waiting = [waiters.wait_for("a", "m1") for _ in range(3)]
    other = waiters.wait_for("a", "m2")
    assert len(waiters) == 4
    waiters.settle(result("m1"))
    with anyio.fail_after(5):
        assert [await waiter.result() for waiter in waiting] == [result("m1")] * 3
    assert len(waiters) == 1
    waiters.forget(other)
    waiters.forget(other)
    assert len(waiters) == 0


@proves("P6")
async def test_the_first_settlement_stands() -> None:
    waiters = Waiters()
    waiter = waiters.wait_for("a", "m1")
    waiters.settle(result("m1"))
    waiters.fail_all(InvalidState("too late"))
    with anyio.fail_after(5):
        assert await waiter.result() == result("m1")


async def test_a_failure_reaches_those_of_its_message_conversation_or_all() -> None:
    waiters = Waiters()
    one, two, three = (waiters.wait_for(c, m) for c, m in (("a", "1"), ("a", "2"), ("b", "3")))
    waiters.fail_message("1", InvalidState("message"))
    waiters.fail_conversation("a", InvalidState("conversation"))
    waiters.fail_all(InvalidState("all"))
    with anyio.fail_after(5):
        for waiter, message in ((one, "message"), (two, "conversation"), (three, "all")):
            with pytest.raises(InvalidState, match=message):
                await waiter.result()
    assert len(waiters) == 0
