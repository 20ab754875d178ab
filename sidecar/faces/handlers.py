"""How a face names its handlers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ..wire import methods as wire
from .rpc import Handler

F = TypeVar("F", bound=Callable[..., Any])

DONE = wire.Done(ok=True)


def method(name: str) -> Callable[[F], F]:
    def mark(function: F) -> F:
        function.wire_name = name  # type: ignore[attr-defined]  # read by handlers_of()
        return function

    return mark


def handlers_of(face: object) -> dict[str, Handler]:
    """Method name → handler."""
    members = (getattr(face, name) for name in dir(face))
    return {m.wire_name: m for m in members if hasattr(m, "wire_name")}


def fingerprint(params: msgspec.Struct) -> bytes:
    """What a request key stands for: the same params have the same sixteen bytes."""
    return hashlib.blake2b(msgspec.json.encode(params), digest_size=16).digest()
