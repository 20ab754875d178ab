"""A sidecar for code that waits: the client on a thread of its own, behind plain calls.

So that a command can read a line, draw a terminal and be interrupted in the ordinary way while
the connection stays alive.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from ..client import Call, LiveConversation, Sidecar
from ..client.live import Change
from ..conversations import ID_PATTERN, Conversation, Message
from ..errors import NotFound
from ..log_file import RotatingFile
from ..wire.methods import ConversationPage
from .config import Options, UsageError
from .render import printable

T = TypeVar("T")

LIST_PAGE = 500
LONGEST_LINE = 100
TICK = 0.1
"""Seconds between two looks at what else there is to do: a spinner, Ctrl-C."""


@contextmanager
def open_session(
    options: Options, workspace: Sequence[Path] = (), session_id: str | None = None
) -> Iterator[Session]:
    """A sidecar that runs until the block ends."""
    with ExitStack() as stack:
        log = stack.enter_context(_log_file(options.log)) if options.log else None
        session = Session()
        spawned = Sidecar.spawn(
            store=options.store,
            workspace=workspace,
            settings=options.settings,
            secrets=options.secrets,
            session_id=session_id,
            listener=session.hear,
            log=log,
        )
        portal = stack.enter_context(start_blocking_portal())
        sidecar = stack.enter_context(portal.wrap_async_context_manager(spawned))
        session.begin(portal, sidecar)
        yield session


class Session:
    """Calls of the client, made from another thread than the one it lives on."""

    def __init__(self) -> None:
        self._notices: list[str] = []
        self.output = ""
        """The last line that a running tool put out."""
        self._followings: list[Following] = []
        self._portal: BlockingPortal
        self.sidecar: Sidecar

    def begin(self, portal: BlockingPortal, sidecar: Sidecar) -> None:
        self._portal = portal
        self.sidecar = sidecar

    def call(self, method: str, **fields: Any) -> Any:
        return self._portal.call(partial(self.sidecar.call, method, **fields))

    def request(self, method: str, **fields: Any) -> Call:
        return self._portal.call(partial(self.sidecar.request, method, **fields))

    def result(self, call: Call) -> Any:
        return self._portal.call(call.result)

    def cancel(self, call: Call) -> None:
        self._portal.call(call.cancel)

    def start(self, function: Callable[[], Awaitable[T]]) -> Future[T]:
        return self._portal.start_task_soon(function)

    def reconnect(self) -> None:
        self._portal.call(self.sidecar.reconnect)
        for following in self._followings:
            following.forget_failure()

    @contextmanager
    def follow(self, conversation_id: str) -> Iterator[Following]:
        context: AbstractContextManager[LiveConversation] = self._portal.wrap_async_context_manager(
            self.sidecar.follow(conversation_id)
        )
        with context as live:
            following = Following(self, live)
            self._followings.append(following)
            try:
                yield following
            finally:
                self._followings.remove(following)

    def hear(self, method: str, params: Any) -> None:
        if method == "window/showMessage" and isinstance(params, dict):
            self._notices.append(str(params.get("message", "")))
        elif method == "tool/output" and isinstance(params, dict):
            lines = str(params.get("text", "")).strip().split("\n")
            self.output = printable(lines[-1])[:LONGEST_LINE] or self.output

    def notices(self) -> list[str]:
        """What the sidecar has for the user to know since the last call."""
        taken, self._notices = self._notices, []
        return taken

    def conversations(self, *, archived: bool = False) -> Iterator[Conversation]:
        """Newest first."""
        cursor: str | None = None
        while True:
            found = self.call(
                "conversation/list", cursor=cursor, archived=archived, limit=LIST_PAGE
            )
            yield from found.conversations
            cursor = found.cursor
            if cursor is None:
                return

    def find(self, reference: str) -> Conversation:
        """The conversation of this id, or of the only id that begins so."""
        if not re.match(ID_PATTERN, reference):
            raise UsageError("That is not the id of a conversation.", HOW_TO_LIST)
        try:
            page: ConversationPage = self.call(
                "conversation/get", conversation_id=reference, limit=1
            )
        except NotFound:
            return self._find_by_prefix(reference)
        return page.conversation

    def _find_by_prefix(self, prefix: str) -> Conversation:
        found = [
            conversation
            for archived in (False, True)
            for conversation in self.conversations(archived=archived)
            if conversation.conversation_id.startswith(prefix)
        ]
        if not found:
            raise NotFound(f"There is no conversation '{prefix}'.", hint=HOW_TO_LIST)
        if len({conversation.conversation_id for conversation in found}) > 1:
            some = ", ".join(conversation.conversation_id for conversation in found[:5])
            raise UsageError(f"{len(found)} conversations begin with '{prefix}'.", f"{some} …")
        return found[0]


HOW_TO_LIST = "agent-sidecar conversations list shows them."


class Following:
    """A conversation that is followed: `messages` as of the last call of `changes`."""

    def __init__(self, session: Session, live: LiveConversation) -> None:
        self._session = session
        self._live = live
        self._next: Future[tuple[list[Change], tuple[Message, ...]]] | None = None
        self.messages = live.view.messages
        self.is_over = False

    def changes(self, timeout: float) -> list[Change]:
        """What has changed; [] when nothing does in `timeout` seconds, or no more will
        (`is_over`). Raises what ended the connection."""
        future = self._next or self._session.start(self._step)
        self._next = future
        if not wait([future], timeout).done:
            return []
        self._next = None
        changes, self.messages = future.result()
        self.is_over = not changes
        return changes

    def forget_failure(self) -> None:
        """There is a connection again; that one ended is old news."""
        if self._next is not None and self._next.done() and self._next.exception():
            self._next = None

    async def _step(self) -> tuple[list[Change], tuple[Message, ...]]:
        # The view moves on with the loop; the other thread gets what it was at one moment.
        changes = await self._live.changes()
        return changes, self._live.view.messages

    def close_after(self, call: Call) -> None:
        """Let `changes` end with the last event before the answer to `call`."""
        self._session.start(partial(self._close_after, call))

    async def _close_after(self, call: Call) -> None:
        await call.answered()
        self._live.close()


@contextmanager
def _log_file(path: Path) -> Iterator[Callable[[bytes], None]]:
    try:
        file = RotatingFile(path)
    except OSError as error:
        raise UsageError(f"The log {path} cannot be written: {error.strerror}.") from error
    try:
        yield file.write
    finally:
        file.close()


def short_ids(conversations: Sequence[Conversation]) -> dict[str, str]:
    """Id → its shortest beginning, of eight characters or more, that no other one has."""
    ids = sorted(conversation.conversation_id for conversation in conversations)
    short: dict[str, str] = {}
    for index, own in enumerate(ids):
        length = 8
        for other in (*ids[max(index - 1, 0) : index], *ids[index + 1 : index + 2]):
            while length < len(own) and other.startswith(own[:length].rstrip("-")):
                length += 1
        short[own] = own[:length].rstrip("-")
    return short
