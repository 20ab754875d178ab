"""The fast version of `migration`, and that it sees a step that is done by halves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.migration import HALVING, Figures, check, one_version
from tests.requirements import proves

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX locks")


@proves("P1")
def test_a_migration_that_is_killed_is_finished_by_the_next_start(tmp_path: Path) -> None:
    figures = Figures()
    one_version(tmp_path, 1, figures, iter((17, 25, 26)))
    check(figures)
    assert figures.crashes == 3


def test_a_step_that_is_committed_before_it_is_noted_is_noticed(tmp_path: Path) -> None:
    figures = Figures()
    one_version(tmp_path, 1, figures, iter((21,)), HALVING)
    with pytest.raises(AssertionError, match="version 1, statement"):
        check(figures)
