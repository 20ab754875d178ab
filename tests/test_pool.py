"""Agents on demand, within the limit, and freed when idle."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from sidecar.errors import InitializationFailed, LimitReached
from sidecar.events import TurnEnded
from sidecar.pool import READER_PATIENCE, SWEEP_INTERVAL
from sidecar.settings import Config, Settings
from tests.fakes import FakeModel
from tests.managers import VIRTUAL, World, begin, keyed, living, recorded, settle, until
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


def ended(world: World) -> int:
    return sum(isinstance(event, TurnEnded) for event in world.events)


def limited(limit: int, **settings: Any) -> Config:
    return Config(settings=Settings(max_active_agents=limit, **settings))


# ---- the limit ----


@proves("S003-LIFECYCLE-3", "S003-RESOURCES-1", "S003-PERFORMANCE-4", "D4-LIMIT-1")
async def test_the_agent_used_longest_ago_makes_room() -> None:
    async with living(max_active_agents=3) as world:
        for id_ in "abc":
            await world.manager.get_or_create_agent(id_)
            await anyio.sleep(1)
        await world.manager.get_or_create_agent("a")
        with recorded() as records:
            await world.manager.get_or_create_agent("d")
        assert world.live() == {"a", "c", "d"}
        (disposed,) = records.of("agent disposed")
        assert (disposed["conversationId"], disposed["reason"]) == ("b", "least recently used")
        await world.manager.get_or_create_agent("b")
        assert world.live() == {"a", "b", "d"}


@proves("S003-PERFORMANCE-1", "S003-CONFIG-1")
async def test_by_default_ten_agents_are_live() -> None:
    async with living() as world:
        for number in range(14):
            await world.manager.get_or_create_agent(f"c{number}")
            assert world.manager.active_agent_count() <= 10
        assert world.manager.active_agent_count() == 10


@proves("P5", "D4-LIMIT-3")
async def test_the_eleventh_waits_for_a_busy_ten_and_is_then_told_so() -> None:
    async with living() as world:
        for number in range(10):
            await world.busy(f"c{number}")
        began = anyio.current_time()
        with pytest.raises(LimitReached) as caught:
            await world.manager.get_or_create_agent("x")
        assert 10 <= anyio.current_time() - began < 11
        assert caught.value.retryable
        assert caught.value.conversation_id == "x"
        with pytest.raises(LimitReached):
            await world.manager.switch_conversation("c0", "x")
        assert world.live() == {f"c{number}" for number in range(10)}
        assert ended(world) == 0


async def test_the_eleventh_gets_the_first_place_that_comes_free() -> None:
    async with living(max_active_agents=2) as world, anyio.create_task_group() as tasks:
        first = await world.busy("a")
        await world.busy("b")
        call = begin(tasks, world.manager.get_or_create_agent, "c")
        await settle()
        assert not call.is_done
        assert first.gate is not None
        first.gate.set()
        await call.done.wait()
        assert call.result.conversation_id == "c"
        assert world.live() == {"b", "c"}


@proves("D4-LIMIT-2", "P1", "P5")
async def test_a_committed_prompt_waits_for_a_place_however_long_it_takes() -> None:
    async with living(max_active_agents=1) as world, anyio.create_task_group() as tasks:
        model = await world.busy("a")
        await world.create("b")
        call = begin(tasks, world.send, "patient", "b")
        await anyio.sleep(10_000)
        assert not call.is_done
        assert await world.waiting("b") == ["patient"]
        assert world.live() == {"a"}
        assert model.gate is not None
        model.gate.set()
        await call.done.wait()
        assert await world.texts("b") == ["patient", "ok"]


async def test_prompts_that_wait_for_a_place_get_it_in_the_order_they_came() -> None:
    async with living(max_active_agents=1) as world:
        model = await world.busy("a")
        for id_ in "cdb":
            await world.create(id_)
            await world.enqueue("x", id_)
        assert model.gate is not None
        model.gate.set()
        await until(lambda: ended(world) == 4)
        ends = [e.conversation_id for e in world.events if isinstance(e, TurnEnded)]
        assert ends == ["a", "c", "d", "b"]


@proves("D4-LIFECYCLE-2", "D4-LIFECYCLE-4")
async def test_starting_agents_count_and_a_failed_start_gives_its_place_back() -> None:
    models: list[Any] = [InitializationFailed("no"), FakeModel()]

    def make(_: Config) -> FakeModel:
        model = models.pop(0)
        if isinstance(model, Exception):
            raise model
        return model  # type: ignore[no-any-return]

    async with living(models=make, max_active_agents=1) as world:
        async with anyio.create_task_group() as tasks:
            failing = begin(tasks, world.manager.get_or_create_agent, "a")
            waiting = begin(tasks, world.manager.get_or_create_agent, "b")
            await failing.done.wait()
            await waiting.done.wait()
        assert isinstance(failing.error, InitializationFailed)
        assert waiting.result.conversation_id == "b"
        assert world.live() == {"b"}


@proves("D4-LIMIT-6")
async def test_a_lower_limit_holds_at_once_for_the_idle_and_later_for_the_busy() -> None:
    async with living(max_active_agents=4) as world:
        for id_ in "abc":
            await world.manager.get_or_create_agent(id_)
            await anyio.sleep(1)
        model = await world.busy("d")
        await world.manager.update_settings(limited(1))
        await settle()
        assert world.live() == {"d"}
        await world.manager.update_settings(limited(2))
        await world.manager.get_or_create_agent("a")
        assert world.live() == {"a", "d"}
        assert model.gate is not None
        model.gate.set()
        await until(lambda: ended(world) == 1)


async def test_agents_that_were_busy_when_the_limit_was_lowered_go_when_they_are_idle() -> None:
    async with living(max_active_agents=3) as world:
        gates = [(await world.busy(id_)).gate for id_ in "abc"]
        await world.manager.update_settings(limited(1))
        await settle()
        assert world.live() == {"a", "b", "c"}, "no running turn is stopped"
        for number, gate in enumerate(gates, 1):
            assert gate is not None
            gate.set()
            await until(lambda number=number: ended(world) == number)
            await settle()
        assert world.live() == {"c"}


async def test_one_that_will_close_counts_while_its_turn_runs() -> None:
    async with living(config=keyed(max_active_agents=2)) as world:
        await world.busy("a")
        await world.manager.update_settings(keyed(gemini_model="another", max_active_agents=2))
        await world.manager.get_or_create_agent("b")
        assert world.live() == {"a", "b"}
        await world.manager.update_settings(keyed(gemini_model="another", max_active_agents=1))
        await settle()
        assert world.live() == {"a"}


async def test_several_places_are_made_for_several_that_wait() -> None:
    async with living(max_active_agents=2) as world:
        await world.manager.get_or_create_agent("a")
        await world.manager.get_or_create_agent("b")
        await world.create("c", "d")
        async with anyio.create_task_group() as tasks:
            calls = [begin(tasks, world.manager.get_or_create_agent, id_) for id_ in "cd"]
            for call in calls:
                await call.done.wait()
        assert world.live() == {"c", "d"}


@proves("P5")
async def test_an_agent_that_was_told_of_work_is_not_the_one_to_go() -> None:
    async with living(max_active_agents=1) as world, anyio.create_task_group() as tasks:
        await world.manager.get_or_create_agent("a")
        await settle()
        await world.enqueue("hello")
        call = begin(tasks, world.manager.get_or_create_agent, "b")
        await call.done.wait()
        assert call.result.conversation_id == "b"
        assert await world.texts("a") == ["hello", "ok"]


# ---- idleness ----


@proves("S003-RESOURCES-2", "S003-RESOURCES-3", "S003-CONFIG-2", "S003-PERFORMANCE-2")
async def test_an_agent_unused_for_five_minutes_is_freed_at_the_next_sweep() -> None:
    async with living() as world:
        await anyio.sleep(1)
        await world.manager.get_or_create_agent("a")
        await anyio.sleep(SWEEP_INTERVAL + 100)
        assert world.manager.has_agent("a"), "it was used less than five minutes before the sweep"
        await world.manager.get_or_create_agent("b")
        with recorded() as records:
            await anyio.sleep(SWEEP_INTERVAL)
            assert world.live() == {"b"}
            await anyio.sleep(SWEEP_INTERVAL)
        assert world.live() == set()
        assert {line["reason"] for line in records.of("agent disposed")} == {"inactive"}


@proves("P5", "D4-LIMIT-4")
async def test_a_busy_agent_is_not_idle_however_long_its_turn_takes() -> None:
    async with living() as world:
        model = await world.busy("a")
        await anyio.sleep(20 * SWEEP_INTERVAL)
        assert world.manager.has_agent("a")
        assert model.gate is not None
        model.gate.set()
        await until(lambda: ended(world) == 1)
        await anyio.sleep(SWEEP_INTERVAL / 2)
        assert world.manager.has_agent("a"), "the end of a turn counts as use"


@proves("D4-LIMIT-4")
async def test_an_agent_with_a_reader_is_kept_longer_but_not_for_ever() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        world.journal.subscribe("a", lambda _: None).start()
        await anyio.sleep(2.5 * SWEEP_INTERVAL)
        assert world.manager.has_agent("a")
        await anyio.sleep((READER_PATIENCE + 1) * SWEEP_INTERVAL)
        assert not world.manager.has_agent("a")


@proves("D4-LIMIT-4")
async def test_a_reader_does_not_keep_an_agent_from_making_room() -> None:
    async with living(max_active_agents=1) as world:
        await world.manager.get_or_create_agent("a")
        world.journal.subscribe("a", lambda _: None).start()
        await world.manager.get_or_create_agent("b")
        assert world.live() == {"b"}


@proves("D4-LIMIT-7")
async def test_a_new_inactivity_timeout_holds_for_agents_that_are_live() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        await world.manager.update_settings(Config(settings=Settings(inactivity_timeout=3_600_000)))
        await anyio.sleep(5 * SWEEP_INTERVAL)
        assert world.manager.has_agent("a")
        await world.manager.update_settings(Config(settings=Settings(inactivity_timeout=1_000)))
        await anyio.sleep(SWEEP_INTERVAL + 1)
        assert not world.manager.has_agent("a")


@proves("D4-LIMIT-5")
async def test_a_machine_that_slept_frees_nobody_when_it_wakes() -> None:
    async with living() as world:
        for id_ in "abc":
            await world.manager.get_or_create_agent(id_)
        await anyio.sleep(10)
        asyncio.get_running_loop()._offset += 8 * 3_600  # type: ignore[attr-defined]
        await anyio.sleep(1)
        await settle()
        assert world.live() == {"a", "b", "c"}
        await anyio.sleep(SWEEP_INTERVAL / 2)
        assert world.live() == {"a", "b", "c"}
        await anyio.sleep(3 * SWEEP_INTERVAL)
        assert world.live() == set()


async def test_what_an_idle_agent_left_is_not_lost_when_it_comes_back() -> None:
    async with living("one", "two") as world:
        await world.create("a")
        await world.send("first")
        await anyio.sleep(3 * SWEEP_INTERVAL)
        assert world.live() == set()
        await world.send("second")
        assert await world.texts() == ["first", "one", "second", "two"]
        assert [m.text for m in world.models.last.requests[0].history][:2] == ["first", "one"]


# ---- work without an agent ----


async def test_a_conversation_deleted_while_it_waited_for_a_place_is_forgotten() -> None:
    async with living(max_active_agents=1) as world:
        model = await world.busy("a")
        await world.create("b")
        await world.enqueue("x", "b")
        assert world.manager.pool.waiting == 1
        await world.manager.delete_conversation("b")
        assert model.gate is not None
        model.gate.set()
        await until(lambda: ended(world) == 2)
        await settle()
        assert world.manager.pool.waiting == 0
        assert world.live() == {"a"}


@proves("P11")
async def test_an_agent_that_hangs_while_closing_holds_up_only_its_own_conversation() -> None:
    class Clinging(FakeModel):
        async def aclose(self) -> None:
            await anyio.sleep_forever()

    models = iter([Clinging(), *[FakeModel() for _ in range(5)]])
    async with living(models=lambda _: next(models), max_active_agents=3) as world:
        await world.manager.get_or_create_agent("a")
        await world.create("b")
        await settle()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.manager.dispose_agent, "a")
            await settle()
            began = anyio.current_time()
            await world.send("hello", to="b")
            assert anyio.current_time() - began < 1


@proves("P1", "P6")
async def test_a_prompt_that_could_not_be_placed_runs_when_the_store_is_well_again() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.create("a")
        world.store.refuse("get")
        with recorded() as records:
            call = begin(tasks, world.send, "x")
            await anyio.sleep(5)
        assert records.of("queued prompts cannot run")[0]["conversationId"] == "a"
        assert not call.is_done
        world.store.refused.clear()
        with anyio.fail_after(60):
            await call.done.wait()
        assert await world.texts() == ["x", "ok"]
