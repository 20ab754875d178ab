"""A server that speaks the vendors' wires, and each of the wires."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.providers.dialects import DIALECTS, Dialect
from tests.providers.vendor_server import VendorServer


@pytest.fixture(params=DIALECTS.values(), ids=list(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param  # type: ignore[no-any-return]  # pytest does not know


@pytest.fixture
async def server() -> AsyncIterator[VendorServer]:
    async with VendorServer() as server:
        yield server
