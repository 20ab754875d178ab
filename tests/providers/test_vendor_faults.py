"""The provider over each vendor's wire, when something goes wrong.

Every fault has to end as the interface says: the right error, asked once and not again, with
nothing of the key, the prompt or the vendor's answer in it.
"""

from __future__ import annotations

import gzip
import socket
from contextlib import suppress
from typing import Any

import anyio
import pytest

from sidecar.errors import AgentError, MessageProcessingFailed, NetworkError, Unauthorized
from sidecar.interfaces import ModelStop
from tests.faults.chaos_table import event_of_no_kind, streaming
from tests.providers.dialects import (
    DIALECTS,
    Bedrock,
    Call,
    Dialect,
    Stop,
    Text,
    Thinking,
    said,
)
from tests.providers.vendor_server import (
    CUT,
    RESET,
    STALL,
    Answer,
    Endless,
    Fault,
    Step,
    VendorServer,
)
from tests.providers.vendors import (
    CANARY,
    PROMPT,
    READ_FILE,
    asking,
    everything_about,
    failure_of,
    needs_llm_extra,
    provided,
    text_of,
)
from tests.requirements import proves

needs_llm_extra()

from sidecar.providers import pydantic_ai, vendor_bedrock, vendor_http  # noqa: E402  # with the extra

pytestmark = pytest.mark.anyio

SILENCE = 300
"""Milliseconds, as `requestTimeout`: the only waiting in these tests."""


async def fails(
    dialect: Dialect, url: str, kind: type[AgentError], *, retryable: bool, **settings: Any
) -> tuple[AgentError, str]:
    """The error of a request, checked for its kind and for what it must not show, and the text
    that came before it."""
    async with provided(dialect.name, url, **settings) as provider:
        error, events = await failure_of(provider, asking(tools=(READ_FILE,)))
    assert type(error) is kind
    assert error.retryable is retryable
    shown = everything_about(error)
    for secret in (CANARY, PROMPT, "CANARY", url, "Be brief"):
        assert secret not in shown
    return error, text_of(events)


def refusal(status: int, **headers: str) -> Answer:
    """An error that quotes the key and the prompt, as vendors do, in a shape all clients read."""
    text = f"The key {CANARY} may not ask '{PROMPT}'"
    body = {"message": text, "error": {"message": text, "code": status, "status": "X"}}
    return Answer.json(status, body, **headers)


# ---- refused -----------------------------------------------------------------------------


@proves("P10")
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_unauthorized(
    dialect: Dialect, server: VendorServer, status: int
) -> None:
    server.will(refusal(status))
    error, _ = await fails(dialect, server.url, Unauthorized, retryable=False)
    assert str(status) in error.message
    assert error.hint
    assert len(server.requests) == 1


async def test_geminis_answer_to_a_wrong_key_is_unauthorized(server: VendorServer) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    error = {"code": 400, "message": "?", "status": "INVALID_ARGUMENT", "details": [detail]}
    server.will(Answer.json(400, {"error": error}))
    await fails(DIALECTS["gemini"], server.url, Unauthorized, retryable=False)


async def test_an_unknown_model_is_told_with_a_hint(dialect: Dialect, server: VendorServer) -> None:
    server.will(refusal(404))
    error, _ = await fails(dialect, server.url, MessageProcessingFailed, retryable=False)
    assert "model" in str(error.hint)


