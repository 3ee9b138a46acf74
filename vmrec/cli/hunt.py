# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec hunt: records a guest or a kernel under seed after seed until one is good and one bad, and compares them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from vmrec.cli.diff import compare, show
from vmrec.cli.drives import DeviceOption, DriveOption, VirtioOption, open_images
from vmrec.cli.live import (
    SEED_MAX,
    AppendOption,
    BiosOption,
    CaptureOption,
    DtbOption,
    InitrdOption,
    InputAtOption,
    InputOption,
    IsaOption,
    KernelOption,
    LiveOptions,
    RamOption,
    SeedOption,
    SymbolsOption,
    default_capture,
)
from vmrec.cli.options import GuestArgument, JsonOption
from vmrec.cli.output import plural, print_json, progress, write
from vmrec.cli.paths import SUFFIX, shown, trace_directory
from vmrec.cli.workers import workers
from vmrec.errors import UsageError
from vmrec.guest.elf import Guest
from vmrec.machine.boot import BootOptions
from vmrec.machine.machine import Machine
from vmrec.record.hunt import REASONS, Catch, Condition, Job, Outcome, hunt, what_it_is
from vmrec.record.sources import ScriptedInput, draw_seed

MAX_INSNS = 1_000_000_000


def command(
    guest: GuestArgument = None,
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
    bios: BiosOption = None,
    kernel: KernelOption = None,
    initrd: InitrdOption = None,
    append: AppendOption = None,
    dtb: DtbOption = None,
    symbols: SymbolsOption = None,
    isa: IsaOption = None,
    ram: RamOption = "128M",
    input: InputOption = None,
    input_at: InputAtOption = None,
    seed: SeedOption = None,
    max_insns: Annotated[
        int, typer.Option(metavar="N", min=1, help="End a run after N instructions, with the reason max-insns.")
    ] = MAX_INSNS,
    drive: DriveOption = None,
    device: DeviceOption = None,
    virtio: VirtioOption = "modern",
    json: JsonOption = False,
) -> int:
    """Record a guest, or a kernel's boots, under one chaos seed after another, until one run is good and one bad.

    Both recordings are kept (GUEST-good.vmrec and GUEST-bad.vmrec; existing files stay), and their first difference is
    shown. Runs are recorded in parallel, but the result is that of the lowest seeds, whatever N.

    What boots, and from which disks, is said as to `vmrec record`. Every run begins with the images as they are: what a
    guest writes to a drive stays in its own run.

    Exit status: 0 if every run was good, 1 if there was a bad one, 2 for trouble.

    \b
    Examples:
      vmrec hunt race --chaos 1..200
      vmrec hunt boot.elf -j 8 --until console~PANIC --until reason==trap-loop
      vmrec hunt boot.elf --max-insns 50000000 --until reason==max-insns
      vmrec hunt --kernel Image --drive root.img --append 'root=/dev/vda ro'
      vmrec hunt --kernel Image --initrd root.cpio --until 'console~Kernel panic'
    """
    seeds = _seeds(chaos)
    conditions = tuple(Condition.parse(text) for text in until or ("exit!=0", "reason!=poweroff"))
    options = LiveOptions(
        guest, isa, ram, input, tuple(input_at or ()), "virtual", seed, seeds[0],
        boot=BootOptions(bios, kernel, initrd, append, dtb, tuple(symbols or ())),
        drives=tuple(drive or ()), devices=tuple(device or ()), virtio=virtio,
    )  # fmt: skip
    found = options.find("hunt")
    place = trace_directory() if output is None else output
    with _workshop(place) as folder:
        first = _first_job(options, found, capture, max_insns, conditions, folder)
        catch = _hunt(first, seeds, jobs or len(os.sched_getaffinity(0)))
        good, bad = _keep(catch, place, found.name)
    report: dict[str, Any] = {
        "guest": found.path,
        "chaos": [seeds[0], seeds[-1]],
        "tried": catch.tried,
        "seed": first.seed,
        "until": [str(condition) for condition in conditions],
        "good": _fields(catch.good, good),
        "bad": _fields(catch.bad, bad),
        "diff": None,
    }
    if not json:
        write(_story(report, found.name))
    if good is not None and bad is not None:
        difference = compare(good, bad)
        report["diff"] = difference.to_dict()
        if not json:
            write("")
            show(difference)
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


# ----------------------------------------------------------------------------------------------------------- hunting


