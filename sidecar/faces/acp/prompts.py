"""What a client's prompt becomes: text, attached files, and the commands that it may begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from ...conversations import ContextFile, Prompt
from ...errors import InvalidState
from ...wire import acp
from ...wire import methods as wire
from ..rpc import RpcError

if TYPE_CHECKING:
    from ...manager import AgentManager

COMMANDS = (
    {
        "name": "build",
        "description": "Plan a task, ask you, do it step by step, run what verifies it.",
        "input": {"hint": "what to build"},
    },
    {
        "name": "feedback",
        "description": "Have the attached files reviewed by several personas; one report.",
        "input": {"hint": "what to look at"},
    },
)
"""As `available_commands_update` has them."""


def understood(blocks: Sequence[acp.Block]) -> Prompt:
    """Raises `RpcError` -32602 for what was not announced (`promptCapabilities`), or nothing."""
    texts: list[str] = []
    files: list[ContextFile] = []
    for block in blocks:
        match block:
            case acp.Text(text=text):
                texts.append(text)
            case acp.ResourceLink(uri=uri):
                files.append(ContextFile(uri=uri))
            case acp.Embedded(resource=acp.Resource(uri=uri, text=str(text))):
                files.append(ContextFile(uri=uri, text=text))
            case acp.Embedded(resource=acp.Resource(uri=uri)):
                raise _refused(f"'{uri[:200]}' is not text. Attach a text, or give its path.")
            case _:
                raise _refused("Images and sounds are not taken (see promptCapabilities).")
    text = "\n".join(texts)
    if not text.strip():
        if not files:
            raise _refused("The prompt is empty.")
        text = "See the attached files."
    return Prompt(input=text, context_files=tuple(files))


async def with_task(prompt: Prompt, manager: AgentManager) -> Prompt:
    """A prompt that begins with a command is a task. Raises `InvalidState` with what is missing."""
    name, _, rest = prompt.input.strip().partition(" ")
    rest = rest.strip()
    if name == "/build":
        from ...workflows.service import BuildModeService

        if not rest:
            raise InvalidState("What is to be built?", hint="For example: /build add a test for …")
        made = BuildModeService(manager).prompt(rest, prompt.context_files, None)
        return msgspec.structs.replace(prompt, input=made.input, task=made.task)
    if name == "/feedback":
        from ...workflows.personas import PersonasService
        from ...workflows.service import FeedbackService

        service = FeedbackService(manager, PersonasService(manager.store))
        return await service.prompt(prompt.context_files, diff=None, focus=rest, persona_ids=())
    return prompt


def _refused(words: str) -> RpcError:
    return RpcError(wire.INVALID_PARAMS, f"session/prompt: {words}")
