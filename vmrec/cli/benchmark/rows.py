# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows that `vmrec bench` measures: what each one is a figure of, and its floor and goal.

A ratio says how much faster the first of two is than the second: 0.95 in row A means that recording takes a
nineteenth longer than running.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["PARTS", "ROWS", "Bounds", "Figure", "Result", "Row"]


class Bounds(NamedTuple):
    """What a figure should at least be, and what it is to become."""

    floor: float
    goal: float
    more_is_better: bool = True

    def verdict(self, value: float) -> str:
        """goal, floor or below: the best that `value` reaches."""
        sign = 1 if self.more_is_better else -1
        if sign * value >= sign * self.goal:
            return "goal"
        return "floor" if sign * value >= sign * self.floor else "below"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `bounds` hold for each figure, or for the geometric mean alone with `by_mean`.

    `exceptions`: figures with bounds of their own, None for those that only inform.
    """

    letter: str
    title: str
    unit: str
    bounds: Bounds
    by_mean: bool = False
    exceptions: Mapping[str, Bounds | None] = field(default_factory=dict)

    def bounds_of(self, name: str) -> Bounds | None:
        """What the figure `name` of this row is measured by."""
        if self.by_mean:
            return None
        return self.exceptions.get(name, self.bounds)


_LOADS_AND_STORES = Bounds(4, 5)
_ONE_PAGE = Bounds(0.1, 1)
_KERNEL = Bounds(3, 4)
_LONG_DIFF = Bounds(math.inf, 5, more_is_better=False)
_SLOW_SEEK = Bounds(100, 50, more_is_better=False)
_FAR_WRITE = Bounds(2000, 1000, more_is_better=False)

ROWS = {
    row.letter: row
    for row in (
        Row("A", "record inputs / vmrec run", "ratio", Bounds(0.95, 0.98), by_mean=True),
        Row("B", "record inputs / uncounted", "ratio", Bounds(0.8, 0.95), exceptions={"kernel": Bounds(0.5, 0.8)}),
        Row(
            "C", "record inputs / stock Unicorn", "ratio", Bounds(0.9, 1),
            exceptions={
                "loop-mem": _LOADS_AND_STORES, "loop64-mem": _LOADS_AND_STORES,
                "loop-mixed": _ONE_PAGE, "loop-smc": _ONE_PAGE, "loop-mmio": None,
            },
        ),
        Row(
            "D", "record inputs / QEMU rr=record", "ratio", Bounds(0.6, 1),
            exceptions={"kernel-disk": _KERNEL},
        ),
        Row("E", "replay / record", "ratio", Bounds(1, 1.2), by_mean=True),
        Row(
            "F", "record full, loads and stores", "M insn/s", Bounds(40, 200),
            exceptions={"/ Python": Bounds(30, 30)},
        ),
        Row("G", "size of a full recording", "B/insn", Bounds(2.5, 1, more_is_better=False)),
        Row(
            "H", "size of an inputs recording", "bit/insn", Bounds(0.004, 0.002, more_is_better=False),
            exceptions={"kernel": Bounds(0.02, 0.002, more_is_better=False)},
        ),
        Row("I", "checkpoints in 10^9 steps", "MB", Bounds(100, 30, more_is_better=False)),
        Row(
            "J", "seek anywhere in 10^9 steps", "ms", Bounds(30, 15, more_is_better=False),
            exceptions={
                "p95": _SLOW_SEEK, "first p95": _SLOW_SEEK, "second p95": _SLOW_SEEK,
                **{f"kernel {which}p50": Bounds(60, 30, more_is_better=False) for which in ("", "first ", "second ")},
                **{f"kernel {which}p95": Bounds(150, 75, more_is_better=False) for which in ("", "first ", "second ")},
            },
        ),
        Row(
            "K", "going back, warm", "ms", Bounds(1, 0.2, more_is_better=False),
            exceptions={"write at the begin": _FAR_WRITE, "change at the begin": _FAR_WRITE},
        ),
        Row(
            "L", "diff of inputs, 10^8 steps", "s", Bounds(10, 0.5, more_is_better=False),
            exceptions={f"10^9, {name}": _LONG_DIFF for name in ("early", "late", "unseen")},
        ),
        Row(
            "M", "exits from the running guest", "µs", Bounds(0.4, 0.2, more_is_better=False),
            exceptions={
                "ecall": Bounds(0.5, 0.25, more_is_better=False), "page fault": Bounds(0.6, 0.3, more_is_better=False),
                "timer interrupt": Bounds(15, 7.5, more_is_better=False),
            },
        ),
        Row(
            "N", "memory of the recorder", "MB", Bounds(300, 100, more_is_better=False),
            exceptions={"growth": Bounds(1.1, 1.1, more_is_better=False)},
        ),
        Row(
            "O", "start-up", "ms", Bounds(250, 150, more_is_better=False),
            exceptions={name: Bounds(100, 50, more_is_better=False) for name in ("open", "open a timeline")},
        ),
    )
}  # fmt: skip

#: What rows have beside the line that is theirs, under the same letter.
PARTS = {
    "D plain": Row("D", "record inputs / QEMU, plain", "ratio", Bounds(0.67, 1)),
    "D replay": Row("D", "replay / QEMU rr=replay", "ratio", Bounds(0.6, 1), exceptions={"kernel-disk": _KERNEL}),
    "J memory": Row("J", "memory of a timeline", "MB", Bounds(512, 256, more_is_better=False)),
    "E full": Row("E", "replay / record full", "ratio", ROWS["E"].bounds, by_mean=True),
    "E rows": Row("E", "replay --check / record full", "ratio", ROWS["E"].bounds, by_mean=True),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value. `values`: those whose median it is. `detail`: what else there is to say about it."""

    name: str
    values: Sequence[float]
    bounds: Bounds | None
    digits: int = 2
    detail: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str | None:
        """goal, floor or below, judged by what is shown; None if the figure only informs."""
        return None if self.bounds is None else self.bounds.verdict(round(self.value, self.digits))

    @property
    def margin(self) -> float:
        """How many times better than the floor it is; the value itself if the figure only informs."""
        if self.bounds is None:
            return self.value
        return self.value / self.bounds.floor if self.bounds.more_is_better else self.bounds.floor / self.value

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "value": self.value,
            "values": list(self.values),
            "floor": None if self.bounds is None or math.isinf(self.bounds.floor) else self.bounds.floor,
            "goal": self.bounds and self.bounds.goal,
            "verdict": self.verdict,
            "detail": self.detail,
        }


