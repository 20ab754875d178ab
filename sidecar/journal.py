"""Who hears of what happens in a conversation, in which order.

The store hands over events in commit order; turns hand over live text. A reader that comes
late is held back until its catch-up was answered, then gets what it missed meanwhile, each
event once (see `Subscription.release`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import anyio
import msgspec

from .conversations import MessageStatus
from .events import (
    CatchUp,
    Delta,
    DurableEvent,
    Event,
    MessageCompleted,
    Missing,
    Replay,
    Snapshot,
    utf16_length,
)

logger = logging.getLogger(__name__)

Deliver = Callable[[Event], None]
Listener = Callable[[DurableEvent], None]


class Subscription:
    """One reader of one conversation. Holds events back until `release`."""

    def __init__(
        self, conversation_id: str, deliver: Deliver, on_lost: Callable[[], None] | None = None
    ) -> None:
        self.conversation_id = conversation_id
        self.lose = on_lost or (lambda: None)
        """Called when events were lost to this reader, which has to catch up anew."""
        self._deliver = deliver
        self._held: list[Event] | None = []
        self._known_seq = 0
        """Events up to here are in the catch-up; some may be published only after it."""
        self._known_parts: dict[tuple[str, int], int] = {}

    def offer(self, event: Event) -> None:
        if self._held is None:
            if isinstance(event, Delta):
                self._offer_text(event)
            elif event.seq > self._known_seq:
                self._deliver(event)
        else:
            self._held.append(event)

    def _offer_text(self, delta: Delta) -> None:
        """Without what the catch-up had of its part."""
        known = self._known_parts.get((delta.message_id, delta.part), 0)
        if (rest := _beyond(delta, known) if known else delta) is not None:
            self._deliver(rest)

    def start(self) -> None:
        """Deliver from here on, without a catch-up."""
        held, self._held = self._held or [], None
        for event in held:
            self._deliver(event)

    def release(self, caught_up: CatchUp) -> None:
        """Deliver what was held back and is not in `caught_up`, then everything as it comes."""
        held, self._held = self._held or [], None
        if isinstance(caught_up, Missing):
            return
        self._known_seq = caught_up.last_seq
        known = {(part.message_id, part.part): part.length for part in caught_up.open_parts}
        self._known_parts = known
        streaming = _streaming(caught_up)
        for event in held:
            if isinstance(event, Delta):
                if (rest := _beyond(event, known.get((event.message_id, event.part), 0))) is None:
                    continue
                if event.seq < caught_up.last_seq:
                    # A message that has ended since is in the catch-up, whole.
                    if event.message_id != streaming:
                        continue
                    rest = msgspec.structs.replace(rest, seq=caught_up.last_seq)
                self._deliver(rest)
            elif event.seq > caught_up.last_seq:
                self._deliver(event)


def _streaming(caught_up: Replay | Snapshot) -> str | None:
    """The message that was still being written when the catch-up was read."""
    if isinstance(caught_up, Replay):
        return caught_up.open_message.message_id if caught_up.open_message else None
    open_ones = (m for m in caught_up.messages if m.status is MessageStatus.STREAMING)
    return next((message.message_id for message in open_ones), None)


def _beyond(delta: Delta, length: int) -> Delta | None:
    """What `delta` adds to a part of which `length` units are known already."""
    surplus = delta.offset + utf16_length(delta.text) - length
    if surplus <= 0:
        return None
    if delta.offset >= length:
        return delta
    units = delta.text.encode("utf-16-le")[(length - delta.offset) * 2 :]
    return msgspec.structs.replace(delta, offset=length, text=units.decode("utf-16-le"))


class Journal:
    """Fans events out to readers and listeners. Plain bookkeeping; nothing here awaits.

    Events of a conversation are passed on without a hole. One that comes before another
    window's that precedes it (theirs is known only when somebody looks) is held back, text
    with it, until `Follower` brings all that is missing.
    """

    def __init__(self) -> None:
        self._readers: dict[str, list[Subscription]] = {}
        self._listeners: list[Listener] = []
        self._last_seq: dict[str, int] = {}
        self._behind: dict[str, list[Delta]] = {}
        """Conversations with a hole to be filled, and the text that came since."""
        self.changed = anyio.Event()
        """Set, and replaced, at the next commit."""
        self.deltas = 0
        self.commits = 0

    def listen(self, listener: Listener) -> None:
        """Hear every durable event of every conversation, before its readers do."""
        self._listeners.append(listener)

    def subscribe(
        self, conversation_id: str, deliver: Deliver, on_lost: Callable[[], None] | None = None
    ) -> Subscription:
        subscription = Subscription(conversation_id, deliver, on_lost)
        self._readers.setdefault(conversation_id, []).append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        readers = self._readers.get(subscription.conversation_id, [])
        if subscription in readers:
            readers.remove(subscription)
        if not readers:
            self._readers.pop(subscription.conversation_id, None)

    def has_readers(self, conversation_id: str) -> bool:
        return conversation_id in self._readers

    def followed(self) -> Sequence[str]:
        """The conversations that somebody reads."""
        return tuple(self._readers)

    def knows(self, conversation_id: str) -> bool:
        """Whether it is known up to where events have been passed on."""
        return conversation_id in self._last_seq

    def last_seq(self, conversation_id: str) -> int:
        return self._last_seq.get(conversation_id, 0)

    def begin(self, conversation_id: str, last_seq: int) -> None:
        """Events are known up to here. From the first event on, the journal knows by itself."""
        self._last_seq.setdefault(conversation_id, last_seq)

    def publish(self, events: Sequence[DurableEvent]) -> None:
        """Called by the store on the event loop, in commit order. An event that was published
        before (our own commit, seen again by whoever follows other windows) is passed over. A
        commit without events (a new conversation, a deleted one) is published too."""
        self.commits += 1
        for event in events:
            last = self._last_seq.get(event.conversation_id, event.seq - 1)
            if event.seq > last + 1:
                self._behind.setdefault(event.conversation_id, [])
            elif event.seq == last + 1:
                self._pass_on(event)
        self.announce()

    def announce(self) -> None:
        """Wake who waits for `changed`: something was committed, here or elsewhere."""
        self.changed.set()
        self.changed = anyio.Event()

    def fill(self, events: Sequence[DurableEvent]) -> None:
        """Pass on what was missing: everything after `last_seq`, read from the store."""
        self.publish(events)
        whole = {event.message_id for event in events if isinstance(event, MessageCompleted)}
        for conversation_id in {event.conversation_id for event in events}:
            for delta in self._behind.pop(conversation_id, ()):
                if delta.message_id not in whole:
                    self._offer(msgspec.structs.replace(delta, seq=self.last_seq(conversation_id)))

    def give_up(self, conversation_id: str, last_seq: int) -> None:
        """What was missing is not kept any more: its readers have to ask for a snapshot."""
        self._last_seq[conversation_id] = last_seq
        self._behind.pop(conversation_id, None)
        self.cut_off(conversation_id)

    def forget(self, conversation_id: str) -> None:
        """Know nothing of a conversation: it was deleted, or concerns nobody here."""
        self._last_seq.pop(conversation_id, None)
        self._behind.pop(conversation_id, None)

    def cut_off(self, conversation_id: str) -> None:
        """Have its readers ask how things stand."""
        for reader in tuple(self._readers.get(conversation_id, ())):
            reader.lose()

    def _pass_on(self, event: DurableEvent) -> None:
        self._last_seq[event.conversation_id] = event.seq
        for listener in self._listeners:
            listener(event)
        self._offer(event)

    def publish_delta(self, delta: Delta) -> None:
        """Live text; sent under the seq of the last durable event before it."""
        self.deltas += 1
        if (held := self._behind.get(delta.conversation_id)) is not None:
            held.append(delta)
        else:
            self._offer(delta)

    def _offer(self, event: Event) -> None:
        for reader in tuple(self._readers.get(event.conversation_id, ())):
            try:
                reader.offer(event)
            except Exception:  # one broken reader must not stop the others, or the store
                logger.exception("a reader failed")
