"""The client against the real process, over real pipes."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from sidecar.client import LiveConversation, ProtocolError, Sidecar, SidecarDied, link, process
from sidecar.conversations import Conversation, MessageStatus, Receipt, StopReason, TurnResult
from sidecar.errors import Conflict, InvalidState, LoadFailed, NotFound, StoreUnavailable
from sidecar.events import Delta, MessageCompleted, TurnEnded, TurnStarted
from sidecar.wire.methods import ConversationPage, Status

pytestmark = pytest.mark.anyio

needs_posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
SLOW = 60
"""Far more than anything takes: these only keep a defect from hanging the run."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "conversations.db"


def spawn(store: Path, **options: Any) -> AbstractAsyncContextManager[Sidecar]:
    settings = {"provider": "scripted", "lingerTimeout": 0} | options.pop("settings", {})
    return Sidecar.spawn(store=store, settings=settings, **options)


async def begin(sidecar: Sidecar) -> Conversation:
    made: Conversation = await sidecar.call("conversation/create")
    return made


async def until(live: LiveConversation, kind: type) -> Any:
    with anyio.fail_after(SLOW):
        async for change in live:
            if isinstance(change, kind):
                return change
    raise AssertionError("the stream ended")


async def test_two_turns_are_answered_and_kept(store: Path) -> None:
    async with spawn(store) as sidecar:
        made = await begin(sidecar)
        for text in ("one", "two"):
            result: TurnResult = await sidecar.call(
                "message/send", conversation_id=made.conversation_id, input=text
            )
            assert result.stop_reason is StopReason.END_TURN
    async with spawn(store) as sidecar:
        page: ConversationPage = await sidecar.call(
            "conversation/get", conversation_id=made.conversation_id
        )
        said = [message.text for message in page.page.messages]
        assert said == ["one", "You said: one", "two", "You said: two"]


async def test_a_followed_conversation_shows_the_stored_transcript(store: Path) -> None:
    async with spawn(store) as sidecar:
        made = await begin(sidecar)
        async with sidecar.follow(made.conversation_id) as live:
            await sidecar.call(
                "message/enqueue", conversation_id=made.conversation_id, input="repeat 50 ab"
            )
            await until(live, TurnEnded)
            page = await sidecar.call("conversation/get", conversation_id=made.conversation_id)
            assert live.view.messages == page.page.messages
            assert live.view.messages[-1].text == "ab" * 50
            assert live.view.cursor.store_id == sidecar.ready.store_id
        with pytest.raises(NotFound):
            async with sidecar.follow("nobody"):
                pass


async def test_raw_events_come_as_they_are_sent(store: Path) -> None:
    async with spawn(store) as sidecar:
        made = await begin(sidecar)
        with sidecar.events(made.conversation_id) as events:
            result: TurnResult = await sidecar.call(
                "message/send", conversation_id=made.conversation_id, input="echo hi"
            )
            events.close()
            seen = [event async for event in events]
        assert [e.text for e in seen if isinstance(e, Delta)] == ["hi"]
        assert isinstance(seen[-1], TurnEnded)
        assert seen[-1].message_id == result.message_id


async def test_errors_come_as_their_class_and_undo_nothing_else(store: Path) -> None:
    async with spawn(store) as sidecar:
        with pytest.raises(NotFound) as not_found:
            await sidecar.call("conversation/get", conversation_id="nobody")
        assert not_found.value.conversation_id == "nobody"
        with pytest.raises(LoadFailed):
            await sidecar.call("conversation/export", conversation_id="nobody")
        with pytest.raises(ProtocolError) as refused:
            await sidecar.call("conversation/get", conversation_id="not/an/id")
        assert refused.value.code == -32602
        assert "conversationId" in refused.value.message
        assert (await sidecar.call("agent/count")).count == 0


