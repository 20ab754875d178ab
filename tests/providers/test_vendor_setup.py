"""Making the provider: lazily, with a reason when it cannot be made, and closing it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from anyio import to_thread

from sidecar.errors import InitializationFailed
from sidecar.providers.pydantic_ai import make
from sidecar.settings import Config, Secret, Secrets, Settings
from tests.providers.dialects import Dialect, Stop, Text, said
from tests.providers.vendor_server import VendorServer
from tests.providers.vendors import (
    asking,
    config,
    events_of,
    needs_llm_extra,
    provided,
    text_of,
)

needs_llm_extra()
pytestmark = pytest.mark.anyio


async def test_warming_up_calls_nobody_and_can_be_repeated(
    dialect: Dialect, server: VendorServer
) -> None:
    server.will(said(dialect, Text("Yes."), Stop()))
    async with provided(dialect.name, server.url) as provider:
        assert repr(provider) == f"<PydanticAIProvider {dialect.name}: cold>"
        await to_thread.run_sync(provider.warm_up)
        await to_thread.run_sync(provider.warm_up)
        assert server.connections == 0
        assert repr(provider) == f"<PydanticAIProvider {dialect.name}: ready>"
        assert text_of(await events_of(provider, asking())) == "Yes."


async def test_closing_twice_and_closing_a_cold_provider_is_fine(
    dialect: Dialect, server: VendorServer
) -> None:
    provider = make(config(dialect.name, server.url))
    await provider.aclose()
    await to_thread.run_sync(provider.warm_up)
    await provider.aclose()
    await provider.aclose()


def test_importing_and_making_it_loads_no_vendor() -> None:
    script = (
        "import sys\n"
        "from sidecar.providers.pydantic_ai import make\n"
        "from sidecar.settings import Config, Secret, Secrets, Settings\n"
        "secrets = Secrets(gemini_api_key=Secret('k'))\n"
        "make(Config(settings=Settings(provider='gemini'), secrets=secrets))\n"
        "heavy = {'pydantic_ai', 'google.genai', 'httpx2', 'pydantic', 'boto3'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_without_the_extra_the_hint_says_how_to_install_it() -> None:
    # A path hook that hides the library, in a process of its own.
    script = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic_ai': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from sidecar.errors import InitializationFailed\n"
        "from sidecar.providers.pydantic_ai import make\n"
        "from sidecar.settings import Config, Secret, Secrets, Settings\n"
        "secrets = Secrets(gemini_api_key=Secret('k'))\n"
        "try: make(Config(settings=Settings(provider='gemini'), secrets=secrets))\n"
        "except InitializationFailed as error: sys.exit(error.hint)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stderr.strip() == "pip install 'agent-sidecar[llm]'"


def test_a_missing_key_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(InitializationFailed, match="needs a key") as caught:
        make(Config(settings=Settings(provider="gemini")))
    assert caught.value.hint


async def test_a_key_with_odd_characters_is_refused_and_not_shown() -> None:
    secrets = Secrets(openai_api_key=Secret("“sk-CANARY”"))
    provider = make(Config(settings=Settings(provider="openai"), secrets=secrets))
    with pytest.raises(InitializationFailed, match="characters") as caught:
        await to_thread.run_sync(provider.warm_up)
    assert "CANARY" not in str(caught.value)


async def test_an_aws_profile_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    settings = Settings(provider="bedrock", aws_use_profile=True, aws_profile="nobody")
    with pytest.raises(InitializationFailed, match="profile"):
        await to_thread.run_sync(make(Config(settings=settings)).warm_up)
