"""Tools of MCP servers that the user configured: started when first needed, kept running, asked for
like commands.

What a server says about its tools is the server's word, not the user's: a tool is named after its
server, and a question about it is bound to its description as it is now. One that changes
voids what was allowed before it was used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from .. import processes
from ..conversations import JsonObject, ToolKind
from ..interfaces import CHANGED, UNWATCHED, Subject, Tool, ToolOutput, ToolSpec, ToolUse
from ..settings import McpServer, mcp_problem
from .child import Excerpt

if TYPE_CHECKING:
    from mcp import ClientSession, types

logger = logging.getLogger(__name__)

START_PATIENCE = 10.0
"""Seconds that a turn waits for servers that are just starting; it goes on without the others."""
CALL_SECONDS = 300.0
LEAST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a server that has ended is started again; doubles each time."""
DESCRIPTION_LENGTH = 2_000
NAME_LENGTH = 64
MOST_TOOLS = 200

_REFERENCE = re.compile(r"\$\{env:(\w+)\}")
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


class McpServers:
    """All servers of this process, shared by its agents. `run` has to be running. `mark` is what
    our children carry in their environment, so that none outlives a sidecar that was killed. Those
    that a client names for a session (`may_hold_keys`) come with their keys; settings must not."""

    def __init__(self, mark: str = "", *, may_hold_keys: bool = False) -> None:
        self._mark = mark
        self._may_hold_keys = may_hold_keys
        self._servers: dict[str, _Server] = {}
        self._tasks: TaskGroup | None = None

    async def run(self, on_running: Callable[[], None] = lambda: None) -> None:
        async with anyio.create_task_group() as self._tasks:
            on_running()
            await anyio.sleep_forever()

    def update(self, wanted: Mapping[str, McpServer]) -> None:
        """Have these servers. One that changed or went is stopped; none is started yet."""
        for name, server in tuple(self._servers.items()):
            if wanted.get(name) != server.settings:
                server.scope.cancel()
                del self._servers[name]
        for name, settings in wanted.items():
            if settings.enabled:
                self._servers.setdefault(
                    name, _Server(name, settings, self._mark, self._may_hold_keys)
                )

    async def tools(self) -> Sequence[Tool]:
        """Implements `ToolSource`."""
        if not self._servers or self._tasks is None:
            return ()
        for server in self._servers.values():
            if not server.was_begun:
                server.was_begun = True
                self._tasks.start_soon(server.serve, name=f"mcp {server.name}")
        with anyio.move_on_after(START_PATIENCE):
            for server in tuple(self._servers.values()):
                await server.settled.wait()
        return _named_apart(tool for server in self._servers.values() for tool in server.tools)

    def states(self) -> Mapping[str, str]:
        """By server: `ready`, `starting`, or what went wrong."""
        return {name: server.state for name, server in self._servers.items()}


def _named_apart(tools: Iterable[McpTool]) -> list[Tool]:
    """Shortened names may fall together; the later ones get a number."""
    found: dict[str, Tool] = {}
    for tool in tools:
        name, number = tool.spec.name, 1
        while tool.spec.name in found:
            number += 1
            tool.spec = msgspec.structs.replace(
                tool.spec, name=f"{name[: NAME_LENGTH - 3]}_{number}"
            )
        found[tool.spec.name] = tool
    return list(found.values())


class _Server:
    """One server: `serve` is its whole life, as often as it takes."""

    def __init__(
        self, name: str, settings: McpServer, mark: str, may_hold_keys: bool = False
    ) -> None:
        self.name = name
        self.settings = settings
        self.state = "starting"
        self.tools: tuple[McpTool, ...] = ()
        self.scope = anyio.CancelScope()
        self.settled = anyio.Event()
        """Set once it is known whether it works."""
        self.was_begun = False
        self.session: ClientSession | None = None
        self._mark = mark
        self._may_hold_keys = may_hold_keys
        self._news = anyio.Event()
        self._is_broken = False
        self._seen: dict[str, str] = {}
        """How each tool was described when it was first listed."""

    async def serve(self) -> None:
        pause = LEAST_PAUSE
        with self.scope:
            while True:
                try:
                    await self._serve_once()
                    pause = LEAST_PAUSE
                except Exception as error:  # noqa: BLE001  # whatever it is, of a program of others
                    self.state = _reason(error)
                    logger.warning(
                        "an MCP server failed", extra={"server": self.name, "cause": self.state}
                    )
                finally:
                    self.session, self.tools = None, ()
                    self.settled.set()
                await anyio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _serve_once(self) -> None:
        if not self._may_hold_keys and (problem := mcp_problem(self.settings)):
            raise RuntimeError(problem)
        try:
            # A second's work, which is not to keep everything else waiting.
            mcp = await to_thread.run_sync(import_module, "mcp")
        except ImportError:
            raise RuntimeError("it needs: pip install 'agent-sidecar[mcp]'") from None
        self._is_broken = False
        async with AsyncExitStack() as stack:
            # Our stderr is our log; what a server writes to its own is for who runs it by hand.
            quiet = stack.enter_context(Path(os.devnull).open("w"))  # noqa: ASYNC230, SIM115  # no disk, and the stack closes it
            read, write = await stack.enter_async_context(self._transport(quiet))
            session: ClientSession = mcp.ClientSession(
                read, write, message_handler=self._on_message
            )
            await stack.enter_async_context(session)
            await session.initialize()
            await self._list(session)
            self.session, self.state = session, "ready"
            self.settled.set()
            logger.info(
                "an MCP server is ready", extra={"server": self.name, "tools": len(self.tools)}
            )
            while not self._is_broken:
                self._news = anyio.Event()
                await self._news.wait()
                if not self._is_broken:
                    await self._list(session)
        raise RuntimeError("it has ended")

    def _transport(self, quiet: TextIO) -> Any:
        settings = self.settings
        if settings.url:
            from mcp.client.streamable_http import streamable_http_client
            from mcp.shared._httpx_utils import create_mcp_http_client

            client = create_mcp_http_client(headers=resolved(settings.headers))
            return streamable_http_client(settings.url, http_client=client)
        from mcp import StdioServerParameters, stdio_client

        mark = {processes.MARK: self._mark} if self._mark else {}
        parameters = StdioServerParameters(
            command=settings.command,
            args=list(settings.args),
            env={**resolved(settings.env), **mark},
            cwd=settings.cwd or None,
        )
        return stdio_client(parameters, errlog=quiet)

    async def _list(self, session: ClientSession) -> None:
        from mcp import types

        found: list[types.Tool] = []
        cursor: str | None = None
        while len(found) < MOST_TOOLS:
            params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await session.list_tools(params=params)
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
        self.tools = tuple(self._tool(tool) for tool in found[:MOST_TOOLS])

    def _tool(self, tool: types.Tool) -> McpTool:
        described = hashlib.sha256(
            json.dumps(tool.model_dump(mode="json"), sort_keys=True).encode()
        ).hexdigest()
        is_new = self._seen.setdefault(tool.name, described) == described
        return McpTool(self, tool.name, _spec(self.name, tool), described, was_changed=not is_new)

    async def _on_message(self, message: Any) -> None:
        if isinstance(message, Exception):
            self.break_off()
        elif type(message).__name__ == "ToolListChangedNotification" or (
            type(getattr(message, "root", None)).__name__ == "ToolListChangedNotification"
        ):
            self._news.set()

    def break_off(self) -> None:
        """It does not answer any more: start it anew."""
        self._is_broken = True
        self._news.set()


