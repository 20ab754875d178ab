"""What the user has settled for good: rules of workspaces, and personas."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from ..audit import AuditAction, AuditEntry
from ..conversations import Rule
from ..errors import NotFound
from ..work import Persona
from . import audit
from .rows import json_text
from .write import Write

_rule_from = msgspec.json.Decoder(Rule).decode
_persona_from = msgspec.json.Decoder(Persona).decode


def rules(conn: sqlite3.Connection, roots: Iterable[str] | None) -> Sequence[Rule]:
    """Those of some workspace folders, or all; oldest first."""
    wanted = None if roots is None else frozenset(roots)
    found = conn.execute("SELECT root, rule FROM rules ORDER BY key")
    return [_rule_from(rule) for root, rule in found if wanted is None or root in wanted]


def add_rule(write: Write, rule: Rule) -> None:
    write.conn.execute(
        "INSERT OR IGNORE INTO rules (root, rule, made_at) VALUES (?, ?, ?)",
        (rule.root, json_text(rule), write.now),
    )
    audit.note(write, AuditEntry(action=AuditAction.RULE, allowed=True, why="user", tool=rule.tool))


def remove_rule(write: Write, rule: Rule) -> None:
    done = write.conn.execute(
        "DELETE FROM rules WHERE root = ? AND rule = ?", (rule.root, json_text(rule))
    )
    if done.rowcount == 0:
        raise NotFound("There is no such rule.", hint="rule/list has those that there are.")
    audit.note(
        write, AuditEntry(action=AuditAction.RULE, allowed=False, why="user", tool=rule.tool)
    )


def personas(conn: sqlite3.Connection) -> Sequence[Persona]:
    found = conn.execute("SELECT persona FROM personas ORDER BY saved_at, id")
    return [_persona_from(persona) for (persona,) in found]


def save_persona(write: Write, persona: Persona) -> None:
    write.conn.execute(
        "INSERT INTO personas VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "persona = excluded.persona",
        (persona.persona_id, json_text(persona), write.now),
    )


def delete_persona(write: Write, persona_id: str) -> bool:
    return write.conn.execute("DELETE FROM personas WHERE id = ?", (persona_id,)).rowcount == 1
