"""The fast version of `sweep`: some points, and that it sees what a missing defence lets by."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.harness import patched
from tests.faults.needs import needs
from tests.faults.sweep import CARELESS, HASTY, TRUSTING, Figures, Point, experiment, one
from tests.requirements import proves

pytestmark = needs("strace")

SYNCS = [Point("fdatasync", "EIO", number) for number in (16, 20, 28)]
"""Of commits that somebody is told of."""


@proves("P1", "P6")
def test_a_call_that_fails_loses_nothing_and_leaves_nobody_without_an_answer(
    tmp_path: Path,
) -> None:
    _, figures = experiment(tmp_path, 4)
    assert figures.problems == []
    assert figures.of > 2_000


@pytest.mark.parametrize(
    ("mutation", "seen"),
    [(CARELESS, "lost|event [0-9]+ of|was trusted"), (TRUSTING, "a connection was trusted")],
    ids=["a commit's error is swallowed", "a connection is used on"],
)
def test_a_missing_defence_is_noticed(tmp_path: Path, mutation: str, seen: str) -> None:
    figures = Figures()
    # Which commit a numbered call belongs to differs from run to run: until it is seen.
    for number, point in enumerate(SYNCS * 4):
        one(tmp_path / str(number), point, figures, lambda store: patched(store, HASTY + mutation))
        if any(re.search(seen, line) for line in figures.problems):
            break
    assert figures.hit > 0
    assert any(re.search(seen, line) for line in figures.problems), figures.problems
