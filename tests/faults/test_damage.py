"""The fast version of `damage`: the same experiment with a few starts of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.damage import MUTATIONS, Contents, experiment

pytestmark = pytest.mark.anyio


async def test_no_damaged_start_hangs_crashes_or_is_silently_empty(tmp_path: Path) -> None:
    figures = await experiment(tmp_path, 4 * len(MUTATIONS))
    assert figures["faults"] == []
    assert figures["outcomes"]["salvaged"] > 0
    assert figures["outcomes"]["reopened"] > 0


def test_what_was_lost_shows_in_the_share() -> None:
    whole = Contents(frozenset("ab"), frozenset({("1", "x"), ("2", "y")}))
    part = Contents(frozenset("a"), frozenset({("1", "x"), ("3", "z")}))
    assert part.share_of(whole) == 0.5
    assert whole.share_of(Contents(frozenset(), frozenset())) == 1.0
