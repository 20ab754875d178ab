"""Tools that look into the workspace and change nothing: `read`, `list` and `search`.

File work runs in a worker thread, bounded in files, bytes and time. `search` answers a question
asked in words with the passages most likely to hold the answer; it keeps no index, so it never
answers from an old state.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

from ..conversations import JsonObject, ToolKind
from ..errors import AgentError
from ..interfaces import UNWATCHED, Subject, Tool, ToolOutput, ToolSpec, ToolUse
from .files import Entry, Refused, Workspace
from .grep import GREP, grep
from .question import Question
from .ranking import Passage, Ranking
from .reading import (
    OUTPUT_BYTES,
    READ_BYTES,
    SEARCH_BYTES,
    Stopped,
    bounded,
    in_thread,
    matches,
    scanned,
)

SEARCH_SECONDS = 10.0
"""More than a local disk needs for all files; ends a search on a network mount."""
CANDIDATES = 60
"""Files whose passages are weighed one by one, after all files were weighed as a whole."""


def workspace_tools(
    roots: Sequence[Path],
    read_file: Callable[[Path], Awaitable[str | None]] | None = None,
) -> list[Tool]:
    """The read-only tools over `roots`; none when there are no folders.

    `read_file` gives a file as an editor shows it, unsaved changes included, or None when it
    does not have it; `read` asks it first. `search` looks at what is saved.
    """
    if not roots:
        return []
    workspace = Workspace(roots)
    return [
        WorkspaceTool(READ, partial(_read, workspace, read_file)),
        WorkspaceTool(LIST, partial(_list, workspace)),
        WorkspaceTool(GLOB, partial(_glob, workspace)),
        WorkspaceTool(GREP, partial(grep, workspace)),
        WorkspaceTool(SEARCH, partial(_search, workspace)),
    ]


class ReadArguments(msgspec.Struct, rename="camel"):
    path: Annotated[str, msgspec.Meta(min_length=1)]
    start_line: Annotated[int, msgspec.Meta(ge=1)] = 1
    end_line: Annotated[int, msgspec.Meta(ge=1)] | None = None


class ListArguments(msgspec.Struct, rename="camel"):
    path: str = ""
    pattern: str = ""


class GlobArguments(msgspec.Struct):
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class SearchArguments(msgspec.Struct, rename="camel"):
    query: Annotated[str, msgspec.Meta(min_length=1)]
    max_results: Annotated[int, msgspec.Meta(ge=1, le=30)] = 8


READ = ToolSpec(
    name="read",
    description="Read a text file of the workspace, or some of its lines. The first line of the"
    " answer names the file and the lines; the text follows as it is.",
    input_schema={
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file, from the workspace folder on."},
            "startLine": {"type": "integer", "minimum": 1},
            "endLine": {"type": "integer", "minimum": 1, "description": "Included."},
        },
        "required": ["path"],
    },
)
LIST = ToolSpec(
    name="list",
    description="List a folder of the workspace, or with `pattern` all files below it whose"
    " name or path matches. Ignored and generated files are left out.",
    input_schema={
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The folder; the whole workspace if absent."},
            "pattern": {"type": "string", "description": "For example `*.py` or `src/*/test_*`."},
        },
    },
)
GLOB = ToolSpec(
    name="glob",
    description="The files of the workspace whose name or path matches, such as `*.py`,"
    " `src/*/test_*` or `**/a.txt`. Ignored and generated files are left out.",
    input_schema={
        "type": "object",
        "properties": {"pattern": {"type": "string", "minLength": 1}},
        "required": ["pattern"],
    },
)
SEARCH = ToolSpec(
    name="search",
    description="Find the passages of the workspace most likely to answer a question asked in"
    " words, or to define a name. Answers with JSON: `passages` (best first, with path, line,"
    " endLine, text, score and the words matched) and `missing` (words no file has).",
    input_schema={
        "type": "object",
        "properties": {
            "query": {"type": "string", "minLength": 1},
            "maxResults": {"type": "integer", "minimum": 1, "maximum": 30, "default": 8},
        },
        "required": ["query"],
    },
)


class WorkspaceTool:
    """A read-only tool. Failures that a model can do something about become outputs."""

    kind = ToolKind.READ

    def __init__(self, spec: ToolSpec, answer: Callable[[JsonObject], Awaitable[str]]) -> None:
        self.spec = spec
        self._answer = answer

    async def subject(self, arguments: JsonObject) -> Subject:
        return Subject(title=self.spec.name, text=json.dumps(arguments, ensure_ascii=False))

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        try:
            return ToolOutput(await self._answer(arguments))
        except msgspec.ValidationError as error:
            return ToolOutput(f"Wrong arguments: {error}.", is_error=True)
        except Refused as error:
            return ToolOutput(str(error), is_error=True)
        except AgentError as error:  # the editor was asked for a file and could not give it
            return ToolOutput(error.message, is_error=True)
        except OSError as error:  # its own text would name a path of this machine
            return ToolOutput(f"That could not be read: {error.strerror}.", is_error=True)


async def _read(
    workspace: Workspace,
    read_file: Callable[[Path], Awaitable[str | None]] | None,
    arguments: JsonObject,
) -> str:
    wanted = msgspec.convert(arguments, ReadArguments, strict=False)

    def from_disk(_: Stopped) -> tuple[Entry, str]:
        found = (
            entry if os.path.exists(entry.root / entry.relative) else workspace.alike(entry.name)
        )
        return found, workspace.read(found, READ_BYTES)

    entry = await in_thread(lambda _: workspace.locate(wanted.path))
    shown_by_editor = await read_file(entry.root / entry.relative) if read_file else None
    if shown_by_editor is None:
        entry, text = await in_thread(from_disk)
    else:
        text = shown_by_editor
    lines = text.removesuffix("\n").split("\n")
    start, end = wanted.start_line, min(wanted.end_line or len(lines), len(lines))
    if start > end:
        raise Refused(f"'{entry.name}' has {len(lines)} lines, none from {start} to {end}.")
    shown, more = bounded(lines[start - 1 : end])
    title = f"{entry.name}, lines {start}-{start + len(shown) - 1} of {len(lines)}"
    tail = [f"[{more} more lines; read on from line {start + len(shown)}]"] if more else []
    return "\n".join([title, *shown, *tail])


async def _list(workspace: Workspace, arguments: JsonObject) -> str:
    wanted = msgspec.convert(arguments, ListArguments, strict=False)

    def work(stopped: Stopped) -> list[str]:
        below = ""
        if wanted.path not in ("", ".", "./", "/"):
            entry = workspace.locate(wanted.path)
            if not os.path.isdir(entry.root / entry.relative):
                raise Refused(f"There is no folder {wanted.path[:200]!r} in the workspace.")
            below = "" if entry.name == "." else entry.name + "/"
        names = [e.name for e in workspace.files() if e.name.startswith(below)]
        if wanted.pattern:
            return [name for name in names if matches(name, wanted.pattern)]
        folders: dict[str, int] = {}
        files = []
        for name in names:
            child, is_folder, _ = name[len(below) :].partition("/")
            if is_folder:
                folders[child] = folders.get(child, 0) + 1
            else:
                files.append(name)
        counted = sorted(folders.items())
        plural = {1: "file"}
        return [
            f"{below}{child}/ ({count} {plural.get(count, 'files')})" for child, count in counted
        ] + sorted(files)

    shown, more = bounded(await in_thread(work))
    return "\n".join([*shown, f"[{more} more]"] if more else shown) or "No files."


async def _glob(workspace: Workspace, arguments: JsonObject) -> str:
    pattern = msgspec.convert(arguments, GlobArguments, strict=False).pattern.removeprefix("**/")
    names = await in_thread(
        lambda _: [e.name for e in workspace.files() if matches(e.name, pattern)]
    )
    shown, more = bounded(names)
    return "\n".join([*shown, f"[{more} more]"] if more else shown) or "No files."


async def _search(workspace: Workspace, arguments: JsonObject) -> str:
    wanted = msgspec.convert(arguments, SearchArguments, strict=False)
    result = await in_thread(
        lambda stopped: find_passages(workspace, wanted.query, wanted.max_results, stopped)
    )
    while len(content := msgspec.json.encode(result)) > OUTPUT_BYTES:
        result.passages.pop()
    return content.decode()


class Found(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What `search` answers."""

    passages: list[Passage]
    missing: list[str]
    files_searched: int
    notice: str = ""


