"""How a tool call is shown to an ACP editor."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.conversations import Approval, ApprovalState
from sidecar.faces.acp.tools import absolute_of, asked_of, changes_of, described, title_of
from sidecar.tools.editing import diff_of
from tests.requirements import proves

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX paths")


def question(text: str, tool: str = "edit") -> Approval:
    return Approval(
        approval_id="q",
        conversation_id="c",
        turn_id="t",
        tool_call_id="1",
        tool=tool,
        title="Edit",
        text=text,
        content_hash="",
        state=ApprovalState.PENDING,
        requested_at=0,
        expires_at=0,
    )


@posix
@pytest.mark.parametrize(
    ("path", "roots", "absolute"),
    [
        ("a/b.py", ["/w"], "/w/a/b.py"),
        ("/x/y", ["/w"], "/x/y"),
        ("w/a", ["/w"], "/w/w/a"),
        ("two/a", ["/one", "/p/two"], "/p/two/a"),
        ("a", ["/one", "/p/two"], "/one/a"),
        ("a", [], None),
    ],
)
def test_a_path_is_where_the_tool_looks(path: str, roots: list[str], absolute: str | None) -> None:
    assert absolute_of(path, roots) == absolute


@posix
@proves("ACP")
@pytest.mark.parametrize(
    ("name", "arguments", "kind", "content"),
    [
        ("read", {"path": "a", "startLine": 3}, "read", None),
        ("edit", {"path": "a", "oldText": "x", "newText": "y"}, "edit", [("x", "y")]),
        ("create", {"path": "a", "text": "y"}, "edit", [(None, "y")]),
        ("patch", {"path": "a", "diff": "@@ -1 +1 @@\n-x\n+y\n"}, "edit", [("x\n", "y\n")]),
        ("delete", {"path": "a"}, "delete", None),
        ("run", {"command": "ls  -l\n"}, "execute", None),
        ("s__look", {}, "other", None),
        ("edit", {"path": 7, "oldText": None}, "edit", None),
    ],
)
def test_a_call_has_a_kind_a_place_and_its_change(
    name: str, arguments: dict[str, Any], kind: str, content: Any
) -> None:
    shown = described(name, arguments, ["/w"])
    assert shown["kind"] == kind
    if isinstance(arguments.get("path"), str):
        assert shown["locations"][0]["path"] == "/w/a"
    changes = [(c["oldText"], c["newText"]) for c in shown.get("content", [])]
    assert changes == (content or [])


def test_a_title_is_one_short_line() -> None:
    assert title_of("run", {"command": "ls  -l\n\nrm x"}) == "run ls -l rm x"
    assert len(title_of("run", {"command": "x" * 999})) == 120
    assert title_of("plan", {}) == "plan"


TEXTS = st.text(st.sampled_from("ab\n\r\u2028 +-@\\"), max_size=12)


@posix
@proves("ACP")
@given(TEXTS, TEXTS)
def test_a_question_shows_the_change_it_is_about(old: str, new: str) -> None:
    """All that goes and comes is in its parts, in order."""
    diff = diff_of("a.txt", old, new)
    shown = asked_of(question(diff), ["/w"])
    if not diff:
        assert shown[0]["type"] == "content"
        return
    assert {part["path"] for part in shown} == {"/w/a.txt"}
    # A short text is one part with all of it around, so the whole of it is there.
    assert "".join(part["oldText"] or "" for part in shown) == old
    assert "".join(part["newText"] for part in shown) == new


def test_what_is_no_change_is_shown_word_by_word() -> None:
    for text in ("rm -rf build", "--- a/x", ""):
        (shown,) = asked_of(question(text, "run"), ["/w"])
        assert shown == {"type": "content", "content": {"type": "text", "text": text}}
    assert changes_of("patch", {"diff": "nonsense"}, "/w/a") == []
