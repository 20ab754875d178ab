"""The read-only tools: what they may reach, how much they say, and whether they find things."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import sidecar
from sidecar.conversations import ToolKind
from sidecar.errors import NetworkError
from sidecar.interfaces import Tool, ToolOutput
from sidecar.tools.workspace import OUTPUT_BYTES, READ_BYTES, SEARCH_BYTES, workspace_tools
from tests.requirements import proves

pytestmark = pytest.mark.anyio

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git")
needs_posix = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")

FILES = {
    "README.md": "# Parcel\n\nSends parcels.\n\n## Running the tests\n\nRun `make check`.\n",
    "LICENSE": "MIT License\n\nPermission is hereby granted\n",
    "pyproject.toml": (
        '[project]\nname = "parcel"\nlicense = "MIT"\ndependencies = [\n  "anyio",\n]\n'
    ),
    "src/parcel/retry.py": (
        '"""The retry policy of a delivery."""\n\nimport anyio\n\n\n'
        "def delay_before(attempt: int) -> float:\n    return 2.0**attempt\n"
    ),
    "src/parcel/delivery.py": (
        "from .retry import delay_before\n\n\nclass DeliveryQueue:\n"
        '    """Parcels that wait."""\n\n    def push(self, parcel: str) -> None:\n'
        "        self.parcels.append(parcel)\n\n\n"
        "def parse_address(text: str) -> str:\n    # retry is done elsewhere\n    return text\n"
    ),
    "src/web/routeTable.ts": (
        "export function buildRouteTable(routes: Route[]): Table {\n"
        "  return new Table(routes);\n}\n"
    ),
    "tests/test_retry.py": "def test_delay_before_grows():\n    assert delay_before(2) > 1\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "parcel" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (tmp_path / "secret.txt").write_text("TOPSECRET", encoding="utf-8")
    return (tmp_path / "parcel").resolve()


def tools(*roots: Path, **more: Any) -> dict[str, Tool]:
    return {tool.spec.name: tool for tool in workspace_tools(roots, **more)}


async def run(root: Path, name: str, **arguments: Any) -> ToolOutput:
    with anyio.fail_after(20):
        return await tools(root)[name].run(arguments)


async def found(root: Path, query: str, **more: Any) -> dict[str, Any]:
    output = await run(root, "search", query=query, **more)
    assert not output.is_error, output.content
    result: dict[str, Any] = msgspec.json.decode(output.content)
    return result


async def places(root: Path, query: str) -> list[str]:
    return [f"{p['path']}:{p['line']}" for p in (await found(root, query))["passages"]]


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


# ---- read ----------------------------------------------------------------------------------


async def test_read_names_the_file_and_its_lines(root: Path) -> None:
    output = await run(root, "read", path="LICENSE")
    assert output.content == (
        "LICENSE, lines 1-3 of 3\nMIT License\n\nPermission is hereby granted"
    )


async def test_read_gives_the_lines_asked_for(root: Path) -> None:
    output = await run(root, "read", path="src/parcel/retry.py", startLine=6, endLine=6)
    assert output.content == (
        "src/parcel/retry.py, lines 6-6 of 7\ndef delay_before(attempt: int) -> float:"
    )


async def test_lines_beyond_the_end_are_an_error(root: Path) -> None:
    output = await run(root, "read", path="LICENSE", startLine=9)
    assert output.is_error
    assert "3 lines" in output.content


async def test_a_long_file_is_cut_at_a_line_and_says_how_to_go_on(root: Path) -> None:
    (root / "long.txt").write_text("0123456789\n" * 20_000, encoding="utf-8")
    output = await run(root, "read", path="long.txt")
    assert len(output.content.encode()) <= OUTPUT_BYTES
    *_, before, last = output.content.split("\n")
    assert before == "0123456789"
    assert last.startswith("[")
    following = int(last.removesuffix("]").rpartition(" ")[2])
    rest = await run(root, "read", path="long.txt", startLine=following)
    assert rest.content.startswith(f"long.txt, lines {following}-")


async def test_one_endless_line_is_cut_too(root: Path) -> None:
    (root / "line.txt").write_text("x" * 200_000, encoding="utf-8")
    output = await run(root, "read", path="line.txt")
    assert len(output.content.encode()) <= OUTPUT_BYTES
    assert "[…]" in output.content


async def test_every_kind_of_line_end_counts_as_one(root: Path) -> None:
    (root / "mixed.txt").write_bytes(b"a\r\nb\rc\nd\x0be")
    output = await run(root, "read", path="mixed.txt")
    assert output.content == "mixed.txt, lines 1-4 of 4\na\nb\nc\nd\x0be"


async def test_what_the_editor_shows_wins_over_the_disk(root: Path) -> None:
    asked: list[Path] = []

    async def read_file(path: Path) -> str | None:
        asked.append(path)
        return "unsaved\n" if path.name == "LICENSE" else None

    read = tools(root, read_file=read_file)["read"]
    assert (await read.run({"path": "LICENSE"})).content == "LICENSE, lines 1-1 of 1\nunsaved"
    assert "Sends parcels" in (await read.run({"path": "README.md"})).content
    assert asked == [root / "LICENSE", root / "README.md"]


async def test_an_editor_that_fails_is_an_error_for_the_model_to_read(root: Path) -> None:
    async def read_file(path: Path) -> str | None:
        raise NetworkError("The editor did not answer.")

    output = await tools(root, read_file=read_file)["read"].run({"path": "LICENSE"})
    assert output == ToolOutput("The editor did not answer.", is_error=True)


async def test_a_file_is_found_by_the_end_of_its_path(root: Path) -> None:
    assert "class DeliveryQueue" in (await run(root, "read", path="delivery.py")).content
    assert "class DeliveryQueue" in (await run(root, "read", path="parcel/delivery.py")).content
    assert "Sends parcels" in (await run(root, "read", path="readme")).content


async def test_of_two_files_alike_the_one_nearer_to_the_top_is_meant(root: Path) -> None:
    (root / "src" / "README.md").write_text("deeper", encoding="utf-8")
    assert (await run(root, "read", path="readme.md")).content.startswith("README.md, ")
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "a" / "twin.py").write_text("", encoding="utf-8")
    (root / "b" / "twin.py").write_text("", encoding="utf-8")
    output = await run(root, "read", path="twin.py")
    assert output.is_error
    assert "a/twin.py, b/twin.py" in output.content


async def test_binary_and_huge_files_are_refused(root: Path) -> None:
    (root / "image").write_bytes(b"GIF\0\1\2")
    (root / "huge").write_bytes(b"x" * (READ_BYTES + 1))
    assert "not a text file" in (await run(root, "read", path="image")).content
    assert "larger than" in (await run(root, "read", path="huge")).content


async def test_what_is_not_utf8_is_shown_with_marks(root: Path) -> None:
    (root / "latin.txt").write_bytes("größe".encode("latin-1"))
    assert "gr\ufffd\ufffde" in (await run(root, "read", path="latin.txt")).content


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read", {}),
        ("read", {"path": ""}),
        ("read", {"path": 7}),
        ("read", {"path": "LICENSE", "startLine": 0}),
        ("read", {"path": "LICENSE", "startLine": "x"}),
        ("list", {"path": []}),
        ("search", {}),
        ("search", {"query": ""}),
        ("search", {"query": "x", "maxResults": 10_000}),
    ],
)
async def test_wrong_arguments_are_an_error_for_the_model_to_read(
    root: Path, name: str, arguments: dict[str, Any]
) -> None:
    output = await tools(root)[name].run(arguments)
    assert output.is_error
    assert output.content.startswith("Wrong arguments")


# ---- what may be reached -------------------------------------------------------------------

OUTSIDE = [
    "../secret.txt",
    "src/../../secret.txt",
    "{outside}/secret.txt",
    "{outside}/parcel/../secret.txt",
    "link.txt",
    "folder/secret.txt",
    "chain.txt",
    "loop",
    "dangling",
    "/etc/passwd",
    "/proc/self/environ",
    "parcel/../../secret.txt",
    "",
    "\0",
    "src/\0/../../../secret.txt",
    "\ud800",
    "x" * 5_000,
    "src",
    ".",
    "pipe",
]


@proves("P9")
@needs_posix
@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: ascii(name[:30]))
async def test_nothing_outside_is_read(root: Path, name: str) -> None:
    outside = root.parent
    (outside / "parcel-evil").mkdir()
    (root / "link.txt").symlink_to(outside / "secret.txt")
    (root / "chain.txt").symlink_to(root / "link.txt")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling").symlink_to(outside / "not-yet")
    os.mkfifo(root / "pipe")
    with anyio.fail_after(10):
        output = await tools(root)["read"].run({"path": name.format(outside=outside)})
    assert output.is_error
    assert "TOPSECRET" not in output.content
    assert str(outside) not in output.content.replace(name.format(outside=outside), "")
    msgspec.json.encode(output.content)  # no lone surrogate


async def test_a_folder_whose_name_begins_alike_is_outside(root: Path) -> None:
    twin = root.parent / "parcel-evil"
    twin.mkdir()
    (twin / "a.txt").write_text("TOPSECRET", encoding="utf-8")
    for name in (str(twin / "a.txt"), "../parcel-evil/a.txt"):
        assert (await run(root, "read", path=name)).is_error


@needs_posix
async def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "inside.md").symlink_to(root / "README.md")
    assert (await run(root, "read", path="inside.md")).content.startswith("README.md, lines 1-")


@proves("P9")
@needs_posix
@pytest.mark.parametrize("swap", ["file", "folder"])
async def test_a_path_that_becomes_a_link_before_it_is_opened_is_refused(
    root: Path, swap: str
) -> None:
    (root.parent / "delivery.py").write_text("TOPSECRET", encoding="utf-8")

    def swapped(path: Path) -> None:
        if swap == "file":
            path.unlink()
            path.symlink_to(root.parent / "secret.txt")
        else:
            path.parent.rename(root.parent / "aside")
            path.parent.symlink_to(root.parent)

    async def read_file(path: Path) -> str | None:
        swapped(path)
        return None

    read = tools(root, read_file=read_file)["read"]
    output = await read.run({"path": "src/parcel/delivery.py"})
    assert output.is_error
    assert "TOPSECRET" not in output.content


@needs_posix
async def test_search_and_list_do_not_follow_links_out(root: Path) -> None:
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "folder").symlink_to(root.parent)
    assert (await found(root, "TOPSECRET"))["passages"] == []
    assert (await run(root, "list", path="folder")).is_error


async def test_several_folders_are_told_apart_by_name(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    twin = tmp_path / "deep" / "parcel"
    for folder in (other, twin):
        folder.mkdir(parents=True)
        (folder / "LICENSE").write_text(f"of {folder.parent.name}", encoding="utf-8")
    several = tools(root, other, twin)
    assert "other/LICENSE, " in (await several["read"].run({"path": "other/LICENSE"})).content
    assert "of deep" in (await several["read"].run({"path": "parcel-2/LICENSE"})).content
    listed = (await several["list"].run({})).content.split("\n")
    assert listed == ["other/ (1 file)", "parcel/ (7 files)", "parcel-2/ (1 file)"]


async def test_without_folders_there_are_no_tools() -> None:
    assert workspace_tools([]) == []


async def test_every_tool_only_reads(root: Path) -> None:
    kinds = {name: tool.kind for name, tool in tools(root).items()}
    assert kinds == dict.fromkeys(("read", "list", "glob", "grep", "search"), ToolKind.READ)


# ---- list ----------------------------------------------------------------------------------


async def test_list_shows_one_level_and_counts_the_rest(root: Path) -> None:
    assert (await run(root, "list")).content.split("\n") == [
        "src/ (3 files)",
        "tests/ (1 file)",
        "LICENSE",
        "README.md",
        "pyproject.toml",
    ]
    assert (await run(root, "list", path="src/parcel")).content.split("\n") == [
        "src/parcel/delivery.py",
        "src/parcel/retry.py",
    ]


async def test_a_pattern_lists_every_file_that_matches(root: Path) -> None:
    output = await run(root, "list", pattern="*.py", path="src")
    assert output.content.split("\n") == ["src/parcel/delivery.py", "src/parcel/retry.py"]
    assert (await run(root, "list", pattern="*.nothing")).content == "No files."


@pytest.mark.parametrize("path", ["nowhere", "LICENSE", "..", "/"])
async def test_what_is_no_folder_of_ours_is_not_listed(root: Path, path: str) -> None:
    output = await run(root, "list", path=path)
    assert output.is_error == (path != "/")
    assert "secret" not in output.content


async def test_a_long_list_is_cut(root: Path) -> None:
    for number in range(2_000):
        (root / f"{'long' * 15}{number}.txt").touch()
    output = await run(root, "list")
    assert len(output.content.encode()) <= OUTPUT_BYTES
    assert output.content.endswith(" more]")


async def test_generated_and_hidden_folders_and_likely_secrets_are_left_out(root: Path) -> None:
    for name in (
        "node_modules/x/retry.py",
        ".venv/retry.py",
        "__pycache__/retry.py",
        ".git/retry.py",
        ".env",
        "server.pem",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("retry policy TOPSECRET", encoding="utf-8")
    assert "src/ (3 files)" in (await run(root, "list")).content
    assert len((await run(root, "list", pattern="*")).content.split("\n")) == len(FILES)
    assert (await found(root, "TOPSECRET"))["missing"] == ["topsecret"]


# ---- git -----------------------------------------------------------------------------------


@needs_git
async def test_what_git_ignores_is_not_searched(root: Path) -> None:
    git(root, "init", "-q")
    (root / ".gitignore").write_text("generated/\n*.tmp\n", encoding="utf-8")
    (root / "generated").mkdir()
    (root / "generated" / "a.py").write_text("frobnicate = 1", encoding="utf-8")
    (root / "b.tmp").write_text("frobnicate", encoding="utf-8")
    (root / "new.py").write_text("frobnicate = 1", encoding="utf-8")
    assert await places(root, "frobnicate") == ["new.py:1"]


@needs_git
async def test_a_file_that_git_tracks_but_is_gone_is_not_listed(root: Path) -> None:
    git(root, "init", "-q")
    git(root, "add", ".")
    (root / "LICENSE").unlink()
    assert "LICENSE" not in (await run(root, "list")).content


@needs_git
async def test_a_repository_inside_another_is_searched_too(root: Path) -> None:
    git(root, "init", "-q")
    git(root / "src", "init", "-q")
    assert "src/parcel/retry.py:1" in await places(root, "retry policy")


@needs_git
async def test_a_folder_that_an_outer_repository_ignores_is_searched(root: Path) -> None:
    git(root.parent, "init", "-q")
    (root.parent / ".gitignore").write_text("parcel/\n", encoding="utf-8")
    assert "src/parcel/retry.py:1" in await places(root, "retry policy")


@proves("P9")
@needs_git
@needs_posix
async def test_a_hostile_repository_gets_no_program_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = root.parent / "ran"
    program = root / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\n", encoding="utf-8")
    program.chmod(0o755)
    git(root, "init", "-q")
    git(root, "config", "core.fsmonitor", str(program))
    assert await places(root, "retry policy")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert await places(root, "retry policy")
    assert not ran.exists()


# ---- search --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "place"),
    [
        ("where is the retry policy?", "src/parcel/retry.py:1"),
        ("which function parses addresses?", "src/parcel/delivery.py:11"),
        ("what is a delivery queue", "src/parcel/delivery.py:4"),
        ("DeliveryQueue", "src/parcel/delivery.py:4"),
        ("delay_before", "src/parcel/retry.py:6"),
        ("where is the route table built?", "src/web/routeTable.ts:1"),
        ("what license is this?", "LICENSE:1"),
        ("how do I run the tests?", "README.md:5"),
        ("which dependencies does this project have", "pyproject.toml:4"),
        ("what is this project about?", "README.md:1"),
        ("where is the delay tested", "tests/test_retry.py:1"),
    ],
)
async def test_the_best_passage_answers_the_question(root: Path, question: str, place: str) -> None:
    assert (await places(root, question))[0] == place


@pytest.mark.parametrize(
    ("question", "path"),
    [
        ("where is the retry policy?", "retry.py"),
        ("where is AgentError defined?", "errors.py"),
        ("where is StopReason defined?", "conversations.py"),
        ("which function tells the utf16 length?", "events.py"),
        ("what does the prologue do?", "faces/prologue.py"),
    ],
)
async def test_questions_about_this_product_find_their_file(question: str, path: str) -> None:
    source = Path(sidecar.__file__).parent
    assert (await found(source, question))["passages"][0]["path"] == path


async def test_a_passage_is_its_lines(root: Path) -> None:
    (passage, *_) = (await found(root, "DeliveryQueue"))["passages"]
    lines = FILES["src/parcel/delivery.py"].split("\n")
    assert passage["text"].split("\n") == lines[passage["line"] - 1 : passage["endLine"]]
    assert passage["words"] == ["DeliveryQueue", "delivery", "queue"]
    assert passage["score"] > 0


async def test_words_that_are_nowhere_are_named(root: Path) -> None:
    result = await found(root, "where is the zyzzyva retry?")
    assert result["missing"] == ["zyzzyva"]
    assert result["passages"][0]["path"] == "src/parcel/retry.py"


async def test_passages_do_not_overlap(root: Path) -> None:
    passages = (await found(root, "license dependencies parcel anyio", maxResults=30))["passages"]
    lines = [(p["path"], n) for p in passages for n in range(p["line"], p["endLine"] + 1)]
    assert len(lines) == len(set(lines))


async def test_search_sees_a_change_at_once(root: Path) -> None:
    assert await places(root, "frobnicate") == []
    (root / "new.py").write_text("def frobnicate(): ...\n", encoding="utf-8")
    assert await places(root, "frobnicate") == ["new.py:1"]


async def test_binary_and_huge_files_are_not_searched(root: Path) -> None:
    (root / "data.txt").write_bytes(b"frobnicate\0")
    (root / "big.txt").write_bytes(b"frobnicate " * (SEARCH_BYTES // 11 + 1))
    assert await places(root, "frobnicate") == []


async def test_the_answer_of_a_search_is_bounded(root: Path) -> None:
    for number in range(40):
        body = "\n".join(f"{number} frobnicate {'ü' * 235} {line}" for line in range(18))
        (root / f"wide{number}.txt").write_text(body, encoding="utf-8")
    output = await run(root, "search", query="frobnicate", maxResults=30)
    assert len(output.content.encode()) <= OUTPUT_BYTES
    assert len(msgspec.json.decode(output.content)["passages"]) > 3


@pytest.mark.parametrize(
    "query",
    [
        "größe der Straße",
        "где политика повторов?",
        "重试策略在哪里",
        "أين سياسة الإعادة",
        "🧨🧨🧨",
        "İstanbul ſ ß ﬁ",
        "\ud800 lone",
        "(((((*[[[\\",
        "?",
        "\0",
        "a" * 100_000,
        "wort " * 50_000,
    ],
    ids=lambda query: ascii(query[:12]),
)
async def test_any_text_can_be_asked(root: Path, query: str) -> None:
    (root / "unicode.txt").write_text("Die größe der Straße\nполитика повторов\n", encoding="utf-8")
    result = await found(root, query)
    if "größe" in query or "политика" in query:
        assert result["passages"][0]["path"] == "unicode.txt"


@needs_posix
async def test_names_that_cannot_be_shown_are_left_out(root: Path) -> None:
    for name in (os.fsdecode(b"\xff.txt"), "two\nlines.txt"):
        (root / name).write_text("frobnicate", encoding="utf-8")
    assert await places(root, "frobnicate") == []


@proves("P7", "P11")
async def test_a_cancelled_search_is_over_at_once(root: Path) -> None:
    with anyio.fail_after(5), anyio.CancelScope() as scope:
        scope.cancel()
        await tools(root)["search"].run({"query": "retry"})
    assert scope.cancelled_caught


async def test_many_searches_run_side_by_side(root: Path) -> None:
    outputs: list[ToolOutput] = []
    search = tools(root)["search"]

    async def one() -> None:
        outputs.append(await search.run({"query": "retry policy"}))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
    assert len(outputs) == 8
    assert len({output.content for output in outputs}) == 1
