"""Models of Gemini, Bedrock, Anthropic and of everything that speaks OpenAI's wire.

`pydantic_ai` knows the vendors' wires and their models' peculiarities; we ask it for one model
call at a time, and our turns run the tools. It takes seconds to import: nothing of it is loaded
before `warm_up` or the first request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from anyio import to_thread

from ..conversations import Usage
from ..errors import AgentError, InitializationFailed, MessageProcessingFailed, NetworkError
from ..interfaces import (
    ModelEvent,
    ModelRequest,
    ModelStop,
    ModelUsage,
    TextDelta,
    ToolCall,
)
from ..settings import Config, problems

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation
    from pydantic_ai.messages import ModelResponse, ModelResponseStreamEvent, ToolCallPart

    from .vendor_messages import Transcripts
    from .vendor_models import Call, Vendor

logger = logging.getLogger(__name__)

LIBRARIES = {
    "gemini": "google.genai",
    "bedrock": "boto3",
    "anthropic": "anthropic",
    "openai": "openai",
}
INSTALL = "pip install 'agent-sidecar[llm]'"

PATIENCE = 5
"""Times `requestTimeout` that an answer may not go on: a vendor that thinks for long says now and
then that it is alive, and so does one that hangs. Ten minutes by default, as their own clients
have it."""
LONGEST_ANSWER = 2 * 1024 * 1024
"""Characters of one answer, thinking and arguments included: several times what any model can say
at once. A model that does not stop must not fill our memory and the store."""
PART_LENGTH = 4096
"""What each text and each call counts for, however short: no answer has five hundred of them."""


def make(config: Config) -> PydanticAIProvider:
    """The provider that `config` asks for. Raises `InitializationFailed` for settings that cannot
    work and for libraries that are not installed; both without importing them."""
    for problem in problems(config):
        raise InitializationFailed(problem.message, hint=problem.hint)
    for library in ("pydantic_ai", LIBRARIES[config.settings.provider]):
        if not _is_installed(library):
            raise InitializationFailed(
                "The libraries for language models are not installed.", hint=INSTALL
            )
    return PydanticAIProvider(config)


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:
        return False


class PydanticAIProvider:
    """One vendor's model, for one agent. See `ModelProvider` for what it promises."""

    def __init__(self, config: Config) -> None:
        self.name: str = config.settings.provider
        self._config = config
        self._patience = PATIENCE * config.settings.request_timeout / 1000
        self._setting_up = threading.Lock()
        self._ready: tuple[Vendor, Transcripts] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {'ready' if self._ready else 'cold'}>"

    def warm_up(self) -> None:
        """Import and set up what the first request needs, and rehearse one without the network,
        which takes about a second of CPU time. To be called in a worker thread; may be called
        again. Raises `InitializationFailed`."""
        if self._ready is None:
            self._set_up()
            self._rehearse()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """See `ModelProvider.stream`. Tool calls come at the end of the stream, when it is known
        that they have arrived whole. Arguments that are not a JSON object are a `NetworkError`:
        they are a damaged answer, and the same request may well bring a sound one."""
        ready = self._ready
        if ready is None:
            ready = await to_thread.run_sync(self._set_up, abandon_on_cancel=True)
        vendor, transcripts = ready
        from pydantic_ai.direct import model_request_stream

        from .vendor_errors import translated
        from .vendor_messages import parameters, settings_of

        call: Call | None = None
        try:
            opening = model_request_stream(
                vendor.model,
                transcripts.of(request),
                model_settings=settings_of(request, self._config.settings),
                model_request_parameters=parameters(request),
            )
            async with AsyncExitStack() as stack:
                with vendor.calling() as call:
                    stack.push_async_callback(call.hang_up)
                    with anyio.fail_after(self._patience):
                        response = await stack.enter_async_context(opening)
                events, said = aiter(response), 0
                while event := await self._next(events):
                    said += _length(event)
                    if said > LONGEST_ANSWER:
                        raise MessageProcessingFailed(
                            "The model's answer did not come to an end.",
                            hint="Set maxOutputTokens.",
                        )
                    if delta := _delta(event):
                        yield delta
                for last in _ending(transcripts.adopt(response.get()), self._has_list_prices):
                    yield last
        except Exception as error:  # noqa: BLE001  # whatever a library raises
            is_answered = call is not None and call.is_answered
            # Not chained: the libraries' texts may quote what must not leave this process.
            raise translated(error, self.name, is_answered=is_answered) from None

    async def _next(
        self, events: AsyncIterator[ModelResponseStreamEvent]
    ) -> ModelResponseStreamEvent | None:
        with anyio.fail_after(self._patience):
            return await anext(events, None)

    async def aclose(self) -> None:
        if self._ready:
            await self._ready[0].close()

    @property
    def _has_list_prices(self) -> bool:
        """Not where somebody else answers under the vendor's name: that may cost anything."""
        return not getattr(self._config.settings, f"{self._config.settings.provider}_base_url")

    def _rehearse(self) -> None:
        from .vendor_messages import Transcripts
        from .vendor_rehearsal import REQUEST, stage

        async def rehearsal() -> None:
            double = PydanticAIProvider(self._config)
            double._ready = stage(self._config), Transcripts()
            with suppress(AgentError):  # it has done its work all the same
                async for _ in double.stream(REQUEST):
                    pass
            await double.aclose()

        # In a thread of its own, for a caller whose thread runs an event loop already.
        thread = threading.Thread(target=anyio.run, args=(rehearsal,), name="rehearsal")
        thread.start()
        thread.join()

    def _set_up(self) -> tuple[Vendor, Transcripts]:
        with self._setting_up:
            if self._ready is None:
                self._ready = _load(self._config)
            return self._ready


