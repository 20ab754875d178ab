"""Messages one per line, whatever way their bytes come."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.frames import Frame, FrameError
from sidecar.wire.lines import LineParser, line
from tests.requirements import proves

BODIES = st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"x")), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(at)]


@proves("P6", "ACP")
@given(BODIES, st.lists(st.integers(0, 999), max_size=9), st.sampled_from([b"\n", b"\r\n"]))
def test_it_does_not_matter_how_they_are_cut(
    bodies: list[bytes], places: list[int], end: bytes
) -> None:
    parser = LineParser()
    data = b"".join(body + end for body in bodies)
    items = [item for piece in cut(data, places) for item in parser.feed(piece)]
    wanted = [body.strip(b" \t\r") for body in bodies]
    assert [item.body for item in items if isinstance(item, Frame)] == [b for b in wanted if b]


@proves("P6", "P11", "ACP")
@given(st.lists(st.integers(0, 999), max_size=9))
def test_a_line_that_is_too_long_is_said_once_and_passed_over(places: list[int]) -> None:
    parser = LineParser(max_body=10)
    data = line(b"before") + line(b"x" * 100) + line(b"after") + b"y" * 30
    items = [item for piece in cut(data, places) for item in parser.feed(piece)]
    kinds = [item.body if isinstance(item, Frame) else "error" for item in items]
    assert kinds == [b"before", "error", b"after", "error"]
    assert all(item.code == -32600 for item in items if isinstance(item, FrameError))
    assert len(parser._rest) <= 10
