"""The transcript as a model gets it, kept in memory from one turn to the next."""

from __future__ import annotations

from collections.abc import Sequence

from .conversations import Message
from .interfaces import ConversationStore, StartedTurn, TurnOutcome


class History:
    """What was said before a turn. Read once and then kept in step, so that turn 200 does not
    read 199 turns again; read anew when another window has changed it since."""

    def __init__(self, store: ConversationStore, conversation_id: str) -> None:
        self._store = store
        self._conversation_id = conversation_id
        self._messages: list[Message] | None = None
        self._revision = 0

    async def load(self) -> None:
        """Have it at hand, so that the next turn need not wait for it."""
        if self._messages is None:
            self._revision = (await self._store.get(self._conversation_id)).revision
            self._messages = list(await self._store.messages(self._conversation_id))

    async def before(self, started: StartedTurn) -> Sequence[Message]:
        if self._messages is None or not self._is_before(started, self._messages):
            found = await self._store.messages(self._conversation_id)
            self._messages = [m for m in found if m.turn_id != started.turn_id]
            self._revision = started.revision
        return self._messages

    def _is_before(self, started: StartedTurn, messages: Sequence[Message]) -> bool:
        # Within a revision messages are only added.
        return (self._revision, len(messages)) == (started.revision, started.messages_before)

    def add(self, started: StartedTurn, outcome: TurnOutcome) -> None:
        """A turn has ended and its end is stored."""
        if self._messages is None:
            return
        user = started.user_message
        self._messages += [
            user,
            Message(
                message_id=started.reply_id,
                ordinal=user.ordinal + 1,
                role="assistant",
                status=outcome.status,
                parts=outcome.parts,
                turn_id=started.turn_id,
                usage=outcome.usage,
                created_at=user.created_at,
            ),
        ]

    def forget(self) -> None:
        """The stored transcript changed under us (rewind): read it again before the next turn."""
        self._messages = None
