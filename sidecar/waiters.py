"""What this process waits for: the ends of prompts that it accepted, and callers that wait."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from .conversations import TurnResult
from .errors import AgentError


class Waiter:
    """One caller's wait for one message. Settled once; later settlements change nothing."""

    def __init__(self, waiters: Waiters, conversation_id: str, message_id: str) -> None:
        self.conversation_id = conversation_id
        self.message_id = message_id
        self._waiters = waiters
        self._settled = anyio.Event()
        self._outcome: TurnResult | AgentError | None = None

    def settle(self, outcome: TurnResult | AgentError) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._settled.set()

    async def result(self) -> TurnResult:
        """How the turn ended. Raises the `AgentError` that made the wait pointless."""
        await self._settled.wait()
        self._waiters.forget(self)
        if isinstance(self._outcome, AgentError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


class Waiters:
    """All waits of this process, by message. Settled by `turnEnded`, whoever committed it."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Waiter]] = {}
        self._expected: dict[str, str] = {}
        """Accepted here and not ended yet, whoever waits: message id → conversation."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def has(self, conversation_id: str) -> bool:
        return any(waiter.conversation_id == conversation_id for waiter in self._all()) or (
            conversation_id in self._expected.values()
        )

    def of(self, conversation_id: str) -> set[str]:
        """The messages of this conversation whose ends are waited for or expected."""
        waited = {w.message_id for w in self._all() if w.conversation_id == conversation_id}
        return waited | {m for m, c in self._expected.items() if c == conversation_id}

    def expect(self, conversation_id: str, message_id: str) -> None:
        """A prompt was accepted here: it is ours to see to, wherever it runs."""
        self._expected[message_id] = conversation_id

    def wait_for(self, conversation_id: str, message_id: str) -> Waiter:
        waiter = Waiter(self, conversation_id, message_id)
        self._waiting.setdefault(message_id, []).append(waiter)
        return waiter

    def forget(self, waiter: Waiter) -> None:
        waiting = self._waiting.get(waiter.message_id, [])
        if waiter in waiting:
            waiting.remove(waiter)
        if not waiting:
            self._waiting.pop(waiter.message_id, None)

    def settle(self, result: TurnResult) -> None:
        self._expected.pop(result.message_id, None)
        for waiter in tuple(self._waiting.get(result.message_id, ())):
            waiter.settle(result)

    def fail_message(self, message_id: str, error: AgentError) -> None:
        self._fail(self._waiting.get(message_id, ()), error)

    def fail_conversation(self, conversation_id: str, error: AgentError) -> None:
        for message_id in [m for m, c in self._expected.items() if c == conversation_id]:
            del self._expected[message_id]
        self._fail((w for w in self._all() if w.conversation_id == conversation_id), error)

    def fail_all(self, error: AgentError) -> None:
        self._fail(self._all(), error)

    def _all(self) -> list[Waiter]:
        return [waiter for waiting in self._waiting.values() for waiter in waiting]

    def _fail(self, waiting: Iterable[Waiter], error: AgentError) -> None:
        for waiter in tuple(waiting):
            waiter.settle(error)
