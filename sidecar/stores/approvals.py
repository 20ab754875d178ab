"""Questions to the user: asked, answered once, used once, over with their turn."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from ..audit import AuditAction, AuditEntry
from ..conversations import Approval, ApprovalDecision, ApprovalState, Rule
from ..errors import Conflict, InvalidState, NotFound
from ..events import ApprovalRequested, ApprovalResolved
from . import audit, kept
from .rows import ConversationRow, json_text, pack_id, unpack_id
from .write import Write

_rules_from = msgspec.json.Decoder(tuple[Rule, ...]).decode
_COLUMNS = (
    "a.id, c.id, a.turn, a.tool_call_id, a.tool, a.title, a.text, a.hash, a.state, "
    "a.requested_at, a.expires_at, a.protected, a.rules"
)
_FROM = f"SELECT {_COLUMNS} FROM approvals a JOIN conversations c ON c.key = a.conversation"


def _value(row: Sequence[Any]) -> Approval:
    return Approval(
        approval_id=unpack_id(row[0]),
        conversation_id=row[1],
        turn_id=unpack_id(row[2]),
        tool_call_id=row[3],
        tool=row[4],
        title=row[5],
        text=row[6],
        content_hash=row[7],
        state=ApprovalState(row[8]),
        requested_at=row[9],
        expires_at=row[10],
        is_protected=bool(row[11]),
        always=_rules_from(row[12]),
    )


def ask(write: Write, row: ConversationRow, question: Approval) -> None:
    """The caller has made sure that its turn runs."""
    write.conn.execute(
        """
        INSERT INTO approvals (id, conversation, turn, tool_call_id, tool, title, text, hash,
            state, requested_at, expires_at, protected, rules)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            pack_id(question.approval_id),
            row.key,
            pack_id(question.turn_id),
            question.tool_call_id,
            question.tool,
            question.title,
            question.text,
            question.content_hash,
            question.state,
            question.requested_at,
            question.expires_at,
            question.is_protected,
            json_text(question.always),
        ),
    )
    write.emit(row, ApprovalRequested(approval=question))


def answer(
    write: Write,
    approval_id: str,
    decision: ApprovalDecision,
    content_hash: str,
    always: bool,
) -> Approval:
    """The first answer counts, if it is for what is asked. `always`: also from now on."""
    found = _get(write.conn, approval_id)
    if found.state is not ApprovalState.PENDING:
        raise Conflict(f"This question is not open any more: it was {found.state}.")
    if found.content_hash != content_hash:
        raise Conflict(
            "The answer is for something else than what is asked.",
            hint="Read the question again with approval/list.",
        )
    allowed = decision == "allow"
    if allowed and always:
        if not found.always:
            raise InvalidState("This cannot be allowed for good.", hint="Allow it once.")
        for rule in found.always:
            kept.add_rule(write, rule)
    return _resolve(write, found, ApprovalState.ALLOWED if allowed else ApprovalState.DENIED)


def settle(write: Write, approval_id: str) -> Approval:
    found = _get(write.conn, approval_id)
    if found.state is not ApprovalState.PENDING:
        return found
    return _resolve(write, found, ApprovalState.EXPIRED)


def use(write: Write, approval: Approval) -> None:
    """Once, in the turn that it was given for. Only what was allowed can be used."""
    done = write.conn.execute(
        "UPDATE approvals SET state = ? WHERE id = ? AND turn = ? AND hash = ? AND state = ?",
        (
            ApprovalState.USED,
            pack_id(approval.approval_id),
            pack_id(approval.turn_id),
            approval.content_hash,
            ApprovalState.ALLOWED,
        ),
    )
    if done.rowcount != 1:
        raise Conflict(
            "This was not approved, or the approval was used already.",
            conversation_id=approval.conversation_id,
        )


def expire(write: Write, row: ConversationRow, turn: bytes) -> None:
    """The turn ends: nobody needs to answer any more."""
    left = write.conn.execute(
        f"{_FROM} WHERE a.conversation = ? AND a.turn = ? AND a.state = ?",
        (row.key, turn, ApprovalState.PENDING),
    ).fetchall()
    for question in map(_value, left):
        _set(write, row, question, ApprovalState.EXPIRED)


def open_ones(conn: sqlite3.Connection, conversation_id: str | None) -> tuple[Approval, ...]:
    rows = conn.execute(
        f"{_FROM} WHERE a.state = ?1 AND (?2 IS NULL OR c.id = ?2) ORDER BY a.key",
        (ApprovalState.PENDING, conversation_id),
    )
    return tuple(map(_value, rows))


def _get(conn: sqlite3.Connection, approval_id: str) -> Approval:
    try:
        packed = pack_id(approval_id)
    except ValueError:
        packed = b""
    found = conn.execute(f"{_FROM} WHERE a.id = ?", (packed,)).fetchone()
    if found is None:
        raise NotFound("There is no such question.", hint="approval/list has those that are open.")
    return _value(found)


def _resolve(write: Write, question: Approval, state: ApprovalState) -> Approval:
    return _set(write, write.conversation(question.conversation_id), question, state)


def _set(write: Write, row: ConversationRow, question: Approval, state: ApprovalState) -> Approval:
    packed = pack_id(question.approval_id)
    audit.note(
        write,
        AuditEntry(
            action=AuditAction.ANSWER,
            allowed=state is ApprovalState.ALLOWED,
            why=state.value,
            conversation_id=question.conversation_id,
            turn_id=question.turn_id,
            tool=question.tool,
            content_hash=question.content_hash,
        ),
    )
    write.conn.execute("UPDATE approvals SET state = ? WHERE id = ?", (state, packed))
    write.emit(
        row,
        ApprovalResolved(approval_id=question.approval_id, turn_id=question.turn_id, state=state),
    )
    found: Approval = _get(write.conn, question.approval_id)
    return found
