"""What a store has done to it beside the work: a look after a crash, a backup, forgetting."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread

from ..errors import AgentError
from .backup import Damaged, backup_of, make_copy, put_in_place, unfinished
from .database import Database
from .lane import Lane
from .owners import Instances

_log = logging.getLogger(__name__)

FIRST_LOOK = 2.0
"""Seconds after the start; the editor's first requests come before."""
INTERVAL = 60.0
TOGETHER = 5.0
"""Seconds after a deletion: several in a row are got out of the index at once."""
BACKUP_AGE = 24 * 3600.0
"""Seconds after which a store that has changed is backed up again."""
BACKUP_BYTES = 64 << 20
"""Or so many bytes written, if they are a quarter of the store: so backups cost no more than
a few times what they save."""


class Upkeep:
    """`run` it for as long as the store is open."""

    def __init__(
        self,
        path: Path,
        writer: Database,
        lane: Lane,
        instances: Instances,
        *,
        forget: Callable[[], Awaitable[None]],
        on_damage: Callable[[], None],
    ) -> None:
        self._path = path
        self._writer = writer
        self._lane = lane
        self._instances = instances
        self._forget = forget
        self._on_damage = on_damage
        self._backed_up = 0

    async def run(self, something_deleted: Callable[[], Awaitable[None]], *, unclean: bool) -> None:
        """`unclean`: check the store first, by way of a backup."""
        await anyio.sleep(FIRST_LOOK)
        await self._guarded(self._remove_unfinished)
        if unclean:
            await self._guarded(self.back_up)
        while True:
            await self._guarded(self._forget)
            await self._guarded(self._back_up_when_due)
            with anyio.move_on_after(INTERVAL):
                await something_deleted()
                await anyio.sleep(TOGETHER)

    async def _guarded(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Damaged:
            _log.error("the store is damaged")
            self._on_damage()
        except (AgentError, OSError, sqlite3.Error) as error:
            _log.warning("housekeeping of the store failed", extra={"cause": repr(error)})

    def is_backup_due(self) -> bool:
        try:
            store, backup = self._path.stat(), backup_of(self._path).stat()
        except FileNotFoundError:
            return True
        written = self._writer.bytes_written - self._backed_up
        if backup.st_mtime > time.time() + BACKUP_AGE:
            return True  # the clock was put back since
        return store.st_mtime - backup.st_mtime > BACKUP_AGE or written > max(
            BACKUP_BYTES, store.st_size // 4
        )

    async def back_up(self) -> bool:
        """Copy the store in steps, check the copy, let it be the backup. Raises `Damaged` when
        the check finds fault: the backup stays what it was then."""
        stop = threading.Event()
        written = self._writer.bytes_written
        try:
            copy = await anyio.to_thread.run_sync(
                make_copy, self._path, self._instances.own, stop, abandon_on_cancel=True
            )
        finally:
            stop.set()
        if copy is None:
            return False
        done = await self._lane.run(
            lambda: self._writer.while_locked(lambda _: put_in_place(self._path, copy))
        )
        if done:
            self._backed_up = written
        return done

    async def _back_up_when_due(self) -> None:
        if self.is_backup_due():
            await self.back_up()

    async def _remove_unfinished(self) -> None:
        """What a process that died had begun."""
        for copy in unfinished(self._path):
            instance = copy.name.rpartition(".copy-")[2]
            if self._instances.is_dead(instance):
                copy.unlink(missing_ok=True)
        for folder in self._path.parent.glob(f"{self._path.name}.salvage-*"):
            # Who salvages is alone with the store, and we have it open.
            shutil.rmtree(folder, ignore_errors=True)
