"""`ConversationStore` over SQL: which function does what, and in which lane."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import TypeVar

from anyio import to_thread

from .. import processes
from ..audit import AuditEntry
from ..conversations import (
    AgentMode,
    Approval,
    ContextFile,
    Conversation,
    Message,
    Page,
    Prompt,
    QueueEntry,
    Receipt,
    SteeringPart,
    TurnResult,
)
from ..events import CatchUp, Cursor, Delta, OpenPart
from ..ids import now_ms
from ..interfaces import (
    Changes,
    ConversationExport,
    ConversationList,
    KnownKey,
    NewConversation,
    PrunedConversation,
    SearchResult,
    StartedTurn,
    StoreStatus,
    TextChunk,
    ToolCall,
    ToolOutput,
    TurnOutcome,
)
from ..processes import ChildRecord
from . import (
    children,
    conversations,
    following,
    queue,
    reading,
    recovery,
    retention,
    search,
    transcript,
    turns,
)
from .acts import ActsStore
from .figures import figures
from .rows import get_conversation
from .schema import SCHEMA_VERSION
from .write import Write

T = TypeVar("T")

_log = logging.getLogger(__name__)

_READ_STEP = 200
"""Messages read in one transaction when all are asked for."""


class SqlStore(ActsStore):
    """See `ConversationStore`, and `OpenStore` for what else there is."""

    # ---- conversations ----

    async def create(
        self, new: NewConversation, request_key: str | None = None, params_hash: bytes = b""
    ) -> Conversation:
        return await self._write(
            lambda write: conversations.create(write, new, request_key, params_hash)
        )

    async def get(self, conversation_id: str) -> Conversation:
        return await self._read(lambda conn: get_conversation(conn, conversation_id).value())

    async def list(
        self,
        *,
        cursor: str | None = None,
        since_change: int | None = None,
        archived: bool = False,
        limit: int = 100,
    ) -> ConversationList:
        if since_change is not None:
            since = since_change
            return await self._read(lambda conn: conversations.list_changes(conn, since, limit))
        return await self._read(lambda conn: conversations.list_page(conn, cursor, archived, limit))

    async def page(
        self, conversation_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        return await self._read(lambda conn: transcript.page(conn, conversation_id, cursor, limit))

    async def messages(self, conversation_id: str) -> Sequence[Message]:
        # Step by step: a long read transaction would keep the journal from being emptied.
        found: list[Message] = []
        seen, after = None, -1
        while True:
            revision, step = await self._read(self._following(conversation_id, after))
            if seen is not None and revision != seen:
                found, seen, after = [], None, -1
                continue
            seen = revision
            found.extend(message for _, message in step)
            if len(step) < _READ_STEP:
                return found
            after = step[-1][0]

    @staticmethod
    def _following(
        conversation_id: str, after: int
    ) -> Callable[[sqlite3.Connection], tuple[int, Sequence[tuple[int, Message]]]]:
        return lambda conn: transcript.following(conn, conversation_id, after, _READ_STEP)

    async def rename(self, conversation_id: str, title: str | None) -> Conversation:
        return await self._write(lambda write: conversations.rename(write, conversation_id, title))

    async def set_mode(self, conversation_id: str, mode: AgentMode) -> Conversation:
        return await self._write(lambda write: conversations.set_mode(write, conversation_id, mode))

    async def archive(self, conversation_id: str, archived: bool) -> Conversation:
        return await self._write(
            lambda write: conversations.archive(write, conversation_id, archived)
        )

    async def delete(self, conversation_id: str) -> None:
        def delete(write: Write) -> None:
            conversations.delete(write, conversation_id)
            self._discard_backup()

        await self._write(delete)
        await self.shrink()
        self._deleted.set()

    async def use_ago(self, age_ms: int, now: int) -> int:
        return await self._read(lambda conn: retention.use_ago(conn, age_ms, now))

    async def prune(
        self,
        *,
        before: int | None,
        max_bytes: int | None,
        in_use: Set[str] = frozenset(),
        dry_run: bool,
    ) -> Sequence[PrunedConversation]:
        is_dead = self._instances.is_dead
        found = await self._read(
            lambda conn: retention.prunable(
                conn, before=before, max_bytes=max_bytes, in_use=in_use, is_dead=is_dead
            )
        )
        if dry_run or not found:
            return found

        def prune(write: Write, conversation_id: str) -> bool:
            done = retention.prune(write, conversation_id, in_use, is_dead)
            if done:
                self._discard_backup()
            return done

        pruned = [
            one
            for one in found
            if await self._write(partial(prune, conversation_id=one.conversation_id))
        ]
        await self.shrink()
        self._deleted.set()
        return pruned

    async def fork(
        self,
        conversation_id: str,
        new: NewConversation,
        to_message_id: str | None,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> Conversation:
        return await self._write(
            lambda write: transcript.fork(
                write, conversation_id, new, to_message_id, request_key, params_hash
            )
        )

    async def rewind(
        self, conversation_id: str, to_message_id: str | None, *, preview: bool
    ) -> tuple[str, ...]:
        if preview:
            return await self._read(
                lambda conn: transcript.to_hide(conn, conversation_id, to_message_id)
            )
        return await self._write(
            lambda write: transcript.rewind(write, conversation_id, to_message_id)
        )

    async def search(
        self, query: str, *, conversation_id: str | None = None, limit: int = 20
    ) -> SearchResult:
        await self.index_pending()
        return await self._read(lambda conn: search.search(conn, query, conversation_id, limit))

    async def index_pending(self) -> None:
        """Bring the search index up to date. `search` does it too; do it when there is time."""
        if self._writer is not None and await self._read(search.has_pending):
            while await self._write(search.index_some):
                pass

    async def export(self, conversation_id: str, reason: str | None) -> ConversationExport:
        messages = await self.messages(conversation_id)
        conversation = await self.get(conversation_id)
        return ConversationExport(
            schema_version=SCHEMA_VERSION,
            store_id=self.store_id,
            exported_at=now_ms(),
            reason=reason,
            conversation=conversation,
            messages=tuple(messages),
            queue=tuple(await self.queue(conversation_id)),
        )

    async def import_(
        self,
        export: ConversationExport,
        new: NewConversation,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> Conversation:
        return await self._write(
            lambda write: transcript.import_(write, export, new, request_key, params_hash)
        )

    # ---- queue ----

    async def enqueue(
        self,
        conversation_id: str,
        prompt: Prompt,
        *,
        limit: int,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> Receipt:
        def accept(write: Write) -> Receipt:
            receipt = queue.enqueue(write, conversation_id, prompt, limit, request_key, params_hash)
            if not receipt.duplicate and not self._is_leaving:
                # Who accepts a prompt for nobody's conversation serves it: no other window may
                # take it up in between.
                row = write.conversation(conversation_id)
                recovery.own_if_free(write, row, self._instances.is_dead)
            return receipt

        return await self._write(accept)

    async def known_key(self, conversation_id: str, message_id: str) -> KnownKey:
        return await self._read(lambda conn: queue.known_key(conn, conversation_id, message_id))

    async def queue(self, conversation_id: str) -> Sequence[QueueEntry]:
        return await self._read(
            lambda conn: queue.entries(conn, get_conversation(conn, conversation_id))
        )

    async def update_entry(
        self, message_id: str, input: str, context_files: tuple[ContextFile, ...] | None = None
    ) -> QueueEntry:
        return await self._write(
            lambda write: queue.update_entry(write, message_id, input, context_files)
        )

    async def reorder(self, message_id: str, position: int) -> Sequence[QueueEntry]:
        return await self._write(lambda write: queue.reorder(write, message_id, position))

    async def cancel_entry(self, message_id: str) -> TurnResult | None:
        return await self._write(lambda write: queue.cancel_entry(write, message_id))

    async def hold_entries(self, conversation_id: str, reason: str | None) -> None:
        await self._write(lambda write: queue.hold_entries(write, conversation_id, reason))

    async def retry(self, message_id: str) -> tuple[str, Receipt]:
        return await self._write(lambda write: queue.retry(write, message_id))

    async def waiting(self) -> Mapping[str, int]:
        return await self._read(queue.waiting)

    async def take_over(self, conversation_id: str, *, force: bool) -> None:
        is_dead = self._instances.is_dead
        await self._write(lambda write: recovery.take_over(write, conversation_id, is_dead, force))

    async def release(self, conversation_id: str) -> None:
        if self._is_leaving:
            await self._write(following.hand_over)
        else:
            await self._write(lambda write: following.release(write, conversation_id))

    async def hand_over(self) -> None:
        self._is_leaving = True
        await self._write(following.hand_over)

    async def orphaned(self) -> Sequence[str]:
        return await self._read(lambda conn: following.orphaned(conn, self._instances.is_dead))

    # ---- other windows ----

    async def changed_since(self, change_no: int) -> Changes | None:
        def look() -> Changes | None:
            # The version first: what is committed after it is seen with the next look.
            version = self._reader.data_version()
            if (version, change_no) == self._seen:
                return None
            changes, newest = self._reader.read(
                lambda conn: (
                    following.changed_since(conn, change_no, self._instances.own),
                    conversations.change_no(conn),
                )
            )
            self._seen = (version, newest)
            return changes

        changes = await self._read_lane.run(look)
        if changes is not None:
            self.change_no = max(self.change_no, changes.change_no)
        return changes

    async def streamed_after(self, conversation_id: str, known: OpenPart | None) -> Sequence[Delta]:
        return await self._read(lambda conn: following.streamed_after(conn, conversation_id, known))

    async def request_cancel(self, conversation_id: str, of: str | None = None) -> str | None:
        return await self._write(lambda write: following.request_cancel(write, conversation_id, of))

    # ---- turns ----

    async def start_turn(self, conversation_id: str, provider: str) -> StartedTurn | None:
        return await self._write(
            lambda write: turns.start(write, conversation_id, provider, self._instances.is_dead)
        )

    async def append_text(self, chunks: Sequence[TextChunk]) -> None:
        await self._write(lambda write: turns.append_text(write, chunks))

    async def request_started(self, conversation_id: str, turn_id: str) -> None:
        await self._write(lambda write: turns.request_started(write, conversation_id, turn_id))

    async def tool_started(
        self,
        conversation_id: str,
        turn_id: str,
        reply_id: str,
        part: int,
        call: ToolCall,
        *,
        approval: Approval | None = None,
        audit: AuditEntry | None = None,
    ) -> None:
        await self._write(
            lambda write: turns.tool_started(
                write, conversation_id, turn_id, reply_id, part, call, approval, audit
            )
        )

    async def tool_finished(
        self,
        conversation_id: str,
        turn_id: str,
        reply_id: str,
        part: int,
        tool_call_id: str,
        output: ToolOutput,
    ) -> None:
        await self._write(
            lambda write: turns.tool_finished(
                write, conversation_id, turn_id, reply_id, part, tool_call_id, output
            )
        )

    async def steer(
        self, conversation_id: str, turn_id: str, reply_id: str, part: int, added: SteeringPart
    ) -> None:
        await self._write(
            lambda write: turns.steer(write, conversation_id, turn_id, reply_id, part, added)
        )

    async def end_turn(
        self, conversation_id: str, turn_id: str, outcome: TurnOutcome
    ) -> TurnResult:
        return await self._write(lambda write: turns.end(write, conversation_id, turn_id, outcome))

    async def recover(self) -> int:
        def settle(write: Write) -> int:
            count = recovery.recover(write, self._instances.is_dead)
            self._instances.forget_dead(write.conn)
            return count

        return await self._write(settle)

    # ---- child processes ----

    @property
    def mark(self) -> str:
        return self._instances.mark

    async def child_started(self, child: ChildRecord) -> None:
        await self._write(lambda write: children.started(write, child))

    async def child_ended(self, child: ChildRecord) -> None:
        await self._write(lambda write: children.ended(write, child))

    async def reap_children(self, *, thoroughly: bool = False) -> int:
        orphans = await self._read(lambda conn: children.orphans(conn, self._instances.is_dead))
        if not orphans and not thoroughly:
            return 0
        count = await to_thread.run_sync(processes.reap, orphans, self._instances.is_orphaned)
        if orphans:
            await self._write(lambda write: children.forget(write, orphans))
        return count

    def other_windows(self) -> int:
        return self._instances.count_others()

    # ---- readers ----

    async def catch_up(
        self, conversation_id: str, cursor: Cursor | None, *, page_size: int = 50
    ) -> CatchUp:
        return await self._read(
            lambda conn: reading.catch_up(conn, self.store_id, conversation_id, cursor, page_size)
        )

    async def status(self) -> StoreStatus:
        path = None if self._opened.path is None else str(self._opened.path)
        wal_size = 0 if self._writer is None else self._writer.wal_size()
        return await self._read(lambda conn: figures(conn, path, wal_size, self.degraded))
