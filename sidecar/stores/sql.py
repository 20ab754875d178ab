"""`ConversationStore` over SQL: which function does what, and in which lane."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import anyio

from ..conversations import (
    AgentMode,
    ContextFile,
    Conversation,
    Message,
    Page,
    Prompt,
    QueueEntry,
    Receipt,
    TurnResult,
)
from ..errors import AgentError, StoreUnavailable
from ..events import CatchUp, Cursor, Delta, OpenPart
from ..ids import now_ms
from ..interfaces import (
    Changes,
    ConversationExport,
    ConversationList,
    KnownKey,
    NewConversation,
    Publish,
    SearchResult,
    StartedTurn,
    StoreStatus,
    TextChunk,
    ToolCall,
    ToolOutput,
    TurnOutcome,
)
from . import conversations, following, owners, queue, reading, recovery, search, transcript, turns
from .database import Database
from .figures import figures
from .lane import closed
from .opened import Opened
from .rows import get_conversation
from .schema import SCHEMA_VERSION
from .write import Write

T = TypeVar("T")

_log = logging.getLogger(__name__)

_READ_STEP = 200
"""Messages read in one transaction when all are asked for."""


class SqlStore:
    """See `ConversationStore`. `notice` tells what happened to the store when it was opened,
    for the user to read, or is None."""

    def __init__(self, opened: Opened, publish: Publish) -> None:
        self._opened = opened
        self._writer = opened.writer
        self._reader = opened.reader
        self._write_lane = opened.write_lane
        self._read_lane = opened.read_lane
        self._instances = opened.instances
        self._publish = publish
        self._closed = False
        self.degraded = opened.degraded
        self.notice = opened.notice
        self.store_id = opened.store_id
        self.change_no = 0
        self.is_shared = opened.path is not None
        self._seen_version = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.store_id}: {self.degraded or 'writable'}>"

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise closed()
        return await self._read_lane.run(lambda: self._reader.read(work))

    async def _write(self, work: Callable[[Write], T]) -> T:
        writer = self._writer
        if self._closed:
            raise closed()
        if writer is None:
            raise StoreUnavailable(
                "The store can only be read.",
                hint=self.degraded,
                retryable=False,
            )

        def transaction() -> tuple[T, Write]:
            def inside(conn: sqlite3.Connection) -> tuple[T, Write]:
                write = Write(conn, self._instances.own)
                result = work(write)
                write.finish()
                return result, write

            return writer.write(inside)

        result, _ = await self._write_lane.run(transaction, self._committed)
        if writer.checkpoint_is_due():
            # Not awaited: a caller who is cancelled now still gets what was committed.
            self._write_lane.post(lambda: self._tidy(writer))
        return result

    def _tidy(self, writer: Database) -> None:
        """What `shrink` does, a step at a time behind whatever else is to be written."""
        if writer.give_back_some():
            self._write_lane.post(lambda: self._tidy(writer))
        else:
            writer.checkpoint()

    def _committed(self, done: tuple[object, Write]) -> None:
        write = done[1]
        if write.has_changed:
            self.change_no = write.change_no
            self._publish(write.events)

    async def aclose(self) -> None:
        """Leave no journal behind. May be called twice."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            if self._reader is not self._writer:
                await self._read_lane.run(self._reader.close)
                await self._read_lane.aclose()
            if self._writer is not None:
                await self._write_lane.run(self._close_writer)
            await self._write_lane.aclose()

    def _close_writer(self) -> None:
        writer = self._writer
        assert writer is not None
        try:
            writer.write(lambda conn: owners.retire(Write(conn, self._instances.own)))
            writer.checkpoint()
        except AgentError:
            # The journal keeps everything; the next start brings it into the file.
            _log.warning("the store could not be tidied up", exc_info=True)
        finally:
            writer.close()
            self._instances.leave()

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
        await self._write(lambda write: conversations.delete(write, conversation_id))
        await self.shrink()

    async def shrink(self) -> None:
        """Empty the journal and give unused pages back to the file system, in small steps."""
        if self._writer is not None:
            while await self._write_lane.run(self._writer.give_back_some):
                pass
            await self._write_lane.run(self._writer.checkpoint)

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
        return await self._write(
            lambda write: queue.enqueue(
                write, conversation_id, prompt, limit, request_key, params_hash
            )
        )

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
        await self._write(lambda write: following.release(write, conversation_id))

    async def orphaned(self) -> Sequence[str]:
        return await self._read(lambda conn: following.orphaned(conn, self._instances.is_dead))

    # ---- other windows ----

    async def changed_since(self, change_no: int) -> Changes | None:
        def look() -> Changes | None:
            version = self._reader.data_version()
            if version == self._seen_version:
                return None
            self._seen_version = version
            return self._reader.read(
                lambda conn: following.changed_since(conn, change_no, self._instances.own)
            )

        return await self._read_lane.run(look)

    async def streamed_after(self, conversation_id: str, known: OpenPart | None) -> Sequence[Delta]:
        return await self._read(lambda conn: following.streamed_after(conn, conversation_id, known))

    async def request_cancel(self, conversation_id: str) -> str | None:
        return await self._write(lambda write: following.request_cancel(write, conversation_id))

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
        self, conversation_id: str, turn_id: str, reply_id: str, part: int, call: ToolCall
    ) -> None:
        await self._write(
            lambda write: turns.tool_started(write, conversation_id, turn_id, reply_id, part, call)
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
        self, conversation_id: str, turn_id: str, reply_id: str, part: int, text: str
    ) -> None:
        await self._write(
            lambda write: turns.steer(write, conversation_id, turn_id, reply_id, part, text)
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
