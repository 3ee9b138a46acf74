# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings for tests: one call records a builtin guest the way `vmrec record` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from machines import SUPERVISED

from vmrec.guest.builtin import builtin_guest
from vmrec.guest.elf import load_guest
from vmrec.machine.board import MachineConfig
from vmrec.machine.machine import Digest, Machine
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import Ended, LiveRun, World
from vmrec.record.sources import ChaosClock, InputPlan, ScriptedInput, SeededEntropy
from vmrec.trace.writer import TraceWriter

CREATED = "2026-11-23T00:00:00+00:00"


@dataclass(frozen=True)
class Recorded:
    """A recording, and what the live run looked like from outside."""

    path: Path
    ended: Ended
    console: bytes
    digest: Digest


def record(
    path: Path,
    guest: str | Path,
    *,
    capture: str = "inputs",
    chaos: int | None = None,
    seed: int = 1,
    max_insns: int | None = None,
    script: tuple[tuple[int, bytes], ...] = (),
) -> Recorded:
    """Records a builtin `guest`, or the one of an ELF file, into `path`."""
    loaded = load_guest(builtin_guest(guest) if isinstance(guest, str) else guest)
    isa = SUPERVISED.get(str(guest), loaded.isa)
    config = MachineConfig(isa=isa, time_rule="virtual" if chaos is None else "stepped")
    console: list[bytes] = []
    with Machine(config, loaded) as machine:
        writer = TraceWriter(path, make_header(machine, capture=capture, seed=seed, chaos=chaos, created=CREATED))
        sink = TraceSink(writer)
        world = World(
            SeededEntropy(seed),
            InputPlan(ScriptedInput(script)),
            None if chaos is None else ChaosClock(chaos),
        )
        run = LiveRun(
            machine, world, sink=sink, console=console.append, capture=capture == "full", max_insns=max_insns
        )
        ended = run.run()
        sink.close(machine, ended)
        return Recorded(path, ended, b"".join(console), machine.digest())
