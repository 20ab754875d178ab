"""Agents writing to agents: who may, what is let through, how the answer comes back.

A message goes through the target's queue like any other prompt and never waits inside a turn.
Attempts that are allowed and those that are not are recorded, without their content.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from .audit import AuditAction, AuditEntry
from .capabilities import CapabilityRegistry, Grants
from .conversations import AgentMode, AgentOrigin, Prompt, TextPart, ToolCallPart
from .errors import (
    AgentError,
    CapabilityNotFound,
    CommunicationFailed,
    LimitReached,
    NotFound,
    Unauthorized,
)
from .interfaces import ConversationStore, StartedTurn, TurnOutcome

logger = logging.getLogger(__name__)

MAX_DEPTH = 3
"""Agents in one chain of delegation."""
BUDGET: Mapping[str, int] = {"messages": 20, "tool_calls": 200, "tokens": 1_000_000}
"""Of all that one prompt of the user's may set off in other agents."""
ROOTS_KEPT = 1_000

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ROLE = re.compile(r"(?im)^(\s*)((?:system|assistant|user|tool|developer)\s*:)")


def sanitised(text: str) -> str:
    """`text` without control and direction characters, and with lines that look like another
    speaker's turn quoted, so that one agent cannot speak as somebody else to the next."""
    return _ROLE.sub(r"\1> \2", _CONTROL.sub("", text))


class Asking(NamedTuple):
    """Who writes, as far as rights depend on it: the agents before it, their modes and its own,
    and the user's prompt that all began with."""

    chain: tuple[str, ...]
    modes: tuple[AgentMode, ...]
    root: str


class Spent(msgspec.Struct):
    """What one prompt of the user's has cost through other agents."""

    messages: int = 0
    tool_calls: int = 0
    tokens: int = 0


class AgentCommunication:
    """Decides and records. `has_agent` tells whether a conversation has a live agent here."""

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
        self._spent: OrderedDict[str, Spent] = OrderedDict()

    async def grant(self, from_id: str, to_id: str, capability: str | None) -> None:
        """The user lets one agent write to another, across sessions."""
        await self._note(from_id, to_id, True, "user", AuditAction.GRANT)
        self.grants.grant(from_id, to_id, capability)

    async def revoke(self, from_id: str, to_id: str, capability: str | None) -> None:
        self.grants.revoke(from_id, to_id, capability)
        await self._note(from_id, to_id, False, "user", AuditAction.GRANT)

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
        self, from_id: str, to_id: str, text: str, capability: str | None, asking: Asking
    ) -> Prompt:
        """The prompt to put into the target's queue. Raises `CommunicationFailed`,
        `Unauthorized`, `CapabilityNotFound`, or `LimitReached` when the budget of the user's
        prompt is used up; both outcomes are in the audit."""
        why = "sent"
        try:
            await self._check(from_id, to_id, capability)
            chain = (*asking.chain, from_id)
            if to_id in chain:
                why = "loop"
                raise Unauthorized("An agent may not be asked by those that it asked itself.")
            if len(chain) > MAX_DEPTH:
                why = "depth"
                raise Unauthorized(f"At most {MAX_DEPTH} agents may ask one another in a chain.")
            why = "budget"
            self._charge(asking.root)
        except AgentError as error:
            await self._note(from_id, to_id, False, error.type if why == "sent" else why)
            raise
        await self._note(from_id, to_id, True, "sent")
        origin = AgentOrigin(chain=chain, modes=asking.modes, root=asking.root)
        return Prompt(input=sanitised(text), origin=origin)

    def turn_ended(self, started: StartedTurn, outcome: TurnOutcome) -> None:
        """What a turn that another agent asked for has cost counts against its root."""
        origin = started.entry.prompt.origin
        if origin is None or origin.root is None:
            return
        spent = self._spent_on(origin.root)
        spent.tool_calls += sum(isinstance(part, ToolCallPart) for part in outcome.parts)
        if outcome.usage is not None:
            spent.tokens += (outcome.usage.input_tokens or 0) + (outcome.usage.output_tokens or 0)

    def _charge(self, root: str) -> None:
        spent = self._spent_on(root)
        for name, limit in BUDGET.items():
            if getattr(spent, name) >= limit:
                words = name.replace("_", " ")
                raise LimitReached(
                    f"One prompt may cost {limit:,} {words} through other agents; that is used up.",
                    hint="Ask the user how to go on.",
                    retryable=False,
                )
        spent.messages += 1

    def _spent_on(self, root: str) -> Spent:
        spent = self._spent.setdefault(root, Spent())
        self._spent.move_to_end(root)
        if len(self._spent) > ROOTS_KEPT:
            self._spent.popitem(last=False)
        return spent

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

    async def _note(
        self,
        from_id: str,
        to_id: str,
        allowed: bool,
        why: str,
        action: AuditAction = AuditAction.MESSAGE,
    ) -> None:
        logger.info(
            "agent message",
            extra={
                "fromConversationId": from_id,
                "conversationId": to_id,
                "allowed": allowed,
                "reason": why,
            },
        )
        await self._store.note_audit(
            AuditEntry(
                action=action,
                allowed=allowed,
                why=why,
                conversation_id=from_id,
                other_id=to_id,
            )
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
        # So do the modes: what a chat answers gives a build no right that the chat has not.
        origin=AgentOrigin(
            chain=(*origin.chain, here),
            modes=(*origin.modes, started.mode),
            root=origin.root,
            is_reply=True,
        ),
    )
