"""`make faults`: the experiments behind the promises at full length, one after the other.

    python -m tests.faults [names…] [--scale 0.1] [--record]

Each runs in a process of its own and says one line with its figures. `--record` keeps the lines
in docs/reliability.md. The exit code is that of the worst of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"


@dataclass(frozen=True)
class Experiment:
    name: str
    promises: str
    what: str
    count: int


EXPERIMENTS: Sequence[Experiment] = (
    Experiment("kill", "P1 P2", "SIGKILL at random instants under load", 1_000),
    Experiment("powercut", "P1 P2", "power cut: unsynced writes dropped or torn", 1_000),
)


@dataclass(frozen=True)
class Outcome:
    experiment: Experiment
    count: int
    line: str
    """What it said; the error where it failed."""
    seconds: float
    code: int


def main() -> int:
    options = _options()
    outcomes = []
    for experiment in EXPERIMENTS:
        if not options.names or experiment.name in options.names:
            outcomes.append(run(experiment, max(1, round(experiment.count * options.scale))))
    failed = [outcome.experiment.name for outcome in outcomes if outcome.code]
    print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed", flush=True)
    if options.record:
        record(outcomes)
    return 1 if failed else 0


def run(experiment: Experiment, count: int) -> Outcome:
    print(f"── {experiment.name} × {count:,}: {experiment.what}", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", f"tests.faults.{experiment.name}", str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    line = (done.stdout.strip().splitlines() or ["no figure"])[-1]
    seconds = time.monotonic() - began
    print(f"   {'FAILED' if done.returncode else 'ok'} in {seconds:.0f} s: {line}", flush=True)
    return Outcome(experiment, count, line, seconds, done.returncode)


def record(outcomes: Sequence[Outcome]) -> None:
    """Replace the rows of what was run; the others stay as they were found."""
    text = TABLE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    old, _, tail = rest.partition(END)
    rows = {line.split("|")[2].strip(): line for line in old.splitlines()[2:]}
    today = datetime.now(UTC).date().isoformat()
    for outcome in outcomes:
        experiment, verdict = outcome.experiment, "" if not outcome.code else "**failed**: "
        figure = outcome.line.removeprefix(f"{experiment.name}: ").replace("|", "/")
        rows[experiment.name] = (
            f"| {experiment.promises} | {experiment.name} | {experiment.what} | {outcome.count:,} "
            f"| {verdict}{figure} | {outcome.seconds:.0f} s | {today} |"
        )
    order = [rows[e.name] for e in EXPERIMENTS if e.name in rows]
    header = ["| Promise | Experiment | What is done | Runs | Figures | Took | Date |"]
    lines = [*header, "|---|---|---|---|---|---|---|", *order]
    TABLE.write_text(head + BEGIN + "\n".join(lines) + "\n" + END + tail, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *(e.name for e in EXPERIMENTS)])
    parser.add_argument("--scale", type=float, default=float(os.environ.get("FAULTS_SCALE", "1")))
    parser.add_argument("--record", action="store_true", help="keep the lines in the document")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
