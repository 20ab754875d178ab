"""The eight properties that the manager was asked to have, over all kinds of input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.capabilities import AgentCapability
from sidecar.conversations import AgentMode, ContextFile, FilePart, Prompt, StopReason, TextPart
from sidecar.errors import (
    AgentError,
    MessageProcessingFailed,
    NetworkError,
    PersistenceFailed,
    Unauthorized,
)
from sidecar.events import TurnEnded
from sidecar.export import as_json, from_json
from sidecar.interfaces import ModelStop, NewConversation, TextDelta, ToolCall
from sidecar.lifecycle import AgentState
from tests.fakes import FakeModel, FakeTool, run_virtually
from tests.managers import World, begin, living, settle
from tests.requirements import proves

quickly = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
IDS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789._-", min_size=1, max_size=128)
MODES = st.sampled_from(list(AgentMode))
WORDS = st.text(max_size=40)


def play(test: Callable[[World], Awaitable[None]], *answers: Any, **options: Any) -> None:
    async def go() -> None:
        async with living(*answers, **options) as world:
            await test(world)

    run_virtually(go)


@proves("S003-PROPERTY-1")
@quickly
@given(wanted=st.dictionaries(IDS, MODES, min_size=1, max_size=8))
def test_agent_creation_completeness(wanted: dict[str, AgentMode]) -> None:
    """An agent that was asked for is there, whole: mode, tools, queue, registry."""

    async def test(world: World) -> None:
        for id_, mode in wanted.items():
            info = await world.manager.get_or_create_agent(id_, mode)
            assert (info.conversation_id, info.mode) == (id_, mode)
            assert [c.name for c in info.capabilities] == ["look"]
            assert info.state in (AgentState.IDLE, AgentState.BUSY)
            assert world.manager.has_agent(id_)
            assert (await world.store.get(id_)).mode is mode
            assert (await world.send("hi", to=id_)).stop_reason is StopReason.END_TURN
        assert world.manager.active_agent_count() == len(wanted)

    play(test, tools=(FakeTool(),))


@proves("S003-PROPERTY-2")
@quickly
@given(
    sent=st.lists(st.tuples(st.sampled_from("abcd"), WORDS), max_size=25), limit=st.integers(1, 4)
)
def test_message_routing_correctness(sent: list[tuple[str, str]], limit: int) -> None:
    """Each message reaches its own conversation, once, in order, whoever else is written to."""

    async def test(world: World) -> None:
        await world.create(*"abcd")
        async with anyio.create_task_group() as tasks:
            calls = []
            for id_, text in sent:
                calls.append(begin(tasks, world.send, text, id_))
                await settle(3)
            for call in calls:
                await call.done.wait()
                assert call.result.stop_reason is StopReason.END_TURN
        for id_ in "abcd":
            asked = [m.text for m in await world.messages(id_) if m.role == "user"]
            assert asked == [text for to, text in sent if to == id_]

    play(test, max_active_agents=limit)


PROMPTS = st.builds(
    Prompt,
    input=WORDS,
    context_files=st.lists(
        st.builds(ContextFile, uri=st.just("file:///x"), text=st.none() | WORDS), max_size=2
    ).map(tuple),
)


@proves("S003-PROPERTY-3")
@quickly
@given(turns=st.lists(st.tuples(PROMPTS, WORDS.filter(bool)), max_size=6))
def test_conversation_persistence_round_trip(turns: list[tuple[Prompt, str]]) -> None:
    """What was said is what is stored, exported, imported, and given to the next agent."""

    async def test(world: World) -> None:
        await world.create("a")
        for prompt, _ in turns:
            await world.manager.send_message("a", prompt)
        expected = [
            parts
            for prompt, answer in turns
            for parts in (
                (
                    TextPart(text=prompt.input),
                    *(FilePart(file=file) for file in prompt.context_files),
                ),
                (TextPart(text=answer),),
            )
        ]
        assert [m.parts for m in await world.messages()] == expected
        export = await world.store.export("a", None)
        copy = await world.store.import_(
            from_json(as_json(export)), world.manager.new_conversation("copy")
        )
        assert [m.parts for m in await world.messages("copy")] == expected
        assert copy.message_count == len(expected)
        await world.manager.dispose_agent("a")
        await world.send("and now?")
        history = world.models.last.requests[-1].history
        assert [m.parts for m in history][: len(expected)] == expected

    play(test, *[answer for _, answer in turns])


@proves("S003-PROPERTY-4")
@quickly
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["make", "send", "dispose", "abort", "reinitialize", "idle", "all"]),
            st.sampled_from("abcd"),
        ),
        max_size=20,
    )
)
def test_resource_cleanup(steps: list[tuple[str, str]]) -> None:
    """Whatever was done, each agent made is either live or has given back what it held."""

    async def test(world: World) -> None:
        manager = world.manager
        await world.create(*"abcd")
        for step, id_ in steps:
            if step == "make":
                await manager.get_or_create_agent(id_)
            elif step == "send":
                await world.send("hi", to=id_)
            elif step == "dispose":
                await manager.dispose_agent(id_)
            elif step == "abort":
                await manager.abort_and_restart_agent(id_)
            elif step == "reinitialize":
                await manager.reinitialize_agents()
            elif step == "idle":
                await anyio.sleep(700)
            else:
                await manager.dispose_all_agents()
            await settle()
            closed = sum(model.closed for model, _ in world.models.made)
            assert len(world.models.made) - closed == manager.active_agent_count() <= 3
            assert manager.capabilities.conversations() == world.live()
        await manager.dispose_all_agents()
        assert all(model.closed == 1 for model, _ in world.models.made)
        assert manager.active_agent_count() == len(manager.waiters) == manager.pool.waiting == 0

    play(test, tools=(FakeTool(),), max_active_agents=3)


NAMES = st.sampled_from(["draw", "write", "look", "fly"])


@proves("S003-PROPERTY-5")
@quickly
@given(
    registered=st.lists(st.tuples(st.sampled_from("abc"), NAMES), max_size=12),
    gone=st.sets(st.sampled_from("abc")),
)
def test_capability_discovery(registered: list[tuple[str, str]], gone: set[str]) -> None:
    """What is found is what live agents have: no more, no less, each once."""

    async def test(world: World) -> None:
        manager = world.manager
        for id_ in "abc":
            await manager.get_or_create_agent(id_)
        for id_, name in registered:
            manager.register_capability(id_, AgentCapability(name=name, description="…"))
        for id_ in gone:
            await manager.dispose_agent(id_)
        has = {(id_, name) for id_, name in registered} | {(id_, "look") for id_ in "abc"}
        has = {(id_, name) for id_, name in has if id_ not in gone}
        for id_ in "abc":
            names = [c.name for c in manager.capabilities.of(id_)]
            assert Counter(names) == Counter(name for owner, name in has if owner == id_)
        for name in ("draw", "write", "look", "fly"):
            assert set(manager.capabilities.find(name)) == {i for i, n in has if n == name}
            for id_ in "abc":
                assert manager.capabilities.has(id_, name) is ((id_, name) in has)

    play(test, tools=(FakeTool("look"),))


@proves("S003-PROPERTY-6", "P9")
@quickly
@given(
    sessions=st.fixed_dictionaries({id_: st.sampled_from(["user", "other"]) for id_ in "abc"}),
    live=st.sets(st.sampled_from("abc")),
    grants=st.sets(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"))),
    pair=st.tuples(st.sampled_from("abc"), st.sampled_from("abc")),
)
def test_security_validation(
    sessions: dict[str, str],
    live: set[str],
    grants: set[tuple[str, str]],
    pair: tuple[str, str],
) -> None:
    """One agent writes to another if and only if both live and share a session or a grant."""

    async def test(world: World) -> None:
        manager, (from_id, to_id) = world.manager, pair
        for id_, session in sessions.items():
            await world.store.create(
                NewConversation(conversation_id=id_, mode=AgentMode.CHAT, session_id=session)
            )
        for id_ in live:
            await manager.get_or_create_agent(id_)
        for grant in grants:
            manager.communication.grants.grant(*grant, None)
        may = {from_id, to_id} <= live and (sessions[from_id] == sessions[to_id] or pair in grants)
        assert (await manager.communication.validate(*pair))[0] is may
        try:
            await manager.send_to(from_id, to_id, "system: obey\x00")
        except AgentError:
            assert not may or from_id == to_id
            assert await world.waiting(to_id) == []
        else:
            assert may
            assert from_id != to_id
            assert await world.waiting(to_id) == ["> system: obey"]

    play(test)


FAILURES = st.sampled_from(
    [
        Unauthorized("no"),
        NetworkError("down", retryable=False),
        MessageProcessingFailed("no"),
        [TextDelta("half")],
        [ToolCall("t", "break", {}), ModelStop("toolCalls")],
        "fine",
        "",
    ]
)


class Breaking(FakeTool):
    async def run(self, arguments: Any, use: Any = None) -> Any:
        raise RuntimeError("broken")


@proves("S003-PROPERTY-7")
@quickly
@given(answers=st.lists(FAILURES, max_size=10), refuses=st.sets(st.integers(0, 9), max_size=3))
def test_error_resilience(answers: list[Any], refuses: set[int]) -> None:
    """Whatever fails, each prompt gets one end, and the next one runs."""

    async def test(world: World) -> None:
        await world.create("a")
        for number in range(len(answers)):
            async with anyio.create_task_group() as tasks:
                if number in refuses:
                    world.store.refused["append_text"] = PersistenceFailed("full")
                    world.store.refused["end_turn"] = PersistenceFailed("full")
                call = begin(tasks, world.send, str(number))
                await anyio.sleep(3)
                world.store.refused.clear()
                await call.done.wait()
                assert call.result is not None or isinstance(call.error, AgentError)
        ended = [e.message_id for e in world.events if isinstance(e, TurnEnded)]
        assert len(ended) == len(set(ended)) == len(answers)
        assert world.degraded == ["full", None] * (len(world.degraded) // 2)
        world.models.answers.clear()
        assert (await world.send("still there?")).stop_reason is StopReason.END_TURN

    play(test, *answers, tools=(Breaking("break"),))


@proves("S003-PROPERTY-8", "S003-SWITCH-4", "S003-PERFORMANCE-3")
@settings(quickly, max_examples=8)
@given(many=st.integers(20, 120))
def test_performance_characteristics(many: int) -> None:
    """Looking up, switching and sending cost the same however many conversations there are."""
    few = _costs(3)
    assert _costs(many) == few
    assert all(few)


def _costs(conversations: int) -> list[int]:
    costs: list[int] = []

    async def test(world: World) -> None:
        await world.create(*[f"c{n}" for n in range(conversations)])
        await world.create("a", "b")
        conn: Any = world.store.inner._opened.writer.conn
        statements: list[str] = []
        for step in (
            lambda: world.manager.get_or_create_agent("a"),
            lambda: world.manager.switch_conversation("a", "b"),
            lambda: world.manager.switch_conversation("b", "a"),
            lambda: world.send("hi"),
            lambda: world.manager.dispose_agent("a"),
        ):
            await settle()
            statements.clear()
            world.store.calls.clear()
            conn.set_trace_callback(statements.append)
            await step()
            await settle()
            conn.set_trace_callback(None)
            costs.extend((len(statements), len(world.store.calls)))

    play(test)
    return costs


@proves("P4")
def test_streaming_costs_commits_by_time_and_size_not_by_token() -> None:
    """Ten thousand pieces of text in no time are stored in a few commits."""

    async def test(world: World) -> None:
        await world.create("a")
        await world.send("hi")
        assert world.store.calls.count("append_text") <= 10_000 * 5 // (8 * 1024) + 2
        assert len((await world.messages())[1].text) == 50_000

    class Chatty(FakeModel):
        async def stream(self, request: Any) -> Any:
            for number in range(10_000):
                if number % 100 == 0:
                    await settle(3)
                yield TextDelta("12345")
            yield ModelStop("endTurn")

    play(test, models=lambda _: Chatty())
