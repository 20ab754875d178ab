"""The lean import of pygls: less is loaded, and nobody can tell. Each test is a new process,
because what a process has imported cannot be taken back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.requirements import proves

PATIENCE = 60
"""Seconds after which a process that was to end has failed."""

LEAN = "from sidecar.faces.lean_pygls import JsonRPCProtocol, JsonRPCServer, MethodNotFound\n"


def python(program: str, path: Path | None = None) -> Any:
    """Run `program`; what it prints last is JSON and is returned."""
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else None
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None


@proves("P12")
def test_the_language_server_and_its_types_are_not_loaded() -> None:
    loaded, made = python(
        LEAN
        + "import json, sys, lsprotocol.types as t\n"
        + "made = [name for name in t.__all__ if name in vars(t)]\n"
        + "print(json.dumps([sorted(sys.modules), made]))"
    )
    unwanted = {"pygls.workspace", "pygls.protocol.language_server", "cattrs.converters"}
    assert unwanted & set(loaded) == set()
    assert len(made) < 10


def test_they_are_pygls_own_classes() -> None:
    python(
        LEAN
        + """
import pygls.exceptions, pygls.protocol, pygls.server
assert JsonRPCProtocol is pygls.protocol.JsonRPCProtocol
assert JsonRPCProtocol is pygls.protocol.json_rpc.JsonRPCProtocol
assert JsonRPCServer is pygls.server.JsonRPCServer
assert MethodNotFound is pygls.exceptions.JsonRpcMethodNotFound
"""
    )


def test_a_server_can_be_made_and_answers() -> None:
    python(
        LEAN
        + """
import cattrs
sent = []

class Protocol(JsonRPCProtocol):
    def _send_data(self, data):
        sent.append(data)

server = JsonRPCServer(Protocol, cattrs.Converter)

@server.feature("agent/count")
def count(params):
    return 7

server.protocol._handle_request(1, "agent/count", None)
server.protocol._handle_request(2, "agent/unknown", None)
assert sent[0].result == 7
assert sent[1].error.code == -32601
"""
    )


def test_other_users_of_lsprotocol_notice_nothing() -> None:
    python(
        LEAN
        + """
import typing
from lsprotocol import converters, types
from lsprotocol.types import CompletionItem, InitializeParams, Position, Range
from pygls.exceptions import ResponseError
assert ResponseError is types.ResponseError
assert CompletionItem(label="a").label == "a"
assert typing.get_type_hints(Range)["start"] is Position
assert typing.get_type_hints(InitializeParams)["capabilities"] is types.ClientCapabilities
converter = converters.get_converter()
hover = converter.structure({"contents": {"kind": "markdown", "value": "x"}}, types.Hover)
assert hover.contents == types.MarkupContent(kind=types.MarkupKind.Markdown, value="x")
assert types.METHOD_TO_TYPES["initialize"][2] is InitializeParams
try:
    types.NoSuchThing
except AttributeError as error:
    assert "NoSuchThing" in str(error)
else:
    raise AssertionError
names = {}
exec("from lsprotocol.types import *", names)
assert names["CompletionItem"] is CompletionItem
"""
    )


def test_other_users_of_pygls_notice_nothing() -> None:
    python(
        LEAN
        + """
from lsprotocol.types import TEXT_DOCUMENT_COMPLETION, CompletionOptions
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, default_converter
from pygls.workspace import Workspace
assert issubclass(LanguageServerProtocol, JsonRPCProtocol)
server = LanguageServer("name", "1")

@server.feature(TEXT_DOCUMENT_COMPLETION, CompletionOptions(trigger_characters=["."]))
def completions(params):
    return []

try:
    import pygls.lsp
    pygls.lsp.no_such_thing
except AttributeError as error:
    assert "no_such_thing" in str(error)
"""
    )


def test_threads_may_ask_for_types_at_the_same_time() -> None:
    python(
        LEAN
        + """
import threading
from lsprotocol import types
barrier = threading.Barrier(4)
found = []

def ask(names):
    barrier.wait()
    found.append([getattr(types, name) for name in names])

names = types.__all__
threads = [threading.Thread(target=ask, args=(names[::step],)) for step in (1, -1, 1, -1)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found[0] in (found[1], found[1][::-1])
assert all(set(map(id, each)) == set(map(id, found[0])) for each in found)
"""
    )


DESCRIBE = """
import enum, json, re
import attrs, lsprotocol.types as t

def describe(value):
    if isinstance(value, type) and attrs.has(value):
        return [value.__module__, value.__qualname__, repr(attrs.fields(value))]
    if isinstance(value, type) and issubclass(value, enum.Enum):
        return [value.__module__, value.__qualname__, list(map(repr, value))]
    return repr(value)

names = [name for name in t.ALL_TYPES_MAP] + [name for name in dir(t) if name.isupper()]
described = {name: describe(getattr(t, name)) for name in names}
print(re.sub(" at 0x[0-9a-f]+", "", json.dumps(described, sort_keys=True)))
"""


def test_every_name_of_lsprotocol_means_the_same() -> None:
    lean, ordinary = python(LEAN + DESCRIBE), python(DESCRIBE)
    assert lean == ordinary
    assert len(lean) > 600


def test_a_process_that_has_pygls_already_keeps_it() -> None:
    python(
        "import pygls.lsp.server\nfrom pygls.server import JsonRPCServer as before\n"
        + LEAN
        + "assert JsonRPCServer is before"
    )


def copy_of(package: str, into: Path) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(shutil.copytree(spec.submodule_search_locations[0], into / package))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("lsprotocol/types.py", "\nNEW = 1\n"),
        (
            "pygls/protocol/json_rpc.py",
            "\nimport lsprotocol.types\nassert '__getattr__' not in vars(lsprotocol.types)\n",
        ),
    ],
)
def test_a_release_that_is_not_as_expected_is_imported_as_always(
    tmp_path: Path, file: str, change: str
) -> None:
    copy_of(file.partition("/")[0], tmp_path)
    with open(tmp_path / file, "a", encoding="utf-8") as source:
        source.write(change)
    python(
        LEAN
        + """
import sys, cattrs, lsprotocol.types, pygls.exceptions, pygls.lsp
assert "__getattr__" not in vars(lsprotocol.types)
assert "CompletionItem" in vars(lsprotocol.types)
assert "METHOD_TO_OPTIONS" in vars(pygls.lsp)
assert "pygls.protocol.language_server" in sys.modules
assert MethodNotFound is pygls.exceptions.JsonRpcMethodNotFound
assert isinstance(JsonRPCServer(JsonRPCProtocol, cattrs.Converter).protocol, JsonRPCProtocol)
""",
        tmp_path,
    )