@contextlib.contextmanager
def _workshop(place: Path) -> Iterator[Path]:
    """A folder in `place` for recordings that may be thrown away. Raises UsageError if there can be none."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".vmrec-hunt-", dir=place)
    except OSError as error:
        raise UsageError(f"{shown(place)}: cannot hold recordings: {error.strerror}. Choose another with -o.") from None
    with folder as name:
        yield Path(name)


def _first_job(
    options: LiveOptions,
    guest: Guest,
    capture: str | None,
    max_insns: int,
    until: tuple[Condition, ...],
    folder: Path,
) -> Job:
    """The job for the first seed. Raises the errors that every job would end in, before any worker is started."""
    ScriptedInput.parse(options.input_at)
    if options.input is not None and not os.path.isfile(options.input):
        raise UsageError(f"--input {options.input}: is not a regular file; every run of a hunt reads it anew.")
    with contextlib.ExitStack() as stack:
        images = open_images(options.drives, stack)
        config = options.config(guest, images.sizes)
        drives, notes = [image.path for image in images.images], [image.note() for image in images.images]
    Machine(config, guest).close()
    assert options.chaos is not None
    return Job(
        guest=None if options.boot else Path(guest.path),
        guest_hash=what_it_is(guest),
        config=config,
        capture=capture or default_capture(config),
        seed=draw_seed() if options.seed is None else options.seed,
        chaos=options.chaos,
        input=options.input,
        script=tuple(options.input_at),
        max_insns=max_insns,
        until=until,
        path=folder / f"{options.chaos}{SUFFIX}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        boot=options.boot,
        drives=tuple(drives),
        notes=tuple(notes),
    )


def _hunt(first: Job, seeds: range, count: int) -> Catch:
    """Records one job per seed, `count` at a time."""
    total = seeds[-1] - seeds[0] + 1
    count = min(count, total)
    tried: Counter[str] = Counter()
    jobs = (replace(first, chaos=seed, path=first.path.with_name(f"{seed}{SUFFIX}")) for seed in seeds)
    with progress("hunting", total) as line, workers(count, "vmrec.record.hunt") as executor:

        def seen(outcome: Outcome) -> None:
            tried["good" if outcome.bad is None else "bad"] += 1
            text = f"seed {outcome.chaos}: {tried['good']} good, {tried['bad']} bad"
            line.update(tried.total(), text)

        try:
            return hunt(jobs, executor, ahead=2 * count, seen=seen)
        except BrokenProcessPool:
            raise UsageError(
                "a process that recorded was killed (out of memory?); hunt with fewer at a time: -j 1."
            ) from None


def _keep(catch: Catch, place: Path, name: str) -> tuple[Path | None, Path | None]:
    """Moves the recordings of a catch to where they stay, under names that no file has: race-good, race-bad.

    A good run alone is not kept.
    """
    if catch.bad is None:
        return None, None
    for number in itertools.count(1):
        tail = "" if number == 1 else f"-{number}"
        bad = place / f"{name}-bad{tail}{SUFFIX}"
        good = None if catch.good is None else place / f"{name}-good{tail}{SUFFIX}"
        if _claim(bad):
            if good is None or _claim(good):
                break
            bad.unlink()
    os.replace(catch.bad.path, bad)
    if catch.good is not None and good is not None:
        os.replace(catch.good.path, good)
    return good, bad


def _claim(path: Path) -> bool:
    """Makes an empty file, unless there is one already."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------ report


def _fields(outcome: Outcome | None, path: Path | None) -> dict[str, Any] | None:
    """A run of the catch, for JSON."""
    if outcome is None:
        return None
    return {
        "chaos": outcome.chaos,
        "path": path,
        "reason": outcome.reason,
        "exit_code": outcome.exit_code,
        "position": outcome.position,
        "icount": outcome.icount,
        "because": None if outcome.bad is None else str(outcome.bad),
    }


def _story(report: dict[str, Any], name: str) -> str:
    """The catch, for people."""
    good, bad, tried = report["good"], report["bad"], report["tried"]
    first, last = report["chaos"]
    lines = [f"{name}: {plural(tried, 'run')} recorded, chaos seeds {first} to {first + tried - 1}"]
    for label, run in (("good", good), ("bad", bad)):
        if run is not None:
            why = f" ({run['because']})" if run["because"] else ""
            kept = f": {run['path']}" if run["path"] else ""
            lines.append(f"  {label:<4}  seed {run['chaos']}, {run['reason']}, exit code {run['exit_code']}{why}{kept}")
    if bad is None:
        lines.append(f"Every run was good. Go on with `--chaos {last + 1}..{last + tried}`, or another --until.")
    elif good is None:
        lines.append("No run was good, so there is nothing to compare the bad one with.")
    return "\n".join(lines)
