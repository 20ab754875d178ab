"""Tools that change files of the workspace: `edit`, `create` and `delete`.

What the user is asked is the change itself, as a unified diff. It is made only to the very text
that the diff was made from: in the editor's buffer where an editor offers that, so that nothing
unsaved is lost and undo works, and on the disk otherwise.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from anyio import to_thread

from ..conversations import JsonObject, ToolKind
from ..errors import MessageProcessingFailed
from ..interfaces import (
    CHANGED,
    UNWATCHED,
    PreImage,
    Subject,
    Tool,
    ToolOutput,
    ToolSpec,
    ToolUse,
)
from .files import Entry, Refused, Workspace
from .patching import patched
from .protected import is_protected
from .writing import change, held

DIFF_BYTES = 256 * 1024
"""A larger change cannot be read by anybody, so it is not asked for."""


class Editor(Protocol):
    """An editor that may have the file open."""

    async def read(self, path: Path) -> str | None:
        """What it shows where that is not what is saved."""
        ...

    async def apply(self, path: Path, old: str, new: str, title: str) -> bool:
        """Change its buffer. False: the file is to be changed on the disk."""
        ...


class Change(msgspec.Struct, frozen=True):
    """Of one file; `old` None: it is new, `new` None: it goes."""

    entry: Entry
    old: str | None
    new: str | None
    saved: bytes | None
    """What is on the disk."""

    @property
    def title(self) -> str:
        verb = "Create" if self.old is None else "Delete" if self.new is None else "Edit"
        return f"{verb} {self.entry.name}"

    @property
    def pre_image(self) -> PreImage:
        old, new = (
            None if text is None else _encoded(text, self.saved) for text in (self.old, self.new)
        )
        return PreImage(
            root=str(self.entry.root), relative=self.entry.relative, before=old, after=new
        )

    @property
    def diff(self) -> str:
        return diff_of(self.entry.name, self.old or "", self.new or "")


class EditArguments(msgspec.Struct, rename="camel"):
    path: Annotated[str, msgspec.Meta(min_length=1)]
    old_text: Annotated[str, msgspec.Meta(min_length=1)]
    new_text: str
    replace_all: bool = False


class PatchArguments(msgspec.Struct):
    path: Annotated[str, msgspec.Meta(min_length=1)]
    diff: Annotated[str, msgspec.Meta(min_length=1)]


class CreateArguments(msgspec.Struct):
    path: Annotated[str, msgspec.Meta(min_length=1)]
    text: str


class DeleteArguments(msgspec.Struct):
    path: Annotated[str, msgspec.Meta(min_length=1)]


PATH = {"type": "string", "description": "The file, from the workspace folder on."}
EDIT = ToolSpec(
    name="edit",
    description="Replace a passage of a file. `oldText` has to be there exactly once, so give"
    " enough of the lines around it, or set `replaceAll`. The user is shown the change first.",
    input_schema={
        "type": "object",
        "properties": {
            "path": PATH,
            "oldText": {"type": "string", "minLength": 1},
            "newText": {"type": "string"},
            "replaceAll": {"type": "boolean", "default": False},
        },
        "required": ["path", "oldText", "newText"],
    },
)
PATCH = ToolSpec(
    name="patch",
    description="Change several places of one file with a unified diff. Its unchanged and removed"
    " lines have to be those of the file. The user is shown the change first.",
    input_schema={
        "type": "object",
        "properties": {
            "path": PATH,
            "diff": {"type": "string", "minLength": 1, "description": "`@@` parts of one file."},
        },
        "required": ["path", "diff"],
    },
)
CREATE = ToolSpec(
    name="create",
    description="Make a new text file, with the folders that it needs. The user is asked first.",
    input_schema={
        "type": "object",
        "properties": {"path": PATH, "text": {"type": "string"}},
        "required": ["path", "text"],
    },
)
DELETE = ToolSpec(
    name="delete",
    description="Delete a text file. The user is asked first.",
    input_schema={"type": "object", "properties": {"path": PATH}, "required": ["path"]},
)


def editing_tools(roots: Sequence[Path], editor: Editor | None) -> list[Tool]:
    """None when there are no folders."""
    if not roots:
        return []
    files = Files(Workspace(roots), editor)
    return [
        EditingTool(EDIT, files, edited),
        EditingTool(PATCH, files, fitted),
        EditingTool(CREATE, files, created),
        EditingTool(DELETE, files, deleted),
    ]


class Files:
    """The workspace's files, as the user sees them."""

    def __init__(self, workspace: Workspace, editor: Editor | None) -> None:
        self._workspace = workspace
        self._editor = editor

    async def see(self, name: str) -> Change:
        """A file as it is: a change that changes nothing."""
        entry = await to_thread.run_sync(self._workspace.locate, name)
        saved = await to_thread.run_sync(held, entry.root, entry.relative)
        shown = await self._editor.read(entry.root / entry.relative) if self._editor else None
        text = _decoded(entry, saved) if shown is None else shown
        return Change(entry, text, text, saved)

    async def make(self, wanted: Change) -> None:
        entry, old, new = wanted.entry, wanted.old, wanted.new
        path = entry.root / entry.relative
        if self._editor and old is not None and new is not None:
            if await self._editor.apply(path, old, new, wanted.title):
                return
            if _decoded(entry, wanted.saved) != old:
                raise Refused(f"'{entry.name}' has unsaved changes, and its editor refused.")
        data = None if new is None else _encoded(new, wanted.saved)
        await to_thread.run_sync(change, entry.root, entry.relative, wanted.saved, data)


