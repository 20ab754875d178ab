#!/usr/bin/env python3
"""Write every file that follows from the wire types, or check that they are up to date.

python scripts/generate_schemas.py            write them
python scripts/generate_schemas.py --check    change nothing; exit 1 and name what differs
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this tree, not another version that happens to be installed

from sidecar.wire import schema, typescript  # noqa: E402

WIDTH = 100


def generated() -> dict[str, str]:
    """The text of each file, by its path in the repository."""
    return {
        "schemas/openrpc.json": as_json(schema.openrpc()),
        "schemas/events.json": as_json(schema.events_schema()),
        "schemas/messages.json": as_json(schema.messages_schema()),
        "schemas/export.json": as_json(schema.export_schema()),
        "client-vscode/src/protocol.ts": typescript.protocol(),
    }


def as_json(value: Any) -> str:
    return _pretty(value, 0, 0) + "\n"


def _pretty(value: Any, depth: int, taken: int) -> str:
    """JSON in which everything that fits into a line stays on one. `taken` columns of the
    first line are in use."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or taken + len(line) < WIDTH:
        return line
    inner = "  " * (depth + 1)
    if isinstance(value, dict):
        labelled = [(f"{inner}{json.dumps(key)}: ", item) for key, item in value.items()]
    else:
        labelled = [(inner, item) for item in value]
    lines = [label + _pretty(item, depth + 1, len(label)) for label, item in labelled]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{'  ' * depth}{closing}"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description="Generate schemas/ and protocol.ts.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if outdated")
    check = parser.parse_args(arguments).check
    outdated = {path: text for path, text in generated().items() if _read(root / path) != text}
    for path, text in outdated.items():
        if not check:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8", newline="\n")
        print(f"{path} differs" if check else f"{path} written")
    return 1 if check and outdated else 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
