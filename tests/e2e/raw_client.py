"""A client of our own for the real process: raw bytes in, every frame out, a deadline on all.

It shares no code with the product, so it can neither hide its mistakes nor repeat them. What it
has received is checked against `schemas/` when it is closed: each request answered once, each
result and each notification as promised.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parents[2] / "schemas"
DEADLINE = 20.0
"""Seconds that anything may take. Reached only when it never comes."""

Message = dict[str, Any]
Predicate = Callable[[Message], bool]


def command(store: Path | str, *, flags: Sequence[str] = ("-I",)) -> list[str]:
    return [sys.executable, *flags, "-m", "sidecar", "serve", "--store", str(store)]


def body_of(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def frame(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def frames_of(messages: Iterable[object]) -> bytes:
    return b"".join(frame(body_of(message)) for message in messages)


def request(msg_id: int | str, method: str, params: object = None) -> Message:
    message: Message = {"jsonrpc": "2.0", "id": msg_id, "method": method}
    return message if params is None else message | {"params": params}


class RpcFailed(AssertionError):
    """A request was answered with an error where a result was expected."""

    def __init__(self, method: str, error: Message) -> None:
        super().__init__(f"{method}: {error}")
        self.error = error


class RawClient:
    """One process and all that came out of it. Every wait fails after `DEADLINE`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stderr: int | IO[bytes] = subprocess.PIPE,
        reads: bool = True,
    ) -> None:
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=None if env is None else dict(env),
            cwd=cwd,
            bufsize=0,
        )
        self.frames: list[Message] = []
        """Every message, in the order of arrival."""
        self.garbage: list[bytes] = []
        """What came on stdout and was no frame."""
        self.stderr = b""
        self.initialized: Message = {}
        self._asked: dict[int | str, tuple[str, Any]] = {}
        self._ids = itertools.count(1000)
        self._news = threading.Condition()
        self._stop_reading = threading.Event()
        self._threads = [threading.Thread(target=self._read_stdout, daemon=True)]
        if not reads:
            self._stop_reading.set()
        if self.process.stderr is not None:
            self._threads.append(threading.Thread(target=self._read_stderr, daemon=True))
        for thread in self._threads:
            thread.start()

    # ---- sending ----

    def send_bytes(self, data: bytes) -> None:
        """Write everything, or fail after the deadline: nobody reads us then."""
        assert self.process.stdin is not None
        stdin = self.process.stdin
        failed: list[BaseException] = []

        def write() -> None:
            view = memoryview(data)
            try:
                while view:
                    view = view[stdin.write(view) or 0 :]
            except OSError as error:
                failed.append(error)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(DEADLINE)
        assert not writer.is_alive(), f"the process does not read its stdin {self.told()}"
        if failed:
            raise failed[0]

    def send(self, *messages: object) -> None:
        self.send_bytes(frames_of(messages))

    def start_request(
        self, method: str, params: object = None, *, msg_id: int | str | None = None
    ) -> int | str:
        """Send a request and do not wait; returns its id."""
        msg_id = next(self._ids) if msg_id is None else msg_id
        self._asked[msg_id] = (method, params)
        self.send(request(msg_id, method, params))
        return msg_id

    @property
    def methods_asked(self) -> set[str]:
        return {method for method, _ in self._asked.values()}

    def notify(self, method: str, params: object = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def cancel(self, msg_id: int | str) -> None:
        self.notify("$/cancelRequest", {"id": msg_id})

    # ---- waiting ----

    def response(self, msg_id: int | str | None) -> Message:
        return self.wait_for(
            lambda m: "method" not in m and "id" in m and m["id"] == msg_id,
            what=f"response to {msg_id}",
        )

    def ask(self, method: str, params: object = None) -> Message:
        """The whole response, a result or an error."""
        return self.response(self.start_request(method, params))

    def call(self, method: str, params: object = None) -> Any:
        """The result. Raises `RpcFailed` for an error."""
        return self.result(self.start_request(method, params))

    def result(self, msg_id: int | str) -> Any:
        answer = self.response(msg_id)
        if "error" in answer:
            raise RpcFailed(self._asked[msg_id][0], answer["error"])
        return answer["result"]

    def error(self, method: str, params: object = None) -> Message:
        """The error of a request that must fail."""
        answer = self.ask(method, params)
        assert "error" in answer, f"{method} succeeded: {answer}"
        error: Message = answer["error"]
        return error

    def wait_for(self, wanted: Predicate, *, after: int = 0, what: str = "message") -> Message:
        """The first message from index `after` on that is `wanted`."""
        return self.frames[self.wait_for_index(wanted, after=after, what=what)]

    def wait_for_index(self, wanted: Predicate, *, after: int = 0, what: str = "message") -> int:
        deadline = time.monotonic() + DEADLINE
        at = after
        with self._news:
            while True:
                for found in range(at, len(self.frames)):
                    if wanted(self.frames[found]):
                        return found
                at = len(self.frames)
                ended = not self._threads[0].is_alive()
                left = deadline - time.monotonic()
                assert left > 0, f"no {what} within the deadline; {self.told()}"
                assert not ended, f"no {what} before the process ended; {self.told()}"
                self._news.wait(min(left, 0.5))

    def notification(self, method: str, *, after: int = 0, **params: object) -> Message:
        """The params of the first such notification that has these values in its params."""
        found = self.wait_for(
            lambda m: m.get("method") == method and has(m["params"], params),
            after=after,
            what=f"{method} {params}",
        )
        return dict(found["params"])

    def event(
        self, conversation_id: str, type: str, *, after: int = 0, **fields: object
    ) -> Message:
        fields |= {"conversationId": conversation_id, "type": type}
        return self.notification("conversation/event", after=after, **fields)

    def events(self, conversation_id: str | None = None) -> list[Message]:
        """The events that have arrived, in their order."""
        return [
            message["params"]
            for message in self.frames
            if message.get("method") == "conversation/event"
            and conversation_id in (None, message["params"]["conversationId"])
        ]

    def position(self, wanted: Predicate) -> int:
        return next(at for at, message in enumerate(self.frames) if wanted(message))

    def wait_for_stderr(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + DEADLINE
        with self._news:
            while not (found := re.search(pattern, self.stderr.decode(errors="replace"))):
                left = deadline - time.monotonic()
                assert left > 0, f"no {pattern!r} on stderr; {self.told()}"
                self._news.wait(min(left, 0.5))
        return found

    # ---- life and death ----

    def initialize(self, options: Message | None = None, **params: object) -> Message:
        if options is not None:
            params["initializationOptions"] = options
        answer = self.ask("initialize", params)
        assert "result" in answer, answer
        self.initialized = answer["result"]
        self.notify("initialized")
        return self.initialized

    def start(self, options: Message | None = None, **params: object) -> Message:
        """Initialize and wait until the store is open; returns what `sidecar/ready` says."""
        self.initialize(options, **params)
        return self.notification("sidecar/ready")

    def ping(self) -> None:
        """The process is alive and in order."""
        assert isinstance(self.call("agent/count")["count"], int)

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_code(self) -> int:
        """Wait for the end of the process, and for all that it said."""
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process did not end; {self.told()}") from None
        for thread in self._threads:
            thread.join(DEADLINE)
        return code

    def shut_down(self) -> int:
        """Say goodbye properly; returns the exit code."""
        self.call("shutdown")
        self.notify("exit")
        return self.exit_code()

    def wait_for_end(self, within: float) -> None:
        """Wait until nobody holds the other end of our stdout any more."""
        self._threads[0].join(within)
        assert not self._threads[0].is_alive(), f"still there; {self.told()}"

    def stop_reading(self) -> None:
        """Close our end of its stdout, after one more piece."""
        self._stop_reading.set()
        self.send(request("last", "agent/count"))
        self._threads[0].join(DEADLINE)

    def kill(self) -> None:
        self.process.kill()
        self.exit_code()

    def dispose(self) -> None:
        """Whatever happened, leave nothing behind."""
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(DEADLINE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def rss(self) -> int:
        """Resident bytes of the process (Linux)."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def told(self) -> str:
        """What a failing test wants to see."""
        tail = self.stderr[-2000:].decode(errors="replace")
        last = "\n".join(str(message)[:300] for message in self.frames[-12:])
        return f"exit {self.process.poll()}; last frames:\n{last}\nstderr:\n{tail}"

    # ---- the promises ----

    def check_promises(self) -> None:
        """Nothing but frames on stdout; every answer, result and notification as declared."""
        assert self.garbage == []
        answers: dict[Any, int] = {}
        for message in self.frames:
            assert message.get("jsonrpc") == "2.0", message
            if "method" in message:
                check_notification(message)
                continue
            msg_id = message["id"]
            answers[msg_id] = answers.get(msg_id, 0) + 1
            if "result" in message and msg_id in self._asked:
                check_result(self._asked[msg_id][0], message["result"])
            if "error" in message:
                check_error(message["error"])
        doubled = {i: n for i, n in answers.items() if i in self._asked and n > 1}
        assert doubled == {}

    # ---- reading ----

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        stdout, buffer = self.process.stdout, bytearray()
        while not self._stop_reading.is_set() and (piece := os.read(stdout.fileno(), 1 << 20)):
            buffer += piece
            self._cut(buffer)
        if self._stop_reading.is_set():
            stdout.close()
        with self._news:
            if buffer:
                self.garbage.append(bytes(buffer))
            self._news.notify_all()

    def _cut(self, buffer: bytearray) -> None:
        """Strict on purpose: one header, spelled the one way."""
        while match := re.match(rb"Content-Length: ([0-9]+)\r\n\r\n", buffer):
            end = match.end() + int(match[1])
            if len(buffer) < end:
                return
            message = json.loads(bytes(buffer[match.end() : end]))
            del match, buffer[:end]
            with self._news:
                self.frames.append(message)
                self._news.notify_all()
        if not b"Content-Length: ".startswith(buffer[:16]) and not buffer.startswith(
            b"Content-Length: "
        ):
            with self._news:
                self.garbage.append(bytes(buffer))
            buffer.clear()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        while piece := os.read(descriptor, 1 << 16):
            with self._news:
                self.stderr += piece
                self._news.notify_all()


def has(params: Mapping[str, Any], wanted: Mapping[str, object]) -> bool:
    return all(name in params and params[name] == value for name, value in wanted.items())


# ---- the schemas ---------------------------------------------------------------------------


@cache
def openrpc() -> Message:
    document: Message = json.loads((SCHEMAS / "openrpc.json").read_text(encoding="utf-8"))
    return document


@cache
def validator(ref: str) -> Draft202012Validator:
    """Of `#/…` inside openrpc.json."""
    schemas = {"components": openrpc()["components"], "$ref": ref}
    return Draft202012Validator(schemas)


@cache
def event_validator() -> Draft202012Validator:
    schema = json.loads((SCHEMAS / "events.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


@cache
def results() -> dict[str, Draft202012Validator]:
    """Method → what validates its result."""
    document = openrpc()
    return {
        method["name"]: Draft202012Validator(
            method["result"]["schema"] | {"components": document["components"]}
        )
        for method in document["methods"]
    }


@cache
def notifications() -> dict[str, Draft202012Validator]:
    declared = openrpc()["x-notifications"]["server"]
    found = {n["name"]: validator(n["params"]["$ref"]) for n in declared}
    return found | {"conversation/event": event_validator()}


@cache
def error_codes() -> dict[str, int]:
    """Our error types and the code that each has."""
    return {name: error["code"] for name, error in openrpc()["components"]["errors"].items()}


def check_result(method: str, result: object) -> None:
    if method in results():
        _valid(results()[method], result, method)


@cache
def server_requests() -> dict[str, Draft202012Validator]:
    """The checks of the params of what the server asks its client."""
    return {
        asked["name"]: Draft202012Validator(
            {
                "components": openrpc()["components"],
                "properties": {p["name"]: p["schema"] for p in asked["params"]},
                "required": [p["name"] for p in asked["params"] if p["required"]],
                "additionalProperties": False,
            }
        )
        for asked in openrpc()["x-serverRequests"]
    }


def check_notification(message: Message) -> None:
    """What came with a method: a notification, or a request of the server's."""
    method, params = message["method"], message.get("params")
    if "id" in message:
        _valid(server_requests()[method], params, method)
    elif method in notifications():
        _valid(notifications()[method], params, method)
    elif method == "$/progress":
        assert set(message["params"]) == {"token", "value"}, message
        assert message["params"]["value"]["kind"] in ("begin", "report", "end")
    elif method == "window/showMessage":
        assert isinstance(message["params"]["message"], str)
        assert message["params"]["type"] in (1, 2, 3, 4)
    else:
        raise AssertionError(f"a notification that is declared nowhere: {message}")


STANDARD_CODES = {-32700, -32600, -32601, -32602, -32603, -32002, -32800}


def check_error(error: Message) -> None:
    """One of the codes that we have, and our own with their type; no stack, no path."""
    assert isinstance(error["message"], str)
    assert error["message"]
    assert "Traceback" not in error["message"]
    if error["code"] not in STANDARD_CODES:
        data = error["data"]
        assert error_codes()[data["type"]] == error["code"], error
        assert isinstance(data["retryable"], bool)


def _valid(schema: Draft202012Validator, value: object, what: str) -> None:
    problem = next(iter(schema.iter_errors(value)), None)
    assert problem is None, f"{what}: {problem and problem.message} in {str(value)[:500]}"
