"""The composition root: the only place that knows every room.

`serve` is in two halves. The first uses the standard library alone and has answered
`initialize` before the second is imported; see `faces.prologue`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing costs more than it is worth here
if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from .stores.repair import Repaired

USAGE = "usage: agent-sidecar {} [--store PATH]"


def serve(args: list[str], *, face: str) -> int:
    """Speak to an editor over stdio until it says goodbye or is gone."""
    store = _store_option(args)
    if store is None:
        sys.stderr.write(f"{USAGE.format(face)}\n")
        return 2
    from .faces.prologue import refuse_all, run
    from .faces.stdio import claim_stdout

    stdout = claim_stdout()
    handover = run(0, stdout, "acp" if face == "acp" else None)
    if handover.exit_code is not None:
        return handover.exit_code
    try:
        if handover.kind == "acp":
            from .serving.acp import run as go_on
        else:
            from .serving.native import run as go_on
    except Exception as error:  # noqa: BLE001  # whatever it is, the editor is told
        sys.stderr.write(f"agent-sidecar could not load: {error!r}\n")
        return refuse_all(handover, f"It could not be loaded ({type(error).__name__}).")
    _leave(go_on(handover, stdout, store or None))


def repair_store(path: Path) -> Repaired:
    """Check the store and mend it; see `stores.repair`."""
    from .stores.repair import repair

    return repair(path)


def _store_option(args: list[str]) -> str | None:
    """The value of `--store`, "" without one, None for anything else on the command line."""
    match args:
        case []:
            return ""
        case ["--store", path] if path:
            return path
        case [option] if option.startswith("--store=") and len(option) > 8:
            return option[8:]
        case _:
            return None


def _leave(code: int) -> NoReturn:
    """End the process now. Everything is committed and flushed; a thread that is stuck in a
    tool or a provider must not keep us from leaving."""
    sys.stderr.flush()
    os._exit(code)
