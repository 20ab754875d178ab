"""Applying a unified diff to one text: where it says, or where its lines are, or not at all."""

from __future__ import annotations

import re
from typing import NamedTuple

from .files import Refused

_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")


class Hunk(NamedTuple):
    line: int
    """Where the old lines begin, from 0."""
    old: list[str]
    new: list[str]


def patched(text: str, diff: str, name: str) -> str:
    """Raises `Refused` for what is no diff, and for one whose old lines are not there or are
    there more than once. Counts in its heads are not believed: models miscount."""
    lines, ends_well = text.split("\n"), text.endswith("\n")
    shift = 0
    for number, hunk in enumerate(_hunks(diff), 1):
        at = _place(lines, hunk.old, hunk.line + shift)
        if at is None:
            raise Refused(
                f"Part {number} of the diff does not fit '{name}': its lines are not there, or "
                "more than once. Read the file again; every blank counts."
            )
        lines[at : at + len(hunk.old)] = hunk.new
        shift += len(hunk.new) - len(hunk.old)
    changed = "\n".join(lines)
    return changed if not ends_well or changed.endswith("\n") or not changed else changed + "\n"


def _hunks(diff: str) -> list[Hunk]:
    hunks: list[Hunk] = []
    for line in diff.replace("\r\n", "\n").removesuffix("\n").split("\n"):
        if head := _HUNK.match(line):
            hunks.append(Hunk(max(int(head[1]) - 1, 0), [], []))
        elif not hunks or line.startswith("\\"):
            continue  # the names of the files, and "No newline at end of file"
        elif line.startswith("-"):
            hunks[-1].old.append(line[1:])
        elif line.startswith("+"):
            hunks[-1].new.append(line[1:])
        elif line.startswith(" ") or not line:
            hunks[-1].old.append(line[1:])
            hunks[-1].new.append(line[1:])
        else:
            raise Refused(f"This is no line of a unified diff: {line[:80]!r}.")
    if not any(hunk.old != hunk.new for hunk in hunks):
        raise Refused("The diff changes nothing. It needs `@@ -line +line @@` and its lines.")
    return hunks


def _place(lines: list[str], old: list[str], near: int) -> int | None:
    if lines[near : near + len(old)] == old and old:
        return near
    if not old:
        return min(near, len(lines)) if lines == [""] or near <= len(lines) else None
    found = [at for at in range(len(lines) - len(old) + 1) if lines[at : at + len(old)] == old]
    return found[0] if len(found) == 1 else None
