"""Vendors that fail: some faults of each dialect, some cuts, and that every defence is missed
when it is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.providers.conftest import dialect
from tests.providers.dialects import DIALECTS, Dialect
from tests.providers.vendor_server import VendorServer
from tests.providers.vendors import needs_llm_extra
from tests.requirements import proves

needs_llm_extra()

from sidecar import turn  # noqa: E402  # only with the extra
from sidecar.errors import NetworkError, Unauthorized  # noqa: E402
from sidecar.interfaces import ToolCall  # noqa: E402
from sidecar.providers import (  # noqa: E402
    pydantic_ai,
    vendor_errors,
    vendor_http,
    vendor_messages,
    vendor_models,
)
from tests.faults import chaos  # noqa: E402
from tests.faults.chaos_cuts import cut_all  # noqa: E402

__all__ = ["dialect"]
pytestmark = pytest.mark.anyio

SOME = (
    "status 401",
    "retry-after a date",
    "502 as a page",
    "redirect 307",
    "answers TLS with garbage",
    "a chunk shorter than it says",
    "closed after text",
    "reset at 5/10",
    "an event that is half of a JSON",
    "a tool, then a reset",
    "a tool called twice under one id",
    "closed within a call",
    "alive for ever after text",
    "a reset, twice",
)
OPENAI = DIALECTS["openai"]
GRACE = 15.0
"""Seconds; how long a turn takes on a machine that tests is of no interest."""


async def problems(dialect: Dialect, *names: str) -> str:
    """What is wrong with how the turns ended that met these faults."""
    await chaos.warm_up(dialect)
    met = await chaos.meet_all(dialect, lambda case: case.name in names, grace=GRACE)
    assert met.seen or met.wrong, "there is no such fault"
    return "\n".join(met.wrong)


@proves("P2", "P6", "P10")
async def test_whatever_a_vendor_does_the_turn_ends_once_and_as_it_should(dialect: Dialect) -> None:
    assert await problems(dialect, *SOME) == ""


@proves("P7")
async def test_waiting_for_the_next_attempt_can_be_cancelled(dialect: Dialect) -> None:
    await chaos.cancel_a_wait(dialect)


@proves("P6")
async def test_a_stream_cut_anywhere_leaves_a_beginning_and_runs_no_half_of_a_call(
    dialect: Dialect,
) -> None:
    assert await cut_all(dialect, 25) >= 25


def test_there_are_forty_faults_of_each_dialect(dialect: Dialect) -> None:
    names = [case.name for case in chaos.cases(dialect, "http://elsewhere")]
    assert len(set(names)) == len(names) >= 40


# ---- the defences, taken away ------------------------------------------------------------


async def test_asking_again_after_text_was_shown_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = turn.attempts
    monkeypatch.setattr(turn, "attempts", lambda policy, name, **_: attempts(policy, name))
    assert "kept 'Hälf a Hälf a " in await problems(OPENAI, "closed after text")


async def test_following_a_redirect_with_the_key_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make: Callable[..., Any] = vendor_http.client

    def trusting(*args: Any) -> Any:
        client = make(*args)
        client.follow_redirects = True
        return client

    monkeypatch.setattr(vendor_http, "_origin", lambda url: None)
    monkeypatch.setattr(vendor_models.vendor_http, "client", trusting)
    assert "another origin" in await problems(DIALECTS["anthropic"], "redirect 307")


async def test_asking_again_with_a_refused_key_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Unauthorized, "retryable_by_default", True)
    assert "asked 3 times" in await problems(OPENAI, "status 401")


async def test_running_a_damaged_call_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = pydantic_ai._call

    def careless(part: Any) -> ToolCall:
        try:
            return sound(part)
        except NetworkError:
            return ToolCall(part.tool_call_id, part.tool_name, {})

    monkeypatch.setattr(pydantic_ai, "_call", careless)
    assert await problems(OPENAI, "arguments that are a list") != ""


async def test_running_an_incomplete_call_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending = pydantic_ai._ending

    def hasty(reply: Any, *rest: Any) -> Any:
        reply.provider_details = {**(reply.provider_details or {}), "finish_reason": "stop"}
        return ending(reply, *rest)

    monkeypatch.setattr(pydantic_ai, "_ending", hasty)
    assert await problems(OPENAI, "ended after a call", "ended after text") != ""


async def test_cuts_that_pass_for_the_end_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending = pydantic_ai._ending

    def hasty(reply: Any, *rest: Any) -> Any:
        reply.provider_details = {"finish_reason": "stop"}
        return ending(reply, *rest)

    monkeypatch.setattr(pydantic_ai, "_ending", hasty)
    with pytest.raises(AssertionError, match="said to be whole"):
        await cut_all(OPENAI, 25)


async def test_waiting_for_ever_for_a_sign_of_more_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pydantic_ai, "PATIENCE", 10_000)
    async with VendorServer() as elsewhere:
        (case,) = [c for c in chaos.cases(OPENAI, "") if c.name == "alive for ever after text"]
        with pytest.raises(chaos.Late):
            await chaos.meet(case, OPENAI, elsewhere, grace=-2.5)


async def test_an_error_in_the_vendors_words_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vendor_errors, "_status", str)
    assert "the key was shown" in await problems(OPENAI, "status 503")


async def test_a_call_that_runs_twice_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor_messages, "_without_repeats", list)
    wrong = await problems(DIALECTS["gemini"], "a tool called twice under one id")
    assert "had an effect" in wrong


async def test_ignoring_how_long_to_wait_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = vendor_errors._answered

    def deaf(*args: Any) -> Any:
        error = answered(*args)
        error.retry_after = None
        return error

    monkeypatch.setattr(vendor_errors, "_answered", deaf)
    assert "waited" in await problems(OPENAI, "retry-after seconds")
