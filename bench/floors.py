"""What nobody can do better: the least that Python, asyncio and SQLite cost by themselves."""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path

from .child import Child, cpu_of

IMPORTS = "import json, sys"
ASYNCIO = "from bench.bare_agent import main; main()"


def imports_cpu() -> float:
    """`python -c "import json, sys"`, in CPU ms."""
    return cpu_of([sys.executable, "-c", IMPORTS])


def asyncio_agent() -> Child:
    """The agent that does nothing, as a child."""
    return Child([sys.executable, "-c", ASYNCIO])


class FullCommits:
    """Raw commits as our store makes them: WAL, `synchronous=FULL`, one small row each."""

    def __init__(self, path: Path) -> None:
        self._conn = sqlite3.connect(path, isolation_level=None)
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.execute("PRAGMA synchronous = FULL")
        self._conn.execute("PRAGMA wal_autocheckpoint = 0")
        self._conn.execute("CREATE TABLE rows (key INTEGER PRIMARY KEY, text TEXT)")

    def commit_us(self) -> float:
        begin = time.perf_counter()
        self._conn.execute("BEGIN IMMEDIATE")
        self._conn.execute("INSERT INTO rows (text) VALUES (?)", ("x" * 600,))
        self._conn.execute("COMMIT")
        return (time.perf_counter() - begin) * 1e6

    def close(self) -> None:
        self._conn.close()
