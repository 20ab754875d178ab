"""What an ACP client sends, typed: the stable methods of version 1 of the Agent Client Protocol.

Source: the schema of the protocol (`schema/v1/schema.json` of `@agentclientprotocol/sdk`). Unknown
fields are passed over; what we send is built in `faces.acp.updates` and checked against the
official schema in the tests.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, get_args

import msgspec
from msgspec import Meta

from .methods import Method, Notification, Params

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=msgspec.Struct)
Path = Annotated[str, Meta(min_length=1, max_length=4096)]
SessionId = Annotated[str, Meta(min_length=1, max_length=128)]
META = "agent-sidecar"
"""Our own part of every `_meta`."""


class OurMeta(Params, frozen=True, kw_only=True):
    request_key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """A prompt that is sent again under the same key is not asked twice."""
    unstable: bool = False


class WithMeta(Params, frozen=True, kw_only=True):
    meta: dict[str, Any] | None = msgspec.field(name="_meta", default=None)

    @property
    def ours(self) -> OurMeta:
        try:
            return msgspec.convert((self.meta or {}).get(META) or {}, OurMeta)
        except msgspec.ValidationError:
            return OurMeta()


# ---- the client's side of initialize -------------------------------------------------------


class FileSystem(Params, frozen=True, kw_only=True):
    read_text_file: bool = False
    write_text_file: bool = False


class SessionAbilities(Params, frozen=True, kw_only=True):
    notices: dict[str, Any] | None = None


class ClientAbilities(Params, frozen=True, kw_only=True):
    fs: FileSystem = FileSystem()
    terminal: bool = False
    session: SessionAbilities | None = None


class Initialize(WithMeta, frozen=True, kw_only=True):
    protocol_version: int = 1
    client_capabilities: ClientAbilities | None = None


def understood(given: dict[str, Any], type_: type[S]) -> S:
    """What of it makes sense; anything else is as if it had not been said, as the protocol has it
    for capabilities."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(type_):
        value = given.get(field.encode_name)
        inner = next((t for t in (field.type, *get_args(field.type)) if is_struct(t)), None)
        try:
            if inner is not None and isinstance(value, dict):
                found[field.name] = understood(value, inner)
            elif value is not None:
                found[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError:
            logger.warning("not understood", extra={"field": field.encode_name})
    return type_(**found)


def is_struct(type_: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


# ---- sessions ------------------------------------------------------------------------------


class Pair(Params, frozen=True, kw_only=True):
    name: str
    value: str


class ServerOfTools(Params, frozen=True, kw_only=True):
    """An MCP server: a `command`, or a `url` of the `type` `http` (or `sse`)."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    type: str = "stdio"
    command: str = ""
    args: tuple[str, ...] = ()
    env: tuple[Pair, ...] = ()
    url: str = ""
    headers: tuple[Pair, ...] = ()


class NewSession(WithMeta, frozen=True, kw_only=True):
    cwd: Path
    mcp_servers: tuple[ServerOfTools, ...] | None
    additional_directories: tuple[Path, ...] | None = None


class LoadSession(NewSession, frozen=True, kw_only=True):
    session_id: SessionId


class ResumeSession(WithMeta, frozen=True, kw_only=True):
    session_id: SessionId
    cwd: Path
    mcp_servers: tuple[ServerOfTools, ...] | None = None
    additional_directories: tuple[Path, ...] | None = None


class ListSessions(WithMeta, frozen=True, kw_only=True):
    cwd: Path | None = None
    cursor: str | None = None


class OfSession(WithMeta, frozen=True, kw_only=True):
    session_id: SessionId


class SetMode(WithMeta, frozen=True, kw_only=True):
    session_id: SessionId
    mode_id: str


class SetOption(WithMeta, frozen=True, kw_only=True):
    session_id: SessionId
    config_id: str
    value: str | bool


class Authenticate(WithMeta, frozen=True, kw_only=True):
    method_id: str


class Nothing(WithMeta, frozen=True, kw_only=True):
    """No params."""


# ---- prompts -------------------------------------------------------------------------------


class Text(Params, frozen=True, kw_only=True, tag="text"):
    text: str


class Image(Params, frozen=True, kw_only=True, tag="image"):
    mime_type: str
    data: str


class Audio(Params, frozen=True, kw_only=True, tag="audio"):
    mime_type: str
    data: str


class ResourceLink(Params, frozen=True, kw_only=True, tag="resource_link"):
    name: str
    uri: Path


class Resource(Params, frozen=True, kw_only=True):
    """`text`, or a `blob` in base64."""

    uri: Path
    text: str | None = None
    blob: str | None = None


class Embedded(Params, frozen=True, kw_only=True, tag="resource"):
    resource: Resource


Block = Text | Image | Audio | ResourceLink | Embedded


class Prompt(WithMeta, frozen=True, kw_only=True):
    session_id: SessionId
    prompt: tuple[Block, ...]


# ---- what we ask of the client -------------------------------------------------------------


class Outcome(Params, frozen=True, kw_only=True):
    outcome: Literal["selected", "cancelled"]
    option_id: str | None = None


class Permission(Params, frozen=True, kw_only=True):
    outcome: Outcome


class FileContent(Params, frozen=True, kw_only=True):
    content: str


class TerminalMade(Params, frozen=True, kw_only=True):
    terminal_id: str


class ExitStatus(Params, frozen=True, kw_only=True):
    exit_code: int | None = None
    signal: str | None = None


class TerminalOutput(Params, frozen=True, kw_only=True):
    output: str
    truncated: bool = False
    exit_status: ExitStatus | None = None


# ---- the tables ----------------------------------------------------------------------------


def _method(name: str, params: Any, doc: str) -> Method:
    return Method(name, params, Any, doc)


METHODS: tuple[Method, ...] = (
    _method("authenticate", Authenticate, "Are there keys in the environment?"),
    _method("logout", Nothing, "Forget the keys."),
    _method("session/new", NewSession, "Make a conversation."),
    _method("session/load", LoadSession, "Open one; all of it is sent first."),
    _method("session/resume", ResumeSession, "Open one whose text the client has."),
    _method("session/list", ListSessions, "The conversations, the newest first."),
    _method("session/close", OfSession, "Stop what runs and free its agent."),
    _method("session/delete", OfSession, "Remove every trace."),
    _method("session/prompt", Prompt, "Queue a prompt and wait for the end of its turn."),
    _method("session/set_mode", SetMode, "chat, build or feedback."),
    _method("session/set_config_option", SetOption, "`mode`, `model` or `thought_level`."),
)
UNSTABLE: tuple[Method, ...] = (_method("session/fork", ResumeSession, "Go on with a copy."),)
NOTIFICATIONS: tuple[Notification, ...] = (
    Notification("session/cancel", OfSession, "Stop what this session has begun."),
)

ASK_PERMISSION = Method("session/request_permission", Any, Permission, "")
READ_FILE = Method("fs/read_text_file", Any, FileContent, "")
WRITE_FILE = Method("fs/write_text_file", Any, Any, "")
MAKE_TERMINAL = Method("terminal/create", Any, TerminalMade, "")
TERMINAL_OUTPUT = Method("terminal/output", Any, TerminalOutput, "")
AWAIT_TERMINAL = Method("terminal/wait_for_exit", Any, ExitStatus, "")
KILL_TERMINAL = Method("terminal/kill", Any, Any, "")
RELEASE_TERMINAL = Method("terminal/release", Any, Any, "")
