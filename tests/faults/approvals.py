"""Questions to the user under races, crashes and lies: an effect happens if, and only if, exactly
this was allowed, and then once (P1, P2, P9).

Two windows on one store, the first of which runs the turns. The tool writes a line for each
time that it is run; the lines are the effects that are counted.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.e2e.raw_client import Message, RawClient
from tests.faults.harness import options, patched, seed_of
from tests.faults.needs import missing

NAME = "build"

PROGRAM = """
import json
from pathlib import Path
from sidecar.serving import factories as serving
from sidecar.conversations import ToolKind
from sidecar.interfaces import Subject, ToolOutput, ToolSpec
from sidecar.toolbox import Toolbox

FOLDER = Path({folder!r})

class Write:
    spec = ToolSpec(name="write", description="writes a line", input_schema={{"type": "object"}})
    kind = ToolKind.EDIT

    async def subject(self, arguments):
        state = FOLDER.joinpath("state").read_text()
        return Subject(title="Write", text=json.dumps(arguments), state={{"file": state}})

    async def run(self, arguments, use=None):
        with FOLDER.joinpath("effects").open("a") as file:
            file.write(f"{{arguments['n']}}\\n")
        return ToolOutput("written")

serving.make_tools = lambda *_: Toolbox([Write()])
"""
"""The product with a tool that has to be asked for."""

Answer = Callable[["Windows", Message], int]
"""Deals with a question; returns how often its effect may be seen."""


class Windows:
    """The owner's window and another one."""

    def __init__(self, folder: Path, mutation: str = "") -> None:
        self.folder = folder
        self._argv = patched(
            folder / "store" / "c.db", PROGRAM.format(folder=str(folder)) + mutation
        )
        folder.joinpath("state").write_text("0")
        folder.joinpath("effects").touch()
        self.owner = self._open()
        self.owner.call("conversation/create", {"conversationId": NAME, "mode": "build"})
        self.other = self._open()
        for client in (self.owner, self.other):
            client.call("conversation/subscribe", {"conversationId": NAME})
        self._number = 0

    def _open(self) -> RawClient:
        client = RawClient(self._argv)
        client.start(options(script=[], lingerTimeout=0))
        return client

    def replace_owner(self) -> None:
        """It is killed; the other one goes on, and a new one comes."""
        self.owner.kill()
        self.owner.dispose()
        self.owner, self.other = self.other, self._open()
        self.other.call("conversation/subscribe", {"conversationId": NAME})

    def ask(self) -> tuple[str, Message]:
        """A turn that wants to write; its prompt and the question."""
        self._number += 1
        text = f'tool write {{"n": {self._number}}}'
        params = {"conversationId": NAME, "input": text}
        prompt = self.owner.call("message/enqueue", params)["messageId"]
        turn = self.owner.event(NAME, "turnStarted", messageId=prompt)["turnId"]
        asked = self.owner.wait_for(
            lambda m: m.get("params", {}).get("approval", {}).get("turnId") == turn,
            what="a question",
        )
        return prompt, asked["params"]["approval"]

    def effects(self) -> Counter[int]:
        return Counter(int(n) for n in self.folder.joinpath("effects").read_text().split())

    def close(self) -> None:
        for client in (self.owner, self.other):
            client.dispose()


def respond(client: RawClient, question: Message, decision: str, **changes: str) -> Message:
    params = {
        "approvalId": question["approvalId"],
        "decision": decision,
        "contentHash": question["contentHash"],
    }
    return client.ask("approval/respond", params | changes)


def type_of(answer: Message) -> str | None:
    """The type of an error, None for a result."""
    return str(answer["error"]["data"]["type"]) if "error" in answer else None


# ---- what may become of a question ---------------------------------------------------------


def allow(windows: Windows, question: Message) -> int:
    assert type_of(respond(windows.owner, question, "allow")) is None
    return 1


def allow_elsewhere(windows: Windows, question: Message) -> int:
    listed = windows.other.call("approval/list", {"conversationId": NAME})["approvals"]
    assert [found["approvalId"] for found in listed] == [question["approvalId"]]
    assert type_of(respond(windows.other, listed[0], "allow")) is None
    return 1


def deny(windows: Windows, question: Message) -> int:
    assert type_of(respond(windows.other, question, "deny")) is None
    assert type_of(respond(windows.owner, question, "allow")) == "CONFLICT"
    return 0


def race(windows: Windows, question: Message) -> int:
    """Both windows answer at once, differently: one of them counts."""
    with ThreadPoolExecutor(2) as pool:
        yes = pool.submit(respond, windows.owner, question, "allow")
        no = pool.submit(respond, windows.other, question, "deny")
    answers = {"allow": type_of(yes.result()), "deny": type_of(no.result())}
    assert sorted(map(str, answers.values())) == ["CONFLICT", "None"], answers
    return int(answers["allow"] is None)


def lie(windows: Windows, question: Message) -> int:
    """An answer to something else than what is asked, then the end of the turn."""
    forged = respond(windows.other, question, "allow", contentHash="0" * 64)
    assert type_of(forged) == "CONFLICT"
    return cancel(windows, question)


def cancel(windows: Windows, question: Message) -> int:
    windows.owner.call("agent/cancel", {"conversationId": NAME})
    assert type_of(respond(windows.other, question, "allow")) == "CONFLICT"
    return 0


def change(windows: Windows, question: Message) -> int:
    """What it is about is changed after it was read, before it is allowed."""
    state = windows.folder / "state"
    state.write_text(state.read_text() + "!")
    assert type_of(respond(windows.owner, question, "allow")) is None
    return 0


def die(windows: Windows, question: Message) -> int:
    """The owner is killed while it waits; what is answered then is not carried out."""
    windows.replace_owner()
    with suppress(AssertionError):  # answered before the other window has noticed: just as well
        assert type_of(respond(windows.owner, question, "allow")) == "CONFLICT"
    return 0


WAYS: tuple[Answer, ...] = (allow, allow_elsewhere, deny, race, lie, cancel, change, die)


def experiment(folder: Path, count: int, rng: random.Random, mutation: str = "") -> Counter[str]:
    windows = Windows(folder, mutation)
    seen: Counter[str] = Counter()
    expected: Counter[int] = Counter()
    try:
        for number in range(1, count + 1):
            way = WAYS[number - 1] if number <= len(WAYS) else rng.choice(WAYS)
            prompt, question = windows.ask()
            expected[number] = way(windows, question)
            windows.owner.event(NAME, "turnEnded", messageId=prompt)
            effects = windows.effects()
            assert effects[number] == expected[number], f"{way.__name__}: {effects[number]} times"
            seen[way.__name__] += 1
        left = windows.owner.call("approval/list")["approvals"]
        assert left == [], "a question outlived its turn"
        assert windows.effects() == +expected
        for client in (windows.owner, windows.other):
            assert client.shut_down() == 0
            client.check_promises()
    finally:
        windows.close()
    return seen


def main(count: int = 300, seed: int | None = None) -> str:
    if reason := missing():
        return f"approvals: not run, {reason}"
    seed, rng = seed_of(seed)
    with tempfile.TemporaryDirectory() as folder:
        seen = experiment(Path(folder), count, rng)
    ways = ", ".join(f"{name} {times}" for name, times in sorted(seen.items()))
    return (
        f"approvals: {count} questions ({ways}), every effect exactly as often as it was "
        f"allowed; seed {seed}"
    )


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 16))  # noqa: T201
