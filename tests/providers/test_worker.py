"""Models in processes of their own: what crosses, what is survived, what is ended (P7, P10, P11).

The library is `misbehaving`; the workers are real processes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio
import anyio.lowlevel
import pytest

from sidecar import processes
from sidecar.conversations import Prompt
from sidecar.errors import NetworkError
from sidecar.interfaces import ModelEvent, ModelRequest, ModelStop, TextDelta
from sidecar.processes import ChildRecord
from sidecar.providers import worker
from sidecar.providers.worker import WorkerProvider, Workers
from sidecar.settings import Config, Secret, Secrets
from tests.requirements import proves
from tests.test_processes import has_ended

pytestmark = pytest.mark.anyio


class Noted:
    """A ledger that remembers."""

    mark = "/nowhere/instance.lock"

    def __init__(self) -> None:
        self.live: dict[int, ChildRecord] = {}

    async def child_started(self, child: ChildRecord) -> None:
        self.live[child.pid] = child

    async def child_ended(self, child: ChildRecord) -> None:
        self.live.pop(child.pid)


@pytest.fixture
def ledger() -> Noted:
    return Noted()


@pytest.fixture
def stalls() -> list[str]:
    return []


@pytest.fixture
async def workers(ledger: Noted, stalls: list[str]) -> AsyncIterator[Workers]:
    made = Workers(ledger, "tests.providers.misbehaving", on_stall=stalls.append)
    yield made
    made.close()


@pytest.fixture
async def provider(workers: Workers) -> AsyncIterator[WorkerProvider]:
    made = WorkerProvider(Config(), workers)
    yield made
    await made.aclose()


def asked(prompt: str) -> ModelRequest:
    return ModelRequest(instructions="", history=[], prompt=Prompt(input=prompt))


async def answer(provider: WorkerProvider, prompt: str) -> list[ModelEvent]:
    with anyio.fail_after(20):
        return [event async for event in provider.stream(asked(prompt))]


def pid_in(events: list[ModelEvent]) -> int:
    first = events[0]
    assert isinstance(first, TextDelta)
    return int(first.text.split()[1])


async def test_events_cross_in_order_and_a_process_serves_call_after_call(
    provider: WorkerProvider, ledger: Noted
) -> None:
    first, second = await answer(provider, "echo a b"), await answer(provider, "echo c")
    assert first[1:] == [TextDelta("a "), TextDelta("b "), ModelStop("endTurn")]
    assert pid_in(first) == pid_in(second) != os.getpid()
    assert pid_in(first) in ledger.live


async def test_an_error_crosses_with_all_that_it_says(provider: WorkerProvider) -> None:
    with pytest.raises(NetworkError) as failed:
        await answer(provider, "fail")
    error = failed.value
    assert (error.message, error.hint, error.retryable) == ("It is out.", "Wait.", True)
    assert error.retry_after == 2.5


async def test_a_process_that_dies_is_an_error_and_the_next_call_has_another(
    provider: WorkerProvider,
) -> None:
    with pytest.raises(NetworkError) as failed:
        await answer(provider, "die")
    assert failed.value.retryable
    assert await answer(provider, "echo again")


async def test_what_a_library_prints_does_not_get_between_the_events(
    provider: WorkerProvider,
) -> None:
    assert (await answer(provider, "print hello"))[-1] == ModelStop("endTurn")
    assert await answer(provider, "echo again")


async def test_a_flood_is_read_no_faster_than_it_is_taken(provider: WorkerProvider) -> None:
    with anyio.fail_after(30):
        numbers = []
        async with aclosing(provider.stream(asked("flood 200000"))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    numbers.append(event.text)
                if len(numbers) % 50_000 == 0:
                    await anyio.lowlevel.checkpoint()
    assert numbers[1:] == [f"{n} " for n in range(200_000)]


@proves("P7")
async def test_a_silent_call_is_cancelled_at_once_and_its_process_goes_on(
    provider: WorkerProvider,
) -> None:
    pid = pid_in(await cancelled(provider, "think"))
    assert pid_in(await answer(provider, "echo again")) == pid


@proves("P7", "P11")
@pytest.mark.parametrize("what", ["spin", "block", "nap", "ignore"])
async def test_a_call_that_cannot_be_cancelled_ends_with_its_process(
    provider: WorkerProvider, ledger: Noted, what: str
) -> None:
    pid = pid_in(await cancelled(provider, what))
    assert has_ended(pid)
    assert pid not in ledger.live
    assert await answer(provider, "echo again")


async def cancelled(provider: WorkerProvider, prompt: str) -> list[ModelEvent]:
    """What came before the reader was cancelled. Returns once the call is over."""
    seen: list[ModelEvent] = []
    with anyio.fail_after(20), anyio.CancelScope() as scope:
        async with aclosing(provider.stream(asked(prompt))) as events:
            async for event in events:
                seen.append(event)
                scope.cancel()
    assert scope.cancelled_caught
    return seen


@proves("P11")
async def test_a_process_without_a_sign_of_life_is_told_and_a_silent_one_is_not(
    provider: WorkerProvider, stalls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STALL", 1.5)  # longer than from one heartbeat to the next
    monkeypatch.setattr(worker, "GIVE_UP", 2.0)
    with pytest.raises(NetworkError, match="hung"):
        await answer(provider, "spin")
    assert len(stalls) == 1
    with anyio.move_on_after(2.5):
        async for _ in provider.stream(asked("think")):
            pass
    assert len(stalls) == 1


@proves("P10")
async def test_a_worker_sees_no_key_of_our_environment(
    provider: WorkerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "canary")
    monkeypatch.setenv("MY_TOKEN", "canary")
    events = await answer(provider, "env")
    assert isinstance(events[1], TextDelta)
    names = set(events[1].text.split())
    assert not names & {"GEMINI_API_KEY", "MY_TOKEN", "PYTHONPATH"}
    assert processes.MARK in names


@proves("P10")
async def test_what_a_library_says_goes_nowhere_and_our_own_log_to_our_log(
    provider: WorkerProvider,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert (await answer(provider, "warn canary-4711"))[-1] == ModelStop("endTurn")
    assert "canary" not in "".join(capfd.readouterr())
    (record,) = [r for r in caplog.records if r.name == "sidecar.vendor"]
    assert record.getMessage() == "ours, with canary-4711"  # redacted by the formatter, as all
    assert record.levelname == "WARNING"


@proves("P10")
async def test_what_loads_the_libraries_gets_no_key(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sidecar.providers.worker_wire import Configure

    config = Config(secrets=Secrets(gemini_api_key=Secret("canary")))
    assert b"canary" not in repr(Configure.to_warm_up(config)).encode()
    assert Configure.of(config).config() == config


async def test_workers_end_with_those_who_made_them(workers: Workers, ledger: Noted) -> None:
    provider = WorkerProvider(Config(), workers)
    pid = pid_in(await answer(provider, "echo a"))
    await provider.aclose()
    workers.close()
    assert has_ended(pid)
    assert all(map(has_ended, ledger.live))
