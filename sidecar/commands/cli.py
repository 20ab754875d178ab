"""The command line: which command it is, and what becomes of its errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module

from .. import __version__

COMMANDS: Mapping[str, str] = {
    "chat": "talk in the terminal (what you get without a command)",
    "run": "ask once and print the answer",
    "conversations": "list, show, search, export, import and delete them",
    "audit": "what agents did and were kept from doing; is the record whole?",
    "doctor": "say what is configured, what is missing and how to mend it",
    "schema": "print the wire's schemas",
}
SERVING: Mapping[str, str] = {
    "serve": "speak JSON-RPC over stdio: what an editor starts",
    "acp": "speak the Agent Client Protocol over stdio: Zed, JetBrains, Neovim, Emacs",
}

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code."""
    name, *rest = argv or ["chat"]
    if name in ("--version", "-V", "version"):
        print(f"agent-sidecar {__version__}")
        return 0
    if name in ("--help", "-h", "help"):
        print(usage())
        return 0
    if name in COMMANDS:
        return run(name, rest)
    if name.startswith("-"):
        return run("chat", argv)  # `agent-sidecar --new` is a chat with an option
    complain(f"There is no command '{name}'.", "agent-sidecar --help lists them.")
    return EXIT_USAGE


def run(name: str, arguments: list[str]) -> int:
    from argparse import ArgumentParser

    command = import_module(f".{name}", __package__)
    parser = ArgumentParser(
        prog=f"agent-sidecar {name}", description=f"{command.__doc__}", allow_abbrev=False
    )
    command.add_arguments(parser)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as leaving:  # argparse has said why
        return int(leaving.code or 0)
    return guarded(lambda: int(command.run(args)))


def guarded(command: Callable[[], int]) -> int:
    """Turn what a command raises into words on stderr and an exit code."""
    from ..errors import AgentError
    from .config import UsageError
    from .render import error_lines

    try:
        return command()
    except UsageError as error:
        complain(error.message, error.hint)
        return EXIT_USAGE
    except AgentError as error:
        complain(*error_lines(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read us has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def usage() -> str:
    width = max(map(len, (*COMMANDS, *SERVING)))
    lines = [f"  {name:<{width}}  {what}" for name, what in (*COMMANDS.items(), *SERVING.items())]
    return "\n".join(
        [
            "usage: agent-sidecar [COMMAND] [OPTIONS]",
            "",
            "AI agents that lose nothing: one process, one file, every conversation.",
            "",
            *lines,
            "",
            "agent-sidecar COMMAND --help has the options; --version the version.",
        ]
    )


def complain(message: str, hint: str | None = None) -> None:
    print(f"agent-sidecar: {message}", file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)
