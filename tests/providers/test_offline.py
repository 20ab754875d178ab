"""The provider without a model: what it takes a prompt for, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import sidecar
from sidecar.conversations import (
    ContextFile,
    JsonObject,
    Message,
    MessageStatus,
    Part,
    Position,
    Prompt,
    Range,
    SteeringPart,
    TextPart,
    ToolCallPart,
    ToolKind,
    ToolResultPart,
)
from sidecar.interfaces import (
    ModelRequest,
    ModelStop,
    ModelUsage,
    Subject,
    TextDelta,
    Tool,
    ToolCall,
    ToolOutput,
    ToolSpec,
)
from sidecar.providers.offline import PASSAGES, OfflineProvider
from sidecar.providers.offline_talk import (
    COMMANDS,
    CONNECT,
    GREETING,
    HELP,
    NO_FOLDER,
    NO_MODEL,
    NOTHING_FOUND,
)
from sidecar.tools.workspace import workspace_tools

pytestmark = pytest.mark.anyio

SOURCE = Path(sidecar.__file__).parent


class Conversation:
    """Prompts one after the other, with a turn loop that runs the tools."""

    def __init__(self, *tools: Tool) -> None:
        self.tools = {tool.spec.name: tool for tool in tools}
        self.history: list[Message] = []
        self.calls: list[tuple[str, JsonObject]] = []

    async def ask(self, text: str, *files: ContextFile, steps: Sequence[Part] = ()) -> str:
        self.calls, made = [], list(steps)
        with anyio.fail_after(30):
            while not await self._step(Prompt(input=text, context_files=files), made):
                pass
        reply = "".join(part.text for part in made if isinstance(part, TextPart))
        self.history += [_message("user", TextPart(text=text)), _message("assistant", *made)]
        return reply

    async def _step(self, prompt: Prompt, made: list[Part]) -> bool:
        request = ModelRequest(
            instructions="",
            history=tuple(self.history),
            prompt=prompt,
            steps=tuple(made),
            tools=[tool.spec for tool in self.tools.values()],
        )
        events = [event async for event in provider().stream(request)]
        assert not any(isinstance(event, ModelUsage) for event in events)
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        made += [TextPart(text=text)] if text else []
        for call in (event for event in events if isinstance(event, ToolCall)):
            self.calls.append((call.name, call.arguments))
            output = await self.tools[call.name].run(call.arguments)
            made.append(
                ToolCallPart(
                    tool_call_id=call.tool_call_id, name=call.name, arguments=call.arguments
                )
            )
            made.append(
                ToolResultPart(
                    tool_call_id=call.tool_call_id,
                    content=output.content,
                    is_error=output.is_error,
                )
            )
        return events[-1] != ModelStop("toolCalls")


class FakeTool:
    """Answers every call alike."""

    kind = ToolKind.READ

    def __init__(self, name: str, content: str = "", is_error: bool = False) -> None:
        self.spec = ToolSpec(name=name, description="", input_schema={})
        self.output = ToolOutput(content, is_error)

    async def subject(self, arguments: JsonObject) -> Subject:
        return Subject(title=self.spec.name, text=str(arguments))

    async def run(self, arguments: JsonObject, use: Any = None) -> ToolOutput:
        return self.output


def provider() -> OfflineProvider:
    async def product() -> str:
        return "Seven conversations are stored."

    return OfflineProvider(product)


def _message(role: Any, *parts: Part) -> Message:
    return Message(
        message_id="m",
        ordinal=1,
        role=role,
        status=MessageStatus.COMPLETE,
        parts=parts,
        created_at=0,
    )


def found(*passages: dict[str, Any], missing: Sequence[str] = ()) -> str:
    return msgspec.json.encode({"passages": passages, "missing": missing}).decode()


def passage(path: str, line: int, text: str, score: float, *words: str) -> dict[str, Any]:
    end = line + text.count("\n")
    return {
        "path": path, "line": line, "endLine": end, "text": text, "score": score, "words": words
    }  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "retry.py").write_text(
        '"""The retry policy."""\n\n\ndef delay(attempt):\n    return 2**attempt\n', "utf-8"
    )
    (tmp_path / "README.md").write_text("# Parcel\n\nSends parcels.\n", "utf-8")
    return tmp_path


@pytest.fixture
def conversation(root: Path) -> Conversation:
    return Conversation(*workspace_tools([root]))


# ---- questions about the workspace ---------------------------------------------------------


async def test_a_question_is_answered_with_the_passage_and_its_place(
    conversation: Conversation,
) -> None:
    reply = await conversation.ask("where is the retry policy?")
    assert conversation.calls[0][0] == "search"
    assert reply.startswith(NO_MODEL)
    assert '**`src/retry.py:1`**\n\n```py\n"""The retry policy."""' in reply


async def test_the_question_of_the_readme_is_answered_from_our_own_source() -> None:
    reply = await Conversation(*workspace_tools([SOURCE])).ask("where is the retry policy?")
    assert reply.index("**`retry.py:") == reply.index("**`")


async def test_an_answer_says_in_one_line_that_no_model_is_connected_and_how_to_connect_one(
    conversation: Conversation,
) -> None:
    first = (await conversation.ask("where is the retry policy?")).split("\n")[0]
    for word in ("No model is connected", "passages of your files", "provider", "GEMINI_API_KEY"):
        assert word in first


async def test_nothing_found_is_said(conversation: Conversation) -> None:
    assert NOTHING_FOUND in await conversation.ask("where is the zyzzyva?")


async def test_a_word_that_is_nowhere_is_named(conversation: Conversation) -> None:
    reply = await conversation.ask("does the retry policy use a zyzzyva?")
    assert "No file has “zyzzyva”." in reply
    assert "src/retry.py:1" in reply


async def test_a_passage_with_only_some_of_the_words_is_called_the_closest() -> None:
    content = found(passage("a", 1, "x", 2.0, "red"), passage("b", 1, "y", 1.9, "blue"))
    reply = await Conversation(FakeTool("search", content)).ask("red blue")
    assert "No passage has all of “blue”, “red”; the closest:" in reply


async def test_only_passages_that_are_nearly_as_good_are_quoted_at_most_three() -> None:
    scores = [4.0, 3.0, 2.5, 2.4]
    content = found(*(passage(f"f{n}.py", 1, "x", s, "w") for n, s in enumerate(scores)))
    reply = await Conversation(FakeTool("search", content)).ask("w")
    assert reply.count("```") == 2 * PASSAGES
    content = found(passage("a", 1, "x", 4.0, "w"), passage("b", 1, "x", 1.0, "w"))
    reply = await Conversation(FakeTool("search", content)).ask("w")
    assert "`a:1`" in reply
    assert "`b:1`" not in reply


async def test_a_quotation_cannot_end_its_own_block() -> None:
    text = "```\n````md\nIgnore this.\n````"
    content = found(passage("a.md", 3, text, 1.0, "w"))
    reply = await Conversation(FakeTool("search", content)).ask("w")
    assert f"**`a.md:3`**\n\n`````md\n{text}\n`````" in reply


async def test_more_shows_the_next_passages_and_says_when_there_are_none() -> None:
    content = found(*(passage(f"f{n}.py", 1, "x", 2.0, "w") for n in range(7)))
    conversation = Conversation(FakeTool("search", content))
    seen = [await conversation.ask("w")]
    seen += [await conversation.ask(text) for text in ("show me more", "More!", "next")]
    assert conversation.calls == [("search", {"query": "w", "maxResults": 15})]
    quoted = [[n for n in range(7) if f"`f{n}.py:1`" in reply] for reply in seen]
    assert quoted == [[0, 1, 2], [3, 4, 5], [6], []]
    assert "all I found" in seen[-1]


async def test_more_without_a_question_before_is_a_search(conversation: Conversation) -> None:
    await conversation.ask("more")
    assert conversation.calls == [("search", {"query": "more", "maxResults": 8})]


async def test_it_is_taken_for_what_was_asked_before(conversation: Conversation) -> None:
    await conversation.ask("where is the retry policy?")
    await conversation.ask("and where is it tested?")
    assert conversation.calls[0][1]["query"] == ("where is it tested? where is the retry policy?")


async def test_a_task_is_declined_and_its_subject_quoted(conversation: Conversation) -> None:
    reply = await conversation.ask("please fix the retry policy")
    assert conversation.calls[0][1]["query"] == "the retry policy"
    assert "I cannot fix anything without a model" in reply
    assert "src/retry.py:1" in reply


async def test_what_is_added_while_the_turn_runs_is_the_new_question(
    conversation: Conversation,
) -> None:
    steps = (TextPart(text="…"), SteeringPart(text="where are parcels sent?"))
    reply = await conversation.ask("where is the retry policy?", steps=steps)
    assert conversation.calls[0][1]["query"] == "where are parcels sent?"
    assert "README.md:1" in reply


async def test_a_search_that_fails_is_reported_and_not_repeated() -> None:
    conversation = Conversation(FakeTool("search", "Not now.", is_error=True))
    reply = await conversation.ask("where is x?")
    assert len(conversation.calls) == 1
    assert "Not now." in reply


async def test_a_search_that_speaks_otherwise_is_quoted_as_it_is() -> None:
    reply = await Conversation(FakeTool("search", "plain words")).ask("where is x?")
    assert "```\nplain words\n```" in reply


# ---- files and folders ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "arguments"),
    [
        ("read README.md", {"path": "README.md"}),
        ("show me the readme", {"path": "readme"}),
        ("what does src/retry.py do?", {"path": "src/retry.py"}),
        ("explain src/retry.py", {"path": "src/retry.py"}),
        ("src/retry.py:4-5", {"path": "src/retry.py", "startLine": 4, "endLine": 5}),
        ("see `src/retry.py:4` please", {"path": "src/retry.py", "startLine": 4, "endLine": 4}),
        ("src/retry.py#L4-L5", {"path": "src/retry.py", "startLine": 4, "endLine": 5}),
        ("lines 1 to 2 of README.md", {"path": "README.md", "startLine": 1, "endLine": 2}),
        ("README.md:2-1", {"path": "README.md", "startLine": 2, "endLine": 2}),
    ],
)
async def test_a_file_that_is_named_is_read(
    conversation: Conversation, prompt: str, arguments: JsonObject
) -> None:
    reply = await conversation.ask(prompt)
    assert conversation.calls == [("read", arguments)]
    assert f":{arguments.get('startLine', 1)}`**" in reply


async def test_what_is_quoted_of_a_file_is_its_lines(conversation: Conversation) -> None:
    reply = await conversation.ask("src/retry.py:4-5")
    assert "**`src/retry.py:4`**\n\n```py\ndef delay(attempt):\n    return 2**attempt\n```" in reply


async def test_a_long_file_is_quoted_in_part(conversation: Conversation, root: Path) -> None:
    (root / "long.txt").write_text("\n".join(str(n) for n in range(100)), "utf-8")
    assert "40 more lines follow." in await conversation.ask("read long.txt")


async def test_a_file_that_is_not_there_is_looked_for(conversation: Conversation) -> None:
    reply = await conversation.ask("show me retry.policy")
    assert [name for name, _ in conversation.calls] == ["read", "search"]
    assert "There is no file" in reply
    assert "src/retry.py:1" in reply


async def test_a_question_that_mentions_a_file_is_still_a_question(
    conversation: Conversation,
) -> None:
    await conversation.ask("how does retry.py decide on the delay?")
    assert conversation.calls[0][0] == "search"


@pytest.mark.parametrize(
    ("prompt", "arguments"),
    [
        ("list", {}),
        ("ls", {}),
        ("what files are there?", {}),
        ("Show me the folder structure", {}),
        ("list the files in src", {"path": "src"}),
        ("what is in src/", {"path": "src/"}),
    ],
)
async def test_files_are_listed(
    conversation: Conversation, prompt: str, arguments: JsonObject
) -> None:
    reply = await conversation.ask(prompt)
    assert conversation.calls == [("list", arguments)]
    assert ("src/retry.py" if arguments else "src/ (1 file)") in reply


# ---- attached files ------------------------------------------------------------------------


def attached(
    text: str | None, first: int | None = None, uri: str = "file:///w/a.py"
) -> ContextFile:
    at = Position(line=first or 0, character=0)
    return ContextFile(uri=uri, text=text, range=None if first is None else Range(start=at, end=at))


async def test_an_attached_file_that_answers_is_quoted_without_a_search(
    conversation: Conversation,
) -> None:
    text = "\n".join(f"line {n}" for n in range(100)) + "\nthe retry policy\n"
    reply = await conversation.ask("what is the retry policy?", attached(text, 9))
    assert conversation.calls == []
    assert "**`a.py:107`**" in reply
    assert "the retry policy\n" in reply


async def test_an_attached_file_comes_before_what_the_workspace_has(
    conversation: Conversation,
) -> None:
    reply = await conversation.ask("where is the retry policy?", attached("my policy"))
    assert reply.index("my policy") < reply.index("src/retry.py:1")
    reply = await conversation.ask("where is the retry policy?", attached("nothing of it"))
    assert "nothing of it" not in reply


async def test_an_attached_file_without_text_is_read(
    conversation: Conversation, root: Path
) -> None:
    reply = await conversation.ask(
        "explain this", attached(None, 3, (root / "src/retry.py").as_uri())
    )
    assert [name for name, _ in conversation.calls] == ["read"]
    assert "I cannot explain anything without a model" in reply
    assert "**`src/retry.py:4`**" in reply


async def test_an_attached_file_is_quoted_where_there_are_no_tools() -> None:
    reply = await Conversation().ask("please review this", attached("def f(): ..."))
    assert "I cannot review anything without a model" in reply
    assert "def f(): ..." in reply


# ---- about the product ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "reply"),
    [
        (["hi", "Hello!", "hey there", "good morning"], GREETING),
        (["help", "/help", "what can you do?", "who are you?", "", "   ", "???"], HELP),
        (
            [
                "how do I connect a model?",
                "how can I set a key?",
                "where do I put the API key?",
                "I'd like to use Gemini",
                "connect claude",
                "can I use my own model",
            ],
            CONNECT,
        ),
        (["which commands are there?", "commands"], COMMANDS),
        (["thanks", "ok!", "Thank you very much."], "You are welcome."),
    ],
)
async def test_questions_about_itself_are_answered_without_tools(
    conversation: Conversation, prompts: list[str], reply: str
) -> None:
    for prompt in prompts:
        assert (prompt, await conversation.ask(prompt)) == (prompt, reply)
        assert conversation.calls == []


@pytest.mark.parametrize("prompt", ["status", "how are you?", "which model is this?"])
async def test_the_status_is_the_products_own(conversation: Conversation, prompt: str) -> None:
    reply = await conversation.ask(prompt)
    assert "no model is connected" in reply
    assert "Seven conversations are stored." in reply


@pytest.mark.parametrize(
    "prompt",
    [
        "how do I connect to the database?",
        "where is the model defined?",
        "what is the status of the queue?",
        "how do I add foreign keys?",
        "help me find the parser",
        "how does the provider connect to gemini?",
        "what does the status command do?",
        "list all places where x is used",
        "search status",
    ],
)
async def test_questions_about_the_code_are_not_taken_for_talk(
    conversation: Conversation, prompt: str
) -> None:
    await conversation.ask(prompt)
    assert conversation.calls == [("search", {"query": prompt, "maxResults": 8})]


async def test_without_a_folder_it_says_so() -> None:
    for prompt in ("where is the retry policy?", "read a.py", "list", "more"):
        assert await Conversation().ask(prompt) == NO_FOLDER


async def test_help_names_every_provider_that_needs_a_key() -> None:
    for word in ("gemini", "anthropic", "openai", "bedrock", "openaiBaseUrl", "GEMINI_API_KEY"):
        assert word in CONNECT


# ---- anything at all -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    [
        "wo ist die größe?",
        "重试策略在哪里",
        "🧨",
        "\ud800",
        "\0",
        "a" * 300_000,
        "a/" * 100_000,
        "a." * 100_000,
        "what is " + "." * 100_000,
        "ok " * 100_000,
        "x y " * 100_000,
        "```" * 50_000,
        "\n" * 100_000 + "x",
    ],
    ids=lambda prompt: ascii(prompt[:12]),
)
async def test_any_prompt_is_answered(conversation: Conversation, prompt: str) -> None:
    assert await conversation.ask(prompt, attached(prompt))


async def test_an_answer_streams_in_small_pieces_that_join_to_it() -> None:
    text = "one  two\n\nthree four five six seven\n"
    tool = FakeTool("search", found(passage("a", 1, text, 1.0, "w")))
    request = ModelRequest(
        instructions="",
        history=(),
        prompt=Prompt(input="w"),
        steps=(
            ToolCallPart(tool_call_id="1", name="search", arguments={"query": "w"}),
            ToolResultPart(tool_call_id="1", content=tool.output.content),
        ),
        tools=[tool.spec],
    )
    pieces = [e.text async for e in provider().stream(request) if isinstance(e, TextDelta)]
    assert text in "".join(pieces)
    assert all(len(piece.split()) <= 4 for piece in pieces)
