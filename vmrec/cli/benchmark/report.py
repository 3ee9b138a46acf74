# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of `vmrec bench` as text of at most 80 columns: each row with all its figures, then the rows in short."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

from vmrec.cli.benchmark.rows import Bounds, Figure, Result
from vmrec.cli.output import columns

__all__ = ["NOT_YET", "lines"]

NOT_YET = (
    "kernel is the teaching kernel with `work`: system calls, page faults, switches, disk, programs. Stock Unicorn "
    "cannot run it, so there is no figure of it in C."
)
_VERDICTS = {"goal": "goal met", "floor": "met", "below": "BELOW", None: ""}


def lines(results: Sequence[Result]) -> Iterator[str]:
    """Blocks of text, to be written one after the other."""
    for result in results:
        yield _block(result) + "\n"
    yield _summary(results)


def _block(result: Result) -> str:
    row = result.row
    head = f"{row.letter}  {row.title} ({row.unit}; {_bounds(row.bounds)})"
    rows = [
        ("  ", figure.name, _value(figure), _spread(figure), figure.detail, _VERDICTS[figure.verdict])
        for figure in result.figures
    ]
    if result.mean is not None and len(result.figures) > 1:
        verdict = _VERDICTS[result.verdict] if row.by_mean else ""
        rows.append(("  ", "geometric mean", f"{result.mean:.2f}", "", "", verdict))
    missing: dict[str, list[str]] = {}
    for name, why in result.missing:
        missing.setdefault(why, []).append(name)
    parts = [head]
    if rows:
        parts.append(columns(rows, right=(2,)))
    parts += [
        _filled("    ", f"not measured: {', '.join(names)}") + "\n" + _filled("      ", f"({why})")
        for why, names in missing.items()
    ]
    if not rows and not missing:
        parts.append("    not measured: not reached")
    return "\n".join(parts)


def _filled(indent: str, text: str) -> str:
    return textwrap.fill(text, 80, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _bounds(bounds: Bounds) -> str:
    return f"floor {bounds.floor:g}, goal {bounds.goal:g}"


def _value(figure: Figure) -> str:
    return f"{figure.value:.{figure.digits}f}"


def _spread(figure: Figure) -> str:
    """The lowest and highest value, if there are several."""
    if len(figure.values) < 2:
        return ""
    return f"{min(figure.values):.{figure.digits}f}–{max(figure.values):.{figure.digits}f}"


def _summary(results: Sequence[Result]) -> str:
    """A line for each row: its mean, or the figure that is nearest to its floor, and who is below it."""
    rows = [("", "", "HERE", "OF", "FLOOR", "GOAL", "")]
    below = []
    for result in results:
        row, worst = result.row, result.worst
        if worst is None:
            rows.append((row.letter, row.title, "–", "not measured", *_limits(row.bounds), ""))
            continue
        shown = (_value(worst), worst.name, *_limits(worst.bounds or row.bounds))
        if row.by_mean and result.mean is not None:
            shown = (f"{result.mean:.2f}", "mean", *_limits(row.bounds))
        rows.append((row.letter, row.title, *shown, _VERDICTS[result.verdict]))
        if result.below:
            below.append(f"{row.letter}, {row.title}, is below its floor for: {', '.join(result.below)}.")
    table = columns(rows, right=(2, 4, 5), heading=True)
    return "\n".join([table, *([""] if below else []), *(_filled("", line) for line in below)])


def _limits(bounds: Bounds) -> tuple[str, str]:
    return "" if math.isinf(bounds.floor) else f"{bounds.floor:g}", f"{bounds.goal:g}"
