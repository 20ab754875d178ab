"""A vendor's stream, cut at every byte.

The reference stream holds what a stream can hold: thinking, text with characters of two to four
bytes, a tool call, usage. It is cut after each of its bytes in three ways: the connection is
closed, the answer ends as if it were whole, or the rest follows as a chunk of its own. Each cut
is a turn of a manager, over real HTTP and through the vendor's own library.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import anyio

from sidecar.conversations import StopReason, ToolCallPart
from sidecar.errors import AgentError, NetworkError
from sidecar.events import TurnEnded
from sidecar.providers.pydantic_ai import make
from sidecar.settings import RetrySettings
from tests.fakes import FakeTool
from tests.managers import World, living
from tests.providers.dialects import DIALECTS, Call, Dialect, Stop, Text, Thinking, said
from tests.providers.vendor_server import CUT, Answer, VendorServer
from tests.providers.vendors import config

TURNS = 25
"""Cuts in one conversation: its history is sent with each of them."""
BEGINNING, END = "Hällo, wörld 😀 日本. ", "Dòne."
ARGUMENTS = {"at": "hère 😀", "deep": [1, {"b": None}]}
REFERENCE = (
    Thinking("Lét me "),
    Thinking("see 🙂."),
    Text(BEGINNING[:9]),
    Text(BEGINNING[9:]),
    Call("call_{}", "look", '{"at": "hère 😀", "deep": [1, {"b": null}]}'),
    Stop("tools"),
)
WAYS = ("closed", "ended", "split")


@dataclass(frozen=True)
class Cut:
    place: int
    way: str


def reference(dialect: Dialect, number: int) -> bytes:
    """The stream as bytes; the id of its call is a new one each time."""
    script = [
        Call(say.id.format(number), say.name, say.arguments) if isinstance(say, Call) else say
        for say in REFERENCE
    ]
    return b"".join(step for step in said(dialect, *script).steps if isinstance(step, bytes))


def cuts(length: int, count: int | None) -> Iterator[Cut]:
    """All of them, or `count` that are spread evenly."""
    every = [Cut(place, way) for place in range(length) for way in WAYS]
    step = max(1, len(every) // count) if count else 1
    # A step that shares no factor with the ways, or one way alone would be tried.
    step += step > 1 and step % len(WAYS) == 0
    return islice(every, 0, None, step)


def answer(dialect: Dialect, whole: bytes, cut: Cut) -> Answer:
    head, rest = whole[: cut.place], whole[cut.place :]
    ends: dict[str, list[Any]] = {"closed": [head, CUT], "ended": [head], "split": [head, rest]}
    return Answer(ends[cut.way], headers={"content-type": dialect.content_type})


async def cut_all(dialect: Dialect, count: int | None) -> int:
    """Make the cuts; returns how many there were. Raises `AssertionError`."""
    places = list(cuts(len(reference(dialect, 1000)), count))
    for start in range(0, len(places), TURNS):
        tool = FakeTool("look")
        async with VendorServer() as server:
            chosen = config(dialect.name, server.url, retry=RetrySettings(max_attempts=1))
            async with living(config=chosen, models=make, tools=(tool,)) as world:
                await world.create("a")
                for number, cut in enumerate(places[start : start + TURNS], start + 1000):
                    try:
                        await cut_once(dialect, cut, number, server, world, tool)
                    except AssertionError as problem:
                        problem.add_note(f"{dialect.name}, {cut}")
                        raise
    return len(places)


async def cut_once(
    dialect: Dialect, cut: Cut, number: int, server: VendorServer, world: World, tool: FakeTool
) -> None:
    whole = reference(dialect, number)
    server.answers.clear()
    server.will(answer(dialect, whole, cut), said(dialect, Text(END), Stop()))
    tool.calls.clear()
    world.events.clear()
    error = None
    with anyio.fail_after(20):
        try:
            result = await world.send("Look")
            assert result.stop_reason is StopReason.END_TURN
        except AgentError as failed:
            error = failed
    (reply,) = (await world.messages())[-1:]
    ends = [event for event in world.events if isinstance(event, TurnEnded)]
    assert len(ends) == 1, f"{len(ends)} ends"
    if error is None:
        assert reply.text == BEGINNING + END, f"said to be whole: {reply.text!r}"
        assert tool.calls == [ARGUMENTS], f"ran {tool.calls}"
        assert reply.status == "complete"
        return
    assert isinstance(error, NetworkError), repr(error)
    assert cut.way != "split", f"nothing was missing: {error!r}"
    assert BEGINNING.startswith(reply.text), f"kept {reply.text!r}"
    assert tool.calls == [], f"ran {tool.calls}"
    assert not any(isinstance(part, ToolCallPart) for part in reply.parts)
    assert reply.status == "error", f"marked as {reply.status}"


async def experiment(count: int | None) -> str:
    made = {name: await cut_all(dialect, count) for name, dialect in DIALECTS.items()}
    figures = ", ".join(f"{name} {number:,}" for name, number in made.items())
    return (
        f"cuts: {figures}; 0 crashes, every text a beginning, 0 halves of a character, "
        "0 incomplete calls run"
    )


def main(count: int = 0) -> str:
    """`count` cuts of each dialect; every byte in each of the three ways with 0."""
    return anyio.run(experiment, count or None)


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))  # noqa: T201
