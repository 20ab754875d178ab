"""Settings, their secrets, and which of them matter to a running agent."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest

from sidecar.conversations import MessageSettings
from sidecar.settings import (
    BASE_URLS,
    CRITICAL_FIELDS,
    Config,
    RetrySettings,
    Secret,
    Secrets,
    SecretsPatch,
    Settings,
    SettingsPatch,
    patched,
    problems,
    public,
)
from tests.requirements import proves

OTHER: dict[str, Any] = {
    "provider": "openai",
    "aws_use_profile": True,
    "script": [{"text": "hi"}],
}


@proves("S003-CONFIG-1", "S003-CONFIG-2", "S003-RETRY-5")
def test_the_defaults_are_those_that_were_asked_for() -> None:
    settings = Settings()
    assert settings.max_active_agents == 10
    assert settings.inactivity_timeout == 300_000
    assert settings.agent_wait_timeout == 10_000
    assert (settings.retry.max_attempts, settings.retry.base_delay) == (3, 1_000)
    assert settings.provider == "offline"


@proves(
    "S003-CRITICAL-1",
    "S003-CRITICAL-5",
    "S003-CRITICAL-6",
    "S003-CRITICAL-7",
    "S003-CRITICAL-8",
    "S003-CRITICAL-9",
    "S003-SETTINGS-1",
)
@pytest.mark.parametrize("field", CRITICAL_FIELDS)
def test_a_changed_critical_value_makes_a_difference(field: str) -> None:
    value = OTHER.get(field, "something-else")
    changed = Config(settings=msgspec.structs.replace(Settings(), **{field: value}))
    assert Config().differs_critically(changed)
    assert changed.differs_critically(Config())
    same = Config(settings=msgspec.structs.replace(Settings(), **{field: copy.copy(value)}))
    assert not changed.differs_critically(same)


def test_the_seeds_critical_settings_are_marked_and_the_others_are_not() -> None:
    assert set(CRITICAL_FIELDS) >= {
        "provider",
        "gemini_model",
        "bedrock_model",
        "aws_region",
        "aws_profile",
        "aws_use_profile",
    }
    assert {"max_active_agents", "retry", "log_level", "temperature"}.isdisjoint(CRITICAL_FIELDS)


@proves("S003-CRITICAL-2", "S003-CRITICAL-3", "S003-CRITICAL-4")
@pytest.mark.parametrize("field", Secrets.__struct_fields__)
def test_every_changed_key_makes_a_difference_and_an_equal_one_none(field: str) -> None:
    one, two = (Config(secrets=Secrets(**{field: Secret(value)})) for value in ("1", "2"))
    again = Config(secrets=Secrets(**{field: Secret("1")}))
    assert one.differs_critically(two)
    assert one.differs_critically(Config())
    assert not one.differs_critically(again)


@proves("P10", "S003-SECURITY-6")
def test_a_secret_shows_itself_only_to_who_asks_by_name() -> None:
    secret = Secret("hush-hush")
    config = Config(secrets=Secrets(gemini_api_key=secret))
    shown = [repr(secret), str(secret), f"{secret}", repr(config), f"{config!s}"]
    shown.append(json.dumps({"config": config}, default=str))
    assert not any("hush" in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises((TypeError, msgspec.EncodeError, NotImplementedError)):
        msgspec.json.encode(config.secrets)
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == "hush-hush"
    assert secret != "hush-hush"
    assert len({secret, Secret("hush-hush")}) == 1


@proves("D4-SETTINGS-7")
def test_secrets_are_taken_only_as_secrets() -> None:
    with pytest.raises(msgspec.ValidationError, match="geminiApiKey"):
        msgspec.convert({"geminiApiKey": "k"}, SettingsPatch)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"provider": "gemini"}, SecretsPatch)
    assert not any("key" in name.lower() for name in Settings.__struct_fields__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:hush@host:1/v1", "http://…@host:1/v1"),
        ("https://hush@host/v1", "https://…@host/v1"),
        ("http://me:hu@sh@host", "http://…@host"),
        ("http://host/v1/@me", "http://host/v1/@me"),
        ("http://host:1/v1", "http://host:1/v1"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("name", BASE_URLS)
def test_a_password_in_an_address_is_refused_and_not_shown(name: str, url: str, shown: str) -> None:
    settings = Settings(**{name: url})  # type: ignore[arg-type]
    assert getattr(public(settings), name) == shown
    found = [problem.message for problem in problems(Config(settings=settings))]
    assert bool(found) == (url != shown)
    assert "hush" not in "".join(found)


@proves("D4-SETTINGS-8")
@pytest.mark.parametrize("field", ["provider", "geminiApiKey", "geminiModel", "anything"])
def test_a_message_may_set_only_what_is_not_critical(field: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({field: "x"}, MessageSettings)
    assert msgspec.convert({"temperature": 0.5}, MessageSettings).temperature == 0.5


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    start = patched(
        Config(),
        msgspec.convert({"provider": "gemini", "retry": {"baseDelay": 5}}, SettingsPatch),
        msgspec.convert({"geminiApiKey": "k", "openaiApiKey": "o"}, SecretsPatch),
    )
    assert start.settings == Settings(provider="gemini", retry=RetrySettings(base_delay=5))
    changed = patched(
        start,
        msgspec.convert({"retry": {"maxAttempts": 7}}, SettingsPatch),
        msgspec.convert({"geminiApiKey": "", "openaiApiKey": None}, SecretsPatch),
    )
    assert changed.settings.retry == RetrySettings(max_attempts=7, base_delay=5)
    assert changed.settings.provider == "gemini"
    assert changed.secrets == Secrets()
    assert patched(start) == start
    assert patched(start, None, None) == start


@pytest.mark.parametrize(
    "patch",
    [
        {"maxActiveAgents": 0},
        {"inactivityTimeout": 0},
        {"retry": {"maxAttempts": 0}},
        {"retry": {"more": 1}},
        {"provider": "none"},
        {"temperature": 3},
        {"unknown": 1},
    ],
)
def test_values_out_of_bounds_are_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(patch, SettingsPatch)


@proves("D4-SETTINGS-6")
@pytest.mark.parametrize(
    ("settings", "secrets", "fields"),
    [
        ({}, {}, []),
        ({"provider": "scripted"}, {}, []),
        ({"provider": "gemini"}, {}, ["geminiApiKey"]),
        ({"provider": "gemini"}, {"gemini_api_key": Secret("k")}, []),
        ({"provider": "anthropic"}, {"gemini_api_key": Secret("k")}, ["anthropicApiKey"]),
        ({"provider": "openai"}, {}, ["openaiApiKey"]),
        ({"provider": "openai", "openai_base_url": "http://127.0.0.1:1/v1"}, {}, []),
        ({"provider": "bedrock"}, {}, ["awsAccessKey", "awsSecretKey"]),
        ({"provider": "bedrock"}, {"aws_access_key": Secret("k")}, ["awsSecretKey"]),
        ({"provider": "bedrock", "aws_use_profile": True}, {}, []),
        ({"gemini_base_url": "ftp://x"}, {}, ["geminiBaseUrl"]),
        ({"openai_base_url": "localhost:1"}, {}, ["openaiBaseUrl"]),
    ],
)
def test_what_cannot_work_is_named_before_it_is_tried(
    settings: dict[str, Any], secrets: dict[str, Any], fields: list[str]
) -> None:
    found = problems(Config(settings=Settings(**settings), secrets=Secrets(**secrets)))
    assert [problem.field for problem in found] == fields
    assert all(problem.message and problem.hint for problem in found)
