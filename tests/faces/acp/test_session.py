"""Whatever an ACP client has no room for, it is told all of it in the end, once and in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.conversations import Message, Prompt, TextPart, ThinkingPart
from sidecar.errors import NotFound
from sidecar.events import Delta
from sidecar.faces.acp.session import Room, Session, delta_body
from sidecar.interfaces import ModelStop, TextDelta, ToolCall
from sidecar.providers.scripted import ScriptedProvider
from tests.fakes import FakeTool, run_virtually
from tests.managers import World, living, settle
from tests.requirements import proves

SCRIPT = [
    {"turn": [{"thinking": "hm 🙂 "}, {"text": "a🙂b "}, {"tool": "look"}, {"text": "c "}]},
    {"turn": [{"tool": "look"}, {"tool": "look"}, {"text": "d", "repeat": 20}, {"text": " 🙂"}]},
    {"turn": [{"text": "e", "delayMs": 300, "repeat": 3}]},
    {"turn": [{"text": "last", "repeat": 5}]},
]


class Narrow:
    """A writer with room for so many frames."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.bodies: list[bytes] = []
        self.refused = 0

    def send(self, body: bytes) -> None:
        self.bodies.append(body)

    def notify(self, body: bytes, *, key: str | None = None) -> bool:
        if self.room <= 0:
            self.refused += 1
            return False
        self.room -= 1
        self.bodies.append(body)
        return True

    def delta(self, event: Delta) -> bool:
        return self.notify(delta_body(event))

    @property
    def updates(self) -> Iterator[dict[str, Any]]:
        for body in self.bodies:
            yield json.loads(body)["params"]["update"]


def told(writer: Narrow, kind: str) -> dict[str, str]:
    """By message: the text of its chunks."""
    found: dict[str, str] = {}
    for update in writer.updates:
        if update["sessionUpdate"] == kind:
            id_ = update["messageId"]
            found[id_] = found.get(id_, "") + update["content"]["text"]
    return found


def stored(messages: list[Message], role: str, part: type) -> dict[str, str]:
    texts = {
        message.message_id: "".join(p.text for p in message.parts if isinstance(p, part))
        for message in messages
        if message.role == role
    }
    return {id_: text for id_, text in texts.items() if text}


@asynccontextmanager
async def opened(world: World, writer: Narrow, *, replay: bool = True) -> Any:
    room = Room()
    async with anyio.create_task_group() as tasks:
        session = Session(
            await world.store.inner.get("a"),
            lambda mode: [],
            writer=writer,
            room=room,
            journal=world.journal,
            store=world.store.inner,
            flusher=world.manager.flusher,
        )
        tasks.start_soon(session.run)
        tasks.start_soon(lambda: session.open(replay=replay))
        await settle()
        yield session, room
        writer.room = 1_000_000
        for _ in range(50):
            room.made()
            await settle()
        session.close()
        tasks.cancel_scope.cancel()


def check_texts(writer: Narrow, messages: list[Message]) -> None:
    assert told(writer, "agent_message_chunk") == stored(messages, "assistant", TextPart)


def check(writer: Narrow, messages: list[Message]) -> None:
    check_texts(writer, messages)
    assert told(writer, "agent_thought_chunk") == stored(messages, "assistant", ThinkingPart)
    assert told(writer, "user_message_chunk") == stored(messages, "user", TextPart)
    calls: dict[str, list[str]] = {}
    for update in writer.updates:
        if update["sessionUpdate"].startswith("tool_call"):
            calls.setdefault(update["toolCallId"], []).append(update["status"])
    assert len(calls) == 3
    assert all(states == ["in_progress", "completed"] for states in calls.values())


@proves("ACP", "P3")
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 30),
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 40)), max_size=25),
    st.integers(0, 4),
)
def test_nothing_is_left_out_and_nothing_comes_twice(
    first: int, later: list[tuple[int, int]], before: int
) -> None:
    """`later`: how much room there is again, and how long until then; `before`: how many turns
    are over when the session is opened."""
    play(first, later, before)


@proves("ACP", "P3")
def test_wherever_the_room_ends_it_goes_on_there() -> None:
    for first in range(40):
        play(first, [(1, 25)] * 4, 0)


def play(first: int, later: list[tuple[int, int]], before: int) -> None:
    async def run() -> None:
        models = lambda _: ScriptedProvider(SCRIPT)  # noqa: E731
        async with living(models=models, tools=(FakeTool("look"),)) as world:
            await world.create("a")
            for number in range(before):
                await world.send(f"prompt {number}")
            writer = Narrow(first)
            async with opened(world, writer) as (session, room):
                for number in range(before, 4):
                    await world.enqueue(f"prompt {number}")
                for more, pause in later:
                    await settle(pause)
                    writer.room += more
                    room.made()
                await anyio.sleep(60)  # of virtual time: the turns are over
                writer.room += 1_000_000
                room.made()
                with anyio.fail_after(60):
                    await session.whole()
            check(writer, await world.messages())

    run_virtually(run)


@proves("ACP", "P11")
def test_a_conversation_that_is_deleted_holds_nobody_up() -> None:
    """Neither who opens it at that moment, nor who has it open, nor who told us of it."""

    async def run() -> None:
        async with living() as world, anyio.create_task_group() as tasks:
            await world.create("a")
            async with opened(world, Narrow(100)) as (session, _):
                get = world.store.inner.get
                await world.manager.delete_conversation("a")
                world.journal.cut_off("a")
                await settle()
                assert session.is_whole
            await world.create("b")
            late = Session(
                await get("b"),
                lambda mode: [],
                writer=Narrow(100),
                room=Room(),
                journal=world.journal,
                store=world.store.inner,
                flusher=world.manager.flusher,
            )
            tasks.start_soon(late.run)
            flush = world.manager.flusher.flush_conversation

            async def deleted_meanwhile(conversation_id: str) -> None:
                await flush(conversation_id)
                await world.manager.delete_conversation(conversation_id)
                world.journal.cut_off(conversation_id)

            late._flusher = SimpleNamespace(flush_conversation=deleted_meanwhile)
            with pytest.raises(NotFound), anyio.fail_after(10):
                await late.open(replay=True)
            late.close()

    run_virtually(run)


