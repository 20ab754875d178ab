"""What a conversation looks like in words: for a terminal, a pipe and a script alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from ..conversations import (
    Message,
    MessageStatus,
    SteeringPart,
    StopReason,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    TurnError,
)
from ..errors import AgentError

MAX_SUBJECT = 60

_CONTROLS: dict[int, int] = {
    code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"
} | dict.fromkeys(
    (0x7F, *range(0x80, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    0xFFFD,
)


def printable(text: str) -> str:
    """`text` without what commands a terminal or reorders a line: a model, a file or a title
    must not move the cursor, set a clipboard or hide half of what it says."""
    return text.replace("\r\n", "\n").translate(_CONTROLS)


def one_line(text: str, length: int) -> str:
    flat = " ".join(printable(text).split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"


def plain_snippet(snippet: str) -> str:
    """The passage with its matches in [brackets]."""
    return one_line(snippet.replace("\x02", "[").replace("\x03", "]"), 200)


# ---- a message as it grows ---------------------------------------------------------------


class Words(NamedTuple):
    """More of a text part; `begins` with its first piece."""

    text: str
    begins: bool


class WordsEnd(NamedTuple):
    """The text part is whole."""


class ToolUse(NamedTuple):
    """A tool was used; `result` is None when how it ended is unknown."""

    call: ToolCallPart
    result: ToolResultPart | None


class Steered(NamedTuple):
    text: str
    is_own: bool = True
    """Typed by the user; else the first line of what a workflow tells the model."""


def _steered(part: SteeringPart) -> Steered:
    if part.by == "user":
        return Steered(part.text)
    return Steered(part.text.split("\n")[0], is_own=False)


Piece = Words | WordsEnd | ToolUse | Steered


class Progress:
    """How much of a message has been shown. `news` gives the rest, each piece once."""

    def __init__(self) -> None:
        self._index = 0
        self._length = 0
        self.is_over = False

    def news(self, message: Message) -> Iterator[Piece]:
        is_whole = message.status is not MessageStatus.STREAMING
        while self._index < len(message.parts):
            part = message.parts[self._index]
            is_last = self._index == len(message.parts) - 1 and not is_whole
            match part:
                case TextPart():
                    yield from self._text(part.text, is_last)
                case ToolCallPart():
                    result = _result_of(part, message)
                    if result is None and not is_whole:
                        return
                    yield ToolUse(part, result)
                case SteeringPart():
                    yield _steered(part)
                case _:
                    pass
            if is_last and not isinstance(part, ToolCallPart | ToolResultPart):
                return
            self._index, self._length = self._index + 1, 0
        self.is_over = is_whole

    def _text(self, text: str, may_grow: bool) -> Iterator[Piece]:
        if len(text) > self._length:
            yield Words(text[self._length :], begins=self._length == 0)
            self._length = len(text)
        if not may_grow and self._length:
            yield WordsEnd()


def activity_of(message: Message | None) -> str:
    """What an answer that is being made is at."""
    part = message.parts[-1] if message is not None and message.parts else None
    return f"{tool_name(part)} …" if isinstance(part, ToolCallPart) else "Thinking …"


def _result_of(call: ToolCallPart, message: Message) -> ToolResultPart | None:
    return next(
        (
            part
            for part in message.parts
            if isinstance(part, ToolResultPart) and part.tool_call_id == call.tool_call_id
        ),
        None,
    )


# ---- tools -------------------------------------------------------------------------------


def tool_name(call: ToolCallPart) -> str:
    """`search "needle"`: the tool and the first text it was given."""
    subject = next((v for v in call.arguments.values() if isinstance(v, str) and v), None)
    name = one_line(call.name, MAX_SUBJECT)
    return name if subject is None else f'{name} "{one_line(subject, MAX_SUBJECT)}"'


def tool_line(use: ToolUse) -> str:
    """`search "needle" → 3 results`."""
    if use.result is None:
        return f"{tool_name(use.call)} → outcome unknown"
    content = use.result.content
    if use.result.is_error:
        return f"{tool_name(use.call)} → failed: {one_line(content, MAX_SUBJECT)}"
    return f"{tool_name(use.call)} → {_amount(content)}"


def _amount(content: str) -> str:
    """How much a tool found: the items of its list, else its lines."""
    try:
        found: Any = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return counted(len(content.splitlines()), "line")
    if isinstance(found, Mapping):
        found = next((value for value in found.values() if isinstance(value, list)), None)
    if isinstance(found, list):
        return counted(len(found), "result")
    return counted(len(content.splitlines()), "line")


# ---- figures -----------------------------------------------------------------------------


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ago(at_ms: int, now_ms: float | None = None) -> str:
    """`2 hours ago`."""
    seconds = max(0.0, (time.time() * 1000 if now_ms is None else now_ms) - at_ms) / 1000
    for size, noun in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{counted(int(seconds // size), noun)} ago"
    return "just now"


def bytes_of(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


# ---- ends and errors ---------------------------------------------------------------------

ENDINGS: Mapping[StopReason, str] = {
    StopReason.MAX_TOKENS: "The answer reached its length limit. Ask for the rest.",
    StopReason.REFUSAL: "The model declined to answer.",
    StopReason.CANCELLED: "Stopped. /retry asks again.",
    StopReason.INTERRUPTED: "Interrupted; what was written is kept. /retry asks again.",
}
"""What is worth saying when a turn ended in another way than by being done."""

STATUS_NOTES: Mapping[MessageStatus, str] = {
    MessageStatus.CANCELLED: "stopped",
    MessageStatus.INTERRUPTED: "interrupted",
    MessageStatus.ERROR: "failed",
}


def error_lines(error: AgentError | TurnError) -> tuple[str, str | None]:
    """What went wrong, and what to do next."""
    message = printable(error.message)
    if error.attempts and error.attempts > 1:
        message += f" ({error.attempts} attempts)"
    hint = error.hint or ("Try again." if error.retryable else None)
    return message, None if hint is None else printable(hint)
