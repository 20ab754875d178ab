"""What each agent can do, and who gave leave to whom."""

from __future__ import annotations

from sidecar.capabilities import AgentCapability, CapabilityRegistry, Grants, capability_of
from tests.fakes import FakeTool
from tests.requirements import proves


def can(name: str, description: str = "does it") -> AgentCapability:
    return AgentCapability(name=name, description=description)


@proves("S003-CAPABILITY-1", "S003-CAPABILITY-3", "S003-CAPABILITY-8")
def test_a_capability_is_added_and_one_of_the_same_name_replaced() -> None:
    registry = CapabilityRegistry()
    assert registry.register("a", can("draw")) == 1
    assert registry.register("a", can("write")) == 2
    assert registry.register("a", can("draw", "better")) == 2
    assert [(c.name, c.description) for c in registry.of("a")] == [
        ("draw", "better"),
        ("write", "does it"),
    ]


@proves("S003-CAPABILITY-4", "S003-CAPABILITY-5", "S003-CAPABILITY-6")
def test_asking_is_answered_for_known_and_unknown_agents() -> None:
    registry = CapabilityRegistry()
    registry.register("a", can("draw"))
    assert registry.has("a", "draw")
    assert not registry.has("a", "fly")
    assert not registry.has("nobody", "draw")
    assert registry.of("nobody") == ()
    assert not registry.unregister("nobody", "draw")
    assert registry.conversations() == {"a"}, "asking makes nobody known"


def test_agents_are_found_by_what_they_can_do() -> None:
    registry = CapabilityRegistry()
    for id_, name in (("a", "draw"), ("b", "draw"), ("b", "write")):
        registry.register(id_, can(name))
    assert registry.find("draw") == ("a", "b")
    assert registry.find("write") == ("b",)
    assert registry.unregister("b", "draw")
    assert not registry.unregister("b", "draw")
    assert registry.find("draw") == ("a",)
    registry.drop("a")
    registry.drop("a")
    assert registry.find("draw") == ()


def test_a_tool_is_a_capability_that_says_where_it_comes_from() -> None:
    tool = FakeTool("look")
    capability = capability_of(tool)
    assert (capability.name, capability.source) == ("look", "tool")
    assert capability.input_schema == tool.spec.input_schema


@proves("D4-AGENTS-4")
def test_leave_is_given_in_one_direction_for_all_or_for_one_thing() -> None:
    grants = Grants()
    assert not grants.allow("a", "b", None)
    grants.grant("a", "b", "draw")
    assert grants.allow("a", "b", "draw")
    assert not grants.allow("a", "b", "write")
    assert not grants.allow("a", "b", None)
    assert not grants.allow("b", "a", "draw")
    grants.grant("a", "b", None)
    assert grants.allow("a", "b", "write")
    grants.revoke("a", "b", None)
    grants.revoke("a", "b", None)
    assert not grants.allow("a", "b", "write")
    assert grants.allow("a", "b", "draw")
