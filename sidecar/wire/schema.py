"""The wire, described for machines: JSON Schema 2020-12 and OpenRPC, made from `methods`.

Nothing here is written by hand that `methods` already says. Only `rpc.discover` and
`scripts/generate_schemas.py` need this module; import it where it is used.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import msgspec

from .. import (
    __version__,
    audit,
    capabilities,
    conversations,
    errors,
    events,
    interfaces,
    lifecycle,
    settings,
    work,
)
from ..conversations import AgentMode
from . import methods
from .methods import Method, Notification, Params

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
OPENRPC_VERSION = "1.3.2"

NAMED_UNIONS: Mapping[str, Any] = {
    "Part": conversations.Part,
    "DurableEvent": events.DurableEvent,
    "Event": events.Event,
    "CatchUp": events.CatchUp,
}
"""Unions that get a definition of their own instead of being repeated at each use."""

PATCH_OF: Mapping[type, type] = {
    settings.SettingsPatch: settings.Settings,
    settings.RetryPatch: settings.RetrySettings,
    settings.RetentionPatch: settings.RetentionSettings,
    settings.SecretsPatch: settings.Secrets,
}
"""Structs made at import, and the one whose words describe their fields."""

PROTOCOL_ERRORS: Mapping[str, tuple[int, str]] = {
    "PARSE_ERROR": (methods.PARSE_ERROR, "The frame or its JSON is broken."),
    "INVALID_REQUEST": (methods.INVALID_REQUEST, "Not a JSON-RPC request."),
    "METHOD_NOT_FOUND": (methods.METHOD_NOT_FOUND, "There is no such method."),
    "INVALID_PARAMS": (methods.INVALID_PARAMS, "The params do not fit; says where."),
    "INTERNAL_ERROR": (methods.INTERNAL_ERROR, "A defect of the sidecar; its log has the rest."),
    "NOT_INITIALIZED": (methods.NOT_INITIALIZED, "A request came before `initialize`."),
    "REQUEST_CANCELLED": (methods.REQUEST_CANCELLED, "Cancelled before anything was stored."),
}

LIFECYCLE: Mapping[str, str] = {
    "initialize": "Request, as in LSP, with our `initializationOptions` and capabilities.",
    "initialized": "Notification, as in LSP.",
    "shutdown": "Request, as in LSP.",
    "exit": "Notification, as in LSP.",
    "$/cancelRequest": "Notification. A prompt that is not stored yet answers REQUEST_CANCELLED; "
    "the turn of one that is ends with `stopReason: cancelled` and is answered normally.",
}


# ---- the start, whose answer is made before these types can be loaded --------------------


class SidecarCapabilities(Params, frozen=True, kw_only=True):
    """What this build is; the same for every start. What it found is in `sidecar/ready`."""

    protocol_version: int
    version: str
    modes: tuple[AgentMode, ...]
    providers: tuple[str, ...]
    methods: tuple[str, ...]


class Experimental(Params, frozen=True, kw_only=True):
    sidecar: SidecarCapabilities


class ServerCapabilities(Params, frozen=True, kw_only=True):
    experimental: Experimental


class InitializeResult(Params, frozen=True, kw_only=True):
    """LSP's `InitializeResult`; only what this server adds to it is described here."""

    capabilities: ServerCapabilities


# ---- definitions -------------------------------------------------------------------------


class Definitions(NamedTuple):
    by_name: dict[str, Schema]
    """Every type on the wire, sorted, so that a new one moves no other."""
    by_type: dict[Any, Schema]
    """How to refer to the type of any params, result or notification."""


def definitions(ref_template: str = "#/$defs/{name}") -> Definitions:
    """The schema of every type on the wire."""
    types = list(dict.fromkeys([*NAMED_UNIONS.values(), *_message_types()]))
    # No schema_hook, on purpose: a `Secret` inside a wire type then has no schema and fails.
    schemas, components = msgspec.json.schema_components(types, ref_template=ref_template)
    unions = dict(zip(NAMED_UNIONS, schemas[: len(NAMED_UNIONS)], strict=True))
    named = [(union, {"$ref": ref_template.format(name=name)}) for name, union in unions.items()]
    by_name = {name: _with_refs(schema, named) for name, schema in components.items()}
    _describe(by_name)
    by_name |= {name: {"title": name, **union} for name, union in unions.items()}
    by_type = {kind: _with_refs(schema, named) for kind, schema in zip(types, schemas, strict=True)}
    return Definitions(dict(sorted(by_name.items())), by_type)


