"""Events as they come, and a conversation that is followed: its view with the holes closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from ..errors import AgentError, NotFound
from ..events import CatchUp, Event, Missing, Replay, Snapshot
from ..wire.methods import Resync
from .link import Call
from .view import Applied, ConversationView, UnknownEvent

MAX_BEHIND = 10_000
"""Events that may wait for a reader. One that lags more has to catch up."""

Change = Event | UnknownEvent | Snapshot | Missing
"""What became of a view: an event was applied, or all of it was replaced or is gone."""

Item = Event | UnknownEvent | Resync | CatchUp


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
        self._waiting: list[Any] = []
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

    async def __anext__(self) -> Any:
        if not self._waiting:
            self._waiting = await self.take()
            self._waiting.reverse()
            if not self._waiting:
                raise StopAsyncIteration
            return self._waiting.pop()
        return self._waiting.pop(0)

    async def take(self) -> list[Any]:
        """Everything that has come; waits for the first. Nothing once it is closed."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._closed:
                return []
            self._news = anyio.Event()
            await self._news.wait()
        taken, self._waiting = self._waiting, []
        return taken

    def offer(self, item: Item) -> None:
        if self._closed:
            return
        if isinstance(item, CatchUp):
            self._error = None
            self._waiting.clear()  # all of that is in it
        elif len(self._waiting) >= MAX_BEHIND:
            self._waiting.clear()
            item = Resync(conversation_id=self.conversation_id, seq=self._last_seq)
        elif not isinstance(item, Resync):
            self._last_seq = item.seq
        self._waiting.append(item)
        self._news.set()

    def fail(self, error: AgentError) -> None:
        """Raise `error` once what has come is taken; until a catch-up begins anew."""
        self._error = error
        self._news.set()

    def close(self) -> None:
        """End it once what has come is taken."""
        self._closed = True
        self._news.set()


class LiveConversation:
    """A conversation that is followed. Iterating applies what comes to `view` and yields it;
    whatever is missing is asked for again on the way."""

    def __init__(
        self,
        stream: EventStream,
        subscribe: Callable[[ConversationView], Call],
        store_id: Callable[[], str],
    ) -> None:
        self.view = ConversationView(stream.conversation_id)
        self._stream = stream
        self._subscribe = subscribe
        self._store_id = store_id
        self._catching_up = False
        self._last_hole: object = None
        self._changes: list[Change] = []

    async def start(self) -> None:
        """Raises `NotFound` for an unknown conversation."""
        self.catch_up()
        if isinstance((await self.changes())[0], Missing):
            raise NotFound(
                "There is no such conversation.", conversation_id=self.view.conversation_id
            )

    def catch_up(self) -> None:
        """Ask for what came after the view's cursor. The answer arrives in the stream, in its
        place among the events."""
        cursor = self.view.cursor
        # Asked from the same place again, the answer would be the same: text that the sidecar
        # cannot store yet. It comes with the next event.
        if self._catching_up or self._last_hole == cursor:
            return
        self._catching_up, self._last_hole = True, cursor
        call = self._subscribe(self.view)
        call.on_result = self._stream.offer
        call.on_error = self._stream.fail

    async def changes(self) -> list[Change]:
        """What has changed since the last call, at least one thing; [] when it was closed."""
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
        if isinstance(item, Replay | Snapshot | Missing):
            self._catching_up = False
            before = self.view.seq
            self.view.caught_up(item, self._store_id())
            if isinstance(item, Replay):
                self._changes += [event for event in item.events if event.seq > before]
            else:
                self._changes.append(item)
        elif isinstance(item, Resync):
            self.catch_up()
        else:
            match self.view.apply(item):
                case Applied.NEW:
                    self._changes.append(item)
                case Applied.HOLE:
                    self.catch_up()
                case Applied.KNOWN:
                    pass
