"""Mutated conversations against the whole server in this process.

A valid conversation is broken in its values, in its order and in its bytes, and sent in pieces
of any size. However it reads then: nothing crashes, and each request that can be told to be one
is answered under its id, once. What is due is worked out from the bytes by `due`, which shares
only the frame parser with the product. A batch is told by its seed and its number alone.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sidecar.faces.usage import rss_bytes
from sidecar.wire.frames import Frame, FrameParser, frame
from tests.e2e.raw_client import body_of, check_error, request
from tests.fakes import run_virtually
from tests.managers import recorded
from tests.whole_server import Talk, whole_server

Message = dict[str, Any]
MIB = 1024 * 1024
GROWTH = 64 * MIB

BATCH = 40
"""Clients that one server has, one after the other."""
MAX_DEPTH = 200

HARMLESS = body_of({"jsonrpc": "2.0", "method": "$/harmless"})
PING = "the last ping"


# ---- valid conversations -------------------------------------------------------------------


def call_of(chance: random.Random) -> tuple[str, Message]:
    name = {"conversationId": chance.choice("abc")}
    other = {"fromConversationId": "a", "toConversationId": chance.choice("abc")}
    text = chance.choice(
        ("echo hello", "repeat 20 word ", "think hard", "hang", "fail UNAUTHORIZED")
    )
    cursor = {"storeId": "s", "seq": chance.randrange(9), "revision": 0, "parts": []}
    part = {"messageId": "m", "part": 0, "length": 3}
    capability = {"name": "look", "description": "looks", "version": "1", "inputSchema": {}}
    calls: list[tuple[str, Message]] = [
        ("conversation/create", name | {"title": "T", "mode": "chat"}),
        ("conversation/list", {"limit": 5, "sinceChange": 0}),
        ("conversation/get", name | {"limit": 3}),
        ("conversation/subscribe", name | {"cursor": cursor | {"parts": [part]}}),
        ("conversation/unsubscribe", name),
        ("conversation/rename", name | {"title": "new"}),
        ("conversation/setMode", name | {"mode": "build"}),
        ("conversation/archive", name | {"archived": True}),
        ("conversation/search", {"query": "hello", "limit": 3}),
        ("conversation/fork", name | {"requestKey": "k1"}),
        ("conversation/rewind", name | {"toMessageId": None, "preview": True}),
        ("conversation/switch", {"toConversationId": "b", "mode": "chat"}),
        ("conversation/export", name | {"format": "markdown", "reason": "r"}),
        ("conversation/import", {"data": json.dumps({"schemaVersion": 1})}),
        ("conversation/takeOver", name | {"force": True}),
        ("conversation/delete", name),
        ("message/send", name | {"input": text, "workDoneToken": chance.choice(("t", 7))}),
        ("message/send", name | {"input": text, "requestKey": chance.choice(("k1", "k2"))}),
        ("message/enqueue", name | {"input": text, "settings": {"temperature": 1}}),
        ("message/queue", name),
        ("message/update", {"messageId": "m", "input": "x"}),
        ("message/remove", {"messageId": "m"}),
        ("message/reorder", {"messageId": "m", "position": 0}),
        ("message/retry", {"messageId": "m"}),
        ("message/steer", name | {"text": "x", "expectedTurnId": "t"}),
        ("agent/getOrCreate", name | {"create": True, "mode": "chat"}),
        ("agent/dispose", name),
        ("agent/disposeAll", {}),
        ("agent/abortAndRestart", name),
        ("agent/cancel", name),
        ("agent/has", name),
        ("agent/list", {}),
        ("agent/sendTo", other | {"input": "hello"}),
        ("agent/grant", other),
        ("agent/validateCommunication", other | {"capability": "look"}),
        ("capability/register", name | {"capability": capability}),
        ("capability/query", name | {"name": "look"}),
        ("capability/find", {"name": "look"}),
        ("settings/update", {"settings": {"retry": {"maxAttempts": 2}, "temperature": 0.5}}),
        ("settings/update", {"secrets": {"geminiApiKey": "key"}, "force": True}),
        ("settings/get", {}),
        ("webview/preserve", {"webviewId": "w"}),
        ("webview/restore", {"webviewId": "w", "cursors": [name | {"cursor": cursor}]}),
        ("store/prune", {"dryRun": True, "maxAgeDays": 1}),
        ("sidecar/status", {}),
        ("sidecar/metrics", {}),
    ]
    return chance.choice(calls)


def conversation_of(chance: random.Random) -> list[Message]:
    """A client that does everything right."""
    options = {"protocolVersions": [1], "webviewId": "w", "settings": {"provider": "scripted"}}
    first = request(0, "initialize", {"processId": 1, "initializationOptions": options})
    talk: list[Message] = [first, {"jsonrpc": "2.0", "method": "initialized", "params": {}}]
    for number in range(1, chance.randint(3, 12)):
        msg_id = chance.choice((number, f"id {number}"))
        talk.append(request(msg_id, *call_of(chance)))
        kind = chance.random()
        if kind < 0.2:
            params: Message = {"id": chance.choice((msg_id, 1, "id 2"))}
            talk.append({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": params})
        elif kind < 0.3:
            gone = {"webviewId": "w"}
            talk.append({"jsonrpc": "2.0", "method": "webview/didDisconnect", "params": gone})
    if chance.random() < 0.3:
        talk += [request("bye", "shutdown"), {"jsonrpc": "2.0", "method": "exit"}]
    return talk


# ---- mutations -----------------------------------------------------------------------------

VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 1, 1.5, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 1e308, "", "a",
    "\ud800", "\x00", "ü🙂", "x" * 129, "x" * 5000, "../../etc", "2.0", "1.0", "exit", "initialize",
    "shutdown", "$/cancelRequest", "message/send", "id 1", [], {}, [1], ["a", {}], {"x": 1},
    {"jsonrpc": "2.0", "id": 1, "method": "exit"}, [[[[[[]]]]]],
)  # fmt: skip


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in it."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    found = [(value, key) for key, _ in items]
    for _, inner in items:
        if isinstance(inner, dict | list):
            found += places_in(inner)
    return found


def mutated_values(messages: list[Message], chance: random.Random) -> None:
    """Break a value, a name or a message of it."""
    message = chance.choice(messages)
    container, key = chance.choice(places_in(message) or [(message, "x")])
    match chance.randrange(6):
        case 0 | 1:
            container[key] = copied(chance.choice(VALUES))
        case 2:
            container.pop(key, None) if isinstance(container, dict) else container.pop(key)
        case 3 if isinstance(container, dict):
            container[chance.choice(("x", "id", "method", "params", "error"))] = container.pop(
                key, None
            )
        case 4:
            other = chance.choice(places_in(chance.choice(messages)) or [(message, "x")])
            container[key] = copied(
                other[0].get(other[1]) if isinstance(other[0], dict) else other[0][other[1]]
            )
        case _:
            deep: Any = 1
            for _ in range(chance.choice((3, 197, 198, 199, 200, 300))):
                deep = [deep] if chance.random() < 0.5 else {"a": deep}
            container[key] = deep


def mutated_order(messages: list[Message], chance: random.Random) -> None:
    at, other = (chance.randrange(len(messages)) for _ in range(2))
    match chance.randrange(4):
        case 0:
            messages.insert(at, copied(messages[other]))
        case 1:
            messages[at], messages[other] = messages[other], messages[at]
        case 2 if len(messages) > 1:
            del messages[at]
        case _:
            messages[at], last = copied(messages[other]), messages[at]
            if "id" in last:
                messages[at]["id"] = last["id"]


FRAGMENTS = (
    b"Content-Length: ", b"\r\n\r\n", b"\r\n", b"\n", b"\0", b"{", b"}", b'"', b"[", b"\\", b"\xff",
    b"Content-Length: 10\r\n\r\n", b"Content-Length: 0\r\n\r\n",
    b"Content-Length: 99999999999\r\n\r\n", b"Content-Type: a/b; charset=utf-16\r\n",
    b"NaN", b"1e999", b"\\ud800", b"\xef\xbb\xbf", b"9" * 20,
)  # fmt: skip


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    short = min(end, at + chance.randint(1, 12))
    match chance.randrange(7):
        case 0 if at < len(data):
            flipped = data[at] ^ 1 << chance.randrange(8)
            return data[:at] + bytes([flipped]) + data[at + 1 :]
        case 1:
            return data[:at] + data[short:]
        case 2:
            return data[:at] + chance.choice(FRAGMENTS) + data[at:]
        case 3:
            return data[:at] + chance.randbytes(short - at) + data[short:]
        case 4 if chance.random() < 0.3:
            return data[:at]
        case 5:
            return data[:end] + data[at:]
        case _:
            return data[:at] + data[at:short] * 2 + data[short:]


def input_of(chance: random.Random) -> bytes:
    messages = conversation_of(chance)
    for _ in range(chance.choice((0, 1, 2, 4))):
        mutated_values(messages, chance)
    for _ in range(chance.choice((0, 0, 1, 2))):
        mutated_order(messages, chance)
    data = b"".join(frame(json.dumps(message).encode()) for message in messages)
    if chance.random() < 0.1:
        other = b"".join(frame(body_of(message)) for message in conversation_of(chance))
        data = data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]
    for _ in range(chance.choice((0, 0, 1, 3))):
        data = mutated_bytes(data, chance)
    return frame(HARMLESS) + data


def pieces_of(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 1, 5, 20))))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


# ---- what is due ---------------------------------------------------------------------------


class Due:
    """The answers that a client may count on."""

    def __init__(self, data: bytes) -> None:
        self.certain: Counter[int | str | None] = Counter()
        self.possible: Counter[int | str | None] = Counter()
        """What follows `exit`: the process is leaving and may answer or not."""
        parser = FrameParser()
        items = parser.feed(data)
        self.is_whole = repr(parser) == repr(FrameParser())
        """Whether the stream ends between two frames."""
        self.has_left = False
        for item in items:
            kind, msg_id = due(item.body) if isinstance(item, Frame) else ("refusal", None)
            if kind == "exit":
                self.has_left = True
            elif kind == "refusal" and isinstance(item, Frame) and is_deep(item.body):
                # Refused for its depth before the rest is looked at: under its id if it has one.
                self.possible.update({None: 1, **dict.fromkeys(ids_in(item.body), 1)})
            elif kind != "nothing":
                (self.possible if self.has_left else self.certain)[msg_id] += 1

    def check(self, talk: Talk) -> None:
        got = Counter({_shown(msg_id): n for msg_id, n in talk.answered.items()})
        missing = self.certain - got
        extra = got - self.certain - self.possible
        assert not missing, f"not answered: {dict(missing)}"
        assert not extra, f"answered too often: {dict(extra)}"


def due(body: bytes) -> tuple[str, int | str | None]:
    """What a message asks for, `nothing` or an answer, and under which id."""
    try:
        message = json.loads(body.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "refusal", None
    if not isinstance(message, dict):
        return "refusal", None
    msg_id = message.get("id")
    if "id" in message and (isinstance(msg_id, bool) or not isinstance(msg_id, int | str)):
        is_response = "method" not in message and ("result" in message or "error" in message)
        is_fine = is_response and msg_id is None and _is_message(message)
        return ("nothing" if is_fine else "refusal"), None
    if not _is_message(message):
        return "refusal", _shown(msg_id)
    if "method" not in message:
        return "nothing", None
    if "id" in message:
        return "answer", _shown(msg_id)
    return ("exit" if message["method"] == "exit" else "nothing"), None


def is_deep(body: bytes) -> bool:
    return body.count(b"[") + body.count(b"{") > MAX_DEPTH


def ids_in(body: bytes) -> set[int | str | None]:
    """All that may be an id in what is not JSON, or too much of it."""
    found = re.findall(rb'"id":\s*(?:"([^"\\]*)"|(-?\d+))', body)
    return {text.decode("utf-8", "replace") if text else int(number or 0) for text, number in found}


def _is_message(message: Message) -> bool:
    if message.get("jsonrpc") != "2.0" or depth_of(message) > MAX_DEPTH:
        return False
    if "method" in message:
        return isinstance(message["method"], str)
    return "result" in message or "error" in message


def depth_of(value: Any) -> int:
    level, depth = [value], 0
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        level = [i for v in level for i in (v.values() if isinstance(v, dict) else v)]
    return depth


def _shown(msg_id: Any) -> Any:
    """Half a character comes back as a replacement character."""
    return re.sub("[\ud800-\udfff]", "\ufffd", msg_id) if isinstance(msg_id, str) else msg_id


def _refuse(name: str) -> None:
    raise ValueError(name)


# ---- playing -------------------------------------------------------------------------------


class Figures:
    def __init__(self) -> None:
        self.talks = 0
        self.answers: Counter[int | None] = Counter()
        self.rss = 0
        """Resident bytes after the first batches, when everything is loaded."""


async def play(seed: int, batch: int, size: int, figures: Figures) -> None:
    chance = random.Random(f"{seed} {batch}")
    async with whole_server() as server:
        for number in range(size):
            data = input_of(chance)
            owed = Due(data)
            last = frame(body_of(request(PING, "agent/count"))) if owed.is_whole else b""
            with recorded() as records:
                try:
                    talk = await server.talk(pieces_of(data, chance), last=last)
                    check(talk, owed)
                    complaints = [r.msg for r in records.all if r.levelno >= logging.ERROR]
                    assert not complaints, f"in the log: {complaints}"
                except BaseException as error:
                    error.add_note(f"fuzz: seed {seed}, batch {batch}, talk {number}: {data!r}")
                    raise
            figures.talks += 1
            figures.answers.update(talk.codes)


def check(talk: Talk, owed: Due) -> None:
    assert not talk.unanswered, f"never answered: {talk.unanswered}"
    owed.certain[PING] += talk.exit_code is None and owed.is_whole
    owed.check(talk)
    for answer in talk.answers:
        if "error" in answer:
            check_error(answer["error"])
            assert answer["error"]["code"] != -32603, answer


def run(count: int, seed: int | None = None, between: Callable[[], object] | None = None) -> str:
    """Play `count` conversations; returns the figures."""
    seed = random.randrange(2**32) if seed is None else seed
    figures = Figures()
    logging.getLogger("sidecar").propagate = False
    for batch in range(-(-count // BATCH)):
        size = min(BATCH, count - batch * BATCH)
        run_virtually(lambda b=batch, n=size: play(seed, b, n, figures))  # type: ignore[misc]
        if batch == 4:
            figures.rss = rss_bytes()
    growth = rss_bytes() - figures.rss if figures.rss else 0
    assert growth <= GROWTH, f"{growth / MIB:.0f} MiB more (seed {seed})"
    answers = figures.answers
    return (
        f"{figures.talks:,} mutated conversations (seed {seed}), {answers.total():,} answers of "
        f"which {answers[None]:,} results, each request answered once, 0 crashes, "
        f"{growth / MIB:.0f} MiB more"
    )


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    print(run(*(arguments or [400])))  # noqa: T201
