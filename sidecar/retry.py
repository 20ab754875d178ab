"""The one retry policy: how long, how often, and what is worth trying again.

Whether an error is temporary is the error's own knowledge (`AgentError.retryable`); the policy
only waits. The delay before attempt n+1 is `base · 2^(n-1)`, or what the other side asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

from .errors import AgentError
from .settings import RetrySettings

if TYPE_CHECKING:
    from tenacity import AsyncRetrying, RetryCallState

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_RETRY_AFTER = 60.0
"""Seconds. A vendor that asks for more is better answered with the error at once."""


def is_transient(error: BaseException) -> bool:
    return (
        isinstance(error, AgentError)
        and error.retryable
        and (error.retry_after or 0) <= LONGEST_RETRY_AFTER
    )


async def pause(seconds: float) -> None:
    """The waiting itself."""
    await anyio.sleep(seconds)


def attempts(
    policy: RetrySettings,
    operation_name: str,
    *,
    is_retryable: Callable[[BaseException], bool] = is_transient,
) -> AsyncRetrying:
    """`async for attempt in attempts(...): with attempt: await operation()`.

    Raises the last error itself, with `attempts` set on it. Cancelling ends the waiting too.
    """
    from tenacity import AsyncRetrying, stop_after_attempt, wait_exponential

    exponential = wait_exponential(multiplier=policy.base_delay / 1000, exp_base=2)

    def should_retry(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, AgentError):
            error.attempts = state.attempt_number
        return error is not None and is_retryable(error)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, AgentError) else None
        return float(exponential(state)) if asked is None else asked

    def log(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning(
            "retrying",
            extra={
                "operationName": operation_name,
                "attempt": state.attempt_number,
                "delayMs": round((state.upcoming_sleep or 0) * 1000),
                "cause": getattr(error, "type", type(error).__name__),
            },
        )

    return AsyncRetrying(
        stop=stop_after_attempt(policy.max_attempts),
        wait=wait,
        retry=should_retry,
        before_sleep=log,
        sleep=pause,
        reraise=True,
    )


async def retry_with_backoff(
    operation: Callable[[], Awaitable[T]], policy: RetrySettings, operation_name: str = "operation"
) -> T:
    """Run `operation` until it succeeds, fails for good, or `policy.max_attempts` are used up."""
    async for attempt in attempts(policy, operation_name):
        with attempt:
            return await operation()
    raise AssertionError("tenacity either returns or raises")
