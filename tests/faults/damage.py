"""A damaged store: what a start makes of files that somebody or something has changed.

`experiment` mutates a copy of a good store in a different way each time, starts on it as a
sidecar does, and compares what is there afterwards with the undamaged store and with what
`sqlite3 .recover` reads from the same file.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from sidecar.conversations import AgentMode, MessageStatus, Prompt, QueueState, StopReason, TextPart
from sidecar.errors import AgentError, StoreUnavailable
from sidecar.interfaces import NewConversation, TurnOutcome
from sidecar.stores import upkeep
from sidecar.stores.backup import backup_of
from sidecar.stores.sqlite import SqliteStore

START_LIMIT = 5.0
"""Seconds in which a start, salvage included, has to be done (A6)."""
CONVERSATIONS, TURNS = 30, 6
ENOUGH = 0.95
"""Of the rows that `.recover` reads, how many have to be there."""


def ignore(_: object) -> None:
    pass


def done(text: str) -> TurnOutcome:
    return TurnOutcome(
        stop_reason=StopReason.END_TURN,
        status=MessageStatus.COMPLETE,
        queue_state=QueueState.DONE,
        parts=(TextPart(text=text),),
    )


def new(conversation_id: str) -> NewConversation:
    return NewConversation(conversation_id=conversation_id, mode=AgentMode.CHAT, session_id="s")


async def fill(path: Path, *, conversations: int = CONVERSATIONS, turns: int = TURNS) -> None:
    """A store with texts of all sizes, pages that overflow and prompts that wait."""
    rng = random.Random(7)
    store = await SqliteStore.open(path, ignore)
    for index in range(conversations):
        id = f"c{index}"
        await store.create(new(id))
        for turn in range(turns):
            await store.enqueue(id, Prompt(input=f"question {index} {turn}"), limit=99)
            started = await store.start_turn(id, "p")
            assert started is not None
            words = " ".join(f"w{rng.randrange(500)}" for _ in range(rng.choice((5, 80, 2_000))))
            await store.end_turn(id, started.turn_id, done(f"answer {index} {turn} {words}"))
        if index % 5 == 0:
            await store.enqueue(id, Prompt(input=f"waiting {index}"), limit=99)
    await store.index_pending()
    await store.aclose()


# ---- what may happen to a file -----------------------------------------------------------

Mutation = Callable[[Path, random.Random], None]


def _write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def bit_flips(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def zero_pages(path: Path, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3))):
        _write(path, rng.randrange(path.stat().st_size // 4096) * 4096, bytes(4096))


def noise_pages(path: Path, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(path.stat().st_size // 4096) * 4096
        _write(path, at, rng.randbytes(4096))


def swapped_pages(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    one, other = (rng.randrange(len(data) // 4096) * 4096 for _ in range(2))
    _write(path, one, data[other : other + 4096])
    _write(path, other, data[one : one + 4096])


def truncated(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(rng.randrange(1, path.stat().st_size))


def damaged_header(path: Path, rng: random.Random) -> None:
    _write(path, rng.randrange(100), rng.randbytes(rng.choice((1, 4, 16))))


def emptied(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def a_text_file(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"Dear diary, \n" * rng.randrange(1, 2_000))


def foreign_journal(path: Path, rng: random.Random) -> None:
    """The journal of another store, as a copied folder would leave it."""
    other = path.with_name("other.db")
    shutil.copy(path, other)
    with closing(sqlite3.connect(other, isolation_level=None)) as conn:
        conn.execute("UPDATE meta SET store_id = 'another store'")
        conn.execute("DELETE FROM parts")
        conn.execute("UPDATE conversations SET title = 'not ours'")
        shutil.copy(other.with_name("other.db-wal"), path.with_name(path.name + "-wal"))
    other.unlink()


def noise_as_journal(path: Path, rng: random.Random) -> None:
    path.with_name(path.name + "-wal").write_bytes(rng.randbytes(rng.randrange(1, 50_000)))
    path.with_name(path.name + "-shm").write_bytes(rng.randbytes(32_768))


MUTATIONS: Sequence[Mutation] = (
    bit_flips,
    zero_pages,
    noise_pages,
    swapped_pages,
    truncated,
    damaged_header,
    emptied,
    a_text_file,
    foreign_journal,
    noise_as_journal,
)


# ---- what is read ------------------------------------------------------------------------


class Contents(msgspec.Struct, frozen=True):
    """Ids of conversations; messages by conversation and position; queued prompts."""

    conversations: frozenset[str]
    messages: frozenset[tuple[str, str]]

    def share_of(self, other: Contents) -> float:
        """How much of `other` is here."""
        wanted = len(other.conversations) + len(other.messages)
        here = len(self.conversations & other.conversations) + len(self.messages & other.messages)
        return 1.0 if wanted == 0 else here / wanted


_CONTENTS = (
    "SELECT id FROM conversations",
    "SELECT hex(m.id), p.text FROM messages m JOIN parts p ON p.key >> 16 = m.key "
    "JOIN conversations c ON c.key = m.conversation",
)


def contents(path: Path) -> Contents:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as conn:
        conn.text_factory = lambda data: data.decode(errors="replace")
        ids, texts = (conn.execute(query).fetchall() for query in _CONTENTS)
    return Contents(frozenset(id for (id,) in ids), frozenset(texts))


def recovered(path: Path) -> Contents | None:
    """What `sqlite3 .recover` reads; None where the program is not installed."""
    if shutil.which("sqlite3") is None:
        return None
    folder = path.parent / "oracle"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(path, folder / "damaged.db")
    script = subprocess.run(
        ["sqlite3", "-batch", str(folder / "damaged.db"), ".recover"],
        capture_output=True,
        timeout=60,
        check=False,
    ).stdout
    subprocess.run(
        ["sqlite3", "-batch", str(folder / "saved.db")],
        input=script,
        capture_output=True,
        timeout=60,
        check=False,
    )
    try:
        found = contents(folder / "saved.db")
    except sqlite3.Error:
        found = Contents(frozenset(), frozenset())
    shutil.rmtree(folder)
    return found


# ---- a start -----------------------------------------------------------------------------


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    mutation: str
    seed: int
    how: str
    """salvaged | sound | refused | reopened: what the user sees."""
    seconds: float
    kept: float
    """Share of what was in the store before it was damaged."""
    of_recover: float | None
    """Share of what `.recover` reads."""
    fault: str | None = None


async def start_on(path: Path) -> tuple[str, bool]:
    """Open the store, read everything and have it looked after; again, when only that has shown
    the damage. Returns how it went and whether the user was told something."""
    told, how = False, "sound"
    for attempt in ("salvaged", "reopened"):
        store = await SqliteStore.open(path, ignore)
        told = told or store.notice is not None
        if any(path.parent.glob("*.damaged-*")):
            how = attempt
        try:
            for conversation in (await store.list(limit=500)).conversations:
                await store.messages(conversation.conversation_id)
            await look_after(store, path)
        except AgentError:
            told = True
        finally:
            await store.aclose()
        if store.degraded is None:
            break
        told = True
    return how, told


async def look_after(store: SqliteStore, path: Path) -> None:
    """Let the store's upkeep do its first round."""
    async with anyio.create_task_group() as tasks:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(upkeep, "FIRST_LOOK", 0.0)
            tasks.start_soon(store.keep_up)
            while store.degraded is None and not backup_of(path).exists():  # noqa: ASYNC110
                await anyio.sleep(0.002)
            tasks.cancel_scope.cancel()


