# SPDX-License-Identifier: GPL-2.0-or-later
"""Probes: does the engine behave as native/engine.c relies on?

Each probe is a program of a few instructions, run twice: by the engine as far as it goes, and by the stepper alone.
The two must reach equal digests, and the register that shows the behaviour its value. `vmrec doctor` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vmrec.guest.elf import Guest, Segment
from vmrec.machine.board import RAM_BASE, RAM_SIZE_MIN, MachineConfig
from vmrec.machine.machine import Engine, Machine

__all__ = ["Probe", "probes"]

_SPIN = 0x0000006F  # j .
_FS_ON = 3 << 13


class Probe(NamedTuple):
    """A behaviour, the program that shows it, and what must be in a register after `steps` steps."""

    name: str
    isa: str
    words: tuple[int, ...]
    steps: int
    register: int
    value: int


PROBES = (
    Probe(
        "a run stops inside a block, at the exact instruction",
        "rv64gc",
        (0x00138393, 0x00138393, 0x00138393, 0x00138393, _SPIN),  # addi x7, x7, 1, four times
        3,
        7,
        3,
    ),
    Probe(
        "a refused access leaves its instruction undone",
        "rv32im",
        (0x10000337, 0x00700293, 0x005303A3, 0x00734383, _SPIN),  # sb x5, 7(UART) · lbu x7, 7(UART)
        4,
        7,
        7,
    ),
    Probe(
        "an exception reports its instruction, and does not do it",
        "rv32im",
        (0x00100393, 0x0060006F),  # addi x7, x0, 1 · j to an address that is not a multiple of 4
        2,
        7,
        1,
    ),
    Probe(
        "a store to code is seen by the next fetch",
        "rv32im",
        # Writes addi x7, x0, 2 over addi x7, x0, 1, two instructions ahead in the same block.
        (0x80000337, 0x002002B7, 0x39328293, 0x00532A23, 0x00000013, 0x00100393, _SPIN),
        6,
        7,
        2,
    ),
    Probe(
        "floating-point arithmetic, one instruction at a time",
        "rv64gc",
        # fcvt.s.w f1, x5 · fdiv.s f2, f1, f3 (by zero) · csrr x7, fflags
        (0x00700293, 0xD002F0D3, 0x1830F153, 0x001023F3, _SPIN),
        4,
        7,
        8,
    ),
)


#: addi x7, x7, 1 · j to it: short blocks, over and over.
_LOOP = Probe("counting", "rv64gc", (0x00138393, 0xFFDFF06F), 10_001, 7, 5001)


def _machine(probe: Probe, engine: Engine, *, inline: bool = True) -> Machine:
    data = b"".join(word.to_bytes(4, "little") for word in probe.words)
    config = MachineConfig(isa=probe.isa, ram_size=RAM_SIZE_MIN)
    segment = Segment(RAM_BASE, data, len(data), 7, 0)
    xlen = config.profile.xlen
    guest = Guest("probe", "probe", b"", bytes(32), xlen, RAM_BASE, (segment,), probe.isa, None)
    machine = Machine(config, guest, inline=inline)
    state = machine.state()
    state["hart"]["pc"] = RAM_BASE
    if "F" in config.profile.extensions:
        state["hart"]["mstatus"] |= _FS_ON
    machine.set_state(state)
    machine.run(probe.steps, engine=engine)
    machine.take_outputs()
    return machine


def probes() -> Iterator[tuple[str, bool, str]]:
    """Yields (name, good, detail) for each behaviour. Raises SetupError if there is no engine to probe."""
    for probe in PROBES:
        with _machine(probe, "engine") as engine, _machine(probe, "stepper") as stepper:
            value = engine.regs[probe.register]
            if value != probe.value:
                yield probe.name, False, f"{probe.isa}: x{probe.register} is {value:#x}, expected {probe.value:#x}"
            elif engine.digest() != stepper.digest():
                yield probe.name, False, f"{probe.isa}: the engine and the stepper reach different states"
            else:
                yield probe.name, True, probe.isa
    yield _counting()


def _counting() -> tuple[str, bool, str]:
    """Both ways to count blocks are good, if they count the same."""
    with _machine(_LOOP, "engine") as inline, _machine(_LOOP, "engine", inline=False) as called:
        if inline.regs[7] != _LOOP.value or inline.digest() != called.digest():
            return "how blocks are counted", False, "counting without a call leads to another state"
        if inline.statistics["inlined_blocks"]:
            return "how blocks are counted", True, "short ones in place, without a call"
        return "how blocks are counted", True, "by a call for each: right, but slower; this host allows nothing else"
