"""Every frame of a conversation against the official schema of the protocol."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

NODE = Path(__file__).parents[1] / "node" / "node_modules"
SCHEMAS = NODE / "@agentclientprotocol" / "sdk" / "schema" / "v1"
Frame = dict[str, Any]

needs_schema = pytest.mark.skipif(
    not SCHEMAS.exists() and not os.environ.get("CI"), reason="needs `npm ci` in tests/node"
)


class Official:
    """The schema by the methods of the protocol."""

    def __init__(self, name: str = "schema.json") -> None:
        schema = json.loads((SCHEMAS / name).read_text())
        self._definitions = schema["$defs"]
        self._by_method: dict[tuple[str, str], str] = {}
        for title, definition in self._definitions.items():
            for kind in ("Request", "Response", "Notification"):
                if (method := definition.get("x-method")) and title.endswith(kind):
                    self._by_method[kind, method] = title

    def problems(self, frames: Iterable[tuple[str, Frame]]) -> list[str]:
        """What is wrong with the frames of one connection, each with its direction. What a client
        asks has to be right where the agent has done it: tests ask wrongly on purpose, too."""
        asked: dict[tuple[str, Any], Frame] = {}
        found: list[str] = []
        for direction, frame in frames:
            other = "<" if direction == ">" else ">"
            if frame.get("jsonrpc") != "2.0":
                found.append(f"not JSON-RPC: {frame}")
            elif "method" in frame and "id" in frame:
                asked[direction, frame["id"]] = frame
                if direction == "<":
                    found += self._wrong("Request", frame, frame.get("params"))
            elif "method" in frame:
                found += self._wrong("Notification", frame, frame.get("params"))
            elif (request := asked.pop((other, frame.get("id")), None)) is None:
                found += [] if frame.get("id") is None else [f"answer to nothing: {frame}"]
            elif "error" in frame:
                found += self._check("Error", frame["error"], f"error of {request['method']}")
            else:
                found += self._wrong("Response", request, frame["result"])
                found += self._wrong("Request", request, request.get("params"))
        return found

    def _wrong(self, kind: str, frame: Frame, value: Any) -> list[str]:
        method = frame["method"]
        if (title := self._by_method.get((kind, method))) is None:
            return [f"there is no {kind} {method}"]
        return self._check(title, value, f"{kind} of {method}")

    def _check(self, title: str, value: Any, where: str) -> list[str]:
        errors = self._validator(title).iter_errors(value)
        return [f"{where}: {error.json_path}: {error.message[:300]}" for error in errors]

    @cache  # noqa: B019  # lives as long as the tests do
    def _validator(self, title: str) -> Draft202012Validator:
        return Draft202012Validator({"$ref": f"#/$defs/{title}", "$defs": self._definitions})


@cache
def official(name: str = "schema.json") -> Official:
    return Official(name)


def frames_of(record: Path) -> list[tuple[str, Frame]]:
    """What the recorder wrote down."""
    found = []
    for line in record.read_bytes().splitlines():
        if line[1:].strip():
            found.append((line[:1].decode(), json.loads(line[1:])))
    return found
