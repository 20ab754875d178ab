"""The examples run as they stand, as the one who copies them would run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(command: list[str], tmp_path: Path) -> str:
    """Run in the project's folder, with a home of its own and no key in the environment."""
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={
            "HOME": str(tmp_path),
            "USERPROFILE": str(tmp_path),
            "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_library_holds_two_turns_in_at_most_forty_lines(tmp_path: Path) -> None:
    example = EXAMPLES / "two_turns.py"
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 40
    said = run([sys.executable, str(example), str(tmp_path / "c.db")], tmp_path)
    assert "sidecar/client/sidecar.py:" in said
    assert said.count("(endTurn)") == 2
    assert "4 messages are stored." in said


def test_a_shell_script_holds_two_turns(tmp_path: Path) -> None:
    if shutil.which("sh") is None:
        pytest.skip("there is no sh on this machine")
    store = str(tmp_path / "c.db")
    said = run(["sh", str(EXAMPLES / "two_turns.sh"), "--store", store], tmp_path)
    assert "sidecar/client/sidecar.py:" in said
    listed = run(["agent-sidecar", "conversations", "list", "--store", store], tmp_path)
    assert "4 messages" in listed
