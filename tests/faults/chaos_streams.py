"""What can go wrong in the middle of a vendor's answer, and how a turn has to end then."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sidecar.errors import NetworkError, Unauthorized
from tests.faults.chaos_table import (
    HALF,
    SILENCE,
    TOOL,
    WHOLE,
    Case,
    Ends,
    alive,
    body_of,
    broken,
    event_of_no_kind,
    good,
    harmless,
    refusal,
    streaming,
    temporary,
)
from tests.providers.dialects import Bedrock, Call, Dialect, Stop, Text, said
from tests.providers.vendor_server import CUT, RESET, STALL, Answer, Endless
from tests.providers.vendors import CANARY

# ---- streams that break off --------------------------------------------------------------


def broken_off(dialect: Dialect) -> Iterable[Case]:
    yield broken("closed after text", said(dialect, Text(HALF), CUT))
    yield broken("silent after text", said(dialect, Text(HALF), STALL), silent=1)
    yield broken("ended after text", said(dialect, Text(HALF)))
    forever = Endless(alive(dialect), every=SILENCE / 6)
    yield broken("alive for ever after text", said(dialect, Text(HALF), forever), silent=5)
    whole = body_of(dialect, good(dialect))
    for number in (1, 2, 5, 8, 9):
        place = len(whole) * number // 10
        for word, end in {"closed": (CUT,), "reset": (RESET,), "ended": ()}.items():
            answer = streaming(dialect, whole[:place], *end)
            ends = (NetworkError, None) if number > 5 else (NetworkError,)
            yield Case(f"{word} at {number}/10", (answer,), ends=ends, text=None)
    yield Case("reset at the first byte", (streaming(dialect, whole[:1], RESET),))


# ---- bytes that cannot be read -----------------------------------------------------------


def event(dialect: Dialect, payload: bytes) -> bytes:
    """An event of the right form whose content is `payload`."""
    if isinstance(dialect, Bedrock):
        headers = {
            ":event-type": "contentBlockDelta",
            ":content-type": "application/json",
            ":message-type": "event",
        }
        return dialect.frame(headers, payload)
    name = b"event: content_block_delta\n" if dialect.name == "anthropic" else b""
    return name + b"data: " + payload + b"\n\n"


def unreadable(dialect: Dialect) -> Iterable[Case]:
    begun = [step for step in said(dialect, Text(HALF)).steps if isinstance(step, bytes)]
    stop = list(dialect.encode(Stop(), 0))
    latin_1 = b'{"choices": [{"delta": {"content": "\xe9"}}], "type": "ping", "candidates": []}'
    for name, payload in {
        "half of a JSON": b'{"candidates": [{"content',
        "Latin-1": latin_1,
        "NULs": b"\x00" * 100,
        "a number": b"7",
        "nested too deep": b"[" * 100_000,
        "a page": f"<html>{CANARY}".encode(),
    }.items():
        answer = streaming(dialect, *begun, event(dialect, payload), *stop)
        ends: tuple[Ends, ...] = (NetworkError,)
        text: str | None = None
        if name == "a number":
            ends, text = (NetworkError, None), HALF
        yield Case(f"an event that is {name}", (answer,), ends=ends, text=text)
    page = f"<html>Log in to the network, {CANARY}\n\n</html>".encode()
    yield temporary("a page instead", Answer([page], headers={"content-type": "text/html"}))
    document = Answer.json(200, {"error": {"message": CANARY}})
    yield temporary("a document instead", document)
    line = [b'data: {"', *[b"x" * 2**20] * 8]
    yield temporary("a line of 8 MiB", streaming(dialect, *line))
    head = {"content-type": dialect.content_type, "content-encoding": "gzip"}
    yield temporary("packed", Answer([gzip.compress(b"\n" * 2**24)], headers=head))
    for kind in ("text/plain", "application/json", "image/png", ""):
        answer = replace(good(dialect), headers={"content-type": kind})
        case = Case(f"the type '{kind}'", (answer,), ends=(None, NetworkError), text=None)
        yield case
    split = [bytes([byte]) for byte in body_of(dialect, good(dialect))]
    yield harmless("a chunk for each byte", streaming(dialect, *split))
    if isinstance(dialect, Bedrock):
        yield from damaged_frames(dialect, begun, stop)
    else:
        yield from unusual_lines(dialect)


def damaged_frames(dialect: Bedrock, begun: list[bytes], stop: list[bytes]) -> Iterable[Case]:
    frame = begun[-1]
    for name, place in {"its length": 0, "its headers": 20, "its payload": -10}.items():
        wrong = bytearray(frame)
        wrong[place] ^= 1
        answer = streaming(dialect, *begun, bytes(wrong), *stop)
        yield Case(f"a frame damaged in {name}", (answer,), text=None)
    yield Case(
        "a line among frames", (streaming(dialect, *begun, b"data: {}\n\n", *stop),), text=None
    )


def unusual_lines(dialect: Dialect) -> Iterable[Case]:
    whole = body_of(dialect, good(dialect))
    lines = whole.replace(b"\r\n", b"\n")
    yield harmless("lines that end in CR LF", streaming(dialect, lines.replace(b"\n", b"\r\n")))
    comments = lines.replace(b"\n\n", b"\n\n: a comment\n\n")
    fields = lines.replace(b"data: ", b"id: 7\nretry: 1\ndata: ")
    for name, stream in {"comments between": comments, "further fields": fields}.items():
        # Google's library reads neither, and Google sends neither.
        ends = (NetworkError,) if dialect.name == "gemini" else (None,)
        yield Case(name, (streaming(dialect, stream),), ends=ends, text=None)
    tight = lines.replace(b"data: ", b"data:")
    yield replace(
        harmless("no space after the colon", streaming(dialect, tight)),
        ends=(None, NetworkError),
        asked=None,
        text=None,
        waits=None,
    )
    marked = streaming(dialect, b"\xef\xbb\xbf" + lines)
    yield Case("a byte order mark", (marked,), ends=(None, NetworkError), text=None)


# ---- events in no order ------------------------------------------------------------------


def disordered(dialect: Dialect) -> Iterable[Case]:
    opening, stop = list(dialect.opening()), list(dialect.encode(Stop(), 0))
    first, second = good_pieces(dialect)
    unknown = event_of_no_kind(dialect)
    usual: tuple[Ends, ...] = (None, NetworkError)

    def comes(name: str, *events: bytes, ends: tuple[Ends, ...] = usual) -> Case:
        return Case(name, (streaming(dialect, *events),), ends=ends, text=None)

    yield harmless(
        "events of no known kind",
        streaming(
            dialect,
            unknown,
            *opening,
            unknown,
            *block(dialect, first, second),
            unknown,
            *stop,
            unknown,
        ),
    )
    yield comes("text before the opening", first, *opening, second, *stop)
    yield comes("the stop first", *stop, *opening, *block(dialect, first, second))
    yield comes("two openings", *opening, *opening, *block(dialect, first, second), *stop)
    yield comes("two stops", *opening, *block(dialect, first, second), *stop, *stop)
    twice = said(dialect, Text(HALF), Text(HALF), Stop())
    yield harmless("the same text twice", twice, text=HALF * 2)
    yield comes("only a stop", *opening, *stop)
    yield comes("the end of a block that never began", *opening, *ends_of_blocks(dialect), *stop)
    shape = event(
        dialect, b'{"choices": 7, "candidates": 7, "type": "content_block_delta", "delta": []}'
    )
    yield comes("an event of the wrong shape", *opening, shape, *stop)
    strange = body_of(dialect, said(dialect, Text(WHOLE), Stop()))
    for word in ("end_turn", '"stop"', '"STOP"'):
        strange = strange.replace(
            word.encode(), word.replace("stop", "bored").replace("STOP", "BORED").encode()
        )
    if not isinstance(dialect, Bedrock):
        strange = strange.replace(b"end_turn", b"bored")
        yield comes("a stop of no known reason", strange)
    yield harmless(
        "text after the end", replace(good(dialect), steps=[*good(dialect).steps, unknown])
    )


def good_pieces(dialect: Dialect) -> tuple[bytes, bytes]:
    first, second = (b"".join(dialect.encode(Text(t), 0)) for t in (HALF, WHOLE[len(HALF) :]))
    return first, second


def block(dialect: Dialect, *pieces: bytes) -> Sequence[bytes]:
    start = getattr(dialect, "block_start", lambda *_: ())(Text(""), 0)
    return [*start, *pieces, *ends_of_blocks(dialect)]


def ends_of_blocks(dialect: Dialect) -> Sequence[bytes]:
    return list(getattr(dialect, "block_end", lambda *_: ())(Text(""), 0))


# ---- errors told in a stream -------------------------------------------------------------


def told(dialect: Dialect) -> list[bytes]:
    """How a vendor says in the middle of a stream that it cannot go on."""
    if isinstance(dialect, Bedrock):
        kinds = ("throttlingException", "modelStreamErrorException", "internalServerException")
        return [dialect.exception(kind, f"not {CANARY}") for kind in kinds]
    if dialect.name == "anthropic":
        error = (
            'event: error\ndata: {{"type": "error", "error": {{"type": "{}", "message": "{}"}}}}'
            "\n\n"
        )
        kinds = ("overloaded_error", "api_error", "rate_limit_error")
        return [error.format(kind, CANARY).encode() for kind in kinds]
    if dialect.name == "gemini":
        error = 'data: {{"error": {{"code": {}, "message": "{}", "status": "{}"}}}}\n\n'
        kinds = ((503, "UNAVAILABLE"), (429, "RESOURCE_EXHAUSTED"), (500, "INTERNAL"))
        return [error.format(code, CANARY, status).encode() for code, status in kinds]
    error = 'data: {{"error": {{"message": "{}", "type": "{}", "code": null}}}}\n\n'
    kinds = ("server_error", "rate_limit_exceeded", "overloaded")
    return [error.format(CANARY, kind).encode() for kind in kinds]


def told_in_the_stream(dialect: Dialect) -> Iterable[Case]:
    for number, error in enumerate(told(dialect), 1):
        opening = list(dialect.opening())
        yield temporary(f"an error told first, {number}", streaming(dialect, *opening, error))
        yield broken(f"an error told after text, {number}", said(dialect, Text(HALF), error))
    refused_by = "refusal", said(dialect, Text(HALF), Stop("refusal"))
    yield harmless(refused_by[0], refused_by[1], text=HALF)
    yield harmless("no more tokens", said(dialect, Text(HALF), Stop("length")), text=HALF)


# ---- tools -------------------------------------------------------------------------------

ARGUMENTS = '{"at": "here 😀"}'
LOOK = Call("call_1", TOOL, ARGUMENTS)


def tools(dialect: Dialect) -> Iterable[Case]:
    done = said(dialect, Text("lòaf."), Stop())
    asks = said(dialect, Text(HALF), LOOK, Stop("tools"))
    down = refusal(dialect, 503)
    after = f"{HALF}lòaf."

    def then(name: str, *answers: Answer, **fields: object) -> Case:
        """After a tool has run."""
        case = Case(name, (asks, *answers), ends=(None,), text=after, tool_runs=1)
        return replace(case, **fields)  # type: ignore[arg-type]  # the case's own fields

    yield then("a tool and its result", done, asked=2)
    yield then("a tool, then a 503", down, done, asked=3, waits=(1,))
    yield then("a tool, then a reset", Answer(before=RESET), done, asked=3, waits=(1,))
    yield then("a tool, then a stream cut off", streaming(dialect, CUT), done, asked=3, waits=(1,))
    yield then(
        "a tool, then a 401", refusal(dialect, 401), asked=2, text=HALF, ends=(Unauthorized,)
    )
    yield then("a tool, then nothing but 503", down, asked=4, text=HALF, ends=(NetworkError,))
    nobody = said(dialect, Text(HALF), Call("c9", "no_such_tool", "{}"), Stop("tools"))
    yield Case("a tool that is not there", (nobody, done), ends=(None,), text=after, asked=2)
    called = [step for step in said(dialect, LOOK).steps if isinstance(step, bytes)]
    again = [*called, *called[len(list(dialect.opening())) :]]
    yield Case(
        "a tool called twice under one id",
        (streaming(dialect, *again, *dialect.encode(Stop("tools"), 0)), done),
        ends=(None, NetworkError),
        text=None,
        tool_runs=1,
    )
    for word, end in {"closed": (CUT,), "reset": (RESET,), "ended": ()}.items():
        yield temporary(f"{word} after a call", streaming(dialect, *called, *end))
        half = b"".join(called)
        half = half[: half.index(TOOL.encode()) + 20]
        yield temporary(f"{word} within a call", streaming(dialect, half, *end))
    yield temporary("silent after a call", streaming(dialect, *called, STALL), silent=1)
    longest = said(dialect, LOOK, Stop("length"))
    yield Case("a call at the end of the tokens", (longest,), ends=(None,), asked=1)
    for name, arguments in {
        "half of a JSON": '{"at": ',
        "a list": "[1]",
        "a string": '"here"',
        "nothing": "",
        "nested too deep": "[" * 5_000,
    }.items():
        answer = said(dialect, Call("c1", TOOL, arguments), Stop("tools"))
        yield arguments_case(dialect, name, answer, done)


def arguments_case(dialect: Dialect, name: str, answer: Answer, done: Answer) -> Case:
    title = f"arguments that are {name}"
    if name == "nothing" and dialect.name != "gemini":  # there they are part of the event's JSON
        return Case(title, (answer, done), ends=(None,), text="lòaf.", asked=2, tool_runs=1)
    return temporary(title, answer)


# ---- what passes -------------------------------------------------------------------------


def passing(dialect: Dialect) -> Iterable[Case]:
    """Faults that are over at the second or third attempt."""
    well = good(dialect)
    for name, bad, silent in (
        ("a 503", refusal(dialect, 503), 0),
        ("a reset", Answer(before=RESET), 0),
        ("silence", Answer(before=STALL), 1),
        ("an empty stream", streaming(dialect), 0),
        ("half of a call", streaming(dialect, b"".join(dialect.encode(LOOK, 0))[:60]), 0),
    ):
        once = Case(f"{name}, once", (bad, well), (None,), WHOLE, 2, (1,), silent=silent)
        yield once
        yield replace(once, name=f"{name}, twice", answers=(bad, bad, well), asked=3, waits=(1, 2))
    yield Case("nothing wrong", (well,), ends=(None,), text=WHOLE, asked=1, waits=())
