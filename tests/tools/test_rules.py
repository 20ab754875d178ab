"""What is allowed for good: commands word by word, and nothing that only looks like them."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.conversations import Rule
from sidecar.tools.rules import proposed
from sidecar.tools.shell_words import LONGEST, MOST_PARTS, simple_commands
from tests.requirements import proves

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="about a POSIX shell")

ROOT = "/w"
APPROVED = (("pytest", "-q"), ("git", "status"), ("make", "test"))
RULES = frozenset(Rule(tool="run", argv=argv, root=ROOT) for argv in APPROVED)
SHELLS = [path for name in ("sh", "bash", "dash", "busybox") if (path := shutil.which(name))]

EVERYDAY = """
pytest -q tests/test_a.py
python -m pytest -x
npm run build && npm test
npx tsc --noEmit
git log --oneline | head -5
git diff --stat HEAD
git show HEAD:src/a.py
cargo test -- --nocapture
cargo build --release
go test ./src/...
go vet ./...
make -j4 test
make clean; make
ruff check .
ruff format --check src tests
mypy --strict sidecar
tox -e py311
uv run pytest -q
poetry run pytest
pip list
node --version
ls -la
ls src/sidecar
cat README.md
head -n 20 a.txt
wc -l a.py b.py
grep -rn "def main" src
grep -n 'a b' a.txt || echo none
echo "Hello there"
mkdir -p build/out
cmake -S . -B build && cmake --build build
ctest --output-on-failure
mvn -q test
gradle test --info
dotnet test --no-build
bundle exec rspec spec/a_spec.rb
composer test
php -l a.php
rustfmt --check src/main.rs
clang-format -n src/a.c
gcc -Wall -o a a.c
terraform validate
kubectl get pods -n default
date +%Y-%m-%d
true
which python3
uname -a
df -h
tree -L 2
diff a.txt b.txt
sort a.txt | uniq | wc -l
file a.bin
stat a.txt
pwd
id -un
hostname
pre-commit run --all-files
bazel test //src:all
ninja -C build
meson test -C build
jest --ci --runInBand
vitest run
""".strip().splitlines()


@proves("RULES")
@pytest.mark.parametrize("command", EVERYDAY)
def test_everyday_commands_are_understood(command: str) -> None:
    found = simple_commands(command, "linux")
    if "..." in command:
        assert found is not None
        return
    assert found, command


@proves("RULES")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("a b", (("a", "b"),)),
        ("a  'b c'\t\"d e\"f", (("a", "b c", "d ef"),)),
        ("a && b || c; d | e\nf", (("a",), ("b",), ("c",), ("d",), ("e",), ("f",))),
        ("a ''", (("a", ""),)),
        ("a;", (("a",),)),
        ("  a &&\n  b  ", (("a",), ("b",))),
        ("a 'it $costs `nothing` \\ here'", (("a", "it $costs `nothing` \\ here"),)),
    ],
)
def test_words_and_parts_are_those_of_the_shell(
    command: str, words: tuple[tuple[str, ...], ...]
) -> None:
    assert simple_commands(command, "linux") == words


PREFIXES = (
    *(
        "FOO=1 ",
        "PATH=. ",
        "LD_PRELOAD=./a.so ",
        "GIT_DIR=x ",
        "env ",
        "sudo ",
        "exec ",
        "command ",
    ),
    *(
        "eval ",
        "time ",
        "! ",
        "nohup ",
        "xargs ",
        "sh -c ",
        "\\",
        "$(echo) ",
        "`true` ",
        "{ ",
        "( ",
    ),
    *(
        "if true; then ",
        "for i in 1; do ",
        "function x() { ",
        "cd / && ",
        ". ./a && ",
        "alias a=b; ",
    ),
    *("trap evil EXIT; ", "export A=b; ", "set -x; ", "> a ", "< a ", "2>&1 ", "<<< x ", "#\n"),
    *(
        "evil; ",
        "evil && ",
        "evil || ",
        "evil | ",
        "evil\n",
        "evil & ",
        "\u200b",
        "\u00a0",
        "\ufeff",
    ),
    *("'evil' ; ", '"evil" && ', "./", "/tmp/", "~/", "../", "%1 ", "=", "-", "@", "coproc "),
)
SUFFIXES = (
    *(
        " --rootdir=/",
        " -p evil",
        " -c evil.ini",
        " -o addopts=--pdb",
        " ; evil",
        ";evil",
        " && evil",
    ),
    *(
        "&&evil",
        " || evil",
        " | evil",
        "|evil",
        "\nevil",
        "\r\nevil",
        "\revil",
        " & evil",
        "& evil",
    ),
    *(" > out", ">out", " >> out", " 2> out", " < in", " <<EOF\nx\nEOF", " <<< x", " $(evil)"),
    *(" `evil`", " ${IFS}evil", "${IFS}evil", " $IFS$9evil", " $'evil'", " $((1))", " {a,b}", " *"),
    *(
        " ?",
        " [a]",
        " ~",
        " ~root",
        " !!",
        " !evil",
        " \\\nevil",
        " \\",
        " #",
        " '",
        ' "',
        " ''",
        ' ""',
    ),
    *(" -exec evil", " --upload-pack=evil", " --output=/etc/passwd", " -c core.pager=evil", " --"),
    *(" \u202eevil", " \u200bevil", "\u00a0evil", "\u2028evil", "\x85evil", "\x0bevil", "\x0cevil"),
    *(" \x00evil", " \x1b[2Jevil", " \uff1b evil", "\uff06\uff06 evil", " ;; evil", " |& evil"),
    *(
        " <(evil)",
        " >(evil)",
        " &> out",
        " >& out",
        " >| out",
        " 3>&1",
        " && cd / && evil",
        " \tevil",
    ),
)
WHOLE = (
    *("", " ", "\n", ";", "&&", "|", "&", "()", "{}", "evil", "pytest", "pytest -Q", "Pytest -q"),
    *("pytest  -qq", "pytest -q -q", "pytest-q", "'pytest -q'", '"pytest -q"', "pytest '-q' x"),
    *("git", "git  statusx", "git status .", "git -c a=b status", "git --exec-path=. status"),
    *("git status\u200b", "git\u00a0status", "make  test2", "make test test", "make -f evil test"),
    *("make SHELL=evil test", "make test=1", "\u0440ytest -q", "pytest -\u0051", "pytest \u2010q"),
)


JOINTS = (" && ", ";", " | ", "\n", "||")


def vectors() -> list[str]:
    plain = [" ".join(argv) for argv in APPROVED]
    made = [
        *plain,
        *(f"{prefix}{command}" for prefix, command in itertools.product(PREFIXES, plain)),
        *(f"{command}{suffix}" for command, suffix in itertools.product(plain, SUFFIXES)),
        *(f"{a} && {b}{s}" for a, b in itertools.permutations(plain, 2) for s in SUFFIXES[:14]),
        *(f"{a}{j}{b}" for a, b in itertools.permutations(plain, 2) for j in JOINTS),
        *WHOLE,
        " && ".join(plain * 20),
        "; ".join(["pytest -q"] * (MOST_PARTS + 1)),
        f"pytest -q {'x' * LONGEST}",
    ]  # fmt: skip
    return list(dict.fromkeys(made))


def is_allowed(command: str) -> bool:
    rules = proposed(command, folder=ROOT, roots=[ROOT], network=False, is_confined=False)
    return bool(rules) and set(rules) <= RULES


class Stubs:
    """Programs that write down how they were called, and nothing else on the way to them."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        self._bin.mkdir()
        self._log = folder / "log"
        self._work = folder / "work"
        self._work.mkdir()

    def add(self, name: str) -> None:
        stub = self._bin / name
        if not stub.exists():
            stub.write_text(
                # In one piece: the parts of a pipe run at the same time.
                f"#!/bin/sh\nprintf '%s\\0' {shlex.quote(name)} \"$@\" '\n' >>'{self._log}'\n"
            )
            stub.chmod(0o755)

    def run(self, shell: str, command: str) -> list[tuple[str, ...]]:
        self._log.write_bytes(b"")
        program = [shell, "sh"] if shell.endswith("busybox") else [shell]
        subprocess.run(
            [*program, "-c", command],
            env={"PATH": str(self._bin), "HOME": str(self._work)},
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
        calls: list[tuple[str, ...]] = []
        words: list[str] = []
        for word in os.fsdecode(self._log.read_bytes()).split("\0")[:-1]:
            if word == "\n":
                calls.append(tuple(words))
                words = []
            else:
                words.append(word)
        return calls

    def left(self) -> list[str]:
        return os.listdir(self._work)


@pytest.fixture
def stubs(tmp_path: Path) -> Iterator[Stubs]:
    made = Stubs(tmp_path)
    for name in ("pytest", "git", "make", "evil"):
        made.add(name)
    yield made
    assert made.left() == []


@proves("RULES", "P9")
def test_of_500_commands_none_does_more_than_was_allowed(stubs: Stubs) -> None:
    commands = vectors()
    assert len(commands) >= 500
    allowed = [command for command in commands if is_allowed(command)]
    assert {" ".join(argv) for argv in APPROVED} <= set(allowed)
    assert 20 <= len(allowed) <= 80, "chains of what is allowed are, and hardly anything else"
    for command in allowed:
        for shell in SHELLS:
            assert set(stubs.run(shell, command)) <= set(APPROVED), (shell, command)


PLAIN = ("a", "b", '"c d"', "'e $f'", "-x", "x/y", "''", '"it\'s"', "a'b'\"c\"", "%%", "..")
ODD = ("&&", "||", ";", "|", "a=b", "$a", ">", ":", "\\", "&", "\n", "#")
pieced = st.lists(st.sampled_from([*PLAIN, *ODD]), max_size=8).map(" ".join)
called = st.lists(st.sampled_from(PLAIN), max_size=3).map(lambda more: " ".join(["a", *more]))
chained = st.lists(called, min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from((" && ", "; ", " | ", "\n", ";", "||")).map(
        lambda joint: joint.join(parts)
    )
)
words = (
    chained
    | pieced
    | st.text(st.sampled_from("ab-_=.:/@% '\"\\$`!#&|;<>(){}[]*?~^\n\t\r\u00a0é0"), max_size=14)
)


@proves("RULES", "P9")
@settings(max_examples=150, deadline=None)
@given(text=words)
def test_what_is_understood_is_what_the_shell_runs(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = simple_commands(text, "linux")
    if found is None or any("/" in argv[0] for argv in found):
        return
    made = Stubs(tmp_path_factory.mktemp("stubs"))
    for argv in found:
        if argv[0] in ("..", ":"):
            return
        made.add(argv[0])
    for shell in SHELLS:
        ran = made.run(shell, text)
        assert set(ran) <= set(found), (shell, text)
        if "|" not in text:
            assert ran == list(found), (shell, text)


@proves("RULES")
@pytest.mark.parametrize(
    "command",
    [
        *("sh -c 'pytest -q'", "bash run.sh", "python -c 'print(1)'", "python", "node -e 1"),
        *("perl -e 1", "env pytest", "xargs rm", "sudo make", "find . -exec rm", "rm -rf build"),
        *("pytest -q | tee out", "/bin/sh -c evil", "python3.11 -", "curl https://a.b"),
    ],
)
def test_what_runs_whatever_it_is_given_is_never_allowed_for_good(command: str) -> None:
    assert simple_commands(command, "linux") is not None
    assert proposed(command, folder=ROOT, roots=[ROOT], network=False, is_confined=True) == ()


@proves("RULES")
def test_a_rule_holds_where_and_as_it_was_made() -> None:
    ask = {"folder": ROOT, "roots": [ROOT], "network": False, "is_confined": True}
    (rule,) = proposed("pytest -q", **ask)  # type: ignore[arg-type]
    assert rule == Rule(tool="run", argv=("pytest", "-q"), root=ROOT, is_confined=True)
    for other in ({"network": True}, {"is_confined": False}, {"folder": "/v", "roots": ["/v"]}):
        assert rule not in proposed("pytest -q", **{**ask, **other})  # type: ignore[arg-type]
    assert proposed("pytest -q", **{**ask, "folder": "/w/sub"}) == ()  # type: ignore[arg-type]
    twice = proposed("pytest -q && pytest -q", **ask)  # type: ignore[arg-type]
    assert twice == (rule,)


@proves("RULES")
def test_on_windows_nothing_is_understood() -> None:
    assert simple_commands("pytest -q", "win32") is None
