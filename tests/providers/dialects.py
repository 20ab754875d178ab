"""The vendors' wire formats: what a model says, as the bytes each vendor sends for it."""

from __future__ import annotations

import binascii
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tests.providers.vendor_server import Answer, Endless, Fault, Gate, Step

Reason = Literal["stop", "tools", "length", "refusal"]


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Thinking:
    text: str


@dataclass(frozen=True)
class Call:
    """A tool call; `arguments` is what is on the wire, valid JSON or not."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Stop:
    """The proper end of an answer, usage included."""

    reason: Reason = "stop"
    input_tokens: int = 7
    output_tokens: int = 5
    cached_tokens: int = 3


Say = Text | Thinking | Call | Stop


class Dialect(Protocol):
    name: str
    content_type: str

    def encode(self, say: Say, index: int) -> Iterable[bytes]:
        """The bytes of one utterance; `index` counts the content blocks."""
        ...

    def opening(self) -> Iterable[bytes]: ...


def said(dialect: Dialect, *script: Say | Step, **headers: str) -> Answer:
    """An answer of 200 that streams `script`; gates, faults and raw bytes stay where they are."""
    steps: list[Step] = list(dialect.opening())
    index, last = -1, None
    for item in script:
        if isinstance(item, bytes | Gate | Fault | Endless):
            steps.append(item)
            continue
        goes_on = isinstance(item, Text | Thinking) and isinstance(last, type(item))
        if not goes_on:
            steps += _block_end(dialect, last, index)
            index += 0 if isinstance(item, Stop) else 1
            steps += _block_start(dialect, item, index)
        last = item
        steps += dialect.encode(item, index)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(steps, headers={"content-type": dialect.content_type, **named})


def _block_start(dialect: Dialect, say: Say, index: int) -> Iterable[bytes]:
    return getattr(dialect, "block_start", lambda *_: ())(say, index)


def _block_end(dialect: Dialect, say: Say | None, index: int) -> Iterable[bytes]:
    return getattr(dialect, "block_end", lambda *_: ())(say, index)


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


class OpenAI:
    name = "openai"
    content_type = "text/event-stream; charset=utf-8"
    reasons = {
        "stop": "stop",
        "tools": "tool_calls",
        "length": "length",
        "refusal": "content_filter",
    }

    def opening(self) -> Iterable[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def encode(self, say: Say, index: int) -> Iterable[bytes]:
        match say:
            case Text(text):
                yield self._chunk({"content": text})
            case Thinking(text):
                yield self._chunk({"reasoning_content": text})
            case Call(id, name, arguments):
                first, second = halves(arguments)
                function = {"name": name, "arguments": ""}
                start = {"index": index, "id": id, "type": "function", "function": function}
                yield self._chunk({"tool_calls": [start]})
                for piece in (first, second):
                    delta = {"index": index, "function": {"arguments": piece}}
                    yield self._chunk({"tool_calls": [delta]})
            case Stop():
                yield self._chunk({}, finish_reason=self.reasons[say.reason])
                yield self._data({**self._head, "choices": [], "usage": self._usage(say)})
                yield b"data: [DONE]\n\n"

    _head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "gpt-4.1-mini",
    }

    @staticmethod
    def _usage(stop: Stop) -> dict[str, Any]:
        return {
            "prompt_tokens": stop.input_tokens,
            "completion_tokens": stop.output_tokens,
            "total_tokens": stop.input_tokens + stop.output_tokens,
            "prompt_tokens_details": {"cached_tokens": stop.cached_tokens},
        }

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._data({**self._head, "choices": [choice]})

    @staticmethod
    def _data(value: object) -> bytes:
        return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


class Anthropic:
    name = "anthropic"
    content_type = "text/event-stream; charset=utf-8"
    reasons = {
        "stop": "end_turn",
        "tools": "tool_use",
        "length": "max_tokens",
        "refusal": "refusal",
    }

    def opening(self) -> Iterable[bytes]:
        usage = {"input_tokens": 4, "cache_read_input_tokens": 3, "output_tokens": 1}
        message: dict[str, Any] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        yield self.event("message_start", message=message)
        yield self.event("ping")

    def block_start(self, say: Say, index: int) -> Iterable[bytes]:
        block: dict[str, Any]
        if isinstance(say, Stop):
            return
        if isinstance(say, Text):
            block = {"type": "text", "text": ""}
        elif isinstance(say, Thinking):
            block = {"type": "thinking", "thinking": "", "signature": ""}
        else:
            block = {"type": "tool_use", "id": say.id, "name": say.name, "input": {}}
        yield self.event("content_block_start", index=index, content_block=block)

    def block_end(self, say: Say | None, index: int) -> Iterable[bytes]:
        if isinstance(say, Thinking):
            yield self._delta(index, {"type": "signature_delta", "signature": "c2lnbmVk"})
        if say is not None:
            yield self.event("content_block_stop", index=index)

    def encode(self, say: Say, index: int) -> Iterable[bytes]:
        match say:
            case Text(text):
                yield self._delta(index, {"type": "text_delta", "text": text})
            case Thinking(text):
                yield self._delta(index, {"type": "thinking_delta", "thinking": text})
            case Call(arguments=arguments):
                for piece in halves(arguments):
                    yield self._delta(index, {"type": "input_json_delta", "partial_json": piece})
            case Stop():
                delta = {"stop_reason": self.reasons[say.reason], "stop_sequence": None}
                usage = {"output_tokens": say.output_tokens}
                yield self.event("message_delta", delta=delta, usage=usage)
                yield self.event("message_stop")

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        return self.event("content_block_delta", index=index, delta=delta)

    @staticmethod
    def event(kind: str, **fields: object) -> bytes:
        data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
        return f"event: {kind}\ndata: {data}\n\n".encode()


class Gemini:
    name = "gemini"
    content_type = "text/event-stream"
    reasons = {"stop": "STOP", "tools": "STOP", "length": "MAX_TOKENS", "refusal": "SAFETY"}

    def opening(self) -> Iterable[bytes]:
        return ()

    def encode(self, say: Say, index: int) -> Iterable[bytes]:
        match say:
            case Text(text):
                yield self._chunk([{"text": text}])
            case Thinking(text):
                yield self._chunk([{"text": text, "thought": True}])
            case Call(id, name, arguments):
                call = (
                    f'{{"id": {json.dumps(id)}, "name": {json.dumps(name)}, "args": {arguments}}}'
                )
                signed = f'{{"functionCall": {call}, "thoughtSignature": "c2lnbmVk"}}'
                yield self._raw_chunk(signed)
            case Stop():
                usage = {
                    "promptTokenCount": say.input_tokens,
                    "candidatesTokenCount": say.output_tokens,
                    "totalTokenCount": say.input_tokens + say.output_tokens,
                    "cachedContentTokenCount": say.cached_tokens,
                }
                yield self._chunk(
                    [{"text": ""}], finishReason=self.reasons[say.reason], usage=usage
                )

    def _raw_chunk(self, part: str) -> bytes:
        content = f'{{"role": "model", "parts": [{part}]}}'
        return (
            f'data: {{"candidates": [{{"content": {content}, "index": 0}}], '
            '"modelVersion": "gemini-2.5-flash", "responseId": "r1"}\r\n\r\n'
        ).encode()

    @staticmethod
    def _chunk(
        parts: list[dict[str, Any]],
        finishReason: str | None = None,
        usage: dict[str, int] | None = None,
    ) -> bytes:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finishReason:
            candidate["finishReason"] = finishReason
        chunk: dict[str, Any] = {"candidates": [candidate]}
        if usage:
            chunk["usageMetadata"] = usage
        chunk |= {"modelVersion": "gemini-2.5-flash", "responseId": "r1"}
        return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\r\n\r\n"


class Bedrock:
    name = "bedrock"
    content_type = "application/vnd.amazon.eventstream"
    reasons = {
        "stop": "end_turn",
        "tools": "tool_use",
        "length": "max_tokens",
        "refusal": "content_filtered",
    }

    def opening(self) -> Iterable[bytes]:
        yield self.event("messageStart", {"role": "assistant"})

    def block_start(self, say: Say, index: int) -> Iterable[bytes]:
        if isinstance(say, Call):
            start = {"toolUse": {"toolUseId": say.id, "name": say.name}}
            yield self.event("contentBlockStart", {"contentBlockIndex": index, "start": start})

    def block_end(self, say: Say | None, index: int) -> Iterable[bytes]:
        if isinstance(say, Thinking):
            yield self._delta(index, {"reasoningContent": {"signature": "c2lnbmVk"}})
        if say is not None:
            yield self.event("contentBlockStop", {"contentBlockIndex": index})

    def encode(self, say: Say, index: int) -> Iterable[bytes]:
        match say:
            case Text(text):
                yield self._delta(index, {"text": text})
            case Thinking(text):
                yield self._delta(index, {"reasoningContent": {"text": text}})
            case Call(arguments=arguments):
                for piece in halves(arguments):
                    yield self._delta(index, {"toolUse": {"input": piece}})
            case Stop():
                yield self.event("messageStop", {"stopReason": self.reasons[say.reason]})
                usage = {
                    "inputTokens": say.input_tokens,
                    "outputTokens": say.output_tokens,
                    "totalTokens": say.input_tokens + say.output_tokens,
                    "cacheReadInputTokens": say.cached_tokens,
                }
                yield self.event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        return self.event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})

    @classmethod
    def event(cls, kind: str, payload: object) -> bytes:
        headers = {
            ":event-type": kind,
            ":content-type": "application/json",
            ":message-type": "event",
        }
        return cls.frame(headers, json.dumps(payload, ensure_ascii=False).encode())

    @classmethod
    def exception(cls, kind: str, message: str) -> bytes:
        """A failure that is reported inside the stream."""
        headers = {
            ":exception-type": kind,
            ":content-type": "application/json",
            ":message-type": "exception",
        }
        return cls.frame(headers, json.dumps({"message": message}).encode())

    @staticmethod
    def frame(headers: dict[str, str], payload: bytes) -> bytes:
        """One AWS event-stream message: prelude and message each end with their CRC32."""
        packed = b"".join(
            struct.pack("!B", len(name))
            + name.encode()
            + struct.pack("!BH", 7, len(value.encode()))
            + value.encode()
            for name, value in headers.items()
        )
        prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
        message = prelude + struct.pack("!I", binascii.crc32(prelude)) + packed + payload
        return message + struct.pack("!I", binascii.crc32(message))


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (OpenAI(), Anthropic(), Gemini(), Bedrock())
}
