"""JSON-RPC over the native frames, on pygls.

Ours on top of pygls' `JsonRPCProtocol`: params are typed before a handler sees them, every
request gets exactly one response whatever its bytes were, handlers run in our task group with
a cancel scope each, and errors cross the wire without traceback, path or key.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import UNSET, Raw, UnsetType

from ..errors import AgentError
from ..settings import Secrets
from ..wire import methods as wire
from ..wire.frames import nesting_depth_exceeds
from .lean_pygls import JsonRPCProtocol, JsonRPCServer
from .shown import shown, without_values
from .timing import Timings

logger = logging.getLogger(__name__)

MAX_DEPTH = 200
SECRET_NAMES = tuple(field.encode_name for field in msgspec.structs.fields(Secrets))
RequestId = int | str
Handler = Callable[[Any], Awaitable[Any]]

encode = msgspec.json.Encoder().encode


class Envelope(msgspec.Struct):
    """Any JSON-RPC message. What is inside `params` is looked at when the method is known."""

    jsonrpc: str | UnsetType = UNSET
    id: int | str | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class ProgressParams(msgspec.Struct, rename="camel"):
    work_done_token: int | str | None = None


class CancelParams(msgspec.Struct):
    id: int | str


class Identity(msgspec.Struct):
    """All that is wanted of a message that is refused."""

    id: int | str | None = None


class Answer:
    """A handler's result with something to do once the response has been handed over."""

    def __init__(self, result: Any, then: Callable[[], None]) -> None:
        self.result = result
        self.then = then


class RpcError(Exception):
    """An error of the protocol itself, with its JSON-RPC code. `msg_id` is that of a message
    of which nothing else could be understood."""

    def __init__(self, code: int, message: str, msg_id: RequestId | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.msg_id = msg_id


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_progress = msgspec.json.Decoder(ProgressParams).decode
_decode_cancel = msgspec.json.Decoder(CancelParams).decode
_decode_identity = msgspec.json.Decoder(Identity).decode

# Every escape in a JSON string: a surrogate pair, a surrogate by itself, any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def whole_characters(body: bytes) -> bytes:
    """`body` with U+FFFD for each escaped surrogate that is not one of a pair."""
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], body)


