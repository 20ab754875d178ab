"""A conversation told as `session/update`s: every piece of it once and in order, whatever way it
comes (live, as an event, in a page of the store)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from ...conversations import (
    Approval,
    ErrorPart,
    FilePart,
    JsonObject,
    Message,
    MessageStatus,
    SteeringPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from ...events import (
    ApprovalRequested,
    Delta,
    DurableEvent,
    MessageCompleted,
    ModeChanged,
    Progress,
    TitleChanged,
    ToolFinished,
    ToolStarted,
    TurnQueued,
    TurnSteered,
    utf16_length,
)
from .options import options_update
from .tools import asked_of, described, text_content

Update = dict[str, Any]
CHUNKS = {"text": "agent_message_chunk", "thinking": "agent_thought_chunk"}


def chunk(kind: str, text: str, message_id: str) -> Update:
    return {
        "sessionUpdate": kind,
        "content": {"type": "text", "text": text},
        "messageId": message_id,
    }


def chunk_of(delta: Delta) -> Update:
    return chunk(CHUNKS[delta.kind], delta.text, delta.message_id)


class Narration:
    """To one client, of one conversation. `options` are the session's, as they are now."""

    def __init__(self, roots: Sequence[str], options: Callable[[str], list[Update]]) -> None:
        self._roots = roots
        self._options = options
        self._own_keys: set[str] = set()
        self._own: set[str] = set()
        """Prompts that the client sent itself, and has shown."""
        self._said: dict[tuple[str, int], int] = {}
        """How much of each part was told, in UTF-16 code units."""
        self._told: set[str] = set()
        """Messages of which nothing is left to tell."""
        self._calls = _Calls()
        self._pending: set[str] = set()
        """Calls that the client was told of before they were allowed."""
        self._changing: set[str] = set()
        """Calls that are shown as a change of a file, and stay so when it was made."""
        self._plan: tuple[str, ...] = ()
        self._dollars = 0.0

    def prompted(self, request_key: str) -> None:
        """The client sends a prompt under this key."""
        self._own_keys.add(request_key)

    def rest_of(self, delta: Delta) -> Delta | None:
        """What is new of streamed text. Text behind a hole waits: the whole message fills it."""
        known = self._said.get((delta.message_id, delta.part), 0)
        if delta.message_id in self._told or delta.offset > known:
            return None
        if delta.offset == known:
            return delta
        rest = beyond(delta.text, known - delta.offset)
        return msgspec.structs.replace(delta, offset=known, text=rest) if rest else None

    def said(self, delta: Delta) -> None:
        """Streamed text has been handed over."""
        self._said[delta.message_id, delta.part] = delta.offset + utf16_length(delta.text)

    def skip(self, message: Message) -> None:
        """The client has it already, or does not want it."""
        for _ in self.of_message(message):
            continue

    def was_told(self, message: Message) -> bool:
        """All of it, by us."""
        return message.message_id in self._told

    def running(self, turn_id: str, call_id: str) -> str | None:
        """A tool call that was told of and is not finished."""
        return self._calls.open.get((turn_id, call_id))

    @staticmethod
    def output(id_: str, text: str) -> Update:
        return {
            "sessionUpdate": "tool_call_update",
            "toolCallId": id_,
            "content": text_content(text),
        }

    @staticmethod
    def terminal(id_: str, terminal_id: str) -> Update:
        return {
            "sessionUpdate": "tool_call_update",
            "toolCallId": id_,
            "content": [{"type": "terminal", "terminalId": terminal_id}],
        }

    def queued(self, event: TurnQueued) -> None:
        if event.request_key in self._own_keys:
            self._own_keys.discard(event.request_key)
            self._own.add(event.message_id)

    # ---- events ----

    def of(self, event: DurableEvent) -> Iterator[Update]:
        match event:
            case MessageCompleted(message=Message() as message):
                yield from self.of_message(message)
            case ApprovalRequested(approval=asked):
                yield from self.asked(asked)
            case ToolStarted():
                yield from self._started(
                    event.message_id, event.part, event.turn_id, event.tool_call_id, event
                )
            case ToolFinished():
                yield from self._finished(
                    event.message_id, event.part, event.turn_id, event.tool_call_id, event
                )
            case TurnSteered(part=part, text=text, by=by, message_id=message_id):
                yield from self._steered(message_id, part, text, by)
            case Progress(done=done, total=total) if self._plan and total == len(self._plan):
                yield plan(self._plan, done)
            case ModeChanged(mode=mode):
                yield {"sessionUpdate": "current_mode_update", "currentModeId": str(mode)}
                yield options_update(self._options(str(mode)))
            case TitleChanged(title=title):
                yield {"sessionUpdate": "session_info_update", "title": title}
            case _:
                return

    def asked(self, question: Approval) -> Iterator[Update]:
        """The call that is asked about, if it was not told of: before the client is asked."""
        id_ = self.call_of(question)
        if id_ not in self._pending:
            self._pending.add(id_)
            yield {
                "sessionUpdate": "tool_call",
                "toolCallId": id_,
                "title": question.title,
                "kind": described(question.tool, {}, ())["kind"],
                "status": "pending",
                "content": asked_of(question, self._roots),
            }

    def call_of(self, asked: Approval) -> str:
        """The name of the tool call that a question is about."""
        return self._calls.asked(asked.turn_id, asked.tool_call_id, asked.approval_id)

    def _started(
        self,
        message_id: str,
        part: int,
        turn_id: str,
        call_id: str,
        call: ToolStarted | ToolCallPart,
    ) -> Iterator[Update]:
        if (found := self._calls.started(message_id, part, turn_id, call_id)) is None:
            return
        id_, is_known = found
        shown = described(call.name, call.arguments, self._roots)
        if "content" in shown:
            self._changing.add(id_)
        yield {
            "sessionUpdate": "tool_call_update" if is_known else "tool_call",
            "toolCallId": id_,
            "status": "in_progress",
            **shown,
        }
        yield from self._planned(call.name, call.arguments)

    def _finished(
        self,
        message_id: str,
        part: int,
        turn_id: str,
        call_id: str,
        result: ToolFinished | ToolResultPart,
    ) -> Iterator[Update]:
        id_ = self._calls.finished(message_id, part, turn_id, call_id)
        if id_ is not None:
            self._pending.discard(id_)
            update: Update = {
                "sessionUpdate": "tool_call_update",
                "toolCallId": id_,
                "status": "failed" if result.is_error else "completed",
                "rawOutput": {"text": result.content},
            }
            if result.is_error or id_ not in self._changing:
                update["content"] = text_content(result.content)
            yield update

    def _planned(self, name: str, arguments: JsonObject) -> Iterator[Update]:
        steps = arguments.get("steps")
        if name == "plan" and isinstance(steps, list) and all(isinstance(s, str) for s in steps):
            self._plan = tuple(map(str, steps))
            yield plan(self._plan, 0)

    def _steered(self, message_id: str, part: int, text: str, by: str) -> Iterator[Update]:
        if (message_id, part) in self._said:
            return
        self._said[message_id, part] = utf16_length(text)
        # What leads the model through a build is neither the user's word nor the answer.
        kind = "user_message_chunk" if by == "user" else "agent_thought_chunk"
        yield chunk(kind, text, message_id)

    # ---- messages ----

    def of_message(self, message: Message) -> Iterator[Update]:
        """What is left to tell of it."""
        if message.message_id in self._told or message.message_id in self._own:
            return
        if message.status is not MessageStatus.STREAMING:
            self._told.add(message.message_id)
        if message.role == "user":
            yield from _asked(message)
        else:
            yield from self._answered(message)
        if message.message_id in self._told:
            for part in range(len(message.parts)):
                self._said.pop((message.message_id, part), None)
            if message.usage is not None:
                yield from self._used(message.usage)

    def _used(self, usage: Usage) -> Iterator[Update]:
        """How full the model's context is, and what the conversation has cost so far."""
        self._dollars += usage.cost_usd or 0
        if usage.context_tokens is not None and usage.context_window is not None:
            update = {
                "sessionUpdate": "usage_update",
                "used": usage.context_tokens,
                "size": usage.context_window,
            }
            cost = {"cost": {"amount": self._dollars, "currency": "USD"}}
            yield update | (cost if self._dollars else {})

    def _answered(self, message: Message) -> Iterator[Update]:
        for number, part in enumerate(message.parts):
            match part:
                case TextPart(text=text) | ThinkingPart(text=text):
                    yield from self._rest(message.message_id, number, part, text)
                case ToolCallPart(tool_call_id=id_):
                    turn_id = message.turn_id or ""
                    yield from self._started(message.message_id, number, turn_id, id_, part)
                case ToolResultPart(tool_call_id=id_):
                    turn_id = message.turn_id or ""
                    yield from self._finished(message.message_id, number, turn_id, id_, part)
                case SteeringPart(text=text, by=by):
                    yield from self._steered(message.message_id, number, text, by)
                case ErrorPart(message=text, hint=hint):
                    words = " ".join(filter(None, (text, hint)))
                    yield chunk("agent_message_chunk", f"\n\n{words}", message.message_id)
                case _:
                    continue

    def _rest(
        self, message_id: str, number: int, part: TextPart | ThinkingPart, text: str
    ) -> Iterator[Update]:
        known = self._said.get((message_id, number), 0)
        self._said[message_id, number] = utf16_length(text)
        if rest := beyond(text, known):
            kind = CHUNKS["text" if isinstance(part, TextPart) else "thinking"]
            yield chunk(kind, rest, message_id)


