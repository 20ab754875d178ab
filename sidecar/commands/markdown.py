"""Markdown for a terminal, also while it is still being written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult


def markdown(text: str, height: int | None = None) -> RenderableType:
    """Headings at the left, code in the terminal's own colours; the last `height` lines of it."""
    from rich.markdown import CodeBlock, Heading, Markdown
    from rich.syntax import Syntax

    class LeftHeading(Heading):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            heading = self.text.copy()
            heading.justify = "left"
            yield heading

    class TightCode(CodeBlock):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            code = str(self.text).rstrip()
            yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 2))

    class OurMarkdown(Markdown):
        elements = {
            **Markdown.elements,
            "heading_open": LeftHeading,
            "fence": TightCode,
            "code_block": TightCode,
        }

    return Trimmed(OurMarkdown(text, code_theme="ansi_dark", hyperlinks=False), height)


def split_blocks(text: str) -> tuple[str, str]:
    """Markdown in two: the blocks that nothing more can change, and the one that still may."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    starts = [token.map[0] for token in tokens if token.level == 0 and token.map]
    if not starts or starts[-1] == 0:
        return "", text
    lines = text.split("\n")
    return "\n".join(lines[: starts[-1]]), "\n".join(lines[starts[-1] :])


class Trimmed:
    """Something without empty lines before and after it, or only its last `height` lines."""

    def __init__(self, whole: RenderableType, height: int | None = None) -> None:
        self._whole = whole
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        filled = [n for n, line in enumerate(lines) if any(s.text.strip() for s in line)]
        if filled:
            lines = lines[filled[0] : filled[-1] + 1]
        for line in lines if self._height is None else lines[-max(self._height, 1) :]:
            while line and not line[-1].text.strip():  # who copies it wants no padding
                line.pop()
            if line:
                line[-1] = line[-1]._replace(text=line[-1].text.rstrip())
            yield from line
            yield Segment.line()
