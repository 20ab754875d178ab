"""Agents writing to agents: who may, what is let through, how the answer comes back.

A message goes through the target's queue like any other prompt and never waits inside a turn.
Both attempts that are allowed and those that are not are logged, without their content.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from .capabilities import CapabilityRegistry, Grants
from .conversations import AgentOrigin, Prompt, TextPart
from .errors import AgentError, CapabilityNotFound, CommunicationFailed, NotFound, Unauthorized
from .interfaces import ConversationStore, StartedTurn, TurnOutcome

logger = logging.getLogger(__name__)

MAX_DEPTH = 3
"""Agents in one chain of delegation."""

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
