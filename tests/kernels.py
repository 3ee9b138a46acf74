# SPDX-License-Identifier: GPL-2.0-or-later
"""The teaching kernel for tests: booted over the VMM's firmware with its disk, run or recorded inside this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from recordings import CREATED, Recorded

from vmrec.guest.elf import Guest
from vmrec.machine.board import MachineConfig
from vmrec.machine.boot import BootOptions, place, read_boot_files
from vmrec.machine.machine import Machine
from vmrec.record.drives import ImageSet
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import LiveRun, World
from vmrec.record.sources import ChaosClock, InputPlan, ScriptedInput, SeededEntropy
from vmrec.trace.writer import TraceWriter

KERNEL = Path(__file__).resolve().parent.parent / "guests" / "bin" / "kernel"
ELF, IMAGE = KERNEL / "kernel.elf", KERNEL / "kernel.img"

#: Everything that the kernel does once, and what the console says from then on, the same everywhere.
COMMANDS = "ls; cat greeting; echo one two > note; cat note; rm note; faults; forks; work 2; exit 3"
ENDING = [
    "faults: all 8 ended",
    "forks: 3 times 29 processes, mine is 1: ok",
    "work: round 1 of 2, seed f2c4ec01",
    "work: round 2 of 2, seed ff021c02",
    "kernel: init has ended with 3, power off",
]
#: Two tellers lose money, if the timer wants it so; and with this seed it does.
BANK = "slice=50 run=bank"


def kernel_guest(append: str, *, symbols: tuple[str, ...] = (), bios: str | None = None) -> Guest:
    """The kernel with a command line; `symbols`: programs whose names are known too; `bios`: firmware, not the VMM."""
    named = tuple(str(KERNEL / f"{name}.elf") for name in symbols)
    files = read_boot_files(BootOptions(bios=bios, kernel=str(ELF), append=append, symbols=named))
    return place(files, MachineConfig(isa="rv64gcsu", sbi=bios is None))


@contextlib.contextmanager
def kernel_machine(
    append: str,
    *,
    chaos: int | None = None,
    virtio: str = "modern",
    script: tuple[tuple[int, bytes], ...] = (),
    symbols: tuple[str, ...] = (),
    bios: str | None = None,
) -> Iterator[tuple[Machine, World]]:
    """The machine at reset, and what is outside of it."""
    with ImageSet([IMAGE]) as images:
        config = MachineConfig(
            isa="rv64gcsu", sbi=bios is None, drives=images.sizes, virtio=virtio,  # type: ignore[arg-type]
            time_rule="virtual" if chaos is None else "stepped",
        )  # fmt: skip
        world = World(
            SeededEntropy(1), InputPlan(ScriptedInput(script)), None if chaos is None else ChaosClock(chaos),
            drives=images,
        )  # fmt: skip
        with Machine(config, kernel_guest(append, symbols=symbols, bios=bios)) as machine:
            yield machine, world


def record_kernel(
    path: Path,
    append: str,
    *,
    capture: str = "inputs",
    chaos: int | None = None,
    virtio: str = "modern",
    max_insns: int | None = None,
    script: tuple[tuple[int, bytes], ...] = (),
    symbols: tuple[str, ...] = (),
) -> Recorded:
    """Records it into `path`."""
    console: list[bytes] = []
    with kernel_machine(append, chaos=chaos, virtio=virtio, script=script, symbols=symbols) as (machine, world):
        writer = TraceWriter(path, make_header(machine, capture=capture, seed=1, chaos=chaos, created=CREATED))
        sink = TraceSink(writer)
        sink.begin(machine)
        run = LiveRun(
            machine, world, sink=sink, console=console.append, capture=capture == "full", max_insns=max_insns
        )
        ended = run.run()
        sink.close(machine, ended)
        return Recorded(path, ended, b"".join(console), machine.digest())


def lines_of(console: bytes) -> list[str]:
    """What the console shows, line by line."""
    return console.decode().replace("\r\n", "\n").splitlines()


def bank_seed() -> int:
    """The first chaos seed with which the tellers lose money."""
    for seed in range(1, 100):
        with kernel_machine(BANK, chaos=seed) as (machine, world):
            console: list[bytes] = []
            LiveRun(machine, world, console=console.append).run()
        if b"MONEY LOST" in b"".join(console):
            return seed
    raise AssertionError("with none of 100 seeds money is lost")
