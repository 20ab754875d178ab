"""No key leaves the memory of the process that was given it (P10); and a leak would be seen, in
every channel and in every encoding."""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import pytest

from tests.faults import secrets
from tests.faults.canaries import ENCODINGS, find, make, written
from tests.faults.secrets import Scene, gather, look_around, misplace, scene
from tests.providers.vendors import needs_llm_extra
from tests.requirements import proves

needs_llm_extra()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SEED = 20_261_127
TEXT = set(ENCODINGS) - {"UTF-16LE", "UTF-16BE"}
"""What can be an argument, or words of a model: no zero bytes."""

LEAKING = r"""
import os, subprocess, sys, tempfile
from pathlib import Path
from sidecar.serving import factories as serving
from sidecar.errors import MessageProcessingFailed
from sidecar.interfaces import ModelStop, TextDelta

def ways(name):
    return [bytes.fromhex(line) for line in Path({folder!r}, name).read_text().split()]

raw, text = b"\n".join(ways("raw")), "\n".join(way.decode() for way in ways("text"))

class Leaking:
    name = "leaking"

    async def stream(self, request):
        sys.stderr.buffer.write(raw)
        sys.stderr.flush()
        child = subprocess.Popen(["sleep", "0.5"] + ["0"] * 0, env={{"LEAK": text}})
        named = subprocess.Popen(["sh", "-c", "sleep 0.5; true", text])
        child.wait(), named.wait()
        Path(tempfile.gettempdir(), "left").write_bytes(raw)
        Path({store!r}).with_name("left").write_bytes(raw)
        yield TextDelta(text)
        if request.prompt.input == "fail":
            raise MessageProcessingFailed(text)
        yield ModelStop("endTurn")

    async def aclose(self):
        pass

serving.make_provider = lambda *_: Leaking()
"""
"""The product with a provider that tells what it should not, wherever it can."""

PRINTING = r"""
import sys
from pathlib import Path
raw = b"\n".join(bytes.fromhex(line) for line in Path({folder!r}, "raw").read_text().split())
for stream in (sys.stdout, sys.stderr):
    stream.buffer.write(raw)
    stream.flush()
Path({exports!r}, "command.log").write_bytes(raw)
Path.home().joinpath("left").write_bytes(raw)
sys.exit()
"""


@proves("P10")
def test_no_key_is_found_anywhere(tmp_path: Path) -> None:
    played = secrets.play(tmp_path, SEED, "openai", briefly=True)
    assert played.evidence.hits(played.canaries) == {}
    assert secrets.modes_of(played.store.parent) == {}
    assert {"environ", "argv", "store after a crash", "stderr", "error", "notification",
            "run stdout", "run stderr", "doctor stdout", "children",
            "exports and log files"} <= played.evidence.channels  # fmt: skip


@pytest.mark.parametrize("name", make(random.Random(SEED)))
def test_each_way_of_writing_a_canary_is_found(name: str) -> None:
    canaries = make(random.Random(SEED))
    around = random.Random(SEED).randbytes(1000)
    assert find(around, canaries) == set()
    found = [find(around + way + around, canaries) for way in written(canaries[name])]
    assert all(found)
    assert set().union(*found) == {(name, encoding) for encoding in ENCODINGS}
    cut = canaries[name][: len(canaries[name]) * 3 // 4].encode()
    assert find(cut, canaries) == {(name, "plain")}


def test_a_leak_is_found_in_every_channel_and_encoding(tmp_path: Path) -> None:
    with scene(tmp_path, SEED, "openai") as played:
        patch(played, tmp_path, LEAKING)
        with played.editor() as client:
            client.start({"settings": {"provider": "scripted"}})
            client.call("conversation/create", {"conversationId": "c"})
            client.call("message/send", {"conversationId": "c", "input": "go on"})
            client.error("message/send", {"conversationId": "c", "input": "fail"})
            look_around(played, client)
            played.evidence.add_folder("store", played.store.parent)
            client.process.send_signal(signal.SIGKILL)
            client.exit_code()
        patch(played, tmp_path, PRINTING)
        played.command("run")
    gather(played)
    hits = {
        channel: {encoding for name, encoding in found if name == "API key"}
        for channel, found in played.evidence.hits(played.canaries).items()
    }
    texts = dict.fromkeys(("notification", "result", "error", "argv", "environ"), TEXT)
    files = ("stderr", "store", "temporary files", "home", "exports and log files",
             "run stdout", "run stderr", "store in the end")  # fmt: skip
    assert hits == texts | {name: set(ENCODINGS) for name in files}


def patch(played: Scene, folder: Path, program: str) -> None:
    key = played.canaries["API key"]
    (folder / "raw").write_text("\n".join(way.hex() for way in written(key)))
    (folder / "text").write_text("\n".join(way.hex() for way in written(key, text=True)))
    played.patch = program.format(
        folder=str(folder), store=str(played.store), exports=str(played.exports)
    )


MUTANTS = {
    "error": "from sidecar.faces import rpc; rpc.without_values = str",
    "stderr": "from sidecar.faces import rpc; rpc.shown = str",
    "result": "from sidecar.faces import native; native.public = lambda settings: settings",
    "environ": "from sidecar.client import process; process.environment_without_keys = dict",
}
"""By the channel that it opens: the product without one of its defences."""


@pytest.mark.parametrize("channel", MUTANTS)
def test_a_missing_defence_is_noticed(tmp_path: Path, channel: str) -> None:
    with scene(tmp_path, SEED, "openai") as played:
        played.patch = MUTANTS[channel]
        secret_url = played.server.url.replace("://", f"://me:{played.canaries['URL password']}@")
        if channel == "environ":
            (played.home / "settings.toml").write_text('provider = "offline"\n', encoding="utf-8")
            played.command("run", "What is the animal?")
        else:
            with played.editor() as client:
                client.start({"settings": played.settings(secret_url)})
                client.call("conversation/create", {"conversationId": "c"})
                misplace(played, client)
                look_around(played, client)
    assert channel in played.evidence.hits(played.canaries)
