"""The fast version of `forgotten`, and that it finds what a missing defence leaves behind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.forgotten import (
    BACKUP_KEPT,
    HASTY,
    JOURNAL_KEPT,
    NO_PURGE,
    NOT_OVERWRITTEN,
    Figures,
    check,
    experiment,
    hasty,
    one,
)
from tests.faults.harness import patched
from tests.requirements import proves


@proves("P4")
def test_what_was_deleted_is_in_no_file_any_more(tmp_path: Path) -> None:
    check(experiment(tmp_path, 3, argv=hasty)[1])


@pytest.mark.parametrize(
    ("mutation", "file"),
    [
        (NO_PURGE, "c.db"),
        (BACKUP_KEPT, "c.db.backup"),
        (JOURNAL_KEPT, "c.db-wal"),
        (NOT_OVERWRITTEN, "c.db(.backup)?"),
    ],
    ids=["the index keeps its words", "the backup", "the journal", "freed pages"],
)
def test_a_missing_defence_is_noticed(tmp_path: Path, mutation: str, file: str) -> None:
    figures, rng = Figures(), random.Random(2)
    one(
        tmp_path,
        rng,
        figures,
        lambda store: patched(store, HASTY + mutation),
        is_killed=False,
        has_window=False,
        limit=1.5,
    )
    with pytest.raises(AssertionError, match=rf"(?m) in {file}$"):
        check(figures)
