"""Whether a tool call may go ahead: mode, rules and the user decide, at the moment of use.

Every decision is one `Admission`, and what it says is recorded in the audit with the commit that
says that the tool starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from .approvals import Approvals, Verdict, content_hash, verdict_in
from .audit import AuditAction, AuditEntry
from .conversations import AgentMode, Approval, ApprovalState, Rule
from .errors import MessageProcessingFailed
from .interfaces import CHANGED, StartedTurn, Subject, Tool, ToolCall


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """`refusal` is for the model; absent, the tool may run, and do what `subject` says."""

    why: str
    refusal: str | None = None
    approval: Approval | None = None
    content_hash: str | None = None
    tool: str | None = None
    subject: Subject | None = None

    def entry(self, started: StartedTurn) -> AuditEntry:
        return AuditEntry(
            action=AuditAction.TOOL,
            allowed=self.refusal is None,
            why=self.why,
            conversation_id=started.entry.conversation_id,
            turn_id=started.turn_id,
            tool=self.tool,
            content_hash=self.content_hash,
        )


class Rules(Protocol):
    async def rules(self, roots: Sequence[str] | None = None) -> Sequence[Rule]: ...


class Gate:
    """Of one turn. A prompt that came through other agents has no more rights here than the
    least of them had."""

    def __init__(self, started: StartedTurn, approvals: Approvals, rules: Rules) -> None:
        self._started = started
        self._approvals = approvals
        self._rules = rules
        origin = started.entry.prompt.origin
        self.modes: tuple[AgentMode, ...] = (started.mode, *(origin.rights if origin else ()))

    def offered(self, tools: Mapping[str, Tool]) -> list[Tool]:
        """Those that the model is told of: none that it could never use."""
        return [t for t in tools.values() if verdict_in(self.modes, t) is not Verdict.DENY]

    async def admit(self, tools: Mapping[str, Tool], call: ToolCall) -> Admission:
        tool = tools.get(call.name)
        if tool is None:
            known = ", ".join(t.spec.name for t in self.offered(tools)) or "none"
            return Admission(
                why="unknown", refusal=f"There is no tool '{call.name}'. Tools: {known}."
            )
        verdict = verdict_in(self.modes, tool)
        if verdict is Verdict.ALLOW:
            return Admission(why="mode", tool=call.name)
        if verdict is Verdict.DENY:
            refusal = f"'{call.name}' is not allowed in this mode."
            return Admission(why="mode", tool=call.name, refusal=refusal)
        try:
            return await self._ask(tool, call)
        except MessageProcessingFailed as error:
            return Admission(why="arguments", tool=call.name, refusal=error.message)

    async def _ask(self, tool: Tool, call: ToolCall) -> Admission:
        subject = await tool.subject(call.arguments)
        hash_ = content_hash(call, subject)
        if await self._is_settled(subject):
            return Admission(why="rule", tool=call.name, content_hash=hash_, subject=subject)
        entry = self._started.entry
        answer = await self._approvals.ask(
            entry.conversation_id, self._started.turn_id, call, subject
        )
        why, refusal = "approval", None
        if answer.state is not ApprovalState.ALLOWED:
            why, refusal = (
                answer.state.value,
                f"The user did not allow '{call.name}' ({answer.state}).",
            )
        elif content_hash(call, await tool.subject(call.arguments)) != answer.content_hash:
            why = "changed"
            refusal = CHANGED
        return Admission(
            why=why,
            tool=call.name,
            refusal=refusal,
            approval=None if refusal else answer,
            content_hash=answer.content_hash,
            subject=subject,
        )

    async def _is_settled(self, subject: Subject) -> bool:
        """Whether the user has allowed all of it for good. What is protected never is."""
        if subject.is_protected or not subject.always:
            return False
        known = await self._rules.rules([rule.root for rule in subject.always])
        return all(any(rule.covers(needed) for rule in known) for needed in subject.always)
