"""Rows and the values they stand for."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ..conversations import (
    AgentMode,
    Conversation,
    ForkedFrom,
    Message,
    MessageStatus,
    Part,
    Prompt,
    QueueEntry,
    QueueState,
    SteeringPart,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    Usage,
)
from ..errors import InvalidState, NotFound
from .schema import PART_BITS

to_json = msgspec.json.Encoder().encode
_parts = msgspec.json.Decoder(Part)
_usage_from = msgspec.json.Decoder(Usage).decode
_prompt_from = msgspec.json.Decoder(Prompt).decode
_roots_from = msgspec.json.Decoder(tuple[str, ...]).decode
_fork_from = msgspec.json.Decoder(ForkedFrom).decode


def json_text(value: Any) -> str | None:
    return None if value is None else to_json(value).decode()


def pack_id(text: str) -> bytes:
    """The 16 bytes of one of our ids; of anything else, bytes that no row has."""
    try:
        packed = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return b""
    return packed if len(packed) == 16 and unpack_id(packed) == text else b""


def unpack_id(packed: bytes) -> str:
    digits = packed.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


# ---- conversations -----------------------------------------------------------------------


class ConversationRow(msgspec.Struct):
    """A conversation's row, changed in memory and written back once at the end of the write."""

    key: int
    id: str
    title: str | None
    mode: str
    session_id: str
    roots: str
    created_at: int
    updated_at: int
    archived_at: int | None
    forked_from: str | None
    message_count: int
    queue_length: int
    next_ordinal: int
    revision: int
    change_no: int
    last_seq: int
    first_seq: int
    event_bytes: int

    def value(self) -> Conversation:
        return Conversation(
            conversation_id=self.id,
            title=self.title,
            mode=AgentMode(self.mode),
            session_id=self.session_id,
            roots=_roots_from(self.roots),
            created_at=self.created_at,
            updated_at=self.updated_at,
            archived_at=self.archived_at,
            message_count=self.message_count,
            queue_length=self.queue_length,
            last_seq=self.last_seq,
            revision=self.revision,
            change_no=self.change_no,
            forked_from=None if self.forked_from is None else _fork_from(self.forked_from),
        )


CONVERSATION = ", ".join(ConversationRow.__struct_fields__)


def find_conversation(conn: sqlite3.Connection, conversation_id: str) -> ConversationRow | None:
    row = conn.execute(
        f"SELECT {CONVERSATION} FROM conversations WHERE id = ?", (conversation_id,)
    ).fetchone()
    return None if row is None else ConversationRow(*row)


def get_conversation(conn: sqlite3.Connection, conversation_id: str) -> ConversationRow:
    row = find_conversation(conn, conversation_id)
    if row is None:
        raise unknown_conversation(conversation_id)
    return row


def unknown_conversation(conversation_id: str) -> NotFound:
    return NotFound("There is no such conversation.", conversation_id=conversation_id)


def unknown_message(conversation_id: str | None = None) -> NotFound:
    return NotFound("There is no such message.", conversation_id=conversation_id)


# ---- parts -------------------------------------------------------------------------------


def part_key(message: int, index: int) -> int:
    if index >> PART_BITS:
        raise InvalidState("A message cannot have that many parts.")
    return message << PART_BITS | index


def part_range(message: int) -> tuple[int, int]:
    """First key of a message's parts, and the first one past them."""
    return message << PART_BITS, (message + 1) << PART_BITS


def part_index(key: int) -> int:
    return key & ((1 << PART_BITS) - 1)


PartRow = tuple[str, str | None, str | None]
"""Kind, text, data: long text stays outside of the JSON, so that it is searched as it is."""


def part_row(part: Part) -> PartRow:
    kind = str(part.__struct_config__.tag)
    if isinstance(part, SteeringPart):
        return kind, part.text, None if part.by == "user" else to_json(part.by).decode()
    if isinstance(part, TextPart | ThinkingPart):
        return kind, part.text, None
    if isinstance(part, ToolResultPart):
        bare = msgspec.structs.replace(part, content="")
        return kind, part.content, to_json(bare).decode()
    return kind, None, to_json(part).decode()


_TEXTS: dict[str, type[TextPart | ThinkingPart]] = {"text": TextPart, "thinking": ThinkingPart}


def part_value(kind: str, text: str | None, data: str | None) -> Part:
    if made := _TEXTS.get(kind):
        return made(text=text or "")
    if kind == "steering":
        return SteeringPart(text=text or "", by="user" if data is None else "workflow")
    part: Part = _parts.decode(data or "")
    if isinstance(part, ToolResultPart):
        return msgspec.structs.replace(part, content=text or "")
    return part


