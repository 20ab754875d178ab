"""Commands that are allowed for always: these, and not one other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.conversations import Rule
from sidecar.tools.rules import proposed, runs_what_it_is_given
from sidecar.tools.shell_words import simple_commands
from tests.tools.stubs import Stubs, shells

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="about POSIX shells")

APPROVED = (("pytest", "-q"), ("git", "status"), ("make", "test"))
HERE: dict[str, Any] = {
    "folder": "/w",
    "network": False,
    "is_confined": True,
    "roots": ("/w", "/other"),
    "platform": "linux",
}


def allowed(command: str, rules: Iterable[Rule], **run: Any) -> bool:
    """As the gate decides it: everything that would have to be allowed for good is."""
    needed = proposed(command, **run)
    known = tuple(rules)
    return bool(needed) and all(any(one.covers(need) for one in known) for need in needed)


def rule(*argv: str, **more: Any) -> Rule:
    return Rule(**{"tool": "run", "argv": argv, "root": "/w", "is_confined": True, **more})


RULES = tuple(rule(*argv) for argv in APPROVED)
TEXTS = [" ".join(argv) for argv in APPROVED]

# ---- what is allowed runs what was approved and nothing else ----


def harmless() -> Iterator[str]:
    """Other ways to write what is approved."""
    joints = [" && ", ";", " ; ", "\n", "|", " | ", " || ", "&&", "&&\n", ";\n\n", "||\n "]
    for one in TEXTS:
        program, argument = one.split()
        yield from (one, f" {one}", f"{one}\n", f"{one};", f"\n\n{one}", f"{one} \t", f"{one} ;\n")
        yield from (f"{program}  {argument}", f"{program}\t{argument}", f"'{program}' {argument}")
        yield from (
            f'"{program}" "{argument}"',
            f"{program} '{argument}'",
            f"'{program}'\t''{argument}",
        )
        yield f"{program[0]}\"{program[1:]}\" {argument[0]}'{argument[1:]}'"
        for joint in joints:
            yield from (one + joint + other for other in TEXTS)
    yield ";".join(["git status"] * 50)


def hostile() -> Iterator[str]:
    """Everything around an approved command that could make it run something more."""
    evil = ["touch evil", "pytest -q -p evil", "git status -s", "make", "rm -rf ."]
    for one in TEXTS:
        program, argument = one.split()
        for other in evil:
            for joint in ("&&", "||", ";", "|", "\n", "&", "|&", "\r", "\r\n", ";;", " && \\\n"):
                yield f"{one}{joint}{other}"
                yield f"{other} {joint} {one}"
            yield from (f"{one} $({other})", f"{one} `{other}`", f'{one} "$({other})"')
            yield from (f"{one} <({other})", f"{one} >({other})", f"{one} & {other}")
            yield from (f"{one} #\n{other}", f"{one} <<E\n$({other})\nE", f"$({other}) {one}")
            yield from (f"{one}\\\n{other}", f"({other}); {one}", f"{{ {other}; }}; {one}")
            yield from (f"if {one}; then {other}; fi", f"! {other}", f"eval '{other}'; {one}")
            yield from (f"trap '{other}' EXIT; {one}", f"alias {program}='{other}'\n{one}")
            yield from (f"{program}() {{ {other}; }}; {one}", f"function {program} {{ {other}; }}")
            for sign in "\u2028\u2029\x85\x0b\x0c\x00\x1b\x08\x7f":
                yield f"{one}{sign}{other}"
        for sign in (
            *("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u00a0", "\u3000"),
            *("\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2069"),
            *("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\r", "\x00", "\x1b", "\x08", "\x7f"),
            *("\ud800", "\u0301", "\u180e", "\U000e0061", "\uff1b", "\uff5c", "\uff06", "\u2215"),
        ):
            yield from (f"{one}{sign}", f"{sign}{one}", f"{program}{sign}{argument}")
            yield from (f"{program} {sign}{argument}", f"{program} '{argument}{sign}'")
        for more in (
            *("-exec", "-c x", "--upload-pack=x", "--output=x", "--basetemp=/", "-p x", "-o a=b"),
            *("-f /tmp/m", "SHELL=x", "--eval=x", "--", "-", "-C /", "--git-dir=x", "> x", ">x"),
            *(">> x", "2>&1", "2>x", "< x", "<x", "&> x", ">| x", "<> x", "<<< x", "<<-E", ">&2"),
            *("$IFS", "$HOME", "${x}", "${x:-y}", "$((1+1))", "$[1+1]", "$@", "$*", "$?", "$$"),
            *("{a,b}", "{1..3}", "*", "?", "[ab]", "**", "~", "~root", "!!", "!$", "!-1", "^a^b"),
            *("# x", "#x", "\\", "\\\\", "'", '"', "`", "$", "&", "(", ")", "{", "}", "<", ">"),
            *("$'x'", '$"x"', "'\\''", '"\\""', "@(a|b)", "+(a)", "%1", "=ls", "''", '""', ";;"),
        ):
            yield from (f"{one} {more}", f"{program} {more} {argument}", f"{one} && {one} {more}")
        for before in (
            *("A=b", "PATH=.", "LD_PRELOAD=x", "A+=b", "A[0]=b", "IFS=x;", "PATH=. &&", "A='b'"),
            *("env", "env A=b", "command", "builtin", "exec", "eval", "sudo", "time", "nohup", "!"),
            *(
                "export A=b;",
                "cd / &&",
                "cd ..;",
                "pushd /;",
                ". ./x;",
                "source x;",
                "set -e;",
                "-",
            ),
            *("unset PATH;", "alias a=b;", "trap x EXIT;", "umask 0;", "ulimit -c 1;", "hash -r;"),
            *("xargs", "sh -c", "bash", "nice", "timeout 1", "noglob", "nocorrect", "coproc", "if"),
            *("while", "for", "case", "{", "(", "((", "[[", "function", "$", "`", "'", '"', "\\"),
            *(
                "~/",
                "./",
                "/tmp/",
                "../",
                "bin/",
                "x/",
                ">",
                "<",
                "2>",
                "#",
                ":;",
                ":",
                "printf -v",
            ),
            *("read x;", "test 1;", "[ 1 ];", "let x=1;", "typeset A=b;", "local A=b;", "shift;"),
        ):
            yield from (f"{before} {one}", f"{before}{one}")
        yield from (f"{program}${{IFS}}{argument}", f"{program}$IFS{argument}", program, argument)
        yield from (f"'{one}'", f'"{one}"', f"{program}' '{argument}", f"{program}\\ {argument}")
        yield from (one.upper(), f"{program}{argument}", f"{program}; {argument}", one + " " + one)
        yield from ("".join(chr(ord(c) + 0xFEE0) if c != " " else c for c in one), f"\\{one}")
        yield from (
            f"{program}\n{argument}",
            f"{program} \\\n{argument}",
            f"{program} {argument[:-1]}",
        )
        yield from (";".join([one] * 51), f"{one};" * 60, f"{one}{' ' * 16_400};touch evil")
    yield from (" ", "", ";", "pytest", "\n", "&&", "pytest -q &&", "&& pytest -q", "|| make test")
    # Cyrillic and Greek look-alikes.
    yield from (
        "p\u0443test -q",
        "git st\u0430tus",
        "m\u0430ke test",
        "\u0440ytest -q",
        "git \u0455tatus",
    )


HARMLESS, HOSTILE = sorted(set(harmless())), sorted(set(hostile()))


def test_there_are_many_of_both() -> None:
    assert len(HOSTILE) >= 1000
    assert len(HARMLESS) >= 100
    assert set(HARMLESS).isdisjoint(HOSTILE)


def test_other_ways_to_write_what_is_approved_are_allowed() -> None:
    assert [command for command in HARMLESS if not allowed(command, RULES, **HERE)] == []


def test_nothing_around_an_approved_command_is_allowed_with_it() -> None:
    assert [command for command in HOSTILE if allowed(command, RULES, **HERE)] == []


@pytest.mark.parametrize("name", shells())
def test_what_is_allowed_runs_what_is_approved_and_nothing_beyond(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stubs = Stubs(tmp_path_factory.mktemp("stubs"))
    for program in ("pytest", "git", "make", "touch", "rm", "evil"):
        stubs.add(program)
    ran = [
        argv
        for command in (*HARMLESS, *HOSTILE)
        if allowed(command, RULES, **HERE)
        for argv in stubs.run(shells()[name], command)
    ]
    beyond = [argv for argv in ran if argv not in APPROVED]
    assert beyond == []
    assert len(ran) >= len(HARMLESS)


PIECES = ("-q", "status", "test", "git", ";", "&&", "||", "|", *"'\"\\$`&>\n", "x")


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([*TEXTS, *PIECES]),
        max_size=8,
    ).map(" ".join)
)
def test_allowed_is_no_more_than_the_parts(command: str) -> None:
    parts = simple_commands(command, "linux")
    assert allowed(command, RULES, **HERE) == (parts is not None and set(parts) <= set(APPROVED))


# ---- the conditions ----


@pytest.mark.parametrize(
    ("made", "run", "is_allowed"),
    [
        ({}, {}, True),
        ({}, {"is_confined": False}, False),
        ({"is_confined": False}, {"is_confined": False}, True),
        ({"is_confined": False}, {}, True),
        ({}, {"network": True}, False),
        ({"network": True}, {"network": True}, True),
        ({"network": True}, {}, True),
        ({"network": True}, {"network": True, "is_confined": False}, False),
        ({"is_confined": False}, {"network": True}, False),
        ({}, {"folder": "/other"}, False),
        ({}, {"folder": "/w/sub"}, False),
        ({}, {"folder": "/w/"}, False),
        ({}, {"folder": "/w", "roots": ("/other",)}, False),
        ({"root": "/"}, {}, False),
        ({"root": "/w/sub"}, {"folder": "/w/sub"}, False),
        ({"tool": "edit"}, {}, False),
        ({}, {"platform": "win32"}, False),
    ],
)
def test_a_rule_is_good_for_what_it_was_made_for_or_safer(
    made: dict[str, Any], run: dict[str, Any], is_allowed: bool
) -> None:
    assert allowed("pytest -q", [rule("pytest", "-q", **made)], **{**HERE, **run}) is is_allowed


def test_every_part_needs_a_rule_that_is_good_here() -> None:
    rules = [rule("pytest", "-q"), rule("make", "test", root="/other")]
    assert allowed("pytest -q", rules, **HERE)
    assert not allowed("pytest -q && make test", rules, **HERE)
    assert not allowed("pytest -q", [], **HERE)


def test_a_rule_survives_being_written_down() -> None:
    for one in (RULES[0], rule("a", "", "b c", network=True, is_confined=False)):
        assert msgspec.json.decode(msgspec.json.encode(one), type=Rule) == one


# ---- what is proposed ----


def test_a_rule_is_proposed_for_each_part_once() -> None:
    rules = proposed("npm run build && npm test; npm test", **{**HERE, "network": True})
    assert rules == (
        rule("npm", "run", "build", network=True),
        rule("npm", "test", network=True),
    )


@pytest.mark.parametrize("more", [{"folder": "/w/sub"}, {"platform": "win32"}, {"roots": ()}])
def test_nothing_is_proposed_that_would_never_be_allowed(more: dict[str, Any]) -> None:
    assert proposed("pytest -q", **{**HERE, **more}) == ()


PROPOSED = """
pytest -q tests/test_a.py
python -m pytest -q
python3 scripts/dev.py check
python --version
node --test
node scripts/build.js
uv run pytest -q
npm run build
npm test
cargo test -- --nocapture
go test ./...
git log --oneline
git diff --stat
make -j4 test
gcc -c a.c
grep -c a b.txt
find . -name '*.py'
tar -xzf a.tgz
docker compose up -d
head -5
ls -la
./gradlew test
""".strip().splitlines()

NEVER = """
sh -c 'a'
/bin/sh -c 'a'
sh
bash
bash x.sh
dash -c a
zsh -c a
./bash -c a
BASH -c a
bash5 -c a
busybox sh
python
python -c 'a'
python3.11 -c a
/usr/bin/python3 -c a
python -
python -i
python -u -c a
python -Ic a
python -m code
python -m timeit a
python -m
python /dev/stdin
Python.exe -c a
pypy3 -c a
node
node -e a
node -p a
node --eval=a
node -r a b.js
deno eval a
bun x a
perl -e a
perl -ne a
ruby -e a
php -r a
lua -e a
env
env A=b c
/usr/bin/env python a.py
xargs rm
a | xargs rm
parallel a
sudo ls
doas ls
su -c a
ssh host a
nice a
timeout 5 a
setsid a
stdbuf -o0 a
strace a
watch a
script -c a
find . -exec rm x
find . -name a -execdir rm x
find . -ok rm x
fd -x rm
fd . -X rm
rg --pre a b
sort --compress-program=a b
tar xf a --to-command=b
tar xf a --checkpoint-action=exec=b
tar -I a -xf b
tar --use-compress-program=a -xf b
rsync -e a b c
rsync -ave a b c
git -c core.pager=a log
git --config-env=a=b log
git --exec-path=a status
git clone --upload-pack=a b
git fetch --upload-pack a b
git ls-remote --upload-pack=a b
git push --receive-pack=a b
git rebase --exec a b
git rebase -x a b
git bisect run a
git submodule foreach a
git grep -Oa b
git grep --open-files-in-pager=a b
git apply
git filter-branch --tree-filter a
git difftool --extcmd=a
make -f -
make -f-
make --file=-
make --eval=a
make SHELL=a
make -f /dev/stdin
make -f /dev/fd/0
make -f /proc/self/fd/0
uv run python -c a
uv run sh -c a
poetry run python
npx a
npm exec a
pnpm dlx a
uvx a
pipx run a
docker run a b
docker exec a b
kubectl exec a b
go test -exec a
go build -toolexec a
awk 'BEGIN {system("a")}'
sed 's/a/b/e' c
vim -c a
m4 a
sqlite3 a.db
psql
tee Makefile
patch
dd of=a
tmux new a
nc -l 1
pytest -q && sh x
eval a
exec a
command a
pytest $(a)
pytest -q > a
cd / && ls
A=b pytest
""".strip().splitlines()


@pytest.mark.parametrize("command", PROPOSED)
def test_an_ordinary_command_can_be_allowed_for_always(command: str) -> None:
    rules = proposed(command, **HERE)
    assert rules
    assert allowed(command, rules, **HERE)


@pytest.mark.parametrize("command", NEVER)
def test_what_runs_whatever_it_is_given_is_asked_about_each_time(command: str) -> None:
    assert proposed(command, **HERE) == ()
    parts = simple_commands(command, "linux") or ()
    assert not allowed(command, [rule(*argv) for argv in parts], **HERE)
    assert not parts or any(map(runs_what_it_is_given, parts))


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from([*PROPOSED, *NEVER, ";", "&&"])).map(" ".join))
def test_what_is_proposed_allows_the_command_and_only_this(command: str) -> None:
    rules = proposed(command, **HERE)
    assert allowed(command, rules, **HERE) is bool(rules)
    assert not allowed(command + " x", rules, **HERE) or not rules
