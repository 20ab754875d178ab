"""Tools that look into the workspace and change nothing: `read`, `list` and `search`.

Owns the way in: every path an agent names is resolved, must lie inside a workspace folder, and
is checked again once the file is open. File work runs in a worker thread, bounded in files,
bytes and time. `search` answers a question asked in words with the passages most likely to hold
the answer; it keeps no index, so it never answers from an old state.
"""

from __future__ import annotations

import fnmatch
import math
import os
import re
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple, TypeVar

import msgspec
from anyio import to_thread

from ..conversations import JsonObject
from ..errors import AgentError
from ..interfaces import Tool, ToolOutput, ToolSpec

T = TypeVar("T")
Stopped = Callable[[], bool]
"""Whether nobody waits for the answer any more."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


OUTPUT_BYTES = 64 * 1024
READ_BYTES = 8 * 1024 * 1024
SEARCH_BYTES = 1024 * 1024
"""Per file. What is larger is data or generated; nobody asks where it is defined."""
MAX_FILES = 50_000
SEARCH_SECONDS = 10.0
"""More than a local disk needs for `MAX_FILES`; ends a search on a network mount."""
GIT_SECONDS = 5.0
GIT_ENVIRONMENT = _words("PATH HOME XDG_CONFIG_HOME USERPROFILE APPDATA SYSTEMROOT TEMP TMP")
"""All of our environment that git gets to see: there may be keys in the rest."""

CANDIDATES = 60
"""Files whose passages are weighed one by one, after all files were weighed as a whole."""
PASSAGE_LINES = 18
LINE_LENGTH = 240

SKIPPED_FOLDERS = frozenset(
    _words("""
    node_modules bower_components __pycache__ venv dist build out target site-packages
    coverage htmlcov
    """)
)
SKIPPED_SUFFIXES = _words("""
    .png .jpg .jpeg .gif .webp .ico .icns .bmp .pdf .zip .gz .bz2 .xz .zst .7z .tar .jar .whl
    .so .dylib .dll .exe .o .a .pyc .class .wasm .woff .woff2 .ttf .otf .eot .mp3 .mp4 .mov
    .sqlite .sqlite3 .db .lock .map .min.js .min.css package-lock.json
    """)
SECRETS = (".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*")
"""Never listed and never searched, so that no key is quoted by accident."""


class Refused(Exception):
    """An everyday failure, in words for the model. Becomes an `is_error` output."""


class Entry(NamedTuple):
    """A file: its workspace folder, its path below that, and the name agents know it by."""

    root: Path
    relative: str
    name: str


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
        WorkspaceTool(SEARCH, partial(_search, workspace)),
    ]


# ---- the way in --------------------------------------------------------------------------


class Workspace:
    """Some folders, and the only way for these tools to reach a file. Every method blocks.

    With several folders a name begins with its folder's, as editors show it.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._given = roots

    @cached_property
    def roots(self) -> dict[str, Path]:
        roots: dict[str, Path] = {}
        for root in dict.fromkeys(Path(os.path.realpath(root)) for root in self._given):
            twins = sum(other.name == root.name for other in roots.values())
            roots[f"{root.name}-{twins + 1}" if twins else root.name] = root
        return roots

    def locate(self, name: str) -> Entry:
        """The file or folder that `name` means; the first meaning that exists wins."""
        inside: list[Entry] = []
        for label, root in self.roots.items():
            head, _, tail = name.partition("/")
            for guess in [name] + [tail] * (head == label):
                try:
                    real = Path(os.path.realpath(root / guess))
                except ValueError:  # a null byte, a lone surrogate
                    continue
                if real == root or root in real.parents:
                    inside.append(self._entry(label, real.relative_to(root).as_posix()))
        if not inside:
            raise Refused(f"{name[:200]!r} is not inside the workspace folders.")
        return next((e for e in inside if (e.root / e.relative).exists()), inside[0])

    def files(self) -> list[Entry]:
        """Every file but the ignored, the generated and the likely secret."""
        found: list[Entry] = []
        for label, root in self.roots.items():
            for relative in sorted(_git_files(root, self.roots.values()) or _walk(root)):
                base = relative.rpartition("/")[2].lower()
                is_secret = any(fnmatch.fnmatchcase(base, secret) for secret in SECRETS)
                if relative.isprintable() and not is_secret:
                    found.append(self._entry(label, relative))
        return found[:MAX_FILES]

    def alike(self, name: str) -> Entry:
        """The file nearest to the top whose path ends in `name`, for an agent that knows only
        that much; case and a missing suffix are forgiven."""
        wanted = f"/{name.lower()}"
        found: dict[int, list[Entry]] = {}
        for entry in self.files():
            path = f"/{entry.name.lower()}"
            if path.endswith(wanted) or path.rpartition(".")[0].endswith(wanted):
                found.setdefault(path.count("/"), []).append(entry)
        if not found:
            raise Refused(f"There is no file {name[:200]!r} in the workspace.")
        nearest = found[min(found)]
        if len(nearest) > 1:
            names = ", ".join(entry.name for entry in nearest[:10])
            raise Refused(f"There are {len(nearest)} such files: {names}.")
        return nearest[0]

    def read(self, entry: Entry, limit: int) -> str:
        """The text of a regular file. Nothing on the way may be a link any more, and what was
        opened must be what is there: no swap between the check and the use."""
        path = entry.root / entry.relative
        with _open(path) as file:
            opened = os.fstat(file.fileno())
            if Path(os.path.realpath(path)) != path or not os.path.samestat(path.stat(), opened):
                raise Refused(f"'{entry.name}' changed while it was being read.")
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Refused(f"'{entry.name}' is larger than {limit // 1024} KiB.")
        if (text := _text(data)) is None:
            raise Refused(f"'{entry.name}' is not a text file.")
        return text

    def _entry(self, label: str, relative: str) -> Entry:
        name = relative if len(self.roots) == 1 else f"{label}/{relative}".removesuffix("/.")
        return Entry(self.roots[label], relative, name)


