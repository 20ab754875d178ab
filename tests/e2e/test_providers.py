"""Language models through the real process: from the client's call to the vendor's socket and back.

The vendors are servers of our own on 127.0.0.1 that speak their wires. Every key that the sidecar
is given holds the word `CANARY`, and nothing that it writes anywhere may.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from sidecar.client import Call as Request
from sidecar.client import LiveConversation, Sidecar
from sidecar.conversations import Message, Receipt, StopReason, TurnResult
from sidecar.errors import NetworkError, Unauthorized
from sidecar.events import TurnEnded
from sidecar.wire.methods import UpdatedSettings
from tests.e2e.raw_client import RawClient
from tests.providers.dialects import DIALECTS, Call, Stop, Text, said
from tests.providers.vendor_server import CUT, STALL, Answer, Gate, Received, VendorServer
from tests.providers.vendors import needs_llm_extra
from tests.requirements import proves

needs_llm_extra()
pytestmark = pytest.mark.anyio

DEADLINE = 45.0
"""Seconds a test may take, libraries imported by a busy machine included."""
CANARY = "CANARY"
OPENAI = DIALECTS["openai"]
FACT = "zebra-42"
"""What is in a file of the workspace and in no prompt."""


def key(vendor: str, which: str = "a") -> str:
    return f"sk-{CANARY}-{vendor}-{which}"


def secrets(vendor: str, which: str = "a") -> dict[str, str]:
    if vendor == "bedrock":
        return {"awsAccessKey": f"AKIA{CANARY}", "awsSecretKey": key(vendor, which)}
    return {f"{vendor}ApiKey": key(vendor, which)}


def settings(vendor: str, url: str, **more: object) -> dict[str, Any]:
    base = f"{url}/v1" if vendor == "openai" else url
    return {"provider": vendor, f"{vendor}BaseUrl": base, **more}


def retrying(base_delay: int, max_attempts: int = 3) -> dict[str, Any]:
    return {"retry": {"baseDelay": base_delay, "maxAttempts": max_attempts}}


def refusal(status: int, **headers: str) -> Answer:
    """An error that quotes part of the key, as vendors do."""
    message = f"Incorrect API key provided: sk-{CANARY}****"
    return Answer.json(status, {"error": {"message": message, "code": status}}, **headers)


def heard(received: Received) -> list[tuple[str, str]]:
    """What a vendor was told: who said what, oldest first."""
    body = received.json
    return [
        ("user" if turn["role"] == "user" else "assistant", spoken(turn))
        for turn in body.get("messages") or body["contents"]
        if turn["role"] != "system"
    ]


def spoken(turn: Mapping[str, Any]) -> str:
    content = turn.get("content") or turn.get("parts") or ""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def remade(done: UpdatedSettings) -> int:
    """How many agents are made anew; one whose turn has just ended may still count as busy."""
    return done.reinitialized + done.deferred


class Log:
    """What a sidecar wrote to stderr. Whole only when the sidecar has ended."""

    def __init__(self) -> None:
        self.bytes = b""
        self._news = anyio.Event()

    def write(self, chunk: bytes) -> None:
        self.bytes += chunk
        self._news.set()

    async def until(self, message: str) -> None:
        while f'"message": "{message}"'.encode() not in self.bytes:
            self._news = anyio.Event()
            await self._news.wait()

    def entries(self, message: str) -> list[dict[str, Any]]:
        # All of it is JSON: what a library writes past our log is not, and nobody redacts it.
        lines = [json.loads(line) for line in self.bytes.splitlines()]
        return [line for line in lines if line["message"] == message]


class Talk:
    """A sidecar and the one conversation that is held in it."""

    def __init__(self, sidecar: Sidecar, live: LiveConversation) -> None:
        self.sidecar = sidecar
        self._live = live

    def start(self, text: str) -> Request:
        return self.sidecar.request("message/send", conversation_id="talk", input=text)

    async def say(self, text: str) -> TurnResult:
        result: TurnResult = await self.start(text).result()
        return result

    async def choose(
        self, chosen: dict[str, Any], keys: dict[str, str] | None = None, *, force: bool = False
    ) -> UpdatedSettings:
        update = partial(self.sidecar.call, "settings/update", settings=chosen, force=force)
        done: UpdatedSettings = await (update() if keys is None else update(secrets=keys))
        assert done.problems == ()
        return done

    async def retry_last(self) -> TurnEnded:
        """Try the newest prompt again; returns how that ended."""
        prompt = [m for m in await self.messages() if m.role == "user"][-1]
        with self.sidecar.events("talk") as events:
            receipt: Receipt = await self.sidecar.call(
                "message/retry", message_id=prompt.message_id
            )
            async for event in events:
                if isinstance(event, TurnEnded) and event.message_id == receipt.message_id:
                    return event
        raise AssertionError("the turn did not end")

    async def until_shown(self, text: str) -> None:
        """Wait until the newest message is this text so far."""
        while not (self._live.view.messages and self._live.view.messages[-1].text == text):
            await self._live.changes()

    async def messages(self) -> tuple[Message, ...]:
        stored = await self.sidecar.call("conversation/get", conversation_id="talk", limit=500)
        messages: tuple[Message, ...] = stored.page.messages
        return messages

    async def transcript(self) -> list[tuple[str, str, str]]:
        return [(m.role, m.status, m.text) for m in await self.messages()]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def talk(tmp_path: Path, log: Log) -> Iterator[Callable[..., Any]]:
    """`async with talk(vendor, url) as it`: a sidecar with that vendor's key `a`."""
    store = tmp_path / "store" / "talk.db"

    @asynccontextmanager
    async def start(vendor: str, url: str, **more: object) -> AsyncIterator[Talk]:
        with anyio.fail_after(DEADLINE):
            async with (
                Sidecar.spawn(
                    store=store,
                    workspace=[workspace(tmp_path / "workspace")],
                    settings=settings(vendor, url, **more),
                    secrets=secrets(vendor),
                    env={**os.environ, "OPENAI_API_KEY": key("openai")},
                    log=log.write,
                ) as sidecar,
            ):
                await sidecar.call("conversation/create", conversation_id="talk")
                async with sidecar.follow("talk") as live:
                    yield Talk(sidecar, live)

    yield start
    assert log.entries("turn ended")
    assert CANARY.encode() not in log.bytes
    assert CANARY.encode() not in bytes_below(store.parent)


