"""Everything that can go wrong, as one tree.

    AgentError
    ├── CreationFailed          an agent could not be made
    ├── InitializationFailed    the provider or the store cannot start
    ├── MessageProcessingFailed a turn failed and nothing more exact fits
    ├── PersistenceFailed       a commit failed for good
    ├── LoadFailed              export, import or history of something unknown or unreadable
    ├── CommunicationFailed     send to an unknown conversation or agent
    ├── CapabilityNotFound      the target agent lacks the capability asked for
    ├── Unauthorized            a key was refused or a right is missing
    ├── NetworkError            the provider could not be reached, or broke off
    ├── LimitReached            all agents are busy
    ├── QueueFull               this conversation's queue is at its bound
    ├── Conflict                the same key with other content, or somebody was first
    ├── NotFound                an id that does not exist
    ├── InvalidState            not possible in the state things are in
    └── StoreUnavailable        the store is locked, read-only, full or newer than we are

A caller matches on the class or on `type`, never on text. Which JSON-RPC code an error gets
is decided in `wire.methods`.
"""

from __future__ import annotations

from typing import ClassVar


class AgentError(Exception):
    """Base of every error that a client may see.

    `message` is one sentence for a person; it never holds a key, a prompt, a stack or one of
    our paths. `hint` says what to do next. `retryable` means that the same request may succeed
    later without any change. `attempts` is set when the operation was tried more than once.
    """

    type: ClassVar[str] = "AGENT_ERROR"
    retryable_by_default: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        attempts: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.conversation_id = conversation_id
        self.hint = hint
        self.retryable = self.retryable_by_default if retryable is None else retryable
        self.attempts = attempts
        self.retry_after = retry_after
        """Seconds the other side asked us to wait before trying again."""

    def __repr__(self) -> str:
        return f"<{self.type} {self.message!r}>"


class CreationFailed(AgentError):
    type = "CREATION_FAILED"


class InitializationFailed(AgentError):
    type = "INITIALIZATION_FAILED"


class MessageProcessingFailed(AgentError):
    type = "MESSAGE_PROCESSING_FAILED"


class PersistenceFailed(AgentError):
    type = "PERSISTENCE_FAILED"
    retryable_by_default = True


class LoadFailed(AgentError):
    type = "LOAD_FAILED"


class CommunicationFailed(AgentError):
    type = "COMMUNICATION_FAILED"


class CapabilityNotFound(AgentError):
    type = "CAPABILITY_NOT_FOUND"


class Unauthorized(AgentError):
    type = "UNAUTHORIZED"


class NetworkError(AgentError):
    type = "NETWORK_ERROR"
    retryable_by_default = True


class LimitReached(AgentError):
    type = "LIMIT_REACHED"
    retryable_by_default = True


class QueueFull(AgentError):
    type = "QUEUE_FULL"
    retryable_by_default = True


class Conflict(AgentError):
    type = "CONFLICT"


class NotFound(AgentError):
    type = "NOT_FOUND"


class InvalidState(AgentError):
    type = "INVALID_STATE"


class StoreUnavailable(AgentError):
    type = "STORE_UNAVAILABLE"
    retryable_by_default = True


ALL_ERRORS: tuple[type[AgentError], ...] = (
    CreationFailed,
    InitializationFailed,
    MessageProcessingFailed,
    PersistenceFailed,
    LoadFailed,
    CommunicationFailed,
    CapabilityNotFound,
    Unauthorized,
    NetworkError,
    LimitReached,
    QueueFull,
    Conflict,
    NotFound,
    InvalidState,
    StoreUnavailable,
)
