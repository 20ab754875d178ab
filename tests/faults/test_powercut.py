"""The fast version of `powercut`, and the rules of the disk that it assumes (P1, P2)."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from tests.faults.disk import Disk, Op
from tests.faults.mutants import MUTANTS, Mutant, by_power_cuts, found
from tests.faults.needs import needs
from tests.faults.powercut import experiment
from tests.requirements import proves


@proves("P1", "P2")
@needs("strace")
def test_a_power_cut_loses_doubles_and_damages_nothing(tmp_path: Path) -> None:
    seed, figures = anyio.run(experiment, tmp_path, 60)
    assert figures.problems == [], seed
    assert figures.acked > 60


@needs("strace")
@pytest.mark.parametrize(
    "mutant", [m for m in MUTANTS if m.notice is by_power_cuts], ids=lambda mutant: mutant.name
)
def test_a_flush_that_is_missing_is_noticed(mutant: Mutant) -> None:
    assert found(mutant)


def images(disk: Disk) -> set[bytes | None]:
    """All that may be left of the file `f`."""
    rng = random.Random(1)
    found = [disk.image(rng).get("f") for _ in range(300)]
    return {None if data is None else bytes(data) for data in found}


def test_what_was_synced_is_there_and_the_rest_may_be() -> None:
    disk = Disk()
    for op in (Op("create", "f"), Op("write", "f", 0, b"one"), Op("sync", "f")):
        disk.do(op)
    assert images(disk) == {b"one"}
    disk.do(Op("write", "f", 3, b" two"))
    disk.do(Op("write", "f", 7, b" three"))
    assert {b"one", b"one two", b"one two three", b"one\0\0\0\0 three"} <= images(disk)


def test_a_file_that_was_not_synced_may_be_gone() -> None:
    disk = Disk()
    disk.do(Op("create", "f"))
    disk.do(Op("write", "f", 0, b"one"))
    assert None in images(disk)


def test_a_write_may_be_torn_between_sectors() -> None:
    disk = Disk()
    disk.do(Op("create", "f"))
    disk.do(Op("sync", "f"))
    disk.do(Op("write", "f", 0, b"a" * 512 + b"b" * 512))
    assert b"a" * 512 in images(disk)
    assert b"\0" * 512 + b"b" * 512 in images(disk)


def test_a_sync_says_nothing_of_other_files() -> None:
    disk = Disk()
    for name in ("f", "g"):
        disk.do(Op("create", name))
    disk.do(Op("write", "f", 0, b"one"))
    disk.do(Op("sync", "g"))
    assert images(disk) >= {b"one"}
    assert any(data != b"one" for data in images(disk))


def test_a_removal_is_safe_once_anything_was_synced() -> None:
    disk = Disk()
    for op in (Op("create", "f"), Op("write", "f", 0, b"one"), Op("sync", "f"), Op("unlink", "f")):
        disk.do(op)
    assert images(disk) == {None, b"one"}
    disk.do(Op("create", "g"))
    disk.do(Op("sync", "g"))
    assert images(disk) == {None}
