"""What a conversation is made of: the values that are stored, shown and sent.

These structs are the stored shape and the wire shape of the native face alike (camelCase
there), so nothing is translated twice. Times are integer milliseconds since the epoch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from .values import ID_PATTERN as ID_PATTERN
from .values import ConversationId as ConversationId
from .values import JsonObject as JsonObject
from .values import Natural as Natural
from .values import RequestKey as RequestKey
from .values import Value as Value
from .work import FeedbackPart, Review, Task


class AgentMode(StrEnum):
    """What an agent is there for; decides its instructions and its rights."""

    CHAT = "chat"
    """Answers questions; reads the workspace, changes nothing."""
    BUILD = "build"
    """Changes the workspace, with approval."""
    FEEDBACK = "feedback"
    """Reviews the files it is given."""


class MessageStatus(StrEnum):
    STREAMING = "streaming"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """Its process ended in the middle; the text up to then is kept."""
    ERROR = "error"


class StopReason(StrEnum):
    END_TURN = "endTurn"
    MAX_TOKENS = "maxTokens"
    REFUSAL = "refusal"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    ERROR = "error"


class QueueState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    PARKED = "parked"
    """Crashed its process three times in a row; waits for the user to retry or remove it."""


# ---- parts of a message ------------------------------------------------------------------


class Position(Value, frozen=True, kw_only=True):
    """A place in a text file, counted as LSP counts: from zero, UTF-16 code units."""

    line: Annotated[int, msgspec.Meta(ge=0)]
    character: Annotated[int, msgspec.Meta(ge=0)]


class Range(Value, frozen=True, kw_only=True):
    start: Position
    end: Position


class ContextFile(Value, frozen=True, kw_only=True):
    """A file, or a piece of one, that the user attached. `text` wins over what is on disk."""

    uri: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    range: Range | None = None
    text: str | None = None


class TextPart(Value, frozen=True, kw_only=True, tag_field="kind", tag="text"):
    text: str


class ThinkingPart(Value, frozen=True, kw_only=True, tag_field="kind", tag="thinking"):
    text: str


class ToolCallPart(Value, frozen=True, kw_only=True, tag_field="kind", tag="toolCall"):
    tool_call_id: str
    name: str
    arguments: JsonObject


class ToolResultPart(Value, frozen=True, kw_only=True, tag_field="kind", tag="toolResult"):
    tool_call_id: str
    content: str
    is_error: bool = False


class FilePart(Value, frozen=True, kw_only=True, tag_field="kind", tag="file"):
    file: ContextFile


class ErrorPart(Value, frozen=True, kw_only=True, tag_field="kind", tag="error"):
    type: str
    message: str
    hint: str | None = None


class SteeringPart(Value, frozen=True, kw_only=True, tag_field="kind", tag="steering"):
    """What was added while the reply was being made: by the user, or by the workflow that leads
    the model through its steps."""

    text: str
    by: Literal["user", "workflow"] = "user"


Part = (
    TextPart
    | ThinkingPart
    | ToolCallPart
    | ToolResultPart
    | FilePart
    | ErrorPart
    | SteeringPart
    | FeedbackPart
)


class Usage(Value, frozen=True, kw_only=True):
    """What a turn cost, as the provider counted it. Absent figures are unknown, not zero."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    requests: int | None = None
    cost_usd: float | None = None
    """US dollars by the vendor's list prices, as far as they are known; nobody's bill."""
    context_tokens: int | None = None
    """What the last request of a turn held, its answer included."""
    context_window: int | None = None
    """How much the model can hold, where that is known."""


class Message(Value, frozen=True, kw_only=True):
    """One entry of a transcript. `ordinal` grows within its conversation and never repeats."""

    message_id: str
    ordinal: int
    role: Literal["user", "assistant"]
    status: MessageStatus
    parts: tuple[Part, ...]
    turn_id: str | None = None
    usage: Usage | None = None
    created_at: int
    completed_at: int | None = None

    @property
    def text(self) -> str:
        """What a person reads: the text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


# ---- conversations -----------------------------------------------------------------------


class ForkedFrom(Value, frozen=True, kw_only=True):
    conversation_id: str
    message_id: str | None = None


class Conversation(Value, frozen=True, kw_only=True):
    """A conversation's own row: everything a list shows without reading a message."""

    conversation_id: str
    title: str | None = None
    mode: AgentMode
    session_id: str
    roots: tuple[str, ...]
    """Canonical workspace folders; only a window with these may own the conversation."""
    created_at: int
    updated_at: int
    archived_at: int | None = None
    message_count: int
    queue_length: int
    last_seq: int
    revision: int
    """Changes when messages were hidden or brought back; pages of another revision are void."""
    change_no: int
    forked_from: ForkedFrom | None = None


