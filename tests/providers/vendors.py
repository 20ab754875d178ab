"""What the tests of the vendors' provider share: settings, requests, and what came of them."""

from __future__ import annotations

import os
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from sidecar.conversations import Message, MessageStatus, Part, Prompt
from sidecar.errors import AgentError
from sidecar.interfaces import ModelEvent, ModelRequest, TextDelta, ToolSpec
from sidecar.providers.pydantic_ai import PydanticAIProvider, make
from sidecar.settings import Config, Secret, Secrets, Settings

CANARY = "sk-CANARY-5f3a1c"
PROMPT = "CANARY-prompt: what is in a.py?"
READ_FILE = ToolSpec(
    name="read_file",
    description="Reads a file.",
    input_schema={
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
    },
)


def needs_llm_extra() -> None:
    """For the top of a test module. In CI a missing extra is a failure, not a reason to skip."""
    missing = [
        name for name in ("pydantic_ai", "boto3", "anthropic", "openai") if not find_spec(name)
    ]
    if missing and os.environ.get("CI") == "true":
        raise RuntimeError(f"the extra 'llm' is not installed: {missing}")
    if missing:
        pytest.skip("needs the extra 'llm'", allow_module_level=True)


def config(vendor: str, url: str, **settings: Any) -> Config:
    # A model that the vendor's client does not warn of: warnings are errors here.
    settings = {"anthropic_model": "claude-haiku-4-5", **settings}
    base = {f"{vendor}_base_url": f"{url}/v1" if vendor == "openai" else url}
    secret = Secret(CANARY)
    return Config(
        settings=Settings(provider=vendor, **base, **settings),  # type: ignore[arg-type]  # a name
        secrets=Secrets(
            gemini_api_key=secret,
            anthropic_api_key=secret,
            openai_api_key=secret,
            aws_access_key=Secret("AKIDEXAMPLE"),
            aws_secret_key=secret,
        ),
    )


@asynccontextmanager
async def provided(vendor: str, url: str, **settings: Any) -> AsyncIterator[PydanticAIProvider]:
    provider = make(config(vendor, url, **settings))
    try:
        yield provider
    finally:
        await provider.aclose()


def asking(text: str = PROMPT, **fields: Any) -> ModelRequest:
    given = {"instructions": "Be brief.", "history": (), "prompt": Prompt(input=text)}
    return ModelRequest(**{**given, **fields})


def message(role: Any, *parts: Part, number: int = 0, **fields: Any) -> Message:
    given = {"status": MessageStatus.COMPLETE, "created_at": 0, **fields}
    return Message(message_id=f"m{number}", ordinal=number, role=role, parts=parts, **given)


async def events_of(provider: PydanticAIProvider, request: ModelRequest) -> list[ModelEvent]:
    return [event async for event in provider.stream(request)]


def text_of(events: list[ModelEvent], kind: str = "text") -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta) and e.kind == kind)


async def failure_of(
    provider: PydanticAIProvider, request: ModelRequest
) -> tuple[AgentError, list[ModelEvent]]:
    """The error that a request ends with, and what came before it."""
    events: list[ModelEvent] = []
    try:
        async for event in provider.stream(request):
            events.append(event)
    except AgentError as error:
        return error, events
    pytest.fail(f"it did not fail: {events}")


def everything_about(error: AgentError) -> str:
    """All that could be printed of an error: text, hint, repr, traceback."""
    shown = "".join(traceback.format_exception(error))
    return "\n".join([str(error), repr(error), str(error.hint), shown])