@proves("ACP", "P11")
def test_what_waits_for_room_is_bounded() -> None:
    async def play() -> None:
        script = [{"turn": [{"text": "x" * 1000, "repeat": 500}]}]
        async with living(models=lambda _: ScriptedProvider(script)) as world:
            await world.create("a")
            writer = Narrow(3)
            async with opened(world, writer) as (session, _):
                await world.send("go")
                kept = sum(map(len, session._unsent))
                assert kept < 10_000
                assert session._subscription is None, "events are not held for it either"

    run_virtually(play)


@proves("ACP", "P1")
def test_a_prompt_of_its_own_is_not_told_to_the_client_that_sent_it() -> None:
    async def play() -> None:
        async with living("yes", "no") as world:
            await world.create("a")
            writer = Narrow(1_000)
            async with opened(world, writer) as (session, _):
                listener = session.narration.queued
                world.journal.listen(
                    lambda e: listener(e) if type(e).__name__ == "TurnQueued" else None
                )
                session.narration.prompted("key")
                await world.manager.send_message("a", Prompt(input="mine"), request_key="key")
                await world.manager.send_message("a", Prompt(input="theirs"), request_key="other")
            assert list(told(writer, "user_message_chunk").values()) == ["theirs"]
            assert list(told(writer, "agent_message_chunk").values()) == ["yes", "no"]

    run_virtually(play)


@proves("ACP", "P3")
def test_who_lags_by_many_turns_of_its_own_is_told_all_of_them() -> None:
    async def run() -> None:
        async with living() as world:
            await world.create("a")
            writer = Narrow(3)
            async with opened(world, writer) as (session, _):
                narration = session.narration
                world.journal.listen(
                    lambda e: narration.queued(e) if type(e).__name__ == "TurnQueued" else None
                )
                for number in range(60):
                    narration.prompted(f"key {number}")
                    await world.manager.send_message(
                        "a", Prompt(input=f"{number}"), request_key=f"key {number}"
                    )
            messages = await world.messages()
            assert len(messages) == 120
            assert told(writer, "agent_message_chunk") == stored(messages, "assistant", TextPart)

    run_virtually(run)


@proves("ACP", "P3")
def test_a_store_that_fails_for_a_while_costs_nothing() -> None:
    async def run() -> None:
        async with living("one", "two") as world:
            await world.create("a")
            writer = Narrow(2)
            async with opened(world, writer) as (session, room):
                session._store = world.store
                world.store.refuse("page")
                await world.send("first")
                writer.room = 1_000
                room.made()
                await settle()
                assert not session.is_whole
                assert len(world.journal._readers.get("a", ())) == 0, "nothing is held meanwhile"
                world.store.refused.clear()
                await anyio.sleep(5)
                await world.send("second")
            check_texts(writer, await world.messages())

    run_virtually(run)


@proves("ACP", "P3")
def test_resuming_tells_nothing_of_before_and_the_rest_of_what_runs() -> None:
    call = [ToolCall("1", "look", {}), ModelStop("toolCalls")]

    async def play() -> None:
        answers = ("old", [TextDelta("one "), TextDelta("two "), ModelStop("endTurn")], call, "x")
        async with living(*answers, tools=(FakeTool("look"),)) as world:
            await world.create("a")
            await world.send("before")
            world.models.last.hold()
            await world.enqueue("now")
            await world.models.last.entered.wait()
            writer = Narrow(1_000)
            async with opened(world, writer, replay=False):
                assert writer.bodies == []
                assert world.models.last.gate is not None
                world.models.last.gate.set()
                world.models.last.gate = None
                await world.send("and then")
            assert "old" not in "".join(told(writer, "agent_message_chunk").values())
            assert "".join(told(writer, "agent_message_chunk").values()).endswith("x")
            kinds = [u["sessionUpdate"] for u in writer.updates]
            assert kinds.count("tool_call") == 1

    run_virtually(play)


@proves("ACP")
def test_how_full_the_context_is_and_what_it_has_cost_so_far() -> None:
    usage = {"contextTokens": 700, "contextWindow": 1000, "costUsd": 0.25}
    script = [{"turn": [{"text": "a"}, {"usage": usage}]}, {"turn": [{"usage": usage}]}]

    async def run() -> None:
        async with living(models=lambda _: ScriptedProvider(script)) as world:
            await world.create("a")
            writer = Narrow(1_000)
            async with opened(world, writer):
                await world.send("one")
                await world.send("two")
            told_of = [u for u in writer.updates if u["sessionUpdate"] == "usage_update"]
            assert [(u["used"], u["size"], u["cost"]["amount"]) for u in told_of] == [
                (700, 1000, 0.25),
                (700, 1000, 0.5),
            ]

    run_virtually(run)


@pytest.mark.parametrize("turns", [1])
def test_the_model_of_these_tests_uses_its_tool_more_than_once(turns: int) -> None:
    """So that a mistake in the names of calls would be seen."""
    assert sum("tool" in step for turn in SCRIPT for step in turn["turn"]) == 3
