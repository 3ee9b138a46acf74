# SPDX-License-Identifier: GPL-2.0-or-later
"""Hunting: a guest, or a kernel with its disks, recorded under seed after seed, until one run is good and one bad.

    seeds ──▶ Job ──▶ record_job (a worker process each) ──▶ Outcome ──▶ hunt: in the order of seeds ──▶ Catch

Workers may be done in any order, and may have gone too far; what comes out is decided in the order of seeds, so it is
the same with any number of workers. Each reads the files itself, and finds in them what was there at the beginning.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from blake3 import blake3

from vmrec.errors import UsageError, VmrecError
from vmrec.guest.elf import Guest, load_guest
from vmrec.machine.board import MachineConfig
from vmrec.machine.boot import BootOptions, place, read_boot_files
from vmrec.machine.machine import Machine
from vmrec.record.drives import ImageSet
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import LiveRun, World
from vmrec.record.sources import ChaosClock, FilePaced, InputPlan, ScriptedInput, SeededEntropy
from vmrec.trace.codec import pack
from vmrec.trace.writer import TraceWriter

__all__ = ["Catch", "Condition", "Job", "Outcome", "hunt", "record_job", "what_it_is"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What makes a run a bad one: `exit!=0`, `exit==N`, `reason==trap-loop`, `reason!=poweroff`, `console~TEXT`.

    `field` is exit, reason or console; `sign` ==, != or ~ (contains; console only).
    """

    field: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The condition that a value of --until describes. Raises UsageError."""
        match = re.fullmatch(r"\s*(?:(exit|reason)\s*(==|!=)\s*([\w-]+)\s*|(console)\s*(~)(.+))", text, re.DOTALL)
        if match is None:
            raise UsageError(
                f"--until {text!r} is not understood. Write exit!=0, exit==N, reason==WORD, reason!=WORD or "
                f"console~TEXT; reasons are {', '.join(REASONS)}."
            )
        field, sign, value = (part for part in match.groups() if part is not None)
        if field == "exit" and not value.isdecimal():
            raise UsageError(f"--until {text!r}: an exit code is a number, for example exit!=0.")
        if field == "reason" and value not in REASONS:
            raise UsageError(f"--until {text!r}: there is no reason {value}; reasons are {', '.join(REASONS)}.")
        return cls(field, sign, value)

    def holds(self, reason: str, exit_code: int, console: bytes) -> bool:
        """Whether a run that ended like this is a bad one."""
        if self.field == "console":
            return os.fsencode(self.value) in console
        equal = exit_code == int(self.value) if self.field == "exit" else reason == self.value
        return equal == (self.sign == "==")

    def __str__(self) -> str:
        return f"{self.field}{self.sign}{self.value}"


#: How a run in a hunt can end.
REASONS = ("poweroff", "reset", "waiting-for-ever", "trap-loop", "max-insns")


@dataclass(frozen=True, slots=True)
class Job:
    """One run to record: everything that it depends on, so that any process can do it.

    `guest` is the ELF file, or None if `boot` names images instead; `guest_hash` is what they must hold
    (`what_it_is`); `input` a regular file for the console, or None; `script` the values of --input-at; `until`: any of
    these makes a run a bad one. `drives` are image files, and `notes` what each must be (`DriveImage.note`). The
    recording goes to `path`.
    """

    guest: Path | None
    guest_hash: bytes
    config: MachineConfig
    capture: str
    seed: int
    chaos: int
    input: str | None
    script: tuple[str, ...]
    max_insns: int
    until: tuple[Condition, ...]
    path: Path
    created: str
    boot: BootOptions = field(default_factory=BootOptions)
    drives: tuple[str, ...] = ()
    notes: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job's run ended. `bad`: the condition that makes it a bad one. `trouble`: why there is no recording."""

    chaos: int
    path: Path
    reason: str = ""
    exit_code: int = 0
    position: int = 0
    icount: int = 0
    bad: Condition | None = None
    trouble: str | None = None


