"""One prompt turn: call the model, run its tools, call it again, until it stops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol

import anyio
import msgspec

from .approvals import Approvals
from .conversations import (
    AgentMode,
    Message,
    MessageSettings,
    MessageStatus,
    Prompt,
    QueueState,
    SteeringPart,
    StopReason,
    ToolCallPart,
    ToolResultPart,
    TurnError,
    Usage,
)
from .errors import AgentError, MessageProcessingFailed, NetworkError
from .gate import Gate
from .interfaces import (
    ConversationStore,
    ModelProvider,
    ModelRequest,
    ModelStop,
    ModelUsage,
    StartedTurn,
    Subject,
    TextDelta,
    Tool,
    ToolCall,
    ToolOutput,
    ToolUse,
    TurnOutcome,
)
from .reply import Flusher, Reply
from .retry import attempts, is_transient
from .settings import Settings

logger = logging.getLogger(__name__)


class Helpers(Protocol):
    """Agents that work for another one."""

    async def ask(self, parent_id: str, name: str, prompt: Prompt) -> str:
        """The answer of the helper `name`, made if there is none. Raises what its turn failed
        with."""
        ...

    async def dismiss(self, name: str) -> None:
        """It is not needed any more: its agent is disposed and its conversation removed."""
        ...


OnOutput = Callable[[str, str, str, str], None]
"""Conversation, turn, tool call, and more of what the tool puts out."""


def unwatched(conversation_id: str, turn_id: str, tool_call_id: str, text: str) -> None:
    """Nobody looks."""


MAX_STEPS = 50
"""Model calls in one turn. A model that still wants tools after that is going in circles."""

STATUS_OF: dict[StopReason, tuple[MessageStatus, QueueState]] = {
    StopReason.END_TURN: (MessageStatus.COMPLETE, QueueState.DONE),
    StopReason.MAX_TOKENS: (MessageStatus.COMPLETE, QueueState.DONE),
    StopReason.REFUSAL: (MessageStatus.COMPLETE, QueueState.DONE),
    StopReason.CANCELLED: (MessageStatus.CANCELLED, QueueState.CANCELLED),
    StopReason.INTERRUPTED: (MessageStatus.INTERRUPTED, QueueState.INTERRUPTED),
    StopReason.ERROR: (MessageStatus.ERROR, QueueState.FAILED),
}

INSTRUCTIONS: dict[AgentMode, str] = {
    AgentMode.CHAT: (
        "You answer questions about the user's workspace. You can read, list and search it; "
        "you cannot change it. Quote passages as path:line."
    ),
    AgentMode.BUILD: (
        "You change the user's workspace as asked, in small steps, and say what you did. Every "
        "edit and every command is shown to the user for approval first."
    ),
    AgentMode.FEEDBACK: (
        "You review the files that you are given. Name findings with their severity and "
        "path:line. You change nothing."
    ),
}


class Turn:
    """Runs one started queue entry. `run` returns why the turn ended; what the turn has made so
    far is in `reply` and `usage` at any moment, so that it can be kept when it is cancelled."""

    def __init__(
        self,
        started: StartedTurn,
        reply: Reply,
        *,
        settings: Settings,
        provider: ModelProvider,
        tools: Mapping[str, Tool],
        store: ConversationStore,
        flusher: Flusher,
        approvals: Approvals,
        on_output: OnOutput = unwatched,
        helpers: Helpers | None = None,
    ) -> None:
        self.started = started
        self.reply = reply
        self.usage: Usage | None = None
        self._settings = settings
        self._provider = provider
        self._tools: Mapping[str, Tool] = tools
        self._history: Sequence[Message] = ()
        self._store = store
        self._flusher = flusher
        self._gate = Gate(started, approvals, store)
        self._on_output = on_output
        self._helpers = helpers
        self._steered = False
        self._begun = anyio.Event()
        """Set when something of the answer is there."""

    delegates = False
    """Whether other agents do the work meanwhile: then this one takes up no place."""

    async def run(self, history: Sequence[Message]) -> StopReason:
        """Raises `AgentError`; anything else a provider raises becomes one."""
        self._history = history
        try:
            return await self._work()
        except AgentError:
            raise
        except Exception as error:
            logger.exception("the provider failed in a way it does not announce")
            raise MessageProcessingFailed(
                "The provider failed unexpectedly.", hint="The log has the cause."
            ) from error

    async def _work(self) -> StopReason:
        """All that there is to do. Kinds of turns differ in this."""
        await self._store.request_started(self.started.entry.conversation_id, self.started.turn_id)
        return await self._converse()

    async def _converse(self, until: Callable[[], bool] = lambda: False) -> StopReason:
        """Call the model and run its tools until it has nothing more to do, or `until` is so."""
        for _ in range(MAX_STEPS):
            self._steered = False
            stop, calls = await self._call_model()
            for call in calls:
                await self._run_tool(call)
            if until() or (not calls and not self._steered):
                return _stop_reason(stop)
        raise MessageProcessingFailed(
            f"The model asked for tools {MAX_STEPS} times without coming to an end.",
            hint="Ask again with a narrower question.",
        )

    async def steer(self, text: str) -> None:
        """Let the model read `text` before its next step; one more step is made if needed."""
        await self._add(SteeringPart(text=text))

    async def _add(self, added: SteeringPart) -> None:
        await self._flusher.flush((self.reply,))
        index = self.reply.add(added)
        self._steered = True
        entry = self.started.entry
        await self._store.steer(
            entry.conversation_id, self.started.turn_id, self.started.reply_id, index, added
        )

    async def progress(self, done: int, total: int, label: str) -> None:
        """Tell who watches how far it is."""
        entry = self.started.entry
        await self._store.note_progress(
            entry.conversation_id, self.started.turn_id, done, total, label
        )

    def outcome(self, reason: StopReason, error: TurnError | None = None) -> TurnOutcome:
        self.reply.end_text()
        status, queue_state = STATUS_OF[reason]
        return TurnOutcome(
            stop_reason=reason,
            status=status,
            queue_state=queue_state,
            parts=self.reply.parts,
            usage=self.usage,
            error=error,
        )

    async def _call_model(self) -> tuple[ModelStop, list[ToolCall]]:
        # Not a word of `self` in here: tenacity's state goes round in circles, and a turn's text
        # would stay in memory until these are collected.
        begun = self._begun = anyio.Event()

        def is_retryable(error: BaseException) -> bool:
            # Text that the reader has seen cannot be taken back by asking once more.
            return is_transient(error) and not begun.is_set()

        policy = self._settings.retry
        async for attempt in attempts(policy, "model request", is_retryable=is_retryable):
            with attempt:
                return await self._stream_once()
        raise AssertionError("attempts() either yields or raises")

    async def _stream_once(self) -> tuple[ModelStop, list[ToolCall]]:
        calls: list[ToolCall] = []
        stop: ModelStop | None = None
        async with aclosing(self._provider.stream(self._request())) as events:  # type: ignore[type-var]  # an async generator, as promised
            async for event in events:
                if isinstance(event, TextDelta):
                    self._begun.set()
                    self.reply.append(event.kind, event.text)
                    self._flusher.notice(self.reply)
                elif isinstance(event, ToolCall):
                    self._begun.set()
                    calls.append(event)
                elif isinstance(event, ModelUsage):
                    self.usage = _sum(self.usage, event.usage)
                else:
                    stop = event
        if stop is None:
            raise NetworkError("The answer broke off before its end.")
        return stop, calls

    def _request(self) -> ModelRequest:
        prompt = self.started.entry.prompt
        instructions = INSTRUCTIONS[self.started.mode]
        if prompt.system_instruction and prompt.is_persona_chat:
            instructions = prompt.system_instruction  # its rights stay those of the mode
        elif prompt.system_instruction:
            instructions = f"{instructions}\n\n{prompt.system_instruction}"
        return ModelRequest(
            instructions=instructions,
            history=self._history,
            prompt=prompt,
            steps=self.reply.parts,
            tools=[tool.spec for tool in self._gate.offered(self._tools)],
            settings=self._settings_for(prompt),
        )

    def _settings_for(self, prompt: Prompt) -> MessageSettings:
        """The message's own settings, and the process's where it has none."""
        own = prompt.settings or MessageSettings()
        general = self._settings
        return MessageSettings(
            temperature=general.temperature if own.temperature is None else own.temperature,
            max_output_tokens=own.max_output_tokens or general.max_output_tokens,
            thinking=own.thinking or general.thinking,
        )

    async def _run_tool(self, call: ToolCall) -> ToolOutput:
        entry, turn_id, reply_id = self.started.entry, self.started.turn_id, self.started.reply_id
        await self._flusher.flush((self.reply,))
        part = self.reply.add(
            ToolCallPart(tool_call_id=call.tool_call_id, name=call.name, arguments=call.arguments)
        )
        output = _whole(await self._use(call, part))
        part = self.reply.add(
            ToolResultPart(
                tool_call_id=call.tool_call_id, content=output.content, is_error=output.is_error
            )
        )
        await self._store.tool_finished(
            entry.conversation_id, turn_id, reply_id, part, call.tool_call_id, output
        )
        return output

    async def _use(self, call: ToolCall, part: int) -> ToolOutput:
        """Run the tool if it may be run. That it starts is committed before it does."""
        admission = await self._gate.admit(self._tools, call)
        await self._store.tool_started(
            self.started.entry.conversation_id,
            self.started.turn_id,
            self.started.reply_id,
            part,
            call,
            approval=admission.approval,
            audit=admission.entry(self.started),
        )
        if admission.refusal is not None:
            return ToolOutput(admission.refusal, is_error=True, is_refused=True)
        try:
            use = self._use_of(call, admission.subject)
            return await self._tools[call.name].run(call.arguments, use)
        except Exception:
            logger.exception("a tool failed", extra={"tool": call.name})
            return ToolOutput(f"'{call.name}' failed unexpectedly.", is_error=True)

    def _use_of(self, call: ToolCall, subject: Subject | None) -> ToolUse:
        started = self.started
        conversation_id, turn_id = started.entry.conversation_id, started.turn_id
        return ToolUse(
            conversation_id=conversation_id,
            turn_id=turn_id,
            tool_call_id=call.tool_call_id,
            report=partial(self._on_output, conversation_id, turn_id, call.tool_call_id),
            keep=partial(self._store.keep_pre_image, conversation_id, turn_id),
            subject=subject,
        )


def _whole(output: ToolOutput) -> ToolOutput:
    """Without halves of characters, which a file's name may have and JSON has not."""
    if output.content.isascii():
        return output
    content = output.content.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return msgspec.structs.replace(output, content=content)


