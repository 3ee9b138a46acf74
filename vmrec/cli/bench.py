# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec bench: how fast vmrec is on this machine, as ratios to what it is compared with."""

from __future__ import annotations

import os
import platform
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vmrec import __version__
from vmrec.cli.benchmark import report
from vmrec.cli.benchmark.measure import SUITE, Bench, Plan
from vmrec.cli.benchmark.peers import qemu_version
from vmrec.cli.benchmark.rows import ROWS
from vmrec.cli.options import JsonOption
from vmrec.cli.output import note, print_json, progress, write
from vmrec.errors import UsageError, VmrecError


def complete_row(incomplete: str) -> list[str]:
    """Letters of rows."""
    return [letter for letter in ROWS if letter.startswith(incomplete.upper())]


def complete_loop(incomplete: str) -> list[str]:
    """Guests of the suite."""
    return [name for name in SUITE if name.startswith(incomplete)]


def command(
    row: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B…",
            help="Only these rows; may be given several times.",
            autocompletion=complete_row,
            show_default=False,
        ),
    ] = None,
    guest: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="Only these guests of the suite, in the rows that go through it; may be given several times.",
            autocompletion=complete_loop,
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=1000, help="Pairs of runs for a ratio; 5, with --quick 1.", show_default=False
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A minute at most: short runs, so rough figures.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Also what takes minutes: 3·10^10 instructions in N.")] = False,
    cpu: Annotated[
        bool,
        typer.Option(
            "--cpu", help="Count the CPU time of all threads, as if there were one CPU: steadier on a busy host."
        ),
    ] = False,
    json: JsonOption = False,
) -> int:
    """Measure vmrec on this machine, beside what it is compared with. Takes about six minutes.

    \b
      A  record inputs / vmrec run
      B  record inputs / the engine with vmrec's MMU and nothing counted
      C  record inputs / stock Unicorn
      D  record inputs / QEMU's rr=record, where QEMU is installed
      E  replay / record
      F  recording in full, on a loop of loads and stores
      G  size of full recordings      H  size of inputs recordings
      I  checkpoints of a kernel      M  exits from the running guest
      J  seeks       K  steps back    L  diff
      N  memory      O  start-up

    Ratios are of speeds: more is better. Both sides run alternately, and the median of the pairs counts. Each figure
    stands beside its floor and goal. Ctrl-C shows what has been measured.

    Exit status: 0 whatever the figures are, 2 for trouble.

    \b
    Examples:
      vmrec bench --quick
      vmrec bench --row A,E --guest loop-mem,loop-reg --runs 11
      vmrec bench --json > here.json
    """
    plan = Plan(_rows(row), _guests(guest), runs or (1 if quick else 5), quick, long, cpu)
    host = _host()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vmrec-bench-") as folder:
        bench = Bench(plan, Path(folder))
        failure = _measure(bench)
    seconds = time.perf_counter() - begin
    results = bench.results()
    if json:
        print_json(
            "bench",
            {
                "version": __version__,
                "host": host,
                "runs": plan.runs,
                "quick": plan.quick,
                "clock": "cpu" if cpu else "wall",
                "seconds": seconds,
                "interrupted": failure is not None,
                "rows": [result.to_dict() for result in results],
                "not_yet": report.NOT_YET,
            },
        )
    else:
        write(_introduction(host, plan) + "\n")
        for block in report.lines(results):
            write(block)
        write("\n" + textwrap.fill(report.NOT_YET, 80))
    if failure is None:
        return 0
    note(f"Interrupted after {seconds:.0f} s: this is what had been measured.")
    raise failure


def _measure(bench: Bench) -> KeyboardInterrupt | VmrecError | None:
    """Does everything; returns what ended it early: Ctrl-C, or a mistake that the measuring has found."""
    steps = bench.steps()
    try:
        with progress("measuring", len(steps)) as line:
            for number, (what, do) in enumerate(steps):
                line.update(number, what)
                do()
    except (KeyboardInterrupt, VmrecError) as error:
        return error
    return None


def _rows(options: Sequence[str] | None) -> tuple[str, ...]:
    """The rows that the values of --row mean, in the order of the table. Raises UsageError."""
    wanted = [letter.strip().upper() for option in options or () for letter in option.split(",")]
    for letter in wanted:
        if letter not in ROWS:
            raise UsageError(f"--row {letter}: there is no such row; choose among {', '.join(ROWS)}.")
    return tuple(letter for letter in ROWS if not wanted or letter in wanted)


def _guests(options: Sequence[str] | None) -> tuple[str, ...]:
    """The guests that the values of --guest mean, in the order of the suite. Raises UsageError."""
    wanted = [name.strip() for option in options or () for name in option.split(",")]
    for name in wanted:
        if name not in SUITE:
            raise UsageError(f"--guest {name}: is not in the suite; choose among {', '.join(SUITE)}.")
    return tuple(name for name in SUITE if not wanted or name in wanted)


def _host() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "qemu": qemu_version(),
    }


def _introduction(host: dict[str, Any], plan: Plan) -> str:
    parts = [
        f"vmrec {__version__}, Python {host['python']}, {host['system']}, {host['cpus']} CPUs, "
        f"{host['qemu'] or 'QEMU not installed'}."
    ]
    if plan.runs > 1:
        parts.append(f"Ratios: the median of {plan.runs} pairs of runs, then the lowest and highest.")
    if plan.quick:
        parts.append("Short runs (--quick): rough figures.")
    if plan.cpu:
        parts.append("Seconds are of CPU time, of all threads.")
    elif host["load"] > 0.5:
        parts.append(f"Other programs kept the host busy (load {host['load']}): figures scatter; try --cpu.")
    parts.append("M/s: million instructions a second.")
    return textwrap.fill(" ".join(parts), 80, break_long_words=False)
