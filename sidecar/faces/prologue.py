"""The start of a serving process, in the standard library alone.

Answers `initialize` with what is known without looking at anything, before the rest of the
product is even imported, and owns both streams until it hands them over. Whatever arrives
until then is answered or handed on. Nothing in here may import what takes time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from .. import __version__
from ..wire import constants as wire
from ..wire.frames import Frame, FrameError, FrameParser, frame, nesting_depth_exceeds

TYPE_CHECKING = False  # typing itself costs a fifth of our time
if TYPE_CHECKING:
    from typing import Any, Literal

    from ..wire.lines import LineParser

    Message = dict[str, Any]
    Kind = Literal["lsp", "acp"]

CHUNK = 64 * 1024
BLANKS = b" \t\r\n"
SEPARATORS = (",", ":")


class Handover:
    """What the prologue leaves behind, and where it ends.

    `exit_code` is None when the rest of the product is to take over. Then `kind` says which
    protocol is spoken, `initialize` is the body of the request that was answered, `items` are
    what came behind it, and `parser` goes on from there with what is read from stdin.
    """

    __slots__ = ("exit_code", "initialize", "items", "kind", "parser", "stdin", "stdout")

    def __init__(
        self,
        stdin: int,
        stdout: int,
        *,
        kind: Kind = "lsp",
        initialize: bytes = b"",
        items: list[Frame | FrameError] | None = None,
        parser: FrameParser | LineParser | None = None,
        exit_code: int | None = None,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.kind = kind
        self.initialize = initialize
        self.items = items or []
        self.parser = parser or FrameParser()
        self.exit_code = exit_code


def run(stdin: int, stdout: int, forced: Kind | None = None) -> Handover:
    """Answer until `initialize` was answered well, or the client is gone. What the first byte
    says about the protocol is not asked when one is `forced`."""
    begin = _read_past_blanks(stdin)
    kind = forced or ("acp" if begin.startswith(b"{") else "lsp")
    try:
        return _until_initialized(stdin, stdout, kind, begin)
    except OSError:  # nobody reads our answers
        return Handover(stdin, stdout, exit_code=1)


def refuse_all(handover: Handover, reason: str) -> int:
    """Stand in for a product that could not be loaded: every request fails with `reason` until
    the client says goodbye or is gone. Returns the exit code."""

    def refuse(message: Message) -> None:
        if message["method"] != "shutdown":
            raise _Refused(wire.INITIALIZATION_FAILED, reason, message["id"])

    items, (_, wrap) = handover.items, _framing(handover.kind)
    exit_code = 1
    try:
        while True:
            for item in items:
                answer, method = _answer(item, refuse)
                if method == "exit":
                    return exit_code
                if answer is not None:
                    _send(handover.stdout, wrap(answer))
                    exit_code = 0 if method == "shutdown" else exit_code
            if not (data := _read(handover.stdin)):
                return exit_code
            items = handover.parser.feed(data)
    except OSError:  # nobody reads our answers
        return 1


def _until_initialized(stdin: int, stdout: int, kind: Kind, data: bytes) -> Handover:
    make_parser, wrap = _framing(kind)
    parser, initialize = make_parser(), _initialize if kind == "lsp" else _initialize_acp
    while data:
        items = parser.feed(data)
        for number, item in enumerate(items, 1):
            answer, method = _answer(item, initialize)
            if answer is not None:
                _send(stdout, wrap(answer))
            if method == "exit" and kind == "lsp":
                return Handover(stdin, stdout, exit_code=1)
            if method == "initialize" and answer is not None and isinstance(item, Frame):
                return Handover(
                    stdin,
                    stdout,
                    kind=kind,
                    initialize=item.body,
                    items=items[number:],
                    parser=parser,
                )
        data = _read(stdin)
    return Handover(stdin, stdout, kind=kind, exit_code=1)


def _framing(kind: Kind) -> tuple[type[FrameParser | LineParser], Callable[[bytes], bytes]]:
    if kind == "lsp":
        return FrameParser, frame
    from ..wire.lines import LineParser, line

    return LineParser, line


# ---- messages ----------------------------------------------------------------------------


class _Refused(Exception):
    """A message whose answer is an error."""

    def __init__(self, code: int, text: str, msg_id: int | str | None = None) -> None:
        super().__init__(text)
        error: Message = {"code": code, "message": text}
        if code == wire.INITIALIZATION_FAILED:
            error["data"] = {"type": "INITIALIZATION_FAILED", "retryable": False}
        answer = {"jsonrpc": "2.0", "id": msg_id, "error": error}
        self.answer = json.dumps(answer, separators=SEPARATORS).encode()


def _answer(
    item: Frame | FrameError, respond: Callable[[Message], Any]
) -> tuple[bytes | None, str | None]:
    """The answer that `item` calls for, and the method that it names, unless it was refused.

    Requests go to `respond`, which returns the result or raises `_Refused`."""
    try:
        message = _parse(item)
        if "id" not in message or "method" not in message:
            return None, message.get("method")
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": respond(message)}
    except _Refused as refusal:
        return refusal.answer, None
    return json.dumps(answer, separators=SEPARATORS).encode(), message["method"]


def _parse(item: Frame | FrameError) -> Message:
    """A request, a notification or a response."""
    if isinstance(item, FrameError):
        raise _Refused(item.code, item.message)
    is_deep = nesting_depth_exceeds(item.body)
    try:
        message = json.loads(item.body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        if not is_deep:
            raise _Refused(wire.PARSE_ERROR, "The body is not valid JSON in UTF-8.") from None
        message = None
    if not isinstance(message, dict):
        raise _Refused(wire.INVALID_REQUEST, "A message is one object; batches are not taken.")
    msg_id = message.get("id")
    is_response = "method" not in message and ("result" in message or "error" in message)
    is_id = type(msg_id) in (int, str)  # bool is none
    if "id" in message and not is_id and not (is_response and msg_id is None):
        raise _Refused(wire.INVALID_REQUEST, "The id of a request is an integer or a string.")
    if is_deep:
        raise _Refused(wire.INVALID_REQUEST, "The message is nested too deeply.", msg_id)
    is_call = isinstance(message.get("method"), str)
    if message.get("jsonrpc") != "2.0" or not (is_call or is_response):
        raise _Refused(wire.INVALID_REQUEST, "This is not a JSON-RPC 2.0 message.", msg_id)
    return message


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _initialize(message: Message) -> Message:
    msg_id, params = _initializing(message, wire.NOT_INITIALIZED)
    options = params.get("initializationOptions")
    version = _common_version(options if isinstance(options, dict) else {}, msg_id)
    return {
        "capabilities": {
            "experimental": {
                "sidecar": {
                    "protocolVersion": version,
                    "version": __version__,
                    "modes": wire.MODES,
                    "providers": wire.PROVIDERS,
                    "methods": wire.METHODS,
                }
            }
        },
        "serverInfo": {"name": "agent-sidecar", "version": __version__},
    }


def _initialize_acp(message: Message) -> Message:
    """Version 1 is the only one that is spoken; who speaks another says goodbye then. What may be
    promised is what is known without looking at anything."""
    msg_id, params = _initializing(message, wire.INVALID_REQUEST)
    if type(params.get("protocolVersion")) is not int:
        text = "initialize: Expected int - at `$.protocolVersion`"
        raise _Refused(wire.INVALID_PARAMS, text, msg_id)
    sessions: Message = {
        name: {} for name in ("list", "delete", "resume", "close", "additionalDirectories")
    }
    if wants_unstable(params):
        sessions["fork"] = {}
    return {
        "protocolVersion": 1,
        "agentInfo": {
            "name": "agent-sidecar",
            "title": "Agent Sidecar",
            "version": __version__,
        },
        "agentCapabilities": {
            "loadSession": True,
            "promptCapabilities": {"image": False, "audio": False, "embeddedContext": True},
            "mcpCapabilities": {"http": _has_mcp(), "sse": False},
            "sessionCapabilities": sessions,
            "auth": {"logout": {}},
        },
        "authMethods": wire.ACP_AUTH_METHODS,
    }


def wants_unstable(params: Message) -> bool:
    meta = params.get("_meta")
    ours = meta.get("agent-sidecar") if isinstance(meta, dict) else None
    return isinstance(ours, dict) and ours.get(wire.UNSTABLE) is True


def _has_mcp() -> bool:
    """Whether what speaks to MCP servers is installed. Looking for it properly takes too long."""
    return any(os.path.isdir(os.path.join(folder, "mcp")) for folder in sys.path)


def _initializing(message: Message, code: int) -> tuple[int | str, Message]:
    msg_id, params = message["id"], message.get("params")
    if message["method"] != "initialize":
        raise _Refused(code, "The first request is initialize.", msg_id)
    if not isinstance(params, dict):
        raise _Refused(wire.INVALID_PARAMS, "initialize: Expected an object - at `$`", msg_id)
    return msg_id, params


def _common_version(options: Message, msg_id: int | str) -> int:
    """The highest version of the protocol that both sides speak."""
    theirs, at = options.get("protocolVersions"), "protocolVersions"
    if theirs is None and options.get("protocolVersion") is not None:
        theirs, at = [options["protocolVersion"]], "protocolVersion"
    if theirs is None:
        theirs = [1]
    if not isinstance(theirs, list) or any(type(version) is not int for version in theirs):
        where = f"`$.initializationOptions.{at}`"
        raise _Refused(wire.INVALID_PARAMS, f"initialize: Expected int - at {where}", msg_id)
    if common := wire.PROTOCOL_VERSIONS & set(theirs):
        return max(common)
    ours = ", ".join(map(str, sorted(wire.PROTOCOL_VERSIONS)))
    text = f"None of these versions is spoken here; the sidecar speaks {ours}."
    raise _Refused(wire.INITIALIZATION_FAILED, text, msg_id)


# ---- streams -----------------------------------------------------------------------------


def _read_past_blanks(stdin: int) -> bytes:
    while data := _read(stdin):
        if begin := data.lstrip(BLANKS):
            return begin
    return b""


def _read(stdin: int) -> bytes:
    try:
        return os.read(stdin, CHUNK)
    except OSError:  # a terminal that went away is an end like any other
        return b""


def _send(stdout: int, data: bytes) -> None:
    while data:
        data = data[os.write(stdout, data) :]
