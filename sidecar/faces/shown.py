"""What of a client's own words is said back to it, or written to the log.

A key may stand anywhere by mistake: as a value, as the name of a field, in a method's name.
Values are never repeated, and names only when they read like one.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"(?!.*[A-Z]{4})[$A-Za-z_/.-]+")
"""Words, as in `settings/update` and `maxAttempts`. Keys have digits, or shout."""
_LONGEST = 60
_WORD = re.compile(r"[A-Z]?[a-z]*")
_LONGEST_WORD = 16
_PLACE = re.compile(r"(?: - at `[^`]*`)?\Z")
_UNKNOWN = re.compile(r"(unknown field )`(.*)`\Z", re.DOTALL)
_VALUE = re.compile(r"(Invalid (?:enum )?value) .*\Z", re.DOTALL)


def shown(name: str) -> str:
    """A name that somebody chose, or an ellipsis."""
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        return "…"
    return name if max(map(len, _WORD.findall(name))) <= _LONGEST_WORD else "…"


def without_values(problem: str) -> str:
    """What msgspec complains of, without what was given."""
    place = _PLACE.search(problem)
    assert place is not None  # it may be empty
    what = _VALUE.sub(r"\1", problem[: place.start()])
    what = _UNKNOWN.sub(lambda found: f"{found[1]}`{shown(found[2])}`", what)
    return what + place[0]
