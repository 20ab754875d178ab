"""Streams and the closing of holes, without a process."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import msgspec
import pytest

from sidecar.client.errors import ProtocolError, WireError, error_from
from sidecar.client.link import params_of, request_of
from sidecar.client.live import MAX_BEHIND, EventStream
from sidecar.client.view import UnknownEvent
from sidecar.errors import NetworkError, NotFound, Unauthorized
from sidecar.events import ModeChanged, TurnStarted
from sidecar.wire import methods as wire

pytestmark = pytest.mark.anyio


def stream() -> EventStream:
    return EventStream("c-1", forgotten.append)


forgotten: list[EventStream] = []


def event(seq: int) -> TurnStarted:
    return TurnStarted(conversation_id="c-1", seq=seq, message_id="m", turn_id="t")


async def test_a_stream_ends_when_it_is_closed_and_everything_was_taken() -> None:
    events = stream()
    events.offer(event(1))
    events.close()
    assert [item async for item in events] == [event(1)]


async def test_a_reader_that_lags_too_far_behind_is_told_to_subscribe_again() -> None:
    events = stream()
    for seq in range(1, MAX_BEHIND + 2):
        events.offer(event(seq))
    assert await events.take() == [wire.Resync(conversation_id="c-1", seq=MAX_BEHIND)]


async def test_a_stream_raises_what_ended_the_connection_behind_what_came() -> None:
    events = stream()
    events.offer(event(1))
    events.fail(NetworkError("gone"))
    assert await events.take() == [event(1)]
    with pytest.raises(NetworkError):
        await events.take()
    events.resume()
    events.offer(event(2))
    assert await events.take() == [event(2)]


async def test_a_waiting_reader_wakes_up() -> None:
    events = stream()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.take)
            await anyio.lowlevel.checkpoint()
            events.offer(event(1))


@pytest.mark.parametrize(
    ("wire_error", "check"),
    [
        (
            WireError(
                wire.ERROR_CODES[Unauthorized],
                "no",
                msgspec.Raw(b'{"type":"UNAUTHORIZED","retryable":false,"hint":"h"}'),
            ),
            lambda e: type(e) is Unauthorized and e.hint == "h",
        ),
        (
            WireError(-32099, "x", msgspec.Raw(b'{"type":"NOT_FOUND","retryable":true}')),
            lambda e: type(e) is NotFound and e.retryable,
        ),
        (WireError(wire.ERROR_CODES[NotFound], "x"), lambda e: type(e) is NotFound),
        (WireError(-32601, "x"), lambda e: type(e) is ProtocolError and e.code == -32601),
        (WireError(-32601, "x", msgspec.Raw(b'"odd"')), lambda e: e.code == -32601),
    ],
)
async def test_an_error_comes_back_as_its_class(
    wire_error: WireError, check: Callable[[object], bool]
) -> None:
    assert check(error_from(wire_error))


async def test_what_a_newer_sidecar_says_comes_as_plain_values() -> None:
    assert params_of("moon/risen", msgspec.Raw(b'{"full":true}')) == {"full": True}
    raw = msgspec.Raw(b'{"type":"moonRisen","conversationId":"c-1","seq":7}')
    unknown = params_of("conversation/event", raw)
    assert unknown == UnknownEvent(conversation_id="c-1", seq=7, type="moonRisen")
    known = msgspec.Raw(b'{"type":"modeChanged","conversationId":"c","seq":1,"mode":"build"}')
    assert isinstance(params_of("conversation/event", known), ModeChanged)


async def test_a_request_key_is_made_where_one_is_taken_and_none_is_given() -> None:
    made, _ = request_of("message/send", None, {"conversation_id": "c", "input": "hi"})
    assert made.request_key
    given, _ = request_of("message/send", made, {"request_key": "mine"})
    assert given.request_key == "mine"
    without, result = request_of("agent/count", None, {})
    assert without == wire.Nothing()
    assert result is wire.Count


async def test_a_field_that_a_method_does_not_have_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        request_of("message/send", None, {"conversationId": "c"})
    with pytest.raises(KeyError):
        request_of("message/sing", None, {})
