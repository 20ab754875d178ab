"""What a question in words asks for: its terms, and how well the words of a text answer them.

Crude on purpose: a list of words that mean nothing here, English endings cut off, a few words
that stand for each other. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple


def words_of(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOISE = frozenset(
    words_of("""
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
ENDINGS = words_of("""
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
        text = text[:2_000]
        self.about_tests = bool(re.search(r"(?i)\btest", text))
        self.wants = "use" if USAGE.search(text) else "code" if CODE.search(text) else "any"
        tokens = TOKEN.findall(text)
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
