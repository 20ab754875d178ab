"""Which passages of many texts answer a question best.

Weighs words as BM25 does, and more when they name a definition, a heading or the file. No I/O.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from .files import Entry
from .question import IDENTIFIER, Answers, Question, parts_of, words_of

PASSAGE_LINES = 18
LINE_LENGTH = 240

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
CONFIG = words_of("""
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
        worth = 0.3 if IMPORT.match(line[:200]) else 1.0
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
