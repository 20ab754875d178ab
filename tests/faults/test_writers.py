"""The fast version of `writers`: ten windows, one store (P1, P2, P8)."""

from __future__ import annotations

from pathlib import Path

from tests.faults.needs import needs
from tests.faults.writers import experiment
from tests.requirements import proves

pytestmark = needs()


@proves("P1", "P2", "P8")
def test_ten_windows_that_write_at_once_fail_in_nothing(tmp_path: Path) -> None:
    figures = experiment(tmp_path, 6)
    assert figures.problems == []
    assert figures.failed == 0
