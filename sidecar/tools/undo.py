"""Putting files back to what they held before some turns, unless somebody changed them since."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from anyio import to_thread

from ..interfaces import TouchedFile
from ..work import UndoneFile, UndoState
from .editing import diff_of
from .files import Refused
from .writing import change, held


class Editor(Protocol):
    async def read(self, path: Path) -> str | None: ...
    async def apply(self, path: Path, old: str, new: str, title: str) -> bool: ...


DIFF_BYTES = 64 * 1024


class Undo:
    """Never touches what git keeps for itself, nor anything outside of `roots`."""

    def __init__(self, roots: Sequence[str], editor: Editor | None) -> None:
        self._roots = frozenset(roots)
        self._editor = editor

    async def preview(self, touched: Sequence[TouchedFile]) -> list[UndoneFile]:
        return [(await self._look(file))[0] for file in touched]

    async def put_back(self, touched: Sequence[TouchedFile], *, force: bool) -> list[UndoneFile]:
        """As far as it goes: a file that cannot be put back keeps no other from it."""
        return [await self._put_back(file, force) for file in touched]

    async def _put_back(self, file: TouchedFile, force: bool) -> UndoneFile:
        seen, held_now = await self._look(file)
        may = seen.state is UndoState.READY or (force and seen.state is UndoState.CONFLICT)
        if not may:
            return seen
        try:
            await self._write(file, held_now)
        except Refused as error:
            return msgspec.structs.replace(seen, state=UndoState.FAILED, problem=str(error))
        return msgspec.structs.replace(seen, state=UndoState.DONE)

    async def _look(self, file: TouchedFile) -> tuple[UndoneFile, bytes | None]:
        action = "delete" if file.before is None else "create" if file.after is None else "restore"
        seen = UndoneFile(path=file.relative, root=file.root, action=action, state=UndoState.FAILED)
        try:
            now = await self._held(file)
        except Refused as error:
            return msgspec.structs.replace(seen, problem=str(error)), None
        if now == file.before:
            state = UndoState.SAME
        else:
            digest = None if now is None else hashlib.sha256(now).digest()
            state = UndoState.READY if digest == file.after else UndoState.CONFLICT
        diff = _readable(file, now) if state is not UndoState.SAME else ""
        return msgspec.structs.replace(seen, state=state, diff=diff), now

    async def _held(self, file: TouchedFile) -> bytes | None:
        """What the user sees in it: an editor's buffer before the disk."""
        if file.root not in self._roots or ".git" in file.relative.casefold().split("/"):
            raise Refused("It is not in this workspace.")
        path = Path(file.root) / file.relative
        shown = await self._editor.read(path) if self._editor else None
        if shown is not None:
            return shown.encode("utf-8", "surrogatepass")
        return await to_thread.run_sync(held, Path(file.root), file.relative)

    async def _write(self, file: TouchedFile, now: bytes | None) -> None:
        root = Path(file.root)
        saved = await to_thread.run_sync(held, root, file.relative)
        if self._editor and saved != now and now is not None and file.before is not None:
            # It stands in a buffer only: undone there, where the user sees it.
            old, new = now.decode("utf-8", "surrogatepass"), file.before.decode("utf-8", "replace")
            if await self._editor.apply(root / file.relative, old, new, f"Undo {file.relative}"):
                return
            raise Refused("It has unsaved changes, and its editor refused.")
        await to_thread.run_sync(change, root, file.relative, saved, file.before)


def _readable(file: TouchedFile, now: bytes | None) -> str:
    try:
        old, new = (None if b is None else b.decode() for b in (now, file.before))
    except UnicodeDecodeError:
        return ""
    diff = diff_of(file.relative, old or "", new or "")
    return diff if len(diff) <= DIFF_BYTES else ""
