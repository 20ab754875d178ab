"""What reviewers answer, and the one report that is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from ..work import Finding, Persona, Review, Severity

BAR = 5
"""Marks of a rating."""

REVIEW = """\
Review what is attached, and only that. You can read and search the workspace to understand it.
Answer with one JSON object in a ```json block and nothing else:
{"rating": 1-5, "summary": "two sentences", "findings": [{"severity": "critical|major|minor|note",\
 "path": "src/a.py", "line": 12, "message": "what is wrong and why", "suggestion": "what to do"}]}
The rating is 5 for "ship it" and 1 for "must not be shipped". Lines count from 1. An empty list
of findings is a fine answer where there is nothing to say."""

_BLOCK = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_PLACE = re.compile(r"`?([\w./\\-]+\.\w+):(\d+)`?")


class _Answer(msgspec.Struct):
    findings: tuple[Finding, ...] = ()
    rating: float | None = None
    summary: str = ""


def review_of(persona: Persona, text: str) -> Review:
    """Whatever a reviewer answered. Words that are not in the agreed form are kept as they are:
    they were paid for."""
    for candidate in (*_BLOCK.findall(text), text, *_braced(text)):
        try:
            answer = msgspec.json.decode(candidate.encode("utf-8", "replace"), type=_Answer)
        except msgspec.DecodeError:
            continue
        rating = None if answer.rating is None else min(max(round(answer.rating), 1), BAR)
        return Review(
            persona_id=persona.persona_id,
            name=persona.name,
            rating=rating,
            summary=answer.summary.strip(),
            findings=answer.findings,
        )
    return Review(
        persona_id=persona.persona_id,
        name=persona.name,
        summary=text.strip(),
        findings=tuple(_mentioned(text)),
        problem="The answer was not in the agreed form." if text.strip() else "No answer came.",
    )


def _braced(text: str) -> list[str]:
    start, end = text.find("{"), text.rfind("}")
    return [text[start : end + 1]] if 0 <= start < end else []


def _mentioned(text: str) -> Iterator[Finding]:
    """Places that a text in free form names, with the line that names them."""
    for line in text.split("\n"):
        if match := _PLACE.search(line):
            message = line.strip(" -*•\t")
            yield Finding(
                severity=Severity.NOTE, message=message, path=match[1], line=int(match[2])
            )


# ---- the report ----------------------------------------------------------------------------


def report(subject: str, reviews: Sequence[Review]) -> str:
    """One Markdown document: ratings as a small chart, findings by severity, then each
    reviewer's own words."""
    blocks = [f"# Feedback on {subject}", _chart(reviews)]
    findings = _merged(reviews)
    if not findings:
        blocks.append("No findings.")
    for severity in Severity:
        if lines := [_line(f, names) for f, names in findings if f.severity is severity]:
            blocks += [f"## {severity.capitalize()} ({len(lines)})", "\n".join(lines)]
    blocks += [
        f"## {review.name}\n\n" + "\n\n".join(filter(None, (review.summary, _problem(review))))
        for review in reviews
        if review.summary or review.problem
    ]
    return "\n\n".join(blocks)


def _chart(reviews: Sequence[Review]) -> str:
    width = max((len(review.name) for review in reviews), default=0)
    lines = []
    for review in reviews:
        if review.rating is None:
            lines.append(f"{review.name:<{width}}  {'·' * BAR}  no rating")
            continue
        bar = "█" * review.rating + "░" * (BAR - review.rating)
        count = len(review.findings)
        found = f"{count} finding{'' if count == 1 else 's'}"
        lines.append(f"{review.name:<{width}}  {bar}  {review.rating}/{BAR}  {found}")
    return "\n".join(["```text", *lines, "```"])


def _merged(reviews: Sequence[Review]) -> list[tuple[Finding, list[str]]]:
    """The findings, the same one of several reviewers once, under its gravest severity."""
    merged: dict[tuple[str | None, int | None, str], tuple[Finding, list[str]]] = {}
    for review in reviews:
        for finding in review.findings:
            key = (finding.path, finding.line, " ".join(finding.message.lower().split()))
            known, names = merged.get(key, (finding, []))
            gravest = min(known, finding, key=lambda f: list(Severity).index(f.severity))
            merged[key] = (gravest, [*names, review.name])
    return sorted(merged.values(), key=lambda item: (item[0].path or "~", item[0].line or 0))


def _line(finding: Finding, names: Sequence[str]) -> str:
    place = ""
    if finding.path:
        place = f"`{finding.path}:{finding.line}` " if finding.line else f"`{finding.path}` "
    who = ", ".join(dict.fromkeys(names))
    text = f"- {place}{_one_line(finding.message)} *({who})*"
    return f"{text}\n  → {_one_line(finding.suggestion)}" if finding.suggestion else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _problem(review: Review) -> str:
    return f"_{review.problem}_" if review.problem else ""
