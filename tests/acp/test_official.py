"""The judge of the other tests notices what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acp.official import needs_schema, official

pytestmark = needs_schema

SESSION = {"cwd": "/w", "mcpServers": []}
CHUNK = {
    "sessionUpdate": "agent_message_chunk",
    "content": {"type": "text", "text": "hi"},
}


def request(method: str, params: Any, msg_id: int = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": msg_id, "method": method, "params": params}


def result(value: Any, msg_id: int = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": msg_id, "result": value}


def update(value: Any) -> dict[str, Any]:
    params = {"sessionId": "s", "update": value}
    return {"jsonrpc": "2.0", "method": "session/update", "params": params}


GOOD = [
    (">", request("session/new", SESSION)),
    ("<", result({"sessionId": "s"})),
    ("<", update(CHUNK)),
    (">", {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "s"}}),
]


def test_what_is_right_is_right() -> None:
    assert official().problems(GOOD) == []


@pytest.mark.parametrize(
    ("place", "frame"),
    [
        (0, (">", request("session/new", {"cwd": "/w"}))),
        (0, (">", request("session/invented", SESSION))),
        (1, ("<", result({"sessionId": 7}))),
        (1, ("<", result({"sessionId": "s"}, 9))),
        (1, ("<", {"jsonrpc": "2.0", "id": 1, "error": {"message": "no code"}})),
        (1, ("<", {"id": 1, "result": {"sessionId": "s"}})),
        (2, ("<", update({"sessionUpdate": "agent_message_chunk"}))),
        (2, ("<", {"jsonrpc": "2.0", "method": "session/shouted", "params": {}})),
        (3, (">", {"jsonrpc": "2.0", "method": "session/cancel", "params": {}})),
    ],
)
def test_what_is_wrong_is_noticed(place: int, frame: Any) -> None:
    assert official().problems([*GOOD[:place], frame, *GOOD[place + 1 :]])
