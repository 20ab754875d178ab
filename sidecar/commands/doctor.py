"""Say what is configured, what is missing and how to mend it.

Exit code: 0 when everything that is needed works, 1 otherwise.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sqlite3
import sys
import textwrap
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from .. import __version__, paths
from ..errors import AgentError
from ..wire.methods import Status
from . import repair
from .config import CLOUD_KEYS, Options, UsageError, add_options, is_llm_installed, options_from
from .render import bytes_of, counted, error_lines
from .screen import Screen, make_screen
from .session import open_session

SAFE_SQLITE = (3, 51, 3)
"""The first version without the bug that can damage a WAL file which two processes write."""
LOCAL_SERVERS = (("Ollama", 11434), ("llama.cpp", 8080), ("LM Studio", 1234))
CONNECT_SECONDS = 0.3
HOW_TO_CONNECT = (
    "Set GEMINI_API_KEY, ANTHROPIC_API_KEY or OPENAI_API_KEY in the environment, or the AWS keys "
    "for Bedrock, or use a model on this machine (see 'local')."
)


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finding. `bad` keeps the product from working, `warning` from being at its best."""

    name: str
    state: Literal["ok", "warning", "bad"]
    text: str
    hint: str | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `doctor --json` prints."""

    ok: bool
    version: str
    checks: list[Check]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument(
        "--repair", action="store_true", help="check the store and mend it; close all windows first"
    )
    add_options(parser)


def run(args: Namespace) -> int:
    if args.repair:
        return repair.run(make_screen(), options_from(args).store)
    checks = list(examine(args))
    is_well = all(check.state != "bad" for check in checks)
    if args.json:
        report = Report(ok=is_well, version=__version__, checks=checks)
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    else:
        show(make_screen(), checks)
    return 0 if is_well else 1


def show(screen: Screen, checks: list[Check]) -> None:
    is_utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
    marks = {"ok": "✓", "warning": "!", "bad": "✗"} if is_utf8 else {"bad": "x", "warning": "!"}
    styles = {"ok": "", "warning": "yellow", "bad": "red"}
    width = max(len(check.name) for check in checks)
    screen.line(f"agent-sidecar {__version__}\n", "bold")
    for check in checks:
        begin = f"{marks.get(check.state, ' ')} {check.name:<{width}}  "
        screen.line(hanging(begin, check.text), styles[check.state])
        if check.hint:
            screen.line(hanging(f"{'':<{len(begin)}}{'→' if is_utf8 else '->'} ", check.hint))
    bad = sum(check.state == "bad" for check in checks)
    screen.line()
    if bad:
        screen.line(f"{counted(bad, 'problem')} to mend: see above.", "red")
    else:
        screen.line("It works. Begin with: agent-sidecar chat", "green")


def hanging(begin: str, text: str) -> str:
    """`begin` and the text, whose further lines in a terminal stand below its first."""
    if not sys.stdout.isatty():
        return begin + text
    return textwrap.fill(
        text,
        shutil.get_terminal_size().columns,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )


def examine(args: Namespace) -> Iterator[Check]:
    yield Check(name="python", state="ok", text=platform.python_version())
    yield sqlite_check(sqlite3.sqlite_version)
    try:
        options = options_from(args)
    except UsageError as error:
        yield Check(name="settings", state="bad", text=error.message, hint=error.hint)
        return
    yield settings_check(options)
    yield from sidecar_checks(options)
    yield keys_check(options)
    yield models_check(options.provider, is_llm_installed())
    yield local_check()
    yield program_check("git", "Files that git ignores are told apart by their names only.")
    yield program_check("rg", "Nothing is missing: our own search is used.", needed=False)
    yield terminal_check()


def sqlite_check(version: str) -> Check:
    if tuple(map(int, version.split("."))) >= SAFE_SQLITE:
        return Check(name="sqlite", state="ok", text=version)
    text = f"{version}; the WAL bug that 3.51.3 mends is guarded against"
    return Check(name="sqlite", state="ok", text=text)


def settings_check(options: Options) -> Check:
    if options.config is not None:
        return Check(name="settings", state="ok", text=str(options.config))
    text = f"none, so the defaults ({paths.default_config()} would be read)"
    return Check(name="settings", state="ok", text=text)


def sidecar_checks(options: Options) -> Iterator[Check]:
    """Start one and ask it: nothing shows better whether it starts."""
    began = time.monotonic()
    try:
        with open_session(options) as session:
            status: Status = session.call("sidecar/status")
            took = time.monotonic() - began
    except AgentError as error:
        message, hint = error_lines(error)
        text = f"{options.store}: {message}"
        yield Check(name="store", state="bad", text=text, hint=hint or "--log FILE keeps its log.")
        return
    yield Check(name="start", state="ok", text=f"ready in {took:.1f} s")
    yield store_check(options.store, status)
    yield provider_check(options, status)


def store_check(path: Path, status: Status) -> Check:
    store = status.store
    size = bytes_of(store.size + store.wal_size)
    count = counted(store.conversations, "conversation")
    text = f"{store.path or path}: {count}, {size}"
    if store.degraded:
        return Check(name="store", state="bad", text=f"{text}; read-only: {store.degraded}")
    return Check(name="store", state="ok", text=text)


def provider_check(options: Options, status: Status) -> Check:
    name = options.provider
    text = f"{name}, {options.model}" if options.model else name
    if status.provider.problems:
        problem = status.provider.problems[0]
        message = f"{text}: {problem.message}"
        return Check(name="provider", state="bad", text=message, hint=problem.hint)
    if name == "offline":
        hint = options.notice or HOW_TO_CONNECT
        text = "offline: no model is connected, answers are passages of your files"
        return Check(name="provider", state="warning", text=text, hint=hint)
    return Check(name="provider", state="ok", text=text, hint=options.notice)


def keys_check(options: Options) -> Check:
    """Which there are. Never what they are."""
    found = ", ".join(sorted(options.secrets)) or "none"
    return Check(name="keys", state="ok", text=f"{found} (from the environment)")


def models_check(provider: str, is_installed: bool) -> Check:
    if is_installed:
        return Check(name="models", state="ok", text="agent-sidecar[llm] is installed")
    return Check(
        name="models",
        state="bad" if provider in CLOUD_KEYS else "warning",
        text="agent-sidecar[llm], which talks to them, is not installed",
        hint="pip install 'agent-sidecar[llm]'",
    )


def local_check() -> Check:
    """Model servers on this machine, by whether anything listens where they do."""
    found = [(name, port) for name, port in LOCAL_SERVERS if is_listening(port)]
    if not found:
        names = ", ".join(name for name, _ in LOCAL_SERVERS)
        return Check(name="local", state="ok", text=f"no model server ({names}) is running here")
    listed = ", ".join(f"{name} at 127.0.0.1:{port}" for name, port in found)
    hint = (
        f'To use it, write into {paths.default_config()}: provider = "openai", '
        f'openaiBaseUrl = "http://127.0.0.1:{found[0][1]}/v1" and openaiModel = "…".'
    )
    return Check(name="local", state="ok", text=f"perhaps {listed}", hint=hint)


def is_listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS):
            return True
    except OSError:
        return False


def program_check(name: str, without: str, *, needed: bool = True) -> Check:
    found = shutil.which(name)
    if found:
        return Check(name=name, state="ok", text=found)
    return Check(name=name, state="warning" if needed else "ok", text=f"not found. {without}")


def terminal_check() -> Check:
    if not sys.stdout.isatty():
        return Check(name="terminal", state="ok", text="output goes to a file or a pipe: plain")
    term = os.environ.get("TERM") or platform.system()
    width, height = shutil.get_terminal_size()
    text = f"{term}, {width}x{height}, {sys.stdout.encoding}"
    return Check(name="terminal", state="ok", text=text)
