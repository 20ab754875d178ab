"""Following other windows: what they commit reaches this one's journal, readers and agents.

No daemon and no messages between processes. Every commit bumps the store's change counter; we
look a few times a second whether anybody committed, which costs microseconds, and then bring in
what is new. A window that wants something of another writes a row, and the other one sees it
here: a prompt, a request to cancel, a new mode.
"""

from __future__ import annotations

import logging
from typing import Protocol

import anyio

from .errors import AgentError, NotFound
from .events import Cursor, Delta, Missing, OpenPart, Replay, utf16_length
from .interfaces import ChangedConversation, ConversationStore
from .journal import Journal

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.05
"""Seconds between looks while other windows commit."""
QUIET_INTERVAL = 0.25
"""The same when nobody has committed for `QUIET_AFTER` looks: four looks a second are nothing
that a battery would notice."""
QUIET_AFTER = 40
ROLL_CALL_INTERVAL = 0.25
"""Seconds between checks that the owners of waiting work still live."""


class Host(Protocol):
    """What a follower asks of whom it serves, and tells it."""

    def concerns_us(self, conversation_id: str) -> bool:
        """Whether anybody here reads it, serves it, or waits for a turn of it."""
        ...

    def runs_here(self, conversation_id: str) -> bool:
        """Whether its text streams in this process."""
        ...

    def was_changed(self, changed: ChangedConversation) -> None: ...

    def was_deleted(self, conversation_id: str) -> None: ...

    def was_orphaned(self, conversation_id: str) -> None:
        """It concerns us, something in it waits or ran, and nobody alive owns it."""
        ...

    async def has_gap(self, conversation_id: str) -> None:
        """Events were passed over, `turnEnded`s perhaps: whoever waits for one has to look."""
        ...


class Follower:
    """Looks until cancelled."""

    def __init__(self, store: ConversationStore, journal: Journal, host: Host) -> None:
        self._store = store
        self._journal = journal
        self._host = host
        self._change_no = store.change_no
        self._streamed: dict[str, OpenPart] = {}

    async def run(self) -> None:
        quiet = 0
        failing = False
        next_roll_call = anyio.current_time()
        while True:
            await anyio.sleep(LOOK_INTERVAL if quiet < QUIET_AFTER else QUIET_INTERVAL)
            try:
                quiet = 0 if await self.look() else quiet + 1
                if anyio.current_time() >= next_roll_call:
                    next_roll_call = anyio.current_time() + ROLL_CALL_INTERVAL
                    await self.roll_call()
                failing = False
            except AgentError as error:
                if not failing:
                    failing = True
                    logger.warning("other windows cannot be seen", extra={"cause": error.message})

    async def look(self) -> bool:
        """Bring in what was committed since the last look. False: nothing was. What fails is
        brought in by the next look."""
        changes = await self._store.changed_since(self._change_no)
        if changes is None:
            return False
        for conversation_id in changes.deleted:
            self._forget(conversation_id)
            self._host.was_deleted(conversation_id)
        for conversation in changes.conversations:
            await self._take(conversation)
            self._host.was_changed(conversation)
        self._change_no = changes.change_no
        self._journal.announce()
        return True

    async def roll_call(self) -> None:
        """Settle and take up what a dead owner left, if it concerns us."""
        orphans = [id for id in await self._store.orphaned() if self._host.concerns_us(id)]
        if orphans:
            await self._store.recover()
        for conversation_id in orphans:
            self._host.was_orphaned(conversation_id)

    def _forget(self, conversation_id: str) -> None:
        self._journal.forget(conversation_id)
        self._streamed.pop(conversation_id, None)

    async def _take(self, changed: ChangedConversation) -> None:
        conversation_id = changed.conversation_id
        if not self._host.concerns_us(conversation_id):
            # Who asks later begins with what is stored then.
            self._forget(conversation_id)
            return
        if not self._journal.knows(conversation_id):
            # Readers get what is before that otherwise; who waits may have been waiting for it.
            self._journal.begin(conversation_id, changed.last_seq)
            await self._host.has_gap(conversation_id)
        elif changed.last_seq > self._journal.last_seq(conversation_id):
            await self._bring(conversation_id, changed.revision)
        is_read = self._journal.has_readers(conversation_id)
        if is_read and not self._host.runs_here(conversation_id):
            await self._bring_text(conversation_id)

    async def _bring(self, conversation_id: str, revision: int) -> None:
        """Everything after what the journal has, or word that it is not kept any more."""
        while True:
            known = self._journal.last_seq(conversation_id)
            cursor = Cursor(store_id=self._store.store_id, seq=known, revision=revision)
            caught_up = await self._store.catch_up(conversation_id, cursor, page_size=1)
            if isinstance(caught_up, Replay):
                self._journal.fill(caught_up.events)
                return
            if isinstance(caught_up, Missing):
                return  # deleted since; the next look tells
            if caught_up.revision == revision:
                self._journal.give_up(conversation_id, caught_up.last_seq)
                await self._host.has_gap(conversation_id)
                return
            revision = caught_up.revision  # rewound since; the events are there all the same

    async def _bring_text(self, conversation_id: str) -> None:
        try:
            deltas = await self._store.streamed_after(
                conversation_id, self._streamed.get(conversation_id)
            )
        except NotFound:
            return  # deleted since; the next look tells
        known = self._journal.last_seq(conversation_id)
        for delta in deltas:
            if delta.seq > known:
                return  # the events before it come first; their commit brings the next look
            self._journal.publish_delta(delta)
            self._streamed[conversation_id] = _end(delta)


def _end(delta: Delta) -> OpenPart:
    return OpenPart(
        message_id=delta.message_id,
        part=delta.part,
        length=delta.offset + utf16_length(delta.text),
    )
