"""Logs in files, which stay small."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.log import FILE_VARIABLE
from sidecar.log_file import RotatingFile
from tests.e2e.conftest import spawn, store
from tests.e2e.raw_client import RawClient

__all__ = ["spawn", "store"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "side.log"


def lines_in(*files: Path) -> list[bytes]:
    return b"".join(file.read_bytes() for file in files).splitlines()


def test_a_full_file_is_followed_by_a_new_one_and_the_oldest_goes(path: Path) -> None:
    file = RotatingFile(path, max_bytes=1_000, kept=2)
    for number in range(100):
        file.write(b"line %04d %b\n" % (number, b"x" * 89))
    file.close()
    files = [path.with_name(f"side.log{suffix}") for suffix in (".2", ".1", "")]
    assert sorted(path.parent.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 1_000 for file in files)
    numbers = [int(line[5:9]) for line in lines_in(*files)]
    assert numbers == list(range(numbers[0], 100))
    assert len(numbers) > 20


def test_what_was_there_is_kept_and_only_its_user_can_read_it(path: Path) -> None:
    RotatingFile(path).write(b"one\n")
    RotatingFile(path).write(b"two\n")
    assert lines_in(path) == [b"one", b"two"]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be renamed")
def test_two_who_write_to_one_file_rotate_it_once(path: Path) -> None:
    files = [RotatingFile(path, max_bytes=1_000, kept=2) for _ in range(2)]
    for number in range(20):
        files[number % 2].write(b"line %04d %b\n" % (number, b"x" * 89))
    found = [path.with_name(f"side.log{suffix}") for suffix in (".2", ".1", "") if
             path.with_name(f"side.log{suffix}").exists()]  # fmt: skip
    assert sorted(int(line[5:9]) for line in lines_in(*found)) == list(range(20))


def test_a_log_that_cannot_be_written_disturbs_nobody(path: Path) -> None:
    file = RotatingFile(path, max_bytes=10)
    path.unlink()
    path.mkdir()
    file.write(b"this makes it rotate\n")
    file.write(b"and this finds no file\n")
    with pytest.raises(OSError, match="directory"):
        RotatingFile(path)


def test_an_editor_that_throws_stderr_away_can_name_a_file(
    spawn: Callable[..., RawClient], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    client = spawn()
    client.start({"settings": {"provider": "scripted"}})
    client.call("agent/getOrCreate", {"conversationId": "c"})
    assert client.shut_down() == 0
    told = [json.loads(line) for line in lines_in(path)]
    assert told
    assert told == [json.loads(line) for line in client.stderr.splitlines()]


def test_a_file_that_cannot_be_opened_is_said_on_stderr(
    spawn: Callable[..., RawClient], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(path / "no folder"))
    client = spawn()
    client.start()
    assert client.shut_down() == 0
    assert "the log file cannot be written" in client.stderr.decode()
