"""The handlers of the native face: read params, call the core, shape the result.

They own nothing. What a handler starts belongs to the manager and goes on when the request is
cancelled or the client is gone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from .. import __version__, export, retention
from ..conversations import Conversation, Page, Prompt, QueueEntry, Receipt, TurnResult
from ..errors import AgentError, InvalidState, LoadFailed, NotFound
from ..events import CatchUp, Cursor, Missing
from ..interfaces import ConversationList, SearchResult
from ..lifecycle import AgentInfo, Failure
from ..manager import AgentManager, failure
from ..settings import RetentionSettings, patched, problems, public
from ..wire import methods as wire
from .acting import ActingFace
from .connection import Connection
from .handlers import DONE, fingerprint, handlers_of, method
from .rpc import Answer, Handler
from .timing import Timings

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

MAX_RESULT = 8 * 1024 * 1024
"""Bytes an export may have in a response; larger ones are written to a path."""


class NativeFace:
    """One client of the manager. `handlers` are what the protocol dispatches to."""

    def __init__(
        self,
        manager: AgentManager,
        connection: Connection,
        timings: Timings,
        *,
        webview_id: str | None = None,
        other_windows: Callable[[], int] = lambda: 0,
        mcp_states: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._manager = manager
        self._store = manager.store
        self._connection = connection
        self._timings = timings
        self._webviews = {webview_id} if webview_id else set()
        self._other_windows = other_windows
        self._mcp_states = mcp_states
        self._started = time.monotonic()
        self._openrpc: dict[str, Any] | None = None

    def handlers(self) -> dict[str, Handler]:
        """Method name → handler."""
        return handlers_of(self) | handlers_of(ActingFace(self._manager, self._connection))

    # ---- agents ----

    @method("agent/getOrCreate")
    async def get_or_create(self, params: wire.GetOrCreate) -> AgentInfo:
        info = await self._manager.get_or_create_agent(
            params.conversation_id,
            params.mode,
            create=params.create,
            request_key=params.request_key,
        )
        await self._connection.follow(params.conversation_id)
        return info

    @method("agent/dispose")
    async def dispose(self, params: wire.OfConversation) -> wire.Done:
        await self._manager.dispose_agent(params.conversation_id)
        return DONE

    @method("agent/disposeAll")
    async def dispose_all(self, params: wire.Nothing) -> wire.DisposedAll:
        disposed, failed = await self._manager.dispose_all_agents()
        return wire.DisposedAll(disposed=disposed, failed=failed)

    @method("agent/reinitialize")
    async def reinitialize(self, params: wire.Nothing) -> wire.Reinitialized:
        done, deferred = await self._manager.reinitialize_agents()
        return wire.Reinitialized(reinitialized=done, deferred=deferred)

    @method("agent/abortAndRestart")
    async def abort_and_restart(self, params: wire.OfConversation) -> AgentInfo:
        return await self._manager.abort_and_restart_agent(params.conversation_id)

    @method("agent/cancel")
    async def cancel(self, params: wire.OfConversation) -> wire.Cancelled:
        return wire.Cancelled(cancelled=await self._manager.cancel_turn(params.conversation_id))

    @method("agent/count")
    async def count(self, params: wire.Nothing) -> wire.Count:
        return wire.Count(count=self._manager.active_agent_count())

    @method("agent/has")
    async def has(self, params: wire.OfConversation) -> wire.Known:
        return wire.Known(exists=self._manager.has_agent(params.conversation_id))

    @method("agent/list")
    async def list_agents(self, params: wire.Nothing) -> wire.AgentList:
        return wire.AgentList(agents=await self._manager.list_agents())

    @method("agent/validateCommunication")
    async def validate_communication(self, params: wire.Between) -> wire.Allowed:
        allowed, reason = await self._manager.communication.validate(
            params.from_conversation_id, params.to_conversation_id, params.capability
        )
        return wire.Allowed(allowed=allowed, reason=reason)

    @method("agent/sendTo")
    async def send_to(self, params: wire.SendTo) -> Receipt:
        return await self._manager.send_to(
            params.from_conversation_id,
            params.to_conversation_id,
            params.input,
            capability=params.capability,
            request_key=params.request_key,
            params_hash=fingerprint(params),
        )

    @method("agent/grant")
    async def grant(self, params: wire.Between) -> wire.Done:
        await self._manager.communication.grant(
            params.from_conversation_id, params.to_conversation_id, params.capability
        )
        return DONE

    @method("agent/revoke")
    async def revoke(self, params: wire.Between) -> wire.Done:
        await self._manager.communication.revoke(
            params.from_conversation_id, params.to_conversation_id, params.capability
        )
        return DONE

    # ---- messages ----

    @method("message/send")
    async def send(self, params: wire.Send) -> TurnResult:
        with suppress(NotFound):  # the manager says what that means here
            await self._connection.follow(params.conversation_id)
        return await self._manager.send_message(
            params.conversation_id,
            await self._prompt(params),
            request_key=params.request_key,
            params_hash=fingerprint(params),
        )

    @method("message/enqueue")
    async def enqueue(self, params: wire.Send) -> Receipt:
        return await self._manager.enqueue(
            params.conversation_id,
            await self._prompt(params),
            request_key=params.request_key,
            params_hash=fingerprint(params),
        )

    async def _prompt(self, params: wire.Send) -> Prompt:
        """A persona that is named speaks by its own instruction, as it is now."""
        prompt = prompt_of(params)
        if prompt.persona_id is None or prompt.system_instruction is not None:
            return prompt
        from ..workflows.personas import PersonasService

        persona = await PersonasService(self._store).find(prompt.persona_id)
        return msgspec.structs.replace(
            prompt, system_instruction=persona.instruction, is_persona_chat=True
        )

    @method("message/queue")
    async def queue(self, params: wire.OfConversation) -> wire.Queue:
        return wire.Queue(entries=tuple(await self._store.queue(params.conversation_id)))

    @method("message/update")
    async def update(self, params: wire.UpdateMessage) -> QueueEntry:
        files = (
            {} if params.context_files is msgspec.UNSET else {"context_files": params.context_files}
        )
        return await self._store.update_entry(params.message_id, params.input, **files)

    @method("message/remove")
    async def remove(self, params: wire.OfMessage) -> TurnResult:
        return await self._manager.remove_message(params.message_id)

    @method("message/reorder")
    async def reorder(self, params: wire.ReorderMessage) -> wire.Queue:
        return wire.Queue(
            entries=tuple(await self._store.reorder(params.message_id, params.position))
        )

    @method("message/retry")
    async def retry(self, params: wire.OfMessage) -> Receipt:
        return await self._manager.retry_message(params.message_id)

    @method("message/steer")
    async def steer(self, params: wire.Steer) -> wire.Done:
        await self._manager.steer(params.conversation_id, params.text, params.expected_turn_id)
        return DONE

    # ---- conversations ----

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

    # ---- capabilities ----

    @method("capability/register")
    async def register_capability(self, params: wire.RegisterCapability) -> wire.Done:
        self._manager.register_capability(params.conversation_id, params.capability)
        return DONE

    @method("capability/unregister")
    async def unregister_capability(self, params: wire.NameOfCapability) -> wire.Done:
        self._manager.capabilities.unregister(params.conversation_id, params.name)
        return DONE

    @method("capability/list")
    async def list_capabilities(self, params: wire.OfConversation) -> wire.Capabilities:
        return wire.Capabilities(capabilities=self._manager.capabilities.of(params.conversation_id))

    @method("capability/query")
    async def query_capability(self, params: wire.NameOfCapability) -> wire.HasCapability:
        return wire.HasCapability(
            available=self._manager.capabilities.has(params.conversation_id, params.name)
        )

    @method("capability/find")
    async def find_capability(self, params: wire.FindCapability) -> wire.FoundCapability:
        return wire.FoundCapability(conversation_ids=self._manager.capabilities.find(params.name))

    # ---- settings ----

    @method("settings/update")
    async def update_settings(self, params: wire.UpdateSettings) -> wire.UpdatedSettings:
        new = patched(self._manager.config, params.settings, params.secrets)
        done = await self._manager.update_settings(new, force=params.force)
        return wire.UpdatedSettings(
            critical=done.critical,
            reinitialized=done.reinitialized,
            deferred=done.deferred,
            problems=done.problems,
        )

    @method("settings/get")
    async def get_settings(self, params: wire.Nothing) -> wire.SettingsShown:
        config = self._manager.config
        secrets = msgspec.structs.fields(config.secrets)
        return wire.SettingsShown(
            settings=public(config.settings),
            secrets_present=tuple(
                f.encode_name for f in secrets if getattr(config.secrets, f.name) is not None
            ),
            problems=tuple(problems(config)),
        )

    # ---- webviews ----

    @method("webview/preserve")
    async def preserve(self, params: wire.WebviewGone) -> wire.Preserved:
        states, failed = await self._manager.preserve()
        self._webviews.discard(params.webview_id)
        if not self._webviews:
            # What is sent to nobody would be lost; the cursor brings it back later.
            self._connection.unfollow_all()
        return wire.Preserved(states=states, failed=failed)

    @method("webview/restore")
    async def restore(self, params: wire.WebviewBack) -> Answer:
        if params.webview_id:
            self._webviews.add(params.webview_id)
        cursors: dict[str, Cursor | None] = {
            state.conversation_id: None for state in params.preserved_states
        }
        cursors |= {item.conversation_id: item.cursor for item in params.cursors}
        restored: list[CatchUp] = []
        failed: list[Failure] = []
        releases: list[Callable[[], None]] = []
        for conversation_id, cursor in cursors.items():
            try:
                caught_up, release = await self._connection.catch_up(conversation_id, cursor)
            except AgentError as error:
                failed.append(failure(conversation_id, error))
                continue
            restored.append(caught_up)
            releases.append(release)
        logger.info("agents restored", extra={"restored": len(restored), "failed": len(failed)})
        result = wire.Restored(
            restored=tuple(c for c in restored if not isinstance(c, Missing)),
            failed=tuple(failed),
            missing=tuple(c.conversation_id for c in restored if isinstance(c, Missing)),
        )

        def release_all() -> None:
            for release in releases:
                release()

        return Answer(result, release_all)

    @method("webview/didDisconnect")
    async def did_disconnect(self, params: wire.WebviewGone) -> None:
        self._connection.tell("agents/preserved", await self.preserve(params))

    @method("webview/didReconnect")
    async def did_reconnect(self, params: wire.WebviewBack) -> None:
        answer = await self.restore(params)
        self._connection.tell("agents/restored", answer.result)
        answer.then()

    # ---- the store ----

    @method("store/prune")
    async def prune(self, params: wire.Prune) -> wire.PruneResult:
        rule = self._manager.config.settings.retention
        is_own = params.max_age_days is not None or params.max_bytes is not None
        if is_own:
            rule = RetentionSettings(
                max_age_days=params.max_age_days or 0, max_bytes=params.max_bytes or 0
            )
        pruned = tuple(
            await retention.prune(self._manager, rule, dry_run=params.dry_run, by_calendar=is_own)
        )
        return wire.PruneResult(
            conversations=pruned,
            bytes=sum(one.bytes for one in pruned),
            dry_run=params.dry_run,
        )

    # ---- health ----

    @method("sidecar/status")
    async def status(self, params: wire.Nothing) -> wire.Status:
        config = self._manager.config
        found = tuple(problems(config))
        return wire.Status(
            version=__version__,
            pid=os.getpid(),
            uptime_ms=round((time.monotonic() - self._started) * 1000),
            store=await self._store.status(),
            provider=wire.ProviderStatus(
                name=config.settings.provider, ready=not found, problems=found
            ),
            agents=await self._manager.list_agents(),
            max_active_agents=config.settings.max_active_agents,
            waiting_conversations=self._manager.pool.waiting,
            other_windows=self._other_windows(),
            mcp_servers=dict(self._mcp_states()),
        )

    @method("sidecar/metrics")
    async def metrics(self, params: wire.Nothing) -> wire.Metrics:
        from .usage import cpu_ms, rss_bytes

        return wire.Metrics(
            methods=self._timings.report(),
            rss_bytes=rss_bytes(),
            cpu_ms=cpu_ms(),
            deltas=self._manager.journal.deltas,
            commits=self._manager.journal.commits,
        )

    @method("rpc.discover")
    async def discover(self, params: wire.Nothing) -> dict[str, Any]:
        from ..wire.schema import openrpc

        if self._openrpc is None:
            self._openrpc = await anyio.to_thread.run_sync(openrpc)
        return self._openrpc


def prompt_of(params: wire.Send) -> Prompt:
    if not params.input.strip():
        raise InvalidState(
            "The message is empty.",
            conversation_id=params.conversation_id,
            hint="Write something in `input`.",
        )
    return Prompt(
        input=params.input,
        context_files=params.context_files,
        settings=params.settings,
        system_instruction=params.system_instruction,
        is_persona_chat=params.is_persona_chat,
        persona_id=params.persona_id,
    )
