"""Which sidecar owns a conversation, and who of them is alive.

Each sidecar holds an OS lock on a file named by its instance id for as long as it lives. An
owner is (instance, generation); the generation grows whenever a conversation changes hands, so
that a late write of a former owner is recognised.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import Conflict
from ..ids import new_id
from .oslock import OsLock, is_free
from .rows import ConversationRow
from .write import Write

IsDead = Callable[[str], bool]


class Instances:
    """The sidecars of one store, this one among them."""

    def __init__(self, folder: Path | None, instance_id: str | None = None) -> None:
        self.own = instance_id or new_id()
        self._folder = folder
        self._lock: OsLock | None = None

    def join(self) -> None:
        """Be alive, for the others to see. A store in memory has no others."""
        if self._folder is None:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = OsLock(self._file(self.own))
        if not self._lock.try_acquire():
            raise Conflict("Another process uses this instance id.")

    def leave(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            self._file(self.own).unlink(missing_ok=True)

    def is_dead(self, instance: str) -> bool:
        if instance == self.own or self._folder is None:
            return False
        return is_free(self._file(instance))

    def are_alone(self) -> bool:
        """Whether no other sidecar has this store open."""
        return not any(self._others())

    def count_others(self) -> int:
        """How many other sidecars have this store open."""
        return sum(1 for _ in self._others())

    def _others(self) -> Iterator[str]:
        if self._folder is not None and self._folder.is_dir():
            ids = (file.stem for file in self._folder.glob("*.lock"))
            yield from (id for id in ids if id != self.own and not self.is_dead(id))

    @property
    def mark(self) -> str:
        """What our children carry: it names us and, as others may have other stores, this one."""
        return "" if self._folder is None else str(self._file(self.own))

    def is_orphaned(self, mark: str) -> bool:
        """Whether the sidecar that a process carries the mark of was one of ours and is dead."""
        file = Path(mark)
        return file.parent == self._folder and self.is_dead(file.stem)

    def forget_dead(self, conn: sqlite3.Connection) -> None:
        """Remove what dead instances left, unless they own something still to be settled."""
        dead = [id for (id,) in conn.execute("SELECT id FROM instances") if self.is_dead(id)]
        for instance in dead:
            conn.execute("DELETE FROM instances WHERE id = ?", (instance,))
            if self._folder is not None:
                self._file(instance).unlink(missing_ok=True)

    def _file(self, instance: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{instance}.lock"


def announce(write: Write) -> None:
    write.conn.execute(
        "INSERT OR REPLACE INTO instances (id, pid, started_at) VALUES (?, ?, ?)",
        (write.instance, os.getpid(), write.now),
    )


def retire(write: Write) -> None:
    write.conn.execute("DELETE FROM instances WHERE id = ?", (write.instance,))


def claim(write: Write, row: ConversationRow, is_dead: IsDead, *, force: bool = False) -> int:
    """Own the conversation and return the generation. Raises `Conflict` when another living
    sidecar owns it, unless `force`."""
    owner = write.conn.execute(
        "SELECT instance, generation FROM owners WHERE conversation = ?", (row.key,)
    ).fetchone()
    if owner is not None and owner[0] == write.instance:
        return int(owner[1])
    if owner is not None and not force and not is_dead(owner[0]):
        raise Conflict(
            "This conversation is open in another window.",
            conversation_id=row.id,
            hint="Go on there, or take it over here.",
            retryable=True,
        )
    generation = 1 if owner is None else int(owner[1]) + 1
    write.conn.execute(
        "INSERT OR REPLACE INTO owners (conversation, instance, generation) VALUES (?, ?, ?)",
        (row.key, write.instance, generation),
    )
    return generation
