"""What the command line gets its settings from: options, environment variables, one TOML file.

Keys come from the environment or from a file descriptor and nowhere else: an argument is seen
by every process of the machine, and a settings file ends up in a repository.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .. import paths
from ..client.process import KEY_VARIABLES
from ..settings import PROVIDERS, Secrets, Settings, SettingsPatch

ALLOWED = tuple(field.encode_name for field in msgspec.structs.fields(Settings))
SECRET_NAMES = frozenset(
    name.lower()
    for field in msgspec.structs.fields(Secrets)
    for name in (field.name, field.encode_name, *KEY_VARIABLES)
)
CLOUD_KEYS: Mapping[str, frozenset[str]] = {
    "gemini": frozenset({"gemini_api_key"}),
    "anthropic": frozenset({"anthropic_api_key"}),
    "openai": frozenset({"openai_api_key"}),
    "bedrock": frozenset({"aws_access_key", "aws_secret_key"}),
}
"""The secrets that a provider cannot do without."""


class UsageError(Exception):
    """What was asked for makes no sense: exit code 2. `hint` says what would."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a command needs to start a sidecar."""

    store: Path
    config: Path | None
    """The settings file, if there is one."""
    settings: dict[str, Any]
    secrets: dict[str, str]
    """By the names of the wire; for `initialize` only."""
    notice: str | None = None
    """What was decided for the user, worth a line."""
    log: Path | None = None

    @property
    def provider(self) -> str:
        return str(self.settings.get("provider", "offline"))

    @property
    def model(self) -> str | None:
        """None for a provider without one."""
        name = f"{self.provider}Model"
        if name not in ALLOWED:
            return None
        return str(self.settings.get(name, getattr(Settings(), f"{self.provider}_model")))


def add_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("where and with what")
    group.add_argument("--store", metavar="PATH", help="the file with the conversations")
    group.add_argument("--config", metavar="FILE", help="a settings file (TOML)")
    group.add_argument("--provider", choices=PROVIDERS, help="who answers", metavar="NAME")
    group.add_argument("--model", metavar="NAME", help="the provider's model")
    group.add_argument(
        "--keys-fd", type=int, metavar="N", help="read KEY=VALUE lines from this descriptor"
    )
    group.add_argument(
        "--log",
        metavar="FILE",
        help="append the sidecar's log to this file (5 MiB, and two older ones)",
    )


def options_from(args: Namespace, env: Mapping[str, str] | None = None) -> Options:
    """Raises `UsageError` naming the file, the key and what is allowed there."""
    env = os.environ if env is None else env
    config = config_file(args.config or env.get("AGENT_SIDECAR_CONFIG"))
    settings = {} if config is None else read_settings(config)
    named = args.provider or env.get("AGENT_SIDECAR_PROVIDER") or None
    if named is not None:
        if named not in PROVIDERS:
            raise UsageError(
                f"AGENT_SIDECAR_PROVIDER is '{named}'.", f"It is one of {_listed(PROVIDERS)}."
            )
        settings["provider"] = named
    secrets = secrets_from_environment(env)
    if args.keys_fd is not None:
        secrets |= secrets_from_descriptor(args.keys_fd)
    provider, notice = choose_provider(settings, secrets)
    settings["provider"] = provider
    if model := args.model or env.get("AGENT_SIDECAR_MODEL"):
        settings |= model_setting(provider, model)
    return Options(
        store=Path(args.store or env.get("AGENT_SIDECAR_STORE") or paths.default_store()),
        config=config,
        settings=settings,
        secrets={_wire_name(name): value for name, value in secrets.items()},
        notice=notice,
        log=Path(args.log) if args.log else None,
    )


# ---- the settings file -------------------------------------------------------------------


def config_file(named: str | None) -> Path | None:
    """The file that was named, which must be there, or the default one if it is."""
    path = Path(named) if named else paths.default_config()
    if path.is_file():
        return path
    if named:
        raise UsageError(f"There is no settings file {named}.")
    return None


