"""A transcript kept up to date from what a sidecar sends: catch-ups, events and deltas.

A pure reducer, without I/O. It notices every repeat and every hole by the numbers that events
and deltas carry; closing a hole is the work of whoever can subscribe again (`live`).
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec

from ..conversations import (
    Message,
    MessageStatus,
    Part,
    SteeringPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from ..events import (
    CatchUp,
    Cursor,
    Delta,
    Event,
    MessageCompleted,
    MessageStarted,
    Missing,
    OpenPart,
    Replay,
    Rewound,
    Snapshot,
    ToolFinished,
    ToolStarted,
    TurnSteered,
    utf16_length,
)


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An event of a type that this client does not know yet. It counts, and says nothing."""

    conversation_id: str
    seq: int
    type: str = ""


class Applied(Enum):
    """What a view made of an event."""

    NEW = "new"
    KNOWN = "known"
    """It was there already."""
    HOLE = "hole"
    """Something before it is missing; nothing was changed."""


class ConversationView:
    """What a reader has of one conversation. `messages` and `cursor` are true at any moment."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.store_id = ""
        self.seq = 0
        self.revision = 0
        self.page_cursor: str | None = None
        """Asks `conversation/get` for what came before the first of `messages`."""
        self.is_missing = False
        """There is no such conversation (any more)."""
        self._messages: dict[str, Message | _OpenMessage] = {}

    def __repr__(self) -> str:
        return f"<ConversationView: {len(self._messages)} messages, seq {self.seq}>"

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(map(_closed, self._messages.values()))

    def message(self, message_id: str) -> Message | None:
        found = self._messages.get(message_id)
        return None if found is None else _closed(found)

    @property
    def cursor(self) -> Cursor:
        return Cursor(
            store_id=self.store_id,
            seq=self.seq,
            revision=self.revision,
            parts=tuple(
                OpenPart(message_id=message_id, part=index, length=part.units)
                for message_id, message in self._messages.items()
                if isinstance(message, _OpenMessage)
                for index, part in enumerate(message.parts)
                if isinstance(part, _OpenText)
            ),
        )

    def caught_up(self, answer: CatchUp, store_id: str) -> None:
        """Take the answer to a subscription made with `cursor`, or with none."""
        self.store_id = store_id
        self.is_missing = isinstance(answer, Missing)
        if isinstance(answer, Missing):
            self._messages.clear()
            return
        if isinstance(answer, Snapshot):
            self._messages = {m.message_id: _opened(m) for m in answer.messages}
            self.page_cursor = answer.page_cursor
        else:
            self._replay(answer)
        self.seq, self.revision = answer.last_seq, answer.revision

    def _replay(self, replay: Replay) -> None:
        """The text between the events comes with `open_message`, or with the message's end."""
        for event in replay.events:
            if event.seq > self.seq:
                self._change(event)
        if replay.open_message is not None:
            self._put(replay.open_message)

    def apply(self, event: Event | UnknownEvent) -> Applied:
        if isinstance(event, Delta):
            return self._append(event)
        if event.seq <= self.seq:
            return Applied.KNOWN
        if event.seq != self.seq + 1 or not self._change(event):
            return Applied.HOLE
        self.seq = event.seq
        return Applied.NEW

    def _change(self, event: Event | UnknownEvent) -> bool:
        """False if what the event builds on is not here."""
        match event:
            case MessageStarted():
                self._put(_begun(event))
            case MessageCompleted():
                self._complete(event)
            case ToolStarted() | ToolFinished() | TurnSteered():
                open_message = self._messages.get(event.message_id)
                return isinstance(open_message, _OpenMessage) and open_message.place(
                    event.part, _part_of(event)
                )
            case Rewound():
                return self._rewind(event)
            case _:
                pass
        return True

    def _complete(self, event: MessageCompleted) -> None:
        if event.message is None:
            self._messages.pop(event.message_id, None)
        else:
            self._put(event.message)

    def _put(self, message: Message) -> None:
        self._messages[message.message_id] = _opened(message)

    def _rewind(self, event: Rewound) -> bool:
        keep = list(self._messages)
        if event.to_message_id is None:
            keep = []
        elif event.to_message_id in self._messages:
            del keep[keep.index(event.to_message_id) + 1 :]
        else:
            return False
        self._messages = {message_id: self._messages[message_id] for message_id in keep}
        self.revision = event.revision
        return True

    def _append(self, delta: Delta) -> Applied:
        if delta.seq > self.seq:
            return Applied.HOLE
        message = self._messages.get(delta.message_id)
        if isinstance(message, _OpenMessage):
            return message.append(delta)
        # Of a message that has ended since, everything is here; of one not heard of, nothing.
        return Applied.KNOWN if message is not None or delta.seq < self.seq else Applied.HOLE


