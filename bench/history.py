"""What is stored, on the screen: opening long conversations, and finding words."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from . import stores
from .child import Child, sidecar
from .figures import Figure, amount, latency, quantile

RARE, COMMON = 20_000, 3
"""Ranks of a rare and a common word in the vocabulary."""


def history(folder: Path, quick: bool) -> list[Figure]:
    """Switching to, opening and loading long conversations."""
    count = 100 if quick else 400
    store = stores.history(folder / "history.db", a=10_000, b=10_000, huge=20_000, session=400)
    with sidecar(store) as child:
        switches = _times(
            count, lambda n: child.call("conversation/switch", {"toConversationId": "ab"[n % 2]})
        )
        pages = _times(count, lambda _: child.call("conversation/get", {"conversationId": "huge"}))
        loads = _times(count // 4, lambda _: _load(child, "session"))
    return [
        latency("conversation/switch, 10,000 messages, p99", switches, goal=20, q=0.99),
        latency("newest page of 20,000 messages, p99", pages, goal=50, q=0.99),
        latency("200 turns loaded page by page, p99", loads, goal=40, q=0.99),
    ]


def _times(count: int, do: Callable[..., object]) -> list[float]:
    """How long each took, in ms; the first, which imports and plans, is left out."""
    do(0)
    times = []
    for number in range(1, count + 1):
        begin = time.perf_counter()
        do(number)
        times.append((time.perf_counter() - begin) * 1000)
    return times


def _load(child: Child, conversation_id: str) -> None:
    params = {"conversationId": conversation_id}
    loaded = 0
    while True:
        page = child.call("conversation/get", params)["page"]
        loaded += len(page["messages"])
        if not page.get("pageCursor"):
            break
        params["cursor"] = page["pageCursor"]
    assert loaded == 400, loaded


def search(_: Path, quick: bool) -> list[Figure]:
    """The newest 20 hits in a large store, against SQLite asked directly."""
    size = 50_000 if quick else 1_000_000
    kept = Path(tempfile.gettempdir()) / "agent-sidecar-bench" / f"library-{size}.db"
    begin = time.perf_counter()
    store = stores.library(kept, size)
    made = time.perf_counter() - begin
    words = stores.vocabulary()
    common, rare = words[COMMON], words[RARE]
    queries = {
        "a rare word": rare,
        "a common word": common,
        "two words, both common": f"{common} {words[COMMON + 1]}",
        "two words, one rare": f"{rare} {common}",
        "a beginning of three letters": words[COMMON + 2][:3],
        "a beginning of five letters": _beginning(words, 5),
    }
    figures = []
    with sidecar(store) as child, sqlite3.connect(store) as conn:
        for name, query in queries.items():
            times = _times(20 if quick else 50, partial(_search, child, query))
            raw = _times(20, partial(_raw, conn, query))
            hits = len(_search(child, query))
            figures.append(
                Figure(
                    f"search {size:,} messages: {name}",
                    quantile(times, 0.5),
                    "ms",
                    20,
                    f"p50 of {len(times)}, p99 {amount(quantile(times, 0.99), 'ms')}; {hits} hits; "
                    f"SQLite alone, the exact words {amount(quantile(raw, 0.5), 'ms')}",
                )
            )
    conn.close()
    if made > 1:
        print(f"(made {store.name} in {made:.0f} s)")
    return figures


def _beginning(words: list[str], length: int) -> str:
    """How one of the commonest words begins, where that is not a word by itself."""
    known = set(words)
    return next(w[:length] for w in words if len(w) > length and w[:length] not in known)


def _search(child: Child, query: str, _: int = 0) -> list[object]:
    hits: list[object] = child.call("conversation/search", {"query": query, "limit": 20})["hits"]
    return hits


def _raw(conn: sqlite3.Connection, query: str, _: int) -> None:
    terms = " ".join(f'"{word}"' for word in query.split())
    conn.execute(
        "SELECT rowid FROM messages_fts WHERE messages_fts MATCH ? ORDER BY rowid DESC LIMIT 20",
        (terms,),
    ).fetchall()
