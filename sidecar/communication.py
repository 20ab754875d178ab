"""Agents writing to agents: who may, what is let through, how the answer comes back.

A message goes through the target's queue like any other prompt and never waits inside a turn.
Both attempts that are allowed and those that are not are logged, without their content.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from .capabilities import CapabilityRegistry, Grants
from .conversations import AgentOrigin, Prompt, TextPart
from .errors import AgentError, CapabilityNotFound, CommunicationFailed, NotFound, Unauthorized
from .interfaces import ConversationStore, StartedTurn, TurnOutcome

logger = logging.getLogger(__name__)

MAX_DEPTH = 3
"""Agents in one chain of delegation."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ROLE = re.compile(r"(?im)^(\s*)((?:system|assistant|user|tool|developer)\s*:)")


def sanitised(text: str) -> str:
    """`text` without control and direction characters, and with lines that look like another
    speaker's turn quoted, so that one agent cannot speak as somebody else to the next."""
    return _ROLE.sub(r"\1> \2", _CONTROL.sub("", text))


class AgentCommunication:
    """Decides and delivers. `has_agent` tells whether a conversation has a live agent here."""

    def __init__(
        self,
        store: ConversationStore,
        capabilities: CapabilityRegistry,
        has_agent: Callable[[str], bool],
    ) -> None:
        self.grants = Grants()
        self._store = store
        self._capabilities = capabilities
        self._has_agent = has_agent

    async def validate(
        self, from_id: str, to_id: str, capability: str | None = None
    ) -> tuple[bool, str]:
        """Whether `from_id`'s agent may write to `to_id`'s, and why (not). Both must be live;
        they share a session, or the user granted it."""
        try:
            await self._check(from_id, to_id, capability)
        except AgentError as error:
            allowed, reason = False, error.message
        else:
            allowed, reason = True, "Both agents belong to the same session, or it was granted."
        logger.info(
            "agent communication checked",
            extra={
                "fromConversationId": from_id,
                "conversationId": to_id,
                "allowed": allowed,
                "reason": reason,
            },
        )
        return allowed, reason

    async def message(
        self, from_id: str, to_id: str, text: str, capability: str | None, chain: tuple[str, ...]
    ) -> Prompt:
        """The prompt to put into the target's queue. `chain` names who asked whom before.
        Raises `CommunicationFailed`, `Unauthorized` or `CapabilityNotFound`."""
        try:
            await self._check(from_id, to_id, capability)
            chain = (*chain, from_id)
            if to_id in chain:
                raise Unauthorized("An agent may not be asked by those that it asked itself.")
            if len(chain) > MAX_DEPTH:
                raise Unauthorized(f"At most {MAX_DEPTH} agents may ask one another in a chain.")
        except AgentError as error:
            self._log(from_id, to_id, allowed=False, reason=error.message)
            raise
        self._log(from_id, to_id, allowed=True, reason="sent")
        return Prompt(input=sanitised(text), origin=AgentOrigin(chain=chain))

    async def _check(self, from_id: str, to_id: str, capability: str | None) -> None:
        for conversation_id in (from_id, to_id):
            if not self._has_agent(conversation_id):
                raise CommunicationFailed(
                    "One of the two agents is not live.",
                    conversation_id=conversation_id,
                    hint="Make it with agent/getOrCreate.",
                )
        if not self.grants.allow(from_id, to_id, capability) and await self._session(
            from_id
        ) != await self._session(to_id):
            raise Unauthorized(
                "The agents belong to different sessions.",
                conversation_id=to_id,
                hint="Allow it with agent/grant.",
            )
        if capability is not None and not self._capabilities.has(to_id, capability):
            raise CapabilityNotFound(
                "The other agent does not have that capability.", conversation_id=to_id
            )

    async def _session(self, conversation_id: str) -> str:
        try:
            return (await self._store.get(conversation_id)).session_id
        except NotFound as error:
            raise CommunicationFailed(
                "There is no such conversation.", conversation_id=conversation_id
            ) from error

    def _log(self, from_id: str, to_id: str, *, allowed: bool, reason: str) -> None:
        logger.info(
            "agent message",
            extra={
                "fromConversationId": from_id,
                "conversationId": to_id,
                "allowed": allowed,
                "reason": reason,
            },
        )


def answer_to(started: StartedTurn, outcome: TurnOutcome) -> tuple[str, Prompt] | None:
    """For a turn that another agent asked for: who asked, and the answer as a prompt for it.
    None for any other turn; an answer is not answered in turn."""
    origin = started.entry.prompt.origin
    if origin is None or origin.is_reply:
        return None
    text = "".join(part.text for part in outcome.parts if isinstance(part, TextPart))
    here = started.entry.conversation_id
    return origin.chain[-1], Prompt(
        input=sanitised(text) or f"(no answer: {outcome.stop_reason})",
        # The chain goes on: who is answered cannot start the same round once more.
        origin=AgentOrigin(chain=(*origin.chain, here), is_reply=True),
    )
