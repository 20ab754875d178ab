"""What a command changed, found by looking at the workspace before and after it.

A command may change anything, and says nothing. So what the files hold is remembered first,
within bounds, and what differs afterwards becomes a pre-image like that of an edit. Blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..interfaces import PreImage
from .files import Entry, Refused, Workspace
from .writing import held

MAX_FILES = 5_000
FILE_BYTES = 1 << 20
TOTAL_BYTES = 32 << 20
"""Memory that a running command may cost for the sake of undoing it."""


class _Seen(NamedTuple):
    entry: Entry
    signature: tuple[int, int, int]
    content: bytes | None
    """None: too large to be remembered."""


class Snapshot:
    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._seen: dict[tuple[Path, str], _Seen] = {}
        self.left_out = 0
        """Files of which only a change can be noticed, not what was changed."""
        room = TOTAL_BYTES
        for entry in workspace.files():
            if (signature := _signature(entry)) is None:
                continue
            size = signature[0]
            fits = size <= FILE_BYTES and size <= room and len(self._seen) < MAX_FILES
            content = _content(entry) if fits else None
            room -= len(content or b"")
            self.left_out += content is None
            self._seen[entry.root, entry.relative] = _Seen(entry, signature, content)

    def changes(self) -> Iterator[PreImage]:
        """What is not any more as it was."""
        now = {(entry.root, entry.relative): entry for entry in self._workspace.files()}
        for key in dict.fromkeys([*self._seen, *now]):
            seen = self._seen.get(key)
            entry = seen.entry if seen else now[key]
            signature = _signature(entry)
            if (seen and signature == seen.signature) or (seen and seen.content is None):
                continue
            before = seen.content if seen else None
            after = _content(entry) if signature else None
            if before != after:
                yield PreImage(
                    root=str(entry.root), relative=entry.relative, before=before, after=after
                )


def _signature(entry: Entry) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = os.lstat(entry.root / entry.relative)
        return status.st_size, status.st_mtime_ns, status.st_ino
    return None


def _content(entry: Entry) -> bytes | None:
    with suppress(Refused, OSError):
        return held(entry.root, entry.relative)
    return None