@pytest.mark.parametrize("status", [400, 402, 409, 413, 422])
async def test_another_refusal_is_for_good(
    dialect: Dialect, server: VendorServer, status: int
) -> None:
    server.will(refusal(status))
    await fails(dialect, server.url, MessageProcessingFailed, retryable=False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
async def test_a_temporary_refusal_can_be_retried_and_is_not_by_us(
    dialect: Dialect, server: VendorServer, status: int
) -> None:
    server.will(refusal(status))
    error, _ = await fails(dialect, server.url, NetworkError, retryable=True)
    assert error.retry_after is None
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_how_long_to_wait_is_passed_on(
    dialect: Dialect, server: VendorServer, status: int
) -> None:
    server.will(refusal(status, retry_after="7"))
    error, _ = await fails(dialect, server.url, NetworkError, retryable=True)
    assert error.retry_after == 7


async def test_a_used_up_account_is_not_asked_again(server: VendorServer) -> None:
    error = {"message": "?", "code": "insufficient_quota", "type": "insufficient_quota"}
    server.will(Answer.json(429, {"error": error}))
    failed, _ = await fails(DIALECTS["openai"], server.url, NetworkError, retryable=False)
    assert "credit" in str(failed.hint)


async def test_a_conversation_that_is_too_long_is_told_with_a_hint(server: VendorServer) -> None:
    error = {"message": "?", "code": "context_length_exceeded"}
    server.will(Answer.json(400, {"error": error}))
    dialect = DIALECTS["openai"]
    failed, _ = await fails(dialect, server.url, MessageProcessingFailed, retryable=False)
    assert "longer than the model can read" in str(failed.hint)


async def test_an_error_that_is_not_json_is_as_good_as_its_status(
    dialect: Dialect, server: VendorServer
) -> None:
    page = b"<html><h1>502 Bad Gateway</h1>" + CANARY.encode() + b"</html>"
    server.will(Answer([page], 502, {"content-type": "text/html"}))
    await fails(dialect, server.url, NetworkError, retryable=True)


async def test_an_endless_error_page_is_not_read_to_its_end(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(Answer([Endless(b"x" * 65536)], 500, {"content-type": "text/html"}))
    with anyio.fail_after(20):
        await fails(dialect, server.url, NetworkError, retryable=True)


# ---- out of reach ------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_a_network_error(dialect: Dialect) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        error, _ = await fails(dialect, url, NetworkError, retryable=True)
    assert "reached" in error.message


async def test_a_server_without_tls_is_a_network_error(
    dialect: Dialect, server: VendorServer
) -> None:
    url = server.url.replace("http:", "https:")
    await fails(dialect, url, NetworkError, retryable=True, request_timeout=SILENCE)
    assert server.requests == []


@pytest.mark.parametrize("fault", [CUT, RESET, STALL], ids=repr)
async def test_no_answer_at_all_is_a_network_error(
    dialect: Dialect, server: VendorServer, fault: Fault
) -> None:
    server.will(Answer(before=fault))
    await fails(dialect, server.url, NetworkError, retryable=True, request_timeout=SILENCE)
    assert len(server.requests) == 1


@proves("P10")
async def test_a_redirect_is_not_followed_and_the_key_stays_here(
    dialect: Dialect, server: VendorServer
) -> None:
    async with VendorServer() as elsewhere:
        for status in (301, 302, 307, 308):
            server.will(Answer(status=status, headers={"location": f"{elsewhere.url}/v1"}))
            error, _ = await fails(dialect, server.url, MessageProcessingFailed, retryable=False)
            assert "redirect" in error.message
        assert elsewhere.connections == 0


# ---- damaged answers ---------------------------------------------------------------------


@pytest.mark.parametrize("fault", [CUT, RESET, STALL], ids=repr)
async def test_a_broken_off_stream_is_a_network_error_after_its_text(
    dialect: Dialect, server: VendorServer, fault: Fault
) -> None:
    server.will(said(dialect, Text("Half a "), fault))
    _, text = await fails(
        dialect, server.url, NetworkError, retryable=True, request_timeout=SILENCE
    )
    # A reset may overtake what was sent before it.
    assert text == "Half a " or fault is RESET
    with anyio.fail_after(5):
        await server.requests[0].gone.wait()


async def test_a_stream_that_ends_without_its_terminator_is_a_network_error(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Half a ")))
    _, text = await fails(dialect, server.url, NetworkError, retryable=True)
    assert text == "Half a "


async def test_an_empty_stream_is_a_network_error(dialect: Dialect, server: VendorServer) -> None:
    server.will(Answer([], headers={"content-type": dialect.content_type}))
    await fails(dialect, server.url, NetworkError, retryable=True)


async def test_a_page_instead_of_a_stream_is_a_network_error(
    dialect: Dialect, server: VendorServer
) -> None:
    page = f"<html>Log in to the network, {CANARY}\n\n</html>".encode()
    server.will(Answer([page], headers={"content-type": "text/html"}))
    await fails(dialect, server.url, NetworkError, retryable=True)


def damaged(dialect: Dialect, payload: bytes) -> bytes:
    """An event of the right form whose content is `payload`."""
    if isinstance(dialect, Bedrock):
        headers = {
            ":event-type": "contentBlockDelta",
            ":content-type": "application/json",
            ":message-type": "event",
        }
        return dialect.frame(headers, payload)
    event = b"event: content_block_delta\n" if dialect.name == "anthropic" else b""
    return event + b"data: " + payload + b"\n\n"


NOT_JSON = b'{"candidates": [{"content'
WRONG_SHAPE = b'{"choices": 7, "candidates": 7, "type": "content_block_delta", "delta": []}'
LATIN_1 = b'{"choices": [{"delta": {"content": "caf\xe9"}}], "type": "ping", "candidates": []}'


@pytest.mark.parametrize("payload", [NOT_JSON, LATIN_1], ids=["json", "utf8"])
async def test_an_event_that_cannot_be_read_is_a_network_error(
    dialect: Dialect, server: VendorServer, payload: bytes
) -> None:
    script: list[Step] = [*said(dialect, Text("So far.")).steps, damaged(dialect, payload)]
    script += list(dialect.encode(Stop(), 0))
    server.will(Answer(script, headers={"content-type": dialect.content_type}))
    await fails(dialect, server.url, NetworkError, retryable=True)


async def test_an_event_of_an_unknown_shape_is_ignored_or_a_network_error(
    dialect: Dialect, server: VendorServer
) -> None:
    script = [damaged(dialect, WRONG_SHAPE), *dialect.encode(Stop(), 0)]
    server.will(Answer(script, headers={"content-type": dialect.content_type}))
    async with provided(dialect.name, server.url) as provider:
        with suppress(NetworkError):
            events = [event async for event in provider.stream(asking())]
            assert events[-1] == ModelStop("endTurn")


async def test_a_frame_with_a_wrong_sum_is_a_network_error(server: VendorServer) -> None:
    frame = bytearray(Bedrock.event("messageStart", {"role": "assistant"}))
    frame[-1] ^= 1
    server.will(Answer([bytes(frame)], headers={"content-type": Bedrock.content_type}))
    await fails(DIALECTS["bedrock"], server.url, NetworkError, retryable=True)


async def test_a_line_without_an_end_is_a_network_error(server: VendorServer) -> None:
    for dialect in (DIALECTS["openai"], DIALECTS["gemini"], DIALECTS["anthropic"]):
        line = [b'data: {"', *[b"x" * 2**20] * 64]
        server.will(Answer(line, headers={"content-type": dialect.content_type}))
        error, _ = await fails(dialect, server.url, NetworkError, retryable=True)
        assert "line" in error.message


@pytest.mark.parametrize(
    "say", [Text("on and on "), Thinking("on and on ")], ids=["text", "thinking"]
)
async def test_an_answer_without_an_end_is_ended(
    dialect: Dialect, server: VendorServer, monkeypatch: pytest.MonkeyPatch, say: Text | Thinking
) -> None:
    monkeypatch.setattr(pydantic_ai, "LONGEST_ANSWER", 50_000)
    begun = said(dialect, say)
    server.will(Answer([*begun.steps, Endless(begun.steps[-1])], headers=begun.headers))
    with anyio.fail_after(20):
        error, _ = await fails(dialect, server.url, MessageProcessingFailed, retryable=False)
    assert "maxOutputTokens" in str(error.hint)


async def test_events_that_say_nothing_are_not_read_for_ever(
    dialect: Dialect, server: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (vendor_http, vendor_bedrock):
        monkeypatch.setattr(module, "LONGEST_ANSWER", 2**20)
    server.will(streaming(dialect, Endless(event_of_no_kind(dialect) * 100)))
    with anyio.fail_after(20):
        error, _ = await fails(dialect, server.url, NetworkError, retryable=True)
    assert error.message == "The answer does not end."


async def test_a_packed_answer_is_not_unpacked(server: VendorServer) -> None:
    for dialect in (DIALECTS["openai"], DIALECTS["gemini"], DIALECTS["anthropic"]):
        bomb = gzip.compress(b"\n" * 2**26)
        headers = {"content-type": dialect.content_type, "content-encoding": "gzip"}
        server.will(Answer([bomb], headers=headers))
        await fails(dialect, server.url, NetworkError, retryable=True)


@pytest.mark.parametrize("arguments", ['{"path": ', "[1]", '"text"', "[" * 5000])
async def test_arguments_that_are_no_object_are_a_network_error(
    server: VendorServer, arguments: str
) -> None:
    for name in ("openai", "anthropic", "bedrock"):
        dialect = DIALECTS[name]
        server.will(said(dialect, Call("c1", "read_file", arguments), Stop("tools")))
        error, _ = await fails(dialect, server.url, NetworkError, retryable=True)
        assert "arguments" in error.message


# ---- errors inside a stream --------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "event"),
    [
        ("openai", b'data: {"error": {"message": "%b", "code": "server_error"}}\n\n'),
        (
            "anthropic",
            b'event: error\ndata: {"type": "error", "error": '
            b'{"type": "overloaded_error", "message": "%b"}}\n\n',
        ),
        ("gemini", b'data: {"error": {"code": 503, "message": "%b", "status": "UNAVAILABLE"}}\n\n'),
    ],
)
async def test_a_failure_told_in_the_stream_is_a_network_error(
    server: VendorServer, vendor: str, event: bytes
) -> None:
    dialect = DIALECTS[vendor]
    server.will(said(dialect, Text("So far."), event % CANARY.encode()))
    _, text = await fails(dialect, server.url, NetworkError, retryable=True)
    assert text == "So far."


@pytest.mark.parametrize(
    ("name", "kind", "retryable"),
    [
        ("throttlingException", NetworkError, True),
        ("serviceUnavailableException", NetworkError, True),
        ("internalServerException", NetworkError, True),
        ("modelStreamErrorException", NetworkError, True),
        ("validationException", MessageProcessingFailed, False),
    ],
)
async def test_bedrocks_exceptions_in_the_stream_have_their_own_kind(
    server: VendorServer, name: str, kind: type[AgentError], retryable: bool
) -> None:
    dialect = DIALECTS["bedrock"]
    server.will(said(dialect, Text("So far."), Bedrock.exception(name, f"not {CANARY}")))
    await fails(dialect, server.url, kind, retryable=retryable)


async def test_the_provider_works_again_after_a_failure(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(
        said(dialect, Text("Half a "), CUT),
        refusal(500),
        said(dialect, Text("Here again."), Stop()),
    )
    async with provided(dialect.name, server.url) as provider:
        for _ in range(2):
            await failure_of(provider, asking())
        events = [event async for event in provider.stream(asking())]
    assert text_of(events) == "Here again."
