"""Switching conversations, and changing settings under running agents."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from sidecar import manager as manager_module
from sidecar.conversations import AgentMode, StopReason
from sidecar.errors import (
    InitializationFailed,
    NetworkError,
)
from sidecar.events import TurnEnded
from sidecar.settings import Config, Settings
from tests.fakes import FakeTool
from tests.managers import VIRTUAL, begin, keyed, living, recorded, settle, until
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


# ---- switching ----


@proves("S003-SWITCH-1", "S003-SWITCH-2", "S003-LOG-3")
async def test_a_switch_gets_or_makes_the_target_and_is_timed() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        with recorded() as records:
            info = await world.manager.switch_conversation("a", "b", AgentMode.BUILD)
        assert (info.conversation_id, info.mode) == ("b", AgentMode.BUILD)
        assert world.live() == {"a", "b"}
        (switched,) = records.of("conversation switched")
        assert (switched["fromConversationId"], switched["conversationId"]) == ("a", "b")
        assert (switched["level"], switched["mode"]) == ("INFO", "build")
        assert switched["durationMs"] >= 0


@proves("S003-SWITCH-3", "D4-LOG-3")
async def test_a_slow_switch_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert manager_module.SLOW_SWITCH_MS == 500
    monkeypatch.setattr(manager_module, "SLOW_SWITCH_MS", -1)
    async with living() as world:
        with recorded() as records:
            await world.manager.switch_conversation(None, "a")
        (switched,) = records.of("conversation switched")
        assert switched["level"] == "WARNING"


@proves("S003-SWITCH-4", "S003-PERFORMANCE-3")
async def test_switching_back_to_a_live_agent_waits_for_no_model_and_no_write() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        await world.manager.get_or_create_agent("b")
        await settle()
        world.store.calls.clear()
        await world.manager.switch_conversation("b", "a")
        assert world.store.calls == ["get"]
        assert len(world.models.made) == 2


# ---- settings ----


@proves("D4-SETTINGS-1", "S003-SETTINGS-1")
async def test_unchanged_settings_do_nothing() -> None:
    async with living(config=keyed()) as world:
        await world.manager.get_or_create_agent("a")
        done = await world.manager.update_settings(keyed())
        assert (done.critical, done.reinitialized, done.deferred) == (False, 0, 0)
        assert world.manager.has_agent("a")
        assert len(world.models.made) == 1


@proves("S003-SETTINGS-3")
async def test_settings_that_are_not_critical_are_only_stored() -> None:
    async with living(config=keyed()) as world:
        await world.manager.get_or_create_agent("a")
        new = keyed(max_queue_length=7, temperature=0.5)
        done = await world.manager.update_settings(new)
        assert not done.critical
        assert world.manager.config is new
        assert world.manager.has_agent("a")


@proves("S003-SETTINGS-2", "S003-REINIT-1", "S003-REINIT-2", "S003-REINIT-3", "S003-REINIT-4")
async def test_a_critical_change_remakes_the_agents_with_the_new_settings() -> None:
    async with living(config=keyed(), tools=(FakeTool(),)) as world:
        await world.manager.get_or_create_agent("a")
        await world.manager.get_or_create_agent("b")
        new = keyed(gemini_model="better")
        done = await world.manager.update_settings(new)
        assert (done.critical, done.reinitialized, done.deferred) == (True, 2, 0)
        assert world.manager.active_agent_count() == 0
        assert world.manager.capabilities.conversations() == frozenset()
        await world.manager.get_or_create_agent("a")
        assert world.models.made[-1][1] is new


@proves("S003-SETTINGS-4", "S003-REINIT-5", "S003-LOG-4")
async def test_a_settings_change_is_logged_without_a_secret() -> None:
    async with living(config=keyed()) as world:
        await world.manager.get_or_create_agent("a")
        with recorded() as records:
            await world.manager.update_settings(keyed(key="key-2"))
        (updated,) = records.of("settings updated")
        assert (updated["critical"], updated["reinitialized"]) == (True, 1)
        (remade,) = records.of("reinitialized")
        assert (remade["before"], remade["after"]) == (1, 0)
        assert not any("key-2" in str(vars(record)) for record in records.all)


@proves("D4-SETTINGS-2", "D4-SETTINGS-3", "D4-QUEUE-4", "P5")
async def test_a_running_turn_ends_with_the_settings_that_it_began_with() -> None:
    async with living("old", "new", config=keyed()) as world:
        async with anyio.create_task_group() as tasks:
            model = await world.busy("a", "first")
            call = begin(tasks, world.send, "second")
            await settle()
            done = await world.manager.update_settings(keyed(gemini_model="better"))
            assert (done.reinitialized, done.deferred) == (0, 1)
            await settle()
            assert len(model.requests) == 1
            assert not call.is_done
            assert model.gate is not None
            model.gate.set()
            await call.done.wait()
        assert call.result.stop_reason is StopReason.END_TURN
        assert await world.texts() == ["first", "old", "second", "new"]
        configs = [config.settings.gemini_model for _, config in world.models.made]
        assert configs == [Settings().gemini_model, "better"]
        assert [r.prompt.input for r in world.models.last.requests] == ["second"]


@proves("D4-SETTINGS-2")
async def test_with_force_the_running_turn_is_cancelled_at_once() -> None:
    async with living(config=keyed()) as world, anyio.create_task_group() as tasks:
        await world.busy("a", "first")
        call = begin(tasks, world.send, "second")
        await settle()
        done = await world.manager.update_settings(keyed(gemini_model="b"), force=True)
        assert (done.reinitialized, done.deferred) == (1, 0)
        await call.done.wait()
        assert call.result.stop_reason is StopReason.END_TURN
        ends = [e.stop_reason for e in world.events if isinstance(e, TurnEnded)]
        assert ends == [StopReason.CANCELLED, StopReason.END_TURN]


@proves("D4-SETTINGS-4", "P10")
async def test_no_model_is_made_from_one_settings_key_and_another_settings_provider() -> None:
    pairs = [keyed("gemini", "g"), Config(settings=Settings(provider="offline"))]
    async with living(config=pairs[0]) as world, anyio.create_task_group() as tasks:
        await world.create(*"abc")
        for round_ in range(6):
            for id_ in "abc":
                tasks.start_soon(world.enqueue, f"{id_}{round_}", id_)
            await settle(round_ * 3)
            await world.manager.update_settings(pairs[round_ % 2])
        await until(lambda: sum(isinstance(e, TurnEnded) for e in world.events) == 18)
        assert {id(config) for _, config in world.models.made} <= {id(pair) for pair in pairs}


@proves("D4-SETTINGS-6")
async def test_settings_that_cannot_work_change_nothing() -> None:
    async with living(config=keyed()) as world:
        await world.manager.get_or_create_agent("a")
        done = await world.manager.update_settings(keyed(key=None))
        assert [problem.field for problem in done.problems] == ["geminiApiKey"]
        assert world.manager.has_agent("a")
        assert world.manager.config == keyed()


@proves("D4-SETTINGS-5", "P1", "P6")
async def test_without_a_key_prompts_are_kept_and_run_once_there_is_one() -> None:
    async with living(config=keyed(key=None)) as world:
        await world.create("a", "b")
        with pytest.raises(InitializationFailed) as caught:
            await world.send("hello")
        assert caught.value.retryable
        await world.enqueue("hello", "b")
        await settle()
        for id_ in "ab":
            (entry,) = await world.store.inner.queue(id_)
            assert entry.reason == "needsProvider"
        assert world.models.made == []
        done = await world.manager.update_settings(keyed())
        assert done.problems == ()
        await until(lambda: sum(isinstance(e, TurnEnded) for e in world.events) == 2)
        assert await world.texts("a") == await world.texts("b") == ["hello", "ok"]


@proves("D4-LIMIT-8")
async def test_new_retry_settings_hold_for_an_agent_that_is_live() -> None:
    down = [NetworkError("down"), NetworkError("down"), NetworkError("down")]
    async with living(*down) as world:
        await world.manager.get_or_create_agent("a")
        live = world.manager.config
        retry = msgspec.structs.replace(live.settings.retry, max_attempts=1)
        new = msgspec.structs.replace(
            live, settings=msgspec.structs.replace(live.settings, retry=retry)
        )
        await world.manager.update_settings(new)
        with pytest.raises(NetworkError) as caught:
            await world.send("hi")
        assert caught.value.attempts == 1
        assert len(world.models.last.requests) == 1
