"""The life of an agent, as one table. Everything that affects an agent's state is here.

NEW → STARTING → IDLE ⇄ BUSY → CLOSING → CLOSED
  └────────┴───→ FAILED ←──┴──────┘
"""

from __future__ import annotations

from enum import StrEnum

from .capabilities import AgentCapability
from .conversations import AgentMode, Value
from .errors import InvalidState


class AgentState(StrEnum):
    NEW = "NEW"
    STARTING = "STARTING"
    """Counts against the limit already; can be cancelled; reclaimed when it fails."""
    IDLE = "IDLE"
    BUSY = "BUSY"
    """Runs a turn, or is taking the next one from the queue."""
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    FAILED = "FAILED"
    """Did not start, or did not stop when told to and was given up."""


LIFECYCLE: dict[AgentState, dict[str, AgentState]] = {
    AgentState.NEW: {
        "start": AgentState.STARTING,
        "close": AgentState.CLOSING,
        "fail": AgentState.FAILED,
    },
    AgentState.STARTING: {
        "started": AgentState.IDLE,
        "fail": AgentState.FAILED,
        "close": AgentState.CLOSING,
    },
    AgentState.IDLE: {
        "work": AgentState.BUSY,
        "close": AgentState.CLOSING,
        "fail": AgentState.FAILED,
    },
    AgentState.BUSY: {
        "rest": AgentState.IDLE,
        "close": AgentState.CLOSING,
        "fail": AgentState.FAILED,
    },
    AgentState.CLOSING: {"closed": AgentState.CLOSED, "fail": AgentState.FAILED},
    AgentState.CLOSED: {},
    AgentState.FAILED: {},
}

ENDED = frozenset({AgentState.CLOSED, AgentState.FAILED})


def after(state: AgentState, event: str) -> AgentState:
    """The state that `event` leads to. Raises `InvalidState` for a move not in the table."""
    try:
        return LIFECYCLE[state][event]
    except KeyError:
        raise InvalidState(f"An agent that is {state} cannot '{event}'.") from None


class AgentInfo(Value, frozen=True, kw_only=True):
    """What a client may know of a live agent."""

    conversation_id: str
    mode: AgentMode
    state: AgentState
    created_at: int
    last_access_at: int
    queue_length: int
    is_processing: bool
    message_count: int
    capabilities: tuple[AgentCapability, ...]
    owned_here: bool


class PreservedState(Value, frozen=True, kw_only=True):
    """What is live and stored of an agent at the moment its webview went away."""

    conversation_id: str
    mode: AgentMode
    message_count: int
    last_access_at: int
    capabilities: tuple[AgentCapability, ...]
    last_seq: int
    state: AgentState


class Failure(Value, frozen=True, kw_only=True):
    """One conversation of several for which something did not work; the others went on."""

    conversation_id: str
    type: str
    message: str
