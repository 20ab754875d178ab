"""Agents that hang, and are aborted and made anew."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sidecar.conversations import AgentMode, StopReason
from sidecar.errors import (
    NotFound,
)
from sidecar.interfaces import ModelStop, TextDelta
from sidecar.lifecycle import AgentState
from sidecar.settings import Config
from tests.fakes import FakeModel
from tests.managers import VIRTUAL, begin, living, recorded, settle, until
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


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
        assert line["mode"] == "build"
        assert line["durationMs"] >= 0


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
