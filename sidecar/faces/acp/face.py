"""The handlers of the ACP face: a session is a conversation, a prompt a message of its queue.

Like those of the native face they own nothing but what this client has open. What a prompt starts
belongs to the manager and goes on when the client is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from ...conversations import Conversation, MessageSettings, StopReason, TurnResult
from ...errors import Conflict, InitializationFailed, InvalidState, NotFound
from ...events import DurableEvent, TurnQueued
from ...ids import new_id
from ...manager import AgentManager
from ...settings import Config, problems
from ...wire import acp
from ...wire import methods as wire
from ...wire.constants import ACP_AUTH_METHODS
from ..handlers import fingerprint, handlers_of, method
from ..permissions import PermissionRequests
from ..rpc import Answer, Handler, RpcError
from .narration import Update
from .options import MODEL, Choices, mode_named, modes, options_update
from .own import OwnTurns
from .prompts import COMMANDS, understood, with_task
from .protocol import RESOURCE_NOT_FOUND
from .session import Room, Session, Writer

STOP_REASONS = {
    StopReason.END_TURN: "end_turn",
    StopReason.MAX_TOKENS: "max_tokens",
    StopReason.REFUSAL: "refusal",
    StopReason.CANCELLED: "cancelled",
    StopReason.INTERRUPTED: "cancelled",
}
PAGE = 50
Result = dict[str, Any]


class SessionTools(Protocol):
    """The MCP servers that a client names for a session."""

    def use(self, session: Session, servers: Sequence[acp.ServerOfTools]) -> None: ...


class AcpFace:
    """One client of the manager. `handlers` are what the protocol dispatches to."""

    def __init__(
        self,
        manager: AgentManager,
        writer: Writer,
        tasks: TaskGroup,
        *,
        sessions: dict[str, Session],
        room: Room,
        permissions: PermissionRequests,
        own: OwnTurns,
        tools: SessionTools,
        environment: Callable[[], Config],
        notices: list[Update],
    ) -> None:
        self._manager = manager
        self._store = manager.store
        self._writer = writer
        self._tasks = tasks
        self._sessions = sessions
        self._room = room
        self._permissions = permissions
        self._own = own
        self._tools = tools
        self._environment = environment
        self._notices = notices
        self._choices = Choices(manager)
        self._prompts: dict[str, set[anyio.CancelScope]] = {}
        """By session: requests of this client whose turn has not ended."""
        manager.journal.listen(self._on_event)
        manager.on_output = self._on_output

    def handlers(self) -> Mapping[str, Handler]:
        """Method name → handler."""
        return handlers_of(self)

    def _on_event(self, event: DurableEvent) -> None:
        if isinstance(event, TurnQueued) and (s := self._sessions.get(event.conversation_id)):
            s.narration.queued(event)

    def _on_output(self, conversation_id: str, turn_id: str, call_id: str, text: str) -> None:
        if session := self._sessions.get(conversation_id):
            session.show_output(turn_id, call_id, text)

    # ---- keys ----

    @method("authenticate")
    async def authenticate(self, params: acp.Authenticate) -> Result:
        if params.method_id not in {m["id"] for m in ACP_AUTH_METHODS}:
            raise RpcError(wire.INVALID_PARAMS, "There is no such method of authentication.")
        config = await to_thread.run_sync(self._environment)
        if found := problems(config):
            raise InitializationFailed(f"{found[0].message} {found[0].hint}")
        await self._manager.update_settings(config)
        self._tell_options()
        return {}

    @method("logout")
    async def logout(self, params: acp.Nothing) -> Result:
        await self._manager.forget_secrets()
        return {}

    # ---- sessions ----

    @method("session/new")
    async def new(self, params: acp.NewSession) -> Answer:
        roots = await to_thread.run_sync(roots_of, params.cwd, params.additional_directories)
        new = msgspec.structs.replace(self._manager.new_conversation(), roots=roots)
        key = params.ours.request_key
        made = await self._store.create(new, key, fingerprint(params) if key else b"")
        return await self._opened(made, params.mcp_servers, is_new=True)

    @method("session/load")
    async def load(self, params: acp.LoadSession) -> Answer:
        conversation = await self._known(params)
        return await self._opened(conversation, params.mcp_servers, replay=True)

    @method("session/resume")
    async def resume(self, params: acp.ResumeSession) -> Answer:
        conversation = await self._known(params)
        return await self._opened(conversation, params.mcp_servers)

    @method("session/fork")
    async def fork(self, params: acp.ResumeSession) -> Answer:
        source = await self._known(params)
        new = msgspec.structs.replace(
            self._manager.new_conversation(None, source.mode, source.title), roots=source.roots
        )
        made = await self._store.fork(params.session_id, new, None, None, b"")
        return await self._opened(made, params.mcp_servers, is_new=True)

    @method("session/list")
    async def list_sessions(self, params: acp.ListSessions) -> Result:
        """With a folder, those that have it; as many pages are read as that takes."""
        cwd = params.cwd and await to_thread.run_sync(os.path.realpath, params.cwd)
        found: list[Result] = []
        cursor = params.cursor
        while True:
            try:
                page = await self._store.list(cursor=cursor, limit=PAGE)
            except (Conflict, InvalidState) as error:
                raise RpcError(wire.INVALID_PARAMS, f"session/list: {error.message}") from None
            found += [info(c) for c in page.conversations if not cwd or cwd in c.roots]
            cursor = page.cursor
            if cursor is None or len(found) >= PAGE:
                return {"sessions": found, **({"nextCursor": cursor} if cursor else {})}

    @method("session/close")
    async def close(self, params: acp.OfSession) -> Result:
        """What this client asked for is stopped; a turn of somebody else's goes on."""
        self._open(params.session_id)
        self._take_back(params.session_id)
        agent = self._manager.registry.get(params.session_id)
        turn = agent.turn if agent else None
        if turn is None or self._own.has_prompt(turn.started.entry.message_id):
            await self._manager.dispose_agent(params.session_id)
        self._forget(params.session_id)
        return {}

    @method("session/delete")
    async def delete(self, params: acp.OfSession) -> Result:
        await self._store.get(params.session_id)
        self._take_back(params.session_id)
        await self._manager.delete_conversation(params.session_id)
        self._forget(params.session_id)
        return {}

    async def _known(self, params: acp.LoadSession | acp.ResumeSession) -> Conversation:
        """Its tools act in the folders that it was made with, so it is opened with those only."""
        conversation = await self._store.get(params.session_id)
        roots = await to_thread.run_sync(roots_of, params.cwd, params.additional_directories)
        if conversation.roots and not set(roots) <= set(conversation.roots):
            theirs = ", ".join(conversation.roots)
            raise RpcError(
                wire.INVALID_PARAMS,
                f"That session belongs to {theirs}: open it with that, or make a new session.",
            )
        return conversation

    async def _opened(
        self,
        conversation: Conversation,
        servers: Sequence[acp.ServerOfTools] | None,
        *,
        replay: bool = False,
        is_new: bool = False,
    ) -> Answer:
        session_id = conversation.conversation_id
        self._forget(session_id)
        session = self._sessions[session_id] = Session(
            conversation,
            partial(self._choices.of, session_id),
            writer=self._writer,
            room=self._room,
            journal=self._manager.journal,
            store=self._store,
            flusher=self._manager.flusher,
        )
        self._tasks.start_soon(session.run, name="session")
        self._tools.use(session, servers or ())
        try:
            await session.open(replay=replay)
        except BaseException:
            self._forget(session_id)
            raise
        result: Result = {"sessionId": session_id} if is_new else {}
        result |= {
            "modes": modes(conversation.mode),
            "configOptions": self._choices.of(session_id, conversation.mode),
        }
        return Answer(result, partial(self._welcome, session, conversation))

    def _welcome(self, session: Session, conversation: Conversation) -> None:
        commands = {"sessionUpdate": "available_commands_update", "availableCommands": COMMANDS}
        session.tell([commands, *self._notices])
        self._notices.clear()
        self._tasks.start_soon(self._go_on, conversation, name="resume")

    async def _go_on(self, conversation: Conversation) -> None:
        """What waits in it runs, and what is asked in it is asked here, too."""
        await self._manager.resume(conversation)
        self._permissions.ask_again(await self._store.open_approvals(conversation.conversation_id))

    def _open(self, session_id: str) -> Session:
        if (session := self._sessions.get(session_id)) is None:
            raise RpcError(
                RESOURCE_NOT_FOUND,
                "That session is not open. Open it with session/load or session/resume.",
            )
        return session

    def _forget(self, session_id: str) -> None:
        if session := self._sessions.pop(session_id, None):
            session.close()

    # ---- prompts ----

    @method("session/prompt")
    async def prompt(self, params: acp.Prompt) -> Result:
        """One behind another is queued and answered in order."""
        session = self._open(params.session_id)
        asked = understood(params.prompt)
        key = params.ours.request_key or new_id()
        result: TurnResult | None = None
        with anyio.CancelScope() as scope:
            prompts = self._prompts.setdefault(params.session_id, set())
            prompts.add(scope)
            try:
                prompt = await with_task(asked, self._manager)
                if level := self._choices.thinking(params.session_id):
                    chosen = MessageSettings(thinking=level)
                    prompt = msgspec.structs.replace(prompt, settings=chosen)
                session.narration.prompted(key)
                self._own.prompted(key)
                result = await self._manager.send_message(
                    params.session_id, prompt, request_key=key, params_hash=fingerprint(params)
                )
            finally:
                prompts.discard(scope)
                self._own.answered(key)
        session = self._sessions.get(params.session_id, session)  # it may be open anew
        if not session.is_whole:
            await session.whole()
        if result is None:
            return {"stopReason": "cancelled"}
        meta = {"requestKey": key, "messageId": result.message_id, "usage": result.usage}
        return {"stopReason": STOP_REASONS[result.stop_reason], "_meta": {acp.META: meta}}

    @method("session/cancel")
    async def cancel(self, params: acp.OfSession) -> None:
        """What this client has asked for and, if it looks on at somebody else's turn, that."""
        is_open = params.session_id in self._sessions
        if is_open and not self._take_back(params.session_id):
            await self._manager.cancel_turn(params.session_id)

    def _take_back(self, session_id: str) -> bool:
        """Cancel this client's own prompts. False: there are none."""
        prompts = tuple(self._prompts.get(session_id, ()))
        for scope in prompts:
            scope.cancel()
        return bool(prompts)

    # ---- choices ----

    @method("session/set_mode")
    async def set_mode(self, params: acp.SetMode) -> Result:
        await self._set_mode(params.session_id, params.mode_id)
        return {}

    @method("session/set_config_option")
    async def set_option(self, params: acp.SetOption) -> Result:
        session = self._open(params.session_id)
        if params.config_id == "mode":
            await self._set_mode(params.session_id, str(params.value))
        else:
            await self._choices.choose(params.session_id, params.config_id, params.value)
            if params.config_id == MODEL:
                self._tell_options(but=session)
        conversation = await self._store.get(session.session_id)
        return {"configOptions": self._choices.of(session.session_id, conversation.mode)}

    def _tell_options(self, but: Session | None = None) -> None:
        """A model is all sessions', so all of them show which it is now."""
        for session in self._sessions.values():
            if session is not but:
                self._tasks.start_soon(self._tell_options_of, session, name="options")

    async def _tell_options_of(self, session: Session) -> None:
        with session.while_open():
            try:
                await session.whole()
                mode = (await self._store.get(session.session_id)).mode
            except NotFound:  # deleted meanwhile, and nothing to be shown any more
                return
            session.tell([options_update(self._choices.of(session.session_id, mode))])

    async def _set_mode(self, session_id: str, name: str) -> None:
        self._open(session_id)
        if (mode := mode_named(name)) is None:
            raise RpcError(wire.INVALID_PARAMS, "The modes are chat, build and feedback.")
        await self._manager.set_mode(session_id, mode)


def roots_of(cwd: str, more: Sequence[str] | None) -> tuple[str, ...]:
    """Folders as canonical paths. Raises `RpcError` -32602 for one that is none. Blocks."""
    folders = (cwd, *(more or ()))
    for folder in folders:
        if not os.path.isabs(folder) or not os.path.isdir(folder):
            raise RpcError(wire.INVALID_PARAMS, "A session's folder is an absolute path of one.")
    return tuple(dict.fromkeys(os.path.realpath(folder) for folder in folders))


def info(conversation: Conversation) -> Result:
    roots = conversation.roots or (os.path.expanduser("~"),)
    updated = datetime.fromtimestamp(conversation.updated_at / 1000, UTC)
    return {
        "sessionId": conversation.conversation_id,
        "cwd": roots[0],
        **({"additionalDirectories": list(roots[1:])} if roots[1:] else {}),
        "title": conversation.title,
        "updatedAt": updated.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
