"""Rows of ratios: each is measured beside its baseline in the same run, alternating, and judged by medians."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

REPETITIONS = 5


@dataclass
class Row:
    """One line of the table. ``goal`` is what the ratio is held against, e.g. ``>= 0.25 (aim 0.40)``."""

    name: str
    value: float
    goal: str
    detail: str = ""

    @property
    def met(self) -> bool:
        sign, bound = self.goal.split()[:2]
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


@dataclass
class Report:
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, value: float, goal: str, detail: str = "") -> None:
        row = Row(name, value, goal, detail)
        self.rows.append(row)
        print(f"{'ok ' if row.met else 'LOW'} {name:<58} {value:8.2f}  {goal:<24} {detail}", flush=True)


def alternate(*measures: Callable[[], float], repetitions: int = REPETITIONS) -> list[float]:
    """Medians of several measures, taken in turns so that a noisy moment hits all of them."""
    results: list[list[float]] = [[] for _ in measures]
    for _ in range(repetitions):
        for values, measure in zip(results, measures, strict=True):
            values.append(measure())
    return [median(values) for values in results]


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def settle_down() -> None:
    """As ``playhead serve`` does: what has been imported is not looked through by the garbage collector any more."""
    gc.collect()
    gc.freeze()
