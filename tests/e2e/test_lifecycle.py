"""How the process begins and how it ends, whoever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.raw_client import RawClient, body_of, command, frame, frames_of, request
from tests.requirements import proves

Spawn = Callable[..., RawClient]

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and descriptors")

TALKS: dict[str, Any] = {"settings": {"provider": "scripted"}}
"""The prompt is the script: `echo X`, `hang`, …"""


def hanging_turn(
    client: RawClient, *, linger_timeout: int = 0, process_id: int | None = None
) -> int | str:
    """A turn that has said something and does not end; returns the id of its request."""
    script = [{"text": "so far "}, {"text": "so good"}, {"hang": True}]
    settings = {"provider": "scripted", "script": script, "lingerTimeout": linger_timeout}
    client.start({"settings": settings}, processId=process_id)
    client.call("conversation/create", {"conversationId": "c"})
    msg_id = client.start_request("message/send", {"conversationId": "c", "input": "go"})
    client.event("c", "delta", text="so good")
    return msg_id


def last_message(client: RawClient) -> dict[str, Any]:
    """The newest message of conversation c, as a later process finds it."""
    page = client.call("conversation/get", {"conversationId": "c"})["page"]
    message: dict[str, Any] = page["messages"][-1]
    return message


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["kind"] == "text")


# ---- initialize ----------------------------------------------------------------------------


def test_initialize_is_answered_and_then_the_store_opens(spawn: Spawn) -> None:
    client = spawn()
    result = client.initialize()
    sidecar = result["capabilities"]["experimental"]["sidecar"]
    assert sidecar["protocolVersion"] == 1
    assert "message/send" in sidecar["methods"]
    ready = client.notification("sidecar/ready")
    assert "degraded" not in ready
    assert client.shut_down() == 0


def test_a_request_before_initialize_is_refused_and_initialize_still_works(spawn: Spawn) -> None:
    client = spawn()
    assert client.error("agent/count")["code"] == -32002
    client.notify("initialized")
    client.notify("webview/didDisconnect", {"webviewId": "w"})
    client.start()
    client.ping()


def test_a_second_initialize_is_refused_and_changes_nothing(spawn: Spawn) -> None:
    client = spawn()
    client.start()
    error = client.error("initialize", {"initializationOptions": TALKS})
    assert error["code"] == -32600
    assert client.call("settings/get")["settings"]["provider"] == "offline"


@pytest.mark.parametrize(
    "options", [{"protocolVersions": [2, 99]}, {"protocolVersion": 7}, {"protocolVersions": []}]
)
def test_an_unknown_version_of_the_protocol_is_an_error_that_names_ours(
    spawn: Spawn, options: dict[str, Any]
) -> None:
    client = spawn()
    error = client.error("initialize", {"initializationOptions": options})
    assert error["data"]["type"] == "INITIALIZATION_FAILED"
    assert "speaks 1" in error["message"]
    client.start({"protocolVersions": [99, 1]})


@pytest.mark.parametrize(
    "params",
    [
        {"initializationOptions": "nonsense"},
        {"initializationOptions": {"settings": {"provider": "nonsense"}}},
        {"initializationOptions": {"settings": {"noSuchSetting": 1}}},
        {"initializationOptions": {"settings": {"geminiApiKey": "sk-secret-123"}}},
        {"initializationOptions": {"secrets": {"geminiApiKey": ["sk-secret-123"]}}},
        {"initializationOptions": {"sessionId": 5}},
        {"workspaceFolders": "everything"},
        {"processId": "me"},
        {"rootUri": 7},
        {"capabilities": []},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_left_out_and_the_user_is_told(
    spawn: Spawn, params: dict[str, Any]
) -> None:
    client = spawn()
    client.start(**params)
    shown = client.notification("window/showMessage", type=2)["message"]
    assert "not understood" in shown
    assert "sk-secret-123" not in shown
    client.ping()
    assert "sk-secret-123" not in client.stderr.decode()


@pytest.mark.parametrize(
    "params",
    [
        rb'{"clientInfo":{"name":"\ud800"}}',
        rb'{"initializationOptions":{"webviewId":"\udc00 ","sessionId":"mine"}}',
        b'{"processId":1e400,"initializationOptions":{"sessionId":"mine"}}',
        b'{"processId":null,"processId":"me"}',
    ],
)
def test_what_the_prologue_could_answer_the_server_can_read(spawn: Spawn, params: bytes) -> None:
    client = spawn()
    body = b'{"jsonrpc":"2.0","id":1,"id":1,"method":5,"method":"initialize","params":%b}' % params
    client.send_bytes(frame(body))
    assert "result" in client.response(1)
    made = client.call("conversation/create", {})
    assert made["sessionId"] == ("mine" if b"mine" in params else "user")


def test_one_bad_option_does_not_cost_the_good_ones(spawn: Spawn, tmp_path: Path) -> None:
    client = spawn()
    client.start(
        {
            "settings": {"provider": "scripted", "noSuchSetting": 1},
            "secrets": {"geminiApiKey": "sk-secret-123", "noSuchSecret": "x"},
            "sessionId": "mine",
        },
        workspaceFolders=[{"uri": tmp_path.as_uri(), "name": "w"}, {"name": "no uri"}],
        rootUri=tmp_path.as_uri(),
    )
    assert "noSuchSetting" in client.notification("window/showMessage")["message"]
    shown = client.call("settings/get")
    assert shown["settings"]["provider"] == "scripted"
    assert shown["secretsPresent"] == ["geminiApiKey"]
    made = client.call("conversation/create", {})
    assert made["sessionId"] == "mine"
    assert made["roots"] == [str(tmp_path.resolve())]


def test_an_untrusted_workspace_has_no_roots(spawn: Spawn, tmp_path: Path) -> None:
    client = spawn()
    client.start({"workspaceTrusted": False}, rootUri=tmp_path.as_uri())
    assert client.call("conversation/create", {})["roots"] == []


@pytest.mark.parametrize("trusted", ["no", 0, None], ids=repr)
def test_trust_that_is_not_plainly_given_is_not_given(
    spawn: Spawn, tmp_path: Path, trusted: object
) -> None:
    client = spawn()
    client.start({"workspaceTrusted": trusted}, rootUri=tmp_path.as_uri())
    assert client.call("conversation/create", {})["roots"] == []


def test_a_whole_start_in_one_write_is_answered_in_order(spawn: Spawn) -> None:
    client = spawn()
    asked = [request(n, "agent/has", {"conversationId": f"c{n}"}) for n in range(2, 52)]
    client.send(request(1, "initialize", {}), {"jsonrpc": "2.0", "method": "initialized"}, *asked)
    client.response(51)
    answers = [message["id"] for message in client.frames if "id" in message]
    assert answers == list(range(1, 52))
    assert all("result" in message for message in client.frames if "id" in message)


def test_a_prompt_may_come_right_behind_the_conversation_it_is_for(spawn: Spawn) -> None:
    client = spawn()
    client.send(
        request(1, "initialize", {"initializationOptions": TALKS}),
        request(2, "conversation/create", {"conversationId": "c"}),
        request(3, "message/send", {"conversationId": "c", "input": "echo hi"}),
    )
    assert client.response(3)["result"]["stopReason"] == "endTurn"


def test_a_start_cut_into_single_bytes_is_the_same_start(spawn: Spawn) -> None:
    client = spawn()
    for byte in frames_of([request(1, "initialize", {}), request(2, "agent/count")]):
        client.send_bytes(bytes([byte]))
    assert client.response(2)["result"] == {"count": 0}


# ---- the end, by the book ------------------------------------------------------------------


def test_shutdown_and_exit_end_with_0(spawn: Spawn) -> None:
    client = spawn()
    client.start()
    assert client.shut_down() == 0


def test_after_shutdown_requests_are_refused_until_exit(spawn: Spawn) -> None:
    client = spawn()
    client.start()
    client.call("shutdown")
    assert client.error("agent/count")["code"] == -32600
    assert client.error("shutdown")["code"] == -32600
    client.notify("exit")
    assert client.exit_code() == 0


def test_exit_without_shutdown_ends_with_1(spawn: Spawn) -> None:
    client = spawn()
    client.start()
    client.notify("exit")
    assert client.exit_code() == 1


def test_exit_before_initialize_ends_with_1(spawn: Spawn) -> None:
    client = spawn()
    client.notify("exit")
    assert client.exit_code() == 1


def test_goodbye_in_one_write_with_the_start_is_honoured(spawn: Spawn) -> None:
    client = spawn()
    client.send(
        request(1, "initialize", {}),
        request(2, "shutdown"),
        {"jsonrpc": "2.0", "method": "exit"},
    )
    assert client.exit_code() == 0
    assert client.response(2)["result"] is None


def test_exit_in_a_running_turn_answers_it_and_keeps_its_text(spawn: Spawn) -> None:
    client = spawn()
    msg_id = hanging_turn(client)
    client.call("shutdown")
    client.notify("exit")
    assert client.exit_code() == 0
    assert client.result(msg_id)["stopReason"] == "interrupted"
    again = spawn()
    again.start()
    message = last_message(again)
    assert (message["status"], text_of(message)) == ("interrupted", "so far so good")


# ---- the end, by an editor that is gone ----------------------------------------------------


def test_the_end_of_stdin_before_anything_ends_the_process(spawn: Spawn) -> None:
    client = spawn()
    client.close_stdin()
    assert client.exit_code() == 1
    assert client.frames == []


def test_the_end_of_stdin_after_initialize_ends_the_process(spawn: Spawn) -> None:
    client = spawn()
    client.start()
    client.close_stdin()
    assert client.exit_code() == 0


@pytest.mark.parametrize("cut", [3, 30, -1])
def test_the_end_of_stdin_within_a_frame_ends_the_process(spawn: Spawn, cut: int) -> None:
    client = spawn()
    client.start()
    client.send_bytes(frame(body_of(request(1, "agent/count")))[:cut])
    client.close_stdin()
    assert client.exit_code() == 0
    assert not any(message.get("id") == 1 for message in client.frames)


def test_what_came_before_the_end_of_stdin_is_not_forgotten(spawn: Spawn) -> None:
    client = spawn()
    client.start({"settings": {"provider": "scripted", "lingerTimeout": 10_000}})
    client.send(
        request(1, "conversation/create", {"conversationId": "c"}),
        request(2, "message/enqueue", {"conversationId": "c", "input": "echo hi"}),
    )
    client.response(2)
    client.close_stdin()
    client.exit_code()
    again = spawn()
    again.start(TALKS)
    again.call("conversation/subscribe", {"conversationId": "c"})
    if again.call("message/queue", {"conversationId": "c"})["entries"]:
        again.event("c", "turnEnded")
    assert text_of(last_message(again)) == "hi"


EDITOR = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:])
sys.stderr.write(f"child {child.pid}\\n")
sys.stderr.flush()
child.wait()
"""
"""An editor: it starts the sidecar on its own stdin and stdout, whose other ends we hold."""