def _open(path: Path) -> BinaryIO:
    """A regular file, never through a link at its end, never waiting for a pipe's writer."""
    wanted = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    fd = os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in wanted))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused("That is not a file. A folder can be listed.")
    return open(fd, "rb")


def _text(data: bytes) -> str | None:
    """Text with `\\n` line ends, or None for a binary file."""
    if b"\0" in data[:8192]:
        return None
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _git_files(root: Path, roots: Collection[Path]) -> list[str]:
    """What git tracks or would track below `root`; empty when git cannot tell."""
    import shutil
    import subprocess

    git = shutil.which("git")
    # A program that lies in the workspace is the workspace's, not the user's.
    if git is None or any(other in Path(os.path.realpath(git)).parents for other in roots):
        return []
    environment = {name: os.environ[name] for name in GIT_ENVIRONMENT if name in os.environ}
    try:
        result = subprocess.run(
            # The repository's own configuration could name a program to run as its monitor.
            [git, "-c", "core.fsmonitor=false", "ls-files", "-coz", "--exclude-standard"],
            cwd=root,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    names = dict.fromkeys(os.fsdecode(name) for name in result.stdout.split(b"\0") if name)
    # A folder in this list is another work tree inside this one.
    nested = [f"{name}{inner}" for name in names if name[-1] == "/" for inner in _walk(root / name)]
    return nested + [name for name in names if name[-1] != "/" and ".." not in name.split("/")]


def _walk(root: Path) -> list[str]:
    """Files below a folder that git does not know, hidden and generated folders left out."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED_FOLDERS and (name[0] != "." or name == ".github")
        )
        below = Path(folder).relative_to(root)
        found += [(below / name).as_posix() for name in files]
        if len(found) >= MAX_FILES:
            break
    return found


# ---- what a question asks for ------------------------------------------------------------

NOISE = frozenset(
    _words("""
    a about all also an and any anything are as at be because been being by can class classes
    code codebase could define defined defines definition describe did do does doing done each
    explain file files find for from function functions get gets give go handle handled handles
    happen happens has have help here how i if implement implementation implemented implements
    in into is it its kept know let lets lie lies like line live lives located look looking made
    make makes many me method methods module much my need no of off on or our out part place
    please project repo repository responsible say says search see should show so some something
    tell than that the their them then there these they thing this those through to under up us
    usages use used uses using want was we were what whats when where wheres whether which while who
    whose why will with work working works would you your
    """)
)
"""Words that say how something is asked, not what."""

KIN = (
    "auth authentication authorization login",
    "config configuration setting option",
    "database db sqlite sql",
    "dependency requirement require",
    "docs documentation",
    "entry main",
    "error exception failure",
    "init initialize initialise setup",
    "install setup",
    "license licence copying",
    "log logger logging",
    "maximum max limit",
    "minimum min",
    "param parameter argument",
    "remove delete",
    "request req",
    "response resp",
    "run start launch script",
    "stop cancel abort shutdown",
    "support require compatible",
    "throw thrown raise",
    "test pytest unittest jest",
    "version changelog",
)
"""Words that a question and its answer may exchange; each counts less than the word itself."""

USAGE = re.compile(
    r"(?i)\bhow (?:to|(?:do|can|could|should|would) (?:i|we|you|one))\b|licen[sc]e|install"
    r"|\b(?:this|the) (?:project|repo\w*|codebase|library|package)\b(?! ?\w)"
)
CODE = re.compile(
    r"(?i)\b(implement\w*|defin\w*|function|method|class|struct|handled|parsed|where|code|logic)\b"
)
TOKEN = re.compile(r"[\w$]+(?:\.[A-Za-z_]\w*)*")
IDENTIFIER = re.compile(r"\w+")
SUBWORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
ENDINGS = _words("""
    ations ation ators ator ating ated ates ate ions ion ings ing ments ment ies ied ers er
    ors or ed es e s y
    """)

Answers = tuple[tuple[int, float], ...]
"""Which terms of a question something answers (by number), and how well (1 is fully)."""


def stem(word: str) -> str:
    """What `retry`, `retries` and `retrying` have in common, roughly: English endings off, at
    least four letters left."""
    if not word.isascii() or len(word) < 5:
        return word[:-1] if len(word) == 4 and word[-1] == "s" != word[-2] else word
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            left = word[: -len(ending)]
            doubled = ending in ("ing", "ed", "er", "ers") and left[-1] == left[-2]
            return left[:-1] if doubled and left[-1] not in "lsz" else left
    return word


def parts_of(identifier: str) -> list[str]:
    """`getHTTPUrl` and `get_http_url` → get, http, url (in the case they have)."""
    if identifier.isascii():
        return SUBWORD.findall(identifier)
    return [part for part in identifier.split("_") if part]


class Term(NamedTuple):
    """One thing to look for: a word, or a name such as `runAll`, matched as a whole."""

    text: str
    weight: float
    forms: tuple[str, ...]
    """What to look for in lower case: the stem, then the stems of its kin."""
    is_name: bool = False


class Question:
    """What a question in words asks for, and how well the words of a text answer it."""

    def __init__(self, text: str) -> None:
        self.about_tests = bool(re.search(r"(?i)\btest", text))
        self.wants = "use" if USAGE.search(text) else "code" if CODE.search(text) else "any"
        tokens = TOKEN.findall(text[:2_000])
        said = [token for token in tokens if token.lower() not in NOISE]
        terms: dict[str, Term] = {}
        # Nothing but noise, as in "what is this project about", is a question for the readme.
        for token in said or ["readme"]:
            for term in _terms(token):
                terms.setdefault(term.forms[0], term)
        self.terms = list(terms.values())[:16]
        self.names = [(n, term) for n, term in enumerate(self.terms) if term.is_name]
        self.words = [(n, term) for n, term in enumerate(self.terms) if not term.is_name]
        self._known: dict[str, Answers] = {}

    def answers(self, identifier: str) -> Answers:
        """What one identifier or word of a text answers, in the order of its parts."""
        if identifier not in self._known:
            parts = parts_of(identifier)
            whole = identifier.lower()
            found = [pair for part in parts for pair in self._of_word(part.lower())]
            if len(parts) > 1 and not found:  # GZip, web_socket
                found = [
                    pair for a, b in pairwise(parts) for pair in self._of_word((a + b).lower())
                ]
            found += [(n, 1.0) for n, term in self.names if term.forms[0] == whole]
            self._known[identifier] = tuple(found)
        return self._known[identifier]

    def _of_word(self, word: str) -> Answers:
        root = stem(word)
        for n, term in self.words:
            if root == term.forms[0]:
                return ((n, 1.0 if word == term.text else 0.9),)
        for n, term in self.words:
            if root in term.forms:
                return ((n, 0.7),)
        for n, term in self.words:
            if len(word) > 5 and word.startswith(term.text):  # urlparse
                rest = stem(word[len(term.text) :])
                if also := [(m, 0.8) for m, other in self.words if other.forms[0] == rest]:
                    return ((n, 0.8), *also)
            if len(term.forms[0]) > 4 and (
                word.startswith(term.forms[0]) or word.endswith(term.text)
            ):
                return ((n, 0.45),)
        return ()


def _terms(token: str) -> Iterator[Term]:
    words = [part.lower() for name in token.split(".") for part in parts_of(name)]
    if len(words) != 1:
        yield Term(token, 2.0, (token.lower(),), is_name=True)
    for word in words:
        if word not in NOISE or len(words) == 1:
            root = stem(word)
            families = (tuple(map(stem, line.split())) for line in KIN)
            kin = [other for family in families if root in family for other in family]
            forms = tuple(dict.fromkeys([root, *kin]))
            yield Term(word, 1.0 if len(words) == 1 else 0.5, forms)


# ---- where it may be answered ------------------------------------------------------------

DEFINITION = re.compile(
    r"\s*(?:(?:export|default|public|private|protected|internal|static|async|abstract|final|unsafe"
    r"|pub(?:\(\w+\))?|virtual|override|extern|inline|declare|readonly|sealed)\s+)*"
    r"(?:def|class|function\*?|fn|func|struct|enum|trait|interface|type|module|namespace|mod|impl"
    r"|object|record|protocol|extension|macro_rules!)\s+(?:\([^)]*\)\s*)?([\w$]+)"
    r"|(?:export\s+)?(?:(?:const|let|var|val|static)\s+)?([A-Za-z_$][\w$]*)\s*(?::[^=]{1,80})?=(?!=)"
    r"|\s*(?!if\b|for\b|while\b|switch\b|catch\b|else\b|return\b|new\b)"
    r"(?:[\w$<>\[\]*&:,.?]+\s+){0,5}[*&]*([\w$]+)\([^;]*\)[^;=(]*\{$"
    r"|\W*CREATE\s+(?:VIRTUAL\s+)?TABLE\s+(?:IF NOT EXISTS\s+)?(\w+)"
)
HEADING = re.compile(r"#{1,6}\s+(.+)|={2,}\s+(.+?)\s+=+$")
UNDERLINE = re.compile(r"([=\-~^\"'#*+])\1{2,}\s*")
SECTION = re.compile(
    r"\[+([^\]]+)\]|([\w./-]+)\s*[:=]|(?:\t| {2})\"([\w./-]+)\"\s*:| {2}([\w-]+):$"
)
IMPORT = re.compile(r"\s*(?:import|from|use|using|#include|package)\b|.*\brequire\(")
GENERATED = re.compile(r"(?i)\bgenerated (?:by|from|file|code)|do not edit|auto-?generated")
LEAD = ("@", "#", "//", "/*", "*", "--")
"""What lines right above a definition that belong to it begin with."""

TESTS = re.compile(
    r"(?:^|.*/)(?:(?:tests?|testing|__tests__|specs?|e2e|fixtures?|examples?|bench\w*)/.*"
    r"|test_[^/]*|conftest\.[^/]*|[^/]*[._](?:test|spec)\.[^/]*)"
)
DATA = (".csv", ".tsv", ".svg", ".log", ".po", ".ipynb", ".jsonl", ".snap")
CONFIG = _words("""
    .toml .json .jsonc .yaml .yml .cfg .ini .xml .properties makefile dockerfile justfile
    """)
FIRST = re.compile(r"readme|contributing|install|getting|quick|licen[sc]e|copying|authors|notice")
"""Beginnings of the names of files that are written for newcomers."""
PROSE = (".md", ".mdx", ".rst", ".txt", ".adoc")
WORTH = {
    "code": {"code": 1.0, "docs": 0.5, "config": 0.5, "tests": 0.5, "data": 0.2},
    "any": {"code": 1.0, "docs": 0.85, "config": 0.7, "tests": 0.5, "data": 0.3},
    "use": {"code": 0.6, "docs": 1.2, "config": 0.9, "tests": 0.4, "data": 0.3},
}
"""What a question wants → the kind of file → how much its passages count."""


def kind_of(relative: str, size: int) -> str:
    path = relative.lower()
    name = path.rpartition("/")[2]
    if TESTS.fullmatch(path):
        return "tests"
    if name.endswith(DATA) or (name.endswith(".json") and size > 32 * 1024):
        return "data"
    if name.endswith(CONFIG):
        return "config"
    return "docs" if name.endswith(PROSE) or ("." not in name and FIRST.match(name)) else "code"


class Passage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Lines of a file that may answer a question, counted from 1."""

    path: str
    line: int
    end_line: int
    text: str
    score: float
    words: tuple[str, ...]
    """The words of the question that are in it, or in its path."""


class Block(NamedTuple):
    """A piece of a text: a definition, a section, or some lines up to a blank one."""

    start: int
    end: int
    head: int
    """The line that names it; what stands before is its comment."""
    name: str
    inside: str
    """The name of what it is a part of, for a method its class."""


class Seen(NamedTuple):
    """A file as a whole: how often each term occurs, and how well its path answers each."""

    entry: Entry
    counts: list[int]
    in_path: list[float]
    size: int


class Ranking:
    """Weighs texts against one question. First `add` every file, then ask for the `best` and
    for their `passages`: which words are rare is known only after all files were seen."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.files: list[Seen] = []
        self.added = 0
        self.weights: list[float] = []
        self._forms = [form for term in question.terms for form in term.forms]

    def add(self, entry: Entry, text: str) -> None:
        self.added += 1
        low = text.lower()
        counts = [
            low.count(term.forms[0]) or max(low.count(form) for form in term.forms)
            for term in self.question.terms
        ]
        in_path = self._in_path(entry.relative)
        if any(counts) or any(in_path):
            self.files.append(Seen(entry, counts, in_path, len(text)))

    def missing(self) -> list[str]:
        """Words of the question that no file has, in its text or path."""
        return [term.text for n, term in enumerate(self.question.terms) if not self._holders(n)]

    def best(self, limit: int) -> list[Seen]:
        """The files most worth a closer look."""
        self.weights = []
        for n, term in enumerate(self.question.terms):
            found = self._holders(n)
            rarity = math.log(1 + (self.added - found + 0.5) / (found + 0.5))
            self.weights.append(term.weight * max(rarity, 0.2) if found else 0.0)
        mean = sum(seen.size for seen in self.files) / max(len(self.files), 1) + 1

        def worth(seen: Seen) -> float:
            room = 1 + min(seen.size / mean, 3)
            counted = [count / (count + room) for count in seen.counts]
            held = [bool(c or p) for c, p in zip(seen.counts, seen.in_path, strict=True)]
            return (self._sum(counted) + self._sum(seen.in_path)) * self._share(held)

        return sorted(self.files, key=worth, reverse=True)[:limit]

    def passages(self, seen: Seen, text: str) -> list[Passage]:
        """The passages of one file that answer anything, in no order."""
        lines = text.split("\n")
        kind = kind_of(seen.entry.relative, seen.size)
        worth = WORTH[self.question.wants][kind]
        if kind == "tests" and self.question.about_tests and self.question.wants != "use":
            worth = 1.0
        if GENERATED.search(text, 0, 600) or seen.entry.relative.startswith("."):
            worth *= 0.5
        if self.question.wants == "use" and FIRST.match(seen.entry.relative.lower()):
            worth *= 1.3
        answers = {n: row for n, line in enumerate(lines) if (row := self._in_line(line))}
        found: list[Passage] = []
        for block in _blocks(lines, kind):
            hits = [n for n in range(block.start, block.end) if n in answers]
            if hits or (block.start == 0 and any(seen.in_path)):
                score, held = self._score(block, [answers[n] for n in hits], seen.in_path)
                first = hits[0] if hits else block.head
                if kind in ("config", "data") and not block.start:
                    block = block._replace(start=first, head=first)
                found.append(self._passage(seen.entry, lines, block, first, score * worth, held))
        return found

    def _score(
        self, block: Block, rows: list[Answers], in_path: list[float]
    ) -> tuple[float, list[float]]:
        """How well a block answers, and how much of each term it holds."""
        said = [0.0] * len(self.weights)
        for row in rows:
            for n, quality in row:
                said[n] += quality
        named, inside = self._in_name(block.name), self._in_name(block.inside)
        begins = block.start == 0  # a module's first lines say what it is about
        score = self._sum([s / (s + 1) for s in said]) + 0.4 * self._neighbours(rows)
        score += 0.5 * max((self._in_one_line(row) for row in rows), default=0.0)
        # The name of a one-liner says less than the name of something with a body.
        score += (0.9 + 0.6 * min(block.end - block.head, 8) / 8) * self._sum(named)
        score += (1.4 if begins else 0.7) * self._sum(in_path) + 0.3 * self._sum(inside)
        held = [
            max(min(s, 1), d, 0.7 * p, 0.6 * i)
            for s, d, p, i in zip(said, named, in_path, inside, strict=True)
        ]
        return score * self._share(held), held

    def _passage(
        self,
        entry: Entry,
        lines: list[str],
        block: Block,
        first: int,
        score: float,
        held: list[float],
    ) -> Passage:
        start = block.start if first < block.head or block.head - block.start < 8 else block.head
        if first - start > PASSAGE_LINES - 5:
            start = first - 3
        end = min(max(block.end, start + 8), start + PASSAGE_LINES, len(lines))
        while start < end - 1 and not lines[start].strip():
            start += 1
        while start < end - 1 and not lines[end - 1].strip():
            end -= 1
        terms = zip(self.question.terms, held, strict=True)
        return Passage(
            path=entry.name,
            line=start + 1,
            end_line=end,
            text="\n".join(line[:LINE_LENGTH] for line in lines[start:end]),
            score=round(score, 2),
            words=tuple(term.text for term, share in terms if share),
        )

    def _holders(self, n: int) -> int:
        return sum(1 for seen in self.files if seen.counts[n] or seen.in_path[n])

    def _sum(self, shares: Sequence[float]) -> float:
        return sum(w * share for w, share in zip(self.weights, shares, strict=True))

    def _share(self, held: Sequence[float]) -> float:
        """What part of the question is answered at all; a missing word costs more than its
        weight."""
        return float((0.2 + 0.8 * self._sum(held) / (sum(self.weights) or 1.0)) ** 1.5)

    def _neighbours(self, rows: list[Answers]) -> float:
        """Terms that follow each other as they do in the question."""
        pairs = {(a, b) for row in rows for (a, _), (b, _) in pairwise(row) if b == a + 1}
        return sum(min(self.weights[a], self.weights[b]) for a, b in pairs)

    def _in_one_line(self, row: Answers) -> float:
        best: dict[int, float] = {}
        for n, quality in row:
            best[n] = max(best.get(n, 0.0), quality)
        return sum(self.weights[n] * quality for n, quality in best.items())

    def _in_name(self, name: str) -> list[float]:
        """How well a name answers each term: less, the more else is in it."""
        said = [0.0] * len(self.question.terms)
        parts = 0
        for identifier in IDENTIFIER.findall(name):
            parts += len(parts_of(identifier))
            for n, quality in self.question.answers(identifier):
                said[n] = max(said[n], quality)
        precision = min(1.0, sum(map(bool, said)) / parts) ** 0.5 if parts else 0.0
        return [share * precision for share in said]

    def _in_path(self, relative: str) -> list[float]:
        folder, _, name = relative.rpartition("/")
        base, around = self._in_name(name.partition(".")[0] or name), self._in_name(folder)
        said = [max(b, 0.4 * a) for b, a in zip(base, around, strict=True)]
        for n, term in self.question.names:  # errors.py
            said[n] = max(said[n], float(relative.lower().endswith(term.forms[0])))
        return said

    def _in_line(self, line: str) -> Answers:
        low = line.lower()
        if not any(form in low for form in self._forms):
            return ()
        worth = 0.3 if IMPORT.match(line) else 1.0
        found = [
            (n, quality * worth)
            for identifier in IDENTIFIER.findall(line[:2_000])
            for n, quality in self.question.answers(identifier)
        ]
        names = self.question.names
        dotted = [(n, worth) for n, term in names if "." in term.text and term.forms[0] in low]
        return (*found, *dotted)


def _blocks(lines: list[str], kind: str) -> Iterator[Block]:
    block, outer, is_example = Block(0, 0, 0, "", ""), "", False
    for number, line in enumerate(lines):
        if kind == "docs" and line.lstrip().startswith("```"):
            is_example = not is_example
        name = "" if is_example else _name_of(lines, number, kind)
        if name:
            start = number
            while kind in ("code", "tests") and start > block.start and _leads(lines[start - 1]):
                start -= 1
            if start > block.start:
                yield block._replace(end=start)
            is_outer = not line[0].isspace()
            block = Block(start, 0, number, name, "" if is_outer else outer)
            outer = name if is_outer else outer
        elif number - block.start >= (25 if not line.strip() and not is_example else 45):
            yield block._replace(end=number)
            block = Block(number, 0, number, "", block.name or block.inside)
    yield block._replace(end=len(lines))


def _leads(line: str) -> bool:
    return line.lstrip().startswith(LEAD)


def _name_of(lines: list[str], number: int, kind: str) -> str:
    line = lines[number][:200]
    if kind == "docs":
        if number + 1 < len(lines) and UNDERLINE.fullmatch(lines[number + 1]):
            return line
        match = HEADING.match(line)
    else:
        match = (SECTION if kind in ("config", "data") else DEFINITION).match(line)
    return next(filter(None, match.groups()), "") if match else ""


# ---- the tools ---------------------------------------------------------------------------


class ReadArguments(msgspec.Struct, rename="camel"):
    path: Annotated[str, msgspec.Meta(min_length=1)]
    start_line: Annotated[int, msgspec.Meta(ge=1)] = 1
    end_line: Annotated[int, msgspec.Meta(ge=1)] | None = None


class ListArguments(msgspec.Struct, rename="camel"):
    path: str = ""
    pattern: str = ""


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

    reads_only = True

    def __init__(self, spec: ToolSpec, answer: Callable[[JsonObject], Awaitable[str]]) -> None:
        self.spec = spec
        self._answer = answer

    async def run(self, arguments: JsonObject) -> ToolOutput:
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


async def _in_thread(work: Callable[[Stopped], T]) -> T:
    """Run blocking work off the loop. A cancelled caller does not wait for it, and it is told."""
    stop = threading.Event()
    try:
        return await to_thread.run_sync(work, stop.is_set, abandon_on_cancel=True)
    finally:
        stop.set()


async def _read(
    workspace: Workspace,
    read_file: Callable[[Path], Awaitable[str | None]] | None,
    arguments: JsonObject,
) -> str:
    wanted = msgspec.convert(arguments, ReadArguments, strict=False)

    def from_disk(_: Stopped) -> tuple[Entry, str]:
        found = entry if (entry.root / entry.relative).exists() else workspace.alike(entry.name)
        return found, workspace.read(found, READ_BYTES)

    entry = await _in_thread(lambda _: workspace.locate(wanted.path))
    shown_by_editor = await read_file(entry.root / entry.relative) if read_file else None
    if shown_by_editor is None:
        entry, text = await _in_thread(from_disk)
    else:
        text = shown_by_editor
    lines = text.removesuffix("\n").split("\n")
    start, end = wanted.start_line, min(wanted.end_line or len(lines), len(lines))
    if start > end:
        raise Refused(f"'{entry.name}' has {len(lines)} lines, none from {start} to {end}.")
    shown, more = _bounded(lines[start - 1 : end])
    title = f"{entry.name}, lines {start}-{start + len(shown) - 1} of {len(lines)}"
    tail = [f"[{more} more lines; read on from line {start + len(shown)}]"] if more else []
    return "\n".join([title, *shown, *tail])


async def _list(workspace: Workspace, arguments: JsonObject) -> str:
    wanted = msgspec.convert(arguments, ListArguments, strict=False)

    def work(stopped: Stopped) -> list[str]:
        below = ""
        if wanted.path not in ("", ".", "./", "/"):
            entry = workspace.locate(wanted.path)
            if not (entry.root / entry.relative).is_dir():
                raise Refused(f"There is no folder {wanted.path[:200]!r} in the workspace.")
            below = "" if entry.name == "." else entry.name + "/"
        names = [e.name for e in workspace.files() if e.name.startswith(below)]
        if wanted.pattern:
            return [name for name in names if _matches(name, wanted.pattern)]
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

    shown, more = _bounded(await _in_thread(work))
    return "\n".join([*shown, f"[{more} more]"] if more else shown) or "No files."


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(tail, pattern) for tail in (name, name.rpartition("/")[2]))


def _bounded(lines: list[str]) -> tuple[list[str], int]:
    """As many lines as an output may hold, at least a piece of the first; how many are left."""
    room = OUTPUT_BYTES - 1024
    for number, line in enumerate(lines):
        room -= len(line.encode("utf-8", "replace")) + 1
        if room < 0:
            shown = lines[:number] or [line[: OUTPUT_BYTES // 4] + " […]"]
            return shown, len(lines) - len(shown)
    return lines, 0


async def _search(workspace: Workspace, arguments: JsonObject) -> str:
    wanted = msgspec.convert(arguments, SearchArguments, strict=False)
    result = await _in_thread(
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
        if (text := _scanned(entry)) is not None:
            ranking.add(entry, text)
    found: list[Passage] = []
    for seen in ranking.best(CANDIDATES):
        if stopped():
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


def _scanned(entry: Entry) -> str | None:
    """A file's text for weighing it. What is quoted is read again, with every check."""
    if entry.relative.lower().endswith(SKIPPED_SUFFIXES):
        return None
    try:
        with _open(entry.root / entry.relative) as file:
            data = file.read(SEARCH_BYTES + 1)
    except (Refused, OSError):
        return None
    return _text(data) if len(data) <= SEARCH_BYTES else None
