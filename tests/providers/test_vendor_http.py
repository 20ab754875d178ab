"""What a request to a vendor may reach."""

from __future__ import annotations

import pytest

from sidecar.errors import MessageProcessingFailed
from tests.providers.vendor_server import Answer, VendorServer
from tests.providers.vendors import needs_llm_extra
from tests.requirements import proves

needs_llm_extra()

from sidecar.providers import vendor_http  # noqa: E402  # only with the extra

PROXIES = {"http": "http://plain:1", "https": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("url", "proxies", "is_bypassed", "proxy"),
    [
        ("https://api.example", PROXIES, False, "http://proxy:3128"),
        ("https://api.example", PROXIES, True, None),
        ("https://api.example", {}, False, None),
        ("https://api.example", {"https": "socks5://proxy:1"}, False, None),
        ("http://127.0.0.1:11434", PROXIES, False, None),
    ],
)
def test_only_https_goes_through_the_systems_proxy(
    url: str, proxies: dict[str, str], is_bypassed: bool, proxy: str | None
) -> None:
    assert vendor_http.proxy_for(url, proxies, lambda host: is_bypassed) == proxy


@proves("P10")
@pytest.mark.anyio
async def test_a_client_sends_nothing_to_another_origin() -> None:
    async with VendorServer() as server, VendorServer() as elsewhere:
        server.will(Answer([b"here"]))
        async with vendor_http.client(f"{server.url}/v1", 5) as client:
            assert (await client.get(f"{server.url}/v1/models")).content == b"here"
            with pytest.raises(MessageProcessingFailed, match="another server"):
                await client.get(f"{elsewhere.url}/v1/models", headers={"authorization": "key"})
        assert elsewhere.connections == 0
