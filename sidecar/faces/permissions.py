"""Asking the owner's client for approval, if it says that it can be asked.

Everybody else sees `approvalRequested` and answers with `approval/respond`. Whoever is first
counts; the request is withdrawn then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio
from anyio.abc import TaskGroup

from ..approvals import Approvals
from ..conversations import Approval
from ..errors import AgentError
from ..events import ApprovalRequested, ApprovalResolved, DurableEvent
from ..journal import Journal
from ..wire import methods as wire
from .editor import Ask
from .rpc import RpcError

logger = logging.getLogger(__name__)

REQUEST = next(m for m in wire.SERVER_REQUESTS if m.name == "permission/request")


class PermissionRequests:
    """Serves while `run` does. `is_ours` tells whose client is to be asked: that of the window
    whose agent runs the turn."""

    def __init__(
        self,
        journal: Journal,
        approvals: Approvals,
        ask: Ask,
        is_ours: Callable[[str], bool],
    ) -> None:
        self._approvals = approvals
        self._ask = ask
        self._is_ours = is_ours
        self._news: list[DurableEvent] = []
        self._arrived = anyio.Event()
        self._open: dict[str, anyio.CancelScope] = {}
        journal.listen(self._on_event)

    def _on_event(self, event: DurableEvent) -> None:
        if isinstance(event, ApprovalRequested | ApprovalResolved):
            self._news.append(event)
            self._arrived.set()

    def ask_again(self, open_ones: Iterable[Approval]) -> None:
        """A client opens a conversation in which something is asked already."""
        self._news += [
            ApprovalRequested(conversation_id=question.conversation_id, approval=question)
            for question in open_ones
            if question.approval_id not in self._open
        ]
        self._arrived.set()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                await self._arrived.wait()
                self._arrived = anyio.Event()
                news, self._news = self._news, []
                for event in news:
                    self._take(event, tasks)

    def _take(self, event: DurableEvent, tasks: TaskGroup) -> None:
        if isinstance(event, ApprovalRequested) and self._is_ours(event.approval.conversation_id):
            scope = self._open[event.approval.approval_id] = anyio.CancelScope()
            tasks.start_soon(self._request, event.approval, scope, name="permission")
        elif isinstance(event, ApprovalResolved) and (asked := self._open.get(event.approval_id)):
            asked.cancel()

    async def _request(self, approval: Approval, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                answer: wire.Permission = await self._ask(REQUEST, approval)
                # From here on it is an answer like any other.
                with anyio.CancelScope(shield=True):
                    await self._approvals.respond(
                        approval.approval_id,
                        answer.decision,
                        answer.content_hash,
                        always=answer.always,
                    )
            except (AgentError, RpcError) as error:
                logger.info("permission was not given", extra={"cause": error.message})
        self._open.pop(approval.approval_id, None)
