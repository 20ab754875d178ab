"""One agent: its states, its lifetime, and what it does when something goes wrong in it."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from sidecar.conversations import MessageStatus, QueueState, StopReason, TextPart
from sidecar.errors import AgentError, Conflict, CreationFailed, LoadFailed
from sidecar.events import TurnEnded
from sidecar.interfaces import TurnOutcome
from sidecar.lifecycle import AgentState
from sidecar.settings import Config
from sidecar.toolbox import Toolbox
from tests.fakes import FakeModel, FakeTool
from tests.managers import VIRTUAL, begin, living, recorded, settle, until
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


@proves("D4-LIFECYCLE-1", "D4-LIFECYCLE-5")
async def test_an_agent_goes_through_its_states_in_order() -> None:
    async with living() as world:
        moves: list[AgentState] = []
        moved = world.manager.pool.agent_moved
        world.manager.pool.agent_moved = lambda a: (moves.append(a.state), moved(a))  # type: ignore
        await world.create("a")
        await world.send("hi")
        await settle()
        await world.manager.dispose_agent("a")
        assert moves[:2] == [AgentState.STARTING, AgentState.IDLE]
        assert moves[-3:] == [AgentState.IDLE, AgentState.CLOSING, AgentState.CLOSED]
        assert AgentState.BUSY in moves


async def test_an_agent_shows_its_state_where_it_is_logged() -> None:
    async with living() as world:
        await world.create("a")
        await world.send("hi")
        await settle()
        assert repr(world.manager.registry.get("a")) == "<Agent a IDLE turns=1>"


@proves("D4-LIFECYCLE-3")
async def test_an_agent_that_is_only_starting_can_be_disposed() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.create("a")
        call = begin(tasks, world.manager.get_or_create_agent, "a")
        await until(lambda: world.manager.registry.get("a"))
        with anyio.fail_after(60):
            await world.manager.dispose_agent("a")
            await settle()
        assert world.manager.capabilities.conversations() == frozenset() or call.is_done
        await call.done.wait()
        assert call.error is None, "who asked meanwhile gets an agent all the same"


@proves("S003-SECURITY-1", "D4-LIFECYCLE-4")
async def test_each_agent_has_a_model_and_tools_of_its_own() -> None:
    made: list[FakeTool] = []

    def make_tools(conversation: Any) -> Toolbox:
        made.append(FakeTool(f"look-{conversation.conversation_id}"))
        return Toolbox([made[-1]])

    async with living(make_tools=make_tools) as world:
        for id_ in "ab":
            await world.create(id_)
            await world.send("hi", to=id_)
        models = [model for model, _ in world.models.made]
        assert len({id(model) for model in models}) == 2
        assert [[t.name for t in m.requests[0].tools] for m in models] == [["look-a"], ["look-b"]]
        assert [m.text for m in models[1].requests[0].history][:1] == ["hi"]
        assert all(len(model.requests) == 1 for model in models)


@proves("P6", "P11", "S003-PROPERTY-7")
async def test_an_agent_whose_history_cannot_be_read_tells_its_callers_and_ends() -> None:
    async with living() as world:
        await world.create("a")
        world.store.refused["messages"] = LoadFailed("unreadable")
        with pytest.raises(LoadFailed):
            await world.send("hi")
        await settle()
        assert world.live() == set()
        assert await world.waiting() == ["hi"]
        world.store.refused.clear()
        await world.manager.get_or_create_agent("a")
        await until(lambda: "TurnEnded" in world.types())


@proves("P8")
async def test_a_caller_goes_on_waiting_when_another_window_runs_its_prompt() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.create("a")
        world.store.refused["start_turn"] = Conflict("open in another window")
        call = begin(tasks, world.send, "hi")
        await anyio.sleep(10)
        assert not call.is_done
        assert world.live() == set()
        started = await world.store.inner.start_turn("a", "theirs")
        assert started is not None
        outcome = TurnOutcome(
            stop_reason=StopReason.END_TURN,
            status=MessageStatus.COMPLETE,
            queue_state=QueueState.DONE,
            parts=(TextPart(text="from over there"),),
        )
        await world.store.inner.end_turn("a", started.turn_id, outcome)
        await call.done.wait()
        assert call.result.stop_reason is StopReason.END_TURN


@proves("P8")
async def test_a_turn_that_was_ended_by_somebody_else_is_left_as_it_is() -> None:
    async with living("mine", "next") as world:
        model = await world.busy("a")
        agent = world.manager.registry.get("a")
        assert agent is not None
        assert agent.turn is not None
        theirs = msgspec.structs.replace(
            agent.turn.outcome(StopReason.CANCELLED), parts=(TextPart(text="theirs"),)
        )
        await world.store.inner.end_turn("a", agent.turn.started.turn_id, theirs)
        assert model.gate is not None
        with recorded() as records:
            model.gate.set()
            await settle()
        assert len(records.of("a turn had been ended by somebody else")) == 1
        assert await world.texts() == ["hold", "theirs"]
        await world.send("more")
        assert [m.text for m in model.requests[1].history][:2] == ["hold", "theirs"]
        assert world.live() == {"a"}


@proves("P11")
async def test_a_provider_that_does_not_close_holds_its_place_for_five_seconds_at_most() -> None:
    class Clinging(FakeModel):
        async def aclose(self) -> None:
            await anyio.sleep_forever()

    models = iter([Clinging(), FakeModel()])
    async with living(models=lambda _: next(models), max_active_agents=1) as world:
        await world.manager.get_or_create_agent("a")
        await settle()
        began = anyio.current_time()
        await world.manager.get_or_create_agent("b")
        assert anyio.current_time() - began < 6
        assert world.live() == {"b"}


@proves("P11")
async def test_an_agent_can_be_given_up_in_any_state_that_it_is_stuck_in() -> None:
    """A machine that slept makes any wait too long, also for an agent that only rests."""
    async with living() as world:
        await world.manager.get_or_create_agent("a")
        await settle()
        agent = world.manager.registry.get("a")
        assert agent is not None
        assert agent.state is AgentState.IDLE
        agent.close("aborted", now=True)
        await agent.give_up()
        assert agent.state is AgentState.FAILED
        await settle()
        await world.send("hi")
        assert world.live() == {"a"}
        assert world.models.made[0][0].closed == 1


async def test_history_is_read_once_and_then_kept_in_step() -> None:
    async with living("one", "two", "three") as world:
        await world.create("a")
        for text in ("first", "second", "third"):
            await world.send(text)
        assert world.store.calls.count("messages") == 1
        history = world.models.last.requests[-1].history
        assert [m.text for m in history] == await world.texts()


@proves("P1")
async def test_an_interrupted_turn_keeps_what_it_said() -> None:
    async with anyio.create_task_group(), living("half", runs=False) as world:
        async with world.manager.running():
            await world.busy("a", "hello")
        reply = (await world.messages())[1]
        assert (reply.text, reply.status) == ("half", MessageStatus.INTERRUPTED)
        (end,) = [e for e in world.events if isinstance(e, TurnEnded)]
        assert end.stop_reason is StopReason.INTERRUPTED


async def test_without_a_running_pool_no_agent_is_made() -> None:
    async with living(runs=False) as world:
        with pytest.raises(CreationFailed):
            await world.manager.get_or_create_agent("a")


async def test_a_tool_box_that_cannot_be_made_is_a_failed_creation() -> None:
    def broken(_: Any) -> Any:
        raise OSError("/home/me/secret")

    async with living(make_tools=broken) as world:
        with pytest.raises(CreationFailed) as caught:
            await world.manager.get_or_create_agent("a")
        assert "secret" not in caught.value.message
        assert world.live() == set()
        assert isinstance(caught.value, AgentError)


async def test_a_hurried_close_is_not_slowed_down_again() -> None:
    async with living(config=Config()) as world:
        await world.busy("a")
        agent = world.manager.registry.get("a")
        assert agent is not None
        agent.close("disposed", now=True)
        agent.close("settings changed", now=False)
        assert agent.close_reason == "disposed"
        await agent.ended.wait()


@proves("P1")
async def test_who_disposes_an_agent_that_was_to_be_remade_is_heard() -> None:
    async with living() as world:
        await world.busy("a")
        await world.enqueue("later")
        await world.manager.reinitialize_agents()
        await world.manager.dispose_agent("a")
        await settle()
        assert world.live() == set()
        assert await world.waiting() == ["later"]