class Page(Value, frozen=True, kw_only=True):
    """Messages in reading order; `page_cursor` asks for the page before it (absent: no more)."""

    messages: tuple[Message, ...]
    revision: int
    page_cursor: str | None = None


# ---- prompts and their queue -------------------------------------------------------------


Thinking = Literal["low", "medium", "high"]
"""How hard a model thinks before it answers, as far as it lets itself be told."""


class MessageSettings(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a single message may set for its own turn. A closed list: nothing critical."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    thinking: Thinking | None = None


class AgentOrigin(Value, frozen=True, kw_only=True):
    """Set on a prompt that an agent sent: the conversations that asked one another, first to
    last."""

    chain: tuple[str, ...]
    modes: tuple[AgentMode, ...] = ()
    """The modes that those had. Rights on the way are what all of them have in common."""
    root: str | None = None
    """The prompt of the user's that all of it began with; a budget is kept for each."""
    is_reply: bool = False

    @property
    def rights(self) -> tuple[AgentMode, ...]:
        """The modes that decide. Who does not say what those before it might do is taken for the
        least of them."""
        return self.modes or (AgentMode.CHAT,)


class Prompt(Value, frozen=True, kw_only=True):
    """What a user, or another agent, asks of an agent in one go."""

    input: str
    context_files: tuple[ContextFile, ...] = ()
    settings: MessageSettings | None = None
    system_instruction: str | None = None
    is_persona_chat: bool = False
    persona_id: str | None = None
    origin: AgentOrigin | None = None
    task: Task | None = None
    """Set where more is to be done than to answer."""


class QueueEntry(Value, frozen=True, kw_only=True):
    """An accepted prompt until its turn has ended. `position` counts from 0 among the queued."""

    message_id: str
    conversation_id: str
    state: QueueState
    prompt: Prompt
    position: int | None = None
    request_key: str | None = None
    turn_id: str | None = None
    attempts: int
    reason: str | None = None
    """Why it waits, e.g. `needsProvider`."""
    enqueued_at: int


class TurnError(Value, frozen=True, kw_only=True):
    """Why a turn failed, as far as a client may know."""

    type: str
    message: str
    retryable: bool = False
    hint: str | None = None
    attempts: int | None = None


class TurnResult(Value, frozen=True, kw_only=True):
    """How a turn ended. `reply_id` is the assistant's message, absent if none was begun."""

    message_id: str
    turn_id: str | None = None
    stop_reason: StopReason
    usage: Usage | None = None
    reply_id: str | None = None
    error: TurnError | None = None


class FeedbackResult(Value, frozen=True, kw_only=True):
    """`report` is Markdown; `reviews` what it was made from."""

    conversation_id: str
    turn: TurnResult
    report: str = ""
    reviews: tuple[Review, ...] = ()


class Receipt(Value, frozen=True, kw_only=True):
    """Says that a prompt is stored. `position` counts from 0; the one at 0 runs next."""

    message_id: str
    position: int
    duplicate: bool = False
    """True when this request key had been accepted before."""


# ---- approvals ----------------------------------------------------------------------------


class ToolKind(StrEnum):
    """What using a tool may come to."""

    READ = "read"
    EDIT = "edit"
    RUN = "run"
    PLAN = "plan"
    """Carrying out what was planned."""
    AGENT = "agent"
    """Writing to another agent, which has its own rights to act, or fewer."""
    EXTERNAL = "external"
    """Whatever a server of the user's choice does."""


class ApprovalState(StrEnum):
    PENDING = "pending"
    ALLOWED = "allowed"
    DENIED = "denied"
    EXPIRED = "expired"
    """Its turn ended, or nobody answered in time."""
    USED = "used"


ApprovalDecision = Literal["allow", "deny"]


class Rule(Value, frozen=True, kw_only=True):
    """What the user allowed for good: exactly this command, in exactly this workspace folder."""

    tool: str
    argv: tuple[str, ...]
    """Word by word. A command with a word more or less is another one."""
    root: str
    network: bool = False
    is_confined: bool = False
    """Allowed in the sandbox; says nothing about running without."""

    def covers(self, other: Rule) -> bool:
        """Whether it allows `other`: the same, or the same under safer conditions."""
        return (
            (self.tool, self.argv, self.root) == (other.tool, other.argv, other.root)
            and (self.network or not other.network)
            and (other.is_confined or not self.is_confined)
        )


class Approval(Value, frozen=True, kw_only=True):
    """A question to the user. `contentHash` has to come back with the answer: it says what was
    read by who answers."""

    approval_id: str
    conversation_id: str
    turn_id: str
    tool_call_id: str
    tool: str
    title: str
    text: str
    content_hash: str
    state: ApprovalState
    requested_at: int
    expires_at: int
    is_protected: bool = False
    """It is about what governs agents, editors or shells: nothing but a person allows that."""
    always: tuple[Rule, ...] = ()
    """What "always allow" would add; empty where it is not to be had."""