def workspace(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.md").write_text(f"# Zoo\n\nThe animal's name is {FACT}.\n", encoding="utf-8")
    return folder


def bytes_below(folder: Path) -> bytes:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return b"".join(path.read_bytes() for path in files)


# ---- one conversation, all vendors ---------------------------------------------------------


@proves("P7")
async def test_one_conversation_goes_through_all_vendors(talk: Callable[..., Any]) -> None:
    told: list[tuple[str, str]] = []
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(VendorServer()) for name in DIALECTS}
        it = await stack.enter_async_context(talk("openai", servers["openai"].url))
        for vendor, server in servers.items():
            if vendor != "openai":
                done = await it.choose(settings(vendor, server.url), secrets(vendor))
                assert remade(done) == 1
            await a_cancelled_stream(it, vendor, server, told)
            await a_whole_stream(it, vendor, server, told)
        transcript = await it.transcript()
    assert [(role, text) for role, _, text in transcript] == told
    statuses = ["complete", "cancelled", "complete", "complete"] * 4
    assert [status for _, status, _ in transcript] == statuses
    assert [len(server.requests) for server in servers.values()] == [2] * 4
    for vendor, server in servers.items():
        others = [s for s in servers.values() if s is not server]
        identity = f"AKIA{CANARY}" if vendor == "bedrock" else key(vendor)
        assert all(identity in received.raw for received in server.requests)
        assert not any(identity in r.raw for other in others for r in other.requests)
        assert not any(key("bedrock") in received.raw for received in server.requests)


async def a_cancelled_stream(
    it: Talk, vendor: str, server: VendorServer, told: list[tuple[str, str]]
) -> None:
    server.will(said(DIALECTS[vendor], Text(f"Half of {vendor}"), STALL))
    told.append(("user", f"{vendor}, begin"))
    sent = it.start(told[-1][1])
    await it.until_shown(f"Half of {vendor}")
    assert heard(server.requests[-1]) == told
    assert (await it.sidecar.call("agent/cancel", conversation_id="talk")).cancelled
    assert (await sent.result()).stop_reason is StopReason.CANCELLED
    await server.requests[-1].gone.wait()
    told.append(("assistant", f"Half of {vendor}"))


