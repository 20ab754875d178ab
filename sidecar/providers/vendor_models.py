"""Each vendor's model, set up so that nothing happens behind our back: no retries, no redirects,
no settings from the environment, our own HTTP client.

Imported by `PydanticAIProvider.warm_up` only; the functions import what their vendor needs.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_ai.models import Model

from ..errors import InitializationFailed
from ..settings import Config, Secret
from . import vendor_http

if TYPE_CHECKING:
    import httpx2

    from .vendor_bedrock import Pool

URLS: Mapping[str, str] = {
    "gemini": "https://generativelanguage.googleapis.com",
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
}
"""Always named, or the libraries would take one from the environment and send the key there."""


class Call(Protocol):
    """One request and its answer. `hang_up` ends it at once, wherever it is."""

    @property
    def is_answered(self) -> bool: ...
    async def hang_up(self) -> None: ...


@dataclass(frozen=True)
class Vendor:
    """A model that is ready to be asked. `calling` goes around a request until its answer
    begins; `close` gives the connections back."""

    model: Model[Any]
    calling: Callable[[], AbstractContextManager[Call]]
    close: Callable[[], Awaitable[None]]


def build(config: Config) -> Vendor:
    """Set up the configured vendor."""
    return bedrock(config) if config.settings.provider == "bedrock" else over_httpx(config)


def over_httpx(config: Config, transport: httpx2.AsyncBaseTransport | None = None) -> Vendor:
    """All but Bedrock; `transport` replaces the network."""
    name = config.settings.provider
    url = getattr(config.settings, f"{name}_base_url") or URLS[name]
    key = _key(getattr(config.secrets, f"{name}_api_key"))
    http = vendor_http.client(url, config.settings.request_timeout / 1000, transport)
    make = {"gemini": _gemini, "anthropic": _anthropic, "openai": _openai}[name]
    return Vendor(make(config, url, key, http), vendor_http.calling, http.aclose)


def _key(secret: Secret | None) -> str:
    """The key as it is sent. A server that needs none still gets the header."""
    key = secret.reveal().strip() if secret else "none"
    if not (key.isascii() and key.isprintable()):
        raise InitializationFailed(
            "The key holds characters that no key has.", hint="Copy it once more, without quotes."
        )
    return key


def _gemini(config: Config, url: str, key: str, http: httpx2.AsyncClient) -> Model[Any]:
    from google.genai import Client
    from google.genai.models import AsyncModels
    from google.genai.types import HttpOptions, HttpRetryOptions
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    class Models(AsyncModels):
        """Sends the contents as they are, for the reason given at OpenAI's `Completions`."""

        async def generate_content_stream(
            self, *, model: str, contents: Any, config: Any = None
        ) -> Any:
            config = config or {}
            if (wired := gemini_contents(contents)) is not None:
                options = config.get("http_options") or {}
                options = {**options, "extra_body": {"contents": wired}}
                contents, config = contents[-1:], {**config, "http_options": options}
            return await super().generate_content_stream(
                model=model, contents=contents, config=config
            )

    # No timeout here: the library would also send it, as a deadline for the whole answer. It
    # reads the certificates three times, and for clients that we do not use, unless it is told.
    certificates = {"verify": vendor_http.tls(), "ssl": vendor_http.tls()}
    options = HttpOptions(
        base_url=url,
        httpx_async_client=http,
        retry_options=HttpRetryOptions(attempts=1),
        client_args=certificates,
        async_client_args=certificates,
    )
    client = Client(vertexai=False, api_key=key, http_options=options)
    client.aio._models = Models(client._api_client)
    return GoogleModel(config.settings.gemini_model, provider=GoogleProvider(client=client))


GEMINI_PARTS = {
    "text": "text",
    "thought": "thought",
    "thought_signature": "thoughtSignature",
    "function_call": "functionCall",
    "function_response": "functionResponse",
}


def gemini_contents(contents: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Contents as they are on the wire; None if they hold what only the library knows."""
    if any(key not in GEMINI_PARTS for c in contents for part in c["parts"] for key in part):
        return None

    def wired(value: Any) -> Any:
        return b64encode(value).decode() if isinstance(value, bytes) else value

    return [
        {
            "role": content["role"],
            "parts": [{GEMINI_PARTS[k]: wired(v) for k, v in p.items()} for p in content["parts"]],
        }
        for content in contents
    ]


def _anthropic(config: Config, url: str, key: str, http: httpx2.AsyncClient) -> Model[Any]:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(api_key=key, base_url=url, max_retries=0, http_client=http)
    provider = AnthropicProvider(anthropic_client=client)
    return AnthropicModel(config.settings.anthropic_model, provider=provider)


def _openai(config: Config, url: str, key: str, http: httpx2.AsyncClient) -> Model[Any]:
    from openai import AsyncOpenAI
    from openai.resources.chat import AsyncCompletions
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    class Completions(AsyncCompletions):
        """Sends the messages as they are. They have the wire's shape already, and the library
        would walk through each of them with its type hints: 50 ms for a long conversation."""

        async def create(self, *, messages: Any, extra_body: Any = None, **options: Any) -> Any:
            body = {**(extra_body or {}), "messages": messages}
            return await super().create(messages=[], extra_body=body, **options)

    client = AsyncOpenAI(api_key=key, base_url=url, max_retries=0, http_client=http)
    vars(client.chat)["completions"] = Completions(client)  # where a cached property keeps it
    # What other servers that speak this wire are known to refuse.
    compatible = OpenAIModelProfile(
        openai_chat_supports_max_completion_tokens=False,
        openai_supports_strict_tool_definition=False,
        openai_chat_supports_multiple_system_messages=False,
    )
    return OpenAIChatModel(
        config.settings.openai_model,
        provider=OpenAIProvider(openai_client=client),
        profile=None if url == URLS["openai"] else compatible,
    )


def bedrock(config: Config, pool: Pool | None = None) -> Vendor:
    """Bedrock; `pool` replaces the network."""
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.providers.bedrock import BedrockProvider

    from . import vendor_bedrock

    client, pool = vendor_bedrock.client(config, pool)
    model = BedrockConverseModel(
        config.settings.bedrock_model, provider=BedrockProvider(bedrock_client=client)
    )

    async def close() -> None:
        pool.clear()

    return Vendor(model, vendor_bedrock.calling, close)
