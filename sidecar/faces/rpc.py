"""JSON-RPC 2.0 with one client, whatever the frames around it.

Params are typed before a handler sees them, every request gets exactly one response whatever its
bytes were, handlers run in our task group with a cancel scope each, and errors cross the wire
without traceback, path or key. What differs between faces stands in `faces.jsonrpc` (native) and
`faces.acp.protocol`.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import UNSET, Raw, UnsetType

from ..errors import AgentError
from ..settings import Secrets
from ..wire import methods as wire
from ..wire.frames import nesting_depth_exceeds
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


class Rpc:
    """One client's requests and ours. Needs `attach` before the first message."""

    cancellation: Callable[[RequestId], tuple[str, dict[str, RequestId]]]
    """The notification that withdraws a request."""

    def __init__(
        self, methods: Iterable[wire.Method], notifications: Iterable[wire.Notification]
    ) -> None:
        self._methods = {method.name: method for method in methods}
        self._notifications = {n.name: n for n in notifications}
        self._requests: dict[RequestId, anyio.CancelScope] = {}
        self._asked: dict[RequestId, _Asked] = {}
        self._numbers = itertools.count(1)
        self.timings = Timings()

    def attach(self, tasks: TaskGroup, send: Callable[[bytes], None]) -> None:
        self._tasks = tasks
        self._send = send

    def handler_of(self, method: str) -> Handler:
        raise NotImplementedError

    def code_of(self, error: AgentError) -> int:
        return wire.ERROR_CODES[type(error)]

    # ---- incoming ----

    def receive(self, body: bytes) -> None:
        """Take one message. Never raises."""
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

    def handle_message(self, message: Envelope) -> None:
        is_response = message.result is not UNSET or message.error is not UNSET
        if message.jsonrpc != "2.0" or (message.method is UNSET and not is_response):
            self.refuse(_id(message), wire.INVALID_REQUEST, "Not a JSON-RPC 2.0 message.")
        elif message.method is UNSET:
            self._take_answer(message)
        elif message.id is UNSET:
            self.notified(message.method, message.params)
        elif message.id is None:
            self.refuse(None, wire.INVALID_REQUEST, "A request's id is a number or a string.")
        else:
            self._handle_request(message.id, message.method, message.params)

    def _handle_request(self, msg_id: RequestId, method_name: str, params: Any) -> None:
        """Everything that can be decided about a request is decided before its task starts."""
        try:
            if msg_id in self._requests:
                raise RpcError(wire.INVALID_REQUEST, "A request with this id is in flight.")
            if self.answered_here(msg_id, method_name):
                return
            if (method := self._methods.get(method_name)) is None:
                raise RpcError(wire.METHOD_NOT_FOUND, f"There is no method '{shown(method_name)}'.")
            handler = self.handler_of(method_name)
            typed = params_of(method, params)
            finish = self.begun(msg_id, method_name, params)
        except RpcError as error:
            self.refuse(msg_id, error.code, error.message)
        else:
            scope = anyio.CancelScope()
            self._requests[msg_id] = scope
            self._tasks.start_soon(
                self._serve, msg_id, method_name, handler, typed, finish, name=method_name
            )

    def answered_here(self, msg_id: RequestId, method: str) -> bool:
        """Whether the protocol itself has answered. Raises `RpcError` to refuse."""
        return False

    def begun(self, msg_id: RequestId, method: str, params: Any) -> Callable[[], None]:
        """A request is about to be served. Returns what to do right before it is answered."""
        return _nothing

    def _take_answer(self, message: Envelope) -> None:
        asked = self._asked.get(message.id) if isinstance(message.id, int | str) else None
        if asked is None:
            logger.debug("response to a request that was not made", extra={"id": message.id})
        else:
            asked.answer = message
            asked.answered.set()

    def notified(self, method_name: str, params: Any) -> None:
        if (notification := self._notifications.get(method_name)) is None:
            logger.debug("notification ignored", extra={"method": shown(method_name)})
            return
        try:
            handler = self.handler_of(method_name)
            typed = params_of(notification, params)
        except RpcError as error:
            logger.warning("notification refused", extra={"cause": error.message})
        else:
            self._tasks.start_soon(self._hear, method_name, handler, typed, name=method_name)

    def cancel(self, msg_id: RequestId | None) -> None:
        """The client withdraws a request. Unknown, or answered by now, is a no-op."""
        if msg_id is not None and (scope := self._requests.get(msg_id)):
            scope.cancel()

    # ---- handlers ----

    async def _serve(
        self,
        msg_id: RequestId,
        method: str,
        handler: Handler,
        params: Any,
        finish: Callable[[], None],
    ) -> None:
        """Run one request to its one response."""
        outcome: Any = RpcError(wire.REQUEST_CANCELLED, "The request was shut down.")
        with self.timings.of(method) as timing:
            try:
                with self._requests[msg_id] as scope:
                    outcome = await self._outcome(method, handler, params)
                if scope.cancelled_caught:
                    outcome = RpcError(wire.REQUEST_CANCELLED, "The request was cancelled.")
            finally:
                timing.failed = isinstance(outcome, Exception)
                self._answer(msg_id, outcome, finish)

    async def _outcome(self, method: str, handler: Handler, params: Any) -> Any:
        """What the handler returns, or the error to answer with."""
        try:
            return await handler(params)
        except (AgentError, RpcError) as error:
            return error
        except Exception:
            logger.exception("a handler failed", extra={"method": method})
            return RpcError(wire.INTERNAL_ERROR, "Internal error; the log has it.")

    def _answer(self, msg_id: RequestId, outcome: Any, finish: Callable[[], None]) -> None:
        """From here on a cancellation comes too late."""
        self._requests.pop(msg_id, None)
        finish()
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
        self._say({"jsonrpc": "2.0", "id": msg_id, "method": method.name, "params": params})
        try:
            await asked.answered.wait()
        except anyio.get_cancelled_exc_class():
            self.say(*self.cancellation(msg_id))
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
        self._say({"jsonrpc": "2.0", "id": msg_id, "error": {"code": code, "message": message}})

    def _respond_error(self, msg_id: RequestId, error: AgentError) -> None:
        logger.info(
            "request failed",
            extra={"type": error.type, "cause": error.message},
            exc_info=error.__cause__,
        )
        self._say(
            {
                "jsonrpc": "2.0",
                "id": msg_id,
                "error": {
                    "code": self.code_of(error),
                    "message": error.message,
                    "data": wire.error_data(error),
                },
            }
        )

    def say(self, method: str, params: Any = None) -> None:
        """Tell the client something that must arrive."""
        self._say({"jsonrpc": "2.0", "method": method, "params": params})

    def _say(self, message: Any) -> None:
        self._send(encode(message))


def _nothing() -> None:
    """Most requests need nothing more."""


def _id(message: Envelope) -> RequestId | None:
    return None if message.id is UNSET else message.id
