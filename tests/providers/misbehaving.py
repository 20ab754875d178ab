"""A vendor's library as bad as third-party code can be, for workers: `make(config)`.

The prompt says what it does: `echo …`, `spin`, `block` (in C, holding the interpreter), `ignore`
(cancellation), `print …`, `die`, `fail`, `flood N`, `drip N`, `warn …` in every way,
`spawn` (a process that goes its own way), `think` (silent, and fine).
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel

from sidecar.errors import NetworkError
from sidecar.interfaces import ModelEvent, ModelRequest, ModelStop, TextDelta
from sidecar.settings import Config

SLEEP = "import time; time.sleep(600)"


class Misbehaving:
    name = "misbehaving"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        what, _, rest = request.prompt.input.partition(" ")
        yield TextDelta(f"pid {os.getpid()} ")
        await anyio.lowlevel.checkpoint()  # the event is on its way
        match what:
            case "spin":
                while True:
                    pass
            case "block":
                ctypes.PyDLL(None).sleep(600)
            case "nap":
                time.sleep(600)  # noqa: ASYNC251  # the point of it
            case "ignore":
                while True:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(600)
            case "die":
                os._exit(3)
            case "fail":
                raise NetworkError("It is out.", hint="Wait.", retryable=True, retry_after=2.5)
            case "print":
                print(rest, flush=True)  # noqa: T201  # the point of it
                os.write(1, rest.encode())
            case "flood":
                for number in range(int(rest)):
                    yield TextDelta(f"{number} ")
            case "drip":
                for number in range(int(rest)):
                    await anyio.sleep(0.01)
                    yield TextDelta(f"{number} ")
            case "warn":
                logging.getLogger("vendor").error(rest)
                warnings.warn(rest, stacklevel=1)
                sys.stderr.write(rest)
                os.write(2, rest.encode())
                logging.getLogger("sidecar.vendor").warning("ours, with %s", rest)
            case "spawn":
                yield TextDelta(f"away {run_away()} ")
                await anyio.sleep(600)
            case "think":
                await anyio.sleep(600)
            case "env":
                yield TextDelta(" ".join(sorted(os.environ)))
            case _:
                for word in rest.split():
                    yield TextDelta(f"{word} ")
        yield ModelStop("endTurn")

    async def aclose(self) -> None:
        """There is nothing to give back."""


def run_away() -> int:
    """Start a process that nobody looks after; returns its id."""
    nowhere = subprocess.DEVNULL
    command = [sys.executable, "-c", SLEEP]
    return subprocess.Popen(command, start_new_session=True, stdout=nowhere, stderr=nowhere).pid


def make(config: Config) -> Misbehaving:
    return Misbehaving()
