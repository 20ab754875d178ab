"""Finding lines: `grep`, with ripgrep where it is installed.

Regular expressions need ripgrep, whose engine takes time in proportion to the text. Python's can
be made to run for ever by a pattern, and would stop everything else; without ripgrep only plain
text is looked for.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

from .. import processes
from ..conversations import JsonObject
from ..interfaces import ToolSpec
from .files import Refused, Workspace, is_outside, is_secret
from .reading import OUTPUT_BYTES, SEARCH_BYTES, Stopped, bounded, in_thread, matches, scanned

SECONDS = 10.0
MOST_OF_A_FILE = 50
LONGEST_LINE = 300


class Arguments(msgspec.Struct, rename="camel"):
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]
    files: str = ""
    regex: bool = False
    ignore_case: bool = False


GREP = ToolSpec(
    name="grep",
    description="Find the lines that have a text, or with `regex` match a regular expression, as"
    " path:line: text. `files` limits it to paths such as `*.py` or `src/*`.",
    input_schema={
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "minLength": 1},
            "files": {"type": "string"},
            "regex": {"type": "boolean", "default": False},
            "ignoreCase": {"type": "boolean", "default": False},
        },
        "required": ["pattern"],
    },
)


async def grep(workspace: Workspace, arguments: JsonObject) -> str:
    wanted = msgspec.convert(arguments, Arguments, strict=False)
    lines = await in_thread(partial(_lines, workspace, wanted))
    shown, more = bounded(lines)
    return "\n".join([*shown, f"[{more} more]"] if more else shown) or "No line has that."


def _lines(workspace: Workspace, wanted: Arguments, stopped: Stopped) -> list[str]:
    program = ripgrep(workspace.roots.values())
    if program is None and wanted.regex:
        raise Refused("Regular expressions need ripgrep (rg), which is not installed here.")
    find = partial(_by_ripgrep, program) if program else _by_hand
    found: list[str] = []
    size = 0
    for line in find(workspace, wanted):
        found.append(line)
        size += len(line)
        if stopped() or size > OUTPUT_BYTES * 4:
            break
    return found


def ripgrep(roots: Iterable[Path]) -> str | None:
    """Its path. One that lies in the workspace is the workspace's, not the user's."""
    program = shutil.which("rg")
    return None if program is None or not is_outside(program, roots) else program


def _by_ripgrep(program: str, workspace: Workspace, wanted: Arguments) -> Iterator[str]:
    options = ["--no-config", "--no-heading", "--line-number", "--null", "--color=never"]
    options += ["--sort=path", f"--max-count={MOST_OF_A_FILE}", f"--max-filesize={SEARCH_BYTES}"]
    options += [] if wanted.regex else ["--fixed-strings"]
    options += ["--ignore-case"] if wanted.ignore_case else []
    for label, root in workspace.roots.items():
        try:
            done = subprocess.run(
                [program, *options, "--regexp", wanted.pattern, "--", "."],
                cwd=root,
                env=processes.environment(""),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refused("Searching took too long or failed. Narrow it with `files`.") from error
        if done.returncode not in (0, 1):
            first = done.stderr.decode("utf-8", "replace").strip().partition("\n")
            raise Refused(f"That is no regular expression: {first[2][:300] or first[0][:300]}")
        for line in done.stdout.decode("utf-8", "replace").split("\n"):
            path, is_hit, rest = line.partition("\0")
            relative = path.removeprefix("./").replace("\\", "/")
            if not is_hit or is_secret(relative):
                continue
            name = relative if len(workspace.roots) == 1 else f"{label}/{relative}"
            if not wanted.files or matches(name, wanted.files):
                yield _cut(f"{name}:{rest}")


def _by_hand(workspace: Workspace, wanted: Arguments) -> Iterator[str]:
    pattern = wanted.pattern.lower() if wanted.ignore_case else wanted.pattern
    for entry in workspace.files():
        if wanted.files and not matches(entry.name, wanted.files):
            continue
        text = scanned(entry)
        if text is None or pattern not in (text.lower() if wanted.ignore_case else text):
            continue
        hits = 0
        for number, line in enumerate(text.split("\n"), 1):
            if pattern in (line.lower() if wanted.ignore_case else line):
                yield _cut(f"{entry.name}:{number}:{line}")
                hits += 1
                if hits == MOST_OF_A_FILE:
                    break


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} […]"
