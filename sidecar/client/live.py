"""Events as they come, and a conversation that is followed: its view with the holes closed."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio

from ..errors import AgentError, NotFound
from ..events import CatchUp, Cursor, Delta, Event, Missing, Replay
from ..wire.methods import Resync
from .link import Call
from .view import Applied, ConversationView, UnknownEvent

MAX_BEHIND = 10_000
"""Events that may wait for a reader. One that lags more has to catch up."""

Change = Event | UnknownEvent | CatchUp
"""What became of a view: an event was applied, or it was caught up (a replay's events come
first, one by one) and any part of it may differ."""

Item = Event | UnknownEvent | Resync | CatchUp

Subscribe = Callable[
    [ConversationView, Callable[[CatchUp], None], Callable[[AgentError], None]], Call
]
"""Subscribes from a view's cursor; one of the two functions is called with the answer."""


class EventStream:
    """The events of one conversation, in order, from the moment it was made.

        with sidecar.events(conversation_id) as events:
            async for event in events: …

    A `Resync` in it says that events were left out: subscribe again from your cursor. Ends when
    it is closed and raises what ended the connection.
    """

    def __init__(self, conversation_id: str, forget: Callable[[EventStream], None]) -> None:
        self.conversation_id = conversation_id
        self._forget = forget
        self._waiting: deque[Item] = deque()
        self._news = anyio.Event()
        self._closed = False
        self._error: AgentError | None = None
        self._last_seq = 0

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._forget(self)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Item:
        if not await self._has_more():
            raise StopAsyncIteration
        return self._waiting.popleft()

    async def take(self) -> list[Item]:
        """Everything that has come; waits for the first. [] once it is closed."""
        await self._has_more()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    async def _has_more(self) -> bool:
        while not self._waiting and not self._closed:
            if self._error is not None:
                raise self._error
            if self._news.is_set():
                self._news = anyio.Event()
            await self._news.wait()
        return bool(self._waiting)

    def offer(self, item: Item) -> None:
        if isinstance(item, CatchUp):
            self._waiting.clear()  # it says all that these say
        elif len(self._waiting) >= MAX_BEHIND:
            self._waiting.clear()
            item = Resync(conversation_id=self.conversation_id, seq=self._last_seq)
        elif not isinstance(item, Resync):
            self._last_seq = item.seq
        self._waiting.append(item)
        self._news.set()

    def fail(self, error: AgentError) -> None:
        """Raise `error` once what has come is taken."""
        self._error = error
        self._news.set()

    def resume(self) -> None:
        """There is a connection again."""
        self._error = None

    def close(self) -> None:
        """End it once what has come is taken."""
        self._closed = True
        self._news.set()


class LiveConversation:
    """A conversation that is followed. Iterating applies what comes to `view` and yields it;
    whatever is missing is asked for again on the way."""

    def __init__(self, stream: EventStream, subscribe: Subscribe, store_id: Callable[[], str]):
        self.view = ConversationView(stream.conversation_id)
        self._stream = stream
        self._subscribe = subscribe
        self._store_id = store_id
        self._catching_up = False
        self._asked_from: Cursor | None = None
        self._changes: list[Change] = []

    async def start(self) -> None:
        """Raises `NotFound` for an unknown conversation."""
        self.catch_up()
        caught_up, *self._changes = await self.changes()
        if isinstance(caught_up, Missing):
            raise NotFound(
                "There is no such conversation.", conversation_id=self.view.conversation_id
            )

    def catch_up(self) -> Call:
        """Ask for what came after the view's cursor. The answer arrives in the stream, in its
        place among the events."""
        self._catching_up = True
        self._asked_from = self.view.cursor
        return self._subscribe(self.view, self._stream.offer, self._failed)

    async def changes(self) -> list[Change]:
        """What has changed since the last call, at least one thing; [] once it is closed."""
        while not self._changes:
            items = await self._stream.take()
            if not items:
                return []
            for item in items:
                self._take(item)
        changes, self._changes = self._changes, []
        return changes

    async def __aiter__(self) -> AsyncIterator[Change]:
        while changes := await self.changes():
            for change in changes:
                yield change

    def close(self) -> None:
        self._stream.close()

    def _take(self, item: Item) -> None:
        if isinstance(item, CatchUp):
            self._catching_up = False
            seq = self.view.seq
            self.view.caught_up(item, self._store_id())
            if isinstance(item, Replay):
                self._changes += [event for event in item.events if event.seq > seq]
            self._changes.append(item)
        elif isinstance(item, Resync):
            self.catch_up()
        elif (applied := self.view.apply(item)) is Applied.NEW:
            self._changes.append(item)
        elif applied is Applied.HOLE and not self._catching_up and self._may_help(item):
            self.catch_up()

    def _may_help(self, item: Item) -> bool:
        """Asked from the same place, the answer is the same: this text is not stored yet. It
        comes with the next event."""
        return not isinstance(item, Delta) or self._asked_from != self.view.cursor

    def _failed(self, error: AgentError) -> None:
        self._catching_up = False
        self._stream.fail(error)