async def a_whole_stream(
    it: Talk, vendor: str, server: VendorServer, told: list[tuple[str, str]]
) -> None:
    gate = Gate()
    server.will(said(DIALECTS[vendor], Text("I am "), gate, Text(f"{vendor} ✓"), Stop()))
    told.append(("user", f"{vendor}, who are you?"))
    sent = it.start(told[-1][1])
    await it.until_shown("I am ")
    assert heard(server.requests[-1]) == told
    gate.open()
    result = await sent.result()
    assert result.stop_reason is StopReason.END_TURN
    assert result.usage is not None
    assert result.usage.output_tokens == 5
    told.append(("assistant", f"I am {vendor} ✓"))


async def test_every_vendors_tool_calls_run_and_the_next_vendor_reads_them(
    talk: Callable[..., Any],
) -> None:
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(VendorServer()) for name in DIALECTS}
        it = await stack.enter_async_context(talk("openai", servers["openai"].url))
        for number, (vendor, server) in enumerate(servers.items()):
            dialect = DIALECTS[vendor]
            search = Call(f"call_{number}s", "search", '{"query": "name of the animal"}')
            read = Call(f"call_{number}r", "read", '{"path": "notes.md", "startLine": 3}')
            server.will(
                said(dialect, Text("Looking. "), search, Stop("tools")),
                said(dialect, read, Stop("tools")),
                said(dialect, Text("Found."), Stop()),
            )
            if number:
                await it.choose(settings(vendor, server.url), secrets(vendor))
            result = await it.say(f"{vendor}: what is its name?")
            assert result.stop_reason is StopReason.END_TURN
            # Two results for each vendor before this one, and then its own.
            results = [received.raw.count(FACT) for received in server.requests]
            assert results == [2 * number, 2 * number + 1, 2 * number + 2]
        assert [text for _, _, text in await it.transcript()][1::2] == ["Looking. Found."] * 4


# ---- what goes wrong -----------------------------------------------------------------------


async def test_an_overloaded_vendor_is_asked_three_times(
    talk: Callable[..., Any], log: Log
) -> None:
    async with VendorServer() as server:
        server.will(refusal(503), refusal(503), said(OPENAI, Text("At last."), Stop()))
        async with talk("openai", server.url, **retrying(base_delay=1)) as it:
            assert (await it.say("Are you there?")).stop_reason is StopReason.END_TURN
            assert (await it.transcript())[-1] == ("assistant", "complete", "At last.")
    assert [heard(received) for received in server.requests] == [[("user", "Are you there?")]] * 3
    retries = log.entries("retrying")
    assert [(r["operationName"], r["attempt"], r["delayMs"], r["cause"]) for r in retries] == [
        ("model request", 1, 1, "NETWORK_ERROR"),
        ("model request", 2, 2, "NETWORK_ERROR"),
    ]


async def test_a_vendor_says_itself_how_long_to_wait(talk: Callable[..., Any], log: Log) -> None:
    async with VendorServer() as server:
        server.will(refusal(429, retry_after="1"), said(OPENAI, Text("Now."), Stop()))
        async with talk("openai", server.url, **retrying(base_delay=60_000)) as it:
            await it.say("Now?")
            server.will(refusal(429, retry_after="3600"))
            with pytest.raises(NetworkError) as caught:
                await it.say("And now?")
            assert caught.value.attempts == 1
    assert [entry["delayMs"] for entry in log.entries("retrying")] == [1000]


@proves("P7")
async def test_waiting_for_a_vendor_ends_when_the_turn_is_stopped(
    talk: Callable[..., Any], log: Log
) -> None:
    async with VendorServer() as server:
        server.will(refusal(503), said(OPENAI, Text("Now."), Stop()))
        async with talk("openai", server.url, **retrying(base_delay=60_000)) as it:
            sent = it.start("Now?")
            await log.until("retrying")
            await it.sidecar.call("agent/cancel", conversation_id="talk")
            assert (await sent.result()).stop_reason is StopReason.CANCELLED
            assert (await it.say("And now?")).stop_reason is StopReason.END_TURN
    assert len(server.requests) == 2


