"""Serving an editor that speaks our own JSON-RPC."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

import anyio
from anyio.abc import TaskGroup

from ..events import Delta
from ..faces.connection import Connection, encode, notification
from ..faces.editor import Editor, EditorFiles, offers
from ..faces.jsonrpc import SidecarProtocol, make_server
from ..faces.native import NativeFace
from ..faces.options import process_to_watch, read_initialize
from ..faces.permissions import PermissionRequests
from ..faces.rpc import Handler, Rpc
from ..manager import AgentManager
from ..settings import Config, patched
from ..stores.sqlite import SqliteStore
from ..wire import methods as wire
from ..wire.frames import frame
from .process import WARN, Serving

if TYPE_CHECKING:
    from ..faces.prologue import Handover

CHANGES_INTERVAL = 0.05
"""Seconds in which changes of the conversation list become one notification."""
MESSAGE_TYPES = {"error": 1, "warning": 2, "info": 3}


def run(handover: Handover, stdout: int, store: str | None) -> int:
    """Serve until the editor says goodbye or is gone; returns the exit code."""
    return anyio.run(NativeServing(handover, stdout, store).main)


class NativeServing(Serving):
    protocol: SidecarProtocol

    def __init__(self, handover: Handover, stdout: int, store: str | None) -> None:
        super().__init__(handover, stdout, store)
        self._params, self.complaint = read_initialize(handover.initialize)
        self._options = self._params.initialization_options or wire.InitializationOptions()
        self._connection: Connection | None = None
        self.config = initial_config(self._params)
        self.session_id = self._options.session_id or "user"
        self.roots = roots_of(self._params)
        self.editor = process_to_watch(self._params)

    def make_protocol(self) -> Rpc:
        names = [*(m.name for m in wire.METHODS), *(n.name for n in wire.CLIENT_NOTIFICATIONS)]
        protocol = make_server({name: partial(self.handle, name) for name in names}).protocol
        assert isinstance(protocol, SidecarProtocol)
        protocol.on_exit = self.leave
        return protocol

    def wrap(self, body: bytes) -> bytes:
        return frame(body)

    def encode(self, delta: Delta) -> bytes:
        return notification("conversation/event", delta)

    async def begin(
        self, manager: AgentManager, store: SqliteStore, tasks: TaskGroup
    ) -> Mapping[str, Handler]:
        connection = Connection(self.writer, self.journal, store, manager.flusher)
        self._connection = connection
        manager.on_state = partial(connection.notify, "agent/state")
        manager.on_output = connection.tool_output
        face = NativeFace(
            manager,
            connection,
            self.protocol.timings,
            webview_id=self._options.webview_id,
            other_windows=store.other_windows,
            mcp_states=self.mcp.states,
        )
        if offers(self._params.capabilities, "permissionRequest"):
            permissions = PermissionRequests(
                self.journal, manager.approvals, self.protocol.ask, manager.has_agent
            )
            tasks.start_soon(permissions.run, name="permissions")
        tasks.start_soon(self._tell_changes, store, connection, store.change_no, name="changes")
        return face.handlers()

    def editor_of(self, conversation_id: str) -> Editor:
        return EditorFiles(self.protocol.ask, self._params.capabilities)

    async def _tell_changes(self, store: SqliteStore, connection: Connection, told: int) -> None:
        """Changes after `told`, of this window and of all others."""
        while True:
            changed = self.journal.changed
            if store.change_no != told:
                told = store.change_no
                connection.notify(
                    "conversations/changed", wire.ConversationsChanged(change_no=told)
                )
                await anyio.sleep(CHANGES_INTERVAL)
            else:
                await changed.wait()

    # ---- what the client is told ----

    def drained(self) -> None:
        if self._connection is not None:
            self._connection.drained()

    def say_ready(self, store_id: str, degraded: str | None) -> None:
        import sqlite3

        from ..settings import PROVIDERS

        ready = wire.Ready(
            store_id=store_id,
            sqlite_version=sqlite3.sqlite_version,
            providers=PROVIDERS,
            degraded=degraded,
        )
        self.writer.send(notification("sidecar/ready", ready))

    def show(self, message: str, kind: str = WARN) -> None:
        """LSP's `window/showMessage`."""
        params = {"type": MESSAGE_TYPES[kind], "message": message}
        self.writer.send(
            encode({"jsonrpc": "2.0", "method": "window/showMessage", "params": params})
        )

    @property
    def exit_code(self) -> int:
        return self.protocol.exit_code or 0


# ---- what initialize says ------------------------------------------------------------------


def initial_config(params: wire.Initialize) -> Config:
    options = params.initialization_options
    return Config() if options is None else patched(Config(), options.settings, options.secrets)


def roots_of(params: wire.Initialize) -> tuple[str, ...]:
    """The workspace's folders as canonical paths; none for an untrusted workspace."""
    options = params.initialization_options
    if options is not None and not options.workspace_trusted:
        return ()
    uris = [folder.uri for folder in params.workspace_folders or ()]
    if not uris and params.root_uri:
        uris = [params.root_uri]
    return tuple(sorted({os.path.realpath(path) for uri in uris if (path := path_of(uri))}))


def path_of(uri: str) -> str | None:
    """The local path of a file URI; None for any other (a remote or virtual folder)."""
    parsed = urlparse(uri)
    if parsed.scheme != "file":
        return None
    if sys.platform == "win32":
        # Imported here: it brings all of http.client along.
        from urllib.request import url2pathname

        return url2pathname(parsed.path)
    return unquote(parsed.path) or None
