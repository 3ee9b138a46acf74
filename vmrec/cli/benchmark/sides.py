# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec's own ways to run a guest once, timed from the first instruction until everything is done and written.

A guest is a program that comes with vmrec, or the teaching kernel with something to do: see `KERNELS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmrec.errors import MachineError
from vmrec.guest.builtin import builtin_guest, kernel_file
from vmrec.guest.elf import Guest, load_guest
from vmrec.machine.board import MachineConfig
from vmrec.machine.boot import BootOptions, place, read_boot_files
from vmrec.machine.machine import Exit, Machine
from vmrec.record.drives import ImageSet
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import Ended, LiveRun, World, console_bytes
from vmrec.record.sources import InputPlan, ScriptedInput, SeededEntropy
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

__all__ = [
    "KERNELS", "Clock", "Timing", "guest_named", "kernel_arguments", "kernel_path", "record", "replay", "run",
    "run_uncounted",
]  # fmt: skip

SEED = 1
KERNEL_ISA = "rv64gcsu"

#: The teaching kernel, booted with a disk: name → what its shell is to run. "kernel-boot" does nothing more.
KERNELS = {
    "kernel": "work 3000",
    "kernel-nodisk": "work 200 nodisk",
    "kernel-disk": "work 5",
    "kernel-boot": "echo",
}
#: QEMU's rr looks for finished disk requests when a timer ends, so there is one; the same for all who are compared.
_TICK = "tick=1 run="
#: Programs for a machine with supervisor mode, which no ELF file tells.
_SUPERVISOR = ("loop-fault", "loop-tick")

#: Seconds since whenever: `time.perf_counter`, or `time.process_time` for the CPU time of all threads.
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: seconds, what the guest printed, and how many instructions it took (None: nobody counted)."""

    seconds: float
    console: bytes
    icount: int | None = None


@functools.cache
def guest_named(name: str) -> Guest:
    """The guest that comes with vmrec under that name."""
    if name not in KERNELS:
        return load_guest(builtin_guest(name))
    options = BootOptions(kernel=str(kernel_path("kernel.elf")), append=kernel_arguments(name))
    return place(read_boot_files(options), MachineConfig(isa=KERNEL_ISA, sbi=True))


def kernel_path(name: str) -> Path:
    """A file of the teaching kernel. Raises MachineError if this installation lacks it."""
    path = kernel_file(name)
    if path is None:
        raise MachineError(f"{name}, which the bench boots, is not in this installation; reinstall vmrec")
    return path


def kernel_arguments(name: str) -> str:
    """The kernel's command line."""
    return _TICK + KERNELS[name]


@contextmanager
def _opened(
    name: str, script: tuple[tuple[int, bytes], ...] = (), *, uncounted: bool = False
) -> Iterator[tuple[Machine, World]]:
    """A machine with the guest, and what is outside of it."""
    guest = guest_named(name)
    with ImageSet([kernel_path("kernel.img")] if name in KERNELS else []) as images:
        isa = KERNEL_ISA if name in _SUPERVISOR else guest.isa
        config = MachineConfig(isa=isa, sbi=name in KERNELS, drives=images.sizes)
        world = World(SeededEntropy(SEED), InputPlan(ScriptedInput(script)), drives=images)
        with Machine(config, guest, uncounted=uncounted) as machine:
            yield machine, world


def _require_good(name: str, ended: Ended) -> None:
    if (ended.reason, ended.exit_code) not in (("poweroff", 0), ("max-insns", 0)):
        raise MachineError(f"{name} ended with {ended.reason}, exit code {ended.exit_code}, while it was measured")


def run(name: str, clock: Clock, *, max_insns: int | None = None) -> Timing:
    """As `vmrec run`: counted, and nothing written down."""
    console: list[bytes] = []
    with _opened(name) as (machine, world):
        live = LiveRun(machine, world, console=console.append, max_insns=max_insns)
        begin = clock()
        ended = live.run()
        seconds = clock() - begin
    _require_good(name, ended)
    return Timing(seconds, b"".join(console), ended.icount)


def record(
    name: str,
    path: Path,
    clock: Clock,
    *,
    max_insns: int | None = None,
    capture: str = "inputs",
    script: tuple[tuple[int, bytes], ...] = (),
) -> Timing:
    """As `vmrec record`, into `path`, until the recording is closed. `script`: console input at positions."""
    console: list[bytes] = []
    with _opened(name, script) as (machine, world):
        header = make_header(machine, capture=capture, seed=SEED, chaos=None, created="")
        with TraceSink(TraceWriter(path, header, force=True)) as sink:
            live = LiveRun(
                machine, world, sink=sink, console=console.append, max_insns=max_insns, capture=capture == "full"
            )
            sink.begin(machine)
            begin = clock()
            ended = live.run()
            sink.close(machine, ended)
            seconds = clock() - begin
    _require_good(name, ended)
    return Timing(seconds, b"".join(console), ended.icount)


def replay(path: Path, clock: Clock, *, check_rows: bool = False) -> Timing:
    """As `vmrec replay`; with `check_rows` as `vmrec replay --check`."""
    console: list[bytes] = []
    with (
        TraceReader(path) as trace,
        Player(trace, console=console.append, check_rows=check_rows, every_digest=check_rows) as player,
    ):
        begin = clock()
        divergence = player.run()
        seconds = clock() - begin
        icount = player.machine.icount
    if divergence is not None:
        raise MachineError(f"a replay diverged while it was measured: {divergence.message}")
    return Timing(seconds, b"".join(console), icount)


def run_uncounted(name: str, clock: Clock) -> Timing:
    """The engine with our MMU, but nobody counts: the limit for what a run can reach.

    Time stands still, so the guest must not wait for it, nor look at counters.
    """
    console = b""
    with _opened(name, uncounted=True) as (machine, world):
        begin = clock()
        while (exit_ := machine.run(2**63)) in (Exit.MISSING_PAGE, Exit.OUTPUT_FULL):
            if exit_ is Exit.MISSING_PAGE and (block := machine.missing_block) is not None:
                machine.set_page(machine.missing_page, world.drives.block(*block))
            console += console_bytes(machine.take_outputs())
        seconds = clock() - begin
        console += console_bytes(machine.take_outputs())
        if exit_ is not Exit.STOPPED or machine.exit_code:
            raise MachineError(f"{name} came back with {exit_.name} while it was measured uncounted")
    return Timing(seconds, console)
