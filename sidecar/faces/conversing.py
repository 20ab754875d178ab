"""The handlers about conversations: their list, their pages, and what becomes of them."""

from __future__ import annotations

import logging
from functools import partial

import anyio.to_thread

from .. import export
from ..conversations import Conversation, Page
from ..errors import LoadFailed, NotFound
from ..events import Missing
from ..interfaces import ConversationList, SearchResult
from ..lifecycle import AgentInfo
from ..manager import AgentManager
from ..wire import methods as wire
from .connection import Connection
from .handlers import DONE, fingerprint, method
from .rpc import Answer

logger = logging.getLogger(__name__)

MAX_RESULT = 8 * 1024 * 1024
"""Bytes an export may have in a response; larger ones are written to a path."""


class ConversationsFace:
    """Part of the native face."""

    def __init__(self, manager: AgentManager, connection: Connection) -> None:
        self._manager = manager
        self._store = manager.store
        self._connection = connection

    @method("conversation/switch")
    async def switch(self, params: wire.Switch) -> wire.Switched:
        agent = await self._manager.switch_conversation(
            params.from_conversation_id, params.to_conversation_id, params.mode
        )
        await self._connection.follow(params.to_conversation_id)
        page = await self._store.page(params.to_conversation_id)
        conversation = await self._store.get(params.to_conversation_id)
        return wire.Switched(
            agent=agent, conversation=conversation, page=page, last_seq=conversation.last_seq
        )

    @method("conversation/create")
    async def create(self, params: wire.CreateConversation) -> Conversation:
        new = self._manager.new_conversation(params.conversation_id, params.mode, params.title)
        return await self._connection.follow_new(
            new.conversation_id,
            partial(self._store.create, new, params.request_key, fingerprint(params)),
        )

    @method("conversation/list")
    async def list_conversations(self, params: wire.ListConversations) -> ConversationList:
        return await self._store.list(
            cursor=params.cursor,
            since_change=params.since_change,
            archived=params.archived,
            limit=params.limit,
        )

    @method("conversation/get")
    async def get(self, params: wire.GetConversation) -> wire.ConversationPage:
        page: Page = await self._store.page(
            params.conversation_id, cursor=params.cursor, limit=params.limit
        )
        return wire.ConversationPage(
            conversation=await self._store.get(params.conversation_id), page=page
        )

    @method("conversation/rename")
    async def rename(self, params: wire.Rename) -> Conversation:
        return await self._store.rename(params.conversation_id, params.title)

    @method("conversation/setMode")
    async def set_mode(self, params: wire.SetMode) -> Conversation:
        return await self._manager.set_mode(params.conversation_id, params.mode)

    @method("conversation/archive")
    async def archive(self, params: wire.Archive) -> Conversation:
        return await self._store.archive(params.conversation_id, params.archived)

    @method("conversation/delete")
    async def delete(self, params: wire.OfConversation) -> wire.Done:
        await self._manager.delete_conversation(params.conversation_id)
        self._connection.unfollow(params.conversation_id)
        return DONE

    @method("conversation/search")
    async def search(self, params: wire.SearchConversations) -> SearchResult:
        return await self._store.search(
            params.query, conversation_id=params.conversation_id, limit=params.limit
        )

    @method("conversation/fork")
    async def fork(self, params: wire.Fork) -> Conversation:
        source = await self._store.get(params.conversation_id)
        new = self._manager.new_conversation(
            params.new_conversation_id, source.mode, params.title or source.title
        )
        return await self._store.fork(
            params.conversation_id,
            new,
            params.to_message_id,
            params.request_key,
            fingerprint(params),
        )

    @method("conversation/rewind")
    async def rewind(self, params: wire.Rewind) -> wire.RewindResult:
        hidden, files = await self._manager.rewinding.rewind(
            params.conversation_id,
            params.to_message_id,
            preview=params.preview,
            files=params.files,
            force=params.force,
        )
        conversation = await self._store.get(params.conversation_id)
        return wire.RewindResult(
            hidden=hidden,
            revision=conversation.revision,
            preview=params.preview,
            files=files,
        )

    @method("conversation/subscribe")
    async def subscribe(self, params: wire.Subscribe) -> Answer:
        caught_up, release = await self._connection.catch_up(params.conversation_id, params.cursor)
        if isinstance(caught_up, Missing):
            self._connection.unfollow(params.conversation_id)
        else:
            await self._manager.resume(await self._store.get(params.conversation_id))
        return Answer(caught_up, release)

    @method("conversation/unsubscribe")
    async def unsubscribe(self, params: wire.OfConversation) -> wire.Done:
        self._connection.unfollow(params.conversation_id)
        return DONE

    @method("conversation/takeOver")
    async def take_over(self, params: wire.TakeOver) -> AgentInfo:
        return await self._manager.take_over(params.conversation_id, force=params.force)

    @method("conversation/export")
    async def export(self, params: wire.ExportConversation) -> wire.Exported:
        try:
            exported = await self._store.export(params.conversation_id, params.reason)
        except NotFound as error:
            raise LoadFailed(
                "There is no such conversation.", conversation_id=params.conversation_id
            ) from error
        shape = export.as_json if params.format == "json" else export.as_markdown
        data = await anyio.to_thread.run_sync(shape, exported)
        size = len(data.encode())
        if params.path:
            await anyio.to_thread.run_sync(export.write, data, params.path)
        elif size > MAX_RESULT:
            raise LoadFailed(
                f"The export has {size} bytes, too many for one message.",
                conversation_id=params.conversation_id,
                hint="Ask again with a path to write it to.",
            )
        logger.info(
            "conversation exported",
            extra={"conversationId": params.conversation_id, "size": size},
        )
        return wire.Exported(
            format=params.format,
            exported_at=exported.exported_at,
            store_id=exported.store_id,
            schema_version=exported.schema_version,
            size=size,
            data=None if params.path else data,
            reason=params.reason,
            path=params.path,
        )

    @method("conversation/import")
    async def import_(self, params: wire.ImportConversation) -> Conversation:
        if (params.data is None) == (params.path is None):
            raise LoadFailed("Give either data or a path.", hint="One of the two, not both.")
        data: str | bytes = params.data or ""
        if params.path is not None:
            data = await anyio.to_thread.run_sync(export.read, params.path)
        exported = await anyio.to_thread.run_sync(export.from_json, data)
        new = self._manager.new_conversation(
            params.conversation_id, exported.conversation.mode, exported.conversation.title
        )
        return await self._store.import_(exported, new, params.request_key, fingerprint(params))
