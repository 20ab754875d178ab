"""What a store is put together from."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .database import Database
from .lane import Lane
from .owners import Instances


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a store is made of."""

    writer: Database | None
    """None for a store that can only be read."""
    write_lane: Lane
    reader: Database
    read_lane: Lane
    instances: Instances
    store_id: str
    change_no: int = 0
    """The newest change when it was opened."""
    path: Path | None
    degraded: str | None = None
    notice: str | None = None
    unclean: bool = False
    """Whether whoever had it open last did not come to closing it."""
