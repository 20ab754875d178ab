"""What can go wrong at a vendor, and how a turn has to end then: the table of `chaos`.

The rule behind it: what the vendor refuses is asked once; what may pass is asked three times, as
long as nothing was shown; once text was shown nothing is asked again, and the text stays.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from sidecar.errors import AgentError, MessageProcessingFailed, NetworkError, Unauthorized
from tests.providers.dialects import DIALECTS, Bedrock, Call, Dialect, Stop, Text, said
from tests.providers.vendor_server import CUT, RESET, STALL, Answer, Endless, Step
from tests.providers.vendors import CANARY, PROMPT

SILENCE = 0.3
"""Seconds, as `requestTimeout`, where a fault is that nothing comes."""
DATE = 40.0
"""Seconds until the date that a vendor names; dates are whole seconds."""
HALF, WHOLE = "Hälf a ", "Hälf a 😀 lòaf."
TOOL = "look"

Ends = type[AgentError] | None
"""How a turn ends; None is well."""


@dataclass(frozen=True)
class Case:
    """A fault. `answers` are those to the requests in order, the last one to all that follow."""

    name: str
    answers: tuple[Answer, ...] = ()
    ends: tuple[Ends, ...] = (NetworkError,)
    """How the turn may end: more than one where a vendor's library has the choice."""
    text: str | None = ""
    """What is kept; None: any beginning of `WHOLE`."""
    asked: int | None = None
    """How many requests are made; None: as the rule has it."""
    waits: tuple[float, ...] | None = None
    """Seconds between the attempts, where they matter."""
    place: str = ""
    """Where the vendor is, if it is not at its server: one of `chaos.PLACES`."""
    silent: int = 0
    """How many times `SILENCE` one attempt lasts; 0: it ends at once."""
    tool_runs: int = 0


def cases(dialect: Dialect, elsewhere: str) -> list[Case]:
    """All that can go wrong in one dialect; redirects lead to `elsewhere`."""
    found = [
        *refusals(dialect),
        *delays(dialect),
        *strange_errors(dialect),
        *redirects(dialect, elsewhere),
        *unreachable(),
        *no_answers(dialect),
        *broken_http(dialect),
        *broken_off(dialect),
        *unreadable(dialect),
        *disordered(dialect),
        *told_in_the_stream(dialect),
        *tools(dialect),
        *passing(dialect),
    ]
    names = [case.name for case in found]
    assert len(names) == len(set(names)), "two faults have one name"
    return found


# ---- refused, with a status --------------------------------------------------------------

FOR_GOOD = (400, 402, 404, 405, 409, 410, 413, 422, 451)
FORBIDDEN = (401, 403)
TEMPORARY = (408, 429, 500, 501, 502, 503, 504, 520, 529)

ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
GEMINI_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
BEDROCK_TYPES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}


def refusal(dialect: Dialect, status: int, **headers: str) -> Answer:
    """An error as this vendor words it. It quotes the key and the prompt, as some do."""
    words = f"The key {CANARY} may not ask '{PROMPT}'"
    body: dict[str, object]
    if dialect.name == "anthropic":
        kind = ANTHROPIC_TYPES.get(status, "invalid_request_error")
        body = {"type": "error", "error": {"type": kind, "message": words}}
    elif dialect.name == "gemini":
        state = GEMINI_STATUSES.get(status, "INVALID_ARGUMENT")
        body = {"error": {"code": status, "message": words, "status": state}}
    elif dialect.name == "bedrock":
        kind = BEDROCK_TYPES.get(status, "UnknownException")
        body, headers = {"message": words}, {"x-amzn-ErrorType": kind, **headers}
    else:
        body = {"error": {"message": words, "type": "x", "param": None, "code": None}}
    return Answer.json(status, body, **headers)


def refused(name: str, answer: Answer, kind: type[AgentError] = MessageProcessingFailed) -> Case:
    return Case(name, (answer,), ends=(kind,), asked=1, waits=())


def temporary(name: str, answer: Answer, *waits: float, **fields: object) -> Case:
    """Asked three times; the delay doubles, unless the vendor says how long it is."""
    case = Case(name, (answer,), asked=3, waits=waits or (1, 2))
    return replace(case, **fields)  # type: ignore[arg-type]  # the case's own fields


def refusals(dialect: Dialect) -> Iterable[Case]:
    for status in FOR_GOOD:
        yield refused(f"status {status}", refusal(dialect, status))
    for status in FORBIDDEN:
        yield refused(f"status {status}", refusal(dialect, status), Unauthorized)
    for status in TEMPORARY:
        yield temporary(f"status {status}", refusal(dialect, status))


