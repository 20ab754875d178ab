"""The editor dies, or a provider never yields: the sidecar ends in time and leaves nothing (P7)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.raw_client import RawClient, command, request
from tests.faults.process_life import (
    STUBBORN,
    STUBBORN_OPTIONS,
    STUCK,
    WAYS,
    Death,
    Way,
    kill_editor,
    report,
)
from tests.requirements import proves

Spawn = Callable[..., RawClient]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

HASTY = """
from functools import partial
from sidecar.serving import process as serving
serving.Watchdog = partial(serving.Watchdog, look=0.05)
"""
"""A watchdog that looks twenty times as often."""


def hasty(store: Path) -> list[str]:
    return [sys.executable, "-I", "-c", HASTY + STUBBORN, "serve", "--store", str(store)]


def stuck_turn(client: RawClient, prompt: str = "spin") -> None:
    client.start(STUBBORN_OPTIONS)
    client.call("conversation/create", {"conversationId": "c"})
    client.start_request("message/send", {"conversationId": "c", "input": prompt})
    client.event("c", "delta")


@proves("P7")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_dead_editor_leaves_no_sidecar(tmp_path: Path, way: Way) -> None:
    death = kill_editor(way, tmp_path)
    assert death.is_fine, death


@proves("P7")
@pytest.mark.parametrize("way", STUCK, ids=lambda way: way.name)
def test_a_dead_editor_leaves_no_sidecar_that_is_stuck(tmp_path: Path, way: Way) -> None:
    store = tmp_path / "store" / "c.db"
    death = kill_editor(way, tmp_path, hasty(store))
    assert death.is_fine, death


def test_an_orphan_is_noticed() -> None:
    way = WAYS[0]
    assert report([Death(way, 0.1)])
    for death in (Death(way, 0.1, ["python"]), Death(way, way.limit + 1)):
        with pytest.raises(AssertionError, match="too late"):
            report([death])


@proves("P11")
@pytest.mark.parametrize("prompt", ["spin", "block"])
def test_a_provider_that_never_yields_is_told_by_name(
    spawn: Spawn, store: Path, prompt: str
) -> None:
    client = spawn(hasty(store))
    stuck_turn(client, prompt)
    shown = client.notification("window/showMessage", type=2)
    assert "'agent c'" in shown["message"]
    client.wait_for_stderr("the event loop stands still.*in stream")


@proves("P7")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_process_that_is_stuck(
    spawn: Spawn, store: Path, number: signal.Signals
) -> None:
    client = spawn(hasty(store))
    stuck_turn(client, "block" if number == signal.SIGINT else "spin")
    client.process.send_signal(number)
    began = time.monotonic()
    client.exit_code()
    assert time.monotonic() - began < 6


HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Another program holds the store."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield


@proves("P7")
def test_an_editor_that_goes_while_the_store_is_waited_for_ends_the_process(
    spawn: Spawn, store: Path
) -> None:
    with held(store.with_name(store.name + ".lock")):
        client = spawn()
        client.send(request(1, "initialize", {}), request(2, "agent/count"))
        client.response(1)
        client.close_stdin()
        began = time.monotonic()
        client.exit_code()
        assert time.monotonic() - began < 7


@proves("P11")
def test_an_editor_that_does_not_read_our_log_stops_nothing(spawn: Spawn) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stderr:
        client = spawn(stderr=stderr)
    client.start({"settings": {"provider": "scripted", "logLevel": "debug"}})
    client.call("conversation/create", {"conversationId": "c"})
    for _ in range(250):
        client.call("message/send", {"conversationId": "c", "input": "echo hi"})
    client.shut_down()
    with os.fdopen(reading, "rb") as log:
        lines = log.read().splitlines()
    assert len(b"".join(lines)) > 50_000
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in lines)


HIJACK = "raise SystemExit('hijacked')"


@pytest.mark.parametrize("flags", [["-I"]])
def test_what_lies_in_the_workspace_is_not_run(
    spawn: Spawn, store: Path, tmp_path: Path, flags: list[str]
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for name in ("json", "asyncio", "sitecustomize", "usercustomize", "sidecar", "typing"):
        (workspace / f"{name}.py").write_text(HIJACK)
    (workspace / ".env").write_text("GEMINI_API_KEY=from-the-workspace\nPYTHONSTARTUP=json.py\n")
    hostile = {
        "PYTHONPATH": str(workspace),
        "PYTHONSTARTUP": str(workspace / "json.py"),
        "PYTHONHOME": str(workspace),
        "HOME": str(workspace),
        "LANG": "C",
    }
    client = spawn(command(store, flags=flags), cwd=workspace, env=hostile)
    client.start(rootUri=workspace.as_uri())
    assert client.call("settings/get")["secretsPresent"] == []
    assert client.shut_down() == 0
    assert b"hijacked" not in client.stderr


def test_sixty_four_file_descriptors_are_enough(spawn: Spawn, store: Path) -> None:
    client = spawn(["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command(store)])
    client.start({"settings": {"provider": "scripted"}})
    for number in range(12):
        client.call("conversation/create", {"conversationId": f"c{number}"})
        client.call("message/send", {"conversationId": f"c{number}", "input": "echo hi"})
    assert client.shut_down() == 0