@posix_only
def test_a_dead_editor_is_noticed_while_somebody_else_holds_our_stdin(
    spawn: Spawn, store: Path
) -> None:
    client = spawn([sys.executable, "-c", EDITOR, *command(store)])
    client.start(processId=client.process.pid)
    client.process.kill()
    client.wait_for_end(within=15)


@posix_only
def test_a_dead_editor_ends_a_running_turn_as_well(spawn: Spawn, store: Path) -> None:
    client = spawn([sys.executable, "-c", EDITOR, *command(store)])
    hanging_turn(client, process_id=client.process.pid)
    client.process.kill()
    client.wait_for_end(within=15)
    again = spawn()
    again.start()
    assert text_of(last_message(again)) == "so far so good"


def test_an_editor_that_is_dead_before_it_is_named_is_noticed_too(spawn: Spawn) -> None:
    editor = subprocess.Popen([sys.executable, "-c", ""])
    editor.wait()
    client = spawn()
    client.initialize(processId=editor.pid)
    assert client.exit_code() == 0


@pytest.mark.parametrize("process_id", [None, 0, -1, 2**40, 10**30], ids=str)
def test_a_process_id_that_names_nobody_does_no_harm(spawn: Spawn, process_id: int | None) -> None:
    client = spawn()
    client.send(request(1, "initialize", {"processId": process_id}), request(2, "agent/count"))
    assert client.response(2)["result"] == {"count": 0}
    client.ping()


