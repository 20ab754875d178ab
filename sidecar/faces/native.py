"""The handlers of the native face: read params, call the core, shape the result.

They own nothing. What a handler starts belongs to the manager and goes on when the request is
cancelled or the client is gone.
"""

from __future__ import annotations

import logging
import os
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from .. import __version__, retention
from ..conversations import Prompt, QueueEntry, Receipt, TurnResult
from ..errors import AgentError, InvalidState, NotFound
from ..events import CatchUp, Cursor, Missing
from ..lifecycle import Failure
from ..manager import AgentManager, failure
from ..settings import RetentionSettings, patched, problems, public
from ..wire import methods as wire
from .acting import ActingFace
from .agents import AgentsFace
from .connection import Connection
from .conversing import ConversationsFace
from .handlers import DONE, fingerprint, handlers_of, method
from .rpc import Answer, Handler
from .timing import Timings

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


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
        parts = (AgentsFace, ConversationsFace, ActingFace)
        others = (handlers_of(part(self._manager, self._connection)) for part in parts)
        return dict(ChainMap(handlers_of(self), *others))

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
