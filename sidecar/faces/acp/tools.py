"""A tool call as an ACP editor shows it: title, kind, the places and the change. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from ...conversations import Approval, JsonObject

KINDS = {
    "read": "read",
    "list": "search",
    "glob": "search",
    "grep": "search",
    "search": "search",
    "edit": "edit",
    "patch": "edit",
    "create": "edit",
    "delete": "delete",
    "run": "execute",
    "output": "execute",
    "stop": "execute",
    "plan": "think",
}
"""Our tools by ACP's kinds; those of MCP servers are `other`."""

TITLE_LENGTH = 120
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_NAMES = re.compile(r"--- a/[^\n]*\n\+\+\+ b/([^\n]+)\n@@ ")


def described(name: str, arguments: JsonObject, roots: Sequence[str]) -> dict[str, Any]:
    """What is the same from the question to the result."""
    path = arguments.get("path")
    shown: dict[str, Any] = {
        "title": title_of(name, arguments),
        "kind": KINDS.get(name, "other"),
        "rawInput": arguments,
    }
    if isinstance(path, str) and path and (absolute := absolute_of(path, roots)):
        shown["locations"] = [_location(absolute, arguments)]
        if content := changes_of(name, arguments, absolute):
            shown["content"] = content
    return shown


def title_of(name: str, arguments: JsonObject) -> str:
    what = next(
        (
            value
            for key in ("command", "path", "pattern", "query", "capability", "id")
            if isinstance(value := arguments.get(key), str) and value
        ),
        "",
    )
    title = f"{name} {' '.join(what.split())}".strip()
    return title if len(title) <= TITLE_LENGTH else f"{title[: TITLE_LENGTH - 1]}…"


def absolute_of(path: str, roots: Sequence[str]) -> str | None:
    """Where a tool's path lies. With several folders it begins with the name of its own."""
    if not roots:
        return None
    plain = PurePath(path)
    if plain.is_absolute():
        return path
    named = {PurePath(root).name: root for root in roots}
    if len(roots) > 1 and plain.parts and (root := named.get(plain.parts[0])):
        return str(PurePath(root, *plain.parts[1:]))
    return str(PurePath(roots[0], plain))


def changes_of(name: str, arguments: JsonObject, path: str) -> list[dict[str, Any]]:
    """The passages before and after, as far as the call itself has them."""
    match name, arguments:
        case "edit", {"oldText": str(old), "newText": str(new)}:
            return [_diff(path, old, new)]
        case "create", {"text": str(text)}:
            return [_diff(path, None, text)]
        case "patch", {"diff": str(diff)}:
            return [_diff(path, old, new) for old, new in hunks_of(diff)]
        case _:
            return []


def asked_of(question: Approval, roots: Sequence[str]) -> list[dict[str, Any]]:
    """What a user has to see to answer: a change as one, anything else word by word."""
    head = _NAMES.match(question.text)
    path = absolute_of(head[1], roots) if head else None
    if path is None:
        return text_content(question.text)
    return [
        _diff(path, None if place.startswith("@@ -0,0") else old, new)
        for place, old, new in _hunks(question.text)
    ] or text_content(question.text)


def hunks_of(diff: str) -> list[tuple[str, str]]:
    """Old and new lines of each part of a unified diff."""
    return [(old, new) for _, old, new in _hunks(diff)]


def _hunks(diff: str) -> Iterator[tuple[str, str, str]]:
    """With the line that says where each part belongs."""
    place, old, new, last = "", "", "", ""
    for line in _LINES.findall(diff):
        if line.startswith("@@"):
            if place:
                yield place, old, new
            place, old, new = line, "", ""
        elif place and line[0] == "\\":  # the line before it has no end
            old = old.removesuffix("\n") if last in " -" else old
            new = new.removesuffix("\n") if last in " +" else new
        elif place:
            old += line[1:] if line[0] in " -" else ""
            new += line[1:] if line[0] in " +" else ""
        last = line[0]
    if place:
        yield place, old, new


def _diff(path: str, old: str | None, new: str) -> dict[str, Any]:
    return {"type": "diff", "path": path, "oldText": old, "newText": new}


def _location(path: str, arguments: JsonObject) -> dict[str, Any]:
    line = arguments.get("startLine", arguments.get("line"))
    is_line = type(line) is int and line > 0
    return {"path": path, "line": line} if is_line else {"path": path}


def text_content(text: str) -> list[dict[str, Any]]:
    return [{"type": "content", "content": {"type": "text", "text": text}}]
