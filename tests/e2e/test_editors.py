"""Editors' own clients against the real process: Neovim, Emacs, and the library of VS Code.

They were written by others, against the specification; where they agree with us, so will the
editor that the user has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "editors"
NODE_MODULES = Path(__file__).parents[1] / "node" / "node_modules"

CLIENTS = {
    "nvim": ["nvim", "--headless", "-u", "NONE", "-i", "NONE", "-c", f"luafile {HERE}/client.lua"],
    "emacs": ["emacs", "--batch", "--quick", "--load", str(HERE / "client.el")],
    "node": ["node", str(HERE / "client.mjs")],
}


def require(program: str) -> None:
    """Skip where a program is not installed; in CI that is a failure, CI installs them."""
    missing = shutil.which(program) is None
    if program == "node":
        missing = missing or not (NODE_MODULES / "vscode-jsonrpc").exists()
    if missing:
        message = f"{program} (or what it needs) is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def converse(program: str, tmp_path: Path) -> dict[str, object]:
    command = [sys.executable, "-I", "-m", "sidecar", "serve", "--store", str(tmp_path / "c.db")]
    done = subprocess.run(
        CLIENTS[program],
        env=os.environ
        | {
            "SIDECAR_COMMAND": "\t".join(command),
            "SIDECAR_NODE_MODULES": str(NODE_MODULES),
            "HOME": str(tmp_path),
        },
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    shown: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return shown


@pytest.mark.parametrize("program", CLIENTS)
def test_an_editor_starts_it_holds_a_conversation_and_shuts_it_down(
    program: str, tmp_path: Path
) -> None:
    require(program)
    seen = converse(program, tmp_path)
    assert seen["protocolVersion"] == 1
    assert seen["exitCode"] == 0
    result = seen["result"]
    assert isinstance(result, dict)
    assert result["stopReason"] == "endTurn"
    events = seen["events"]
    assert isinstance(events, list)
    assert [e for e in events if e not in ("delta", "titleChanged")] == [
        "turnQueued",
        "turnStarted",
        "messageCompleted",
        "messageStarted",
        "messageCompleted",
        "turnEnded",
    ]
    assert "no model is connected" in str(seen["text"])
