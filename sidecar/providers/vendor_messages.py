"""What was said, in the form the vendors' library takes it.

A transcript becomes requests and responses in turn: text and tool calls are the model's, prompts,
tool results and steering are ours. What a model has thought is not sent back, except within a
reply that we still have as the vendor gave it (`Transcripts.adopt`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

from pydantic_ai import messages as vendor
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from ..conversations import (
    ContextFile,
    FilePart,
    Message,
    Part,
    Prompt,
    SteeringPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ..interfaces import ModelRequest
from ..settings import Settings

UNKNOWN_OUTCOME = (
    "The outcome of this call is unknown: the turn ended before its result was there. "
    "Look before you repeat it."
)
"""Stands in for a missing result, because no vendor accepts a call without one."""
OPENING = "(The beginning of this conversation is not shown.)"
GO_ON = "Go on."
"""The two places where a transcript would begin or end with the model's own words."""
CALLS_KEPT = 256
"""Calls whose replies are remembered as they came; the replies of older ones are rebuilt."""

Transcript = list[vendor.ModelMessage]


class Transcripts:
    """Maps the requests of one agent. A stored message is mapped once, however often it is sent
    again: messages never change."""

    def __init__(self) -> None:
        self._mapped: dict[str, tuple[Message, Transcript]] = {}
        self._replies: dict[str, vendor.ModelResponse] = {}

    def of(self, request: ModelRequest) -> Transcript:
        """The whole transcript; it ends with what the model is asked."""
        known, self._mapped = self._mapped, {}
        transcript: Transcript = []
        for message in request.history:
            entry = known.get(message.message_id)
            if entry is None or (entry[0] is not message and entry[0] != message):
                entry = message, self._message(message)
            self._mapped[message.message_id] = entry
            if message.role == "assistant" or not _ends_with(transcript, entry[1]):
                _join(transcript, entry[1])
        asked: Transcript = [_asked(request.prompt)]
        if not _ends_with(transcript, asked):
            _join(transcript, asked)
        _join(transcript, self._reply(request.steps))
        if isinstance(transcript[-1], vendor.ModelResponse):
            # What the user added while this text was streaming: the model has not read it yet.
            added = [part.text for part in request.steps if isinstance(part, SteeringPart)]
            transcript.append(_user(added[-1] if added else GO_ON))
        if isinstance(transcript[0], vendor.ModelResponse):
            transcript.insert(0, _user(OPENING))
        last = transcript[-1]
        assert isinstance(last, vendor.ModelRequest)
        instructions = _sound(request.instructions) or None
        transcript[-1] = vendor.ModelRequest(last.parts, instructions=instructions)
        return transcript

    def adopt(self, reply: vendor.ModelResponse) -> vendor.ModelResponse:
        """Keep a reply that asks for tools: some vendors sign such a reply, or want its thinking
        back, and refuse results without. Ids of calls that were seen before are replaced: some
        servers count them anew in every answer. One call that comes twice is one call."""
        seen = set(self._replies)
        reply.parts = _without_repeats(reply.parts)
        for part in reply.parts:
            if isinstance(part, vendor.ToolCallPart):
                if not part.tool_call_id or part.tool_call_id in seen:
                    part.tool_call_id = f"call_{uuid4().hex}"
                seen.add(part.tool_call_id)
                self._replies[part.tool_call_id] = reply
        while len(self._replies) > CALLS_KEPT:
            del self._replies[next(iter(self._replies))]
        return reply

    def _message(self, message: Message) -> Transcript:
        if message.role == "user":
            return _spoken(message.parts)
        return self._reply(message.parts)

    def _reply(self, parts: Iterable[Part]) -> Transcript:
        reply = _Reply(self._replies)
        for part in parts:
            reply.add(part)
        reply.settle()
        return reply.transcript


