"""The tool that runs commands: what is asked, what it may touch, and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import processes
from sidecar.conversations import ToolKind
from sidecar.errors import MessageProcessingFailed
from sidecar.processes import ChildRecord
from sidecar.tools import child, sandbox
from sidecar.tools.commands import CommandTool, Excerpt, shell
from tests.faults.needs import missing
from tests.requirements import proves

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a POSIX shell"),
]


class Ledger:
    mark = "a-test"

    def __init__(self) -> None:
        self.now: list[ChildRecord] = []
        self.ever: list[ChildRecord] = []

    async def child_started(self, child: ChildRecord) -> None:
        self.now.append(child)
        self.ever.append(child)

    async def child_ended(self, child: ChildRecord) -> None:
        self.now.remove(child)


def free() -> None:
    """No sandbox."""
    return


def tool(root: Path, ledger: Ledger | None = None, found: Callable[[], Any] = free) -> CommandTool:
    return CommandTool([root], ledger or Ledger(), found)


def real(path: Path) -> str:
    return os.path.realpath(path)


async def run(root: Path, command: str, found: Callable[[], Any] = free, **more: Any) -> str:
    return (await tool(root, found=found).run({"command": command, **more})).content


@proves("TOOLS-RUN")
async def test_the_question_is_the_text_that_the_shell_gets(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    command = "echo a && rm -rf b  # all of it"
    free_ = await tool(tmp_path).subject({"command": command, "folder": "sub"})
    assert free_.text == command
    assert free_.title == f"Run in {real(tmp_path)}/sub (not confined: as you, with network)"
    confined = tool(tmp_path, found=lambda: "/usr/bin/bwrap")
    online = await confined.subject({"command": command, "network": True})
    assert online.title.endswith(" (with network)")
    offline = await confined.subject({"command": command})
    assert not offline.title.endswith(")")
    assert len({str(s.state) for s in (free_, online, offline)}) == 3
    assert CommandTool.kind is ToolKind.RUN


@proves("TOOLS-RUN")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "command"),
        ({"command": ""}, "length"),
        ({"command": "ls", "folder": "../.."}, "not inside the workspace"),
        ({"command": "ls", "folder": "nowhere"}, "no folder"),
        ({"command": "ls", "timeoutSeconds": 0}, ">= 1"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_said_and_not_run(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    ledger = Ledger()
    with pytest.raises(MessageProcessingFailed, match=words):
        await tool(tmp_path, ledger).subject(arguments)
    output = await tool(tmp_path, ledger).run(arguments)
    assert output.is_error
    assert words in output.content
    assert ledger.ever == []


@proves("TOOLS-RUN")
async def test_a_command_answers_with_its_code_and_all_that_it_said(tmp_path: Path) -> None:
    ledger = Ledger()
    command = {"command": "echo out; echo err >&2; pwd; exit 3"}
    said = await tool(tmp_path, ledger).run(command)
    assert said.content == f"Exit code 3.\nout\nerr\n{real(tmp_path)}\n"
    assert said.is_error
    assert not (await tool(tmp_path).run({"command": "true"})).is_error
    assert len(ledger.ever) == 1
    assert ledger.now == []


@proves("TOOLS-RUN", "P10")
async def test_a_command_gets_no_key_and_no_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-4711")
    said = await run(tmp_path, "env; cat")
    assert "canary-4711" not in said
    assert f"{processes.MARK}=a-test" in said


@proves("TOOLS-RUN", "P11")
async def test_a_long_output_is_cut_in_the_middle_within_memory(tmp_path: Path) -> None:
    said = await run(tmp_path, "echo first; yes | head -c 30000000; echo last")
    assert said.startswith("Exit code 0.\nfirst\n")
    assert said.endswith("\nlast\n")
    assert "bytes left out" in said
    assert len(said) < child.HEAD + child.TAIL + 200


@proves("TOOLS-RUN", "P7")
async def test_a_command_that_takes_too_long_is_ended_with_all_that_it_began(
    tmp_path: Path,
) -> None:
    said = await run(tmp_path, "echo $$ > pid; sleep 600 & sleep 600", timeoutSeconds=1)
    assert said == "Stopped after 1 seconds.\n"
    assert processes.began(int((tmp_path / "pid").read_text())) is None


@proves("TOOLS-RUN", "P7")
async def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    await run(tmp_path, "sleep 600 >/dev/null 2>&1 & echo $! > pid")
    pid = int((tmp_path / "pid").read_text())
    with anyio.fail_after(5):
        while processes.began(pid) is not None:  # noqa: ASYNC110  # init reaps it when it likes
            await anyio.sleep(0.01)


@proves("TOOLS-RUN", "P7")
async def test_stopping_a_turn_ends_its_command(tmp_path: Path) -> None:
    ledger = Ledger()
    os.mkfifo(tmp_path / "begun")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            command = {"command": "trap '' TERM; echo $$ > begun; sleep 600; sleep 600"}
            tasks.start_soon(tool(tmp_path, ledger).run, command)
            pid = int(await anyio.to_thread.run_sync((tmp_path / "begun").read_text))
            tasks.cancel_scope.cancel()
    assert processes.began(pid) is None
    assert (len(ledger.ever), ledger.now) == (1, [])


# ---- the sandbox ---------------------------------------------------------------------------


@pytest.fixture
def bwrap() -> Callable[[], str | None]:
    if sandbox.bubblewrap() is None and not os.environ.get("CI"):
        pytest.skip(missing("bwrap") or "this machine does not let bubblewrap make namespaces")
    return sandbox.bubblewrap


@proves("TOOLS-RUN", "P9")
async def test_a_confined_command_writes_in_the_workspace_only(
    tmp_path: Path, bwrap: Callable[[], str | None]
) -> None:
    root = tmp_path / "w"
    (root / ".git/hooks").mkdir(parents=True)
    outside = Path.home() / f"agent-sidecar-test-{os.getpid()}"
    said = await run(
        root,
        f"echo in > a; echo out > {outside}; echo evil > .git/hooks/pre-commit; echo tmp > /tmp/x"
        "; cat /tmp/x",
        bwrap,
    )
    assert (root / "a").read_text() == "in\n"
    assert not outside.exists()
    assert list((root / ".git/hooks").iterdir()) == []
    assert said.count("Read-only file system") == 2
    assert said.endswith("tmp\n")


@proves("TOOLS-RUN", "P9")
async def test_a_confined_command_has_no_network_unless_it_was_asked_for(
    tmp_path: Path, bwrap: Callable[[], str | None]
) -> None:
    server = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = server.extra(anyio.abc.SocketAttribute.local_port)
    connect = f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'"
    async with server:
        assert not (await run(tmp_path, connect, bwrap)).startswith("Exit code 0")
        assert (await run(tmp_path, connect, bwrap, network=True)).startswith("Exit code 0")


@proves("TOOLS-RUN")
def test_where_there_is_no_bubblewrap_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.bubblewrap.cache_clear()
    monkeypatch.setattr(sandbox.shutil, "which", lambda _: "/bin/false")
    assert sandbox.bubblewrap() is None
    sandbox.bubblewrap.cache_clear()


@proves("TOOLS-RUN")
def test_each_platform_has_its_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMSPEC", "C:\\cmd.exe")
    assert shell("a & b", "win32") == ["C:\\cmd.exe", "/d", "/s", "/c", "a & b"]
    *_, command = shell("a & b", "darwin")
    assert command == "a & b"


@proves("TOOLS-RUN", "P11")
async def test_a_command_leaves_no_dump_and_no_file_of_any_size(tmp_path: Path) -> None:
    said = await run(tmp_path, "ulimit -c; dd if=/dev/zero of=big bs=1 count=1 seek=9000000000")
    assert said.split("\n")[1] == "0"
    assert not said.startswith("Exit code 0")
    assert not (tmp_path / "big").exists() or (tmp_path / "big").stat().st_size <= 8 << 30
    assert await run(tmp_path, 'echo "$0 $# a b"') == "Exit code 0.\n/bin/sh 0 a b\n"


@proves("TOOLS-RUN", "P7", "P11")
async def test_a_command_that_makes_processes_without_end_is_ended_with_all_of_them(
    tmp_path: Path,
) -> None:
    ledger = Ledger()
    command = "n=0; while [ $n -lt 300 ]; do sleep 600 & n=$((n+1)); done; wait"
    said = await tool(tmp_path, ledger).run({"command": command, "timeoutSeconds": 1})
    assert said.content.startswith("Stopped after 1 seconds")
    group = ledger.ever[0].pid
    assert not list(processes._members(group)) if sys.platform == "linux" else True


@proves("TOOLS-RUN")
@given(st.lists(st.binary(max_size=50), max_size=40))
def test_an_excerpt_is_the_whole_or_its_two_ends(pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "HEAD", 40)
        patch.setattr(child, "TAIL", 30)
        excerpt = Excerpt()
        for piece in pieces:
            excerpt.add(piece)
    whole = b"".join(pieces)
    if len(whole) <= 70:
        assert excerpt.text() == (
            whole[:40].decode("utf-8", "replace") + whole[40:].decode("utf-8", "replace")
        ).replace("\r\n", "\n")
    else:
        assert f"[… {len(whole) - 70:,} bytes left out …]" in excerpt.text()
