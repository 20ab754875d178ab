"""Following a conversation when several requests want to at the same moment."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from sidecar.conversations import AgentMode, Conversation
from sidecar.errors import NotFound
from sidecar.events import Cursor, Missing, TurnQueued
from sidecar.faces.connection import Connection
from sidecar.journal import Journal
from tests.managers import settle
from tests.requirements import proves

pytestmark = pytest.mark.anyio


def made(conversation_id: str = "c", last_seq: int = 0) -> Conversation:
    return Conversation(
        conversation_id=conversation_id,
        mode=AgentMode.CHAT,
        session_id="s",
        roots=(),
        created_at=0,
        updated_at=0,
        message_count=0,
        queue_length=0,
        last_seq=last_seq,
        revision=0,
        change_no=0,
    )


class Store:
    """Answers when it is let to."""

    def __init__(self) -> None:
        self.answers: list[tuple[anyio.Event, list[Any]]] = []

    async def get(self, conversation_id: str) -> Conversation:
        gate, answer = anyio.Event(), []
        self.answers.append((gate, answer))
        await gate.wait()
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    async def answer(self, number: int, what: Any) -> None:
        gate, answer = self.answers[number]
        answer.append(what)
        gate.set()
        await settle()

    async def catch_up(self, conversation_id: str, cursor: Cursor | None) -> Missing:
        return Missing(conversation_id=conversation_id)

    async def flush_conversation(self, conversation_id: str) -> None:
        return None


class Scene:
    def __init__(self) -> None:
        self.journal = Journal()
        self.store = Store()
        self.heard: list[int] = []
        self.connection = Connection(self, self.journal, self.store, self.store)  # type: ignore[arg-type]
        self.failures: list[Exception] = []

    def notify(self, body: bytes, *, key: str | None = None) -> bool:
        self.heard.append(json.loads(body)["params"]["seq"])
        return True

    def say(self, *numbers: int) -> None:
        self.journal.publish(
            [TurnQueued(conversation_id="c", seq=n, message_id=f"m{n}") for n in numbers]
        )

    async def follow(self) -> None:
        try:
            await self.connection.follow("c")
        except NotFound as error:
            self.failures.append(error)


@proves("P3")
async def test_one_that_finds_nothing_takes_nothing_from_one_that_does() -> None:
    scene = Scene()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.follow)
        tasks.start_soon(scene.follow)
        await settle()
        await scene.store.answer(0, NotFound("not yet"))
        await scene.store.answer(1, made())
        scene.say(1, 2)
    assert len(scene.failures) == 1
    assert scene.heard == [1, 2]


@proves("P3")
async def test_one_that_is_cancelled_takes_nothing_from_one_that_waits() -> None:
    scene = Scene()
    async with anyio.create_task_group() as second:
        async with anyio.create_task_group() as first:
            first.start_soon(scene.follow)
            await settle()
            second.start_soon(scene.follow)
            await settle()
            first.cancel_scope.cancel()
        await settle()
        await scene.store.answer(1, made())
        scene.say(1)
    assert scene.heard == [1]


@proves("P3")
async def test_a_new_conversation_is_followed_from_its_first_event() -> None:
    """A prompt that was sent right after it is stored before anybody hears that it was made."""
    scene = Scene()

    async def make() -> Conversation:
        scene.say(1, 2)
        await settle()
        return made()

    await scene.connection.follow_new("c", make)
    scene.say(3)
    assert scene.heard == [1, 2, 3]


@proves("P3")
async def test_one_that_was_made_before_is_followed_under_its_own_name() -> None:
    scene = Scene()

    async def make() -> Conversation:
        return made("c")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.connection.follow_new, "another", make)
        await settle()
        await scene.store.answer(0, made())
    scene.say(1)
    assert scene.heard == [1]
    assert not scene.journal.has_readers("another")


@proves("P3")
async def test_one_that_could_not_be_made_is_not_followed() -> None:
    scene = Scene()

    async def fail() -> Conversation:
        raise NotFound("no")

    with pytest.raises(NotFound):
        await scene.connection.follow_new("c", fail)
    assert not scene.journal.has_readers("c")


@proves("P3")
async def test_who_caught_up_meanwhile_hears_nothing_twice() -> None:
    scene = Scene()

    async def make() -> Conversation:
        scene.say(1)
        await scene.connection.catch_up("c", None)
        return made()

    await scene.connection.follow_new("c", make)
    assert scene.heard == []
