"""Every method through the real process, and what must hold across reloads, restarts and disks.

Results and notifications are checked against `schemas/` by the client itself.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.wire.methods import METHODS
from tests.e2e import acting
from tests.e2e.raw_client import Message, RawClient, RpcFailed, command
from tests.faults.mounts import MIB, fill, needs_mounts, read_only, small_disk

Spawn = Callable[..., RawClient]

TALKS: dict[str, Any] = {"settings": {"provider": "scripted"}}
CAPABILITY = {"name": "lint", "description": "Looks for faults.", "version": "2"}


def text_of(message: Message) -> str:
    return "".join(part["text"] for part in message["parts"] if part["kind"] == "text")


def texts(client: RawClient, conversation_id: str) -> list[str]:
    """The transcript, oldest first."""
    params = {"conversationId": conversation_id, "limit": 500}
    return [text_of(m) for m in client.call("conversation/get", params)["page"]["messages"]]


def new(client: RawClient, **params: object) -> str:
    made: Message = client.call("conversation/create", params)
    return str(made["conversationId"])


def say(client: RawClient, conversation_id: str, text: str, **params: object) -> Message:
    params |= {"conversationId": conversation_id, "input": text}
    result: Message = client.call("message/send", params)
    return result


def hang(client: RawClient, conversation_id: str) -> tuple[int | str, Message]:
    """A turn that does not end by itself: the id of its request, and its `turnStarted`."""
    after = len(client.frames)
    params = {"conversationId": conversation_id, "input": "hang"}
    msg_id = client.start_request("message/send", params)
    return msg_id, client.event(conversation_id, "turnStarted", after=after)


# ---- a scenario per method -----------------------------------------------------------------

SCENARIOS: dict[str, Callable[[RawClient], None]] = dict(acting.SCENARIOS)


def of(method: str) -> Callable[[Callable[[RawClient], None]], Callable[[RawClient], None]]:
    def note(scenario: Callable[[RawClient], None]) -> Callable[[RawClient], None]:
        SCENARIOS[method] = scenario
        return scenario

    return note


@of("agent/getOrCreate")
def _(client: RawClient) -> None:
    first = client.call("agent/getOrCreate", {"conversationId": "goc", "mode": "build"})
    assert (first["mode"], first["state"], first["ownedHere"]) == ("build", "IDLE", True)
    again = client.call("agent/getOrCreate", {"conversationId": "goc"})
    assert again["createdAt"] == first["createdAt"]
    assert again["mode"] == "build"


@of("agent/dispose")
def _(client: RawClient) -> None:
    c = new(client)
    client.call("agent/getOrCreate", {"conversationId": c})
    assert client.call("agent/dispose", {"conversationId": c}) == {"ok": True}
    assert client.call("agent/dispose", {"conversationId": c}) == {"ok": True}
    assert client.call("agent/has", {"conversationId": c}) == {"exists": False}
    say(client, c, "echo back again")
    assert texts(client, c)[-1] == "back again"


@of("agent/disposeAll")
def _(client: RawClient) -> None:
    for c in (new(client), new(client)):
        client.call("agent/getOrCreate", {"conversationId": c})
    live = client.call("agent/count")["count"]
    assert live >= 2
    assert client.call("agent/disposeAll") == {"disposed": live, "failed": []}
    assert client.call("agent/count") == {"count": 0}


@of("agent/reinitialize")
def _(client: RawClient) -> None:
    client.call("agent/disposeAll")
    idle, busy = new(client), new(client)
    client.call("agent/getOrCreate", {"conversationId": idle})
    msg_id, _ = hang(client, busy)
    assert client.call("agent/reinitialize") == {"reinitialized": 1, "deferred": 1}
    client.cancel(msg_id)
    assert client.result(msg_id)["stopReason"] == "cancelled"


@of("agent/abortAndRestart")
def _(client: RawClient) -> None:
    c = new(client, mode="feedback")
    msg_id, _ = hang(client, c)
    info = client.call("agent/abortAndRestart", {"conversationId": c})
    assert (info["mode"], info["isProcessing"]) == ("feedback", False)
    assert client.result(msg_id)["stopReason"] == "cancelled"
    say(client, c, "echo fresh")
    assert texts(client, c)[-1] == "fresh"


@of("agent/cancel")
def _(client: RawClient) -> None:
    c = new(client)
    assert client.call("agent/cancel", {"conversationId": c}) == {"cancelled": False}
    msg_id, _ = hang(client, c)
    waiting = client.call("message/enqueue", {"conversationId": c, "input": "echo next"})
    assert client.call("agent/cancel", {"conversationId": c}) == {"cancelled": True}
    assert client.result(msg_id)["stopReason"] == "cancelled"
    client.event(c, "turnEnded", messageId=waiting["messageId"], stopReason="endTurn")


@of("agent/count")
def _(client: RawClient) -> None:
    before = client.call("agent/count")["count"]
    client.call("agent/getOrCreate", {"conversationId": new(client)})
    assert client.call("agent/count")["count"] == before + 1


@of("agent/has")
def _(client: RawClient) -> None:
    assert client.call("agent/has", {"conversationId": "nobody"}) == {"exists": False}
    c = new(client)
    client.call("agent/getOrCreate", {"conversationId": c})
    assert client.call("agent/has", {"conversationId": c}) == {"exists": True}


@of("agent/list")
def _(client: RawClient) -> None:
    client.call("agent/disposeAll")
    c = new(client)
    client.call("agent/getOrCreate", {"conversationId": c})
    [agent] = client.call("agent/list")["agents"]
    assert agent["conversationId"] == c


@of("agent/validateCommunication")
def _(client: RawClient) -> None:
    a, b = new(client), new(client)
    both = {"fromConversationId": a, "toConversationId": b}
    assert client.call("agent/validateCommunication", both)["allowed"] is False
    for c in (a, b):
        client.call("agent/getOrCreate", {"conversationId": c})
    answer = client.call("agent/validateCommunication", both)
    assert answer["allowed"] is True
    lacking = client.call("agent/validateCommunication", both | {"capability": "sing"})
    assert lacking["allowed"] is False
    assert lacking["reason"]


@of("agent/sendTo")
def _(client: RawClient) -> None:
    a, b = new(client), new(client)
    for c in (a, b):
        client.call("agent/getOrCreate", {"conversationId": c})
    params = {"fromConversationId": a, "toConversationId": b, "input": "echo from a"}
    receipt = client.call("agent/sendTo", params)
    client.event(b, "turnEnded", messageId=receipt["messageId"])
    assert "from a" in texts(client, b)[-1]
    # The answer comes back as an entry of a's queue, and a has its turn with it.
    client.event(a, "turnEnded")
    assert "from a" in texts(client, a)[0]


@of("agent/grant")
def _(client: RawClient) -> None:
    a, b = new(client), new(client)
    both = {"fromConversationId": a, "toConversationId": b}
    assert client.call("agent/grant", both) == {"ok": True}


@of("agent/revoke")
def _(client: RawClient) -> None:
    a, b = new(client), new(client)
    both = {"fromConversationId": a, "toConversationId": b, "capability": "lint"}
    assert client.call("agent/grant", both) == {"ok": True}
    assert client.call("agent/revoke", both) == {"ok": True}
    assert client.call("agent/revoke", both) == {"ok": True}


@of("message/send")
def _(client: RawClient) -> None:
    c = new(client)
    result = say(
        client,
        c,
        "think hello",
        contextFiles=[{"uri": "file:///a.py", "text": "x = 1"}],
        settings={"temperature": 0.5},
        systemInstruction="Be brief.",
    )
    assert result["stopReason"] == "endTurn"
    page = client.call("conversation/get", {"conversationId": c})["page"]
    assert [m["messageId"] for m in page["messages"]] == [result["messageId"], result["replyId"]]


@of("message/enqueue")
def _(client: RawClient) -> None:
    c = new(client)
    receipt = client.call("message/enqueue", {"conversationId": c, "input": "echo later"})
    assert receipt["position"] == 0
    client.event(c, "turnEnded", messageId=receipt["messageId"])
    assert texts(client, c) == ["echo later", "later"]


@of("message/queue")
def _(client: RawClient) -> None:
    c = new(client)
    assert client.call("message/queue", {"conversationId": c}) == {"entries": []}
    msg_id, started = hang(client, c)
    waiting = client.call("message/enqueue", {"conversationId": c, "input": "echo next"})
    running, queued = client.call("message/queue", {"conversationId": c})["entries"]
    assert (running["messageId"], running["state"]) == (started["messageId"], "running")
    assert (queued["messageId"], queued["state"]) == (waiting["messageId"], "queued")
    client.cancel(msg_id)
    client.event(c, "turnEnded", messageId=waiting["messageId"])


def busy_with_two_waiting(client: RawClient) -> tuple[str, int | str, list[str]]:
    c = new(client)
    msg_id, _ = hang(client, c)
    receipts = [
        client.call("message/enqueue", {"conversationId": c, "input": f"echo {text}"})
        for text in ("one", "two")
    ]
    return c, msg_id, [receipt["messageId"] for receipt in receipts]


@of("message/update")
def _(client: RawClient) -> None:
    c, msg_id, [one, two] = busy_with_two_waiting(client)
    entry = client.call("message/update", {"messageId": one, "input": "echo uno"})
    assert entry["prompt"]["input"] == "echo uno"
    client.cancel(msg_id)
    client.event(c, "turnEnded", messageId=two)
    assert texts(client, c)[2:] == ["echo uno", "uno", "echo two", "two"]


@of("message/remove")
def _(client: RawClient) -> None:
    c, msg_id, [one, two] = busy_with_two_waiting(client)
    removed = client.call("message/remove", {"messageId": one})
    assert (removed["messageId"], removed["stopReason"]) == (one, "cancelled")
    client.event(c, "turnEnded", messageId=one, stopReason="cancelled")
    running = client.call("message/queue", {"conversationId": c})["entries"][0]["messageId"]
    error = client.error("message/remove", {"messageId": running})
    assert error["data"]["type"] == "INVALID_STATE"
    client.cancel(msg_id)
    client.event(c, "turnEnded", messageId=two)
    assert texts(client, c)[2:] == ["echo two", "two"]


@of("message/reorder")
def _(client: RawClient) -> None:
    c, msg_id, [one, two] = busy_with_two_waiting(client)
    entries = client.call("message/reorder", {"messageId": two, "position": 0})["entries"]
    assert [e["messageId"] for e in entries if e["state"] == "queued"] == [two, one]
    client.cancel(msg_id)
    client.event(c, "turnEnded", messageId=one)
    assert texts(client, c)[2:] == ["echo two", "two", "echo one", "one"]


@of("message/retry")
def _(client: RawClient) -> None:
    c = new(client)
    error = client.error("message/send", {"conversationId": c, "input": "fail UNAUTHORIZED"})
    assert error["data"]["type"] == "UNAUTHORIZED"
    failed = client.event(c, "turnEnded", stopReason="error")
    receipt = client.call("message/retry", {"messageId": failed["messageId"]})
    assert receipt["messageId"] != failed["messageId"]
    client.event(c, "turnEnded", messageId=receipt["messageId"], stopReason="error")


@of("message/steer")
def _(client: RawClient) -> None:
    c = new(client)
    msg_id, started = hang(client, c)
    params = {"conversationId": c, "text": "and quickly", "expectedTurnId": started["turnId"]}
    assert client.call("message/steer", params) == {"ok": True}
    client.event(c, "turnSteered", text="and quickly")
    client.cancel(msg_id)
    client.result(msg_id)
    error = client.error("message/steer", params)
    assert error["data"]["type"] == "CONFLICT"


@of("conversation/switch")
def _(client: RawClient) -> None:
    a, b = new(client), new(client)
    say(client, b, "echo in b")
    shown = client.call(
        "conversation/switch", {"fromConversationId": a, "toConversationId": b, "mode": "build"}
    )
    assert shown["agent"]["mode"] == "build"
    assert [text_of(m) for m in shown["page"]["messages"]] == ["echo in b", "in b"]
    assert shown["lastSeq"] == shown["conversation"]["lastSeq"]


@of("conversation/create")
def _(client: RawClient) -> None:
    params = {"title": "Mine", "mode": "feedback", "requestKey": "create-once"}
    made = client.call("conversation/create", params)
    assert (made["title"], made["mode"]) == ("Mine", "feedback")
    assert client.call("conversation/create", params)["conversationId"] == made["conversationId"]
    error = client.error("conversation/create", params | {"title": "Other"})
    assert error["data"]["type"] == "CONFLICT"


@of("conversation/list")
def _(client: RawClient) -> None:
    old, newest = new(client), new(client)
    first = client.call("conversation/list", {"limit": 1})
    assert [c["conversationId"] for c in first["conversations"]] == [newest]
    second = client.call("conversation/list", {"limit": 1, "cursor": first["cursor"]})
    assert [c["conversationId"] for c in second["conversations"]] == [old]
    client.call("conversation/delete", {"conversationId": old})
    changes = client.call("conversation/list", {"sinceChange": first["changeNo"]})
    assert changes["deleted"] == [old]
    assert client.notification("conversations/changed")["changeNo"] > 0


@of("conversation/get")
def _(client: RawClient) -> None:
    c = new(client)
    for number in range(3):
        say(client, c, f"echo {number}")
    newest = client.call("conversation/get", {"conversationId": c, "limit": 4})
    assert [text_of(m) for m in newest["page"]["messages"]] == ["echo 1", "1", "echo 2", "2"]
    params = {"conversationId": c, "limit": 4, "cursor": newest["page"]["pageCursor"]}
    older = client.call("conversation/get", params)["page"]
    assert [text_of(m) for m in older["messages"]] == ["echo 0", "0"]
    assert older.get("pageCursor") is None


@of("conversation/rename")
def _(client: RawClient) -> None:
    c = new(client)
    renamed = client.call("conversation/rename", {"conversationId": c, "title": "Grüße 🙂"})
    assert renamed["title"] == "Grüße 🙂"
    client.event(c, "titleChanged", title="Grüße 🙂")
    cleared = client.call("conversation/rename", {"conversationId": c, "title": None})
    assert cleared.get("title") is None


@of("conversation/setMode")
def _(client: RawClient) -> None:
    c = new(client)
    changed = client.call("conversation/setMode", {"conversationId": c, "mode": "build"})
    assert changed["mode"] == "build"
    client.event(c, "modeChanged", mode="build")


@of("conversation/archive")
def _(client: RawClient) -> None:
    c = new(client)
    assert client.call("conversation/archive", {"conversationId": c})["archivedAt"] > 0
    shown = client.call("conversation/list")["conversations"]
    assert c not in [row["conversationId"] for row in shown]
    put_away = client.call("conversation/list", {"archived": True})["conversations"]
    assert c in [row["conversationId"] for row in put_away]
    back = client.call("conversation/archive", {"conversationId": c, "archived": False})
    assert back.get("archivedAt") is None


@of("conversation/delete")
def _(client: RawClient) -> None:
    c = new(client)
    say(client, c, "echo soonforgotten")
    msg_id, _ = hang(client, c)
    after = len(client.frames)
    waiting = client.start_request("message/send", {"conversationId": c, "input": "echo waits"})
    client.event(c, "turnQueued", after=after)
    assert client.call("conversation/delete", {"conversationId": c}) == {"ok": True}
    for answered in (msg_id, waiting):
        assert client.result(answered)["stopReason"] == "cancelled"
    error = client.error("conversation/get", {"conversationId": c})
    assert error["data"]["type"] == "NOT_FOUND"
    assert client.call("conversation/search", {"query": "soonforgotten"}) == {"hits": []}


@of("conversation/search")
def _(client: RawClient) -> None:
    c = new(client, title="Animals")
    say(client, c, "echo the quick brown ocelot")
    hit, *_ = client.call("conversation/search", {"query": "brown ocelot"})["hits"]
    assert (hit["conversationId"], hit["title"]) == (c, "Animals")
    assert "\x02ocelot\x03" in hit["snippet"]
    limited = {"query": "ocelot", "conversationId": new(client)}
    assert client.call("conversation/search", limited)["hits"] == []
    for odd in ('"', "ocelot AND", "*", "(", "ocelot NEAR/", "a:b", "'; DROP TABLE x", "\x00"):
        client.call("conversation/search", {"query": odd})


@of("conversation/fork")
def _(client: RawClient) -> None:
    c = new(client, title="Trunk")
    first = say(client, c, "echo 1")
    say(client, c, "echo 2")
    whole = client.call("conversation/fork", {"conversationId": c, "requestKey": "fork-once"})
    assert whole["forkedFrom"]["conversationId"] == c
    assert texts(client, whole["conversationId"]) == texts(client, c)
    same = client.call("conversation/fork", {"conversationId": c, "requestKey": "fork-once"})
    assert same["conversationId"] == whole["conversationId"]
    params = {"conversationId": c, "toMessageId": first["replyId"], "newConversationId": "branch"}
    assert client.call("conversation/fork", params)["conversationId"] == "branch"
    assert texts(client, "branch") == ["echo 1", "1"]
    say(client, "branch", "echo on its own")
    assert texts(client, c) == ["echo 1", "1", "echo 2", "2"]


@of("conversation/rewind")
def _(client: RawClient) -> None:
    c = new(client)
    first = say(client, c, "echo 1")
    second = say(client, c, "echo unwanted")
    params = {"conversationId": c, "toMessageId": first["replyId"]}
    preview = client.call("conversation/rewind", params | {"preview": True})
    assert preview["hidden"] == [second["messageId"], second["replyId"]]
    assert texts(client, c) == ["echo 1", "1", "echo unwanted", "unwanted"]
    done = client.call("conversation/rewind", params)
    assert done["hidden"] == preview["hidden"]
    client.event(c, "rewound", revision=done["revision"])
    assert texts(client, c) == ["echo 1", "1"]
    assert client.call("conversation/search", {"query": "unwanted"})["hits"] == []
    client.call("conversation/rewind", {"conversationId": c, "toMessageId": None})
    assert texts(client, c) == []


@of("conversation/subscribe")
def _(client: RawClient) -> None:
    c = new(client)
    say(client, c, "echo 1")
    snapshot = client.call("conversation/subscribe", {"conversationId": c})
    assert snapshot["kind"] == "snapshot"
    assert [text_of(m) for m in snapshot["messages"]] == ["echo 1", "1"]
    store_id = client.call("sidecar/status")["store"]["storeId"]
    cursor = {"storeId": store_id, "seq": 1, "revision": snapshot["revision"]}
    replay = client.call("conversation/subscribe", {"conversationId": c, "cursor": cursor})
    assert replay["kind"] == "replay"
    assert [e["seq"] for e in replay["events"]] == list(range(2, snapshot["lastSeq"] + 1))
    for odd in ({"storeId": "another"}, {"revision": 99}, {"seq": 10_000}):
        params = {"conversationId": c, "cursor": cursor | odd}
        assert client.call("conversation/subscribe", params)["kind"] == "snapshot"
    unknown = client.call("conversation/subscribe", {"conversationId": "nobody"})
    assert unknown == {"kind": "missing", "conversationId": "nobody"}


@of("conversation/unsubscribe")
def _(client: RawClient) -> None:
    c = new(client)
    assert client.call("conversation/unsubscribe", {"conversationId": c}) == {"ok": True}
    client.call("conversation/rename", {"conversationId": c, "title": "unheard"})
    client.ping()
    assert client.events(c) == []
    assert client.call("conversation/unsubscribe", {"conversationId": "nobody"}) == {"ok": True}


@of("conversation/takeOver")
def _(client: RawClient) -> None:
    c = new(client)
    assert client.call("conversation/takeOver", {"conversationId": c})["ownedHere"] is True
    forced = client.call("conversation/takeOver", {"conversationId": c, "force": True})
    assert forced["conversationId"] == c


@of("store/prune")
def _(client: RawClient) -> None:
    c = new(client, title="Old")
    client.call("conversation/archive", {"conversationId": c})
    client.call("conversation/unsubscribe", {"conversationId": c})  # in use, it would be kept
    would = client.call("store/prune", {"maxBytes": 1})
    assert would["dryRun"] is True
    assert c in [pruned["conversationId"] for pruned in would["conversations"]]
    assert client.call("conversation/get", {"conversationId": c})["page"]["messages"] == []
    client.call("store/prune", {"maxBytes": 1, "dryRun": False})
    assert client.error("conversation/get", {"conversationId": c})["data"]["type"] == "NOT_FOUND"


@of("conversation/export")
def _(client: RawClient) -> None:
    c = new(client, title="Out")
    say(client, c, "echo ünïcödé 🙂")
    done = client.call("conversation/export", {"conversationId": c, "reason": "a test"})
    assert (done["format"], done["reason"]) == ("json", "a test")
    assert done["size"] == len(done["data"].encode())
    assert json.loads(done["data"])["conversation"]["title"] == "Out"
    params = {"conversationId": c, "format": "markdown"}
    assert "ünïcödé 🙂" in client.call("conversation/export", params)["data"]


@of("conversation/import")
def _(client: RawClient) -> None:
    c = new(client, title="There and back")
    say(client, c, "echo ünïcödé 🙂")
    data = client.call("conversation/export", {"conversationId": c})["data"]
    params = {"data": data, "requestKey": "import-once"}
    made = client.call("conversation/import", params)
    assert made["conversationId"] != c
    assert made["title"] == "There and back"
    assert texts(client, made["conversationId"]) == texts(client, c)
    same = client.call("conversation/import", params)
    assert same["conversationId"] == made["conversationId"]
    for damaged in (data[:-10], data.replace('"role"', '"rule"'), "[]"):
        error = client.error("conversation/import", {"data": damaged})
        assert error["data"]["type"] == "LOAD_FAILED"


def with_capability(client: RawClient) -> str:
    c = new(client)
    client.call("agent/getOrCreate", {"conversationId": c})
    params = {"conversationId": c, "capability": CAPABILITY}
    assert client.call("capability/register", params) == {"ok": True}
    return c


def own_capabilities(client: RawClient, conversation_id: str) -> list[Message]:
    found = client.call("capability/list", {"conversationId": conversation_id})["capabilities"]
    return [capability for capability in found if capability["name"] == "lint"]


@of("capability/register")
def _(client: RawClient) -> None:
    c = with_capability(client)
    newer = {"conversationId": c, "capability": CAPABILITY | {"version": "3"}}
    client.call("capability/register", newer)
    assert [found["version"] for found in own_capabilities(client, c)] == ["3"]


@of("capability/unregister")
def _(client: RawClient) -> None:
    c = with_capability(client)
    params = {"conversationId": c, "name": "lint"}
    assert client.call("capability/unregister", params) == {"ok": True}
    assert client.call("capability/unregister", params) == {"ok": True}
    assert own_capabilities(client, c) == []


@of("capability/list")
def _(client: RawClient) -> None:
    c = with_capability(client)
    [found] = own_capabilities(client, c)
    assert found["description"] == CAPABILITY["description"]
    unknown = client.call("capability/list", {"conversationId": "nobody"})
    assert unknown == {"capabilities": []}


@of("capability/query")
def _(client: RawClient) -> None:
    c = with_capability(client)
    asked = {"conversationId": c, "name": "lint"}
    assert client.call("capability/query", asked) == {"available": True}
    assert client.call("capability/query", asked | {"name": "sing"}) == {"available": False}
    nobody = asked | {"conversationId": "nobody"}
    assert client.call("capability/query", nobody) == {"available": False}


@of("capability/find")
def _(client: RawClient) -> None:
    c = with_capability(client)
    assert c in client.call("capability/find", {"name": "lint"})["conversationIds"]
    assert client.call("capability/find", {"name": "sing"}) == {"conversationIds": []}


@of("approval/list")
def _(client: RawClient) -> None:
    c = new(client)
    assert client.call("approval/list", {"conversationId": c}) == {"approvals": []}
    assert client.call("approval/list") == {"approvals": []}


@of("approval/respond")
def _(client: RawClient) -> None:
    # What it does to a question that is there: tests/faults/test_approvals.py.
    params = {"approvalId": "nothing", "decision": "allow", "contentHash": "0" * 64}
    assert client.error("approval/respond", params)["data"]["type"] == "NOT_FOUND"


@of("settings/update")
def _(client: RawClient) -> None:
    c = new(client)
    say(client, c, "echo before")
    done = client.call("settings/update", {"settings": {"logLevel": "warning"}})
    assert (done["critical"], done["reinitialized"]) == (False, 0)
    say(client, c, "echo between")
    done = client.call("settings/update", {"settings": {"provider": "offline"}})
    assert done["critical"] is True
    assert done["reinitialized"] >= 1
    say(client, c, "help")
    assert "offline" in texts(client, c)[-1]
    client.call("settings/update", {"settings": {"provider": "scripted", "logLevel": "info"}})
    say(client, c, "echo after")
    assert texts(client, c)[:2] == ["echo before", "before"]
    assert texts(client, c)[-1] == "after"


@of("settings/get")
def _(client: RawClient) -> None:
    shown = client.call("settings/get")
    assert shown["settings"]["provider"] == "scripted"
    assert shown["secretsPresent"] == []
    assert shown["problems"] == []


@of("webview/preserve")
def _(client: RawClient) -> None:
    c = with_capability(client)
    say(client, c, "echo kept")
    kept = client.call("webview/preserve", {"webviewId": "w"})
    [state] = [s for s in kept["states"] if s["conversationId"] == c]
    assert (state["mode"], state["messageCount"]) == ("chat", 2)
    assert "lint" in [capability["name"] for capability in state["capabilities"]]
    assert kept["failed"] == []


@of("webview/restore")
def _(client: RawClient) -> None:
    c = new(client)
    say(client, c, "echo kept")
    states = client.call("webview/preserve", {"webviewId": "w"})["states"]
    back = client.call(
        "webview/restore",
        {
            "webviewId": "w",
            "cursors": [{"conversationId": "nobody"}],
            "preservedStates": [{"conversationId": s["conversationId"]} for s in states],
        },
    )
    assert back["missing"] == ["nobody"]
    [shown] = [r for r in back["restored"] if r["conversationId"] == c]
    assert [text_of(m) for m in shown["messages"]] == ["echo kept", "kept"]
    say(client, c, "echo live again")
    client.event(c, "turnEnded")


@of("sidecar/status")
def _(client: RawClient) -> None:
    status = client.call("sidecar/status")
    assert status["store"]["size"] > 0
    assert status["provider"] == {"name": "scripted", "ready": True}
    assert status["maxActiveAgents"] == 10


@of("sidecar/metrics")
def _(client: RawClient) -> None:
    say(client, new(client), "echo measured")
    metrics = client.call("sidecar/metrics")
    assert {"message/send", "conversation/create"} <= {m["method"] for m in metrics["methods"]}
    assert metrics["rssBytes"] > 1_000_000


@of("rpc.discover")
def _(client: RawClient) -> None:
    document = client.call("rpc.discover")
    assert {m["name"] for m in document["methods"]} == {m.name for m in METHODS}


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RawClient]]:
    """The process of the scenarios; a second one only if the first died of something."""
    clients: list[RawClient] = []
    yield clients
    for client in clients:
        client.dispose()
    for client in clients:
        client.check_promises()


@pytest.fixture
def client(clients: list[RawClient], tmp_path_factory: pytest.TempPathFactory) -> RawClient:
    if not clients or clients[-1].process.poll() is not None:
        store = tmp_path_factory.mktemp("scenarios") / "conversations.db"
        clients.append(RawClient(command(store)))
        clients[-1].start(TALKS)
    return clients[-1]


@pytest.mark.parametrize("method", SCENARIOS)
def test_a_scenario_of(client: RawClient, method: str) -> None:
    SCENARIOS[method](client)
    assert method in client.methods_asked
    client.ping()


def test_every_method_has_a_scenario() -> None:
    assert set(SCENARIOS) == {method.name for method in METHODS}


# ---- events and answers --------------------------------------------------------------------


def test_the_events_of_a_turn_precede_its_answer(client: RawClient) -> None:
    c = new(client)
    after = len(client.frames)
    result = say(client, c, "think it over")
    answered = client.position(lambda m: m.get("result") == result)
    types = [
        m["params"]["type"]
        for m in client.frames[after:answered]
        if m.get("method") == "conversation/event" and m["params"]["conversationId"] == c
    ]
    assert [t for t in types if t not in ("delta", "titleChanged", "usage")] == [
        "turnQueued",
        "turnStarted",
        "messageCompleted",
        "messageStarted",
        "messageCompleted",
        "turnEnded",
    ]
    assert "delta" in types
    seqs = [e["seq"] for e in client.events(c) if e["type"] != "delta"]
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_prompt_cancelled_before_its_commit_leaves_nothing(client: RawClient) -> None:
    c = new(client)
    params = {"conversationId": c, "input": "echo never"}
    client.send(
        {"jsonrpc": "2.0", "id": "early", "method": "message/send", "params": params},
        {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": "early"}},
    )
    assert client.response("early")["error"]["code"] == -32800
    assert texts(client, c) == []
    assert client.call("message/queue", {"conversationId": c}) == {"entries": []}


def test_a_running_prompt_that_is_cancelled_keeps_its_text(client: RawClient) -> None:
    c = new(client)
    msg_id = client.start_request("message/send", {"conversationId": c, "input": "repeat 9999 x"})
    client.event(c, "delta")
    client.cancel(msg_id)
    assert client.result(msg_id)["stopReason"] == "cancelled"
    kept = client.call("conversation/get", {"conversationId": c})["page"]["messages"][-1]
    assert kept["status"] == "cancelled"
    streamed = "".join(e["text"] for e in client.events(c) if e["type"] == "delta")
    assert text_of(kept) == streamed


def test_many_conversations_at_once_are_each_answered(client: RawClient) -> None:
    names = [new(client) for _ in range(20)]
    asked = {
        c: client.start_request("message/send", {"conversationId": c, "input": f"echo {c}"})
        for c in names
    }
    for c, msg_id in asked.items():
        assert client.result(msg_id)["stopReason"] == "endTurn"
        assert texts(client, c)[-1] == c


# ---- restarts ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["goodbye", "kill"])
def test_a_repeated_key_gets_the_first_result_after_a_restart(spawn: Spawn, end: str) -> None:
    client = spawn()
    client.start(TALKS)
    made = client.call("conversation/create", {"requestKey": "k-create"})
    c = made["conversationId"]
    first = say(client, c, "echo once", requestKey="k-send")
    client.kill() if end == "kill" else client.shut_down()
    again = spawn()
    again.start(TALKS)
    repeated = again.call("conversation/create", {"requestKey": "k-create"})
    assert repeated["conversationId"] == c
    assert say(again, c, "echo once", requestKey="k-send") == first
    receipt = again.call(
        "message/enqueue", {"conversationId": c, "input": "echo once", "requestKey": "k-send"}
    )
    assert (receipt["messageId"], receipt["duplicate"]) == (first["messageId"], True)
    assert texts(again, c) == ["echo once", "once"]
    other = {"conversationId": c, "input": "echo twice", "requestKey": "k-send"}
    assert again.error("message/send", other)["data"]["type"] == "CONFLICT"


def test_a_key_whose_turn_still_runs_waits_for_the_same_end(client: RawClient) -> None:
    c = new(client)
    params = {"conversationId": c, "input": "hang", "requestKey": "k"}
    after = len(client.frames)
    first = client.start_request("message/send", params)
    client.event(c, "turnStarted", after=after)
    second = client.start_request("message/send", params)
    client.ping()
    client.cancel(first)
    assert client.result(first) == client.result(second)
    assert len(texts(client, c)) == 2


def test_a_restart_shows_everything_as_it_was(spawn: Spawn) -> None:
    client = spawn()
    ready = client.start(TALKS)
    c = new(client, title="Kept", mode="build")
    say(client, c, "think ünïcödé 🙂")
    client.call("conversation/archive", {"conversationId": new(client, title="Put away")})
    asked = [
        ("conversation/list", {}),
        ("conversation/list", {"archived": True}),
        ("conversation/get", {"conversationId": c}),
        ("conversation/subscribe", {"conversationId": c}),
        ("conversation/search", {"query": "ünïcödé"}),
    ]
    before = [client.call(method, params) for method, params in asked]
    client.kill()
    again = spawn()
    assert again.start(TALKS)["storeId"] == ready["storeId"]
    assert [again.call(method, params) for method, params in asked] == before


# ---- a reader that comes and goes ----------------------------------------------------------


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


class Reader:
    """A webview: applies each event once, fails on a gap or a repeat, knows its cursor."""

    def __init__(self, store_id: str, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.store_id = store_id
        self.seq = 0
        self.revision = 0
        self.messages: dict[str, list[Message]] = {}
        self.open: set[str] = set()
        self.ended = 0
        self._read = 0

    @property
    def cursor(self) -> Message:
        parts = [
            {"messageId": message_id, "part": n, "length": units(part["text"])}
            for message_id in self.open
            for n, part in enumerate(self.messages[message_id])
            if "text" in part
        ]
        here = {"storeId": self.store_id, "seq": self.seq, "revision": self.revision}
        return here | {"parts": parts}

    def read(self, client: RawClient, until: int) -> None:
        """Apply what arrived before the frame `until`."""
        for message in client.frames[self._read : until]:
            params = message.get("params") or {}
            if (message.get("method"), params.get("conversationId")) == (
                "conversation/event",
                self.conversation_id,
            ):
                self.apply(params)
        self._read = until

    def skip(self, until: int) -> None:
        self._read = until

    def apply(self, event: Message) -> None:
        kind = event["type"]
        if kind == "delta":
            assert event["seq"] == self.seq
            parts = self.messages[event["messageId"]]
            if event["part"] == len(parts):
                parts.append({"kind": event["kind"], "text": ""})
            part = parts[event["part"]]
            assert event["offset"] == units(part["text"]), "a gap or a repeat"
            part["text"] += event["text"]
            return
        assert event["seq"] == self.seq + 1, "a gap or a repeat"
        self.seq = event["seq"]
        if kind == "messageStarted":
            self.messages[event["messageId"]] = []
            self.open.add(event["messageId"])
        elif kind == "messageCompleted":
            whole = event["message"]["parts"]
            if event["messageId"] in self.open:
                assert self.messages[event["messageId"]] == whole, "streamed is not stored"
                self.open.remove(event["messageId"])
            self.messages[event["messageId"]] = whole
        elif kind in ("toolStarted", "toolFinished"):
            parts = self.messages[event["messageId"]]
            parts[event["part"] : event["part"] + 1] = [part_of(event)]
        elif kind == "turnEnded":
            self.ended += 1

    def catch_up(self, answer: Message) -> None:
        if answer["kind"] == "snapshot":
            self.messages = {m["messageId"]: list(m["parts"]) for m in answer["messages"]}
            self.open = {m["messageId"] for m in answer["messages"] if m["status"] == "streaming"}
            self.seq = answer["lastSeq"]
        else:
            for part in answer["openParts"]:
                mine = self.messages.get(part["messageId"], [])
                if part["part"] < len(mine):
                    text = mine[part["part"]]["text"].encode("utf-16-le")[: part["length"] * 2]
                    mine[part["part"]]["text"] = text.decode("utf-16-le")
            for event in answer["events"]:
                if event["type"] == "messageCompleted":
                    self.open.discard(event["messageId"])
                self.apply(event)
            if (still := answer.get("openMessage")) is not None:
                self.messages[still["messageId"]] = list(still["parts"])
                self.open.add(still["messageId"])
        assert self.seq == answer["lastSeq"]
        self.revision = answer["revision"]

    def transcript(self) -> list[tuple[str, list[Message]]]:
        return list(self.messages.items())


def part_of(event: Message) -> Message:
    """The part that a tool's event stands for."""
    if event["type"] == "toolStarted":
        names = {"kind": "toolCall", "name": event["name"]}
        return names | {"toolCallId": event["toolCallId"], "arguments": event.get("arguments", {})}
    part = {"kind": "toolResult", "toolCallId": event["toolCallId"], "content": event["content"]}
    return part | ({"isError": True} if event.get("isError") else {})


