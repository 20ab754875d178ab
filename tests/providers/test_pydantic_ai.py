"""The provider over each vendor's wire, when all goes well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import to_thread

from sidecar.conversations import (
    ContextFile,
    MessageSettings,
    Position,
    Prompt,
    Range,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from sidecar.errors import InitializationFailed
from sidecar.interfaces import ModelStop, ModelUsage, TextDelta, ToolCall
from sidecar.providers.pydantic_ai import make
from sidecar.settings import Config, Secret, Secrets, Settings
from tests.providers.dialects import DIALECTS, Call, Dialect, Stop, Text, Thinking, said
from tests.providers.vendor_server import Answer, VendorServer
from tests.providers.vendors import (
    PROMPT,
    READ_FILE,
    asking,
    config,
    events_of,
    message,
    needs_llm_extra,
    provided,
    text_of,
)

needs_llm_extra()
pytestmark = pytest.mark.anyio


@pytest.fixture(params=DIALECTS.values(), ids=list(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param  # type: ignore[no-any-return]  # pytest does not know


@pytest.fixture
async def server() -> AsyncIterator[VendorServer]:
    async with VendorServer() as server:
        yield server


def spoken(body: Any) -> list[tuple[str, str]]:
    """Who said what in a request's body, whichever vendor it was for; tools by their ids."""
    said: list[tuple[str, str]] = []
    for entry in body.get("contents") or body["messages"]:
        content = entry.get("parts") or entry.get("content") or []
        blocks = [{"text": content}] if isinstance(content, str) else content
        blocks = [*blocks, *(entry.get("tool_calls") or [])]
        if entry["role"] == "tool":
            blocks = [{"result": entry["tool_call_id"]}]
        role = {"assistant": "model", "tool": "user"}.get(entry["role"], entry["role"])
        said += [(role, _block(block)) for block in blocks]
    return [(role, text) for role, text in said if role != "system"]


def _block(block: dict[str, Any]) -> str:
    call = block.get("toolUse") or block.get("functionCall")
    result = block.get("toolResult") or block.get("functionResponse")
    if call or block.get("type") in ("function", "tool_use"):
        call = call or block
        return f"call {call.get('id') or call.get('toolUseId')}"
    if result or "result" in block or block.get("type") == "tool_result":
        result = result or block
        ids = ("result", "id", "toolUseId", "tool_use_id")
        return f"result {next(result[key] for key in ids if key in result)}"
    return str(block["text"])


