"""Our own standard streams: what may reach stdout, and how stdin reaches the event loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from sidecar.faces.stdio import StdinReader

pytestmark = pytest.mark.anyio

PATIENCE = 10


# ---- stdout ------------------------------------------------------------------------------

STRAY = """
import os, subprocess, sys
from sidecar.faces.stdio import claim_stdout
print("before")
private = claim_stdout()
print("print")
os.write(1, b"descriptor\\n")
subprocess.run([sys.executable, "-c", "print('child')"])
sys.__stdout__.write("library\\n")
os.write(private, b"frame")
assert not os.get_inheritable(private)
"""


def test_after_the_claim_only_we_write_to_stdout() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STRAY], capture_output=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.replace(b"\r", b"") == b"before\nframe"
    assert set(done.stderr.split()) == {b"print", b"descriptor", b"child", b"library"}


@pytest.mark.skipif(sys.platform == "win32", reason="closing a standard stream needs a POSIX shell")
@pytest.mark.parametrize("closed", ["0<&-", "2>&-"])
def test_a_closed_stream_does_not_keep_us_from_claiming_stdout(closed: str) -> None:
    program = "from sidecar.faces.stdio import claim_stdout as c; import os; p = c(); print(1)"
    command = f'exec "$0" -c "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, program + "; os.write(p, b'frame')"],
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == b"frame"


# ---- stdin -------------------------------------------------------------------------------


class Pipe:
    """A stdin that the test writes to, with what its reader was given."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self._writing: int | None = writing
        self.pieces: list[bytes] = []
        self.on_piece: Callable[[], None] | None = None
        self.ended = anyio.Event()
        self._arrived = anyio.Event()
        self.reader = StdinReader(self.reading, self._take, self.ended.set)

    def _take(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self._arrived.set()
        if self.on_piece is not None:
            self.on_piece()

    def write(self, data: bytes) -> None:
        assert self._writing is not None
        os.write(self._writing, data)

    def close(self) -> None:
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    async def next(self) -> bytes:
        """The piece that arrives next, or has arrived."""
        while not self.pieces:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return self.pieces.pop(0)


@pytest.fixture
async def pipe() -> AsyncIterator[Pipe]:
    pipe = Pipe()
    with anyio.fail_after(PATIENCE):
        yield pipe
    pipe.close()


async def test_what_arrives_is_handed_over_in_order_and_then_the_end(pipe: Pipe) -> None:
    pipe.write(b"one")
    pipe.reader.start()
    assert await pipe.next() == b"one"
    pipe.write(b"two")
    assert await pipe.next() == b"two"
    pipe.write(b"three")
    pipe.close()
    await pipe.ended.wait()
    assert pipe.pieces == [b"three"]


async def test_nothing_is_handed_over_during_a_pause(pipe: Pipe) -> None:
    pipe.reader.start()
    pipe.write(b"one")
    assert await pipe.next() == b"one"
    pipe.reader.pause()
    pipe.write(b"two")
    # The thread had begun to read before the pause; what it brings is kept.
    while pipe.reader._held is None:
        await anyio.lowlevel.checkpoint()
    assert pipe.pieces == []
    pipe.write(b"three")
    pipe.reader.resume()
    assert await pipe.next() == b"two"
    assert await pipe.next() == b"three"


async def test_a_paused_reader_leaves_the_rest_to_the_pipe(pipe: Pipe) -> None:
    pipe.reader.pause()
    pipe.reader.start()
    pipe.write(b"one")
    pipe.close()
    assert not pipe.reader._may_read.is_set()
    pipe.reader.resume()
    await pipe.ended.wait()
    assert pipe.pieces == [b"one"]


async def test_a_consumer_may_pause_from_within(pipe: Pipe) -> None:
    pipe.on_piece = pipe.reader.pause
    pipe.write(b"one")
    pipe.reader.start()
    assert await pipe.next() == b"one"
    pipe.write(b"two")
    assert not pipe.reader._may_read.is_set()
    pipe.on_piece = None
    pipe.reader.resume()
    assert await pipe.next() == b"two"


async def test_resuming_twice_hands_over_once(pipe: Pipe) -> None:
    pipe.reader.start()
    pipe.reader.pause()
    pipe.write(b"one")
    while pipe.reader._held is None:
        await anyio.lowlevel.checkpoint()
    pipe.reader.resume()
    pipe.reader.resume()
    pipe.close()
    await pipe.ended.wait()
    assert pipe.pieces == [b"one"]


async def test_the_end_is_told_during_a_pause_too(pipe: Pipe) -> None:
    pipe.reader.start()
    pipe.reader.pause()
    pipe.close()
    await pipe.ended.wait()


async def test_a_consumer_that_fails_does_not_end_the_reading(pipe: Pipe) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def fail() -> None:
        pipe.on_piece = None
        raise ValueError("of the consumer")

    pipe.on_piece = fail
    pipe.write(b"one")
    pipe.reader.start()
    assert await pipe.next() == b"one"
    pipe.write(b"two")
    assert await pipe.next() == b"two"
    assert len(failures) == 1


async def test_a_descriptor_that_cannot_be_read_is_the_end(pipe: Pipe) -> None:
    ended = anyio.Event()
    descriptor = os.open(os.devnull, os.O_WRONLY)
    StdinReader(descriptor, pipe.pieces.append, ended.set).start()
    await ended.wait()
    os.close(descriptor)
    assert pipe.pieces == []


async def test_a_reader_outlives_its_loop_without_a_sound(pipe: Pipe) -> None:
    async def read() -> StdinReader:
        reader = StdinReader(pipe.reading, pipe.pieces.append, pipe.ended.set)
        reader.start()
        return reader

    def in_a_loop_of_its_own() -> StdinReader:
        return asyncio.run(read())

    reader = await anyio.to_thread.run_sync(in_a_loop_of_its_own)
    pipe.write(b"too late")
    await anyio.to_thread.run_sync(reader._thread.join)
    assert pipe.pieces == []
