# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec hunt: records a guest under seed after seed until one run is good and one bad, and tells them apart."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from vmrec.cli.diff import compare, show
from vmrec.cli.live import (
    SEED_MAX,
    CaptureOption,
    InputAtOption,
    InputOption,
    IsaOption,
    LiveOptions,
    OptionalGuestArgument,
    RamOption,
    SeedOption,
    default_capture,
    find_guest,
)
from vmrec.cli.options import JsonOption
from vmrec.cli.output import note, plural, print_json, progress, quantity, write
from vmrec.cli.paths import SUFFIX, shown, trace_directory
from vmrec.errors import UsageError
from vmrec.guest.elf import Guest
from vmrec.machine.machine import Machine
from vmrec.record.hunt import REASONS, Catch, Condition, Job, Outcome, hunt
from vmrec.record.sources import ScriptedInput, draw_seed

MAX_INSNS = 1_000_000_000


def command(
    guest: OptionalGuestArgument = None,
    chaos: Annotated[str, typer.Option(metavar="A..B", help="The seeds to try, in order.")] = "1..1000",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, help="Runs at a time; one a CPU.", show_default=False),
    ] = None,
    until: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="What makes a run a bad one: exit!=0, exit==N, reason==WORD, reason!=WORD or console~TEXT; any of "
            f"them, if given several times. WORD: {', '.join(REASONS)}. [default: exit!=0, reason!=poweroff]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where to keep the two recordings; the current directory, or $VMREC_DIR, if left out.",
            show_default=False,
        ),
    ] = None,
    capture: CaptureOption = None,
    isa: IsaOption = None,
    ram: RamOption = "128M",
    input: InputOption = None,
    input_at: InputAtOption = None,
    seed: SeedOption = None,
    max_insns: Annotated[
        int, typer.Option(metavar="N", min=1, help="End a run after N instructions, with the reason max-insns.")
    ] = MAX_INSNS,
    json: JsonOption = False,
) -> int:
    """Record a guest under one chaos seed after another, until one run is good and one bad.

    Both recordings are kept (GUEST-good.vmrec and GUEST-bad.vmrec; existing files stay), and their first difference is
    shown. Runs are recorded in parallel, but the result is that of the lowest seeds, whatever N.

    Exit status: 0 if every run was good, 1 if there was a bad one, 2 for trouble.

    \b
    Examples:
      vmrec hunt race --chaos 1..200
      vmrec hunt firmware.elf -j 8 --until 'console~PANIC' --until reason==trap-loop
      vmrec hunt driver.elf --max-insns 50000000 --until reason==max-insns
    """
    found = find_guest(guest, "hunt")
    seeds = _seeds(chaos)
    conditions = tuple(Condition.parse(text) for text in until or ("exit!=0", "reason!=poweroff"))
    options = LiveOptions(guest, isa, ram, input, tuple(input_at or ()), "virtual", seed, seeds[0])
    place = trace_directory() if output is None else output
    with _workshop(place) as folder:
        template = _template(options, found, capture, max_insns, conditions, folder)
        catch = _hunt(template, seeds, folder, jobs or len(os.sched_getaffinity(0)), found.name)
        good, bad = _keep(catch, place, found.name)
    report: dict[str, Any] = {
        "guest": found.path,
        "chaos": [seeds[0], seeds[-1]],
        "tried": catch.tried,
        "seed": template.seed,
        "until": [str(condition) for condition in conditions],
        "good": _fields(catch.good, good),
        "bad": _fields(catch.bad, bad),
        "diff": None,
    }
    if not json:
        _tell(report, found)
    if good is not None and bad is not None:
        with compare(good, bad) as difference:
            ...
    if json:
        print_json("hunt", report)
    return 0 if bad is None else 1


def _seeds(text: str) -> range:
    """The seeds that a value of --chaos means: 1..1000, or one. Raises UsageError."""
    match = re.fullmatch(r"([0-9]+)(?:\.\.([0-9]+))?", text.replace("_", ""))
    first, last = (int(part) for part in (match[1], match[2] or match[1])) if match else (1, 0)
    if not first <= last <= SEED_MAX:
        raise UsageError(f"--chaos {text}: expected a range of seeds from low to high, for example 1..1000.")
    return range(first, last + 1)
