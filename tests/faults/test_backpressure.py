"""A client that does not read harms nobody and loses nothing (P3, P11); no message is too large
to be refused within memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sidecar.faces.connection import Connection
from sidecar.journal import Journal
from sidecar.wire.methods import ConversationsChanged, OfConversation
from tests.e2e import raw_client
from tests.faults.backpressure import BOMB_GROWTH, bombs, explode, stall, window
from tests.requirements import proves

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@proves("P3", "P11")
def test_a_client_that_does_not_read_stops_nothing_and_finds_everything(tmp_path: Path) -> None:
    line = stall(tmp_path, turns=2, pieces=220, delay_ms=1)
    assert "every transcript whole" in line


CONGESTED = "from sidecar.wire.writer import FrameWriter as Writer; send = Writer.send; "
MUTANTS = {
    "responses are dropped": CONGESTED
    + "Writer.send = lambda self, body: None if self._is_congested else send(self, body)",
    "everything is kept": CONGESTED + "Writer._has_room = lambda self, size: not self._is_closed",
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_stall_notices_a_writer_that_is_not_as_it_should_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(raw_client, "DEADLINE", 6.0)
    with pytest.raises(AssertionError, match=r"no response to|not much of a stall"):
        stall(tmp_path, turns=2, pieces=220, delay_ms=1, patch=MUTANTS[name])


class Full:
    """A writer without room until it is told otherwise."""

    def __init__(self) -> None:
        self.has_room = False
        self.written: list[bytes] = []

    def send(self, body: bytes) -> None:
        self.written.append(body)

    def notify(self, body: bytes, *, key: str | None = None) -> bool:
        if self.has_room:
            self.written.append(body)
        return self.has_room

    def delta(self, event: object) -> bool:
        return self.has_room


def test_of_the_states_that_a_client_missed_it_gets_the_newest() -> None:
    writer = Full()
    connection = Connection(writer, Journal(), None, None)  # type: ignore[arg-type]  # not asked
    for number in (1, 2, 3):
        connection.notify("conversations/changed", ConversationsChanged(change_no=number))
        connection.notify("agent/state", OfConversation(conversation_id=f"c{number % 2}"))
    writer.has_room = True
    connection.notify("agent/state", OfConversation(conversation_id="c0"))
    connection.drained()
    connection.drained()
    told = [json.loads(body)["params"] for body in writer.written]
    assert told == [{"conversationId": "c0"}, {"changeNo": 3}, {"conversationId": "c1"}]


@proves("P11")
@pytest.mark.parametrize("name", bombs())
def test_a_message_that_is_too_large_is_refused_within_memory(tmp_path: Path, name: str) -> None:
    with window(tmp_path / "c.db", []) as client:
        growth = explode(client, bombs()[name])
        assert growth <= BOMB_GROWTH
        assert any("error" in m for m in client.frames) or name.startswith(("an id of 1", "an unk"))
        client.check_promises()
