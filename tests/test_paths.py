"""Where things are kept, on every platform, from any platform."""

from __future__ import annotations

import pytest

from sidecar.paths import config_file, data_folder, default_config, default_store
from tests.requirements import proves


@proves("PATHS")
@pytest.mark.parametrize(
    ("platform", "env", "folder"),
    [
        ("linux", {"HOME": "/home/me"}, "/home/me/.local/share/agent-sidecar"),
        ("linux", {"HOME": "/home/me", "XDG_DATA_HOME": "/data"}, "/data/agent-sidecar"),
        ("linux", {"HOME": "/home/me", "XDG_DATA_HOME": ""}, "/home/me/.local/share/agent-sidecar"),
        ("linux", {}, "/.local/share/agent-sidecar"),
        ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Application Support/agent-sidecar"),
        ("win32", {"LOCALAPPDATA": r"C:\Users\me\L"}, r"C:\Users\me\L\agent-sidecar"),
        ("win32", {"APPDATA": r"C:\Users\me\R"}, r"C:\Users\me\R\agent-sidecar"),
        ("win32", {"USERPROFILE": r"D:\me"}, r"D:\me\agent-sidecar"),
        ("win32", {}, r"C:\agent-sidecar"),
    ],
)
def test_data_is_kept_where_the_platform_keeps_it(
    platform: str, env: dict[str, str], folder: str
) -> None:
    assert str(data_folder(platform, env)) == folder


@proves("PATHS")
@pytest.mark.parametrize(
    ("platform", "env", "file"),
    [
        ("linux", {"HOME": "/home/me"}, "/home/me/.config/agent-sidecar/settings.toml"),
        ("linux", {"XDG_CONFIG_HOME": "/conf"}, "/conf/agent-sidecar/settings.toml"),
        (
            "darwin",
            {"HOME": "/Users/me"},
            "/Users/me/Library/Application Support/agent-sidecar/settings.toml",
        ),
        ("win32", {"LOCALAPPDATA": r"C:\L"}, r"C:\L\agent-sidecar\settings.toml"),
    ],
)
def test_settings_are_read_from_where_the_platform_keeps_them(
    platform: str, env: dict[str, str], file: str
) -> None:
    assert str(config_file(platform, env)) == file


def test_the_defaults_are_this_users_own() -> None:
    assert default_store().name == "conversations.db"
    assert default_config().name == "settings.toml"
    assert default_store().is_absolute()
