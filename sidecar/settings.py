"""Settings and secrets of one process, and which of them an agent must be remade for.

A field is critical when it is marked so below: changing its *value* means that running agents
hold a provider made from the old one (the list is that of S003-CRITICAL, and what the further
providers need).
Secrets live in their own struct, in memory only, and show themselves to nobody by accident.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

ProviderName = Literal["offline", "gemini", "bedrock", "anthropic", "openai", "scripted"]
PROVIDERS: tuple[str, ...] = get_args(ProviderName)

CRITICAL = Meta(extra={"critical": True})
Text = Annotated[str, Meta(max_length=4096)]


class Secret:
    """A string that has to be asked for by name: `reveal()`.

    Never printed, formatted, encoded, pickled or compared into view; two secrets are equal when
    their values are.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    max_attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    base_delay: Annotated[int, Meta(ge=0, le=60_000)] = 1_000
    """Milliseconds before the second attempt; doubles with each further one."""


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What archived conversations are kept for; 0 is for ever. One in use is never given up."""

    max_age_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Days of use: a pause of more than a week counts as one."""
    max_bytes: Annotated[int, Meta(ge=0)] = 0
    """Of the whole store; the oldest archived conversations make room."""


class McpServer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A server of tools: a `command` that is run, or a `url`. Values of `env` and `headers` may
    hold `${env:NAME}`: keys stay in the environment, where they belong."""

    command: Annotated[str, Meta(max_length=4096)] = ""
    args: tuple[str, ...] = ()
    cwd: Annotated[str, Meta(max_length=4096)] = ""
    env: dict[str, str] = {}
    url: Annotated[str, Meta(max_length=4096)] = ""
    headers: dict[str, str] = {}
    enabled: bool = True

    @property
    def launch(self) -> tuple[str, ...]:
        """What it is, as far as an approval depends on it."""
        return (self.command, *self.args, self.cwd, self.url)


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything that can be set, with its default. Durations in milliseconds."""

    provider: Annotated[ProviderName, CRITICAL] = "offline"
    gemini_model: Annotated[Text, CRITICAL] = "gemini-3.8-flash"
    gemini_base_url: Annotated[Text, CRITICAL] = ""
    bedrock_model: Annotated[Text, CRITICAL] = "global.anthropic.claude-sonnet-5-5"
    bedrock_base_url: Annotated[Text, CRITICAL] = ""
    aws_region: Annotated[Text, CRITICAL] = "us-east-1"
    aws_profile: Annotated[Text, CRITICAL] = ""
    aws_use_profile: Annotated[bool, CRITICAL] = False
    anthropic_model: Annotated[Text, CRITICAL] = "claude-sonnet-5-5"
    anthropic_base_url: Annotated[Text, CRITICAL] = ""
    openai_model: Annotated[Text, CRITICAL] = "gpt-5.4-mini"
    openai_base_url: Annotated[Text, CRITICAL] = ""
    """Any server that speaks the OpenAI wire: Ollama, llama.cpp, vLLM, a gateway."""
    script: Annotated[list[dict[str, Any]], CRITICAL] = []
    """What the `scripted` provider plays; see `providers/scripted.py`."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    thinking: Literal["low", "medium", "high"] | None = None
    """How hard a model thinks before it answers; absent, as the provider has it."""
    request_timeout: Annotated[int, Meta(ge=1_000)] = 120_000
    """How long a provider may be silent before the turn fails."""

    max_active_agents: Annotated[int, Meta(ge=1, le=1_000)] = 10
    inactivity_timeout: Annotated[int, Meta(ge=1)] = 300_000
    linger_timeout: Annotated[int, Meta(ge=0)] = 60_000
    agent_wait_timeout: Annotated[int, Meta(ge=0)] = 10_000
    """How long getOrCreate and switch wait for a free agent before `LIMIT_REACHED`."""
    max_queue_length: Annotated[int, Meta(ge=1, le=100_000)] = 100
    retry: RetrySettings = RetrySettings()
    retention: RetentionSettings = RetentionSettings()
    mcp_servers: dict[str, McpServer] = {}
    """Servers whose tools agents may ask for, by a name of your own."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Secrets(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Keys, all of them critical. An empty one counts as absent."""

    gemini_api_key: Secret | None = None
    aws_access_key: Secret | None = None
    aws_secret_key: Secret | None = None
    aws_session_token: Secret | None = None
    anthropic_api_key: Secret | None = None
    openai_api_key: Secret | None = None

    def revealed(self) -> list[str]:
        """The values themselves, for whoever has to keep them out of something."""
        present = (getattr(self, name) for name in self.__struct_fields__)
        return [secret.reveal() for secret in present if secret is not None]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Settings and the secrets that belong to them, never mixed with another pair's."""

    settings: Settings = Settings()
    secrets: Secrets = Secrets()

    def differs_critically(self, other: Config) -> bool:
        """Whether an agent made for `self` is wrong for `other`."""
        return self.secrets != other.secrets or any(
            getattr(self.settings, name) != getattr(other.settings, name)
            for name in CRITICAL_FIELDS
        )


