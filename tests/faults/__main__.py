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


EXPERIMENTS: Sequence[Experiment] = tuple(
    Experiment(*row)
    for row in (
        ("kill", "P1 P2", "SIGKILL at random instants under load, then a look at the files", 1_000),
        ("powercut", "P1 P2", "power cut: unsynced writes dropped or torn, then two starts", 1_000),
        ("mutants", "P1 P2", "the two above find what is wrong when a defence is taken out", 1),
        ("writers", "P1 P8", "ten windows send at once, each so many prompts", 200),
        (
            "windows",
            "P3 P7 P8",
            "owners killed, frozen, reloaded; text elsewhere",
            20,
        ),
        ("reconnect", "P3", "random schedules of hiding, reloading, killing, trimming", 1_000),
        ("storage", "P4", "deltas streamed, bytes written and kept", 1_000_000),
        ("forgotten", "P4", "conversations deleted, every file searched for their words", 100),
        ("diskfull", "P1 P11", "a small disk is filled in mid-stream, then freed", 60),
        ("sweep", "P1", "each system call fails once: EIO, ENOSPC, EDQUOT, EACCES, EINTR", 1_000),
        ("damage", "P1", "starts on damaged files", 500),
        ("unopenable", "P1", "starts on stores that cannot be used as they are", 100),
        ("locked", "P1 P11", "another program holds the store, for so many seconds", 30),
        ("migration", "P1", "older stores brought up to date, killed at each statement", 1_000),
        ("clocks", "P5", "the wall clock jumps by years, hours and daylight saving", 120),
        ("frames", "P6", "mutated conversations, life cycles, floods, prints", 20_000),
        ("backpressure", "P3 P11", "a client does not read for so many seconds", 60),
        ("process_life", "P7", "editors killed in every way", 1_000),
        ("hung", "P7 P11", "models' libraries spin, block, ignore cancellation", 100),
        (
            "manager_runs",
            "P5 P6",
            "cancellations, evictions, settings; the model",
            10_000,
        ),
        ("approvals", "P2 P9", "questions answered, raced, forged, cancelled, outlived", 300),
        ("secrets", "P10", "canary keys, searched in all that is written or said", 4),
        ("chaos", "P6 P10", "vendors' faults, all of them with each vendor's wire", 0),
        ("chaos_cuts", "P6", "vendors' streams cut at every byte", 0),
        ("chaos_memory", "P11", "vendors' bombs", 0),
    )
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
            outcomes.append(run(experiment, scaled(experiment.count, options.scale)))
    failed = [outcome.experiment.name for outcome in outcomes if outcome.code]
    print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed", flush=True)
    if options.record:
        record(outcomes)
    return 1 if failed else 0


def scaled(count: int, scale: float) -> int:
    """0 is all that there are, and stays so unless less is wanted."""
    return max(1, round(count * scale)) if count else 0 if scale >= 1 else max(1, round(50 * scale))


def run(experiment: Experiment, count: int) -> Outcome:
    print(f"── {experiment.name} × {count or 'all'}: {experiment.what}", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", f"tests.faults.{experiment.name}", str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    line = (done.stdout.strip().splitlines() or ["no figure"])[-1]
    seconds = time.monotonic() - began
    print(f"   {'FAILED' if done.returncode else 'ok'} in {seconds:.0f} s: {line}", flush=True)
    return Outcome(experiment, count, line, seconds, done.returncode)


def count_of(outcome: Outcome) -> str:
    return f"{outcome.count:,}" if outcome.count else "all"


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
            f"| {experiment.promises} | {experiment.name} | {experiment.what} "
            f"| {count_of(outcome)} "
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
