"""JSON-RPC with one sidecar process, from its start to its end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
from anyio.abc import Process
from msgspec import UNSET, Raw, UnsetType

from ..errors import AgentError
from ..events import Event
from ..ids import new_id
from ..wire import methods as wire
from ..wire.frames import Frame, FrameParser, frame
from .errors import ProtocolError, SidecarDied, WireError, error_from
from .process import LastWords, stop
from .view import UnknownEvent

SHUTDOWN_SECONDS = 5.0
"""How long `shutdown` may take to be answered."""
DRAIN_SECONDS = 1.0
"""How long what a dead process wrote may take to be read."""

encode = msgspec.json.Encoder().encode
METHODS = {method.name: method for method in wire.METHODS}
NOTIFICATIONS = {n.name: n.params for n in wire.SERVER_NOTIFICATIONS}


class _Message(msgspec.Struct):
    """Whatever comes in; what is inside is looked at when it is known what it is."""

    id: int | str | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw = Raw(b"{}")
    result: Raw = Raw(b"null")
    error: WireError | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Message).decode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_unknown = msgspec.json.Decoder(UnknownEvent).decode


class Call:
    """A request that was sent. It is answered exactly once: with a result or an error."""

    def __init__(
        self,
        link: Link,
        number: int,
        result_type: Any,
        on_result: Callable[[Any], None],
        on_error: Callable[[AgentError], None],
    ) -> None:
        self._link = link
        self._number = number
        self._result_type = result_type
        self._on_result = on_result
        self._on_error = on_error
        self._over = anyio.Event()
        self._result: Any = None
        self._error: AgentError | None = None

    @property
    def done(self) -> bool:
        return self._over.is_set()

    async def result(self) -> Any:
        """Wait for the answer. Whoever is cancelled here cancels the request."""
        try:
            await self.answered()
        except anyio.get_cancelled_exc_class():
            self.cancel()
            raise
        if self._error is not None:
            raise self._error
        return self._result

    async def answered(self) -> None:
        """Wait for the answer, whichever it is."""
        await self._over.wait()

    def cancel(self) -> None:
        """Ask for it to be given up. It is still answered: as cancelled, or as done."""
        if not self.done:
            self._link.notify("$/cancelRequest", {"id": self._number})

    def settle(self, result: Raw) -> None:
        try:
            self._result = msgspec.json.decode(result, type=self._result_type)
        except msgspec.DecodeError as error:
            self.fail(ProtocolError(wire.PARSE_ERROR, f"The answer is not understood: {error}."))
        else:
            self._over.set()
            self._on_result(self._result)

    def fail(self, error: AgentError) -> None:
        self._error = error
        self._over.set()
        self._on_error(error)


class Link:
    """Owns the process's streams. `run` serves until the process is gone; then every call that
    waits, and every later one, fails with `SidecarDied`."""

    def __init__(
        self,
        process: Process,
        last_words: LastWords,
        on_notification: Callable[[str, Any], None],
    ) -> None:
        self._process = process
        self._last_words = last_words
        self._on_notification = on_notification
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        # Not bounded: who sends waits for the answer, so it holds no more than there are callers.
        self._outbox, self._to_send = anyio.create_memory_object_stream[bytes](math.inf)
        self._is_closing = False
        self._reading = anyio.CancelScope()
        self.death: SidecarDied | None = None
        self.ended = anyio.Event()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def request(
        self,
        method: str,
        params: object,
        result_type: Any = Any,
        *,
        on_result: Callable[[Any], None] = lambda _: None,
        on_error: Callable[[AgentError], None] = lambda _: None,
    ) -> Call:
        """`on_result` and `on_error` are called when the answer is read, which is before
        anything that was sent after it."""
        number = next(self._numbers)
        call = Call(self, number, result_type, on_result, on_error)
        if self.death is not None:
            call.fail(self.death)
        else:
            self._calls[number] = call
            self._send({"id": number, "method": method, "params": params})
        return call

    def notify(self, method: str, params: object) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        if not self._is_closing:
            self._outbox.send_nowait(frame(encode({"jsonrpc": "2.0", **message})))

    async def run(self) -> None:
        """Serves until the process is gone, cancelled or not: `close` is how to end it."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._last_words.collect, self._process, name="stderr")
                tasks.start_soon(self._write, name="stdin")
                tasks.start_soon(self._watch, name="exit")
                with self._reading:
                    await self._read()
                self._hang_up()
                await stop(self._process)
                with anyio.move_on_after(DRAIN_SECONDS):
                    await self._last_words.complete.wait()
                tasks.cancel_scope.cancel()
            await self._process.aclose()
        self._die()

    async def close(self) -> None:
        """Say goodbye, as LSP has it; returns when the process is gone."""
        with anyio.CancelScope(shield=True):
            if self.death is None:
                with anyio.move_on_after(SHUTDOWN_SECONDS):
                    await self._goodbye()
                self.notify("exit", None)
                self._hang_up()
                await stop(self._process)
            await self.ended.wait()

    def _hang_up(self) -> None:
        """Nothing more is sent; stdin is closed behind what was."""
        self._outbox.close()
        self._is_closing = True

    async def _watch(self) -> None:
        """A child of the sidecar's may hold its stdout open: that is not life."""
        await self._process.wait()
        await anyio.sleep(DRAIN_SECONDS)
        self._reading.cancel()

    async def _goodbye(self) -> None:
        try:
            await self.request("shutdown", None).result()
        except AgentError:
            return  # it is going anyway

    async def _write(self) -> None:
        assert self._process.stdin is not None
        with self._to_send:
            try:
                async for data in self._to_send:
                    await self._process.stdin.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # it is gone; the reader notices
        await self._process.stdin.aclose()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        parser = FrameParser()
        try:
            async for data in self._process.stdout:
                for item in parser.feed(data):
                    if isinstance(item, Frame):
                        self._receive(item.body)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    def _receive(self, body: bytes) -> None:
        try:
            message = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # not for us: a server newer than we are may say more
        if message.method is UNSET:
            self._answered(message)
        elif message.id is not UNSET:
            # We offered nothing in `initialize` that it could ask for.
            error = {"code": wire.METHOD_NOT_FOUND, "message": "Not offered by this client."}
            self._send({"id": message.id, "error": error})
        else:
            self._on_notification(message.method, params_of(message.method, message.params))

    def _answered(self, message: _Message) -> None:
        call = self._calls.pop(message.id, None) if isinstance(message.id, int) else None
        if call is None:
            return
        if message.error is not UNSET:
            call.fail(error_from(message.error))
        else:
            call.settle(message.result)

    def _die(self) -> None:
        self.death = SidecarDied(self._process.returncode, self._last_words.summary)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.fail(self.death)
        self.ended.set()


def params_of(method: str, raw: Raw) -> Any:
    """Typed params of a notification. What is newer than we are comes as plain values."""
    try:
        if method == "conversation/event":
            return _decode_event(raw)
        return msgspec.json.decode(raw, type=NOTIFICATIONS.get(method, Any))
    except msgspec.ValidationError:
        if method == "conversation/event":
            return _decode_unknown(raw)
        return msgspec.json.decode(raw)


def request_of(method: str, params: Any, fields: dict[str, Any]) -> tuple[Any, Any]:
    """The params to send and the type of the result. Raises `KeyError` for an unknown method
    and `TypeError` for fields that it does not have."""
    declared = METHODS[method]
    if params is None:
        params = declared.params(**fields)
    elif fields:
        params = msgspec.structs.replace(params, **fields)
    if getattr(params, "request_key", "") is None:
        params = msgspec.structs.replace(params, request_key=new_id())
    return params, declared.result
