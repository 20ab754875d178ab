"""One conversation as an ACP client has it open: what it is told, and that nothing is left out.

The protocol has no way to say "ask again", so a client that does not read is not told less. What
the writer has no room for is kept back (a bounded piece of it), the subscription is given up, and
when there is room again the store says what is missing. `Narration` tells each piece once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import anyio
import msgspec

from ...conversations import Conversation, Message
from ...errors import AgentError, InvalidState, NotFound
from ...events import Delta, Event
from ...interfaces import ConversationStore
from ...journal import Journal, Subscription
from ...reply import Flusher
from ...wire import acp
from .narration import Narration, Update, chunk_of

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
encode = msgspec.json.Encoder().encode
OUTPUT_SHOWN = 8 * 1024
"""Characters of a running command's output that an update has: the newest."""


class Writer(Protocol):
    """The bounded writer, as far as a session needs it."""

    def send(self, body: bytes) -> None: ...
    def notify(self, body: bytes, *, key: str | None = None) -> bool: ...
    def delta(self, event: Delta) -> bool: ...


def update_body(session_id: str, update: Update, seq: int = 0) -> bytes:
    params: dict[str, Any] = {"sessionId": session_id, "update": update}
    if seq:
        params["_meta"] = {acp.META: {"seq": seq}}
    return encode({"jsonrpc": "2.0", "method": "session/update", "params": params})


def delta_body(delta: Delta) -> bytes:
    return update_body(delta.conversation_id, chunk_of(delta), delta.seq)


