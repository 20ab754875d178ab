"""The seams of the product: what the core asks of a store, a model and a tool.

Each has at least two implementations and one contract suite that runs over all of them
(`tests/contracts`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from typing import Literal, Protocol

import msgspec

from .audit import AuditEntry, AuditReport
from .conversations import (
    AgentMode,
    Approval,
    ApprovalDecision,
    ContextFile,
    Conversation,
    JsonObject,
    Message,
    MessageSettings,
    MessageStatus,
    Page,
    Part,
    Prompt,
    QueueEntry,
    QueueState,
    Receipt,
    Rule,
    SteeringPart,
    StopReason,
    ToolKind,
    TurnError,
    TurnResult,
    Usage,
)
from .events import CatchUp, Cursor, Delta, DurableEvent, OpenPart
from .processes import ChildRecord
from .work import Persona

# ---- models ------------------------------------------------------------------------------


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a tool is described to a model. `input_schema` is JSON Schema 2020-12."""

    name: str
    description: str
    input_schema: JsonObject
    version: str = "1"


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a model.

    `history` is the transcript before this turn; `prompt` the message that began it; `steps`
    what this turn has produced so far, in order: text, tool calls, their results, and what the
    user added meanwhile (`SteeringPart`). A provider must not change or keep them.
    """

    instructions: str
    history: Sequence[Message]
    prompt: Prompt
    steps: Sequence[Part] = ()
    tools: Sequence[ToolSpec] = ()
    settings: MessageSettings | None = None


class TextDelta(msgspec.Struct, frozen=True, tag=True):
    """More text of the answer, or of the thinking that precedes it."""

    text: str
    kind: Literal["text", "thinking"] = "text"


class ToolCall(msgspec.Struct, frozen=True, tag=True):
    """The model wants a tool run. Yielded only when its arguments have arrived whole."""

    tool_call_id: str
    name: str
    arguments: JsonObject


class ModelUsage(msgspec.Struct, frozen=True, tag=True):
    usage: Usage


class ModelStop(msgspec.Struct, frozen=True, tag=True):
    """The last event of every stream that ended well."""

    reason: Literal["endTurn", "toolCalls", "maxTokens", "refusal"]


ModelEvent = TextDelta | ToolCall | ModelUsage | ModelStop


class ModelProvider(Protocol):
    """A model behind one vendor's wire. Made per agent, from one frozen set of settings."""

    name: str

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Call the model once.

        An async generator: closing it, or cancelling the task that reads it, closes the
        connection to the vendor at once. Ends after `ModelStop`. Raises `AgentError` only:
        `Unauthorized` (401, 403), `NetworkError` (connection, 408, 429, 5xx, a stream that
        broke off, invalid bytes; `retryable`, with `retry_after` in seconds where the vendor
        said so), `MessageProcessingFailed` (other 4xx; not retryable). Never retries by
        itself. Error texts hold no key, no prompt and no body of the vendor's answer.
        """
        ...

    async def aclose(self) -> None:
        """Give back connections. May be called twice."""
        ...


# ---- tools -------------------------------------------------------------------------------


class ToolOutput(msgspec.Struct, frozen=True):
    content: str
    is_error: bool = False
    is_refused: bool = False
    """It was not run."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What exactly is asked for. `text` is what will run or be written, as the user sees it;
    `state` what else it depends on, such as the folder it runs in or what a file holds now."""

    title: str
    text: str
    state: JsonObject = {}
    is_protected: bool = False
    """It changes what governs agents, editors or shells."""
    always: tuple[Rule, ...] = ()
    """All that would have to be allowed for good for this not to be asked."""


def _say_nothing(_: str) -> None:
    """Nobody watches."""


async def _keep_nothing(_: PreImage) -> None:
    """Nobody will want it back."""


class PreImage(msgspec.Struct, frozen=True, kw_only=True):
    """What a file held before an agent changed it, and after; None: there was no such file."""

    root: str
    relative: str
    before: bytes | None
    after: bytes | None


class TouchedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that some turns changed: what it held before them, and the SHA-256 of what they
    left in it; None: no such file."""

    root: str
    relative: str
    before: bytes | None
    after: bytes | None


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """One use of a tool, as the tool may know it."""

    conversation_id: str = ""
    turn_id: str = ""
    tool_call_id: str = ""
    report: Callable[[str], None] = _say_nothing
    """Shows more of an output to whoever watches; the result says it again, in short."""
    keep: Callable[[PreImage], Awaitable[None]] = _keep_nothing
    """Stores what a file is about to lose. Returns when it is safe to change the file."""
    subject: Subject | None = None
    """What was allowed. A tool that finds something else by now does nothing (`still_is`)."""

    def still_is(self, subject: Subject) -> bool:
        """Whether `subject` is what was allowed. Also where nothing had to be."""
        return self.subject is None or _shown(self.subject) == _shown(subject)


