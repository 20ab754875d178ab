"""What the offline provider is asked to do with a tool, such as `/read` or `/edit`.

So that everything about acting (modes, questions, approvals, undoing) can be tried on a fresh
machine, without an account.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..conversations import JsonObject

USAGE = """\
- `/read PATH[:FROM-TO]` and `/search WORDS` look
- `/edit PATH OLD => NEW` replaces a passage; with line breaks in it, put `=>` on a line of its own
- `/write PATH TEXT` makes a new file, its text from the next line on or after the path
- `/run COMMAND` runs a command

The last three need the mode `build`, and you are asked before each."""

_LINES = re.compile(r":(\d+)(?:-(\d+))?$")


class Request(NamedTuple):
    """A tool to call; or what is wrong with what was typed."""

    tool: str
    arguments: JsonObject
    problem: str = ""


def read_request(text: str) -> Request | None:
    """The request that a prompt is, None for any other prompt."""
    match = re.match(r"/(\w+)(?:[ \t]+|(?=\n)|$)", text)
    if match is None or (reader := _READERS.get(match[1])) is None:
        return None
    return reader(text[match.end() :])


def _read(rest: str) -> Request:
    path = rest.strip()
    if not path:
        return Request("read", {}, "Which file? `/read PATH[:FROM-TO]`")
    arguments: JsonObject = {"path": path}
    if lines := _LINES.search(path):
        first, last = int(lines[1]), int(lines[2] or lines[1])
        arguments = {"path": path[: lines.start()], "startLine": max(first, 1), "endLine": last}
    return Request("read", arguments)


def _search(rest: str) -> Request:
    words = rest.strip()
    return Request("search", {"query": words}, "" if words else "What for? `/search WORDS`")


def _edit(rest: str) -> Request:
    path, _, change = rest.strip("\n").partition("\n") if "\n=>\n" in rest else _first(rest)
    joint = "\n=>\n" if "\n=>\n" in rest else " => "
    old, is_there, new = change.partition(joint)
    if not path or not is_there or not old:
        return Request("edit", {}, "`/edit PATH OLD => NEW`")
    return Request("edit", {"path": path.strip(), "oldText": old, "newText": new})


def _write(rest: str) -> Request:
    path, _, text = _first(rest)
    if not path:
        return Request("create", {}, "`/write PATH TEXT`")
    return Request("create", {"path": path, "text": text if text.endswith("\n") else f"{text}\n"})


def _run(rest: str) -> Request:
    command = rest.strip()
    return Request("run", {"command": command}, "" if command else "`/run COMMAND`")


def _first(rest: str) -> tuple[str, str, str]:
    """The first word, whatever parts it from the rest, and the rest."""
    match = re.match(r"[ \t]*(\S+)([ \t]|\n|$)", rest)
    return (match[1], match[2], rest[match.end() :]) if match else ("", "", "")


_READERS: Mapping[str, Callable[[str], Request]] = {
    "read": _read,
    "search": _search,
    "edit": _edit,
    "write": _write,
    "run": _run,
}
