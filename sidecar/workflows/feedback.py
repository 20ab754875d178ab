"""Several personas review the same files at the same time; what they say becomes one report.

Each reviews in a conversation of its own that helps this one: with an agent that counts in the
limit, in the mode of feedback, whose rights are to read. These conversations have names that follow
from the prompt's, so a run that was broken off goes on where it was: what was reviewed is not
reviewed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlparse

import anyio
import msgspec

from ..conversations import ContextFile, Prompt, StopReason
from ..errors import AgentError
from ..turn import Turn
from ..work import FeedbackPart, FeedbackTask, Persona, Review, ReviewTask
from .report import REVIEW, report, review_of


class FeedbackTurn(Turn):
    """Does not say that it has begun before it has ended: broken off, it is simply begun again."""

    delegates = True

    async def _work(self) -> StopReason:
        entry = self.started.entry
        task = entry.prompt.task
        assert isinstance(task, FeedbackTask)
        assert self._helpers is not None
        names = {p.persona_id: f"{entry.message_id}.{n}" for n, p in enumerate(task.personas)}
        try:
            reviews = await self._reviews(task.personas, names)
            self.reply.add(FeedbackPart(reviews=reviews))
            self.reply.append("text", report(subject_of(entry.prompt), reviews))
        finally:
            with anyio.CancelScope(shield=True):
                for name in names.values():
                    await self._helpers.dismiss(name)
        return StopReason.END_TURN

    async def _reviews(
        self, personas: Sequence[Persona], names: dict[str, str]
    ) -> tuple[Review, ...]:
        found: dict[str, Review] = {}

        async def review(persona: Persona) -> None:
            found[persona.persona_id] = await self._review(persona, names[persona.persona_id])
            await self.progress(len(found), len(personas), f"{persona.name} has reviewed")

        await self.progress(0, len(personas), "Reviewing")
        async with anyio.create_task_group() as tasks:
            for persona in personas:
                tasks.start_soon(review, persona, name=f"review by {persona.persona_id}")
        return tuple(found[persona.persona_id] for persona in personas)

    async def _review(self, persona: Persona, name: str) -> Review:
        """One that fails is said in the report; the others are still worth having."""
        own = self.started.entry.prompt
        prompt = msgspec.structs.replace(
            own,
            input=f"{own.input}\n\n{REVIEW}",
            system_instruction=persona.instruction,
            persona_id=persona.persona_id,
            task=ReviewTask(),
        )
        assert self._helpers is not None
        try:
            text = await self._helpers.ask(self.started.entry.conversation_id, name, prompt)
        except AgentError as error:
            problem = " ".join(filter(None, (error.message, error.hint)))
            return Review(persona_id=persona.persona_id, name=persona.name, problem=problem)
        return review_of(persona, text)


def subject_of(prompt: Prompt) -> str:
    names = [name_of(file) for file in prompt.context_files]
    shown = ", ".join(f"`{name}`" for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "the workspace"


def name_of(file: ContextFile) -> str:
    name = PurePosixPath(unquote(urlparse(file.uri).path)).name or file.uri
    if file.range is None:
        return name
    return f"{name}:{file.range.start.line + 1}-{file.range.end.line + 1}"
