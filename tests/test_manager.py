"""The manager as its callers see it: agents, messages, settings, recovery."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from sidecar import manager as manager_module
from sidecar.capabilities import AgentCapability
from sidecar.conversations import AgentMode, Prompt, StopReason
from sidecar.errors import (
    AgentError,
    CommunicationFailed,
    Conflict,
    CreationFailed,
    InitializationFailed,
    InvalidState,
    MessageProcessingFailed,
    NetworkError,
    NotFound,
    QueueFull,
    Unauthorized,
)
from sidecar.events import TurnEnded, TurnQueued
from sidecar.interfaces import ModelStop, TextDelta
from sidecar.lifecycle import AgentState
from sidecar.settings import Config, Secret, Secrets, Settings
from tests.fakes import FakeModel, FakeTool
from tests.managers import VIRTUAL, begin, keyed, living, recorded, settle, until
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


# ---- agents ----


@proves("S003-LIFECYCLE-2", "S003-PERFORMANCE-5", "S003-UTILITY-1", "S003-UTILITY-2")
async def test_an_agent_is_made_when_it_is_first_asked_for() -> None:
    async with living() as world:
        await world.create("a")
        assert world.manager.active_agent_count() == 0
        assert not world.manager.has_agent("a")
        info = await world.manager.get_or_create_agent("a")
        assert (info.conversation_id, info.mode, info.message_count) == ("a", AgentMode.CHAT, 0)
        assert world.manager.active_agent_count() == 1
        assert world.manager.has_agent("a")
        assert not world.manager.has_agent("unknown")


@proves("S003-LIFECYCLE-1")
async def test_an_agent_that_is_there_is_returned_and_counts_as_used() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        agent = world.manager.registry.get("a")
        assert agent is not None
        before = agent.last_access
        await anyio.sleep(30)
        await world.manager.get_or_create_agent("a")
        assert world.manager.registry.get("a") is agent
        assert agent.last_access >= before + 30
        assert len(world.models.made) == 1


@proves("S003-QUEUE-4", "D4-LIFECYCLE-5")
async def test_two_that_ask_at_once_get_one_agent() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        calls = [begin(tasks, world.manager.get_or_create_agent, "a") for _ in range(8)]
        for call in calls:
            await call.done.wait()
        assert {call.result.conversation_id for call in calls} == {"a"}
        assert len(world.models.made) == 1
        assert world.manager.active_agent_count() == 1


async def test_an_unknown_conversation_is_not_made_when_the_caller_says_so() -> None:
    async with living() as world:
        with pytest.raises(NotFound):
            await world.manager.get_or_create_agent("a", create=False)
        assert world.manager.active_agent_count() == 0


async def test_asking_with_another_mode_changes_the_mode() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a", AgentMode.CHAT)
        info = await world.manager.get_or_create_agent("a", AgentMode.BUILD)
        assert info.mode is AgentMode.BUILD
        assert (await world.store.inner.get("a")).mode is AgentMode.BUILD
        assert world.models.made[1:] == []


@proves("S003-LIFECYCLE-6", "D4-LIFECYCLE-4", "S003-ERROR-1", "S003-ERROR-3")
async def test_an_agent_that_cannot_be_made_is_an_error_and_holds_no_place() -> None:
    def broken(_: Config) -> FakeModel:
        raise RuntimeError("no such model")

    async with living(models=broken) as world:
        with pytest.raises(CreationFailed) as caught:
            await world.manager.get_or_create_agent("a")
        assert caught.value.conversation_id == "a"
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert "no such model" not in caught.value.message
        assert world.manager.active_agent_count() == 0
        assert world.manager.capabilities.conversations() == frozenset()


async def test_a_provider_that_cannot_start_says_so_itself() -> None:
    def unusable(_: Config) -> FakeModel:
        raise InitializationFailed("The library is not installed.", hint="Install it.")

    async with living(models=unusable) as world:
        with pytest.raises(InitializationFailed, match="not installed"):
            await world.manager.get_or_create_agent("a")
        assert world.manager.active_agent_count() == 0


@proves("P6")
async def test_a_caller_hears_of_it_when_no_agent_can_be_made_for_its_prompt() -> None:
    def unusable(_: Config) -> FakeModel:
        raise InitializationFailed("The library is not installed.")

    async with living(models=unusable) as world:
        await world.create("a")
        with pytest.raises(InitializationFailed, match="not installed"):
            await world.send("hello")
        assert await world.waiting() == ["hello"]


@proves("S003-CAPABILITY-7", "S003-LOG-1")
async def test_an_agent_is_made_with_its_tools_as_capabilities_and_logged() -> None:
    async with living(tools=(FakeTool("look"), FakeTool("find"))) as world:
        with recorded() as records:
            info = await world.manager.get_or_create_agent("a", AgentMode.BUILD)
        assert [c.name for c in info.capabilities] == ["look", "find"]
        assert {c.source for c in info.capabilities} == {"tool"}
        (created,) = records.of("agent created")
        assert (created["conversationId"], created["mode"]) == ("a", AgentMode.BUILD)


@proves("S003-LIFECYCLE-5", "D4-LOG-1")
async def test_making_an_agent_is_logged_with_its_conversation_and_mode() -> None:
    async with living() as world:
        with recorded() as records:
            await world.manager.get_or_create_agent("a", AgentMode.FEEDBACK)
        (created,) = records.of("agent created")
        assert (created["conversationId"], created["mode"]) == ("a", AgentMode.FEEDBACK)
        assert created["created"] > 0


@proves("S003-DISPOSE-1", "S003-DISPOSE-2", "S003-DISPOSE-3")
async def test_disposing_gives_back_everything_the_agent_had() -> None:
    async with living(tools=(FakeTool(),)) as world:
        await world.manager.get_or_create_agent("a")
        await world.manager.dispose_agent("a")
        assert not world.manager.has_agent("a")
        assert world.manager.capabilities.of("a") == ()
        assert world.models.last.closed == 1


async def test_disposing_what_is_not_there_does_nothing() -> None:
    async with living() as world:
        await world.manager.dispose_agent("unknown")
        assert world.manager.active_agent_count() == 0


@proves("S003-DISPOSE-4", "D4-LOG-2", "S003-LOG-7")
async def test_disposal_is_logged_with_reason_lifetime_and_turns() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        await world.send("hello")
        with recorded() as records:
            await world.manager.dispose_agent("a")
        (disposed,) = records.of("agent disposed")
        assert (disposed["conversationId"], disposed["mode"]) == ("a", "chat")
        assert (disposed["reason"], disposed["turns"]) == ("disposed", 1)
        assert disposed["lifetimeMs"] >= 0


@proves("D4-QUEUE-3", "P7", "P6", "P1")
async def test_disposing_cancels_the_turn_keeps_the_queue_and_answers_every_caller() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.busy("a", "first")
        running = begin(tasks, world.send, "second")
        await settle()
        queued = begin(tasks, world.send, "third")
        await settle()
        assert await world.waiting() == ["first", "second", "third"]
        await world.manager.dispose_agent("a")
        await running.done.wait()
        await queued.done.wait()
        for call in (running, queued):
            assert isinstance(call.error, InvalidState)
            assert call.error.retryable
        assert await world.waiting() == ["second", "third"]
        ended = [e for e in world.events if isinstance(e, TurnEnded)]
        assert [e.stop_reason for e in ended] == [StopReason.CANCELLED]


async def test_what_a_disposed_agent_left_runs_when_the_conversation_is_used_again() -> None:
    async with living() as world:
        model = await world.busy("a", "first")
        await world.enqueue("second")
        await world.manager.dispose_agent("a")
        await settle()
        assert not world.manager.has_agent("a")
        assert await world.waiting() == ["second"]
        await world.manager.get_or_create_agent("a")
        await until(lambda: world.types().count("TurnEnded") == 2)
        assert await world.waiting() == []
        assert model.closed == 1


@proves("P7")
async def test_disposing_while_a_prompt_is_being_taken_up_stops_that_turn_too() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        world.models.last.hold()
        gate = world.store.held_after["start_turn"] = anyio.Event()
        await world.enqueue("hello")
        await world.store.reached.wait()
        async with anyio.create_task_group() as tasks:
            disposal = begin(tasks, world.manager.dispose_agent, "a")
            await settle()
            gate.set()
            await disposal.done.wait()
        assert world.types()[-1] == "TurnEnded"
        assert world.models.last.requests == []


@proves("P7", "P11")
async def test_disposing_does_not_wait_for_a_provider_that_does_not_stop() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        model = await world.busy("a")
        model.stubborn = True
        began = anyio.current_time()
        disposal = begin(tasks, world.manager.dispose_agent, "a")
        with anyio.move_on_after(3):
            await disposal.done.wait()
        assert model.gate is not None
        was_done = disposal.is_done
        model.gate.set()
        await disposal.done.wait()
        assert was_done
        assert anyio.current_time() - began < 3.5
        assert world.types()[-1] == "TurnEnded"


@proves("S003-DISPOSEALL-1", "S003-DISPOSEALL-2", "S003-DISPOSEALL-3", "S003-DISPOSEALL-5")
async def test_all_are_disposed_at_the_same_time() -> None:
    closing: list[str] = []
    all_closing = anyio.Event()

    class Slow(FakeModel):
        async def aclose(self) -> None:
            closing.append("x")
            if len(closing) == 3:
                all_closing.set()
            await all_closing.wait()  # none is done before all have begun

    async with living(models=lambda _: Slow(), tools=(FakeTool(),)) as world:
        for id_ in "abc":
            await world.manager.get_or_create_agent(id_)
        with recorded() as records:
            assert await world.manager.dispose_all_agents() == (3, ())
        assert all_closing.is_set()
        assert world.manager.active_agent_count() == 0
        assert world.manager.capabilities.conversations() == frozenset()
        (summary,) = records.of("disposed all")
        assert (summary["disposed"], summary["failed"]) == (3, 0)


@proves("S003-DISPOSEALL-4", "S003-PROPERTY-7")
async def test_one_agent_that_does_not_close_well_does_not_keep_the_others() -> None:
    class Rude(FakeModel):
        async def aclose(self) -> None:
            raise RuntimeError("no")

    models = iter([FakeModel(), Rude(), FakeModel()])
    async with living(models=lambda _: next(models)) as world:
        for id_ in "abc":
            await world.manager.get_or_create_agent(id_)
        with recorded() as records:
            assert await world.manager.dispose_all_agents() == (3, ())
        assert world.manager.active_agent_count() == 0
        assert len(records.of("a provider did not close")) == 1


# ---- messages ----


@proves("S003-SEND-2", "S003-SEND-3", "S003-LIFECYCLE-4", "D4-STREAM-5", "S003-PERSIST-1")
async def test_a_message_is_queued_answered_and_stored() -> None:
    async with living("hello there") as world:
        await world.create("a")
        result = await world.send("hi")
        assert result.stop_reason is StopReason.END_TURN
        assert await world.texts() == ["hi", "hello there"]
        assert world.types() == [
            "TurnQueued",
            "TitleChanged",
            "TurnStarted",
            "MessageCompleted",
            "MessageStarted",
            "MessageCompleted",
            "TurnEnded",
        ]
        assert [e.seq for e in world.events] == list(range(1, len(world.events) + 1))


@proves("S003-SEND-1")
async def test_sending_counts_as_use() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        await anyio.sleep(60)
        await world.send("hi")
        agent = world.manager.registry.get("a")
        assert agent is not None
        assert agent.last_access >= anyio.current_time() - 1


@proves("S003-SEND-6", "S003-ERROR-1")
async def test_a_message_to_nobody_is_refused() -> None:
    async with living() as world:
        with pytest.raises(CommunicationFailed) as caught:
            await world.send("hi", to="nobody")
        assert caught.value.conversation_id == "nobody"


@proves("S003-SEND-4", "S003-QUEUE-1", "S003-QUEUE-3", "S003-PERFORMANCE-7", "D4-QUEUE-1")
async def test_messages_of_one_conversation_run_one_after_the_other_in_order() -> None:
    async with living("1", "2", "3") as world, anyio.create_task_group() as tasks:
        model = await world.busy("a", "one")
        calls = []
        for text in ("two", "three"):
            calls.append(begin(tasks, world.send, text))
            await settle()
        assert len(model.requests) == 1
        assert model.gate is not None
        model.gate.set()
        for call in calls:
            await call.done.wait()
        assert [r.prompt.input for r in model.requests] == ["one", "two", "three"]
        assert await world.texts() == ["one", "1", "two", "2", "three", "3"]


@proves("S003-SEND-5", "S003-QUEUE-2", "S003-PERFORMANCE-6", "P11")
async def test_conversations_run_at_the_same_time() -> None:
    async with living() as world:
        first = await world.busy("a")
        second = await world.busy("b")
        assert first is not second
        await world.create("c")
        assert (await world.send("quick", to="c")).stop_reason is StopReason.END_TURN
        states = {a.conversation_id: a.state for a in world.manager.registry}
        assert (states["a"], states["b"]) == (AgentState.BUSY, AgentState.BUSY)


@proves("S003-QUEUE-5", "S003-ERROR-1", "P6")
async def test_a_failed_turn_is_its_callers_error_and_the_next_message_runs() -> None:
    async with living(Unauthorized("The key was refused."), "fine") as world:
        await world.create("a")
        with pytest.raises(Unauthorized) as caught:
            await world.send("first")
        assert caught.value.conversation_id == "a"
        assert (await world.send("second")).stop_reason is StopReason.END_TURN
        assert world.types().count("TurnEnded") == 2


async def test_a_full_queue_refuses_more() -> None:
    async with living(max_queue_length=2) as world:
        model = await world.busy("a")
        await world.enqueue("one")
        await world.enqueue("two")
        with pytest.raises(QueueFull) as caught:
            await world.enqueue("three")
        assert caught.value.retryable
        assert await world.waiting() == ["hold", "one", "two"]
        assert model.gate is not None
        model.gate.set()


@proves("D4-CANCEL-1", "P6")
async def test_cancelled_before_the_commit_nothing_is_stored() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.create("a")
        world.store.held_before["enqueue"] = anyio.Event()
        call = begin(tasks, world.send, "never mind")
        await world.store.reached.wait()
        call.scope.cancel()
        await call.done.wait()
        assert call.result is None
        assert call.scope.cancelled_caught
        assert await world.waiting() == []
        assert world.events == []
        assert len(world.manager.waiters) == 0


@proves("D4-CANCEL-2")
async def test_cancelled_while_queued_the_prompt_is_taken_out_and_the_answer_normal() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.busy("a")
        call = begin(tasks, world.send, "never mind")
        await settle()
        assert await world.waiting() == ["hold", "never mind"]
        call.scope.cancel()
        await call.done.wait()
        assert call.result.stop_reason is StopReason.CANCELLED
        assert await world.waiting() == ["hold"]


@proves("D4-CANCEL-2", "P7")
async def test_cancelled_while_running_the_turn_ends_and_the_answer_is_normal() -> None:
    async with living([TextDelta("half"), ModelStop("endTurn")]) as world:
        async with anyio.create_task_group() as tasks:
            await world.manager.get_or_create_agent("a")
            model = world.models.last
            model.hold()
            call = begin(tasks, world.send, "go on")
            await model.entered.wait()
            call.scope.cancel()
            await call.done.wait()
        assert call.result.stop_reason is StopReason.CANCELLED
        user, reply = await world.messages()
        assert (user.text, reply.text, reply.status) == ("go on", "half", "cancelled")
        assert world.manager.registry.get("a") is not None


async def test_removing_a_message_takes_it_out_but_not_when_it_runs() -> None:
    async with living() as world:
        await world.busy("a", "running")
        (running,) = await world.store.inner.queue("a")
        waiting = await world.enqueue("waiting")
        result = await world.manager.remove_message(waiting)
        assert result.stop_reason is StopReason.CANCELLED
        assert await world.waiting() == ["running"]
        with pytest.raises(InvalidState):
            await world.manager.remove_message(running.message_id)
        assert await world.waiting() == ["running"]


@proves("P6")
async def test_a_caller_whose_message_was_removed_is_answered() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.busy("a")
        call = begin(tasks, world.send, "waiting")
        await settle()
        (_, entry) = await world.store.inner.queue("a")
        await world.manager.remove_message(entry.message_id)
        await call.done.wait()
        assert call.result.stop_reason is StopReason.CANCELLED


@proves("P2", "D4-KEY-2")
async def test_a_repeat_of_a_request_waits_for_the_same_end() -> None:
    async with living("once") as world, anyio.create_task_group() as tasks:
        await world.manager.get_or_create_agent("a")
        model = world.models.last
        gate = model.hold()
        calls = [
            begin(tasks, world.send, "hi", request_key="k", params_hash=b"1") for _ in range(3)
        ]
        await model.entered.wait()
        await settle()
        assert not any(call.is_done for call in calls)
        gate.set()
        for call in calls:
            await call.done.wait()
        assert len({call.result.message_id for call in calls}) == 1
        assert await world.texts() == ["hi", "once"]
        assert len(model.requests) == 1


@proves("P2", "D4-KEY-3")
async def test_a_repeat_after_the_end_gets_the_same_result() -> None:
    async with living("once") as world:
        await world.create("a")
        first = await world.send("hi", request_key="k", params_hash=b"1")
        again = await world.send("hi", request_key="k", params_hash=b"1")
        assert again == first
        assert await world.texts() == ["hi", "once"]


@proves("P2", "D4-KEY-3")
async def test_a_repeat_of_a_failed_request_fails_the_same_way_and_is_not_run() -> None:
    async with living(Unauthorized("The key was refused.")) as world:
        await world.create("a")
        for _ in range(2):
            with pytest.raises(Unauthorized):
                await world.send("hi", request_key="k", params_hash=b"1")
        assert len(world.models.last.requests) == 1


@proves("D4-KEY-1")
async def test_the_same_key_for_something_else_is_a_conflict() -> None:
    async with living() as world:
        await world.create("a")
        await world.send("hi", request_key="k", params_hash=b"1")
        with pytest.raises(Conflict):
            await world.send("something else", request_key="k", params_hash=b"2")
        assert await world.texts() == ["hi", "ok"]


async def test_a_repeat_that_is_cancelled_does_not_cancel_the_first() -> None:
    async with living("once") as world, anyio.create_task_group() as tasks:
        await world.manager.get_or_create_agent("a")
        model = world.models.last
        gate = model.hold()
        first = begin(tasks, world.send, "hi", request_key="k", params_hash=b"1")
        await model.entered.wait()
        repeat = begin(tasks, world.send, "hi", request_key="k", params_hash=b"1")
        await settle()
        repeat.scope.cancel()
        await repeat.done.wait()
        assert repeat.result is None
        gate.set()
        await first.done.wait()
        assert first.result.stop_reason is StopReason.END_TURN
        assert len(world.manager.waiters) == 0


@proves("D4-CRASH-3")
async def test_a_failed_message_runs_again_under_a_new_id() -> None:
    async with living(Unauthorized("no"), "fine") as world:
        await world.create("a")
        with pytest.raises(Unauthorized):
            await world.send("hi")
        (failed,) = [e for e in world.events if isinstance(e, TurnEnded)]
        receipt = await world.manager.retry_message(failed.message_id)
        assert receipt.message_id != failed.message_id
        await until(lambda: world.types().count("TurnEnded") == 2)
        ended = [e for e in world.events if isinstance(e, TurnEnded)]
        assert [e.message_id for e in ended] == [failed.message_id, receipt.message_id]
        assert ended[1].stop_reason is StopReason.END_TURN


@proves("D4-QUEUE-2")
async def test_an_entry_is_taken_out_only_when_its_turn_has_ended() -> None:
    async with living() as world:
        model = await world.busy("a", "hello")
        assert await world.waiting() == ["hello"]
        assert model.gate is not None
        model.gate.set()
        await until(lambda: "TurnEnded" in world.types())
        assert await world.waiting() == []


@proves("D4-CRASH-1", "S003-PERFORMANCE-5")
async def test_what_an_earlier_process_left_waits_until_somebody_reads() -> None:
    async with living() as world:
        await world.create("a")
        await world.store.inner.enqueue("a", Prompt(input="left over"), limit=10)
        await anyio.sleep(1_000)
        assert world.manager.active_agent_count() == 0
        await world.manager.resume(await world.store.inner.get("a"))
        await until(lambda: "TurnEnded" in world.types())
        assert await world.texts() == ["left over", "ok"]


@proves("D4-TURN-1")
async def test_steering_a_turn_that_does_not_run_is_a_conflict() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        with pytest.raises(Conflict):
            await world.manager.steer("a", "faster", "some-turn")
        await world.busy("a")
        with pytest.raises(Conflict):
            await world.manager.steer("a", "faster", "some-turn")


@proves("D4-CANCEL-4", "P7")
async def test_cancelling_stops_the_turn_and_only_the_turn() -> None:
    async with living("half", "whole") as world:
        await world.busy("a")
        await world.enqueue("next")
        model = world.models.last
        model.gate = None
        assert await world.manager.cancel_turn("a")
        assert [e.stop_reason for e in world.events if isinstance(e, TurnEnded)] == [
            StopReason.CANCELLED
        ]
        await until(lambda: world.types().count("TurnEnded") == 2)
        assert world.models.made[1:] == []
        await settle()
        assert not await world.manager.cancel_turn("a")
        assert not await world.manager.cancel_turn("unknown")


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
        assert switched["level"] == "INFO"
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


# ---- recovery ----


@proves("S003-ABORT-1", "S003-ABORT-2", "S003-ABORT-3", "S003-ABORT-4", "S003-ABORT-5")
async def test_abort_ends_the_turn_and_makes_a_new_agent_with_the_same_history() -> None:
    async with living("one") as world, anyio.create_task_group() as tasks:
        await world.manager.get_or_create_agent("a", AgentMode.BUILD)
        await world.send("first")
        call_model = world.models.last
        call_model.hold()
        call = begin(tasks, world.send, "stuck")
        await call_model.entered.wait()
        before = world.manager.registry.get("a")
        with recorded() as records:
            info = await world.manager.abort_and_restart_agent("a")
        await call.done.wait()
        assert call.result.stop_reason is StopReason.CANCELLED
        assert info.mode is AgentMode.BUILD
        assert world.manager.registry.get("a") is not before
        await world.send("third")
        history = world.models.last.requests[0].history
        assert [m.text for m in history][:3] == ["first", "one", "stuck"]
        for message in ("abort", "restarted"):
            (line,) = records.of(message)
            assert line["conversationId"] == "a"
            assert line["created"] > 0


async def test_abort_works_when_no_agent_is_live_but_not_for_nobody() -> None:
    async with living() as world:
        await world.create("a")
        info = await world.manager.abort_and_restart_agent("a")
        assert info.state is not AgentState.FAILED
        assert world.live() == {"a"}
        with pytest.raises(NotFound):
            await world.manager.abort_and_restart_agent("nobody")


@proves("P7", "D4-QUEUE-4", "S003-LOG-6")
async def test_abort_keeps_the_queue_and_the_new_agent_works_it_off() -> None:
    async with living() as world:
        await world.busy("a", "stuck")
        await world.enqueue("next")
        with recorded() as records:
            await world.manager.abort_and_restart_agent("a")
        await until(lambda: world.types().count("TurnEnded") == 2)
        assert await world.waiting() == []
        assert records.of("restarted")[0]["level"] == "WARNING"


@proves("D4-CANCEL-3", "P7", "P6", "P11")
async def test_abort_gives_up_a_provider_that_does_not_stop() -> None:
    """The stubborn model keeps the loop busy, so this test takes the grace in real time."""

    class Hung(FakeModel):
        async def stream(self, request: Any) -> Any:
            self.requests.append(request)
            yield TextDelta("half")
            await self._wait()
            yield TextDelta(" and too late")
            yield ModelStop("endTurn")

    models = iter([Hung(), FakeModel("fresh")])
    made: list[FakeModel] = []

    def make(_: Config) -> FakeModel:
        made.append(next(models))
        return made[-1]

    async with living(models=make) as world, anyio.create_task_group() as tasks:
        await world.manager.get_or_create_agent("a")
        hung = made[0]
        gate = hung.hold()
        hung.stubborn = True
        call = begin(tasks, world.send, "hello")
        await hung.entered.wait()
        heard: list[Any] = []
        world.journal.subscribe("a", heard.append).start()
        began = anyio.current_time()
        await world.manager.abort_and_restart_agent("a")
        assert anyio.current_time() - began < 2
        await call.done.wait()
        assert call.result.stop_reason is StopReason.CANCELLED
        (await world.send("again"))
        heard.clear()
        gate.set()
        await settle()
        assert heard == []
        assert await world.texts() == ["hello", "half", "again", "fresh"]
        assert world.live() == {"a"}


@proves("P11")
async def test_abort_does_not_wait_for_a_provider_that_hangs_while_it_closes() -> None:
    class Clinging(FakeModel):
        async def aclose(self) -> None:
            await anyio.sleep_forever()

    async with living(models=lambda _: Clinging()) as world:
        await world.manager.get_or_create_agent("a")
        await settle()
        began = anyio.current_time()
        await world.manager.abort_and_restart_agent("a")
        assert anyio.current_time() - began < 2
        assert world.live() == {"a"}
        await anyio.sleep(10)
        assert world.live() == {"a"}


@proves("S003-UTILITY-1")
async def test_agents_are_listed_as_they_are() -> None:
    async with living() as world:
        await world.busy("a")
        await world.manager.get_or_create_agent("b")
        await settle()
        infos = {info.conversation_id: info for info in await world.manager.list_agents()}
        assert {id_: info.state for id_, info in infos.items()} == {"a": "BUSY", "b": "IDLE"}
        assert {id_: info.is_processing for id_, info in infos.items()} == {"a": True, "b": False}


# ---- capabilities and webviews ----


@proves("S003-CAPABILITY-1", "S003-CAPABILITY-2", "S003-CAPABILITY-8", "S003-LOG-5")
async def test_a_capability_is_registered_with_a_live_agent_and_logged() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        with recorded() as records:
            for description in ("draws", "draws better"):
                world.manager.register_capability(
                    "a", AgentCapability(name="draw", description=description)
                )
        (known,) = world.manager.capabilities.of("a")
        assert known.description == "draws better"
        line = records.of("capability registered")[-1]
        assert (line["conversationId"], line["capability"], line["count"]) == ("a", "draw", 1)
        with pytest.raises(NotFound):
            world.manager.register_capability("b", AgentCapability(name="x", description="y"))


@proves("S003-DISCONNECT-1", "S003-DISCONNECT-2", "S003-DISCONNECT-4", "D4-WEBVIEW-2", "S003-LOG-8")
async def test_what_is_live_is_preserved_from_what_is_stored() -> None:
    async with living(tools=(FakeTool(),)) as world:
        await world.create("a")
        await world.send("hi")
        await world.manager.get_or_create_agent("b", AgentMode.BUILD)
        with recorded() as records:
            states, failed = await world.manager.preserve()
        assert failed == ()
        by_id = {state.conversation_id: state for state in states}
        assert (by_id["a"].message_count, by_id["b"].message_count) == (2, 0)
        assert by_id["b"].mode is AgentMode.BUILD
        assert by_id["a"].last_seq == (await world.store.inner.get("a")).last_seq
        assert [c.name for c in by_id["a"].capabilities] == ["look"]
        assert by_id["a"].last_access_at > 0
        assert records.of("agents preserved")[0]["preserved"] == 2


@proves("S003-DISCONNECT-3")
async def test_one_agent_that_cannot_be_preserved_does_not_keep_the_others() -> None:
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        await world.manager.get_or_create_agent("b")
        await settle()
        get, asked = world.store.inner.get, []

        async def sometimes(conversation_id: str) -> Any:
            asked.append(conversation_id)
            if conversation_id == "a":
                raise NotFound("gone", conversation_id=conversation_id)
            return await get(conversation_id)

        world.store.inner.get = sometimes  # type: ignore[method-assign]
        states, failed = await world.manager.preserve()
        world.store.inner.get = get  # type: ignore[method-assign]
        assert [state.conversation_id for state in states] == ["b"]
        assert [(f.conversation_id, f.type) for f in failed] == [("a", "NOT_FOUND")]


@proves("D4-WEBVIEW-1", "P3")
async def test_a_turn_goes_on_while_nobody_looks() -> None:
    async with living() as world:
        model = await world.busy("a")
        await world.manager.preserve()
        assert model.gate is not None
        model.gate.set()
        await until(lambda: "TurnEnded" in world.types())
        assert await world.texts() == ["hold", "ok"]


@proves("S003-RECONNECT-3", "S003-RECONNECT-4")
async def test_what_was_preserved_is_there_for_who_comes_back() -> None:
    async with living(tools=(FakeTool(),)) as world:
        await world.create("a")
        await world.send("hi")
        (state,), _ = await world.manager.preserve()
        await world.manager.dispose_agent("a")
        info = await world.manager.get_or_create_agent("a", create=False)
        assert (info.message_count, info.capabilities) == (state.message_count, state.capabilities)
        await world.send("more")
        history = world.models.last.requests[0].history
        assert [m.text for m in history][:2] == ["hi", "ok"]


# ---- modes and conversations ----


@proves("D4-MODE-1")
async def test_a_mode_that_changes_holds_from_the_next_turn_on() -> None:
    async with living() as world:
        model = await world.busy("a")
        await world.manager.set_mode("a", AgentMode.BUILD)
        assert "You cannot" not in model.requests[0].instructions
        before = model.requests[0].instructions
        assert model.gate is not None
        model.gate.set()
        await world.send("next")
        assert model.requests[1].instructions != before
        assert "change the user's workspace" in model.requests[1].instructions


async def test_a_deleted_conversation_is_gone_and_its_callers_answered() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.busy("a")
        call = begin(tasks, world.send, "waiting")
        await settle()
        await world.manager.delete_conversation("a")
        await call.done.wait()
        assert call.result.stop_reason is StopReason.CANCELLED
        assert not world.manager.has_agent("a")
        with pytest.raises(NotFound):
            await world.store.inner.get("a")
        assert await world.manager.list_agents() == ()


async def test_a_rewound_conversation_is_read_anew_by_its_agent() -> None:
    async with living("one", "two") as world:
        await world.create("a")
        await world.send("first")
        await world.store.inner.rewind("a", None, preview=False)
        await world.send("second")
        history = world.models.last.requests[-1].history  # it has grown by this turn since
        assert [m.text for m in history] == ["second", "two"]


async def test_the_changing_states_of_an_agent_are_announced_latest_last() -> None:
    async with living() as world:
        await world.create("a")
        await world.send("hi")
        await settle()
        assert world.states[-1].state is AgentState.IDLE
        await world.manager.dispose_agent("a")
        await settle()
        assert world.states[-1].state is AgentState.CLOSED


# ---- the end ----


@proves("D4-QUEUE-5", "P6", "P1")
async def test_shutting_down_ends_every_turn_and_answers_every_caller() -> None:
    async with anyio.create_task_group() as tasks, living(runs=False) as world:
        async with world.manager.running():
            await world.busy("a", "running")
            call = begin(tasks, world.send, "waiting")
            await settle()
        await call.done.wait()
        assert isinstance(call.error, InvalidState)
        assert call.error.retryable
        ends = [e for e in world.events if isinstance(e, TurnEnded)]
        assert [e.stop_reason for e in ends] == [StopReason.INTERRUPTED]
        assert await world.waiting() == ["waiting"]
        assert world.manager.active_agent_count() == 0


@proves("D4-QUEUE-5", "P6")
async def test_nothing_new_begins_while_shutting_down() -> None:
    async with (
        anyio.create_task_group() as tasks,
        living(config=keyed(max_active_agents=1), runs=False) as world,
    ):
        await world.create("b")
        async with world.manager.running():
            await world.busy("a", "running")
            await world.enqueue("later")
            await world.manager.update_settings(keyed(gemini_model="b", max_active_agents=1))
            wants = begin(tasks, world.manager.get_or_create_agent, "b")
            await settle()
        await wants.done.wait()
        assert isinstance(wants.error, AgentError)
        assert len(world.models.made) == 1
        assert await world.waiting() == ["later"]
        started = world.types().count("TurnStarted")
        assert (started, world.types().count("TurnEnded")) == (1, 1)


@proves("P6", "S003-LOG-2")
async def test_queuing_and_the_end_of_a_turn_are_logged() -> None:
    async with living(MessageProcessingFailed("no")) as world:
        await world.create("a")
        with recorded() as records, pytest.raises(MessageProcessingFailed):
            await world.send("the secret prompt")
        (queued,) = records.of("message queued")
        (ended,) = records.of("turn ended")
        assert queued["conversationId"] == ended["conversationId"] == "a"
        assert (ended["mode"], ended["stopReason"]) == ("chat", "error")
        assert (ended["type"], ended["cause"]) == ("MESSAGE_PROCESSING_FAILED", "no")
        assert ended["durationMs"] >= 0
        assert not any("the secret prompt" in str(vars(record)) for record in records.all)


async def test_each_accepted_prompt_has_exactly_one_end() -> None:
    async with living(NetworkError("down", retryable=False), "fine") as world:
        await world.create("a")
        for text in ("one", "two"):
            await world.enqueue(text)
        await until(lambda: world.types().count("TurnEnded") == 2)
        queued = [e.message_id for e in world.events if isinstance(e, TurnQueued)]
        assert [e.message_id for e in world.events if isinstance(e, TurnEnded)] == queued


def test_keys_are_not_shown_by_what_holds_them() -> None:
    config = Config(secrets=Secrets(gemini_api_key=Secret("hush-hush")))
    assert "hush-hush" not in repr(config)
