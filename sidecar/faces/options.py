"""What `initialize` says, read forgivingly: it has been answered when this is looked at.

One option that makes no sense (of a newer editor, or mistyped) must cost neither the others nor
the start. It is left out and named to the user; what it held is not shown.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar, get_args

import msgspec

from ..wire import methods as wire
from .rpc import whole_characters
from .shown import shown

S = TypeVar("S", bound=msgspec.Struct)

MAX_PID = 2**31 - 1


class _Call(msgspec.Struct):
    """What the prologue answered, as far as it is not known yet."""

    params: wire.Initialize


def read_initialize(body: bytes) -> tuple[wire.Initialize, str | None]:
    """The params of the request `initialize`, and what the user is to be told about them."""
    body = whole_characters(body)
    try:
        return msgspec.json.decode(body, type=_Call).params, None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Read as the prologue did: what it could read and answered must be no surprise here.
        given = json.loads(body)["params"]
    left_out: list[str] = []
    understood = _readable(wire.Initialize, given, "", left_out)
    if {"initializationOptions", "initializationOptions.workspaceTrusted"} & set(left_out):
        # Trust that we cannot read is trust that was not given.
        options = understood.initialization_options or wire.InitializationOptions()
        understood = msgspec.structs.replace(
            understood,
            initialization_options=msgspec.structs.replace(options, workspace_trusted=False),
        )
    names = ", ".join(map(shown, left_out[:10]))
    return understood, f"Some options were not understood and are not used: {names}."


def process_to_watch(params: wire.Initialize) -> int | None:
    """The editor's process id; None for a number that cannot be one."""
    pid = params.process_id
    return pid if pid is not None and 0 < pid <= MAX_PID else None


def _readable(kind: type[S], given: Any, path: str, left_out: list[str]) -> S:
    """As much of a `kind` as `given` has; the names of the rest go to `left_out`."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        place = f"{path}.{name}" if path else name
        field = fields.get(name)
        if field is None:
            if kind.__struct_config__.forbid_unknown_fields:
                left_out.append(place)
            continue
        try:
            values[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError:
            inner = _struct_in(field.type)
            if inner is not None and isinstance(value, dict):
                values[field.name] = _readable(inner, value, place, left_out)
            else:
                left_out.append(place)
                if isinstance(value, list):
                    values |= _readable_items(field, value)
    return kind(**values)


def _readable_items(field: msgspec.structs.FieldInfo, items: list[Any]) -> dict[str, Any]:
    """A list without the items that make no sense; nothing if that is no such list either."""
    kept: list[Any] = []
    for item in items:
        try:
            kept += msgspec.convert([item], field.type)
        except msgspec.ValidationError:
            continue
    return {field.name: tuple(kept)} if kept else {}


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct in a union of one with None or UNSET."""
    structs = [k for k in get_args(kind) if isinstance(k, type) and issubclass(k, msgspec.Struct)]
    return structs[0] if structs else None
