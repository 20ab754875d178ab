"""What a mode may do, what has to be asked, and answers that count for one thing only.

An approval is a row: asked for in one commit, answered by the first that says so in any window,
used once, in the commit that says that the tool starts, and over with its turn. It is bound to a
hash of everything that the user was shown; what has changed meanwhile was not approved.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from enum import StrEnum

import anyio
import msgspec

from .conversations import (
    AgentMode,
    Approval,
    ApprovalDecision,
    ApprovalState,
    ToolKind,
)
from .events import ApprovalResolved, DurableEvent
from .ids import new_id, now_ms
from .interfaces import ConversationStore, Subject, Tool, ToolCall
from .journal import Journal

logger = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds that a question may go unanswered; then it counts as denied."""


class Verdict(StrEnum):
    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


STRICTNESS = (Verdict.ALLOW, Verdict.ASK, Verdict.DENY)

RIGHTS: Mapping[AgentMode, Mapping[ToolKind, Verdict]] = {
    AgentMode.CHAT: {ToolKind.READ: Verdict.ALLOW, ToolKind.AGENT: Verdict.ALLOW},
    AgentMode.FEEDBACK: {ToolKind.READ: Verdict.ALLOW},
    AgentMode.BUILD: {
        ToolKind.READ: Verdict.ALLOW,
        ToolKind.EDIT: Verdict.ASK,
        ToolKind.RUN: Verdict.ASK,
        ToolKind.EXTERNAL: Verdict.ASK,
        ToolKind.PLAN: Verdict.ASK,
        ToolKind.AGENT: Verdict.ALLOW,
    },
}
"""Mode × kind of tool; what is not in it is denied."""


def verdict_on(mode: AgentMode, tool: Tool) -> Verdict:
    return RIGHTS[mode].get(tool.kind, Verdict.DENY)


def verdict_in(modes: Iterable[AgentMode], tool: Tool) -> Verdict:
    """Of several modes at once: the strictest."""
    return max((verdict_on(mode, tool) for mode in modes), key=STRICTNESS.index)


def content_hash(call: ToolCall, subject: Subject) -> str:
    """SHA-256 over the tool, its arguments and all that the user was shown, in one fixed form."""
    content = [call.name, call.arguments, subject.title, subject.text, subject.state]
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


class Approvals:
    """Asks, and waits for whoever answers. Nothing is waited for once `close` was called."""

    def __init__(self, store: ConversationStore, journal: Journal) -> None:
        self._store = store
        self._waiting: dict[str, anyio.Event] = {}
        self._closed = anyio.Event()
        journal.listen(self._on_event)

    async def ask(
        self, conversation_id: str, turn_id: str, call: ToolCall, subject: Subject
    ) -> Approval:
        """The question with its answer: allowed, denied, or expired. Cancelling the wait leaves
        it pending until its turn ends."""
        asked_at = now_ms()
        question = Approval(
            approval_id=new_id(),
            conversation_id=conversation_id,
            turn_id=turn_id,
            tool_call_id=call.tool_call_id,
            tool=call.name,
            title=subject.title,
            text=subject.text,
            content_hash=content_hash(call, subject),
            state=ApprovalState.PENDING,
            requested_at=asked_at,
            expires_at=asked_at + int(PATIENCE * 1000),
            is_protected=subject.is_protected,
            always=() if subject.is_protected else subject.always,
        )
        answered = self._waiting[question.approval_id] = anyio.Event()
        try:
            await self._store.ask_approval(question)
            if not self._closed.is_set():
                with anyio.move_on_after(PATIENCE):
                    await answered.wait()
            return await self._store.settle_approval(question.approval_id)
        finally:
            del self._waiting[question.approval_id]

    async def respond(
        self,
        approval_id: str,
        decision: ApprovalDecision,
        given_hash: str,
        *,
        always: bool = False,
    ) -> Approval:
        """The first answer counts. Raises `NotFound` for an unknown question, `Conflict` for one
        that was answered or is over, and for an answer to something else than what is asked.
        `always`: what it says about that becomes a rule; `InvalidState` where it says nothing."""
        answer = await self._store.answer_approval(approval_id, decision, given_hash, always=always)
        logger.info("approval answered", extra={"approvalId": approval_id, "decision": decision})
        return answer

    def close(self) -> None:
        """The user is gone: what is asked, and will be, is not answered any more."""
        self._closed.set()
        for waiting in self._waiting.values():
            waiting.set()

    def _on_event(self, event: DurableEvent) -> None:
        if isinstance(event, ApprovalResolved) and (w := self._waiting.get(event.approval_id)):
            w.set()