def _spec(server: str, tool: types.Tool) -> ToolSpec:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{server}__{tool.name}")[:NAME_LENGTH]
    said = _UNSEEN.sub("", tool.description or tool.title or tool.name)[:DESCRIPTION_LENGTH]
    return ToolSpec(
        name=name,
        description=f"(MCP server {server}) {said}",
        input_schema=dict(tool.input_schema),
    )


class McpTool:
    """One tool of a server."""

    kind = ToolKind.EXTERNAL

    def __init__(
        self, server: _Server, name: str, spec: ToolSpec, described: str, *, was_changed: bool
    ) -> None:
        self.spec = spec
        self._server = server
        self._name = name
        self._described = described
        self._was_changed = was_changed

    async def subject(self, arguments: JsonObject) -> Subject:
        """Bound to how the server describes the tool at this moment, and to what the server is."""
        now = next((t for t in self._server.tools if t._name == self._name), self)
        changed = " (its description has changed)" if now._was_changed else ""
        return Subject(
            title=f"Use {_plain(self._name)} of the MCP server {self._server.name}{changed}",
            text=json.dumps(arguments, indent=2, ensure_ascii=False),
            state={
                "described": now._described,
                "server": msgspec.to_builtins(self._server.settings.launch),
            },
        )

    async def run(self, arguments: JsonObject, use: ToolUse = UNWATCHED) -> ToolOutput:
        if not use.still_is(await self.subject(arguments)):
            return ToolOutput(CHANGED, is_error=True)
        session = self._server.session
        if session is None:
            return ToolOutput(
                f"The MCP server {self._server.name} does not run: {self._server.state}.",
                is_error=True,
            )

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            done = progress
            use.report(f"{message or ''} {done:g}{f'/{total:g}' if total else ''}\n".lstrip())

        try:
            with anyio.fail_after(CALL_SECONDS):
                result = await session.call_tool(
                    self._name, arguments, progress_callback=on_progress
                )
        except TimeoutError:
            return ToolOutput(f"No answer in {CALL_SECONDS:g} seconds.", is_error=True)
        except Exception as error:  # noqa: BLE001  # of a program of others
            if _has_ended(error):
                self._server.break_off()
                text = "The server ended meanwhile; whether it did anything is not known."
            else:
                text = f"The server refused: {_UNSEEN.sub('', str(error))[:1_000]}"
            return ToolOutput(text, is_error=True)
        output = Excerpt()
        for block in getattr(result, "content", ()):
            output.add(f"{_text_of(block)}\n".encode("utf-8", "replace"))
        return ToolOutput(
            output.text().rstrip("\n"), is_error=bool(getattr(result, "is_error", False))
        )


def _plain(name: str) -> str:
    """A tool's own name, so that it cannot say anything to the user."""
    return re.sub(r"[^A-Za-z0-9_./:-]", "_", name)[:NAME_LENGTH]


def _text_of(block: Any) -> str:
    if (text := getattr(block, "text", None)) is not None:
        return str(text)
    kind = getattr(block, "type", "content")
    what = getattr(block, "uri", None) or getattr(block, "mime_type", None) or ""
    inner = getattr(getattr(block, "resource", None), "text", None)
    return str(inner) if inner is not None else f"[{kind} {what}]".replace(" ]", "]")


def _has_ended(error: Exception) -> bool:
    words = str(error).lower()
    return isinstance(error, anyio.ClosedResourceError | anyio.BrokenResourceError | OSError) or (
        "connection closed" in words or "session terminated" in words
    )


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _UNSEEN.sub("", str(error))[:300] or type(error).__name__


def resolved(values: Mapping[str, str]) -> dict[str, str]:
    """With `${env:NAME}` filled in from our environment, where keys may stand; settings are no
    place for them."""
    return {
        name: _REFERENCE.sub(lambda m: os.environ.get(m[1], ""), value)
        for name, value in values.items()
    }