def delays(dialect: Dialect) -> Iterable[Case]:
    """`Retry-After`, sane and not."""
    now = datetime.now(UTC)
    date = format_datetime(now + timedelta(seconds=DATE), usegmt=True)
    past = format_datetime(now - timedelta(days=1), usegmt=True)
    yield temporary("retry-after seconds", refusal(dialect, 429, retry_after="7"), 7, 7)
    yield temporary("retry-after of a 503", refusal(dialect, 503, retry_after="7"), 7, 7)
    yield temporary("retry-after a date", refusal(dialect, 429, retry_after=date), DATE, DATE)
    for name, value in {
        "a past date": past,
        "0": "0",
        "negative": "-5",
        "words": "soon",
        "nan": "nan",
        "inf": "inf",
        "empty": "",
        "5,000 digits": "9" * 5_000,
    }.items():
        yield temporary(f"retry-after {name}", refusal(dialect, 429, retry_after=value))
    for name, value in {
        "a day": "86400",
        "40 digits": "9" * 40,
        "a date next year": format_datetime(now + timedelta(days=365), usegmt=True),
    }.items():  # nobody waits so long: told at once
        answer = refusal(dialect, 429, retry_after=value)
        yield Case(f"retry-after {name}", (answer,), asked=1, waits=())


def strange_errors(dialect: Dialect) -> Iterable[Case]:
    page = f"<html><h1>Bad Gateway</h1>{CANARY} {PROMPT}</html>".encode()
    html, text = {"content-type": "text/html"}, {"content-type": "application/json"}
    yield temporary("502 as a page", Answer([page], 502, html))
    yield refused("404 as a page", Answer([page], 404, html))
    yield refused("401 as a page", Answer([page], 401, html), Unauthorized)
    yield temporary("503 without a body", Answer([], 503, text))
    yield temporary("500 with half of a body", Answer([b'{"error": {"mess'], 500, text))
    yield temporary("500 with a list for a body", Answer([b"[[[7]]]"], 500, text))
    yield temporary("500 with a body of another type", Answer([b"\xff\xfe" * 9], 500, text))
    yield temporary("500 with a body cut off", Answer([b'{"err', CUT], 500, text))
    yield temporary("500 with a body reset", Answer([b'{"err', RESET], 500, text))
    yield temporary("500 with a body that stalls", Answer([b'{"e', STALL], 500, text), silent=1)
    yield temporary("503 with a body that drips", dripping(503, b" "), silent=5)
    yield temporary("500 with a body without an end", Answer([Endless(b"x" * 65536)], 500, html))
    packed = {**text, "content-encoding": "gzip"}
    yield temporary("500 packed", Answer([gzip.compress(b" " * 2**20)], 500, packed))
    yield Case(
        "no status that exists",
        (Answer([], 799),),
        ends=(NetworkError, MessageProcessingFailed),
    )


def dripping(status: int, piece: bytes) -> Answer:
    """A body that comes a little at a time and never ends: never silent, never there."""
    return Answer([Endless(piece, every=SILENCE / 6)], status)


def redirects(dialect: Dialect, elsewhere: str) -> Iterable[Case]:
    for status in (300, 301, 302, 303, 307, 308):
        answer = Answer(status=status, headers={"location": f"{elsewhere}/v1"})
        yield refused(f"redirect {status}", answer)
    yield refused("redirect to nowhere", Answer(status=302))
    yield refused("redirect to a file", Answer(status=302, headers={"location": "file:///x"}))
    host = elsewhere.removeprefix("http:")
    yield refused("redirect by another scheme", Answer(status=307, headers={"location": host}))


# ---- no answer ---------------------------------------------------------------------------


def unreachable() -> Iterable[Case]:
    for place in ("refuses connections", "has no address", "answers TLS with garbage"):
        yield Case(place, place=place, waits=(1, 2))
    yield Case("never answers TLS", place="never answers TLS", silent=1, waits=(1, 2))
    yield Case("never accepts", place="never accepts", silent=1, waits=(1, 2))


def no_answers(dialect: Dialect) -> Iterable[Case]:
    yield temporary("closed before the head", Answer(before=CUT))
    yield temporary("reset before the head", Answer(before=RESET))
    yield temporary("silent before the head", Answer(before=STALL), silent=1)
    yield temporary("closed after the head", streaming(dialect, CUT))
    yield temporary("reset after the head", streaming(dialect, RESET))
    yield temporary("silent after the head", streaming(dialect, STALL), silent=1)
    yield temporary("an empty stream", streaming(dialect))
    yield temporary("an empty body", raw(dialect, "content-length: 0"))
    yield temporary("no content", Answer([b"HTTP/1.1 204 No Content\r\n\r\n"], is_raw=True))
    yield temporary("only what keeps alive", streaming(dialect, *[alive(dialect)] * 3))
    forever = Endless(alive(dialect), every=SILENCE / 6)
    yield temporary("alive for ever", streaming(dialect, forever), silent=5)
    yield temporary("a body that drips", slow(dialect), silent=5)


def streaming(dialect: Dialect, *steps: Step) -> Answer:
    return Answer(steps, headers={"content-type": dialect.content_type})


