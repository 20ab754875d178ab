"""What a sidecar and the process that calls a model for it say to each other.

Frames of MessagePack behind their length. Everything that leaves the worker is one of our own
events or errors: no object of a vendor's library crosses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from ..errors import ALL_ERRORS, AgentError, MessageProcessingFailed
from ..interfaces import ModelRequest, ModelStop, ModelUsage, TextDelta, ToolCall
from ..settings import Config, Secret, Secrets, Settings

T = TypeVar("T")

_LENGTH = 4

Event = TextDelta | ToolCall | ModelUsage | ModelStop


class Configure(msgspec.Struct, frozen=True, tag=True):
    """The first frame. The keys go over the pipe and stay in the memory of both ends."""

    settings: Settings
    secrets: dict[str, str]

    @classmethod
    def of(cls, config: Config) -> Configure:
        found = {name: getattr(config.secrets, name) for name in Secrets.__struct_fields__}
        return cls(config.settings, {n: s.reveal() for n, s in found.items() if s is not None})

    @classmethod
    def to_warm_up(cls, config: Config) -> Configure:
        """As `of`, with words in place of the keys: nothing is called with it."""
        return cls(config.settings, dict.fromkeys(cls.of(config).secrets, "to-warm-up"))

    def config(self) -> Config:
        secrets = Secrets(**{name: Secret(value) for name, value in self.secrets.items()})
        return Config(settings=self.settings, secrets=secrets)


class Call(msgspec.Struct, frozen=True, tag=True):
    request: ModelRequest


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Of the call that runs; its `Finished` follows all the same."""


ToWorker = Configure | Call | Cancel


class Events(msgspec.Struct, frozen=True, tag=True):
    events: list[Event]


class Alive(msgspec.Struct, frozen=True, tag=True):
    """The worker's event loop turns, though the model may say nothing."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The end of a call. `failure` is None after its `ModelStop`, and when it was cancelled."""

    failure: Failure | None = None


class Failure(msgspec.Struct, frozen=True):
    """An `AgentError` on its way."""

    type: str
    message: str
    hint: str | None
    retryable: bool
    retry_after: float | None

    @classmethod
    def of(cls, error: AgentError) -> Failure:
        return cls(error.type, error.message, error.hint, error.retryable, error.retry_after)

    def error(self) -> AgentError:
        kinds = {kind.type: kind for kind in ALL_ERRORS}
        return kinds.get(self.type, MessageProcessingFailed)(
            self.message, hint=self.hint, retryable=self.retryable, retry_after=self.retry_after
        )


class Logged(msgspec.Struct, frozen=True, tag=True):
    """A line of the worker's log, for its parent's: there it is redacted, and waits for nobody."""

    logger: str
    level: int
    message: str
    extra: dict[str, str | int | float | bool | None]


FromWorker = Events | Alive | Finished | Logged

_encoder = msgspec.msgpack.Encoder()


def frame(message: ToWorker | FromWorker) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


class Frames(Generic[T]):
    """Cuts a stream into frames and decodes them."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH:
            end = _LENGTH + int.from_bytes(buffer[:_LENGTH], "big")
            if len(buffer) < end:
                return
            message = self._decoder.decode(buffer[_LENGTH:end])
            del buffer[:end]
            yield message


to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
