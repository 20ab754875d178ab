"""What a mode may do, and questions that wait (P5, P9)."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sidecar.approvals import PATIENCE, RIGHTS, Verdict, content_hash, verdict_on
from sidecar.conversations import (
    AgentMode,
    Approval,
    ApprovalState,
    Rule,
    StopReason,
    ToolKind,
    ToolResultPart,
)
from sidecar.errors import Conflict, InvalidState, NotFound
from sidecar.events import ApprovalRequested, ApprovalResolved
from sidecar.interfaces import ModelStop, Subject, ToolCall
from tests.fakes import FakeTool
from tests.managers import VIRTUAL, World, begin, living, until
from tests.requirements import proves

pytestmark = pytest.mark.anyio

WRITE = ToolCall("t1", "write", {"path": "a"})
WANTS = [WRITE, ModelStop("toolCalls")]


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


@proves("P9")
def test_only_building_changes_anything_and_only_when_asked() -> None:
    verdicts = {
        (mode, kind): verdict_on(mode, FakeTool(kind=kind))
        for mode in AgentMode
        for kind in ToolKind
    }
    asked = {pair for pair, verdict in verdicts.items() if verdict is Verdict.ASK}
    acts = (ToolKind.EDIT, ToolKind.RUN, ToolKind.PLAN, ToolKind.EXTERNAL)
    assert asked == {(AgentMode.BUILD, kind) for kind in acts}
    allowed = {pair for pair, verdict in verdicts.items() if verdict is Verdict.ALLOW}
    talks = {(mode, ToolKind.AGENT) for mode in (AgentMode.CHAT, AgentMode.BUILD)}
    assert allowed == {(mode, ToolKind.READ) for mode in AgentMode} | talks
    assert set(RIGHTS) == set(AgentMode)


def test_the_hash_is_of_everything_that_was_shown() -> None:
    subject = Subject(title="t", text="x", state={"a": 1, "b": 2})
    same = content_hash(WRITE, Subject(title="t", text="x", state={"b": 2, "a": 1}))
    assert content_hash(WRITE, subject) == same
    others = [
        content_hash(ToolCall("t1", "run", {"path": "a"}), subject),
        content_hash(ToolCall("t1", "write", {"path": "b"}), subject),
        content_hash(WRITE, Subject(title="u", text="x", state=subject.state)),
        content_hash(WRITE, Subject(title="t", text="y", state=subject.state)),
        content_hash(WRITE, Subject(title="t", text="x", state={"a": 1})),
    ]
    assert len({same, *others}) == 6


def question(world: World) -> Approval:
    return next(e.approval for e in world.events if isinstance(e, ApprovalRequested))


def is_asked(world: World) -> bool:
    return any(isinstance(event, ApprovalRequested) for event in world.events)


def states(world: World) -> list[ApprovalState]:
    return [e.state for e in world.events if isinstance(e, ApprovalResolved)]


async def asking(world: World, tasks: Any) -> Any:
    """A turn in build mode that waits for the user."""
    await world.manager.get_or_create_agent("a", AgentMode.BUILD)
    sent = begin(tasks, world.send, "write it")
    await until(lambda: is_asked(world))
    return sent


@proves("P5", "P9")
async def test_an_agent_that_waits_for_the_user_is_busy_and_goes_on_with_the_answer() -> None:
    tool = FakeTool("write", kind=ToolKind.EDIT)
    async with living(WANTS, "done", tools=(tool,), max_active_agents=1) as world:
        async with anyio.create_task_group() as tasks:
            sent = await asking(world, tasks)
            agent = world.manager.registry.get("a")
            assert agent is not None
            assert not agent.is_quiescent
            assert tool.calls == []
            asked = question(world)
            await world.manager.approvals.respond(asked.approval_id, "allow", asked.content_hash)
            await until(lambda: sent.is_done)
        assert tool.calls == [{"path": "a"}]
        assert states(world) == [ApprovalState.ALLOWED]
        assert await world.store.inner.open_approvals() == ()


@proves("P9")
async def test_a_question_that_nobody_answers_counts_as_denied() -> None:
    tool = FakeTool("write", kind=ToolKind.EDIT)
    async with living(WANTS, "done", tools=(tool,)) as world:
        async with anyio.create_task_group() as tasks:
            sent = await asking(world, tasks)
            await anyio.sleep(PATIENCE - 1)
            assert not sent.is_done
            await anyio.sleep(2)
            assert sent.is_done
        assert tool.calls == []
        assert states(world) == [ApprovalState.EXPIRED]
        _, result, _ = (await world.messages())[1].parts
        assert isinstance(result, ToolResultPart)
        assert result.is_error
        assert "expired" in result.content


@proves("P7", "P9")
async def test_stopping_a_turn_that_waits_ends_its_question() -> None:
    tool = FakeTool("write", kind=ToolKind.EDIT)
    async with living(WANTS, "done", tools=(tool,)) as world:
        async with anyio.create_task_group() as tasks:
            sent = await asking(world, tasks)
            asked = question(world)
            assert await world.manager.cancel_turn("a")
            await until(lambda: sent.is_done)
            with pytest.raises(Conflict):
                await world.manager.approvals.respond(
                    asked.approval_id, "allow", asked.content_hash
                )
        assert sent.result.stop_reason is StopReason.CANCELLED
        assert tool.calls == []
        assert states(world) == [ApprovalState.EXPIRED]


@proves("P9")
async def test_what_changed_between_the_question_and_the_effect_was_not_approved() -> None:
    tool = FakeTool("write", kind=ToolKind.EDIT)
    async with living(WANTS, "done", tools=(tool,)) as world:
        async with anyio.create_task_group() as tasks:
            sent = await asking(world, tasks)
            asked = question(world)
            tool.state["file"] = "edited meanwhile"
            await world.manager.approvals.respond(asked.approval_id, "allow", asked.content_hash)
            await until(lambda: sent.is_done)
        assert tool.calls == []


@proves("P9")
async def test_an_approval_is_used_once_and_in_its_own_turn() -> None:
    tool = FakeTool("write", kind=ToolKind.EDIT)
    async with living(WANTS, "done", tools=(tool,)) as world:
        async with anyio.create_task_group() as tasks:
            await asking(world, tasks)
            asked, store = question(world), world.store.inner
            started = (asked.conversation_id, asked.turn_id, "reply", 5, WRITE)
            with pytest.raises(Conflict):
                await store.tool_started(*started, approval=asked)  # not answered yet
            await store.answer_approval(asked.approval_id, "allow", asked.content_hash)
            await until(lambda: tool.calls)
        assert len(tool.calls) == 1
        with pytest.raises(NotFound):
            await world.manager.approvals.respond("nothing", "allow", asked.content_hash)
        with pytest.raises(Conflict):
            await world.manager.approvals.respond(asked.approval_id, "allow", asked.content_hash)


@proves("P7", "P9")
async def test_once_the_user_is_gone_nothing_is_asked_any_more() -> None:
    tool = FakeTool("write", kind=ToolKind.EDIT)
    async with living(WANTS, WANTS, "done", tools=(tool,)) as world:
        async with anyio.create_task_group() as tasks:
            sent = await asking(world, tasks)
            world.manager.approvals.close()
            await until(lambda: sent.is_done)
        assert states(world) == [ApprovalState.EXPIRED] * 2
        assert tool.calls == []


@proves("RULES", "PROTECTED", "P9")
@pytest.mark.parametrize(
    ("known", "is_protected", "asks"),
    [(0, False, True), (1, False, True), (2, False, False), (2, True, True)],
)
async def test_a_rule_settles_only_what_it_names_in_full_and_never_what_is_protected(
    known: int, is_protected: bool, asks: bool
) -> None:
    rules = tuple(Rule(tool="act", argv=(name,), root="/code") for name in "ab")

    class Ruled(FakeTool):
        async def subject(self, arguments: dict[str, Any]) -> Subject:
            return Subject(title="Act", text="a && b", always=rules, is_protected=is_protected)

    tool = Ruled("act", kind=ToolKind.RUN)
    call = [ToolCall("1", "act", {}), ModelStop("toolCalls")]
    async with living(call, "done", tools=(tool,)) as world:
        await world.create("a")
        await world.manager.set_mode("a", AgentMode.BUILD)
        for rule in rules[:known]:
            await world.store.inner.add_rule(rule)
        world.manager.approvals.close()  # nobody answers
        await world.send("go")
        assert ("ApprovalRequested" in world.types()) == asks
        assert (len(tool.calls) == 1) == (not asks)
        asked = [e.approval for e in world.events if isinstance(e, ApprovalRequested)]
        assert all(question.always == (() if is_protected else rules) for question in asked)


@proves("RULES")
async def test_what_offers_no_rule_cannot_be_allowed_for_good_and_waits_on() -> None:
    tool = FakeTool("write", kind=ToolKind.EDIT)
    async with living(WANTS, "done", tools=(tool,)) as world, anyio.create_task_group() as tasks:
        sent = await asking(world, tasks)
        asked = question(world)
        with pytest.raises(InvalidState, match="for good"):
            await world.manager.approvals.respond(
                asked.approval_id, "allow", asked.content_hash, always=True
            )
        assert await world.store.inner.open_approvals() == (asked,)
        assert await world.store.inner.rules() == []
        await world.manager.approvals.respond(asked.approval_id, "deny", asked.content_hash)
        await sent.done.wait()
        assert tool.calls == []
