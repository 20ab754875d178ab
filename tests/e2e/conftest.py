"""What the tests with a real process share: starting one, and leaving none behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.raw_client import RawClient, command

Spawn = Callable[..., RawClient]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store" / "conversations.db"


@pytest.fixture
def spawn(store: Path) -> Iterator[Spawn]:
    """Start a process on `store`, or with an `argv` of one's own. What it sent is checked
    against the schemas when the test is over."""
    clients: list[RawClient] = []

    def start(argv: Sequence[str] | None = None, **options: Any) -> RawClient:
        client = RawClient(argv or command(store), **options)
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.dispose()
    for client in clients:
        client.check_promises()
