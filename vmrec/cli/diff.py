# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec diff: the first difference of two recordings, and the event that made it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from vmrec.cli.options import JsonOption, ParentOption, parents_also_in
from vmrec.cli.output import coloured, print_json, progress, quantity, write
from vmrec.cli.paths import complete_trace, trace_path
from vmrec.diff.first import CONTEXT, diff
from vmrec.diff.report import Report
from vmrec.trace.reader import TraceReader

__all__ = ["command", "compare", "show"]

_COLOURS = {"heading": 1, "a": 36, "b": 33}


def command(
    a: Annotated[str, typer.Argument(metavar="A", help="A recording.", autocompletion=complete_trace)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another recording.", autocompletion=complete_trace)],
    context: Annotated[
        int,
        typer.Option("--context", "-C", metavar="N", min=0, max=1000, help="Steps to show before and after."),
    ] = CONTEXT,
    parent: ParentOption = None,
    json: JsonOption = False,
) -> int:
    """Find the first difference of two recordings: the step, what it did in each, and the first event that differs.

    Only what can differ is executed: two recordings of one guest on one machine are the same up to the first event that
    is not. How they were captured makes no difference. If the first step that differs is the same instruction in both,
    it is also said where they go different ways. If guests or machines differ, they are compared step by step from the
    start; if one recording is the beginning of the other, it is said where it ends.

    \b
    In JSON: same, kind ("step", "event", "length", "header", "recording"),
    position, cause {a, b}: {kind, position, data}, the step in a and b: {pc,
    symbol, line, instruction, …}, registers, memory, ways (the first step that
    only one of them makes, if that is a later one), last_events, compared.

    Exit status: 0 if they are the same, 1 if they differ, 2 for trouble.

    \b
    Examples:
      vmrec diff race-good race-bad
      vmrec diff a.vmrec b.vmrec -C 10
      vmrec diff a.vmrec b.vmrec --json
    """
    parents_also_in(parent)
    report = compare(trace_path(a), trace_path(b), context=context)
    if json:
        print_json("diff", report.to_dict())
    else:
        show(report)
    return 0 if report.same else 1


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str], *, context: int = CONTEXT) -> Report:
    """Compares two recordings, with progress on stderr; `context` steps are kept before and after the difference."""
    with TraceReader(a) as one, TraceReader(b) as other:
        until = min(one.last_position, other.last_position)
        with progress("comparing", until) as line:
            result = diff(
                one,
                other,
                context=context,
                progress=lambda position: line.update(position, f"{quantity(position)} steps"),
            )
        return Report(result, one, other)


def show(report: Report) -> None:
    """Writes a report to stdout, in colours if they are wanted there."""
    colours = coloured(sys.stdout)
    for style, text in report.lines():
        write(f"\033[{_COLOURS[style]}m{text}\033[0m" if colours and style else text)
