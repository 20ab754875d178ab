"""What a conversation looks like in words."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.commands.markdown import markdown, split_blocks
from sidecar.commands.render import (
    Piece,
    Progress,
    ToolUse,
    Words,
    WordsEnd,
    activity_of,
    ago,
    bytes_of,
    counted,
    error_lines,
    one_line,
    plain_snippet,
    printable,
    tool_line,
)
from sidecar.conversations import (
    Message,
    MessageStatus,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from sidecar.errors import NetworkError

CALL = ToolCallPart(tool_call_id="c", name="search", arguments={"limit": 3, "query": "needle"})
RESULT = ToolResultPart(tool_call_id="c", content='{"passages": [1, 2, 3], "missing": []}')


def message(*parts: Part, status: MessageStatus = MessageStatus.STREAMING) -> Message:
    return Message(
        message_id="m", ordinal=1, role="assistant", status=status, parts=parts, created_at=0
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", "␛]0;owned␇"),
        ("a\x9b31mb", "a\ufffd31mb"),
        ("left\u202eright", "left\ufffdright"),
        ("tab\tand\r\nline", "tab\tand\nline"),
        ("over\rwritten", "over␍written"),
        ("ünïcode 😀", "ünïcode 😀"),
    ],
)
def test_nothing_commands_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_growing_text_is_given_once() -> None:
    progress = Progress()
    assert list(progress.news(message())) == []
    assert list(progress.news(message(TextPart(text="Hel")))) == [Words("Hel", True)]
    assert list(progress.news(message(TextPart(text="Hel")))) == []
    assert list(progress.news(message(TextPart(text="Hello")))) == [Words("lo", False)]
    done = message(TextPart(text="Hello"), status=MessageStatus.COMPLETE)
    assert list(progress.news(done)) == [WordsEnd()]
    assert progress.is_over


def test_a_tool_is_shown_when_it_has_answered() -> None:
    progress = Progress()
    text, thinking = TextPart(text="So:"), ThinkingPart(text="hm")
    asked = message(thinking, text, CALL)
    assert list(progress.news(asked)) == [Words("So:", True), WordsEnd()]
    assert activity_of(asked) == 'search "needle" …'
    answered = message(thinking, text, CALL, RESULT, TextPart(text="Found"))
    assert list(progress.news(answered)) == [ToolUse(CALL, RESULT), Words("Found", True)]
    assert activity_of(answered) == "Thinking …"


def test_a_tool_that_never_answered_has_an_unknown_outcome() -> None:
    ended = message(CALL, status=MessageStatus.INTERRUPTED)
    (use,) = Progress().news(ended)
    assert isinstance(use, ToolUse)
    assert tool_line(use) == 'search "needle" → outcome unknown'


texts = st.text("ab ", min_size=0, max_size=5).map(lambda t: TextPart(text=t))
parts = st.lists(st.one_of(texts, st.just(CALL), st.just(RESULT)), max_size=6)


@given(parts, st.data())
def test_however_a_message_grows_the_same_is_shown(whole: list[Part], data: st.DataObject) -> None:
    def shown(pieces: list[Piece]) -> str:
        marks = {WordsEnd: "|", ToolUse: "T"}
        return "".join(p.text if isinstance(p, Words) else marks[type(p)] for p in pieces)

    progress, pieces = Progress(), []
    for count in range(len(whole)):
        part = whole[count]
        cut = part
        if isinstance(part, TextPart):
            cut = TextPart(text=part.text[: data.draw(st.integers(0, len(part.text)))])
        pieces += progress.news(message(*whole[:count], cut))
    done = message(*whole, status=MessageStatus.COMPLETE)
    pieces += progress.news(done)
    assert shown(pieces) == shown(list(Progress().news(done)))


@pytest.mark.parametrize(
    ("content", "is_error", "line"),
    [
        ('{"passages": [1, 2, 3]}', False, 'search "needle" → 3 results'),
        ("[]", False, 'search "needle" → 0 results'),
        ("one\ntwo", False, 'search "needle" → 2 lines'),
        ("7", False, 'search "needle" → 1 line'),
        ("no such\nfile", True, 'search "needle" → failed: no such file'),
    ],
)
def test_a_tool_is_one_line(content: str, is_error: bool, line: str) -> None:
    result = ToolResultPart(tool_call_id="c", content=content, is_error=is_error)
    assert tool_line(ToolUse(CALL, result)) == line


def test_a_tool_cannot_smuggle_in_a_second_line() -> None:
    call = ToolCallPart(tool_call_id="c", name="x\n\x1b[2J", arguments={"q": "a\nb" * 50})
    line = tool_line(ToolUse(call, None))
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 120


def test_figures_are_readable() -> None:
    assert ago(0, 30_000) == "just now"
    assert ago(0, 60_000) == "1 minute ago"
    assert ago(0, 7_200_000) == "2 hours ago"
    assert ago(0, 86_400_000 * 3) == "3 days ago"
    assert ago(10_000, 0) == "just now"
    assert bytes_of(512) == "512 bytes"
    assert bytes_of(3 * 1024**2) == "3 MiB"
    assert bytes_of(5 * 1024**3) == "5.0 GiB"
    assert counted(1, "message") == "1 message"
    assert counted(1_200, "message") == "1,200 messages"
    assert one_line("a\nb   c", 4) == "a b…"
    assert plain_snippet("the \x02needle\x03 here") == "the [needle] here"


def test_an_error_has_a_next_step() -> None:
    assert error_lines(NetworkError("Gone.", attempts=3)) == ("Gone. (3 attempts)", "Try again.")
    assert error_lines(NetworkError("Gone.", retryable=False)) == ("Gone.", None)
    assert error_lines(NetworkError("Gone.", hint="Look."))[1] == "Look."


# ---- Markdown while it is written --------------------------------------------------------

SAMPLE = (
    "# Title\n\nA paragraph\nof two lines.\n\n- one\n- two\n\n  still two\n\n```py\nx = 1\n\n"
    "# no heading\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quote\n\n1. first\n2. second\n"
    "\nEnd.\n"
)


def test_only_the_last_block_may_still_change() -> None:
    assert split_blocks("One.\n\nTw") == ("One.\n", "Tw")
    assert split_blocks("One") == ("", "One")
    assert split_blocks("- a\n\n- b") == ("", "- a\n\n- b")
    assert split_blocks("```\na\n\nb") == ("", "```\na\n\nb")
    assert split_blocks("") == ("", "")


@given(st.lists(st.integers(1, len(SAMPLE)), max_size=12))
def test_blocks_do_not_depend_on_the_pieces_they_arrive_in(cuts: list[int]) -> None:
    def blocks_of(text: str) -> list[str]:
        found: list[str] = []
        tail = text
        while (split := split_blocks_once(tail)) is not None:
            found.append(split[0].strip())
            tail = split[1]
        return [*found, tail.strip()]

    printed: list[str] = []
    tail, last = "", 0
    for cut in sorted({*cuts, len(SAMPLE)}):
        tail += SAMPLE[last:cut]
        last = cut
        finished, tail = split_blocks(tail)
        if finished.strip():
            printed += blocks_of(finished)
    assert [*printed, *blocks_of(tail)] == blocks_of(SAMPLE)


def split_blocks_once(text: str) -> tuple[str, str] | None:
    """The first block and the rest."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    starts = [token.map[0] for token in tokens if token.level == 0 and token.map]
    if len(starts) < 2:
        return None
    lines = text.split("\n")
    return "\n".join(lines[: starts[1]]), "\n".join(lines[starts[1] :])


def test_markdown_has_no_empty_lines_around_it_and_no_padding() -> None:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=40, color_system=None).print(markdown("\n\n- one\n- two\n\n"))
    lines = out.getvalue().split("\n")
    assert lines == [" • one", " • two", ""]
    out = io.StringIO()
    Console(file=out, width=40, color_system=None).print(markdown("```\na\nb\nc\n```", 2))
    assert out.getvalue() == "  b\n  c\n"
