"""`agent-sidecar chat`, typed into a terminal and piped into."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.commands.shell import Shell, Terminal
from tests.requirements import proves

needs_terminal = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX")
SCRIPTED = ("--provider", "scripted")
PROMPT = "› "


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def scripted(shell: Shell, script: str) -> tuple[str, str]:
    """Options for a provider that plays this TOML array."""
    config = shell.folder / "script.toml"
    config.write_text(f'provider = "scripted"\nscript = {script}\n')
    return "--config", str(config)


def titles(shell: Shell) -> list[str]:
    listed = json.loads(shell.run("conversations", "list", "--json").stdout)
    return [conversation.get("title", "") for conversation in listed]


def say(terminal: Terminal, text: str, until: str = PROMPT) -> str:
    terminal.type(f"{text}\r")
    terminal.wait_for(text)
    return terminal.wait_for(until)


# ---- in a terminal -----------------------------------------------------------------------


@needs_terminal
def test_a_newcomer_gets_an_answer_and_finds_it_again(shell: Shell) -> None:
    (shell.folder / "shop.py").write_text("def checkout(basket):\n    return sum(basket)\n")
    with shell.terminal() as terminal:
        greeting = terminal.wait_for(PROMPT)
        assert "offline" in greeting
        assert "No model is connected" in greeting
        assert "agent-sidecar doctor" in greeting
        assert "/help" in greeting
        assert "shop.py:1" in say(terminal, "Where is checkout defined?")
        terminal.type("\x04")
        terminal.wait_for("The conversation is kept.")
        assert terminal.exit_code() == 0
    with shell.terminal() as terminal:
        terminal.wait_for("Where is checkout defined? · 2 messages · just now")
        terminal.wait_for("shop.py:1")


@needs_terminal
def test_markdown_is_drawn_once_and_for_good(shell: Shell) -> None:
    script = (
        '[{text = "# Title\\n\\nSome **bold** text.\\n\\n- one\\n- two\\n\\n"}, '
        '{text = "```py\\nx = 1\\n```\\n\\nThe end."}]'
    )
    with shell.terminal(*("chat", *scripted(shell, script))) as terminal:
        terminal.wait_for(PROMPT)
        answer = say(terminal, "go")
        assert "**" not in answer
        assert "#" not in answer
        for line in ("Title", "Some bold text.", " • one", " • two", "  x = 1", "The end."):
            assert re.search(rf"(?:^|\r){re.escape(line)}\r?$", answer, re.MULTILINE), line
        terminal.type("/quit\r")
        assert terminal.exit_code() == 0
        # The cursor is there again, and lines may be edited as before.
        assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")


@needs_terminal
def test_ctrl_c_stops_the_answer_and_retry_asks_again(shell: Shell) -> None:
    script = '[{turn = [{text = "Begun "}, {hang = true}]}]'
    with shell.terminal(*("chat", *scripted(shell, script))) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("go\r")
        terminal.wait_for("Begun")
        terminal.wait_for("Ctrl-C stops")
        terminal.type("\x03")
        terminal.wait_for("Stopped. /retry asks again.")
        terminal.wait_for(PROMPT)
        assert "You said: go" in say(terminal, "/retry")
        assert "nothing to retry" in say(terminal, "/retry")
        terminal.type("\x04")
        assert terminal.exit_code() == 0


@needs_terminal
def test_a_second_ctrl_c_at_the_prompt_leaves(shell: Shell) -> None:
    with shell.terminal("chat", *SCRIPTED) as terminal:
        terminal.wait_for(PROMPT)
        terminal.interrupt()
        terminal.wait_for("Ctrl-C again")
        terminal.wait_for(PROMPT)
        terminal.interrupt()
        assert terminal.exit_code() == 0
    assert titles(shell) == []  # who says nothing leaves nothing behind


@needs_terminal
def test_a_killed_sidecar_is_started_again_and_nothing_is_lost(shell: Shell) -> None:
    script = '[{turn = [{text = "Begun "}, {hang = true}]}]'
    with shell.terminal(*("chat", *scripted(shell, script))) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("go\r")
        terminal.wait_for("Begun")
        os.kill(child_of(terminal.pid), signal.SIGKILL)
        terminal.wait_for("ended with exit code -9")
        terminal.wait_for("It was started again")
        terminal.wait_for("Interrupted; what was written is kept.")
        terminal.wait_for(PROMPT)
        assert "You said: more" in say(terminal, "more")


def child_of(pid: int) -> int:
    import subprocess

    found = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
    pairs = (map(int, line.split()) for line in found.stdout.splitlines())
    return next(child for child, parent in pairs if parent == pid)


@needs_terminal
def test_slash_commands_do_what_they_say(shell: Shell) -> None:
    with shell.terminal("chat", *SCRIPTED) as terminal:
        terminal.wait_for(PROMPT)
        assert "/export" in say(terminal, "/help")
        assert "no conversation of this folder" in say(terminal, "/switch")
        assert "No conversation is open" in say(terminal, "/rename x")
        say(terminal, "a needle")
        say(terminal, "/rename Haystack")
        assert "[needle]" in say(terminal, "/find needle")
        assert "haystack.md" in say(terminal, "/export")
        assert "haystack.json" in say(terminal, "/export json")
        assert "build ›" in say(terminal, "/mode build")
        assert "no mode 'sing'" in say(terminal, "/mode sing")
        assert "1 conversation, 2 messages" in say(terminal, "/status")
        assert "Nothing is waiting" in say(terminal, "/queue")
        say(terminal, "/new")
        say(terminal, "second")
        listed = say(terminal, "/switch")
        assert listed.index("second") < listed.index("Haystack")
        assert "Haystack · 2 messages" in say(terminal, "/switch 2")
        assert "no number 9" in say(terminal, "/switch 9")
        assert "cannot be undone" in say(terminal, "/delete")
        assert "Deleted" in say(terminal, "/delete yes")
        assert "no command /sing" in say(terminal, "/sing")
        assert "You said: /etc/hosts" in say(terminal, "/etc/hosts")
        terminal.type("/quit\r")
        assert terminal.exit_code() == 0
    assert titles(shell) == ["/etc/hosts", "second"]
    assert "a needle" in (shell.folder / "haystack.md").read_text()


@needs_terminal
def test_a_failed_turn_shows_its_reason_and_the_chat_goes_on(shell: Shell) -> None:
    with shell.terminal("chat", "--provider", "gemini") as terminal:
        greeting = terminal.wait_for(PROMPT)
        assert "needs a key" in greeting
        assert "GEMINI_API_KEY" in greeting
        assert "The prompt is kept" in say(terminal, "hello")
        assert "needsProvider" in say(terminal, "/queue")


@needs_terminal
def test_what_a_model_says_cannot_command_the_terminal(shell: Shell) -> None:
    script = r'[{text = "\u001b]0;owned\u0007 \u001b[2J done"}]'
    with shell.terminal(*("chat", *scripted(shell, script))) as terminal:
        terminal.wait_for(PROMPT)
        say(terminal, "go")
        assert "\x1b]0;" not in terminal.raw
        assert "\x1b[2J" not in terminal.raw


@needs_terminal
@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_terminal_without_colours_gets_none(shell: Shell, env: dict[str, str]) -> None:
    with shell.terminal("chat", *SCRIPTED, **env) as terminal:
        mark = "> " if "TERM" in env else PROMPT
        terminal.wait_for(mark)
        assert "You said: hi" in say(terminal, "hi", mark)
        assert re.findall(r"\x1b\[[0-9;]*3[0-7][0-9;]*m", terminal.raw) == []


@needs_terminal
def test_the_history_of_the_prompt_is_the_users_alone(shell: Shell) -> None:
    with shell.terminal("chat", *SCRIPTED) as terminal:
        terminal.wait_for(PROMPT)
        say(terminal, "first words")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    history = shell.data / "chat-history"
    assert "first words" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    with shell.terminal("chat", "--new", *SCRIPTED) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("\x1b[A\r")
        terminal.wait_for("You said: first words")


@needs_terminal
def test_a_backslash_and_a_paste_make_one_message_of_several_lines(shell: Shell) -> None:
    with shell.terminal("chat", *SCRIPTED) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("one\\\r")
        terminal.wait_for("… › ")
        terminal.type("two\r")
        terminal.wait_for("You said: one")
        terminal.wait_for(PROMPT)
        terminal.type("\x1b[200~three\nfour\x1b[201~\r")
        terminal.wait_for("You said: three")
        terminal.wait_for(PROMPT)
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    shown = json.loads(shell.run("conversations", "export", "0", "--format", "json").stdout)
    said = [m["parts"][0]["text"] for m in shown["messages"] if m["role"] == "user"]
    assert said == ["one\ntwo", "three\nfour"]


# ---- through a pipe ----------------------------------------------------------------------


def test_piped_lines_are_answered_in_order(shell: Shell) -> None:
    done = shell.run("chat", *SCRIPTED, input="one\n\n/mode\ntwo\nfail NETWORK_ERROR\nlast")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "You said: one\n\nThe mode is chat. Others: build, feedback.\n\nYou said: two\n\n"
        "Error: The script says so. (3 attempts)\n  → Try again.\n\nYou said: last\n\n"
    )
    assert titles(shell) == ["one"]


# ---- what has to be allowed ----------------------------------------------------------------

EDIT = 'tool edit {"path": "a.txt", "oldText": "one", "newText": "two"}'


@needs_terminal
@proves("TOOLS-EDIT", "P9")
@pytest.mark.parametrize(
    ("answer", "said", "text"),
    [("y", "Allowed.", "two\n"), ("n", "Denied.", "one\n"), ("maybe", "Denied.", "one\n")],
)
def test_a_change_is_shown_and_asked_for(shell: Shell, answer: str, said: str, text: str) -> None:
    (shell.folder / "a.txt").write_text("one\n")
    with shell.terminal("chat", *SCRIPTED, "--mode", "build") as terminal:
        terminal.wait_for(PROMPT)
        shown = say(terminal, EDIT, until="Allow it once? y/n")
        assert "Edit a.txt?" in shown
        assert "-one" in shown
        assert "+two" in shown
        terminal.wait_for(PROMPT)
        say(terminal, answer, until=said)
        terminal.wait_for("The tool said:")
        terminal.wait_for(PROMPT)
    assert (shell.folder / "a.txt").read_text() == text


@proves("TOOLS-EDIT", "P9")
def test_nobody_at_the_terminal_allows_nothing(shell: Shell) -> None:
    (shell.folder / "a.txt").write_text("one\n")
    done = shell.run("chat", *SCRIPTED, "--mode", "build", input=EDIT + "\n")
    assert "Denied: nobody is at this terminal" in done.stdout
    assert (shell.folder / "a.txt").read_text() == "one\n"


@proves("TOOLS-EDIT", "P9")
@pytest.mark.parametrize(("flags", "text"), [((), "one\n"), (("--yes",), "two\n")])
def test_a_script_says_beforehand_whether_changes_are_allowed(
    shell: Shell, flags: tuple[str, ...], text: str
) -> None:
    (shell.folder / "a.txt").write_text("one\n")
    done = shell.run("run", *SCRIPTED, "--mode", "build", "--no-plan", *flags, EDIT)
    assert "Edit a.txt" in done.stderr
    assert (shell.folder / "a.txt").read_text() == text
