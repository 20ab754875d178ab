"""What agents are made with, by what the settings say. Rooms are imported when first needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conversations import Conversation
from ..errors import AgentError, InitializationFailed
from ..faces.editor import Editor
from ..interfaces import ModelProvider
from ..manager import AgentManager
from ..rewinding import FileUndo
from ..settings import Config, problems
from ..stores.sqlite import SqliteStore
from ..toolbox import Servers, Toolbox, ToolSource

if TYPE_CHECKING:
    from ..providers.worker import Workers

logger = logging.getLogger(__name__)


def make_provider(
    store: SqliteStore, workers: Callable[[], Workers], config: Config
) -> ModelProvider:
    """The provider that the settings name, made for one agent."""
    match config.settings.provider:
        case "offline":
            from ..providers.offline import OfflineProvider

            return OfflineProvider(partial(product_status, store))
        case "scripted":
            from ..providers.scripted import ScriptedProvider

            return ScriptedProvider(config.settings.script)
        case "gemini" | "bedrock" | "anthropic" | "openai":
            from ..providers.pydantic_ai import make
            from ..providers.worker import WorkerProvider

            make(config)  # says at once what cannot work; loads nothing
            return WorkerProvider(config, workers())
        case other:
            raise InitializationFailed(f"There is no provider '{other}'.")


async def warm_up(workers: Callable[[], Workers], config: Config) -> None:
    """Have the vendor's libraries loaded while nobody waits for them."""
    if config.settings.provider in ("offline", "scripted") or problems(config):
        return
    from ..providers.pydantic_ai import make

    try:
        make(config)
        await workers().warm_up(config)
    except (AgentError, OSError) as error:
        logger.warning("the provider cannot be used", extra={"cause": str(error)})


async def product_status(store: SqliteStore) -> str:
    """What the offline provider says when it is asked how things stand."""
    status = await store.status()
    return (
        f"{status.conversations} conversations with {status.messages} messages are stored, "
        f"{status.queued} prompts are waiting. The store has {status.size // 1024} KiB."
    )


def make_mcp(mark: str) -> Servers:
    from ..tools.mcp import McpServers

    return McpServers(mark)


def make_session_mcp(mark: str) -> Servers:
    """For servers that a client names, with their keys."""
    from ..tools.mcp import McpServers

    return McpServers(mark, may_hold_keys=True)


def make_undo(editor: Editor, conversation: Conversation) -> FileUndo:
    from ..tools.undo import Undo

    return Undo(conversation.roots, editor)


def make_tools(
    store: SqliteStore,
    editor: Editor,
    agents: Callable[[], AgentManager],
    sources: Sequence[ToolSource],
    terminal: Any,
    conversation: Conversation,
) -> Toolbox:
    """What an agent may ask for; whether it may is decided by mode, kind and approval."""
    from ..tools.agents import AskAgentTool

    asking = AskAgentTool(agents())
    if not conversation.roots:
        return Toolbox([asking])
    from ..tools.commands import command_tools
    from ..tools.editing import editing_tools
    from ..tools.workspace import workspace_tools

    roots = [Path(root) for root in conversation.roots]
    tools = [*workspace_tools(roots, editor.read), *editing_tools(roots, editor)]
    running, background = command_tools(roots, store, store.path, terminal)
    return Toolbox([*tools, *running, asking], sources=sources, background=background)
