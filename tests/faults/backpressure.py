"""Clients that do not read, and messages that are too large: what grows, and what waits.

One window starts ten turns that stream and then stops reading, its log included. A second window
on the same store must see every turn end meanwhile, and the first one must find everything
when it reads again. Linux only: it looks into /proc.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sidecar.client.link import params_of
from sidecar.client.view import Applied, ConversationView
from sidecar.events import CatchUp
from sidecar.wire.methods import ConversationPage
from tests.e2e.raw_client import Message, RawClient, body_of, command, frame

MIB = 1024 * 1024
GROWTH = 64 * MIB
"""What the process may take while nobody reads it, the text of the turns included."""
BOMB_GROWTH = 32 * MIB

PAUSE = 10.0
"""Seconds that nothing may be stored, or another window's prompt may take."""

TEXT = 256 * 1024
"""By how much more the store grows than this window's own prompts make it."""

AGENTS = 10
PIECE = "some words " * 190
THOUGHT = "wörd 🙂 日本 "


class Stalling(RawClient):
    """A client that can stop reading for a while."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.reads = threading.Event()
        self.reads.set()
        super().__init__(*args, **options)

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        buffer = bytearray()
        descriptor = self.process.stdout.fileno()
        while self.reads.wait() and (piece := os.read(descriptor, 1 << 16)):
            buffer += piece
            self._cut(buffer)
        with self._news:
            self._news.notify_all()

    def dispose(self) -> None:
        self.reads.set()
        super().dispose()


@contextmanager
def window(
    store: Path, script: list[Any], *, is_deaf: bool = False, patch: str = ""
) -> Iterator[Stalling]:
    """A sidecar on `store`; nobody reads the log of one that `is_deaf`. `patch` is a program
    that changes it before it starts."""
    reading, writing = os.pipe()
    try:
        stderr = writing if is_deaf else subprocess.DEVNULL
        argv = command(store)
        if patch:
            argv[-5:-2] = ["-c", f"{patch}\nfrom sidecar.__main__ import main\nmain()", "serve"]
        client = Stalling(argv, stderr=stderr)
        settings = {"provider": "scripted", "script": script, "logLevel": "debug"}
        try:
            client.start({"settings": settings})
            yield client
        finally:
            client.dispose()
    finally:
        os.close(reading)
        os.close(writing)


def peak(client: RawClient) -> int:
    """The most that the process ever had resident."""
    status = Path(f"/proc/{client.process.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


class Copy:
    """A transcript as the client of the product keeps it. Fails on any hole."""

    def __init__(self, conversation_id: str, store_id: str) -> None:
        self.view = ConversationView(conversation_id)
        self.view.store_id = store_id
        self.resyncs = 0

    def read(self, message: Message) -> bool:
        """Whether the client has to subscribe again."""
        if message.get("method") not in ("conversation/event", "conversation/resync"):
            return False
        if message["params"]["conversationId"] != self.view.conversation_id:
            return False
        params = params_of(message["method"], msgspec.Raw(msgspec.json.encode(message["params"])))
        if message["method"] == "conversation/resync":
            self.resyncs += 1
            return True
        assert self.view.apply(params) is not Applied.HOLE, f"a hole before {params}"
        return False

    def catch_up(self, client: RawClient) -> int:
        """Subscribe from where it stands; returns the index behind the answer."""
        cursor = msgspec.to_builtins(self.view.cursor)
        params = {"conversationId": self.view.conversation_id, "cursor": cursor}
        msg_id = client.start_request("conversation/subscribe", params)
        answer = client.result(msg_id)
        self.view.caught_up(msgspec.convert(answer, CatchUp), self.view.store_id)
        return 1 + client.position(lambda m: m.get("id") == msg_id and "method" not in m)

    def assert_stored(self, client: RawClient) -> None:
        page = client.call(
            "conversation/get", {"conversationId": self.view.conversation_id, "limit": 500}
        )
        assert self.view.messages == msgspec.convert(page, ConversationPage).page.messages


def stall(folder: Path, *, turns: int, pieces: int, delay_ms: int, patch: str = "") -> str:
    """Ten agents stream `turns` turns of `pieces` deltas each to a client that does not read.

    Each turn has a conversation of its own: what an agent remembers of a long one is another
    matter."""
    store = folder / "c.db"
    script = [
        {"thinking": THOUGHT, "repeat": 20},
        {"text": PIECE, "repeat": pieces, "delayMs": delay_ms},
    ]
    with (
        window(store, script, is_deaf=True, patch=patch) as deaf,
        window(store, []) as other,
    ):
        names = [f"c{number}" for number in range(AGENTS * turns)]
        for name in names:
            deaf.call("conversation/create", {"conversationId": name})
        before = deaf.rss()
        deaf.reads.clear()
        began = time.monotonic()
        asked = [
            deaf.start_request("message/send", {"conversationId": name, "input": "go on"})
            for name in names
        ]
        pings = [deaf.start_request("agent/count") for _ in range(50)]
        watch = Watch(other, store, names)
        watch.until_all_have_ended()
        seconds = time.monotonic() - began
        growth = peak(deaf) - before
        deaf.reads.set()
        resyncs = read_all(deaf, names, asked + pings)
    text = len(names) * pieces * len(PIECE.encode())
    line = (
        f"backpressure: {AGENTS} agents streamed {text / MIB:.0f} MiB in {seconds:.0f} s to a "
        f"client that did not read: {len(names)} turns ended, stored without a pause over "
        f"{watch.longest_pause:.1f} s, {watch.count} prompts of another window answered within "
        f"{watch.slowest:.1f} s, {growth / MIB:.0f} MiB more memory, {resyncs} resyncs, "
        f"{len(asked + pings)} responses, every transcript whole"
    )
    assert growth <= GROWTH, line
    assert watch.longest_pause <= PAUSE, line
    assert watch.slowest <= PAUSE, line
    assert resyncs, f"it was not much of a stall: {line}"
    return line


class Watch:
    """Another window, at work on the same store meanwhile."""

    def __init__(self, client: RawClient, store: Path, names: Sequence[str]) -> None:
        self.longest_pause = 0.0
        """Seconds in which no streamed text was stored."""
        self.slowest = 0.0
        """Seconds that this window's own prompts took."""
        self.count = 0
        self._client = client
        self._files = [store, store.with_name(store.name + "-wal")]
        self._names = names

    def until_all_have_ended(self) -> None:
        self._client.call("conversation/create", {"conversationId": "mine"})
        size, since = self._size(), time.monotonic()
        while not self._have_ended():
            began = time.monotonic()
            self._client.call("message/send", {"conversationId": "mine", "input": "echo hi"})
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.count += 1
            if abs((now := self._size()) - size) > TEXT:
                self.longest_pause = max(self.longest_pause, time.monotonic() - since)
                size, since = now, time.monotonic()
            time.sleep(0.2)

    def _size(self) -> int:
        return sum(file.stat().st_size for file in self._files)

    def _have_ended(self) -> bool:
        """Whether each has its prompt and its reply, and nothing in its queue."""
        ended, cursor = 0, None
        while True:
            params = {"limit": 200} | ({"cursor": cursor} if cursor else {})
            page = self._client.call("conversation/list", params)
            ended += sum(c["messageCount"] == 2 for c in page["conversations"])
            if (cursor := page["cursor"]) is None:
                break
        return ended >= len(self._names) and all(
            self._client.call("message/queue", {"conversationId": name})["entries"] == []
            for name in self._names[-2 * AGENTS :]
        )


