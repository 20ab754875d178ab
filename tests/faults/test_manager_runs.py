"""Evictions, cancellations and settings changes at any moment: one end for each prompt."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.agent import Agent
from tests.faults.manager_runs import cancel, change, evict, repeat
from tests.requirements import proves


@proves("P6", "P7")
def test_a_prompt_cancelled_at_any_moment_has_one_end() -> None:
    repeat(cancel, 150)


@proves("P5", "P6")
def test_a_full_pool_evicts_no_busy_agent() -> None:
    repeat(evict, 30)


@proves("P1", "P10")
def test_settings_changed_in_the_middle_of_streams_are_never_mixed() -> None:
    repeat(change, 40)


def test_an_eviction_of_busy_agents_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    close = Agent.close

    def hasty(agent: Agent, reason: str, *, now: bool, **options: Any) -> None:
        close(agent, reason, now=True, **options)

    monkeypatch.setattr(Agent, "is_quiescent", property(lambda agent: agent.is_live))
    monkeypatch.setattr(Agent, "close", hasty)
    with pytest.raises(AssertionError):
        repeat(evict, 20)
