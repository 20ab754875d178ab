"""What tools leave behind so that it can be undone, and undoing it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.interfaces import PreImage, ToolUse, TouchedFile
from sidecar.stores.checkpoints import digest
from sidecar.tools.commands import command_tools
from sidecar.tools.editing import editing_tools
from sidecar.tools.files import Refused
from sidecar.tools.patching import patched
from sidecar.tools.protected import is_protected
from sidecar.tools.undo import Undo
from sidecar.work import UndoState
from tests.requirements import proves
from tests.tools.test_commands import Ledger, real

pytestmark = pytest.mark.anyio


class Kept:
    """A use of a tool that remembers what would be lost."""

    def __init__(self) -> None:
        self.images: list[PreImage] = []
        self.shown: list[str] = []
        self.use = ToolUse(keep=self.keep, report=self.shown.append)

    async def keep(self, image: PreImage) -> None:
        self.images.append(image)

    @property
    def touched(self) -> list[TouchedFile]:
        found: dict[str, TouchedFile] = {}
        for image in self.images:
            first = found.get(image.relative)
            found[image.relative] = TouchedFile(
                root=image.root,
                relative=image.relative,
                before=first.before if first else image.before,
                after=digest(image.after),
            )
        return list(found.values())


class Editor:
    """Shows `shown` for a file, unsaved."""

    def __init__(self, shown: dict[str, str], applies: bool = True) -> None:
        self.shown = shown
        self.applies = applies

    async def read(self, path: Path) -> str | None:
        return self.shown.get(path.name)

    async def apply(self, path: Path, old: str, new: str, title: str) -> bool:
        if self.applies and self.shown.get(path.name) == old:
            self.shown[path.name] = new
            return True
        return False


def undo(root: Path, editor: Any = None) -> Undo:
    return Undo([real(root)], editor)


async def work(root: Path, kept: Kept, name: str, **arguments: Any) -> None:
    tools = {tool.spec.name: tool for tool in editing_tools([root], None)}
    output = await tools[name].run(arguments, kept.use)
    assert not output.is_error, output.content


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    (tmp_path / "b.txt").write_bytes("\ufeffbom\n".encode())
    (tmp_path / "c.txt").write_bytes(b"c")
    return tmp_path


@proves("UNDO")
async def test_everything_that_was_edited_made_and_deleted_is_put_back_to_the_byte(
    root: Path,
) -> None:
    before, kept = tree(root), Kept()
    await work(root, kept, "edit", path="a.txt", oldText="one", newText="1")
    await work(root, kept, "edit", path="a.txt", oldText="two", newText="2")
    await work(root, kept, "patch", path="b.txt", diff="@@ -1 +1,2 @@\n bom\n+more\n")
    await work(root, kept, "delete", path="c.txt")
    await work(root, kept, "create", path="new/d.txt", text="d")
    assert tree(root) != before
    seen = await undo(root).preview(kept.touched)
    assert [(f.path, f.action, f.state) for f in seen] == [
        ("a.txt", "restore", UndoState.READY),
        ("b.txt", "restore", UndoState.READY),
        ("c.txt", "create", UndoState.READY),
        ("new/d.txt", "delete", UndoState.READY),
    ]
    assert "-2" in seen[0].diff
    done = await undo(root).put_back(kept.touched, force=False)
    assert {f.state for f in done} == {UndoState.DONE}
    assert tree(root) == before
    again = await undo(root).put_back(kept.touched, force=False)
    assert {f.state for f in again} == {UndoState.SAME}, "twice is once"


@proves("UNDO")
async def test_what_the_user_changed_since_is_a_conflict_and_stays(root: Path) -> None:
    kept = Kept()
    await work(root, kept, "edit", path="a.txt", oldText="one", newText="1")
    (root / "a.txt").write_text("the user's")
    (seen,) = await undo(root).put_back(kept.touched, force=False)
    assert seen.state is UndoState.CONFLICT
    assert (root / "a.txt").read_text() == "the user's"
    (done,) = await undo(root).put_back(kept.touched, force=True)
    assert done.state is UndoState.DONE
    assert (root / "a.txt").read_bytes() == b"one\r\ntwo\r\n"


@proves("UNDO", "VSCODE-FILES")
async def test_unsaved_changes_in_an_editor_are_a_conflict_too(root: Path) -> None:
    kept = Kept()
    await work(root, kept, "edit", path="c.txt", oldText="c", newText="C")
    (seen,) = await undo(root, Editor({"c.txt": "C and mine"})).preview(kept.touched)
    assert seen.state is UndoState.CONFLICT


@proves("UNDO", "VSCODE-FILES")
async def test_a_change_that_is_in_a_buffer_only_is_undone_there(root: Path) -> None:
    touched = [TouchedFile(root=real(root), relative="c.txt", before=b"c", after=digest(b"C"))]
    editor = Editor({"c.txt": "C"})
    (done,) = await undo(root, editor).put_back(touched, force=False)
    assert done.state is UndoState.DONE
    assert editor.shown == {"c.txt": "c"}
    refusing = Editor({"c.txt": "C"}, applies=False)
    (failed,) = await undo(root, refusing).put_back(touched, force=False)
    assert failed.state is UndoState.FAILED
    assert (root / "c.txt").read_bytes() == b"c"


@proves("UNDO", "GUARD")
async def test_nothing_outside_and_nothing_of_gits_is_touched(root: Path) -> None:
    inside, outside = root / "in", root / "out"
    for folder in (inside / ".git", outside):
        folder.mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    home = real(inside)
    wanted = [
        TouchedFile(root=home, relative=".git/config", before=b"x", after=None),
        TouchedFile(root=home, relative=".GIT/config", before=b"x", after=None),
        TouchedFile(root=home, relative="link/a", before=b"x", after=None),
        TouchedFile(root=home, relative="../out/a", before=b"x", after=None),
        TouchedFile(root=real(outside), relative="a", before=b"x", after=None),
    ]
    done = await undo(inside).put_back(wanted, force=True)
    assert {f.state for f in done} == {UndoState.FAILED}
    assert list(outside.iterdir()) == []
    assert list((inside / ".git").iterdir()) == []


posix = pytest.mark.skipif(sys.platform == "win32", reason="commands of a POSIX shell")


@posix
@proves("UNDO", "TOOLS-RUN")
async def test_what_a_command_changed_is_put_back_as_well(root: Path) -> None:
    before, kept = tree(root), Kept()
    tools, _ = command_tools([root], Ledger())
    command = "echo more >> a.txt; rm c.txt; mkdir x; echo new > x/y.txt; mv b.txt z.txt"
    output = await tools[0].run({"command": command}, kept.use)
    assert not output.is_error
    assert sorted(image.relative for image in kept.images) == [
        "a.txt", "b.txt", "c.txt", "x/y.txt", "z.txt",
    ]  # fmt: skip
    await undo(root).put_back(kept.touched, force=False)
    assert tree(root) == before


@posix
@proves("TOOLS-RUN")
async def test_output_is_shown_while_it_comes(root: Path) -> None:
    kept = Kept()
    tools, _ = command_tools([root], Ledger())
    await tools[0].run({"command": "echo here; echo ü"}, kept.use)
    assert "".join(kept.shown) == "here\nü\n"


@posix
@proves("TOOLS-RUN", "P7")
async def test_a_command_in_the_background_goes_on_tells_how_it_goes_and_is_stopped(
    root: Path,
) -> None:
    ledger = Ledger()
    tools, background = command_tools([root], ledger)
    run, output, stop = tools
    kept = Kept()
    begun = await run.run({"command": "echo up; sleep 600", "background": True}, kept.use)
    assert "as command-1" in begun.content
    assert background.is_busy
    child = background.find("command-1").child
    while "up" not in child.output.text():
        await _a_moment()
    assert (await output.run({"id": "command-1"})).content == "It runs.\nup\n"
    assert (await stop.run({"id": "command-1"})).content == "Stopped.\nup\n"
    assert ledger.now == []
    assert (await output.run({"id": "command-1"})).is_error
    ended = await run.run({"command": "echo done", "background": True}, kept.use)
    await background.find("command-2").child.exited.wait()
    assert not background.is_busy
    assert ended.content.startswith("It runs")
    await background.end_all()
    assert ledger.now == []
    (subject, once) = [
        await run.subject({"command": "make", "background": b}) for b in (True, False)
    ]
    assert subject.always == (), "what goes on unseen is asked every time"
    assert len(once.always) == 1
    assert tools[0].kind == "run"


async def _a_moment() -> None:
    import anyio

    await anyio.sleep(0.01)


# ---- patches -------------------------------------------------------------------------------


@proves("TOOLS-EDIT")
@pytest.mark.parametrize(
    ("text", "diff", "result"),
    [
        ("a\nb\nc\n", "@@ -2 +2 @@\n-b\n+B\n", "a\nB\nc\n"),
        ("a\nb\nc\n", "--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@\n a\n+x\n b\n c\n", "a\nx\nb\nc\n"),
        ("a\nb\nc\n", "@@ -9,1 +9,1 @@ far off\n-c\n+C\n", "a\nb\nC\n"),
        ("a\nb\nc\n", "@@ -1 +1 @@\n-a\n+A\n@@ -3 +3 @@\n-c\n+C\n", "A\nb\nC\n"),
        ("a\nb\n", "@@ -1,2 +1 @@\n-a\n b\n", "b\n"),
        ("", "@@ -0,0 +1 @@\n+a\n", "a\n"),
        ("a", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n", "b"),
    ],
)
def test_a_diff_is_applied_where_its_lines_are(text: str, diff: str, result: str) -> None:
    assert patched(text, diff, "x") == result


@proves("TOOLS-EDIT")
@pytest.mark.parametrize(
    ("text", "diff"),
    [
        ("a\n", "@@ -1 +1 @@\n-b\n+c\n"),
        ("a\nx\na\n", "@@ -7 +7 @@\n-a\n+b\n"),
        ("a\n", "nothing"),
        ("a\n", "@@ -1 +1 @@\n a\n"),
        ("a\n", "@@ -1 +1 @@\n-a\n+b\nwhat"),
        ("a\n", ""),
    ],
)
def test_a_diff_that_does_not_fit_changes_nothing(text: str, diff: str) -> None:
    with pytest.raises(Refused):
        patched(text, diff, "x")


# ---- protected files -----------------------------------------------------------------------


@proves("PROTECTED")
@pytest.mark.parametrize(
    "name",
    [
        ".git/hooks/pre-commit",
        ".git/config",
        "sub/.git/config",
        ".GIT/config",
        ".vscode/tasks.json",
        ".vscode/settings.json",
        ".mcp.json",
        ".cursor/mcp.json",
        "AGENTS.md",
        "agents.md",
        "CLAUDE.md",
        ".bashrc",
        "home/.zshrc",
        ".envrc",
        ".env",
        ".env.local",
        ".devcontainer/devcontainer.json",
        ".github/workflows/ci.yml",
        ".idea/workspace.xml",
        ".npmrc",
        "x.code-workspace",
        ".husky/pre-push",
        ".gitconfig",
        ".gitattributes",
        ".git./config",
        ".git /config",
        ".\uff47it/config",
        ".g\u200bit/x",
        ".vscode:stream/x",
        ".bashrc::$DATA",
        "a\\.git\\config",
        ".pre-commit-config.yaml",
    ],
)
def test_what_governs_agents_editors_and_shells_is_protected(name: str) -> None:
    assert is_protected(name)


@proves("PROTECTED")
@pytest.mark.parametrize(
    "name",
    ["a.py", "git/config", ".github/ISSUE_TEMPLATE/bug.md", "docs/agents.rst", "env.py", "x.mcp"],
)
def test_everything_else_is_not(name: str) -> None:
    assert not is_protected(name)


@proves("PROTECTED", "P9")
async def test_changing_one_says_so_and_cannot_be_allowed_for_good(root: Path) -> None:
    tools = {tool.spec.name: tool for tool in editing_tools([root], None)}
    subject = await tools["create"].subject({"path": ".vscode/tasks.json", "text": "{}"})
    assert subject.is_protected
    assert subject.title == "Create .vscode/tasks.json (protected)"
    assert subject.always == ()