def stored(client: RawClient, conversation_id: str) -> list[tuple[str, list[Message]]]:
    params = {"conversationId": conversation_id, "limit": 500}
    page = client.call("conversation/get", params)["page"]
    return [(m["messageId"], m["parts"]) for m in page["messages"]]


STREAM = [
    {"thinking": "hm 🤔 ", "repeat": 40, "delayMs": 1},
    {"text": "wörd 🙂 日本 ", "repeat": 250, "delayMs": 1},
    {"tool": "no_such_tool"},
    {"text": "and on 🙂 ", "repeat": 150, "delayMs": 1},
]


def delta_after(client: RawClient, conversation_id: str, after: int, count: int) -> int:
    """The index behind the `count`th delta from `after` on, or behind the end of the turn."""
    for _ in range(count):
        after = 1 + client.wait_for_index(
            lambda m: (
                m.get("method") == "conversation/event"
                and m["params"]["conversationId"] == conversation_id
                and m["params"]["type"] in ("delta", "turnEnded")
            ),
            after=after,
            what="delta",
        )
        if client.frames[after - 1]["params"]["type"] == "turnEnded":
            break
    return after


@pytest.mark.parametrize("how", ["notifications", "requests", "subscribe"])
def test_a_webview_that_comes_and_goes_ends_with_the_stored_transcript(
    spawn: Spawn, how: str
) -> None:
    client = spawn()
    settings = {"provider": "scripted", "script": STREAM}
    ready = client.start({"settings": settings, "webviewId": "w"})
    new(client, conversationId="c")
    reader = Reader(ready["storeId"], "c")
    sent = client.start_request("message/send", {"conversationId": "c", "input": "go"})
    for round in range(1, 40):
        reader.read(client, delta_after(client, "c", reader._read, 7))
        if reader.ended:
            break
        at = come_back(client, reader, how, forgets=round % 3 == 0)
        reader.skip(at)
        if not reader.open:  # it ended while nobody looked
            break
    assert round > 5, "the stream was over before it was disturbed"
    client.result(sent)  # said after the turn's last event
    reader.read(client, max(client.position(lambda m: m.get("id") == sent), reader._read))
    assert reader.transcript() == stored(client, "c")


