"""The frame parser, against everything that a stream of bytes can be."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.wire.frames import (
    INVALID_REQUEST,
    Frame,
    FrameError,
    FrameParser,
    frame,
    nesting_depth_exceeds,
)
from tests.requirements import proves

GOOD = frame(b'{"good":1}')
ERROR = "error"


def summary(items: list[Frame | FrameError]) -> list[bytes | str]:
    """Bodies, and the word error."""
    return [item.body if isinstance(item, Frame) else ERROR for item in items]


def parse(data: bytes, size: int | None = None, **limits: int) -> list[bytes | str]:
    parser = FrameParser(**limits)
    return summary([item for piece in cut(data, size) for item in parser.feed(piece)])


def cut(data: bytes, size: int | None) -> Iterator[bytes]:
    step = size or max(len(data), 1)
    return (data[at : at + step] for at in range(0, len(data), step))


# ---- what is understood ------------------------------------------------------------------

UNDERSTOOD = {
    "plain": b"Content-Length: 2\r\n\r\n{}",
    "lower case": b"content-length: 2\r\n\r\n{}",
    "upper case": b"CONTENT-LENGTH: 2\r\n\r\n{}",
    "no space": b"Content-Length:2\r\n\r\n{}",
    "many spaces": b"Content-Length :  \t 2 \t\r\n\r\n{}",
    "bare line feeds": b"Content-Length: 2\n\n{}",
    "mixed line ends": b"Content-Length: 2\n\r\n{}",
    "blank lines before": b"\r\n\n\r\n\nContent-Length: 2\r\n\r\n{}",
    "leading zeros": b"Content-Length: 0002\r\n\r\n{}",
    "type": b"Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc\r\n\r\n{}",
    "utf-8": b"Content-Length: 2\r\nContent-Type: a/b; charset=utf-8\r\n\r\n{}",
    "utf8": b"Content-Type: a/b;charset=UTF8\r\nContent-Length: 2\r\n\r\n{}",
    "quoted charset": b'Content-Type: a/b; charset="utf-8"\r\nContent-Length: 2\r\n\r\n{}',
    "unknown headers": b"X-Trace: 1:2\r\nContent-Length: 2\r\nFoo:\r\n\r\n{}",
    "like a length": b"X-Content-Length: 9\r\nContent-Length: 2\r\n\r\n{}",
    "the same length twice": b"Content-Length: 2\r\ncontent-length:02\r\n\r\n{}",
}


@pytest.mark.parametrize("data", UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
@pytest.mark.parametrize("size", [None, 1])
def test_a_header_is_understood_as_generously_as_the_protocol_allows(
    data: bytes, size: int | None
) -> None:
    assert parse(data + GOOD, size) == [b"{}", b'{"good":1}']


# ---- what is not -------------------------------------------------------------------------

MALFORMED = {
    "no length": b"Content-Type: a/b\r\n\r\n",
    "no length, with a body": b'Content-Type: a/b\r\n\r\n{"id":1}',
    "only a name like it": b"X-Content-Length: 2\r\n\r\n{}",
    "another header only": b"Foo: bar\r\n\r\n{}\n\n",
    "empty length": b"Content-Length:\r\n\r\n",
    "blank length": b"Content-Length:   \r\n\r\n",
    "zero": b"Content-Length: 0\r\n\r\n",
    "many zeros": b"Content-Length: 0000000000000000000000\r\n\r\n",
    "negative": b"Content-Length: -2\r\n\r\n{}",
    "signed": b"Content-Length: +2\r\n\r\n{}",
    "hexadecimal": b"Content-Length: 0x2\r\n\r\n{}",
    "exponent": b"Content-Length: 2e0\r\n\r\n{}",
    "decimal": b"Content-Length: 2.0\r\n\r\n{}",
    "underscore": b"Content-Length: 1_0\r\n\r\n{}",
    "word": b"Content-Length: two\r\n\r\n{}",
    "two numbers": b"Content-Length: 2, 2\r\n\r\n{}",
    "arabic digits": "Content-Length: ٢\r\n\r\n{}".encode(),
    "full-width digits": "Content-Length: ２\r\n\r\n{}".encode(),
    "superscript digits": "Content-Length: ²\r\n\r\n{}".encode("latin-1"),
    "nul": b"Content-Length: 2\0\r\n\r\n{}",
    "form feed": b"Content-Length: 2\x0c\r\n\r\n{}",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a good and a bad length": b"Content-Length: 2\r\nContent-Length: x\r\n\r\n{}",
    "huge": b"Content-Length: 10000000000\r\n\r\n",
    "very huge": b"Content-Length: 10000000000000\r\n\r\n{}",
    "absurd": b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "utf-16": b"Content-Length: 2\r\nContent-Type: a/b; charset=utf-16\r\n\r\n{}",
    "latin-1": b"Content-Type: a/b;Charset=ISO-8859-1\r\nContent-Length: 2\r\n\r\n{}",
    "no charset": b"Content-Type: a/b; charset=none\r\nContent-Length: 2\r\n\r\n{}",
    "a body alone": b'{"jsonrpc":"2.0","id":1,"method":"a"}',
    "a body and a line feed": b'{"jsonrpc":"2.0","id":1,"method":"a"}\n',
    "an indented body": b'{\n  "jsonrpc": "2.0"\n}\n\n',
    "an array": b"[1,2]\r\n\r\n",
    "a print": b"hello world",
    "a printed line": b"hello world\n",
    "a word": b"garbage",
    "a colon in it": b"warning: Content-Length",
    "a traceback": b"Traceback (most recent call last):\n  File x\nValueError: y\n\n",
    "a byte order mark": b"\xef\xbb\xbf",
    "nul bytes": b"\0" * 20,
    "high bytes": bytes(range(128, 256)),
    "utf-16 text": "Content-Length: 2".encode("utf-16"),
    "an http request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a line without a colon": b"Content-Length: 2\r\nfoo\r\n\r\n{}",
    "a folded line": b"Content-Length: 2\r\nFoo: a\r\n bar\r\n\r\n{}",
    "a leading space": b" Content-Length : x\r\n\r\n{}",
    "a space in the name": b"Content Length: 2\r\n\r\n{}",
    "an empty name": b": 2\r\n\r\n{}",
    "a dash before": b"-Content-Length: 2\r\n\r\n{}",
    "a long body by mistake": b"Content-Length: 1x\r\n\r\n" + b"x" * 10_000,
    "a long header": b"X: " + b"x" * 10_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "a long header, length first": b"Content-Length: 2\r\nX: " + b"x" * 9_000 + b"\r\n\r\n{}",
    "many short headers": b"a: b\r\n" * 2_000 + b"Content-Length: 2\r\n\r\n{}",
}


@proves("P6")
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("size", [None, 1, 7])
def test_malformed_bytes_are_one_error_and_the_next_frame_is_found(
    data: bytes, size: int | None
) -> None:
    assert parse(GOOD + data + GOOD + GOOD, size) == [
        b'{"good":1}',
        ERROR,
        b'{"good":1}',
        b'{"good":1}',
    ]


def test_the_table_of_malformed_bytes_is_long() -> None:
    assert len(MALFORMED) >= 40


def test_an_error_says_what_is_wrong_and_does_not_end_the_stream() -> None:
    (error,) = FrameParser().feed(b"Content-Length: two\r\n\r\n")
    assert isinstance(error, FrameError)
    assert error.code == INVALID_REQUEST
    assert error.message == "Content-Length is not one number above 0."
    assert not error.fatal


def test_a_message_without_a_frame_is_noticed_before_anything_follows() -> None:
    assert parse(b'{"jsonrpc"') == [ERROR]


# ---- size --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 1])
def test_a_body_over_the_limit_is_refused_at_once_and_skipped(size: int | None) -> None:
    header = b"Content-Length: 40\r\n\r\n"
    assert parse(header, size, max_body=30) == [ERROR]
    # What is inside is not taken for a frame.
    body = b"xx" + frame(b"{}") + b"x" * (40 - 2 - len(frame(b"{}")))
    assert parse(header + body + GOOD, size, max_body=30) == [ERROR, b'{"good":1}']


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert parse(frame(b"x" * 30), max_body=30) == [b"x" * 30]


@pytest.mark.parametrize("size", [None, 1])
def test_a_header_of_exactly_the_limit_is_taken(size: int | None) -> None:
    header = b"Content-Length: 2\r\nX: \r\n\r\n"
    for more, expected in ((0, [b"{}"]), (1, [ERROR])):
        padded = header.replace(b"X: ", b"X: " + b"x" * (100 - len(header) + more))
        assert parse(padded + b"{}", size, max_header=100) == expected


FLOODS = {
    "garbage": b"{" * 65536,
    "a header without end": b"X: y\r\n" * 10_000,
    "a line without end": b"x" * 65536,
    "blank lines": b"\r\n" * 30_000,
    "a body being skipped": b"Content-Length: 4000000000\r\n\r\n" + b"x" * 65536,
    "a length that nobody has": b"Content-Length: 99999999999\r\n\r\n",
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_memory_stays_bounded_whatever_floods_in(flood: bytes) -> None:
    parser = FrameParser()
    tracemalloc.start()
    try:
        for _ in range(100):
            parser.feed(flood)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


def test_a_large_body_is_copied_a_bounded_number_of_times() -> None:
    """64 MiB in pieces of 64 KiB: what is allocated is the body, its buffer and some room."""
    body = b"x" * (64 * 1024 * 1024)
    data = memoryview(frame(body))
    parser = FrameParser()
    tracemalloc.start()
    try:
        items = [
            item
            for at in range(0, len(data), 65536)
            for item in parser.feed(bytes(data[at : at + 65536]))
        ]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert items == [Frame(body)]
    assert peak < 2.5 * len(body)


# ---- properties --------------------------------------------------------------------------

bodies = st.binary(min_size=1, max_size=40)
spellings = st.sampled_from(
    [
        b"Content-Length: %d\r\n\r\n",
        b"content-length:%d\n\n",
        b"X: y\r\nCONTENT-LENGTH : %d\r\n\r\n",
        b"Content-Type: a; charset=utf-8\r\nContent-Length: %d\r\n\r\n",
        b"\r\nContent-Length: %d\r\n\r\n",
    ]
)


@given(st.lists(st.tuples(spellings, bodies), max_size=5), st.data())
def test_frames_are_the_same_in_whatever_pieces_they_arrive(
    frames: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(header % len(body) + body for header, body in frames)
    at = data.draw(st.integers(0, len(stream)))
    parser = FrameParser()
    assert summary(parser.feed(stream[:at]) + parser.feed(stream[at:])) == [b for _, b in frames]
    assert parse(stream, 1) == [body for _, body in frames]


@given(st.binary(max_size=300), st.integers(1, 20))
@example(b"Content-Length: 5\nContent-Length: 6\n\nContent-Length: 3\n\nabc", 1)
def test_any_bytes_mean_the_same_in_whatever_pieces_they_arrive(data: bytes, size: int) -> None:
    assert parse(data, size) == parse(data)


fragments = st.lists(
    st.one_of(
        st.binary(max_size=10),
        st.sampled_from(
            [
                b"Content-Length: 5",
                b"Content-Length: 0",
                b"Content-Length: 70",
                b"Content-Type: x; charset=latin-1",
                b"X: y",
                b"\r\n",
                b"\n",
                b"\n\n",
                b"\r",
                b" ",
                b":",
                b"-",
                b"{}",
                b"x" * 60,
            ]
        ),
    ),
    max_size=20,
).map(b"".join)


@given(fragments, st.integers(1, 20))
@example(b"x" * 128 + b"\0" + GOOD, 64)
@example(b"\0-Content-Length: 5\n" + b"x" * 60, 1)
def test_almost_headers_mean_the_same_in_whatever_pieces_they_arrive(
    data: bytes, size: int
) -> None:
    limits = {"max_header": 64, "max_body": 50}
    assert parse(data, size, **limits) == parse(data, **limits)


garbage = fragments.filter(lambda data: b"ontent-" not in data)


@given(st.lists(st.tuples(garbage, bodies), max_size=4), st.integers(1, 50))
def test_after_garbage_the_next_frame_but_one_is_always_found(
    parts: list[tuple[bytes, bytes]], size: int
) -> None:
    """The frame right behind garbage may be taken for a part of it: `x-` makes it another
    header. The next one is found whatever went before."""
    stream = b"".join(junk + GOOD + frame(body) for junk, body in parts)
    found = parse(stream, size)
    assert [item for item in found if item not in (ERROR, b'{"good":1}')] == [
        body for _, body in parts
    ]


@given(st.binary(max_size=30).filter(lambda data: b":" not in data and data[-1:] != b"-"))
def test_a_frame_right_behind_garbage_is_found(data: bytes) -> None:
    assert parse(data + GOOD)[-1] == b'{"good":1}'


# ---- depth -------------------------------------------------------------------------------


def depth_of(value: object) -> int:
    if isinstance(value, list | dict):
        inside = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, inside), default=0)
    return 0


tricky = st.text(alphabet='[]{}"\\/a\n\u00e9', max_size=8)
values = st.recursive(
    st.one_of(tricky, st.integers(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(tricky, inner, max_size=3)
    ),
    max_leaves=30,
)


@given(values, st.integers(0, 8), st.sampled_from([None, 1]))
def test_depth_is_counted_outside_of_strings_only(
    value: object, limit: int, indent: int | None
) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=False).encode()
    assert nesting_depth_exceeds(body, limit) == (depth_of(value) > limit)


@pytest.mark.parametrize(
    ("body", "exceeds"),
    [
        (b"[" * 200 + b"]" * 200, False),
        (b"[" * 201 + b"]" * 201, True),
        (b'{"a":' * 201 + b"1" + b"}" * 201, True),
        (b"[" * 100_000, True),
        (b"[" + b"[]," * 100_000 + b"[]]", False),
        (b'["' + b"[" * 100_000 + b'"]', False),
        (b'["' + b'\\"[' * 100_000 + b'"]', False),
        (b'["\\\\"' + b',[{"]":"["}]' * 100_000 + b"]", False),
        (b"[" + b",".join([b'"["'] * 600_000) + b"]", False),
        ((b"[" * 200 + b"]" * 200) * 100, False),
        ((b"[" * 199 + b"]" * 199) * 100 + b"[" * 201, True),
    ],
)
def test_depth_of_large_bodies(body: bytes, exceeds: bool) -> None:
    assert nesting_depth_exceeds(body, 200) == exceeds
