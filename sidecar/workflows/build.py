"""A task in the open: plan, the user's yes, step by step, a command that verifies, a summary.

All that is known of a build stands in its messages: the plan is a tool call that was allowed, a
step begins with a line that says so. A build that was broken off and is retried therefore finds
its plan, which was allowed once, and goes on with the step that was begun last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ..approvals import content_hash
from ..conversations import (
    JsonObject,
    MessageStatus,
    Part,
    SteeringPart,
    StopReason,
    ToolCallPart,
    ToolKind,
    ToolResultPart,
)
from ..errors import MessageProcessingFailed
from ..ids import new_id
from ..interfaces import UNWATCHED, Subject, Tool, ToolCall, ToolOutput, ToolSpec, ToolUse
from ..turn import Turn
from ..work import BuildTask, Plan

REPAIRS = 2
"""How often what the verification found may be mended before the user is told."""
ACCEPTED = "The user accepted the plan."

PLAN = ToolSpec(
    name="plan",
    description="Propose how the task is to be done: `steps` in their order, each one thing that"
    " can be checked; `verify`, the command that will tell whether it worked, such as the tests;"
    " `summary`, why so. The user accepts or declines it. Read what you need first.",
    input_schema={
        "type": "object",
        "properties": {
            "steps": {
                "type": "array",
                "minItems": 1,
                "maxItems": 30,
                "items": {"type": "string", "minLength": 1},
            },
            "verify": {"type": "string"},
            "summary": {"type": "string"},
        },
        "required": ["steps"],
    },
)
PLANNING = (
    "First make a plan and propose it with the tool `plan`. Read whatever you need for it. Change "
    "nothing before the plan is accepted."
)


class PlanTool:
    """Its one effect is the user's yes."""

    kind = ToolKind.PLAN
    spec = PLAN

    async def subject(self, arguments: JsonObject) -> Subject:
        return Subject(title="Carry out this plan", text=as_text(plan_of(arguments)))

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        return ToolOutput(ACCEPTED)


class Progress(NamedTuple):
    """How far a build has come, read off its messages."""

    plan: Plan | None = None
    begun: int = 0
    """Steps that were begun; the last of them may be half done."""
    call: ToolCallPart | None = None
    """How the plan was proposed."""


class BuildTurn(Turn):
    async def _work(self) -> StopReason:
        task = self.started.entry.prompt.task
        assert isinstance(task, BuildTask)
        await self._store.request_started(self.started.entry.conversation_id, self.started.turn_id)
        done = progress_of(self._earlier_parts())
        if not await self._was_allowed(done):
            done = Progress()
        plan = done.plan
        if plan is None:
            plan = await self._planned()
        if plan is None:
            return StopReason.END_TURN
        for number in range(max(done.begun - 1, 0), len(plan.steps)):
            await self._step(plan, number, was_begun=number < done.begun)
        is_verified = await self._verified(task.verify or plan.verify, len(plan.steps))
        await self.progress(len(plan.steps), len(plan.steps), "Summing up")
        await self._say(
            "Sum up what was changed and what is left to do."
            if is_verified
            else "It is not verified. Say what was changed, and what the user has to see to."
        )
        return await self._converse()

    def _earlier_parts(self) -> Iterable[Part]:
        """Of the attempts at this very build that were broken off, each with the same prompt."""
        prompt = self.started.entry.prompt.input
        parts: list[Part] = []
        is_ours = False
        for message in self._history:
            if message.role == "user":
                is_ours = message.text == prompt
            elif is_ours and message.status in (MessageStatus.INTERRUPTED, MessageStatus.ERROR):
                parts += message.parts
            elif is_ours:
                parts = []  # that one came to its end
        return parts

    async def _was_allowed(self, done: Progress) -> bool:
        """By the user, here: messages may have been imported, the record cannot be."""
        if done.call is None:
            return False
        call = ToolCall(done.call.tool_call_id, done.call.name, done.call.arguments)
        hash_ = content_hash(call, await PlanTool().subject(call.arguments))
        return await self._store.was_allowed(self.started.entry.conversation_id, hash_)

    async def _planned(self) -> Plan | None:
        """Let the model look around and propose; None when it does not, or the user says no."""
        await self.progress(0, 1, "Planning")
        whole, self._tools = self._tools, self._planning_tools()
        try:
            await self._say(PLANNING)
            await self._converse(until=lambda: progress_of(self.reply.parts).plan is not None)
        finally:
            self._tools = whole
        return progress_of(self.reply.parts).plan

    def _planning_tools(self) -> dict[str, Tool]:
        looking = {n: t for n, t in self._tools.items() if t.kind is ToolKind.READ}
        return {**looking, PLAN.name: PlanTool()}

    async def _step(self, plan: Plan, number: int, *, was_begun: bool) -> None:
        title = plan.steps[number]
        await self.progress(number, len(plan.steps), title)
        again = " It was begun before: look first what is done already." if was_begun else ""
        await self._say(
            f"{step_line(number, plan)}: {title}\n\nDo this step now, and only this.{again}"
        )
        await self._converse()

    async def _verified(self, command: str | None, steps: int) -> bool:
        """Run the command until it passes, letting the model mend what it found."""
        if not command or "run" not in self._tools:
            return True
        for attempt in range(REPAIRS + 1):
            await self.progress(steps, steps, f"Verifying: {command}")
            output = await self._run_tool(
                ToolCall(f"verify-{new_id()}", "run", {"command": command})
            )
            if not output.is_error:
                return True
            if output.is_refused:
                return False
            if attempt < REPAIRS:
                await self._say(f"`{command}` failed. Mend what it found.")
                await self._converse()
        return False

    async def _say(self, text: str) -> None:
        """To the model, where the user can read it."""
        await self._add(SteeringPart(text=text, by="workflow"))


def step_line(number: int, plan: Plan) -> str:
    return f"Step {number + 1} of {len(plan.steps)}"


def progress_of(parts: Iterable[Part]) -> Progress:
    plan: Plan | None = None
    call: ToolCallPart | None = None
    accepted: ToolCallPart | None = None
    begun = 0
    for part in parts:
        if isinstance(part, ToolCallPart):
            call = part
        elif isinstance(part, ToolResultPart):
            # Only the answer to a plan's own call counts: ids are the model's, and may come again.
            if call is not None and _is_accepted(call, part):
                plan, begun, accepted = plan_of(call.arguments), 0, call
            call = None
        elif isinstance(part, SteeringPart) and plan is not None and begun < len(plan.steps):
            is_ours = part.by == "workflow"  # what the user types is no step
            begun += is_ours and part.text.startswith(f"{step_line(begun, plan)}: ")
    return Progress(plan, begun, accepted)


def _is_accepted(call: ToolCallPart, result: ToolResultPart) -> bool:
    return (call.name, call.tool_call_id, result.content, result.is_error) == (
        PLAN.name,
        result.tool_call_id,
        ACCEPTED,
        False,
    )


def plan_of(arguments: JsonObject) -> Plan:
    try:
        return msgspec.convert(arguments, Plan)
    except msgspec.ValidationError as error:
        raise MessageProcessingFailed(f"Wrong arguments: {error}.") from None


def as_text(plan: Plan) -> str:
    lines: Sequence[str] = [f"{n}. {step}" for n, step in enumerate(plan.steps, 1)]
    verify = f"Verify with: {plan.verify}" if plan.verify else ""
    return "\n\n".join(filter(None, (plan.summary, "\n".join(lines), verify)))