def _message_types() -> Iterable[Any]:
    for method in (*methods.METHODS, *methods.SERVER_REQUESTS):
        yield from (method.params, method.result)
    for notification in (*methods.CLIENT_NOTIFICATIONS, *methods.SERVER_NOTIFICATIONS):
        yield notification.params
    yield from (methods.Initialize, InitializeResult, methods.ErrorData)
    yield interfaces.ConversationExport


def _with_refs(value: Any, named: list[tuple[Schema, Schema]]) -> Any:
    """`value` with each schema in `named` replaced by the reference beside it."""
    if isinstance(value, list):
        return [_with_refs(item, named) for item in value]
    if not isinstance(value, dict):
        return value
    for schema, ref in named:
        if value == schema:
            return ref
    return {key: _with_refs(item, named) for key, item in value.items()}


# ---- what msgspec does not know of our types ---------------------------------------------


def _describe(by_name: dict[str, Schema]) -> None:
    """Add what the types say in words, and what is always there."""
    known = _classes()
    classes = {name: known[name] for name in by_name}
    docs = _attribute_docs()
    wire_names = {
        field.name: field.encode_name
        for cls in classes.values()
        if issubclass(cls, msgspec.Struct)
        for field in msgspec.structs.fields(cls)
    }
    for name, definition in by_name.items():
        cls = classes[name]
        if "description" in definition:
            definition["description"] = _prose(definition["description"], wire_names)
        if issubclass(cls, Enum):
            _describe_members(definition, cls, docs)
        elif issubclass(cls, msgspec.Struct):
            _describe_fields(definition, cls, docs, wire_names)


def _describe_members(
    definition: Schema, cls: type[Enum], docs: Mapping[tuple[str, str], str]
) -> None:
    lines = [
        f"- `{member.value}`: {_prose(docs[cls.__name__, member.name], {})}"
        for member in cls
        if (cls.__name__, member.name) in docs
    ]
    if lines:
        opening = [definition["description"], ""] if "description" in definition else []
        definition["description"] = "\n".join(opening + lines)


def _describe_fields(
    definition: Schema,
    cls: type[msgspec.Struct],
    docs: Mapping[tuple[str, str], str],
    wire_names: Mapping[str, str],
) -> None:
    properties: dict[str, Schema] = definition["properties"]
    for field in msgspec.structs.fields(cls):
        schema = properties[field.encode_name]
        origins = (*cls.__mro__, PATCH_OF.get(cls, cls))
        keys = [(origin.__name__, field.name) for origin in origins]
        if doc := next((docs[key] for key in keys if key in docs), ""):
            schema["description"] = _prose(doc, wire_names)
        if settings.Settings in origins and field.name in settings.CRITICAL_FIELDS:
            schema["x-critical"] = True
        if cls is settings.SecretsPatch:
            schema["writeOnly"] = True
    if issubclass(cls, events.Fact):
        # They have defaults only because the store keeps events without them.
        always = ["conversationId", "seq"]
        for name in always:
            del properties[name]["default"]
        tag, *others = definition["required"]
        definition["required"] = [tag, *always, *others]


def _classes() -> dict[str, type]:
    return {
        name: value
        for names in (*map(vars, _sources()), globals())
        for name, value in names.items()
        if isinstance(value, type)
    }


def _sources() -> tuple[ModuleType, ...]:
    return (
        audit,
        capabilities,
        conversations,
        events,
        interfaces,
        lifecycle,
        settings,
        work,
        methods,
    )


def _attribute_docs() -> dict[tuple[str, str], str]:
    """The strings below attributes, by class and attribute. Python forgets them, so they are
    read from the source; an installation without source goes without."""
    docs: dict[tuple[str, str], str] = {}
    for module in _sources():
        try:
            tree = ast.parse(inspect.getsource(module))
        except OSError:
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                docs |= {(node.name, attribute): doc for attribute, doc in _strings_below(node)}
    return docs


def _strings_below(node: ast.ClassDef) -> Iterable[tuple[str, str]]:
    for statements in pairwise(node.body):
        match statements:
            case (
                ast.AnnAssign(target=ast.Name(id=attribute))
                | ast.Assign(targets=[ast.Name(id=attribute)]),
                ast.Expr(value=ast.Constant(value=str(doc))),
            ):
                yield attribute, doc


