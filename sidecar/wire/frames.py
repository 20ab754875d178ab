"""Frames of the LSP base protocol: bytes in, bodies out. No I/O, and stdlib only, so that the
start prologue, the server and the client share one parser.

What is no frame is reported once and passed over up to the next `Content-Length` line. Such a
line is never part of a JSON body: inside a JSON string there is no raw newline.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate

INVALID_REQUEST = -32600

MAX_HEADER = 8 * 1024
MAX_BODY = 64 * 1024 * 1024

SKIPPABLE = 4 * 1024**3
"""A body that is too large is passed over by its length up to here. A larger figure is sooner
a mistake than a body, and must not swallow everything that follows."""

# Only what every header needs is compiled when we are imported: it is milliseconds otherwise.
_PLAIN = re.compile(rb"Content-Length: ([1-9][0-9]{0,9})\r\n\r\n")
"""The header that nearly everybody sends."""
_NOT_BLANK = rb"[^\r\n]"
_BLANK_LINE = rb"\n\r?\n"
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*"
_BEGINS_LIKE_A_HEADER = _NAME + rb"(?::|\Z)"
_HEADER = rb"(?s)(%b):[ \t]*(.*?)[ \t]*\r?" % _NAME
_DIGITS = rb"0*([0-9]{1,19})"
_CHARSET = rb"(?i)charset[ \t]*=[ \t]*\"?([^\s;\"]+)"
_NEXT_LENGTH = rb"(?i)(?<!-)Content-Length[ \t]{0,8}:[ \t]{0,8}0{0,8}[1-9][0-9]{0,9}[ \t]{0,8}\r?\n"
"""Found in the middle of anything, this is the beginning of a frame. Not longer than `_TAIL`."""
_TAIL = 64
_BAD_LENGTH = "Content-Length is not one number above 0."


class Frame:
    """A whole body, as it was sent."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and other.body == self.body

    def __hash__(self) -> int:
        return hash(self.body)

    def __repr__(self) -> str:
        return f"<Frame of {len(self.body)} bytes>"


class FrameError:
    """Bytes that are no frame. The stream goes on after them, unless it is `fatal`."""

    __slots__ = ("code", "fatal", "message")

    def __init__(self, code: int, message: str, fatal: bool = False) -> None:
        self.code = code
        self.message = message
        self.fatal = fatal

    def __repr__(self) -> str:
        return f"<FrameError {self.code} {self.message!r}>"


