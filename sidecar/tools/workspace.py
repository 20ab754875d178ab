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
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

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

CANDIDATES = 100
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
        self.roots: dict[str, Path] = {}
        for root in dict.fromkeys(Path(os.path.realpath(root)) for root in roots):
            twins = sum(other.name == root.name for other in self.roots.values())
            self.roots[f"{root.name}-{twins + 1}" if twins else root.name] = root

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
        """The one file whose name ends in `name`, for an agent that knows only that much."""
        found = [entry for entry in self.files() if f"/{entry.name}".endswith(f"/{name}")]
        if len(found) == 1:
            return found[0]
        some = ", ".join(entry.name for entry in found[:10])
        raise Refused(
            f"There are {len(found)} files of that name: {some}."
            if found
            else f"There is no file {name[:200]!r} in the workspace."
        )

    def read(self, entry: Entry, limit: int) -> str:
        """The text of a regular file. Nothing on the way may be a link any more, and what was
        opened must be what is there: no swap between the check and the use."""
        path = entry.root / entry.relative
        with open(_open(path), "rb") as file:
            opened = os.fstat(file.fileno())
            if not stat.S_ISREG(opened.st_mode):
                raise Refused(f"'{entry.name}' is not a file; a folder can be listed.")
            if Path(os.path.realpath(path)) != path or not os.path.samestat(path.stat(), opened):
                raise Refused(f"'{entry.name}' changed while it was being read.")
            if opened.st_size > limit:
                raise Refused(f"'{entry.name}' is larger than {limit // 1024} KiB.")
            text = _text(file.read(limit))
        if text is None:
            raise Refused(f"'{entry.name}' is not a text file.")
        return text

    def _entry(self, label: str, relative: str) -> Entry:
        name = relative if len(self.roots) == 1 else f"{label}/{relative}".removesuffix("/.")
        return Entry(self.roots[label], relative, name)


def _open(path: Path) -> int:
    """Never through a link at the end, never waiting for a pipe's writer."""
    wanted = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    return os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in wanted))


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
    a about all also an and any are as at be been being by can class classes code codebase
    could define defined defines definition describe did do does done each explain file files
    find for from function functions get gets give go handle handled handles happen happens
    has have help here how i if implement implementation implemented implements in into is it
    its kept know lie lies like line live lives located look looking made make makes many me
    method methods module much my need no of on or our part place please project repo
    repository responsible say says search see should show so some tell than that the their
    them then there these they thing this those through to under up us use used uses using
    want was we were what whats when where wheres which while who whose why will with work
    working works would you your
    """)
)
"""Words that say how something is asked, not what."""

KIN = (
    "auth authentication authorization login",
    "config configuration setting option",
    "database db sqlite sql",
    "dependency requirement require",
    "docs documentation readme",
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
SUBWORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
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
            parts = SUBWORD.findall(identifier)
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
                return ((n, 0.5),)
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
    words = [word.lower() for word in SUBWORD.findall(token)]
    if len(words) != 1:
        yield Term(token, 2.0, (token.lower(),), is_name=True)
    for word in words:
        if word not in NOISE or len(words) == 1:
            kin = [other for line in KIN if word in line.split() for other in line.split()]
            forms = dict.fromkeys([stem(word), *map(stem, kin)])
            yield Term(word, 1.0 if len(words) == 1 else 0.5, tuple(forms))


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
    return "docs" if name.endswith(PROSE) or "." not in name else "code"


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
        if GENERATED.search(text, 0, 600) or seen.entry.relative.startswith(".github/workflows"):
            worth *= 0.5
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
            parts += len(SUBWORD.findall(identifier))
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
        terms = self.question.terms
        if not any(form in low for term in terms for form in term.forms):
            return ()
        worth = 0.3 if IMPORT.match(line) else 1.0
        found = [
            (n, quality * worth)
            for identifier in IDENTIFIER.findall(line[:2_000])
            for n, quality in self.question.answers(identifier)
        ]
        dotted = [(n, term) for n, term in self.question.names if "." in term.text]
        return (*found, *((n, worth) for n, term in dotted if term.forms[0] in low))


def _blocks(lines: list[str], kind: str) -> Iterator[Block]:
    block, outer = Block(0, 0, 0, "", ""), ""
    for number, line in enumerate(lines):
        if name := _name_of(lines, number, kind):
            start = number
            while kind in ("code", "tests") and start > block.start and _leads(lines[start - 1]):
                start -= 1
            if start > block.start:
                yield block._replace(end=start)
            is_outer = not line[0].isspace()
            block = Block(start, 0, number, name, "" if is_outer else outer)
            outer = name if is_outer else outer
        elif number - block.start >= (25 if not line.strip() else 45):
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
        raise Refused(f"'{entry.name}' has {len(lines)} lines.")
    shown, more = _bounded(lines[start - 1 : end])
    title = f"{entry.name}, lines {start}-{start + len(shown) - 1} of {len(lines)}"
    tail = [f"[{more} more lines; read on from line {start + len(shown)}]"] if more else []
    return "\n".join([title, *shown, *tail])


async def _list(workspace: Workspace, arguments: JsonObject) -> str:
    wanted = msgspec.convert(arguments, ListArguments, strict=False)

    def work(_: Stopped) -> list[str]:
        below = ""
        if wanted.path.strip("./\\"):
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
        return [f"{below}{child}/ ({count} files)" for child, count in counted] + sorted(files)

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
            shown = lines[:number] or [line[: OUTPUT_BYTES // 4]]
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
        found += sorted(ranking.passages(seen, text), key=_score_of)[-2:]
    found.sort(key=_score_of)
    distinct = {passage.text: passage for passage in found}
    best = sorted(distinct.values(), key=_score_of, reverse=True)[:limit]
    return Found(
        passages=best, missing=ranking.missing(), files_searched=ranking.added, notice=notice
    )


def _score_of(passage: Passage) -> float:
    return passage.score


def _scanned(entry: Entry) -> str | None:
    """A file's text for weighing it. What is quoted is read again, with every check."""
    if entry.relative.lower().endswith(SKIPPED_SUFFIXES):
        return None
    try:
        with open(_open(entry.root / entry.relative), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_size > SEARCH_BYTES:
                return None
            return _text(file.read(SEARCH_BYTES))
    except OSError:
        return None
