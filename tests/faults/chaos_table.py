"""What can go wrong before a vendor's answer begins, and how a turn has to end then; the faults
of the answers themselves are in `chaos_streams`.

The rule behind it: what the vendor refuses is asked once; what may pass is asked three times, as
long as nothing was shown; once text was shown nothing is asked again, and the text stays.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from sidecar.errors import AgentError, MessageProcessingFailed, NetworkError, Unauthorized
from tests.providers.dialects import Bedrock, Dialect, Stop, Text, said
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


def broken(name: str, answer: Answer, text: str = HALF, **fields: object) -> Case:
    """Broken off after text: kept, and not asked for again."""
    case = Case(name, (answer,), text=text, asked=1, waits=())
    return replace(case, **fields)  # type: ignore[arg-type]  # the case's own fields


def harmless(name: str, answer: Answer, text: str = WHOLE) -> Case:
    return Case(name, (answer,), ends=(None,), text=text, asked=1, waits=())


def refusals(dialect: Dialect) -> Iterable[Case]:
    for status in FOR_GOOD:
        yield refused(f"status {status}", refusal(dialect, status))
    for status in FORBIDDEN:
        yield refused(f"status {status}", refusal(dialect, status), Unauthorized)
    for status in TEMPORARY:
        yield temporary(f"status {status}", refusal(dialect, status))


def delays(dialect: Dialect) -> Iterable[Case]:
    """`Retry-After`, sane and not."""
    yield temporary("retry-after seconds", refusal(dialect, 429, retry_after="7"), 7, 7)
    yield temporary("retry-after of a 503", refusal(dialect, 503, retry_after="7"), 7, 7)
    date = refusal(dialect, 429, retry_after=from_now(DATE))
    yield temporary("retry-after a date", date, DATE, DATE)
    for name, value in {
        "a past date": from_now(-86_400),
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
        "a date next year": from_now(365 * 86_400),
    }.items():  # nobody waits so long: told at once
        answer = refusal(dialect, 429, retry_after=value)
        yield Case(f"retry-after {name}", (answer,), asked=1, waits=())


def from_now(seconds: float) -> str:
    """An HTTP date."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


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


def event_of_no_kind(dialect: Dialect) -> bytes:
    if isinstance(dialect, Bedrock):
        return dialect.event("somethingNew", {"thing": 1})
    if dialect.name == "anthropic":
        return b'event: something_new\ndata: {"type": "something_new", "thing": 1}\n\n'
    if dialect.name == "gemini":
        return b'data: {"somethingNew": 1}\n\n'
    head = {"id": "c", "object": "something.new", "created": 1, "model": "m", "choices": []}
    return b"data: " + json.dumps(head).encode() + b"\n\n"


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
