"""What the protocol does when something of ours is broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.faces.jsonrpc import make_server
from sidecar.wire import methods as wire
from tests.requirements import proves


class Broken:
    """A task group that takes nothing."""

    def start_soon(self, *args: object, **options: object) -> None:
        raise RuntimeError("a defect, with a secret in it")


@proves("P6")
def test_a_defect_in_our_own_dispatch_costs_one_message(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[dict[str, Any]] = []

    async def count(params: object) -> None:
        raise AssertionError("never begun")

    protocol = make_server({"agent/count": count, "webview/didDisconnect": count}).protocol
    protocol.attach(Broken(), lambda body: sent.append(json.loads(body)))
    protocol.receive(b'{"jsonrpc":"2.0","id":1,"method":"agent/count"}')
    protocol.receive(b'{"jsonrpc":"2.0","method":"webview/didDisconnect"}')
    protocol.receive(b'{"jsonrpc":"2.0","id":2,"method":"shutdown"}')
    refused, answered = sent
    assert (refused["id"], refused["error"]["code"]) == (1, wire.INTERNAL_ERROR)
    assert "secret" not in refused["error"]["message"]
    assert answered == {"jsonrpc": "2.0", "id": 2, "result": None}
    assert len(caplog.records) == 2