@proves("P10")
async def test_a_refused_key_is_told_once_and_mended_by_a_new_one(
    talk: Callable[..., Any], log: Log
) -> None:
    async with VendorServer() as server:
        server.will(refusal(401), said(OPENAI, Text("Welcome."), Stop()))
        async with talk("openai", server.url, **retrying(base_delay=1)) as it:
            with pytest.raises(Unauthorized) as caught:
                await it.say("Let me in")
            assert "key" in str(caught.value.hint)
            assert not caught.value.retryable
            assert len(server.requests) == 1
            assert remade(await it.choose({}, secrets("openai", "b"))) == 1
            assert (await it.retry_last()).stop_reason is StopReason.END_TURN
            assert (await it.transcript())[-1] == ("assistant", "complete", "Welcome.")
    refused, accepted = server.requests
    assert key("openai", "a") in refused.raw
    assert key("openai", "b") in accepted.raw
    assert heard(accepted) == [("user", "Let me in")]
    assert log.entries("retrying") == []


async def test_a_cut_stream_keeps_its_text_and_is_marked(talk: Callable[..., Any]) -> None:
    async with VendorServer() as server:
        server.will(said(OPENAI, Text("Half of "), CUT))
        async with talk("openai", server.url, **retrying(base_delay=1)) as it:
            with pytest.raises(NetworkError) as caught:
                await it.say("Tell me")
            assert caught.value.retryable
            assert (await it.transcript())[-1] == ("assistant", "error", "Half of ")
            server.will(said(OPENAI, Text("All of it."), Stop()))
            assert (await it.say("Go on")).stop_reason is StopReason.END_TURN
    assert len(server.requests) == 2  # what was read is not asked for again
    assert heard(server.requests[-1]) == [
        ("user", "Tell me"),
        ("assistant", "Half of "),
        ("user", "Go on"),
    ]


async def test_a_vendor_out_of_reach_is_told_with_the_next_step(
    talk: Callable[..., Any], log: Log
) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        async with talk("openai", url, **retrying(base_delay=1)) as it:
            with pytest.raises(NetworkError) as caught:
                await it.say("Anybody?")
            assert caught.value.attempts == 3
            assert caught.value.retryable
            assert caught.value.hint
            async with VendorServer() as server:
                server.will(said(OPENAI, Text("Here."), Stop()))
                await it.choose(settings("openai", server.url))
                assert (await it.retry_last()).stop_reason is StopReason.END_TURN
    assert [entry["attempt"] for entry in log.entries("retrying")] == [1, 2]


# ---- keys ----------------------------------------------------------------------------------


@proves("P10")
async def test_a_turn_ends_at_the_vendor_and_with_the_key_that_it_began_with(
    talk: Callable[..., Any],
) -> None:
    async with VendorServer() as old, VendorServer() as new:
        gate = Gate()
        search = Call("call_1", "search", '{"query": "name of the animal"}')
        old.will(
            said(OPENAI, Text("Looking. "), gate, search, Stop("tools")),
            refusal(503),
            said(OPENAI, Text("Done."), Stop()),
        )
        new.will(said(OPENAI, Text("I am new."), Stop()))
        async with talk("openai", old.url, **retrying(base_delay=1)) as it:
            running = it.start("Look")
            await it.until_shown("Looking. ")
            waiting = it.start("Who are you?")
            done = await it.choose(settings("openai", new.url), secrets("openai", "b"))
            assert (done.reinitialized, done.deferred) == (0, 1)
            gate.open()
            assert (await running.result()).stop_reason is StopReason.END_TURN
            assert (await waiting.result()).stop_reason is StopReason.END_TURN
            texts = [text for _, _, text in await it.transcript()]
            assert texts == ["Look", "Looking. Done.", "Who are you?", "I am new."]
    assert_never_mixed(old, 3, new, 1)


