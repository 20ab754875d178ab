"""The provider that plays a script."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from sidecar.conversations import (
    Message,
    MessageStatus,
    Part,
    Prompt,
    SteeringPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from sidecar.errors import ALL_ERRORS, AgentError, InitializationFailed, NetworkError
from sidecar.interfaces import (
    ModelEvent,
    ModelRequest,
    ModelStop,
    ModelUsage,
    TextDelta,
    ToolCall,
)
from sidecar.providers.scripted import ScriptedProvider

pytestmark = pytest.mark.anyio

END = ModelStop("endTurn")
TOOLS = ModelStop("toolCalls")


def said(role: Any, text: str) -> Message:
    return Message(
        message_id=text,
        ordinal=1,
        role=role,
        status=MessageStatus.COMPLETE,
        parts=(TextPart(text=text),),
        created_at=0,
    )


def request(text: str = "hi", steps: Sequence[Part] = (), prompts_before: int = 0) -> ModelRequest:
    history = [said("user", "before"), said("assistant", "reply")] * prompts_before
    return ModelRequest(instructions="", history=history, prompt=Prompt(input=text), steps=steps)


async def played(
    provider: ScriptedProvider,
    text: str = "hi",
    steps: Sequence[Part] = (),
    prompts_before: int = 0,
) -> list[ModelEvent]:
    with anyio.fail_after(10):
        return [e async for e in provider.stream(request(text, steps, prompts_before))]


async def collect(provider: ScriptedProvider, events: list[ModelEvent]) -> None:
    async for event in provider.stream(request()):
        events.append(event)


def text_of(events: Sequence[ModelEvent], kind: str = "text") -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta) and e.kind == kind)


def answered(name: str = "read", content: str = "content", id_: str = "1") -> tuple[Part, Part]:
    return (
        ToolCallPart(tool_call_id=id_, name=name, arguments={}),
        ToolResultPart(tool_call_id=id_, content=content),
    )


# ---- steps ---------------------------------------------------------------------------------


async def test_steps_are_played_in_order() -> None:
    script = [
        {"thinking": "hm"},
        {"text": "a"},
        {"text": "b", "repeat": 2},
        {"usage": {"inputTokens": 3, "outputTokens": 4}},
    ]
    assert await played(ScriptedProvider(script)) == [
        TextDelta("hm", "thinking"),
        TextDelta("a"),
        TextDelta("b"),
        TextDelta("b"),
        ModelUsage(Usage(input_tokens=3, output_tokens=4)),
        END,
    ]


async def test_every_prompt_gets_a_script_of_steps() -> None:
    provider = ScriptedProvider([{"text": "again"}])
    for before in range(3):
        assert await played(provider, prompts_before=before) == [TextDelta("again"), END]


async def test_the_input_is_put_in_everywhere() -> None:
    script = [
        {"text": "You: {input}"},
        {"tool": "search", "arguments": {"query": "{input}?", "more": [{"x": "{input}"}, 1]}},
    ]
    events = await played(ScriptedProvider(script), "{x}")
    assert events == [
        TextDelta("You: {x}"),
        ToolCall("call-0-0-1", "search", {"query": "{x}?", "more": [{"x": "{x}"}, 1]}),
        TOOLS,
    ]


@pytest.mark.parametrize("reason", ["endTurn", "maxTokens", "refusal"])
async def test_a_stop_ends_the_call(reason: str) -> None:
    provider = ScriptedProvider([{"text": "a"}, {"stop": reason}, {"text": "b"}])
    events = await played(provider)
    assert [type(e).__name__ for e in events] == ["TextDelta", "ModelStop"]
    assert getattr(events[-1], "reason", None) == reason


async def test_what_follows_tools_is_the_next_call() -> None:
    provider = ScriptedProvider(
        [
            {"text": "look"},
            {"tool": "read", "arguments": {"path": "a"}},
            {"tool": "read", "arguments": {"path": "b"}},
            {"text": "found"},
        ]
    )
    first = await played(provider)
    assert [e.arguments for e in first if isinstance(e, ToolCall)] == [{"path": "a"}, {"path": "b"}]
    assert first[-1] == TOOLS
    half = (TextPart(text="look"), *answered(id_="1"))
    assert (await played(provider, steps=half))[0] == TextDelta("look")
    whole = (*half, *answered(id_="2"))
    assert await played(provider, steps=whole) == [TextDelta("found"), END]


async def test_a_script_that_ends_with_a_tool_says_what_it_heard() -> None:
    provider = ScriptedProvider([{"tool": "read"}])
    events = await played(provider, steps=answered(content="forty two"))
    assert text_of(events) == "The tool said: forty two"
    assert events[-1] == END


async def test_steering_is_followed_by_the_next_call() -> None:
    provider = ScriptedProvider([{"text": "a"}, {"stop": "endTurn"}, {"text": "b {input}"}])
    steered = (TextPart(text="a"), SteeringPart(text="more"))
    assert await played(provider, steps=steered) == [TextDelta("b hi"), END]
    twice = (*steered, TextPart(text="b"), SteeringPart(text="stop it"))
    assert text_of(await played(provider, steps=twice)) == "You added: stop it"


async def test_steering_while_tools_run_skips_nothing() -> None:
    provider = ScriptedProvider([{"tool": "read"}, {"text": "b"}])
    call, result = answered()
    assert text_of(await played(provider, steps=(call, SteeringPart(text="x"), result))) == "b"


# ---- turns ---------------------------------------------------------------------------------


async def test_each_prompt_of_a_conversation_gets_its_turn_and_the_rest_an_echo() -> None:
    script = [{"turn": [{"text": "one"}]}, {"turn": [{"text": "two"}]}]
    texts = [text_of(await played(ScriptedProvider(script), prompts_before=n)) for n in range(3)]
    assert texts == ["one", "two", "You said: hi"]


async def test_an_empty_turn_ends_at_once() -> None:
    assert await played(ScriptedProvider([{"turn": []}])) == [END]


# ---- failing, waiting, hanging -------------------------------------------------------------


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.type)
async def test_every_error_can_be_played(error: type[AgentError]) -> None:
    provider = ScriptedProvider([{"text": "begun"}, {"fail": error.type}])
    events: list[ModelEvent] = []
    with pytest.raises(error) as caught:
        await collect(provider, events)
    assert events == [TextDelta("begun")]
    assert caught.value.retryable == error.retryable_by_default


async def test_a_failure_may_pass() -> None:
    script = [{"fail": "NETWORK_ERROR", "times": 2, "retryAfter": 1.5, "retryable": False}]
    provider = ScriptedProvider([*script, {"text": "there"}])
    for _ in range(2):
        with pytest.raises(NetworkError) as caught:
            await played(provider)
        assert (caught.value.retry_after, caught.value.retryable) == (1.5, False)
    assert await played(provider) == [TextDelta("there"), END]
    with pytest.raises(NetworkError):  # another prompt comes to this step for the first time
        await played(provider, prompts_before=1)


async def test_waits_and_signals_let_a_test_hold_a_turn() -> None:
    signals = {"reached": anyio.Event(), "go": anyio.Event()}
    provider = ScriptedProvider(
        [{"text": "a"}, {"signal": "reached"}, {"wait": "go"}, {"text": "b"}], signals
    )
    events: list[ModelEvent] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(collect, provider, events)
            await signals["reached"].wait()
            assert events == [TextDelta("a")]
            signals["go"].set()
    assert events == [TextDelta("a"), TextDelta("b"), END]


async def test_a_hanging_script_can_be_cancelled() -> None:
    provider = ScriptedProvider([{"text": "a"}, {"hang": True}])
    events: list[ModelEvent] = []
    with anyio.fail_after(5), anyio.CancelScope() as scope:
        async for event in provider.stream(request()):
            events.append(event)
            scope.cancel()
    assert scope.cancelled_caught
    assert events == [TextDelta("a")]


async def test_a_delay_is_waited_for_and_can_be_cancelled() -> None:
    assert await played(ScriptedProvider([{"delayMs": 1}, {"text": "x", "delayMs": 1}])) == [
        TextDelta("x"),
        END,
    ]
    with anyio.move_on_after(0) as scope:
        await played(ScriptedProvider([{"delayMs": 3_600_000}]))
    assert scope.cancelled_caught


async def test_a_million_deltas_are_not_made_in_advance() -> None:
    provider = ScriptedProvider([{"text": "x", "repeat": 10**12}])
    async with aclosing(provider.stream(request())) as events:  # type: ignore[type-var]
        assert await anext(events) == TextDelta("x")


# ---- without a script ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("echo one two  three four", "one two  three four"),
        ("hello  there,\nyou", "You said: hello  there,\nyou"),
        ("echo {input}", "{input}"),
        ("repeat 3 ab", "ababab"),
        ("repeat many times", "You said: repeat many times"),
        ("fail the test", "You said: fail the test"),
        ("tool", "You said: tool"),
        ("tool read {broken", "You said: tool read {broken"),
        ("hang around", "You said: hang around"),
        ("", "You said: "),
        ("🧨 größe", "You said: 🧨 größe"),
    ],
)
async def test_the_prompt_is_the_script(prompt: str, text: str) -> None:
    events = await played(ScriptedProvider(), prompt)
    assert text_of(events) == text
    assert events[-1] == END


async def test_an_echo_comes_in_several_deltas() -> None:
    events = await played(ScriptedProvider(), "a b c d e f g")
    assert sum(isinstance(e, TextDelta) for e in events) > 2


async def test_a_prompt_can_call_a_tool() -> None:
    provider = ScriptedProvider()
    events = await played(provider, 'tool read {"path": "a"}')
    assert events == [ToolCall("call-0-0-0", "read", {"path": "a"}), TOOLS]
    events = await played(provider, 'tool read {"path": "a"}', steps=answered(content="text of a"))
    assert text_of(events) == "The tool said: text of a"


async def test_a_prompt_can_ask_for_a_failure_or_for_thoughts() -> None:
    with pytest.raises(NetworkError):
        await played(ScriptedProvider(), "fail NETWORK_ERROR")
    events = await played(ScriptedProvider(), "think twice")
    assert text_of(events, "thinking") == "twice"


# ---- bad scripts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ([{"text": "a"}, {}], "script[1]"),
        ([{"text": "a", "tool": "b"}], "script[0]"),
        ([{"text": "a", "arguments": {}}], "'arguments' does not go with 'text'"),
        ([{"txet": "a"}], "txet"),
        ([{"text": 1}], "script[0]"),
        ([{"text": "a", "repeat": -1}], "script[0]"),
        ([{"stop": "later"}], "script[0]"),
        ([{"fail": "NO_SUCH"}], "NO_SUCH"),
        ([{"wait": "nobody"}], "nobody"),
        ([{"signal": "nobody"}], "nobody"),
        ([{"usage": {"inputTokens": "x"}}], "script[0]"),
        ([{"turn": [{"text": "a"}, {"stop": 1}]}], "script[0].turn[1]"),
        ([{"turn": {}}], "script[0]"),
        ([{"turn": [], "text": "a"}], "script[0]"),
        ([{"turn": []}, {"text": "a"}], "script[1]"),
        ([{"text": "a"}, {"turn": []}], "script[0]"),
        (["text"], "script[0]"),
        ([None], "script[0]"),
    ],
)
def test_a_bad_script_is_refused_before_it_is_played(script: list[Any], named: str) -> None:
    with pytest.raises(InitializationFailed) as caught:
        ScriptedProvider(script)
    assert named in caught.value.message
