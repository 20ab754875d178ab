"""What all values are made of."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

JsonObject = dict[str, Any]
"""Decoded JSON that we pass on without looking inside (tool arguments, JSON Schemas)."""

ID_PATTERN = r"^[A-Za-z0-9._-]{1,128}$(?!\n)"
"""Python's `$` would let a newline at the end pass; that of JSON Schema does not."""
ConversationId = Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""A number that every reader of JSON, and SQLite, keeps as it is."""
RequestKey = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Value(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all values: immutable, camelCase in JSON, fields at their default left out."""
