"""Reading what the user types, with a history that only the user can read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import paths

MAX_HISTORY = 1_000


def history_file() -> Path:
    return Path(paths.data_folder(sys.platform, os.environ)) / "chat-history"


@contextmanager
def line_editing(history: Path, commands: Iterable[str]) -> Iterator[None]:
    """Arrow keys, a history in `history` and Tab for slash commands, where the platform has
    them; elsewhere lines are read as they are."""
    try:
        import readline
    except ImportError:  # Windows: its console edits lines by itself
        yield
        return
    names = sorted(commands)

    def complete(text: str, state: int) -> str | None:
        found = [name for name in names if text.startswith("/") and name.startswith(text)]
        return f"{found[state]} " if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    # A text of several lines that is pasted is one message, not several.
    readline.parse_and_bind("set enable-bracketed-paste on")
    readline.set_history_length(MAX_HISTORY)
    readline.clear_history()
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        _keep(history)


def _keep(history: Path) -> None:
    """What was asked is nobody else's business: the file is made before it is filled."""
    import readline

    with contextlib.suppress(OSError):
        history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(history, os.O_CREAT | os.O_WRONLY, 0o600))
        readline.write_history_file(history)
        history.chmod(0o600)


def read_message(mark: str, more: str) -> str:
    """One message: a line, and the next one too where it ends in a backslash.

    Raises `EOFError` at the end of input and `KeyboardInterrupt` for Ctrl-C.
    """
    lines = [_read_line(mark)]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(_read_line(more))
    return "\n".join(lines)


def _read_line(mark: str) -> str:
    if sys.stdin.isatty():
        return input(mark)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


class Interrupts:
    """How often Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.count = 0

    def press(self, *_: object) -> None:
        self.count += 1


@contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Inside, Ctrl-C breaks into nothing: it is counted, for whoever looks where it can be
    acted on. An exception in the middle of a hand-over between threads could not be."""
    import signal

    interrupts = Interrupts()
    before = signal.signal(signal.SIGINT, interrupts.press)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def silent_keyboard() -> Iterator[None]:
    """What is typed while an answer is drawn is not echoed into it; it is there for the next
    line. Ctrl-C works as ever."""
    try:
        import termios
    except ImportError:  # Windows: its console echoes only what is read
        yield
        return
    keyboard = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(keyboard)
    except termios.error:  # not a terminal
        yield
        return
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(keyboard, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