def _load(config: Config) -> tuple[Vendor, Transcripts]:
    try:
        from .vendor_messages import Transcripts
        from .vendor_models import build

        return build(config), Transcripts()
    except AgentError:
        raise
    except ImportError as error:
        raise InitializationFailed(
            "The libraries for language models could not be loaded.", hint=INSTALL
        ) from error
    except Exception as error:  # noqa: BLE001  # whatever a library raises
        logger.info("a provider was not set up", extra={"cause": type(error).__name__})
        raise InitializationFailed(
            "The provider could not be set up.", hint="Check its settings."
        ) from None


def _delta(event: ModelResponseStreamEvent) -> TextDelta | None:
    if event.event_kind == "part_delta":
        delta = event.delta
        if delta.part_delta_kind == "text" and delta.content_delta:
            return TextDelta(delta.content_delta)
        if delta.part_delta_kind == "thinking" and delta.content_delta:
            return TextDelta(delta.content_delta, "thinking")
    elif event.event_kind == "part_start":
        part = event.part
        if (part.part_kind == "text" or part.part_kind == "thinking") and part.content:
            return TextDelta(part.content, part.part_kind)
    return None


def _length(event: ModelResponseStreamEvent) -> int:
    """About how much an event adds to what is kept of an answer."""
    if event.event_kind == "part_start":
        part = event.part
        said = part.args if part.part_kind == "tool-call" else getattr(part, "content", None)
        return PART_LENGTH + len(str(said or ""))
    if event.event_kind == "part_delta":
        delta = event.delta
        if delta.part_delta_kind == "tool_call":
            return len(delta.tool_name_delta or "") + len(str(delta.args_delta or ""))
        if delta.part_delta_kind == "text" or delta.part_delta_kind == "thinking":
            return len(delta.content_delta or "")
    return 0


def _ending(reply: ModelResponse, has_list_prices: bool) -> list[ModelEvent]:
    """What is known only once the stream has ended."""
    details: dict[str, Any] = reply.provider_details or {}
    if not details.get("finish_reason") and reply.finish_reason != "content_filter":
        raise NetworkError("The answer broke off before its end.")
    if reply.finish_reason == "error":
        raise NetworkError("The model failed in the middle of its answer.")
    usage = ModelUsage(usage_of(reply, has_list_prices))
    if reply.finish_reason == "length":
        return [usage, ModelStop("maxTokens")]  # the last call may be cut off, so none is made
    if reply.finish_reason == "content_filter":
        words = details.get("refusal")
        said = [TextDelta(words)] if isinstance(words, str) and words else []
        return [*said, usage, ModelStop("refusal")]
    calls = [_call(part) for part in reply.tool_calls]
    return [*calls, usage, ModelStop("toolCalls" if calls else "endTurn")]


def _call(part: ToolCallPart) -> ToolCall:
    arguments: Any = part.args or {}
    try:
        # Decoded anew even if it was decoded: some of what a library accepts cannot be stored.
        encoded = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments)
        arguments = msgspec.json.decode(encoded)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise NetworkError("The model called a tool with arguments that are not a JSON object.")
    return ToolCall(part.tool_call_id, part.tool_name, arguments)


def usage_of(reply: ModelResponse, has_list_prices: bool) -> Usage:
    usage = reply.usage
    if usage.unmeasured_requests:
        return Usage(requests=1)
    prices = _prices(reply) if has_list_prices else None
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cache_read_tokens,
        requests=1,
        cost_usd=float(prices.total_price) if prices else None,
        context_tokens=usage.input_tokens + usage.output_tokens,
        context_window=prices.model.context_window if prices else None,
    )


def _prices(reply: ModelResponse) -> PriceCalculation | None:
    """What the library that comes along knows of the model; nobody is asked."""
    try:
        return reply.cost()
    except (LookupError, ValueError, AssertionError):  # a model that it does not know
        return None
