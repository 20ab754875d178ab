"""AgentManager: one agent per conversation, made when needed, freed when not.

The facade of the core: every face calls this and nothing below it. It owns the callers that
wait for a turn and the settings; the agents are the pool's, the conversations the store's.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec

from . import log
from .agent import OWNED_ELSEWHERE, Agent
from .approvals import Approvals
from .capabilities import AgentCapability
from .communication import AgentCommunication, Asking, answer_to
from .conversations import (
    AgentMode,
    Conversation,
    Prompt,
    QueueState,
    Receipt,
    StopReason,
    TurnResult,
)
from .errors import (
    AgentError,
    CommunicationFailed,
    Conflict,
    InitializationFailed,
    InvalidState,
    NotFound,
)
from .events import DurableEvent, ModeChanged, QueueChanged, Rewound, TurnEnded
from .follower import Follower
from .helpers import HelperAgents
from .ids import new_id
from .interfaces import (
    CANCEL_REQUESTED,
    ChangedConversation,
    ConversationStore,
    NewConversation,
    StartedTurn,
    TurnOutcome,
)
from .journal import Journal
from .lifecycle import AgentInfo, Failure, PreservedState
from .log import Stopwatch
from .pool import AgentPool, MakeProvider, MakeTools
from .reply import Flusher
from .rewinding import MakeUndo, Rewinding
from .settings import Config, Problem, problems
from .turn import OnOutput, error_of, unwatched
from .waiters import Waiter, Waiters

logger = logging.getLogger(__name__)

FINAL = frozenset({"disposed", "disposed with all", "deleted", "shutdown", OWNED_ELSEWHERE})
"""Reasons to close an agent after which its queue waits for the user."""
INDEX_DELAY = 2.0
"""Seconds after the end of a turn: what is searched for at once is indexed by the search."""
STOP_PATIENCE = 5.0
"""Seconds that another window gets to stop its turn in a conversation that is to be deleted."""
SLOW_SWITCH_MS = 500
"""S003-SWITCH: a switch that takes longer is logged as a warning."""


class SettingsUpdate(msgspec.Struct, frozen=True):
    """What `update_settings` did. With `problems`, nothing."""

    critical: bool
    reinitialized: int = 0
    deferred: int = 0
    problems: tuple[Problem, ...] = ()


class AgentManager:
    """See the module docstring. Serves inside `async with manager.running():`."""

    def __init__(
        self,
        store: ConversationStore,
        journal: Journal,
        *,
        make_provider: MakeProvider,
        make_tools: MakeTools,
        config: Config | None = None,
        session_id: str = "user",
        roots: tuple[str, ...] = (),
        make_undo: MakeUndo | None = None,
    ) -> None:
        self.store = store
        self.journal = journal
        self.session_id = session_id
        self.roots = roots
        self.waiters = Waiters()
        self.rewinding = Rewinding(store, self.runs_here, make_undo)
        self.on_state: Callable[[AgentInfo], None] = lambda _: None
        self.on_degraded: Callable[[str | None], None] = lambda _: None
        self.on_output: OnOutput = unwatched
        self.flusher = Flusher(store, lambda reason: self.on_degraded(reason))
        self.approvals = Approvals(store, journal)
        self.pool = AgentPool(
            store,
            journal,
            self.flusher,
            self.approvals,
            config=config or Config(),
            make_provider=make_provider,
            make_tools=make_tools,
            on_moved=self._agent_moved,
            on_turn_ended=self._answer_agent,
            on_output=lambda *output: self.on_output(*output),
            helpers=HelperAgents(self),
        )
        self.registry = self.pool.registry
        self.capabilities = self.pool.capabilities
        self.communication = AgentCommunication(store, self.capabilities, self.has_agent)
        self._follower = Follower(store, journal, self) if store.is_shared else None
        self._owned_elsewhere: set[str] = set()
        """As far as the follower has seen."""
        self._moved: dict[str, Agent] = {}
        self._news = anyio.Event()
        self._to_index = anyio.Event()
        journal.listen(self._on_event)

    @property
    def config(self) -> Config:
        return self.pool.config

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AgentManager]:
        """Serve until the block ends; then every turn is ended and every agent closed, and who
        still waits is told that the prompt is kept."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.flusher.run, name="flusher")
            tasks.start_soon(self._announce, name="agent states")
            tasks.start_soon(self._index, name="search index")
            tasks.start_soon(self.pool.run, name="pool")
            if self._follower is not None:
                tasks.start_soon(self._follower.run, name="follower")
            try:
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self.pool.close_all("shutdown", turn_end=StopReason.INTERRUPTED)
                self.waiters.fail_all(
                    InvalidState(
                        "The sidecar is shutting down; the prompt stays in the queue.",
                        retryable=True,
                    )
                )
                tasks.cancel_scope.cancel()

    # ---- agents ----

    async def get_or_create_agent(
        self,
        conversation_id: str,
        mode: AgentMode | None = None,
        *,
        create: bool = True,
        request_key: str | None = None,
    ) -> AgentInfo:
        """The conversation's live agent, made if there is none (S003-LIFECYCLE).

        Raises `NotFound` if the conversation is unknown and `create` is false, `LimitReached`
        when all agents stay busy for `agentWaitTimeout`, and otherwise `CreationFailed` or
        what kept the provider from starting.
        """
        conversation = await self._conversation(conversation_id, mode, create, request_key)
        agent = await self.pool.live_agent(conversation)
        agent.touch()
        return self._info(agent, conversation)

    async def dispose_agent(self, conversation_id: str, reason: str = "disposed") -> None:
        """Free an agent; absent is a no-op. Its running turn is cancelled and answered, its
        queued prompts stay, and who waits for one of those is told so."""
        self.pool.unschedule(conversation_id)
        agent = self.registry.get(conversation_id)
        if agent is not None:
            agent.close(reason, now=True)
            await agent.closed()
        self.waiters.fail_conversation(
            conversation_id,
            InvalidState(
                "The agent was disposed; the prompt stays in the queue.",
                conversation_id=conversation_id,
                hint="It runs when the conversation is used again.",
                retryable=True,
            ),
        )

    async def dispose_all_agents(self) -> tuple[int, tuple[str, ...]]:
        """Free all agents in parallel, going on after failures; returns how many, and the ids
        for which it failed."""
        failed: list[str] = []
        agents = list(self.registry)

        async def dispose(conversation_id: str) -> None:
            try:
                await self.dispose_agent(conversation_id, "disposed with all")
            except AgentError:
                logger.exception("disposal failed", extra={"conversationId": conversation_id})
                failed.append(conversation_id)

        async with anyio.create_task_group() as tasks:
            for agent in agents:
                tasks.start_soon(dispose, agent.conversation_id)
        logger.info("disposed all", extra={"disposed": len(agents), "failed": len(failed)})
        return len(agents) - len(failed), tuple(failed)

    async def abort_and_restart_agent(self, conversation_id: str) -> AgentInfo:
        """Kill a hung agent and make a new one with the same mode and the stored history. The
        running prompt ends as cancelled, the queue stays. Works when none is live."""
        await self.store.get(conversation_id)
        logger.warning("abort", extra={"conversationId": conversation_id})
        with Stopwatch() as watch:
            agent = self.registry.get(conversation_id)
            if agent is not None:
                agent.close("aborted", now=True)
                await agent.closed()
            conversation = await self.store.get(conversation_id)
            fresh = await self.pool.live_agent(conversation)
        logger.warning(
            "restarted",
            extra={
                "conversationId": conversation_id,
                "mode": fresh.mode,
                "durationMs": watch.ms,
            },
        )
        return self._info(fresh, conversation)

    async def cancel_turn(self, conversation_id: str) -> bool:
        """Stop the running turn only; returns when it has ended. False when there is none."""
        agent = self.registry.get(conversation_id)
        if agent is not None and agent.cancel_turn():
            await agent.turn_over()
            return True
        message_id = await self.store.request_cancel(conversation_id) if self._follower else None
        if message_id is None:
            return False
        waiter = self.waiters.wait_for(conversation_id, message_id)
        try:
            await waiter.result()
        finally:
            self.waiters.forget(waiter)
        return True

    def has_agent(self, conversation_id: str) -> bool:
        agent = self.registry.get(conversation_id)
        return agent is not None and agent.is_live

    def active_agent_count(self) -> int:
        return len(self.registry)

    async def list_agents(self) -> tuple[AgentInfo, ...]:
        infos = [await self.agent_info(agent) for agent in self.registry]
        return tuple(info for info in infos if info is not None)

    async def agent_info(self, agent: Agent) -> AgentInfo | None:
        """None when the agent's conversation has been deleted."""
        try:
            return self._info(agent, await self.store.get(agent.conversation_id))
        except NotFound:
            return None

    def _info(self, agent: Agent, conversation: Conversation) -> AgentInfo:
        return AgentInfo(
            conversation_id=agent.conversation_id,
            mode=agent.mode,
            state=agent.state,
            created_at=agent.created_at,
            last_access_at=agent.last_access_at,
            queue_length=conversation.queue_length,
            is_processing=agent.turn is not None,
            message_count=conversation.message_count,
            capabilities=self.capabilities.of(agent.conversation_id),
            owned_here=agent.conversation_id not in self._owned_elsewhere,
        )

    # ---- messages ----

    async def enqueue(
        self,
        conversation_id: str,
        prompt: Prompt,
        *,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> Receipt:
        """Store a prompt and return; it runs as soon as an agent is free. Never fails for the
        limit of agents. Raises `CommunicationFailed` for an unknown conversation."""
        try:
            receipt = await self.store.enqueue(
                conversation_id,
                prompt,
                limit=self.config.settings.max_queue_length,
                request_key=request_key,
                params_hash=params_hash,
            )
        except NotFound as error:
            raise CommunicationFailed(
                "There is no such conversation.",
                conversation_id=conversation_id,
                hint="Create it first with conversation/create.",
            ) from error
        logger.info(
            "message queued",
            extra={
                "conversationId": conversation_id,
                "messageId": receipt.message_id,
                "position": receipt.position,
                "duplicate": receipt.duplicate,
            },
        )
        if not receipt.duplicate:
            self.waiters.expect(conversation_id, receipt.message_id)
        self.pool.schedule(conversation_id)
        return receipt

    async def send_message(
        self,
        conversation_id: str,
        prompt: Prompt,
        *,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> TurnResult:
        """Store a prompt and wait until its turn has ended (S003-SEND).

        A repeat of a request key waits for the same end. Being cancelled here cancels what this
        call admitted and then returns how that ended. Raises the turn's own error if it failed.
        """
        receipt = await self.enqueue(
            conversation_id, prompt, request_key=request_key, params_hash=params_hash
        )
        waiter = self.waiters.wait_for(conversation_id, receipt.message_id)
        try:
            result = await self._turn_result(waiter, receipt)
        except anyio.get_cancelled_exc_class():
            if receipt.duplicate:
                self.waiters.forget(waiter)
                raise
            with anyio.CancelScope(shield=True):
                await self.cancel_message(conversation_id, receipt.message_id)
                result = await waiter.result()
        if result.stop_reason is StopReason.ERROR and result.error is not None:
            raise error_of(result.error, conversation_id)
        return result

    async def _turn_result(self, waiter: Waiter, receipt: Receipt) -> TurnResult:
        if receipt.duplicate:
            known = await self.store.known_key(waiter.conversation_id, receipt.message_id)
            if known.result is not None:
                waiter.settle(known.result)
        elif found := problems(self.config):
            waiter.settle(
                InitializationFailed(
                    f"{found[0].message} The prompt is kept and runs once that is mended.",
                    conversation_id=waiter.conversation_id,
                    hint=found[0].hint,
                    retryable=True,
                )
            )
        return await waiter.result()

    async def cancel_message(self, conversation_id: str, message_id: str) -> TurnResult | None:
        """Take a prompt out of the queue, or stop its turn if it runs already (None: its
        `turnEnded` tells how it ended)."""
        result = await self.store.cancel_entry(message_id)
        if result is None:
            agent = self.registry.get(conversation_id)
            is_ours = agent is not None and agent.cancel_turn(of=message_id)
            if not is_ours and self._follower is not None:
                await self.store.request_cancel(conversation_id, message_id)
        return result

    async def remove_message(self, message_id: str) -> TurnResult:
        """Take a prompt out of the queue. Raises `InvalidState` when it runs already."""
        result = await self.store.cancel_entry(message_id)
        if result is None:
            raise InvalidState(
                "The prompt runs already.", hint="Stop it with agent/cancel instead."
            )
        return result

    async def retry_message(self, message_id: str) -> Receipt:
        """Queue an ended prompt again under a new messageId, and run it."""
        conversation_id, receipt = await self.store.retry(message_id)
        self.waiters.expect(conversation_id, receipt.message_id)
        self.pool.schedule(conversation_id)
        return receipt

    async def steer(self, conversation_id: str, text: str, expected_turn_id: str) -> None:
        """Add to the running turn. Raises `Conflict` if another turn runs, or none."""
        agent = self.registry.get(conversation_id)
        turn = agent.turn if agent else None
        if turn is None or turn.started.turn_id != expected_turn_id:
            raise Conflict(
                "That turn is not running (any more).",
                conversation_id=conversation_id,
                hint="Send it as a message of its own.",
            )
        await turn.steer(text)

    async def send_to(
        self,
        from_id: str,
        to_id: str,
        text: str,
        *,
        capability: str | None = None,
        request_key: str | None = None,
        params_hash: bytes = b"",
    ) -> Receipt:
        """Put one agent's message into another's queue; the answer comes back the same way."""
        prompt = await self.communication.message(
            from_id, to_id, text, capability, self._asking(from_id)
        )
        return await self.enqueue(to_id, prompt, request_key=request_key, params_hash=params_hash)

    def _asking(self, conversation_id: str) -> Asking:
        """With what rights an agent writes: those that its turn has now, or its mode gives it."""
        agent = self.registry.get(conversation_id)
        if agent is None or agent.turn is None:
            return Asking((), (agent.mode,) if agent else (), new_id())
        started = agent.turn.started
        origin = started.entry.prompt.origin
        if origin is None:
            return Asking((), (started.mode,), started.entry.message_id)
        return Asking(
            origin.chain,
            tuple(dict.fromkeys((*origin.rights, started.mode))),
            origin.root or started.entry.message_id,
        )

    def others(self, than: str) -> tuple[tuple[str, tuple[AgentCapability, ...]], ...]:
        """The other live agents and what they can do."""
        ids = (agent.conversation_id for agent in self.registry if agent.is_live)
        return tuple((id_, self.capabilities.of(id_)) for id_ in ids if id_ != than)

    # ---- conversations ----

    def new_conversation(
        self,
        conversation_id: str | None = None,
        mode: AgentMode = AgentMode.CHAT,
        title: str | None = None,
    ) -> NewConversation:
        """A conversation of this session and workspace, ready to be stored."""
        return NewConversation(
            conversation_id=conversation_id or new_id(),
            mode=mode,
            session_id=self.session_id,
            title=title,
            roots=self.roots,
        )

    async def switch_conversation(
        self, from_id: str | None, to_id: str, mode: AgentMode | None = None
    ) -> AgentInfo:
        """Get or make the target's agent; warns in the log when it takes over 500 ms."""
        with Stopwatch() as watch:
            info = await self.get_or_create_agent(to_id, mode)
        logger.log(
            logging.WARNING if watch.ms > SLOW_SWITCH_MS else logging.INFO,
            "conversation switched",
            extra={
                "fromConversationId": from_id,
                "conversationId": to_id,
                "mode": info.mode,
                "durationMs": watch.ms,
            },
        )
        return info

    async def set_mode(self, conversation_id: str, mode: AgentMode) -> Conversation:
        """Change the mode. A turn that runs keeps the rights that it began with."""
        return await self.store.set_mode(conversation_id, mode)

    async def delete_conversation(self, conversation_id: str) -> None:
        """Stop what runs, answer who waits, remove every trace, and what helped it."""
        for helper in await self.store.helpers(conversation_id):
            await self.delete_conversation(helper)
        for entry in await self.store.queue(conversation_id):
            if entry.state is not QueueState.RUNNING:
                await self.store.cancel_entry(entry.message_id)
        await self.dispose_agent(conversation_id, "deleted")
        with anyio.move_on_after(STOP_PATIENCE):
            await self.cancel_turn(conversation_id)  # of another window
        await self.store.delete(conversation_id)
        self.journal.forget(conversation_id)

    async def take_over(self, conversation_id: str, *, force: bool) -> AgentInfo:
        """Own the conversation, and run here what waits in it. Raises `Conflict` while another
        living window owns it, unless `force`: then what that one does is refused from now on."""
        await self.store.take_over(conversation_id, force=force)
        self._owned_elsewhere.discard(conversation_id)
        self.pool.schedule(conversation_id)
        return await self.get_or_create_agent(conversation_id, create=False)

    async def resume(self, conversation: Conversation) -> None:
        """A client reads this conversation: run what an earlier process left in its queue."""
        if conversation.queue_length and self.store.degraded is None:
            self.pool.schedule(conversation.conversation_id)

    # ---- settings ----

    async def update_settings(self, new: Config, *, force: bool = False) -> SettingsUpdate:
        """Apply settings; remake agents when a critical *value* changed (S003-SETTINGS).

        Problems are found before anything is disposed, and then nothing is applied. Agents with
        a running turn are remade after it, unless `force`.
        """
        critical = self.config.differs_critically(new)
        if critical and (found := problems(new)):
            logger.warning("settings refused", extra={"fields": [p.field for p in found]})
            return SettingsUpdate(critical, problems=tuple(found))
        self.pool.config = new
        self.pool.enforce_limit()
        log.set_level(new.settings.log_level)
        done, deferred = await self.reinitialize_agents(force=force) if critical else (0, 0)
        logger.info(
            "settings updated",
            extra={"critical": critical, "reinitialized": done, "deferred": deferred},
        )
        self.pool.release_held()
        return SettingsUpdate(critical, done, deferred)

    async def forget_secrets(self) -> None:
        """The user takes the keys back: no agent has them any more, also none that is at work."""
        self.pool.config = Config(settings=self.config.settings)
        await self.reinitialize_agents(force=True)

    async def reinitialize_agents(self, *, force: bool = False) -> tuple[int, int]:
        """Close all agents, each after its running turn; what is queued, and the next request,
        gets new ones made from the current settings. Returns how many closed, how many will."""
        before = len(self.registry)
        counts = await self.pool.remake(force=force)
        logger.info("reinitialized", extra={"before": before, "after": len(self.registry)})
        return counts

    # ---- capabilities ----

    def register_capability(self, conversation_id: str, capability: AgentCapability) -> None:
        """Add a capability to a live agent. Raises `NotFound` when there is none."""
        if not self.has_agent(conversation_id):
            raise NotFound(
                "There is no live agent for this conversation.",
                conversation_id=conversation_id,
                hint="Make one with agent/getOrCreate.",
            )
        count = self.capabilities.register(conversation_id, capability)
        logger.info(
            "capability registered",
            extra={
                "conversationId": conversation_id,
                "capability": capability.name,
                "count": count,
            },
        )

    # ---- webviews ----

    async def preserve(self) -> tuple[tuple[PreservedState, ...], tuple[Failure, ...]]:
        """What is live, for a webview that goes away. Turns go on; nothing is stopped."""
        states: list[PreservedState] = []
        failed: list[Failure] = []
        for agent in self.registry:
            try:
                conversation = await self.store.get(agent.conversation_id)
            except AgentError as error:
                failed.append(failure(agent.conversation_id, error))
                continue
            states.append(
                PreservedState(
                    conversation_id=agent.conversation_id,
                    mode=agent.mode,
                    message_count=conversation.message_count,
                    last_access_at=agent.last_access_at,
                    capabilities=self.capabilities.of(agent.conversation_id),
                    last_seq=conversation.last_seq,
                    state=agent.state,
                )
            )
        logger.info("agents preserved", extra={"preserved": len(states), "failed": len(failed)})
        return tuple(states), tuple(failed)

    # ---- what happens ----

    async def _conversation(
        self,
        conversation_id: str,
        mode: AgentMode | None,
        create: bool,
        request_key: str | None,
    ) -> Conversation:
        try:
            conversation = await self.store.get(conversation_id)
        except NotFound:
            if not create:
                raise
            new = self.new_conversation(conversation_id, mode or AgentMode.CHAT)
            try:
                return await self.store.create(new, request_key)
            except Conflict:  # another caller was first; its conversation is the one
                conversation = await self.store.get(conversation_id)
        if mode is not None and conversation.mode != mode:
            conversation = await self.set_mode(conversation_id, mode)
        return conversation

    def _on_event(self, event: DurableEvent) -> None:
        agent = self.registry.get(event.conversation_id)
        if isinstance(event, TurnEnded):
            self._to_index.set()
            self.waiters.settle(
                TurnResult(
                    message_id=event.message_id,
                    turn_id=event.turn_id,
                    stop_reason=event.stop_reason,
                    usage=event.usage,
                    reply_id=event.reply_id,
                    error=event.error,
                )
            )
        if agent is None:
            return
        if isinstance(event, ModeChanged):
            agent.mode = event.mode
        elif isinstance(event, TurnEnded) and event.turn_id is not None:
            agent.ended_elsewhere(event.turn_id)
        elif isinstance(event, Rewound):
            agent.history.forget()
        elif isinstance(event, QueueChanged) and event.reason == CANCEL_REQUESTED:
            agent.cancel_turn(of=event.message_id)
        self._agent_moved(agent)

    def _agent_moved(self, agent: Agent) -> None:
        """Something of the agent's public state changed. Work that reached an agent when it was
        already closing is not stranded with it: the pool looks at its queue again."""
        self._moved[agent.conversation_id] = agent
        self._news.set()
        if agent.is_live:
            return
        if agent.error is not None:
            self.waiters.fail_conversation(agent.conversation_id, agent.error)
        elif agent.close_reason not in FINAL:
            self.pool.schedule(agent.conversation_id)

    async def drain(self) -> None:
        """Start no turn any more, and leave what waits to the other windows."""
        self.pool.drain()
        if self._follower is not None and self.store.degraded is None:
            try:
                await self.store.hand_over()
            except AgentError as error:
                logger.warning("nothing could be handed over", extra={"cause": error.message})

    # ---- other windows ----

    def concerns_us(self, conversation_id: str) -> bool:
        return (
            self.journal.has_readers(conversation_id)
            or self.registry.get(conversation_id) is not None
            or self.waiters.has(conversation_id)
        )

    def runs_here(self, conversation_id: str) -> bool:
        agent = self.registry.get(conversation_id)
        return agent is not None and agent.turn is not None

    def was_changed(self, changed: ChangedConversation) -> None:
        """Another window may have queued a prompt for a conversation that is ours to serve, or
        have taken over one that was."""
        conversation_id = changed.conversation_id
        if changed.owned_here and changed.queue_length:
            self.pool.schedule(conversation_id)
        if changed.owned_elsewhere == (conversation_id in self._owned_elsewhere):
            return
        if changed.owned_elsewhere:
            self._owned_elsewhere.add(conversation_id)
        else:
            self._owned_elsewhere.discard(conversation_id)
        if agent := self.registry.get(conversation_id):
            self._agent_moved(agent)

    def was_deleted(self, conversation_id: str) -> None:
        self._owned_elsewhere.discard(conversation_id)
        self.pool.unschedule(conversation_id)
        if agent := self.registry.get(conversation_id):
            agent.close("deleted", now=True)
        self.waiters.fail_conversation(
            conversation_id,
            NotFound("The conversation was deleted.", conversation_id=conversation_id),
        )
        self.journal.cut_off(conversation_id)

    def was_orphaned(self, conversation_id: str) -> None:
        self.pool.schedule(conversation_id)

    async def has_gap(self, conversation_id: str) -> None:
        for message_id in self.waiters.of(conversation_id):
            known = await self.store.known_key(conversation_id, message_id)
            if known.result is not None:
                self.waiters.settle(known.result)
        agent = self.registry.get(conversation_id)
        turn = agent.turn if agent else None
        if agent is None or turn is None:
            return
        known = await self.store.known_key(conversation_id, turn.started.entry.message_id)
        if known.result is not None:
            agent.ended_elsewhere(turn.started.turn_id)

    async def _announce(self) -> None:
        """Send `agent/state` for agents that changed; the latest wins, so many become one."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            moved, self._moved = self._moved, {}
            for agent in moved.values():
                try:
                    info = await self.agent_info(agent)
                except AgentError:
                    logger.warning(
                        "an agent's state could not be read",
                        extra={"conversationId": agent.conversation_id},
                    )
                else:
                    if info is not None:
                        self.on_state(info)

    async def _index(self) -> None:
        """Bring finished messages into the search index, a while after turns have ended."""
        while True:
            await self._to_index.wait()
            self._to_index = anyio.Event()
            await anyio.sleep(INDEX_DELAY)
            try:
                await self.store.index_pending()
            except AgentError as error:
                logger.warning("messages could not be indexed", extra={"cause": error.message})

    async def _answer_agent(self, started: StartedTurn, outcome: TurnOutcome) -> None:
        self.communication.turn_ended(started, outcome)
        if (answer := answer_to(started, outcome)) is None:
            return
        to_id, prompt = answer
        key = f"reply.{started.entry.message_id}"
        try:
            await self.enqueue(to_id, prompt, request_key=key, params_hash=key.encode()[-16:])
        except AgentError as error:
            logger.warning(
                "an agent's answer could not be delivered",
                extra={"conversationId": to_id, "cause": error.message},
            )


def failure(conversation_id: str, error: AgentError) -> Failure:
    return Failure(conversation_id=conversation_id, type=error.type, message=error.message)