class _Reply:
    """The messages that one reply of ours consists of: the model's, and tool results between."""

    def __init__(self, remembered: dict[str, vendor.ModelResponse]) -> None:
        self.transcript: Transcript = []
        self._remembered = remembered
        self._placed: set[str] = set()
        self._open: dict[str, str] = {}
        """Calls without a result so far: id → tool."""
        self._held: list[str] = []
        """Steering that came while a tool ran: results come first, whatever the vendor."""

    def add(self, part: Part) -> None:
        match part:
            case TextPart(text=text) if text.strip():
                self.settle()
                self._say(vendor.TextPart(_sound(text)))
            case ToolCallPart() if part.tool_call_id not in self._placed:
                self._call(part)
            case ToolResultPart() if name := self._open.pop(part.tool_call_id, None):
                outcome: Any = "failed" if part.is_error else "success"
                content = _sound(part.content)
                self._hear(vendor.ToolReturnPart(name, content, part.tool_call_id, outcome=outcome))
            case SteeringPart(text=text):
                self._held.append(text)
        if not self._open:
            self._release()

    def settle(self) -> None:
        """Answer the calls that have no result."""
        for call_id, name in self._open.items():
            part = vendor.ToolReturnPart(name, UNKNOWN_OUTCOME, call_id, outcome="interrupted")
            self._hear(part)
        self._open = {}
        self._release()

    def _release(self) -> None:
        for text in self._held:
            self._hear(vendor.UserPromptPart(_sound(text)))
        self._held = []

    def _call(self, part: ToolCallPart) -> None:
        if reply := self._remembered.get(part.tool_call_id):
            if not self._open and self._is_last(vendor.ModelResponse):
                self.transcript.pop()  # the text before the call, which the reply has too
            self.settle()
            self.transcript.append(reply)
            calls = {call.tool_call_id: call.tool_name for call in reply.tool_calls}
        else:
            self._say(vendor.ToolCallPart(part.name, part.arguments, part.tool_call_id))
            calls = {part.tool_call_id: part.name}
        self._open |= calls
        self._placed |= calls.keys()

    def _say(self, part: vendor.ModelResponsePart) -> None:
        _join(self.transcript, [vendor.ModelResponse([part])])

    def _hear(self, part: vendor.ModelRequestPart) -> None:
        _join(self.transcript, [vendor.ModelRequest([part])])

    def _is_last(self, kind: type[vendor.ModelMessage]) -> bool:
        return bool(self.transcript) and isinstance(self.transcript[-1], kind)


def _join(transcript: Transcript, more: Transcript) -> None:
    """Append, so that roles alternate: a prompt whose reply is empty joins the next one."""
    for message in more:
        last = transcript[-1] if transcript else None
        if isinstance(last, vendor.ModelRequest) and isinstance(message, vendor.ModelRequest):
            transcript[-1] = vendor.ModelRequest([*last.parts, *message.parts])
        elif isinstance(last, vendor.ModelResponse) and isinstance(message, vendor.ModelResponse):
            transcript[-1] = vendor.ModelResponse([*last.parts, *message.parts])
        else:
            transcript.append(message)


def _without_repeats(
    parts: Sequence[vendor.ModelResponsePart],
) -> list[vendor.ModelResponsePart]:
    kept: list[vendor.ModelResponsePart] = []
    calls: list[tuple[str, str, Any]] = []
    for part in parts:
        if isinstance(part, vendor.ToolCallPart) and part.tool_call_id:
            call = part.tool_call_id, part.tool_name, part.args
            if call in calls:
                continue
            calls.append(call)
        kept.append(part)
    return kept


def _ends_with(transcript: Transcript, prompt: Transcript) -> bool:
    """Whether the same was asked just before and got no reply: it was tried again since."""
    ends = [messages[-1].parts[-1] for messages in (transcript, prompt) if messages]
    contents = [part.content for part in ends if isinstance(part, vendor.UserPromptPart)]
    return len(contents) == 2 and contents[0] == contents[1]


def _user(text: str) -> vendor.ModelRequest:
    return vendor.ModelRequest([vendor.UserPromptPart(_sound(text))])


def _sound(text: str) -> str:
    """Without halves of surrogate pairs: one of them would make every later request fail."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _spoken(parts: Iterable[Part]) -> Transcript:
    texts = [part.text for part in parts if isinstance(part, TextPart | SteeringPart)]
    files = [_file(part.file) for part in parts if isinstance(part, FilePart)]
    text = "\n\n".join([*texts, *files])
    return [_user(text)] if text.strip() else []


def _asked(prompt: Prompt) -> vendor.ModelRequest:
    # In the same words as the stored message later, or the vendor's prompt cache would miss.
    return _user("\n\n".join([prompt.input, *map(_file, prompt.context_files)]))


def _file(file: ContextFile) -> str:
    place = file.uri
    if file.range:
        place += f" (lines {file.range.start.line + 1} to {file.range.end.line + 1})"
    if file.text is None:
        return f"Attached file: {place}"
    return f"Attached file: {place}\n<<<\n{file.text}\n>>>"


def parameters(request: ModelRequest) -> ModelRequestParameters:
    return ModelRequestParameters(
        function_tools=[
            ToolDefinition(
                name=tool.name,
                description=tool.description,
                parameters_json_schema=tool.input_schema,
            )
            for tool in request.tools
        ]
    )


def settings_of(request: ModelRequest, defaults: Settings) -> ModelSettings:
    """What the prompt sets for itself, else what is set for all."""
    chosen: Sequence[Any] = [request.settings, defaults] if request.settings else [defaults]

    def first(name: str) -> Any:
        return next((v for s in chosen if (v := getattr(s, name)) is not None), None)

    settings = ModelSettings()
    if (temperature := first("temperature")) is not None:
        settings["temperature"] = temperature
    if (most := first("max_output_tokens")) is not None:
        settings["max_tokens"] = most
    if (thinking := first("thinking")) is not None:
        settings["thinking"] = thinking
    return settings
