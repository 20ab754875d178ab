"""The life of an agent is one table."""

from __future__ import annotations

import pytest

from sidecar.errors import InvalidState
from sidecar.lifecycle import ENDED, LIFECYCLE, AgentState, after
from tests.requirements import proves


@proves("D4-LIFECYCLE-1")
@pytest.mark.parametrize("state", list(AgentState))
def test_only_moves_in_the_table_are_made(state: AgentState) -> None:
    events = {event for row in LIFECYCLE.values() for event in row}
    for event in events:
        if event in LIFECYCLE[state]:
            assert after(state, event) is LIFECYCLE[state][event]
        else:
            with pytest.raises(InvalidState):
                after(state, event)


def test_every_state_is_reached_and_every_live_one_ends() -> None:
    def reachable(start: AgentState) -> set[AgentState]:
        found, todo = {start}, [start]
        while todo:
            for state in LIFECYCLE[todo.pop()].values():
                if state not in found:
                    found.add(state)
                    todo.append(state)
        return found

    assert reachable(AgentState.NEW) == set(AgentState)
    for state in AgentState:
        assert reachable(state) & ENDED
        assert bool(LIFECYCLE[state]) is (state not in ENDED)


def test_work_is_begun_and_ended_between_idle_and_busy_only() -> None:
    assert after(AgentState.IDLE, "work") is AgentState.BUSY
    assert after(AgentState.BUSY, "rest") is AgentState.IDLE
    assert [s for s in AgentState if "work" in LIFECYCLE[s]] == [AgentState.IDLE]
