"""Replaced when the parser lands."""

from __future__ import annotations

from collections.abc import Sequence

from ..conversations import Rule


def proposed(
    command: str, *, folder: str, roots: Sequence[str], network: bool, is_confined: bool
) -> tuple[Rule, ...]:
    return ()