def alive(dialect: Dialect) -> bytes:
    """What a vendor sends to say that it is still there."""
    if dialect.name == "anthropic":
        return b'event: ping\ndata: {"type": "ping"}\n\n'
    if dialect.name in ("bedrock", "gemini"):
        return event_of_no_kind(dialect)
    return b": keep-alive\n\n"


def slow(dialect: Dialect) -> Answer:
    """An event that never becomes whole."""
    if dialect.name == "bedrock":
        whole = Bedrock.event("contentBlockDelta", {"delta": {"text": "x" * 10_000}})
        return streaming(dialect, whole[:12], Endless(b"\x00", every=SILENCE / 6))
    return streaming(dialect, b"data: ", Endless(b" ", every=SILENCE / 6))


# ---- HTTP that is none -------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


def raw(dialect: Dialect, *headers: str, body: Sequence[Step] = ()) -> Answer:
    """An answer of 200 whose framing is `headers`, with a body as it is."""
    lines = [f"content-type: {dialect.content_type}", *headers, "", ""]
    return Answer([OK + "\r\n".join(lines).encode(), *body], is_raw=True)


def broken_http(dialect: Dialect) -> Iterable[Case]:
    def sends(name: str, *steps: Step, silent: int = 0) -> Case:
        return temporary(name, Answer(steps, is_raw=True), silent=silent)

    yield sends("garbage", b"\x00\xff\xfe" * 100)
    yield sends("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n")
    yield sends("half of a head", OK + b"content-ty")
    yield sends("a head that drips", OK, Endless(b"x: y\r\n", every=SILENCE / 6), silent=5)
    yield sends("a head without an end", OK, Endless(b"x-more: " + b"x" * 4000 + b"\r\n"))
    yield sends("a line of a head without an end", OK + b"x: ", Endless(b"x" * 4096))
    chunked = "transfer-encoding: chunked"
    begun = body_of(dialect, said(dialect, Text(HALF)))
    for name, chunk in {
        "no number for a chunk": b"zz\r\n",
        "a chunk of -1": b"-1\r\nx",
        "a chunk shorter than it says": b"ffff\r\nabc",
        "an enormous chunk": b"f" * 40 + b"\r\nabc",
        "a chunk without its end": b"3\r\nabcdef",
    }.items():
        yield temporary(name, raw(dialect, chunked, body=[chunk]))
    length = f"content-length: {len(begun) + 50}"
    yield broken("a length that is too large", raw(dialect, length, body=[begun]), HALF)
    whole = body_of(dialect, good(dialect))
    length = f"content-length: {len(whole)}"
    yield harmless("a length instead of chunks", raw(dialect, length, body=[whole]))
    yield harmless("neither length nor chunks", raw(dialect, body=[whole]))
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    early = Answer([hints, *raw(dialect, length, body=[whole]).steps], is_raw=True)
    yield Case("a hint before the answer", (early,), ends=(None, NetworkError), text=None)


def body_of(dialect: Dialect, answer: Answer) -> bytes:
    return b"".join(step for step in answer.steps if isinstance(step, bytes))


def good(dialect: Dialect) -> Answer:
    return said(dialect, Text(HALF), Text("😀 lòaf."), Stop())


# ---- streams that break off --------------------------------------------------------------


def broken(name: str, answer: Answer, text: str = HALF, **fields: object) -> Case:
    """Broken off after text: kept, and not asked for again."""
    case = Case(name, (answer,), text=text, asked=1, waits=())
    return replace(case, **fields)  # type: ignore[arg-type]  # the case's own fields


def harmless(name: str, answer: Answer, text: str = WHOLE) -> Case:
    return Case(name, (answer,), ends=(None,), text=text, asked=1, waits=())


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


def event_of_no_kind(dialect: Dialect) -> bytes:
    if isinstance(dialect, Bedrock):
        return dialect.event("somethingNew", {"thing": 1})
    if dialect.name == "anthropic":
        return b'event: something_new\ndata: {"type": "something_new", "thing": 1}\n\n'
    if dialect.name == "gemini":
        return b'data: {"somethingNew": 1}\n\n'
    head = {"id": "c", "object": "something.new", "created": 1, "model": "m", "choices": []}
    return b"data: " + json.dumps(head).encode() + b"\n\n"


# ---- errors told in a stream -------------------------------------------------------------


def told(dialect: Dialect) -> list[bytes]:
    """How a vendor says in the middle of a stream that it cannot go on."""
    if isinstance(dialect, Bedrock):
        kinds = ("throttlingException", "modelStreamErrorException", "internalServerException")
        return [dialect.exception(kind, f"not {CANARY}") for kind in kinds]
    if dialect.name == "anthropic":
        error = 'event: error\ndata: {{"type": "error", "error": {{"type": "{}", "message": "{}"}}}}\n\n'
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


def all_names() -> dict[str, list[str]]:
    return {n: [case.name for case in cases(d, "http://elsewhere")] for n, d in DIALECTS.items()}


Choose = Callable[[Case], bool]
