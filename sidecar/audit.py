"""What agents did and were kept from doing: a record that only grows, and shows when it was cut.

Each entry's hash covers the one before it, so an entry that is changed, moved or taken out is
noticed, and so is an end that is missing. Entries name who, what and why; never what was written,
said or answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from .conversations import Value

GENESIS = bytes(32)


class AuditAction(StrEnum):
    TOOL = "tool"
    """A tool was used, or was not to be."""
    ANSWER = "answer"
    """A question was answered, or ran out."""
    RULE = "rule"
    """Something was allowed for good (`allowed`), or not any more."""
    MESSAGE = "message"
    """One agent wrote to another."""
    GRANT = "grant"
    REWIND = "rewind"
    """Files were put back."""


class AuditEntry(Value, frozen=True, kw_only=True):
    """`why`: in one of our own words, such as `mode`, `approval`, `rule`, `depth`."""

    action: AuditAction
    allowed: bool
    why: str
    at: int = 0
    conversation_id: str | None = None
    other_id: str | None = None
    """The conversation that was written to."""
    turn_id: str | None = None
    tool: str | None = None
    content_hash: str | None = None
    count: int | None = None


class AuditReport(Value, frozen=True, kw_only=True):
    """What `verify` found. `head` is the last hash: who writes it down elsewhere can tell later
    that not even the whole record was made anew."""

    entries: int
    head: str
    problem: str | None = None
    """Where the record is broken first."""


encode = msgspec.json.Encoder(order="deterministic").encode


def chained(before: bytes, entry: bytes) -> bytes:
    return hashlib.sha256(before + entry).digest()


def verify(rows: Iterable[tuple[int, str, bytes]], end: tuple[int, bytes] | None) -> AuditReport:
    """Check the rows (number from 1, entry, hash) in their order against their known end."""
    last, seen = GENESIS, 0
    for number, entry, digest in rows:
        if number != seen + 1:
            return _broken(seen, last, f"Entry {seen + 1} is missing.")
        if chained(last, entry.encode("utf-8", "surrogatepass")) != digest:
            return _broken(seen, last, f"Entry {number} is not what was recorded.")
        last, seen = digest, number
    if end is None:
        return _broken(seen, last, "How it ends is not recorded any more.")
    count, head = end
    if (seen, last) != (count, head):
        return _broken(seen, last, f"{count} entries were recorded, {seen} are there.")
    return AuditReport(entries=seen, head=last.hex())


def _broken(entries: int, head: bytes, problem: str) -> AuditReport:
    return AuditReport(entries=entries, head=head.hex(), problem=problem)
