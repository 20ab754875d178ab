"""`conversations prune` and `store/prune`, through a real sidecar."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.commands.cli import main
from sidecar.stores.sqlite import SqliteStore
from tests.faults.damage import ignore, new

pytestmark = pytest.mark.anyio


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path, ignore)
    for name in ("kept", "old"):
        await store.create(new(name))
    await store.archive("old", True)
    await store.aclose()
    return path


async def test_pruning_says_what_would_go_and_deletes_only_when_told_to(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["conversations", "prune", "--store", str(path)]
    assert main([*command, "--dry-run"]) == 0
    assert "nothing to give up" in capsys.readouterr().out
    rule = ["--max-bytes", "1"]
    assert main([*command, *rule, "--dry-run"]) == 0
    assert "Nothing was" in capsys.readouterr().out
    assert main([*command, *rule]) == 2
    assert "--yes" in capsys.readouterr().err
    assert main([*command, *rule, "--yes"]) == 0
    assert "Deleted 1 conversation" in capsys.readouterr().err
    store = await SqliteStore.open(path, ignore)
    assert [one.conversation_id for one in (await store.list()).conversations] == ["kept"]
    assert (await store.list(archived=True)).conversations == ()
    await store.aclose()
