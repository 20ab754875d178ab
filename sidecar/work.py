"""What agents are asked to do in more than one go: reviews by personas, and builds by plan."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from .values import ConversationId, Value


class Persona(Value, frozen=True, kw_only=True):
    """Somebody to talk to, or to be reviewed by."""

    persona_id: ConversationId
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    role: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """In a few words, for a list."""
    instruction: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]
    """What the model is told to be."""
    is_built_in: bool = False


# ---- reviews -------------------------------------------------------------------------------


class Severity(StrEnum):
    """From what must not be shipped to what may be thought about."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    NOTE = "note"


class Finding(Value, frozen=True, kw_only=True):
    severity: Severity
    message: str
    path: str | None = None
    line: int | None = None
    """From 1."""
    suggestion: str | None = None


class Review(Value, frozen=True, kw_only=True):
    """What one persona found. `problem` says why there is nothing, or less than asked for."""

    persona_id: str
    name: str
    rating: Annotated[int, msgspec.Meta(ge=1, le=5)] | None = None
    summary: str = ""
    findings: tuple[Finding, ...] = ()
    problem: str | None = None


class FeedbackPart(Value, frozen=True, kw_only=True, tag_field="kind", tag="feedback"):
    """The reviews that a report was made from, for who reads on by program."""

    reviews: tuple[Review, ...]


class FeedbackTask(Value, frozen=True, kw_only=True, tag_field="task", tag="feedback"):
    """Have the prompt's files reviewed by each of these, and merge what they say."""

    personas: tuple[Persona, ...]


class ReviewTask(Value, frozen=True, kw_only=True, tag_field="task", tag="review"):
    """One persona's part of it."""


# ---- builds --------------------------------------------------------------------------------


class BuildTask(Value, frozen=True, kw_only=True, tag_field="task", tag="build"):
    """Plan it, have the plan approved, carry it out step by step, verify, sum up."""

    verify: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)] | None = None
    """The command that tells whether it worked; absent, the plan names one."""


class Plan(Value, frozen=True, kw_only=True):
    """What a model wants to do. `verify`: the command that will tell whether it worked."""

    steps: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)], ...],
        msgspec.Meta(min_length=1, max_length=30),
    ]
    summary: Annotated[str, msgspec.Meta(max_length=4_000)] = ""
    verify: Annotated[str, msgspec.Meta(max_length=16_384)] | None = None


Task = FeedbackTask | ReviewTask | BuildTask


# ---- undoing -------------------------------------------------------------------------------


class UndoState(StrEnum):
    READY = "ready"
    """It holds what the agent left in it."""
    DONE = "done"
    SAME = "same"
    """It holds what it held before, already."""
    CONFLICT = "conflict"
    """Somebody changed it since, or has unsaved changes in it: only `force` undoes that."""
    FAILED = "failed"


class UndoneFile(Value, frozen=True, kw_only=True):
    """`path` from the workspace folder `root` on. `action`: `restore`, `delete` (the agent made
    it) or `create` (the agent deleted it). `diff` is what undoing does, for text that can be
    read."""

    path: str
    root: str
    action: str
    state: UndoState
    diff: str = ""
    problem: str | None = None
