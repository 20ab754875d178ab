"""The fast version of `unopenable`, and that it sees what a missing defence lets by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.harness import patched
from tests.faults.unopenable import CASES, FORWARD, MUTE, WITHOUT_JOURNAL, check, experiment
from tests.requirements import proves

BY_NAME = {case.name: case for case in CASES}


@proves("P1")
@pytest.mark.parametrize("name", BY_NAME)
def test_a_store_that_cannot_be_used_says_so_and_stays_as_it_was(tmp_path: Path, name: str) -> None:
    figures = experiment(tmp_path, [BY_NAME[name]])
    check(figures)
    if figures.skipped:
        fail = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        fail(figures.skipped[0])


@pytest.mark.parametrize(
    ("name", "mutation", "seen"),
    [
        ("newer", FORWARD, "the store was changed"),
        ("killed, on a read-only disk", WITHOUT_JOURNAL, "lists"),
        ("a folder", MUTE, "showMessage"),
    ],
    ids=["a newer store is written", "the journal is not read", "nobody is told"],
)
def test_a_missing_defence_is_noticed(
    tmp_path: Path, name: str, mutation: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = BY_NAME[name]
    if reason := case.needs():
        pytest.skip(reason)
    monkeypatch.setattr("tests.e2e.raw_client.DEADLINE", 4.0)
    with pytest.raises(AssertionError, match=seen):
        check(experiment(tmp_path, [case], lambda store: patched(store, mutation)))