def come_back(client: RawClient, reader: Reader, how: str, *, forgets: bool) -> int:
    """Go away and return with the cursor, or without one; returns where live events begin."""
    cursor = None if forgets else reader.cursor
    cursors = [{"conversationId": "c"} | ({} if cursor is None else {"cursor": cursor})]
    back = {"webviewId": "w", "cursors": cursors}
    before = len(client.frames)
    if how == "notifications":
        client.notify("webview/didDisconnect", {"webviewId": "w"})
        client.notification("agents/preserved", after=before)
        client.notify("webview/didReconnect", back)
        at = client.wait_for_index(lambda m: m.get("method") == "agents/restored", after=before)
        [answer] = client.frames[at]["params"]["restored"]
    elif how == "requests":
        client.call("webview/preserve", {"webviewId": "w"})
        msg_id = client.start_request("webview/restore", back)
        [answer] = client.result(msg_id)["restored"]
        at = client.position(lambda m: m.get("id") == msg_id)
    else:
        client.call("conversation/unsubscribe", {"conversationId": "c"})
        msg_id = client.start_request("conversation/subscribe", cursors[0])
        answer = client.result(msg_id)
        at = client.position(lambda m: m.get("id") == msg_id)
    reader.catch_up(answer)
    return at + 1


def test_a_reader_whose_sidecar_is_killed_ends_with_the_stored_transcript(spawn: Spawn) -> None:
    client = spawn()
    settings = {"provider": "scripted", "script": STREAM, "lingerTimeout": 0}
    ready = client.start({"settings": settings})
    new(client, conversationId="c")
    reader = Reader(ready["storeId"], "c")
    client.start_request("message/send", {"conversationId": "c", "input": "go"})
    delta_after(client, "c", 0, 60)
    client.kill()
    reader.read(client, len(client.frames))
    again = spawn()
    again.start(TALKS)
    reader.catch_up(
        again.call("conversation/subscribe", {"conversationId": "c", "cursor": reader.cursor})
    )
    assert reader.transcript() == stored(again, "c")
    kept = again.call("conversation/get", {"conversationId": "c"})["page"]["messages"][-1]
    assert kept["status"] == "interrupted"


