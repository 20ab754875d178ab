"""What a text for the shell runs, for as long as that is beyond doubt.

A whitelist: only what every POSIX shell (dash, bash, zsh, ksh, busybox) reads the same way is read
at all. Whatever is left out costs the user one more question; whatever is read wrongly would run a
command that nobody allowed.
"""

from __future__ import annotations

import re
import sys

MOST_CHARACTERS, MOST_PARTS = 16_384, 50

WORD = r"""(?!(?:''|"")*=)(?:[\w./:,@%+=-]|'[ -&(-~]*'|"[ #%-\[\]^_a-~]*")+"""
"""Without quotes only letters, digits and signs that mean nothing to any shell; in single quotes
all of ASCII that can be seen; in double quotes that without `$`, backtick, backslash and `!`.
No `=` in front, nor behind empty quotes: zsh looks up the program that follows it."""

PART = re.compile(rf"{WORD}(?:[ \t]+{WORD})*", re.ASCII)
JOINT = re.compile(r"[ \t]*(?:(?:&&|\|\|?)[ \t\n]*|(?P<end>[;\n])[ \t\n]*)")
"""A newline may follow every operator but go before none: `a` and then, below, `&& b` is an error.
Of `;;`, `|&` and `&&&` a sign remains, which no word begins with."""

_WORD = re.compile(WORD, re.ASCII)
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_PROGRAM = re.compile(r"(?:\.{0,2}/)?\w[\w.+/-]*", re.ASCII)
"""No `=`, which would make it an assignment; no `-`, `%`, `.` or `:` in front or alone."""

NOT_PROGRAMS = """
if then elif else fi for foreach while until repeat do done case in esac select function time coproc
end nocorrect noglob namespace always
alias array autoload bg bind bindkey break builtin bye caller cd chdir command compadd comparguments
compcall compctl compdescribe compfiles compgen compgroups complete compopt compound compquote
compset comptags comptry compvalues continue declare dirs disable disown echotc echoti emulate
enable enum eval exec exit export fc fg float functions getln getopts hash help hist history integer
jobs kill let limit local log login logout mapfile nameref newgrp nohup popd print printf private
pushd pushln r read readarray readonly redirect rehash return sched set setopt shift shopt source
stop suspend test times trap ttyctl type typeset ulimit umask unalias unfunction unhash unlimit
unset unsetopt vared wait whence where which zcompile zformat zle zmodload zparseopts zregexparse
zstyle
"""
"""What some grammar reserves, and builtins: they change what comes after them (`cd`, `export`,
`printf -v`), run their arguments (`eval`, `command`), evaluate them (`test -v 'a[$(b)]'`), or are a
builtin in one shell and a program or nothing in another. Missing are those that do what the program
of that name does: `echo`, `true`, `false`, `pwd`, `sleep`."""
_NOT_PROGRAMS = frozenset(NOT_PROGRAMS.split())


def simple_commands(
    command: str, platform: str = sys.platform
) -> tuple[tuple[str, ...], ...] | None:
    """The argv of each part of a chain joined by `&&`, `||`, `;`, `|` or newlines.

    None for anything else: expansions, redirections, `&`, assignments, comments, reserved words,
    builtins that matter, signs that are not plain ASCII; and always on Windows, where every
    program takes its command line apart as it likes and cannot be judged from outside."""
    if platform == "win32" or len(command) > MOST_CHARACTERS or not command.isascii():
        return None
    parts: list[tuple[str, ...]] = []
    command = command.strip(" \t\n")
    position = 0
    while found := PART.match(command, position):
        argv = tuple(_unquoted(word) for word in _WORD.findall(found[0]))
        if not _PROGRAM.fullmatch(argv[0]) or argv[0] in _NOT_PROGRAMS:
            return None
        if len(parts) == MOST_PARTS:
            return None
        parts.append(argv)
        if found.end() == len(command):
            return tuple(parts)
        joint = JOINT.match(command, found.end())
        if joint is None:
            return None
        position = joint.end()
        if position == len(command) and joint["end"]:
            return tuple(parts)
    return None


def _unquoted(word: str) -> str:
    return _QUOTED.sub(lambda quoted: quoted[1] or quoted[2] or "", word)
