"""A tool call as an ACP editor shows it: title, kind, the places and the change. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from ...conversations import JsonObject

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
_HUNK = re.compile(r"@@.*", re.DOTALL)


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


def hunks_of(diff: str) -> list[tuple[str, str]]:
    """Old and new lines of each part of a unified diff."""
    found: list[tuple[list[str], list[str]]] = []
    for line in diff.splitlines(keepends=True):
        if _HUNK.match(line):
            found.append(([], []))
        elif found and line[:1] in (" ", "-", "+", "\n"):
            old, new = found[-1]
            if line[:1] != "+":
                old.append(line[1:] if line != "\n" else line)
            if line[:1] != "-":
                new.append(line[1:] if line != "\n" else line)
    return [("".join(old), "".join(new)) for old, new in found]


def _diff(path: str, old: str | None, new: str) -> dict[str, Any]:
    return {"type": "diff", "path": path, "oldText": old, "newText": new}


def _location(path: str, arguments: JsonObject) -> dict[str, Any]:
    line = arguments.get("startLine", arguments.get("line"))
    is_line = type(line) is int and line > 0
    return {"path": path, "line": line} if is_line else {"path": path}


def text_content(text: str) -> list[dict[str, Any]]:
    return [{"type": "content", "content": {"type": "text", "text": text}}]
