"""One JSON object a line on stderr."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.log import JsonLines, StderrHandler, Stopwatch, set_level, set_up
from sidecar.settings import Secret
from tests.requirements import proves


class Stderr:
    """All that was written to stderr so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def text(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Stderr]:
    logger = logging.getLogger("sidecar")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    last_resort = logging.lastResort
    yield Stderr(capsys)
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
    logging.captureWarnings(False)
    logging.lastResort = last_resort


@proves("D4-LOG-1")
def test_a_line_holds_time_level_origin_message_and_what_was_said_beside_it(
    stderr: Stderr,
) -> None:
    set_up("info")
    logging.getLogger("sidecar.pool").info("made %s", "it", extra={"conversationId": "a"})
    (line,) = stderr.lines()
    assert line["at"] > 1_600_000_000_000
    del line["at"]
    assert line == {
        "level": "info",
        "logger": "sidecar.pool",
        "message": "made it",
        "conversationId": "a",
    }


@proves("P10")
def test_what_a_library_says_past_the_log_goes_nowhere() -> None:
    script = (
        "import logging, warnings\n"
        "from sidecar.log import set_up\n"
        "set_up('info')\n"
        "warnings.warn('key-123 is no FinishReason')\n"
        "logging.getLogger('google_genai').warning('key-123')\n"
        "logging.getLogger('sidecar').info('ours')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["ours"]


@proves("S003-ERROR-3", "S003-PERSIST-4")
def test_an_exception_brings_its_stack_and_its_cause_on_the_same_line(stderr: Stderr) -> None:
    set_up("info")
    try:
        try:
            raise OSError("the disk")
        except OSError as error:
            raise ValueError("the store") from error
    except ValueError:
        logging.getLogger("sidecar").exception("failed")
    (line,) = stderr.lines()
    assert "the disk" in line["stack"]
    assert "the store" in line["stack"]


def test_the_level_can_be_changed_while_it_runs(stderr: Stderr) -> None:
    set_up("warning")
    logger = logging.getLogger("sidecar.x")
    logger.info("one")
    set_level("debug")
    logger.debug("two")
    assert [line["message"] for line in stderr.lines()] == ["two"]


@proves("P10", "S003-SECURITY-6")
def test_what_the_redactor_knows_is_not_written_and_a_secret_never(stderr: Stderr) -> None:
    set_up("info", lambda line: line.replace("key-123", "…"))
    logging.getLogger("sidecar").info("used key-123", extra={"key": Secret("hush")})
    assert "key-123" not in stderr.text()
    assert "hush" not in stderr.text()
    assert stderr.lines()[0]["key"] == "<secret>"


def test_a_line_break_in_a_message_does_not_make_two_lines(stderr: Stderr) -> None:
    set_up("info")
    logging.getLogger("sidecar").info("one\ntwo")
    assert [line["message"] for line in stderr.lines()] == ["one\ntwo"]


def test_setting_up_twice_does_not_write_twice(stderr: Stderr) -> None:
    set_up("info")
    set_up("info")
    logging.getLogger("sidecar").info("once")
    assert len(stderr.lines()) == 1


def test_an_editor_that_closed_stderr_is_not_shouted_at() -> None:
    class Closed(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            self.tries += 1
            raise BrokenPipeError

    stream = Closed()
    handler = StderrHandler(stream)
    handler.setFormatter(JsonLines())
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "hello", "name": "sidecar"}))
    assert stream.tries == 1


def test_a_stopwatch_measures_in_milliseconds() -> None:
    with Stopwatch() as watch:
        assert watch.ms == 0
    assert 0 <= watch.ms < 5_000