async def test_what_the_block_raises_leaves_it_as_it_is(store: Path) -> None:
    with pytest.raises(NotFound):
        async with spawn(store) as sidecar:
            await sidecar.call("conversation/get", conversation_id="nobody")


async def test_the_same_request_key_is_the_same_message(store: Path) -> None:
    async with spawn(store) as sidecar:
        made = await begin(sidecar)
        send = {"conversation_id": made.conversation_id, "request_key": "k"}
        first: Receipt = await sidecar.call("message/enqueue", input="hi", **send)
        second: Receipt = await sidecar.call("message/enqueue", input="hi", **send)
        assert (second.message_id, second.duplicate) == (first.message_id, True)
        with pytest.raises(Conflict):
            await sidecar.call("message/enqueue", input="other", **send)


async def test_cancelling_the_caller_cancels_the_turn(store: Path) -> None:
    async with spawn(store) as sidecar:
        made = await begin(sidecar)
        async with sidecar.follow(made.conversation_id) as live:
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    await sidecar.call(
                        "message/send", conversation_id=made.conversation_id, input="hang"
                    )

                tasks.start_soon(ask)
                await until(live, TurnStarted)
                tasks.cancel_scope.cancel()
            ended: TurnEnded = await until(live, TurnEnded)
            assert ended.stop_reason is StopReason.CANCELLED


async def test_a_call_that_is_cancelled_is_still_answered(store: Path) -> None:
    async with spawn(store) as sidecar:
        made = await begin(sidecar)
        async with sidecar.follow(made.conversation_id) as live:
            call = sidecar.request(
                "message/send", conversation_id=made.conversation_id, input="hang"
            )
            await until(live, TurnStarted)
            call.cancel()
            with anyio.fail_after(SLOW):
                result: TurnResult = await call.result()
            assert result.stop_reason is StopReason.CANCELLED
            call.cancel()  # it is over: nothing to do


@needs_posix
async def test_a_killed_sidecar_fails_who_waits_and_goes_on_after_reconnecting(
    store: Path,
) -> None:
    script = [{"turn": [{"text": "begun"}, {"hang": True}]}]
    async with spawn(store, settings={"script": script}) as sidecar:
        made = await begin(sidecar)
        async with sidecar.follow(made.conversation_id) as live:
            call = sidecar.request(
                "message/send",
                conversation_id=made.conversation_id,
                input="hang",
                request_key="k",
            )
            await until(live, Delta)  # so that it was asked, and is not asked again
            os.kill(sidecar.process_id, signal.SIGKILL)
            with pytest.raises(SidecarDied) as died, anyio.fail_after(SLOW):
                await call.result()
            assert died.value.exit_code == -signal.SIGKILL
            with pytest.raises(SidecarDied):
                await sidecar.call("agent/count")
            with pytest.raises(SidecarDied):
                await until(live, TurnEnded)

            await sidecar.reconnect()
            ended: TurnEnded = await until(live, TurnEnded)
            assert ended.stop_reason is StopReason.INTERRUPTED
            assert live.view.messages[-1].status is MessageStatus.INTERRUPTED
            await sidecar.call("message/enqueue", conversation_id=made.conversation_id, input="hi")
            completed: MessageCompleted = await until(live, MessageCompleted)
            assert completed.message is not None
            assert completed.message.text == "hi"


@needs_posix
async def test_a_transcript_seen_across_kills_is_the_stored_one(store: Path) -> None:
    script = [{"text": "abc ", "repeat": 2_000, "delayMs": 1}]
    async with spawn(store, settings={"script": script}) as sidecar:
        made = await begin(sidecar)
        async with sidecar.follow(made.conversation_id) as live:
            for _ in range(2):
                await sidecar.call(
                    "message/enqueue", conversation_id=made.conversation_id, input="go"
                )
                await until(live, Delta)
                await until(live, Delta)
                os.kill(sidecar.process_id, signal.SIGKILL)
                with pytest.raises(SidecarDied):
                    await until(live, TurnEnded)
                await sidecar.reconnect()
                await until(live, TurnEnded)
            page = await sidecar.call("conversation/get", conversation_id=made.conversation_id)
            assert msgspec.json.encode(live.view.messages) == msgspec.json.encode(
                page.page.messages
            )


