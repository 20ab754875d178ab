"""Agents writing to agents: who may, what is let through, how the answer comes back.

A message goes through the target's queue like any other prompt and never waits inside a turn.
Attempts that are allowed and those that are not are recorded, without their content.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
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

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
_ALIKE = str.maketrans(
    "аеорсухіѕјһԁԛԝАВЕКМНОРСТХІЅЈοαıΟΑΕΗΙΜΝΤΥ꞉∶ː▁\r\u2028\u2029",
    "aeopcyxisjhdqwABEKMHOPCTXISJoaiOAEHIMNTY:::_\n\n\n",
)
"""Letters of other scripts that look like ours, and what else ends a line."""

_SPEAKER = r"(?:system|assistant|user|tool|developer|human)"
_TAG = r"""(?:\w+:)?(?:
    (?:tool|function)_(?:calls?|uses?|results?|responses?|outputs?) | invoke | parameter | function
    | system | system[-_](?:prompt|reminder) | assistant | human | think | thinking
    | s | bos | eos | pad | unk | start_of_turn | end_of_turn | start_of_image )"""
_BRACKET = r"/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS?|RESULTS?|CONTENT))"
_KEY = r"(?:tool_calls?|tool_call_id|tool_use_id|function_call)"
_TYPE = r"(?:tool_use|tool_result|tool_call|function_call|function_call_output)"

_JOINERS = r"\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef"

_EDITS = [
    # They hold emoji and some scripts together, and among our letters they only hide words.
    (rf"(?<![^\x00-\x7f])(?P<here>[{_JOINERS}]+)(?![{_JOINERS}\u20e3])", ""),
    # Another speaker's turn: `system:`, `### System prompt:`, `**Assistant**:`, `[Human]:`.
    (
        rf"""^[^\S\n]*+(?P<here>)(?=[\#*_`\[( \t]{{0,16}}{_SPEAKER}
        (?:[ _-](?:prompt|message|instructions?|reminder|turn))?[*_`\])\s]{{0,16}}:)""",
        "> ",
    ),
    # What a model's template or a parser of tool calls goes by: a gap after the sign that opens it.
    (r"<\|(?P<here>)(?=[^\s|<>]{1,64}\|?>)", " "),
    (rf"<(?P<here>)(?=/?{_TAG}(?:[\s/>]|\Z))", " "),
    (r"<<(?P<here>)(?=/?SYS>>)", " "),
    (rf"\[(?P<here>)(?={_BRACKET}\])", " "),
    (rf"""["'](?P<here>)(?={_KEY}\\?["']\s*:)""", " "),
    (rf"""["']type\\?["']\s*:\s*\\?["'](?P<here>)(?={_TYPE}\\?["'])""", " "),
]
"""What is done `here`, wherever a pattern is found in what `text` looks like."""
_PATTERNS = [(re.compile(pattern, re.I | re.M | re.X), new) for pattern, new in _EDITS]


def sanitised(text: str) -> str:
    """`text` without characters that cannot be seen, with lines that look like another speaker's
    turn quoted, and with a gap in what looks like a tool call or a model's own token, so that one
    agent cannot speak as somebody else to the next. What is clean stays as it is."""
    text = _UNSEEN.sub("", text)
    for pattern, new in _PATTERNS:
        pieces, last = [], 0
        for found in pattern.finditer(_look(text)):
            start, end = found.span("here")
            pieces += [text[last:start], new]
            last = end
        text = "".join(pieces) + text[last:]
    return text


def _look(text: str) -> str:
    """What `text` looks like in our letters, character by character."""
    if text.isascii():
        return text.replace("\r", "\n")
    return "".join(map(_look_of, text)).translate(_ALIKE)


@lru_cache(4096)
def _look_of(character: str) -> str:
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 else character


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
            modes=(*origin.rights, started.mode),
            root=origin.root,
            is_reply=True,
        ),
    )
