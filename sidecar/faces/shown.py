"""What of a client's own words is said back to it, or written to the log.

A key may stand anywhere by mistake: as a value, as the name of a field, in a method's name.
Values are never repeated, and names only when they read like one.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"(?!.*[A-Z]{4})[$A-Za-z_/.-]{1,60}")
"""Words, as in `settings/update` and `maxAttempts`. Keys have digits, or shout."""
_LONGEST_WORD = 24
_UNKNOWN = re.compile(r"(unknown field )`(.*)`(?= - at `|\Z)", re.DOTALL)
_VALUE = re.compile(r"(Invalid (?:enum )?value) '.*'(?= - at `|\Z)", re.DOTALL)


def shown(name: str) -> str:
    """A name that somebody chose, or an ellipsis."""
    if not _NAME.fullmatch(name):
        return "…"
    longest = max(map(len, re.split("[/._-]", name)))
    return name if longest <= _LONGEST_WORD else "…"


def without_values(problem: str) -> str:
    """What msgspec complains of, without what was given."""
    problem = _VALUE.sub(r"\1", problem)
    return _UNKNOWN.sub(lambda found: f"{found[1]}`{shown(found[2])}`", problem)
