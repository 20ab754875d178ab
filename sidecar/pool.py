"""AgentPool: makes agents where there is work, within the limit, and frees the idle ones.

The registry decides, the pool acts. A conversation whose prompts wait is never forgotten: it is
in `_ready` until an agent has taken it up, or in `_held` until the settings allow one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
from anyio.abc import TaskGroup

from .agent import Agent
from .approvals import Approvals
from .capabilities import CapabilityRegistry, capability_of
from .conversations import Conversation, StopReason
from .errors import AgentError, CreationFailed, LimitReached, NotFound
from .ids import now_ms
from .interfaces import ConversationStore, ModelProvider, StartedTurn, Tool, TurnOutcome
from .journal import Journal
from .lifecycle import AgentState
from .registry import AgentRegistry
from .reply import RETRY_INTERVAL, Flusher
from .settings import Config, problems
from .toolbox import Toolbox
from .turn import Helpers, OnOutput

logger = logging.getLogger(__name__)

SWEEP_INTERVAL = 300.0
"""Seconds between looks for idle agents (S003-RESOURCES)."""
READER_PATIENCE = 4
"""An agent that somebody reads is kept this many times as long as one nobody reads."""
SHUTDOWN_TIMEOUT = 4.0
"""Seconds; the process has five in all (P7), and a store that refuses may do so for longer."""
NEEDS_PROVIDER = "needsProvider"

MakeProvider = Callable[[Config], ModelProvider]
MakeTools = Callable[[Conversation], Toolbox]
OnMoved = Callable[[Agent], None]
OnTurnEnded = Callable[[StartedTurn, TurnOutcome], Awaitable[None]]


class AgentPool:
    """All agents of this process. `run` must be running for any of this to make progress."""

    def __init__(
        self,
        store: ConversationStore,
        journal: Journal,
        flusher: Flusher,
        approvals: Approvals,
        *,
        config: Config,
        make_provider: MakeProvider,
        make_tools: MakeTools,
        on_moved: OnMoved,
        on_turn_ended: OnTurnEnded,
        on_output: OnOutput,
        helpers: Helpers,
    ) -> None:
        self.store = store
        self.journal = journal
        self.flusher = flusher
        self.approvals = approvals
        self.config = config
        self.registry = AgentRegistry(config.settings.max_active_agents)
        self.capabilities = CapabilityRegistry()
        self._make_provider = make_provider
        self._make_tools = make_tools
        self._on_moved = on_moved
        self._on_turn_ended = on_turn_ended
        self.on_output = on_output
        self.helpers: Helpers | None = helpers
        self._ready: dict[str, object] = {}
        """In order; the value is another one each time that there is word of work."""
        self._held: dict[str, None] = {}
        self._tasks: TaskGroup | None = None
        self._closing = False
        self._is_draining = False

    async def run(self) -> None:
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._place_ready, name="scheduler")
            self._tasks.start_soon(self._sweep_for_ever, name="sweep")

    # ---- what an agent asks of its host ----

    def make_provider(self, config: Config) -> ModelProvider:
        return self._make_provider(config)

    def make_tools(self, conversation: Conversation) -> Toolbox:
        return self._make_tools(conversation)

    def tools_changed(self, agent: Agent, tools: Mapping[str, Tool]) -> None:
        """What an agent can do follows the tools that it has."""
        if self.registry.get(agent.conversation_id) is agent:
            self.capabilities.replace_tools(
                agent.conversation_id, map(capability_of, tools.values())
            )

    def agent_moved(self, agent: Agent) -> None:
        if not agent.is_live:
            self._forget(agent)
        elif agent.state is AgentState.IDLE and not self.registry.is_within_limit:
            self._close_surplus()  # the limit was lowered while it was busy
        self.registry.notify()
        self._on_moved(agent)

    async def turn_ended(self, started: StartedTurn, outcome: TurnOutcome) -> None:
        await self._on_turn_ended(started, outcome)

    # ---- agents on demand ----

    async def live_agent(self, conversation: Conversation) -> Agent:
        """The conversation's agent, started. Waits for a place for `agentWaitTimeout` at most,
        then raises `LimitReached`; raises what kept the agent from starting."""
        timeout = self.config.settings.agent_wait_timeout / 1000
        with anyio.move_on_after(timeout):
            while True:
                agent = self._agent_or_place(conversation)
                if agent is not None and agent.accepts_work:
                    await agent.started.wait()
                    if agent.error is not None:
                        raise agent.error
                    if agent.is_live:
                        return agent
                elif agent is not None:
                    await agent.ended.wait()
                else:
                    await self.registry.changed.wait()
        raise LimitReached(
            f"No agent came free: {len(self.registry)} of {self.registry.limit} are in use.",
            conversation_id=conversation.conversation_id,
            hint="Try again when a turn has ended, or raise maxActiveAgents.",
        )

    def _agent_or_place(self, conversation: Conversation) -> Agent | None:
        """The conversation's agent; else a new one if there is a place; else None, and the
        least recently used quiescent agent (if any) was told to close. Decided in one go."""
        agent = self.registry.get(conversation.conversation_id)
        if agent is not None:
            return agent
        if self.registry.has_room:
            return self._spawn(conversation)
        making_room = any(a.close_reason and a.turn is None for a in self.registry)
        if not making_room and (victim := self.registry.least_recently_used()):
            victim.close("least recently used", now=False)
        return None

    def _spawn(self, conversation: Conversation) -> Agent:
        if self._tasks is None or self._closing:
            raise CreationFailed(
                "The agent pool is not running.",
                conversation_id=conversation.conversation_id,
                retryable=True,
            )
        self.journal.begin(conversation.conversation_id, conversation.last_seq)
        agent = Agent(conversation, self.config, self)
        self.registry.add(agent)
        self._ready.pop(conversation.conversation_id, None)
        self._tasks.start_soon(agent.run, name=f"agent {conversation.conversation_id}")
        logger.info(
            "agent created",
            extra={"conversationId": agent.conversation_id, "mode": agent.mode},
        )
        return agent

    def _forget(self, agent: Agent) -> None:
        if self.registry.get(agent.conversation_id) is agent:
            self.capabilities.drop(agent.conversation_id)
        self.registry.discard(agent)
        logger.info(
            "agent disposed",
            extra={
                "conversationId": agent.conversation_id,
                "mode": agent.mode,
                "reason": agent.close_reason or (agent.error and agent.error.type) or "ended",
                "lifetimeMs": now_ms() - agent.created_at,
                "turns": agent.turns,
            },
        )

    # ---- work without an agent ----

    @property
    def waiting(self) -> int:
        return len(self._ready) + len(self._held)

    def schedule(self, conversation_id: str) -> None:
        """There is, or may be, work in this conversation's queue."""
        agent = self.registry.get(conversation_id)
        if agent is not None and agent.accepts_work:
            agent.wake()
        elif not self._is_draining:
            self._ready[conversation_id] = object()
            self.registry.notify()

    def unschedule(self, conversation_id: str) -> None:
        self._ready.pop(conversation_id, None)
        self._held.pop(conversation_id, None)

    def release_held(self) -> None:
        """The settings changed: what waited for a provider may go on."""
        for conversation_id in tuple(self._held):
            del self._held[conversation_id]
            self.schedule(conversation_id)

    async def _place_ready(self) -> None:
        """Give each conversation with work an agent as places come free, in order. Waits for
        no single agent: one that does not end holds up nobody but its own conversation."""
        while True:
            changed = self.registry.changed
            failed = False
            for conversation_id in tuple(self._ready):
                try:
                    if not await self._place(conversation_id):
                        break
                except AgentError as error:
                    failed = failed or error.retryable
                    if not error.retryable:
                        self._ready.pop(conversation_id, None)
                    logger.error(
                        "queued prompts cannot run",
                        extra={"conversationId": conversation_id, "cause": error.message},
                    )
            with anyio.move_on_after(RETRY_INTERVAL if failed else None):
                await changed.wait()

    async def _place(self, conversation_id: str) -> bool:
        """Whether there may be a place for the next one in line, too."""
        conversation = await self._workable(conversation_id)
        if conversation is None or conversation_id not in self._ready:
            return True
        agent = self._agent_or_place(conversation)
        if agent is not None and agent.accepts_work:
            self._ready.pop(conversation_id, None)
            agent.wake()
        return agent is not None

    async def _workable(self, conversation_id: str) -> Conversation | None:
        """The conversation, if its queue could run now; else it is dropped or held back."""
        word = self._ready.get(conversation_id)
        try:
            conversation = await self.store.get(conversation_id)
        except NotFound:
            self._ready.pop(conversation_id, None)
            return None
        if not conversation.queue_length:
            if self._ready.get(conversation_id) is word:  # no prompt came while we looked
                self._ready.pop(conversation_id, None)
            return None
        if problems(self.config):
            self._ready.pop(conversation_id, None)
            self._held[conversation_id] = None
            await self.store.hold_entries(conversation_id, NEEDS_PROVIDER)
            return None
        return conversation

    # ---- idle agents, and the end ----

    async def _sweep_for_ever(self) -> None:
        while True:
            due = anyio.current_time() + SWEEP_INTERVAL
            await anyio.sleep(SWEEP_INTERVAL)
            if anyio.current_time() - due > SWEEP_INTERVAL:
                # The machine slept: nobody was idle in that time, so nobody goes for it.
                for agent in self.registry:
                    agent.touch()
                continue
            self.sweep()

    def sweep(self) -> Sequence[Agent]:
        """Close agents that were idle longer than `inactivityTimeout`; those with a reader
        get `READER_PATIENCE` times as long. Returns them."""
        timeout = self.config.settings.inactivity_timeout / 1000
        now = anyio.current_time()
        idle = [
            agent
            for agent in self.registry.idle_since(now - timeout)
            if not self.journal.has_readers(agent.conversation_id)
            or now - agent.last_access >= timeout * READER_PATIENCE
        ]
        for agent in idle:
            agent.close("inactive", now=False)
        return idle

    def enforce_limit(self) -> None:
        self.registry.limit = self.config.settings.max_active_agents
        self._close_surplus()
        self.registry.notify()

    def _close_surplus(self) -> None:
        for agent in self.registry.surplus():
            agent.close("limit lowered", now=False)

    def drain(self) -> None:
        """Start no turn any more; each agent closes after the one that it runs."""
        self._is_draining = True
        for agent in self.registry:
            agent.close("shutdown", now=False)

    async def quiet(self) -> None:
        """Return when no turn runs."""
        while not self.registry.is_quiet:
            await self.registry.changed.wait()

    async def close_all(self, reason: str, *, turn_end: StopReason) -> None:
        """End every turn and close every agent; nothing new is started. What cannot be stored
        by then is left to the recovery at the next start."""
        self._closing = True
        self._ready.clear()
        self._held.clear()
        agents = list(self.registry)
        for agent in agents:
            agent.close(reason, now=True, turn_end=turn_end)
        with anyio.move_on_after(SHUTDOWN_TIMEOUT):
            async with anyio.create_task_group() as tasks:
                for agent in agents:
                    tasks.start_soon(agent.closed)

    async def remake(self, *, force: bool) -> tuple[int, int]:
        """Close all agents, each after its running turn unless `force`. Returns how many are
        closed and how many will be."""
        agents = list(self.registry)
        busy = [a for a in agents if a.state is AgentState.BUSY and not force]
        for agent in agents:
            agent.close("settings changed", now=agent not in busy)
        for agent in agents:
            if agent not in busy:
                await agent.closed()
        return len(agents) - len(busy), len(busy)
