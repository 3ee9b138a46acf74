# SPDX-License-Identifier: GPL-2.0-or-later
"""Hunting: one guest recorded under seed after seed, until one run is good and one bad.

    seeds ──▶ Job ──▶ record_job (a worker process each) ──▶ Outcome ──▶ hunt: in the order of seeds ──▶ Catch

Workers may be done in any order, and may have gone too far; what comes out is decided in the order of seeds, so it is
the same with any number of workers.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vmrec.errors import UsageError, VmrecError
from vmrec.guest.elf import load_guest
from vmrec.machine.board import MachineConfig
from vmrec.machine.machine import Machine
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import LiveRun, World
from vmrec.record.sources import ChaosClock, FilePaced, InputPlan, ScriptedInput, SeededEntropy
from vmrec.trace.writer import TraceWriter

__all__ = ["Catch", "Condition", "Job", "Outcome", "hunt", "record_job"]


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

    `guest` is the ELF file and `guest_hash` (32 bytes) what it must hold; `input` a regular file for the console, or
    None; `script` the values of --input-at; `until`: any of these makes a run a bad one. The recording goes to `path`.
    """

    guest: Path
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


def _record(job: Job) -> Outcome:
    guest = load_guest(job.guest)
    if guest.hash != job.guest_hash:
        raise UsageError(f"{job.guest}: was changed while it was hunted in; start again")
    source = None if job.input is None else FilePaced(job.input)
    console: list[bytes] = []
    with Machine(job.config, guest) as machine:
        header = make_header(machine, capture=job.capture, seed=job.seed, chaos=job.chaos, created=job.created)
        world = World(
            SeededEntropy(job.seed), InputPlan(ScriptedInput.parse(job.script), source), ChaosClock(job.chaos)
        )
        with closing(world.inputs), TraceSink(TraceWriter(job.path, header)) as sink:
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
