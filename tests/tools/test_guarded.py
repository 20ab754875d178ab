"""What governs editors, agents, shells and git is out of a confined command's reach, whatever it
tries: existing files cannot be changed or moved away, and new ones do not stay where they govern.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.interfaces import ToolUse
from sidecar.tools import sandbox
from sidecar.tools.commands import CommandTool, command_tools
from sidecar.tools.guarded import Guarded
from sidecar.tools.protected import is_protected
from tests.faults.needs import missing
from tests.requirements import proves
from tests.tools.test_commands import Ledger, free

pytestmark = pytest.mark.anyio
posix = pytest.mark.skipif(sys.platform == "win32", reason="commands of a POSIX shell")

GOVERNING = (
    *(".git/hooks/pre-commit", ".git/config", ".git/commondir", ".git/info/attributes"),
    *(".vscode/tasks.json", ".idea/workspace.xml", ".mcp.json", ".cursor/mcp.json", "AGENTS.md"),
    *(".envrc", ".env", ".npmrc", ".github/workflows/ci.yml", ".devcontainer/devcontainer.json"),
    *(".husky/pre-push", "CLAUDE.md", "a.code-workspace", "sub/.git/config", "sub/AGENTS.md"),
    *("sub/deep/.vscode/settings.json", ".gitlab-ci.yml", ".opencode/x.json", ".exrc"),
)
FOREIGN = "changed by a command"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = Path(os.path.realpath(tmp_path)) / "w"
    made.mkdir()
    return made


@pytest.fixture
def bwrap() -> Callable[[], str | None]:
    if sandbox.bubblewrap() is None and not os.environ.get("CI"):
        pytest.skip(missing("bwrap") or "this machine does not let bubblewrap make namespaces")
    return sandbox.bubblewrap


def write(root: Path, name: str, text: str = "mine\n") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


async def run(root: Path, command: str, found: Callable[[], Any], **more: Any) -> str:
    tool = CommandTool([root], Ledger(), found)
    return (await tool.run({"command": command, **more})).content


def governing_texts(root: Path) -> dict[str, str]:
    """What every file that governs holds, followed through links as its reader would."""
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if is_protected(path.relative_to(root).as_posix()) and path.is_file()
    }


# ---- in the sandbox ------------------------------------------------------------------------


@posix
@proves("P9", "PROTECTED", "TOOLS-RUN")
@pytest.mark.parametrize("name", GOVERNING)
async def test_a_confined_command_neither_changes_nor_makes_what_governs(
    root: Path, bwrap: Callable[[], str | None], name: str
) -> None:
    for is_there in (True, False):
        if is_there:
            write(root, name)
        elif (root / name).exists():
            (root / name).unlink()
        before = governing_texts(root)
        await run(
            root,
            f"mkdir -p {os.path.dirname(name) or '.'}; echo '{FOREIGN}' > {name}"
            f"; echo '{FOREIGN}' > t; mv -f t {name}; rm -f {name}; cp /etc/hostname {name}",
            bwrap,
        )
        after = governing_texts(root)
        assert FOREIGN not in "".join(after.values())
        assert after == before


ESCAPES = {
    "the folder moved away": "mv .git g && mkdir -p .git/hooks && echo evil > .git/hooks/update",
    "a parent moved away": "mv sub g && mkdir -p sub/.git && echo evil > sub/.git/config",
    "a parent that is a link then": "mv sub g; mkdir -p o/.git; echo evil > o/.git/config;"
    " ln -s o sub",
    "unmounted": "umount .git .git/hooks; echo evil > .git/config",
    "remounted": "mount -o remount,rw .git; echo evil > .git/config",
    "in a namespace of its own": "unshare -Urm sh -c 'umount -R .git;"
    " mount -o remount,bind,rw .git; echo evil > .git/config'",
    "bound elsewhere": "unshare -Urm sh -c 'mkdir /tmp/x; mount --bind . /tmp/x;"
    " echo evil > /tmp/x/.git/config'",
    "through a hard link": "ln .git/config c && echo evil > c",
    "by its process": "echo evil > /proc/self/root$PWD/.git/config",
    "a link in its place": "rm -rf AGENTS.md; echo evil > e; ln -sf e AGENTS.md",
    "in other letters": "echo evil > agents.MD; mkdir -p .VSCode; echo evil > .VSCode/tasks.json",
    "a repository of its own": "mkdir -p new/.git/hooks; echo evil > new/.git/config",
    "git's own word": "git config core.fsmonitor evil; git config --global core.fsmonitor evil",
    "a repository without a name": "mkdir -p n/objects n/refs; echo 'ref: refs/heads/m' > n/HEAD;"
    " printf '[core]\\nrepositoryformatversion=0\\nbare=false\\nworktree=..\\n' > n/config;"
    " echo 'fsmonitor=touch pwned; false' >> n/config",
    "a common folder elsewhere": "mkdir e; echo evil > e/config; echo ../e > .git/commondir",
}


@posix
@proves("P9", "PROTECTED", "TOOLS-RUN")
@pytest.mark.parametrize("command", ESCAPES.values(), ids=ESCAPES)
async def test_no_way_around_the_mounts_leads_to_what_governs(
    root: Path, bwrap: Callable[[], str | None], command: str
) -> None:
    await anyio.run_process(["git", "init", "-q", str(root)])
    for name in ("sub/.git/config", "AGENTS.md", ".vscode/tasks.json"):
        write(root, name)
    before = governing_texts(root)
    await run(root, command, bwrap)
    after = governing_texts(root)
    assert "evil" not in "".join(after.values())
    moved = {name.replace("sub/", "g/", 1) for name in before if name.startswith("sub/")}
    assert set(after) <= set(before) | moved
    assert not (root / ".git/commondir").exists()
    status = (
        await anyio.run_process(["git", "status"], cwd=root / "n", check=False)
        if (root / "n").is_dir()
        else None
    )
    assert not list(root.rglob("pwned")), status  # noqa: ASYNC240


@posix
@proves("PROTECTED", "TOOLS-RUN")
async def test_what_is_put_aside_is_said_and_nothing_of_it_is_lost(
    root: Path, bwrap: Callable[[], str | None]
) -> None:
    said = await run(root, "mkdir .vscode; echo '{}' > .vscode/tasks.json; echo x > a.txt", bwrap)
    assert said.startswith("Exit code 0.")
    aside = next(path for path in root.glob("*") if path.name.endswith("-.vscode.aside"))  # noqa: ASYNC240
    assert (aside / "tasks.json").read_text() == "{}\n"
    assert f".vscode is now {aside.name}" in said
    assert "`unconfined`" in said
    assert (root / "a.txt").read_text() == "x\n"


@posix
@proves("PROTECTED", "TOOLS-RUN")
async def test_a_command_in_the_background_cannot_change_what_is_there_and_puts_nothing_aside(
    root: Path, bwrap: Callable[[], str | None]
) -> None:
    """Its user works on meanwhile, and makes such files, too."""
    write(root, "AGENTS.md")
    tools, background = command_tools([root], Ledger())
    tools[0]._find_sandbox = bwrap  # type: ignore[attr-defined]
    command = "echo evil > AGENTS.md; mv AGENTS.md x; touch done"
    await tools[0].run({"command": command, "background": True})
    (running,) = background._running.values()
    await running.child.exited.wait()
    write(root, ".env", "of the user's")
    said = (await tools[1].run({"id": "command-1"})).content
    assert said.endswith("[Meanwhile, what governs editors, agents or git has changed: .env.]\n")
    assert (root / "AGENTS.md").read_text() == "mine\n"
    assert (root / ".env").read_text() == "of the user's"
    await background.end_all()


@posix
@proves("PROTECTED", "TOOLS-RUN")
async def test_what_the_user_changes_while_a_command_runs_stays(
    root: Path, bwrap: Callable[[], str | None]
) -> None:
    write(root, "AGENTS.md")
    os.mkfifo(root / "begun")
    os.mkfifo(root / "go-on")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, root, "echo > begun; read x < go-on", bwrap)
        await anyio.to_thread.run_sync((root / "begun").read_text)
        write(root, "draft", "newer").rename(root / "AGENTS.md")
        await anyio.to_thread.run_sync((root / "go-on").write_text, "\n")
    assert (root / "AGENTS.md").read_text() == "newer"


@posix
@proves("P9", "PROTECTED", "TOOLS-RUN")
@pytest.mark.parametrize(
    "hidden",
    [
        "touch pyvenv.cfg; mkdir -p sub/.git; echo evil > sub/.git/config",
        "mkdir -p build/.git dist/.git; echo evil | tee build/.git/config > dist/.git/config",
        "mkdir -p sub/.git; echo evil > sub/.git/config; touch sub/pyvenv.cfg",
        "mkdir -p sub/.git; echo evil > sub/.git/config; chmod 555 sub",
        "mkdir -p 'a\nb/.git'; echo evil > 'a\nb/.git/config'",
    ],
)
async def test_nothing_hides_what_was_made(
    root: Path, bwrap: Callable[[], str | None], hidden: str
) -> None:
    await run(root, hidden, bwrap)
    await anyio.run_process(["chmod", "-R", "u+rwx", str(root)])
    assert "evil" not in "".join(governing_texts(root).values())


@posix
@proves("TOOLS-RUN")
async def test_a_repository_is_read_as_ever_and_what_needs_more_is_asked_for(
    root: Path, bwrap: Callable[[], str | None]
) -> None:
    identity = "-c user.name=a -c user.email=a@example.org"
    await anyio.run_process(["git", "init", "-q", str(root)])
    write(root, "a.txt")
    said = await run(root, "git status --short", bwrap)
    assert said == "Exit code 0.\n?? a.txt\n"
    commit = f"git add a.txt && git {identity} commit -qm a && echo committed"
    assert "Read-only file system" in await run(root, commit, bwrap)
    assert (await run(root, commit, bwrap, unconfined=True)).endswith("committed\n")


@posix
@proves("TOOLS-RUN", "PROTECTED", "RULES")
async def test_running_with_all_rights_is_asked_every_time(root: Path) -> None:
    tool = CommandTool([root], Ledger(), lambda: "/usr/bin/bwrap")
    asked = await tool.subject({"command": "make", "unconfined": True})
    assert asked.is_protected
    assert asked.always == ()
    assert asked.title.endswith("(not confined: as you, with network)")
    assert asked.state["isConfined"] is False
    confined = await tool.subject({"command": "make"})
    assert not confined.is_protected
    assert confined.always != ()


@posix
@proves("P9", "TOOLS-RUN")
async def test_where_the_workspace_is_everything_nothing_is_said_to_be_confined() -> None:
    tool = CommandTool([Path("/")], Ledger(), lambda: "/usr/bin/bwrap")
    asked = await tool.subject({"command": "make"})
    assert asked.state["isConfined"] is False
    assert "not confined" in asked.title


@posix
@proves("P10", "TOOLS-RUN")
async def test_keys_and_our_own_store_are_not_shown_to_what_is_confined(
    root: Path, bwrap: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = root.parent / "home"
    for name in (".ssh/id_ed25519", ".aws/credentials", ".netrc", "share/s.db", "share/s.db-wal"):
        write(home, name, "canary-77")
    monkeypatch.setenv("HOME", str(home))
    tool = CommandTool([root], Ledger(), bwrap, store=home / "share/s.db")
    look = f"cd {home}; ls -a . .ssh .aws; cat .ssh/* .aws/* .netrc share/*; find / -name 's.db*'"
    said = (await tool.run({"command": look})).content
    assert "canary-77" not in said
    # /tmp, where these stand, is another one in there: that it is hidden by name is seen here.
    places = [str(p) for p in sandbox.hidden(home, home / "share/s.db")]
    shown = {str(home / n) for n in (".ssh", ".aws", ".netrc", "share/s.db", "share/s.db-wal")}
    assert shown <= set(places)
    words = sandbox.View([root], hidden=[home / ".ssh", home / ".netrc"]).arguments()
    assert words[words.index(str(home / ".ssh")) - 1] == "--tmpfs"
    assert words[words.index(str(home / ".netrc")) - 2 :][:2] == ["--ro-bind", "/dev/null"]


@posix
@proves("P9", "TOOLS-RUN")
async def test_no_service_of_the_machine_is_within_reach(
    root: Path, bwrap: Callable[[], str | None]
) -> None:
    if not os.access("/run", os.W_OK):
        assert "--tmpfs /run" in " ".join(sandbox.View().arguments())
        return
    path = f"/run/agent-sidecar-test-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(path)
        try:
            said = await run(root, f"test -S {path} && echo there || echo none", bwrap)
            seen = await run(root, f"test -S {path} && echo there || echo none", free)
        finally:
            os.unlink(path)
    assert said.endswith("none\n")
    assert seen.endswith("there\n"), "the test can fail"


@posix
@proves("TOOLS-RUN", "PROTECTED")
async def test_where_nothing_is_confined_a_change_of_what_governs_is_at_least_said(
    root: Path,
) -> None:
    said = await run(root, "echo x > AGENTS.md", free)
    assert said.endswith(
        "[Meanwhile, what governs editors, agents or git has changed: AGENTS.md.]\n"
    )
    assert (root / "AGENTS.md").exists()
    assert await run(root, "cat AGENTS.md", free) == "Exit code 0.\nx\n"


@posix
@proves("P9", "TOOLS-RUN")
async def test_a_command_that_was_allowed_in_the_sandbox_does_not_run_without(root: Path) -> None:
    found: list[str | None] = ["/usr/bin/bwrap"]
    tool = CommandTool([root], Ledger(), lambda: found[0])
    allowed = await tool.subject({"command": "touch made"})
    found[0] = None
    output = await tool.run({"command": "touch made"}, ToolUse(subject=allowed))
    assert output.is_error
    assert "has changed" in output.content
    assert not (root / "made").exists()


# ---- what is found -------------------------------------------------------------------------


@proves("PROTECTED")
def test_installed_and_generated_folders_are_not_looked_into(root: Path) -> None:
    for name in ("node_modules/x/.npmrc", "a/.venv/lib/python3.11/site-packages/b.pth"):
        write(root, name)
    write(root, "src/x.pth")
    assert [p.name for p in Guarded([root]).mounts] == ["x.pth"]


@proves("PROTECTED")
def test_two_folders_one_in_the_other_are_both_looked_at(root: Path) -> None:
    write(root, "in/.mcp.json")
    guarded = Guarded([root, root / "in"])
    write(root, "in/AGENTS.md", "new")
    assert [path.name for path in dict.fromkeys(guarded.changed())] == ["AGENTS.md"]
    guarded.put_aside()
    assert not (root / "in/AGENTS.md").exists()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "move", "remove", "folder"]),
        st.sampled_from(["a", "b", "b/a", "AGENTS.md", "b/AGENTS.md", ".vscode", "b/.vscode/x"]),
        st.sampled_from(["a", "c", "b", "AGENTS.md", "c/AGENTS.md", ".vscode"]),
    ),
    max_size=8,
)


@proves("PROTECTED")
@settings(max_examples=150, deadline=None)
@given(STEPS, STEPS)
def test_whatever_happens_nothing_new_governs_afterwards(
    tmp_path_factory: pytest.TempPathFactory, before: list[Any], after: list[Any]
) -> None:
    root = Path(os.path.realpath(tmp_path_factory.mktemp("w")))
    for step in before:
        happen(root, *step, text="mine")
    guarded = Guarded([root])
    fixed = {m.stat().st_ino for m in guarded.mounts}
    for step in after:
        happen(root, *step, text="foreign", fixed=fixed)
    guarded.put_aside()
    found = [
        path
        for path in root.rglob("*")
        if is_protected(path.relative_to(root).as_posix()) and path.is_file()
    ]
    outermost = {p.parent if p.parent.name == ".vscode" else p for p in found}
    for path in outermost:
        # A folder that stood there before is a mount; its inside is not this test's.
        assert path.is_dir() or path.read_text() == "mine"
    assert guarded.made() == []


def happen(
    root: Path, what: str, name: str, other: str, *, text: str, fixed: Collection[int] = ()
) -> None:
    """One step; none that a mount would not let happen."""
    path, to = root / name, root / other
    touched = [path, *path.parents] if what in ("write", "folder") else [path]
    if any(p.exists() and p.stat().st_ino in fixed for p in (*touched, to, *to.parents)):
        return
    try:
        if what == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif what == "move":
            to.parent.mkdir(parents=True, exist_ok=True)
            path.rename(to)
        elif what == "remove":
            path.unlink()
        else:
            path.mkdir(parents=True)
    except OSError:
        return  # a step that makes no sense here


@posix
@proves("TOOLS-RUN")
async def test_tools_have_a_cache_of_their_own_workspace(
    root: Path, bwrap: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))
    said = await run(root, 'mkdir -p "$GOCACHE" && echo kept > "$GOCACHE/x"; ls "$GOCACHE"', bwrap)
    assert said == "Exit code 0.\nx\n"
    assert (await run(root, 'cat "$GOCACHE/x"', bwrap)).endswith("kept\n")
    other = root.parent / "other"
    other.mkdir()
    assert "kept" not in await run(other, 'cat "$GOCACHE/x"', bwrap)
    assert not (await run(root, 'test -n "$GOCACHE"', free)).startswith("Exit code 0")


@posix
@proves("TOOLS-RUN")
async def test_what_the_sandbox_kept_from_being_written_is_explained(
    root: Path, bwrap: Callable[[], str | None]
) -> None:
    assert "with `unconfined`" in await run(root, "echo x > /etc/agent-sidecar-test", bwrap)
    assert "unconfined" not in await run(root, "false", bwrap)
