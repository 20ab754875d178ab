"""Feedback and builds as they are asked for: which prompt they become, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..conversations import ApprovalDecision, ContextFile, FeedbackResult, Prompt, TurnResult
from ..errors import InvalidState, NotFound
from ..work import BuildTask, FeedbackPart, FeedbackTask
from .build import PLAN
from .personas import PersonasService

if TYPE_CHECKING:
    from ..manager import AgentManager

MAX_PERSONAS = 10
DIFF_URI = "diff:changes"
"""Stands for a diff among the files that are reviewed."""


class FeedbackService:
    def __init__(self, manager: AgentManager, personas: PersonasService) -> None:
        self._manager = manager
        self._personas = personas

    async def prompt(
        self,
        files: Sequence[ContextFile],
        *,
        diff: str | None,
        focus: str,
        persona_ids: Sequence[str],
    ) -> Prompt:
        """Raises `InvalidState` when there is nothing to review, `NotFound` for a persona."""
        given = [*files, *([ContextFile(uri=DIFF_URI, text=diff)] if diff else [])]
        if not given:
            raise InvalidState(
                "There is nothing to review.", hint="Give `contextFiles`, a `diff`, or both."
            )
        personas = await self._personas.chosen(persona_ids)
        if len(personas) > MAX_PERSONAS:
            raise InvalidState(f"At most {MAX_PERSONAS} personas review at once.")
        names = ", ".join(persona.name for persona in personas)
        return Prompt(
            input=focus or f"Feedback by {names}",
            context_files=tuple(given),
            task=FeedbackTask(personas=personas),
        )

    async def result(self, conversation_id: str, turn: TurnResult) -> FeedbackResult:
        """What a run has come to, from the transcript."""
        for message in await self._manager.store.messages(conversation_id):
            if message.message_id == turn.reply_id:
                parts = [part for part in message.parts if isinstance(part, FeedbackPart)]
                return FeedbackResult(
                    conversation_id=conversation_id,
                    turn=turn,
                    report=message.text,
                    reviews=parts[0].reviews if parts else (),
                )
        return FeedbackResult(conversation_id=conversation_id, turn=turn)


class BuildModeService:
    def __init__(self, manager: AgentManager) -> None:
        self._manager = manager

    def prompt(self, task: str, files: tuple[ContextFile, ...], verify: str | None) -> Prompt:
        return Prompt(input=task, context_files=files, task=BuildTask(verify=verify))

    async def approve(self, conversation_id: str, decision: ApprovalDecision) -> None:
        """Answer the question about the plan that waits. Raises `NotFound` when none does."""
        for question in await self._manager.store.open_approvals(conversation_id):
            if question.tool == PLAN.name:
                await self._manager.approvals.respond(
                    question.approval_id, decision, question.content_hash
                )
                return
        raise NotFound(
            "No plan waits for an answer.",
            conversation_id=conversation_id,
            hint="approval/list has all questions that are open.",
        )