def find_passages(workspace: Workspace, query: str, limit: int, stopped: Stopped) -> Found:
    """Blocks. Looks at every file once and at the best of them a second time."""
    deadline = time.monotonic() + SEARCH_SECONDS
    ranking = Ranking(Question(query))
    entries = workspace.files()
    notice = ""
    for number, entry in enumerate(entries):
        if stopped() or time.monotonic() > deadline:
            notice = f"Stopped after {number} of {len(entries)} files."
            break
        if (text := scanned(entry)) is not None:
            ranking.add(entry, text)
    found: list[Passage] = []
    for number, seen in enumerate(ranking.best(CANDIDATES)):
        # What was found until then is answered, but never nothing for want of time.
        if stopped() or (number > 3 and time.monotonic() > deadline):
            break
        try:
            text = workspace.read(seen.entry, SEARCH_BYTES)
        except (Refused, OSError):  # gone or changed since; the next question sees it
            continue
        found += _distinct(ranking.passages(seen, text))[:2]
    return Found(
        passages=_distinct(found)[:limit],
        missing=ranking.missing(),
        files_searched=ranking.added,
        notice=notice,
    )


def _distinct(passages: list[Passage]) -> list[Passage]:
    """The best first, without those that repeat lines of a better one."""
    kept: list[Passage] = []
    for passage in sorted(passages, key=lambda passage: -passage.score):
        if not any(
            passage.text == better.text
            or (
                passage.path == better.path
                and passage.line <= better.end_line
                and better.line <= passage.end_line
            )
            for better in kept
        ):
            kept.append(passage)
    return kept
