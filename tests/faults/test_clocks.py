"""The fast version of `clocks`, and that it sees what a missing defence lets by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clocks import (
    BY_CALENDAR,
    BY_WALL,
    FOLLOWING_IDS,
    JUMPS,
    check,
    experiment,
)
from tests.requirements import proves


@proves("P1", "P5")
def test_a_clock_that_jumps_changes_no_order_and_costs_nobody_anything(tmp_path: Path) -> None:
    check(experiment(tmp_path, JUMPS))


@pytest.mark.parametrize(
    ("mutation", "jump", "seen"),
    [
        (BY_CALENDAR, "on ten years", "given up"),
        (BY_WALL, "on an hour", "disposed of|was CLOSED"),
        (FOLLOWING_IDS, "back a year", "before"),
    ],
    ids=["retention believes the clock", "idle by the wall clock", "ids follow the clock"],
)
def test_a_missing_defence_is_noticed(tmp_path: Path, mutation: str, jump: str, seen: str) -> None:
    with pytest.raises(AssertionError, match=seen):
        check(experiment(tmp_path, [jump], mutation=mutation))
