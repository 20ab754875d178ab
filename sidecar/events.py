"""Facts about a conversation, in the past tense.

Every event but `Delta` and `AgentStateChanged` is durable: it gets its `seq` inside the commit
that makes it true. A `Delta` is live text, sent under the `seq` of the last durable event
before it; what it says is stored as the text of its part.

In the store an event is kept without `conversation_id`, `seq` and the message body; a reader
gets them back (see `ConversationStore.events_after`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .conversations import (
    AgentMode,
    Approval,
    ApprovalState,
    JsonObject,
    Message,
    Natural,
    QueueState,
    StopReason,
    TurnError,
    Usage,
    Value,
)


class Fact(Value, frozen=True, kw_only=True, tag_field="type"):
    conversation_id: str = ""
    seq: int = 0
    at: int = 0


class TurnQueued(Fact, frozen=True, kw_only=True, tag="turnQueued"):
    """A prompt was accepted. Followed, sooner or later, by exactly one `turnEnded` of the same
    `messageId`."""

    message_id: str
    request_key: str | None = None


class TurnStarted(Fact, frozen=True, kw_only=True, tag="turnStarted"):
    message_id: str
    turn_id: str


class MessageStarted(Fact, frozen=True, kw_only=True, tag="messageStarted"):
    """An assistant message begins; its parts follow as deltas and tool events."""

    message_id: str
    turn_id: str
    role: Literal["user", "assistant"] = "assistant"
    ordinal: int = 0


class MessageCompleted(Fact, frozen=True, kw_only=True, tag="messageCompleted"):
    """A message is final. `message` is the whole of it and replaces what was streamed; it is
    absent only where the message has been removed since."""

    message_id: str
    message: Message | None = None


class ToolStarted(Fact, frozen=True, kw_only=True, tag="toolStarted"):
    """Committed before the tool has any effect. Without a `toolFinished`, its outcome is
    unknown and it is never repeated."""

    message_id: str
    turn_id: str
    tool_call_id: str
    name: str
    part: int
    arguments: JsonObject = {}


class ToolFinished(Fact, frozen=True, kw_only=True, tag="toolFinished"):
    message_id: str
    turn_id: str
    tool_call_id: str
    part: int
    content: str = ""
    is_error: bool = False


class UsageReported(Fact, frozen=True, kw_only=True, tag="usage"):
    turn_id: str
    usage: Usage


class TurnEnded(Fact, frozen=True, kw_only=True, tag="turnEnded"):
    message_id: str
    stop_reason: StopReason
    turn_id: str | None = None
    reply_id: str | None = None
    usage: Usage | None = None
    error: TurnError | None = None


class ModeChanged(Fact, frozen=True, kw_only=True, tag="modeChanged"):
    mode: AgentMode


class TitleChanged(Fact, frozen=True, kw_only=True, tag="titleChanged"):
    title: str | None = None


class QueueChanged(Fact, frozen=True, kw_only=True, tag="queueChanged"):
    """An entry was edited, moved, held back or taken out; `message/queue` has the rest."""

    message_id: str
    state: QueueState
    reason: str | None = None


class Rewound(Fact, frozen=True, kw_only=True, tag="rewound"):
    """Messages after `toMessageId` are hidden (all of them when it is absent)."""

    revision: int
    to_message_id: str | None = None


class TurnSteered(Fact, frozen=True, kw_only=True, tag="turnSteered"):
    """The user, or a workflow, added `text` to the running turn; the model sees it before its
    next step."""

    message_id: str
    turn_id: str
    part: int
    text: str = ""
    by: Literal["user", "workflow"] = "user"


class Progress(Fact, frozen=True, kw_only=True, tag="progress"):
    """How far a turn of many steps is: `done` of `total`, and what it is about to do."""

    turn_id: str
    done: int
    total: int
    label: str


class ApprovalRequested(Fact, frozen=True, kw_only=True, tag="approvalRequested"):
    """A turn waits for the user's answer; `approval/respond` gives it, from any window."""

    approval: Approval


class ApprovalResolved(Fact, frozen=True, kw_only=True, tag="approvalResolved"):
    """Answered, or not to be answered any more."""

    approval_id: str
    turn_id: str
    state: ApprovalState


DurableEvent = (
    TurnQueued
    | TurnStarted
    | MessageStarted
    | MessageCompleted
    | ToolStarted
    | ToolFinished
    | UsageReported
    | TurnEnded
    | ModeChanged
    | TitleChanged
    | QueueChanged
    | Rewound
    | TurnSteered
    | ApprovalRequested
    | ApprovalResolved
    | Progress
)


class Delta(Fact, frozen=True, kw_only=True, tag="delta"):
    """Text that was just produced: it belongs at `offset` (UTF-16 code units) of its part."""

    message_id: str
    part: int
    kind: Literal["text", "thinking"]
    offset: int
    text: str


Event = DurableEvent | Delta


class OpenPart(Value, frozen=True, kw_only=True):
    """A part still being written and how much of it is stored, in UTF-16 code units."""

    message_id: str
    part: Natural
    length: Natural


class Cursor(Value, frozen=True, kw_only=True):
    """Where a reader stands: which store, the last event it applied, the revision of its pages,
    and how much it has of each part that is still open."""

    store_id: str
    seq: Natural
    revision: Natural = 0
    parts: tuple[OpenPart, ...] = ()


class Replay(Value, frozen=True, kw_only=True, tag_field="kind", tag="replay"):
    """The events after a cursor. A reader cuts each part in `open_parts` to its length first
    and takes up the deltas that follow from there."""

    conversation_id: str
    last_seq: int
    revision: int
    events: tuple[DurableEvent, ...]
    open_message: Message | None = None
    open_parts: tuple[OpenPart, ...]


class Snapshot(Value, frozen=True, kw_only=True, tag_field="kind", tag="snapshot"):
    """The conversation as it stands, for a reader without a cursor or with one too old."""

    conversation_id: str
    last_seq: int
    revision: int
    messages: tuple[Message, ...]
    page_cursor: str | None = None
    open_parts: tuple[OpenPart, ...]


class Missing(Value, frozen=True, kw_only=True, tag_field="kind", tag="missing"):
    """There is no such conversation (any more)."""

    conversation_id: str


CatchUp = Replay | Snapshot | Missing


def utf16_length(text: str) -> int:
    """Length of `text` in UTF-16 code units, the unit of every offset on the wire."""
    if text.isascii():
        return len(text)
    return len(text) + sum(1 for char in text if char > "\uffff")


encode_event = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(DurableEvent).decode
