"""What is said back of what a client said."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest

from sidecar.faces.shown import shown, without_values
from tests.requirements import proves

KEYS = [
    "sk-proj-abcdefghijklmnopqrst",
    "AKIAIOSFODNNEXAMPLE",
    "wJalrXUtnFEMIKMDENGbPxRfiCYEXAMPLEKEY",
    "AIzaSyD4",
    "-----BEGIN PRIVATE KEY-----\nabc",
    "x` - at `$.y",
    "a' - at `$.b`",
]


@pytest.mark.parametrize(
    "name", ["settings/update", "maxAttempts", "$/cancelRequest", "a.b", "x_y"]
)
def test_a_name_that_reads_like_one_is_shown(name: str) -> None:
    assert shown(name) == name


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["chat", "build"] = "chat"
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1


class Outer(msgspec.Struct):
    inner: Inner


@proves("P10")
@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_not_said_back(key: str) -> None:
    assert shown(key) != key
    for given in ({"inner": {key: 1}}, {"inner": {"mode": key}}, {"inner": {"limit": key}}):
        with pytest.raises(msgspec.ValidationError) as failed:
            msgspec.convert(given, Outer)
        said = without_values(str(failed.value))
        assert key not in said
        assert "`$.inner" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"inner": {"mood": 1}}, "Object contains unknown field `mood` - at `$.inner`"),
        ({"inner": {"mode": "x"}}, "Invalid enum value - at `$.inner.mode`"),
        ({"inner": {"limit": 0}}, "Expected `int` >= 1 - at `$.inner.limit`"),
        ({}, "Object missing required field `inner`"),
    ],
)
def test_what_is_wrong_is_still_said(given: object, said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as failed:
        msgspec.convert(given, Outer)
    assert without_values(str(failed.value)) == said
