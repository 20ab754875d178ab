"""`conversations prune`: give up old archived conversations, after saying which."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from ..wire.methods import PruneResult
from .config import UsageError
from .render import ago, bytes_of, counted, one_line
from .screen import make_screen
from .session import Session


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--older-than", type=int, metavar="DAYS", help="instead of the setting maxAgeDays"
    )
    parser.add_argument(
        "--max-bytes", type=int, metavar="N", help="instead of the setting maxBytes"
    )


def prune(session: Session, args: Namespace) -> int:
    rule = {"max_age_days": args.older_than, "max_bytes": args.max_bytes}
    rule = {name: value for name, value in rule.items() if value is not None}
    found: PruneResult = session.call("store/prune", dry_run=True, **rule)
    screen = make_screen()
    for one in found.conversations:
        title = one_line(one.title or "Untitled", 44)
        size, when = bytes_of(one.bytes), ago(one.put_away_at)
        screen.line(f"{one.conversation_id}  {title:<44}  {size:>10}  {when}")
    count = counted(len(found.conversations), "archived conversation")
    if not found.conversations:
        screen.line("There is nothing to give up. Only archived conversations ever are.")
        return 0
    if args.dry_run:
        screen.line(f"{count} ({bytes_of(found.bytes)}) would be deleted. Nothing was.")
        return 0
    if not args.yes and not _confirmed(f"Delete {count} for good? [y/N] "):
        screen.line("Kept.")
        return 1
    done: PruneResult = session.call("store/prune", dry_run=False, **rule)
    deleted = counted(len(done.conversations), "conversation")
    print(f"Deleted {deleted} ({bytes_of(done.bytes)}).", file=sys.stderr)
    return 0


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("Deleting cannot be undone.", "Say --yes if you mean it, or --dry-run.")
    return input(question).strip().lower() in ("y", "yes")