def _prose(text: str, wire_names: Mapping[str, str]) -> str:
    """A docstring as a client reads it: a paragraph per line, fields by their wire names."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    joined = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return re.sub(r"`(\w+)`", lambda found: f"`{wire_names.get(found[1], found[1])}`", joined)


# ---- JSON Schema documents ---------------------------------------------------------------


def messages_schema() -> Schema:
    """All definitions in one document."""
    return {"$schema": DIALECT, "title": "agent-sidecar messages", "$defs": definitions().by_name}


def events_schema() -> Schema:
    """The params of `conversation/event`."""
    return _rooted(
        "Event",
        "conversation/event",
        "What this version sends. A reader ignores types and fields it does not know.",
    )


def export_schema() -> Schema:
    """What `conversation/export` gives in JSON and `conversation/import` takes."""
    return _rooted("ConversationExport", "agent-sidecar conversation export", "")


def _rooted(root: str, title: str, description: str) -> Schema:
    by_name = definitions().by_name
    document: Schema = {"$schema": DIALECT, "title": title}
    if description:
        document["description"] = description
    document["$ref"] = f"#/$defs/{root}"
    document["$defs"] = {name: by_name[name] for name in sorted(reachable(root, by_name))}
    return document


def reachable(root: str, by_name: Mapping[str, Schema]) -> set[str]:
    """The names of `root` and of every definition that it refers to, however indirectly."""
    found: set[str] = set()
    waiting = {root}
    while waiting:
        name = waiting.pop()
        found.add(name)
        refs = re.findall(r'"\$ref": "[^"]*/(\w+)"', json.dumps(by_name[name]))
        waiting |= set(refs) - found
    return found


# ---- OpenRPC -----------------------------------------------------------------------------


def openrpc() -> Schema:
    """The OpenRPC document of the native face; `rpc.discover` answers with it."""
    known = definitions("#/components/schemas/{name}")
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "agent-sidecar",
            "version": __version__,
            "description": "JSON-RPC 2.0 over stdio in LSP base framing. Params are by name. "
            "Any method may answer with any of the errors.",
            "license": {"name": "MIT"},
            "x-protocolVersion": methods.PROTOCOL_VERSION,
        },
        "methods": [_method(method, known) for method in methods.METHODS],
        "x-serverRequests": [_method(method, known) for method in methods.SERVER_REQUESTS],
        "x-lifecycle": _lifecycle(known),
        "x-notifications": {
            "client": [_notification(each, known) for each in methods.CLIENT_NOTIFICATIONS],
            "server": [_notification(each, known) for each in methods.SERVER_NOTIFICATIONS],
        },
        "x-errorData": known.by_type[methods.ErrorData],
        "components": {"schemas": known.by_name, "errors": error_objects()},
    }


def _lifecycle(known: Definitions) -> Schema:
    lifecycle: Schema = {name: {"summary": text} for name, text in LIFECYCLE.items()}
    lifecycle["initialize"] |= {
        "params": known.by_type[methods.Initialize],
        "result": known.by_type[InitializeResult],
    }
    return lifecycle


def _method(method: Method, known: Definitions) -> Schema:
    params = known.by_name[method.params.__name__]
    result = known.by_type[method.result]
    return {
        "name": method.name,
        "summary": method.doc,
        "paramStructure": "by-name",
        "params": [
            _content_descriptor(name, schema, required=name in params["required"])
            for name, schema in params["properties"].items()
        ],
        "result": {"name": result.get("$ref", "object").rpartition("/")[2], "schema": result},
        "errors": [{"$ref": f"#/components/errors/{error.type}"} for error in errors.ALL_ERRORS],
    }


def _content_descriptor(name: str, schema: Schema, *, required: bool) -> Schema:
    described = {"description": schema["description"]} if "description" in schema else {}
    bare = {key: value for key, value in schema.items() if key != "description"}
    return {"name": name, **described, "required": required, "schema": bare}


def _notification(notification: Notification, known: Definitions) -> Schema:
    return {
        "name": notification.name,
        "summary": notification.doc,
        "params": known.by_type[notification.params],
    }


def error_objects() -> dict[str, Schema]:
    """Every error by its type. `message` is the condition (a real error words it for its case),
    `data` what it holds as a rule; `retryable` may differ in a single case."""
    conditions = dict(re.findall(r"[├└]── (\w+) +(.+)", errors.__doc__ or ""))
    ours = {
        error.type: {
            "code": code,
            "message": _sentence(conditions.get(error.__name__, error.__name__)),
            "data": {"type": error.type, "retryable": error.retryable_by_default},
        }
        for error, code in methods.ERROR_CODES.items()
    }
    protocol = {
        name: {"code": code, "message": condition}
        for name, (code, condition) in PROTOCOL_ERRORS.items()
    }
    return ours | protocol


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