def forget_the_ending(path: Path) -> None:
    """As if the last sidecar had been killed: nothing tells that somebody was at the file."""
    path.with_name(path.name + ".lock").write_text("open")


async def trial(
    original: Path, folder: Path, mutation: Mutation, seed: int, *, unclean: bool = False
) -> Outcome:
    """One mutated copy of the store in `original`, in `folder`, started on; `unclean` as if its
    last sidecar had been killed, so that only the check in the background may find something."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original.parent, folder)
    path = folder / original.name
    before = contents(original)
    mutation(path, random.Random(seed))
    if unclean:
        forget_the_ending(path)
    found, journal = path.read_bytes(), path.with_name(path.name + "-wal").exists()
    oracle = None if journal else recovered(path)
    began = time.monotonic()
    how, told, fault = "crashed", True, None
    try:
        with anyio.fail_after(60):
            how, told = await start_on(path)
    except StoreUnavailable as error:
        if "version" in error.message:
            how = "refused"  # the damage is in the number itself: nothing is touched
        else:
            fault = str(error)
    except Exception as error:  # noqa: BLE001  # any at all is what the experiment looks for
        fault = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    if how == "refused":
        after = before
    else:
        after = contents(path) if fault is None else Contents(frozenset(), frozenset())
    of_recover = None if oracle is None else after.share_of(_known(oracle, before))
    if fault is None:
        fault = _fault(path, found, how, told, seconds, before, after, of_recover)
    return Outcome(
        mutation=mutation.__name__,
        seed=seed,
        how=how,
        seconds=seconds,
        kept=after.share_of(before),
        of_recover=of_recover,
        fault=fault,
    )


def _known(oracle: Contents, before: Contents) -> Contents:
    """Only what was really there: `.recover` also brings rows that a bit flip made."""
    return Contents(oracle.conversations & before.conversations, oracle.messages & before.messages)


def _fault(
    path: Path,
    found: bytes,
    how: str,
    told: bool,
    seconds: float,
    before: Contents,
    after: Contents,
    of_recover: float | None,
) -> str | None:
    if seconds > START_LIMIT:
        return f"took {seconds:.1f} s"
    if not told and len(after.messages) < len(before.messages):
        return "silently lost messages"
    if not told and after.conversations != before.conversations:
        return "silently lost conversations"
    if how == "salvaged":
        kept = path.parent.glob("*.damaged-*")
        aside = [file for file in kept if not file.name.endswith("-wal")]
        if len(aside) != 1 or aside[0].read_bytes() != found:
            return "the damaged file was not kept as it was"
    if of_recover is not None and of_recover < ENOUGH:
        return f"only {of_recover:.0%} of what .recover reads"
    return None


async def experiment(folder: Path, runs: int, *, seed: int = 1) -> dict[str, Any]:
    """`runs` damaged starts; returns the figures, and `faults`, of which there are to be none."""
    original = folder / "original" / "store.db"
    await fill(original)
    outcomes = [
        await trial(
            original,
            folder / "trial",
            MUTATIONS[run % len(MUTATIONS)],
            seed + run,
            unclean=run // len(MUTATIONS) % 2 == 1,
        )
        for run in range(runs)
    ]
    compared = [one.of_recover for one in outcomes if one.of_recover is not None]
    return {
        "runs": runs,
        "faults": [one for one in outcomes if one.fault],
        "outcomes": dict(Counter(one.how for one in outcomes)),
        "slowest": max(one.seconds for one in outcomes),
        "ofRecover": sum(compared) / len(compared) if compared else 1.0,
        "kept": sum(one.kept for one in outcomes) / runs,
    }


def main(count: int = 500) -> str:
    """The long run: its figures in a line. Raises `AssertionError` when there was a fault."""
    with tempfile.TemporaryDirectory() as folder:
        figures = anyio.run(experiment, Path(folder), count)
    assert not figures["faults"], figures["faults"]
    return (
        f"damage: {count} damaged starts, 0 hangs, 0 crashes, 0 silently empty; "
        f"{figures['outcomes']}, slowest {figures['slowest']:.2f} s, "
        f"{figures['ofRecover']:.1%} of what .recover reads"
    )


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))  # noqa: T201
