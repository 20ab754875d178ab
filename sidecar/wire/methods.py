"""Every method and notification of the native face, declared once.

`schemas/` and the TypeScript types are generated from this table, the face dispatches by it
and the Python client is typed by it. Params ignore fields they do not know, except where a
struct says otherwise (settings, secrets).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .. import errors
from ..audit import AuditEntry, AuditReport
from ..capabilities import AgentCapability
from ..conversations import (
    AgentMode,
    Approval,
    ApprovalDecision,
    ContextFile,
    Conversation,
    ConversationId,
    FeedbackResult,
    MessageSettings,
    Natural,
    Page,
    QueueEntry,
    Receipt,
    RequestKey,
    Rule,
    TurnResult,
)
from ..events import CatchUp, Cursor, Event
from ..interfaces import ConversationList, PrunedConversation, SearchResult, StoreStatus
from ..lifecycle import AgentInfo, Failure, PreservedState
from ..settings import Problem, SecretsPatch, Settings, SettingsPatch
from ..work import Persona, UndoneFile

PROTOCOL_VERSION = 1

Limit = Annotated[int, Meta(ge=1, le=500)]
Title = Annotated[str, Meta(max_length=500)]
Input = Annotated[str, Meta(min_length=1, max_length=32 * 1024 * 1024)]
Opaque = Annotated[str, Meta(max_length=512)]


class Params(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all params and results: camelCase on the wire, defaults left out."""


class Nothing(Params, frozen=True, kw_only=True):
    """No params, or no result."""


class Done(Params, frozen=True, kw_only=True):
    """It was done."""

    ok: Literal[True]


# ---- agents ------------------------------------------------------------------------------


