"""`agent-sidecar` in pipes and scripts: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sidecar
from tests.commands.shell import SLOW, Shell

SCRIPTED = ("--provider", "scripted")
EXAMPLES = Path(__file__).parents[2] / "examples"

needs_posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and shells")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The last line of `run --json`."""
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["type"] == "result"
    return result


def ask(shell: Shell, prompt: str, *options: str) -> dict[str, Any]:
    return result_of(shell.run("run", "--json", *SCRIPTED, *options, prompt))


# ---- the commands ------------------------------------------------------------------------


def test_version_and_help_are_answered_without_starting_anything(shell: Shell) -> None:
    assert shell.run("--version").stdout == f"agent-sidecar {sidecar.__version__}\n"
    told = shell.run("--help").stdout
    for command in ("chat", "run", "conversations", "doctor", "schema", "serve"):
        assert f"\n  {command} " in told
    assert "--conversation ID" in shell.run("run", "--help").stdout
    assert not shell.data.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("sing",),
        ("run", "--loud", "x"),
        ("run", ""),
        ("run", "-"),
        ("conversations",),
        ("conversations", "show", "not/an/id"),
        ("chat", "--mode", "sing"),
        ("--loud",),
        ("run", "--config", "absent.toml", "x"),
        ("schema", "moon"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_reason(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell.run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr) > 10
    assert "Traceback" not in done.stderr


def test_schema_prints_the_documents(shell: Shell) -> None:
    assert json.loads(shell.run("schema").stdout)["openrpc"]
    for name in ("events", "messages", "export"):
        assert "$defs" in json.loads(shell.run("schema", name).stdout)


# ---- run ---------------------------------------------------------------------------------


def test_run_prints_the_answer_and_nothing_else(shell: Shell) -> None:
    done = shell.run("run", *SCRIPTED, "hello you")
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said: hello you\n", "")


def test_run_takes_its_prompt_from_stdin(shell: Shell) -> None:
    assert shell.run("run", *SCRIPTED, input="a\nb").stdout == "You said: a\nb\n"
    assert shell.run("run", *SCRIPTED, "-", input="c").stdout == "You said: c\n"


def test_run_answers_from_the_folder_without_any_configuration(shell: Shell) -> None:
    (shell.folder / "shop.py").write_text("def checkout(basket):\n    return sum(basket)\n")
    done = shell.run("run", "Where is checkout defined?")
    assert done.returncode == 0
    assert "shop.py:1" in done.stdout


def test_run_as_json_prints_every_event_and_a_result(shell: Shell) -> None:
    done = shell.run("run", "--json", *SCRIPTED, "echo hi there")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "turnQueued"
    assert kinds[-2:] == ["turnEnded", "result"]
    assert "".join(e["text"] for e in events if e["type"] == "delta") == "hi there"
    result = events[-1]
    assert (result["stopReason"], result["text"], result["error"]) == ("endTurn", "hi there", None)
    assert result["messageId"] == events[0]["messageId"]
    assert all(event["conversationId"] == result["conversationId"] for event in events)


def test_two_turns_from_a_script_are_one_conversation(shell: Shell) -> None:
    first = ask(shell, "one")
    second = ask(shell, "two", "--conversation", first["conversationId"])
    assert second["conversationId"] == first["conversationId"]
    shown = shell.run("conversations", "show", "--json", first["conversationId"])
    texts = [m["parts"][0]["text"] for m in json.loads(shown.stdout)["messages"]]
    assert texts == ["one", "You said: one", "two", "You said: two"]


def test_a_conversation_can_be_made_under_an_id_and_mode_of_ones_own(shell: Shell) -> None:
    made = ask(shell, "one", "--new", "--conversation", "nightly", "--mode", "feedback")
    assert made["conversationId"] == "nightly"
    (found,) = json.loads(shell.run("conversations", "list", "--json").stdout)
    assert (found["conversationId"], found["mode"], found["title"]) == (
        "nightly",
        "feedback",
        "one",
    )


def test_a_failed_turn_is_exit_code_1_with_the_next_step(shell: Shell) -> None:
    done = shell.run("run", "--json", "--provider", "gemini", "hi")
    assert done.returncode == 1
    result = result_of(done)
    assert (result["stopReason"], result["error"]["type"]) == ("error", "INITIALIZATION_FAILED")
    assert "needs a key" in done.stderr
    assert "GEMINI_API_KEY" in done.stderr
    failed = shell.run("run", *SCRIPTED, "fail UNAUTHORIZED")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "The script says so." in failed.stderr


def test_an_answer_that_was_cut_says_so_and_is_an_answer(shell: Shell) -> None:
    config = shell.folder / "cut.toml"
    config.write_text('provider = "scripted"\nscript = [{text = "Half"}, {stop = "maxTokens"}]\n')
    done = shell.run("run", "--config", str(config), "go")
    assert (done.returncode, done.stdout) == (0, "Half\n")
    assert "length limit" in done.stderr


@needs_posix
def test_ctrl_c_cancels_the_turn_and_is_exit_code_130(shell: Shell) -> None:
    config = shell.folder / "hang.toml"
    config.write_text('provider = "scripted"\nscript = [{text = "Begun\\n"}, {hang = true}]\n')
    lines: list[dict[str, Any]] = []
    with shell.start("run", "--json", "--config", str(config), "go") as process:
        assert process.stdout is not None
        while not lines or lines[-1]["type"] != "delta":
            lines.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=SLOW)
    assert process.returncode == 130
    result = json.loads(rest.splitlines()[-1])
    assert (result["stopReason"], result["text"]) == ("cancelled", "Begun\n")