def _shown(subject: Subject) -> tuple[str, str, JsonObject]:
    return subject.title, subject.text, subject.state


CHANGED = "What this is about has changed since it was allowed. Ask again."
UNWATCHED = ToolUse()


class Tool(Protocol):
    """Something an agent can do. Whether it may is decided before `run` is called."""

    spec: ToolSpec
    kind: ToolKind

    async def subject(self, arguments: JsonObject) -> Subject:
        """What the user is shown when `run` has to be approved first; asked for again right
        before it, and nothing is run if it has changed. Raises `MessageProcessingFailed` with
        words for the model when the arguments make no sense."""
        ...

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        """Do it. Wrong arguments and everyday failures (no such file) are an `is_error`
        output for the model to read, not an exception."""
        ...


# ---- the store ---------------------------------------------------------------------------


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Figures for `sidecar/status`. Sizes in bytes."""

    store_id: str
    schema_version: int
    sqlite_version: str
    path: str | None
    """None for a store that lives in memory."""
    size: int
    wal_size: int
    conversations: int
    messages: int
    queued: int
    degraded: str | None = None


class NewConversation(msgspec.Struct, frozen=True, kw_only=True):
    conversation_id: str
    mode: AgentMode
    session_id: str
    title: str | None = None
    roots: tuple[str, ...] = ()
    parent_id: str | None = None
    """The conversation that it helps; it is in no list, and goes when that one goes."""


class StartedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A queue entry that has just gone from queued to running."""

    entry: QueueEntry
    turn_id: str
    user_message: Message
    reply_id: str
    mode: AgentMode
    """The mode that it was begun in, and keeps."""
    revision: int
    messages_before: int
    """Together they tell whether a transcript that was read earlier is still the one."""


class TextChunk(msgspec.Struct, frozen=True):
    """Text to append to an open part. `offset` in UTF-16 code units, from its beginning."""

    conversation_id: str
    turn_id: str
    message_id: str
    part: int
    kind: Literal["text", "thinking"]
    offset: int
    text: str


class TurnOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn ended and everything its reply consists of."""

    stop_reason: StopReason
    status: MessageStatus
    queue_state: QueueState
    parts: tuple[Part, ...]
    usage: Usage | None = None
    error: TurnError | None = None


class KnownKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a request key that was seen before stands for."""

    message_id: str
    result: TurnResult | None
    """None while its turn has not ended."""


class ConversationList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    conversations: tuple[Conversation, ...]
    deleted: tuple[str, ...]
    """Ids deleted since `sinceChange`; empty when the whole list was asked for."""
    change_no: int
    cursor: str | None = None


