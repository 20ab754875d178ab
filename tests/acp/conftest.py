"""The real process behind a recorder; all that went through is checked when a test is over."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acp.official import frames_of, official

RECORDER = Path(__file__).with_name("recorder.py")


class Agent:
    """How to start it, where it works, and what was said."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Path(os.path.realpath(folder)) / "workspace"
        self.workspace.mkdir()
        self.store = folder / "store.db"
        self._folder = folder
        self.records: list[Path] = []
        self.schema = "schema.json"
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
            "AGENT_SIDECAR_PROVIDER": "scripted",
            "AGENT_SIDECAR_CONFIG": "",
        }

    def command(self, *more: str) -> list[str]:
        """Each process has a record of its own."""
        record = self._folder / f"record-{len(self.records)}"
        record.touch()
        self.records.append(record)
        sidecar = [sys.executable, "-I", "-m", "sidecar", "acp", "--store", str(self.store)]
        return [sys.executable, "-I", str(RECORDER), str(record), *sidecar, *more]

    def said(self) -> list[dict[str, object]]:
        """By the agent, in all of its processes."""
        frames = [frame for record in self.records for frame in frames_of(record)]
        return [frame for direction, frame in frames if direction == "<"]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    frames = 0
    for record in agent.records:
        recorded = frames_of(record)
        frames += len(recorded)
        assert official(agent.schema).problems(recorded) == []
    assert frames > 4, "something was said"
