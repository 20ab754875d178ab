"""What every provider promises, over those that need no vendor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from copy import deepcopy
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest

from sidecar.conversations import (
    ContextFile,
    Message,
    MessageStatus,
    Part,
    Prompt,
    SteeringPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from sidecar.errors import AgentError, NetworkError
from sidecar.interfaces import (
    ModelEvent,
    ModelProvider,
    ModelRequest,
    ModelStop,
    TextDelta,
    ToolCall,
    ToolSpec,
)
from sidecar.providers.offline import OfflineProvider
from sidecar.providers.scripted import ScriptedProvider
from tests.requirements import proves

pytestmark = pytest.mark.anyio


async def fine() -> str:
    return "All is well."


async def unreachable() -> str:
    raise NetworkError("The store could not be reached.")


class Case(NamedTuple):
    make: Callable[[], ModelProvider]
    prompt: str


SCRIPT: list[dict[str, Any]] = [
    {"thinking": "hm"},
    {"text": "look at {input}"},
    {"tool": "search", "arguments": {"query": "{input}"}},
    {"tool": "read", "arguments": {"path": "{input}"}},
    {"usage": {"inputTokens": 1}},
    {"text": "found "},
    {"stop": "maxTokens"},
]

CASES = {
    "offline question": Case(OfflineProvider, "where is the retry policy?"),
    "offline talk": Case(OfflineProvider, "help"),
    "offline status": Case(lambda: OfflineProvider(fine), "status"),
    "offline read": Case(OfflineProvider, "read a.py:1-3"),
    "offline list": Case(OfflineProvider, "list"),
    "offline unicode": Case(OfflineProvider, "wo ist die größe? 🧨 重试"),
    "offline empty": Case(OfflineProvider, ""),
    "scripted steps": Case(lambda: ScriptedProvider(SCRIPT), "x"),
    "scripted turns": Case(lambda: ScriptedProvider([{"turn": SCRIPT}, {"turn": []}]), "x"),
    "scripted echo": Case(ScriptedProvider, "echo a b c d e f"),
    "scripted tool": Case(ScriptedProvider, 'tool read {"path": "a.py"}'),
}
FAILING = {
    "offline status": Case(lambda: OfflineProvider(unreachable), "status"),
    "scripted": Case(lambda: ScriptedProvider([{"text": "a"}, {"fail": "UNAUTHORIZED"}]), "x"),
    "scripted prompt": Case(ScriptedProvider, "fail NETWORK_ERROR"),
}
FOUND = (
    '{"passages": [{"path": "a.py", "line": 3, "endLine": 4, "text": "def f():\\n    pass",'
    ' "score": 2.5, "words": ["f"]}], "missing": [], "filesSearched": 1}'
)
OUTPUTS = {"search": FOUND, "read": "a.py, lines 1-1 of 1\ndef f(): ...", "list": "a.py"}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param
    return made


def request_for(prompt: str, steps: Sequence[Part] = ()) -> ModelRequest:
    message = Message(
        message_id="m",
        ordinal=1,
        role="assistant",
        status=MessageStatus.COMPLETE,
        parts=(
            ToolCallPart(tool_call_id="t", name="search", arguments={"query": "before"}),
            ToolResultPart(tool_call_id="t", content=FOUND),
            TextPart(text="Earlier."),
        ),
        created_at=0,
    )
    file = ContextFile(uri="file:///w/a.py", text="def f():\n    pass\n")
    return ModelRequest(
        instructions="Answer.",
        history=[message],
        prompt=Prompt(input=prompt, context_files=(file,)),
        steps=steps,
        tools=[ToolSpec(name=name, description="", input_schema={}) for name in OUTPUTS],
    )


async def whole_turn(case: Case) -> list[list[ModelEvent]]:
    """The events of every model call of a turn whose tools all succeed."""
    provider, steps, calls = case.make(), list[Part](), list[list[ModelEvent]]()
    while not calls or calls[-1][-1] == ModelStop("toolCalls"):
        assert len(calls) < 5, "the turn does not come to an end"
        request = request_for(case.prompt, tuple(steps))
        calls.append([event async for event in provider.stream(request)])
        for event in calls[-1]:
            if isinstance(event, TextDelta):
                steps.append(TextPart(text=event.text))
            elif isinstance(event, ToolCall):
                call = event
                steps += [
                    ToolCallPart(
                        tool_call_id=call.tool_call_id, name=call.name, arguments=call.arguments
                    ),
                    ToolResultPart(tool_call_id=call.tool_call_id, content=OUTPUTS[call.name]),
                ]
    return calls


@proves("P6")
async def test_every_call_ends_with_its_only_stop(case: Case) -> None:
    with anyio.fail_after(10):
        for events in await whole_turn(case):
            assert [isinstance(event, ModelStop) for event in events].index(True) == len(events) - 1


async def test_the_stop_says_whether_tools_are_to_be_run(case: Case) -> None:
    for events in await whole_turn(case):
        has_calls = any(isinstance(event, ToolCall) for event in events)
        assert (events[-1] == ModelStop("toolCalls")) == has_calls


async def test_a_turn_has_something_to_show(case: Case) -> None:
    text = "".join(e.text for c in await whole_turn(case) for e in c if isinstance(e, TextDelta))
    assert text.strip()


async def test_tool_calls_are_of_known_tools_and_have_ids_of_their_own(case: Case) -> None:
    calls = [e for events in await whole_turn(case) for e in events if isinstance(e, ToolCall)]
    assert {call.name for call in calls} <= set(OUTPUTS)
    assert len({call.tool_call_id for call in calls}) == len(calls)


async def test_deltas_are_never_empty_and_can_be_sent(case: Case) -> None:
    for events in await whole_turn(case):
        for event in events:
            msgspec.json.encode(event)
            assert not isinstance(event, TextDelta) or event.text


async def test_the_request_is_left_as_it_was(case: Case) -> None:
    request = request_for(case.prompt)
    before = deepcopy(request)
    async for _ in case.make().stream(request):
        pass
    assert request == before


@pytest.mark.parametrize("read", [0, 1])
async def test_closing_early_is_clean_and_the_next_call_whole(case: Case, read: int) -> None:
    provider, request = case.make(), request_for(case.prompt)
    async with aclosing(provider.stream(request)) as events:  # type: ignore[type-var]
        for _ in range(read):
            await anext(events)
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    with anyio.fail_after(10):
        assert isinstance([event async for event in provider.stream(request)][-1], ModelStop)


@proves("P7")
async def test_a_reader_that_is_cancelled_gets_nothing_more(case: Case) -> None:
    seen: list[ModelEvent] = []
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with aclosing(case.make().stream(request_for(case.prompt))) as events:  # type: ignore[type-var]
            async for event in events:
                seen.append(event)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert len(seen) == 1


async def test_calls_run_side_by_side(case: Case) -> None:
    provider, ends = case.make(), list[ModelEvent]()

    async def one() -> None:
        ends.append([event async for event in provider.stream(request_for(case.prompt))][-1])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)
    assert len(ends) == 5


async def test_steering_begins_a_new_call(case: Case) -> None:
    steps = (TextPart(text="So far."), SteeringPart(text="what about errors?"))
    with anyio.fail_after(10):
        events = [e async for e in case.make().stream(request_for(case.prompt, steps))]
    assert isinstance(events[-1], ModelStop)


@pytest.mark.parametrize("case", FAILING.values(), ids=FAILING.keys())
async def test_only_agent_errors_are_raised(case: Case) -> None:
    with pytest.raises(AgentError) as caught:
        await whole_turn(case)
    assert case.prompt == "x" or case.prompt not in caught.value.message


async def test_closing_twice_is_fine(case: Case) -> None:
    provider = case.make()
    await provider.aclose()
    await provider.aclose()


@pytest.mark.parametrize(
    ("make", "name"), [(OfflineProvider, "offline"), (ScriptedProvider, "scripted")]
)
def test_a_provider_has_the_name_that_the_settings_use(
    make: Callable[[], ModelProvider], name: str
) -> None:
    assert make().name == name