class SearchHit(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    conversation_id: str
    title: str | None
    message_id: str
    role: str
    snippet: str
    """The passage, matches between `\\u0002` and `\\u0003`."""
    created_at: int


class SearchResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    hits: tuple[SearchHit, ...]


class ConversationExport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A whole conversation, as `conversation/export` writes it in JSON."""

    format: Literal["agent-sidecar/conversation"] = "agent-sidecar/conversation"
    schema_version: int
    store_id: str
    exported_at: int
    reason: str | None = None
    conversation: Conversation
    messages: tuple[Message, ...]
    queue: tuple[QueueEntry, ...] = ()


class PrunedConversation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One that retention gives up. `bytes` is about what it takes in the store."""

    conversation_id: str
    title: str | None
    put_away_at: int
    """When it was archived or last changed, whichever is later."""
    bytes: int


CANCEL_REQUESTED = "cancelRequested"
"""The reason of a `queueChanged` by which one window asks another to cancel its running turn."""


class ChangedConversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that somebody changed, as far as a follower needs it."""

    conversation_id: str
    last_seq: int
    revision: int
    queue_length: int
    owned_here: bool
    owned_elsewhere: bool


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What changed in the store since a change number, by whomever."""

    change_no: int
    conversations: tuple[ChangedConversation, ...]
    deleted: tuple[str, ...] = ()
    """Some may be there again, in `conversations`: made anew after they were deleted."""


Publish = Callable[[Sequence[DurableEvent]], None]
"""Called on the event loop, in commit order, before the call that committed returns; also for
commits without events that change what a list of conversations shows."""


class ConversationStore(Protocol):
    """Conversations, their queues and their journal, in one durable place.

    Every method that changes something is one transaction: it either happened, events
    included, or it raised and nothing happened. Events get their `seq` in that transaction and
    are handed to the `publish` callback in commit order. A caller that is cancelled before its
    transaction began leaves no trace; one cancelled later has its transaction finished first.

    Unknown conversations and messages raise `NotFound`; a store that cannot be written
    `StoreUnavailable` or `PersistenceFailed`.
    """

    store_id: str
    change_no: int
    """The newest change that this process knows of."""
    is_shared: bool
    """Whether other processes may use it at the same time."""
    degraded: str | None
    """Why the store is read-only, or None."""

    async def aclose(self) -> None: ...

    # conversations
    async def create(
        self, new: NewConversation, request_key: str | None = None, params_hash: bytes = b""
    ) -> Conversation:
        """Raises `Conflict` for an id that exists, or a key that was used for something else.
        The same key and hash again returns the conversation made then."""
        ...

    async def get(self, conversation_id: str) -> Conversation: ...
    async def list(
        self,
        *,
        cursor: str | None = None,
        since_change: int | None = None,
        archived: bool = False,
        limit: int = 100,
    ) -> ConversationList:
        """Newest `updatedAt` first. With `since_change`: rows and tombstones changed after it."""
        ...

    async def page(
        self, conversation_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """The newest `limit` messages, or those before `cursor`. Raises `Conflict` for a cursor
        of another revision."""
        ...

    async def messages(self, conversation_id: str) -> Sequence[Message]:
        """Every visible message in order; for a model's history and for exports."""
        ...

    async def rename(self, conversation_id: str, title: str | None) -> Conversation: ...
    async def set_mode(self, conversation_id: str, mode: AgentMode) -> Conversation: ...
    async def archive(self, conversation_id: str, archived: bool) -> Conversation: ...
    async def delete(self, conversation_id: str) -> None:
        """Remove every row. Running or queued entries raise `InvalidState`."""
        ...

    async def use_ago(self, age_ms: int, now: int) -> int:
        """The moment before which lies so much time of use, counted back from `now`; a long
        pause, or a jump of the clock, counts as a short one. 0: there was less use."""
        ...

    async def prune(
        self,
        *,
        before: int | None,
        max_bytes: int | None,
        in_use: Set[str] = frozenset(),
        dry_run: bool,
    ) -> Sequence[PrunedConversation]:
        """Delete archived conversations, the one put away longest ago first: those put away
        before `before`, and more until the store fits into `max_bytes`. Never one that waits,
        runs, is owned by a living process or is `in_use`. Returns those (to be) deleted."""
        ...

    async def fork(
        self,
        conversation_id: str,
        new: NewConversation,
        to_message_id: str | None,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> Conversation:
        """Copy the visible messages up to `to_message_id` (all without it) under new ids."""
        ...

    async def rewind(
        self, conversation_id: str, to_message_id: str | None, *, preview: bool
    ) -> tuple[str, ...]:
        """Hide what follows `to_message_id`; returns the ids (to be) hidden."""
        ...

    async def search(
        self, query: str, *, conversation_id: str | None = None, limit: int = 20
    ) -> SearchResult:
        """Finished messages that hold all words of `query`, newest first."""
        ...

    async def index_pending(self) -> None:
        """Bring the search index up to date; `search` does it too."""
        ...

    async def export(self, conversation_id: str, reason: str | None) -> ConversationExport: ...
    async def import_(
        self,
        export: ConversationExport,
        new: NewConversation,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> Conversation: ...

    # queue
    async def enqueue(
        self,
        conversation_id: str,
        prompt: Prompt,
        *,
        limit: int,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> Receipt:
        """Append a prompt. Raises `QueueFull` at `limit` queued entries and `Conflict` when the
        key was used with another hash; a repeat returns the first receipt, `duplicate` set."""
        ...

    async def known_key(self, conversation_id: str, message_id: str) -> KnownKey:
        """How the prompt `message_id` ended, or that it has not. Raises `NotFound`."""
        ...

    async def queue(self, conversation_id: str) -> Sequence[QueueEntry]:
        """The entries that have not ended: running first, then queued in order, then parked."""
        ...

    async def update_entry(
        self, message_id: str, input: str, context_files: tuple[ContextFile, ...] | None = None
    ) -> QueueEntry:
        """Replace what a queued prompt says, and its files if given. Raises `InvalidState` once
        it runs."""
        ...

    async def reorder(self, message_id: str, position: int) -> Sequence[QueueEntry]: ...
    async def cancel_entry(self, message_id: str) -> TurnResult | None:
        """Take out an entry that does not run yet; None when it runs (cancel its turn)."""
        ...

    async def hold_entries(self, conversation_id: str, reason: str | None) -> None:
        """Note on the queued entries why they wait; `None` clears it."""
        ...

    async def retry(self, message_id: str) -> tuple[str, Receipt]:
        """Queue the prompt of a failed, cancelled, interrupted or parked entry again, under a
        new messageId. Returns its conversation's id with the receipt."""
        ...

    async def waiting(self) -> Mapping[str, int]:
        """Conversations with queued entries and how many each has."""
        ...

    # owners
    async def take_over(self, conversation_id: str, *, force: bool) -> None:
        """Make this process the owner. Raises `Conflict` while another live one is, unless
        `force`; what that one still writes is refused from then on."""
        ...

    async def release(self, conversation_id: str) -> None:
        """Stop owning a conversation in which nothing waits or runs; otherwise do nothing."""
        ...

    async def hand_over(self) -> None:
        """This process is about to end. Stop owning every conversation in which nothing runs,
        with what waits there, and accept nothing to be run here any more; from now on `release`
        hands over what waits, too."""
        ...

    async def orphaned(self) -> Sequence[str]:
        """Conversations with queued or running entries and no living owner."""
        ...

    # other windows
    async def changed_since(self, change_no: int) -> Changes | None:
        """What anybody committed after `change_no`; None if that is known to be nothing (which
        costs next to nothing to find out)."""
        ...

    async def streamed_after(self, conversation_id: str, known: OpenPart | None) -> Sequence[Delta]:
        """The stored text of the running reply beyond `known`."""
        ...

    async def request_cancel(self, conversation_id: str, of: str | None = None) -> str | None:
        """Ask the window that runs this conversation's turn to cancel it, if it is that of the
        prompt `of`; returns the prompt's id, or None when no such turn runs."""
        ...

    # turns; all of these raise `InvalidState` when `turn_id` is not the running turn any more
    async def start_turn(self, conversation_id: str, provider: str) -> StartedTurn | None:
        """Take the first queued entry, or None. Makes the user message and begins the reply."""
        ...

    async def append_text(self, chunks: Sequence[TextChunk]) -> None:
        """Store streamed text of any number of conversations in one transaction. Chunks of
        turns that are over are dropped."""
        ...

    async def request_started(self, conversation_id: str, turn_id: str) -> None:
        """From here on the turn may have had an effect: a crash makes it `interrupted`."""
        ...

    async def tool_started(
        self,
        conversation_id: str,
        turn_id: str,
        reply_id: str,
        part: int,
        call: ToolCall,
        *,
        approval: Approval | None = None,
        audit: AuditEntry | None = None,
    ) -> None:
        """`approval` is used up in the same commit, and `audit` recorded. Raises `Conflict` if it
        cannot be used."""
        ...

    async def tool_finished(
        self,
        conversation_id: str,
        turn_id: str,
        reply_id: str,
        part: int,
        tool_call_id: str,
        output: ToolOutput,
    ) -> None: ...
    async def steer(
        self, conversation_id: str, turn_id: str, reply_id: str, part: int, added: SteeringPart
    ) -> None: ...
    async def end_turn(
        self, conversation_id: str, turn_id: str, outcome: TurnOutcome
    ) -> TurnResult:
        """Fold the reply, end the entry, store the result for its request key: one commit."""
        ...

    async def recover(self) -> int:
        """Settle the entries that a dead process left running: back to queued when nothing had
        happened yet (parked the third time), else interrupted with their text kept. Returns
        how many there were."""
        ...

    # child processes, for who comes after one that was killed
    @property
    def mark(self) -> str:
        """What a child carries in its environment; "" where nobody could look for it."""
        ...

    async def child_started(self, child: ChildRecord) -> None: ...
    async def child_ended(self, child: ChildRecord) -> None: ...
    async def reap_children(self, *, thoroughly: bool = False) -> int:
        """End what is left of the children of dead sidecars; returns how many there were.
        `thoroughly`: also those that nobody came to record."""
        ...

    def other_windows(self) -> int:
        """How many other sidecars have this store open."""
        ...

    # approvals
    async def ask_approval(self, question: Approval) -> None: ...
    async def answer_approval(
        self,
        approval_id: str,
        decision: ApprovalDecision,
        content_hash: str,
        *,
        always: bool = False,
    ) -> Approval:
        """`always`: add what the question says about that to the rules. Raises
        `NotFound`, or `Conflict` when it is not open or asks for something else."""
        ...

    async def settle_approval(self, approval_id: str) -> Approval:
        """As it was answered; expired from now on if it was not."""
        ...

    async def open_approvals(self, conversation_id: str | None = None) -> Sequence[Approval]:
        """Those that wait for an answer, oldest first."""
        ...

    # what the user has settled
    async def rules(self, roots: Sequence[str] | None = None) -> Sequence[Rule]:
        """What is always allowed in these workspace folders, or anywhere."""
        ...

    async def add_rule(self, rule: Rule) -> None: ...
    async def remove_rule(self, rule: Rule) -> None:
        """Raises `NotFound`."""
        ...

    async def personas(self) -> Sequence[Persona]: ...
    async def save_persona(self, persona: Persona) -> None: ...
    async def delete_persona(self, persona_id: str) -> bool: ...

    # what agents did
    async def note_progress(
        self, conversation_id: str, turn_id: str, done: int, total: int, label: str
    ) -> None: ...
    async def keep_pre_image(self, conversation_id: str, turn_id: str, image: PreImage) -> None:
        """Before a file is changed in a running turn."""
        ...

    async def touched_files(
        self, conversation_id: str, to_message_id: str | None
    ) -> Sequence[TouchedFile]:
        """What turns after that message changed and nobody put back yet."""
        ...

    async def mark_undone(
        self,
        conversation_id: str,
        to_message_id: str | None,
        files: Sequence[tuple[str, str]],
        entry: AuditEntry,
    ) -> None:
        """These (root, relative) hold again what they held before those turns."""
        ...

    async def note_audit(self, entry: AuditEntry) -> None: ...
    async def check_audit(self) -> AuditReport: ...
    async def audit(
        self, conversation_id: str | None = None, limit: int = 100
    ) -> Sequence[AuditEntry]:
        """The newest, in the order in which they were made."""
        ...

    async def was_allowed(self, conversation_id: str, content_hash: str) -> bool:
        """Whether the record says that the user allowed exactly this there."""
        ...

    async def helpers(self, conversation_id: str) -> Sequence[str]:
        """The conversations that help this one."""
        ...

    # readers
    async def catch_up(
        self, conversation_id: str, cursor: Cursor | None, *, page_size: int = 50
    ) -> CatchUp: ...
    async def status(self) -> StoreStatus: ...
