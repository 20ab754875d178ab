"""The fast version of `approvals`, and the ways of asking that it has no need of (P7, P9)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import raw_client
from tests.e2e.raw_client import RawClient
from tests.faults.approvals import NAME, PROGRAM, WAYS, experiment, type_of
from tests.faults.harness import options, patched
from tests.faults.needs import needs
from tests.requirements import proves

pytestmark = needs()


@proves("P1", "P2", "P9")
def test_an_effect_happens_as_often_as_it_was_allowed(tmp_path: Path) -> None:
    seen = experiment(tmp_path, len(WAYS), random.Random(1))
    assert len(seen) == len(WAYS)


MUTANTS = {
    "the hash is not compared": """
from sidecar.stores import approvals
answer = approvals.answer
def careless(write, approval_id, decision, content_hash, always):
    found = approvals._get(write.conn, approval_id)
    return answer(write, approval_id, decision, found.content_hash, always)
approvals.answer = careless
""",
    "what has changed since is not looked at": """
from sidecar import gate
gate.content_hash = lambda call, subject: Same()
class Same(str):
    def __ne__(self, other): return False
""",
    "a later answer counts": """
from sidecar.conversations import ApprovalState
from sidecar.stores import approvals
get = approvals._get
def always_open(conn, approval_id):
    import msgspec
    return msgspec.structs.replace(get(conn, approval_id), state=ApprovalState.PENDING)
answer = approvals.answer
def reopened(*args):
    approvals._get = always_open
    try: return answer(*args)
    finally: approvals._get = get
approvals.answer = reopened
""",
    "questions outlive their turn": """
from sidecar.stores import approvals
approvals.expire = lambda *_: None
""",
    "everything is allowed": """
from sidecar import approvals, gate
gate.verdict_in = lambda *_: approvals.Verdict.ALLOW
""",
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_defence_that_is_missing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(raw_client, "DEADLINE", 4.0)
    with pytest.raises(AssertionError):
        experiment(tmp_path, len(WAYS), random.Random(1), MUTANTS[name])


# ---- asking the owner's client -------------------------------------------------------------

CAPABLE = {"experimental": {"sidecar": {"permissionRequest": True}}}


@pytest.fixture
def window(tmp_path: Path) -> Iterator[RawClient]:
    """One whose client says that it can be asked."""
    (tmp_path / "state").write_text("0")
    (tmp_path / "effects").touch()
    program = PROGRAM.format(folder=str(tmp_path))
    client = RawClient(patched(tmp_path / "store" / "c.db", program))
    client.start(options(script=[], lingerTimeout=5_000), capabilities=CAPABLE)
    client.call("conversation/create", {"conversationId": NAME, "mode": "build"})
    yield client
    client.dispose()


def asked(client: RawClient, text: str = 'tool write {"n": 1}') -> tuple[str, dict[str, object]]:
    prompt = client.call("message/enqueue", {"conversationId": NAME, "input": text})["messageId"]
    return prompt, client.wait_for(lambda m: m.get("method") == "permission/request")


@proves("P9")
@pytest.mark.parametrize(("decision", "effects"), [("allow", "1\n"), ("deny", "")])
def test_the_owner_s_client_is_asked_and_its_answer_counts(
    window: RawClient, tmp_path: Path, decision: str, effects: str
) -> None:
    prompt, request = asked(window)
    question: dict[str, object] = request["params"]  # type: ignore[assignment]
    answer = {"decision": decision, "contentHash": question["contentHash"]}
    window.send({"jsonrpc": "2.0", "id": request["id"], "result": answer})
    window.event(NAME, "turnEnded", messageId=prompt)
    assert (tmp_path / "effects").read_text() == effects


@proves("P9")
def test_a_question_that_is_answered_elsewhere_is_withdrawn(window: RawClient) -> None:
    prompt, request = asked(window)
    question: dict[str, str] = request["params"]  # type: ignore[assignment]
    params = {
        "approvalId": question["approvalId"],
        "decision": "deny",
        "contentHash": question["contentHash"],
    }
    window.call("approval/respond", params)
    window.event(NAME, "turnEnded", messageId=prompt)
    assert window.notification("$/cancelRequest") == {"id": request["id"]}
    answer = {"decision": "allow", "contentHash": question["contentHash"]}
    window.send({"jsonrpc": "2.0", "id": request["id"], "result": answer})  # too late
    window.ping()
    assert type_of(window.ask("approval/respond", params | {"decision": "allow"})) == "CONFLICT"


@proves("P9")
@pytest.mark.parametrize(
    "answer",
    [
        {"result": {"decision": "allow", "contentHash": "0" * 64}},
        {"result": {"decision": "yes"}},
        {"result": None},
        {"error": {"code": -32601, "message": "no"}},
    ],
    ids=str,
)
def test_an_answer_that_makes_no_sense_leaves_the_question_open(
    window: RawClient, tmp_path: Path, answer: dict[str, object]
) -> None:
    _, request = asked(window)
    window.send({"jsonrpc": "2.0", "id": request["id"], **answer})
    window.ping()
    assert len(window.call("approval/list")["approvals"]) == 1
    assert window.call("agent/cancel", {"conversationId": NAME})["cancelled"]
    assert (tmp_path / "effects").read_text() == ""


@proves("P3")
def test_a_question_that_waits_reappears_for_a_view_that_comes_back(window: RawClient) -> None:
    _, request = asked(window)
    window.call("webview/preserve", {"webviewId": "w"})
    window.call("webview/restore", {"webviewId": "v"})
    window.call("conversation/subscribe", {"conversationId": NAME})
    (found,) = window.call("approval/list", {"conversationId": NAME})["approvals"]
    assert found == request["params"]


@proves("P7", "P9")
def test_nobody_can_approve_anything_once_the_editor_is_gone(
    window: RawClient, tmp_path: Path
) -> None:
    asked(window)
    window.close_stdin()
    assert window.exit_code() == 0
    assert (tmp_path / "effects").read_text() == ""
    resolved = [e for e in window.events(NAME) if e["type"] == "approvalResolved"]
    assert [e["state"] for e in resolved] == ["expired"]
