"""A disk that may lose its power: what strace saw of a process, and images of what is left.

The rules: a write or truncation is safe once its file was synced after it; a file's creation
too; a removal or renaming once anything was synced. What is not safe may be there or not, in any
combination, and one write may be torn between sectors.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

CALLS = "write,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,openat"
SECTOR = 512

Kind = Literal["create", "write", "truncate", "sync", "unlink", "rename", "say", "start"]


def strace(output: Path, argv: Sequence[str]) -> list[str]:
    flags = ["-f", "-xx", "-y", "-s", "1000000", "-o", str(output), "-e", f"trace={CALLS}"]
    return ["strace", *flags, *argv]


@dataclass
class Op:
    """One call. `name` is the file's; `say` is output on stdout; `start` is a process's."""

    kind: Kind
    name: str = ""
    offset: int = 0
    data: bytes = b""
    target: str = ""


# ---- what strace wrote -----------------------------------------------------------------------

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_UNFINISHED = " <unfinished ...>"
_FD = re.compile(r"(\d+)<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def calls_of(output: Path) -> Iterator[tuple[str, str]]:
    """Name and rest of each call that succeeded, in order: a sync where it ended, so that what
    it promises is not believed too early; any other where it began."""
    pending: dict[tuple[str, str], list[str]] = {}
    found: list[list[str]] = []
    for line in output.read_text(encoding="ascii").splitlines():
        if match := _RESUMED.match(line):
            begun = pending.pop((match[1], match[2]))
            begun[1] += match[3]
            if match[2] in ("fsync", "fdatasync"):
                found.append(begun)
        elif match := _CALL.match(line):
            call = [match[2], match[3].removesuffix(_UNFINISHED)]
            if line.endswith(_UNFINISHED):
                pending[match[1], match[2]] = call
                if match[2] in ("fsync", "fdatasync"):
                    continue
            found.append(call)
    for name, rest in found:
        if not re.search(r"= -1 ", rest):
            yield name, rest


def ops_of(output: Path, folder: Path) -> list[Op]:
    """What happened to the files right in `folder`, and what was said meanwhile."""
    reader = _Reader(str(folder) + "/")
    return [op for name, rest in calls_of(output) if (op := reader.op(name, rest)) is not None]


class _Reader:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._stdout = ""

    def op(self, name: str, rest: str) -> Op | None:
        strings = [_bytes(text) for text in _STRING.findall(rest)]
        if name == "openat":
            file = self._file(strings[0].decode())
            return Op("create", file) if file and "O_CREAT" in rest else None
        if name.startswith(("unlink", "rename")):
            file = self._file(strings[0].decode())
            if name.startswith("unlink"):
                return Op("unlink", file) if file else None
            return Op("rename", file, target=self._file(strings[1].decode())) if file else None
        descriptor = _FD.match(rest)
        assert descriptor is not None, (name, rest[:100])
        path = _bytes(descriptor[2]).decode()
        file = self._file(path)
        if name in ("fsync", "fdatasync") and path + "/" == self._prefix:
            return Op("sync")
        if name == "write" and not file:
            return self._said(descriptor[1], strings[0])
        return self._written(name, rest, file, strings) if file else None

    def _written(self, name: str, rest: str, file: str, strings: list[bytes]) -> Op:
        if name in ("fsync", "fdatasync"):
            return Op("sync", file)
        numbers = [int(n) for n in re.findall(r", (\d+)", _STRING.sub("", rest))]
        if name == "ftruncate":
            return Op("truncate", file, numbers[0])
        # A plain `write` to a file of ours rewrites the note in the lock file, from its start.
        return Op("write", file, numbers[1] if name == "pwrite64" else 0, strings[0])

    def _said(self, descriptor: str, data: bytes) -> Op | None:
        if data.startswith(b"Content-Length: "):
            self._stdout = self._stdout or descriptor
        return Op("say", data=data) if descriptor == self._stdout else None

    def _file(self, path: str) -> str:
        """The name inside the folder; "" for anything else, and for memory that is no file."""
        name = path.removeprefix(self._prefix).removesuffix(" (deleted)")
        return "" if name == path or "/" in name or name.endswith("-shm") else name


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def frames_in(data: bytes) -> list[Any]:
    """The whole messages of a stream that may break off."""
    found = []
    while match := re.match(rb"Content-Length: ([0-9]+)\r\n\r\n", data):
        end = match.end() + int(match[1])
        if len(data) < end:
            break
        found.append(json.loads(data[match.end() : end]))
        data = data[end:]
    return found


# ---- the disk --------------------------------------------------------------------------------


_OF_FOLDER = ("create", "unlink", "rename")


@dataclass
class Disk:
    """What is safe, and what is not yet."""

    safe: dict[str, bytearray] = field(default_factory=dict)
    pending: list[Op] = field(default_factory=list)

    def do(self, op: Op) -> None:
        if op.kind == "sync":
            self._secure(lambda waiting: waiting.name == op.name or waiting.kind in _OF_FOLDER)
        elif op.kind not in ("say", "start"):
            if op.kind == "create":
                # A new file under an old name: folders are journaled, the removal came first.
                self._secure(lambda waiting: self._is_removed(waiting.name) == op.name)
            self.pending.append(op)

    def _is_removed(self, name: str) -> str:
        """`name` if its removal is pending, else ""."""
        removed = any(op.kind == "unlink" and op.name == name for op in self.pending)
        return name if removed else ""

    def _secure(self, is_safe: Callable[[Op], bool]) -> None:
        verdicts = [(op, is_safe(op)) for op in self.pending]
        for op, safe in verdicts:
            if safe:
                apply(self.safe, op)
        self.pending = [op for op, safe in verdicts if not safe]

    def image(self, rng: random.Random) -> dict[str, bytearray]:
        """The files after a power cut now."""
        files = {name: bytearray(data) for name, data in self.safe.items()}
        # Mostly all or nothing, so that long runs survive or vanish together as well.
        chance = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        kept = [op for op in self.pending if rng.random() < chance]
        torn = rng.choice(kept) if kept and rng.random() < 0.5 else None
        for op in kept:
            if op is torn and op.kind == "write":
                tear(files, op, rng)
            else:
                apply(files, op)
        return files


def apply(files: dict[str, bytearray], op: Op) -> None:
    if op.kind == "unlink":
        files.pop(op.name, None)
    elif op.kind == "rename":
        if op.name in files:
            files[op.target] = files.pop(op.name)
    else:
        file = files.setdefault(op.name, bytearray())
        if op.kind == "truncate":
            del file[op.offset :]
            file.extend(bytes(op.offset - len(file)))
        elif op.kind == "write":
            file.extend(bytes(max(0, op.offset - len(file))))
            file[op.offset : op.offset + len(op.data)] = op.data


def tear(files: dict[str, bytearray], op: Op, rng: random.Random) -> None:
    """Only some sectors of a write arrive."""
    for start in range(0, len(op.data), SECTOR):
        if rng.random() < 0.5:
            sector = op.data[start : start + SECTOR]
            apply(files, Op("write", op.name, op.offset + start, sector))
