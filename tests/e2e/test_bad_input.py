"""Whatever arrives: each request is answered once, with the right code, and the process goes on.

One process takes the whole table, so what one input spoils the next one finds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.raw_client import (
    Message,
    RawClient,
    body_of,
    command,
    error_codes,
    frame,
    frames_of,
    request,
)

Spawn = Callable[..., RawClient]

MIB = 1024 * 1024
TALKS: dict[str, Any] = {"settings": {"provider": "scripted"}}


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RawClient]]:
    """The process of this file; a second one only if the first died of something."""
    clients: list[RawClient] = []
    yield clients
    for client in clients:
        client.dispose()
    for client in clients:
        client.check_promises()


@pytest.fixture
def client(clients: list[RawClient], tmp_path_factory: pytest.TempPathFactory) -> RawClient:
    if not clients or clients[-1].process.poll() is not None:
        store = tmp_path_factory.mktemp("bad-input") / "conversations.db"
        clients.append(RawClient(command(store)))
        clients[-1].start(TALKS)
        clients[-1].call("conversation/create", {"conversationId": "c"})
    return clients[-1]


def answers_to(client: RawClient, data: bytes) -> list[Message]:
    """What is answered to `data`, up to the answer to a good request right behind it."""
    before = len(client.frames)
    client.send_bytes(data)
    end = client.start_request("agent/count")
    client.response(end)
    answers = [m for m in client.frames[before:] if "method" not in m]
    return answers[: next(at for at, m in enumerate(answers) if m["id"] == end)]


def codes_of(client: RawClient, data: bytes) -> list[int | None]:
    """The codes of the errors, None for a result."""
    return [m.get("error", {}).get("code") for m in answers_to(client, data)]


# ---- frames --------------------------------------------------------------------------------

COUNT = body_of(request(1, "agent/count"))


def headed(header: bytes, body: bytes = COUNT) -> bytes:
    return header + b"\r\n\r\n" + body


LENGTH = b"%d" % len(COUNT)

GOOD_FRAMES: dict[str, bytes] = {
    "name in lower case": headed(b"content-length: " + LENGTH),
    "name in upper case": headed(b"CONTENT-LENGTH: " + LENGTH),
    "no space": headed(b"Content-Length:" + LENGTH),
    "much space": headed(b"Content-Length:   \t " + LENGTH + b"  "),
    "leading zeros": headed(b"Content-Length: 000" + LENGTH),
    "content type first": headed(b"Content-Type: text/x\r\nContent-Length: " + LENGTH),
    "utf-8 named": headed(
        b"Content-Length: " + LENGTH + b"\r\nContent-Type: a/vscode-jsonrpc; charset=utf-8"
    ),
    "utf8 misspelled as old clients do": headed(
        b"Content-Length: " + LENGTH + b'\r\nContent-Type: a/b; charset="utf8"'
    ),
    "unknown header": headed(b"X-Trace: 1\r\nContent-Length: " + LENGTH),
    "the same length twice": headed(
        b"Content-Length: " + LENGTH + b"\r\nContent-Length: " + LENGTH
    ),
    "newlines only": b"Content-Length: " + LENGTH + b"\n\n" + COUNT,
    "blank lines before": b"\r\n\r\n\n" + frame(COUNT),
    "blanks in the body": frame(b"  \r\n\t" + COUNT + b"\n\n "),
}

BAD_FRAMES: dict[str, tuple[bytes, list[int]]] = {
    "no length": (headed(b"X-Trace: 1"), [-32600]),
    "length is a word": (headed(b"Content-Length: many"), [-32600]),
    "length is negative": (headed(b"Content-Length: -5"), [-32600]),
    "length is signed": (headed(b"Content-Length: +" + LENGTH), [-32600]),
    "length is fractional": (headed(b"Content-Length: 5.0"), [-32600]),
    "length is hexadecimal": (headed(b"Content-Length: 0x10"), [-32600]),
    "length is 0": (b"Content-Length: 0\r\n\r\n", [-32600]),
    "length is empty": (headed(b"Content-Length:"), [-32600]),
    "length is in other digits": (headed("Content-Length: ٣٥".encode()), [-32600]),
    "two lengths": (headed(b"Content-Length: 5\r\nContent-Length: 6"), [-32600]),
    "length over any bound": (headed(b"Content-Length: 99999999999999"), [-32600]),
    "length of a thousand digits": (headed(b"Content-Length: " + b"9" * 1000), [-32600]),
    "header over 8 KiB": (headed(b"X: " + b"x" * 9000), [-32600]),
    "header without a colon": (headed(b"Hello"), [-32600]),
    "another charset": (
        headed(b"Content-Length: " + LENGTH + b"\r\nContent-Type: a/b; charset=utf-16"),
        [-32600],
    ),
    "bytes of any kind": (bytes(range(256)) * 4, [-32600]),
    "an http request": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", [-32600]),
    "json without a header": (COUNT, [-32600]),
    "lines of json": (COUNT + b"\n" + COUNT + b"\n", [-32600]),
    "a body shorter than said, then a frame": (
        b"Content-Length: %d\r\n\r\n" % (len(COUNT) + 4) + COUNT + b"\r\n\r\n",
        [None],  # the blank lines between frames make up for it
    ),
    "a body longer than said": (b"Content-Length: 10\r\n\r\n" + COUNT, [-32700, -32600]),
}


@pytest.mark.parametrize("name", GOOD_FRAMES)
def test_a_frame_that_is_only_unusual_is_understood(client: RawClient, name: str) -> None:
    assert codes_of(client, GOOD_FRAMES[name]) == [None]


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_what_is_no_frame_is_reported_once_and_passed_over(client: RawClient, name: str) -> None:
    data, codes = BAD_FRAMES[name]
    assert codes_of(client, data) == codes


def test_bad_frames_are_reported_in_pieces_as_in_one(client: RawClient) -> None:
    data, codes = BAD_FRAMES["length is a word"]
    before = len(client.frames)
    for byte in data:
        client.send_bytes(bytes([byte]))
    assert codes_of(client, b"") == []
    assert [m["error"]["code"] for m in client.frames[before:] if "error" in m] == codes


def test_a_body_over_64_mib_is_refused_before_it_is_there(client: RawClient) -> None:
    before = len(client.frames)
    size = 64 * MIB + 1
    client.send_bytes(b"Content-Length: %d\r\n\r\n" % size)
    error = client.wait_for(lambda m: "error" in m and m["id"] is None, after=before)["error"]
    assert error["code"] == -32600
    for _ in range(64):
        client.send_bytes(b" " * MIB)
    client.send_bytes(b" ")
    client.ping()
    if sys.platform == "linux":
        assert client.rss() < 150 * MIB


# ---- bodies --------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def with_params(params: bytes, method: bytes = b"agent/count") -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}' % (method, params)


BODIES: dict[str, tuple[bytes, list[int | None]]] = {
    "nothing but a blank": (b" ", [-32700]),
    "half an object": (b'{"jsonrpc":"2.0","id":1,', [-32700]),
    "a comma too many": (b'{"jsonrpc":"2.0","id":1,"method":"agent/count",}', [-32700]),
    "quotes of the wrong kind": (b"{'jsonrpc':'2.0'}", [-32700]),
    "a comment": (COUNT + b"// hello", [-32700]),
    "two objects": (COUNT + COUNT, [-32700]),
    "a byte order mark": (b"\xef\xbb\xbf" + COUNT, [-32700]),
    "utf-16": (COUNT.decode().encode("utf-16"), [-32700]),
    "bytes that are no utf-8": (with_params(b'{"x":"\xff\xfe"}'), [-32700]),
    "a surrogate in utf-8": (with_params(b'{"x":"\xed\xa0\x80"}'), [-32700]),
    "an overlong encoding": (with_params(b'{"x":"\xc0\xaf"}'), [-32700]),
    "a newline in a string": (with_params(b'{"x":"a\nb"}'), [-32700]),
    "a zero byte": (COUNT + b"\0", [-32700]),
    "NaN": (with_params(b'{"x":NaN}'), [-32700]),
    "Infinity": (with_params(b'{"x":-Infinity}'), [-32700]),
    "a number with a leading zero": (with_params(b'{"x":01}'), [-32700]),
    "an unknown escape": (with_params(b'{"x":"\\q"}'), [-32700]),
    "a word": (b"hello", [-32700]),
    "null": (b"null", [-32600]),
    "true": (b"true", [-32600]),
    "a number": (b"42", [-32600]),
    "a string": (b'"hello"', [-32600]),
    "an empty object": (b"{}", [-32600]),
    "an empty batch": (b"[]", [-32600]),
    "a batch": (b"[" + COUNT + b"," + COUNT + b"]", [-32600]),
    "a batch of nonsense": (b"[1,2,3]", [-32600]),
    "201 levels": (with_params(b'{"x":' + nested(199) + b"}"), [-32600]),
    "100,000 levels": (with_params(nested(100_000)), [-32600]),
    "100,000 levels that never close": (b"[" * 100_000, [-32600]),
    "100,000 objects in each other": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, [-32600]),
    "200 levels": (with_params(b'{"x":' + nested(198) + b"}"), [None]),
    "brackets in a string are no levels": (with_params(b'{"x":"' + b"[" * 5000 + b'"}'), [None]),
    "a lone surrogate in what is ignored": (with_params(b'{"x":"\\ud800"}'), [None]),
    "fields that nobody knows": (with_params(b'{"x":1,"y":{"z":[]}}'), [None]),
    "a key twice": (with_params(b'{"x":1,"x":2}'), [None]),
    "no jsonrpc": (b'{"id":1,"method":"agent/count"}', [-32600]),
    "jsonrpc 1.0": (b'{"jsonrpc":"1.0","id":1,"method":"agent/count"}', [-32600]),
    "jsonrpc as a number": (b'{"jsonrpc":2.0,"id":1,"method":"agent/count"}', [-32600]),
    "id null": (b'{"jsonrpc":"2.0","id":null,"method":"agent/count"}', [-32600]),
    "id true": (b'{"jsonrpc":"2.0","id":true,"method":"agent/count"}', [-32600]),
    "id an object": (b'{"jsonrpc":"2.0","id":{},"method":"agent/count"}', [-32600]),
    "id an array": (b'{"jsonrpc":"2.0","id":[1],"method":"agent/count"}', [-32600]),
    "id a fraction": (b'{"jsonrpc":"2.0","id":1.5,"method":"agent/count"}', [-32600]),
    "method missing": (b'{"jsonrpc":"2.0","params":{}}', [-32600]),
    "method a number": (b'{"jsonrpc":"2.0","id":1,"method":5}', [-32600]),
    "method null": (b'{"jsonrpc":"2.0","id":1,"method":null}', [-32600]),
    "method empty": (b'{"jsonrpc":"2.0","id":1,"method":""}', [-32601]),
    "method unknown": (b'{"jsonrpc":"2.0","id":1,"method":"agent/Count"}', [-32601]),
    "method of a language server": (
        b'{"jsonrpc":"2.0","id":1,"method":"textDocument/hover","params":{}}',
        [-32601],
    ),
    "method with a megabyte of name": (
        b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % (b"x" * MIB),
        [-32601],
    ),
    "method of Python's": (b'{"jsonrpc":"2.0","id":1,"method":"__init__"}', [-32601]),
    "an optional request": (b'{"jsonrpc":"2.0","id":1,"method":"$/what"}', [-32601]),
    "exit as a request": (b'{"jsonrpc":"2.0","id":1,"method":"exit"}', [-32601]),
    "initialized as a request": (b'{"jsonrpc":"2.0","id":1,"method":"initialized"}', [-32601]),
    "cancelling as a request": (
        b'{"jsonrpc":"2.0","id":1,"method":"$/cancelRequest","params":{"id":1}}',
        [-32601],
    ),
    "a notification as a request": (
        b'{"jsonrpc":"2.0","id":1,"method":"webview/didDisconnect","params":{}}',
        [-32601],
    ),
    "a request of ours asked of us": (
        b'{"jsonrpc":"2.0","id":1,"method":"conversation/event","params":{}}',
        [-32601],
    ),
    "params an array": (with_params(b"[]"), [-32602]),
    "params a string": (with_params(b'"x"'), [-32602]),
    "params a number": (with_params(b"5"), [-32602]),
    "params null": (with_params(b"null"), [None]),
    "params missing": (COUNT, [None]),
    "10^400 where a number is": (with_params(b'{"limit":1e400}', b"conversation/list"), [-32602]),
    "10^400 in digits": (
        with_params(b'{"limit":1' + b"0" * 400 + b"}", b"conversation/list"),
        [-32602],
    ),
    "-10^400": (with_params(b'{"sinceChange":-1e400}', b"conversation/list"), [-32602]),
    "2^64": (with_params(b'{"sinceChange":18446744073709551616}', b"conversation/list"), [-32602]),
    "2^63": (with_params(b'{"sinceChange":9223372036854775808}', b"conversation/list"), [-32602]),
    "a response to nothing": (b'{"jsonrpc":"2.0","id":77,"result":{}}', []),
    "an error to nothing": (
        b'{"jsonrpc":"2.0","id":77,"error":{"code":-32601,"message":"?"}}',
        [],
    ),
    "an error that could not be placed": (
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}',
        [],
    ),
    "a notification nobody knows": (b'{"jsonrpc":"2.0","method":"editor/blink"}', []),
    "an optional notification": (b'{"jsonrpc":"2.0","method":"$/setTrace","params":{}}', []),
    "a request's method as a notification": (b'{"jsonrpc":"2.0","method":"agent/disposeAll"}', []),
    "a notification with wrong params": (
        b'{"jsonrpc":"2.0","method":"webview/didDisconnect","params":{"webviewId":[]}}',
        [],
    ),
    "a notification with params that are no object": (
        b'{"jsonrpc":"2.0","method":"webview/didReconnect","params":"x"}',
        [],
    ),
    "initialized once more": (b'{"jsonrpc":"2.0","method":"initialized","params":{}}', []),
    "initialize as a notification": (b'{"jsonrpc":"2.0","method":"initialize","params":{}}', []),
    "shutdown as a notification": (b'{"jsonrpc":"2.0","method":"shutdown"}', []),
}


@pytest.mark.parametrize("name", BODIES)
def test_each_body_is_answered_as_the_specification_says(client: RawClient, name: str) -> None:
    body, codes = BODIES[name]
    assert codes_of(client, frame(body)) == codes


BEFORE_THE_START = {
    name: (body, codes)
    for name, (body, codes) in BODIES.items()
    if codes in ([-32700], [-32600], [])
}


def test_before_initialize_bad_bodies_get_the_same_codes(spawn: Spawn) -> None:
    client = spawn()
    for name, (body, codes) in BEFORE_THE_START.items():
        assert codes_of(client, frame(body)) == codes, name
    client.start()


def test_before_initialize_bad_frames_get_the_same_codes(spawn: Spawn) -> None:
    client = spawn()
    # The first byte tells the protocol, so something harmless goes before what begins with `{`.
    client.send_bytes(b"\r\n\r\n")
    client.notify("$/harmless")
    for name, (data, codes) in BAD_FRAMES.items():
        assert codes_of(client, data) == [code or -32002 for code in codes], name
    client.start()


@pytest.mark.parametrize(
    "msg_id",
    [0, -1, 2**53 + 1, 2**63 - 1, "", "ü🙂", "x" * 10_000, '"\\\n'],
    ids=lambda i: ascii(i)[:20],
)
def test_the_id_comes_back_as_it_was(client: RawClient, msg_id: int | str) -> None:
    [answer] = answers_to(client, frames_of([request(msg_id, "agent/count")]))
    assert answer["id"] == msg_id
    assert type(answer["id"]) is type(msg_id)


@pytest.mark.parametrize("digits", [b"1e400", b"1" + b"0" * 400, b"18446744073709551616"])
def test_an_id_beyond_every_number_is_answered_once(client: RawClient, digits: bytes) -> None:
    body = b'{"jsonrpc":"2.0","id":%b,"method":"agent/count"}' % digits
    [answer] = answers_to(client, frame(body))
    if "error" in answer:
        assert answer["error"]["code"] == -32600
    else:
        assert answer["id"] == int(digits)


# ---- params --------------------------------------------------------------------------------

PARAMS: list[tuple[str, object, str]] = [
    ("conversation/get", {}, "conversationId"),
    ("conversation/get", {"conversationId": 5}, "$.conversationId"),
    ("conversation/get", {"conversationId": None}, "$.conversationId"),
    ("conversation/get", {"conversationId": ""}, "$.conversationId"),
    ("conversation/get", {"conversationId": "a b"}, "$.conversationId"),
    ("conversation/get", {"conversationId": "../../etc"}, "$.conversationId"),
    ("conversation/get", {"conversationId": "x" * 129}, "$.conversationId"),
    ("conversation/get", {"conversationId": "c\n"}, "$.conversationId"),
    ("conversation/get", {"conversationId": "ü"}, "$.conversationId"),
    ("conversation/get", {"conversationId": "c", "limit": 0}, "$.limit"),
    ("conversation/get", {"conversationId": "c", "limit": 501}, "$.limit"),
    ("conversation/get", {"conversationId": "c", "limit": "50"}, "$.limit"),
    ("conversation/get", {"conversationId": "c", "limit": 1.5}, "$.limit"),
    ("conversation/get", {"conversationId": "c", "cursor": "x" * 513}, "$.cursor"),
    ("conversation/list", {"archived": 1}, "$.archived"),
    ("conversation/list", {"sinceChange": -1}, "$.sinceChange"),
    ("conversation/create", {"mode": "admin"}, "$.mode"),
    ("conversation/create", {"mode": 1}, "$.mode"),
    ("conversation/create", {"title": "x" * 501}, "$.title"),
    ("conversation/create", {"requestKey": ""}, "$.requestKey"),
    ("conversation/setMode", {"conversationId": "c", "mode": "Chat"}, "$.mode"),
    ("conversation/export", {"conversationId": "c", "format": "pdf"}, "$.format"),
    ("conversation/search", {"query": ""}, "$.query"),
    ("conversation/search", {"query": "x" * 1001}, "$.query"),
    ("conversation/subscribe", {"conversationId": "c", "cursor": "0"}, "$.cursor"),
    ("conversation/subscribe", {"conversationId": "c", "cursor": {"seq": 1}}, "$.cursor"),
    (
        "conversation/subscribe",
        {"conversationId": "c", "cursor": {"storeId": "s", "seq": 1, "parts": [{"part": 1}]}},
        "$.cursor.parts[0]",
    ),
    ("message/send", {"conversationId": "c"}, "input"),
    ("message/send", {"conversationId": "c", "input": ""}, "$.input"),
    ("message/send", {"conversationId": "c", "input": ["x"]}, "$.input"),
    ("message/send", {"conversationId": "c", "input": "x", "settings": []}, "$.settings"),
    (
        "message/send",
        {"conversationId": "c", "input": "x", "settings": {"provider": "gemini"}},
        "$.settings",
    ),
    (
        "message/send",
        {"conversationId": "c", "input": "x", "settings": {"temperature": 9}},
        "$.settings.temperature",
    ),
    (
        "message/send",
        {"conversationId": "c", "input": "x", "contextFiles": [{"uri": "file:///a"}, {"uri": 5}]},
        "$.contextFiles[1].uri",
    ),
    (
        "message/send",
        {
            "conversationId": "c",
            "input": "x",
            "contextFiles": [
                {
                    "uri": "file:///a",
                    "range": {
                        "start": {"line": -1, "character": 0},
                        "end": {"line": 0, "character": 0},
                    },
                }
            ],
        },
        "$.contextFiles[0].range.start.line",
    ),
    ("message/enqueue", {"conversationId": "c", "input": 1}, "$.input"),
    ("message/reorder", {"messageId": "m", "position": -1}, "$.position"),
    ("message/steer", {"conversationId": "c", "text": "x"}, "expectedTurnId"),
    ("capability/register", {"conversationId": "c", "capability": {"name": 5}}, "$.capability"),
    ("settings/update", {"settings": {"provider": "hal"}}, "$.settings.provider"),
    ("settings/update", {"settings": {"maxActiveAgents": 0}}, "$.settings.maxActiveAgents"),
    ("settings/update", {"settings": {"retry": {"maxAttempts": 99}}}, "$.settings.retry"),
    ("settings/update", {"settings": {"lingerTimeout": "1s"}}, "$.settings.lingerTimeout"),
    ("settings/update", {"secrets": {"noSuchKey": "x"}}, "$.secrets"),
    ("settings/update", {"force": "yes"}, "$.force"),
]


@pytest.mark.parametrize(("method", "params", "path"), PARAMS, ids=str)
def test_wrong_params_are_refused_with_their_place(
    client: RawClient, method: str, params: object, path: str
) -> None:
    error = client.error(method, params)
    assert error["code"] == -32602
    assert error["message"].startswith(f"{method}: ")
    assert path in error["message"]
    assert "$" in error["message"]
    client.ping()


SECRET = "AIza-this-is-very-secret"
SECRET_NAMES = ["geminiApiKey", "awsAccessKey", "awsSecretKey", "anthropicApiKey", "openaiApiKey"]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_key_among_the_settings_is_refused_with_a_hint(client: RawClient, name: str) -> None:
    for method, params in (
        ("settings/update", {"settings": {name: SECRET}}),
        ("message/send", {"conversationId": "c", "input": "x", "settings": {name: SECRET}}),
    ):
        error = client.error(method, params)
        assert error["code"] == -32602
        assert "$.settings" in error["message"]
        assert "secrets" in error["message"]
        assert SECRET not in str(error)
    assert client.call("settings/get")["secretsPresent"] == []
    assert SECRET not in client.stderr.decode()


@pytest.mark.parametrize(
    ("method", "params", "type"),
    [
        ("conversation/get", {"conversationId": "unknown"}, "NOT_FOUND"),
        ("conversation/rename", {"conversationId": "unknown", "title": "x"}, "NOT_FOUND"),
        ("conversation/setMode", {"conversationId": "unknown", "mode": "build"}, "NOT_FOUND"),
        ("conversation/archive", {"conversationId": "unknown"}, "NOT_FOUND"),
        ("conversation/delete", {"conversationId": "unknown"}, "NOT_FOUND"),
        ("conversation/fork", {"conversationId": "unknown"}, "NOT_FOUND"),
        ("conversation/rewind", {"conversationId": "unknown", "toMessageId": None}, "NOT_FOUND"),
        ("conversation/rewind", {"conversationId": "c", "toMessageId": "unknown"}, "NOT_FOUND"),
        ("conversation/takeOver", {"conversationId": "unknown"}, "NOT_FOUND"),
        ("conversation/export", {"conversationId": "unknown"}, "LOAD_FAILED"),
        ("conversation/import", {"data": "{}"}, "LOAD_FAILED"),
        ("conversation/import", {"data": "\ud800 no json"}, "LOAD_FAILED"),
        ("conversation/import", {}, "LOAD_FAILED"),
        ("conversation/import", {"path": "/nowhere/at all"}, "LOAD_FAILED"),
        ("conversation/create", {"conversationId": "c"}, "CONFLICT"),
        ("conversation/get", {"conversationId": "c", "cursor": "nonsense"}, None),
        ("conversation/list", {"cursor": "nonsense"}, None),
        ("agent/getOrCreate", {"conversationId": "unknown", "create": False}, "NOT_FOUND"),
        ("agent/abortAndRestart", {"conversationId": "unknown"}, "NOT_FOUND"),
        (
            "agent/sendTo",
            {"fromConversationId": "c", "toConversationId": "unknown", "input": "x"},
            "COMMUNICATION_FAILED",
        ),
        ("message/send", {"conversationId": "unknown", "input": "x"}, "COMMUNICATION_FAILED"),
        ("message/enqueue", {"conversationId": "unknown", "input": "x"}, "COMMUNICATION_FAILED"),
        ("message/send", {"conversationId": "c", "input": " \n\t "}, "INVALID_STATE"),
        ("message/queue", {"conversationId": "unknown"}, "NOT_FOUND"),
        ("message/update", {"messageId": "unknown", "input": "x"}, "NOT_FOUND"),
        ("message/remove", {"messageId": "unknown"}, "NOT_FOUND"),
        ("message/remove", {"messageId": "\x00' OR 1=1 --"}, "NOT_FOUND"),
        ("message/reorder", {"messageId": "unknown", "position": 0}, "NOT_FOUND"),
        ("message/reorder", {"messageId": "unknown", "position": 2**70}, None),
        ("message/retry", {"messageId": "unknown"}, "NOT_FOUND"),
        (
            "message/steer",
            {"conversationId": "c", "text": "x", "expectedTurnId": "t"},
            "CONFLICT",
        ),
        (
            "capability/register",
            {
                "conversationId": "unknown",
                "capability": {"name": "n", "description": "d", "version": "1"},
            },
            "NOT_FOUND",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_with_its_type(
    client: RawClient, method: str, params: object, type: str | None
) -> None:
    error = client.error(method, params)
    if type is None:
        assert error["code"] != -32603, error
    else:
        assert error["data"]["type"] == type
        assert error["code"] == error_codes()[type]
    client.ping()


# ---- prompts -------------------------------------------------------------------------------


def said(client: RawClient, conversation_id: str = "c") -> list[str]:
    """The texts of the newest prompt and of its answer."""
    page = client.call("conversation/get", {"conversationId": conversation_id, "limit": 2})["page"]
    return [
        "".join(part["text"] for part in message["parts"] if part["kind"] == "text")
        for message in page["messages"]
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"a\ud800b", "a\ufffdb"),
        (rb"a\udc00b", "a\ufffdb"),
        (rb"\ud800\ud800\udc00", "\ufffd\U00010000"),
        (rb"\udc00\ud800", "\ufffd\ufffd"),
        (rb"\uD83D\uDE42 \uDE42", "🙂 \ufffd"),
        (rb"\\ud800", r"\ud800"),
        (rb"\\ud800\udc00", "\\ud800\ufffd"),
        (rb"\\\ud800", "\\\ufffd"),
    ],
)
def test_half_a_character_becomes_a_replacement_character(
    client: RawClient, written: bytes, read: str
) -> None:
    params = b'{"conversationId":"c","input":"echo %b"}' % written
    [*_, answer] = answers_to_send(client, with_params(params, b"message/send"))
    assert answer["result"]["stopReason"] == "endTurn"
    assert said(client) == [f"echo {read}", read]


def answers_to_send(client: RawClient, body: bytes) -> list[Message]:
    before = len(client.frames)
    client.send_bytes(frame(body))
    client.wait_for(lambda m: m.get("id") == 1 and "method" not in m, after=before)
    return [m for m in client.frames[before:] if "method" not in m]


@pytest.mark.parametrize(
    "text",
    ["a\x00zero", "a\u2028line", "🙂" * 1000, "a\ufeffmark", "a\r\nb\rc", "\\", '"', "</x>"],
    ids=ascii,
)
def test_a_prompt_is_kept_as_it_is(client: RawClient, text: str) -> None:
    client.call("message/send", {"conversationId": "c", "input": f"echo {text}."})
    assert said(client) == [f"echo {text}.", f"{text}."]


@pytest.mark.parametrize("mib", [33, 50])
def test_a_prompt_over_32_mib_is_refused_within_memory(spawn: Spawn, mib: int) -> None:
    client = spawn()
    client.start(TALKS)
    client.call("conversation/create", {"conversationId": "c"})
    body = with_params(b'{"conversationId":"c","input":"%b"}' % (b"x" * mib * MIB), b"message/send")
    [code] = codes_of(client, frame(body))
    assert code == -32602
    assert client.call("conversation/get", {"conversationId": "c"})["page"]["messages"] == []
    if sys.platform == "linux":
        assert peak(client) < 300 * MIB


def peak(client: RawClient) -> int:
    status = Path(f"/proc/{client.process.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_a_prompt_of_8_mib_is_taken_and_kept(spawn: Spawn) -> None:
    client = spawn()
    client.start({"settings": {"provider": "scripted", "script": [{"text": "read"}]}})
    client.call("conversation/create", {"conversationId": "c"})
    text = "word " * (8 * MIB // 5)
    result = client.call("message/send", {"conversationId": "c", "input": text})
    assert result["stopReason"] == "endTurn"
    assert said(client) == [text, "read"]


# ---- ids, cancelling, progress -------------------------------------------------------------


def test_an_id_in_flight_is_not_taken_twice(client: RawClient) -> None:
    before = len(client.frames)
    client.start_request("message/send", {"conversationId": "c", "input": "hang"}, msg_id="twice")
    client.event("c", "turnStarted", after=before)
    before = len(client.frames)
    client.send(request("twice", "agent/count"))
    refusal = client.wait_for(lambda m: m.get("id") == "twice", after=before)
    assert refusal["error"]["code"] == -32600
    after = len(client.frames)
    client.cancel("twice")
    answer = client.wait_for(lambda m: m.get("id") == "twice", after=after)
    assert answer["result"]["stopReason"] == "cancelled"
    client._asked.pop("twice")  # answered twice because it was asked twice
    [answer] = answers_to(client, frames_of([request("twice", "agent/count")]))
    assert "result" in answer


@pytest.mark.parametrize(
    "params",
    [None, {}, [], "x", {"id": None}, {"id": True}, {"id": 1.5}, {"id": [1]}, {"id": "unknown"}],
    ids=str,
)
@pytest.mark.parametrize("method", ["$/cancelRequest", "window/workDoneProgress/cancel"])
def test_cancelling_nothing_is_nothing(client: RawClient, method: str, params: object) -> None:
    message: Message = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
        if isinstance(params, dict) and "id" in params:
            message["params"] = params | {"token": params["id"]}
    assert answers_to(client, frames_of([message])) == []


def test_cancelling_what_was_answered_is_nothing(client: RawClient) -> None:
    msg_id = client.start_request("agent/count")
    client.result(msg_id)
    client.cancel(msg_id)
    client.ping()


def test_cancelling_a_running_turn_is_answered_as_cancelled(client: RawClient) -> None:
    before = len(client.frames)
    msg_id = client.start_request("message/send", {"conversationId": "c", "input": "hang"})
    client.event("c", "turnStarted", after=before)
    client.cancel(msg_id)
    client.cancel(msg_id)
    assert client.result(msg_id)["stopReason"] == "cancelled"


def progress_of(client: RawClient, token: object) -> list[tuple[int, str]]:
    return [
        (at, message["params"]["value"]["kind"])
        for at, message in enumerate(client.frames)
        if message.get("method") == "$/progress" and message["params"]["token"] == token
    ]


@pytest.mark.parametrize("token", ["t-1", 4711])
def test_progress_begins_and_ends_before_the_answer(client: RawClient, token: int | str) -> None:
    msg_id = client.start_request(
        "message/send", {"conversationId": "c", "input": "echo hi", "workDoneToken": token}
    )
    client.result(msg_id)
    client.ping()
    (begin, first), (end, last) = progress_of(client, token)
    assert (first, last) == ("begin", "end")
    # LSP: a token is valid only as long as its request has not been answered.
    assert begin < end < client.position(lambda m: m.get("id") == msg_id)


def test_progress_ends_with_an_error_too(client: RawClient) -> None:
    client.error("conversation/get", {"conversationId": "unknown", "workDoneToken": "t-err"})
    client.ping()
    assert [kind for _, kind in progress_of(client, "t-err")] == ["begin", "end"]


def test_a_cancel_button_cancels_the_request_behind_it(client: RawClient) -> None:
    before = len(client.frames)
    msg_id = client.start_request(
        "message/send", {"conversationId": "c", "input": "hang", "workDoneToken": "t-cancel"}
    )
    client.event("c", "turnStarted", after=before)
    client.notify("window/workDoneProgress/cancel", {"token": "t-cancel"})
    assert client.result(msg_id)["stopReason"] == "cancelled"
    client.ping()
    assert [kind for _, kind in progress_of(client, "t-cancel")] == ["begin", "end"]


@pytest.mark.parametrize("token", [[], {}, True, 1.5], ids=str)
def test_a_token_that_is_none_is_refused(client: RawClient, token: object) -> None:
    [code] = codes_of(client, frames_of([request(1, "agent/count", {"workDoneToken": token})]))
    assert code == -32602


def test_the_word_for_a_token_may_stand_in_a_prompt(client: RawClient) -> None:
    text = '"workDoneToken": [1]'
    client.call("message/send", {"conversationId": "c", "input": f"echo {text}"})
    assert said(client)[1] == text


# ---- a provider without its key ------------------------------------------------------------


def test_without_a_key_the_prompt_is_kept_and_runs_when_there_is_a_provider(spawn: Spawn) -> None:
    client = spawn()
    client.start({"settings": {"provider": "gemini"}})
    client.call("conversation/create", {"conversationId": "c"})
    error = client.error("message/send", {"conversationId": "c", "input": "echo kept"})
    assert error["data"]["type"] == "INITIALIZATION_FAILED"
    assert "key" in error["message"]
    assert "GEMINI_API_KEY" in error["data"]["hint"]
    [entry] = client.call("message/queue", {"conversationId": "c"})["entries"]
    assert entry["state"] == "queued"
    assert client.call("sidecar/status")["provider"]["ready"] is False
    done = client.call("settings/update", {"settings": {"provider": "scripted"}})
    assert done["problems"] == []
    client.event("c", "turnEnded", messageId=entry["messageId"], stopReason="endTurn")
    assert said(client) == ["echo kept", "kept"]


def test_settings_without_their_key_are_refused_before_anything_is_changed(
    client: RawClient,
) -> None:
    done = client.call("settings/update", {"settings": {"provider": "anthropic"}})
    assert [problem["field"] for problem in done["problems"]] == ["anthropicApiKey"]
    assert done["problems"][0]["hint"]
    assert client.call("settings/get")["settings"]["provider"] == "scripted"
    client.call("message/send", {"conversationId": "c", "input": "echo still"})
    assert said(client)[1] == "still"


def test_a_key_that_was_given_is_never_shown(spawn: Spawn, store: Path) -> None:
    client = spawn()
    client.start(TALKS | {"secrets": {"geminiApiKey": SECRET}})
    client.call("conversation/create", {"conversationId": "c"})
    client.call("message/send", {"conversationId": "c", "input": "echo hi"})
    client.call("settings/update", {"secrets": {"openaiApiKey": SECRET + "2"}})
    client.error("settings/update", {"secrets": {"openaiApiKey": [SECRET]}})
    shown = client.call("settings/get")
    assert shown["secretsPresent"] == ["geminiApiKey", "openaiApiKey"]
    client.call("sidecar/status")
    exported = client.call("conversation/export", {"conversationId": "c"})
    client.shut_down()
    assert SECRET not in str(client.frames) + str(exported)
    assert SECRET.encode() not in client.stderr
    for file in store.parent.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
