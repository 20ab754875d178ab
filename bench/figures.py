"""A measured figure, how it is judged, and the table that shows it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One row of the table. `value` is compared with `goal`; `detail` says what it is made of
    (the floor, the median, the minimum)."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    detail: str = ""
    better: Literal["lower", "higher"] = "lower"

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        met = self.value <= self.goal if self.better == "lower" else self.value >= self.goal
        return "yes" if met else "**no**"

    @property
    def shown_goal(self) -> str:
        if self.goal is None:
            return ""
        return f"{'≤' if self.better == 'lower' else '≥'} {amount(self.goal, self.unit)}"


def ratio(
    name: str,
    ours: Sequence[float],
    floor: Sequence[float],
    *,
    goal: float,
    unit: str,
    floor_name: str,
) -> Figure:
    """Ours against a floor measured in turn with it. The minima are compared: other work on the
    machine only ever adds. The medians stand beside them."""
    return Figure(
        name,
        min(ours) / min(floor),
        "x",
        goal,
        f"{_both(ours, unit)}; {floor_name} {_both(floor, unit)}; "
        f"of medians {statistics.median(ours) / statistics.median(floor):.2f} x",
    )


def median_ratio(
    name: str,
    ours: Sequence[float],
    floor: Sequence[float],
    *,
    goal: float,
    unit: str,
    floor_name: str,
) -> Figure:
    """As `ratio`, where a promise is about the median of many single operations."""
    return Figure(
        name,
        statistics.median(ours) / statistics.median(floor),
        "x",
        goal,
        f"p50 {amount(statistics.median(ours), unit)}, p99 {amount(quantile(ours, 0.99), unit)}; "
        f"{floor_name} p50 {amount(statistics.median(floor), unit)}",
    )


def latency(
    name: str, times: Sequence[float], *, goal: float | None, q: float, unit: str = "ms"
) -> Figure:
    """A quantile of many operations; the median and the minimum stand beside it."""
    spread = f"p50 {amount(statistics.median(times), unit)}, min {amount(min(times), unit)}"
    return Figure(name, quantile(times, q), unit, goal, f"{spread}, {len(times)} times")


def quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(math.ceil(q * len(ordered)) - 1, len(ordered) - 1)] if q < 1 else ordered[-1]


def amount(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def _both(values: Sequence[float], unit: str) -> str:
    return f"min {amount(min(values), unit)} (median {amount(statistics.median(values), unit)})"


def in_turn(runs: int, *measures: Callable[[], float], warm_up: int = 1) -> tuple[list[float], ...]:
    """Each measure `runs` times, one after the other and round again, so that what else the
    machine does falls on all of them alike."""
    results: tuple[list[float], ...] = tuple([] for _ in measures)
    for number in range(warm_up + runs):
        for measure, values in zip(measures, results, strict=True):
            value = measure()
            if number >= warm_up:
                values.append(value)
    return results


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table that can also be read in a terminal."""
    rows = [("what", "measured", "goal", "met", "how it is made up")]
    rows += [(f.name, amount(f.value, f.unit), f.shown_goal, f.verdict, f.detail) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in [*widths, 16]) + "|")
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
    return "| " + " | ".join(cells) + " |"
