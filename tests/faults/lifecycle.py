"""Clients that do LSP's steps in any order, against a model of what they are answered.

A plan is some pieces of some steps each; between two pieces everything is answered that does not
hang. The model says for each request which answers are right, and with which code the process
ends. Most plans run against the whole server in this process, some against real processes.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tests.e2e.raw_client import RawClient, body_of, command, frame, request
from tests.fakes import run_virtually
from tests.whole_server import WholeServer, whole_server

Id = int | str
Codes = frozenset[int | None]

PARSE_ERROR, INVALID_REQUEST, UNKNOWN, EARLY = -32700, -32600, -32601, -32002
CANCELLED, INITIALIZATION_FAILED = -32800, -32051
INVALID_STATE, STORE_UNAVAILABLE = -32063, -32064
ENDED: Codes = frozenset({None, CANCELLED})
"""How a turn is answered that was cancelled: as ended by that, or as never begun."""
LEFT: Codes = ENDED | {INVALID_STATE, STORE_UNAVAILABLE}
"""And when the process left: the prompt stays in the queue, or came too late for the store."""

OPTIONS = {"settings": {"provider": "scripted", "lingerTimeout": 0}}
REQUESTS = {
    "initialize": ("initialize", {"initializationOptions": OPTIONS}),
    "initialize badly": ("initialize", {"initializationOptions": {"protocolVersions": [99]}}),
    "shutdown": ("shutdown", None),
    "count": ("agent/count", {}),
    "unknown": ("agent/noSuchThing", {}),
    "hang": ("message/send", {"conversationId": "c", "input": "hang"}),
}
NOTIFICATIONS = {"initialized": {}, "exit": None, "$/setTrace": {"value": "off"}, "what/ever": {}}
IDS: Sequence[Id] = (1, 2, "1", "x", "")

Step = tuple[str, Id]
Plan = Sequence[Sequence[Step]]

steps = st.tuples(
    st.sampled_from(
        ["initialize"] * 3
        + ["count", "hang", "cancel"] * 4
        + ["initialize badly", "unknown", "rubbish", "nonsense", "shutdown", *NOTIFICATIONS]
    ),
    st.sampled_from(IDS),
)
plans = st.lists(st.lists(steps, min_size=1, max_size=10), min_size=1, max_size=5)


def bytes_of(piece: Sequence[Step]) -> bytes:
    return b"".join(map(_bytes, piece))


def _bytes(step: Step) -> bytes:
    kind, msg_id = step
    if kind == "rubbish":
        return b"Content-Length: 5\r\nContent-Type: a/b; charset=utf-7\r\n\r\nabcde"
    if kind == "nonsense":
        return frame(b'{"jsonrpc"')
    if kind in REQUESTS:
        return frame(body_of(request(msg_id, *REQUESTS[kind])))
    if kind == "cancel":
        method, params = "$/cancelRequest", {"id": msg_id}
    else:
        method, params = kind, NOTIFICATIONS[kind]
    return frame(body_of({"jsonrpc": "2.0", "method": method, "params": params}))


# ---- the model -----------------------------------------------------------------------------


@dataclass
class Expected:
    """One answer: under which id, and the codes that are right for it (None for a result)."""

    msg_id: Id | None
    codes: Codes


@dataclass
class Model:
    """What a client is owed, step by step."""

    owed: list[Expected] = field(default_factory=list)
    phase: str = "new"
    exit_code: int | None = None
    in_flight: dict[Id, Expected] = field(default_factory=dict)
    hanging: set[Id] = field(default_factory=set)
    late: Counter[Id | None] = field(default_factory=Counter)
    """What was asked behind `exit`: refused, or not read any more."""

    def take(self, piece: Sequence[Step]) -> int:
        """Returns how many answers there must be before the next piece."""
        for kind, msg_id in piece:
            if self.phase == "left":
                if kind in REQUESTS or kind in ("rubbish", "nonsense"):
                    self.late[msg_id if kind in REQUESTS else None] += 1
            elif kind in ("rubbish", "nonsense"):
                self._owe(None, INVALID_REQUEST if kind == "rubbish" else PARSE_ERROR)
            elif kind in REQUESTS:
                self._ask(kind, msg_id)
            elif kind == "cancel" and msg_id in self.in_flight:
                self.in_flight[msg_id].codes |= ENDED
                self.hanging.discard(msg_id)
            elif kind == "exit":
                self.exit_code = 0 if self.phase == "shutdown" else 1
                self.phase = "left"
                self.hang_up()
        self.in_flight = {i: owed for i, owed in self.in_flight.items() if i in self.hanging}
        return len(self.owed) - len(self.hanging)

    def hang_up(self) -> None:
        for expected in self.in_flight.values():
            expected.codes |= LEFT

    def _ask(self, kind: str, msg_id: Id) -> None:
        if self.phase == "new":
            self._start(kind, msg_id)
        elif self.phase == "shutdown" or msg_id in self.in_flight or "initialize" in kind:
            self._owe(msg_id, INVALID_REQUEST)
        elif kind == "shutdown":
            self._owe(msg_id, None)
            self.phase = "shutdown"
        elif kind == "unknown":
            self._owe(msg_id, UNKNOWN)
        else:
            self.in_flight[msg_id] = self._owe(msg_id, None)
            if kind == "hang":
                self.in_flight[msg_id].codes = ENDED
                self.hanging.add(msg_id)

    def _start(self, kind: str, msg_id: Id) -> None:
        code = {"initialize": None, "initialize badly": INITIALIZATION_FAILED}.get(kind, EARLY)
        self._owe(msg_id, code)
        if kind == "initialize":
            self.phase = "served"

    def _owe(self, msg_id: Id | None, code: int | None) -> Expected:
        expected = Expected(msg_id, frozenset({code}))
        self.owed.append(expected)
        return expected

    def check(self, answers: Sequence[tuple[Id | None, int | None]]) -> None:
        """Every answer is one that is owed, and nothing is owed still."""
        got = Counter(answers)
        for expected in sorted(self.owed, key=lambda e: len(e.codes)):
            right = next((c for c in expected.codes if got[expected.msg_id, c]), "none")
            assert right != "none", f"{expected} is missing in {answers}"
            got[expected.msg_id, right] -= 1  # type: ignore[index]
        extra = Counter(msg_id for msg_id, _ in got.elements()) - self.late
        assert not extra, f"{dict(extra)} too often in {answers}"


# ---- in this process -----------------------------------------------------------------------


async def play(server: WholeServer, plan: Plan) -> None:
    model = Model()
    for piece in plan:
        model.take(piece)
    talk = await server.talk([bytes_of(piece) for piece in plan], pause=1)
    assert not talk.unanswered
    model.check([(a["id"], a.get("error", {}).get("code")) for a in talk.answers])
    ended = 1 if model.phase == "new" else model.exit_code
    assert talk.exit_code == ended, f"exit code {talk.exit_code} after {plan}"


async def play_all(some: Sequence[Plan]) -> None:
    async with whole_server() as server:
        await server.store.create(server.manager.new_conversation("c"))
        for plan in some:
            await play(server, plan)


def in_process(count: int, seed: int) -> None:
    """`count` plans, each smaller and smaller until it is as small as what it shows allows."""

    @seeded(seed)
    @settings(
        max_examples=max(1, count // 5),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(plans, min_size=5, max_size=5))
    def plan_by_plan(some: Sequence[Plan]) -> None:
        run_virtually(lambda: play_all(some))

    plan_by_plan()


# ---- real processes ------------------------------------------------------------------------


def template(folder: Path) -> Path:
    """A store that has the conversation which hanging turns belong to."""
    store = folder / "template.db"
    client = RawClient(command(store))
    try:
        client.start(OPTIONS)
        client.call("conversation/create", {"conversationId": "c"})
        assert client.shut_down() == 0
    finally:
        client.dispose()
    return store


def in_a_process(plan: Plan, store: Path) -> None:
    """One plan against a process of its own, on a copy of the store."""
    with tempfile.TemporaryDirectory() as folder:
        own = shutil.copy(store, folder)
        client = RawClient(command(own))
        try:
            _play(client, plan)
            client.check_promises()
        finally:
            client.dispose()


def _play(client: RawClient, plan: Plan) -> None:
    model = Model()

    def answers() -> list[tuple[Id | None, int | None]]:
        found = [m for m in client.frames if "method" not in m]
        return [(m["id"], m.get("error", {}).get("code")) for m in found]

    for piece in plan:
        due = model.take(piece)
        client.send_bytes(bytes_of(piece))
        if model.phase == "left":
            break
        if due:
            client.wait_for(lambda _, n=due: len(answers()) >= n, what=f"{due} answers")  # type: ignore[misc]
    else:
        model.hang_up()
        client.close_stdin()
    hung_up = 1 if model.phase == "new" else 0
    code = client.exit_code()
    model.check(answers())
    assert code == (hung_up if model.exit_code is None else model.exit_code), plan


def in_processes(count: int, seed: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        store = template(Path(folder))
        for plan in random_plans(chance, count):
            in_a_process(plan, store)


def random_plans(chance: random.Random, count: int) -> Iterator[Plan]:
    kinds = ["count", "hang", "cancel"] * 3 + [
        "shutdown",
        "exit",
        "initialize",
        "unknown",
        "rubbish",
    ]
    for _ in range(count):
        plan = [
            [(chance.choice(kinds), chance.choice(IDS)) for _ in range(chance.randint(1, 8))]
            for _ in range(chance.randint(1, 4))
        ]
        plan[0].insert(chance.randint(0, 1), ("initialize", chance.choice(IDS)))
        yield plan


def run(count: int, processes: int, seed: int | None = None) -> str:
    seed = random.randrange(2**32) if seed is None else seed
    in_process(count, seed)
    in_processes(processes, seed)
    return (
        f"{count:,} plans of lifecycle steps in any order and {processes} against processes "
        f"(seed {seed}): one answer each with LSP's code, exit 0 only after shutdown"
    )


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    print(run(*(arguments or [500, 10])))  # noqa: T201