class _Calls:
    """Names of tool calls that are a client's for good: a model's own ids may come again."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, str], str] = {}
        """By turn and the model's id: what was asked or started, and is not finished."""
        self._told: set[tuple[str, int]] = set()
        """By message and part."""

    def asked(self, turn_id: str, call_id: str, approval_id: str) -> str:
        return self.open.setdefault((turn_id, call_id), approval_id)

    def started(
        self, message_id: str, part: int, turn_id: str, call_id: str
    ) -> tuple[str, bool] | None:
        """Its name and whether the client knows it already; None: it was told of."""
        if (message_id, part) in self._told:
            return None
        self._told.add((message_id, part))
        is_known = (turn_id, call_id) in self.open
        return self.open.setdefault((turn_id, call_id), f"{message_id}:{part}"), is_known

    def finished(self, message_id: str, part: int, turn_id: str, call_id: str) -> str | None:
        if (message_id, part) in self._told:
            return None
        self._told.add((message_id, part))
        return self.open.pop((turn_id, call_id), f"{message_id}:{part - 1}")


def _asked(message: Message) -> Iterator[Update]:
    for part in message.parts:
        match part:
            case TextPart(text=text):
                yield chunk("user_message_chunk", text, message.message_id)
            case FilePart(file=file):
                name = file.uri.rpartition("/")[2] or file.uri
                yield {
                    "sessionUpdate": "user_message_chunk",
                    "content": {"type": "resource_link", "uri": file.uri, "name": name},
                    "messageId": message.message_id,
                }
            case _:
                continue


def plan(steps: Sequence[str], done: int) -> Update:
    """`done` of the steps are done; the next one is at work."""
    states = ("completed", "in_progress", "pending")
    entries = [
        {
            "content": step,
            "priority": "medium",
            "status": states[(at >= done) + (at > done)],
        }
        for at, step in enumerate(steps)
    ]
    return {"sessionUpdate": "plan", "entries": entries}


def beyond(text: str, length: int) -> str:
    """`text` from `length` UTF-16 code units on."""
    if not length:
        return text
    if text.isascii():
        return text[length:]
    return text.encode("utf-16-le", "surrogatepass")[2 * length :].decode("utf-16-le", "replace")
