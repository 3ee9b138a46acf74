# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec's own ways to run a guest once, timed from the first instruction until everything is done and written."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmrec.errors import MachineError
from vmrec.guest.builtin import builtin_guest
from vmrec.guest.elf import Guest, load_guest
from vmrec.machine.board import MachineConfig
from vmrec.machine.machine import Exit, Machine
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import Ended, LiveRun, World, console_bytes
from vmrec.record.sources import InputPlan, ScriptedInput, SeededEntropy
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

__all__ = ["Clock", "Timing", "guest_named", "record", "replay", "run", "run_uncounted"]

SEED = 1

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
    return load_guest(builtin_guest(name))


def _machine(name: str, *, uncounted: bool = False) -> Machine:
    guest = guest_named(name)
    return Machine(MachineConfig(isa=guest.isa), guest, uncounted=uncounted)


def _world(script: tuple[tuple[int, bytes], ...] = ()) -> World:
    return World(SeededEntropy(SEED), InputPlan(ScriptedInput(script)))


def _require_good(name: str, ended: Ended) -> None:
    if (ended.reason, ended.exit_code) not in (("poweroff", 0), ("max-insns", 0)):
        raise MachineError(f"{name} ended with {ended.reason}, exit code {ended.exit_code}, while it was measured")


def run(name: str, clock: Clock, *, max_insns: int | None = None) -> Timing:
    """As `vmrec run`: counted, and nothing written down."""
    console: list[bytes] = []
    with _machine(name) as machine:
        live = LiveRun(machine, _world(), console=console.append, max_insns=max_insns)
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
    with _machine(name) as machine:
        header = make_header(machine, capture=capture, seed=SEED, chaos=None, created="")
        sink = TraceSink(TraceWriter(path, header, force=True))
        live = LiveRun(
            machine, _world(script), sink=sink, console=console.append, max_insns=max_insns, capture=capture == "full"
        )
        try:
            begin = clock()
            ended = live.run()
            sink.close(machine, ended)
            seconds = clock() - begin
        except BaseException:
            sink.abort()
            raise
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
    """The engine with our MMU, but nobody counts: the limit for what a run can reach. Only for guests without CSRs."""
    with _machine(name, uncounted=True) as machine:
        begin = clock()
        exit_ = machine.run(2**63)
        seconds = clock() - begin
        console = console_bytes(machine.take_outputs())
        if exit_ is not Exit.STOPPED or machine.exit_code:
            raise MachineError(f"{name} came back with {exit_.name} while it was measured uncounted")
    return Timing(seconds, console)
