"""Finding lines and files, with ripgrep and without."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.interfaces import Tool
from sidecar.tools import grep as module
from sidecar.tools.workspace import workspace_tools
from tests.requirements import proves

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "a.py": "import os\nprint('Needle')\n",
        "src/b.py": "needle = 1\n# a.b\n",
        "src/deep/c.txt": "no such thing\n",
        ".env": "needle=secret\n",
        "long.txt": f"needle {'x' * 2_000}\n",
        "bin.dat": "needle\0\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture(params=["ripgrep", "by hand"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by hand":
        monkeypatch.setattr(module, "ripgrep", lambda roots: None)
    elif shutil.which("rg") is None and not os.environ.get("CI"):
        pytest.skip("needs ripgrep")
    return str(request.param)


def tools(root: Path) -> dict[str, Tool]:
    return {tool.spec.name: tool for tool in workspace_tools([root])}


async def grep(root: Path, **arguments: Any) -> list[str]:
    return (await tools(root)["grep"].run(arguments)).content.split("\n")


@proves("GUARD")
async def test_lines_are_found_as_path_line_text(root: Path, how: str) -> None:
    found = await grep(root, pattern="needle")
    assert sorted(found)[-1] == "src/b.py:1:needle = 1"
    assert found[0].startswith("long.txt:1:needle xxx")
    assert found[0].endswith("[…]")
    assert len(found[0]) < 400
    assert len(found) == 2, "no binary file, and nothing that is likely a secret"


@proves("GUARD")
async def test_case_and_files_narrow_or_widen_it(root: Path, how: str) -> None:
    assert "a.py:2:print('Needle')" in await grep(root, pattern="NEEDLE", ignoreCase=True)
    assert await grep(root, pattern="needle", files="*.py") == ["src/b.py:1:needle = 1"]
    assert await grep(root, pattern="a.b") == ["src/b.py:2:# a.b"], "a dot is a dot"
    assert await grep(root, pattern="nowhere") == ["No line has that."]
    assert "length" in (await grep(root, pattern=""))[0]
    assert await grep(root, pattern="-e") == ["No line has that."], "it is no option"


async def test_a_regular_expression_needs_ripgrep(root: Path, how: str) -> None:
    found = await grep(root, pattern=r"^needle\s=", regex=True)
    if how == "ripgrep":
        assert found == ["src/b.py:1:needle = 1"]
        (wrong,) = (await grep(root, pattern="(", regex=True))[:1]
        assert "no regular expression" in wrong
    else:
        assert found == ["Regular expressions need ripgrep (rg), which is not installed here."]


@proves("P9")
@pytest.mark.skipif(sys.platform == "win32", reason="makes a program")
async def test_a_ripgrep_that_lies_in_the_workspace_is_not_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = root / "rg"
    evil.write_text(f"#!/bin/sh\ntouch {root}/evil\n")
    evil.chmod(0o755)
    monkeypatch.setenv("PATH", str(root), prepend=":")
    await grep(root, pattern="needle")
    assert not (root / "evil").exists()


@proves("GUARD")
async def test_files_are_found_by_their_names(root: Path) -> None:
    glob = tools(root)["glob"]
    assert (await glob.run({"pattern": "*.py"})).content == "a.py\nsrc/b.py"
    assert (await glob.run({"pattern": "**/c.txt"})).content == "src/deep/c.txt"
    assert (await glob.run({"pattern": "src/*.py"})).content == "src/b.py"
    assert (await glob.run({"pattern": "*.rs"})).content == "No files."
    assert (await glob.run({"pattern": ""})).is_error
