"""One client on the native face: what it follows, and how it is told when it lags."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio
import msgspec

from ..conversations import Conversation
from ..events import CatchUp, Cursor, Delta, Event, Missing
from ..interfaces import ConversationStore
from ..journal import Journal, Subscription
from ..reply import Flusher
from ..wire.methods import Resync, ToolOutputShown

logger = logging.getLogger(__name__)

encode = msgspec.json.Encoder().encode


class Writer(Protocol):
    """The bounded writer, as far as a connection needs it."""

    def send(self, body: bytes) -> None: ...
    def notify(self, body: bytes, *, key: str | None = None) -> bool: ...
    def delta(self, event: Delta) -> bool: ...


def notification(method: str, params: object) -> bytes:
    return b'{"jsonrpc":"2.0","method":"%s","params":%s}' % (method.encode(), encode(params))


class Connection:
    """Owns this client's subscriptions. Events that the writer has no room for are not queued:
    the conversation is cut off and the client told to come back with its cursor."""

    def __init__(
        self, writer: Writer, journal: Journal, store: ConversationStore, flusher: Flusher
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._store = store
        self._flusher = flusher
        self._following: dict[str, Subscription] = {}
        self._beginning: dict[str, anyio.Event] = {}
        """Conversations that are about to be followed; set when that is decided."""
        self._delivered: dict[str, int] = {}
        self._cut_off: set[str] = set()
        self._missed: dict[tuple[str, str], bytes] = {}
        """The newest of each state that there was no room to tell."""

    async def follow(self, conversation_id: str) -> None:
        """Events from now on, if they are not delivered already. Raises `NotFound`."""
        await self._decided(conversation_id)
        if conversation_id in self._following:
            return
        with self._expected(conversation_id):
            if not self._journal.knows(conversation_id):
                conversation = await self._store.get(conversation_id)
                self._journal.begin(conversation_id, conversation.last_seq)

    async def follow_new(
        self, conversation_id: str, make: Callable[[], Awaitable[Conversation]]
    ) -> Conversation:
        """Make a conversation and follow it from its first event: a prompt that was sent right
        after it may be stored before anybody hears that it was made."""
        await self._decided(conversation_id)
        if conversation_id in self._following:
            made = await make()
        else:
            with self._expected(conversation_id):
                made = await make()
                if made.conversation_id == conversation_id:
                    self._journal.begin(conversation_id, made.last_seq)
        if made.conversation_id != conversation_id:  # it had been made before, under another id
            self.unfollow(conversation_id)
        await self.follow(made.conversation_id)
        return made

    async def _decided(self, conversation_id: str) -> None:
        """Nobody is just about to follow it: who is may give up, or find nothing."""
        while (other := self._beginning.get(conversation_id)) is not None:
            await other.wait()

    @contextmanager
    def _expected(self, conversation_id: str) -> Iterator[None]:
        """Hold back what is said of it until the block has ended, then deliver it; nothing is
        followed if the block fails."""
        beginning = self._beginning[conversation_id] = anyio.Event()
        subscription = self._subscribe(conversation_id)
        try:
            yield
        except BaseException:
            if self._following.get(conversation_id) is subscription:
                self.unfollow(conversation_id)
            raise
        else:
            if self._following.get(conversation_id) is subscription:  # else somebody caught up
                subscription.start()
        finally:
            del self._beginning[conversation_id]
            beginning.set()

    async def catch_up(
        self, conversation_id: str, cursor: Cursor | None
    ) -> tuple[CatchUp, Callable[[], None]]:
        """What the client missed, and what to call once it has been told: that starts the live
        events. From here to there they are held back.

        A client with several readers asks for one while another follows already: that one must
        not miss what this one is told, so nothing that was held back is left out."""
        is_followed = conversation_id in self._following
        self.unfollow(conversation_id)
        subscription = self._subscribe(conversation_id)
        try:
            # Text not stored yet is in no catch-up and was streamed before we listened.
            await self._flusher.flush_conversation(conversation_id)
            caught_up = await self._store.catch_up(conversation_id, cursor)
            if not isinstance(caught_up, Missing):
                self._journal.begin(conversation_id, caught_up.last_seq)
        except BaseException:
            self.unfollow(conversation_id)
            raise
        if is_followed and not isinstance(caught_up, Missing):
            return caught_up, subscription.start
        return caught_up, lambda: subscription.release(caught_up)

    def unfollow(self, conversation_id: str) -> None:
        self._cut_off.discard(conversation_id)
        if subscription := self._following.pop(conversation_id, None):
            self._journal.unsubscribe(subscription)

    def unfollow_all(self) -> None:
        for conversation_id in tuple(self._following):
            self.unfollow(conversation_id)

    def notify(self, method: str, params: object) -> None:
        """Tell the client a state. While it lags only the newest is kept for it."""
        body = notification(method, params)
        key = (method, getattr(params, "conversation_id", ""))
        self._missed.pop(key, None)
        if not self._writer.notify(body):
            self._missed[key] = body

    def tell(self, method: str, params: object) -> None:
        """Tell the client something that must arrive."""
        self._writer.send(notification(method, params))

    def tool_output(self, conversation_id: str, turn_id: str, tool_call_id: str, text: str) -> None:
        """Show what a tool puts out while it runs, to who follows and keeps up. It is not kept:
        the result says it again."""
        if conversation_id in self._following:
            output = ToolOutputShown(
                conversation_id=conversation_id,
                turn_id=turn_id,
                tool_call_id=tool_call_id,
                text=text,
            )
            self._writer.notify(notification("tool/output", output))

    def drained(self) -> None:
        """The client reads again: tell it the states that it missed, and for which
        conversations it has to catch up."""
        missed, self._missed = self._missed, {}
        for body in missed.values():
            self._writer.send(body)
        cut_off, self._cut_off = self._cut_off, set()
        for conversation_id in cut_off:
            logger.warning("client lagged", extra={"conversationId": conversation_id})
            self.tell(
                "conversation/resync",
                Resync(
                    conversation_id=conversation_id, seq=self._delivered.get(conversation_id, 0)
                ),
            )

    def _subscribe(self, conversation_id: str) -> Subscription:
        subscription = self._journal.subscribe(
            conversation_id, self._deliver, on_lost=lambda: self._cut_off_from(conversation_id)
        )
        self._following[conversation_id] = subscription
        return subscription

    def _deliver(self, event: Event) -> None:
        if isinstance(event, Delta):
            sent = self._writer.delta(event)
        else:
            sent = self._writer.notify(
                notification("conversation/event", event), key=event.conversation_id
            )
            if sent:
                self._delivered[event.conversation_id] = event.seq
        if not sent:
            self.unfollow(event.conversation_id)
            self._cut_off.add(event.conversation_id)

    def _cut_off_from(self, conversation_id: str) -> None:
        """Events are gone that this client has not had: it is told at once."""
        self.unfollow(conversation_id)
        self._cut_off.add(conversation_id)
        self.drained()
