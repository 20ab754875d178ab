"""Notices from a thread of its own that the event loop stands still.

All agents and requests share one loop. Code that never yields, a provider that computes or a
library that blocks, stops them all; and with them what would have noticed that the editor is
gone, or a signal. Here it is noticed, told, and in the end the process is left.

Code that holds the interpreter's lock for long stops this thread as well: it is told of when
that is over. Only a process of its own would contain it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection

from .parent import has_ended

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
STALLED_LOOKS = 9
"""Looks without a tick after which a stall is told: it began at most ten seconds ago. Looks, not
seconds, because a laptop that slept has not stalled."""
ALONE_LOOKS = 3
"""Looks without a tick and without an editor after which we leave; it has five seconds in all."""


class Watchdog:
    """Watches the running loop until `close`. Its callbacks run on its own thread.

    `on_stall` gets the name of the task that does not yield. `is_alone` says whether nobody
    needs us any more; it is asked only while the loop stands still, and then `leave` is called.
    """

    def __init__(
        self,
        *,
        on_stall: Callable[[str], None],
        is_alone: Callable[[], bool],
        leave: Callable[[], None],
        look: float = LOOK_SECONDS,
    ) -> None:
        self._on_stall = on_stall
        self._is_alone = is_alone
        self._leave = leave
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._look):
            ticked = threading.Event()
            try:
                self._loop.call_soon_threadsafe(ticked.set)
            except RuntimeError:  # the loop has ended
                return
            if not ticked.wait(self._look):
                self._stand_by(ticked)

    def _stand_by(self, ticked: threading.Event) -> None:
        """Until the loop goes on."""
        looks, alone = 1, 0
        while not ticked.wait(self._look) and not self._closed.is_set():
            looks += 1
            alone = alone + 1 if self._is_alone() else 0
            if alone == ALONE_LOOKS:
                logger.error("left while the event loop stood still", extra=self._cause())
                self._leave()
            if looks == STALLED_LOOKS:
                cause = self._cause()
                self._on_stall(cause["task"])
                logger.error("the event loop stands still", extra=cause)
        if looks >= STALLED_LOOKS:
            logger.warning("the event loop goes on", extra={"looks": looks})

    def _cause(self) -> dict[str, str]:
        """The task that does not yield, and where it is."""
        import traceback

        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._watched)
        return {
            "task": task.get_name() if task else "a callback",
            "stack": "".join(traceback.format_stack(frame)),
        }


def hung_up(descriptor: int) -> bool:
    """Whether nobody can write to the other end of this pipe or socket any more, whatever of it
    is still to be read. False where the system cannot tell."""
    try:
        from select import POLLHUP, poll
    except ImportError:  # Windows
        return False
    watched = poll()
    watched.register(descriptor, 0)
    return any(event & POLLHUP for _, event in watched.poll(0))


def editor_is_gone(stdin: int, editor: int | None) -> bool:
    return hung_up(stdin) or (editor is not None and has_ended(editor))


def receive_signals(numbers: Collection[signal.Signals], heard: Callable[[int], None]) -> None:
    """Call `heard` for each signal, on a thread of its own: the event loop, and the main thread
    with it, may be stuck. POSIX only; called in the main thread, for the life of the process."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    for number in numbers:
        signal.signal(number, _caught)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        with ours, theirs:
            while data := ours.recv(1):
                if data[0] in numbers:
                    heard(data[0])

    threading.Thread(target=listen, name="signals", daemon=True).start()


def _caught(number: int, frame: object) -> None:
    """Python calls this when it comes to it; `heard` was told long before."""


def leave_within(seconds: float, exit_code: Callable[[], int]) -> None:
    """End the process by then, whatever still runs in it. What is acknowledged is committed."""
    timer = threading.Timer(seconds, lambda: os._exit(exit_code()))
    timer.daemon = True
    timer.start()
