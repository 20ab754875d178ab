"""The manager as its callers see it: agents, what they can do, modes, the end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sidecar.capabilities import AgentCapability
from sidecar.conversations import AgentMode, StopReason
from sidecar.errors import (
    AgentError,
    CreationFailed,
    InitializationFailed,
    InvalidState,
    MessageProcessingFailed,
    NetworkError,
    NotFound,
)
from sidecar.events import TurnEnded, TurnQueued
from sidecar.lifecycle import AgentState
from sidecar.settings import Config, Secret, Secrets
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


@proves("P6")
async def test_who_sends_to_a_conversation_that_was_deleted_and_made_again_is_answered() -> None:
    async with living() as world:
        await world.create("a")
        await world.send("one")
        await world.manager.delete_conversation("a")
        await world.create("a")
        assert (await world.send("two")).stop_reason is StopReason.END_TURN
        assert await world.texts() == ["two", "ok"]


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


@proves("P7", "P11")
async def test_a_store_that_refuses_does_not_keep_the_process_from_ending() -> None:
    async with anyio.create_task_group() as tasks, living(runs=False) as world:
        async with world.manager.running():
            await world.busy("a", "running")
            call = begin(tasks, world.send, "waiting")
            await settle()
            world.store.refuse("end_turn", "append_text")
            began = anyio.current_time()
        assert anyio.current_time() - began < 5
        await call.done.wait()
        assert isinstance(call.error, InvalidState)
        assert await world.waiting() == ["running", "waiting"]


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