def test_a_turn_is_interrupted_when_the_editor_is_gone_and_nothing_may_linger(
    spawn: Spawn,
) -> None:
    client = spawn()
    hanging_turn(client)
    client.close_stdin()
    assert client.exit_code() == 0
    again = spawn()
    again.start()
    message = last_message(again)
    assert (message["status"], text_of(message)) == ("interrupted", "so far so good")
    assert again.call("message/queue", {"conversationId": "c"})["entries"] == []


def test_a_turn_that_may_linger_ends_well_without_its_editor(spawn: Spawn) -> None:
    client = spawn()
    script = [{"text": "before, "}, {"text": "after", "delayMs": 600}]
    client.start({"settings": {"provider": "scripted", "script": script}})
    client.call("conversation/create", {"conversationId": "c"})
    client.start_request("message/send", {"conversationId": "c", "input": "go"})
    client.event("c", "delta", text="before, ")
    client.close_stdin()
    assert client.exit_code() == 0
    again = spawn()
    again.start()
    message = last_message(again)
    assert (message["status"], text_of(message)) == ("complete", "before, after")


def test_what_lingers_too_long_is_interrupted(spawn: Spawn) -> None:
    client = spawn()
    hanging_turn(client, linger_timeout=300)
    client.close_stdin()
    assert client.exit_code() == 0
    again = spawn()
    again.start()
    assert last_message(again)["status"] == "interrupted"