Wanted = Callable[[Files, JsonObject], Awaitable[Change]]


class EditingTool:
    """Asks with the change itself, and makes that change or none."""

    kind = ToolKind.EDIT

    def __init__(self, spec: ToolSpec, files: Files, wanted: Wanted) -> None:
        self.spec = spec
        self._files = files
        self._wanted = wanted

    async def subject(self, arguments: JsonObject) -> Subject:
        try:
            wanted = await self._wanted(self._files, arguments)
        except msgspec.ValidationError as error:
            raise MessageProcessingFailed(f"Wrong arguments: {error}.") from None
        except Refused as error:
            raise MessageProcessingFailed(str(error)) from None
        return self._subject(wanted)

    def _subject(self, wanted: Change) -> Subject:
        diff = wanted.diff
        if len(diff) > DIFF_BYTES:
            raise MessageProcessingFailed("That change is too large to be read. Make it in parts.")
        before = hashlib.sha256((wanted.old or "").encode("utf-8", "surrogatepass")).hexdigest()
        state = {"root": str(wanted.entry.root), "before": before, "isNew": wanted.old is None}
        is_guarded = is_protected(wanted.entry.relative)
        title = f"{wanted.title} (protected)" if is_guarded else wanted.title
        return Subject(title=title, text=diff, state=state, is_protected=is_guarded)

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        try:
            wanted = await self._wanted(self._files, arguments)
            if not use.still_is(self._subject(wanted)):
                return ToolOutput(CHANGED, is_error=True)
            await use.keep(wanted.pre_image)
            await self._files.make(wanted)
        except (Refused, msgspec.ValidationError) as error:
            return ToolOutput(str(error), is_error=True)
        except MessageProcessingFailed as error:
            return ToolOutput(error.message, is_error=True)
        added, removed = _counted(wanted.diff)
        return ToolOutput(f"{wanted.title}: {added} lines added, {removed} removed.")


async def edited(files: Files, arguments: JsonObject) -> Change:
    asked = msgspec.convert(arguments, EditArguments, strict=False)
    seen = await files.see(asked.path)
    name = seen.entry.name
    if seen.old is None:
        raise Refused(f"There is no file '{name}'.")
    old, new = _fitted(seen.old, asked.old_text), _fitted(seen.old, asked.new_text)
    count = seen.old.count(old)
    if count == 0:
        raise Refused(f"'{name}' does not have that passage. Read it again: every blank counts.")
    if count > 1 and not asked.replace_all:
        raise Refused(f"'{name}' has that passage {count} times. Give more lines around it.")
    if old == new:
        raise Refused("Old and new text are the same.")
    return msgspec.structs.replace(seen, new=seen.old.replace(old, new))


async def fitted(files: Files, arguments: JsonObject) -> Change:
    asked = msgspec.convert(arguments, PatchArguments, strict=False)
    seen = await files.see(asked.path)
    if seen.old is None:
        raise Refused(f"There is no file '{seen.entry.name}'.")
    text = seen.old.replace("\r\n", "\n")
    new = _fitted(seen.old, patched(text, asked.diff, seen.entry.name))
    return msgspec.structs.replace(seen, new=new)


async def created(files: Files, arguments: JsonObject) -> Change:
    asked = msgspec.convert(arguments, CreateArguments, strict=False)
    seen = await files.see(asked.path)
    if seen.saved is not None:
        raise Refused(f"'{seen.entry.name}' exists already. Use `edit`.")
    return msgspec.structs.replace(seen, old=None, new=asked.text)


async def deleted(files: Files, arguments: JsonObject) -> Change:
    seen = await files.see(msgspec.convert(arguments, DeleteArguments, strict=False).path)
    if seen.saved is None:
        raise Refused(f"There is no file '{seen.entry.name}'.")
    return msgspec.structs.replace(seen, new=None)


def _decoded(entry: Entry, data: bytes | None) -> str | None:
    if data is None:
        return None
    if b"\0" in data[:8192]:
        raise Refused(f"'{entry.name}' is not a text file.")
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        raise Refused(f"'{entry.name}' is not UTF-8; it would be damaged.") from None


def _encoded(text: str, saved: bytes | None) -> bytes:
    mark = b"\xef\xbb\xbf" if saved is not None and saved.startswith(b"\xef\xbb\xbf") else b""
    try:
        return mark + text.encode()
    except UnicodeEncodeError:
        raise Refused("The text has half a character in it.") from None


def _fitted(text: str, passage: str) -> str:
    """`passage` with the line ends of `text`: a model writes `\\n` whatever it was shown."""
    return passage.replace("\r\n", "\n").replace("\n", "\r\n") if "\r\n" in text else passage


def diff_of(name: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(_lines(old), _lines(new), f"a/{name}", f"b/{name}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(text: str) -> list[str]:
    """Only `\\n` ends a line: what else Python takes for an end would not be seen in a diff."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _counted(diff: str) -> tuple[int, int]:
    lines = _lines(diff)[2:]
    return sum(x.startswith("+") for x in lines), sum(x.startswith("-") for x in lines)