def parse(body: bytes) -> Envelope:
    """Raises `RpcError` with -32700 for what is not JSON, -32600 for what is not a message."""
    if nesting_depth_exceeds(body, MAX_DEPTH):
        text = f"Nested deeper than {MAX_DEPTH} levels."
        raise RpcError(wire.INVALID_REQUEST, text, _id_in(body))
    try:
        if not body.isascii():
            body.decode()  # msgspec looks at the encoding only of what it keeps
        return _decode_envelope(body)
    except msgspec.ValidationError as error:
        text = f"Not a JSON-RPC message: {without_values(str(error))}"
        raise RpcError(wire.INVALID_REQUEST, text, _id_in(body)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        repaired = whole_characters(body)
        if repaired != body:
            return parse(repaired)
        raise RpcError(wire.PARSE_ERROR, "The body is not valid JSON in UTF-8.") from None


def _id_in(body: bytes) -> RequestId | None:
    """Whose answer a refusal is, where that can be told: the caller waits for it."""
    try:
        return _decode_identity(whole_characters(body)).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def params_of(method: wire.Method | wire.Notification, raw: Raw | UnsetType) -> Any:
    """Typed params. Raises `RpcError` -32602 that names the place, as `$.path`."""
    given = b"{}" if not raw or bytes(raw) == b"null" else raw
    try:
        return msgspec.json.decode(given, type=method.params)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RpcError(wire.INVALID_PARAMS, f"{method.name}: {_explained(str(error))}") from None


def _explained(error: str) -> str:
    error = without_values(error)
    if "- at `$" not in error:
        error = f"{error} - at `$`"
    if any(f"`{name}`" in error for name in SECRET_NAMES):
        error = f"{error}. Keys are given in `secrets`, to initialize or settings/update"
    return error


class _Asked:
    """A request of ours that waits for the client's answer."""

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.answer: Envelope | None = None


class SidecarProtocol(JsonRPCProtocol):
    """One client's protocol. Needs `attach` before the first message."""

    def __init__(self, server: Any, converter: Any) -> None:
        super().__init__(server, converter)
        self._requests: dict[RequestId, anyio.CancelScope] = {}
        self._progress: dict[RequestId, RequestId] = {}
        self._asked: dict[RequestId, _Asked] = {}
        self._numbers = itertools.count(1)
        self._methods = {method.name: method for method in wire.METHODS}
        self._notifications = {n.name: n for n in wire.CLIENT_NOTIFICATIONS}
        self.timings = Timings()

    def attach(self, tasks: TaskGroup, send: Callable[[bytes], None]) -> None:
        self._tasks = tasks
        self._send = send
        self.exit_code: int | None = None
        self.exited = anyio.Event()

    # ---- incoming ----

    def structure_message(self, data: Any) -> Any:
        """pygls would re-type every nested object here; ours is typed already."""
        return data

    def receive(self, body: bytes) -> None:
        """Take one frame. Never raises."""
        try:
            message = parse(body)
        except RpcError as error:
            self.refuse(error.msg_id, error.code, error.message)
            return
        try:
            self.handle_message(message)
        except Exception:  # a defect of ours costs one message, not every conversation of a client
            logger.exception("a message could not be taken")
            if message.id is not UNSET:
                self.refuse(message.id, wire.INTERNAL_ERROR, "Internal error; the log has it.")

    def handle_message(self, message: Envelope) -> None:  # type: ignore[override]  # typed, as structure_message says
        is_response = message.result is not UNSET or message.error is not UNSET
        if message.jsonrpc != "2.0" or (message.method is UNSET and not is_response):
            self.refuse(_id(message), wire.INVALID_REQUEST, "Not a JSON-RPC 2.0 message.")
        elif message.method is UNSET:
            self._take_answer(message)
        elif message.id is UNSET:
            self._handle_notification(message.method, message.params)
        elif message.id is None:
            self.refuse(None, wire.INVALID_REQUEST, "A request's id is a number or a string.")
        else:
            self._handle_request(message.id, message.method, message.params)

    def _handle_request(self, msg_id: RequestId, method_name: str, params: Any) -> None:
        """Everything that can be decided about a request is decided before its task starts."""
        try:
            if msg_id in self._requests:
                raise RpcError(wire.INVALID_REQUEST, "A request with this id is in flight.")
            if self._shutdown:
                raise RpcError(wire.INVALID_REQUEST, "The server is shutting down.")
            if method_name == "initialize":
                raise RpcError(wire.INVALID_REQUEST, "The server is initialized already.")
            if method_name == "shutdown":
                self._shutdown = True
                self.respond(msg_id, None)
                return
            if (method := self._methods.get(method_name)) is None:
                raise RpcError(wire.METHOD_NOT_FOUND, f"There is no method '{shown(method_name)}'.")
            handler = self._get_handler(method_name)
            typed = params_of(method, params)
            token = _token(params)
        except RpcError as error:
            self.refuse(msg_id, error.code, error.message)
        else:
            scope = anyio.CancelScope()
            self._requests[msg_id] = scope
            self._tasks.start_soon(
                self._serve, msg_id, method_name, handler, typed, token, name=method_name
            )

    def _take_answer(self, message: Envelope) -> None:
        asked = self._asked.get(message.id) if isinstance(message.id, int | str) else None
        if asked is None:
            logger.debug("response to a request that was not made", extra={"id": message.id})
        else:
            asked.answer = message
            asked.answered.set()

    def _handle_notification(self, method_name: str, params: Any) -> None:
        if method_name == "exit":
            if not self.exited.is_set():
                self.exit_code = 0 if self._shutdown else 1
            self._shutdown = True  # what comes after it is not begun any more
            self.exited.set()
        elif method_name in ("$/cancelRequest", "window/workDoneProgress/cancel"):
            self._cancel(method_name, params)
        elif (notification := self._notifications.get(method_name)) is not None:
            try:
                handler = self._get_handler(method_name)
                typed = params_of(notification, params)
            except RpcError as error:
                logger.warning("notification refused", extra={"cause": error.message})
            else:
                self._tasks.start_soon(self._hear, method_name, handler, typed, name=method_name)
        elif method_name != "initialized":
            logger.debug("notification ignored", extra={"method": shown(method_name)})

    def _cancel(self, method_name: str, params: Any) -> None:
        try:
            if method_name == "$/cancelRequest":
                msg_id: RequestId | None = _decode_cancel(params).id
            else:
                msg_id = self._progress.get(msgspec.json.decode(params)["token"])
        except (msgspec.DecodeError, TypeError, KeyError):
            logger.warning("cancellation without an id", extra={"method": method_name})
            return
        if msg_id is not None and (scope := self._requests.get(msg_id)):
            scope.cancel()

    # ---- handlers ----

    async def _serve(
        self, msg_id: RequestId, method: str, handler: Handler, params: Any, token: Any
    ) -> None:
        """Run one request to its one response."""
        outcome: Any = RpcError(wire.REQUEST_CANCELLED, "The request was shut down.")
        with self.timings.of(method) as timing:
            try:
                with self._requests[msg_id] as scope:
                    if token is not None:
                        self._begin_progress(token, msg_id, method)
                    outcome = await self._outcome(method, handler, params)
                if scope.cancelled_caught:
                    outcome = RpcError(wire.REQUEST_CANCELLED, "The request was cancelled.")
            finally:
                timing.failed = isinstance(outcome, Exception)
                self._answer(msg_id, outcome, token)

    async def _outcome(self, method: str, handler: Handler, params: Any) -> Any:
        """What the handler returns, or the error to answer with."""
        try:
            return await handler(params)
        except (AgentError, RpcError) as error:
            return error
        except Exception:
            logger.exception("a handler failed", extra={"method": method})
            return RpcError(wire.INTERNAL_ERROR, "Internal error; the log has it.")

    def _answer(self, msg_id: RequestId, outcome: Any, token: Any) -> None:
        """From here on a cancellation comes too late, and progress is over (LSP: a token is
        valid only until its request is answered)."""
        self._requests.pop(msg_id, None)
        if token is not None:
            self._end_progress(token)
        if isinstance(outcome, AgentError):
            self._respond_error(msg_id, outcome)
        elif isinstance(outcome, RpcError):
            self.refuse(msg_id, outcome.code, outcome.message)
        elif isinstance(outcome, Answer):
            self.respond(msg_id, outcome.result)
            outcome.then()
        else:
            self.respond(msg_id, outcome)

    async def _hear(self, method: str, handler: Handler, params: Any) -> None:
        """Run one notification. There is nobody to answer, so what fails is logged."""
        try:
            await handler(params)
        except AgentError as error:
            logger.warning("notification failed", extra={"method": method, "cause": error.message})
        except Exception:
            logger.exception("a handler failed", extra={"method": method})

    # ---- outgoing ----

    async def ask(self, method: wire.Method, params: Any) -> Any:
        """Ask the client and wait for its typed answer. Being cancelled withdraws the request.
        Raises `RpcError` when it answers with an error, or with what makes no sense."""
        msg_id = f"sidecar-{next(self._numbers)}"
        asked = self._asked[msg_id] = _Asked()
        self._send_data({"jsonrpc": "2.0", "id": msg_id, "method": method.name, "params": params})
        try:
            await asked.answered.wait()
        except anyio.get_cancelled_exc_class():
            self.notify("$/cancelRequest", {"id": msg_id})
            raise
        finally:
            del self._asked[msg_id]
        result = asked.answer.result if asked.answer else UNSET
        if result is UNSET:
            raise RpcError(wire.INTERNAL_ERROR, f"The client did not answer {method.name}.")
        try:
            return msgspec.json.decode(result, type=method.result)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RpcError(wire.INVALID_PARAMS, f"{method.name}: {error}") from None

    def respond(self, msg_id: RequestId, result: Any) -> None:
        """A response whose result cannot be encoded is an error, not a missing response."""
        try:
            body = b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (encode(msg_id), encode(result))
        except Exception:
            logger.exception("a result could not be encoded")
            self.refuse(msg_id, wire.INTERNAL_ERROR, "The result could not be encoded.")
        else:
            self._send(body)

    def refuse(self, msg_id: RequestId | None, code: int, message: str) -> None:
        self._send_data(
            {"jsonrpc": "2.0", "id": msg_id, "error": {"code": code, "message": message}}
        )

    def _respond_error(self, msg_id: RequestId, error: AgentError) -> None:
        logger.info(
            "request failed",
            extra={"type": error.type, "cause": error.message},
            exc_info=error.__cause__,
        )
        self._send_data(
            {
                "jsonrpc": "2.0",
                "id": msg_id,
                "error": {
                    "code": wire.ERROR_CODES[type(error)],
                    "message": error.message,
                    "data": wire.error_data(error),
                },
            }
        )

    def _send_data(self, data: Any) -> None:
        """pygls' way out, through our writer."""
        self._send(encode(data))

    def notify(self, method: str, params: Any = None) -> None:
        self._send_data({"jsonrpc": "2.0", "method": method, "params": params})

    def _begin_progress(self, token: RequestId, msg_id: RequestId, method: str) -> None:
        self._progress[token] = msg_id
        value = {"kind": "begin", "title": method, "cancellable": True}
        self.notify("$/progress", {"token": token, "value": value})

    def _end_progress(self, token: RequestId) -> None:
        self._progress.pop(token, None)
        self.notify("$/progress", {"token": token, "value": {"kind": "end"}})


def _id(message: Envelope) -> RequestId | None:
    return None if message.id is UNSET else message.id


def _token(params: Raw | UnsetType) -> RequestId | None:
    if not params or b"workDoneToken" not in bytes(params):
        return None
    try:
        return _decode_progress(params).work_done_token
    except msgspec.DecodeError as error:
        raise RpcError(wire.INVALID_PARAMS, without_values(str(error))) from None


def make_server(handlers: dict[str, Handler]) -> JsonRPCServer:
    """A pygls server that knows `handlers` by their method names."""
    # No converter: what arrives is typed by msgspec, what leaves is encoded by it.
    server = JsonRPCServer(SidecarProtocol, lambda: None)  # type: ignore[arg-type,return-value]
    for name, handler in handlers.items():
        server.protocol.fm.feature(name)(handler)
    return server
