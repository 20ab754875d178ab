"""Settings for the command line: where they come from, and what is said about wrong ones."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from sidecar import paths
from sidecar.client.process import KEY_VARIABLES, environment_without_keys
from sidecar.commands import config
from sidecar.commands.config import Options, UsageError, allowed_for, options_from
from sidecar.settings import Settings

CAMEL = [field.encode_name for field in msgspec.structs.fields(Settings)]


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "default_config", lambda: tmp_path / "absent.toml")
    monkeypatch.setattr(config, "is_llm_installed", lambda: True)


def options(*arguments: str, env: Mapping[str, str] | None = None) -> Options:
    parser = ArgumentParser()
    config.add_options(parser)
    return options_from(parser.parse_args(arguments), env or {})


def written(folder: Path, text: str) -> str:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_without_anything_the_offline_provider_answers() -> None:
    found = options()
    assert (found.provider, found.model, found.secrets, found.notice) == ("offline", None, {}, None)
    assert found.store == paths.default_store()


def test_an_option_wins_over_a_variable_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'provider = "openai"\nopenaiModel = "m-file"\n')
    env = {"AGENT_SIDECAR_PROVIDER": "anthropic", "AGENT_SIDECAR_MODEL": "m-env"}
    assert options("--config", file).model == "m-file"
    assert options("--config", file, env=env).settings["anthropicModel"] == "m-env"
    chosen = options("--config", file, "--provider", "gemini", "--model", "m-arg", env=env)
    assert (chosen.provider, chosen.model) == ("gemini", "m-arg")
    assert options("--store", "a.db", env={"AGENT_SIDECAR_STORE": "b.db"}).store == Path("a.db")
    assert options(env={"AGENT_SIDECAR_STORE": "b.db"}).store == Path("b.db")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("provider = ", ["is not TOML"]),
        ('gemini_model = "x"', ["no setting 'gemini_model'", "Did you mean 'geminiModel'?"]),
        ("zebra = 1", ["no setting 'zebra'", "camelCase", "geminiModel"]),
        ('provider = "gpt"', ["provider: ", "one of anthropic, bedrock"]),
        ('temperature = "hot"', ["temperature: Expected", "a number from 0 to 2"]),
        ("maxActiveAgents = 0", ["maxActiveAgents: ", "a whole number from 1 to 1000"]),
        ("[retry]\nmaxAttempts = 99", ["retry.maxAttempts: ", "a whole number from 1 to 10"]),
        ("requestTimeout = 1", ["requestTimeout: ", "a whole number, 1000 or more"]),
        ("[retry]\nzebra = 1", ["retry: ", "unknown field `zebra`"]),
        ('awsUseProfile = "yes"', ["awsUseProfile: ", "true or false"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_file_and_what_is_allowed(
    tmp_path: Path, text: str, says: list[str]
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UsageError) as error:
        options("--config", file)
    said = f"{error.value.message} {error.value.hint}"
    assert file in said
    for words in says:
        assert words in said


@pytest.mark.parametrize(
    "name", ["geminiApiKey", "GEMINI_API_KEY", "aws_secret_key", "openaiApiKey", "secrets"]
)
def test_a_key_in_the_file_is_refused_and_not_repeated(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as error:
        options("--config", written(tmp_path, f'{name} = "hunter2"'))
    said = f"{error.value.message} {error.value.hint}"
    assert name in said
    assert "environment" in said
    assert "hunter2" not in said


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no settings file"):
        options("--config", str(tmp_path / "nothing.toml"))


def test_every_setting_says_what_it_allows() -> None:
    assert [name for name in CAMEL if allowed_for(name) is None] == []
    assert allowed_for("zebra") is None


def test_keys_come_from_the_environment() -> None:
    env = {name: f"value-of-{name}" for name in KEY_VARIABLES}
    secrets = options(env=env).secrets
    assert secrets["geminiApiKey"] == "value-of-GEMINI_API_KEY"
    assert secrets["awsSessionToken"] == "value-of-AWS_SESSION_TOKEN"
    assert options(env={"GOOGLE_API_KEY": "g"}).secrets == {"geminiApiKey": "g"}
    assert environment_without_keys({**env, "PATH": "p"}) == {"PATH": "p"}


def from_descriptor(text: str) -> Options:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        file.write(text)
    return options("--keys-fd", str(reading))


def test_keys_come_from_a_descriptor() -> None:
    found = from_descriptor("# mine\n\nexport OPENAI_API_KEY='sk-1'\nAWS_ACCESS_KEY_ID=a=b\n")
    assert found.secrets == {"openaiApiKey": "sk-1", "awsAccessKey": "a=b"}


@pytest.mark.parametrize("line", ["sk-hunter2", "OTHER=sk-hunter2"])
def test_a_line_that_is_not_understood_is_not_shown(line: str) -> None:
    with pytest.raises(UsageError) as error:
        from_descriptor(f"OPENAI_API_KEY=x\n{line}\n")
    said = f"{error.value.message} {error.value.hint}"
    assert "Line 2" in said
    assert "hunter2" not in said


def test_a_descriptor_that_is_not_open_is_a_wrong_usage() -> None:
    with pytest.raises(UsageError, match="descriptor 987"):
        options("--keys-fd", "987")


def test_the_only_key_chooses_the_provider_and_that_is_said() -> None:
    found = options(env={"ANTHROPIC_API_KEY": "k"})
    assert found.provider == "anthropic"
    assert "anthropic" in str(found.notice)
    half = options(env={"AWS_ACCESS_KEY_ID": "k"})
    assert (half.provider, half.notice) == ("offline", None)


def test_several_keys_choose_nothing() -> None:
    found = options(env={"ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k"})
    assert found.provider == "offline"
    assert "gemini or anthropic" in str(found.notice)


def test_a_key_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "is_llm_installed", lambda: False)
    found = options(env={"ANTHROPIC_API_KEY": "k"})
    assert found.provider == "offline"
    assert "agent-sidecar[llm]" in str(found.notice)


def test_who_chose_a_provider_is_told_nothing() -> None:
    found = options("--provider", "offline", env={"ANTHROPIC_API_KEY": "k"})
    assert (found.provider, found.notice) == ("offline", None)


def test_a_provider_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="AGENT_SIDECAR_PROVIDER is 'gpt'"):
        options(env={"AGENT_SIDECAR_PROVIDER": "gpt"})


def test_a_model_without_a_provider_is_refused() -> None:
    with pytest.raises(UsageError, match="no models"):
        options("--model", "m")
