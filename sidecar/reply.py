"""A reply while it is being made: its parts, what of them is stored, and who stores the rest."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import anyio

from .conversations import Part, TextPart, ThinkingPart
from .errors import AgentError
from .events import Delta, utf16_length
from .interfaces import ConversationStore, TextChunk
from .journal import Journal

logger = logging.getLogger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds that streamed text may be ahead of the store, or `FLUSH_UNITS` of it."""
FLUSH_UNITS = 8 * 1024
RETRY_INTERVAL = 2.0
"""Seconds between attempts to store text while the store refuses."""

END_PATIENCE = 1.0
"""Seconds that a reader waits for a reply's end to be stored: longer than a commit takes."""

Kind = Literal["text", "thinking"]


class OpenText:
    """A text part that still grows. Pieces are joined once, at the end, not at every token."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.units = 0
        self.stored_pieces = 0
        self.stored_units = 0

    def part(self) -> Part:
        text = "".join(self.pieces)
        return TextPart(text=text) if self.kind == "text" else ThinkingPart(text=text)


class Reply:
    """The assistant message of one running turn.

    Text arrives with `append`, everything else with `add`; both decide the part's index at
    once, so what the journal sends and what the store keeps agree.
    """

    def __init__(
        self, journal: Journal, conversation_id: str, turn_id: str, message_id: str
    ) -> None:
        self.conversation_id = conversation_id
        self.turn_id = turn_id
        self.message_id = message_id
        self._journal = journal
        self._parts: list[Part | OpenText] = []
        self._surrogate = ""
        self._kind: Kind = "text"
        self._closed = False
        self.unstored_units = 0

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(p.part() if isinstance(p, OpenText) else p for p in self._parts)

    def append(self, kind: Kind, text: str) -> None:
        """Add streamed text to the open part of its kind, or open one."""
        if self._closed:
            return
        if kind != self._kind:
            self.end_text()
            self._kind = kind
        if self._surrogate or not text.isascii():
            text = self._whole_pairs(text)
        if text:
            self._push(kind, text)

    def end_text(self) -> None:
        """No more of this text follows: half a pair that waits for the other stays alone."""
        if self._surrogate:
            self._surrogate = ""
            self._push(self._kind, "\ufffd")

    def _push(self, kind: Kind, text: str) -> None:
        last = self._parts[-1] if self._parts else None
        if not isinstance(last, OpenText) or last.kind != kind:
            last = OpenText(kind)
            self._parts.append(last)
        offset = last.units
        units = utf16_length(text)
        last.pieces.append(text)
        last.units += units
        self.unstored_units += units
        self._journal.publish_delta(
            Delta(
                conversation_id=self.conversation_id,
                seq=self._journal.last_seq(self.conversation_id),
                message_id=self.message_id,
                part=len(self._parts) - 1,
                kind=kind,
                offset=offset,
                text=text,
            )
        )

    def add(self, part: Part) -> int:
        """Add a part that is whole; returns its index."""
        self.end_text()
        self._parts.append(part)
        return len(self._parts) - 1

    def close(self) -> None:
        """Take no more text: the turn is over, whatever its provider still says."""
        self._closed = True

    def unstored(self) -> list[tuple[OpenText, TextChunk, int]]:
        """The text that is not in the store yet: one chunk a part, and how far it reaches."""
        found: list[tuple[OpenText, TextChunk, int]] = []
        for index, part in enumerate(self._parts):
            if isinstance(part, OpenText) and part.stored_pieces < len(part.pieces):
                reach = len(part.pieces)
                chunk = TextChunk(
                    conversation_id=self.conversation_id,
                    turn_id=self.turn_id,
                    message_id=self.message_id,
                    part=index,
                    kind=part.kind,
                    offset=part.stored_units,
                    text="".join(part.pieces[part.stored_pieces : reach]),
                )
                found.append((part, chunk, reach))
        return found

    def mark_stored(self, part: OpenText, chunk: TextChunk, reach: int) -> None:
        units = utf16_length(chunk.text)
        part.stored_pieces = reach
        part.stored_units += units
        self.unstored_units -= units

    def _whole_pairs(self, text: str) -> str:
        """Join surrogate halves that came in two pieces; lone ones become U+FFFD."""
        text = self._surrogate + text
        self._surrogate = ""
        try:
            text.encode()
        except UnicodeEncodeError:
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._surrogate = text[:-1], text[-1]
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text


class Flusher:
    """Stores streamed text: one transaction a tick for all conversations that stream.

    A failing store does not stop a turn: the text stays in memory (its turn holds it anyway),
    is tried again, and `on_degraded` hears of the first failure and of the recovery only. The
    same when the store does not fail yet, but is `held` by somebody else for longer than usual.
    """

    def __init__(self, store: ConversationStore, on_degraded: Callable[[str | None], None]) -> None:
        self._store = store
        self._on_degraded = on_degraded
        self._replies: dict[str, Reply] = {}
        self._ending: dict[str, anyio.Event] = {}
        """Conversations whose reply is whole and about to be stored so."""
        self._full = anyio.Event()
        self._present = anyio.Event()
        self._failing = False
        self._lock = anyio.Lock()

    def attach(self, reply: Reply) -> None:
        self._replies[reply.conversation_id] = reply
        self._present.set()

    def detach(self, reply: Reply) -> None:
        """It takes no more text, and its end will be stored at once; `ended` has to follow."""
        if self._replies.get(reply.conversation_id) is reply:
            del self._replies[reply.conversation_id]
            self._ending[reply.conversation_id] = anyio.Event()

    def ended(self, reply: Reply) -> None:
        """The end is stored, or never will be by us."""
        if ending := self._ending.pop(reply.conversation_id, None):
            ending.set()

    def notice(self, reply: Reply) -> None:
        """Ask for a tick now if this reply has run far ahead of the store."""
        if reply.unstored_units >= FLUSH_UNITS and not self._failing:
            self._full.set()

    async def run(self) -> None:
        while True:
            if not self._replies:
                self._present = anyio.Event()
                await self._present.wait()
            self._full = anyio.Event()
            with anyio.move_on_after(RETRY_INTERVAL if self._failing else FLUSH_INTERVAL):
                await self._full.wait()
            await self.flush(tuple(self._replies.values()))

    async def flush_conversation(self, conversation_id: str) -> None:
        """Store what has streamed so far, so that a reader who joins can count on it."""
        if reply := self._replies.get(conversation_id):
            await self.flush((reply,))
        elif ending := self._ending.get(conversation_id):
            # Its last words are in no chunk: they come with the end, which is on its way.
            with anyio.move_on_after(END_PATIENCE):
                await ending.wait()

    async def flush(self, replies: Sequence[Reply]) -> None:
        async with self._lock:
            taken = [(reply, *rest) for reply in replies for rest in reply.unstored()]
            if not taken:
                return
            if await self._stored(lambda: self._store.append_text([c for _, _, c, _ in taken])):
                for reply, part, chunk, reach in taken:
                    reply.mark_stored(part, chunk, reach)

    async def _stored(self, write: Callable[[], Awaitable[None]]) -> bool:
        try:
            await write()
        except AgentError as error:
            self.failed(error)
            return False
        self.recovered()
        return True

    def failed(self, error: AgentError) -> None:
        logger.error(
            "text could not be stored", extra={"type": "PERSISTENCE_FAILED", "cause": error.message}
        )
        self._trouble(error.message)

    def held(self, is_held: bool) -> None:
        """Somebody keeps the store from being written, or does not any more."""
        if is_held:
            self._trouble("Another program holds the store.")
        else:
            self.recovered()

    def _trouble(self, reason: str) -> None:
        if not self._failing:
            self._failing = True
            self._on_degraded(reason)

    def recovered(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("the store takes text again")
            self._on_degraded(None)
