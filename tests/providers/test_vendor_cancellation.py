"""Leaving a stream ends the vendor's connection, wherever it is left."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import anyio
import pytest

from sidecar.interfaces import TextDelta
from tests.providers.dialects import Dialect, Stop, Text, said
from tests.providers.vendor_server import STALL, Answer, Gate, VendorServer
from tests.providers.vendors import asking, events_of, needs_llm_extra, provided, text_of
from tests.requirements import proves

needs_llm_extra()
pytestmark = pytest.mark.anyio


async def gone(server: VendorServer) -> None:
    with anyio.fail_after(5):
        await server.requests[-1].gone.wait()


@proves("P7")
async def test_cancelling_while_the_vendor_is_silent_ends_the_connection(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Half a "), STALL))
    async with provided(dialect.name, server.url) as provider:
        begun = anyio.Event()

        async def read() -> None:
            async for _ in provider.stream(asking()):
                begun.set()

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await begun.wait()
                tasks.cancel_scope.cancel()
        await gone(server)


@proves("P7")
async def test_cancelling_before_the_answer_ends_the_connection(
    dialect: Dialect, server: VendorServer
) -> None:
    asked = Gate()
    server.will(Answer(before=asked))
    async with provided(dialect.name, server.url) as provider:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(events_of, provider, asking())
                await asked.reached.wait()
                tasks.cancel_scope.cancel()
        await gone(server)


async def test_closing_the_generator_ends_the_connection(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Half a "), STALL))
    async with provided(dialect.name, server.url) as provider:
        stream: Any = provider.stream(asking())
        async with aclosing(stream):
            assert await anext(stream) == TextDelta("Half a ")
        await gone(server)


async def test_an_abandoned_stream_leaves_the_provider_usable(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Half a "), STALL), said(dialect, Text("Here again."), Stop()))
    async with provided(dialect.name, server.url) as provider:
        stream: Any = provider.stream(asking())
        async with aclosing(stream):
            await anext(stream)
        await gone(server)
        assert text_of(await events_of(provider, asking())) == "Here again."


async def test_two_streams_at_once_do_not_end_each_other(
    dialect: Dialect, server: VendorServer
) -> None:
    gate = Gate()
    server.will(
        said(dialect, Text("First"), gate, Text("."), Stop()),
        said(dialect, Text("Second"), STALL),
    )
    async with provided(dialect.name, server.url) as provider:
        first: Any = provider.stream(asking())
        second: Any = provider.stream(asking())
        async with aclosing(first):
            assert await anext(first) == TextDelta("First")
            async with aclosing(second):
                assert await anext(second) == TextDelta("Second")
            await gone(server)
            gate.open()
            assert text_of([event async for event in first]) == "."
        assert not server.requests[0].gone.is_set()


async def test_a_cancelled_first_request_does_not_wait_for_the_libraries(
    dialect: Dialect, server: VendorServer
) -> None:
    async with provided(dialect.name, server.url) as provider:
        with anyio.move_on_after(0) as scope:
            await events_of(provider, asking())
        assert scope.cancelled_caught
    assert server.connections == 0