# ---- a store that is not as it should be ---------------------------------------------------


def filled(spawn: Spawn, conversations: int = 3) -> str:
    """A store with some conversations; returns its id."""
    client = spawn()
    ready = client.start(TALKS)
    for number in range(conversations):
        new(client, conversationId=f"c{number}")
        say(client, f"c{number}", f"echo text {number} " + "word " * 500)
    assert client.call("conversation/search", {"query": "word"})["hits"]
    assert client.shut_down() == 0
    return str(ready["storeId"])


def assert_useless_but_alive(client: RawClient) -> Message:
    """Every request fails clearly, the process lives and leaves when told to."""
    ready = client.notification("sidecar/ready")
    assert ready["degraded"]
    error = client.error("conversation/list")
    for method, params in (
        ("message/send", {"conversationId": "c0", "input": "x"}),
        ("agent/count", {}),
        ("sidecar/status", {}),
    ):
        assert client.error(method, params) == error
    assert client.error("no/such")["code"] == -32601
    assert error["data"]["type"] == "STORE_UNAVAILABLE"
    assert error["data"]["hint"]
    assert client.shut_down() == 0
    return error


def test_a_file_that_is_no_store_is_kept_aside_and_the_user_told(spawn: Spawn, store: Path) -> None:
    store.parent.mkdir(parents=True)
    store.write_bytes(b"this is no database " * 1000)
    client = spawn()
    assert "degraded" not in client.start(TALKS)
    shown = client.notification("window/showMessage", type=2)["message"]
    assert "damaged" in shown
    assert str(store.parent) not in shown
    [aside] = store.parent.glob("*.damaged-*")
    assert aside.read_bytes().startswith(b"this is no database")
    say(client, new(client), "echo works")


