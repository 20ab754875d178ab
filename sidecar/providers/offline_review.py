"""What can be said about a file without a model: what a pattern finds, and that it was no more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from ..work import Finding, Severity

_CHECKS: Sequence[tuple[Severity, re.Pattern[str], str]] = (
    (
        Severity.CRITICAL,
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b"),
        "A secret stands in the file.",
    ),
    (
        Severity.MAJOR,
        re.compile(r"^\s*except(?: Exception| BaseException)?\s*:\s*(?:pass)?\s*$"),
        "Catches everything, and perhaps hides it.",
    ),
    (Severity.MAJOR, re.compile(r"\b(?:eval|exec)\s*\("), "Runs text as code."),
    (Severity.MAJOR, re.compile(r"shell\s*=\s*True"), "Gives a text to a shell."),
    (Severity.NOTE, re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b"), "Marked as unfinished."),
)
LONG = 120
MOST = 50


def review(files: Sequence[tuple[str, str]]) -> str:
    """The answer of a reviewer about (path, text), in the form that reviewers are asked for."""
    findings = [finding for path, text in files for finding in _findings(path, text)][:MOST]
    body = {
        "summary": "No model is connected, so nobody has read this: these are mechanical checks"
        f" of {len(files)} file{'' if len(files) == 1 else 's'}. Connect a model for a review.",
        "findings": findings,
    }
    return f"```json\n{msgspec.json.encode(body).decode()}\n```"


def _findings(path: str, text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.split("\n"), 1):
        for severity, pattern, message in _CHECKS:
            if pattern.search(line):
                yield Finding(severity=severity, message=message, path=path, line=number)
        if len(line) > LONG:
            message = f"The line has {len(line)} characters."
            yield Finding(severity=Severity.MINOR, message=message, path=path, line=number)