class GetOrCreate(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    mode: AgentMode | None = None
    """A mode other than the conversation's changes it, after the running turn."""
    create: bool = True
    """False: `NOT_FOUND` for a conversation that does not exist."""
    request_key: RequestKey | None = None


class OfConversation(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId


class DisposedAll(Params, frozen=True, kw_only=True):
    disposed: int
    failed: tuple[str, ...]


class Cancelled(Params, frozen=True, kw_only=True):
    cancelled: bool
    """False: there was no running turn."""


class Count(Params, frozen=True, kw_only=True):
    count: int


class Known(Params, frozen=True, kw_only=True):
    exists: bool


class AgentList(Params, frozen=True, kw_only=True):
    agents: tuple[AgentInfo, ...]


class Reinitialized(Params, frozen=True, kw_only=True):
    reinitialized: int
    deferred: int


class Between(Params, frozen=True, kw_only=True):
    from_conversation_id: ConversationId
    to_conversation_id: ConversationId
    capability: str | None = None


class Allowed(Params, frozen=True, kw_only=True):
    allowed: bool
    reason: str


class SendTo(Params, frozen=True, kw_only=True):
    from_conversation_id: ConversationId
    to_conversation_id: ConversationId
    input: Input
    capability: str | None = None
    request_key: RequestKey | None = None


# ---- messages ----------------------------------------------------------------------------


class Send(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    input: Input
    context_files: tuple[ContextFile, ...] = ()
    settings: MessageSettings | None = None
    system_instruction: str | None = None
    is_persona_chat: bool = False
    persona_id: str | None = None
    request_key: RequestKey | None = None


class OfMessage(Params, frozen=True, kw_only=True):
    message_id: str


class UpdateMessage(Params, frozen=True, kw_only=True):
    message_id: str
    input: Input
    context_files: tuple[ContextFile, ...] | UnsetType = UNSET


class ReorderMessage(Params, frozen=True, kw_only=True):
    message_id: str
    position: Natural


class Steer(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    text: Input
    expected_turn_id: str


class Queue(Params, frozen=True, kw_only=True):
    entries: tuple[QueueEntry, ...]


# ---- conversations -----------------------------------------------------------------------


class Switch(Params, frozen=True, kw_only=True):
    to_conversation_id: ConversationId
    from_conversation_id: ConversationId | None = None
    mode: AgentMode | None = None


class Switched(Params, frozen=True, kw_only=True):
    agent: AgentInfo
    conversation: Conversation
    page: Page
    last_seq: int


class CreateConversation(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId | None = None
    mode: AgentMode = AgentMode.CHAT
    title: Title | None = None
    request_key: RequestKey | None = None


class ListConversations(Params, frozen=True, kw_only=True):
    cursor: Opaque | None = None
    since_change: Natural | None = None
    archived: bool = False
    limit: Limit = 100


class GetConversation(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    cursor: Opaque | None = None
    limit: Limit = 50


class ConversationPage(Params, frozen=True, kw_only=True):
    conversation: Conversation
    page: Page


class Rename(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    title: Title | None


class SetMode(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    mode: AgentMode


class Archive(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    archived: bool = True


class SearchConversations(Params, frozen=True, kw_only=True):
    query: Annotated[str, Meta(min_length=1, max_length=1_000)]
    conversation_id: ConversationId | None = None
    limit: Limit = 20


class Fork(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    to_message_id: str | None = None
    new_conversation_id: ConversationId | None = None
    title: Title | None = None
    request_key: RequestKey | None = None


class Rewind(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    to_message_id: str | None
    """The last message to keep; null hides all of them."""
    preview: bool = False
    files: bool = False
    """Put back, too, what these messages' turns changed in files."""
    force: bool = False
    """Also files that somebody has changed since."""


class RewindResult(Params, frozen=True, kw_only=True):
    hidden: tuple[str, ...]
    revision: int
    preview: bool = False
    files: tuple[UndoneFile, ...] = ()


class Subscribe(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    cursor: Cursor | None = None


class TakeOver(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    force: bool = False


class ExportConversation(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    format: Literal["json", "markdown"] = "json"
    reason: Annotated[str, Meta(max_length=1_000)] | None = None
    path: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    """Write the data there instead of returning it; an existing file is not overwritten."""


class Exported(Params, frozen=True, kw_only=True):
    format: Literal["json", "markdown"]
    exported_at: int
    store_id: str
    schema_version: int
    size: int
    """Bytes of the data in UTF-8."""
    data: str | None = None
    reason: str | None = None
    path: str | None = None


class ImportConversation(Params, frozen=True, kw_only=True):
    data: str | None = None
    """What a JSON export gave. One of `data` and `path` is needed."""
    path: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    conversation_id: ConversationId | None = None
    request_key: RequestKey | None = None


# ---- capabilities and rights -------------------------------------------------------------


class RegisterCapability(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    capability: AgentCapability


class NameOfCapability(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    name: str


class FindCapability(Params, frozen=True, kw_only=True):
    name: str


class Capabilities(Params, frozen=True, kw_only=True):
    capabilities: tuple[AgentCapability, ...]


class HasCapability(Params, frozen=True, kw_only=True):
    available: bool


class FoundCapability(Params, frozen=True, kw_only=True):
    conversation_ids: tuple[str, ...]


class Rules(Params, frozen=True, kw_only=True):
    rules: tuple[Rule, ...]


class OfRule(Params, frozen=True, kw_only=True):
    rule: Rule


class ReadAudit(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId | None = None
    limit: Annotated[int, Meta(ge=0, le=10_000)] = 100
    verify: bool = True


class Audit(Params, frozen=True, kw_only=True):
    """The newest entries in order, and whether the whole record is whole."""

    entries: tuple[AuditEntry, ...]
    report: AuditReport | None = None


# ---- personas, feedback, build -----------------------------------------------------------


class Personas(Params, frozen=True, kw_only=True):
    personas: tuple[Persona, ...]


class SavePersona(Params, frozen=True, kw_only=True):
    persona: Persona


class OfPersona(Params, frozen=True, kw_only=True):
    persona_id: ConversationId


class RunFeedback(Params, frozen=True, kw_only=True):
    """Without `conversationId`, in a new conversation; without `personaIds`, by those that come
    along."""

    conversation_id: ConversationId | None = None
    context_files: tuple[ContextFile, ...] = ()
    diff: Annotated[str, Meta(max_length=4 * 1024 * 1024)] | None = None
    focus: Annotated[str, Meta(max_length=20_000)] = ""
    persona_ids: Annotated[tuple[ConversationId, ...], Meta(max_length=20)] = ()
    request_key: RequestKey | None = None


class StartBuild(Params, frozen=True, kw_only=True):
    """`verify`: the command that tells whether it worked; else the plan names one."""

    conversation_id: ConversationId
    task: Input
    verify: Annotated[str, Meta(min_length=1, max_length=16_384)] | None = None
    context_files: tuple[ContextFile, ...] = ()
    request_key: RequestKey | None = None


class ApproveBuild(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    decision: ApprovalDecision = "allow"


# ---- settings ----------------------------------------------------------------------------


class UpdateSettings(Params, frozen=True, kw_only=True):
    settings: SettingsPatch | UnsetType = UNSET  # type: ignore[valid-type]  # built at import
    secrets: SecretsPatch | UnsetType = UNSET  # type: ignore[valid-type]  # built at import
    force: bool = False
    """Stop running turns instead of waiting for them."""


class UpdatedSettings(Params, frozen=True, kw_only=True):
    """With `problems`, nothing was applied."""

    critical: bool
    reinitialized: int
    deferred: int
    problems: tuple[Problem, ...]


class SettingsShown(Params, frozen=True, kw_only=True):
    settings: Settings
    secrets_present: tuple[str, ...]
    """Names of the secrets that are set. Their values are never sent."""
    problems: tuple[Problem, ...]


# ---- webviews ----------------------------------------------------------------------------


class WebviewGone(Params, frozen=True, kw_only=True):
    webview_id: Annotated[str, Meta(max_length=256)] = ""


class Preserved(Params, frozen=True, kw_only=True):
    states: tuple[PreservedState, ...]
    failed: tuple[Failure, ...]


class StateHint(Params, frozen=True, kw_only=True):
    """What a webview remembers. Only the id is used: mode and rights come from the store."""

    conversation_id: ConversationId


class ConversationCursor(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId
    cursor: Cursor | None = None


class WebviewBack(Params, frozen=True, kw_only=True):
    webview_id: Annotated[str, Meta(max_length=256)] = ""
    cursors: tuple[ConversationCursor, ...] = ()
    preserved_states: tuple[StateHint, ...] = ()


class Restored(Params, frozen=True, kw_only=True):
    restored: tuple[CatchUp, ...]
    failed: tuple[Failure, ...]
    missing: tuple[str, ...]


# ---- health ------------------------------------------------------------------------------


class ProviderStatus(Params, frozen=True, kw_only=True):
    name: str
    ready: bool
    problems: tuple[Problem, ...] = ()


class Status(Params, frozen=True, kw_only=True):
    version: str
    pid: int
    uptime_ms: int
    store: StoreStatus
    provider: ProviderStatus
    agents: tuple[AgentInfo, ...]
    max_active_agents: int
    waiting_conversations: int
    """Conversations with queued prompts that have no agent yet."""
    other_windows: int
    mcp_servers: dict[str, str] = {}
    """By name: `ready`, `starting`, `not started` or what is wrong. They start with the first
    turn."""


class Prune(Params, frozen=True, kw_only=True):
    """Without a rule of its own, by the setting `retention`. 0 is for ever."""

    dry_run: bool = True
    max_age_days: Annotated[int, Meta(ge=0, le=36_500)] | None = None
    max_bytes: Annotated[int, Meta(ge=0)] | None = None


class PruneResult(Params, frozen=True, kw_only=True):
    conversations: tuple[PrunedConversation, ...]
    bytes: int
    dry_run: bool


class Latency(Params, frozen=True, kw_only=True):
    """Of one method, since the start. Milliseconds."""

    method: str
    count: int
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Metrics(Params, frozen=True, kw_only=True):
    methods: tuple[Latency, ...]
    rss_bytes: int
    cpu_ms: int
    deltas: int
    commits: int


# ---- approvals ---------------------------------------------------------------------------


class ListApprovals(Params, frozen=True, kw_only=True):
    conversation_id: ConversationId | None = None


class ApprovalsOpen(Params, frozen=True, kw_only=True):
    approvals: tuple[Approval, ...]


class RespondApproval(Params, frozen=True, kw_only=True):
    approval_id: Annotated[str, Meta(max_length=128)]
    decision: ApprovalDecision
    content_hash: Annotated[str, Meta(max_length=64)]
    """That of what was read by who answers."""
    always: bool = False
    """Add to the rules what the question has in `always`."""


class Permission(Params, frozen=True, kw_only=True):
    """The answer to `permission/request`."""

    decision: ApprovalDecision
    content_hash: Annotated[str, Meta(max_length=64)]
    always: bool = False


class ReadFile(Params, frozen=True, kw_only=True):
    uri: Annotated[str, Meta(max_length=8192)]


class FileText(Params, frozen=True, kw_only=True):
    """A file as the editor shows it."""

    text: str | None = None
    """Absent where that is what is saved: the sidecar reads it itself."""


class ApplyEdit(Params, frozen=True, kw_only=True):
    """A change that the user has allowed, of a file that holds `old_text`."""

    uri: Annotated[str, Meta(max_length=8192)]
    old_text: str
    new_text: str
    title: str = ""


class AppliedEdit(Params, frozen=True, kw_only=True):
    applied: bool
    """False: the editor does not have the file open, or it holds something else. Then the
    sidecar changes what is saved, if that is `old_text`."""


# ---- lifecycle ---------------------------------------------------------------------------


class WorkspaceFolder(Params, frozen=True, kw_only=True):
    uri: str
    name: str = ""


class InitializationOptions(Params, frozen=True, kw_only=True):
    protocol_versions: tuple[int, ...] | None = None
    protocol_version: int | None = None
    settings: SettingsPatch | UnsetType = UNSET  # type: ignore[valid-type]  # built at import
    secrets: SecretsPatch | UnsetType = UNSET  # type: ignore[valid-type]  # built at import
    session_id: Annotated[str, Meta(max_length=128)] | None = None
    webview_id: Annotated[str, Meta(max_length=256)] | None = None
    workspace_trusted: bool = True


class Initialize(Params, frozen=True, kw_only=True):
    process_id: int | None = None
    root_uri: str | None = None
    workspace_folders: tuple[WorkspaceFolder, ...] | None = None
    initialization_options: InitializationOptions | None = None
    capabilities: dict[str, Any] = {}


# ---- notifications -----------------------------------------------------------------------


class Resync(Params, frozen=True, kw_only=True):
    """The client lagged too far behind: subscribe again from the cursor it has."""

    conversation_id: str
    seq: int


class ConversationsChanged(Params, frozen=True, kw_only=True):
    change_no: int


class ToolOutputShown(Params, frozen=True, kw_only=True):
    """More of what a running tool puts out. Whoever lags gets less of it; `toolFinished` has it,
    in short."""

    conversation_id: str
    turn_id: str
    tool_call_id: str
    text: str


class Ready(Params, frozen=True, kw_only=True):
    """The store is open. `degraded` says why it is read-only."""

    store_id: str
    sqlite_version: str
    providers: tuple[str, ...]
    degraded: str | None = None


class Method(msgspec.Struct, frozen=True):
    """One request: its name, the types of its params and result, and what it promises."""

    name: str
    params: Any
    result: Any
    doc: str


class Notification(msgspec.Struct, frozen=True):
    name: str
    params: Any
    doc: str


METHODS: tuple[Method, ...] = (
    Method(
        "agent/getOrCreate",
        GetOrCreate,
        AgentInfo,
        "The live agent of a conversation, made if there is none. Two calls at once make one.",
    ),
    Method("agent/dispose", OfConversation, Done, "Free an agent; its queue stays. Absent: no-op."),
    Method("agent/disposeAll", Nothing, DisposedAll, "Free all agents in parallel."),
    Method("agent/reinitialize", Nothing, Reinitialized, "Make all agents anew, queues kept."),
    Method(
        "agent/abortAndRestart", OfConversation, AgentInfo, "Kill a hung agent, start a new one."
    ),
    Method("agent/cancel", OfConversation, Cancelled, "Stop the running turn only."),
    Method("agent/count", Nothing, Count, "How many agents live in this process."),
    Method("agent/has", OfConversation, Known, "Whether an agent lives; false for unknown ids."),
    Method("agent/list", Nothing, AgentList, "This process's agents."),
    Method(
        "agent/validateCommunication", Between, Allowed, "Whether one agent may write to another."
    ),
    Method("agent/sendTo", SendTo, Receipt, "Put a message of one agent into another's queue."),
    Method("agent/grant", Between, Done, "Let one agent write to another across sessions."),
    Method("agent/revoke", Between, Done, "Take a grant back."),
    Method("message/send", Send, TurnResult, "Queue a prompt and answer when its turn has ended."),
    Method("message/enqueue", Send, Receipt, "Queue a prompt and answer when it is stored."),
    Method("message/queue", OfConversation, Queue, "The entries that have not ended."),
    Method("message/update", UpdateMessage, QueueEntry, "Edit a queued prompt."),
    Method("message/remove", OfMessage, TurnResult, "Take a prompt out of the queue."),
    Method("message/reorder", ReorderMessage, Queue, "Move a queued prompt."),
    Method("message/retry", OfMessage, Receipt, "Queue an ended prompt again, as a new message."),
    Method("message/steer", Steer, Done, "Add text to the running turn."),
    Method("conversation/switch", Switch, Switched, "Agent and newest page of a conversation."),
    Method("conversation/create", CreateConversation, Conversation, "A new conversation."),
    Method("conversation/list", ListConversations, ConversationList, "Newest first, or changes."),
    Method("conversation/get", GetConversation, ConversationPage, "One page, newest first."),
    Method("conversation/rename", Rename, Conversation, "Set or clear the title."),
    Method("conversation/setMode", SetMode, Conversation, "Change the mode after the turn."),
    Method("conversation/archive", Archive, Conversation, "Put away, or bring back."),
    Method("conversation/delete", OfConversation, Done, "Remove every trace of it."),
    Method("conversation/search", SearchConversations, SearchResult, "Full text, newest first."),
    Method("conversation/fork", Fork, Conversation, "Copy up to a message."),
    Method("conversation/rewind", Rewind, RewindResult, "Hide what follows a message."),
    Method("conversation/subscribe", Subscribe, CatchUp, "Events from a cursor on."),
    Method("conversation/unsubscribe", OfConversation, Done, "No more events of it."),
    Method("conversation/takeOver", TakeOver, AgentInfo, "Become the owner of a conversation."),
    Method(
        "conversation/export", ExportConversation, Exported, "JSON or Markdown; needs no agent."
    ),
    Method("conversation/import", ImportConversation, Conversation, "Bring in a JSON export."),
    Method("approval/list", ListApprovals, ApprovalsOpen, "What waits for the user's answer."),
    Method(
        "approval/respond", RespondApproval, Approval, "The first answer counts; later: CONFLICT."
    ),
    Method("capability/register", RegisterCapability, Done, "Add or replace one by its name."),
    Method("capability/unregister", NameOfCapability, Done, "Take one away."),
    Method("capability/list", OfConversation, Capabilities, "Empty for an unknown id."),
    Method("capability/query", NameOfCapability, HasCapability, "False for an unknown id."),
    Method("capability/find", FindCapability, FoundCapability, "The agents that have it."),
    Method("rule/list", Nothing, Rules, "What is always allowed, and where."),
    Method("rule/remove", OfRule, Done, "Ask again from now on."),
    Method("audit/read", ReadAudit, Audit, "What agents did and were kept from doing."),
    Method("persona/list", Nothing, Personas, "Who can be talked to, or asked to review."),
    Method("persona/save", SavePersona, Persona, "Add one, or replace the one of its id."),
    Method("persona/delete", OfPersona, Done, "Remove one that was saved."),
    Method(
        "feedback/run",
        RunFeedback,
        FeedbackResult,
        "Have files or a diff reviewed by personas, all at once; one report.",
    ),
    Method(
        "build/start",
        StartBuild,
        Receipt,
        "Plan a task, ask, carry it out, verify. Answers when it is stored; events tell the rest.",
    ),
    Method("build/approve", ApproveBuild, Done, "Accept the plan that waits, or decline it."),
    Method("build/cancel", OfConversation, Cancelled, "Stop the build that runs."),
    Method("settings/update", UpdateSettings, UpdatedSettings, "Change settings and secrets."),
    Method("settings/get", Nothing, SettingsShown, "The settings, without secrets."),
    Method("webview/preserve", WebviewGone, Preserved, "Request form of webview/didDisconnect."),
    Method("webview/restore", WebviewBack, Restored, "Request form of webview/didReconnect."),
    Method("store/prune", Prune, PruneResult, "Delete old archived conversations, or say which."),
    Method("sidecar/status", Nothing, Status, "Agents, queues, store, provider, windows."),
    Method("sidecar/metrics", Nothing, Metrics, "Latencies, memory, CPU. Stays on this machine."),
    Method("rpc.discover", Nothing, dict[str, Any], "This interface as an OpenRPC document."),
)

CLIENT_NOTIFICATIONS: tuple[Notification, ...] = (
    Notification("webview/didDisconnect", WebviewGone, "A webview went away; turns go on."),
    Notification("webview/didReconnect", WebviewBack, "A webview is there again."),
)

SERVER_REQUESTS: tuple[Method, ...] = (
    Method(
        "permission/request",
        Approval,
        Permission,
        "Asked of the owner's client if it says that it can (`permissionRequest` in "
        "`capabilities.experimental.sidecar`); `$/cancelRequest` when it was answered elsewhere.",
    ),
    Method(
        "editor/readFile",
        ReadFile,
        FileText,
        "A file of the workspace with its unsaved changes, if the client says that it knows them "
        "(`readFile`). Without an answer in 2 s what is saved is read.",
    ),
    Method(
        "editor/applyEdit",
        ApplyEdit,
        AppliedEdit,
        "Make a change of a file in the editor's own buffer, unsaved changes kept, if the client "
        "says that it can (`applyEdit`). The user has allowed it.",
    ),
)

SERVER_NOTIFICATIONS: tuple[Notification, ...] = (
    Notification("sidecar/ready", Ready, "The store is open; sent once."),
    Notification("conversation/event", Event, "A fact, or streamed text, of a subscription."),
    Notification("conversation/resync", Resync, "Subscribe again; something was left out."),
    Notification("conversations/changed", ConversationsChanged, "The list changed."),
    Notification("agent/state", AgentInfo, "An agent's state; the latest wins."),
    Notification("tool/output", ToolOutputShown, "What a tool puts out while it runs; not kept."),
    Notification("agents/preserved", Preserved, "Answer to webview/didDisconnect."),
    Notification("agents/restored", Restored, "Answer to webview/didReconnect."),
)

ERROR_CODES: dict[type[errors.AgentError], int] = {
    error: -32050 - index for index, error in enumerate(errors.ALL_ERRORS)
}
"""Fixed for good: new errors go to the end of `ALL_ERRORS`."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
NOT_INITIALIZED = -32002
REQUEST_CANCELLED = -32800


class ErrorData(Params, frozen=True, kw_only=True):
    type: str
    retryable: bool
    conversation_id: str | None = None
    attempts: int | None = None
    hint: str | None = None


def error_data(error: errors.AgentError) -> ErrorData:
    return ErrorData(
        type=error.type,
        retryable=error.retryable,
        conversation_id=error.conversation_id,
        attempts=error.attempts,
        hint=error.hint,
    )
