"""The part of the store about acting: what was asked, allowed, changed and recorded."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ..audit import AuditEntry, AuditReport
from ..conversations import Approval, ApprovalDecision, Rule
from ..interfaces import PreImage, TouchedFile
from ..work import Persona
from . import approvals, audit, checkpoints, conversations, kept, turns
from .open_store import OpenStore
from .rows import get_conversation
from .transcript import last_kept
from .write import Write


class ActsStore(OpenStore):
    """See `ConversationStore`."""

    # ---- approvals ----

    async def ask_approval(self, question: Approval) -> None:
        await self._write(lambda write: turns.ask_approval(write, question))

    async def answer_approval(
        self,
        approval_id: str,
        decision: ApprovalDecision,
        content_hash: str,
        *,
        always: bool = False,
    ) -> Approval:
        return await self._write(
            lambda write: approvals.answer(write, approval_id, decision, content_hash, always)
        )

    async def settle_approval(self, approval_id: str) -> Approval:
        return await self._write(lambda write: approvals.settle(write, approval_id))

    async def open_approvals(self, conversation_id: str | None = None) -> Sequence[Approval]:
        return await self._read(lambda conn: approvals.open_ones(conn, conversation_id))

    # ---- what the user has settled ----

    async def rules(self, roots: Sequence[str] | None = None) -> Sequence[Rule]:
        return await self._read(lambda conn: kept.rules(conn, roots))

    async def add_rule(self, rule: Rule) -> None:
        await self._write(lambda write: kept.add_rule(write, rule))

    async def remove_rule(self, rule: Rule) -> None:
        await self._write(lambda write: kept.remove_rule(write, rule))

    async def personas(self) -> Sequence[Persona]:
        return await self._read(kept.personas)

    async def save_persona(self, persona: Persona) -> None:
        await self._write(lambda write: kept.save_persona(write, persona))

    async def delete_persona(self, persona_id: str) -> bool:
        return await self._write(lambda write: kept.delete_persona(write, persona_id))

    async def helpers(self, conversation_id: str) -> Sequence[str]:
        return await self._read(lambda conn: conversations.helpers(conn, conversation_id))

    # ---- what agents did ----

    async def note_progress(
        self, conversation_id: str, turn_id: str, done: int, total: int, label: str
    ) -> None:
        await self._write(
            lambda write: turns.note_progress(write, conversation_id, turn_id, done, total, label)
        )

    async def keep_pre_image(self, conversation_id: str, turn_id: str, image: PreImage) -> None:
        await self._write(
            lambda write: turns.keep_pre_image(write, conversation_id, turn_id, image)
        )

    async def touched_files(
        self, conversation_id: str, to_message_id: str | None
    ) -> Sequence[TouchedFile]:
        def find(conn: sqlite3.Connection) -> Sequence[TouchedFile]:
            row = get_conversation(conn, conversation_id)
            return checkpoints.touched(conn, row.key, last_kept(conn, row, to_message_id))

        return await self._read(find)

    async def mark_undone(
        self,
        conversation_id: str,
        to_message_id: str | None,
        files: Sequence[tuple[str, str]],
        entry: AuditEntry,
    ) -> None:
        def mark(write: Write) -> None:
            row = write.conversation(conversation_id)
            after = last_kept(write.conn, row, to_message_id)
            checkpoints.mark_undone(write.conn, row.key, after, files)
            audit.note(write, entry)

        await self._write(mark)

    async def note_audit(self, entry: AuditEntry) -> None:
        await self._write(lambda write: audit.note(write, entry))

    async def check_audit(self) -> AuditReport:
        return await self._read(audit.check)

    async def audit(
        self, conversation_id: str | None = None, limit: int = 100
    ) -> Sequence[AuditEntry]:
        return await self._read(lambda conn: audit.newest(conn, conversation_id, limit))

    async def was_allowed(self, conversation_id: str, content_hash: str) -> bool:
        return await self._read(lambda conn: audit.allowed(conn, conversation_id, content_hash))
