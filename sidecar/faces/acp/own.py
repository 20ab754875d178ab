"""Which turns are this client's. What it stops, and what it has said no to by not answering, is its
own; a turn of another window's is looked on at."""

from __future__ import annotations

from ...events import DurableEvent, TurnEnded, TurnQueued, TurnStarted
from ...journal import Journal


class OwnTurns:
    """Of prompts that the client has sent on this connection, until they have ended, whatever
    sessions are closed or opened again meanwhile."""

    def __init__(self, journal: Journal) -> None:
        self._keys: set[str] = set()
        self._turns: dict[str, str | None] = {}
        """By prompt."""
        journal.listen(self._on_event)

    def prompted(self, request_key: str) -> None:
        """The client sends a prompt under this key."""
        self._keys.add(request_key)

    def answered(self, request_key: str) -> None:
        self._keys.discard(request_key)

    def has_prompt(self, message_id: str) -> bool:
        return message_id in self._turns

    def has_turn(self, turn_id: str) -> bool:
        return turn_id in self._turns.values()

    def _on_event(self, event: DurableEvent) -> None:
        match event:
            case TurnQueued(request_key=str(key), message_id=id_) if key in self._keys:
                self._turns[id_] = None
            case TurnStarted(message_id=id_, turn_id=turn_id) if id_ in self._turns:
                self._turns[id_] = turn_id
            case TurnEnded(message_id=id_):
                self._turns.pop(id_, None)