def test_a_prompt_that_waited_is_still_there_for_the_next_window(spawn: Spawn) -> None:
    client = spawn()
    hanging_turn(client)
    waiting = client.call("message/enqueue", {"conversationId": "c", "input": "echo next"})
    client.close_stdin()
    client.exit_code()
    again = spawn()
    again.start(TALKS)
    [entry] = again.call("message/queue", {"conversationId": "c"})["entries"]
    assert (entry["messageId"], entry["state"]) == (waiting["messageId"], "queued")
    again.call("conversation/subscribe", {"conversationId": "c"})
    again.event("c", "turnEnded", messageId=waiting["messageId"], stopReason="endTurn")


# ---- signals -------------------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_process_in_order(spawn: Spawn, number: signal.Signals) -> None:
    client = spawn()
    msg_id = hanging_turn(client)
    client.process.send_signal(number)
    assert client.exit_code() == 0
    assert client.result(msg_id)["stopReason"] == "interrupted"
    again = spawn()
    again.start()
    assert text_of(last_message(again)) == "so far so good"


@posix_only
def test_a_signal_does_not_wait_for_a_turn_that_may_linger(spawn: Spawn) -> None:
    client = spawn()
    hanging_turn(client, linger_timeout=60_000)
    client.process.terminate()
    assert client.exit_code() == 0


def test_a_killed_process_leaves_what_was_streamed(spawn: Spawn) -> None:
    client = spawn()
    hanging_turn(client)
    # A reader who joins makes the text be stored that it is to count on.
    client.call("conversation/subscribe", {"conversationId": "c"})
    client.kill()
    again = spawn()
    again.start()
    message = last_message(again)
    assert (message["status"], text_of(message)) == ("interrupted", "so far so good")


# ---- the other two streams -----------------------------------------------------------------


@posix_only
def test_nobody_reads_our_stderr(spawn: Spawn) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb") as stderr:
        client = spawn(stderr=stderr)
    os.close(ours)
    client.start({"settings": TALKS["settings"] | {"logLevel": "debug"}})
    client.call("conversation/create", {"conversationId": "c"})
    result = client.call("message/send", {"conversationId": "c", "input": "echo hi"})
    assert result["stopReason"] == "endTurn"
    assert client.shut_down() == 0


@posix_only
@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_there_is_no_stderr_to_write_to(spawn: Spawn, store: Path, stderr: str) -> None:
    argv = loud(store) if stderr == "2>&-" else command(store)
    client = spawn(["sh", "-c", f'exec "$@" {stderr}', "sh", *argv])
    client.start({"settings": TALKS["settings"] | {"logLevel": "debug"}})
    client.call("conversation/create", {"conversationId": "c"})
    assert client.call("agent/count") == {"count": 0}
    result = client.call("message/send", {"conversationId": "c", "input": "echo hi"})
    assert result["stopReason"] == "endTurn"
    assert client.shut_down() == 0


def test_nobody_reads_our_answers_any_more(spawn: Spawn) -> None:
    client = spawn()
    client.start()
    client.stop_reading()
    client.send(request(1, "agent/count"))
    assert client.exit_code() in (0, 1)


def test_nobody_reads_our_answers_from_the_first_on(spawn: Spawn) -> None:
    client = spawn(reads=False)
    client.send(request(1, "initialize", {}))
    assert client.exit_code() == 1