def test_what_can_be_read_of_a_damaged_store_is_saved(spawn: Spawn, store: Path) -> None:
    old_id = filled(spawn, 12)
    data = bytearray(store.read_bytes())
    page = 4096
    for at in range(len(data) // page // 2, len(data) // page, 3):
        data[at * page : at * page + 64] = b"\xff" * 64
    store.write_bytes(data)
    client = spawn()
    ready = client.start(TALKS)
    if client.call("sidecar/status")["store"]["storeId"] != old_id:
        assert ready["storeId"] != old_id
        assert list(store.parent.glob("*.damaged-*"))
    answer = client.ask("conversation/list")
    if "error" in answer:  # found only now: it says what to do, and a restart mends it
        assert answer["error"]["data"]["type"] == "STORE_UNAVAILABLE"
        assert "Restart" in answer["error"]["data"]["hint"]
    client.ask("conversation/get", {"conversationId": "c0"})
    client.ping()
    client.shut_down()


def test_a_store_cut_short_is_mended_or_explained(spawn: Spawn, store: Path) -> None:
    filled(spawn, 6)
    os.truncate(store, store.stat().st_size // 2)
    client = spawn()
    client.start(TALKS)
    client.ask("conversation/list")
    client.ping()


def test_a_store_of_a_newer_version_is_left_untouched(spawn: Spawn, store: Path) -> None:
    filled(spawn)
    with sqlite3.connect(store) as conn:
        conn.execute("PRAGMA user_version = 99")
    conn.close()
    before = store.read_bytes()
    client = spawn()
    client.initialize()
    error = assert_useless_but_alive(client)
    assert "99" in error["message"]
    assert error["data"]["retryable"] is False
    assert store.read_bytes() == before


def test_a_folder_in_the_place_of_the_store_is_explained(spawn: Spawn, store: Path) -> None:
    store.mkdir(parents=True)
    client = spawn()
    client.initialize()
    error = assert_useless_but_alive(client)
    assert str(store) not in str(error)


def test_a_file_in_the_place_of_the_folder_is_explained(spawn: Spawn, store: Path) -> None:
    store.parent.write_text("a file")
    client = spawn()
    client.initialize()
    assert_useless_but_alive(client)


def test_a_store_that_cannot_be_written_can_be_read(spawn: Spawn, store: Path) -> None:
    needs_mounts()
    filled(spawn)
    client = spawn(read_only(store.parent, command(store)))
    assert "read-only" in client.start(TALKS)["degraded"]
    assert texts(client, "c0")[1].startswith("text 0")
    assert len(client.call("conversation/list")["conversations"]) == 3
    assert client.call("conversation/search", {"query": "word"})["hits"]
    assert "text 1" in client.call("conversation/export", {"conversationId": "c1"})["data"]
    snapshot = client.call("conversation/subscribe", {"conversationId": "c0"})
    assert snapshot["kind"] == "snapshot"
    for method, params in (
        ("conversation/create", {}),
        ("conversation/rename", {"conversationId": "c0", "title": "x"}),
        ("conversation/delete", {"conversationId": "c0"}),
        ("message/send", {"conversationId": "c0", "input": "echo x"}),
        ("message/enqueue", {"conversationId": "c0", "input": "echo x"}),
    ):
        error = client.error(method, params)
        assert error["data"]["type"] == "STORE_UNAVAILABLE", method
    assert "read-only" in client.call("sidecar/status")["store"]["degraded"]
    assert client.shut_down() == 0


@pytest.fixture
def disk(store: Path) -> Iterator[Path]:
    """The store's folder as a disk of 3 MiB."""
    needs_mounts()
    with small_disk(store.parent, 3 * MIB) as disk:
        yield disk


def test_a_full_disk_is_said_and_loses_nothing_that_was_acknowledged(
    spawn: Spawn, disk: Path
) -> None:
    client = spawn()
    client.start(TALKS)
    new(client, conversationId="c")
    say(client, "c", "echo before")
    ballast = fill(disk)
    accepted = []
    refused = None
    for number in range(200):
        params = {"conversationId": "c", "input": f"echo {number} " + "x" * 4000}
        answer = client.ask("message/enqueue", params)
        if "error" in answer:
            refused = answer["error"]
            break
        accepted.append((number, answer["result"]["messageId"]))
    assert refused is not None
    assert refused["data"]["type"] in ("PERSISTENCE_FAILED", "STORE_UNAVAILABLE")
    assert refused["data"]["retryable"] is True
    assert "disk is full" in refused["message"]
    assert texts(client, "c")[:2] == ["echo before", "before"]
    assert client.call("sidecar/status")["store"]["size"] > 0
    ballast.unlink()
    say(client, "c", "echo room again")
    client.kill()
    again = spawn()
    again.start(TALKS)
    again.call("conversation/subscribe", {"conversationId": "c"})
    prompts = [text[:20] for text in texts(again, "c")[::2]]
    expected = [f"echo {number} " + "x" * 99 for number, _ in accepted]
    assert prompts == [text[:20] for text in ("echo before", *expected, "echo room again")]


def test_a_disk_that_is_full_from_the_start_is_said(spawn: Spawn, disk: Path) -> None:
    fill(disk)
    client = spawn()
    client.initialize()
    ready = client.notification("sidecar/ready")
    assert ready["degraded"]
    error = client.error("conversation/create")
    assert error["data"]["type"] in ("STORE_UNAVAILABLE", "PERSISTENCE_FAILED")
    assert client.shut_down() == 0


def test_a_result_too_large_for_a_message_goes_to_a_path(client: RawClient, tmp_path: Path) -> None:
    c = new(client)
    for _ in range(2):
        say(client, c, "x" * 2_500_000)
    error = client.error("conversation/export", {"conversationId": c})
    assert error["data"]["type"] == "LOAD_FAILED"
    assert "path" in error["data"]["hint"]
    path = tmp_path / "out.json"
    done = client.call("conversation/export", {"conversationId": c, "path": str(path)})
    assert done["size"] == path.stat().st_size
    made = client.call("conversation/import", {"path": str(path)})
    assert texts(client, made["conversationId"]) == texts(client, c)
    with pytest.raises(RpcFailed, match="exists"):
        client.call("conversation/export", {"conversationId": c, "path": str(path)})
