"""The store that everybody uses: one SQLite file, shared by all windows and all editors."""

from __future__ import annotations

from pathlib import Path

from ..interfaces import Publish
from .conversations import change_no
from .files import open_file
from .lane import ThreadLane
from .memory import open_in_memory
from .opened import Opened
from .schema import read_store_id
from .sql import SqlStore


class SqliteStore(SqlStore):
    @classmethod
    async def open(
        cls, path: Path | None, publish: Publish, *, instance_id: str | None = None
    ) -> SqliteStore:
        """Open the store, or make it; without a path, in memory.

        A damaged file is moved aside and what can be read of it saved (`notice`). One that
        cannot be written is opened for reading (`degraded`). Raises `StoreUnavailable` when
        neither is possible, and for a store of a newer version, which is left untouched.
        """
        if path is None:
            return cls(open_in_memory(instance_id), publish)
        lane = ThreadLane("store-writer")
        try:
            file = await lane.run(lambda: open_file(path, instance_id))
            store_id = await lane.run(lambda: file.reader.read(read_store_id))
            newest = await lane.run(lambda: file.reader.read(change_no))
        except BaseException:
            await lane.aclose()
            raise
        return cls(
            Opened(
                writer=file.writer,
                write_lane=lane,
                reader=file.reader,
                read_lane=ThreadLane("store-reader"),
                instances=file.instances,
                store_id=store_id,
                change_no=newest,
                path=path,
                degraded=file.degraded,
                notice=file.notice,
                unclean=file.unclean,
            ),
            publish,
        )
