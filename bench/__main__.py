"""`python -m bench [names…] [--quick] [--write]`: measure, print a table, keep it in README.md."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import acp, elsewhere, history, start, streaming, turns, vendor
from .figures import Figure, amount, table

Benchmark = Callable[[Path, bool], list[Figure]]

BENCHMARKS: dict[str, Benchmark] = {
    "start": start.start,
    "idle": start.idle,
    "streaming": streaming.streaming,
    "ten": streaming.ten_at_once,
    "enqueue": turns.enqueue,
    "turns": turns.growing,
    "disk": turns.disk,
    "cancel": turns.cancel,
    "history": history.history,
    "search": history.search,
    "acp": acp.acp,
    "vendor": vendor.vendor,
}
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"


def main() -> int:
    options = _options()
    if not sys.platform.startswith("linux"):
        print("These measurements read /proc and Linux' CPU clocks; run them on Linux.")
        return 1
    names = options.names or list(BENCHMARKS)
    before = os.getloadavg()[0]
    figures: list[Figure] = []
    for name in names:
        print(f"── {name}", flush=True)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="agent-sidecar-bench-") as folder:
            found = BENCHMARKS[name](Path(folder), options.quick)
        figures += found
        print(
            table(found) if found else "", f"\n({time.perf_counter() - began:.0f} s)\n", flush=True
        )
    shown = results(figures, before, quick=options.quick)
    if len(names) > 1:
        print(shown)
    if options.write:
        _write(shown)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer runs, smaller stores")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return options


def results(figures: Sequence[Figure], load_before: float, *, quick: bool) -> str:
    """The tables, and the circumstances that belong to them."""
    command = "python -m bench --quick" if quick else "python -m bench"
    lines = [
        f"Measured {time.strftime('%Y-%m-%d')} with `{command}`: "
        f"{os.cpu_count()} CPUs ({_cpu()}), {platform.system()} {platform.release()}, "
        f"CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}; load average "
        f"{load_before:.1f} before, {os.getloadavg()[0]:.1f} after.",
        "",
        table(figures),
        "",
        "Beside the field (its figures: measured elsewhere, on a quiet machine of the same kind). "
        "A bare asyncio agent took 120 ms of CPU there; what it takes here stands above, so times "
        "compare only roughly:",
        "",
        _field(figures),
        "",
    ]
    return "\n".join(lines)


def _field(figures: Sequence[Figure]) -> str:
    rows = [(elsewhere.COLUMNS[0], "agent-sidecar, this run", *elsewhere.COLUMNS[1:])]
    rows += [(row[0], _ours(row[0], figures), *row[1:]) for row in elsewhere.ROWS]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def _ours(row: str, figures: Sequence[Figure]) -> str:
    begin = elsewhere.OURS.get(row)
    found = [f for f in figures if begin and f.name.startswith(begin)]
    return amount(found[0].value, "") if found else ""


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _write(shown: str) -> None:
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}{shown}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
