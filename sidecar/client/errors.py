"""What can go wrong beside the sidecar's own `AgentError`s, and how those come off the wire."""

from __future__ import annotations

import msgspec

from ..errors import ALL_ERRORS, AgentError, NetworkError
from ..wire.methods import ERROR_CODES, ErrorData


class SidecarDied(NetworkError):
    """The process ended before it answered. `exit_code` is negative for a signal (POSIX).

    What was acknowledged is stored; `Sidecar.reconnect` starts a new process on it.
    """

    type = "SIDECAR_DIED"

    def __init__(self, exit_code: int | None, last_words: str) -> None:
        ended = "did not start" if exit_code is None else f"ended with exit code {exit_code}"
        super().__init__(f"The sidecar {ended}.", hint=last_words or None)
        self.exit_code = exit_code


class ProtocolError(AgentError):
    """An error of JSON-RPC itself, by its standard code; -32800 for a cancelled request."""

    type = "PROTOCOL_ERROR"

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class WireError(msgspec.Struct, frozen=True):
    """The `error` of a response."""

    code: int
    message: str
    data: msgspec.Raw = msgspec.Raw(b"null")


_BY_TYPE = {error.type: error for error in ALL_ERRORS}
_BY_CODE = {code: error for error, code in ERROR_CODES.items()}


def error_from(wire: WireError) -> AgentError:
    """The exception that stands for an error response."""
    try:
        data = msgspec.json.decode(wire.data, type=ErrorData | None)
    except msgspec.DecodeError:
        data = None
    error = _BY_TYPE.get(data.type) if data is not None else None
    error = error or _BY_CODE.get(wire.code)
    if error is None:
        return ProtocolError(wire.code, wire.message)
    if data is None:
        return error(wire.message)
    return error(
        wire.message,
        conversation_id=data.conversation_id,
        hint=data.hint,
        retryable=data.retryable,
        attempts=data.attempts,
    )
