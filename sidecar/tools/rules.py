"""What "always allow" would add for a command: one rule for each command of its chain.

A rule is a command word by word, in one workspace folder, under the conditions that it was
allowed under. A command is allowed for good when all of its rules are there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..conversations import Rule
from .shell_words import simple_commands

RUNS_ANYTHING = frozenset(
    {
        *("sh", "bash", "dash", "zsh", "ksh", "fish", "csh", "tcsh", "busybox", "pwsh"),
        *("env", "xargs", "sudo", "doas", "su", "ssh", "nohup", "nice", "timeout", "watch"),
        *("parallel", "find", "awk", "gawk", "sed", "vim", "vi", "emacs", "script", "setsid"),
        *("stdbuf", "strace", "gdb", "chroot", "unshare", "nsenter", "docker", "podman"),
        *("curl", "wget", "nc", "ncat", "socat", "rm", "dd", "tee", "chmod", "chown", "ln"),
    }
)
"""Programs that run or overwrite whatever they are told to. That is asked every time."""
_INTERPRETER = re.compile(r"(python|node|ruby|perl|php|lua|deno|bun|Rscript|osascript)[\d.]*")
_CODE = frozenset({"-c", "-e", "-E", "-r", "-p", "--eval", "--print", "eval", "-exec", "-"})


def proposed(
    command: str, *, folder: str, roots: Sequence[str], network: bool, is_confined: bool
) -> tuple[Rule, ...]:
    """Empty where nothing can be allowed for good: the command cannot be judged, runs elsewhere
    than in a workspace folder itself, or runs whatever it is given."""
    commands = simple_commands(command)
    if commands is None or folder not in roots or any(map(_runs_anything, commands)):
        return ()
    rules = (
        Rule(tool="run", argv=argv, root=folder, network=network, is_confined=is_confined)
        for argv in commands
    )
    return tuple(dict.fromkeys(rules))


def _runs_anything(argv: tuple[str, ...]) -> bool:
    program = argv[0].rpartition("/")[2]
    if program in RUNS_ANYTHING:
        return True
    is_interpreter = _INTERPRETER.fullmatch(program) is not None
    return is_interpreter and (len(argv) == 1 or not _CODE.isdisjoint(argv[1:]))