@proves("P10")
async def test_a_forced_switch_stops_the_turn_and_leaves_the_old_key_behind(
    talk: Callable[..., Any],
) -> None:
    async with VendorServer() as old, VendorServer() as new:
        old.will(said(OPENAI, Text("Half of "), STALL))
        new.will(said(OPENAI, Text("I am new."), Stop()))
        async with talk("openai", old.url) as it:
            running = it.start("Tell me")
            await it.until_shown("Half of ")
            waiting = it.start("Who are you?")
            chosen = settings("openai", new.url)
            done = await it.choose(chosen, secrets("openai", "b"), force=True)
            assert (done.reinitialized, done.deferred) == (1, 0)
            assert (await running.result()).stop_reason is StopReason.CANCELLED
            assert (await waiting.result()).stop_reason is StopReason.END_TURN
            await old.requests[0].gone.wait()
            texts = [text for _, _, text in await it.transcript()]
            assert texts == ["Tell me", "Half of ", "Who are you?", "I am new."]
    assert_never_mixed(old, 1, new, 1)


def assert_never_mixed(old: VendorServer, asked: int, new: VendorServer, asked_new: int) -> None:
    """Key `a` went to the old server only, and key `b` to the new one."""
    a, b = key("openai", "a"), key("openai", "b")
    assert [(a in r.raw, b in r.raw) for r in old.requests] == [(True, False)] * asked
    assert [(a in r.raw, b in r.raw) for r in new.requests] == [(False, True)] * asked_new


@proves("P10")
async def test_a_key_is_nowhere_but_in_the_request(
    spawn: Callable[..., RawClient], store: Path, tmp_path: Path
) -> None:
    async with VendorServer() as server:
        chosen = settings("openai", server.url, logLevel="debug", **retrying(base_delay=1))
        options = {"settings": chosen, "secrets": secrets("openai")}
        server.will(
            refusal(401),
            refusal(503),
            said(OPENAI, Text("Hello."), Stop()),
            said(OPENAI, Text("Half of "), CUT),
            said(DIALECTS["anthropic"], Text("Hello again."), Stop()),
        )

        def use() -> None:
            client = spawn()
            client.start(options)
            client.call("conversation/create", {"conversationId": "talk"})
            say = {"conversationId": "talk", "input": "Hello?"}
            client.error("message/send", say)
            client.call("message/send", say)
            client.error("message/send", say)
            update = {
                "settings": settings("anthropic", server.url),
                "secrets": secrets("anthropic"),
            }
            client.call("settings/update", update)
            client.call("message/send", say)
            look_around(client, tmp_path)
            assert store.with_name(store.name + "-wal").exists()
            assert CANARY.encode() not in bytes_below(store.parent)
            client.shut_down()
            assert CANARY not in json.dumps(client.frames)
            assert CANARY.encode() not in client.stderr
            assert b"Hello?" not in client.stderr
            assert CANARY.encode() not in bytes_below(tmp_path)

        with anyio.fail_after(DEADLINE):
            await to_thread.run_sync(use)
    keys = [key("openai")] * 4 + [key("anthropic")]
    assert [k in received.raw for k, received in zip(keys, server.requests, strict=True)]


def look_around(client: RawClient, folder: Path) -> None:
    """Ask for everything that a client may see."""
    for format in ("json", "markdown"):
        export = {"conversationId": "talk", "format": format}
        client.call("conversation/export", export)
        client.call("conversation/export", export | {"path": str(folder / f"exported.{format}")})
    for method in ("settings/get", "sidecar/status", "sidecar/metrics", "agent/list"):
        client.call(method)
    client.call("conversation/subscribe", {"conversationId": "talk"})


@proves("P10")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows another process's insides")
async def test_a_key_is_neither_in_the_environment_nor_on_the_command_line(
    talk: Callable[..., Any],
) -> None:
    async with VendorServer() as server:
        server.will(said(OPENAI, Text("Hello."), Stop()))
        async with talk("openai", server.url) as it:
            await it.say("Hello?")
            pid = (await it.sidecar.call("sidecar/status")).pid
            for name in ("environ", "cmdline"):
                shown = await anyio.Path(f"/proc/{pid}/{name}").read_bytes()
                assert shown
                assert CANARY.encode() not in shown
    assert key("openai") in server.requests[0].raw
