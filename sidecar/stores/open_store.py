"""A store that is open: its transactions and their lanes, its damage, its upkeep, its end."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio

from ..errors import AgentError, StoreUnavailable
from ..interfaces import Publish
from . import owners, search
from .backup import discard
from .condition import note_damage
from .database import NEXT_STEP, Database, is_damage, is_index_damage, patience
from .files import part
from .lane import closed
from .opened import Opened
from .upkeep import Upkeep
from .write import Write

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CHECKPOINT_TRIES, _CHECKPOINT_PAUSE = 40, 0.05


class OpenStore:
    """`notice` tells what happened to the store when it was opened, for the user to read, or is
    None. `on_damage` is called once, with what to tell the user, when damage is met later; from
    then on the store is only read. `on_held` hears that writes have to wait for somebody else,
    and that they do not any more."""

    def __init__(self, opened: Opened, publish: Publish) -> None:
        self._opened = opened
        self._writer = opened.writer
        self._reader = opened.reader
        self._write_lane = opened.write_lane
        self._read_lane = opened.read_lane
        self._instances = opened.instances
        self._publish = publish
        self._closed = False
        self.degraded = opened.degraded
        self.notice = opened.notice
        self.store_id = opened.store_id
        self.change_no = opened.change_no
        """The newest change that this process knows of."""
        self.path = opened.path
        self.is_shared = opened.path is not None
        self.was_left_unclean = opened.unclean
        self._seen = (0, 0)
        """SQLite's data version at the last look for changes, and up to which one it told."""
        self._is_leaving = False
        self._deleted = anyio.Event()
        self.on_damage: Callable[[str], None] = lambda _: None
        self.on_held: Callable[[bool], None] = lambda _: None
        if self._writer is not None and self.is_shared:
            self._hear_of_waiting(self._writer)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.store_id}: {self.degraded or 'writable'}>"

    def _hear_of_waiting(self, writer: Database) -> None:
        loop = asyncio.get_running_loop()

        def hear(is_held: bool) -> None:
            with suppress(RuntimeError):  # the loop has ended; nobody is to be told any more
                loop.call_soon_threadsafe(lambda: self.on_held(is_held))

        writer.on_held = hear

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise closed()
        with self._watching():
            return await self._read_lane.run(lambda: self._reader.read(work))

    async def _write(self, work: Callable[[Write], T]) -> T:
        writer = self._writer
        if self._closed:
            raise closed()
        if writer is None or self.degraded is not None:
            raise StoreUnavailable(
                "The store can only be read.",
                hint=self.degraded,
                retryable=False,
            )

        until = patience()

        def transaction() -> tuple[T, Write]:
            def inside(conn: sqlite3.Connection) -> tuple[T, Write]:
                write = Write(conn, self._instances.own)
                result = work(write)
                write.finish()
                return result, write

            return writer.write(inside, until=until)

        with self._watching():
            result, _ = await self._write_lane.run(transaction, self._committed)
        if writer.checkpoint_is_due():
            # Not awaited: a caller who is cancelled now still gets what was committed.
            self._write_lane.post(lambda: self._tidy(writer))
        return result

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Take note when an error means damage."""
        try:
            yield
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.Error) and is_index_damage(cause):
                self._write_lane.post(self._rebuild_index)
            elif isinstance(cause, sqlite3.Error) and is_damage(cause):
                self._found_damage()
            raise

    def _found_damage(self) -> None:
        """From here on nothing is written that could make it worse; the next start repairs."""
        if self.degraded is None and self._writer is not None:
            self.degraded = f"The store is damaged. {NEXT_STEP}"
            writer = self._writer
            self._write_lane.post(lambda: writer.while_locked(note_damage))
            self.on_damage(self.degraded)

    def _rebuild_index(self) -> None:
        """The search index is made from the messages; it alone is no loss."""
        assert self._writer is not None
        self._writer.write(lambda conn: search.rebuild(Write(conn, self._instances.own)))

    async def keep_up(self) -> None:
        """Look after the store until cancelled: check it after a crash, back it up, get what
        was deleted out of the search index."""
        if self._writer is None or self._opened.path is None:
            return
        upkeep = Upkeep(
            self._opened.path,
            self._writer,
            self._write_lane,
            self._instances,
            forget=self.forget_deleted,
            on_damage=self._found_damage,
        )
        await upkeep.run(self._deleted_something, unclean=self._opened.unclean)

    async def _deleted_something(self) -> None:
        await self._deleted.wait()

    async def forget_deleted(self) -> None:
        """Remove the words of deleted messages from the search index, a step at a time."""
        self._deleted = anyio.Event()
        while await self._read(search.has_to_purge):
            first = True
            while await self._write(partial(search.purge_some, first=first)):
                first = False
            await self.shrink()

    def _tidy(self, writer: Database) -> None:
        """What `shrink` does, a step at a time behind whatever else is to be written."""
        if self._closed:  # it was asked for just before
            return
        if writer.give_back_some():
            self._write_lane.post(lambda: self._tidy(writer))
        else:
            writer.checkpoint()

    def _committed(self, done: tuple[object, Write]) -> None:
        write = done[1]
        if write.has_changed:
            self.change_no = max(self.change_no, write.change_no)
            self._publish(write.events)

    async def aclose(self) -> None:
        """Leave no journal behind. May be called twice."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            if self._reader is not self._writer:
                await self._read_lane.run(self._reader.close)
                await self._read_lane.aclose()
            if self._writer is not None:
                await self._write_lane.run(self._close_writer)
            await self._write_lane.aclose()

    def _close_writer(self) -> None:
        writer = self._writer
        assert writer is not None
        try:
            writer.write(lambda conn: owners.retire(Write(conn, self._instances.own)))
            writer.checkpoint()
        except AgentError:
            # The journal keeps everything; the next start brings it into the file.
            _log.warning("the store could not be tidied up", exc_info=True)
        path = self._opened.path
        try:
            writer.close(None if path is None else partial(part, path, self._instances))
            self._instances.leave()
        except (OSError, sqlite3.Error):
            # The next start takes us for dead, and looks at the store more closely.
            _log.warning("the store could not be left in order", exc_info=True)

    # ---- giving back what is not needed ----

    async def shrink(self) -> None:
        """Empty the journal and give unused pages back to the file system, in small steps."""
        if self._writer is None:
            return
        while await self._write_lane.run(self._writer.give_back_some):
            pass
        for _ in range(_CHECKPOINT_TRIES):
            if await self._write_lane.run(self._writer.checkpoint):
                return
            # A reader is in the way; it is done within 50 ms.
            await anyio.sleep(_CHECKPOINT_PAUSE)

    def _discard_backup(self) -> None:
        """Before the commit, so that no crash lets a backup outlive what was deleted."""
        if self._opened.path is not None:
            discard(self._opened.path)
