"""What a start costs is what it imports: nothing before it is needed, and some things never.

Python itself tells (`-X importtime`), so nothing of ours runs in the process to find out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.raw_client import RawClient, command

Spawn = Callable[..., RawClient]

HEAVY = [
    "sqlite_utils",
    "tenacity",
    "rich",
    "argparse",
    "pydantic",
    "pydantic_ai",
    "google",
    "boto3",
    "botocore",
    "openai",
    "anthropic",
    "httpx",
    "mcp",
    "click",
    "cattrs.converters",
    "pygls.lsp",
    "pygls.lsp.server",
    "pygls.workspace",
    "pygls.protocol.language_server",
    "lsprotocol.converters",
    "importlib.metadata",
    "http",
    "urllib.request",
    "email",
    "xml",
    "multiprocessing",
    "unittest",
]
"""What an editor's start and a look at the history must not pay for."""

BEFORE_THE_ANSWER = [
    *HEAVY,
    "asyncio",
    "anyio",
    "msgspec",
    "sqlite3",
    "logging",
    "threading",
    "typing",
    "dataclasses",
    "inspect",
    "pathlib",
    "socket",
    "ssl",
    "subprocess",
    "uuid",
    "pygls",
    "lsprotocol",
    "attr",
    "cattrs",
]


def imported(client: RawClient) -> set[str]:
    """The modules that the process has imported so far."""
    lines = client.stderr.decode().splitlines()
    found = (line for line in lines if line.startswith("import time:"))
    return {line.rsplit("|", 1)[1].strip() for line in found}


def of(modules: set[str], names: list[str]) -> list[str]:
    """Those of `modules` that are, or are inside of, one of `names`."""
    return sorted(
        module
        for module in modules
        if any(module == name or module.startswith(f"{name}.") for name in names)
    )


@pytest.fixture
def timed(store: Path) -> list[str]:
    return command(store, flags=("-I", "-X", "importtime"))


@pytest.fixture
def old_store(spawn: Spawn) -> None:
    """A store that is not new: making one may cost what opening one must not."""
    client = spawn()
    client.start({"settings": {"provider": "scripted"}})
    client.call("conversation/create", {"conversationId": "c"})
    client.call("message/send", {"conversationId": "c", "input": "echo hi"})
    client.call("conversation/search", {"query": "hi"})
    assert client.shut_down() == 0


def test_initialize_is_answered_by_the_standard_library_alone(
    spawn: Spawn, timed: list[str]
) -> None:
    client = spawn(timed)
    # A version that nobody speaks: answered as any other, and nothing is loaded behind it.
    client.error("initialize", {"initializationOptions": {"protocolVersion": 99}})
    client.kill()
    modules = imported(client)
    assert {"json", "sidecar.faces.prologue"} <= modules
    assert of(modules, BEFORE_THE_ANSWER) == []
    ours = of(modules, ["sidecar"])
    assert ours == [
        "sidecar",
        "sidecar.app",
        "sidecar.faces",
        "sidecar.faces.prologue",
        "sidecar.faces.stdio",
        "sidecar.wire",
        "sidecar.wire.constants",
        "sidecar.wire.frames",
    ]


@pytest.mark.usefixtures("old_store")
def test_history_is_on_screen_without_what_only_turns_need(spawn: Spawn, timed: list[str]) -> None:
    client = spawn(timed)
    client.start()
    client.call("conversation/list")
    client.call("conversation/get", {"conversationId": "c"})
    client.call("conversation/subscribe", {"conversationId": "c"})
    client.call("conversation/search", {"query": "hi"})
    client.call("sidecar/status")
    client.kill()
    modules = imported(client)
    assert of(modules, HEAVY) == []
    assert of(modules, ["sidecar.providers", "sidecar.tools", "sidecar.commands"]) == []
    assert of(modules, ["sidecar.client"]) == []


@pytest.mark.usefixtures("old_store")
def test_a_turn_without_a_model_needs_no_library_of_models(spawn: Spawn, timed: list[str]) -> None:
    client = spawn(timed)
    client.start()
    client.call("message/send", {"conversationId": "c", "input": "help"})
    client.kill()
    needed = ["tenacity"]  # the retry policy of every turn
    allowed = [name for name in HEAVY if name not in needed]
    assert of(imported(client), allowed) == []


def test_a_new_store_is_made_without_what_making_it_does_not_need(
    spawn: Spawn, timed: list[str]
) -> None:
    client = spawn(timed)
    client.start()
    client.kill()
    needed = ["sqlite_utils", "click", "importlib.metadata", "http", "email"]
    assert of(imported(client), [name for name in HEAVY if name not in needed]) == []


COUNTING = """
import json, os, sys
leave = os._exit
def count(code):
    types = vars(sys.modules["lsprotocol.types"])
    made = [name for name, value in types.items() if isinstance(value, type)]
    with open(report, "w") as file:
        json.dump(made, file)
    leave(code)
os._exit = count
report = sys.argv.pop(1)
from sidecar.__main__ import main
main()
"""
"""The product; when it leaves, it writes down which classes of lsprotocol were made."""


def test_hardly_a_class_of_lsprotocol_is_made(spawn: Spawn, store: Path, tmp_path: Path) -> None:
    report = tmp_path / "classes.json"
    argv = [sys.executable, "-I", "-c", COUNTING, str(report)]
    client = spawn([*argv, "serve", "--store", str(store)])
    client.start()
    client.call("conversation/create", {"conversationId": "c"})
    client.call("message/send", {"conversationId": "c", "input": "help", "workDoneToken": 1})
    client.error("no/such")
    assert client.shut_down() == 0
    made = json.loads(report.read_text(encoding="utf-8"))
    assert len(made) < 40, made