@needs_posix
async def test_the_process_is_gone_when_the_block_ends(store: Path) -> None:
    async with spawn(store) as sidecar:
        pid = sidecar.process_id
        await sidecar.call("agent/count")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(SidecarDied):
        await sidecar.call("agent/count")


@needs_posix
async def test_a_sidecar_that_does_not_answer_is_killed(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "SHUTDOWN_SECONDS", 0.1)
    monkeypatch.setattr(process, "EXIT_SECONDS", 0.1)
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.1)
    with anyio.fail_after(SLOW):
        async with spawn(store) as sidecar:
            os.kill(sidecar.process_id, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(sidecar.process_id, 0)


@needs_posix
async def test_a_cancelled_block_stops_its_sidecar_too(store: Path) -> None:
    with anyio.CancelScope() as scope:
        async with spawn(store) as sidecar:
            pid = sidecar.process_id
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_command_that_does_not_exist_says_so(store: Path) -> None:
    with pytest.raises(SidecarDied) as died:
        async with Sidecar.spawn(["no-such-sidecar"], store=store):
            pass
    assert "no-such-sidecar" in str(died.value.hint)


async def test_the_last_words_of_a_process_explain_its_death(store: Path) -> None:
    dying = [sys.executable, "-c", "raise OSError('the moon is full')"]
    with pytest.raises(SidecarDied) as died:
        async with Sidecar.spawn(dying, store=store):
            pass
    assert died.value.exit_code == 1
    assert died.value.hint == "OSError: the moon is full"


async def test_a_store_that_cannot_be_opened_is_an_error_of_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "folder.db"
    folder.mkdir()
    with pytest.raises(StoreUnavailable):
        async with spawn(folder):
            pass


async def test_no_key_reaches_the_environment_of_the_process(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in process.KEY_VARIABLES:
        monkeypatch.setenv(variable, "hunter2")
    said = bytearray()
    telling = [
        sys.executable,
        "-c",
        "import os, sys; print(dict(os.environ), sys.argv, file=sys.stderr)",
    ]
    with pytest.raises(SidecarDied):
        async with Sidecar.spawn(
            telling, store=store, secrets={"geminiApiKey": "hunter2"}, log=said.extend
        ):
            pass
    assert b"PATH" in said
    assert b"hunter2" not in said
    assert not any(variable.encode() in said for variable in process.KEY_VARIABLES)


async def test_settings_and_workspace_arrive(store: Path, tmp_path: Path) -> None:
    async with spawn(
        store, settings={"maxActiveAgents": 3}, workspace=[tmp_path], secrets={"openaiApiKey": "k"}
    ) as sidecar:
        status: Status = await sidecar.call("sidecar/status")
        assert status.max_active_agents == 3
        assert (await begin(sidecar)).roots == (os.path.realpath(tmp_path),)  # noqa: ASYNC240  # a test may wait
        shown = await sidecar.call("settings/get")
        assert shown.secrets_present == ("openaiApiKey",)


async def test_a_conversation_is_followed_once(store: Path) -> None:
    async with spawn(store) as sidecar:
        made = await begin(sidecar)
        async with sidecar.follow(made.conversation_id):
            with pytest.raises(InvalidState):
                async with sidecar.follow(made.conversation_id):
                    pass
        async with sidecar.follow(made.conversation_id):
            pass


async def test_a_listener_hears_what_is_no_event(store: Path) -> None:
    heard: list[str] = []
    async with spawn(store, listener=lambda method, _: heard.append(method)) as sidecar:
        await begin(sidecar)
    assert heard[0] == "sidecar/ready"
    assert "conversation/event" not in heard
