"""Tools that change files: exactly what was shown, to exactly what it was made from."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.approvals import content_hash
from sidecar.conversations import ToolKind
from sidecar.errors import MessageProcessingFailed
from sidecar.interfaces import Tool, ToolCall
from sidecar.tools import writing
from sidecar.tools.editing import Change, editing_tools
from sidecar.tools.files import Entry, Refused
from sidecar.tools.writing import change, held
from tests.requirements import proves

pytestmark = pytest.mark.anyio
needs_links = pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")


class Buffer:
    """An editor with one file open, perhaps."""

    def __init__(self, text: str | None, *, applies: bool) -> None:
        self.text = text
        self.applies = applies
        self.titles: list[str] = []

    async def read(self, path: Path) -> str | None:
        return self.text

    async def apply(self, path: Path, old: str, new: str, title: str) -> bool:
        if not self.applies or old != self.text:
            return False
        self.text = new
        self.titles.append(title)
        return True


def tools(root: Path, editor: Buffer | None = None) -> dict[str, Tool]:
    return {tool.spec.name: tool for tool in editing_tools([root], editor)}


async def use(tool: Tool, **arguments: Any) -> str:
    return (await tool.run(arguments)).content


@proves("TOOLS-EDIT")
async def test_an_edit_shows_the_change_and_makes_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\nthree\n")
    edit = tools(tmp_path)["edit"]
    asked = {"path": "a.py", "oldText": "two", "newText": "2"}
    subject = await edit.subject(asked)
    assert subject.title == "Edit a.py"
    assert subject.text == "--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
    assert (tmp_path / "a.py").read_text() == "one\ntwo\nthree\n", "asking changes nothing"
    assert await use(edit, **asked) == "Edit a.py: 1 lines added, 1 removed."
    assert (tmp_path / "a.py").read_text() == "one\n2\nthree\n"
    assert edit.kind is ToolKind.EDIT
    assert os.listdir(tmp_path) == ["a.py"], "no draft is left"


@proves("TOOLS-EDIT")
async def test_files_are_created_with_their_folders_and_deleted(tmp_path: Path) -> None:
    kit = tools(tmp_path)
    made = await kit["create"].subject({"path": "x/y/new.txt", "text": "hello"})
    assert made.title == "Create x/y/new.txt"
    assert made.text.endswith("+hello\n\\ No newline at end of file\n")
    await use(kit["create"], path="x/y/new.txt", text="hello")
    assert (tmp_path / "x/y/new.txt").read_text() == "hello"
    assert "exists already" in await use(kit["create"], path="x/y/new.txt", text="again")
    assert (await kit["delete"].subject({"path": "x/y/new.txt"})).title == "Delete x/y/new.txt"
    await use(kit["delete"], path="x/y/new.txt")
    assert not (tmp_path / "x/y/new.txt").exists()
    assert "There is no file" in await use(kit["delete"], path="x/y/new.txt")


@proves("TOOLS-EDIT")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "a.py", "oldText": "nine", "newText": "9"}, "does not have that passage"),
        ({"path": "a.py", "oldText": "o", "newText": "0"}, "2 times"),
        ({"path": "a.py", "oldText": "one", "newText": "one"}, "the same"),
        ({"path": "b.py", "oldText": "one", "newText": "1"}, "There is no file"),
        ({"path": "../out.py", "oldText": "one", "newText": "1"}, "not inside the workspace"),
        ({"path": "folder", "oldText": "one", "newText": "1"}, "not a regular file"),
        ({"path": "binary", "oldText": "one", "newText": "1"}, "not a text file"),
        ({"path": "latin", "oldText": "one", "newText": "1"}, "not UTF-8"),
        ({"path": "a.py", "oldText": "", "newText": "1"}, "length"),
        ({"path": "a.py"}, "oldText"),
    ],
    ids=str,
)
async def test_what_cannot_be_edited_is_said_and_left_alone(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    (tmp_path / "w/folder").mkdir(parents=True)
    files = {"a.py": b"one\ntwo\n", "binary": b"one\0", "latin": "one é".encode("latin-1")}
    for name, data in files.items():
        (tmp_path / "w" / name).write_bytes(data)
    (tmp_path / "out.py").write_text("one")
    edit = tools(tmp_path / "w")["edit"]
    with pytest.raises(MessageProcessingFailed, match=words):
        await edit.subject(arguments)
    output = await edit.run(arguments)
    assert output.is_error
    assert words in output.content
    assert {name: (tmp_path / "w" / name).read_bytes() for name in files} == files
    assert (tmp_path / "out.py").read_text() == "one"


@proves("TOOLS-EDIT")
async def test_all_places_are_changed_only_when_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x x x")
    await use(tools(tmp_path)["edit"], path="a.py", oldText="x", newText="y", replaceAll=True)
    assert (tmp_path / "a.py").read_text() == "y y y"


@proves("TOOLS-EDIT")
async def test_line_ends_mark_and_mode_of_a_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.cmd"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\nthree\r\n")
    path.chmod(0o750)
    await use(tools(tmp_path)["edit"], path="a.cmd", oldText="one\ntwo", newText="1\n2")
    assert path.read_bytes() == b"\xef\xbb\xbf1\r\n2\r\nthree\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


@proves("TOOLS-EDIT", "P9")
async def test_an_approval_is_for_what_the_file_held_when_it_was_asked(tmp_path: Path) -> None:
    """What is outside of the passage counts too: the diff need not show it."""
    path = tmp_path / "a.py"
    path.write_text("".join(f"{n}\n" for n in range(50)))
    edit = tools(tmp_path)["edit"]
    call = ToolCall(
        tool_call_id="1",
        name="edit",
        arguments={"path": "a.py", "oldText": "40\n", "newText": "x\n"},
    )
    before = content_hash(call, await edit.subject(call.arguments))
    path.write_text("first" + path.read_text())
    assert content_hash(call, await edit.subject(call.arguments)) != before


@proves("TOOLS-EDIT", "VSCODE-FILES")
async def test_what_is_unsaved_is_edited_in_the_editor(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("saved\n")
    buffer = Buffer("unsaved\n", applies=True)
    edit = tools(tmp_path, buffer)["edit"]
    asked = edit_of("unsaved", "mine")
    assert "-unsaved\n+mine\n" in (await edit.subject(asked)).text
    await use(edit, **asked)
    assert (buffer.text, buffer.titles) == ("mine\n", ["Edit a.py"])
    assert (tmp_path / "a.py").read_text() == "saved\n"


@proves("TOOLS-EDIT", "VSCODE-FILES")
async def test_unsaved_changes_are_not_overwritten_when_the_editor_refuses(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("saved\n")
    edit = tools(tmp_path, Buffer("unsaved\n", applies=False))["edit"]
    assert "unsaved changes" in await use(edit, **edit_of("unsaved", "mine"))
    assert (tmp_path / "a.py").read_text() == "saved\n"


@proves("TOOLS-EDIT", "VSCODE-FILES")
async def test_a_file_that_no_editor_has_open_is_changed_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("saved\n")
    await use(tools(tmp_path, Buffer(None, applies=True))["edit"], **edit_of("saved", "mine"))
    assert (tmp_path / "a.py").read_text() == "mine\n"


def edit_of(old: str, new: str) -> dict[str, Any]:
    return {"path": "a.py", "oldText": old, "newText": new}


# ---- the way to a file ---------------------------------------------------------------------


@proves("TOOLS-EDIT", "P9")
def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"theirs")
    for old in (b"mine", None):
        with pytest.raises(Refused, match="changed meanwhile"):
            change(tmp_path, "a", old, b"new")
    with pytest.raises(Refused, match="changed meanwhile"):
        change(tmp_path, "b", b"there", b"new")
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@needs_links
@proves("TOOLS-EDIT", "P9")
@pytest.mark.parametrize("walks", [True, False], ids=["descriptors", "names"])
def test_no_way_leads_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walks: bool
) -> None:
    """Also where the platform has no descriptors of folders, as on Windows."""
    monkeypatch.setattr(writing, "WALKS", walks)
    inside, outside = tmp_path.resolve() / "in", tmp_path.resolve() / "out"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (outside / "a").write_bytes(b"old")
    (inside / "link").symlink_to(outside)
    (inside / "file").symlink_to(outside / "a")
    (inside / "dangling").symlink_to(outside / "new")
    for name in ("link/a", "file", "link/new", "dangling", "link/deep/new"):
        for old, new in ((b"old", b"new"), (None, b"new"), (b"old", None)):
            with pytest.raises(Refused):
                change(inside, name, old, new)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"a": b"old"}
    change(inside, "real/deep/new", None, b"new")
    assert held(inside, "real/deep/new") == b"new"


@proves("TOOLS-EDIT", "P9")
@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "../a", "a//b", "/a", "a/", "./a"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        change(tmp_path, name, None, b"x")
    assert list(tmp_path.iterdir()) == []


@needs_links
@proves("TOOLS-EDIT", "P9")
def test_what_is_swapped_while_a_file_is_changed_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two steps somebody puts a link where a folder was."""
    steps = 0
    real_open = os.open

    def swap(path: Any, *args: Any, **kwargs: Any) -> int:
        nonlocal steps
        steps += 1
        if steps == turn:
            (inside / "d").rename(inside / f"gone-{turn}")
            (inside / "d").symlink_to(outside)
        return real_open(path, *args, **kwargs)

    for turn in range(1, 6):
        inside, outside = tmp_path / f"in{turn}", tmp_path / f"out{turn}"
        (inside / "d").mkdir(parents=True)
        outside.mkdir()
        for folder in (inside / "d", outside):
            (folder / "a").write_bytes(b"old")
        steps = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", swap)
            with suppress(Refused):
                change(inside, "d/a", b"old", b"new")
        assert (outside / "a").read_bytes() == b"old"
        assert len(list(outside.iterdir())) == 1
    assert steps >= 3, "the swaps were reached"


@proves("TOOLS-EDIT")
def test_a_change_that_cannot_be_written_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused, match="No space left"):
        change(tmp_path, "a", b"old", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


@proves("TOOLS-EDIT")
def test_a_file_that_nobody_can_read_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_BYTES", 10)
    (tmp_path / "a").write_bytes(b"x" * 11)
    with pytest.raises(Refused, match="larger"):
        held(tmp_path, "a")


texts = st.text(alphabet="ab\n\r\u2028\x0b", max_size=30)


@proves("TOOLS-EDIT", "P9")
@given(texts, texts)
def test_a_diff_tells_the_whole_change(old: str, new: str) -> None:
    """Both sides can be read off it, whatever Python takes for the end of a line."""
    entry = Entry(Path("/w"), "a", "a")
    diff = Change(entry, old, new, None).diff
    lines = diff.split("\n")[2:-1]
    assert side(lines, " -") == old or old == new
    assert side(lines, " +") == new or old == new


def side(lines: list[str], marks: str) -> str:
    text, last = "", ""
    for line in lines:
        if line.startswith("\\ No newline"):
            text = text[:-1] if last in marks else text
        elif line and line[0] in marks:
            text += line[1:] + "\n"
        last = line[:1]
    return text
