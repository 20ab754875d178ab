"""Print the documents that describe the wire: OpenRPC, or a JSON Schema."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

DOCUMENTS = ("openrpc", "events", "messages", "export")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "document", nargs="?", choices=DOCUMENTS, default="openrpc", help="openrpc by default"
    )


def run(args: Namespace) -> int:
    from ..wire import schema

    made = {
        "openrpc": schema.openrpc,
        "events": schema.events_schema,
        "messages": schema.messages_schema,
        "export": schema.export_schema,
    }[args.document]()
    print(json.dumps(made, indent=2, ensure_ascii=False))
    return 0
