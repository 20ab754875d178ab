"""Messages one per line, as the Agent Client Protocol frames them: bytes in, bodies out. No I/O,
and stdlib only, as `frames`."""

from __future__ import annotations

from .frames import INVALID_REQUEST, MAX_BODY, Frame, FrameError

BLANKS = b" \t\r"


class LineParser:
    """Fed with what was read; a line that is too long is reported once and passed over."""

    def __init__(self, *, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._rest = bytearray()
        self._is_passing_over = False

    def feed(self, data: bytes) -> list[Frame | FrameError]:
        """The messages that are whole now, in order. Empty lines are none."""
        found: list[Frame | FrameError] = []
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._add(end, found)
            if not self._is_passing_over and (body := bytes(self._rest).strip(BLANKS)):
                found.append(Frame(body))
            self._rest.clear()
            self._is_passing_over = False
        self._add(rest, found)
        return found

    def _add(self, piece: bytes, found: list[Frame | FrameError]) -> None:
        if self._is_passing_over:
            return
        self._rest += piece
        if len(self._rest) > self._max_body:
            self._rest.clear()
            self._is_passing_over = True
            text = f"A message has at most {self._max_body:,} bytes."
            found.append(FrameError(INVALID_REQUEST, text))


def line(body: bytes) -> bytes:
    """`body` as it is sent. JSON has no raw line end inside."""
    return body + b"\n"
