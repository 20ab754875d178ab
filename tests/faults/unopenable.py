"""Stores that cannot be opened, or not as they are (A5).

Each case changes a store that was closed in order, then starts a sidecar on it as an editor does
and asks for everything: a named state in time, what can be read is read, what can be written is
written, the rest is refused with what to do, and a store that is not ours to change stays as it
was, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.e2e.raw_client import Message, RawClient, command
from tests.faults.damage import foreign_journal
from tests.faults.harness import answer_to, options
from tests.faults.mounts import MIB, fill, read_only, small_disk, why_not_mount

START_LIMIT = 3.0
CONVERSATIONS = ("a", "b")
TEXT = "remember this"


@dataclass(frozen=True)
class Case:
    name: str
    change: Callable[[Path], None]
    """What happens to the store at this path."""
    state: str = ""
    """What the sidecar says of it in `sidecar/ready`; "" when all is well."""
    told: str = ""
    """A part of what the user is shown; "" for nothing."""
    reads: bool = True
    writes: bool = True
    untouched: bool = False
    wrap: Callable[[Path, list[str]], list[str]] = lambda _, argv: argv
    needs: Callable[[], str | None] = lambda: None
    """What is missing here for this case, if anything."""


@dataclass
class Figures:
    starts: int = 0
    slowest: float = 0.0
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        skipped = f", not run: {', '.join(self.skipped)}" if self.skipped else ""
        return (
            f"{self.starts} starts on {len(CASES)} kinds of store, slowest {self.slowest:.2f} s, "
            f"{len(self.problems)} silent, changed or without a word{skipped}"
        )


# ---- what may be wrong ---------------------------------------------------------------------


def nothing(path: Path) -> None:
    pass


def killed_in_mid_life(path: Path) -> None:
    """What was written last is in the journal alone."""
    client = RawClient(command(path))
    try:
        client.start(options())
        talk(client, "c")
        os.kill(client.call("sidecar/status")["pid"], signal.SIGKILL)
        client.exit_code()
    finally:
        client.dispose()
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def killed_and_without_its_index(path: Path) -> None:
    killed_in_mid_life(path)
    path.with_name(path.name + "-shm").unlink()


def forbidden(path: Path) -> None:
    path.chmod(0)


def folder_in_its_place(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.mkdir(parents=True)


def file_in_the_folders_place(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("a file")


def gone_with_its_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 99")


def newer_and_in_use(path: Path) -> None:
    killed_in_mid_life(path)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 99")


def unknown_columns(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        tables = conn.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'messages_fts%' "
            "AND name NOT LIKE '\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        for (table,) in tables:
            conn.execute(f"ALTER TABLE {table} ADD COLUMN of_tomorrow TEXT")


def full(path: Path) -> None:
    fill(path.parent)


def another_journal(path: Path) -> None:
    foreign_journal(path, Random(1))


def without_privileges(_: Path, argv: list[str]) -> list[str]:
    """Root as anybody else: modes count."""
    caps = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", *argv]


def no_setpriv() -> str | None:
    if not sys.platform.startswith("linux"):
        return "needs modes"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "needs setpriv"
    return None


def as_user(path: Path, argv: list[str]) -> list[str]:
    return without_privileges(path, argv) if os.geteuid() == 0 else argv


def in_read_only_folder(path: Path, argv: list[str]) -> list[str]:
    return read_only(path.parent, argv)


READ_ONLY, NO_FOLDER = "read-only", "cannot be opened"
CASES: Sequence[Case] = (
    Case("sound", nothing),
    Case("on a read-only disk", nothing, READ_ONLY, "only be read", writes=False, untouched=True,
         wrap=in_read_only_folder, needs=why_not_mount),
    Case("killed, on a read-only disk", killed_in_mid_life, READ_ONLY, "only be read",
         writes=False, untouched=True, wrap=in_read_only_folder, needs=why_not_mount),
    Case("killed and without its index, on a read-only disk", killed_and_without_its_index,
         READ_ONLY, "only be read", writes=False, untouched=True, wrap=in_read_only_folder,
         needs=why_not_mount),
    Case("forbidden", forbidden, NO_FOLDER, "permission", reads=False, writes=False,
         untouched=True, wrap=as_user, needs=no_setpriv),
    Case("a folder", folder_in_its_place, NO_FOLDER, "folder", reads=False, writes=False),
    Case("a file for its folder", file_in_the_folders_place, NO_FOLDER, "folder", reads=False,
         writes=False),
    Case("a folder that cannot be made", gone_with_its_folder, NO_FOLDER, "folder", reads=False,
         writes=False, wrap=lambda path, argv: read_only(path.parent.parent, argv),
         needs=why_not_mount),
    Case("newer", newer, "version 99", "Update", reads=False, writes=False, untouched=True),
    Case("newer, with a journal", newer_and_in_use, "version 99", "Update", reads=False,
         writes=False, untouched=True),
    Case("unknown columns", unknown_columns),
    Case("on a full disk", full, READ_ONLY, "room", writes=False, untouched=True,
         needs=why_not_mount),
    Case("another's journal", another_journal, told="journal of another database"),
)  # fmt: skip
"""Older stores have an experiment of their own: `migration`."""


FORWARD = """
from sidecar.stores import database, files
database.check_version = lambda conn: None
files._is_up_to_date = lambda path: True
"""
"""A newer store is used as if it were ours."""

WITHOUT_JOURNAL = """
from sidecar.stores import files
files._WAYS_TO_READ = ("immutable=1",)
"""
"""A store that cannot be written is read without its journal."""

MUTE = """
from sidecar.serving import native
native.NativeServing.show = lambda *_: None
"""
"""The user is told nothing."""


# ---- a start -------------------------------------------------------------------------------


def talk(client: RawClient, name: str) -> None:
    client.call("conversation/create", {"conversationId": name, "title": name})
    client.call("message/send", {"conversationId": name, "input": TEXT})


def make(path: Path) -> None:
    client = RawClient(command(path))
    try:
        client.start(options())
        for name in CONVERSATIONS:
            talk(client, name)
        assert client.shut_down() == 0
    finally:
        client.dispose()


def hash_of(path: Path) -> str:
    """Of the store and its journal; an empty one is none."""
    files = [path, path.with_name(path.name + "-wal")]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files if f.exists())).hexdigest()


def trial(folder: Path, case: Case, figures: Figures, argv: Callable[..., list[str]]) -> None:
    path = folder / "store" / "c.db"
    with ExitStack() as stack:
        if case.change is full:
            stack.enter_context(small_disk(path.parent, 2 * MIB))
        make(path)
        case.change(path)
        before = hash_of(path) if case.untouched else ""
        began = time.monotonic()
        client = RawClient(case.wrap(path, argv(path)))
        try:
            client.initialize(options())
            ready = client.notification("sidecar/ready")
            seconds = time.monotonic() - began
            found = list(look(client, case, ready, path))
            client.check_promises()
            assert client.shut_down() == 0
        except AssertionError as error:
            found, seconds = [str(error)], time.monotonic() - began
        finally:
            client.dispose()
        if seconds > START_LIMIT:
            found.append(f"took {seconds:.1f} s")
        if case.untouched and hash_of(path) != before:
            found.append("the store was changed")
    figures.slowest = max(figures.slowest, seconds)
    figures.starts += 1
    figures.problems += [f"{case.name}: {line}" for line in found]


def look(client: RawClient, case: Case, ready: Message, path: Path) -> list[str]:
    found = []
    degraded = ready.get("degraded") or ""
    if bool(degraded) != bool(case.state) or case.state not in degraded:
        found.append(f"says it is {degraded!r}")
    if case.told:
        shown = client.notification("window/showMessage")["message"]
        if case.told.lower() not in shown.lower():
            found.append(f"the user was told {shown!r}")
        if str(path.parent) in shown:
            found.append("the user was told a path")
    names = CONVERSATIONS + ("c",) * (case.change in LATER)
    found += reading(client, names) if case.reads else refused(client, "conversation/list", {})
    if case.writes:
        talk(client, "new")
    else:
        params = {"conversationId": "a", "input": "more"}
        found += refused(client, "message/send", params)
        found += refused(client, "conversation/create", {})
    return found


LATER = (killed_in_mid_life, killed_and_without_its_index)
"""After these there is a conversation more."""


def reading(client: RawClient, names: Sequence[str]) -> list[str]:
    listed = {c["conversationId"] for c in client.call("conversation/list")["conversations"]}
    found = [f"lists {sorted(listed)}"] if listed != set(names) else []
    for name in sorted(listed):
        exported = client.call("conversation/export", {"conversationId": name})["data"]
        if answer_to(TEXT).strip() not in exported:
            found.append(f"{name} is exported without its text")
    return found


def refused(client: RawClient, method: str, params: Message) -> list[str]:
    answer = client.ask(method, params)
    error = answer.get("error", {})
    if error.get("data", {}).get("type") not in ("STORE_UNAVAILABLE", "PERSISTENCE_FAILED"):
        return [f"{method} was answered {answer}"]
    return [] if error["data"].get("hint") else [f"{method} says not what to do: {error}"]


def experiment(
    folder: Path, cases: Sequence[Case], argv: Callable[..., list[str]] = command
) -> Figures:
    figures = Figures()
    for number, case in enumerate(cases):
        if reason := case.needs():
            figures.skipped.append(f"{case.name} ({reason})")
        else:
            trial(folder / str(number), case, figures, argv)
    return figures


def check(figures: Figures) -> str:
    line = f"unopenable: {figures.line()}"
    assert not figures.problems, f"{line}\n" + "\n".join(figures.problems)
    return line


def main(count: int = 100) -> str:
    """`count` starts, every case in turn."""
    cases = [CASES[number % len(CASES)] for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        return check(experiment(Path(folder), cases))


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else len(CASES)))  # noqa: T201
