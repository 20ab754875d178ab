"""What the crash experiments share: the load, the oracle's own record of it, and the comparison.

The oracle knows what was sent and what came back: an *ack* is a reply that says that something
is stored. It reads the store's file with its own SQL and shares no code with the product, so
that it can neither hide its mistakes nor repeat them.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.e2e.raw_client import Message, RawClient, request

REPEAT, DELAY_MS = 20, 4
TALKS: Message = {
    "settings": {
        "provider": "scripted",
        "logLevel": "error",
        "script": [{"text": "{input} ", "repeat": REPEAT, "delayMs": DELAY_MS}],
    }
}
CONVERSATIONS = ("c0", "c1", "c2", "c3")


def answer_to(text: str) -> str:
    """What the scripted provider says, whole."""
    return f"{text} " * REPEAT


@dataclass(frozen=True)
class Sent:
    """A prompt; `number` counts those of its conversation. What one `sender` sends keeps its
    order."""

    conversation: str
    key: str
    text: str
    number: int
    sender: str = ""

    def message(self, msg_id: str) -> Message:
        params = {"conversationId": self.conversation, "input": self.text, "requestKey": self.key}
        return request(msg_id, "message/enqueue", params)


@dataclass
class Oracle:
    """What was sent to a store, and what its sidecars said of it."""

    sent: dict[str, Sent] = field(default_factory=dict)
    """By request key, in the order of the first sending."""
    acked: dict[str, str] = field(default_factory=dict)
    """Request key → message id."""
    created: set[str] = field(default_factory=set)
    deleting: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    titles: dict[str, list[str]] = field(default_factory=dict)
    """Every title that was asked for, in order."""
    titled: Counter[str] = field(default_factory=Counter)
    """How many of them were overtaken by one that was acknowledged."""
    events: dict[tuple[str, int], Message] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    asked: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Request id → its method and what it was about."""
    repeats: int = 0
    """How many prompts were sent again."""
    _running: dict[str, str] = field(default_factory=dict)
    """The prompt whose turn began last, by conversation."""
    _begun: set[str] = field(default_factory=set)
    """The prompts that were answered by a word at least."""

    # ---- what is sent ----

    def create(self, conversation: str) -> Message:
        self.titles.setdefault(conversation, [conversation])
        params = {"conversationId": conversation, "title": conversation, "requestKey": conversation}
        return request(self._ask("create", conversation), "conversation/create", params)

    def prompt(self, conversation: str, sender: str = "") -> Message:
        number = sum(1 for sent in self.sent.values() if sent.conversation == conversation)
        key = f"{conversation}-{number}"
        text = f"p{number} of {conversation}"
        self.sent[key] = Sent(conversation, key, text, number, sender)
        return self._enqueue(key)

    def repeat(self, key: str) -> Message:
        self.repeats += 1
        return self._enqueue(key)

    def _enqueue(self, key: str) -> Message:
        return self.sent[key].message(self._ask("enqueue", key))

    def rename(self, conversation: str, title: str) -> Message:
        self.titles[conversation].append(title)
        params = {"conversationId": conversation, "title": title}
        msg_id = self._ask("rename", f"{conversation} {title}")
        return request(msg_id, "conversation/rename", params)

    def delete(self, conversation: str) -> Message:
        self.deleting.add(conversation)
        msg_id = self._ask("delete", conversation)
        return request(msg_id, "conversation/delete", {"conversationId": conversation})

    def unacked(self) -> list[str]:
        return [
            key
            for key, sent in self.sent.items()
            if key not in self.acked and sent.conversation not in self.deleting
        ]

    def _ask(self, what: str, about: str) -> str:
        msg_id = f"{what}-{len(self.asked)}"
        self.asked[msg_id] = (what, about)
        return msg_id

    def deaf(self) -> Oracle:
        """One that has sent the same and heard nothing yet."""
        return Oracle(self.sent, deleting=self.deleting, titles=self.titles, asked=self.asked)

    # ---- what comes back ----

    def hear(self, frames: Iterable[Message]) -> None:
        for message in frames:
            if message.get("method") == "conversation/event":
                self._hear_event(message["params"])
            elif "result" in message and message.get("id") in self.asked:
                self._hear_ack(*self.asked[message["id"]], message["result"])

    def _hear_event(self, event: Message) -> None:
        conversation = event["conversationId"]
        if event["type"] == "delta":
            self._begun.add(self._running.get(conversation, ""))
            return
        if event["type"] == "turnStarted" and (conversation, event["seq"]) not in self.events:
            prompt = self._running[conversation] = event["messageId"]
            if prompt in self._begun:
                self.problems.append(f"{prompt} had said something and was run again")
        self._note_event(conversation, event["seq"], event)

    def _note_event(self, conversation: str, seq: int, event: Message) -> None:
        """An event never changes once it was told, and is told again as it was."""
        known = self.events.setdefault((conversation, seq), event)
        for name in ("type", "messageId", "stopReason"):
            if known.get(name) != event.get(name):
                self.problems.append(f"event {seq} of {conversation} was {known}, is {event}")

    def _hear_ack(self, what: str, about: str, result: Message) -> None:
        if what == "enqueue":
            known = self.acked.setdefault(about, result["messageId"])
            if known != result["messageId"]:
                self.problems.append(f"{about} was accepted twice: {known}, {result['messageId']}")
        elif what == "create":
            self.created.add(about)
        elif what == "delete":
            self.deleted.add(about)
        elif what == "rename":
            conversation, _, title = about.partition(" ")
            place = self.titles[conversation].index(title)
            self.titled[conversation] = max(place, self.titled[conversation])

    # ---- the comparison ----

    def compare(self, stored: Stored, *, settled: bool = False) -> list[str]:
        """Every broken promise. `settled`: every turn is to have had its end."""
        found, self.problems = list(self.problems), []
        found += [] if stored.integrity == "ok" else [f"integrity_check: {stored.integrity}"]
        for conversation in self.created - self.deleting:
            if conversation not in stored.titles:
                found.append(f"lost: conversation {conversation}")
        for conversation in self.deleted & set(stored.titles):
            found.append(f"deleted conversation {conversation} is back")
        for conversation in sorted(set(stored.titles) - self.deleting):
            found += self._compare_one(conversation, stored, settled)
        return found + self.problems

    def _compare_one(self, conversation: str, stored: Stored, settled: bool) -> Iterator[str]:
        title, asked = stored.titles[conversation], self.titles[conversation]
        if title not in asked[self.titled[conversation] :]:
            yield f"lost: title {asked[self.titled[conversation]]}, is {title}"
        events = stored.events.get(conversation, [])
        for seq, event in events:
            self._note_event(conversation, seq, event)
        if any(b != a + 1 for (a, _), (b, _) in pairwise(events)):
            yield f"a hole in the events of {conversation}"
        last = events[-1][0] if events else 0
        for of, seq in self.events:
            if of == conversation and seq > last:
                yield f"lost: event {seq} of {conversation}, which was told"
        yield from self._compare_prompts(conversation, stored)
        yield from self._compare_ends(conversation)
        if settled:
            yield from (f"{key} has no end" for key in stored.open_keys[conversation])

    def _compare_prompts(self, conversation: str, stored: Stored) -> Iterator[str]:
        mine = {key: sent for key, sent in self.sent.items() if sent.conversation == conversation}
        accepted = stored.keys.get(conversation, {})
        for key in mine.keys() & self.acked.keys():
            if accepted.get(key) != self.acked[key]:
                yield f"lost: prompt {key}, which was acknowledged"
        for sender in {sent.sender for sent in mine.values()}:
            order = [mine[key].number for key in accepted if mine[key].sender == sender]
            if order != sorted(order):
                yield f"reordered: {conversation} accepted {order}"
        said = stored.prompts.get(conversation, [])
        for text, times in Counter(said).items():
            if times > 1:
                yield f"duplicated: {text!r} is there {times} times"
        parked = stored.parked.get(conversation, [])
        expected = [mine[key].text for key in accepted if mine[key].text not in parked]
        if [text for text in said if text not in parked] != expected:
            yield f"lost or reordered: {conversation} has {said} of {expected}"
        for prompt, status, text in stored.replies.get(conversation, []):
            whole = answer_to(prompt)
            if not whole.startswith(text) or (status == "complete" and text != whole):
                yield f"{status} answer to {prompt!r} is {text!r}"

    def _compare_ends(self, conversation: str) -> Iterator[str]:
        kinds: dict[str, Counter[str]] = {"turnQueued": Counter(), "turnEnded": Counter()}
        for (of, _), event in self.events.items():
            if of == conversation and event["type"] in kinds:
                kinds[event["type"]][event["messageId"]] += 1
        for message_id, times in kinds["turnQueued"].items():
            ends = kinds["turnEnded"][message_id]
            if times > 1 or ends > 1:
                yield f"{message_id} was queued {times} times and ended {ends} times"


