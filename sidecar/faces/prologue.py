"""The start of a serving process, in the standard library alone.

Answers `initialize` with what is known without looking at anything, before the rest of the
product is even imported, and owns both streams until it hands them over. Whatever arrives
until then is answered or handed on. Nothing in here may import what takes time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from .. import __version__
from ..wire import constants as wire
from ..wire.frames import MAX_BODY, Frame, FrameError, FrameParser, frame, nesting_depth_exceeds

TYPE_CHECKING = False  # typing itself costs a fifth of our time
if TYPE_CHECKING:
    from typing import Any, Literal

    Message = dict[str, Any]

CHUNK = 64 * 1024
BLANKS = b" \t\r\n"
SEPARATORS = (",", ":")


class Handover:
    """What the prologue leaves behind, and where it ends.

    `exit_code` is None when the rest of the product is to take over. Then `kind` says which
    protocol is spoken. On the native face, `initialize` is the body of the request that was
    answered, `items` are what came behind it, and `parser` goes on from there with what is
    read from stdin. For ACP, `line` is what was read.
    """

    __slots__ = ("exit_code", "initialize", "items", "kind", "line", "parser", "stdin", "stdout")

    def __init__(
        self,
        stdin: int,
        stdout: int,
        *,
        kind: Literal["lsp", "acp"] = "lsp",
        initialize: bytes = b"",
        items: list[Frame | FrameError] | None = None,
        parser: FrameParser | None = None,
        line: bytes = b"",
        exit_code: int | None = None,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.kind = kind
        self.initialize = initialize
        self.items = items or []
        self.parser = parser or FrameParser()
        self.line = line
        self.exit_code = exit_code


def run(stdin: int, stdout: int) -> Handover:
    """Answer until `initialize` was answered well, or the client is gone."""
    begin = _read_past_blanks(stdin)
    if begin.startswith(b"{"):
        return Handover(stdin, stdout, kind="acp", line=begin)
    try:
        return _until_initialized(stdin, stdout, begin)
    except OSError:  # nobody reads our answers
        return Handover(stdin, stdout, exit_code=1)


def refuse_all(handover: Handover, reason: str) -> int:
    """Stand in for a product that could not be loaded: every request fails with `reason` until
    the client says goodbye or is gone. Returns the exit code."""
    parser: FrameParser | _Lines = handover.parser
    items, wrap = handover.items, frame
    if handover.kind == "acp":
        parser, wrap = _Lines(), _line
        items = parser.feed(handover.line)

    def refuse(message: Message) -> None:
        if message["method"] != "shutdown":
            raise _Refused(wire.INITIALIZATION_FAILED, reason, message["id"])

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
            items = parser.feed(data)
    except OSError:  # nobody reads our answers
        return 1


def _until_initialized(stdin: int, stdout: int, data: bytes) -> Handover:
    parser = FrameParser()
    while data:
        items = parser.feed(data)
        for number, item in enumerate(items, 1):
            answer, method = _answer(item, _initialize)
            if answer is not None:
                _send(stdout, frame(answer))
            if method == "exit":
                return Handover(stdin, stdout, exit_code=1)
            if method == "initialize" and answer is not None and isinstance(item, Frame):
                later = items[number:]
                return Handover(stdin, stdout, initialize=item.body, items=later, parser=parser)
        data = _read(stdin)
    return Handover(stdin, stdout, exit_code=1)


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
    msg_id, params = message["id"], message.get("params")
    if message["method"] != "initialize":
        raise _Refused(wire.NOT_INITIALIZED, "The first request is initialize.", msg_id)
    if not isinstance(params, dict):
        raise _Refused(wire.INVALID_PARAMS, "initialize: Expected an object - at `$`", msg_id)
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


class _Lines:
    """Messages one per line, as ACP frames them; stands in for `FrameParser`."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame | FrameError]:
        self._rest += data
        if b"\n" not in data and len(self._rest) <= MAX_BODY:
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest if len(rest) <= MAX_BODY else b"")
        return [Frame(line) for line in lines if line.strip()]


def _line(body: bytes) -> bytes:
    return body + b"\n"


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
