"""What a shell would run, for commands so plain that every shell agrees on it.

Everything that is understood here is on a list of what is plain. Whatever is not on it (an
expansion, a redirection, an assignment, a word with a meaning of its own) makes the whole command
one that nobody can judge beforehand, and it is asked about.
"""

from __future__ import annotations

import re
import sys

MOST_PARTS = 50
LONGEST = 16 * 1024

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
"""Text that means itself, outside of quotes."""
_SINGLE = re.compile(r"'([\x20-\x26\x28-\x7e]*)'")
_DOUBLE = re.compile(r'"([\x20\x23\x25-\x5b\x5d-\x5f\x61-\x7e]*)"')
"""Without `!`, `"`, `$`, backslash and backtick: what is left means itself in any shell."""
_BLANKS = re.compile(r"[ \t]+")
_JOINT = re.compile(r"&&|\|\||;|\||\n")

_WITH_A_MEANING = frozenset(
    {
        # Words of the grammar, of one shell or another.
        *("if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until"),
        *("for", "in", "select", "function", "time", "coproc", "repeat", "foreach", "end"),
        *("nocorrect", "noglob", "always", "namespace"),
        # Commands of the shell that change what later ones mean, or run something else.
        *("eval", "exec", "source", ".", "alias", "unalias", "export", "readonly", "local"),
        *("declare", "typeset", "set", "unset", "shopt", "setopt", "unsetopt", "trap", "cd"),
        *("pushd", "popd", "builtin", "command", "enable", "hash", "let", "read", "mapfile"),
        *("readarray", "getopts", "shift", "return", "break", "continue", "exit", "logout"),
        *("umask", "ulimit", "jobs", "fg", "bg", "wait", "disown", "suspend", "fc", "history"),
        *("bind", "complete", "autoload", "emulate", "zmodload", "integer", "float"),
    }
)


def simple_commands(
    command: str, platform: str = sys.platform
) -> tuple[tuple[str, ...], ...] | None:
    """The words of each part of a chain joined by `&&`, `||`, `;`, `|` or a line end; None where
    their meaning is not beyond doubt. Always None on Windows: what `cmd.exe` makes of a text
    depends on the program that gets it."""
    if platform == "win32" or len(command) > LONGEST:
        return None
    parts: list[tuple[str, ...]] = []
    words: list[str] = []
    at, text = 0, command.strip(" \t\n")
    while at < len(text):
        if joint := _JOINT.match(text, at):
            if not words:
                return None
            parts.append(tuple(words))
            words = []
            at = joint.end()
            # A joint may be followed by line ends, and each but the last one needs a command.
            while joint[0] != ";" and at < len(text) and text[at] in " \t\n":
                at += 1
        elif blanks := _BLANKS.match(text, at):
            at = blanks.end()
        else:
            word, at = _word(text, at)
            if word is None:
                return None
            words.append(word)
    if words:
        parts.append(tuple(words))
    elif not text.endswith(";") or not parts:
        return None
    if len(parts) > MOST_PARTS or any(_has_a_meaning(part) for part in parts):
        return None
    return tuple(parts)


def _word(text: str, at: int) -> tuple[str | None, int]:
    """The word that begins here and where it ends; None for one that is not plain."""
    pieces: list[str] = []
    while at < len(text) and text[at] not in " \t\n;|&":
        for form in (_PLAIN, _SINGLE, _DOUBLE):
            if piece := form.match(text, at):
                pieces.append(piece[form.groups])
                at = piece.end()
                break
        else:
            return None, at
    if at < len(text) and text[at] == "&" and text[at : at + 2] != "&&":
        return None, at  # in the background
    return ("".join(pieces) if pieces else None), at


def _has_a_meaning(words: tuple[str, ...]) -> bool:
    first = words[0]
    return not first or "=" in first or first in _WITH_A_MEANING or first[0] in "%+-:@,="
