"""The fast version of `hung`, and what is left of a sidecar that was killed (P7, P11)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sidecar import processes
from tests.e2e import raw_client
from tests.e2e.raw_client import RawClient
from tests.faults.harness import patched
from tests.faults.hung import HANGS, OPTIONS, PROGRAM, abort, gaps, hang, sidecar
from tests.faults.needs import needs
from tests.requirements import proves
from tests.test_processes import has_ended

pytestmark = needs()

UNPROTECTED = (
    PROGRAM
    + """
from tests.providers import misbehaving
serving.make_provider = lambda store, workers, config: misbehaving.make(config)
"""
)


@proves("P7", "P11")
def test_agents_that_hang_are_restarted_and_the_others_go_on(tmp_path: Path) -> None:
    with sidecar(tmp_path) as client:
        hung = {what: hang(client, what, what) for what in HANGS}
        assert len(gaps(client, "another")) > 100
        for what, pid in hung.items():
            assert abort(client, what) < 2
            assert has_ended(pid)


def test_a_library_that_hangs_in_our_process_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_client, "DEADLINE", 5.0)
    client = RawClient(patched(tmp_path / "store" / "c.db", UNPROTECTED))
    try:
        client.start(OPTIONS)
        hang(client, "c", "nap")
        with pytest.raises(AssertionError):
            abort(client, "c")
    finally:
        client.dispose()


@proves("P7")
@pytest.mark.parametrize("what", ["nap", "block", "think"])
def test_the_workers_of_a_sidecar_that_is_killed_end_with_it(tmp_path: Path, what: str) -> None:
    client = RawClient(patched(tmp_path / "store" / "c.db", PROGRAM))
    try:
        client.start(OPTIONS)
        pid = hang(client, "c", what)
        client.kill()
        assert has_ended(pid, within=5)
    finally:
        client.dispose()


@proves("P7")
def test_what_outlives_a_sidecar_that_is_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    store = tmp_path / "store" / "c.db"
    client = RawClient(patched(store, PROGRAM))
    try:
        client.start(OPTIONS)
        hang(client, "c", "spawn")
        said = client.wait_for(lambda m: "away" in m.get("params", {}).get("text", ""))
        away = int(said["params"]["text"].split()[-1])
        client.process.send_signal(signal.SIGKILL)
        client.exit_code()
        assert processes.began(away) is not None
        with sidecar(tmp_path):
            assert has_ended(away, within=5)
    finally:
        client.dispose()
