"""Where a chat is drawn: a plain stream, or a terminal that shows Markdown while it arrives."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from .markdown import markdown, split_blocks
from .prompt import silent_keyboard
from .render import (
    Piece,
    Steered,
    ToolUse,
    Words,
    WordsEnd,
    plain_snippet,
    printable,
    tool_line,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

QUIET_SECONDS = 1.0
"""After this long without a word the reader is shown that something still goes on."""
MARGIN = 4
"""Lines of the terminal that a growing answer leaves free."""


def make_screen(stdout: TextIO | None = None) -> Screen:
    out = stdout or sys.stdout
    if out.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown"):
        return TerminalScreen()
    return Screen(out)


class Screen:
    """A stream of plain text: each word is written as it arrives and stays."""

    mark = ">"
    """What stands before the user's words."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_gap = True

    def line(self, text: str = "", style: str = "") -> None:
        """A line of ours. `style` is a hint for screens that have any."""
        print(printable(text), file=self._out, flush=True)
        self._is_gap = not text

    def gap(self) -> None:
        """An empty line, unless there is one already."""
        if not self._is_gap:
            self.line()

    def error(self, message: str, hint: str | None = None) -> None:
        self.line(f"Error: {message}", "red")
        if hint:
            self.line(f"  → {hint}")

    def snippet(self, text: str) -> None:
        """A passage whose matches stand between `\\x02` and `\\x03`."""
        self.line(f"  {plain_snippet(text)}")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around a turn; `show` and `tick` are called inside."""
        yield

    def show(self, piece: Piece) -> None:
        match piece:
            case Words():
                self._out.write(printable(piece.text))
                self._out.flush()
            case WordsEnd():
                self.line()
                self._is_gap = False
            case ToolUse():
                self.line(f"[{tool_line(piece)}]")
            case Steered():
                self.line(f"> {piece.text}" if piece.is_own else f"[{piece.text}]")

    def tick(self, activity: str) -> None:
        """Time has passed; `activity` is what the turn is at."""

    def prompt(self, label: str = "") -> str:
        """What a line of input begins with."""
        self._is_gap = False
        return f"{label} {self.mark} ".lstrip() if sys.stdin.isatty() else ""


class TerminalScreen(Screen):
    """A terminal. What is whole is printed for good, block by block, so that it scrolls away
    like any output; only the unfinished end of an answer is drawn again as it grows."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.theme import Theme

        super().__init__(sys.stdout)
        theme = Theme({"markdown.code": "bold cyan", "markdown.h1": "bold underline"})
        self._console: Console = Console(highlight=False, theme=theme)
        self._live: Live | None = None
        self._tail = ""
        self._quiet_since = time.monotonic()
        self._begun_at = time.monotonic()
        self._has_begun = False
        """Whether the answer that is being made shows anything yet."""
        is_utf8 = (self._console.encoding or "").startswith("utf")
        self.mark, self._arrow = ("›", "→") if is_utf8 else (">", "->")
        self._spinner_name = "dots" if is_utf8 else "line"

    def line(self, text: str = "", style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(printable(text), style=style))
        self._is_gap = not text

    def error(self, message: str, hint: str | None = None) -> None:
        self.line(message, "red")
        if hint:
            self.line(f"  {self._arrow} {hint}")

    def snippet(self, text: str) -> None:
        from rich.text import Text

        shown = Text("  ")
        for index, piece in enumerate(re.split("[\x02\x03]", " ".join(text.split()))):
            shown.append(printable(piece), "bold yellow" if index % 2 else "")
        self._console.print(shown)

    @contextmanager
    def answering(self) -> Iterator[None]:
        from rich.live import Live
        from rich.spinner import Spinner

        self._spinner = Spinner(self._spinner_name, style="cyan")
        self._begun_at = self._quiet_since = time.monotonic()
        self._has_begun = False
        self.gap()
        live = Live(
            console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop"
        )
        with silent_keyboard(), live:
            self._live = live
            try:
                yield
            finally:
                self._finish_words()
                self._live = None

    def show(self, piece: Piece) -> None:
        self._quiet_since = time.monotonic()
        self._has_begun = True
        if isinstance(piece, Words):
            self._tail += printable(piece.text)
            return
        self._finish_words()
        if isinstance(piece, ToolUse):
            self.line(f"  {tool_line(piece)}".replace("→", self._arrow), "dim")
            self.gap()
        elif isinstance(piece, Steered):
            mark, style = (f"{self.mark} ", "bold") if piece.is_own else ("  ", "cyan")
            self.line(f"{mark}{piece.text}", style)
            self.gap()

    def tick(self, activity: str) -> None:
        if self._live is None:
            return
        if self._tail:
            finished, self._tail = split_blocks(self._tail)
            self._print_blocks(finished)
        self._live.update(self._unfinished(activity), refresh=True)

    def prompt(self, label: str = "") -> str:
        plain = super().prompt(label)
        if self._console.no_color or "readline" not in sys.modules or not plain:
            return plain
        # Between \001 and \002 stands what takes no room; readline counts the rest.
        return f"\001\033[1;36m\002{plain}\001\033[0m\002"

    def _finish_words(self) -> None:
        tail, self._tail = self._tail, ""
        self._print_blocks(tail)

    def _print_blocks(self, text: str) -> None:
        if not text.strip():
            return
        with self._console:  # one write, so that nothing flickers
            if self._live is not None:
                self._live.update("", refresh=True)
            self._console.print(markdown(text))
            self._is_gap = False
            self.gap()

    def _unfinished(self, activity: str) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        shown: list[RenderableType] = []
        if self._tail.strip():
            shown.append(markdown(self._tail, self._console.height - MARGIN))
        if not self._has_begun or time.monotonic() - self._quiet_since >= QUIET_SECONDS:
            seconds = int(time.monotonic() - self._begun_at)
            waited = f" {seconds} s" if seconds else ""
            self._spinner.update(text=Text(f"{activity}{waited}  Ctrl-C stops", style="dim"))
            shown.append(self._spinner)
        return Group(*shown)
