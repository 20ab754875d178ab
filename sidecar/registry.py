"""Who is live, who is idle, who goes next. Plain synchronous bookkeeping: nothing here awaits,
so every decision is taken on one consistent view."""

from __future__ import annotations

from collections.abc import Iterator

import anyio

from .agent import Agent
from .lifecycle import AgentState


class AgentRegistry:
    """The live agents of this process, at most `limit` of them.

    A starting agent counts, and so does one that is still closing; one that waits for helpers
    does not, for they do.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._agents: dict[str, Agent] = {}
        self.changed = anyio.Event()
        """Set, and replaced, at the next `notify`: take it before you look, wait for it after."""

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[Agent]:
        return iter(tuple(self._agents.values()))

    def get(self, conversation_id: str) -> Agent | None:
        return self._agents.get(conversation_id)

    def add(self, agent: Agent) -> None:
        assert agent.conversation_id not in self._agents
        assert self.has_room
        self._agents[agent.conversation_id] = agent

    def discard(self, agent: Agent) -> None:
        if self._agents.get(agent.conversation_id) is agent:
            del self._agents[agent.conversation_id]
        self.notify()

    @property
    def _places(self) -> int:
        return sum(agent.takes_place for agent in self._agents.values())

    @property
    def has_room(self) -> bool:
        return self._places < self.limit

    @property
    def is_within_limit(self) -> bool:
        return self._places <= self.limit

    def least_recently_used(self) -> Agent | None:
        """The quiescent agent that was used longest ago: the one to make room. Never a busy
        one; None when all are busy."""
        return min(
            (agent for agent in self if agent.is_quiescent),
            key=lambda agent: agent.last_access,
            default=None,
        )

    def surplus(self) -> list[Agent]:
        """Quiescent agents to close after the limit was lowered. One that will close counts for
        as long as its turn runs."""
        over = sum(1 for a in self if a.close_reason is None or a.turn is not None) - self.limit
        idle = sorted((a for a in self if a.is_quiescent), key=lambda a: a.last_access)
        return idle[: max(over, 0)]

    def idle_since(self, moment: float) -> list[Agent]:
        """Quiescent agents whose last use was at `moment` (loop time) or before."""
        return [agent for agent in self if agent.is_quiescent and agent.last_access <= moment]

    @property
    def is_quiet(self) -> bool:
        return all(agent.state is not AgentState.BUSY for agent in self)

    def notify(self) -> None:
        """Something changed that somebody may wait for: a state, a place, the limit, work."""
        self.changed.set()
        self.changed = anyio.Event()
