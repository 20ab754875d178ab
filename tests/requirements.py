"""What was promised, one line each, and which tests show it.

`P…` are the design's promises, `S003-…` the behaviour that the AgentManager was specified with,
`D4-…` the design's rules for it. A test says which it keeps with `@proves("P5", …)`;
`test_requirements.py` fails when a line has no test. `python tests/requirements.py` prints the
table. A line marked `later` is shown outside the core, in the part that is named.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Requirement:
    id: str
    line: str
    later: str | None = None


def proves(*ids: str) -> Callable[[T], T]:
    """Say which requirements a test shows to be kept."""

    def note(test: T) -> T:
        test.proves = ids  # type: ignore[attr-defined]
        return test

    return note


def _numbered(prefix: str, *lines: str, later: dict[int, str] | None = None) -> list[Requirement]:
    later = later or {}
    return [Requirement(f"{prefix}-{n}", line, later.get(n)) for n, line in enumerate(lines, 1)]


PROMISES = [
    Requirement("P1", "Nothing accepted is lost: a prompt is acknowledged after its commit"),
    Requirement("P2", "Nothing happens twice: a requestKey makes a command idempotent"),
    Requirement("P3", "A reader never sees a gap or a repeat"),
    Requirement("P4", "Storage is bounded by the text; streaming costs writes linear in it"),
    Requirement("P5", "Busy work is never evicted"),
    Requirement("P6", "Every request gets exactly one response, every turn exactly one end"),
    Requirement("P7", "Stop stops"),
    Requirement("P8", "Windows share, never fork", later="stores"),
    Requirement("P9", "Nothing acts without right"),
    Requirement("P10", "Secrets stay in the memory of the process that was given them"),
    Requirement("P11", "One slow or hung agent harms no other"),
    Requirement("P12", "Starting is instant", later="faces"),
]

SEED = [
    *_numbered(
        "S003-CONFIG",
        "maxActiveAgents: default 10",
        "inactivityTimeout: default 300000 (5 minutes)",
    ),
    *_numbered(
        "S003-LIFECYCLE",
        "Returns existing agent if found (updates last access time)",
        "Creates new agent if not found",
        "Enforces agent limit before creation (LRU eviction)",
        "Registers agent with message queue",
        "Logs creation with context",
        "Throws AgentError with type CREATION_FAILED if creation fails",
    ),
    *_numbered(
        "S003-DISPOSE",
        "Calls agent's dispose() method (gives back what it holds)",
        "Removes agent from registry",
        "Removes capabilities from registry",
        "Logs disposal with lifetime metrics",
    ),
    *_numbered(
        "S003-DISPOSEALL",
        "Disposes all agents in parallel",
        "Clears agent registry",
        "Clears capability registry",
        "Continues disposing even if individual agents fail",
        "Logs comprehensive disposal summary",
    ),
    *_numbered(
        "S003-SEND",
        "Updates agent's last access time",
        "Adds message to agent's queue",
        "Starts queue processing if not already processing",
        "Processes messages sequentially per agent",
        "Allows concurrent processing across agents",
        "Throws AgentError with type COMMUNICATION_FAILED if agent not found",
    ),
    *_numbered(
        "S003-SWITCH",
        "Gets or creates target agent",
        "Tracks switch duration",
        "Logs warning if switch exceeds 500ms target",
        "Fast operation (just registry lookup or creation)",
    ),
    *_numbered(
        "S003-SETTINGS",
        "Checks if critical settings changed (provider, API keys, model)",
        "If critical: disposes all agents and clears registry",
        "If non-critical: updates stored settings only",
        "Logs settings changes with context",
    ),
    *_numbered(
        "S003-CRITICAL",
        "provider is critical",
        "geminiApiKey is critical",
        "awsAccessKey is critical",
        "awsSecretKey is critical",
        "geminiModel is critical",
        "bedrockModel is critical",
        "awsRegion is critical",
        "awsProfile is critical",
        "awsUseProfile is critical",
    ),
    *_numbered(
        "S003-REINIT",
        "Disposes all active agents",
        "Clears agent registry",
        "Clears capability registry",
        "New agents created with updated settings on next request",
        "Logs agent count before and after",
    ),
    *_numbered(
        "S003-CAPABILITY",
        "register: adds capability to agent's capability list",
        "register: logs registration with capability name and count",
        "get: returns array of capabilities",
        "get: returns empty array if agent not found",
        "query: returns true if agent has the capability",
        "query: returns false if agent not found or doesn't have capability",
        "Registers capabilities during creation",
        "Updates when agent capabilities change",
    ),
    *_numbered(
        "S003-ABORT",
        "Aborts current agent operation",
        "Disposes the agent",
        "Creates new agent with same mode",
        "Restores conversation history from storage",
        "Logs abort and restart with timestamps",
    ),
    *_numbered(
        "S003-EXPORT",
        "Retrieves conversation from storage",
        "Creates export data with metadata",
        "Includes export timestamp and reason",
        "Returns formatted JSON string",
        "Logs export with data size",
        "Throws AgentError with type LOAD_FAILED if conversation not found",
        later={5: "faces", 6: "faces"},
    ),
    *_numbered(
        "S003-DISCONNECT",
        "Preserves state for all active agents",
        "Includes conversation ID, mode, message count, last access, capabilities",
        "Continues preserving even if individual agents fail",
        "Logs preserved agent count",
    ),
    *_numbered(
        "S003-RECONNECT",
        "Updates webview reference",
        "Restores agent states from preserved data",
        "Restores conversation history",
        "Restores capabilities",
        "Continues restoring even if individual agents fail",
        "Logs restored agent count",
        later=dict.fromkeys((1, 2, 5, 6), "faces"),
    ),
    *_numbered(
        "S003-UTILITY",
        "getActiveAgentCount: the number of active agents",
        "hasAgent: whether an agent exists for a conversation",
    ),
    *_numbered(
        "S003-VALIDATE",
        "Checks if both agents exist",
        "Validates session ownership",
        "Logs validation result",
        "Returns false if either agent not found",
    ),
    *_numbered(
        "S003-RETRY",
        "Retries operation up to maxAttempts times",
        "Uses exponential backoff: delay = baseDelay * 2^(attempt-1)",
        "Logs each attempt and retry",
        "Throws AgentError after all retries fail",
        "maxAttempts: default 3; baseDelay: default 1000",
    ),
    *_numbered(
        "S003-PERSIST",
        "Called automatically when agent updates messages",
        "Saves with retry logic",
        "Logs errors but doesn't crash",
        "Provides full error context for debugging",
    ),
    *_numbered(
        "S003-RESOURCES",
        "When the agent limit is reached, the least recently used agent is disposed",
        "Inactive agents are automatically disposed after the timeout",
        "Cleanup runs automatically every 5 minutes",
    ),
    *_numbered(
        "S003-QUEUE",
        "Messages processed sequentially per agent",
        "Concurrent processing across different agents",
        "Maintains message order within conversation",
        "Prevents race conditions",
        "Proper error handling with AgentError; the next message is processed",
    ),
    *_numbered(
        "S003-ERROR",
        "All errors are wrapped as AgentError with proper context",
        "The nine AgentErrorTypes of the seed exist",
        "An error keeps its cause",
    ),
    *_numbered(
        "S003-LOG",
        "Agent creation and disposal",
        "Message queuing and processing",
        "Conversation switching",
        "Settings updates",
        "Capability registration",
        "Error recovery operations",
        "Resource cleanup",
        "Webview reconnection (preserving)",
    ),
    *_numbered(
        "S003-PERFORMANCE",
        "Agent limit: maximum 10 active agents by default (configurable)",
        "Inactivity timeout: 5 minutes",
        "Conversation switching: target < 500ms",
        "Memory management: limits enforced with LRU eviction",
        "Lazy loading: create agents on demand, not at startup",
        "Concurrent processing across agents",
        "Sequential processing within agent",
    ),
    *_numbered(
        "S003-SECURITY",
        "Agent isolation: each agent operates in its own context",
        "Permission validation: all tool executions require permission checks",
        "Message sanitization: sanitize all agent-to-agent messages",
        "Workspace restriction: file operations limited to workspace",
        "Audit logging: log all agent-to-agent communication attempts",
        "API key security: keys in secure storage (here: never shown, stored or logged)",
        "Session validation: validate session ownership for agent communication",
        later={2: "tools", 4: "tools"},
    ),
    *_numbered(
        "S003-PROPERTY",
        "Agent creation completeness",
        "Message routing correctness",
        "Conversation persistence round-trip",
        "Resource cleanup",
        "Capability discovery",
        "Security validation",
        "Error resilience",
        "Performance characteristics",
    ),
]

RULES = [
    *_numbered(
        "D4-LIFECYCLE",
        "The lifecycle is one table; an illegal move raises",
        "A starting agent counts against the limit",
        "A starting agent can be cancelled",
        "A starting agent is reclaimed on failure",
        "Start, stop and restart of one agent are serialised by its lifetime task",
    ),
    *_numbered(
        "D4-LIMIT",
        "LRU is among the quiescent",
        "All busy: a committed prompt waits its turn",
        "All busy: getOrCreate and switch answer LIMIT_REACHED (retryable) after a deadline",
        "Idle disposal is by state; attached readers delay it, never LRU",
        "A laptop that slept does not wake to a massacre",
        "maxActiveAgents applies live",
        "inactivityTimeout applies live",
        "retry.maxAttempts and retry.baseDelay apply live",
    ),
    *_numbered(
        "D4-QUEUE",
        "FIFO, bounded (QUEUE_FULL)",
        "A row is taken out only when finished",
        "Disposal keeps every entry and answers every caller",
        "Settings changes keep every entry and answer every caller",
        "Shutdown settles or keeps every entry and answers every caller",
    ),
    *_numbered(
        "D4-CRASH",
        "Queued entries left by a crash run when a client subscribes, not at start-up",
        "A toolStarted row is committed before each effect",
        "A failed entry runs again only by message/retry under a new messageId",
    ),
    *_numbered(
        "D4-KEY",
        "Same key with other params is CONFLICT",
        "While pending, a repeat waits for the same end",
        "After the end, a repeat gets the same result",
    ),
    *_numbered(
        "D4-SETTINGS",
        "Unchanged values do nothing",
        "A critical change disposes agents after their running turn (at once with force)",
        "The next request uses the new settings; the queue survives",
        "One request never pairs a key with another setting's provider",
        "Without a working provider entries stay queued with reason needsProvider",
        "Problems are found before anything is disposed",
        "Secrets are accepted only in secrets",
        "Per-message settings is a closed list of non-critical fields",
    ),
    *_numbered(
        "D4-RETRY",
        "Retry-After is honoured",
        "Only transient errors are retried",
        "Never after the first delta",
        "Cancellable while waiting",
        "Each attempt logs operationName, number, delay, cause",
        "The last error carries attempts",
    ),
    *_numbered(
        "D4-MODE",
        "A mode changes after the running turn",
        "Agents never raise a mode",
        later={2: "tools"},
    ),
    *_numbered(
        "D4-AGENTS",
        "sendTo goes through the target's queue and never waits inside a turn",
        "sanitised",
        "audited, allowed and denied",
        "same session or granted",
        "depth at most 3",
        "loops are cut",
        "The reply arrives as a queue entry",
        "rights are the intersection along the chain",
        later={8: "tools"},
    ),
    *_numbered(
        "D4-WEBVIEW",
        "Webview gone: turns go on",
        "Preserved states are derived from what is live and stored",
    ),
    *_numbered(
        "D4-LOG",
        "Logged with conversationId, mode, timestamp and duration; JSON lines to stderr",
        "Disposal is logged with reason, lifetimeMs, turns",
        "A switch over 500 ms warns",
    ),
    *_numbered(
        "D4-CANCEL",
        "A request cancelled before its commit leaves nothing",
        "Cancelled after its commit: what it admitted is cancelled, the answer is normal",
        "Abort returns within 2 s even when a provider does not stop; late writes are refused",
        "agent/cancel stops only the turn",
    ),
    *_numbered(
        "D4-STREAM",
        "Text is at most 200 ms or 8 KiB behind, one transaction a tick for all",
        "A failing save is announced once as degraded and once as recovered; the turn goes on",
        "messageCompleted and turnEnded wait for the commit",
        "Lone surrogates become U+FFFD; a delta never splits a pair",
        "A turn's events, turnEnded included, precede its response",
    ),
    *_numbered(
        "D4-TURN",
        "Steering reaches the model before its next step; another turn is CONFLICT",
        "A model that goes round in circles is stopped",
        "An unknown or failing tool is told to the model",
    ),
    Requirement("ROOMS", "The core imports no room; rooms import the core, not each other"),
    Requirement("TOOLS-EDIT", "Files are changed as the user was shown, or not at all"),
    Requirement(
        "TOOLS-RUN", "Commands run as asked, confined where that is possible, and end whole"
    ),
    Requirement("VSCODE-FILES", "Agents read what the editor shows, unsaved changes included"),
    Requirement("FEEDBACK", "Personas review at the same time; one report comes of it"),
    Requirement("PERSONAS", "Personas can be saved, talked to, and asked to review"),
    Requirement("BUILD", "A build is planned, allowed, done in steps, verified and summed up"),
    Requirement("UNDO", "What agents changed in files can be put back, unless changed since"),
    Requirement("RULES", "What is always allowed is one command, word by word, in one folder"),
    Requirement("PROTECTED", "What governs agents, editors and shells is asked every time"),
    Requirement("AUDIT", "What agents did and were kept from is recorded, and cuts are noticed"),
    Requirement("MCP", "Tools of MCP servers are asked for like commands"),
    Requirement("ACP", "Editors that speak the Agent Client Protocol have the same conversations"),
    Requirement("GUARD", "No path leads out of the workspace, and none inside is refused"),
    Requirement("AGENT-RIGHTS", "Agents that ask agents gain no right by it, and come to an end"),
    Requirement("PATHS", "Where things are kept, by platform"),
]

REQUIREMENTS: dict[str, Requirement] = {r.id: r for r in (*PROMISES, *SEED, *RULES)}


def cited(folder: Path) -> Iterator[tuple[str, str]]:
    """Every (requirement id, test) that the tests in `folder` name."""
    for file in sorted(folder.rglob("test_*.py")):
        if "node_modules" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                test = f"{file.relative_to(folder).as_posix()}::{node.name}"
                yield from ((id_, test) for id_ in _ids(node))


def _ids(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "proves":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def as_markdown(folder: Path) -> str:
    tests: dict[str, list[str]] = {}
    for id_, test in cited(folder):
        tests.setdefault(id_, []).append(f"`{test}`")
    lines = ["| Id | What | Shown by |", "| -- | ---- | -------- |"]
    for requirement in REQUIREMENTS.values():
        shown = ", ".join(tests.get(requirement.id, [])) or f"later ({requirement.later})"
        lines.append(f"| {requirement.id} | {requirement.line} | {shown} |")
    return "\n".join(lines)


HEAD = """# Requirements

What the product promises, and the tests that show it. `P…` are the promises that the README
names, `S003-…` the lines of the specification of the AgentManager that this product was asked
for with, `D4-…` the further rules of the agents' life. Made by `make schemas`; a test fails when
it is not up to date.

"""


def document(folder: Path) -> str:
    return HEAD + as_markdown(folder) + "\n"


if __name__ == "__main__":
    here = Path(__file__).parent
    (here.parent / "docs" / "requirements.md").write_text(document(here), encoding="utf-8")
