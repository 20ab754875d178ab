"""The start prologue: pipes before and after it, and, where it matters, a process around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from sidecar import __version__
from sidecar.conversations import AgentMode
from sidecar.errors import InitializationFailed
from sidecar.faces.prologue import Handover, refuse_all, run
from sidecar.settings import PROVIDERS
from sidecar.wire import constants, methods
from sidecar.wire.frames import Frame, FrameError, FrameParser, frame
from tests.requirements import proves

PATIENCE = 30
"""Seconds after which a process that was to end has failed."""

Message = dict[str, Any]


def message(**fields: Any) -> bytes:
    return frame(json.dumps({"jsonrpc": "2.0", **fields}).encode())


def request(msg_id: int | str, method: str, **fields: Any) -> bytes:
    return message(id=msg_id, method=method, **fields)


def initialize(options: object = None, msg_id: int = 1) -> bytes:
    params = {"capabilities": {}, "initializationOptions": options}
    return request(msg_id, "initialize", params=params)


def answers_in(data: bytes) -> list[Message]:
    items = FrameParser().feed(data)
    assert all(isinstance(item, Frame) for item in items)
    return [json.loads(item.body) for item in items if isinstance(item, Frame)]


class Pipes:
    """Stdin, which holds what the client sent before it closed it, and stdout."""

    def __init__(self, sent: bytes) -> None:
        self.stdin, client = os.pipe()
        self._reading, self.stdout = os.pipe()
        os.write(client, sent)
        os.close(client)

    def close(self) -> bytes:
        """What was written to stdout."""
        os.close(self.stdin)
        os.close(self.stdout)
        with os.fdopen(self._reading, "rb") as stdout:
            return stdout.read()


def start(sent: bytes) -> tuple[Handover, list[Message]]:
    pipes = Pipes(sent)
    handover = run(pipes.stdin, pipes.stdout)
    return handover, answers_in(pipes.close())


def refuse(sent: bytes) -> tuple[int, bytes]:
    """A start whose second half fails: the exit code, and all that was answered."""
    pipes = Pipes(sent)
    handover = run(pipes.stdin, pipes.stdout)
    assert handover.exit_code is None
    return refuse_all(handover, "It could not be loaded."), pipes.close()


def errors(answers: list[Message]) -> list[tuple[Any, int]]:
    return [(answer["id"], answer["error"]["code"]) for answer in answers]


# ---- initialize --------------------------------------------------------------------------


@proves("P12")
def test_initialize_is_answered_with_what_is_known_at_build_time() -> None:
    handover, (answer,) = start(initialize())
    assert answer == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {
            "capabilities": {
                "experimental": {
                    "sidecar": {
                        "protocolVersion": methods.PROTOCOL_VERSION,
                        "version": __version__,
                        "modes": [mode.value for mode in AgentMode],
                        "providers": list(PROVIDERS),
                        "methods": [method.name for method in methods.METHODS],
                    }
                }
            },
            "serverInfo": {"name": "agent-sidecar", "version": __version__},
        },
    }
    assert (handover.kind, handover.exit_code, handover.items) == ("lsp", None, [])
    assert frame(handover.initialize) == initialize()


def test_the_constants_follow_from_the_types() -> None:
    assert max(constants.PROTOCOL_VERSIONS) == methods.PROTOCOL_VERSION
    assert tuple(AgentMode) == constants.MODES
    assert constants.PROVIDERS == PROVIDERS
    assert tuple(method.name for method in methods.METHODS) == constants.METHODS
    assert methods.ERROR_CODES[InitializationFailed] == constants.INITIALIZATION_FAILED
    for name in ("PARSE_ERROR", "INVALID_REQUEST", "INVALID_PARAMS", "NOT_INITIALIZED"):
        assert getattr(constants, name) == getattr(methods, name)


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        [],
        "anything",
        {"protocolVersions": None},
        {"protocolVersions": [1]},
        {"protocolVersions": [0, 1, 2, 99]},
        {"protocolVersion": 1},
        {"protocolVersion": 7, "protocolVersions": [1]},
        {"protocolVersion": None},
    ],
)
def test_the_highest_common_version_wins(options: object) -> None:
    _, (answer,) = start(initialize(options))
    assert answer["result"]["capabilities"]["experimental"]["sidecar"]["protocolVersion"] == 1


@pytest.mark.parametrize(
    "options", [{"protocolVersions": [2, 3]}, {"protocolVersions": []}, {"protocolVersion": 2}]
)
def test_without_a_common_version_the_error_names_ours(options: object) -> None:
    handover, (answer,) = start(initialize(options))
    assert answer["error"] == {
        "code": -32051,
        "message": "None of these versions is spoken here; the sidecar speaks 1.",
        "data": {"type": "INITIALIZATION_FAILED", "retryable": False},
    }
    assert handover.exit_code == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"protocolVersions": 1}, "protocolVersions"),
        ({"protocolVersions": ["1"]}, "protocolVersions"),
        ({"protocolVersions": [1.0]}, "protocolVersions"),
        ({"protocolVersions": [True]}, "protocolVersions"),
        ({"protocolVersion": "1"}, "protocolVersion"),
        ({"protocolVersion": [1]}, "protocolVersion"),
    ],
)
def test_versions_are_integers_and_the_error_says_where_not(options: object, field: str) -> None:
    _, (answer,) = start(initialize(options))
    assert answer["error"] == {
        "code": -32602,
        "message": f"initialize: Expected int - at `$.initializationOptions.{field}`",
    }


@pytest.mark.parametrize("fields", [{}, {"params": None}, {"params": []}, {"params": "x"}])
def test_initialize_needs_params(fields: Message) -> None:
    _, answers = start(request(1, "initialize", **fields))
    assert errors(answers) == [(1, -32602)]


def test_initialize_may_be_tried_again() -> None:
    handover, answers = start(initialize({"protocolVersion": 2}) + initialize(None, 2))
    assert [(answer["id"], "result" in answer) for answer in answers] == [(1, False), (2, True)]
    assert handover.exit_code is None


def test_a_notification_called_initialize_begins_nothing() -> None:
    handover, answers = start(message(method="initialize", params={}))
    assert (handover.exit_code, answers) == (1, [])


# ---- before initialize -------------------------------------------------------------------


@proves("P6")
def test_every_early_request_is_answered_and_notifications_are_dropped() -> None:
    _, answers = start(
        request(0, "agent/list")
        + request("a", "shutdown")
        + message(method="initialized")
        + request(0, "exit")
        + message(method="$/cancelRequest", params={"id": 0})
        + initialize()
    )
    assert errors(answers[:-1]) == [(0, -32002), ("a", -32002), (0, -32002)]
    assert "result" in answers[-1]


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"Content-", request(1, "agent/list"), message(method="exit") + initialize()],
    ids=["nothing", "blank", "a beginning", "a request", "exit"],
)
def test_a_client_that_leaves_before_it_began_makes_exit_code_1(sent: bytes) -> None:
    handover, answers = start(sent)
    assert handover.exit_code == 1
    assert not any("result" in answer for answer in answers)


def nested(depth: int) -> bytes:
    """A request that is `depth` levels deep."""
    inside = b"[" * (depth - 1) + b"]" * (depth - 1)
    return b'{"jsonrpc":"2.0","id":1,"method":"a","params":%b}' % inside


UNREADABLE = [
    (b"{", None, -32700),
    (b"nonsense", None, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"a"} x', None, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', None, -32700),
    ('{"jsonrpc":"2.0","id":1,"method":"a"}'.encode("utf-16"), None, -32700),
    ('\ufeff{"jsonrpc":"2.0","id":1,"method":"a"}'.encode(), None, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"a","params":[NaN]}', None, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"a","params":[-Infinity]}', None, -32700),
    (b'{"jsonrpc":"2.0","id":%b,"method":"a"}' % (b"9" * 5000), None, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"a\n"}', None, -32700),
    (b"[]", None, -32600),
    (b'[{"jsonrpc":"2.0","id":1,"method":"a"}]', None, -32600),
    (b"1", None, -32600),
    (b'"initialize"', None, -32600),
    (b"null", None, -32600),
    (b"{}", None, -32600),
    (b'{"id":1,"method":"a"}', 1, -32600),
    (b'{"jsonrpc":"1.0","id":"x","method":"a"}', "x", -32600),
    (b'{"jsonrpc":2.0,"id":1,"method":"a"}', 1, -32600),
    (b'{"jsonrpc":"2.0","id":1}', 1, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":5}', 1, -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":null,"result":1}', 1, -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"a"}', None, -32600),
    (b'{"jsonrpc":"2.0","id":true,"method":"a"}', None, -32600),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"a"}', None, -32600),
    (b'{"jsonrpc":"2.0","id":[1],"method":"a"}', None, -32600),
    (nested(201), 1, -32600),
    (nested(20_000), None, -32600),
    (nested(200), 1, -32002),
    (b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', 1, -32002),
    (b'{"jsonrpc":"2.0","id":"\\ud83d\\ude00","method":"a"}', "😀", -32002),
]


@proves("P6")
@pytest.mark.parametrize(("body", "msg_id", "code"), UNREADABLE)
def test_a_body_that_is_no_message_is_answered_and_the_next_one_heard(
    body: bytes, msg_id: int | str | None, code: int
) -> None:
    handover, answers = start(frame(body) + initialize(msg_id=2))
    assert errors(answers[:-1]) == [(msg_id, code)]
    assert answers[-1]["id"] == 2
    assert handover.exit_code is None


def test_bytes_that_are_no_frame_are_answered_and_the_next_frame_is_heard() -> None:
    _, answers = start(b"Content-Length: x\r\n\r\n{}" + initialize())
    assert errors(answers[:-1]) == [(None, -32600)]
    assert "result" in answers[-1]


def test_a_response_is_not_answered() -> None:
    body = message(id=7, result=1) + message(id=None, error={"code": 1, "message": "no"})
    _, answers = start(body + initialize())
    assert [answer["id"] for answer in answers] == [1]


def test_a_client_that_does_not_read_its_answers_is_gone() -> None:
    pipes = Pipes(request(1, "a"))
    os.close(pipes._reading)
    assert run(pipes.stdin, pipes.stdout).exit_code == 1
    os.close(pipes.stdin)
    os.close(pipes.stdout)


# ---- handing over ------------------------------------------------------------------------


def test_what_is_pipelined_behind_initialize_is_handed_on() -> None:
    later = message(method="initialized") + request(2, "agent/list") + request(3, "agent/count")
    for cut in range(len(later) + 1):
        handover, answers = start(initialize() + later[:cut])
        assert len(answers) == 1
        items = handover.items + handover.parser.feed(later[cut:])
        assert b"".join(frame(item.body) for item in items if isinstance(item, Frame)) == later


@proves("P6")
def test_what_is_no_frame_behind_initialize_is_handed_on_and_reported_once() -> None:
    bad = b"X-No-Length: 1\r\n\r\n"
    later = request(2, "a") + bad + request(3, "b") + bad + b"Content-Length: x\r\n\r\n" + bad
    for cut in range(len(later) + 1):
        handover, answers = start(initialize() + later[:cut])
        assert len(answers) == 1
        items = handover.items + handover.parser.feed(later[cut:] + request(4, "c"))
        kinds = [type(item) for item in items]
        assert kinds == [Frame, FrameError, Frame, FrameError, Frame]


# ---- the Agent Client Protocol -----------------------------------------------------------


def acp(method: str = "initialize", msg_id: int = 0, **params: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": msg_id, "method": method, "params": params}
    return json.dumps(request).encode() + b"\n"


def acp_start(sent: bytes, forced: Any = None) -> tuple[Handover, list[Message]]:
    pipes = Pipes(sent)
    handover = run(pipes.stdin, pipes.stdout, forced)
    return handover, [json.loads(line) for line in pipes.close().splitlines()]


@proves("P6")
@pytest.mark.parametrize("blanks", [b"", b" ", b"\r\n\t \n"])
def test_a_brace_means_acp_which_is_answered_in_lines(blanks: bytes) -> None:
    later = acp("session/new", 1)
    handover, answers = acp_start(blanks + acp(protocolVersion=1) + later + b'{"j')
    assert (handover.kind, handover.exit_code) == ("acp", None)
    (answer,) = answers
    assert answer["id"] == 0
    assert answer["result"]["protocolVersion"] == 1
    assert answer["result"]["agentCapabilities"]["loadSession"] is True
    assert "fork" not in answer["result"]["agentCapabilities"]["sessionCapabilities"]
    assert json.loads(handover.initialize)["method"] == "initialize"
    assert [item.body for item in handover.items] == [later.strip()]
    assert [item.body for item in handover.parser.feed(b'":1}\n')] == [b'{"j":1}']


@proves("P6")
def test_what_is_not_settled_is_offered_to_who_asks_for_it() -> None:
    meta = {"agent-sidecar": {"unstable": True}}
    _, answers = acp_start(acp(protocolVersion=1, _meta=meta))
    assert answers[0]["result"]["agentCapabilities"]["sessionCapabilities"]["fork"] == {}


@proves("P6")
def test_acp_can_be_forced_and_says_what_is_wrong() -> None:
    handover, answers = acp_start(
        b"nonsense\n" + acp("session/new", 1) + acp(msg_id=2) + acp(msg_id=3, protocolVersion=7),
        "acp",
    )
    assert handover.kind == "acp"
    assert errors(answers[:3]) == [(None, -32700), (1, -32600), (2, -32602)]
    assert answers[3]["result"]["protocolVersion"] == 1


# ---- when the rest cannot be loaded ------------------------------------------------------


@proves("P6")
def test_every_request_is_told_why_the_rest_could_not_be_loaded() -> None:
    exit_code, data = refuse(
        initialize()
        + message(method="initialized")
        + request(2, "agent/list")
        + frame(b"{")
        + request("x", "message/send")
        + request(3, "shutdown")
        + request(4, "agent/list")
        + message(method="exit")
        + request(5, "agent/list")
    )
    answers = answers_in(data)[1:]
    failed = {
        "code": -32051,
        "message": "It could not be loaded.",
        "data": {"type": "INITIALIZATION_FAILED", "retryable": False},
    }
    assert [answer["id"] for answer in answers] == [2, None, "x", 3, 4]
    assert [answers[n].get("error") for n in (0, 2, 3, 4)] == [failed, failed, None, failed]
    assert answers[1]["error"]["code"] == -32700
    assert exit_code == 0


@pytest.mark.parametrize("goodbye", [b"", message(method="exit"), message(method="shutdown")])
def test_a_goodbye_without_shutdown_makes_exit_code_1(goodbye: bytes) -> None:
    exit_code, data = refuse(initialize() + goodbye)
    assert (exit_code, len(answers_in(data))) == (1, 1)


def test_requests_in_lines_are_refused_in_lines() -> None:
    exit_code, data = refuse(
        acp(protocolVersion=1) + acp("a", 1) + b"\n" + b"{\n" + acp("b", 2) + b'{"jsonrpc":'
    )
    assert exit_code == 1
    _, *refused = [json.loads(answer) for answer in data.splitlines()]
    assert errors(refused) == [(1, -32051), (None, -32700), (2, -32051)]


# ---- the process -------------------------------------------------------------------------

DRIVER = """
import json, sys
from sidecar.faces.stdio import claim_stdout
from sidecar.faces.prologue import run
handover = run(0, claim_stdout())
bodies = [item.body.decode() for item in handover.items]
print(json.dumps({"loaded": sorted(sys.modules), "items": bodies}))
"""


def python(program: str, sent: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", program],
        input=sent,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )


@proves("P12")
def test_nothing_is_imported_that_takes_time() -> None:
    without = json.loads(python("import json, sys; print(json.dumps(sorted(sys.modules)))").stdout)
    done = python(DRIVER, initialize() + request(2, "agent/list"))
    assert [answer["id"] for answer in answers_in(done.stdout)] == [1]
    told = json.loads(done.stderr)
    assert [frame(body.encode()) for body in told["items"]] == [request(2, "agent/list")]
    assert set(told["loaded"]) - set(without) <= {
        "__future__",
        "collections.abc",
        "sidecar",
        "sidecar.faces",
        "sidecar.faces.prologue",
        "sidecar.faces.stdio",
        "sidecar.wire",
        "sidecar.wire.constants",
        "sidecar.wire.frames",
    }


def test_initialize_may_arrive_byte_by_byte() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        for byte in initialize():
            process.stdin.write(bytes([byte]))
        stdout, _ = process.communicate(timeout=PATIENCE)
    assert [answer["id"] for answer in answers_in(stdout)] == [1]
