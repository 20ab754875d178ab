"""Agents that work for another one: each in a conversation of its own, which goes when it is done.

They are agents like any other: they count in the limit, wait for a place, and read what the
conversation that they help may read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from .conversations import AgentMode, Prompt, StopReason, TurnResult
from .errors import AgentError, Conflict, MessageProcessingFailed, NotFound

if TYPE_CHECKING:
    from .manager import AgentManager

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""A helper whose process died meanwhile is asked again; not for ever."""


class HelperAgents:
    """Implements `Helpers` on a manager."""

    def __init__(self, manager: AgentManager) -> None:
        self._manager = manager

    async def ask(self, parent_id: str, name: str, prompt: Prompt) -> str:
        manager = self._manager
        parent = await manager.store.get(parent_id)
        new = msgspec.structs.replace(
            manager.new_conversation(name, AgentMode.FEEDBACK),
            roots=parent.roots,
            session_id=parent.session_id,
            parent_id=parent_id,
        )
        try:
            await manager.store.create(new)
        except Conflict:
            logger.info("a helper goes on", extra={"conversationId": name})
        result = await self._answer(name, prompt)
        if result.stop_reason is StopReason.CANCELLED:
            raise MessageProcessingFailed("It was cancelled.", conversation_id=parent_id)
        if result.stop_reason is StopReason.INTERRUPTED:
            raise MessageProcessingFailed("It was interrupted.", conversation_id=parent_id)
        messages = await manager.store.messages(name)
        return next((m.text for m in messages if m.message_id == result.reply_id), "")

    async def _answer(self, name: str, prompt: Prompt) -> TurnResult:
        """Keys that follow from the attempt: what was answered before is not asked again."""
        attempt = 0
        while True:
            key = f"ask.{attempt}"
            result = await self._manager.send_message(
                name, prompt, request_key=key, params_hash=key.encode()
            )
            attempt += 1
            if result.stop_reason is not StopReason.INTERRUPTED or attempt == ATTEMPTS:
                return result

    async def dismiss(self, name: str) -> None:
        try:
            await self._manager.delete_conversation(name)
        except NotFound:
            return
        except AgentError as error:
            logger.warning(
                "a helper could not be removed",
                extra={"conversationId": name, "cause": error.message},
            )
