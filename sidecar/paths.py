"""Where things are kept, by platform. Pure functions of a platform and an environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

APP = "agent-sidecar"


def data_folder(platform: str, env: Mapping[str, str]) -> PurePath:
    """The user's own data folder for this product."""
    if platform == "win32":
        base = env.get("LOCALAPPDATA") or env.get("APPDATA") or env.get("USERPROFILE", "C:\\")
        return PureWindowsPath(base) / APP
    home = PurePosixPath(env.get("HOME") or "/")
    if platform == "darwin":
        return home / "Library" / "Application Support" / APP
    return PurePosixPath(env.get("XDG_DATA_HOME") or home / ".local" / "share") / APP


def config_file(platform: str, env: Mapping[str, str]) -> PurePath:
    """The settings file that the command line reads."""
    if platform in ("win32", "darwin"):
        return data_folder(platform, env) / "settings.toml"
    home = PurePosixPath(env.get("HOME") or "/")
    return PurePosixPath(env.get("XDG_CONFIG_HOME") or home / ".config") / APP / "settings.toml"


def cache_folder(platform: str, env: Mapping[str, str]) -> PurePath:
    """For what can be had again: it may be deleted at any time."""
    if platform in ("win32", "darwin"):
        return data_folder(platform, env) / "cache"
    home = PurePosixPath(env.get("HOME") or "/")
    return PurePosixPath(env.get("XDG_CACHE_HOME") or home / ".cache") / APP


def default_cache() -> Path:
    return Path(cache_folder(sys.platform, os.environ))


def default_store() -> Path:
    return Path(data_folder(sys.platform, os.environ)) / "conversations.db"


def default_config() -> Path:
    return Path(config_file(sys.platform, os.environ))