def put_parts(conn: sqlite3.Connection, message: int, parts: Iterable[Part]) -> None:
    conn.executemany(
        "INSERT INTO parts (key, kind, text, data) VALUES (?, ?, ?, ?)",
        [(part_key(message, index), *part_row(part)) for index, part in enumerate(parts)],
    )


def put_part(conn: sqlite3.Connection, message: int, index: int, part: Part) -> None:
    conn.execute(
        "INSERT OR REPLACE INTO parts (key, kind, text, data) VALUES (?, ?, ?, ?)",
        (part_key(message, index), *part_row(part)),
    )


# ---- messages ----------------------------------------------------------------------------

_MESSAGES = """
    SELECT m.key, m.id, m.ordinal, m.role, m.status, m.turn, m.usage, m.created_at,
        m.completed_at, p.key, p.kind, p.text, p.data
    FROM ({}) m LEFT JOIN parts p ON p.key >= (m.key << 16) AND p.key < ((m.key + 1) << 16)
    ORDER BY m.key, p.key
"""


def load_messages(
    conn: sqlite3.Connection, which: str, params: Sequence[Any]
) -> list[tuple[int, Message]]:
    """The messages that `which` (a SELECT over the table) chooses, oldest first, with keys.

    A message that is still streaming has the text stored so far as parts.
    """
    found: list[tuple[int, Message]] = []
    head: tuple[Any, ...] | None = None
    parts: dict[int, Part] = {}
    for row in conn.execute(_MESSAGES.format(which), params):
        if head is not None and row[0] != head[0]:
            found.append((head[0], _message(conn, head, parts)))
            parts = {}
        head = row[:9]
        if row[9] is not None:
            parts[part_index(row[9])] = part_value(*row[10:])
    if head is not None:
        found.append((head[0], _message(conn, head, parts)))
    return found


def load_message(conn: sqlite3.Connection, key: int) -> Message:
    return load_messages(conn, "SELECT * FROM messages WHERE key = ?", (key,))[0][1]


def _message(conn: sqlite3.Connection, head: tuple[Any, ...], parts: dict[int, Part]) -> Message:
    key, packed, ordinal, role, status, turn, usage, created_at, completed_at = head
    if status == MessageStatus.STREAMING:
        parts.update(open_text(conn, key))
    return Message(
        message_id=unpack_id(packed),
        ordinal=ordinal,
        role=role,
        status=MessageStatus(status),
        parts=in_order(parts),
        turn_id=None if turn is None else unpack_id(turn),
        usage=None if usage is None else _usage_from(usage),
        created_at=created_at,
        completed_at=completed_at,
    )


def in_order(parts: dict[int, Part]) -> tuple[Part, ...]:
    """Parts by index; one that is not stored yet is an empty text, so that indexes stay true."""
    if not parts:
        return ()
    return tuple(parts.get(index) or TextPart(text="") for index in range(max(parts) + 1))


def open_text(conn: sqlite3.Connection, message: int) -> dict[int, Part]:
    """What was streamed into a message so far, by part."""
    rows = conn.execute(
        "SELECT part, kind, text FROM chunks WHERE part >= ? AND part < ? ORDER BY part, offset",
        part_range(message),
    )
    texts: dict[tuple[int, str], list[str]] = {}
    for part, kind, text in rows:
        texts.setdefault((part_index(part), kind), []).append(text)
    return {
        index: part_value(kind, "".join(pieces), None) for (index, kind), pieces in texts.items()
    }


# ---- queue -------------------------------------------------------------------------------

ENTRY = (
    "q.message_id, q.state, q.prompt, q.request_key, q.turn, q.attempts, q.reason, q.enqueued_at"
)


def entry_value(
    conversation_id: str, row: Sequence[Any], position: int | None = None
) -> QueueEntry:
    packed, state, prompt, request_key, turn, attempts, reason, enqueued_at = row
    return QueueEntry(
        message_id=unpack_id(packed),
        conversation_id=conversation_id,
        state=QueueState(state),
        prompt=_prompt_from(prompt),
        position=position,
        request_key=request_key,
        turn_id=None if turn is None else unpack_id(turn),
        attempts=attempts,
        reason=reason,
        enqueued_at=enqueued_at,
    )


# ---- cursors -----------------------------------------------------------------------------


def make_cursor(*numbers: int) -> str:
    return base64.urlsafe_b64encode(".".join(map(str, numbers)).encode()).decode()


def read_cursor(cursor: str) -> tuple[int, int]:
    with suppress(ValueError):
        first, second = map(int, base64.urlsafe_b64decode(cursor.encode()).decode().split("."))
        # The way back tells what was only decoded leniently.
        if make_cursor(first, second) == cursor and max(abs(first), abs(second)) < 1 << 63:
            return first, second
    raise InvalidState("This cursor is not one of ours.", hint="Start again without a cursor.")
