"""What agents ask of a user in a terminal: the change or the command itself, and yes or no."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from ..client.live import Change
from ..conversations import Approval, ApprovalDecision, ApprovalState
from ..errors import Conflict, NotFound
from ..events import ApprovalRequested, ApprovalResolved
from .screen import Screen
from .session import Session

Decision = ApprovalDecision | Literal["always"]
Decide = Callable[[Approval], Decision]


class Questions:
    """Those of one conversation that nobody has answered yet."""

    def __init__(self, session: Session, conversation_id: str) -> None:
        self._session = session
        found = session.call("approval/list", conversation_id=conversation_id)
        self._open = {question.approval_id: question for question in found.approvals}

    def __bool__(self) -> bool:
        return bool(self._open)

    def notice(self, change: Change) -> None:
        if isinstance(change, ApprovalRequested):
            if change.approval.state is ApprovalState.PENDING:
                self._open[change.approval.approval_id] = change.approval
        elif isinstance(change, ApprovalResolved):
            self._open.pop(change.approval_id, None)

    def answer(self, decide: Decide) -> None:
        """Have each decided. Who was faster in another window is right."""
        for approval_id, question in tuple(self._open.items()):
            decision = decide(question)
            with suppress(Conflict, NotFound):  # answered elsewhere, or its turn is over
                self._session.call(
                    "approval/respond",
                    approval_id=approval_id,
                    decision="allow" if decision == "always" else decision,
                    content_hash=question.content_hash,
                    always=decision == "always",
                )
            self._open.pop(approval_id, None)


def ask(screen: Screen, question: Approval) -> Decision:
    """Show what it is about and read the answer; only a clear yes is one."""
    screen.gap()
    screen.line(f"{question.title}?", "bold yellow")
    for line in question.text.split("\n"):
        screen.line(f"  {line}", style_of(line))
    if not sys.stdin.isatty():
        screen.line("Denied: nobody is at this terminal to allow it.", "yellow")
        return "deny"
    try:
        if question.always:
            commands = ", ".join(shlex.join(rule.argv) for rule in question.always)
            screen.line(f"a: allow always in this folder: {commands}", "dim")
        answer = input(screen.prompt(f"Allow it once? y/n{'/a' if question.always else ''}"))
    except (EOFError, KeyboardInterrupt):
        screen.line()
        answer = ""
    answer = answer.strip().lower()
    if question.always and answer in ("a", "always"):
        screen.line("Allowed, and not asked again in this folder; /rules takes it back.", "dim")
        return "always"
    is_allowed = answer in ("y", "yes")
    screen.line("Allowed." if is_allowed else "Denied.", "dim")
    return "allow" if is_allowed else "deny"


def style_of(line: str) -> str:
    """As a diff is coloured; a command has none of these marks."""
    if line.startswith(("+++", "---", "@@")):
        return "dim"
    return {"+": "green", "-": "red"}.get(line[:1], "")