class FrameParser:
    """Cuts a stream into frames; the result does not depend on the pieces it arrives in.

    Never holds more than a header of `max_header`, or what has arrived of a body of at most
    `max_body`, and the last piece fed.
    """

    def __init__(self, *, max_header: int = MAX_HEADER, max_body: int = MAX_BODY) -> None:
        self._max_header = max_header
        self._max_body = max_body
        self._buffer = bytearray()
        self._length = 0
        self._found: list[Frame | FrameError] = []
        self._step = self._read_header
        """What the buffer begins with. Returns whether another step is possible."""

    def __repr__(self) -> str:
        state = self._step.__name__.strip("_").replace("_", " ")
        return f"<FrameParser: {state}, {len(self._buffer)} bytes waiting>"

    def feed(self, data: bytes) -> list[Frame | FrameError]:
        """Take the next bytes; returns what they completed, in order."""
        self._buffer += data
        while self._step():
            pass
        found, self._found = self._found, []
        return found

    # ---- steps ----

    def _read_header(self) -> bool:
        buffer = self._buffer
        if plain := _PLAIN.match(buffer):
            length = int(plain[1])  # a match reads the buffer anew each time it is asked
            del buffer[: plain.end()]
            return self._expect_body(length)
        begin = re.search(_NOT_BLANK, buffer)
        del buffer[: begin.start() if begin else len(buffer)]
        if not buffer:
            return False
        head = bytes(buffer[: self._max_header])  # what is behind must not change the verdict
        if not re.match(_BEGINS_LIKE_A_HEADER, head):
            return self._lose("This is not a header.")
        if end := re.search(_BLANK_LINE, head):
            return self._read_lines(head[: end.start()], end.end())
        if len(buffer) < self._max_header:
            return False
        return self._refuse(f"A header is at most {self._max_header} bytes.", self._skip_header)

    def _read_body(self) -> bool:
        if len(self._buffer) < self._length:
            return False
        with memoryview(self._buffer) as view:
            self._found.append(Frame(bytes(view[: self._length])))
        del self._buffer[: self._length]
        self._step = self._read_header
        return True

    def _skip_header(self) -> bool:
        end = re.search(_BLANK_LINE, self._buffer)
        if end is None:
            del self._buffer[:-2]
            return False
        del self._buffer[: end.end()]
        self._step = self._find_header
        return True

    def _skip_body(self) -> bool:
        skipped = min(self._length, len(self._buffer))
        del self._buffer[:skipped]
        self._length -= skipped
        if self._length:
            return False
        self._step = self._read_header
        return True

    def _find_header(self) -> bool:
        found = re.search(_NEXT_LENGTH, self._buffer)
        if found is None:
            # A line that was passed over stays so, and what precedes the beginning of one that
            # is not whole yet stays with it: the pattern looks at that byte, too.
            tail = max(self._buffer.rfind(b"\n") + 1, len(self._buffer) - _TAIL - 1)
            del self._buffer[: max(tail, 0)]
            return False
        del self._buffer[: found.start()]
        self._step = self._read_header
        return True

    # ---- headers ----

    def _read_lines(self, block: bytes, size: int) -> bool:
        """Take a header that arrived whole: its lines, and its size with the blank line."""
        values: set[int] = set()
        bad_at: int | None = None
        charset = b"utf-8"
        at = 0
        for line in block.split(b"\n"):
            header = re.fullmatch(_HEADER, line)
            if header is None:
                return self._lose("A header has a line without a colon.", at)
            name = header[1].rstrip().lower()
            if name == b"content-length":
                if digits := re.fullmatch(_DIGITS, header[2]):
                    values.add(int(digits[1]))
                else:
                    bad_at = at
            elif name == b"content-type" and (given := re.search(_CHARSET, header[2])):
                charset = given[1].lower()
            at += len(line) + 1
        if not values:  # a line of it may run into the next frame's
            text = "A header has no Content-Length." if bad_at is None else _BAD_LENGTH
            return self._lose(text, bad_at or 0)
        del self._buffer[:size]
        if len(values) != 1 or bad_at is not None or values == {0}:
            return self._refuse(_BAD_LENGTH, self._find_header)
        return self._expect_body(values.pop(), charset)

    def _expect_body(self, length: int, charset: bytes = b"utf-8") -> bool:
        self._length = length
        if length > self._max_body:
            skip = self._skip_body if length <= SKIPPABLE else self._find_header
            return self._refuse(f"A body is at most {self._max_body} bytes.", skip)
        if charset not in (b"utf-8", b"utf8"):
            return self._refuse("The charset of a body is utf-8.", self._skip_body)
        self._step = self._read_body
        return True

    def _lose(self, message: str, at: int = 0) -> bool:
        """Give up what begins `at`; a frame may begin anywhere behind it."""
        del self._buffer[:at]
        return self._refuse(message, self._find_header)

    def _refuse(self, message: str, step: Callable[[], bool]) -> bool:
        self._found.append(FrameError(INVALID_REQUEST, message))
        self._step = step
        return True


def frame(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


_MARKS = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = rb'"[^"]*"?'
_PIECE = 1024 * 1024


def nesting_depth_exceeds(body: bytes, limit: int = 200) -> bool:
    """Whether arrays and objects are nested deeper than `limit`. Costs next to nothing for a
    body that has no more than that many of them."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    # Escapes go first, so that every quote that is left begins or ends a string.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _without_strings(unescaped.translate(_MARKS, _NO_MARKS).replace(b'""', b""))
    # What is ordinary is flat and wide: it vanishes as its leaves are taken off.
    while limit and len(bare := brackets.replace(b"[]", b"")) < len(brackets) // 2:
        brackets = bare
        limit -= 1
    return any(depth > limit for depth in accumulate(92 - bracket for bracket in brackets))


def _without_strings(marks: bytes) -> bytes:
    """Piece by piece, because a substitution keeps an object for every match."""
    pieces: list[bytes] = []
    in_string = False
    for at in range(0, len(marks), _PIECE):
        piece = marks[at : at + _PIECE]
        pieces.append(re.sub(_STRING, b"", b'"' + piece if in_string else piece))
        in_string ^= piece.count(b'"') % 2 == 1
    return b"".join(pieces)
