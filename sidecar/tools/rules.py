"""Commands that the user allowed once for always, in one workspace.

A rule is an exact argv and never a prefix: `pytest -q` allows neither `pytest -q tests` nor
`pytest -q --basetemp=/`. It holds for the conditions that it was made under, or safer ones
(`Rule.covers`). A command is allowed when each of the rules that it proposes is covered.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence

from ..conversations import Rule
from .shell_words import simple_commands

TOOL = "run"

RUNNERS = """
sh bash dash ash zsh ksh mksh pdksh yash fish csh tcsh rbash busybox toybox pwsh powershell cmd
env xargs parallel sudo doas su runuser pkexec ssh rsh mosh nohup nice ionice chrt taskset timeout
gtimeout setsid setarch stdbuf unbuffer script expect flock lockfile strace ltrace gdb lldb valgrind
perf chroot unshare nsenter bwrap firejail proot fakeroot start-stop-daemon systemd-run at batch
crontab watch entr watchexec nodemon tmux screen dtach nc ncat netcat socat telnet npx pnpx bunx uvx
pipx dlx command builtin eval exec source time
awk gawk mawk nawk sed gsed ed ex vi vim nvim emacs m4 bc dc psql mysql mariadb sqlite ftp sftp lftp
osascript wscript cscript mshta rundll tclsh wish irb ghci julia guile r rscript repl
tee sponge patch dd
"""
"""Shells and programs that run another one; languages, editors and databases whose input is a
program or can start one; and programs that write what they read: a rule does not say what that is.
"""
INTERPRETERS = """
python pythonw pypy node nodejs deno bun perl ruby php lua luajit tsx ts-node raku groovy scala
jshell
"""
SAFE_BEGINNINGS = frozenset({"-V", "--version", "--test", "--check"})
"""What an interpreter may be told first, apart from the name of a file."""
UNSAFE_MODULES = frozenset({"code", "pdb", "timeit", "runpy", "trace", "cProfile", "asyncio"})
"""Of Python: they run a text or what they read."""
RUN_ARGUMENTS = """
-exec -execdir -ok -okdir -toolexec -vettool --exec --exec-batch --exec-path --eval --to-command
--rsh-command --checkpoint-action --use-compress-program --compress-program --upload-pack
--receive-pack --pre --hostname-bin --rsh --script-shell --command --shell --open-files-in-pager
--extcmd --config-env --init-file --rcfile --diff-program eval SHELL
"""
"""Words, up to a `=`, that make an ordinary program run a command."""
RUN_LETTERS = {"git": "cxO", "rsync": "e", "tar": "IF", "fd": "xX", "fdfind": "xX"}
RUN_SUBCOMMANDS = {
    "git": "bisect foreach filter-branch apply am fast-import difftool mergetool",
    "docker": "run exec",
    "podman": "run exec",
    "kubectl": "run exec",
    "npm": "exec x",
    "pnpm": "exec",
    "yarn": "exec",
    "bun": "x",
}
_RUNNERS, _INTERPRETERS = frozenset(RUNNERS.split()), frozenset(INTERPRETERS.split())
_RUN_ARGUMENTS = frozenset(RUN_ARGUMENTS.split())
_INPUT = re.compile(r"-|-\w+-|.*=-|.*/dev/(stdin|fd|tcp|udp)\b.*|.*/proc/.*", re.DOTALL)
"""`-f -`, `-f-`, `--file=-`: from the part before it, which another rule may have allowed."""


def proposed(
    command: str,
    *,
    folder: str,
    network: bool,
    is_confined: bool,
    roots: Collection[str],
    platform: str = sys.platform,
) -> tuple[Rule, ...]:
    """The rules that would allow `command` next time; none if it should be asked about again."""
    parts = simple_commands(command, platform)
    if parts is None or folder not in roots or any(map(runs_what_it_is_given, parts)):
        return ()
    return tuple(
        Rule(tool=TOOL, argv=argv, root=folder, network=network, is_confined=is_confined)
        for argv in dict.fromkeys(parts)
    )


def runs_what_it_is_given(argv: Sequence[str]) -> bool:
    """Whether what `argv` does is decided by its input or by a command among its arguments.

    It errs on the side of yes, so `grep -r bash .` is asked about each time."""
    program = _name(argv[0])
    letters = RUN_LETTERS.get(program, "")
    subcommands = RUN_SUBCOMMANDS.get(program, "").split()
    for at, word in enumerate(argv):
        name, rest = _name(word), argv[at + 1 :]
        if name in _RUNNERS or (name in _INTERPRETERS and not _begins_safely(rest)):
            return True
    return any(
        word.partition("=")[0] in _RUN_ARGUMENTS
        or word in subcommands
        or (re.match("-[^-]", word) and not set(letters).isdisjoint(word))
        or _INPUT.fullmatch(word)
        for word in argv[1:]
    )


def _begins_safely(arguments: Sequence[str]) -> bool:
    match arguments:
        case ["-m", module, *_]:
            return not module.startswith("-") and module not in UNSAFE_MODULES
        case [first, *_]:
            return first in SAFE_BEGINNINGS or not first.startswith("-")
        case _:
            return False


def _name(word: str) -> str:
    """The program that a word names: `/usr/bin/python3.11` and `Python.EXE` are `python`."""
    name = word.replace("\\", "/").rpartition("/")[2].lower().removesuffix(".exe")
    return name if name in _RUNNERS else re.sub(r"[\d.-]+$", "", name)
