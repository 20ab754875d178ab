"""Editors that are killed, and what is left of their sidecars.

An editor here is a process of its own that starts the sidecar in a session of its own, brings it
into some state and then waits to be killed. Whatever is left of its session is an orphan.
Linux only: it looks into /proc.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.raw_client import command, request

EDITOR = r"""
import json, os, subprocess, sys, threading
plan = json.loads(sys.argv[1])
pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
child = subprocess.Popen(plan["argv"], stdin=pipe, stdout=pipe,
                         stderr=pipe if plan["stderr"] == "pipe" else nowhere)
ends = [child.stdin.fileno(), child.stdout.fileno()]
if plan["held"]:
    subprocess.Popen(["sleep", "300"], pass_fds=ends, stdin=nowhere, stdout=nowhere, stderr=nowhere)
if plan["stderr"] == "pipe":
    threading.Thread(target=child.stderr.read, daemon=True).start()
for message in plan["messages"]:
    if message["method"] == "initialize":
        message["params"]["processId"] = os.getpid() if plan["tells_pid"] else None
    body = json.dumps(message).encode()
    child.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
child.stdin.flush()
seen = b""
while plan["until"].encode() not in seen:
    piece = os.read(ends[1], 65536)
    if not piece:
        sys.exit("the sidecar ended: " + repr(seen[-500:]))
    seen += piece
print(child.pid, flush=True)
while os.read(ends[1], 65536):
    pass
"""

STUBBORN = r"""
import sys, time
from sidecar.serving import factories as serving
from sidecar.interfaces import TextDelta

class Stubborn:
    name = "stubborn"

    async def stream(self, request):
        yield TextDelta("so far")
        end = time.monotonic() + 60
        if request.prompt.input == "block":
            time.sleep(60)
        while time.monotonic() < end:
            pass

    async def aclose(self):
        pass

scripted = serving.make_provider

def make_provider(store, workers, config):
    return Stubborn() if config.settings.provider == "openai" else scripted(store, workers, config)

