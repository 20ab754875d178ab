"""The fast version of `locked`, and that it sees what a missing defence lets by."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.harness import patched
from tests.faults.locked import (
    ASSURING,
    BLOCKING,
    EACH_FOR_ITSELF,
    MUTE,
    SHORT,
    SOON,
    check,
    holds,
    outlasts,
)
from tests.requirements import proves

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX locks")


@proves("P1")
def test_who_holds_the_store_delays_prompts_and_loses_none(tmp_path: Path) -> None:
    check(holds(tmp_path, 0.9, ("IMMEDIATE", "LOCK"), lambda store: patched(store, SOON)))


@proves("P6")
def test_who_holds_it_for_too_long_gets_every_prompt_refused(tmp_path: Path) -> None:
    check(outlasts(tmp_path, ("LOCK",)))


@pytest.mark.parametrize(
    ("mutation", "seen"),
    [(ASSURING, "answered early"), (BLOCKING, "no |p99"), (MUTE, "showMessage")],
    ids=["acknowledged early", "the loop waits", "nobody is told"],
)
def test_a_missing_defence_is_noticed(
    tmp_path: Path, mutation: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.e2e.raw_client.DEADLINE", 4.0)
    with pytest.raises(AssertionError, match=seen):
        check(holds(tmp_path, 0.9, ("LOCK",), lambda store: patched(store, SOON + mutation)))


def test_a_limit_that_each_waits_for_anew_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.e2e.raw_client.DEADLINE", 4.0)
    with pytest.raises(AssertionError, match="after the limit"):
        check(outlasts(tmp_path, ("LOCK",), lambda store: patched(store, SHORT + EACH_FOR_ITSELF)))
