"""JSON-RPC as the Agent Client Protocol has it: no life cycle, other names, its own codes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ...errors import AgentError, Conflict, InitializationFailed, InvalidState, NotFound
from ...wire import acp
from ...wire import methods as wire
from ..rpc import Handler, RequestId, Rpc, RpcError

logger = logging.getLogger(__name__)

AUTH_REQUIRED = -32000
RESOURCE_NOT_FOUND = -32002


class _Withdrawn(msgspec.Struct, rename="camel"):
    request_id: int | str


_decode_withdrawn = msgspec.json.Decoder(_Withdrawn).decode


class AcpProtocol(Rpc):
    def __init__(self, handle: Callable[[str], Handler], *, unstable: bool) -> None:
        methods = [*acp.METHODS, *(acp.UNSTABLE if unstable else ())]
        super().__init__(methods, acp.NOTIFICATIONS)
        names = [*(m.name for m in methods), *(n.name for n in acp.NOTIFICATIONS)]
        self._handlers: Mapping[str, Handler] = {name: handle(name) for name in names}

    def handler_of(self, method: str) -> Handler:
        return self._handlers[method]

    @staticmethod
    def cancellation(msg_id: RequestId) -> tuple[str, dict[str, RequestId]]:
        return "$/cancel_request", {"requestId": msg_id}

    def answered_here(self, msg_id: RequestId, method: str) -> bool:
        if method == "initialize":
            raise RpcError(wire.INVALID_REQUEST, "The agent is initialized already.")
        return False

    def code_of(self, error: AgentError) -> int:
        if isinstance(error, NotFound):
            return RESOURCE_NOT_FOUND
        if isinstance(error, InitializationFailed):  # nearly always a key that is missing or wrong
            return AUTH_REQUIRED
        if isinstance(error, Conflict | InvalidState):
            return wire.INVALID_REQUEST
        return super().code_of(error)

    def notified(self, method_name: str, params: Any) -> None:
        if method_name != "$/cancel_request":
            super().notified(method_name, params)
            return
        try:
            self.cancel(_decode_withdrawn(params).request_id)
        except (msgspec.DecodeError, TypeError):
            logger.warning("cancellation without an id")
