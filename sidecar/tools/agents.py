"""The tool that writes to another agent. The answer comes later, as a prompt of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

import msgspec

from ..capabilities import AgentCapability
from ..conversations import ConversationId, JsonObject, Receipt, ToolKind
from ..errors import AgentError
from ..interfaces import UNWATCHED, Subject, ToolOutput, ToolSpec, ToolUse


class Agents(Protocol):
    """The other agents of this process."""

    async def send_to(
        self, from_id: str, to_id: str, text: str, *, capability: str | None = None
    ) -> Receipt: ...
    def others(self, than: str) -> Sequence[tuple[str, Sequence[AgentCapability]]]:
        """Those live agents that one may write to, with what they can do."""
        ...


class Arguments(msgspec.Struct, rename="camel"):
    message: Annotated[str, msgspec.Meta(max_length=64 * 1024)] = ""
    conversation_id: ConversationId | None = None
    capability: Annotated[str, msgspec.Meta(max_length=128)] | None = None


ASK_AGENT = ToolSpec(
    name="ask_agent",
    description="Write to another agent, named by its conversation or found by something that it"
    " can do. It answers later, in a message of its own; do not wait for it. It gets no more"
    " rights than you have. Without a message, lists the agents and what they can do.",
    input_schema={
        "type": "object",
        "properties": {
            "conversationId": {"type": "string"},
            "capability": {"type": "string", "description": "For example `run`."},
            "message": {"type": "string"},
        },
    },
)


class AskAgentTool:
    kind = ToolKind.AGENT
    spec = ASK_AGENT

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def subject(self, arguments: JsonObject) -> Subject:
        asked = msgspec.convert(arguments, Arguments, strict=False)
        return Subject(title=f"Write to {asked.conversation_id}", text=asked.message)

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        try:
            asked = msgspec.convert(arguments, Arguments, strict=False)
        except msgspec.ValidationError as error:
            return ToolOutput(f"Wrong arguments: {error}.", is_error=True)
        others = dict(self._agents.others(use.conversation_id))
        if not asked.message.strip():
            return ToolOutput(_listed(others))
        to = asked.conversation_id or next(
            (id_ for id_, own in others.items() if asked.capability in {c.name for c in own}), None
        )
        if to is None:
            return ToolOutput(f"Nobody can do that. {_listed(others)}", is_error=True)
        try:
            await self._agents.send_to(
                use.conversation_id, to, asked.message, capability=asked.capability
            )
        except AgentError as error:
            return ToolOutput(" ".join(filter(None, (error.message, error.hint))), is_error=True)
        return ToolOutput(f"Sent to {to}. The answer comes in a message of its own.")


def _listed(others: dict[str, Sequence[AgentCapability]]) -> str:
    lines = [f"{id_}: {', '.join(c.name for c in own)}" for id_, own in others.items()]
    return "\n".join(["Agents:", *lines]) if lines else "There is no other agent."
