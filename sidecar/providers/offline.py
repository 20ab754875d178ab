"""The provider that answers when no model is connected.

It understands nothing and says so. It finds out by a few patterns whether it is asked about
itself, for a file, for a list of files, or (everything else) for something in the workspace,
calls the workspace's real tools for that, and quotes what they bring. All it knows of a
conversation is in the request, so it keeps no state.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlparse
from uuid import uuid4

import msgspec
from anyio.lowlevel import checkpoint

from ..conversations import (
    ContextFile,
    JsonObject,
    Message,
    SteeringPart,
    ToolCallPart,
    ToolResultPart,
)
from ..interfaces import ModelEvent, ModelRequest, ModelStop, TextDelta, ToolCall
from ..work import ReviewTask
from .offline_requests import USAGE, Request, read_request
from .offline_review import review
from .offline_talk import (
    ALL_SHOWN,
    HELP,
    LONGEST_TALK,
    MORE,
    NO_FOLDER,
    NO_MODEL,
    NOTHING_FOUND,
    OFFLINE,
    STATUS,
    STEPS,
    TALK,
)

PASSAGES = 3
"""Quoted per answer; the rest comes with "more"."""
PASSAGES_FETCHED = 8
READ_LINES = 60
ATTACHMENT_LINES = 24
ATTACHMENT_LENGTH = 200_000
"""As much of an attached file as is looked at, for this is done on the event loop."""
QUERY_LENGTH = 500

EMPTY_WORDS = set(
    """
    a an and are at can code do does explain file for how i in is it me my of on please review show
    summarize summarise tell that the there these this to what where which why with you
    """.split()  # noqa: SIM905  # forty quoted words are harder to read
)

LIST = re.compile(
    r"""(?xi) (?:(?:please|can\ you|could\ you)\ )?
    (?: (?:what's|what\ is)\ in
      | (?:ls|dir|tree|list) (?:\ (?:me|all|the|my))* (?:\ (?:files|folders|contents?))?
      | (?:show|show\ me|what|what's|which) (?:\ (?:is|are|all|the|my))*
        (?:\ (?:project|folder|directory|workspace))?
        \ (?:files?|folders?|directories|structure|tree|layout|contents?) )
    (?:\ and\ folders)? (?:\ (?:are|is|do\ (?:i|we|you)\ have))? (?:\ there)?
    (?:\ (?:in|of|under|inside|below|from))? (?:\ (?:the|this|my))?
    (?:\ (?P<path>\S+))? (?:\ (?:folder|directory))?"""
)
EVERYTHING = ("", ".", "/", "here", "it", "folder", "directory", "workspace", "project", "repo")
FILE = re.compile(
    r"""(?x) (?P<path> (?:[A-Za-z]:[\\/] | \.{0,2}[\\/])? (?:[\w@.+~-]+[\\/])*
      (?: [\w@.+~-]*\.[A-Za-z]\w{0,9} | (?<=[\\/])[\w@+~-]+
        | (?i:makefile|dockerfile|licen[sc]e|readme|changelog) ))
    [`'"]? (?: (?: : | \#L) (?P<first>\d+) (?:-L?(?P<last>\d+))? )?"""
)
LINES = re.compile(r"(?i)\blines? (?P<first>\d+)(?: ?(?:-|–|to|until) ?(?P<last>\d+))?")
OPEN = re.compile(
    r"(?i)(?:(?:please|can you|could you) )?(?:read|open|show|cat|print|view|display"
    r"|explain|review|summari[sz]e)\b"
    r"|what(?:'s| is| does) (?:in |inside )?[`'\"]?\S*[./]\S*(?: do| for| about| contain)?[\s?.!]*$"
)
TO_WHAT_WAS_BEFORE = re.compile(r"(?i)\b(?:it|its|they|them)\b|\bthat[\s?.!]*$")
OPENING = re.compile(r"(?i)(?:(?:ok|okay|thanks|hi|hello|hey|please|so|and)\b[\s,.!]+)+")
MAKING = re.compile(
    r"(?i)(?:(?:please|can you|could you|now) )*(write|fix|refactor|rename|add|create|implement"
    r"|change|delete|remove|generate|update|improve|optimi[sz]e|translate|summari[sz]e|review"
    r"|explain|debug|document)\b"
)
QUOTED = re.compile(r"^\*\*`(.+:\d+)`\*\*", re.MULTILINE)


class Passage(msgspec.Struct, rename="camel"):
    path: str
    line: int
    text: str
    score: float = 0.0
    words: tuple[str, ...] = ()


class Found(msgspec.Struct):
    """As much of what `search` answers as is used here."""

    passages: tuple[Passage, ...]
    missing: tuple[str, ...] = ()


class OfflineProvider:
    """Made without settings or keys. `product` says in a line how the product is doing; what it
    raises must be an `AgentError`."""

    name = "offline"

    def __init__(self, product: Callable[[], Awaitable[str]] | None = None) -> None:
        self._product = product

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        question, results = asked(request)
        is_talk = not results and request.prompt.task is None and read_request(question) is None
        text = await self._talk(question) if is_talk else None
        if text is None:
            calls = next_calls(question, request, results)
            for name, arguments in calls:
                yield ToolCall(uuid4().hex, name, arguments)
            if calls:
                yield ModelStop("toolCalls")
                return
            text = answer(question, request, results)
        for piece in re.findall(r"(?:\S+\s*){1,4}|\s+", text):
            # Other conversations have their turn between two pieces, and a cancel its effect.
            await checkpoint()
            yield TextDelta(piece)
        yield ModelStop("endTurn")

    async def aclose(self) -> None:
        """There is nothing to give back."""

    async def _talk(self, question: str) -> str | None:
        """The answer to a prompt about the product, None for one about the workspace."""
        said = re.findall(r"\w+", question.lower())
        if not said:
            return HELP
        if len(said) > LONGEST_TALK:
            return None
        if re.fullmatch(STATUS, " ".join(said)):
            now = [await self._product()] if self._product else []
            return "\n\n".join([OFFLINE, *now, STEPS])
        return next((text for form, text in TALK if re.fullmatch(form, " ".join(said))), None)


# ---- what is asked, and what to call for it ----------------------------------------------


class Result(NamedTuple):
    """A tool that was called for the question, and what came back."""

    tool: str
    arguments: JsonObject
    content: str
    failed: bool


Call = tuple[str, JsonObject]


def asked(request: ModelRequest) -> tuple[str, list[Result]]:
    """The question in hand and what was looked up for it. What the user adds while a turn runs
    is the new question."""
    question = request.prompt.input
    calls: dict[str, ToolCallPart] = {}
    results: list[Result] = []
    for part in request.steps:
        if isinstance(part, SteeringPart):
            question, calls, results = part.text, {}, []
        elif isinstance(part, ToolCallPart):
            calls[part.tool_call_id] = part
        elif isinstance(part, ToolResultPart) and (call := calls.get(part.tool_call_id)):
            results.append(Result(call.name, call.arguments, part.content, part.is_error))
    return question.strip(), results


def next_calls(question: str, request: ModelRequest, results: Sequence[Result]) -> list[Call]:
    wanted_tool = read_request(question)
    if wanted_tool is not None:
        wanted = [] if results or wanted_tool.problem else [wanted_tool[:2]]
    elif isinstance(request.prompt.task, ReviewTask):
        files = [] if results else request.prompt.context_files
        wanted = [("read", _lines_of(file)) for file in files if file.text is None]
    elif not results:
        wanted = _first_calls(question, request)
    elif all(result.failed and result.tool != "search" for result in results):
        # There is no such file or folder: look for what it was thought to be.
        path = str(results[0].arguments.get("path", ""))
        wanted = [_search(re.split(r"[\\/]", path.rstrip("\\/"))[-1] or question)]
    else:
        wanted = []
    known = {tool.name for tool in request.tools}
    return [call for call in wanted if call[0] in known]


def _first_calls(question: str, request: ModelRequest) -> list[Call]:
    before = _last_query(request.history)
    if before and re.fullmatch(MORE, " ".join(re.findall(r"\w+", question.lower()))):
        return [_search(before, PASSAGES_FETCHED + len(_shown(before, request.history)))]
    if looking := _looking(question):
        return [looking]
    if listing := LIST.fullmatch(question[:QUERY_LENGTH].rstrip(" ?!.")):
        path = listing["path"] or ""
        return [("list", {} if path.lower() in EVERYTHING else {"path": path.strip("`'\"")})]
    files = request.prompt.context_files
    reads = [("read", _lines_of(file)) for file in files if file.text is None]
    words = _words(question)
    if any(_hits(_text(file), words) == len(words) for file in files):
        return reads
    if before and len(question.split()) < 9 and TO_WHAT_WAS_BEFORE.search(question):
        question = f"{question} {before}"
    return [*reads, _search(question)]


def _search(question: str, limit: int = PASSAGES_FETCHED) -> Call:
    query = question
    for start in (OPENING, MAKING):
        if match := start.match(query):
            query = query[match.end() :].strip() or query
    return "search", {"query": query[:QUERY_LENGTH], "maxResults": min(limit, 30)}


def _looking(question: str) -> Call | None:
    """The call for a file, or a folder, that is asked for by its path."""
    # A long prompt is not looked through for paths: that takes the square of its length.
    match = FILE.search(question) if len(question) <= QUERY_LENGTH else None
    if match is None:
        return None
    lines = match if match["first"] else LINES.search(question)
    is_alone = FILE.fullmatch(question.strip("`'\" ?."))
    if not (lines or is_alone or OPEN.match(question)):
        return None
    arguments: JsonObject = {"path": match["path"]}
    if not lines:
        is_file = "." in arguments["path"] or not re.search(r"[\\/]", arguments["path"])
        return "read" if is_file else "list", arguments
    first, last = int(lines["first"]), int(lines["last"] or lines["first"])
    return "read", arguments | {"startLine": max(first, 1), "endLine": max(first, last, 1)}


def _lines_of(file: ContextFile) -> JsonObject:
    from urllib.request import url2pathname  # brings an HTTP client along

    parsed = urlparse(file.uri)
    arguments: JsonObject = {"path": url2pathname(parsed.path) if parsed.scheme else file.uri}
    if file.range:
        arguments |= {"startLine": file.range.start.line + 1, "endLine": file.range.end.line + 1}
    return arguments


# ---- what was said before ----------------------------------------------------------------


def _last_query(history: Sequence[Message]) -> str | None:
    for message in reversed(history):
        for part in reversed(message.parts):
            if isinstance(part, ToolCallPart) and part.name == "search":
                return str(part.arguments.get("query", ""))
    return None


def _shown(query: str, history: Sequence[Message]) -> set[str]:
    """The places already quoted for a query."""
    return {
        place
        for message in history
        if _last_query([message]) == query
        for place in QUOTED.findall(message.text)
    }


# ---- the answer --------------------------------------------------------------------------


def answer(question: str, request: ModelRequest, results: Sequence[Result]) -> str:
    """Quotations, each with its place, under one line that says what they are."""
    if (wanted := read_request(question)) is not None:
        return _done(wanted, request, results)
    if isinstance(request.prompt.task, ReviewTask):
        return _reviewed(request, results)
    sections: list[str] = []
    if task := MAKING.match(question):
        sections.append(
            f"I cannot {task[1].lower()} anything without a model; this is what is there."
        )
    words = _words(question)
    for file in request.prompt.context_files:
        if file.text and (not words or _hits(_text(file), words)):
            sections.append(_excerpt(file, words))
    for result in results:
        sections += _sections(result, request)
    if not sections:
        return NO_FOLDER
    return "\n\n".join([NO_MODEL, *sections])


def _done(wanted: Request, request: ModelRequest, results: Sequence[Result]) -> str:
    """What came of a tool that was asked for by name."""
    if wanted.problem:
        return f"{wanted.problem}\n\n{USAGE}"
    if not results:
        return (
            f"`{wanted.tool}` is not to be had here. Changing files and running commands needs the"
            " mode `build` (in a terminal: `/mode build`) and a folder."
        )
    return "\n\n".join(_sections(results[-1], request))


def _reviewed(request: ModelRequest, results: Sequence[Result]) -> str:
    files = [(name_of(f), f.text) for f in request.prompt.context_files if f.text is not None]
    for result in results:
        if result.tool == "read" and not result.failed:
            title, _, text = result.content.partition("\n")
            files.append((title.rpartition(", lines ")[0], text))
    return review(files)


def _sections(result: Result, request: ModelRequest) -> Iterator[str]:
    if result.failed:
        yield result.content
    elif result.tool == "search":
        yield from _found(result, _shown(result.arguments["query"], request.history))
    elif result.tool == "read":
        title, _, text = result.content.partition("\n")
        place, _, lines = title.rpartition(", lines ")
        yield _quote(f"{place}:{lines.partition('-')[0]}", text.split("\n"), READ_LINES)
    else:
        yield _fenced(result.content, "")


def _found(result: Result, shown: set[str]) -> Iterator[str]:
    try:
        found = msgspec.json.decode(result.content, type=Found)
    except msgspec.DecodeError:
        yield _fenced(result.content, "")
        return
    fresh = [passage for passage in found.passages if _place(passage) not in shown]
    if not fresh:
        yield ALL_SHOWN if found.passages else NOTHING_FOUND
        return
    best = fresh[0]
    words = {word for passage in found.passages for word in passage.words}
    absent = [word for word in found.missing if word]
    if absent:
        yield f"No file has {_listed(absent)}. The closest passage has {_listed(best.words)}:"
    elif len(best.words) < len(words):
        yield f"No passage has all of {_listed(sorted(words))}; the closest:"
    else:
        yield f"What fits {_listed(best.words)} best:"
    quoted = [passage for passage in fresh[:PASSAGES] if passage.score >= best.score / 2]
    for passage in quoted:
        yield _quote(_place(passage), passage.text.split("\n"), READ_LINES)
    if len(fresh) > len(quoted):
        yield "Say `more` for the next passages."


def _place(passage: Passage) -> str:
    return f"{passage.path}:{passage.line}"


def _listed(words: Sequence[str]) -> str:
    """The words, without those that are only pieces of a name among them."""
    whole = [w for w in words if not any(w != o and w.lower() in o.lower() for o in words)]
    return ", ".join(f"“{word}”" for word in whole)


def _quote(place: str, lines: Sequence[str], limit: int) -> str:
    rest = len(lines) - limit
    suffix = PurePosixPath(place.rpartition(":")[0]).suffix.lstrip(".")
    quoted = f"**`{place}`**\n\n{_fenced(chr(10).join(lines[:limit]), suffix)}"
    return f"{quoted}\n\n{rest} more lines follow." if rest > 0 else quoted


def _fenced(text: str, language: str) -> str:
    """A code block that its text cannot end."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language if language.isalnum() else ''}\n{text}\n{fence}"


def _words(question: str) -> set[str]:
    return set(re.findall(r"\w+", question[:QUERY_LENGTH].lower())) - EMPTY_WORDS


def _text(file: ContextFile) -> str:
    return (file.text or "")[:ATTACHMENT_LENGTH]


def _hits(text: str, words: set[str]) -> int:
    low = text.lower()
    return sum(word in low for word in words)


def name_of(file: ContextFile) -> str:
    return PurePosixPath(unquote(urlparse(file.uri).path)).name or file.uri


def _excerpt(file: ContextFile, words: set[str]) -> str:
    """The lines of an attached file that have most of the words; a short file whole."""
    lines = _text(file).split("\n")
    start = 0
    if len(lines) > ATTACHMENT_LINES:
        best = max(range(len(lines)), key=lambda number: _hits(lines[number], words))
        start = max(0, best - 3)
    first = file.range.start.line if file.range else 0
    return _quote(
        f"{name_of(file)}:{first + start + 1}", lines[start : start + ATTACHMENT_LINES], READ_LINES
    )