@dataclass(slots=True)
class Result:
    """What came out for a row. `missing`: (what was not measured, why)."""

    row: Row
    figures: list[Figure] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        """The geometric mean of a row of ratios; None of another row, or without a figure."""
        if self.row.unit != "ratio" or not self.figures:
            return None
        return statistics.geometric_mean(figure.value for figure in self.figures)

    @property
    def verdict(self) -> str | None:
        """That of the mean, or of the worst figure; None if nothing was measured."""
        if self.row.by_mean:
            return None if self.mean is None else self.row.bounds.verdict(round(self.mean, 2))
        return None if self.worst is None else self.worst.verdict

    @property
    def worst(self) -> Figure | None:
        """The figure with the worst verdict; among several one of the row's own bounds, and the least above them."""
        order = ("below", "floor", "goal", None)
        return min(
            self.figures,
            key=lambda figure: (order.index(figure.verdict), figure.bounds is not self.row.bounds, figure.margin),
            default=None,
        )

    @property
    def below(self) -> list[str]:
        """The figures below their floor."""
        return [figure.name for figure in self.figures if figure.verdict == "below"]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "row": self.row.letter,
            "title": self.row.title,
            "unit": self.row.unit,
            "floor": self.row.bounds.floor,
            "goal": self.row.bounds.goal,
            "judged_by": "geometric mean" if self.row.by_mean else "worst figure",
            "verdict": self.verdict,
            "geometric_mean": self.mean,
            "figures": [figure.to_dict() for figure in self.figures],
            "missing": [{"name": name, "why": why} for name, why in self.missing],
        }
