"""One request without the network, so that the user's first is not the first.

The libraries build their validators when they first need them, which adds up to 70 ms to the
first answer of a process.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import httpx2

from ..conversations import Prompt
from ..interfaces import ModelRequest, ToolSpec
from ..settings import Config
from .vendor_models import Vendor, bedrock, over_httpx

ANSWERS: Mapping[str, bytes] = {
    "gemini": (
        b'data: {"candidates": [{"content": {"role": "model", "parts": [{"text": "-"}]}, '
        b'"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1}}\n\n'
    ),
    "anthropic": (
        b'event: message_start\ndata: {"type": "message_start", "message": {"id": "-", "type": '
        b'"message", "role": "assistant", "model": "-", "content": [], "stop_reason": null, '
        b'"stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 1}}}\n\n'
        b'event: content_block_start\ndata: {"type": "content_block_start", "index": 0, '
        b'"content_block": {"type": "text", "text": ""}}\n\n'
        b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, '
        b'"delta": {"type": "text_delta", "text": "-"}}\n\n'
        b'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": '
        b'"end_turn", "stop_sequence": null}, "usage": {"output_tokens": 1}}\n\n'
    ),
    "openai": (
        b'data: {"id": "-", "object": "chat.completion.chunk", "created": 1, "model": "-", '
        b'"choices": [{"index": 0, "delta": {"content": "-"}, "finish_reason": "stop"}]}\n\n'
    ),
}
"""The shortest complete answer of each vendor that is asked over HTTPX."""


TOOL = ToolSpec(
    name="look",
    description="-",
    input_schema={"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
)
REQUEST = ModelRequest(instructions="-", history=(), prompt=Prompt(input="-"), tools=(TOOL,))


def stage(config: Config) -> Vendor:
    """The configured vendor, answered by ourselves."""
    if config.settings.provider == "bedrock":
        return bedrock(config, _Silence())
    answer = httpx2.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=ANSWERS[config.settings.provider],
    )
    return over_httpx(config, httpx2.MockTransport(lambda request: answer))


class _Silence:
    """Answers with a stream that ends at once."""

    def urlopen(self, method: str, url: str, **options: Any) -> Any:
        from urllib3 import HTTPResponse

        headers = {"content-type": "application/vnd.amazon.eventstream"}
        return HTTPResponse(BytesIO(), headers, status=200, preload_content=False)

    def clear(self) -> None:
        """Nothing was opened."""
