"""What a command runs: said only where real shells agree."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from sidecar.tools import shell_words
from sidecar.tools.shell_words import MOST_CHARACTERS, MOST_PARTS
from tests.tools.stubs import BUILT_IN, Stubs, shells

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="about POSIX shells")


def simple_commands(command: str) -> tuple[tuple[str, ...], ...] | None:
    return shell_words.simple_commands(command, "linux")


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Stubs:
    return Stubs(tmp_path_factory.mktemp("stubs"))


EVERYDAY = r"""
pytest
pytest -q
pytest -q tests/test_a.py
pytest tests/test_a.py::test_one
pytest -x --maxfail=1 -k 'a and not b'
python -m pytest -q
python3 scripts/dev.py check
python -m mypy sidecar
mypy --strict sidecar
ruff check .
ruff format --check .
black --line-length 100 src
tox -e py311
uv sync --all-extras
uv run pytest -q
pip install -e '.[test]'
pip install "requests>=2.0"
poetry install --no-root
pre-commit run --all-files
npm ci
npm test
npm run build && npm test
npm run lint -- --fix
npm install @types/node@20 --save-dev
yarn build
pnpm -r test
npx tsc --noEmit
node --test
eslint 'src/**/*.ts'
vitest run
cargo build --release
cargo test -- --nocapture
cargo clippy --all-targets -- -D warnings
cargo fmt --check && cargo test
go test ./...
go test -run 'TestA|TestB' ./pkg/...
go vet ./... && go build ./cmd/server
gofmt -l .
make
make test
make -j4 all
make clean && make
cmake -S . -B build -DCMAKE_BUILD_TYPE=Release
cmake --build build --parallel 4
ctest --output-on-failure
./gradlew test
./gradlew :app:assembleDebug
mvn -q -DskipTests package
dotnet test --no-build
bundle install
rspec spec/models/user_spec.rb:42
git status
git status --short --branch
git diff --stat
git diff main..feature
git log --oneline | head -5
git log --format='%h %an %s' -n 20
git log --since="2 weeks ago" --author=me
git show HEAD:README.md
git add -A
git add . && git commit -m 'Fix the parser; add tests'
git commit -m "Don't stop here"
git branch -a
git fetch origin && git rebase origin/main
ls -la
ls src tests
cat README.md | wc -l
grep -rn 'TODO' src
grep -rnE "def (a|b)" src | sort | uniq -c
rg -n "fn main" --type rust
find . -name '*.py'
head -n 20 file.txt; tail -n 5 file.txt
wc -l a.txt b.txt
mkdir -p build/out
rm -rf build
cp -r a b || echo 'no'
docker compose up -d
docker ps --format '{{.Names}}'
kubectl get pods -n default
curl -sS https://example.com/a?b=c
jq '.a[0] | {b: .c}' data.json
echo done
terraform plan
tsc --noEmit && echo "all good"
./scripts/build.sh --fast
env
""".strip().splitlines()
EVERYDAY.remove("curl -sS https://example.com/a?b=c")
EVERYDAY += ["curl -sS 'https://example.com/a?b=c&d=e'", "make lint\nmake test\n", "a &&\n  b"]


@pytest.mark.parametrize("command", EVERYDAY)
def test_everyday_commands_are_understood(command: str) -> None:
    parts = simple_commands(command)
    assert parts
    if not any(sign in command for sign in "|;&\n"):
        assert parts == (tuple(shlex.split(command)),)


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("npm run build && npm test", (("npm", "run", "build"), ("npm", "test"))),
        ("git log --oneline | head -5", (("git", "log", "--oneline"), ("head", "-5"))),
        ("git commit -m 'a; b && c'", (("git", "commit", "-m", "a; b && c"),)),
        ("a\tb  c ; d\n\n e", (("a", "b", "c"), ("d",), ("e",))),
        ("'py'test \"-q\"", (("pytest", "-q"),)),
        ("a '' \"\" b''", (("a", "", "", "b"),)),
    ],
)
def test_a_chain_is_its_parts(command: str, parts: tuple[tuple[str, ...], ...]) -> None:
    assert simple_commands(command) == parts


def test_there_are_many_everyday_commands() -> None:
    assert len(set(EVERYDAY)) >= 60


@pytest.mark.parametrize("name", shells())
def test_everyday_commands_run_just_so_in_every_shell(name: str, stubs: Stubs) -> None:
    for command in EVERYDAY:
        parts = simple_commands(command)
        assert parts
        _agrees(stubs, shells()[name], command, parts)


def _agrees(
    stubs: Stubs, shell: list[str], command: str, parts: tuple[tuple[str, ...], ...]
) -> None:
    for argv in parts:
        stubs.add(argv[0])
    expected = [
        (argv[0].rpartition("/")[2], *argv[1:]) for argv in parts if argv[0] not in BUILT_IN
    ]
    ran = stubs.run(shell, command)
    if "||" in command or any(argv[0] == "false" for argv in parts):
        for argv in ran:  # a stub succeeds, so that what comes after `||` is not run
            expected.remove(argv)
    else:
        assert sorted(ran) == sorted(expected), (shell, command)


PIECES = [
    *("a", "b.c", "-x", "--y=z", "1", "/", "./d", "A=", "é", "\u202e", "\x0b", "\0", "\r"),
    *("'", '"', "' '", '" "', "''", '""', "'a b'", '"c d"', "'$x'", '"$x"', "\\", "\\'"),
    *(" ", " ", " ", "\t", "\n", ";", "&", "&&", "|", "||", " && ", " | ", ";\n", "(", ")"),
    *("$", "$(", "`", "{", "}", "{a,b}", "*", "?", "[", "]", "~", "#", "!", "^", "%", "=", ":"),
    *("<", ">", "<<", "if", "then", "cd", "eval", "echo", ".", "@", "+", ",", "-", "_"),
]


@pytest.fixture(scope="module")
def every_shell() -> list[list[str]]:
    return list(shells().values())


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.filter_too_much])
@example("a\n;b")
@example("a;;b")
@example("a=b c")
@example("a ''=b")
@example("a '\\' b")
@example("a ''\"\"'' ''''")
@example('a \'b\'"\'"c"d"')
@example("a|\n\n b||\tc;")
@given(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
    | st.lists(st.sampled_from(PIECES[:60]), max_size=10).map(lambda p: "a " + " ".join(p))
    | st.text()
    | st.text("ab '\"\\;&|=-/.%@^~\n", max_size=24).map("p ".__add__)
)
def test_what_is_understood_is_what_every_shell_runs(
    stubs: Stubs, every_shell: list[list[str]], command: str
) -> None:
    parts = simple_commands(command)
    assume(parts is not None)
    assert parts is not None
    # Stubs take the place of programs by name, and not elsewhere on this machine.
    programs = {argv[0] for argv in parts}
    assume(all(not p.startswith("/") and ".." not in p and p[-1] != "/" for p in programs))
    assume(not programs & {"sleep"})
    for program in programs:
        assume(
            not any(
                (stubs.work / program).is_dir() or parent.is_file()
                for parent in (stubs.work / program).parents
            )
        )
    for shell in every_shell:
        _agrees(stubs, shell, command, parts)


QUOTED = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(QUOTED, max_size=4), min_size=1, max_size=4), st.data())
def test_words_that_are_quoted_come_back(
    stubs: Stubs, every_shell: list[list[str]], arguments: list[list[str]], data: st.DataObject
) -> None:
    expected = tuple(("prog", *(a.replace("'", "") for a in part)) for part in arguments)
    command = "prog"
    for at, argv in enumerate(expected):
        if at:
            command += (
                data.draw(st.sampled_from([" && ", ";", "|", "\n", " &&\n", ";\n\n"])) + "prog"
            )
        command += "".join(f" '{word}'" for word in argv[1:])
    assert simple_commands(command) == expected
    for shell in every_shell:
        stubs.add("prog")
        assert sorted(stubs.run(shell, command)) == sorted(expected)


# ---- what is not understood ----


@pytest.mark.parametrize(
    "code", [c for c in range(0x100) if not 32 <= c < 127 and c not in (9, 10)]
)
def test_signs_that_cannot_be_seen_or_are_not_ascii(code: int) -> None:
    for command in (f"a{chr(code)}b", f"a {chr(code)}b", f"a '{chr(code)}'", f'a "{chr(code)}"'):
        assert simple_commands(command) is None
    assert simple_commands("a" + chr(code)) is None
    assert simple_commands(chr(code) + "a") is None


@pytest.mark.parametrize("sign", "$`\\!~*?[]{}()<>#^&=\"'")
def test_signs_that_mean_something_to_some_shell(sign: str) -> None:
    for command in (f"a {sign}b", f"{sign}a", f"a{sign}", f"{sign} a", f"a; {sign}", f"a {sign} b"):
        assert simple_commands(command) is None


@pytest.mark.parametrize("sign", "$`\\!")
def test_signs_that_mean_something_in_double_quotes(sign: str) -> None:
    assert simple_commands(f'a "b{sign}c"') is None
    assert simple_commands(f"a 'b{sign}c'") == (("a", f"b{sign}c"),)


@pytest.mark.parametrize("word", shell_words.NOT_PROGRAMS.split())
def test_words_that_are_not_programs(word: str) -> None:
    for command in (word, f"{word} a", f"a; {word} b", f"a | '{word}'", f'"{word}" a'):
        assert simple_commands(command) is None
    assert simple_commands(f"a {word}") == (("a", word),)


LISTS = {
    "bash": "compgen -b; compgen -k",
    "zsh": "print -l ${(k)builtins} ${(k)reswords}",
    "mksh": "builtin; alias",
    "ksh93": "builtin; alias",
}


@pytest.mark.parametrize("name", [name for name in LISTS if name in shells()])
def test_every_builtin_of_the_shells_here_is_known(name: str) -> None:
    listed = subprocess.run(
        [*shells()[name], LISTS[name]], capture_output=True, text=True, check=True
    ).stdout
    names = {line.partition("=")[0] for line in listed.split("\n") if line}
    assert len(names) > 5
    unknown = {n for n in names if "/" not in n and simple_commands(n) is not None}
    assert unknown <= BUILT_IN


def test_no_more_than_so_much() -> None:
    assert simple_commands(";".join(["a"] * MOST_PARTS)) == (("a",),) * MOST_PARTS
    assert simple_commands(";".join(["a"] * (MOST_PARTS + 1))) is None
    assert simple_commands("a" * MOST_CHARACTERS) is not None
    assert simple_commands("a" * (MOST_CHARACTERS + 1)) is None
    assert simple_commands("a " * 8000 + "!") is None
    assert simple_commands("a " + "''" * 8000 + "'") is None


@pytest.mark.parametrize(
    "command", ["", " ", "\n", ";", "&&", "a =b", "a ''=b", "a &&", "a |", "a\n&& b", "a;;", "; a"]
)
def test_what_is_not_a_chain(command: str) -> None:
    assert simple_commands(command) is None


@pytest.mark.parametrize("command", EVERYDAY)
def test_nothing_is_understood_on_windows(command: str) -> None:
    assert shell_words.simple_commands(command, "win32") is None
