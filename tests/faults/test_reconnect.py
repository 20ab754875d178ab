"""Whatever disconnects whenever: the client shows what is stored, byte for byte (P3)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.faces.connection import Connection
from sidecar.journal import Subscription
from tests.e2e.raw_client import RawClient
from tests.faults.reconnect import ACTIONS, Step, main, play, play_for_real
from tests.requirements import proves

Spawn = Callable[..., RawClient]

STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9)), max_size=30)
AWAY = [("say", 0), ("wait", 5), ("read", 0)]
"""A turn that has begun and is seen to have."""


@proves("P3", "P6")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
@example([*AWAY, ("hide", 0), ("wait", 9), ("show", 1)])
@example([*AWAY, ("reload", 0), ("wait", 5), ("read", 0), ("say", 0)])
@example([*AWAY, ("kill", 0), ("say", 0), ("wait", 9), ("reload", 0), ("kill", 0)])
@example([*AWAY, *[("say", 0), ("wait", 9), ("wait", 9), ("wait", 9)] * 3, ("rejoin", 0)])
def test_whatever_disconnects_the_client_shows_what_is_stored(steps: list[Step]) -> None:
    play([("say", 0), *steps])


@pytest.mark.parametrize(
    ("where", "name"), [(Connection, "drained"), (Subscription, "release")], ids=str
)
def test_the_schedules_notice_a_defence_that_is_missing(where: Any, name: str) -> None:
    with mock.patch.object(where, name), pytest.raises(AssertionError):
        main(40)


@proves("P3", "P8")
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_real_processes_that_come_and_go_leave_the_client_with_what_is_stored(
    tmp_path: Path,
) -> None:
    assert play_for_real(tmp_path / "c.db", disconnections=8, seed=1) >= 8
