"""What an editor that is slow or refuses costs an agent: nothing but what is unsaved."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sidecar.faces import editor
from sidecar.faces.rpc import RpcError
from sidecar.wire import methods as wire
from tests.requirements import proves

CAPABLE = {"experimental": {"sidecar": {"readFile": True, "applyEdit": True}}}
pytestmark = pytest.mark.anyio


@proves("VSCODE-FILES", "P11")
async def test_an_editor_that_does_not_answer_holds_up_no_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(method: wire.Method, params: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(editor, "PATIENCE", 0.01)
    assert await editor.EditorFiles(never, CAPABLE).read(Path("/w/a.txt")) is None


@proves("VSCODE-FILES")
async def test_an_editor_that_refuses_leaves_what_is_saved() -> None:
    async def refuse(method: wire.Method, params: object) -> None:
        raise RpcError(wire.INTERNAL_ERROR, "no")

    assert await editor.EditorFiles(refuse, CAPABLE).read(Path("/w/a.txt")) is None
