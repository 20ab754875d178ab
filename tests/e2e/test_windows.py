"""Two windows on one store: two real processes that share, and never fork, a conversation (P8)."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from sidecar.client import LiveConversation, Sidecar
from sidecar.conversations import StopReason

pytestmark = pytest.mark.anyio

SLOW = [{"turn": [{"text": "word ", "repeat": 30, "delayMs": 20}]}]
HANG = [{"turn": [{"text": "begun"}, {"hang": True}]}]


class Windows(AsyncExitStack):
    """Opens windows, and what is followed in them, until the test ends."""

    def __init__(self, store: Path) -> None:
        super().__init__()
        self._store = store
        self.enter_context(anyio.fail_after(60))

    async def open(self, script: list[object] | None = None) -> Sidecar:
        settings = {"provider": "scripted", "script": script or []}
        return await self.enter_async_context(Sidecar.spawn(store=self._store, settings=settings))

    async def follow(self, window: Sidecar) -> LiveConversation:
        return await self.enter_async_context(window.follow("shared"))


async def until_text(live: LiveConversation, text: str) -> None:
    """Wait until the newest message shows `text`."""
    while not (live.view.messages and text in live.view.messages[-1].text):
        await live.changes()


async def until_ended(live: LiveConversation) -> None:
    while not (live.view.messages and live.view.messages[-1].status != "streaming") or (
        live.view.messages[-1].role == "user"
    ):
        await live.changes()


async def test_a_turn_is_seen_live_in_the_other_window(tmp_path: Path) -> None:
    async with Windows(tmp_path / "c.db") as windows:
        a, b = await windows.open(SLOW), await windows.open()
        await a.call("conversation/create", conversation_id="shared")
        live = await windows.follow(b)
        sent = a.request("message/send", conversation_id="shared", input="go")
        await until_text(live, "word word")
        assert live.view.messages[-1].status == "streaming"
        await sent.result()
        await until_ended(live)
        stored = await a.call("conversation/get", conversation_id="shared")
        assert live.view.messages == stored.page.messages


async def test_a_prompt_is_run_by_the_window_that_owns_the_conversation(tmp_path: Path) -> None:
    async with Windows(tmp_path / "c.db") as windows:
        a, b = await windows.open(SLOW), await windows.open()
        await a.call("conversation/create", conversation_id="shared")
        first = a.request("message/send", conversation_id="shared", input="one")
        live = await windows.follow(b)
        await until_text(live, "word")
        second = await b.call("message/send", conversation_id="shared", input="two")
        assert second.stop_reason is StopReason.END_TURN
        assert (await first.result()).stop_reason is StopReason.END_TURN
        stored = await b.call("conversation/get", conversation_id="shared")
        assert [m.role for m in stored.page.messages] == ["user", "assistant"] * 2
        assert (await b.call("agent/has", conversation_id="shared")).exists is False


async def test_any_window_can_stop_a_turn(tmp_path: Path) -> None:
    async with Windows(tmp_path / "c.db") as windows:
        a, b = await windows.open(HANG), await windows.open()
        await a.call("conversation/create", conversation_id="shared")
        sent = a.request("message/send", conversation_id="shared", input="go")
        live = await windows.follow(b)
        await until_text(live, "begun")
        assert (await b.call("agent/cancel", conversation_id="shared")).cancelled
        assert (await sent.result()).stop_reason is StopReason.CANCELLED


async def test_a_dead_window_s_turn_is_settled_and_its_queue_taken_up(tmp_path: Path) -> None:
    async with Windows(tmp_path / "c.db") as windows:
        a, b = await windows.open(HANG), await windows.open()
        await a.call("conversation/create", conversation_id="shared")
        live = await windows.follow(b)
        a.request("message/send", conversation_id="shared", input="go")
        await until_text(live, "begun")
        waiting = b.request("message/send", conversation_id="shared", input="echo next")
        pid = (await a.call("sidecar/status")).pid
        os.kill(pid, signal.SIGKILL)
        assert (await waiting.result()).stop_reason is StopReason.END_TURN
        stored = await b.call("conversation/get", conversation_id="shared")
        assert [(m.role, m.status, m.text) for m in stored.page.messages] == [
            ("user", "complete", "go"),
            ("assistant", "interrupted", "begun"),
            ("user", "complete", "echo next"),
            ("assistant", "complete", "next"),
        ]
        while live.view.messages != stored.page.messages:
            await live.changes()


async def test_an_idle_owner_leaves_the_conversation_to_the_next_window(tmp_path: Path) -> None:
    async with Windows(tmp_path / "c.db") as windows:
        a, b = await windows.open(), await windows.open()
        await a.call("conversation/create", conversation_id="shared")
        await a.call("message/send", conversation_id="shared", input="echo a")
        await a.call("agent/dispose", conversation_id="shared")
        await b.call("message/send", conversation_id="shared", input="echo b")
        assert (await b.call("agent/has", conversation_id="shared")).exists is True
