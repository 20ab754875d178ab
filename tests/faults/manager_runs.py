"""The manager under random timing: evictions, cancellations and settings changes at any offset.

Everything runs in process under a virtual clock, so thousands of runs take seconds and each
is told by its number alone. `main` also plays the models of `tests/test_model.py` (one window)
and of `tests/test_windows_model.py` (several windows on one file).
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from sidecar.conversations import StopReason
from sidecar.errors import InvalidState, LimitReached, NotFound
from sidecar.events import TurnEnded, TurnQueued
from sidecar.interfaces import ModelEvent, ModelRequest, ModelStop, TextDelta
from sidecar.settings import Config
from tests.fakes import run_virtually
from tests.managers import World, begin, keyed, living

SEQUENCES = int(os.environ.get("SIDECAR_MODEL_EXAMPLES", "20000"))
DELTAS = 12
PROCESSES = os.cpu_count() or 1


class Slow:
    """Streams for a while; notes with which key, and for which model, it was asked."""

    def __init__(self, config: Config, asked: Counter[tuple[str, str]]) -> None:
        self.name = "slow"
        secret = config.secrets.gemini_api_key
        self._pair = (secret.reveal() if secret else "", config.settings.gemini_model)
        self._asked = asked

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self._asked[self._pair] += 1
        for number in range(DELTAS):
            await anyio.sleep(0.1)
            yield TextDelta(f"{number} ")
        yield ModelStop("endTurn")

    async def aclose(self) -> None:
        """There is nothing to give back."""


class Models:
    """Makes a `Slow` model per agent and counts what they are asked."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()

    def __call__(self, config: Config) -> Slow:
        return Slow(config, self.asked)


def ends(world: World) -> Counter[str]:
    return Counter(e.message_id for e in world.events if isinstance(e, TurnEnded))


def assert_each_ended_once(world: World) -> None:
    queued = [e.message_id for e in world.events if isinstance(e, TurnQueued)]
    assert ends(world) == Counter(queued), "a prompt ended twice, or never"


async def drift(chance: random.Random) -> None:
    """Some time passes, or only some turns of the loop: any offset of a stream is met."""
    await anyio.sleep(chance.choice((0, 0.1, chance.uniform(0, 1.5))))
    for _ in range(chance.randint(0, 30)):
        await anyio.lowlevel.checkpoint()


async def evict(chance: random.Random) -> None:
    """Ten agents work, others are asked for: none that works is evicted, and all is settled."""
    async with living(models=Models(), agent_wait_timeout=2_000) as world:
        async with anyio.create_task_group() as tasks:
            sent = []
            await world.create(*(f"c{n}" for n in range(12)))
            for number in range(10):
                sent.append(begin(tasks, world.send, "go", f"c{number}"))
                if chance.random() < 0.3:
                    await drift(chance)
            more = []
            for _ in range(3):
                await drift(chance)
                name = f"c{chance.randint(9, 11)}"
                more.append(begin(tasks, world.manager.get_or_create_agent, name))
                assert len(world.manager.registry) <= 10
        assert [o.result.stop_reason for o in sent] == [StopReason.END_TURN] * 10
        assert all(o.error is None or isinstance(o.error, LimitReached) for o in more)
        assert_each_ended_once(world)


async def cancel(chance: random.Random) -> None:
    """Cancel a call, a turn or an entry at any time, twice, or before it is there."""
    async with living(models=Models()) as world:
        await world.create("a")
        async with anyio.create_task_group() as tasks:
            sent = [begin(tasks, world.send, f"go {n}") for n in range(chance.randint(1, 3))]
            for _ in range(chance.randint(1, 3)):
                await drift(chance)
                await chance.choice((cancel_call, cancel_turn, cancel_entry))(world, sent, chance)
        assert all(outcome.is_done for outcome in sent)
        assert_each_ended_once(world)
        assert len(world.manager.waiters) == 0
        statuses = {message.status for message in await world.messages()}
        assert "streaming" not in statuses


async def cancel_call(world: World, sent: list[Any], chance: random.Random) -> None:
    chance.choice(sent).scope.cancel()


async def cancel_turn(world: World, sent: list[Any], chance: random.Random) -> None:
    await world.manager.cancel_turn("a")


async def cancel_entry(world: World, sent: list[Any], chance: random.Random) -> None:
    entries = await world.store.inner.queue("a")
    with suppress(InvalidState, NotFound):  # it has ended since
        if entries:
            await world.manager.cancel_message("a", chance.choice(entries).message_id)


async def change(chance: random.Random) -> None:
    """Change key and model together in the middle of streams: no request pairs one setting's
    key with the other's model, no prompt is lost, each ends once."""
    models = Models()
    configs = [
        keyed(key="key-A", gemini_model="model-A"),
        keyed(key="key-B", gemini_model="model-B"),
    ]
    async with living(models=models, config=configs[0]) as world:
        await world.create("a", "b", "c")
        async with anyio.create_task_group() as tasks:
            sent = [begin(tasks, world.send, f"go {n}", "abc"[n % 3]) for n in range(6)]
            for number in range(chance.randint(1, 4)):
                await drift(chance)
                force = chance.random() < 0.4
                await world.manager.update_settings(configs[(number + 1) % 2], force=force)
        assert set(models.asked) <= {("key-A", "model-A"), ("key-B", "model-B")}
        assert all(outcome.is_done for outcome in sent)
        assert_each_ended_once(world)


def repeat(what: Callable[[random.Random], Awaitable[None]], count: int) -> None:
    for number in range(count):
        try:
            run_virtually(partial(what, random.Random(number)))
        except BaseException as error:
            error.add_note(f"{what.__name__}, run {number}")
            raise


def model(machine: str, count: int) -> None:
    """Play so many sequences of a state machine, as many at a time as there are processors."""
    share = -(-count // PROCESSES)
    with ProcessPoolExecutor(PROCESSES) as pool:
        for played in [pool.submit(sequences, machine, share) for _ in range(PROCESSES)]:
            played.result()


def sequences(machine: str, count: int) -> None:
    module, _, name = machine.partition(":")
    logging.disable(logging.WARNING)  # what is refused and restarted would be told each time
    run_state_machine_as_test(
        getattr(importlib.import_module(module), name),
        settings=settings(
            max_examples=count,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def main(count: int = 10_000) -> str:
    """`count` cancellations, a tenth as many evictions, a twentieth as many settings changes,
    twice as many sequences of the manager's model (or as many as SIDECAR_MODEL_EXAMPLES says),
    and a tenth as many of that of several windows."""
    evictions, changes, shared = max(1, count // 10), max(1, count // 20), max(1, count // 10)
    alone = min(SEQUENCES, 2 * count)
    repeat(cancel, count)
    repeat(evict, evictions)
    repeat(change, changes)
    model("tests.test_model:Managing", alone)
    model("tests.test_windows_model:Sharing", shared)
    return (
        f"manager: {count} cancelled runs with one end for each prompt, {evictions} full pools "
        f"with 0 busy agents evicted, {changes} settings changes with 0 mixed keys, "
        f"{alone} sequences of the manager's model, {shared} of that of several windows"
    )


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))  # noqa: T201
