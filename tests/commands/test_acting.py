"""Having agents act from a terminal: a whole task, feedback, and taking it all back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.commands.shell import Shell
from tests.commands.test_chat import PROMPT, needs_terminal, say
from tests.requirements import proves


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    return {"tool": name, "arguments": arguments}


CODE = "def add(a, b):\n    return a - b\n"
TEST = "from calc import add\n\nassert add(1, 2) == 3\nprint('passed')\n"
VERIFY = "python3 test_calc.py"
TASK = [
    tool("read", path="calc.py"),
    tool("plan", steps=["Mend add", "Say so"], verify=VERIFY, summary="add subtracts."),
    {"stop": "toolCalls"},
    tool("edit", path="calc.py", oldText="a - b", newText="a + b"),
    {"text": "add adds now."},
    {"stop": "endTurn"},
    tool("create", path="CHANGES.md", text="- add adds\n"),
    {"text": "Noted."},
    {"stop": "endTurn"},
    {"text": "add adds, and its test passes."},
]


def repository(shell: Shell, script: list[Any]) -> dict[str, bytes]:
    """A small real one, and settings that have the model play `script`."""
    (shell.folder / "calc.py").write_text(CODE)
    (shell.folder / "test_calc.py").write_text(TEST)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "One"]
    for command in (["init", "-q"], ["add", "."], commit):
        subprocess.run(["git", *command], cwd=shell.folder, env=shell.env, check=True)
    settings = {"provider": "scripted", "script": script}
    config = shell.home / "settings.toml"
    # JSON's strings, numbers and lists are TOML's as well; its objects are written inline.
    config.write_text("\n".join(f"{key} = {_toml(value)}" for key, value in settings.items()))
    return tree(shell)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def tree(shell: Shell) -> dict[str, bytes]:
    return {
        str(path.relative_to(shell.folder)): path.read_bytes()
        for path in shell.folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def run(shell: Shell, *arguments: str, **options: Any) -> Any:
    return shell.run(*arguments, "--config", str(shell.home / "settings.toml"), **options)


@proves("BUILD", "UNDO", "TOOLS-EDIT", "TOOLS-RUN")
def test_a_task_is_planned_done_verified_and_taken_back_to_the_byte(shell: Shell) -> None:
    before = repository(shell, TASK)
    done = run(shell, "run", "--mode", "build", "--yes", "--json", "Mend calc.py")
    assert done.returncode == 0, done.stderr
    for question in ("Carry out this plan", "Edit calc.py", "Create CHANGES.md", "Run in "):
        assert f"{question}" in done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    results = [e["content"] for e in events if e["type"] == "toolFinished"]
    assert results[-1].startswith("Exit code 0.\npassed")
    assert events[-1]["text"].endswith("add adds, and its test passes.")
    assert b"a + b" in tree(shell)["calc.py"]
    assert tree(shell)["CHANGES.md"] == b"- add adds\n"

    undone = run(shell, "chat", "--conversation", events[-1]["conversationId"], input="/undo\n")
    assert "files put back" in undone.stdout
    assert tree(shell) == before

    audit = run(shell, "audit", "verify")
    assert audit.returncode == 0
    assert "none changed, none missing" in audit.stdout
    shown = run(shell, "audit", "show").stdout
    assert [line.split()[2:5] for line in shown.splitlines() if " tool " in line] == [
        ["allowed", "tool", "read"],
        ["allowed", "tool", "plan"],
        ["allowed", "tool", "edit"],
        ["allowed", "tool", "create"],
        ["allowed", "tool", "run"],
    ]
    assert "add" not in shown


@proves("BUILD", "P9")
def test_without_a_yes_nothing_is_done(shell: Shell) -> None:
    before = repository(shell, TASK)
    done = run(shell, "run", "--mode", "build", "Mend calc.py")
    assert "Carry out this plan: denied; --yes would allow it" in done.stderr
    assert tree(shell) == before


@proves("PROTECTED", "P9")
def test_a_script_that_says_yes_to_everything_does_not_say_it_to_protected_files(
    shell: Shell,
) -> None:
    hook = tool("create", path=".vscode/tasks.json", text="{}")
    before = repository(shell, [hook, {"text": "done"}])
    done = run(shell, "run", "--mode", "build", "--no-plan", "--yes", "go")
    assert "only a person allows that" in done.stderr
    assert tree(shell) == before


@proves("FEEDBACK", "PERSONAS")
def test_files_are_reviewed_from_the_terminal_without_an_account(shell: Shell) -> None:
    (shell.folder / "a.py").write_text("try:\n    x()\nexcept:\n    pass  # TODO\n")
    done = shell.run("chat", input="/feedback a.py @security @newcomer\n/personas\n/audit\n")
    assert "# Feedback on `a.py`" in done.stdout
    assert "## Major (1)" in done.stdout
    assert "`a.py:3` Catches everything" in done.stdout
    assert "(Security, Newcomer)" in done.stdout
    assert "correctness  Correctness" in done.stdout
    assert "The whole record is whole" in done.stdout
    wrong = shell.run("chat", input="/feedback\n/feedback nothing.py\n/feedback a.py @eve\n")
    assert "Which files?" in wrong.stderr + wrong.stdout
    assert "There is no file nothing.py" in wrong.stderr + wrong.stdout
    assert "no persona 'eve'" in wrong.stderr + wrong.stdout


@needs_terminal
@proves("RULES", "TOOLS-RUN", "P9")
def test_what_is_allowed_for_good_in_a_terminal_is_not_asked_again(shell: Shell) -> None:
    with shell.terminal("chat", "--mode", "build") as terminal:
        terminal.wait_for(PROMPT)
        say(terminal, "/run echo hi", until="Allow it once? y/n/a")
        terminal.wait_for(PROMPT)
        say(terminal, "a", until="not asked again in this folder")
        terminal.wait_for(PROMPT)
        say(terminal, "/run echo hi && echo hi", until="3 lines")
        terminal.wait_for(PROMPT)
        say(terminal, "/run echo other", until="Allow it once? y/n/a")
        terminal.wait_for(PROMPT)
        say(terminal, "n", until="Denied.")
        terminal.wait_for(PROMPT)
        say(terminal, "/rules", until="echo hi  (")


@proves("TOOLS-EDIT", "P9")
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("/read", "Which file?"),
        ("/edit a.txt", "`/edit PATH OLD => NEW`"),
        ("/write", "`/write PATH TEXT`"),
        ("/run", "`/run COMMAND`"),
        ("/search", "What for?"),
        ("/run ls", "needs the mode `build`"),
        ("/read a.txt:1-1", "one"),
        ("/search one", "a.txt:1"),
        ("/teleport", "There is no command /teleport"),
    ],
)
def test_a_request_that_lacks_something_says_how_it_goes(
    shell: Shell, said: str, words: str
) -> None:
    (shell.folder / "a.txt").write_text("one\n")
    done = shell.run("chat", input=f"{said}\n")
    assert words in done.stdout + done.stderr
