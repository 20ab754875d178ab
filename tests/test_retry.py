"""The one retry policy, under a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import AgentError, InvalidState, NetworkError, Unauthorized
from sidecar.retry import LONGEST_RETRY_AFTER, is_transient, retry_with_backoff
from tests.fakes import run_virtually
from tests.managers import VIRTUAL, recorded, retrying
from tests.requirements import proves


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


class Operation:
    """Fails as it is told, then succeeds; notes when it was called."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(anyio.current_time())
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    @property
    def delays(self) -> list[int]:
        """In whole seconds: the virtual clock goes on in real time, too."""
        pairs = zip(self.times, self.times[1:], strict=False)
        return [round(after - before) for before, after in pairs]


@proves("S003-RETRY-2")
@pytest.mark.anyio
async def test_the_delay_doubles_with_each_attempt() -> None:
    operation = Operation(*[NetworkError("down") for _ in range(5)])
    assert await retry_with_backoff(operation, retrying(6, 1_000)) == "done"
    assert operation.delays == [1, 2, 4, 8, 16]


@proves("S003-RETRY-1", "S003-RETRY-4", "D4-RETRY-6")
@settings(deadline=None, max_examples=60)
@given(
    attempts=st.integers(1, 6), failures=st.integers(0, 8), base=st.sampled_from([0, 1_000, 5_000])
)
def test_any_policy_is_kept(attempts: int, failures: int, base: int) -> None:
    operation = Operation(*[NetworkError(f"{n}") for n in range(failures)])

    async def go() -> Any:
        try:
            return await retry_with_backoff(operation, retrying(attempts, base))
        except NetworkError as error:
            return error

    outcome = run_virtually(go)
    assert len(operation.times) == min(attempts, failures + 1)
    assert operation.delays == [base // 1_000 * 2**n for n in range(len(operation.times) - 1)]
    if failures >= attempts:
        assert (outcome.message, outcome.attempts) == (str(attempts - 1), attempts)
    else:
        assert outcome == "done"


@proves("D4-RETRY-1")
@pytest.mark.anyio
@pytest.mark.parametrize("asked", [0, 7, LONGEST_RETRY_AFTER])
async def test_the_other_side_may_ask_for_its_own_delay(asked: float) -> None:
    operation = Operation(NetworkError("busy", retry_after=asked), NetworkError("down"))
    assert await retry_with_backoff(operation, retrying()) == "done"
    assert operation.delays == [asked, 2]


@proves("D4-RETRY-1")
@pytest.mark.anyio
async def test_who_asks_for_too_long_is_not_waited_for() -> None:
    operation = Operation(NetworkError("busy", retry_after=LONGEST_RETRY_AFTER + 1))
    with pytest.raises(NetworkError):
        await retry_with_backoff(operation, retrying())
    assert len(operation.times) == 1


@proves("D4-RETRY-2")
@pytest.mark.anyio
@pytest.mark.parametrize(
    "make",
    [
        lambda: Unauthorized("no"),
        lambda: InvalidState("no"),
        lambda: NetworkError("no", retryable=False),
        lambda: ValueError("no"),
    ],
)
async def test_what_will_not_pass_is_raised_at_once(make: Callable[[], Exception]) -> None:
    error = make()
    assert not is_transient(error)
    operation = Operation(error)
    with pytest.raises(type(error)) as caught:
        await retry_with_backoff(operation, retrying())
    assert caught.value is error
    assert len(operation.times) == 1
    if isinstance(error, AgentError):
        assert error.attempts == 1


@proves("D4-RETRY-4")
@pytest.mark.anyio
async def test_waiting_can_be_cancelled() -> None:
    operation = Operation(NetworkError("down"))
    with anyio.move_on_after(5) as scope:
        await retry_with_backoff(operation, retrying(base_delay=60_000))
    assert scope.cancelled_caught
    assert len(operation.times) == 1


@proves("D4-RETRY-5", "S003-RETRY-3")
@pytest.mark.anyio
async def test_each_attempt_is_logged_with_name_number_delay_and_cause() -> None:
    operation = Operation(NetworkError("down key-1"), NetworkError("down"))
    with recorded() as records:
        await retry_with_backoff(operation, retrying(), "reading")
    assert [
        (line["operationName"], line["attempt"], line["delayMs"], line["cause"])
        for line in records.of("retrying")
    ] == [("reading", 1, 1_000, "NETWORK_ERROR"), ("reading", 2, 2_000, "NETWORK_ERROR")]
