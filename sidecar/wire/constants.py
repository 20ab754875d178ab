"""What the answer to `initialize` says, as plain values: the start prologue has no time for the
types that these follow from. `tests/faces/test_prologue.py` fails when the two differ."""

from __future__ import annotations

PROTOCOL_VERSIONS = frozenset({1})

INITIALIZATION_FAILED = -32051
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
NOT_INITIALIZED = -32002

ACP_AUTH_METHODS = (
    {
        "id": "environment",
        "name": "Keys from the environment",
        "description": "Set ANTHROPIC_API_KEY, GEMINI_API_KEY, OPENAI_API_KEY or AWS keys where "
        "the editor starts agent-sidecar. Without any, the offline provider answers.",
    },
)
UNSTABLE = "unstable"
"""A client that sets it in `_meta.agent-sidecar` of `initialize` is offered what the Agent Client
Protocol has not settled yet."""

MODES = (
    "chat",
    "build",
    "feedback",
)
PROVIDERS = (
    "offline",
    "gemini",
    "bedrock",
    "anthropic",
    "openai",
    "scripted",
)
METHODS = (
    "agent/getOrCreate",
    "agent/dispose",
    "agent/disposeAll",
    "agent/reinitialize",
    "agent/abortAndRestart",
    "agent/cancel",
    "agent/count",
    "agent/has",
    "agent/list",
    "agent/validateCommunication",
    "agent/sendTo",
    "agent/grant",
    "agent/revoke",
    "message/send",
    "message/enqueue",
    "message/queue",
    "message/update",
    "message/remove",
    "message/reorder",
    "message/retry",
    "message/steer",
    "conversation/switch",
    "conversation/create",
    "conversation/list",
    "conversation/get",
    "conversation/rename",
    "conversation/setMode",
    "conversation/archive",
    "conversation/delete",
    "conversation/search",
    "conversation/fork",
    "conversation/rewind",
    "conversation/subscribe",
    "conversation/unsubscribe",
    "conversation/takeOver",
    "conversation/export",
    "conversation/import",
    "approval/list",
    "approval/respond",
    "capability/register",
    "capability/unregister",
    "capability/list",
    "capability/query",
    "capability/find",
    "rule/list",
    "rule/remove",
    "audit/read",
    "persona/list",
    "persona/save",
    "persona/delete",
    "feedback/run",
    "build/start",
    "build/approve",
    "build/cancel",
    "settings/update",
    "settings/get",
    "webview/preserve",
    "webview/restore",
    "store/prune",
    "sidecar/status",
    "sidecar/metrics",
    "rpc.discover",
)
