"""What each agent can do, and who may write to whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta

from .conversations import JsonObject, Value
from .interfaces import Tool


class AgentCapability(Value, frozen=True, kw_only=True):
    """Something an agent can do. It describes; it never grants a right."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    description: str
    version: str = "1"
    input_schema: JsonObject | None = None
    source: Literal["tool", "client", "agent"] = "client"


def capability_of(tool: Tool) -> AgentCapability:
    return AgentCapability(
        name=tool.spec.name,
        description=tool.spec.description,
        version=tool.spec.version,
        input_schema=tool.spec.input_schema,
        source="tool",
    )


class CapabilityRegistry:
    """Capabilities of the live agents. An agent's are there from its start to its disposal."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, AgentCapability]] = {}

    def register(self, conversation_id: str, capability: AgentCapability) -> int:
        """Add one, or replace the one of its name; returns how many the agent has now."""
        own = self._of.setdefault(conversation_id, {})
        own[capability.name] = capability
        return len(own)

    def replace_tools(self, conversation_id: str, tools: Iterable[AgentCapability]) -> None:
        """Have exactly these for its tools; what a client registered stays."""
        own = self._of.get(conversation_id, {})
        kept = {name: one for name, one in own.items() if one.source != "tool"}
        self._of[conversation_id] = {tool.name: tool for tool in tools} | kept

    def unregister(self, conversation_id: str, name: str) -> bool:
        return self._of.get(conversation_id, {}).pop(name, None) is not None

    def drop(self, conversation_id: str) -> None:
        """The agent is gone, and with it all that it could do."""
        self._of.pop(conversation_id, None)

    def of(self, conversation_id: str) -> tuple[AgentCapability, ...]:
        return tuple(self._of.get(conversation_id, {}).values())

    def has(self, conversation_id: str, name: str) -> bool:
        return name in self._of.get(conversation_id, {})

    def find(self, name: str) -> tuple[str, ...]:
        """The conversations whose agents have a capability of this name."""
        return tuple(id_ for id_, own in self._of.items() if name in own)

    def conversations(self) -> frozenset[str]:
        return frozenset(self._of)


class Grants:
    """Leave to write from one agent to another, given by the user.

    Kept in memory: a right that nobody renews ends with this process.
    """

    def __init__(self) -> None:
        self._given: set[tuple[str, str, str | None]] = set()

    def grant(self, from_id: str, to_id: str, capability: str | None) -> None:
        self._given.add((from_id, to_id, capability))

    def revoke(self, from_id: str, to_id: str, capability: str | None) -> None:
        self._given.discard((from_id, to_id, capability))

    def allow(self, from_id: str, to_id: str, capability: str | None) -> bool:
        return not self._given.isdisjoint({(from_id, to_id, None), (from_id, to_id, capability)})
