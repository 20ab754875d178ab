"""The provider over each vendor's wire, when all goes well."""

from __future__ import annotations

from typing import Any

import pytest

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
from sidecar.interfaces import ModelStop, ModelUsage, TextDelta, ToolCall
from sidecar.providers.pydantic_ai import make
from sidecar.settings import Config, Settings
from tests.providers.dialects import DIALECTS, Call, Dialect, Stop, Text, Thinking, said
from tests.providers.vendor_server import Answer, VendorServer
from tests.providers.vendors import (
    PROMPT,
    READ_FILE,
    asking,
    events_of,
    message,
    needs_llm_extra,
    provided,
    text_of,
)

needs_llm_extra()
pytestmark = pytest.mark.anyio


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


async def test_it_does_not_matter_how_the_bytes_are_cut(
    dialect: Dialect, server: VendorServer
) -> None:
    whole = said(dialect, Text("wörld 😀"), Call("c1", "list", '{"path": "ü"}'), Stop("tools"))
    body = b"".join(step for step in whole.steps if isinstance(step, bytes))
    server.will(Answer([bytes([byte]) for byte in body], headers=whole.headers))
    async with provided(dialect.name, server.url) as provider:
        events = await events_of(provider, asking(tools=(READ_FILE,)))
    assert text_of(events) == "wörld 😀"
    assert ToolCall("c1", "list", {"path": "ü"}) in events


async def test_unicodes_line_breaks_do_not_break_the_text(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("a\u2028b\u2029c\x85d\x0be\x00"), Stop()))
    async with provided(dialect.name, server.url) as provider:
        assert text_of(await events_of(provider, asking())) == "a\u2028b\u2029c\x85d\x0be\x00"


async def test_half_a_surrogate_pair_does_not_keep_a_prompt_from_being_sent(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Yes."), Stop()))
    async with provided(dialect.name, server.url) as provider:
        await events_of(provider, asking("lone \ud83d, paired 😀"))
    assert spoken(server.requests[0].json) == [("user", "lone \ufffd, paired 😀")]


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
    # The newest models take no temperature; these do.
    models = {
        "bedrock_model": "us.amazon.nova-pro-v1:0",
        "anthropic_model": "claude-haiku-4-5",
        "openai_model": "gpt-4.1",
        "gemini_model": "gemini-2.5-flash",
    }
    async with provided(
        dialect.name, server.url, temperature=0.5, max_output_tokens=99, **models
    ) as provider:
        await events_of(provider, asking())
        await events_of(provider, asking(settings=own))
    bodies = [request.body.decode() for request in server.requests]
    assert ["0.5" in body for body in bodies] == [True, True]
    assert ["99" in body for body in bodies] == [True, False]
    assert ["77" in body for body in bodies] == [False, True]


async def test_how_hard_a_model_thinks_can_be_told(dialect: Dialect, server: VendorServer) -> None:
    server.repeat = said(dialect, Text("Yes."), Stop())
    models = {
        "bedrock_model": "global.anthropic.claude-sonnet-5-5",
        "anthropic_model": "claude-sonnet-5-5",
        "openai_model": "gpt-5.4-mini",
        "gemini_model": "gemini-3.8-flash",
    }
    async with provided(dialect.name, server.url, **models) as provider:
        await events_of(provider, asking())
        for level in ("low", "high"):
            await events_of(provider, asking(settings=MessageSettings(thinking=level)))
    default, low, high = (request.body for request in server.requests)
    assert default != low != high != default


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


def test_what_a_turn_costs_is_said_where_the_list_price_is_known() -> None:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.usage import RequestUsage

    from sidecar.providers.pydantic_ai import usage_of

    def reply(model: str) -> ModelResponse:
        usage = RequestUsage(input_tokens=1_000_000, output_tokens=0)
        return ModelResponse(parts=[], usage=usage, model_name=model, provider_name="anthropic")

    known = usage_of(reply("claude-sonnet-4-5"), True)
    assert known.cost_usd is not None
    assert 1 < known.cost_usd < 20
    assert usage_of(reply("claude-sonnet-4-5"), False).cost_usd is None, "another may answer"
    assert usage_of(reply("a-model-of-nobody"), True).cost_usd is None
    assert known.context_tokens == 1_000_000
    assert known.context_window is not None
    assert known.context_window >= 200_000
