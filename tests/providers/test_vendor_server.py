"""The server is judged by the vendors' own clients before anything is judged by the server."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from anyio import to_thread

from tests.providers.dialects import DIALECTS, Bedrock, Call, Stop, Text, Thinking, said
from tests.providers.vendor_server import Answer, VendorServer
from tests.providers.vendors import needs_llm_extra

needs_llm_extra()
pytestmark = pytest.mark.anyio

SCRIPT = (
    Thinking("Let me "),
    Thinking("see."),
    Text("Hello, "),
    Text("wörld 😀"),
    Call("call_1", "read_file", '{"path": "a.py"}'),
    Stop("tools"),
)


async def test_openais_client_reads_it(server: VendorServer) -> None:
    from openai import AsyncOpenAI

    server.will(said(DIALECTS["openai"], *SCRIPT))
    async with AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Hello, wörld 😀"
    assert "".join(getattr(d, "reasoning_content", "") or "" for d in deltas) == "Let me see."
    functions = [call.function for delta in deltas for call in delta.tool_calls or ()]
    assert functions[0] is not None
    assert functions[0].name == "read_file"
    assert "".join(f.arguments or "" for f in functions if f) == '{"path": "a.py"}'
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 7


async def test_anthropics_client_reads_it(server: VendorServer) -> None:
    from anthropic import AsyncAnthropic

    server.will(said(DIALECTS["anthropic"], *SCRIPT))
    async with (
        AsyncAnthropic(api_key="k", base_url=server.url, max_retries=0) as client,
        client.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        ) as stream,
    ):
        message = await stream.get_final_message()
    thinking, text, call = message.content
    assert thinking.type == "thinking"
    assert (thinking.thinking, thinking.signature) == ("Let me see.", "c2lnbmVk")
    assert text.type == "text"
    assert text.text == "Hello, wörld 😀"
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("read_file", {"path": "a.py"})
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens == 5


async def test_googles_client_reads_it(server: VendorServer) -> None:
    from google.genai import Client
    from google.genai.types import HttpOptions

    server.will(said(DIALECTS["gemini"], *SCRIPT))
    client = Client(vertexai=False, api_key="k", http_options=HttpOptions(base_url=server.url))
    stream = await client.aio.models.generate_content_stream(model="m", contents="hi")
    chunks = [chunk async for chunk in stream]
    await client.aio.aclose()
    client.close()
    parts = [p for c in chunks for p in (c.candidates or [])[0].content.parts or []]  # type: ignore[union-attr]  # always there
    assert "".join(p.text for p in parts if p.text and not p.thought) == "Hello, wörld 😀"
    assert "".join(p.text for p in parts if p.text and p.thought) == "Let me see."
    (call,) = [part.function_call for part in parts if part.function_call]
    assert (call.name, call.args) == ("read_file", {"path": "a.py"})
    assert chunks[-1].candidates
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].usage_metadata.cached_content_token_count == 3


def converse(url: str) -> list[dict[str, Any]]:
    import boto3  # type: ignore[import-untyped]  # boto3 has no types
    from botocore.config import Config  # type: ignore[import-untyped]  # boto3 has no types

    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
        endpoint_url=url,
        config=Config(retries={"total_max_attempts": 1}),
    )
    request = [{"role": "user", "content": [{"text": "hi"}]}]
    with closing(client):
        answer = client.converse_stream(modelId="m", messages=request)
        with closing(answer["stream"]) as stream:
            return list(stream)


async def test_boto3_reads_it_and_checks_its_sums(server: VendorServer) -> None:
    server.will(said(DIALECTS["bedrock"], *SCRIPT))
    events = await to_thread.run_sync(converse, server.url)
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    assert "".join(delta.get("text", "") for delta in deltas) == "Hello, wörld 😀"
    thinking = [
        delta["reasoningContent"].get("text", "") for delta in deltas if "reasoningContent" in delta
    ]
    assert "".join(thinking) == "Let me see."
    (start,) = [e["contentBlockStart"]["start"] for e in events if "contentBlockStart" in e]
    assert start["toolUse"]["name"] == "read_file"
    inputs = [delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta]
    assert "".join(inputs) == '{"path": "a.py"}'
    assert [e["messageStop"]["stopReason"] for e in events if "messageStop" in e] == ["tool_use"]
    assert events[-1]["metadata"]["usage"]["inputTokens"] == 7


async def test_boto3_refuses_a_frame_with_a_wrong_sum(server: VendorServer) -> None:
    from botocore.eventstream import ChecksumMismatch  # type: ignore[import-untyped]  # no types

    frame = bytearray(Bedrock.event("messageStart", {"role": "assistant"}))
    frame[-1] ^= 1
    server.will(Answer([bytes(frame)], headers={"content-type": Bedrock.content_type}))
    with pytest.raises(ChecksumMismatch):
        await to_thread.run_sync(converse, server.url)


async def test_boto3_reads_an_exception_in_the_stream(server: VendorServer) -> None:
    from botocore.exceptions import EventStreamError  # type: ignore[import-untyped]  # no types

    frame = Bedrock.exception("throttlingException", "slow down")
    server.will(Answer([frame], headers={"content-type": Bedrock.content_type}))
    with pytest.raises(EventStreamError, match="throttlingException"):
        await to_thread.run_sync(converse, server.url)


async def test_a_script_is_answered_in_order_and_requests_are_kept(server: VendorServer) -> None:
    import httpx2

    server.will(Answer.json(503, {"a": 1}, retry_after="7"), Answer([b"two"]))
    async with httpx2.AsyncClient(trust_env=False) as client:
        first = await client.post(f"{server.url}/a?b=c", json={"x": 1}, headers={"Own": "yes"})
        second = await client.get(f"{server.url}/b")
    assert (first.status_code, first.json(), first.headers["retry-after"]) == (503, {"a": 1}, "7")
    assert second.content == b"two"
    assert [(r.method, r.path) for r in server.requests] == [("POST", "/a?b=c"), ("GET", "/b")]
    assert server.requests[0].json == {"x": 1}
    assert server.requests[0].headers["own"] == "yes"