class _OpenText:
    """A text part that may still grow."""

    def __init__(self, kind: Literal["text", "thinking"], text: str = "") -> None:
        self.kind = kind
        self.pieces = [text] if text else []
        self.units = utf16_length(text)

    def part(self) -> Part:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        text = self.pieces[0] if self.pieces else ""
        return TextPart(text=text) if self.kind == "text" else ThinkingPart(text=text)

    def append(self, delta: Delta) -> Applied:
        units = utf16_length(delta.text)
        if delta.offset > self.units:
            return Applied.HOLE
        if delta.offset + units <= self.units:
            return Applied.KNOWN
        self.pieces.append(_from_unit(delta.text, self.units - delta.offset))
        self.units = delta.offset + units
        return Applied.NEW


class _OpenMessage:
    """A message that is still being written."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self.parts: list[Part | _OpenText] = [_open_part(part) for part in message.parts]

    def closed(self) -> Message:
        parts = tuple(p.part() if isinstance(p, _OpenText) else p for p in self.parts)
        return msgspec.structs.replace(self._message, parts=parts)

    def append(self, delta: Delta) -> Applied:
        if delta.part == len(self.parts) and delta.offset == 0:
            self.parts.append(_OpenText(delta.kind))
        if delta.part >= len(self.parts):
            return Applied.HOLE
        part = self.parts[delta.part]
        return part.append(delta) if isinstance(part, _OpenText) else Applied.KNOWN

    def place(self, index: int, part: Part) -> bool:
        if index > len(self.parts):
            return False
        self.parts[index : index + 1] = [part]
        return True


def _closed(message: Message | _OpenMessage) -> Message:
    return message.closed() if isinstance(message, _OpenMessage) else message


def _opened(message: Message) -> Message | _OpenMessage:
    return _OpenMessage(message) if message.status is MessageStatus.STREAMING else message


def _open_part(part: Part) -> Part | _OpenText:
    if isinstance(part, TextPart):
        return _OpenText("text", part.text)
    return _OpenText("thinking", part.text) if isinstance(part, ThinkingPart) else part


def _begun(event: MessageStarted) -> Message:
    return Message(
        message_id=event.message_id,
        ordinal=event.ordinal,
        role=event.role,
        status=MessageStatus.STREAMING,
        parts=(),
        turn_id=event.turn_id,
        created_at=event.at,
    )


def _part_of(event: ToolStarted | ToolFinished | TurnSteered) -> Part:
    match event:
        case ToolStarted():
            return ToolCallPart(
                tool_call_id=event.tool_call_id, name=event.name, arguments=event.arguments
            )
        case ToolFinished():
            return ToolResultPart(
                tool_call_id=event.tool_call_id, content=event.content, is_error=event.is_error
            )
        case TurnSteered():
            return SteeringPart(text=event.text, by=event.by)


def _from_unit(text: str, units: int) -> str:
    """`text` without its first `units` UTF-16 code units."""
    return text.encode("utf-16-le")[units * 2 :].decode("utf-16-le") if units else text
