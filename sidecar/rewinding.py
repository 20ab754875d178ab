"""Taking back talk and files in one step: seen beforehand, and not over somebody else's changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .audit import AuditAction, AuditEntry
from .conversations import Conversation
from .errors import Conflict, InvalidState
from .interfaces import ConversationStore, TouchedFile
from .work import UndoneFile, UndoState

MOST_NAMED = 10


class FileUndo(Protocol):
    """Puts back what turns changed in files."""

    async def preview(self, touched: Sequence[TouchedFile]) -> Sequence[UndoneFile]: ...
    async def put_back(
        self, touched: Sequence[TouchedFile], *, force: bool
    ) -> Sequence[UndoneFile]: ...


MakeUndo = Callable[[Conversation], FileUndo]


class Rewinding:
    """`runs_here` tells whether a turn of a conversation runs in this process; without
    `make_undo` there are no files to put back."""

    def __init__(
        self,
        store: ConversationStore,
        runs_here: Callable[[str], bool],
        make_undo: MakeUndo | None,
    ) -> None:
        self._store = store
        self._runs_here = runs_here
        self._make_undo = make_undo

    async def rewind(
        self,
        conversation_id: str,
        to_message_id: str | None,
        *,
        preview: bool,
        files: bool = False,
        force: bool = False,
    ) -> tuple[tuple[str, ...], tuple[UndoneFile, ...]]:
        """Hide the messages after one and, with `files`, put back what their turns changed.

        Files first, so that a crash in between leaves something that can be asked for again.
        Raises `Conflict`, and nothing is done, if a file was changed since by somebody else,
        unless `force`.
        """
        undone: tuple[UndoneFile, ...] = ()
        if files or preview:
            undone = await self._undo_files(conversation_id, to_message_id, preview, force)
        hidden = await self._store.rewind(conversation_id, to_message_id, preview=preview)
        return hidden, undone

    async def _undo_files(
        self, conversation_id: str, to_message_id: str | None, preview: bool, force: bool
    ) -> tuple[UndoneFile, ...]:
        touched = await self._store.touched_files(conversation_id, to_message_id)
        if not touched or self._make_undo is None:
            return ()
        undo = self._make_undo(await self._store.get(conversation_id))
        seen = await undo.preview(touched)
        if preview:
            return tuple(seen)
        self._check(conversation_id, seen, force)
        done = await undo.put_back(touched, force=force)
        back = [(f.root, f.path) for f in done if f.state in (UndoState.DONE, UndoState.SAME)]
        entry = AuditEntry(
            action=AuditAction.REWIND,
            allowed=True,
            why="user",
            conversation_id=conversation_id,
            count=len(back),
        )
        await self._store.mark_undone(conversation_id, to_message_id, back, entry)
        return tuple(done)

    def _check(self, conversation_id: str, seen: Sequence[UndoneFile], force: bool) -> None:
        if self._runs_here(conversation_id):
            raise InvalidState(
                "A turn is running in this conversation.",
                conversation_id=conversation_id,
                hint="Cancel it first.",
            )
        hindered = [f.path for f in seen if f.state in (UndoState.CONFLICT, UndoState.FAILED)]
        if hindered and not force:
            names = ", ".join(hindered[:MOST_NAMED])
            raise Conflict(
                f"Changed since by somebody else: {names}. Nothing was undone.",
                conversation_id=conversation_id,
                hint="Look with `preview`; `force` puts them back all the same.",
            )
