"""What we ask of an ACP client: permission, its unsaved texts, its terminals."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import anyio

from ...conversations import Approval
from ...wire import acp
from ...wire import methods as wire
from ..editor import EDIT_PATIENCE, PATIENCE, Ask
from ..rpc import RpcError
from .session import Session
from .tools import KINDS, asked_of

logger = logging.getLogger(__name__)

ALLOW, ALWAYS, REJECT = "allow", "always", "reject"


class Permissions:
    """`faces.permissions` asks through this."""

    def __init__(self, ask: Ask, sessions: Mapping[str, Session]) -> None:
        self._ask = ask
        self._sessions = sessions

    def concerns(self, conversation_id: str) -> bool:
        """Every window that shows the conversation asks; the first answer counts."""
        return conversation_id in self._sessions

    async def ask(self, method: wire.Method, question: Approval) -> wire.Permission:
        """A client that cannot ask has said no: nobody else might ever answer."""
        options = [
            _option(ALLOW, "Allow once", "allow_once"),
            *([_option(ALWAYS, "Always allow here", "allow_always")] if question.always else []),
            _option(REJECT, "Reject", "reject_once"),
        ]
        session = self._sessions[question.conversation_id]
        call = {
            "toolCallId": session.narration.call_of(question),
            "title": question.title,
            "kind": KINDS.get(question.tool, "other"),
            "status": "pending",
            "content": asked_of(question, session.roots),
        }
        params = {"sessionId": session.session_id, "toolCall": call, "options": options}
        chosen: str | None = None
        try:
            answer: acp.Permission = await self._ask(acp.ASK_PERMISSION, params)
            chosen = answer.outcome.option_id
        except RpcError as error:
            logger.info("permission was not given", extra={"cause": error.message})
        decision: Literal["allow", "deny"] = "allow" if chosen in (ALLOW, ALWAYS) else "deny"
        return wire.Permission(
            decision=decision, content_hash=question.content_hash, always=chosen == ALWAYS
        )


def _option(id_: str, name: str, kind: str) -> dict[str, str]:
    return {"optionId": id_, "name": name, "kind": kind}


class ClientFiles:
    """`Editor`, by the client's file system methods, as far as it has said that it has them."""

    def __init__(self, ask: Ask, session_id: str, abilities: acp.FileSystem) -> None:
        self._ask = ask
        self._session_id = session_id
        self._abilities = abilities

    async def read(self, path: Path) -> str | None:
        if not self._abilities.read_text_file:
            return None
        params = {"sessionId": self._session_id, "path": str(path)}
        answer = await _within(PATIENCE, lambda: self._ask(acp.READ_FILE, params))
        return None if answer is None else str(answer.content)

    async def apply(self, path: Path, old: str, new: str, title: str) -> bool:
        """Only over what the change was made from."""
        if not self._abilities.write_text_file or await self.read(path) != old:
            return False
        params = {"sessionId": self._session_id, "path": str(path), "content": new}
        done = await _within(
            EDIT_PATIENCE, lambda: self._ask(acp.WRITE_FILE, params), otherwise=False
        )
        return done is not False


async def _within(seconds: float, ask: Callable[[], Awaitable[Any]], otherwise: Any = None) -> Any:
    """The client's answer; a client that is busy, or refuses, holds up no agent."""
    try:
        with anyio.fail_after(seconds):
            return await ask()
    except TimeoutError:
        logger.warning("the client did not answer in time")
    except RpcError as error:
        logger.info("the client refused", extra={"cause": error.message})
    return otherwise