async def test_text_comes_as_it_streams_then_usage_then_the_end(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Hello, "), Text("wörld 😀"), Text("\n"), Stop()))
    async with provided(dialect.name, server.url) as provider:
        events = await events_of(provider, asking())
    assert events[:-2] == [TextDelta("Hello, "), TextDelta("wörld 😀"), TextDelta("\n")]
    usage, stop = events[-2:]
    assert isinstance(usage, ModelUsage)
    assert usage.usage.output_tokens == 5
    assert usage.usage.cached_tokens == 3
    assert stop == ModelStop("endTurn")


async def test_thinking_is_told_from_text(dialect: Dialect, server: VendorServer) -> None:
    server.will(said(dialect, Thinking("Let me "), Thinking("see."), Text("Yes."), Stop()))
    async with provided(dialect.name, server.url) as provider:
        events = await events_of(provider, asking())
    assert text_of(events, "thinking") == "Let me see."
    assert text_of(events) == "Yes."
    kinds = [event.kind for event in events if isinstance(event, TextDelta)]
    assert kinds == sorted(kinds, reverse=True), "thinking precedes the text"


async def test_a_tool_call_is_yielded_whole_and_its_result_goes_back(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(
        said(dialect, Text("I look."), Call("c1", "read_file", '{"path": "a.py"}'), Stop("tools")),
        said(dialect, Text("It is empty."), Stop()),
    )
    async with provided(dialect.name, server.url) as provider:
        events = await events_of(provider, asking(tools=(READ_FILE,)))
        calls = [event for event in events if isinstance(event, ToolCall)]
        assert calls == [ToolCall("c1", "read_file", {"path": "a.py"})]
        assert events[-1] == ModelStop("toolCalls")
        steps = (
            TextPart(text="I look."),
            ToolCallPart(tool_call_id="c1", name="read_file", arguments={"path": "a.py"}),
            ToolResultPart(tool_call_id="c1", content="RESULT-of-a.py"),
        )
        again = await events_of(provider, asking(tools=(READ_FILE,), steps=steps))
    assert text_of(again) == "It is empty."
    first, second = server.requests
    assert b"read_file" in first.body
    assert spoken(second.json) == [
        ("user", PROMPT),
        ("model", "I look."),
        ("model", "call c1"),
        ("user", "result c1"),
    ]
    assert b"RESULT-of-a.py" in second.body


async def test_two_calls_in_one_answer_go_back_as_they_came(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(
        said(
            dialect,
            Call("c1", "read_file", '{"path": "a"}'),
            Call("c2", "read_file", '{"path": "b"}'),
            Stop("tools"),
        ),
        said(dialect, Text("Done."), Stop()),
    )
    steps = tuple(
        part
        for id in ("c1", "c2")
        for part in (
            ToolCallPart(tool_call_id=id, name="read_file", arguments={"path": id}),
            ToolResultPart(tool_call_id=id, content="text"),
        )
    )
    async with provided(dialect.name, server.url) as provider:
        events = await events_of(provider, asking(tools=(READ_FILE,)))
        assert [e.tool_call_id for e in events if isinstance(e, ToolCall)] == ["c1", "c2"]
        await events_of(provider, asking(tools=(READ_FILE,), steps=steps))
    assert spoken(server.requests[1].json)[1:] == [
        ("model", "call c1"),
        ("model", "call c2"),
        ("user", "result c1"),
        ("user", "result c2"),
    ]


async def test_a_signed_reply_goes_back_with_its_signature(server: VendorServer) -> None:
    gemini = DIALECTS["gemini"]
    server.will(
        said(gemini, Call("c1", "read_file", "{}"), Stop("tools")), said(gemini, Text("."), Stop())
    )
    steps = (
        ToolCallPart(tool_call_id="c1", name="read_file", arguments={}),
        ToolResultPart(tool_call_id="c1", content="text"),
    )
    async with provided("gemini", server.url) as provider:
        await events_of(provider, asking(tools=(READ_FILE,)))
        await events_of(provider, asking(tools=(READ_FILE,), steps=steps))
    (call,) = server.requests[1].json["contents"][1]["parts"]
    assert call["thoughtSignature"] == "c2lnbmVk"


async def test_a_call_without_arguments_has_none(dialect: Dialect, server: VendorServer) -> None:
    arguments = "{}" if dialect.name == "gemini" else ""
    server.will(said(dialect, Call("c1", "list", arguments), Stop("tools")))
    async with provided(dialect.name, server.url) as provider:
        events = await events_of(provider, asking(tools=(READ_FILE,)))
    assert ToolCall("c1", "list", {}) in events


@pytest.mark.parametrize(("reason", "stop"), [("length", "maxTokens"), ("refusal", "refusal")])
async def test_an_answer_that_was_stopped_says_why(
    dialect: Dialect, server: VendorServer, reason: Any, stop: Any
) -> None:
    server.will(said(dialect, Text("I"), Stop(reason)))
    async with provided(dialect.name, server.url) as provider:
        events = await events_of(provider, asking())
    assert text_of(events) == "I"
    assert events[-1] == ModelStop(stop)


async def test_a_call_that_ran_into_the_token_limit_is_not_made(
    dialect: Dialect, server: VendorServer
) -> None:
    arguments = "{}" if dialect.name == "gemini" else '{"path": "a'
    server.will(said(dialect, Call("c1", "read_file", arguments), Stop("length")))
    async with provided(dialect.name, server.url) as provider:
        events = await events_of(provider, asking(tools=(READ_FILE,)))
    assert not any(isinstance(event, ToolCall) for event in events)
    assert events[-1] == ModelStop("maxTokens")


async def test_openais_words_of_refusal_are_shown(server: VendorServer) -> None:
    chunk = b'{"id":"1","created":1,"model":"m","object":"chat.completion.chunk","choices":[%b]}'
    no = b'{"index":0,"delta":{"refusal":"I will not."},"finish_reason":null}'
    end = b'{"index":0,"delta":{},"finish_reason":"stop"}'
    lines = [b"data: " + chunk % choice + b"\n\n" for choice in (no, end)]
    server.will(Answer(lines, headers={"content-type": "text/event-stream"}))
    async with provided("openai", server.url) as provider:
        events = await events_of(provider, asking())
    assert text_of(events) == "I will not."
    assert events[-1] == ModelStop("refusal")


async def test_a_prompt_that_gemini_blocks_is_a_refusal(server: VendorServer) -> None:
    blocked = b'data: {"promptFeedback": {"blockReason": "SAFETY"}}\n\n'
    server.will(Answer([blocked], headers={"content-type": "text/event-stream"}))
    async with provided("gemini", server.url) as provider:
        events = await events_of(provider, asking())
    assert events[-1] == ModelStop("refusal")


async def test_usage_that_a_server_does_not_tell_is_unknown(server: VendorServer) -> None:
    *script, _usage, _done = said(DIALECTS["openai"], Text("Hi"), Stop()).steps
    server.will(Answer(script, headers={"content-type": "text/event-stream"}))
    async with provided("openai", server.url) as provider:
        events = await events_of(provider, asking())
    assert ModelUsage(Usage(requests=1)) in events


async def test_instructions_history_files_and_prompt_reach_the_model(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Yes."), Stop()))
    lines = Range(start=Position(line=2, character=0), end=Position(line=4, character=0))
    prompt = Prompt(
        input=PROMPT,
        context_files=(ContextFile(uri="file:///w/a.py", range=lines, text="x = 1"),),
    )
    history = (
        message("user", TextPart(text="Earlier?"), number=1),
        message("assistant", TextPart(text="Earlier."), number=2),
    )
    async with provided(dialect.name, server.url) as provider:
        await events_of(provider, asking(prompt=prompt, history=history))
    (request,) = server.requests
    assert b"Be brief." in request.body
    first, reply, last = spoken(request.json)
    assert (first, reply) == (("user", "Earlier?"), ("model", "Earlier."))
    assert last[1].startswith(PROMPT)
    assert "file:///w/a.py (lines 3 to 5)" in last[1]
    assert "x = 1" in last[1]


async def test_a_prompt_sets_more_than_the_settings_do(
    dialect: Dialect, server: VendorServer
) -> None:
    server.repeat = said(dialect, Text("Yes."), Stop())
    own = MessageSettings(max_output_tokens=77)
    async with provided(
        dialect.name, server.url, temperature=0.5, max_output_tokens=99
    ) as provider:
        await events_of(provider, asking())
        await events_of(provider, asking(settings=own))
    bodies = [request.body.decode() for request in server.requests]
    assert ["0.5" in body for body in bodies] == [True, True]
    assert ["99" in body for body in bodies] == [True, False]
    assert ["77" in body for body in bodies] == [False, True]


async def test_the_connection_is_kept_for_the_next_turn(
    dialect: Dialect, server: VendorServer
) -> None:
    server.repeat = said(dialect, Text("Yes."), Stop())
    async with provided(dialect.name, server.url) as provider:
        for _ in range(3):
            await events_of(provider, asking())
    assert server.connections == 1


async def test_another_openai_server_needs_no_key(server: VendorServer) -> None:
    server.will(said(DIALECTS["openai"], Text("Yes."), Stop()))
    settings = Settings(provider="openai", openai_base_url=f"{server.url}/v1", max_output_tokens=9)
    provider = make(Config(settings=settings))
    assert text_of(await events_of(provider, asking())) == "Yes."
    assert server.requests[0].json["max_tokens"] == 9, "the field that every server knows"
    await provider.aclose()


async def test_the_environment_does_not_decide_where_a_key_goes(
    dialect: Dialect, server: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with VendorServer() as elsewhere:
        for name in (
            "OPENAI_BASE_URL",
            "ANTHROPIC_BASE_URL",
            "GOOGLE_GEMINI_BASE_URL",
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
            "HTTP_PROXY",
            "ALL_PROXY",
            "http_proxy",
        ):
            monkeypatch.setenv(name, elsewhere.url)
        monkeypatch.setenv("AWS_PROFILE", "of-somebody-else")
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "of-somebody-else")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "of-somebody-else")
        server.will(said(dialect, Text("Yes."), Stop()))
        async with provided(dialect.name, server.url) as provider:
            assert text_of(await events_of(provider, asking())) == "Yes."
        assert elsewhere.connections == 0
        assert "of-somebody-else" not in server.requests[0].raw


# ---- setting up --------------------------------------------------------------------------


async def test_warming_up_calls_nobody_and_can_be_repeated(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Yes."), Stop()))
    async with provided(dialect.name, server.url) as provider:
        assert repr(provider) == f"<PydanticAIProvider {dialect.name}: cold>"
        await to_thread.run_sync(provider.warm_up)
        await to_thread.run_sync(provider.warm_up)
        assert server.connections == 0
        assert repr(provider) == f"<PydanticAIProvider {dialect.name}: ready>"
        assert text_of(await events_of(provider, asking())) == "Yes."


async def test_closing_twice_and_closing_a_cold_provider_is_fine(
    dialect: Dialect, server: VendorServer
) -> None:
    provider = make(config(dialect.name, server.url))
    await provider.aclose()
    await to_thread.run_sync(provider.warm_up)
    await provider.aclose()
    await provider.aclose()


def test_importing_and_making_it_loads_no_vendor() -> None:
    script = (
        "import sys\n"
        "from sidecar.providers.pydantic_ai import make\n"
        "from sidecar.settings import Config, Secret, Secrets, Settings\n"
        "secrets = Secrets(gemini_api_key=Secret('k'))\n"
        "make(Config(settings=Settings(provider='gemini'), secrets=secrets))\n"
        "heavy = {'pydantic_ai', 'google.genai', 'httpx2', 'pydantic', 'boto3'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_without_the_extra_the_hint_says_how_to_install_it() -> None:
    # A path hook that hides the library, in a process of its own.
    script = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic_ai': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from sidecar.errors import InitializationFailed\n"
        "from sidecar.providers.pydantic_ai import make\n"
        "from sidecar.settings import Config, Secret, Secrets, Settings\n"
        "secrets = Secrets(gemini_api_key=Secret('k'))\n"
        "try: make(Config(settings=Settings(provider='gemini'), secrets=secrets))\n"
        "except InitializationFailed as error: sys.exit(error.hint)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stderr.strip() == "pip install 'agent-sidecar[llm]'"


def test_a_missing_key_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(InitializationFailed, match="needs a key") as caught:
        make(Config(settings=Settings(provider="gemini")))
    assert caught.value.hint


async def test_a_key_with_odd_characters_is_refused_and_not_shown() -> None:
    secrets = Secrets(openai_api_key=Secret("“sk-CANARY”"))
    provider = make(Config(settings=Settings(provider="openai"), secrets=secrets))
    with pytest.raises(InitializationFailed, match="characters") as caught:
        await to_thread.run_sync(provider.warm_up)
    assert "CANARY" not in str(caught.value)


async def test_an_aws_profile_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    settings = Settings(provider="bedrock", aws_use_profile=True, aws_profile="nobody")
    with pytest.raises(InitializationFailed, match="profile"):
        await to_thread.run_sync(make(Config(settings=settings)).warm_up)
