"""What we ask of an ACP client: permission, its unsaved texts, its terminals."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anyio

from ...conversations import Approval
from ...interfaces import ToolUse
from ...wire import acp
from ...wire import methods as wire
from ..editor import EDIT_PATIENCE, PATIENCE, Ask
from ..rpc import RpcError
from .own import OwnTurns
from .session import Session
from .tools import KINDS, asked_of

logger = logging.getLogger(__name__)

OUTPUT_BYTES = 48 * 1024
ALLOW, ALWAYS, REJECT = "allow", "always", "reject"
MAKE_SECONDS = 5.0
"""In which a client makes a terminal. It is waited for even when the turn is cancelled: what is not
known by its name cannot be ended."""


class Permissions:
    """`faces.permissions` asks through this."""

    def __init__(self, ask: Ask, sessions: Mapping[str, Session], own: OwnTurns) -> None:
        self._ask = ask
        self._sessions = sessions
        self._own = own

    def concerns(self, conversation_id: str) -> bool:
        """Every window that shows the conversation asks; the first answer counts."""
        return conversation_id in self._sessions

    async def ask(self, method: wire.Method, question: Approval) -> wire.Permission:
        """The client's answer. One that cannot ask has said no to what it began itself: nobody else
        might ever answer. Raises `RpcError` when it has said nothing that counts."""
        options = [
            _option(ALLOW, "Allow once", "allow_once"),
            *([_option(ALWAYS, "Always allow here", "allow_always")] if question.always else []),
            _option(REJECT, "Reject", "reject_once"),
        ]
        if (session := self._sessions.get(question.conversation_id)) is None:
            raise RpcError(wire.REQUEST_CANCELLED, "Who looks on has not answered.")
        chosen: str | None = None
        is_withdrawn = True  # the session is closed, or opened again
        with session.while_open():
            chosen = await self._chosen(session, question, options)
            is_withdrawn = False
        offered = {option["optionId"] for option in options}
        is_own = self._own.has_turn(question.turn_id)
        if is_withdrawn or (chosen not in offered and not is_own):
            raise RpcError(wire.REQUEST_CANCELLED, "Who looks on has not answered.")
        decision: Literal["allow", "deny"] = "allow" if chosen in offered - {REJECT} else "deny"
        return wire.Permission(
            decision=decision,
            content_hash=question.content_hash,
            always=decision == "allow" and chosen == ALWAYS,
        )

    async def _chosen(
        self, session: Session, question: Approval, options: list[dict[str, str]]
    ) -> str | None:
        """Asked once the client has been told all that comes before."""
        await session.whole()
        if not session.tell(session.narration.asked(question)):
            await session.whole()
        call = {
            "toolCallId": session.narration.call_of(question),
            "title": question.title,
            "kind": KINDS.get(question.tool, "other"),
            "status": "pending",
            "content": asked_of(question, session.roots),
        }
        params = {"sessionId": session.session_id, "toolCall": call, "options": options}
        try:
            answer: acp.Permission = await self._ask(acp.ASK_PERMISSION, params)
        except RpcError as error:
            logger.info("permission was not given", extra={"cause": error.message})
            return None
        return answer.outcome.option_id


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


class ClientTerminal:
    """`Terminal`, by the client's terminal methods: its user sees the command while it runs."""

    def __init__(self, ask: Ask, session_id: str, sessions: Mapping[str, Session]) -> None:
        self._ask = ask
        self._session_id = session_id
        self._sessions = sessions

    async def run(
        self, argv: Sequence[str], folder: Path, seconds: float, use: ToolUse
    ) -> tuple[str, int | None]:
        program, *arguments = argv
        session = {"sessionId": self._session_id}
        wanted = session | {
            "command": program,
            "args": arguments,
            "cwd": str(folder),
            "outputByteLimit": OUTPUT_BYTES,
        }
        with anyio.CancelScope(shield=True), anyio.fail_after(MAKE_SECONDS):
            made: acp.TerminalMade = await self._asked(acp.MAKE_TERMINAL, wanted)
        terminal = session | {"terminalId": made.terminal_id}
        try:
            self._show(use, made.terminal_id)
            with anyio.move_on_after(seconds) as patience:
                await self._asked(acp.AWAIT_TERMINAL, terminal)
            if patience.cancelled_caught:
                await self._asked(acp.KILL_TERMINAL, terminal)
            said: acp.TerminalOutput = await self._asked(acp.TERMINAL_OUTPUT, terminal)
            ended = said.exit_status
            code = None if patience.cancelled_caught or ended is None else ended.exit_code
            return said.output, code
        finally:
            with anyio.CancelScope(shield=True):  # releasing ends what still runs
                await _within(PATIENCE, lambda: self._asked(acp.RELEASE_TERMINAL, terminal))

    def _show(self, use: ToolUse, terminal_id: str) -> None:
        if session := self._sessions.get(self._session_id):
            session.show_terminal(use.turn_id, use.tool_call_id, terminal_id)

    async def _asked(self, method: wire.Method, params: Any) -> Any:
        try:
            return await self._ask(method, params)
        except RpcError as error:
            raise OSError(errno.EIO, f"the editor's terminal: {error.message}") from None


async def _within(seconds: float, ask: Callable[[], Awaitable[Any]], otherwise: Any = None) -> Any:
    """The client's answer; a client that is busy, or refuses, holds up no agent."""
    try:
        with anyio.fail_after(seconds):
            return await ask()
    except TimeoutError:
        logger.warning("the client did not answer in time")
    except (RpcError, OSError) as error:
        logger.info("the client refused", extra={"cause": str(error)})
    return otherwise
