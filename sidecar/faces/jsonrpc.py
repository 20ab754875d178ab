"""JSON-RPC over the native frames, on pygls: what LSP's base protocol has beyond JSON-RPC.

The life cycle (`shutdown`, `exit`), `$/cancelRequest`, and progress by `workDoneToken`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from anyio.abc import TaskGroup
from msgspec import Raw, UnsetType

from ..wire import methods as wire
from .lean_pygls import JsonRPCProtocol, JsonRPCServer
from .rpc import Handler, RequestId, Rpc, RpcError
from .shown import without_values

logger = logging.getLogger(__name__)


class ProgressParams(msgspec.Struct, rename="camel"):
    work_done_token: int | str | None = None


class CancelParams(msgspec.Struct):
    id: int | str


_decode_progress = msgspec.json.Decoder(ProgressParams).decode
_decode_cancel = msgspec.json.Decoder(CancelParams).decode


class SidecarProtocol(Rpc, JsonRPCProtocol):  # type: ignore[misc]  # messages are typed, as structure_message says
    """One client's protocol. pygls keeps the handlers; what arrives is typed by us."""

    def __init__(self, server: Any, converter: Any) -> None:
        JsonRPCProtocol.__init__(self, server, converter)
        Rpc.__init__(self, wire.METHODS, wire.CLIENT_NOTIFICATIONS)
        self._progress: dict[RequestId, RequestId] = {}
        self.on_exit: Callable[[], object] = lambda: None

    def attach(self, tasks: TaskGroup, send: Callable[[bytes], None]) -> None:
        super().attach(tasks, send)
        self.exit_code: int | None = None

    def handler_of(self, method: str) -> Handler:
        handler: Handler = self._get_handler(method)
        return handler

    @staticmethod
    def cancellation(msg_id: RequestId) -> tuple[str, dict[str, RequestId]]:
        return "$/cancelRequest", {"id": msg_id}

    def structure_message(self, data: Any) -> Any:
        """pygls would re-type every nested object here; ours is typed already."""
        return data

    def answered_here(self, msg_id: RequestId, method: str) -> bool:
        if self._shutdown:
            raise RpcError(wire.INVALID_REQUEST, "The server is shutting down.")
        if method == "initialize":
            raise RpcError(wire.INVALID_REQUEST, "The server is initialized already.")
        if method == "shutdown":
            self._shutdown = True
            self.respond(msg_id, None)
        return self._shutdown

    def notified(self, method_name: str, params: Any) -> None:
        if method_name == "exit":
            if self.exit_code is None:
                self.exit_code = 0 if self._shutdown else 1
            self._shutdown = True  # what comes after it is not begun any more
            self.on_exit()
        elif method_name in ("$/cancelRequest", "window/workDoneProgress/cancel"):
            self._withdrawn(method_name, params)
        elif method_name != "initialized":
            super().notified(method_name, params)

    def _withdrawn(self, method_name: str, params: Any) -> None:
        try:
            if method_name == "$/cancelRequest":
                self.cancel(_decode_cancel(params).id)
            else:
                self.cancel(self._progress.get(msgspec.json.decode(params)["token"]))
        except (msgspec.DecodeError, TypeError, KeyError):
            logger.warning("cancellation without an id", extra={"method": method_name})

    # ---- progress ----

    def begun(self, msg_id: RequestId, method: str, params: Any) -> Callable[[], None]:
        """LSP: a token is valid only until its request is answered."""
        if (token := _token(params)) is None:
            return super().begun(msg_id, method, params)
        self._progress[token] = msg_id
        value = {"kind": "begin", "title": method, "cancellable": True}
        self.say("$/progress", {"token": token, "value": value})
        return partial(self._end_progress, token)

    def _end_progress(self, token: RequestId) -> None:
        self._progress.pop(token, None)
        self.say("$/progress", {"token": token, "value": {"kind": "end"}})


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
