"""A provider that plays what a script says, for tests and demonstrations.

A script is a list of steps, and then every prompt gets them; or a list of turns
`{"turn": [step, …]}`, and then the first prompt of a conversation gets the first turn, the
second the second, and any further one an echo. Which prompt it is, and how far its turn has
come, is read off the request alone: a new provider on an old conversation goes on where that
stands.

Each step is an object with one of these keys, and perhaps some of those in brackets:

    {"text": "…"}               a delta of the answer [repeat: n times; delayMs: before each]
    {"thinking": "…"}           a delta of the thinking [repeat; delayMs]
    {"delayMs": n}              wait
    {"tool": "name"}            call a tool [arguments: {…}]
    {"usage": {…}}              report usage, e.g. {"inputTokens": 3}
    {"stop": "maxTokens"}       end this model call: endTurn, toolCalls, maxTokens or refusal
    {"fail": "NETWORK_ERROR"}   raise that error [times: only the first n times that this step is
                                reached; retryAfter: seconds; retryable: true or false]
    {"wait": "name"}            wait for an event of `signals`
    {"signal": "name"}          set an event of `signals`
    {"hang": true}              wait for ever

In strings, `{input}` stands for the prompt's input. A model call ends at a `stop`, after the
last of some `tool` steps in a row, or with the turn: the steps after it are for the next call,
which comes when the tools have run or the user has added something.

Without a script, the prompt is the script: `echo X` answers X, `repeat N X` sends N deltas,
`think X` thinks before it answers, `tool NAME {…}` calls a tool and reports what it said,
`fail TYPE` fails, `hang` hangs; anything else is echoed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import anyio
import msgspec

from ..conversations import JsonObject, Part, SteeringPart, ToolResultPart, Usage
from ..errors import ALL_ERRORS, InitializationFailed
from ..interfaces import ModelEvent, ModelRequest, ModelStop, ModelUsage, TextDelta, ToolCall

ERRORS = {error.type: error for error in ALL_ERRORS}
VERBS = frozenset({"text", "thinking", "tool", "usage", "stop", "fail", "wait", "signal", "hang"})
COMPANIONS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"repeat", "delayMs"}),
    "thinking": frozenset({"repeat", "delayMs"}),
    "tool": frozenset({"arguments"}),
    "fail": frozenset({"times", "retryAfter", "retryable"}),
}
Count = Annotated[int, msgspec.Meta(ge=0)]


class Step(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One step. Which of its fields go together is checked by `_step`."""

    text: str | None = None
    thinking: str | None = None
    repeat: Count = 1
    delay_ms: Count = 0
    tool: str | None = None
    arguments: JsonObject = {}
    usage: Usage | None = None
    stop: Literal["endTurn", "toolCalls", "maxTokens", "refusal"] | None = None
    fail: str | None = None
    times: Count | None = None
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None
    retryable: bool | None = None
    wait: str | None = None
    signal: str | None = None
    hang: bool = False


ModelCall = tuple[Step, ...]
Turn = tuple[ModelCall, ...]


