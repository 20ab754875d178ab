"""A turn from its start to its end, and the text that streams in between."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ..audit import AuditEntry
from ..conversations import (
    AgentMode,
    Approval,
    FilePart,
    Message,
    MessageStatus,
    Part,
    Prompt,
    SteeringPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    TurnResult,
)
from ..errors import InvalidState
from ..events import (
    MessageCompleted,
    MessageStarted,
    Progress,
    TitleChanged,
    ToolFinished,
    ToolStarted,
    TurnStarted,
    TurnSteered,
)
from ..ids import new_id
from ..interfaces import PreImage, StartedTurn, TextChunk, ToolCall, ToolOutput, TurnOutcome
from . import approvals, audit, checkpoints
from .owners import IsDead, claim
from .recovery import settle_dead
from .rows import (
    ENTRY,
    ConversationRow,
    entry_value,
    pack_id,
    part_key,
    put_part,
    put_parts,
    unpack_id,
)
from .running import Running, find_running, finish
from .transcript import add_message
from .write import Write

TITLE_LENGTH = 60
LABEL_LENGTH = 200


def start(write: Write, conversation_id: str, provider: str, is_dead: IsDead) -> StartedTurn | None:
    row, conn = write.conversation(conversation_id), write.conn
    settle_dead(write, row, is_dead)
    if find_running(conn, row) is not None:
        claim(write, row, is_dead)
        raise InvalidState(
            "A turn is running in this conversation already.", conversation_id=conversation_id
        )
    first = conn.execute(
        "SELECT key FROM queue WHERE conversation = ? AND state = 'queued' "
        "ORDER BY position LIMIT 1",
        (row.key,),
    ).fetchone()
    if first is None:
        return None
    generation = claim(write, row, is_dead)
    return _begin(write, row, first[0], generation, provider)


def _begin(
    write: Write, row: ConversationRow, entry_key: int, generation: int, provider: str
) -> StartedTurn:
    conn, turn_id, reply_id = write.conn, new_id(), new_id()
    turn = pack_id(turn_id)
    conn.execute(
        "UPDATE queue SET state = 'running', reason = NULL, turn = ?, generation = ?, "
        "requested = 0, provider = ? WHERE key = ?",
        (turn, generation, provider, entry_key),
    )
    entry = entry_value(
        row.id, conn.execute(f"SELECT {ENTRY} FROM queue q WHERE key = ?", (entry_key,)).fetchone()
    )
    row.queue_length -= 1
    messages_before = row.message_count
    if row.title is None and (title := _title(entry.prompt)):
        row.title = title
        write.emit(row, TitleChanged(title=title))
    write.emit(row, TurnStarted(message_id=entry.message_id, turn_id=turn_id))
    user = _add_user_message(write, row, entry.message_id, entry.prompt, turn)
    write.emit(row, MessageCompleted(message_id=user.message_id, message=user))
    ordinal = row.next_ordinal
    reply = add_message(
        write,
        row,
        pack_id(reply_id),
        role="assistant",
        status=MessageStatus.STREAMING,
        turn=turn,
        created_at=write.now,
        completed_at=None,
    )
    conn.execute("UPDATE queue SET reply = ? WHERE key = ?", (reply, entry_key))
    write.emit(row, MessageStarted(message_id=reply_id, turn_id=turn_id, ordinal=ordinal))
    return StartedTurn(
        entry=entry,
        turn_id=turn_id,
        user_message=user,
        reply_id=reply_id,
        mode=AgentMode(row.mode),
        revision=row.revision,
        messages_before=messages_before,
    )


def _title(prompt: Prompt) -> str | None:
    lines = prompt.input.strip().splitlines()
    return lines[0][:TITLE_LENGTH].rstrip() if lines else None


def _add_user_message(
    write: Write, row: ConversationRow, message_id: str, prompt: Prompt, turn: bytes
) -> Message:
    files = (FilePart(file=file) for file in prompt.context_files)
    parts: tuple[Part, ...] = (TextPart(text=prompt.input), *files)
    ordinal = row.next_ordinal
    key = add_message(
        write,
        row,
        pack_id(message_id),
        role="user",
        status=MessageStatus.COMPLETE,
        turn=turn,
        created_at=write.now,
        completed_at=write.now,
    )
    put_parts(write.conn, key, parts)
    return Message(
        message_id=message_id,
        ordinal=ordinal,
        role="user",
        status=MessageStatus.COMPLETE,
        parts=parts,
        turn_id=unpack_id(turn),
        created_at=write.now,
        completed_at=write.now,
    )


# ---- while it runs -----------------------------------------------------------------------


def running(write: Write, conversation_id: str, turn_id: str) -> tuple[ConversationRow, Running]:
    """The running turn, if it is `turn_id` and this sidecar still owns the conversation."""
    row = write.conversation(conversation_id)
    found = find_running(write.conn, row)
    if found is None or not found.is_turn(turn_id, write.instance):
        raise InvalidState("This turn is not running any more.", conversation_id=conversation_id)
    return row, found


def append_text(write: Write, chunks: Sequence[TextChunk]) -> None:
    replies: dict[tuple[str, str], int | None] = {}
    rows: list[tuple[int, int, str, str]] = []
    for chunk in chunks:
        turn = (chunk.conversation_id, chunk.turn_id)
        if turn not in replies:
            replies[turn] = _reply_to_append_to(write, *turn)
        if (reply := replies[turn]) is not None:
            rows.append((part_key(reply, chunk.part), chunk.offset, chunk.kind, chunk.text))
    write.conn.executemany(
        "INSERT OR REPLACE INTO chunks (part, offset, kind, text) VALUES (?, ?, ?, ?)", rows
    )


def _reply_to_append_to(write: Write, conversation_id: str, turn_id: str) -> int | None:
    found = write.conn.execute(
        "SELECT key FROM conversations WHERE id = ?", (conversation_id,)
    ).fetchone()
    if found is None:
        return None
    row = write.conversation_by_key(found[0])
    turn = find_running(write.conn, row)
    if turn is None or not turn.is_turn(turn_id, write.instance):
        return None
    write.touch(row)
    return turn.reply


def request_started(write: Write, conversation_id: str, turn_id: str) -> None:
    row, turn = running(write, conversation_id, turn_id)
    if not turn.requested:
        _mark_requested(write.conn, turn)
        write.touch(row)


def _mark_requested(conn: sqlite3.Connection, turn: Running) -> None:
    conn.execute("UPDATE queue SET requested = 1 WHERE key = ?", (turn.entry,))


def tool_started(
    write: Write,
    conversation_id: str,
    turn_id: str,
    reply_id: str,
    part: int,
    call: ToolCall,
    approval: Approval | None,
    audited: AuditEntry | None,
) -> None:
    row, turn = running(write, conversation_id, turn_id)
    if approval is not None:
        approvals.use(write, approval)
    if audited is not None:
        audit.note(write, audited)
    if not turn.requested:
        _mark_requested(write.conn, turn)
    stored = ToolCallPart(tool_call_id=call.tool_call_id, name=call.name, arguments=call.arguments)
    put_part(write.conn, turn.reply, part, stored)
    write.emit(
        row,
        ToolStarted(
            message_id=reply_id,
            turn_id=turn_id,
            tool_call_id=call.tool_call_id,
            name=call.name,
            part=part,
            arguments=call.arguments,
        ),
    )


def note_progress(
    write: Write, conversation_id: str, turn_id: str, done: int, total: int, label: str
) -> None:
    row, _ = running(write, conversation_id, turn_id)
    write.emit(row, Progress(turn_id=turn_id, done=done, total=total, label=label[:LABEL_LENGTH]))


def keep_pre_image(write: Write, conversation_id: str, turn_id: str, image: PreImage) -> None:
    row, turn = running(write, conversation_id, turn_id)
    checkpoints.keep(write.conn, row.key, turn.reply, image)
    write.touch(row)


def ask_approval(write: Write, question: Approval) -> None:
    row, _ = running(write, question.conversation_id, question.turn_id)
    approvals.ask(write, row, question)


def tool_finished(
    write: Write,
    conversation_id: str,
    turn_id: str,
    reply_id: str,
    part: int,
    tool_call_id: str,
    output: ToolOutput,
) -> None:
    row, turn = running(write, conversation_id, turn_id)
    stored = ToolResultPart(
        tool_call_id=tool_call_id, content=output.content, is_error=output.is_error
    )
    put_part(write.conn, turn.reply, part, stored)
    write.emit(
        row,
        ToolFinished(
            message_id=reply_id,
            turn_id=turn_id,
            tool_call_id=tool_call_id,
            part=part,
            content=output.content,
            is_error=output.is_error,
        ),
    )


def steer(
    write: Write,
    conversation_id: str,
    turn_id: str,
    reply_id: str,
    part: int,
    added: SteeringPart,
) -> None:
    row, turn = running(write, conversation_id, turn_id)
    put_part(write.conn, turn.reply, part, added)
    write.emit(
        row,
        TurnSteered(message_id=reply_id, turn_id=turn_id, part=part, text=added.text, by=added.by),
    )


# ---- its end -----------------------------------------------------------------------------


def end(write: Write, conversation_id: str, turn_id: str, outcome: TurnOutcome) -> TurnResult:
    row, turn = running(write, conversation_id, turn_id)
    return finish(write, row, turn, outcome)
