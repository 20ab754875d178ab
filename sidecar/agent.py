"""One conversation's agent: its state, its lifetime task, the turn that it runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import anyio

from .approvals import Approvals
from .conversations import Conversation, StopReason
from .errors import (
    AgentError,
    Conflict,
    CreationFailed,
    InvalidState,
    PersistenceFailed,
    StoreUnavailable,
)
from .history import History
from .ids import now_ms
from .interfaces import ConversationStore, ModelProvider, StartedTurn, Tool, TurnOutcome
from .journal import Journal
from .lifecycle import ENDED, AgentState, after
from .reply import RETRY_INTERVAL, Flusher, Reply
from .settings import Config
from .toolbox import Toolbox
from .turn import Helpers, Turn, turn_error
from .work import BuildTask, FeedbackTask, Task

logger = logging.getLogger(__name__)

OWNED_ELSEWHERE = "owned by another window"

CLOSE_GRACE = 1.5
"""Seconds a hung turn gets to end by itself before it is given up; abort has two in all."""


def turn_kind(task: Task | None) -> type[Turn]:
    """Workflows are imported when the first is asked for."""
    if isinstance(task, FeedbackTask):
        from .workflows.feedback import FeedbackTurn

        return FeedbackTurn
    if isinstance(task, BuildTask):
        from .workflows.build import BuildTurn

        return BuildTurn
    return Turn


class Host(Protocol):
    """What an agent needs of whoever made it."""

    store: ConversationStore
    journal: Journal
    flusher: Flusher
    approvals: Approvals
    config: Config
    helpers: Helpers | None

    def on_output(
        self, conversation_id: str, turn_id: str, tool_call_id: str, text: str
    ) -> None: ...
    def make_provider(self, config: Config) -> ModelProvider: ...
    def make_tools(self, conversation: Conversation) -> Toolbox: ...
    def tools_changed(self, agent: Agent, tools: Mapping[str, Tool]) -> None: ...
    def agent_moved(self, agent: Agent) -> None: ...
    async def turn_ended(self, started: StartedTurn, outcome: TurnOutcome) -> None: ...


class Agent:
    """Serves one conversation until told to close.

    All it owns is entered and left by `run`, its one lifetime task; everything else here is
    plain bookkeeping that decides synchronously. It takes its work from the durable queue: a
    prompt is never in memory only.
    """

    def __init__(self, conversation: Conversation, config: Config, host: Host) -> None:
        self.conversation_id = conversation.conversation_id
        self.mode = conversation.mode
        self.config = config
        self.state = AgentState.NEW
        self.created_at = now_ms()
        self.last_access_at = self.created_at
        self.last_access = anyio.current_time()
        self.turns = 0
        self.error: AgentError | None = None
        self.close_reason: str | None = None
        self.started = anyio.Event()
        self.ended = anyio.Event()
        self.turn: Turn | None = None
        self.toolbox = Toolbox()
        self._conversation = conversation
        self._host = host
        self._provider: ModelProvider | None = None
        self.history = History(host.store, self.conversation_id)
        self._wake = anyio.Event()
        self._lifetime = anyio.CancelScope()
        self._turn_scope: anyio.CancelScope | None = None
        self._turn_end = StopReason.CANCELLED
        self._turn_ended = anyio.Event()
        self._closes_now = False

    def __repr__(self) -> str:
        return f"<Agent {self.conversation_id} {self.state} turns={self.turns}>"

    # ---- asked by the registry ----

    @property
    def is_quiescent(self) -> bool:
        """Nothing would be lost by closing it now: it has no turn, no child process, and was
        not told of work."""
        return (
            self.state is AgentState.IDLE
            and self.close_reason is None
            and not self._wake.is_set()
            and not self.toolbox.is_busy
        )

    @property
    def is_live(self) -> bool:
        return self.state not in ENDED

    @property
    def accepts_work(self) -> bool:
        return self.is_live and self.close_reason is None and self.state is not AgentState.CLOSING

    @property
    def takes_place(self) -> bool:
        """Whether it counts in the limit. Not while it waits for others that do."""
        return self.turn is None or not self.turn.delegates

    def touch(self) -> None:
        self.last_access = anyio.current_time()
        self.last_access_at = now_ms()

    # ---- told by the manager ----

    def wake(self) -> None:
        """There may be work in the queue."""
        self._wake.set()

    def cancel_turn(
        self, reason: StopReason = StopReason.CANCELLED, *, of: str | None = None
    ) -> bool:
        """Stop the running turn, if there is one (and it is that of the prompt `of`); its end is
        committed by the lifetime task."""
        if self._turn_scope is None or self.turn is None:
            return False
        if of is not None and self.turn.started.entry.message_id != of:
            return False
        self._turn_end = reason
        self._turn_scope.cancel()
        return True

    def ended_elsewhere(self, turn_id: str) -> None:
        """Another window has put an end to this turn: whatever it still does is refused, and
        nobody is to see more of it."""
        if self.turn is not None and self.turn.started.turn_id == turn_id:
            self.turn.reply.close()
            self.cancel_turn(StopReason.INTERRUPTED)

    def close(self, reason: str, *, now: bool, turn_end: StopReason = StopReason.CANCELLED) -> None:
        """Close after the running turn, or at once. Repeating it with `now` hurries it up."""
        if self.close_reason is None or (now and not self._closes_now):
            self.close_reason = reason
        if now:
            self._closes_now = True
            self._turn_end = turn_end
            self.cancel_turn(turn_end)
            if self.state is AgentState.STARTING:
                self._lifetime.cancel()
        self._wake.set()

    async def closed(self) -> None:
        """Wait for the end after `close` with `now`; what hangs is given up."""
        with anyio.move_on_after(CLOSE_GRACE):
            await self.ended.wait()
        if self.is_live:
            await self.give_up()

    async def give_up(self) -> None:
        """Stop waiting for a turn that does not stop. What it still does is fenced off: its
        turn is ended here, so the store refuses whatever it writes later."""
        turn = self.turn
        self._lifetime.cancel()
        if self.is_live:
            self._move("fail")
        if turn is not None:
            turn.reply.close()
            await self._commit_end(turn.started, turn.outcome(self._turn_end))
        self._finish()

    async def turn_over(self) -> None:
        """Wait until the turn that runs now (if any) has ended."""
        if self.state is AgentState.BUSY:
            await self._turn_ended.wait()

    # ---- the lifetime task ----

    async def run(self) -> None:
        """Start, serve the queue, clean up. Never raises: one agent must not harm another."""
        with self._lifetime:
            try:
                await self._start()
                while self.close_reason is None:
                    await self._wake.wait()
                    self._wake = anyio.Event()
                    await self._serve_queue()
            except AgentError as error:
                self.error = error
            except Exception as error:
                logger.exception("an agent failed", extra={"conversationId": self.conversation_id})
                self.error = CreationFailed(
                    "The agent failed unexpectedly.", conversation_id=self.conversation_id
                )
                self.error.__cause__ = error
        await self._clean_up()

    async def _start(self) -> None:
        self._move("start")
        self.toolbox = self._host.make_tools(self._conversation)
        self._host.tools_changed(self, self.toolbox.own)
        self._provider = self._host.make_provider(self.config)
        self._move("started")
        self.started.set()
        self.wake()

    async def _serve_queue(self) -> None:
        while self.close_reason is None:
            # BUSY before the claim: nobody may evict us between the two.
            self._move("work")
            self._turn_ended = anyio.Event()
            try:
                worked = await self._one_turn()
            finally:
                self.turn = None
                self._turn_ended.set()
                if self.state is AgentState.BUSY:
                    self._move("rest")
            if not worked:
                return

    async def _one_turn(self) -> bool:
        store = self._host.store
        assert self._provider is not None
        await self.history.load()
        tools = await self.toolbox.current()
        if self.close_reason is not None:  # told so meanwhile: the queue is for the next one
            return False
        try:
            started = await store.start_turn(self.conversation_id, self._provider.name)
        except Conflict:
            # Another window owns the conversation and runs its prompts, this one among them.
            self.close_reason = OWNED_ELSEWHERE
            return False
        except (PersistenceFailed, StoreUnavailable) as error:
            # The prompt is safe in the queue; take it once the store takes commits again.
            self._host.flusher.failed(error)
            await anyio.sleep(RETRY_INTERVAL)
            return True
        if started is None:
            return False
        self.turns += 1
        self.mode = started.mode
        self._host.tools_changed(self, tools)
        self.touch()
        reply = Reply(self._host.journal, self.conversation_id, started.turn_id, started.reply_id)
        self.turn = turn_kind(started.entry.prompt.task)(
            started,
            reply,
            settings=self._host.config.settings,
            provider=self._provider,
            tools=tools,
            store=store,
            flusher=self._host.flusher,
            approvals=self._host.approvals,
            on_output=self._host.on_output,
            helpers=self._host.helpers,
        )
        if self.turn.delegates:
            self._host.agent_moved(self)  # its place is free
        try:
            return await self._finish_turn(started, self.turn, reply)
        finally:
            self._host.flusher.ended(reply)

    async def _finish_turn(self, started: StartedTurn, turn: Turn, reply: Reply) -> bool:
        try:
            outcome = await self._run_turn(turn, reply)
        except anyio.get_cancelled_exc_class():
            # Given up while the prompt was being taken up: nobody else knows of this turn.
            with anyio.CancelScope(shield=True):
                await self._commit_end(started, turn.outcome(self._turn_end))
            raise
        if await self._commit_end(started, outcome):
            self.history.add(started, outcome)
            self.touch()
            await self._host.turn_ended(started, outcome)
        return True

    async def _run_turn(self, turn: Turn, reply: Reply) -> TurnOutcome:
        reason, failure = StopReason.CANCELLED, None
        self._host.flusher.attach(reply)
        watch = now_ms()
        try:
            with anyio.CancelScope() as self._turn_scope:
                if self._closes_now:  # told so while the prompt was being taken up
                    self._turn_scope.cancel()
                try:
                    reason = await turn.run(await self.history.before(turn.started))
                except AgentError as error:
                    reason, failure = StopReason.ERROR, turn_error(error)
            if self._turn_scope.cancelled_caught:
                reason, failure = self._turn_end, None
                await self.toolbox.end_background()
        finally:
            self._turn_scope = None
            self._host.flusher.detach(reply)
        logger.info(
            "turn ended",
            extra={
                "conversationId": self.conversation_id,
                "mode": self.mode,
                "stopReason": reason,
                "durationMs": now_ms() - watch,
                **({"type": failure.type, "cause": failure.message} if failure else {}),
            },
        )
        return turn.outcome(reason, failure)

    async def _commit_end(self, started: StartedTurn, outcome: TurnOutcome) -> bool:
        """Commit the end of a turn; while the store refuses, wait and try again, for nobody
        may hear of an end that is not stored. False when somebody else had ended it."""
        flusher = self._host.flusher
        while True:
            try:
                await self._host.store.end_turn(self.conversation_id, started.turn_id, outcome)
            except InvalidState:
                logger.info(
                    "a turn had been ended by somebody else",
                    extra={"conversationId": self.conversation_id},
                )
                self.history.forget()
                return False
            except (PersistenceFailed, StoreUnavailable) as error:
                flusher.failed(error)
                await anyio.sleep(RETRY_INTERVAL)
            else:
                flusher.recovered()
                return True

    async def _clean_up(self) -> None:
        failed = self.error is not None and self.state is AgentState.STARTING
        if self.is_live and not failed:
            self._move("close")
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            # Five seconds: longer than any provider needs to drop its connections.
            if self._provider is not None:
                try:
                    await self._provider.aclose()
                except Exception:
                    logger.exception("a provider did not close")
            await self.toolbox.end_background()
            await self._release()
        if self.is_live:
            self._move("fail" if failed else "closed")
        self._finish()

    async def _release(self) -> None:
        """Leave the conversation to whichever window uses it next."""
        try:
            await self._host.store.release(self.conversation_id)
        except AgentError as error:
            logger.info(
                "a conversation could not be released",
                extra={"conversationId": self.conversation_id, "cause": error.message},
            )

    def _finish(self) -> None:
        self._history = None  # megabytes, and we may be garbage for a while before it is collected
        self.started.set()
        self.ended.set()

    def _move(self, event: str) -> None:
        self.state = after(self.state, event)
        self._host.agent_moved(self)
