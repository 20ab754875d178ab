"""A conversation as a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.conversations import (
    ContextFile,
    ErrorPart,
    FilePart,
    Message,
    MessageStatus,
    SteeringPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from sidecar.errors import LoadFailed
from sidecar.export import as_json, as_markdown, from_json, read, write
from sidecar.interfaces import ConversationExport
from tests.managers import VIRTUAL, World, living
from tests.requirements import proves


@pytest.fixture
def anyio_backend() -> Any:
    return VIRTUAL


async def exported(world: World, reason: str | None = "it crashed") -> ConversationExport:
    await world.create("a")
    await world.send("what is it?")
    return await world.store.export("a", reason)


@proves("S003-EXPORT-1", "S003-EXPORT-2", "S003-EXPORT-3", "S003-EXPORT-4")
@pytest.mark.anyio
async def test_an_export_holds_everything_and_why_and_when_it_was_made() -> None:
    async with living("a test") as world:
        text = as_json(await exported(world))
        data = json.loads(text)
        assert data["reason"] == "it crashed"
        assert data["exportedAt"] > 1_600_000_000_000
        assert data["storeId"] == world.store.store_id
        assert data["schemaVersion"] > 0
        assert data["conversation"]["conversationId"] == "a"
        texts = [m["parts"][0]["text"] for m in data["messages"]]
        assert texts == ["what is it?", "a test"]
        assert text.startswith('{\n  "'), "formatted"


@pytest.mark.anyio
async def test_what_was_exported_comes_back_the_same() -> None:
    async with living("a 😀 test\ud83d") as world:
        export = await exported(world)
        assert from_json(as_json(export)) == export


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"format":"other"}', "no"])
def test_anything_else_is_not_taken_for_an_export(data: bytes | str) -> None:
    with pytest.raises(LoadFailed):
        from_json(data)


@pytest.mark.anyio
async def test_markdown_shows_every_kind_of_part() -> None:
    async with living() as world:
        export = await exported(world)
    message = Message(
        message_id="m",
        ordinal=9,
        role="assistant",
        status=MessageStatus.ERROR,
        parts=(
            ThinkingPart(text="let me think"),
            TextPart(text="plain *text*"),
            SteeringPart(text="be quick"),
            ToolCallPart(tool_call_id="t", name="look", arguments={"path": "x"}),
            ToolResultPart(tool_call_id="t", content="has ``` in it"),
            FilePart(file=ContextFile(uri="file:///x")),
            ErrorPart(type="NETWORK_ERROR", message="down", hint="wait"),
        ),
        created_at=0,
    )
    changed: Any = {"messages": (*export.messages, message)}
    import msgspec

    text = as_markdown(msgspec.structs.replace(export, **changed))
    for piece in (
        "# what is it?",
        "(it crashed)",
        "1970-01-01 00:00 UTC (error)",
        "<details><summary>Thinking</summary>",
        "plain *text*",
        "**You, meanwhile:** be quick",
        '{"path":"x"}',
        "````\nhas ``` in it\n````",
        "Attached: `file:///x`",
        "**Failed:** down wait",
    ):
        assert piece in text


@pytest.mark.anyio
async def test_markdown_shows_what_still_waits() -> None:
    async with living() as world:
        await world.busy("a", "running")
        await world.enqueue("waiting")
        text = as_markdown(await world.store.export("a", None))
        assert "## Waiting (queued)\n\nwaiting" in text
        assert "## Waiting (running)\n\nrunning" in text


def test_an_export_is_written_to_a_new_file_for_its_owner_only(tmp_path: Path) -> None:
    target = tmp_path / "export.json"
    assert write("tëxt\n", str(target)) == target
    assert target.read_bytes() == "tëxt\n".encode()
    if os.name == "posix":
        assert target.stat().st_mode & 0o777 == 0o600
    assert read(str(target)) == "tëxt\n".encode()


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "export.json"
    target.write_text("precious")
    with pytest.raises(LoadFailed, match="exists"):
        write("new", str(target))
    assert target.read_text() == "precious"


@pytest.mark.parametrize("path", ["relative.json", "missing/folder.json"])
def test_a_path_that_cannot_be_used_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(LoadFailed):
        write("x", path if path.startswith("relative") else str(tmp_path / path))
    with pytest.raises(LoadFailed) as caught:
        read(str(tmp_path / path))
    assert str(tmp_path) not in caught.value.message
