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
    command,
    error_codes,
    frame,
    frames_of,
    request,
)
from tests.malformed import MALFORMED, MIB, TABLE, with_params

Spawn = Callable[..., RawClient]

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


# ---- frames and messages --------------------------------------------------------------------


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(MALFORMED) >= 60


@pytest.mark.parametrize("name", TABLE)
def test_whatever_arrives_is_answered_once_and_passed_over(client: RawClient, name: str) -> None:
    assert codes_of(client, TABLE[name].data) == list(TABLE[name].codes)


def test_before_initialize_whatever_arrives_is_answered_once_too(spawn: Spawn) -> None:
    client = spawn()
    # The first byte tells the protocol, so something harmless goes before what begins with `{`.
    client.send_bytes(b"\r\n\r\n")
    client.notify("$/harmless")
    for name, row in TABLE.items():
        assert codes_of(client, row.data) == row.before, name
    client.start()


def test_bad_frames_are_reported_in_pieces_as_in_one(client: RawClient) -> None:
    row = TABLE["frame: length is a word"]
    before = len(client.frames)
    for byte in row.data:
        client.send_bytes(bytes([byte]))
    assert codes_of(client, b"") == []
    assert [m["error"]["code"] for m in client.frames[before:] if "error" in m] == row.codes


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


# ---- ids -----------------------------------------------------------------------------------


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
