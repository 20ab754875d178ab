"""What other agents take, for the table in the README. Measured by the project once, elsewhere:
on a quiet machine of the same kind, not in the run that the rest of the table comes from."""

from __future__ import annotations

COLUMNS = ("", "codex (Rust)", "kimi-cli", "mistral-vibe", "gemini-cli", "opencode", "bare asyncio")
ROWS = (
    ("CPU ms to `initialize`", "60", "2,900", "4,510", "3,920", "3,810", "120"),
    ("CPU ms to a usable session", "100", "4,610", "5,580", "3,990", "6,480", "120"),
    ("wall ms to both", "129 / 164", "", "", "", "", ""),
    ("PSS idle, MiB", "117", "134", "135", "340", "384", "14"),
    ("loading a 200-turn session, ms", "256", "2,400", "6,100", "", "", ""),
    ("added to the first chunk, ms", "55", "16", "", "7.5", "", "1.2"),
    ("chunks in a CPU second", "6,250", "1,653", "", "", "", "25,000"),
    ("ten sessions of 500 chunks, CPU ms", "1,430", "1,730", "", "", "", "240"),
    ("cancel → connection closed, ms (fast-agent: never)", "", "2", "", "", "", ""),
    ("disk for a tiny turn, bytes", "22,000", "", "", "521", "", ""),
)
OURS = {
    "CPU ms to `initialize`": "initialize, CPU",
    "CPU ms to a usable session": "first list, CPU",
    "PSS idle, MiB": "memory idle, PSS",
    "loading a 200-turn session, ms": "200 turns loaded",
    "added to the first chunk, ms": "openai wire: added to the first chunk",
    "chunks in a CPU second": "openai wire: chunks in a CPU second",
    "ten sessions of 500 chunks, CPU ms": "openai wire: ten sessions",
    "cancel → connection closed, ms (fast-agent: never)": "openai wire: cancel",
    "disk for a tiny turn, bytes": "disk for one tiny turn",
}
"""Which of our figures stands beside a row: how its name begins."""