class Room:
    """When the client reads again."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def made(self) -> None:
        self._event.set()
        self._event = anyio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class Session:
    """Owns the client's subscription of one conversation. `run`, then `open`, before all else."""

    def __init__(
        self,
        conversation: Conversation,
        options: Callable[[str], list[Update]],
        *,
        writer: Writer,
        room: Room,
        journal: Journal,
        store: ConversationStore,
        flusher: Flusher,
    ) -> None:
        self.session_id = conversation.conversation_id
        self.roots = conversation.roots
        self.narration = Narration(conversation.roots, options)
        self._writer = writer
        self._room = room
        self._journal = journal
        self._store = store
        self._flusher = flusher
        self._subscription: Subscription | None = None
        self._unsent: list[bytes] = []
        self._whole = anyio.Event()
        """Set while the client has been told all there is."""
        self._behind = anyio.Event()
        """Set when it has not."""
        self._problem: AgentError | None = None
        self._outputs: dict[str, str] = {}
        self._scopes: set[anyio.CancelScope] = set()
        self._is_closed = False

    async def run(self) -> None:
        """Sees to it that the client is told what it had no room for. Until `close`."""
        with self.while_open():
            while True:
                await self._behind.wait()
                self._behind = anyio.Event()
                await self._recover()

    async def open(self, *, replay: bool) -> None:
        """Tell the conversation from its beginning, or only from now on. `run` has to be running.
        Raises `NotFound` or `InvalidState` if it is deleted or closed meanwhile."""
        conversation = await self._store.get(self.session_id)
        self._journal.begin(self.session_id, conversation.last_seq)
        await self._flusher.flush_conversation(self.session_id)
        for message in await self._store.messages(self.session_id):
            if replay:
                await self._tell_all(self.narration.of_message(message))
            else:
                self.narration.skip(message)
        self._behind.set()
        await self._whole.wait()
        if self._problem is not None:
            raise self._problem

    def close(self) -> None:
        self._is_closed = True
        self._unsubscribe()
        if not self._whole.is_set():  # who opens it waits for that
            self._problem = InvalidState("The session was closed, or opened again, meanwhile.")
            self._whole.set()
        for scope in tuple(self._scopes):
            scope.cancel()

    @contextmanager
    def while_open(self) -> Iterator[None]:
        """The block is cancelled when the session is closed."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._is_closed:
                scope.cancel()
            try:
                yield
            finally:
                self._scopes.discard(scope)

    @property
    def is_whole(self) -> bool:
        return self._whole.is_set()

    async def whole(self) -> None:
        """Wait until the client has been told all that has happened so far."""
        await self._whole.wait()

    def tell(self, updates: Iterable[Update], seq: int = 0) -> bool:
        """False: there is no room, and the rest comes later."""
        bodies = [update_body(self.session_id, update, seq) for update in updates]
        for at, body in enumerate(bodies):
            if self._unsent or not self._writer.notify(body, key=self.session_id):
                self._unsent += bodies[at:]
                self._lag()
                return False
        return True

    def show_output(self, turn_id: str, call_id: str, text: str) -> None:
        """What a tool puts out while it runs: to who keeps up. The result says it again."""
        id_ = self.narration.running(turn_id, call_id)
        if id_ is None or not self._whole.is_set():
            return
        shown = (self._outputs.get(id_, "") + text)[-OUTPUT_SHOWN:]
        self._outputs = {id_: shown}
        update = self.narration.output(id_, shown)
        self._writer.notify(update_body(self.session_id, update), key=self.session_id)

    def show_terminal(self, turn_id: str, call_id: str, terminal_id: str) -> None:
        if id_ := self.narration.running(turn_id, call_id):
            self.tell([self.narration.terminal(id_, terminal_id)])

    # ---- events ----

    def _deliver(self, event: Event) -> None:
        if not isinstance(event, Delta):
            self.tell(list(self.narration.of(event)), event.seq)
        elif (rest := self.narration.rest_of(event)) is not None:
            if self._writer.delta(rest):
                self.narration.said(rest)
            else:
                self._lag()

    def _lag(self) -> None:
        """From here on the store is asked, when there is room."""
        self._unsubscribe()
        if self._whole.is_set():
            self._whole = anyio.Event()
        self._behind.set()

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._journal.unsubscribe(self._subscription)
            self._subscription = None

    async def _recover(self) -> None:
        while not self._whole.is_set():
            try:
                await self._catch_up()
                self._whole.set()
            except NotFound as error:  # deleted meanwhile: there is nothing to tell
                self._problem = error
                self._unsubscribe()
                self._whole.set()
            except AgentError as error:
                logger.warning("a session cannot be read", extra={"cause": error.message})
                self._unsubscribe()
                await anyio.sleep(RETRY_SECONDS)

    async def _catch_up(self) -> None:
        """Tell what is missing and listen from there on: as often as it takes."""
        while True:
            if not self._sent():
                await self._room.wait()
                continue
            subscription = self._subscription = self._journal.subscribe(
                self.session_id, self._deliver, on_lost=self._lag
            )
            await self._flusher.flush_conversation(self.session_id)
            missing = await self._missing()
            if not all(map(self._told, missing)):
                self._unsubscribe()
                await self._room.wait()
            elif self._subscription is subscription:  # else it was cut off meanwhile: once more
                subscription.start()
                if self._subscription is subscription:
                    return

    def _sent(self) -> bool:
        """Whether there was room for all that was kept back."""
        while self._unsent and self._writer.notify(self._unsent[0], key=self.session_id):
            del self._unsent[0]
        return not self._unsent

    def _told(self, message: Message) -> bool:
        bodies = [update_body(self.session_id, u) for u in self.narration.of_message(message)]
        for at, body in enumerate(bodies):
            if not self._writer.notify(body, key=self.session_id):
                self._unsent += bodies[at:]
                return False
        return True

    async def _missing(self) -> Sequence[Message]:
        """The newest messages back to one of which nothing is left to tell."""
        found: list[Message] = []
        page = await self._store.page(self.session_id)
        while True:
            found = [*page.messages, *found]
            if page.page_cursor is None or any(map(self.narration.was_told, page.messages)):
                return found
            page = await self._store.page(self.session_id, cursor=page.page_cursor)

    async def _tell_all(self, updates: Iterable[Update]) -> None:
        for update in updates:
            body = update_body(self.session_id, update)
            while not self._writer.notify(body, key=self.session_id):
                await self._room.wait()
