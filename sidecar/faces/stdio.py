"""Our stdin and stdout, kept for the protocol alone.

`claim_stdout` comes first in a process that serves: after it a stray print, a library or a
child can reach stderr only. `StdinReader` brings bytes to the event loop by way of a thread,
which works for pipes, files and consoles on every platform alike.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK = 1024 * 1024


def claim_stdout() -> int:
    """Take stdout for the caller alone; returns a descriptor that no child inherits.

    File descriptor 1 and `sys.stdout` lead to stderr from now on. Both standard streams carry
    bytes unchanged, and writing to them blocks."""
    if sys.stdout is not None:
        sys.stdout.flush()
    _have_stderr()
    private = os.dup(1)
    os.dup2(2, 1)
    stderr = io.BufferedWriter(_Stderr())
    sys.stdout = sys.stderr = io.TextIOWrapper(
        stderr, encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    _carry_bytes(private)
    if sys.stdin is not None:  # whoever reads a closed one will notice
        _carry_bytes(0)
    return private


def room_in(descriptor: int) -> Callable[[], int]:
    """A function that says how many bytes can be written to a descriptor that is a pipe or a
    socket without blocking; 0 where the platform cannot tell."""
    try:
        from select import PIPE_BUF, POLLOUT, poll
    except ImportError:  # Windows
        return lambda: 0
    watched = poll()
    watched.register(descriptor, POLLOUT)
    return lambda: PIPE_BUF if watched.poll(0) == [(descriptor, POLLOUT)] else 0


class _Stderr(io.FileIO):
    """Our stderr, as long as somebody takes it. One that the editor closed or does not read, or
    a full disk behind it, must not make every log call and every print fail, or wait.

    What does not fit is left out. Given whole lines, it writes whole lines, unless one is longer
    than what fits."""

    def __init__(self) -> None:
        super().__init__(2, "w", closefd=False)
        self._room: Callable[[], int] | None = None
        self._is_first = True
        self._is_torn = False

    def write(self, data: Buffer, /) -> int:
        given = bytes(data)
        try:
            if self._is_first:  # not sooner: the start has no time to import what this takes
                self._is_first = False
                self._room = room_in(2) if _is_watchable(2) else None
            if self._room is None:
                super().write(given)
            else:
                self._write_what_fits(given, self._room)
        except OSError:
            self._is_torn = False
        return len(given)

    def _write_what_fits(self, data: bytes, room: Callable[[], int]) -> None:
        if self._is_torn:
            data = b"\n" + data
        at = 0
        while at < len(data) and (size := room()):
            at += super().write(data[at : at + size]) or 0
        self._is_torn = self._is_torn if at == 0 else at < len(data)


def _have_stderr() -> None:
    """Without one, the next file that is opened would be taken for it: our copy of stdout."""
    try:
        os.fstat(2)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != 2:
            os.dup2(nowhere, 2)
            os.close(nowhere)


def _carry_bytes(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(descriptor, os.O_BINARY)  # otherwise every newline would grow
    else:
        os.set_blocking(descriptor, True)


class StdinReader:
    """Reads a descriptor on a thread and hands what it got to the running event loop.

    At most one piece is on its way: the next is read when the loop has taken the last one and
    reading is not paused. `on_data` and `on_end` run on the loop; `on_end` is the last call.
    """

    def __init__(
        self, descriptor: int, on_data: Callable[[bytes], object], on_end: Callable[[], object]
    ) -> None:
        # Imported here because the prologue imports this file, and has no time.
        import asyncio
        import threading

        self._descriptor = descriptor
        self._on_data = on_data
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._is_paused = False
        self._is_under_way = False
        """Whether a piece is being read, or is read and not taken yet."""
        self._held: bytes | None = None
        """The piece that arrived during a pause."""
        self._may_read = threading.Event()
        self._thread = threading.Thread(target=self._read, name="stdin reader", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._go_on()

    def pause(self) -> None:
        """Hand over no more data until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        if self._held is None:
            self._go_on()
        else:
            held, self._held = self._held, None
            self._loop.call_soon(self._take, held)

    def _go_on(self) -> None:
        if not self._is_under_way and not self._is_paused:
            self._is_under_way = True
            self._may_read.set()

    def _read(self) -> None:
        while True:
            self._may_read.wait()
            self._may_read.clear()
            try:
                piece = os.read(self._descriptor, CHUNK)
            except OSError:  # a console or a terminal that went away: the end, too
                piece = b""
            try:
                self._loop.call_soon_threadsafe(self._take, piece)
            except RuntimeError:  # the loop has ended, and with it who wanted to know
                return
            if not piece:
                return

    def _take(self, piece: bytes) -> None:
        if not piece:
            self._on_end()
        elif self._is_paused:
            self._held = piece
        else:
            try:
                self._on_data(piece)
            finally:
                self._is_under_way = False
                self._go_on()


class PipeReader:
    """As `StdinReader`, for a descriptor that the event loop can watch by itself. No thread has
    to be woken for a request, which takes longer than to serve many a one."""

    def __init__(
        self, descriptor: int, on_data: Callable[[bytes], object], on_end: Callable[[], object]
    ) -> None:
        import asyncio

        self._descriptor = descriptor
        self._on_data = on_data
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._is_paused = False
        self._held: bytes | None = None
        """The piece that arrived during a pause. While there is one, nothing is watched."""

    def start(self) -> None:
        self._loop.add_reader(self._descriptor, self._read)

    def pause(self) -> None:
        """Hand over no more data until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        if self._held is not None:
            held, self._held = self._held, None
            self._loop.call_soon(self._take, held)
            self.start()

    def _read(self) -> None:
        try:
            piece = os.read(self._descriptor, CHUNK)
        except OSError:  # a socket that was reset: the end, too
            piece = b""
        if not piece:
            self._loop.remove_reader(self._descriptor)
            self._on_end()
        else:
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        if self._is_paused:
            self._loop.remove_reader(self._descriptor)
            self._held = piece
        else:
            self._on_data(piece)


def reader_of(
    descriptor: int, on_data: Callable[[bytes], object], on_end: Callable[[], object]
) -> StdinReader | PipeReader:
    """What reads this descriptor best. Files and consoles cannot be watched everywhere."""
    kind = PipeReader if _is_watchable(descriptor) else StdinReader
    return kind(descriptor, on_data, on_end)


def _is_watchable(descriptor: int) -> bool:
    """Whether the system tells when this pipe or socket can be read or written."""
    import stat

    mode = os.fstat(descriptor).st_mode
    return sys.platform != "win32" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
