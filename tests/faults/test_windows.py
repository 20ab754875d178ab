"""The fast version of `windows` (P1, P3, P7, P8)."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from tests.e2e import raw_client
from tests.faults.harness import patched
from tests.faults.needs import needs
from tests.faults.windows import LAG_LIMIT, frozen, lags, quantile, reloaded, soak, take_over
from tests.requirements import proves

pytestmark = needs()

UNFENCED = """
from sidecar.stores import running
running.Running.is_turn = lambda turn, *_: True
"""


@proves("P8")
def test_a_dead_window_s_conversation_goes_on_in_another(tmp_path: Path) -> None:
    assert take_over(tmp_path) < 5


@proves("P3", "P8")
def test_text_reaches_the_other_window_while_it_streams(tmp_path: Path) -> None:
    late = lags(tmp_path)
    assert quantile(late, 0.5) < 10 * LAG_LIMIT


@proves("P2", "P8")
def test_an_owner_that_stood_still_is_refused_when_it_wakes_up(tmp_path: Path) -> None:
    frozen(tmp_path)


def test_a_late_write_that_is_taken_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_client, "DEADLINE", 8.0)
    with pytest.raises(AssertionError):
        frozen(tmp_path, partial(patched, mutation=UNFENCED))


@proves("P3", "P7", "P8")
@pytest.mark.parametrize(
    "how", [{}, {"cancels": True}, {"ends": False}], ids=["goes on", "is stopped", "runs out"]
)
def test_a_turn_outlives_the_reload_of_its_window(tmp_path: Path, how: dict[str, bool]) -> None:
    reloaded(tmp_path, **how)


@proves("P1", "P2", "P8")
def test_windows_that_are_killed_in_turn_lose_and_fork_nothing(tmp_path: Path) -> None:
    assert soak(tmp_path, 4, random.Random(4)) == []