# ---- what is stored ------------------------------------------------------------------------


@dataclass
class Stored:
    """A store's content by our own SQL, conversation by conversation."""

    integrity: str
    titles: dict[str, str] = field(default_factory=dict)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    """Request key → message id, in the order of acceptance."""
    open_keys: dict[str, list[str]] = field(default_factory=dict)
    """The keys of prompts that have had no end yet."""
    prompts: dict[str, list[str]] = field(default_factory=dict)
    """Those in the transcript, then those that wait, in order."""
    parked: dict[str, list[str]] = field(default_factory=dict)
    replies: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    """The prompt, the reply's status, its text."""
    events: dict[str, list[tuple[int, Message]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Stored:
        with closing(sqlite3.connect(path)) as conn:
            stored = cls(conn.execute("PRAGMA integrity_check").fetchone()[0])
            for key, name, title in conn.execute("SELECT key, id, title FROM conversations"):
                stored._read_one(conn, key, name)
                stored.titles[name] = title
        return stored

    def _read_one(self, conn: sqlite3.Connection, key: int, name: str) -> None:
        accepted = conn.execute(
            "SELECT request_key, message_id, result FROM request_keys WHERE conversation = ? "
            "AND request_key IS NOT NULL AND message_id IS NOT NULL ORDER BY rowid",
            (key,),
        ).fetchall()
        self.keys[name] = {row[0]: str(UUID(bytes=row[1])) for row in accepted}
        self.open_keys[name] = [row[0] for row in accepted if row[2] is None]
        messages = _messages(conn, key)
        waiting = _waiting(conn, key, "queued")
        self.parked[name] = _waiting(conn, key, "parked")
        self.prompts[name] = [text for role, _, text in messages if role == "user"] + waiting
        self.replies[name] = [
            (prompt[2], reply[1], reply[2])
            for prompt, reply in pairwise(messages)
            if reply[0] == "assistant"
        ]
        rows = conn.execute(
            "SELECT seq, payload FROM events WHERE conversation = ? ORDER BY seq", (key,)
        )
        self.events[name] = [(seq, json.loads(payload)) for seq, payload in rows]


def _messages(conn: sqlite3.Connection, key: int) -> list[tuple[str, str, str]]:
    """Role, status and text of each, streamed text that is not folded yet included."""
    found = []
    rows = conn.execute(
        "SELECT key, role, status FROM messages WHERE conversation = ? AND hidden IS NULL "
        "ORDER BY key",
        (key,),
    ).fetchall()
    for message, role, status in rows:
        parts = conn.execute(
            "SELECT text FROM parts WHERE key >> 16 = ?1 UNION ALL SELECT text FROM "
            "(SELECT text FROM chunks WHERE part >> 16 = ?1 ORDER BY part, offset)",
            (message,),
        )
        found.append((role, status, "".join(text for (text,) in parts)))
    return found


def _waiting(conn: sqlite3.Connection, key: int, state: str) -> list[str]:
    rows = conn.execute(
        "SELECT prompt ->> 'input' FROM queue WHERE conversation = ? AND state = ? "
        "ORDER BY position",
        (key, state),
    )
    return [text for (text,) in rows]


def stored_in(store: Path) -> Stored:
    """What a reader would find, without touching the files: it looks at a copy of them."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            source = store.with_name(store.name + suffix)
            if source.exists():
                shutil.copy(source, Path(folder, "copy" + suffix))
        return Stored.read(Path(folder, "copy"))


# ---- sidecars ------------------------------------------------------------------------------


def patched(store: Path | str, mutation: str) -> list[str]:
    """The command of a sidecar in which one defence was taken out."""
    program = f"{mutation}\nfrom sidecar.__main__ import main\nmain()\n"
    return [sys.executable, "-I", "-c", program, "serve", "--store", str(store)]


LOWERED = """
import sidecar.stores.files as files
connect = files.connect
def careless(path, *, query_only=False):
    conn = connect(path, query_only=query_only)
    conn.execute("PRAGMA synchronous = NORMAL")
    return conn
files.connect = careless
"""
"""Commits that do not wait for the disk."""

EARLY = """
from sidecar.stores.database import Database
write = Database.write
class Later:
    def __init__(self, conn): self.conn = conn
    def __getattr__(self, name): return getattr(self.conn, name)
    def execute(self, statement, *args):
        if statement == "COMMIT": return None
        if statement == "BEGIN IMMEDIATE" and self.conn.in_transaction: self.conn.execute("COMMIT")
        if statement == "ROLLBACK": return None
        return self.conn.execute(statement, *args)
def early(self, work, **options):
    if not isinstance(self.conn, Later): self.conn = Later(self.conn)
    return write(self, work, **options)
Database.write = early
"""
"""Answers that are given before the commit, which happens with the next one."""


def settle(client: RawClient, oracle: Oracle, conversations: Iterable[str]) -> None:
    """Let everything that waits come to its end; what was parked is taken out."""
    wanted = list(conversations)
    for conversation in wanted:
        client.call("conversation/subscribe", {"conversationId": conversation})
    for key in oracle.unacked():
        message = oracle.repeat(key)
        client.send(message)
        client.response(message["id"])
    for conversation in wanted:
        while entries := client.call("message/queue", {"conversationId": conversation})["entries"]:
            last = entries[:40][-1]
            message_id = last["messageId"]
            if last["state"] == "parked":
                client.call("message/remove", {"messageId": message_id})
            else:
                client.event(conversation, "turnEnded", messageId=message_id)


def seed_of(seed: int | None) -> tuple[int, random.Random]:
    chosen = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    return chosen, random.Random(chosen)


def options(**settings: Any) -> Message:
    return {"settings": TALKS["settings"] | settings}
