"""The bounded way out: frames in order, written by a thread, so that the event loop never waits
for a client that does not read. What a client that keeps up can take at once is written there
and then: waking the thread costs several times as much.

Responses and requests always get in. Notifications get in while there is room; one that does
not is refused, and the caller, who knows what it said, makes up for it when told that the
client has caught up. While frames wait, text that continues a waiting delta is added to it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec

from ..events import Delta, utf16_length
from .frames import frame

logger = logging.getLogger(__name__)

LIMIT = 8 * 1024 * 1024
PIECE = 256 * 1024
"""How much is handed to the system at once. What is behind it in the queue can still grow."""

FRAME_ROOM = 64
"""What a frame takes beside its body: its header and its place in the queue."""
DELTA_ROOM = 384
"""What a delta takes beside its text. It is not encoded yet when it is counted."""


class _Waiting:
    """A delta in the queue, with the text of those that continued it."""

    __slots__ = ("delta", "end", "size", "texts")

    def __init__(self, delta: Delta) -> None:
        self.delta = delta
        self.texts: list[str] = []
        self.end = delta.offset
        self.size = DELTA_ROOM
        self.add(delta)

    def add(self, delta: Delta) -> None:
        self.texts.append(delta.text)
        self.end += utf16_length(delta.text)
        self.size += _text_size(delta.text)

    def is_continued_by(self, delta: Delta) -> bool:
        mine = self.delta
        return (
            delta.offset == self.end
            and delta.message_id == mine.message_id
            and delta.part == mine.part
            and delta.kind == mine.kind
            and delta.seq == mine.seq
        )

    def merged(self) -> Delta:
        if len(self.texts) == 1:
            return self.delta
        return msgspec.structs.replace(self.delta, text="".join(self.texts))


class FrameWriter:
    """Writes bodies as frames through `write`, which may block and may write only a part (it
    returns how much, or None for everything). `room` says how many bytes it would take now
    without blocking; 0 when that is not known.

    `encode` turns a delta into a body and `wrap` a body into a frame, on either thread. The
    callbacks run on the event loop: `on_drained` when the queue has fallen below half of `limit`
    after it had been congested, `on_broken` once, when writing failed; nothing is taken any more
    after that.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        encode: Callable[[Delta], bytes],
        wrap: Callable[[bytes], bytes] = frame,
        room: Callable[[], int] = lambda: 0,
        limit: int = LIMIT,
        on_drained: Callable[[], object] | None = None,
        on_broken: Callable[[], object] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._write = write
        self._encode = encode
        self._wrap = wrap
        self._room = room
        self._limit = limit
        self._on_drained = on_drained
        self._on_broken = on_broken
        self._loop = loop or asyncio.get_running_loop()
        self._lock = threading.Lock()
        """Guards everything below. Nobody waits under it."""
        self._arrived = threading.Condition(self._lock)
        self._queue: deque[bytes | _Waiting] = deque()
        self._growing: dict[str, _Waiting] = {}
        """By conversation: its last frame in the queue, where that is a delta."""
        self._bytes = 0
        self._is_congested = False
        self._is_idle = False
        self._is_closed = False
        self._is_broken = False
        self._thread = threading.Thread(target=self._run, name="frame writer", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        state = f"{len(self._queue)} frames, {self._bytes} bytes"
        for name in ("congested", "closed", "broken"):
            if getattr(self, f"_is_{name}"):
                state += f", {name}"
        return f"<FrameWriter: {state}>"

    @property
    def queued_bytes(self) -> int:
        """About how much memory is taken by what is not written yet."""
        return self._bytes

    @property
    def is_congested(self) -> bool:
        """Whether the queue came to its limit, and `on_drained` has yet to be called."""
        return self._is_congested

    # ---- the event loop's side ----

    def send(self, body: bytes) -> None:
        """Queue a response or a request. Never refused, so that nobody waits for ever."""
        with self._lock:
            # No text may move ahead of it: it may say up to where the reader has the text.
            self._growing.clear()
            self._put(body)
            if self._bytes > self._limit:
                self._is_congested = True

    def notify(self, body: bytes, *, key: str | None = None) -> bool:
        """Queue a notification, about the conversation `key` if about one. False: no room."""
        with self._lock:
            if key is None:
                self._growing.clear()
            else:
                self._growing.pop(key, None)
            if not self._has_room(len(body) + FRAME_ROOM):
                return False
            self._put(body)
            return True

    def delta(self, event: Delta) -> bool:
        """Queue streamed text. False: no room."""
        size = _text_size(event.text)
        with self._lock:
            if not self._has_room(size + DELTA_ROOM):
                return False
            waiting = self._growing.get(event.conversation_id)
            if waiting is not None and waiting.is_continued_by(event):
                waiting.add(event)
                self._bytes += size
            elif self._is_idle:
                self._put(self._encode(event))
            else:
                self._growing[event.conversation_id] = waiting = _Waiting(event)
                self._put(waiting)
            return True

    def close(self, timeout: float) -> bool:
        """Take nothing more and write what is queued. False: that took longer, or failed.

        Blocks for up to `timeout` seconds."""
        with self._lock:
            self._is_closed = True
            self._arrived.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._is_broken

    def _has_room(self, size: int) -> bool:
        if self._is_closed:
            return False
        if self._bytes and self._bytes + size > self._limit:
            self._is_congested = True
            return False
        return True

    def _put(self, item: bytes | _Waiting) -> None:
        if self._is_closed or (self._is_idle and self._written_at_once(item)):
            return
        self._queue.append(item)
        self._bytes += _size(item)
        if self._is_idle:
            self._is_idle = False
            self._arrived.notify()

    def _written_at_once(self, item: bytes | _Waiting) -> bool:
        """Write a frame here if nothing is before it and the client has room for it."""
        data = self._framed(item)
        if len(data) > self._room():
            return False
        try:
            self._write_out(data)
        except OSError:  # the thread will meet it, too, and knows what to do
            return False
        return True

    # ---- the thread's side ----

    def _run(self) -> None:
        try:
            while items := self._take():
                self._write_out(b"".join(map(self._framed, items)))
                self._account(sum(map(_size, items)))
        except OSError as error:
            logger.info("the client reads no more", extra={"cause": type(error).__name__})
            self._break()
        except BaseException:
            self._break()
            raise

    def _take(self) -> list[bytes | _Waiting]:
        """What to write next; nothing once closed and empty."""
        with self._lock:
            while not self._queue and not self._is_closed:
                self._is_idle = True
                self._arrived.wait()
            self._is_idle = False
            items: list[bytes | _Waiting] = []
            size = 0
            while self._queue and size < PIECE:
                item = self._queue.popleft()
                items.append(item)
                size += _size(item)
                if isinstance(item, _Waiting):
                    conversation_id = item.delta.conversation_id
                    if self._growing.get(conversation_id) is item:
                        del self._growing[conversation_id]
            return items

    def _framed(self, item: bytes | _Waiting) -> bytes:
        return self._wrap(item if isinstance(item, bytes) else self._encode(item.merged()))

    def _write_out(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            piece = data[at : at + PIECE]
            written = self._write(piece)
            at += written if isinstance(written, int) else len(piece)

    def _account(self, size: int) -> None:
        with self._lock:
            self._bytes -= size
            has_drained = self._is_congested and self._bytes <= self._limit // 2
            if has_drained:
                self._is_congested = False
        if has_drained:
            self._tell(self._on_drained)

    def _break(self) -> None:
        with self._lock:
            self._is_closed = self._is_broken = True
            self._queue.clear()
            self._growing.clear()
            self._bytes = 0
            self._is_congested = False
        self._tell(self._on_broken)

    def _tell(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            with suppress(RuntimeError):  # the loop has ended, and with it who wanted to know
                self._loop.call_soon_threadsafe(callback)


def _size(item: bytes | _Waiting) -> int:
    return len(item) + FRAME_ROOM if isinstance(item, bytes) else item.size


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else 3 * len(text)
