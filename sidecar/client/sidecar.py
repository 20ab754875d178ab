"""The client: one sidecar process that this one starts, talks to and stops."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from ..errors import AgentError, InvalidState
from ..events import CatchUp, Cursor
from ..wire import methods as wire
from .errors import SidecarDied
from .link import Call, Link, request_of
from .live import EventStream, LiveConversation
from .process import LastWords, default_command, start
from .view import ConversationView

Listener = Callable[[str, Any], None]


class Sidecar:
    """A running sidecar.

        async with Sidecar.spawn(store="talk.db") as sidecar:
            made = await sidecar.call("conversation/create", title="Hello")
            await sidecar.call("message/send", conversation_id=made.conversation_id, input="Hi")

    Every method that waits raises the `AgentError` that the sidecar answered with, or
    `SidecarDied` once its process is gone; `reconnect` starts a new one in its place.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        command: Sequence[str],
        initialize: wire.Initialize,
        *,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        listener: Listener | None,
        log: Callable[[bytes], None] | None,
    ) -> None:
        self._tasks = tasks
        self._command = command
        self._initialize = initialize
        self._cwd = cwd
        self._env = env
        self._listener = listener
        self._log = log
        self._streams: list[EventStream] = []
        self._live: dict[str, LiveConversation] = {}
        self._link: Link
        self._is_ready: anyio.Event
        self.ready: wire.Ready
        """What the process said when its store was open."""

    @classmethod
    @asynccontextmanager
    async def spawn(
        cls,
        command: Sequence[str] | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        workspace: Sequence[str | os.PathLike[str]] = (),
        settings: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        session_id: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        listener: Listener | None = None,
        log: Callable[[bytes], None] | None = None,
    ) -> AsyncIterator[Sidecar]:
        """Start a sidecar and stop it when the block ends.

        `settings` and `secrets` have the names of the wire (`geminiModel`, `geminiApiKey`).
        Secrets travel in `initialize` only, and variables that hold keys are left out of the
        child's environment. `listener` hears every notification that is not an event; `log`
        gets what the sidecar writes to stderr.
        """
        full = [*(command or default_command())]
        if store is not None:
            full += ["--store", _absolute(store)]
        params = initialize_params(workspace, settings, secrets, session_id)
        try:
            async with anyio.create_task_group() as tasks:
                sidecar = cls(tasks, full, params, cwd=cwd, env=env, listener=listener, log=log)
                await sidecar._start()
                try:
                    yield sidecar
                finally:
                    await sidecar._link.close()
        except BaseExceptionGroup as group:
            # Our own tasks raise nothing: what is in the group is what the block raised.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    # ---- calls ----

    async def call(self, method: str, params: Any = None, /, **fields: Any) -> Any:
        """Ask and wait for the answer, typed as `wire.methods` declares it.

        Params come as their struct or as fields in snake_case. A request key is made where the
        method takes one and none is given. Being cancelled here cancels the request.
        """
        return await self.request(method, params, **fields).result()

    def request(self, method: str, params: Any = None, /, **fields: Any) -> Call:
        """Ask without waiting."""
        typed, result = request_of(method, params, fields)
        return self._link.request(method, typed, result)

    def notify(self, method: str, params: Any) -> None:
        self._link.notify(method, params)

    async def subscribe(self, conversation_id: str, cursor: Cursor | None = None) -> CatchUp:
        """What came after `cursor`; what comes from now on goes to `events`."""
        answer: CatchUp = await self.call(
            "conversation/subscribe", conversation_id=conversation_id, cursor=cursor
        )
        return answer

    # ---- events ----

    def events(self, conversation_id: str) -> EventStream:
        """The conversation's events as they come from now on, if it is subscribed: creating it,
        sending to it and `subscribe` do that. See `follow` for one that looks after itself."""
        stream = EventStream(conversation_id, self._streams.remove)
        self._streams.append(stream)
        return stream

    @asynccontextmanager
    async def follow(self, conversation_id: str) -> AsyncIterator[LiveConversation]:
        """A conversation's transcript, kept up to date. Raises `NotFound` for an unknown one.

        One at a time for each conversation. Survives `reconnect`.
        """
        if conversation_id in self._live:
            raise InvalidState("It is followed already.", conversation_id=conversation_id)
        with self.events(conversation_id) as stream:
            live = LiveConversation(stream, self._subscribe, lambda: self.ready.store_id)
            self._live[conversation_id] = live
            try:
                await live.start()
                yield live
            finally:
                del self._live[conversation_id]
                if self._link.death is None:
                    self.request("conversation/unsubscribe", conversation_id=conversation_id)

    def _subscribe(
        self,
        view: ConversationView,
        on_result: Callable[[CatchUp], None],
        on_error: Callable[[AgentError], None],
    ) -> Call:
        cursor = view.cursor if view.store_id else None
        params = wire.Subscribe(conversation_id=view.conversation_id, cursor=cursor)
        return self._link.request(
            "conversation/subscribe", params, CatchUp, on_result=on_result, on_error=on_error
        )

    # ---- the process ----

    @property
    def process_id(self) -> int:
        return self._link.process_id

    async def reconnect(self) -> None:
        """End the process if it still runs, start a new one, and go on from where every
        followed conversation stood."""
        await self._link.close()
        await self._start()
        for stream in self._streams:
            stream.resume()
        for call in [live.catch_up() for live in self._live.values()]:
            await call.answered()

    async def _start(self) -> None:
        """Returns when the store is open. Raises why it cannot be, or why nothing runs."""
        words = LastWords(self._log)
        self._is_ready = anyio.Event()
        process = await start(self._command, self._cwd, self._env)
        self._link = Link(process, words, self._hear)
        self._tasks.start_soon(self._serve, self._link, name="sidecar")
        try:
            await self._link.request("initialize", self._initialize).result()
            self.notify("initialized", {})
            # `ready` never comes from a sidecar that could not be loaded; an answer always does.
            await self.call("agent/count")
            await self._is_ready.wait()
        except BaseException as error:
            await self._link.close()
            if isinstance(error, AgentError):
                error.hint = error.hint or words.summary or None
            raise

    async def _serve(self, link: Link) -> None:
        await link.run()
        self._is_ready.set()
        for stream in self._streams:
            stream.fail(link.death or SidecarDied(None, ""))

    def _hear(self, method: str, params: Any) -> None:
        if method in ("conversation/event", "conversation/resync"):
            for stream in self._streams:
                if stream.conversation_id == params.conversation_id:
                    stream.offer(params)
            return
        if method == "sidecar/ready":
            self.ready = params
            self._is_ready.set()
        if self._listener is not None:
            self._listener(method, params)


def initialize_params(
    workspace: Sequence[str | os.PathLike[str]],
    settings: Mapping[str, Any] | None,
    secrets: Mapping[str, str] | None,
    session_id: str | None,
) -> wire.Initialize:
    """Raises `msgspec.ValidationError` for a setting that does not exist or cannot be so."""
    options = {"settings": dict(settings or {}), "secrets": dict(secrets or {})}
    folders = [Path(_absolute(folder)) for folder in workspace]
    return wire.Initialize(
        process_id=os.getpid(),
        workspace_folders=tuple(
            wire.WorkspaceFolder(uri=folder.as_uri(), name=folder.name) for folder in folders
        ),
        initialization_options=msgspec.convert(
            options | {"protocolVersions": [wire.PROTOCOL_VERSION], "sessionId": session_id},
            wire.InitializationOptions,
        ),
    )


def _absolute(path: str | os.PathLike[str]) -> str:
    """The child may have another working folder than we have."""
    return os.path.abspath(path)
