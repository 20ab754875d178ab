"""One turn: the model, its tools, retries, steering, and how it ends."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from sidecar.conversations import (
    AgentMode,
    MessageSettings,
    MessageStatus,
    Prompt,
    SteeringPart,
    StopReason,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolKind,
    ToolResultPart,
    Usage,
)
from sidecar.errors import ALL_ERRORS, MessageProcessingFailed, NetworkError, Unauthorized
from sidecar.events import ToolFinished, ToolStarted, TurnEnded, UsageReported
from sidecar.interfaces import ModelEvent, ModelStop, ModelUsage, TextDelta, ToolCall, ToolOutput
from sidecar.turn import MAX_STEPS, error_of, turn_error
from tests.fakes import FakeModel, FakeTool
from tests.managers import VIRTUAL, begin, living, recorded, retrying, settle, until
from tests.requirements import proves

pytestmark = pytest.mark.anyio

END = ModelStop("endTurn")
MORE = ModelStop("toolCalls")


def call(name: str = "look", id_: str = "t1", **arguments: Any) -> ToolCall:
    return ToolCall(id_, name, arguments)


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


# ---- what it sends and keeps ----


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("endTurn", StopReason.END_TURN),
        ("maxTokens", StopReason.MAX_TOKENS),
        ("refusal", StopReason.REFUSAL),
    ],
)
async def test_a_turn_stops_for_the_reason_that_the_model_gives(stop: Any, reason: Any) -> None:
    async with living([TextDelta("so far"), ModelStop(stop)]) as world:
        await world.create("a")
        assert (await world.send("hi")).stop_reason is reason
        assert (await world.messages())[1].status is MessageStatus.COMPLETE


async def test_the_model_gets_instructions_history_prompt_and_settings() -> None:
    tool = FakeTool()
    async with living(tools=(tool,)) as world:
        await world.manager.get_or_create_agent("a", AgentMode.FEEDBACK)
        prompt = Prompt(
            input="look", system_instruction="Be brief.", settings=MessageSettings(temperature=0)
        )
        await world.manager.send_message("a", prompt)
        (request,) = world.models.last.requests
        assert request.instructions.startswith("You review")
        assert request.instructions.endswith("Be brief.")
        assert request.prompt == prompt
        assert request.settings == MessageSettings(temperature=0)
        assert list(request.tools) == [tool.spec]
        assert list(request.steps) == []


async def test_text_and_thinking_become_parts_of_their_own() -> None:
    answer = [
        TextDelta("hm", "thinking"),
        TextDelta("m", "thinking"),
        TextDelta("so"),
        TextDelta(" it is"),
        END,
    ]
    async with living(answer) as world:
        await world.create("a")
        await world.send("hi")
        assert (await world.messages())[1].parts == (
            ThinkingPart(text="hmm"),
            TextPart(text="so it is"),
        )


async def test_usage_of_all_steps_is_added_up() -> None:
    def used(**figures: int) -> ModelUsage:
        return ModelUsage(Usage(**figures))

    first = [used(input_tokens=10, output_tokens=1), call(), MORE]
    second = [used(input_tokens=20, output_tokens=2, cached_tokens=5), TextDelta("done"), END]
    async with living(first, second, tools=(FakeTool(),)) as world:
        await world.create("a")
        result = await world.send("hi")
        assert result.usage == Usage(input_tokens=30, output_tokens=3, cached_tokens=5)
        (reported,) = [e for e in world.events if isinstance(e, UsageReported)]
        assert reported.usage == result.usage


# ---- tools ----


@proves("D4-CRASH-2")
async def test_a_tool_runs_after_its_start_is_committed_and_the_model_reads_its_result() -> None:
    class Watching(FakeTool):
        async def run(self, arguments: Any, use: Any = None) -> ToolOutput:
            seen.extend(type(e).__name__ for e in world.events)
            return await super().run(arguments)

    seen: list[str] = []
    tool = Watching()
    steps = ([TextDelta("let me see"), call(path="x"), MORE], "it is x")
    async with living(*steps, tools=(tool,)) as world:
        await world.create("a")
        await world.send("what is it")
        assert "ToolStarted" in seen
        assert "ToolFinished" not in seen
        assert tool.calls == [{"path": "x"}]
        reply = (await world.messages())[1]
        expected = (
            TextPart(text="let me see"),
            ToolCallPart(tool_call_id="t1", name="look", arguments={"path": "x"}),
            ToolResultPart(tool_call_id="t1", content="looked at {'path': 'x'}"),
            TextPart(text="it is x"),
        )
        assert reply.parts == expected
        assert tuple(world.models.last.requests[1].steps) == expected[:3]
        (started,) = [e for e in world.events if isinstance(e, ToolStarted)]
        (finished,) = [e for e in world.events if isinstance(e, ToolFinished)]
        assert (started.part, finished.part) == (1, 2)


@proves("P1", "P3")
async def test_what_was_said_before_a_tool_is_stored_before_the_tool_starts() -> None:
    class Watching(FakeTool):
        async def run(self, arguments: Any, use: Any = None) -> ToolOutput:
            stored.extend((await world.messages())[1].parts)
            return await super().run(arguments)

    stored: list[Any] = []
    async with living([TextDelta("let me see"), call(), MORE], tools=(Watching(),)) as world:
        await world.create("a")
        await world.send("go")
        assert stored == [
            TextPart(text="let me see"),
            ToolCallPart(tool_call_id="t1", name="look", arguments={}),
        ]


@proves("D4-TURN-3")
async def test_a_tool_that_does_not_exist_is_told_to_the_model() -> None:
    async with living([call("fly"), MORE], "sorry", tools=(FakeTool("look"),)) as world:
        await world.create("a")
        assert (await world.send("fly")).stop_reason is StopReason.END_TURN
        _, result, _ = (await world.messages())[1].parts
        assert isinstance(result, ToolResultPart)
        assert result.is_error
        assert "look" in result.content


@proves("D4-TURN-3", "S003-PROPERTY-7")
async def test_a_tool_that_raises_is_told_to_the_model_without_the_cause() -> None:
    class Broken(FakeTool):
        async def run(self, arguments: Any, use: Any = None) -> ToolOutput:
            raise RuntimeError("/home/me/secret")

    async with living([call(), MORE], "sorry", tools=(Broken(),)) as world:
        await world.create("a")
        with recorded() as records:
            assert (await world.send("look")).stop_reason is StopReason.END_TURN
        _, result, _ = (await world.messages())[1].parts
        assert isinstance(result, ToolResultPart)
        assert result.is_error
        assert "secret" not in result.content
        assert len(records.of("a tool failed")) == 1


@proves("P9")
@pytest.mark.parametrize("mode", [AgentMode.CHAT, AgentMode.FEEDBACK])
@pytest.mark.parametrize("kind", [ToolKind.EDIT, ToolKind.RUN])
async def test_a_tool_that_changes_something_is_refused(mode: AgentMode, kind: ToolKind) -> None:
    tool = FakeTool("write", kind=kind)
    async with living([call("write"), MORE], "sorry", tools=(tool,)) as world:
        await world.manager.get_or_create_agent("a", mode)
        await world.send("write it")
        assert tool.calls == []
        _, result, _ = (await world.messages())[1].parts
        assert isinstance(result, ToolResultPart)
        assert result.is_error


async def test_several_calls_of_one_step_run_in_their_order() -> None:
    tool = FakeTool()
    step = [call(n=1), call(id_="t2", n=2), MORE]
    async with living(step, "done", tools=(tool,)) as world:
        await world.create("a")
        await world.send("go")
        assert tool.calls == [{"n": 1}, {"n": 2}]


@proves("D4-TURN-2")
async def test_a_model_that_goes_round_in_circles_is_stopped() -> None:
    rounds = [[call(id_=f"t{n}"), MORE] for n in range(MAX_STEPS + 5)]
    async with living(*rounds, tools=(FakeTool(),)) as world:
        await world.create("a")
        with pytest.raises(MessageProcessingFailed, match="50 times"):
            await world.send("go")
        assert len(world.models.last.requests) == MAX_STEPS
        assert (await world.messages())[1].status is MessageStatus.ERROR


@proves("P7")
async def test_cancelling_stops_a_running_tool() -> None:
    class Slow(FakeTool):
        stopped = False

        async def run(self, arguments: Any, use: Any = None) -> ToolOutput:
            running.set()
            try:
                await anyio.sleep_forever()
            except BaseException:
                self.stopped = True
                raise
            raise AssertionError

    running, tool = anyio.Event(), Slow()
    async with living([call(), MORE], tools=(tool,)) as world:
        await world.create("a")
        await world.enqueue("go")
        await running.wait()
        await world.manager.cancel_turn("a")
        assert tool.stopped
        reply = (await world.messages())[1]
        assert reply.status is MessageStatus.CANCELLED
        assert [type(p) for p in reply.parts] == [ToolCallPart]


# ---- retries ----


@proves("S003-RETRY-2", "S003-RETRY-5", "S003-PERSIST-2")
async def test_a_request_that_fails_for_now_is_made_again_after_one_and_two_seconds() -> None:
    async with living(NetworkError("down"), NetworkError("down"), "here") as world:
        await world.create("a")
        began = anyio.current_time()
        assert (await world.send("hi")).stop_reason is StopReason.END_TURN
        assert 3 <= anyio.current_time() - began < 4
        assert await world.texts() == ["hi", "here"]
        assert world.types().count("TurnStarted") == 1


@proves("S003-RETRY-1", "S003-RETRY-4", "D4-RETRY-6")
async def test_after_three_attempts_the_last_error_comes_with_their_number() -> None:
    async with living(*[NetworkError(f"down {n}") for n in range(5)]) as world:
        await world.create("a")
        with pytest.raises(NetworkError, match="down 2") as caught:
            await world.send("hi")
        assert caught.value.attempts == 3
        (end,) = [e for e in world.events if isinstance(e, TurnEnded)]
        assert end.error is not None
        assert (end.error.type, end.error.attempts) == ("NETWORK_ERROR", 3)
        assert len(world.models.last.requests) == 3


@proves("D4-RETRY-2")
async def test_an_error_that_stays_is_not_tried_again() -> None:
    async with living(Unauthorized("no"), "never asked") as world:
        await world.create("a")
        with pytest.raises(Unauthorized) as caught:
            await world.send("hi")
        assert caught.value.attempts == 1
        assert len(world.models.last.requests) == 1


class Breaking(FakeModel):
    """Says something and then breaks off."""

    def __init__(self, *first: ModelEvent, error: Exception | None = None) -> None:
        super().__init__()
        self.first = first
        self.error = error

    async def stream(self, request: Any) -> AsyncIterator[ModelEvent]:
        self.requests.append(request)
        for event in self.first:
            yield event
        if self.error is not None:
            raise self.error


@proves("D4-RETRY-3")
@pytest.mark.parametrize("said", [TextDelta("x"), TextDelta("x", "thinking"), call()])
async def test_once_something_was_said_the_request_is_not_made_again(said: ModelEvent) -> None:
    model = Breaking(said, error=NetworkError("cut"))
    async with living(models=lambda _: model, tools=(FakeTool(),)) as world:
        await world.create("a")
        with pytest.raises(NetworkError):
            await world.send("hi")
        assert len(model.requests) == 1
        assert world.store.calls.count("tool_started") == 0


async def test_figures_alone_do_not_count_as_something_said() -> None:
    model = Breaking(ModelUsage(Usage(input_tokens=1)), error=NetworkError("cut"))
    async with living(models=lambda _: model) as world:
        await world.create("a")
        with pytest.raises(NetworkError):
            await world.send("hi")
        assert len(model.requests) == 3


async def test_a_second_step_may_be_tried_again() -> None:
    steps = ([TextDelta("see"), call(), MORE], NetworkError("down"), "done")
    tool = FakeTool()
    async with living(*steps, tools=(tool,)) as world:
        await world.create("a")
        assert (await world.send("hi")).stop_reason is StopReason.END_TURN
        assert tool.calls == [{}]


async def test_a_stream_that_ends_without_a_stop_broke_off() -> None:
    model = Breaking(TextDelta("half"))
    async with living(models=lambda _: model) as world:
        await world.create("a")
        with pytest.raises(NetworkError, match="broke off"):
            await world.send("hi")
        assert (await world.messages())[1].text == "half"


@proves("D4-RETRY-4", "P7")
async def test_a_turn_that_waits_to_try_again_can_be_cancelled() -> None:
    retry = retrying(base_delay=60_000)
    async with living(NetworkError("down"), retry=retry) as world:
        async with anyio.create_task_group() as tasks:
            await world.create("a")
            sent = begin(tasks, world.send, "hi")
            await settle()
            began = anyio.current_time()
            assert await world.manager.cancel_turn("a")
            await sent.done.wait()
            assert anyio.current_time() - began < 1
        assert sent.result.stop_reason is StopReason.CANCELLED


@proves("S003-ERROR-1", "S003-PROPERTY-7", "P6")
async def test_a_provider_that_fails_in_its_own_way_is_an_error_without_its_words() -> None:
    model = Breaking(error=RuntimeError("key-123"))
    async with living(models=lambda _: model) as world:
        await world.create("a")
        with recorded() as records, pytest.raises(MessageProcessingFailed) as caught:
            await world.send("hi")
        assert "key-123" not in caught.value.message
        assert any(record.exc_info for record in records.all)
        assert world.live() == {"a"}


# ---- steering ----


@proves("D4-TURN-1")
async def test_what_the_user_adds_reaches_the_model_in_one_more_step() -> None:
    async with living("first thoughts", "second thoughts") as world:
        async with anyio.create_task_group() as tasks:
            await world.manager.get_or_create_agent("a")
            model = world.models.last
            gate = model.hold()
            sent = begin(tasks, world.send, "hi")
            await model.entered.wait()
            agent = world.manager.registry.get("a")
            assert agent is not None
            assert agent.turn is not None
            await world.manager.steer("a", "be quick", agent.turn.started.turn_id)
            gate.set()
            await sent.done.wait()
        assert (await world.messages())[1].parts == (
            TextPart(text="first thoughts"),
            SteeringPart(text="be quick"),
            TextPart(text="second thoughts"),
        )
        assert SteeringPart(text="be quick") in model.requests[1].steps
        assert "TurnSteered" in world.types()


async def test_a_turn_that_is_over_takes_no_memory_until_garbage_is_collected() -> None:
    async with living() as world:
        model = await world.busy("a")
        agent = world.manager.registry.get("a")
        assert agent is not None
        assert agent.turn is not None
        turn = weakref.ref(agent.turn)
        gc.disable()
        try:
            assert model.gate is not None
            model.gate.set()
            await until(lambda: "TurnEnded" in world.types())
            await settle()
            assert turn() is None
        finally:
            gc.enable()


# ---- errors on their way ----


@proves("S003-ERROR-2")
def test_the_seeds_nine_errors_exist() -> None:
    assert {error.type for error in ALL_ERRORS} >= {
        "CREATION_FAILED",
        "INITIALIZATION_FAILED",
        "MESSAGE_PROCESSING_FAILED",
        "PERSISTENCE_FAILED",
        "LOAD_FAILED",
        "COMMUNICATION_FAILED",
        "CAPABILITY_NOT_FOUND",
        "UNAUTHORIZED",
        "NETWORK_ERROR",
    }


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda kind: kind.type)
def test_a_stored_error_comes_back_as_it_was(kind: Any) -> None:
    error = kind("No.", hint="Try.", retryable=True, attempts=2)
    back = error_of(turn_error(error), "a")
    assert type(back) is kind
    assert (back.message, back.hint, back.retryable, back.attempts) == ("No.", "Try.", True, 2)
    assert back.conversation_id == "a"


async def test_the_events_of_a_turn_come_before_its_answer() -> None:
    async with living() as world, anyio.create_task_group() as tasks:
        await world.create("a")
        order: list[str] = []
        world.journal.subscribe("a", lambda e: order.append(type(e).__name__)).start()

        async def ask() -> None:
            await world.send("hi")
            order.append("answer")

        tasks.start_soon(ask)
        await until(lambda: "answer" in order)
        assert order[-2:] == ["TurnEnded", "answer"]
