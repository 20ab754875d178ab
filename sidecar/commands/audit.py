"""What agents did and were kept from doing.

`verify` tells whether the record is whole, and its last hash: written down elsewhere, that shows
later that not even the whole record was made anew. `show` prints the newest entries.
Exit code of verify: 0 whole, 1 broken.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from datetime import datetime

import msgspec

from ..audit import AuditEntry
from ..wire.methods import Audit
from .config import add_options, options_from
from .render import printable
from .screen import make_screen
from .session import open_session


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="whether the record is whole")
    show = actions.add_parser("show", help="the newest entries")
    show.add_argument("--conversation", metavar="ID")
    show.add_argument("--limit", type=int, default=50, metavar="N")
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    for action in (verify, show):
        add_options(action)


def run(args: Namespace) -> int:
    screen = make_screen()
    with open_session(options_from(args)) as session:
        if args.action == "show":
            found: Audit = session.call(
                "audit/read",
                conversation_id=args.conversation,
                limit=args.limit,
                verify=False,
            )
            for entry in found.entries:
                print_entry(entry, as_json=args.json)
            return 0
        report = session.call("audit/read", limit=0).report
    if report.problem:
        screen.error(report.problem, f"The {report.entries} entries before it are whole.")
        return 1
    many = "1 entry" if report.entries == 1 else f"{report.entries:,} entries"
    screen.line(f"{many}, none changed, none missing.")
    screen.line(f"head {report.head}")
    return 0


def print_entry(entry: AuditEntry, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(entry).decode())
    else:
        print(printable(line_of(entry)))


def line_of(entry: AuditEntry) -> str:
    when = datetime.fromtimestamp(entry.at / 1000).strftime("%Y-%m-%d %H:%M:%S")
    verdict = "allowed" if entry.allowed else "denied"
    what = " ".join(filter(None, (entry.action, entry.tool)))
    where = " → ".join(filter(None, (entry.conversation_id, entry.other_id)))
    return f"{when}  {verdict:<7}  {what:<20} {entry.why:<12} {where}"