@needs_posix
def test_a_reader_who_has_seen_enough_is_no_error_with_a_traceback(shell: Shell) -> None:
    with shell.start("run", *SCRIPTED, "repeat 20000 word") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(4)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(SLOW) == 1


def test_a_damaged_store_is_explained_without_a_traceback(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "folder.db"
    folder.mkdir()
    done = shell.run("run", "--store", str(folder), "hi")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("agent-sidecar: ")


def test_the_log_goes_where_it_is_asked_to(shell: Shell) -> None:
    assert shell.run("run", *SCRIPTED, "--log", "side.log", "hi").returncode == 0
    log = shell.folder / "side.log"
    assert any("message queued" in line for line in log.read_text().splitlines())
    assert log.stat().st_mode & 0o077 == 0 or os.name == "nt"


# ---- keys --------------------------------------------------------------------------------


def test_a_key_is_used_but_appears_nowhere(shell: Shell) -> None:
    key = "hunter2-hunter2-hunter2"
    shell.env["OPENAI_API_KEY"] = key
    config = shell.folder / "local.toml"
    # Nothing listens there: the turn fails after the key was put to use.
    config.write_text(
        'provider = "openai"\nopenaiBaseUrl = "http://127.0.0.1:9"\n[retry]\nmaxAttempts = 1\n'
    )
    done = shell.run("run", "--json", "--config", str(config), "--log", "side.log", "hi")
    doctor = shell.run("doctor", "--json", "--config", str(config))
    assert "openaiApiKey" in doctor.stdout
    written = [file.read_bytes() for file in shell.folder.iterdir()]
    written += [file.read_bytes() for file in shell.home.rglob("*") if file.is_file()]
    printed = done.stdout + done.stderr + doctor.stdout + doctor.stderr
    assert key not in printed
    assert not any(key.encode() in data for data in written)


# ---- conversations -----------------------------------------------------------------------


def test_conversations_are_listed_searched_and_shown(shell: Shell) -> None:
    assert "no conversations yet" in shell.run("conversations", "list").stdout
    first = ask(shell, "a needle here")
    ask(shell, "nothing")
    listed = shell.run("conversations", "list").stdout.splitlines()
    assert [line.split("  ")[1] for line in listed] == ["nothing", "a needle here"]
    found = shell.run("conversations", "search", "needle").stdout
    assert first["conversationId"] in found
    assert "[needle]" in found
    hits = json.loads(shell.run("conversations", "search", "--json", "needle").stdout)
    assert {hit["conversationId"] for hit in hits} == {first["conversationId"]}
    assert shell.run("conversations", "search", "absent").returncode == 1
    shown = shell.run("conversations", "show", first["conversationId"]).stdout
    assert "> a needle here\n\nYou said: a needle here\n" in shown


def test_an_id_may_be_shortened_as_long_as_it_is_the_only_one(shell: Shell) -> None:
    for name in ("alpha-1", "alpha-2", "beta"):
        ask(shell, "hi", "--new", "--conversation", name)
    assert shell.run("conversations", "show", "be").returncode == 0
    ambiguous = shell.run("conversations", "show", "alpha")
    assert ambiguous.returncode == 2
    assert "alpha-1" in ambiguous.stderr
    unknown = shell.run("conversations", "show", "gamma")
    assert unknown.returncode == 1
    assert "conversations list" in unknown.stderr


def test_an_export_comes_back_as_the_same_conversation(shell: Shell) -> None:
    ask(shell, "keep me", "--new", "--conversation", "old")
    markdown = shell.run("conversations", "export", "old").stdout
    assert "You said: keep me" in markdown
    out = shell.folder / "old.json"
    done = shell.run("conversations", "export", "old", "--format", "json", "--out", out.name)
    assert done.returncode == 0
    assert out.stat().st_mode & 0o077 == 0 or os.name == "nt"
    again = shell.run("conversations", "export", "old", "--format", "json", "--out", out.name)
    assert again.returncode == 1
    by_file = shell.run("conversations", "import", out.name).stdout.strip()
    by_pipe = shell.run("conversations", "import", "-", input=out.read_text()).stdout.strip()
    for copy in (by_file, by_pipe):
        shown = json.loads(shell.run("conversations", "show", "--json", copy).stdout)
        assert [m["parts"][0]["text"] for m in shown["messages"]] == [
            "keep me",
            "You said: keep me",
        ]
    assert shell.run("conversations", "import", "absent.json").returncode == 2
    assert shell.run("conversations", "import", "-", input="{}").returncode == 1


def test_deleting_asks_first(shell: Shell) -> None:
    ask(shell, "hi", "--new", "--conversation", "old")
    refused = shell.run("conversations", "delete", "old")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert shell.run("conversations", "delete", "old", "--yes").returncode == 0
    assert json.loads(shell.run("conversations", "list", "--json").stdout) == []


# ---- doctor ------------------------------------------------------------------------------


def checks_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_doctor_finds_a_fresh_machine_well(shell: Shell) -> None:
    done = shell.run("doctor", "--json")
    assert done.returncode == 0
    checks = checks_of(done)
    assert checks["sqlite"]["text"].startswith(sqlite3.sqlite_version)
    assert checks["python"]["text"] == ".".join(map(str, sys.version_info[:3]))
    assert checks["provider"]["state"] == "warning"
    assert "GEMINI_API_KEY" in checks["provider"]["hint"]
    assert str(shell.data) in checks["store"]["text"]
    told = shell.run("doctor")
    assert told.returncode == 0
    assert "✓ store" in told.stdout
    assert "! provider" in told.stdout
    assert "agent-sidecar chat" in told.stdout


def test_doctor_says_what_is_broken_and_how_to_mend_it(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("doctor", "--json", "--provider", "anthropic")
    assert done.returncode == 1
    provider = checks_of(done)["provider"]
    assert provider["state"] == "bad"
    assert "ANTHROPIC_API_KEY" in provider["hint"]
    folder = tmp_path / "folder.db"
    folder.mkdir()
    store = shell.run("doctor", "--store", str(folder))
    assert store.returncode == 1
    assert "✗ store" in store.stdout
    (shell.folder / "bad.toml").write_text("zebra = 1")
    settings = shell.run("doctor", "--config", "bad.toml")
    assert settings.returncode == 1
    assert "zebra" in settings.stdout


# ---- examples ----------------------------------------------------------------------------


def test_the_python_example_holds_a_conversation_of_two_turns(shell: Shell, tmp_path: Path) -> None:
    source = (EXAMPLES / "two_turns.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 40
    (shell.folder / "client.py").write_text("class Sidecar: ...  # the client spawns a sidecar\n")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "two_turns.py", tmp_path / "example.db"],
        capture_output=True,
        encoding="utf-8",
        cwd=shell.folder,
        env=shell.env,
        timeout=SLOW,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "client.py:1" in done.stdout
    assert done.stdout.count("(endTurn)") == 2
    assert done.stdout.endswith("4 messages are stored.\n")


@needs_posix
def test_the_shell_example_holds_a_conversation_of_two_turns(shell: Shell) -> None:
    command = shell.home / "agent-sidecar"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sidecar "$@"\n')
    command.chmod(0o700)
    shell.env["PATH"] = f"{shell.home}{os.pathsep}{shell.env['PATH']}"
    done = subprocess.run(
        ["sh", EXAMPLES / "two_turns.sh", *SCRIPTED],
        capture_output=True,
        encoding="utf-8",
        cwd=shell.folder,
        env=shell.env,
        timeout=SLOW,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == "You said: Where is the client that spawns a sidecar?"
    assert second == "You said: more"
    (kept,) = json.loads(shell.run("conversations", "list", "--json").stdout)
    assert kept["messageCount"] == 4
