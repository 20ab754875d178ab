"""List, show, search, export, import and delete conversations.

An ID may be shortened to a beginning that only one conversation has.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..conversations import Conversation, Message
from ..interfaces import SearchResult
from ..wire.methods import ConversationPage, Exported
from . import prune
from .config import UsageError, add_options, options_from
from .render import STATUS_NOTES, Progress, ago, bytes_of, counted, one_line
from .screen import Screen, make_screen
from .session import Session, open_session, short_ids

PAGE = 100


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="newest first")
    listing.add_argument("--archived", action="store_true", help="those that were put away")
    show = actions.add_parser("show", help="print one")
    show.add_argument("id", metavar="ID")
    search = actions.add_parser("search", help="messages that have all the words")
    search.add_argument("words", nargs="+", metavar="WORD")
    for machine_readable in (listing, show, search):
        machine_readable.add_argument("--json", action="store_true", help="for scripts")
    export = actions.add_parser("export", help="write one to stdout or a file")
    export.add_argument("id", metavar="ID")
    export.add_argument("--format", choices=("json", "markdown"), default="markdown")
    export.add_argument("--out", metavar="FILE", help="a new file, readable by you alone")
    bring_in = actions.add_parser("import", help="bring in a JSON export, as a new conversation")
    bring_in.add_argument("file", metavar="FILE", help="- reads stdin")
    delete = actions.add_parser("delete", help="remove one for good")
    delete.add_argument("id", metavar="ID")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    pruning = actions.add_parser("prune", help="remove old archived ones for good")
    prune.add_arguments(pruning)
    for action in (listing, show, search, export, bring_in, delete, pruning):
        add_options(action)


def run(args: Namespace) -> int:
    with open_session(options_from(args)) as session:
        return ACTIONS[args.action](session, args)


def list_all(session: Session, args: Namespace) -> int:
    found = list(session.conversations(archived=args.archived))
    if args.json:
        return print_json(found)
    screen = make_screen()
    if not found:
        screen.line("There are no conversations yet. Begin one with: agent-sidecar chat")
    short = short_ids(found)
    width = max(map(len, short.values()), default=0)
    for conversation in found:
        title = one_line(conversation.title or "Untitled", 44)
        count = counted(conversation.message_count, "message")
        when = ago(conversation.updated_at)
        name = short[conversation.conversation_id]
        screen.line(f"{name:<{width}}  {title:<44}  {conversation.mode:<8} {count:>12}  {when}")
    return 0


def show(session: Session, args: Namespace) -> int:
    conversation = session.find(args.id)
    messages = list(messages_of(session, conversation))
    if args.json:
        return print_json({"conversation": conversation, "messages": messages})
    screen = make_screen()
    screen.line(conversation.title or "Untitled", "bold")
    count = counted(len(messages), "message")
    screen.line(f"{conversation.conversation_id} · {conversation.mode} · {count}", "dim")
    for message in messages:
        print_message(screen, message)
    return 0


def print_message(screen: Screen, message: Message) -> None:
    if message.role == "user":
        screen.gap()
        screen.line(f"{screen.mark} {message.text}", "bold")
        screen.gap()
        return
    for piece in Progress().news(message):
        screen.show(piece)
    if note := STATUS_NOTES.get(message.status):
        screen.line(f"({note})", "yellow")


def messages_of(session: Session, conversation: Conversation) -> Iterator[Message]:
    """All of them, oldest first."""
    pages: list[ConversationPage] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        page: ConversationPage = session.call(
            "conversation/get",
            conversation_id=conversation.conversation_id,
            cursor=cursor,
            limit=PAGE,
        )
        pages.append(page)
        cursor = page.page.page_cursor
    for page in reversed(pages):
        yield from page.page.messages


def search(session: Session, args: Namespace) -> int:
    found: SearchResult = session.call(
        "conversation/search", query=" ".join(args.words), limit=PAGE
    )
    if args.json:
        return print_json(found.hits)
    screen = make_screen()
    for hit in found.hits:
        title = one_line(hit.title or "Untitled", 60)
        screen.line(f"{hit.conversation_id}  {title}  {ago(hit.created_at)}", "bold")
        screen.snippet(hit.snippet)
    if not found.hits:
        screen.line("No message has all of these words.")
    return 0 if found.hits else 1


def export(session: Session, args: Namespace) -> int:
    conversation = session.find(args.id)
    if args.out:
        path = Path(args.out).absolute()
        done = _export_to(session, conversation, args.format, path)
        print(f"Written to {path} ({bytes_of(done.size)}).", file=sys.stderr)
        return 0
    # By way of a file: what goes through the wire in one piece has a limit.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export"
        _export_to(session, conversation, args.format, path)
        with path.open("rb") as data:
            shutil.copyfileobj(data, sys.stdout.buffer)
        sys.stdout.buffer.write(b"\n")
        sys.stdout.flush()
    return 0


def _export_to(session: Session, conversation: Conversation, form: str, path: Path) -> Exported:
    done: Exported = session.call(
        "conversation/export",
        conversation_id=conversation.conversation_id,
        format=form,
        path=str(path),
    )
    return done


def import_(session: Session, args: Namespace) -> int:
    path = Path(args.file).absolute()
    # Only a real file has the same content for another process; a pipe is ours to read.
    if args.file != "-" and path.is_file():
        source = {"path": str(path)}
    else:
        source = {"data": _read_text(args.file)}
    made: Conversation = session.call("conversation/import", **source)
    print(made.conversation_id)
    count = counted(made.message_count, "message")
    print(f"Imported as '{made.title or 'Untitled'}', {count}.", file=sys.stderr)
    return 0


def _read_text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{name} cannot be read.", "Give a JSON export, or - for stdin."
        ) from error


def delete(session: Session, args: Namespace) -> int:
    conversation = session.find(args.id)
    title = one_line(conversation.title or "Untitled", 60)
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("Deleting cannot be undone.", "Say --yes if you mean it.")
        count = counted(conversation.message_count, "message")
        if input(f"Delete '{title}' ({count}) for good? [y/N] ").strip().lower() not in (
            "y",
            "yes",
        ):
            print("Kept.")
            return 1
    session.call("conversation/delete", conversation_id=conversation.conversation_id)
    print(f"Deleted '{title}'.", file=sys.stderr)
    return 0


def print_json(value: Any) -> int:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()
    return 0


ACTIONS = {
    "list": list_all,
    "show": show,
    "search": search,
    "export": export,
    "import": import_,
    "delete": delete,
    "prune": prune.prune,
}
