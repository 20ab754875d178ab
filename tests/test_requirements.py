"""Every requirement has a test, and every test cites requirements that exist."""

from __future__ import annotations

from pathlib import Path

from tests.requirements import PROMISES, REQUIREMENTS, RULES, SEED, as_markdown, cited, document

TESTS = Path(__file__).parent


def test_every_requirement_that_is_not_for_later_has_a_test() -> None:
    shown = {id_ for id_, _ in cited(TESTS)}
    missing = [r.id for r in REQUIREMENTS.values() if r.later is None and r.id not in shown]
    assert missing == []


def test_no_test_cites_a_requirement_that_does_not_exist() -> None:
    unknown = [(id_, test) for id_, test in cited(TESTS) if id_ not in REQUIREMENTS]
    assert unknown == []


def test_no_id_is_given_twice() -> None:
    assert len(REQUIREMENTS) == len((*PROMISES, *SEED, *RULES))


def test_the_document_is_up_to_date() -> None:
    written = (TESTS.parent / "docs" / "requirements.md").read_text(encoding="utf-8")
    assert written == document(TESTS), "run `make schemas`"


def test_the_table_has_a_row_for_each_requirement() -> None:
    assert len(as_markdown(TESTS).splitlines()) == len(REQUIREMENTS) + 2
