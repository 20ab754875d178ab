"""`agent-sidecar` and `python -m sidecar`.

An editor's start is the one that must be instant, so it is told apart from the others before
anything is imported: `serve` and `acp` go straight to the prologue, everything else to argparse.
"""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = sys.argv[1:] if argv is None else argv
    if args and args[0] in ("serve", "acp"):
        from .app import serve

        return serve(args[1:], face=args[0])
    if not args and not sys.stdin.isatty():
        from .app import serve

        return serve([], face="serve")
    from .commands.cli import main as command_line

    return command_line(args)


if __name__ == "__main__":
    sys.exit(main())