def test_a_turn_whose_reader_is_gone_is_kept(spawn: Spawn) -> None:
    client = spawn()
    hanging_turn(client)
    client.stop_reading()
    client.send(request(1, "agent/count"))
    client.exit_code()
    again = spawn()
    again.start()
    assert text_of(last_message(again)) == "so far so good"


LOUD = """
import os, subprocess, sys
kept = sys.stdout
from sidecar.manager import AgentManager
quiet = AgentManager.active_agent_count
def loud(self):
    print("noise 1")
    os.write(1, b"noise 2\\n")
    print("noise 3", file=sys.__stdout__, flush=True)
    print("noise 4", file=kept, flush=True)
    subprocess.run([sys.executable, "-c", "print('noise 5')"])
    return quiet(self)
AgentManager.active_agent_count = loud
from sidecar.__main__ import main
main()
"""
"""The product, with a library in it that prints in every way there is."""


def loud(store: Path) -> list[str]:
    return [sys.executable, "-I", "-c", LOUD, "serve", "--store", str(store)]


def test_a_library_that_prints_does_not_get_into_the_stream(spawn: Spawn, store: Path) -> None:
    client = spawn(loud(store))
    client.start()
    assert client.call("agent/count") == {"count": 0}
    for number in range(1, 6):
        client.wait_for_stderr(f"noise {number}")
    assert client.garbage == []


# ---- surroundings --------------------------------------------------------------------------


def test_files_in_the_folder_it_is_started_in_are_not_taken_for_its_own(
    spawn: Spawn, tmp_path: Path
) -> None:
    for name in ("json", "asyncio", "sitecustomize", "usercustomize", "sidecar", "msgspec"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was hijacked')")
    client = spawn(cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    client.start()
    client.ping()
    assert client.shut_down() == 0
    assert b"hijacked" not in client.stderr


@posix_only
def test_it_needs_no_home_and_no_locale(spawn: Spawn, store: Path) -> None:
    client = spawn(env={"LANG": "C", "LC_ALL": "C"})
    client.start(TALKS)
    client.call("conversation/create", {"conversationId": "c", "title": "Grüße 🙂"})
    client.call("message/send", {"conversationId": "c", "input": "echo Ünïcödé 🙂 日本"})
    assert text_of(last_message(client)) == "Ünïcödé 🙂 日本"
    assert client.shut_down() == 0


@posix_only
def test_a_store_may_have_any_name(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "ein Ordner ü%20?x=1#y" / "störe 🙂.db"
    client = spawn(command(path), env={"LC_ALL": "C"})
    assert "degraded" not in client.start()
    assert path.is_file()


@posix_only
def test_without_a_path_the_store_is_in_the_users_data_folder(spawn: Spawn, tmp_path: Path) -> None:
    client = spawn(
        [sys.executable, "-I", "-m", "sidecar"], env={"XDG_DATA_HOME": str(tmp_path / "data")}
    )
    client.start()
    assert (tmp_path / "data" / "agent-sidecar" / "conversations.db").is_file()


@pytest.mark.parametrize(
    "args", [["--store"], ["--nonsense"], ["--store", ""], ["--store=a", "b"]], ids=str
)
def test_a_wrong_command_line_is_explained(tmp_path: Path, args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "sidecar", "serve", *args],
        cwd=tmp_path,
        input=b"",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert b"usage" in done.stderr
    assert done.stdout == b""
    assert list(tmp_path.iterdir()) == []


@proves("P3", "P12")
def test_a_prompt_sent_along_with_its_conversation_is_heard_from_its_first_event(
    spawn: Spawn,
) -> None:
    """A client that waits for nothing: both are on their way before the store is open."""
    client = spawn()
    ids = [f"c{number}" for number in range(40)]
    client.start_request(
        "initialize",
        {"initializationOptions": {"settings": {"provider": "scripted", "maxActiveAgents": 50}}},
    )
    for id_ in ids:
        client.start_request("conversation/create", {"conversationId": id_})
        client.start_request("message/send", {"conversationId": id_, "input": "echo hello"})
    for id_ in ids:
        client.event(id_, "turnEnded")
        numbers = [e["seq"] for e in client.events(id_) if e["type"] != "delta"]
        assert numbers == list(range(1, len(numbers) + 1)), id_
