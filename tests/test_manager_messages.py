"""Messages to agents: queued, run in order, answered once, cancelled, repeated."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sidecar.conversations import Prompt, StopReason
from sidecar.errors import (
    CommunicationFailed,
    Conflict,
    InvalidState,
    QueueFull,
    Unauthorized,
)
from sidecar.events import TurnEnded
from sidecar.interfaces import ModelStop, TextDelta
from sidecar.lifecycle import AgentState
from tests.managers import VIRTUAL, begin, living, settle, until
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


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
