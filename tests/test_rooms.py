"""The shape of the code: the core imports no room, and no room another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sidecar
from tests.requirements import proves

ROOT = Path(sidecar.__file__).parent
CORE = {"workflows"}
COMPOSITION = "serving"
"""Folders that are part of the core, and so know no room either."""
ROOMS = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()} - CORE - {COMPOSITION}
KNOW_EVERYONE = {"app", "__main__"}
# `commands` are typed clients: they call the client with the params of the wire.
SHARED = {("faces", "wire"), ("client", "wire"), ("commands", "client"), ("commands", "wire")}
FILES = sorted(p for p in ROOT.rglob("*.py"))


def imported_rooms(file: Path) -> Iterator[str]:
    """The rooms that a file imports from, wherever in the file it does."""
    here = file.relative_to(ROOT.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            paths = [name.name.split(".") for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(here[: -node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            paths = [[*base, name.name] for name in node.names]
        else:
            continue
        yield from (p[1] for p in paths if p[0] == "sidecar" and len(p) > 1 and p[1] in ROOMS)


@proves("ROOMS")
@pytest.mark.parametrize("file", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_imports_only_rooms_that_it_may_know(file: Path) -> None:
    parts = file.relative_to(ROOT).parts
    room = parts[0] if len(parts) > 1 and parts[0] not in CORE else None
    if parts[0] == COMPOSITION or (len(parts) == 1 and file.stem in KNOW_EVERYONE):
        return
    others = {other for other in imported_rooms(file) if other != room}
    assert {other for other in others if (room, other) not in SHARED} == set()


def test_the_rule_sees_relative_and_absolute_imports(tmp_path: Path) -> None:
    assert "stores" in ROOMS
    assert "stores" in set(imported_rooms(ROOT / "stores" / "memory.py"))
    assert {"faces", "stores"} <= set(imported_rooms(ROOT / COMPOSITION / "process.py"))