class ScriptedProvider:
    """Raises `InitializationFailed`, naming the step, for a script that it could not play.

    `signals` are the events that `wait` and `signal` steps name.
    """

    name = "scripted"

    def __init__(
        self, script: Sequence[Any] = (), signals: Mapping[str, anyio.Event] | None = None
    ) -> None:
        self._signals = signals or {}
        self._turns, self._repeats = self._read(script)
        self._failures: Counter[tuple[int, int, int]] = Counter()
        """How often each `fail` step has failed: turn, call, step."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        number = sum(1 for message in request.history if message.role == "user")
        turn = self._turn(number, request.prompt.input)
        made = calls_made(turn, request.steps)
        call = turn[made] if made < len(turn) else _closing(request.steps)
        for position, step in enumerate(call):
            await self._act(step, (number, made, position))
            for event in _events(step, f"call-{number}-{made}-{position}"):
                await anyio.sleep(step.delay_ms / 1000)
                yield event
        if not any(step.stop for step in call):
            yield ModelStop("toolCalls" if any(step.tool for step in call) else "endTurn")

    async def aclose(self) -> None:
        """There is nothing to give back."""

    def _turn(self, number: int, said: str) -> Turn:
        if self._repeats:
            number = 0
        if number >= len(self._turns):
            return _commanded(said)
        return tuple(tuple(_filled(step, said) for step in call) for call in self._turns[number])

    async def _act(self, step: Step, place: tuple[int, int, int]) -> None:
        """Everything about a step that is not an event."""
        if step.fail and (step.times is None or self._failures[place] < step.times):
            self._failures[place] += 1
            raise ERRORS[step.fail](
                "The script says so.", retryable=step.retryable, retry_after=step.retry_after
            )
        if step.wait:
            await self._signals[step.wait].wait()
        if step.signal:
            self._signals[step.signal].set()
        if step.hang:
            await anyio.sleep_forever()
        if step.text is None and step.thinking is None:
            await anyio.sleep(step.delay_ms / 1000)

    def _read(self, script: Sequence[Any]) -> tuple[tuple[Turn, ...], bool]:
        """The turns, and whether every prompt gets the same one."""
        are_turns = [isinstance(item, dict) and "turn" in item for item in script]
        if not any(are_turns):
            return ((self._calls(script, "script"),), True) if script else ((), False)
        for number, item in enumerate(script):
            if not are_turns[number] or set(item) != {"turn"} or not isinstance(item["turn"], list):
                raise _bad(f"script[{number}]", 'a turn is {"turn": [step, …]}, beside turns only')
        turns = (self._calls(item["turn"], f"script[{n}].turn") for n, item in enumerate(script))
        return tuple(turns), False

    def _calls(self, items: Sequence[Any], place: str) -> Turn:
        steps = [self._step(item, f"{place}[{number}]") for number, item in enumerate(items)]
        return tuple(_split(steps))

    def _step(self, item: Any, place: str) -> Step:
        try:
            step = msgspec.convert(item, Step)
        except msgspec.ValidationError as error:
            raise _bad(place, str(error)) from error
        verbs = VERBS & set(item) or {"delayMs"} & set(item)
        if len(verbs) != 1:
            raise _bad(place, f"exactly one of {', '.join(sorted(VERBS))} or delayMs is needed")
        (verb,) = verbs
        if strangers := set(item) - verbs - COMPANIONS.get(verb, frozenset()):
            raise _bad(place, f"'{min(strangers)}' does not go with '{verb}'")
        if step.fail is not None and step.fail not in ERRORS:
            raise _bad(place, f"'{step.fail}' is not the type of an error")
        for name in (step.wait, step.signal):
            if name is not None and name not in self._signals:
                raise _bad(place, f"there is no signal '{name}'")
        return step


def _bad(place: str, problem: str) -> InitializationFailed:
    return InitializationFailed(
        f"The script cannot be played: {place}: {problem}.", hint="See the setting `script`."
    )


def _split(steps: Sequence[Step]) -> Iterator[ModelCall]:
    """Cut a turn after each stop, and where the tools must have run."""
    call: list[Step] = []
    for step in steps:
        if call and (call[-1].stop or (call[-1].tool and not step.tool and not step.stop)):
            yield tuple(call)
            call = []
        call.append(step)
    if call:
        yield tuple(call)


def calls_made(turn: Turn, steps: Sequence[Part]) -> int:
    """How many model calls of a turn are over: those whose tools have all answered, and those
    without tools that the user added something to."""
    made = answered = 0
    before: Part | None = None
    for part in steps:
        tools = sum(1 for step in turn[made] if step.tool) if made < len(turn) else 0
        if isinstance(part, ToolResultPart):
            answered += 1
            if tools and answered >= tools:  # else of a tool that this script did not call
                made, answered = made + 1, 0
        elif isinstance(part, SteeringPart) and not tools and not isinstance(before, SteeringPart):
            made, answered = made + 1, 0
        before = part
    return made


def _closing(steps: Sequence[Part]) -> ModelCall:
    """What is said when a turn has no steps left: what was heard last."""
    for part in reversed(steps):
        if isinstance(part, ToolResultPart):
            return _deltas(f"The tool said: {part.content}")
        if isinstance(part, SteeringPart):
            return _deltas(f"You added: {part.text}")
    return ()


def _events(step: Step, call_id: str) -> Iterator[ModelEvent]:
    if step.text is not None:
        yield from (TextDelta(step.text) for _ in range(step.repeat))
    elif step.thinking is not None:
        yield from (TextDelta(step.thinking, "thinking") for _ in range(step.repeat))
    elif step.tool is not None:
        yield ToolCall(call_id, step.tool, step.arguments)
    elif step.usage is not None:
        yield ModelUsage(step.usage)
    elif step.stop is not None:
        yield ModelStop(step.stop)


def _filled(step: Step, said: str) -> Step:
    return msgspec.structs.replace(
        step,
        text=_fill(step.text, said),
        thinking=_fill(step.thinking, said),
        arguments=_fill(step.arguments, said),
    )


def _fill(value: Any, said: str) -> Any:
    if isinstance(value, str):
        return value.replace("{input}", said)
    if isinstance(value, dict):
        return {key: _fill(inner, said) for key, inner in value.items()}
    return [_fill(inner, said) for inner in value] if isinstance(value, list) else value


# ---- without a script --------------------------------------------------------------------


def _commanded(said: str) -> Turn:
    """The turn that a prompt asks for by its first word."""
    word, _, rest = said.strip().partition(" ")
    rest = rest.strip()
    if word == "echo":
        return (_deltas(rest),)
    if word == "think":
        return ((Step(thinking=rest), *_deltas("I have thought about it.")),)
    if word == "repeat" and (match := re.fullmatch(r"(\d{1,6}) (.+)", rest, re.DOTALL)):
        return ((Step(text=match[2], repeat=int(match[1])),),)
    if word == "tool" and (tool := _tool(rest)):
        return ((tool,),)
    if word == "fail" and rest in ERRORS:
        return ((Step(fail=rest),),)
    if word == "hang" and not rest:
        return ((Step(hang=True),),)
    return (_deltas(f"You said: {said}"),)


def _tool(rest: str) -> Step | None:
    name, _, arguments = rest.partition(" ")
    try:
        decoded = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    return Step(tool=name, arguments=decoded) if name else None


def _deltas(text: str) -> ModelCall:
    """A text as a model sends it: some words at a time."""
    return tuple(Step(text=piece) for piece in re.findall(r"(?:\S+\s*){1,3}|\s+", text))
