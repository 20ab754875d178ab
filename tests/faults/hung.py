"""Models whose library spins, blocks or does not let itself be cancelled (C3).

The sidecar is the real one, its models are `tests.providers.misbehaving`. While one agent hangs,
another streams, and its pieces must come as they would without. A hung agent is told by name,
and restarted within two seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from sidecar import processes
from tests.e2e.raw_client import Message, RawClient
from tests.faults.harness import patched
from tests.faults.needs import missing

ROOT = Path(__file__).resolve().parent.parent.parent
HANGS = ("spin", "block", "nap", "ignore")
ABORT_LIMIT, TOLD_LIMIT, SLOWER = 2.0, 10.0, 1.2
DRIPS = 400

PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from functools import partial
from sidecar.serving import factories as serving
from sidecar.providers import worker
worker.Workers = partial(worker.Workers, module="tests.providers.misbehaving")
serving.make_provider = lambda store, workers, config: worker.WorkerProvider(config, workers())
"""
OPTIONS: Message = {
    "settings": {
        "provider": "openai",
        "openaiModel": "m",
        "openaiBaseUrl": "http://127.0.0.1:1/v1",
        "lingerTimeout": 0,
    }
}


@contextmanager
def sidecar(folder: Path, program: str = PROGRAM) -> Iterator[RawClient]:
    client = RawClient(patched(folder / "store" / "c.db", program))
    try:
        client.start(OPTIONS)
        yield client
        client.shut_down()
        client.check_promises()
    finally:
        client.dispose()


def hang(client: RawClient, name: str, what: str) -> int:
    """Have the agent of a conversation hang; returns the process that it hangs in."""
    client.call("conversation/create", {"conversationId": name})
    client.call("message/enqueue", {"conversationId": name, "input": what})
    return int(client.event(name, "delta")["text"].split()[1])


def abort(client: RawClient, name: str) -> float:
    """Seconds until there is a fresh agent."""
    began = time.monotonic()
    client.call("agent/abortAndRestart", {"conversationId": name})
    seconds = time.monotonic() - began
    assert client.event(name, "turnEnded")["stopReason"] == "cancelled"
    return seconds


def gaps(client: RawClient, name: str) -> list[float]:
    """Milliseconds between the pieces that another agent streams, sorted."""
    client.call("conversation/create", {"conversationId": name})
    client.call("message/enqueue", {"conversationId": name, "input": f"drip {DRIPS}"})
    times: list[float] = []
    at = 0
    while True:
        found = client.wait_for_index(lambda m: is_of(m, name), after=at, what=f"event of {name}")
        times.append(time.monotonic())
        if client.frames[found]["params"]["type"] == "turnEnded":
            return sorted((b - a) * 1000 for a, b in pairwise(times[1:-1]))
        at = found + 1


KILLED_WITHIN = 1.0


def is_of(message: Message, name: str) -> bool:
    if message.get("method") != "conversation/event":
        return False
    params = message["params"]
    return params["conversationId"] == name and params["type"] in ("delta", "turnEnded")


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def is_gone(pid: int) -> bool:
    """It has been killed; on a busy machine a process needs a moment to notice."""
    end = time.monotonic() + KILLED_WITHIN
    while processes.began(pid) is not None and time.monotonic() < end:
        time.sleep(0.01)
    return processes.began(pid) is None


def experiment(folder: Path, count: int) -> str:
    aborts: list[float] = []
    alone: list[float] = []
    beside: list[float] = []
    with sidecar(folder) as client:
        for number in range(count):
            name = f"hung-{number}"
            pid = hang(client, name, HANGS[number % len(HANGS)])
            aborts.append(abort(client, name))
            assert is_gone(pid), f"{HANGS[number % len(HANGS)]} left its process"
        for number in range(max(1, count // 25)):
            alone += gaps(client, f"alone-{number}")
            hang(client, f"beside-{number}", "spin")
            beside += gaps(client, f"with-{number}")
            abort(client, f"beside-{number}")
        before_it = len(client.frames)
        hang(client, "told", "nap")
        began = time.monotonic()
        client.notification("window/showMessage", after=before_it, type=2)
        told = time.monotonic() - began
        abort(client, "told")
    before, after = (percentile(sorted(values), 0.99) for values in (alone, beside))
    line = (
        f"{count} hung agents restarted, slowest {max(aborts):.2f} s, 0 processes left; told "
        f"after {told:.1f} s; another's pieces p99 {after:.1f} ms, without {before:.1f} ms "
        f"({after / before:.2f}x)"
    )
    assert max(aborts) <= ABORT_LIMIT, line
    assert told <= TOLD_LIMIT, line
    assert count < 25 or after <= SLOWER * before, line
    return line


def main(count: int = 100) -> str:
    if reason := missing():
        return f"hung: not run, {reason}"
    with tempfile.TemporaryDirectory() as folder:
        return f"hung: {experiment(Path(folder), count)}"


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8))  # noqa: T201
