"""The fast version of `storage`: the same experiment with few deltas."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.storage import Cost, check, experiment
from tests.requirements import proves

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc/self/io"),
]


@proves("P4")
async def test_streaming_costs_writes_linear_in_it_and_ends_within_twice_the_text(
    tmp_path: Path,
) -> None:
    check(await experiment(tmp_path, [8_000, 40_000]))


def test_a_cost_that_grows_with_the_length_is_found() -> None:
    small = Cost(deltas=10, text=100, written=1_000, stored=150)
    with pytest.raises(AssertionError):
        check([small, Cost(deltas=100, text=1_000, written=100_000, stored=1_500)])
    with pytest.raises(AssertionError):
        check([Cost(deltas=10, text=1 << 20, written=1_000, stored=9 << 18)])
