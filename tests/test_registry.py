"""Who is live, who is idle, who goes next: decided without waiting."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sidecar.agent import Agent
from sidecar.conversations import AgentMode, Conversation
from sidecar.lifecycle import AgentState
from sidecar.registry import AgentRegistry
from sidecar.settings import Config
from tests.requirements import proves

pytestmark = pytest.mark.anyio


class Nowhere:
    """A host for agents that are never run."""

    store = None

    def agent_moved(self, agent: Agent) -> None: ...


def agent(id_: str, state: AgentState = AgentState.IDLE, used: float = 0) -> Agent:
    conversation = Conversation(
        conversation_id=id_,
        mode=AgentMode.CHAT,
        session_id="user",
        roots=(),
        created_at=0,
        updated_at=0,
        message_count=0,
        queue_length=0,
        last_seq=0,
        revision=0,
        change_no=0,
    )
    host: Any = Nowhere()
    made = Agent(conversation, Config(), host)
    made.state, made.last_access = state, used
    return made


def registry(limit: int, *agents: Agent) -> AgentRegistry:
    made = AgentRegistry(limit)
    for one in agents:
        made.add(one)
    return made


@proves("S003-RESOURCES-1", "D4-LIMIT-1")
async def test_the_one_used_longest_ago_goes_first() -> None:
    live = registry(3, agent("a", used=3), agent("b", used=1), agent("c", used=2))
    victim = live.least_recently_used()
    assert victim is not None
    assert victim.conversation_id == "b"


@proves("P5", "D4-LIMIT-1")
@pytest.mark.parametrize(
    "state", [s for s in AgentState if s is not AgentState.IDLE], ids=lambda state: state
)
async def test_only_an_idle_agent_makes_room(state: AgentState) -> None:
    assert registry(1, agent("a", state)).least_recently_used() is None
    assert registry(1, agent("a", state)).idle_since(1_000_000_000) == []


@proves("P5")
async def test_an_agent_that_was_told_of_work_or_is_closing_is_not_quiescent() -> None:
    told, closing, idle = agent("a"), agent("b"), agent("c", used=9)
    told.wake()
    closing.close("test", now=False)
    live = registry(3, told, closing, idle)
    assert live.least_recently_used() is idle
    assert live.idle_since(10) == [idle]
    assert live.idle_since(8) == []


@proves("D4-LIFECYCLE-2")
async def test_every_agent_that_has_not_ended_takes_a_place() -> None:
    live = registry(2, agent("a", AgentState.STARTING), agent("b", AgentState.CLOSING))
    assert not live.has_room
    assert len(live) == 2
    starting = live.get("a")
    assert starting is not None
    live.discard(starting)
    assert live.has_room
    assert [one.conversation_id for one in live] == ["b"]


async def test_a_newer_agent_is_not_discarded_for_an_older_one() -> None:
    old, new = agent("a"), agent("a")
    live = registry(2, old)
    live.discard(old)
    live.add(new)
    live.discard(old)
    assert live.get("a") is new


async def test_what_is_over_a_lowered_limit_is_the_idle_used_longest_ago() -> None:
    live = registry(
        5, *[agent(id_, used=n) for n, id_ in enumerate("abc")], agent("d", AgentState.BUSY)
    )
    live.limit = 2
    assert [one.conversation_id for one in live.surplus()] == ["a", "b"]
    live.limit = 10
    assert live.surplus() == []


async def test_who_waits_for_a_change_hears_of_it_once() -> None:
    live = AgentRegistry(1)
    before = live.changed
    live.notify()
    with anyio.fail_after(5):
        await before.wait()
    assert not live.changed.is_set()


async def test_quiet_is_when_no_turn_runs() -> None:
    live = registry(2, agent("a"))
    assert live.is_quiet
    live.add(agent("b", AgentState.BUSY))
    assert not live.is_quiet
