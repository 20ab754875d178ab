"""What a client's editor does for an agent, if the client said in `initialize` that it can."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from ..wire import methods as wire
from .jsonrpc import RpcError

logger = logging.getLogger(__name__)

READ_FILE = next(m for m in wire.SERVER_REQUESTS if m.name == "editor/readFile")
PATIENCE = 2.0
"""Seconds in which an editor says what it shows. One that is busy or gone holds up no agent."""

Ask = Callable[[wire.Method, Any], Awaitable[Any]]
ReadFile = Callable[[Path], Awaitable[str | None]]


def offers(capabilities: dict[str, Any], name: str) -> bool:
    """Whether a client has `name` set in `capabilities.experimental.sidecar`."""
    experimental = capabilities.get("experimental")
    ours = experimental.get("sidecar") if isinstance(experimental, dict) else None
    return isinstance(ours, dict) and ours.get(name) is True


class EditorFiles:
    """Files as the user sees them, unsaved changes included."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def read(self, path: Path) -> str | None:
        """None: the editor shows nothing else than what is saved, or does not answer."""
        try:
            with anyio.fail_after(PATIENCE):
                shown: wire.FileText = await self._ask(READ_FILE, wire.ReadFile(uri=path.as_uri()))
        except TimeoutError:
            logger.warning("the editor did not say in time what a file holds")
        except RpcError as error:
            logger.info("the editor does not give a file", extra={"cause": error.message})
        else:
            return shown.text
        return None
