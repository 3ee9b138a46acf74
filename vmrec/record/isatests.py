# SPDX-License-Identifier: GPL-2.0-or-later
"""ISA tests: programs that tell by `tohost` whether a hart is one. Each is recorded, replayed and compared.

    folder ──▶ find_tests ──▶ IsaTest ──▶ run_test (a worker process each) ──▶ Result, in the order of names

A program of this kind (riscv-tests are the known ones) has a symbol `tohost` and stores 1 there if all is well, else
the number of the case that failed, times 2, plus 1. It is run on a bare machine with all that the profiles offer.
Then the recording's chain is verified, and it is replayed once on each executor with everything compared: so a test
also fails if engine and stepper do not agree about it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from vmrec.errors import GuestError, UsageError, VmrecError
from vmrec.guest.elf import Guest, is_program, load_guest
from vmrec.isa.profiles import profile
from vmrec.machine.board import MachineConfig
from vmrec.machine.machine import Engine, Machine
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import Ended, LiveRun, World
from vmrec.record.sources import SeededEntropy
from vmrec.replay.names import Names
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import verify_chain
from vmrec.trace.writer import TraceWriter

__all__ = ["IsaTest", "Result", "find_tests", "run_test", "run_tests"]

#: What a test of each register width is run on, unless somebody says: all that there is.
WIDEST = {32: "rv32gcsu", 64: "rv64gcsu"}
EXECUTORS: tuple[Engine, ...] = ("engine", "stepper")


@dataclass(frozen=True, slots=True)
class IsaTest:
    """One test to run: everything that it depends on, so that any process can do it.

    `name` is what reports call it; `isa` a profile, or None for the widest of the file's width; `ram_size` in bytes.
    The recording goes to `path`, and stays there only with `keep_failed`, if the test fails.
    """

    name: str
    elf: Path
    isa: str | None
    ram_size: int
    capture: str
    max_insns: int
    path: Path
    created: str
    keep_failed: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """How a test ended. `case`: the number that it gave as the one that failed. `reason`: why it failed, in words.

    `recording` is its recording if that was kept. `isa` and the lengths say nothing if it could not be run.
    """

    name: str
    passed: bool
    isa: str = ""
    reason: str = ""
    case: int | None = None
    position: int = 0
    icount: int = 0
    recording: Path | None = None


def find_tests(folder: Path, isa: str | None) -> tuple[dict[str, Path], Counter[str]]:
    """The tests under `folder` by name, in the order of names, and how many other files there are of each kind.

    A test is an ELF program for RISC-V with a symbol `tohost`; one that is damaged counts as a test, since it may have
    been meant as one. With `isa`, those of another register width are others. Raises UsageError if the folder, or one
    in it, cannot be read.
    """
    xlen = None if isa is None else profile(isa).xlen
    tests: dict[str, Path] = {}
    others: Counter[str] = Counter()
    for path in _files(folder):
        kind = _kind(path, xlen)
        if kind is None:
            tests[path.relative_to(folder).as_posix()] = path
        else:
            others[kind] += 1
    return dict(sorted(tests.items())), others


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}. Name a folder with tests.")

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(place) / name for name in names)


def _kind(path: Path, xlen: int | None) -> str | None:
    """What kind of other file it is; None if it is a test."""
    if not path.is_file():
        return "no program"  # a pipe would have us wait for its writer
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return "unreadable"
    if not is_program(head):
        return "no program"
    try:
        guest = load_guest(path)
    except GuestError:
        return None
    if guest.tohost is None:
        return "without tohost"
    return "of another width" if xlen not in (None, guest.xlen) else None


def run_test(test: IsaTest) -> Result:
    """Runs one test. Trouble comes back as a result, because it has to cross a process border."""
    kept = False
    try:
        guest = load_guest(test.elf)
        result = _run(test, guest)
        kept = test.keep_failed and not result.passed
        return result
    except VmrecError as error:
        return Result(test.name, False, reason=_without_path(error))
    finally:
        if not kept:
            test.path.unlink(missing_ok=True)


def _without_path(error: VmrecError) -> str:
    return error.reason if isinstance(error, GuestError) else str(error)


def _run(test: IsaTest, guest: Guest) -> Result:
    config = MachineConfig(isa=test.isa or WIDEST[guest.xlen], ram_size=test.ram_size)
    with Machine(config, guest) as machine:
        header = make_header(machine, capture=test.capture, seed=0, chaos=None, created=test.created)
        with TraceSink(TraceWriter(test.path, header)) as sink:
            run = LiveRun(
                machine,
                World(SeededEntropy(0)),
                sink=sink,
                max_insns=test.max_insns,
                capture=test.capture == "full",
            )
            ended = run.run()
            sink.close(machine, ended)
        place = Names(guest).place(machine.pc)
    case = None
    reason = _failure(ended, test.max_insns, place)
    if ended.reason == "poweroff" and ended.exit_code:
        case, reason = ended.exit_code, f"case {ended.exit_code} failed"
    reason = reason or _replayed(test.path)
    kept = test.path if reason and test.keep_failed else None
    return Result(test.name, not reason, config.isa, reason, case, ended.position, ended.icount, kept)


def _failure(ended: Ended, max_insns: int, place: str) -> str:
    """Why a run is none of a test that passed; "" if it is."""
    match ended.reason:
        case "poweroff":
            return ""
        case "max-insns":
            return f"did not end within {max_insns} instructions; at {place}"
        case "trap-loop":
            return f"traps in its trap handler for ever; at {place}"
        case "waiting-for-ever":
            return f"waits for ever; at {place}"
        case other:
            return f"ended with {other}; at {place}"


def _replayed(path: Path) -> str:
    """What is wrong with the recording or its replays; "" if nothing is."""
    damage = verify_chain(path).damage
    if damage is not None:
        return f"the recording is damaged: {damage.reason}"
    for engine in EXECUTORS:
        with TraceReader(path) as reader, Player(reader, check_rows=True, engine=engine) as player:
            divergence = player.run()
        if divergence is not None:
            return f"replay by the {engine} differs at position {divergence.position}: {divergence.message}"
    return ""


def run_tests(tests: Iterable[IsaTest], executor: Executor) -> Iterator[Result]:
    """Has `executor` run them; the results in the order of `tests`, each as soon as it and those before are there."""
    running: list[Future[Result]] = [executor.submit(run_test, test) for test in tests]
    return (future.result() for future in running)