def _stop_reason(stop: ModelStop) -> StopReason:
    if stop.reason == "maxTokens":
        return StopReason.MAX_TOKENS
    return StopReason.REFUSAL if stop.reason == "refusal" else StopReason.END_TURN


LATEST = frozenset({"context_tokens", "context_window"})
"""Figures of `Usage` of which the last call's counts."""


def _sum(total: Usage | None, more: Usage) -> Usage:
    """Usage of several model calls. A figure stays unknown only while no call gave it."""
    if total is None:
        return more

    def add(a: int | None, b: int | None) -> int | None:
        return b if a is None else a if b is None else a + b

    sums = {
        name: getattr(more, name)
        if name in LATEST
        else add(getattr(total, name), getattr(more, name))
        for name in Usage.__struct_fields__
    }
    return Usage(**sums)


def turn_error(error: AgentError) -> TurnError:
    """What a client is told of a failed turn."""
    return TurnError(
        type=error.type,
        message=error.message,
        retryable=error.retryable,
        hint=error.hint,
        attempts=error.attempts,
    )


def error_of(failed: TurnError, conversation_id: str) -> AgentError:
    """The `AgentError` a waiting caller gets for a stored `TurnError`."""
    from .errors import ALL_ERRORS

    by_type = {kind.type: kind for kind in ALL_ERRORS}
    return by_type.get(failed.type, MessageProcessingFailed)(
        failed.message,
        conversation_id=conversation_id,
        hint=failed.hint,
        retryable=failed.retryable,
        attempts=failed.attempts,
    )
