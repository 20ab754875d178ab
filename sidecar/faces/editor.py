"""What a client's editor does for an agent, if the client said in `initialize` that it can."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import anyio

from ..wire import methods as wire
from .rpc import RpcError

logger = logging.getLogger(__name__)

READ_FILE, APPLY_EDIT = (
    next(m for m in wire.SERVER_REQUESTS if m.name == name)
    for name in ("editor/readFile", "editor/applyEdit")
)
PATIENCE = 2.0
"""Seconds in which an editor says what it shows. One that is busy or gone holds up no agent."""
EDIT_PATIENCE = 30.0

Ask = Callable[[wire.Method, Any], Awaitable[Any]]


def offers(capabilities: dict[str, Any], name: str) -> bool:
    """Whether a client has `name` set in `capabilities.experimental.sidecar`."""
    experimental = capabilities.get("experimental")
    ours = experimental.get("sidecar") if isinstance(experimental, dict) else None
    return isinstance(ours, dict) and ours.get(name) is True


class Editor(Protocol):
    """Files as the user sees them, unsaved changes included."""

    async def read(self, path: Path) -> str | None:
        """None: the editor shows nothing else than what is saved, or does not answer."""
        ...

    async def apply(self, path: Path, old: str, new: str, title: str) -> bool:
        """Change what the editor shows of a file from `old` to `new`. False: it did not."""
        ...


class EditorFiles:
    """`Editor`, by the requests of the native face."""

    def __init__(self, ask: Ask, capabilities: dict[str, Any]) -> None:
        self._ask = ask
        self._can_read = offers(capabilities, "readFile")
        self._can_apply = offers(capabilities, "applyEdit")

    async def read(self, path: Path) -> str | None:
        if not self._can_read:
            return None
        params = wire.ReadFile(uri=path.as_uri())
        shown: wire.FileText | None = await self._answer(READ_FILE, params, PATIENCE)
        return None if shown is None else shown.text

    async def apply(self, path: Path, old: str, new: str, title: str) -> bool:
        if not self._can_apply:
            return False
        params = wire.ApplyEdit(uri=path.as_uri(), old_text=old, new_text=new, title=title)
        done: wire.AppliedEdit | None = await self._answer(APPLY_EDIT, params, EDIT_PATIENCE)
        return done is not None and done.applied

    async def _answer(self, method: wire.Method, params: Any, patience: float) -> Any:
        try:
            with anyio.fail_after(patience):
                return await self._ask(method, params)
        except TimeoutError:
            logger.warning("the editor did not answer in time", extra={"method": method.name})
        except RpcError as error:
            logger.info("the editor refused", extra={"cause": error.message})
        return None
