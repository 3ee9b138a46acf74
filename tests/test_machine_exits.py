# SPDX-License-Identifier: GPL-2.0-or-later
"""Exactness of exits: a run stops exactly where it is asked to, and where it was cut leaves no mark.

Random programs over all of each profile, with timer interrupts, traps and stores into their own code, are stepped one
by one by the stepper; then they are run by all executors, cut at random positions, moved into new machines, captured
for a while, and robbed of pages that come back when they are missed. At each cut everything must be as it was there.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import ENGINES, FIXED, PROFILES, Choices, Run, assemble, boot, csr, encode, image, same, words_of

from vmrec.isa.instructions import Instruction
from vmrec.isa.profiles import profile
from vmrec.isa.registers import CSR_NUMBERS
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN
from vmrec.machine.machine import Engine, Exit

STEPS = 2400
#: The body lies across the end of page 0, so that instructions straddle pages; its data across the end of page 5.
BODY = PAGE_SIZE - 0x40
HANDLER = 0x200
DATA = 5 * PAGE_SIZE
ANCHORS = {8: DATA, 9: DATA + PAGE_SIZE - 6, 10: BODY, 11: PAGE_SIZE - 8, 2: DATA + 0x100}
VALUES = (1, 3, 4, 5, 6, 7, 12, 13, 14, 15)
CSRS = [
    CSR_NUMBERS[name]
    for name in (
        "mscratch", "mstatus", "mepc", "mcause", "mtval", "mcycle", "minstret", "time", "instret", "cycle", "mip", "misa",
        "fcsr", "frm", "fflags", "mhartid", "mie",
    )
]  # fmt: skip
LOADS = ("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu", "flw", "fld")
MEMORY = (*LOADS, "sb", "sh", "sw", "sd", "fsw", "fsd")
#: Ticks between two timer interrupts; a tick is a hundred steps.
PERIOD = 3

# ---------------------------------------------------------------------------------------------------------- programs


def address(register: int, target: int, here: int) -> list[int]:
    """Two instructions at `here` that put the address `target` (both are offsets in RAM) into a register."""
    distance = target - here
    low = (distance + 0x800) % 0x1000 - 0x800
    return [encode("auipc", register, imm=distance - low), encode("addi", register, register, imm=low)]


def anchors(here: int) -> list[int]:
    words: list[int] = []
    for register, target in ANCHORS.items():
        words += address(register, target, here + 4 * len(words))
    return words


def handler(body_size: int) -> bytes:
    """Goes on behind what trapped, or at the body's start if that was outside; a timer interrupt sets the next one."""
    words = [csr("csrrs", "mcause", 31), 0]
    words += address(30, BODY, HANDLER + 4 * len(words))
    words += [
        csr("csrrs", "mepc", 31),
        encode("sub", 29, 31, 30),
        encode("addi", 29, 29, imm=4),
        encode("sltiu", 28, 29, imm=body_size),
        encode("add", 29, 29, 30),
        encode("bne", rs1=28, imm=8),
        encode("addi", 29, 30),
        csr("csrrw", "mepc", rs1=29),
        encode("mret"),
    ]
    words[1] = encode("blt", rs1=31, imm=4 * (len(words) - 1))
    words += [
        encode("lui", 30, imm=0x0200_C000),
        encode("lw", 31, 30, imm=-8),
        encode("addi", 31, 31, imm=PERIOD),
        encode("lui", 30, imm=0x0200_4000),
        encode("sw", rs1=30, rs2=31),
        encode("mret"),
    ]
    return assemble(*words)


@functools.cache
def by_kind(isa: str) -> tuple[tuple[Instruction, ...], ...]:
    """The profile's rows in groups that are drawn equally often."""
    groups: dict[str, list[Instruction]] = {}
    for row in profile(isa).instructions:
        kind = "memory" if row.name in MEMORY else row.format if row.length == 4 else "c." + row.name[2]
        if row.name not in ("wfi", "mret"):
            groups.setdefault(kind, []).append(row)
    integer = [row for row in profile(isa).instructions if row.format in ("R", "I-shift") and "I" in row.extensions]
    pairs = [row for row in profile(isa).instructions if row.name.startswith(("lr.", "sc."))]
    extra = [integer, groups["memory"], groups["memory"], groups["B"], pairs, pairs]
    return tuple(tuple(group) for group in (*groups.values(), *extra) if group)


