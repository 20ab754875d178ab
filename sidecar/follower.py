"""Following other windows: what they commit reaches this one's journal, readers and agents.

No daemon and no messages between processes. Every commit bumps the store's change counter; we
look a few times a second whether anybody committed, which costs microseconds, and then bring in
what is new. A window that wants something of another writes a row, and the other one sees it
here: a prompt, a request to cancel, a new mode.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from .errors import AgentError
from .events import Cursor, Delta, OpenPart, Replay, Snapshot, utf16_length
from .interfaces import ChangedConversation, ConversationStore
from .journal import Journal

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.1
"""Seconds between looks while other windows commit."""
QUIET_INTERVAL = 0.25
"""The same when nobody has committed for `QUIET_AFTER` looks: four looks a second are nothing
that a battery would notice."""
QUIET_AFTER = 20
ROLL_CALL_INTERVAL = 0.5
"""Seconds between checks that the owners of waiting work still live."""


class Follower:
    """Looks until cancelled. `wants` tells which conversations concern this process;
    `on_change` hears of each one that changed, `on_orphan` of each whose owner died."""

    def __init__(
        self,
        store: ConversationStore,
        journal: Journal,
        *,
        wants: Callable[[str], bool],
        is_ours: Callable[[str], bool],
        on_change: Callable[[ChangedConversation], None],
        on_orphan: Callable[[str], None],
    ) -> None:
        self._store = store
        self._journal = journal
        self._wants = wants
        self._is_ours = is_ours
        self._on_change = on_change
        self._on_orphan = on_orphan
        self._change_no = 0
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
        """Bring in everything that was committed since the last look. False: nothing was."""
        changes = await self._store.changed_since(self._change_no)
        if changes is None:
            return False
        self._change_no = changes.change_no
        for conversation in changes.conversations:
            if self._wants(conversation.conversation_id):
                self._journal.begin(conversation.conversation_id, conversation.last_seq)
                await self._bring(conversation.conversation_id, conversation.revision)
            self._on_change(conversation)
        for conversation_id in self._journal.behind:
            await self._bring(conversation_id, (await self._store.get(conversation_id)).revision)
        for conversation_id in self._journal.followed():
            if not self._is_ours(conversation_id):
                await self._bring_text(conversation_id)
        return True

    async def roll_call(self) -> None:
        """Settle and take up what a dead owner left, if it concerns us."""
        orphans = [id for id in await self._store.orphaned() if self._wants(id)]
        if orphans:
            await self._store.recover()
        for conversation_id in orphans:
            self._on_orphan(conversation_id)

    async def _bring(self, conversation_id: str, revision: int) -> None:
        """Everything after what the journal has, or word that it is not kept any more."""
        known = self._journal.last_seq(conversation_id)
        cursor = Cursor(store_id=self._store.store_id, seq=known, revision=revision)
        caught_up = await self._store.catch_up(conversation_id, cursor, page_size=1)
        if isinstance(caught_up, Replay):
            self._journal.fill(caught_up.events)
        elif isinstance(caught_up, Snapshot):
            self._journal.give_up(conversation_id, caught_up.last_seq)

    async def _bring_text(self, conversation_id: str) -> None:
        deltas = await self._store.streamed_after(
            conversation_id, self._streamed.get(conversation_id)
        )
        known = self._journal.last_seq(conversation_id)
        for delta in deltas:
            if delta.seq > known:
                return  # the events before it come first, with the next look
            self._journal.publish_delta(delta)
            self._streamed[conversation_id] = _end(delta)


def _end(delta: Delta) -> OpenPart:
    return OpenPart(
        message_id=delta.message_id,
        part=delta.part,
        length=delta.offset + utf16_length(delta.text),
    )
