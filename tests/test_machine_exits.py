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
from machines import (
    ENGINES,
    FIXED,
    MSTATUS_FS,
    Choices,
    Run,
    assemble,
    boot,
    csr,
    encode,
    image,
    same,
    words_of,
)  # fmt: skip

from vmrec.isa.instructions import Instruction
from vmrec.isa.profiles import PROFILES, profile
from vmrec.isa.registers import CSR_NUMBERS
from vmrec.machine.board import PAGE_SIZE, RAM_BASE
from vmrec.machine.machine import Engine, Exit

STEPS = 2400
#: The body lies across the end of page 0, so that instructions straddle pages; its data across the end of page 5.
BODY = PAGE_SIZE - 0x40
HANDLER = 0x200
DATA = 5 * PAGE_SIZE
ANCHORS = {8: DATA, 9: DATA + PAGE_SIZE - 6, 10: BODY, 11: PAGE_SIZE - 8, 2: DATA + 0x100}
#: Registers that point to devices: UART, msip, mtime, RTC, PLIC claim and an enable word, entropy.
DEVICES = {
    16: 0x1000_0000,
    17: 0x200_0000,
    18: 0x200_BFF8,
    19: 0x10_1000,
    20: 0xC20_0004,
    21: 0xC00_2000,
    22: 0x1020_0000,
}
VALUES = (1, 3, 4, 5, 6, 7, 12, 13, 14, 15)
CSRS = [
    CSR_NUMBERS[name]
    for name in (
        "mscratch", "mstatus", "mepc", "mcause", "mtval", "mcycle", "minstret", "time", "instret", "cycle", "mip",
        "misa", "fcsr", "frm", "fflags", "mhartid", "mie",
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
    """Goes on behind what trapped, or at the body's start if that was outside; an interrupt sets the next."""
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
        encode("lui", 30, imm=0x0200_0000),
        encode("sw", rs1=30),
        encode("mret"),
    ]
    return assemble(*words)


@functools.cache
def by_kind(isa: str) -> tuple[tuple[Instruction, ...], ...]:
    """The profile's rows in groups that are drawn equally often."""
    groups: dict[str, list[Instruction]] = {}
    for row in profile(isa).instructions:
        kind = "memory" if row.name in MEMORY else row.format if row.length == 4 else "c." + row.name[2]
        if row.name != "mret":
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
    bits, small, rd = pick.below(1 << 32), pick.between(-8, 24), pick.of(VALUES)
    device = pick.of(tuple(DEVICES))
    base = pick.of((8, 8, 8, 9, 10, 11, device, device))
    if row.length == 2:
        if row.format in ("CJ", "CB") and row.name in ("c.j", "c.jal", "c.beqz", "c.bnez"):
            bits = (
                bits & 0x380 | branch_bits(row.format, 2 * small)
                if row.format == "CB"
                else branch_bits("CJ", 2 * small)
            )
        found = words_of(row, isa, [bits, bits >> 3, bits >> 7])
        return found[0] if found else 0x0001
    word = with_field(row.match | bits & ~row.mask, 7, rd)
    if row.name in MEMORY:
        if base in DEVICES:
            return encode(row.name, rd, base, bits & 31, small & 12 if row.name[1] in "wd" else small & 7, isa=isa)
        return encode(row.name, rd, base if small < 20 else 8, bits & 31, small, isa=isa)
    match row.format:
        case "B":
            step = 2 if "C" in profile(isa).extensions else 4
            return encode(row.name, rs1=bits & 15, rs2=bits >> 4 & 15, imm=step * small)
        case "J":
            return encode("jal", rd, imm=4 * small)
        case "amo" | "lr":
            return with_field(word, 15, 8 if small < 18 else base)
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
        x |= {number: RAM_BASE + offset for number, offset in ANCHORS.items()} | DEVICES
        f = {
            n: rng.choice((rng.getrandbits(64), 0xFFFF_FFFF << 32 | rng.getrandbits(32), 0x3FF0 << 48))
            for n in range(32)
        }
        machine = boot(
            code, self.isa, x=x, f=f if floats else {}, mtvec=RAM_BASE + HANDLER, mie=0x888,
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


def most_pages(run: Run) -> list[int]:
    """Two pages of three, others each time."""
    return [i for i in range(run.machine.config.ram_size // PAGE_SIZE) if (i + run.machine.position) % 3]


#: By position, and whether the machine had ended its run there: a wait that nothing can end takes no step.
Looks = dict[tuple[int, bool], tuple[dict[str, Any], bytes]]


def follow(run: Run, plan: list[Cut], looks: Looks) -> None:
    """Runs as planned, and compares with what the stepper left at each cut."""
    end, stops = max(looks)
    position, capturing = 0, False
    for cut in plan:
        position = min(position + cut.steps, STEPS)
        exit_ = run.to(position, cut.engine)
        assert run.machine.position == (end if exit_ is Exit.STOPPED else position)
        run.give_back()
        same(run.look(), looks[run.machine.position, exit_ is Exit.STOPPED])
        match cut.action:
            case "move":
                run.move()
            case "digest":
                run.machine.digest()
            case "rob":
                run.rob(most_pages(run))
            case "capture" if not capturing:
                run.capture()
                capturing = True
            case "release" if capturing:
                run.stop_capture()
                capturing = False
            case _:
                pass
    run.to(STEPS)
    run.give_back()
    same(run.look(), looks[end, stops])


def positions_of(plan: list[Cut]) -> set[int]:
    found, position = set(), 0
    for cut in plan:
        position = min(position + cut.steps, STEPS)
        found.add(position)
    return found


def stepped(run: Run, positions: set[int]) -> Looks:
    """What the stepper, a single step at a time, leaves at these positions and at the end."""
    looks = {}
    for position in range(STEPS + 1):
        if run.to(position, "stepper") is Exit.STOPPED:
            break
        if position in positions:
            looks[position, False] = run.look()
    looks[run.machine.position, run.machine.stopped] = run.look()
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


# ----------------------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize("isa", PROFILES)
def test_columns_do_not_depend_on_cuts(isa: str) -> None:
    """A replay, which stops elsewhere and may have to fetch its pages, compares block by block."""

    def columns(program: Program, plan: list[Cut], *, robbed: bool) -> tuple[int, int, bytes]:
        run = program.run()
        if robbed:
            run.rob(most_pages(run))
        run.capture()
        position = 0
        for cut in plan:
            position = min(position + cut.steps, STEPS)
            run.to(position, cut.engine)
        run.to(STEPS)
        captured = run.machine.take_captured(close=True)
        run.close()
        assert captured is not None
        return captured.first, captured.last, captured.columns

    @settings(FIXED, max_examples=30)
    @given(program=programs(isa), plan=PLANS, robbed=st.booleans())
    def check(program: Program, plan: list[Cut], robbed: bool) -> None:
        assert columns(program, plan, robbed=robbed) == columns(program, [], robbed=False)

    check()


# ----------------------------------------------------------------------------------------------- between two of a pair

LR_SC = (
    *(encode("addi", 5, 5, imm=1), encode("lr.w", 6, 8), encode("add", 6, 6, 5), encode("sc.w", 7, 8, 6)),
    *(encode("add", 12, 12, 7), encode("lr.w", 6, 8), encode("sc.w", 7, 9, 6), encode("add", 12, 12, 7)),
    *(encode("lr.w", 6, 8), encode("sw", rs1=8, rs2=5), encode("sc.w", 7, 8, 6), encode("add", 12, 12, 7)),
    *(encode("lr.w", 6, 8), csr("csrrs", "mscratch"), encode("sc.w", 7, 8, 5), encode("add", 12, 12, 7)),
    encode("ecall"),
)
FLOAT = (
    *(encode("fdiv.s", 1, 2, 3, rm=7), encode("fadd.s", 2, 1, 3, rm=1), encode("fsqrt.s", 4, 1, rm=3)),
    *(encode("fmadd.s", 5, 1, 2, rs3=4, rm=7), encode("fcvt.w.s", 6, 5, rm=2), csr("csrrs", "fflags", 7)),
    *(encode("fsw", rs1=8, rs2=5, imm=4), csr("csrrwi", "frm", rs1=2), encode("fsub.s", 3, 5, 1, rm=7)),
    *(encode("flw", 9, 8), encode("fmul.s", 9, 9, 4, rm=7), encode("feq.s", 5, 9, 1), csr("csrrwi", "fflags", rs1=0)),
)


def paired(body: tuple[int, ...]) -> Run:
    """The body three times over, and then a loop that is long enough for the engine."""
    handler = (csr("csrrs", "mepc", 31), encode("addi", 31, 31, imm=4), csr("csrrw", "mepc", rs1=31), encode("mret"))
    data = 0x3F80_0001_4048_F5C3.to_bytes(8, "little")
    code = image({0: assemble(*body * 3, encode("jal")), 0x800: assemble(*handler), 0x1000: data * 2})
    f = {
        n: 0xFFFF_FFFF << 32 | value
        for n, value in ((1, 0x4040_0000), (2, 0x3F80_0000), (3, 0xBE99_999A), (4, 0x7F7F_FFFF))
    }
    return Run(
        boot(
            code, "rv32gc", x={8: RAM_BASE + 0x1000, 9: RAM_BASE + 0x1008}, f=f, mtvec=RAM_BASE + 0x800,
            mstatus=0x1800 | MSTATUS_FS & 1 << 13,
        )
    )  # fmt: skip


@pytest.mark.parametrize("second", ENGINES)
@pytest.mark.parametrize("first", ENGINES)
@pytest.mark.parametrize("body", [LR_SC, FLOAT], ids=["lr-sc", "float"])
def test_a_run_is_moved_at_any_position(body: tuple[int, ...], first: Engine, second: Engine) -> None:
    end = 3 * len(body) + 700
    uncut = paired(body)
    uncut.to(end, "stepper")
    uncut.machine.digest()
    for position in range(3 * len(body) + 20):
        run = paired(body)
        run.to(position, first)
        run.move()
        run.to(end, second)
        same(run.look(), uncut.look())
        run.close()


# -------------------------------------------------------------------------------------------------------- the guests

CUT_GUESTS = (
    "timer", "race", "lrsc", "lrsc64", "fp", "smc", "smc-nofence", "mixed", "traps", "traps-manual", "counters",
    "counters-manual", "sort", "dice",
)  # fmt: skip
FOREVER = 10**9


@functools.cache
def uncut(name: str) -> tuple[int, bytes, bytes]:
    """Last position, digest and outputs of a guest that the stepper runs in one go."""
    run = Run.of(name)
    assert run.to(FOREVER, "stepper") is Exit.STOPPED
    assert (run.machine.stop_reason, run.machine.exit_code) == ("poweroff", 0)
    return run.machine.position, run.machine.digest().value, run.outputs


@pytest.mark.parametrize("name", CUT_GUESTS)
def test_a_guest_that_is_cut_and_moved_ends_alike(name: str) -> None:
    end, digest, outputs = uncut(name)
    rng = random.Random(name)
    for _ in range(4):
        run = Run.of(name)
        for position in sorted(rng.sample(range(1, end), 12)):
            engine = rng.choice(ENGINES)
            run.to(position, engine)
            assert run.machine.position >= position
            match rng.choice(("move", "digest", "rob", "steps", "")):
                case "move":
                    run.move()
                case "digest":
                    run.machine.digest()
                case "rob":
                    run.rob(most_pages(run))
                case "steps":
                    for step in range(position + 1, min(position + 1500, end)):
                        run.to(step, engine)
                case _:
                    pass
        run.to(FOREVER, rng.choice(ENGINES))
        assert (run.machine.position, run.outputs) == (end, outputs)
        run.give_back()
        assert run.machine.digest().value == digest
        run.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["traps", "traps-manual", "smc", "smc-nofence", "counters", "lrsc", "lrsc64", "dice"])
def test_a_guest_that_is_single_stepped_ends_alike(name: str, engine: Engine) -> None:
    end, digest, outputs = uncut(name)
    run = Run.of(name)
    for position in range(1, end + 1):
        run.to(position, engine)
        assert run.machine.position == position
    assert (run.outputs, run.machine.digest().value) == (outputs, digest)


@pytest.mark.parametrize("engine", ENGINES)
def test_attention_comes_at_an_exact_position(engine: Engine) -> None:
    """Where it is seen is chance; what is there is not."""
    run, reference = Run.of("race"), Run.of("race")
    for _ in range(5):
        run.machine.set_attention()
        assert run.to(FOREVER, engine) is Exit.ATTENTION
        assert reference.to(run.machine.position, "stepper") is Exit.POSITION
        same(run.look(), reference.look())
        run.to(run.machine.position + 100_000, engine)
