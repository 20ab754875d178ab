"""Whatever bytes arrive are answered once (P6) and hold nobody up (P11); each experiment notices
when the defence that it is about is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import NotFound
from sidecar.faces import rpc
from sidecar.faces.jsonrpc import SidecarProtocol
from sidecar.wire import frames as wire_frames
from tests.fakes import run_virtually
from tests.faults import flood, frames, fuzz, lifecycle
from tests.malformed import MALFORMED
from tests.managers import the_one_in
from tests.requirements import proves

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sockets of packets, /proc")

SEED = 20_261_127
HANG_TWICE = [[("initialize", 1)], [("hang", 1)], [("hang", 1)]]


@proves("P6")
def test_the_table_is_answered_wherever_it_is_cut() -> None:
    assert len(MALFORMED) >= 60
    some = list(MALFORMED)[::4]
    assert frames.table_in_process(some) > 1_000


@proves("P6")
def test_mutated_conversations_are_answered_and_crash_nothing() -> None:
    assert "each request answered once" in fuzz.run(240, SEED)


@proves("P6")
def test_the_steps_of_the_lifecycle_are_answered_in_any_order() -> None:
    assert lifecycle.run(60, 3, SEED)


@proves("P6", "P11")
def test_a_flood_is_answered(tmp_path: Path) -> None:
    line = flood.flood(tmp_path, 4_000, 20_000)
    assert "answered once" in line


@proves("P6")
def test_a_provider_that_writes_to_stdout_breaks_no_frame(tmp_path: Path) -> None:
    assert "0 framing errors" in flood.noise(tmp_path, 1_000)


# ---- without the defences ------------------------------------------------------------------


def complaint_of(experiment: Callable[[], object]) -> str:
    """What it complains of. Fails if it does not."""
    try:
        experiment()
    except BaseException as error:  # noqa: BLE001  # whatever it is, it was noticed
        return str(the_one_in(error))
    raise AssertionError("nothing was noticed")


def one(name: str) -> None:
    assert frames.table_in_process([name]) > 0


def test_the_table_notices_that_depth_is_not_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "nesting_depth_exceeds", lambda body, limit: False)
    assert "cut at" in complaint_of(lambda: one("body: 201 levels"))


def test_the_table_notices_that_bodies_are_not_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = {"max_header": wire_frames.MAX_HEADER, "max_body": 10**18}
    monkeypatch.setattr(wire_frames.FrameParser.__init__, "__kwdefaults__", defaults)
    assert "cut at" in complaint_of(lambda: one("frame: length over any bound"))


def test_the_table_notices_that_ids_of_refused_messages_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpc, "_id_in", lambda body: None)
    assert "not answered" in complaint_of(lambda: fuzz.run(400, SEED))


def test_the_lifecycle_notices_that_an_id_is_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(dict[Any, Any]):
        def __contains__(self, key: object) -> bool:
            return False

    prepare = SidecarProtocol.__init__

    def forgetful(self: SidecarProtocol, *args: Any) -> None:
        prepare(self, *args)
        self._requests = Forgetful()

    run_virtually(lambda: lifecycle.play_all([HANG_TWICE]))
    monkeypatch.setattr(SidecarProtocol, "__init__", forgetful)
    assert complaint_of(lambda: run_virtually(lambda: lifecycle.play_all([HANG_TWICE])))


def test_fuzzing_notices_an_error_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SidecarProtocol._answer

    def forgetful(self: SidecarProtocol, msg_id: Any, outcome: Any, token: Any) -> None:
        if isinstance(outcome, NotFound):
            self._requests.pop(msg_id, None)
        else:
            answer(self, msg_id, outcome, token)

    monkeypatch.setattr(SidecarProtocol, "_answer", forgetful)
    assert "not answered" in complaint_of(lambda: fuzz.run(200, SEED))


def test_fuzzing_notices_an_error_that_is_answered_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = SidecarProtocol.refuse

    def twice(self: SidecarProtocol, msg_id: Any, code: int, message: str) -> None:
        for _ in range(2 if code == -32601 else 1):
            refuse(self, msg_id, code, message)

    monkeypatch.setattr(SidecarProtocol, "refuse", twice)
    assert "too often" in complaint_of(lambda: fuzz.run(400, SEED))


def test_the_noise_experiment_notices_a_stdout_that_is_not_ours_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = "import os\nfrom sidecar.faces import stdio\nstdio.claim_stdout = lambda: os.dup(1)\n"
    monkeypatch.setattr(flood, "NOISY", shared + flood.NOISY)
    with pytest.raises(AssertionError):
        flood.noise(tmp_path, 1_000)