def read_all(client: RawClient, names: list[str], asked: list[int | str]) -> int:
    """What the client finds when it reads again: every answer, and no transcript with a hole.
    Returns how often it had to subscribe anew."""
    for msg_id in asked:
        client.result(msg_id)
    client.ping()  # whatever was sent before this is here
    store_id = client.notification("sidecar/ready")["storeId"]
    resyncs = 0
    for name in names:
        copy, at = Copy(name, store_id), 0
        while at < len(client.frames):
            message = client.frames[at]
            at += 1
            if copy.read(message):
                at = copy.catch_up(client)
        copy.assert_stored(client)
        resyncs += copy.resyncs
    client.check_promises()
    return resyncs


# ---- messages that are too large -----------------------------------------------------------


def _padded(head: bytes, size: int, tail: bytes = b"") -> Iterator[bytes]:
    yield head
    for _ in range(size // MIB):
        yield b"x" * MIB
    yield tail


def _body(body: bytes) -> Iterator[bytes]:
    yield frame(body)


def _call(msg_id: object, method: str) -> bytes:
    return body_of({"jsonrpc": "2.0", "id": msg_id, "method": method, "params": {}})


def bombs() -> dict[str, Iterator[bytes]]:
    deep = b"[" * 10**6 + b"]" * 10**6
    nested = b'{"jsonrpc":"2.0","id":1,"method":"agent/count","params":%b}'
    objects = b'{"a":' * 10**6 + b"1" + b"}" * 10**6
    return {
        "a body of 1 GiB": _padded(b"Content-Length: 1073741824\r\n\r\n", 1024 * MIB),
        "a body of 10^15": _padded(b"Content-Length: %d\r\n\r\n" % 10**15, 128 * MIB, b"\r\n\r\n"),
        "a body of 10^30": _padded(b"Content-Length: %d\r\n\r\n" % 10**30, 64 * MIB, b"\r\n\r\n"),
        "a header line of 64 MiB": _padded(b"X-Long: ", 64 * MIB, b"\r\n\r\n"),
        "a header name of 64 MiB": _padded(b"", 64 * MIB, b"\r\n\r\n"),
        "10^6 arrays deep": _body(deep),
        "params 10^6 arrays deep": _body(nested % deep),
        "params 10^6 objects deep": _body(nested % objects),
        "an id of 1 MiB": _body(_call("i" * MIB, "agent/count")),
        "an id of 10^6 digits": _body(_call(1, "x").replace(b'"id":1', b'"id":' + b"1" * 10**6)),
        "a method of 1 MiB": _body(_call(1, "m" * MIB)),
        "an unknown notification of 1 MiB": _body(body_of({"jsonrpc": "2.0", "method": "m" * MIB})),
    }


def explode(client: RawClient, pieces: Iterator[bytes]) -> int:
    """Throw a bomb at a started sidecar; returns by how many bytes it grew."""
    before = max(client.rss(), peak(client))
    for piece in pieces:
        client.send_bytes(piece)
    client.ping()
    return peak(client) - before


def explode_all(folder: Path) -> str:
    grown = {}
    for name, pieces in bombs().items():
        with window(folder / "bombs.db", []) as client:
            grown[name] = explode(client, pieces)
    worst = max(grown, key=lambda name: grown[name])
    line = f"size bombs: {len(grown)}, at most {grown[worst] / MIB:.1f} MiB more ({worst})"
    assert grown[worst] <= BOMB_GROWTH, line
    return line


def main(count: int = 60) -> str:
    """Ten agents stream a megabyte a second each for `count` seconds to a deaf client; then
    the bombs."""
    with tempfile.TemporaryDirectory() as folder:
        line = stall(Path(folder), turns=count, pieces=500, delay_ms=2)
        return f"{line}; {explode_all(Path(folder))}"


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))  # noqa: T201
