"""Children are known again and ended with all theirs; others are let alone (P7)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from sidecar import processes
from sidecar.processes import ChildRecord
from tests.requirements import proves

posix = pytest.mark.skipif(sys.platform == "win32", reason="process groups")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TREE = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session="away" in sys.argv)
print(child.pid, flush=True)
child.wait()
"""
"""A child with a child of its own, which may leave the group. It does not end when asked to."""


def has_ended(pid: int, within: float = 10) -> bool:
    """Wait for the end of a process that may be another's child."""
    deadline = time.monotonic() + within
    while processes.began(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Tree:
    def __init__(self, *arguments: str, mark: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TREE, *arguments],
            stdout=subprocess.PIPE,
            env=processes.environment(mark),
            **processes.own_group(),
        )
        assert self.process.stdout is not None
        self.grandchild = int(self.process.stdout.readline())

    @property
    def record(self) -> ChildRecord:
        began = processes.began(self.process.pid)
        assert began is not None
        return ChildRecord(self.process.pid, began, "tree")

    @property
    def is_gone(self) -> bool:
        self.process.wait(10)
        return has_ended(self.grandchild)

    def dispose(self) -> None:
        processes.kill_group(self.process.pid)
        processes.kill_group(self.grandchild)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def trees() -> Iterator[list[Tree]]:
    made: list[Tree] = []
    yield made
    for tree in made:
        tree.dispose()


def test_a_process_is_known_by_its_id_and_the_moment_it_began() -> None:
    here = ChildRecord(os.getpid(), processes.began(os.getpid()) or "", "us")
    assert processes.is_same(here)
    assert not processes.is_same(ChildRecord(os.getpid(), "another time", "us"))


def test_the_fields_of_a_process_are_counted_from_behind_its_name() -> None:
    fields = " ".join(str(n) for n in range(4, 53))
    assert processes.parse_stat(f"17 (a) b (S) ) S {fields}", "boot") == "boot:22"
    assert processes.parse_stat(f"17 (sh) Z {fields}", "boot") is None


@proves("P10")
def test_a_child_gets_what_it_needs_and_no_key() -> None:
    ours = {
        "PATH": "/bin",
        "Path": "C:\\",
        "LC_ALL": "C",
        "OPENAI_API_KEY": "k",
        "PYTHONPATH": "x",
        "SSH_AUTH_SOCK": "s",
    }
    seen = processes.environment("m", ours)
    assert seen == {"PATH": "/bin", "Path": "C:\\", "LC_ALL": "C", processes.MARK: "m"}
    assert processes.environment("", ours).keys() == {"PATH", "Path", "LC_ALL"}


@proves("P7")
@posix
def test_a_group_is_ended_whole(trees: list[Tree]) -> None:
    trees.append(Tree())
    processes.kill_group(trees[0].process.pid)
    assert trees[0].is_gone


@proves("P7")
@posix
@pytest.mark.anyio
async def test_who_does_not_end_when_asked_to_is_ended(trees: list[Tree]) -> None:
    trees.append(Tree())
    await processes.end_group(trees[0].process.pid, grace=0.1)
    assert trees[0].is_gone


@posix
def test_a_process_that_has_the_id_of_a_child_that_ended_is_let_alone(trees: list[Tree]) -> None:
    trees.append(Tree())
    stranger = ChildRecord(trees[0].process.pid, "before the last start", "tree")
    assert processes.reap([stranger], lambda _: False) == 0
    assert processes.is_same(trees[0].record)


@proves("P7")
@posix
def test_recorded_children_are_reaped(trees: list[Tree]) -> None:
    trees.append(Tree())
    assert processes.reap([trees[0].record], lambda _: False) == 1
    assert trees[0].is_gone


@proves("P7")
@linux
def test_descendants_that_left_the_group_are_found_by_their_mark(trees: list[Tree]) -> None:
    trees += [Tree("away", mark="/stores/dead.lock"), Tree("away", mark="/stores/alive.lock")]
    dead, alive = trees
    assert processes.reap([], lambda mark: mark == "/stores/dead.lock") == 2
    assert dead.is_gone
    assert processes.began(alive.grandchild) is not None