class Problem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something about the settings that will not work. `field` is the name on the wire."""

    field: str
    message: str
    hint: str


def _critical_fields() -> tuple[str, ...]:
    hints = get_type_hints(Settings, include_extras=True)
    return tuple(
        name for name, hint in hints.items() if CRITICAL in getattr(hint, "__metadata__", ())
    )


CRITICAL_FIELDS: tuple[str, ...] = _critical_fields()


def _patch_of(
    struct: type[msgspec.Struct], name: str, overrides: dict[str, Any]
) -> type[msgspec.Struct]:
    """The struct with every field optional and no other allowed: a partial update."""
    hints = get_type_hints(struct, include_extras=True)
    fields = [
        (field, overrides.get(field, hint) | UnsetType, UNSET) for field, hint in hints.items()
    ]
    return msgspec.defstruct(
        name,
        fields,
        kw_only=True,
        rename="camel",
        forbid_unknown_fields=True,
        frozen=True,
        module=__name__,
        namespace={"__doc__": f"Any of the fields of {struct.__name__}."},
    )


RetryPatch = _patch_of(RetrySettings, "RetryPatch", {})
RetentionPatch = _patch_of(RetentionSettings, "RetentionPatch", {})
SettingsPatch = _patch_of(
    Settings, "SettingsPatch", {"retry": RetryPatch, "retention": RetentionPatch}
)
SecretsPatch = _patch_of(
    Secrets, "SecretsPatch", dict.fromkeys(Secrets.__struct_fields__, Text | None)
)


def patched(config: Config, settings: Any = UNSET, secrets: Any = UNSET) -> Config:
    """`config` with what the patches set; an empty or null secret removes it."""
    new_settings, new_secrets = config.settings, config.secrets
    if settings is not UNSET and settings is not None:
        changes = _given(settings)
        for nested in ("retry", "retention"):
            if nested in changes:
                changes[nested] = msgspec.structs.replace(
                    getattr(new_settings, nested), **_given(changes[nested])
                )
        new_settings = msgspec.structs.replace(new_settings, **changes)
    if secrets is not UNSET and secrets is not None:
        new_secrets = msgspec.structs.replace(
            new_secrets,
            **{name: Secret(value) if value else None for name, value in _given(secrets).items()},
        )
    return Config(settings=new_settings, secrets=new_secrets)


def _given(patch: msgspec.Struct) -> dict[str, Any]:
    return {
        name: value
        for name in patch.__struct_fields__
        if (value := getattr(patch, name)) is not UNSET
    }


def public(settings: Settings) -> Settings:
    """The settings as they are shown: never a secret, not even in an address."""
    hidden = {
        name: "://…@".join((url[: url.index("://")], url.rpartition("@")[2]))
        for name in BASE_URLS
        if _has_password(url := getattr(settings, name))
    }
    return msgspec.structs.replace(settings, **hidden)


BASE_URLS = ("gemini_base_url", "bedrock_base_url", "anthropic_base_url", "openai_base_url")


def _has_password(url: str) -> bool:
    return "@" in url.partition("://")[2].partition("/")[0]


_NAMES_A_KEY = re.compile(r"(?i)authorization|key|token|secret|password")


def mcp_problem(server: McpServer) -> str | None:
    """Why a server cannot be used as it is configured, and what to do."""
    if bool(server.command) == bool(server.url):
        return "it needs a command or a url, and not both"
    for name, value in {**server.env, **server.headers}.items():
        if _NAMES_A_KEY.search(name) and value and "${env:" not in value:
            return f"'{name}' holds a secret: write ${{env:NAME}} there, and set NAME outside"
    return None


_KEY_NEEDED = {
    "gemini": ("gemini_api_key", "geminiApiKey", "GEMINI_API_KEY"),
    "anthropic": ("anthropic_api_key", "anthropicApiKey", "ANTHROPIC_API_KEY"),
    "openai": ("openai_api_key", "openaiApiKey", "OPENAI_API_KEY"),
}


def problems(config: Config) -> list[Problem]:
    """What keeps the chosen provider from working, found without calling it."""
    settings, secrets = config.settings, config.secrets
    found: list[Problem] = []
    if needed := _KEY_NEEDED.get(settings.provider):
        attribute, field, variable = needed
        local = settings.provider == "openai" and settings.openai_base_url
        if getattr(secrets, attribute) is None and not local:
            found.append(
                Problem(
                    field=field,
                    message=f"The provider '{settings.provider}' needs a key.",
                    hint=f"Store one in the editor, or set {variable} and start again.",
                )
            )
    if settings.provider == "bedrock" and not settings.aws_use_profile:
        for attribute, field in (
            ("aws_access_key", "awsAccessKey"),
            ("aws_secret_key", "awsSecretKey"),
        ):
            if getattr(secrets, attribute) is None:
                found.append(
                    Problem(
                        field=field,
                        message="The provider 'bedrock' needs a pair of keys or a profile.",
                        hint="Store the AWS keys, or set awsUseProfile and awsProfile.",
                    )
                )
    for name in BASE_URLS:
        url = getattr(settings, name)
        if _has_password(url):
            found.append(
                Problem(
                    field=name.replace("_base_url", "BaseUrl"),
                    message="A base URL has no user name or password in it.",
                    hint="Settings are no place for them; a key is stored in the editor.",
                )
            )
        elif url and not url.startswith(("http://", "https://")):
            found.append(
                Problem(
                    field=name.replace("_base_url", "BaseUrl"),
                    message="A base URL starts with http:// or https://.",
                    hint="For example http://127.0.0.1:11434/v1.",
                )
            )
    return found
