"""Windows that share a store: what one of them does while another has the conversation (P8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from sidecar.conversations import AgentMode, Prompt, StopReason
from sidecar.errors import AgentError, NotFound
from sidecar.events import Delta, TurnEnded
from tests.managers import VIRTUAL, begin, until
from tests.requirements import proves
from tests.windows import Window, settle, windows

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


async def texts(window: Window, conversation_id: str = "c") -> list[tuple[str, str]]:
    return [(m.text, m.status) for m in await window.store.messages(conversation_id)]


@proves("P1", "P8")
async def test_a_prompt_sent_right_after_its_owner_died_runs(tmp_path: Path) -> None:
    """The sender becomes the owner in its own commit, before anybody has settled the turn."""
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        await a.enqueue("c", "hang")
        await anyio.sleep(1)
        a.kill()
        result = await b.manager.send_message("c", Prompt(input="next"))
        assert result.stop_reason is StopReason.END_TURN
        assert await texts(b) == [
            ("hang", "complete"),
            ("hang: ", "interrupted"),
            ("next", "complete"),
            ("next: done", "complete"),
        ]


@proves("P1", "P8")
async def test_a_prompt_that_nobody_waits_for_runs_when_its_owner_dies(tmp_path: Path) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        await a.enqueue("c", "hang")
        await anyio.sleep(1)
        await b.enqueue("c", "left behind")
        await anyio.sleep(1)  # whose agent has seen that it is not its turn
        a.kill()
        await anyio.sleep(5)
        assert ("left behind: done", "complete") in await texts(b)


@proves("P7", "P8")
async def test_a_turn_that_was_taken_over_stops_and_uses_no_tool(tmp_path: Path) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        heard: list[Any] = []
        a.read("c", heard)
        await a.enqueue("c", "tool")
        await anyio.sleep(0.1)
        a.is_held = True  # frozen, in the middle of the turn
        await b.manager.take_over("c", force=True)
        await b.enqueue("c", "mine")
        await anyio.sleep(3)
        await a.go_on()
        await anyio.sleep(3)
        assert all_.tool.calls == []
        assert (await texts(b))[1] == ("", "interrupted")
        (end, _) = [e for e in a.events if isinstance(e, TurnEnded)]
        assert end.stop_reason is StopReason.INTERRUPTED
        after = heard[heard.index(end) :]
        assert not [e for e in after if isinstance(e, Delta) and e.message_id == end.reply_id]
        agent = a.manager.registry.get("c")
        assert agent is None or not (await a.manager.agent_info(agent)).owned_here  # type: ignore[union-attr]


@proves("P8")
async def test_a_model_is_told_what_was_said_in_the_other_window(tmp_path: Path) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        await a.manager.send_message("c", Prompt(input="one"))
        await b.manager.take_over("c", force=True)
        await b.manager.send_message("c", Prompt(input="two"))
        b.kill()
        await a.manager.send_message("c", Prompt(input="three"))
        assert a.histories[-1] == ["one", "one: done", "two", "two: done"]


@proves("P8", "P9")
async def test_a_mode_set_in_another_window_holds_for_the_next_turn(tmp_path: Path) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        await a.manager.send_message("c", Prompt(input="one"))
        await b.manager.set_mode("c", AgentMode.BUILD)
        await a.manager.send_message("c", Prompt(input="two"))
        assert "You change the user's workspace" in a.requests[-1].instructions


@proves("P3", "P8")
async def test_a_conversation_deleted_in_another_window_stops_nothing_here(
    tmp_path: Path,
) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        for name in ("c", "d"):
            await a.create(name)
        lost: list[str] = []
        a.journal.subscribe("c", print, on_lost=lambda: lost.append("c")).start()
        heard: list[Any] = []
        a.read("d", heard)
        await a.manager.get_or_create_agent("c")
        await anyio.sleep(1)
        await b.manager.delete_conversation("c")
        await b.enqueue("d", "hang")
        await anyio.sleep(2)
        assert lost == ["c"]
        assert not a.manager.has_agent("c")
        assert [e.text for e in heard if isinstance(e, Delta)] == ["hang: "]
        await a.create("c")
        await a.manager.send_message("c", Prompt(input="again"))
        assert [e.seq for e in a.events if e.conversation_id == "c"][:2] == [1, 2]


async def test_a_turn_of_another_window_is_stopped_before_its_conversation_is_deleted(
    tmp_path: Path,
) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        async with anyio.create_task_group() as tasks:
            call = begin(tasks, a.manager.send_message, "c", Prompt(input="hang"))
            await anyio.sleep(1)
            await b.manager.delete_conversation("c")
            await call.done.wait()
        assert call.result.stop_reason is StopReason.CANCELLED
        with pytest.raises(NotFound):
            await a.store.get("c")


@proves("P2", "P6")
async def test_a_repeat_hears_of_an_end_that_it_sees_first(tmp_path: Path) -> None:
    """The new window of a reload asks again for what the old one ends; that is the first that
    it sees of the conversation."""
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        key = {"request_key": "k", "params_hash": b"h" * 16}
        async with anyio.create_task_group() as tasks:
            begin(tasks, a.manager.send_message, "c", Prompt(input="hang"), **key)
            await anyio.sleep(1)
            repeat = begin(tasks, b.manager.send_message, "c", Prompt(input="hang"), **key)
            await anyio.sleep(1)
            await a.manager.cancel_turn("c")
            await repeat.done.wait()
        assert repeat.result.stop_reason is StopReason.CANCELLED


async def test_who_was_away_for_long_still_hears_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.stores.write.KEPT_EVENTS", 4)
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        async with anyio.create_task_group() as tasks:
            await a.enqueue("c", "hang")
            await anyio.sleep(1)
            call = begin(tasks, b.manager.send_message, "c", Prompt(input="mine"))
            await anyio.sleep(1)
            b.is_held = True
            await a.manager.cancel_turn("c")
            await anyio.sleep(3)
            for n in range(6):
                await a.store.rename("c", f"title {n}")
            await b.go_on()
            await call.done.wait()
        assert call.result.stop_reason is StopReason.END_TURN


@proves("P8")
async def test_another_window_s_changes_are_told_to_the_list(tmp_path: Path) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        told, changed = a.store.change_no, a.journal.changed
        await b.create("c")
        await changed.wait()
        assert a.store.change_no > told


async def test_more_changes_than_are_told_at_a_time_are_all_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.stores.following.MOST", 2)
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        heard: list[Any] = []
        for n in range(7):
            await b.create(f"c{n}")
            a.read(f"c{n}", heard)
        await anyio.sleep(1)
        a.is_held = True
        for n in range(7):
            await b.store.rename(f"c{n}", "new")
        await a.go_on()
        await anyio.sleep(1)
        assert len(heard) == 7


# ---- at the end ----------------------------------------------------------------------------


@proves("P1", "P7", "P8")
async def test_what_waits_behind_a_turn_of_a_window_that_ends_goes_on_elsewhere(
    tmp_path: Path,
) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        for name in ("c", "d"):
            await a.create(name)
        await a.enqueue("d", "hang")  # keeps the old process
        await a.enqueue("c", "last turn")
        await anyio.sleep(0.1)
        all_.leave(a)
        await b.enqueue("c", "first of the new one")
        await anyio.sleep(4)
        assert [text for text, _ in await texts(b)][1::2] == [
            "last turn: done",
            "first of the new one: done",
        ]
        assert not all_.leaving[0].done()
        await b.manager.cancel_turn("d")
        await all_.leaving[0]


async def test_a_prompt_between_the_last_look_and_the_release_is_not_stranded(
    tmp_path: Path,
) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        await a.manager.send_message("c", Prompt(input="one"))
        a.is_held = True
        agent = a.manager.registry.get("c")
        assert agent is not None
        agent.close("inactive", now=False)  # its release waits at the gate
        await settle()
        await b.enqueue("c", "two")
        await a.go_on()
        await anyio.sleep(5)
        assert ("two: done", "complete") in await texts(b)


async def test_a_cancelled_request_does_not_stop_the_next_prompt_s_turn(tmp_path: Path) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open()
        await a.create("c")
        first = await a.enqueue("c", "one")
        await a.enqueue("c", "two")
        await anyio.sleep(1)
        await until(lambda: a.manager.registry.get("c").turn)  # type: ignore[union-attr]
        assert await b.store.request_cancel("c", first) is None
        await anyio.sleep(5)
        assert ("two: done", "complete") in await texts(a)


async def test_a_take_over_runs_what_waits_even_if_no_agent_is_free(tmp_path: Path) -> None:
    async with windows(tmp_path / "c.db") as all_:
        a, b = await all_.open(), await all_.open(limit=1)
        for name in ("c", "d"):
            await a.create(name)
        await a.enqueue("c", "hang")
        await a.enqueue("c", "next")
        await b.enqueue("d", "hang")
        await anyio.sleep(1)
        with pytest.raises(AgentError):
            await b.manager.take_over("c", force=True)
        await b.manager.cancel_turn("d")
        await anyio.sleep(5)
        assert ("next: done", "complete") in await texts(b)
