"""The fast version of `kill`, and what its oracle finds when something is wrong (P1, P2)."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from copy import deepcopy
from pathlib import Path

import pytest

from tests.e2e.raw_client import RawClient, command
from tests.faults.harness import CONVERSATIONS, Oracle, settle, stored_in
from tests.faults.kill import begin, experiment, load, with_sidecar
from tests.faults.mutants import MUTANTS, Mutant, by_kills, found
from tests.faults.needs import needs
from tests.requirements import proves

pytestmark = needs()


@proves("P1", "P2", "P6")
def test_a_sidecar_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed, figures = experiment(tmp_path, 12)
    assert figures.problems == [], seed
    assert figures.acked > 12
    assert figures.repeated > 0


@pytest.mark.parametrize(
    "mutant", [m for m in MUTANTS if m.notice is by_kills], ids=lambda mutant: mutant.name
)
def test_a_defence_that_is_missing_is_noticed(mutant: Mutant) -> None:
    assert found(mutant)


TAMPERINGS: dict[str, tuple[str, str]] = {
    "lost: prompt": (
        "lost: prompt",
        "DELETE FROM request_keys WHERE request_key = 'c0-1'",
    ),
    "lost: text of a prompt": (
        "lost or reordered",
        "DELETE FROM messages WHERE key = (SELECT max(key) FROM messages WHERE role = 'user')",
    ),
    "doubled": (
        "duplicated",
        "UPDATE parts SET text = (SELECT min(text) FROM parts WHERE text LIKE 'p0 of %') "
        "WHERE text LIKE 'p1 of %'",
    ),
    "another answer": (
        "answer to",
        "UPDATE parts SET text = text || '!' WHERE text LIKE 'p0 of c0 p0%'",
    ),
    "a hole": (
        "a hole in the events",
        "DELETE FROM events WHERE seq = 3",
    ),
    "an event changed": (
        "event 1 of",
        "UPDATE events SET payload = CAST(replace(payload, 'turnQueued', 'titled') AS BLOB)",
    ),
    "a conversation": ("lost: conversation", "DELETE FROM conversations WHERE id = 'c1'"),
    "a title": ("lost: title", "UPDATE conversations SET title = 'other'"),
    "no end": ("has no end", "UPDATE request_keys SET result = NULL"),
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Oracle]:
    """A store in which everything has ended, and what its sidecar said."""
    store, oracle = tmp_path_factory.mktemp("lived") / "store" / "c.db", Oracle()

    def live(client: RawClient) -> None:
        begin(client, oracle)
        for message in load(oracle, random.Random(1), 0):
            client.send(message)
            client.response(message["id"])
        settle(client, oracle, CONVERSATIONS)
        client.shut_down()

    with_sidecar(command(store), live, oracle)
    assert oracle.compare(stored_in(store), settled=True) == []
    return store, oracle


@pytest.mark.parametrize("name", TAMPERINGS)
def test_the_oracle_finds_what_is_wrong(
    lived: tuple[Path, Oracle], tmp_path: Path, name: str
) -> None:
    store, oracle = lived
    expected, statement = TAMPERINGS[name]
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA foreign_keys = OFF")
        assert target.execute(statement).rowcount > 0
        target.commit()
    problems = deepcopy(oracle).compare(stored_in(copy), settled=True)
    assert any(expected in problem for problem in problems), problems