serving.make_provider = make_provider
from sidecar.__main__ import main
main()
"""
"""The product with a provider that never yields: as bad as third-party code can be."""


def stubborn(store: Path | str) -> list[str]:
    return [sys.executable, "-I", "-c", STUBBORN, "serve", "--store", str(store)]


STUBBORN_OPTIONS: dict[str, Any] = {
    "settings": {"provider": "openai", "openaiModel": "m", "openaiBaseUrl": "http://localhost:1/v1"}
}


@dataclass(frozen=True)
class Way:
    """How an editor dies, and within how many seconds its sidecar must be gone."""

    name: str
    limit: float
    turn: str | None = None
    """What a running turn does: hang, spin or block."""
    linger_ms: int = 0
    is_held: bool = False
    """Whether a third process holds our streams open."""
    tells_pid: bool = True
    stderr: str = "nowhere"


WAYS = (
    Way("idle, stdin closes", 5, tells_pid=False),
    Way("idle, stdin held open", 15, is_held=True),
    Way("in a turn, stdin closes", 5, turn="hang", tells_pid=False),
    Way("in a turn, stdin held open", 15, turn="hang", is_held=True),
    Way("in a turn that may linger, stdin closes", 6.5, turn="hang", linger_ms=1500),
    Way("in a turn that may linger, stdin held open", 16.5, turn="hang", linger_ms=1500,
        is_held=True),
    Way("in a turn, stderr closes as well", 5, turn="hang", stderr="pipe"),
)  # fmt: skip
STUCK = (
    Way("while a provider spins, stdin closes", 15, turn="spin", tells_pid=False),
    Way("while a provider spins, stdin held open", 15, turn="spin", is_held=True),
    Way("while a provider blocks, stdin closes", 15, turn="block", linger_ms=60_000),
)


@dataclass
class Death:
    way: Way
    seconds: float
    """From the editor's end to the sidecar's."""
    orphans: list[str] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        return self.seconds <= self.way.limit and not self.orphans


def messages_of(way: Way) -> tuple[list[dict[str, Any]], str]:
    """What the editor says, and what it waits for before it may be killed."""
    options: dict[str, Any] = {"settings": {"provider": "scripted"}}
    if way.turn in ("spin", "block"):
        options = STUBBORN_OPTIONS
    settings = options["settings"] | {"lingerTimeout": way.linger_ms, "logLevel": "debug"}
    first = request(1, "initialize", {"initializationOptions": {"settings": settings}})
    if way.turn is None:
        return [first], "sidecar/ready"
    create = request(2, "conversation/create", {"conversationId": "c"})
    script = "think so far\n" if way.turn == "hang" else way.turn
    if way.turn == "hang":
        settings["script"] = [{"text": "so far"}, {"hang": True}]
    send = request(3, "message/send", {"conversationId": "c", "input": script})
    return [first, create, send], "so far"


def kill_editor(way: Way, folder: Path, argv: Sequence[str] | None = None) -> Death:
    """Bring a sidecar into the state, kill its editor, and watch what becomes of it."""
    messages, until = messages_of(way)
    store = folder / "store" / "c.db"
    is_stuck = way.turn in ("spin", "block")
    plan = {
        "argv": argv or (stubborn(store) if is_stuck else command(store)),
        "messages": messages,
        "until": until,
        "held": way.is_held,
        "tells_pid": way.tells_pid,
        "stderr": way.stderr,
    }
    editor = subprocess.Popen(
        [sys.executable, "-I", "-c", EDITOR, json.dumps(plan)],
        stdout=subprocess.PIPE,
        cwd=folder,
        start_new_session=True,
    )
    try:
        assert editor.stdout is not None
        sidecar = os.pidfd_open(int(editor.stdout.readline()))
        editor.kill()
        killed = time.monotonic()
        gone, _, _ = select.select([sidecar], [], [], way.limit + 10)
        seconds = time.monotonic() - killed if gone else float("inf")
        os.close(sidecar)
        return Death(way, seconds, left_of(editor.pid))
    finally:
        editor.kill()
        editor.wait()
        if editor.stdout is not None:
            editor.stdout.close()
        for pid, _ in members(editor.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def left_of(session: int) -> list[str]:
    """The orphans of a session: all but the one that was told to outlive its editor, and what
    has ended already and only waits to be reaped."""
    return [name for _, name in members(session) if name != "sleep"]


def members(session: int) -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == session:
            continue
        with suppress(OSError, ValueError):
            name, _, rest = entry.joinpath("stat").read_text().partition("(")[2].rpartition(")")
            state, _, _, sid = rest.split()[:4]
            if int(sid) == session and state != "Z":
                found.append((int(entry.name), name))
    return found


def main(count: int = 100) -> str:
    """Kill `count` editors, in every way in turn; every fiftieth sidecar is stuck in a turn."""
    ways = itertools.islice(itertools.cycle(WAYS), count)
    stuck = itertools.islice(itertools.cycle(STUCK), max(len(STUCK), count // 50))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as pool:
        plans = list(enumerate([*ways, *stuck]))
        for number, _ in plans:
            Path(folder, str(number)).mkdir()
        deaths = list(
            pool.map(lambda plan: kill_editor(plan[1], Path(folder, str(plan[0]))), plans)
        )
    return report(deaths)


def report(deaths: Sequence[Death]) -> str:
    late = [death for death in deaths if not death.is_fine]
    orphans = sum(len(death.orphans) for death in deaths)
    slowest: dict[str, float] = defaultdict(float)
    for death in deaths:
        group = "held open" if death.way.is_held else "closed"
        if death.way in STUCK:
            group = "stuck"
        elif death.way.linger_ms:
            group = f"lingering {death.way.linger_ms / 1000:g} s"
        slowest[group] = max(slowest[group], death.seconds)
    figures = ", ".join(f"{group} {seconds:.1f} s" for group, seconds in slowest.items())
    line = f"process life: {len(deaths)} editors killed, {orphans} orphans; slowest: {figures}"
    assert not late, f"{line}; too late: {sorted({d.way.name for d in late})}"
    return line


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 14))  # noqa: T201
