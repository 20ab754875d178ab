"""The fast version of `diskfull`, and that it sees what a missing defence lets by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.diskfull import CHATTY, IMPATIENT, check, experiment
from tests.faults.harness import EARLY, patched
from tests.faults.mounts import needs_mounts
from tests.requirements import proves


@pytest.fixture(autouse=True)
def mounts() -> None:
    needs_mounts()


@proves("P1")
def test_a_full_disk_refuses_what_it_cannot_keep_and_holds_no_turn_up(tmp_path: Path) -> None:
    check(experiment(tmp_path, 1))


@pytest.mark.parametrize(
    "mutation",
    [CHATTY, IMPATIENT, EARLY],
    ids=["each failure is told", "an end is given up", "acknowledged before the commit"],
)
def test_a_missing_defence_is_noticed(
    tmp_path: Path, mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.e2e.raw_client.DEADLINE", 6.0)
    with pytest.raises(AssertionError):
        check(experiment(tmp_path, 1, lambda store: patched(store, mutation)))
