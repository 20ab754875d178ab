"""No path that a model names leads out of the workspace, and none inside is refused (TRUST F1, F2).

What counts is the effect: everything outside is compared before and after, and what was read is
searched for what stands there.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import sys
import threading
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.interfaces import Tool
from sidecar.tools import beneath
from sidecar.tools.beneath import open_beneath
from sidecar.tools.editing import editing_tools
from sidecar.tools.files import Entry, Refused, Workspace
from sidecar.tools.windows_names import refusal
from sidecar.tools.workspace import workspace_tools
from sidecar.tools.writing import change, held
from tests.requirements import proves

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="the tree has links"),
]

CANARY = "canary-7d1f"
USES: dict[str, dict[str, Any]] = {
    "read": {},
    "list": {},
    "grep": {"pattern": "canary"},
    "edit": {"oldText": "a", "newText": "b", "replaceAll": True},
    "patch": {"diff": "@@ -1 +1 @@\n-canary-7d1f\n+gone\n"},
    "create": {"text": "made"},
    "delete": {},
}


class Tree:
    """A workspace, what lies around it, and what must not change."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.inside, self.outside = base / "ws", base / "outside"
        for folder in (self.inside / "src" / "deep", self.outside / "sub", base / "ws-evil"):
            folder.mkdir(parents=True)
        for folder in (self.outside, self.outside / "sub", base / "ws-evil", base):
            (folder / "secret.txt").write_text(f"{CANARY}\n")
        (self.inside / "a.txt").write_text("mine\n")
        (self.inside / "src" / "b.txt").write_text("mine too\n")
        links = {
            "file-link": self.outside / "secret.txt",
            "dir-link": self.outside,
            "src/dir-link": self.outside / "sub",
            "relative-link": Path("../outside/secret.txt"),
            "relative-dir": Path("../outside"),
            "chain-1": Path("chain-2"),
            "chain-2": Path("dir-link"),
            "loop-1": Path("loop-2"),
            "loop-2": Path("loop-1"),
            "dangling": self.outside / "new.txt",
            "dangling-dir": self.outside / "new" / "deep.txt",
            "dangling-relative": Path("../outside/new-too.txt"),
            "twin-link": base / "ws-evil",
            "up": Path(".."),
            "src/up-up": Path("../.."),
            "root": Path("/"),
            "proc-self": Path("/proc/self/root"),
            "proc-cwd": Path("/proc/self/cwd"),
        }
        for name, target in links.items():
            (self.inside / name).symlink_to(target)
        os.mkfifo(self.inside / "pipe")
        with socket.socket(socket.AF_UNIX) as unix, suppress(OSError):
            unix.bind(str(self.inside / "socket"))
        self.before = self.state()

    def state(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for folder, folders, files in os.walk(self.base):
            if Path(folder) == self.base:
                folders.remove("ws")
            for name in (*folders, *files):
                path = Path(folder) / name
                content = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
                found[str(path)] = f"{path.lstat().st_mode} {path.lstat().st_mtime_ns} {content}"
        return found

    def tools(self) -> dict[str, Tool]:
        tools = [*workspace_tools([self.inside]), *editing_tools([self.inside], None)]
        return {tool.spec.name: tool for tool in tools}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def escapes(tree: Tree) -> list[str]:
    """Ways out, each spelled in every way that somebody's resolver has fallen for."""
    ways = [
        "../outside/secret.txt",
        "../ws-evil/secret.txt",
        "../secret.txt",
        "src/../../outside/secret.txt",
        "./../outside/secret.txt",
        "src/deep/../../../outside/secret.txt",
        "..//outside//secret.txt",
        ".../../outside/secret.txt",
        "src/./.././../outside/secret.txt",
        "../ws/../outside/secret.txt",
        str(tree.outside / "secret.txt"),
        str(tree.base / "ws-evil" / "secret.txt"),
        f"{tree.inside}/../outside/secret.txt",
        f"{tree.inside}-evil/secret.txt",
        f"/{tree.outside}/secret.txt",
        f"//{tree.outside}/secret.txt",
        f"file://{tree.outside}/secret.txt",
        "/etc/passwd",
        "/etc/hostname",
        "~/.ssh/id_rsa",
        "~root/.bashrc",
        "$HOME/.bashrc",
        "%HOME%/x",
        "file-link",
        "dir-link/secret.txt",
        "dir-link/sub/secret.txt",
        "dir-link/new.txt",
        "dir-link",
        "src/dir-link/secret.txt",
        "src/dir-link/new.txt",
        "relative-link",
        "relative-dir/secret.txt",
        "relative-dir/new.txt",
        "chain-1/secret.txt",
        "chain-1/new.txt",
        "chain-2/sub/secret.txt",
        "loop-1",
        "loop-1/x",
        "loop-2/../../outside/secret.txt",
        "dangling",
        "dangling-dir",
        "dangling-relative",
        "twin-link/secret.txt",
        "twin-link/new.txt",
        "up/outside/secret.txt",
        "up/ws-evil/secret.txt",
        "src/up-up/outside/secret.txt",
        "root/etc/passwd",
        "root/tmp/x",
        "proc-self/etc/passwd",
        "proc-cwd/pyproject.toml",
        "pipe",
        "socket",
        "pipe/x",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/x",
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/self/fd/0",
        "/proc/thread-self/root/etc/passwd",
        "/dev/fd/0",
        "/dev/stdin",
        "/dev/tty",
        "/dev/shm/x",
        "/dev/null",
        "/dev/zero",
        "/sys/kernel/x",
        "/run/x",
        "/var/run/docker.sock",
    ]
    spelled: list[str] = []
    for number, way in enumerate(ways):
        other = [
            way.replace("..", "%2e%2e"),
            way.replace("/", "%2f"),
            way.replace("/", "\\"),
            way.replace("..", "\u2025"),
            way.replace(".", "\uff0e"),
            way.replace("/", "\u2215"),
            way.replace("..", ".\u200b."),
            way.replace("..", "..\x00"),
            f"{way}\x00.txt",
            f"a.txt/{way}",
            f"a.txt/../{way}",
            f"src/../{way}",
            f"nowhere/../{way}",
            f"ws/{way}",
            f" {way}",
            f"{way} ",
            f"{way}.",
            f"{way}/",
            f"{way}/.",
            f"./{way}",
            way.upper(),
            unicodedata.normalize("NFD", way) + "\u0301",
            way.replace("..", "..;"),
            way.replace("..", "%252e%252e"),
            way.replace("..", "%c0%ae%c0%ae"),
            way.replace("/", "/./"),
        ]
        # Every way as it is and in six other spellings, every spelling with every fourth way.
        spelled += [way, *(other[(number * 6 + n) % len(other)] for n in range(6))]
    strange = [
        "",
        ".",
        "..",
        "/",
        "//",
        "...",
        "\x00",
        "\n",
        "\\\\server\\share\\x",
        "//server/share/x",
        "C:\\Windows\\x",
        "C:x",
        "c:/x",
        "\\\\?\\C:\\x",
        "\\\\.\\pipe\\x",
        "a.txt:stream",
        "a.txt::$DATA",
        "CON",
        "nul.txt",
        "COM1",
        "LPT\u00b9",
        "PROGRA~1",
        "x" * 300,
        "x/" * 2_100,
        "\ud800",
        "\udcff",
        "\u202ea.txt",
        "a.txt\u2028",
        "src/\uff0e\uff0e/\uff0e\uff0e/outside/secret.txt",
    ]
    return list(dict.fromkeys([*spelled, *strange]))


@proves("GUARD", "P9")
async def test_of_hundreds_of_paths_none_leads_out(tree: Tree) -> None:
    vectors = escapes(tree)
    assert len(vectors) >= 400
    tools = tree.tools()
    for number, path in enumerate(vectors):
        for name, more in USES.items():
            if name == "grep" and number % 10:
                continue  # it starts a program, and takes no path but a pattern of them
            arguments = {"files" if name == "grep" else "path": path, **more}
            output = await tools[name].run(arguments)
            assert CANARY not in output.content.replace(path, ""), (name, path)
            if name in ("read", "list"):
                assert "root:" not in output.content, (name, path)
    assert tree.state() == tree.before


FINE = [
    *(
        f"{name}.txt"
        for name in ("plain", "two words", "ünïcode", "日本語", "emoji 🎉", "-rf", "--x")
    ),
    *(
        f"{name}.txt"
        for name in ("...", "..a", "a..", "%2e%2e", "a%2fb", "$HOME", "~", "a:b", "#", "!")
    ),
    *(
        f"{name}.txt"
        for name in ("con", "NUL", "PROGRA~1", "a'b", 'a"b', "[x]", "{x}", "a;b", "a&b")
    ),
    *(f"{name}/x.txt" for name in (".hidden", "deep/er/and/er", "ws", "ws-evil", "...", "a b/c d")),
    *(unicodedata.normalize(form, "é/ö.txt") for form in ("NFC", "NFD")),
    "no-suffix",
    ".dotfile",
    "x" * 200,
    "Makefile",
    "UPPER.TXT",
    "upper.txt",
    "a.b.c.d",
    "0",
]


@proves("GUARD")
@pytest.mark.parametrize("has_openat2", [True, False])
async def test_whatever_is_inside_can_be_made_read_changed_and_deleted(
    tree: Tree, has_openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_openat2:
        monkeypatch.setattr(beneath, "_has_openat2", lambda: False)
    tools = tree.tools()
    done = 0
    for path in dict.fromkeys(FINE):
        steps: list[tuple[str, dict[str, Any]]] = [
            ("create", {"text": "one a\n"}),
            ("read", {}),
            ("edit", {"oldText": "one", "newText": "two"}),
            ("patch", {"diff": "@@ -1 +1 @@\n-two a\n+three a\n"}),
            ("delete", {}),
        ]
        for name, more in steps:
            output = await tools[name].run({"path": path, **more})
            assert not output.is_error, (name, path, output.content)
            done += 1
    assert done >= 200


@proves("GUARD")
async def test_links_that_stay_inside_are_followed_for_reading(tree: Tree) -> None:
    (tree.inside / "to-b").symlink_to("src/b.txt")
    (tree.inside / "to-src").symlink_to(tree.inside / "src")
    tools = tree.tools()
    for path in ("to-b", "to-src/b.txt", "src/../to-src/b.txt", str(tree.inside / "src" / "b.txt")):
        output = await tools["read"].run({"path": path})
        assert output.content == "src/b.txt, lines 1-1 of 1\nmine too", path


@proves("GUARD", "P9")
@pytest.mark.skipif(sys.platform != "linux", reason="swaps with renameat2")
@pytest.mark.parametrize("has_openat2", [True, False])
def test_a_folder_that_is_swapped_all_the_time_leads_nowhere(
    tree: Tree, has_openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`AGENT_SIDECAR_SWAPS` asks for more of them."""
    if not has_openat2:
        monkeypatch.setattr(beneath, "_has_openat2", lambda: False)
    wanted = int(os.environ.get("AGENT_SIDECAR_SWAPS", "3000"))
    (tree.inside / "d").mkdir()
    (tree.inside / "d" / "secret.txt").write_text("mine\n")
    reached: dict[str, int] = {}
    with swapped(tree.inside / "d", tree.outside) as swaps:
        workspace = Workspace([tree.inside])
        entry = Entry(tree.inside, "d/secret.txt", "d/secret.txt")
        number = 0
        while swaps[0] < wanted or number < 200:
            number += 1
            for name, use in {
                "read": lambda: workspace.read(entry, 1_000),
                "held": lambda: (held(tree.inside, "d/secret.txt") or b"").decode(),
                "edit": lambda: change(tree.inside, "d/secret.txt", b"mine\n", b"mine\n"),
                "create": lambda n=number: change(tree.inside, f"d/new-{n}", None, b"made"),
                "locate": lambda: workspace.read(workspace.locate("d/secret.txt"), 1_000),
            }.items():
                with suppress(Refused, OSError):
                    assert CANARY not in str(use()), name
                    reached[name] = reached.get(name, 0) + 1
    assert tree.state() == tree.before
    assert {"read", "held", "edit", "create"} <= reached.keys(), "some of them came through"


class swapped:  # reads like what it does
    """Something swaps a folder with a link to another one as fast as it can."""

    def __init__(self, folder: Path, target: Path) -> None:
        self._folder, self._link = folder, folder.with_name("link")
        self._link.symlink_to(target)
        self._count = [0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._swap, daemon=True)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._count

    def _swap(self) -> None:
        libc = ctypes.CDLL(None)
        names = (-100, os.fsencode(self._folder), -100, os.fsencode(self._link))
        exchange = 2
        while not self._stop.is_set():
            assert libc.renameat2(*names, exchange) == 0
            self._count[0] += 1

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@proves("GUARD")
def test_a_wrong_path_is_wrong_before_it_is_opened(tmp_path: Path) -> None:
    for name in ("a//b", "../a", "a/./b", "a/..", ""):
        with pytest.raises(OSError, match="plain path"):
            open_beneath(tmp_path, name, os.O_RDONLY)
    os.close(open_beneath(tmp_path, ".", beneath.FOLDER))


@proves("GUARD")
@pytest.mark.parametrize(
    "name",
    [
        "CON",
        "con.txt",
        "aux",
        "NUL .txt",
        "com1",
        "COM9.log",
        "LPT\u00b9",
        "conin$",
        "prn:",
        "src/nul",
        "a.txt:stream",
        "a.txt::$DATA",
        "a.",
        "a ",
        "a/b./c",
        "\\\\server\\x",
        "//srv/x",
        "\\\\?\\C:\\a",
        "\\\\.\\pipe\\a",
        "C:a",
        "c:a\\b",
        "PROGRA~1",
        "src\\MICROS~2.TXT",
        "a\x07b",
        "a<b",
        "a|b",
        "a?b",
        "a*b",
        'a"b',
        "C:\\a\\nul.txt",
        "a\nb",
    ],
)
def test_windows_is_not_given_a_name_that_means_something_else(name: str) -> None:
    assert refusal(name, "win32")
    assert refusal(name, "linux") is None


@proves("GUARD")
@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "src/a b/c.txt",
        "src\\a.txt",
        "C:\\ws\\a.txt",
        "c:/ws/a.txt",
        "com10",
        "nul-a",
        "lpt",
        "a~b.txt",
        ".gitignore",
        "..",
        "../a",
        "a.tar.gz",
        "日本語",
        "auxiliary/x",
        "backup~1234567.txt.old",
    ],
)
def test_windows_gets_every_name_that_is_only_a_name(name: str) -> None:
    assert refusal(name, "win32") is None


@proves("GUARD")
async def test_an_index_that_lies_lists_nothing_outside(tree: Tree) -> None:
    import subprocess

    def git(*arguments: str, **more: Any) -> None:
        command = ["git", *arguments]
        subprocess.run(command, cwd=tree.inside, check=True, capture_output=True, **more)

    git("init", "-q")
    blob = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    git("hash-object", "-w", "--stdin", input=b"")
    git("update-index", "--add", "--cacheinfo", f"100644,{blob},gone/secret.txt")
    (tree.inside / "gone").symlink_to(tree.outside)
    names = [entry.name for entry in Workspace([tree.inside]).files()]
    assert "a.txt" in names
    assert "gone/secret.txt" not in names


@proves("GUARD")
async def test_with_several_folders_a_new_file_goes_where_its_name_says(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    tools = {t.spec.name: t for t in editing_tools([tmp_path / "a", tmp_path / "b"], None)}
    await tools["create"].run({"path": "b/new.txt", "text": "x"})
    assert (tmp_path / "b" / "new.txt").read_text() == "x"
    assert list((tmp_path / "a").iterdir()) == []


@proves("GUARD")
async def test_a_name_as_long_as_it_may_be_can_be_edited(tree: Tree) -> None:
    path = tree.inside / ("n" * 251 + ".txt")
    path.write_text("one\n")
    path.chmod(0o640)
    output = await tree.tools()["edit"].run({"path": path.name, "oldText": "one", "newText": "two"})
    assert not output.is_error
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two\n", 0o640)