def with_field(word: int, low: int, register: int) -> int:
    return word & ~(31 << low) | register << low


def branch_bits(format_: str, offset: int) -> int:
    """The offset of a compressed jump (CJ) or branch (CB), where the manual's figures put its bits."""
    places = {
        "CB": ((8, 12), (4, 11), (3, 10), (7, 6), (6, 5), (2, 4), (1, 3), (5, 2)),
        "CJ": ((11, 12), (4, 11), (9, 10), (8, 9), (10, 8), (6, 7), (7, 6), (3, 5), (2, 4), (1, 3), (5, 2)),
    }
    return sum((offset >> source & 1) << target for source, target in places[format_])


def instruction(number: int, isa: str) -> int:
    """An instruction word out of a number of 64 bits: its addresses mostly exist, its targets are near."""
    pick = Choices(number)
    row = pick.of(pick.of(by_kind(isa)))
    bits, small, base, rd = pick.below(1 << 32), pick.between(-8, 24), pick.of((8, 8, 8, 9, 10, 11)), pick.of(VALUES)
    if row.length == 2:
        if row.format in ("CJ", "CB") and row.name in ("c.j", "c.jal", "c.beqz", "c.bnez"):
            bits = bits & 0x380 | branch_bits(row.format, 2 * small) if row.format == "CB" else branch_bits("CJ", 2 * small)
        found = words_of(row, isa, [bits, bits >> 3, bits >> 7])
        return found[0] if found else 0x0001
    word = with_field(row.match | bits & ~row.mask, 7, rd)
    if row.name in MEMORY:
        return encode(row.name, rd, base if small < 20 else 8, bits & 31, small, isa=isa)
    match row.format:
        case "B":
            step = 2 if "C" in profile(isa).extensions else 4
            return encode(row.name, rs1=bits & 15, rs2=bits >> 4 & 15, imm=step * small)
        case "J":
            return encode("jal", rd, imm=4 * small)
        case "amo" | "lr":
            return with_field(word, 15, 8 if small < 20 else base)
        case "CSR" | "CSRI":
            return with_field(word & 0xFFFFF | pick.of(CSRS) << 20, 15, bits & 15)
        case "R-rm" | "R4" | "R1-rm" if small < 20:
            return word & ~0x7000 | pick.of((0, 1, 2, 3, 4, 7)) << 12
        case "I" if row.name == "jalr":
            return encode("jalr", rd, 10, imm=4 * abs(small))
        case "I" | "R" | "I-shift":
            return with_field(word, 15, bits & 15)
        case _:
            return word


@dataclass(frozen=True)
class Program:
    """A body of `words` that runs in a loop; `seed` gives registers and data their contents."""

    isa: str
    words: tuple[int, ...]
    seed: int

    def run(self) -> Run:
        """A run of the program from its first step."""
        rng = random.Random(self.seed)
        guest = profile(self.isa)
        floats = "F" in guest.extensions
        size = None if "C" in guest.extensions else 4
        body = assemble(*self.words) if size is None else b"".join(word.to_bytes(size, "little") for word in self.words)
        tail = anchors(BODY + len(body))
        tail.append(encode("jal", imm=-len(body) - 4 * len(tail)))
        parts = {HANDLER: handler(len(body) + 4 * len(tail)), BODY: body + assemble(*tail)}
        code = image({**parts, DATA: rng.randbytes(2 * PAGE_SIZE)})
        top = 1 << guest.xlen - 1
        x = {number: rng.choice((rng.getrandbits(guest.xlen), rng.getrandbits(7), top)) for number in VALUES}
        x |= {number: RAM_BASE + offset for number, offset in ANCHORS.items()}
        f = {n: rng.choice((rng.getrandbits(64), 0xFFFF_FFFF << 32 | rng.getrandbits(32), 0x3FF0 << 48)) for n in range(32)}
        machine = boot(
            code, self.isa, x=x, f=f if floats else {}, mtvec=RAM_BASE + HANDLER, mie=0x80,
            mstatus=0x1808 | (rng.choice((0, 1, 2, 3, 3)) << 13 if floats else 0),
        )  # fmt: skip
        state = machine.state()
        state["hart"]["pc"] = RAM_BASE + BODY
        state["clint"]["mtimecmp"] = rng.choice((1, 2, 4, 1000))
        machine.set_state(state)
        return Run(machine)