def record_job(job: Job) -> Outcome:
    """Records one run. Trouble comes back as an outcome, because it has to cross a process border."""
    try:
        return _record(job)
    except VmrecError as error:
        return Outcome(job.chaos, job.path, trouble=str(error))


def what_it_is(guest: Guest) -> bytes:
    """32 bytes that differ if anything in a guest, its images or its names does."""
    boot = None if guest.boot is None else guest.boot.to_dict()
    return blake3(pack([guest.hash, boot, [blake3(elf).digest() for elf in guest.more_elfs]])).digest()


def _guest(job: Job) -> Guest:
    """The job's guest, read now. Raises UsageError if it is not what it was."""
    guest = place(read_boot_files(job.boot), job.config) if job.guest is None else load_guest(job.guest)
    if what_it_is(guest) != job.guest_hash:
        files = [str(job.guest)] if job.guest is not None else [*job.boot.paths().values(), *job.boot.symbols]
        one = "" if len(files) == 1 else "one of them "
        raise UsageError(f"{', '.join(files)}: {one}was changed while it was hunted in; start again")
    return guest


def _check_images(job: Job, images: ImageSet) -> None:
    """Raises UsageError if one of them is not what it was."""
    for image, note in zip(images.images, job.notes, strict=True):
        if image.note() != note:
            raise UsageError(f"--drive {image.path}: was changed while it was hunted in; start again")


def _record(job: Job) -> Outcome:
    guest = _guest(job)
    source = None if job.input is None else FilePaced(job.input)
    console: list[bytes] = []
    with ImageSet(job.drives) as images, Machine(job.config, guest) as machine:
        _check_images(job, images)
        header = make_header(
            machine, capture=job.capture, seed=job.seed, chaos=job.chaos, created=job.created, drives=job.notes
        )
        inputs = InputPlan(ScriptedInput.parse(job.script), source)
        world = World(SeededEntropy(job.seed), inputs, ChaosClock(job.chaos), drives=images)
        with closing(world.inputs), TraceSink(TraceWriter(job.path, header)) as sink:
            sink.begin(machine)
            run = LiveRun(
                machine,
                world,
                sink=sink,
                console=console.append,
                max_insns=job.max_insns,
                capture=job.capture == "full",
            )
            ended = run.run()
            sink.close(machine, ended)
    text = b"".join(console)
    bad = next((found for found in job.until if found.holds(ended.reason, ended.exit_code, text)), None)
    return Outcome(job.chaos, job.path, ended.reason, ended.exit_code, ended.position, ended.icount, bad)


@dataclass(frozen=True, slots=True)
class Catch:
    """What a hunt came home with: the good and the bad run with the lowest seeds, of the first `tried` seeds."""

    good: Outcome | None
    bad: Outcome | None
    tried: int


def hunt(
    jobs: Iterable[Job],
    executor: Executor,
    *,
    ahead: int,
    seen: Callable[[Outcome], None] = lambda outcome: None,
) -> Catch:
    """Records `jobs`, at most `ahead` at a time, until there is a good and a bad one, or no job is left.

    Recordings that are not in the result are removed, but for those that workers are still at: the caller stops the
    executor and removes their folder. `seen` is called with each outcome, in the order of jobs. Raises UsageError
    with what went wrong in a worker.
    """
    waiting = iter(jobs)
    running: deque[Future[Outcome]] = deque(
        executor.submit(record_job, job) for job in itertools.islice(waiting, max(ahead, 1))
    )
    good: Outcome | None = None
    bad: Outcome | None = None
    tried = 0
    while running and (good is None or bad is None):
        outcome = running.popleft().result()
        if outcome.trouble is not None:
            raise UsageError(f"under seed {outcome.chaos}: {outcome.trouble}")
        tried += 1
        seen(outcome)
        if outcome.bad is None and good is None:
            good = outcome
        elif outcome.bad is not None and bad is None:
            bad = outcome
        else:
            outcome.path.unlink()
        running.extend(executor.submit(record_job, job) for job in itertools.islice(waiting, 1))
    for future in running:
        future.cancel()
    return Catch(good, bad, tried)