def read_settings(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read.", "Save it as UTF-8 text.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error
    check_settings(found, str(path))
    return found


def check_settings(found: Mapping[str, Any], where: str) -> None:
    for name in found:
        if name.lower() in SECRET_NAMES or name.lower() in ("secrets", "keys"):
            raise UsageError(
                f"{where}: '{name}' is a key, and keys are not kept in files.",
                "Take it out (and revoke it if the file was shared); set it in the environment, "
                f"for example as {next(iter(KEY_VARIABLES))}, or pass it with --keys-fd.",
            )
        if name not in ALLOWED:
            raise UsageError(f"{where}: there is no setting '{name}'.", _instead_of(name))
    try:
        msgspec.convert(dict(found), SettingsPatch)
    except msgspec.ValidationError as error:
        raise _wrong_value(error, where) from None


def _instead_of(name: str) -> str:
    import difflib

    folded = {allowed.lower(): allowed for allowed in ALLOWED}
    close = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=1)
    if close:
        return f"Did you mean '{folded[close[0]]}'?"
    return f"Settings have their camelCase names: {_listed(ALLOWED)}."


def _wrong_value(error: msgspec.ValidationError, where: str) -> UsageError:
    """msgspec says `Expected …, got … - at `$.name``; we add what is allowed there."""
    problem, _, at = str(error).partition(" - at ")
    name = at.strip("`").removeprefix("$.")
    return UsageError(f"{where}: {name or 'settings'}: {problem}.", allowed_for(name))


def allowed_for(name: str) -> str | None:
    """What may stand at `name`, in words, from the declaration of the setting."""
    schema: dict[str, Any] = msgspec.json.schema(Settings)
    definitions = schema["$defs"]
    here = definitions["Settings"]
    for step in name.replace("...", "").split("."):
        here = here.get("properties", {}).get(step.partition("[")[0])
        if here is None:
            return None
        if "$ref" in here:
            here = definitions[here["$ref"].rpartition("/")[2]]
    here = next((c for c in here.get("anyOf", ()) if c.get("type") != "null"), here)
    if "enum" in here:
        return f"It is one of {_listed(map(str, here['enum']))}."
    kind = _KINDS.get(str(here.get("type")))
    if kind is None:
        return None
    low, high = here.get("minimum"), here.get("maximum")
    if low is not None and high is not None:
        return f"It is {kind} from {low} to {high}."
    return f"It is {kind}" + (f", {low} or more." if low is not None else ".")


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
}


# ---- keys --------------------------------------------------------------------------------


def secrets_from_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Keys by the names of `Secrets`. Of two variables for one key the first of our list wins."""
    found: dict[str, str] = {}
    for variable, secret in KEY_VARIABLES.items():
        if value := env.get(variable):
            found.setdefault(secret, value)
    return found


def secrets_from_descriptor(descriptor: int) -> dict[str, str]:
    """`NAME=VALUE` lines with the names of the environment variables, up to the end of file."""
    try:
        with os.fdopen(descriptor, encoding="utf-8") as lines:
            text = lines.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Keys cannot be read from descriptor {descriptor}.",
            "Open it for reading, for example: --keys-fd 3 3< <(pass show llm)",
        ) from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        secret = KEY_VARIABLES.get(name.strip().removeprefix("export ").strip())
        if secret is None or not equals:  # the line itself may be a key: it is not shown
            raise UsageError(
                f"Line {number} of descriptor {descriptor} is not NAME=VALUE with a known name.",
                f"Known are {_listed(KEY_VARIABLES)}.",
            )
        found[secret] = value.strip().strip("'\"")
    return found


def choose_provider(
    settings: Mapping[str, Any], secrets: Mapping[str, str]
) -> tuple[str, str | None]:
    """The provider, and a line about it when it was not the user who chose."""
    if "provider" in settings:
        return str(settings["provider"]), None
    usable = [name for name, needed in CLOUD_KEYS.items() if needed <= secrets.keys()]
    if not usable:
        return "offline", None
    if len(usable) > 1:
        return "offline", (
            f"There are keys for {_listed(usable)}: choose with --provider or "
            "AGENT_SIDECAR_PROVIDER. Until then no model is connected."
        )
    (provider,) = usable
    if not is_llm_installed():
        return "offline", (
            f"There is a key for {provider}, but what talks to it is not installed: "
            "pip install 'agent-sidecar[llm]'."
        )
    return provider, f"Using {provider}, because its key is set (--provider chooses another)."


def is_llm_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("pydantic_ai") is not None


def model_setting(provider: str, model: str) -> dict[str, str]:
    name = f"{provider}Model"
    if name not in ALLOWED:
        raise UsageError(
            f"The provider '{provider}' has no models to choose from.",
            "Choose a provider too, with --provider or AGENT_SIDECAR_PROVIDER.",
        )
    return {name: model}


def _wire_name(attribute: str) -> str:
    return next(f.encode_name for f in msgspec.structs.fields(Secrets) if f.name == attribute)


def _listed(names: Iterable[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last