@st.composite
def programs(draw: st.DrawFn, isa: str) -> Program:
    numbers = draw(st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=60))
    return Program(isa, tuple(instruction(number, isa) for number in numbers), draw(st.integers(0, 2**16)))


# -------------------------------------------------------------------------------------------------------------- cuts


@dataclass(frozen=True)
class Cut:
    """So many more steps by an executor, and what is done then."""

    steps: int
    engine: Engine
    action: str


#: Single steps, some within a block, and stretches long enough for the engine.
LENGTHS = st.one_of(st.integers(1, 3), st.integers(1, 40), st.integers(500, 1200))
ACTIONS = st.sampled_from(("", "", "", "move", "digest", "rob", "capture", "release"))
PLANS = st.lists(st.builds(Cut, LENGTHS, st.sampled_from(ENGINES), ACTIONS), min_size=1, max_size=16)


def rob(run: Run) -> None:
    """Takes two pages of three away; what is missed comes back through `run.pages`."""
    machine = run.machine
    for index in range(RAM_SIZE_MIN // PAGE_SIZE):
        if (index + machine.position) % 3 != 0:
            run.pages[index] = machine.page(index)
            machine.mark_missing(index)
            machine._ram[index * PAGE_SIZE : (index + 1) * PAGE_SIZE] = b"\xa5" * PAGE_SIZE


def give_back(run: Run) -> None:
    for index in list(run.pages):
        run.machine.set_page(index, run.pages.pop(index))


def follow(run: Run, plan: list[Cut], looks: dict[int, Any]) -> None:
    """Runs as planned, and compares with what the stepper left at each cut."""
    end = max(looks)
    position, capturing = 0, False
    for cut in plan:
        position = min(position + cut.steps, STEPS)
        exit_ = run.to(position, cut.engine)
        assert run.machine.position == (end if exit_ is Exit.STOPPED else position)
        give_back(run)
        same(run.look(), looks[run.machine.position])
        match cut.action:
            case "move":
                run.move()
            case "digest":
                run.machine.digest()
            case "rob":
                rob(run)
            case "capture" if not capturing:
                run.capture()
                capturing = True
            case "release" if capturing:
                run.stop_capture()
                capturing = False
            case _:
                pass
    run.to(STEPS)
    give_back(run)
    same(run.look(), looks[end])


def positions_of(plan: list[Cut]) -> set[int]:
    found, position = set(), 0
    for cut in plan:
        position = min(position + cut.steps, STEPS)
        found.add(position)
    return found


def stepped(run: Run, positions: set[int]) -> dict[int, Any]:
    """What the stepper, a single step at a time, leaves at these positions and at the end."""
    looks = {}
    for position in range(STEPS + 1):
        if run.to(position, "stepper") is Exit.STOPPED:
            break
        if position in positions:
            looks[position] = run.look()
    looks[run.machine.position] = run.look()
    return looks


@pytest.mark.parametrize("isa", PROFILES)
def test_cuts_leave_no_mark(isa: str) -> None:
    @settings(FIXED, max_examples=40)
    @given(program=programs(isa), plans=st.tuples(PLANS, PLANS))
    def check(program: Program, plans: tuple[list[Cut], ...]) -> None:
        reference = program.run()
        looks = stepped(reference, set().union(*map(positions_of, plans)))
        uncut = [[Cut(STEPS, engine, "")] for engine in ENGINES]
        for plan in (*uncut, *plans):
            run = program.run()
            follow(run, plan, looks)
            assert run.outputs == reference.outputs
            run.close()
        reference.close()

    check()
