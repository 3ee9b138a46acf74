# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs: the machine against the executable definition of the toy ISA, step for step.

Programs loop, patch themselves, trap, touch CSRs and are interrupted; each is run by the definition and then by every
executor, cut at the same positions. Registers, CSRs, memory, positions and captured rows must agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from machines import ENGINES, FIXED, NONE, Choices, Run, assemble, boot, csr, encode, image

from vmrec.isa.definition import RAM_BASE, STEPS_PER_TICK, Row, Toy
from vmrec.isa.profiles import profile
from vmrec.isa.registers import CSR_NUMBERS
from vmrec.machine.board import RAM_SIZE_MIN
from vmrec.machine.machine import Exit, Machine

STEPS = 700
BODY = 0x400
HANDLER = 0x800
DATA = 0x3000 + 0x800
#: Where the definition has nothing and the machine has devices: a run ends before it gets there.
DEVICES = (
    (0x10_0000, 0x2000),
    (0x200_0000, 0x1_0000),
    (0xC00_0000, 0x60_0000),
    (0x1000_0000, 0x100),
    (0x1020_0000, 0x1000),
)
CLINT_MSIP, CLINT_MTIMECMP = 0x200_0000, 0x200_4000
MSIP, MTIP = 1 << 3, 1 << 7

# ---------------------------------------------------------------------------------------------------------- programs

#: Registers with a part to play: x8 data, x9 the end of RAM, x10 the body, x11 outside RAM; x28..x31 the handler's.
ADDRESSES = {8: RAM_BASE + DATA, 9: RAM_BASE + RAM_SIZE_MIN - 8, 10: RAM_BASE + BODY, 11: 0x4000_0000}
VALUES = (0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15)
EDGES = (0, 1, 2, 3, 4, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
WORDS = st.one_of(st.sampled_from(EDGES), st.integers(0, 0xFFFF_FFFF))
NAMES: dict[str, list[str]] = {}
for _row in profile("rv32im").instructions:
    NAMES.setdefault(_row.format, []).append(_row.name)
LOADS = ("lb", "lh", "lw", "lbu", "lhu")
STORES = ("sb", "sh", "sw")
BASES = (8, 8, 8, 8, 9, 10, 11)
CSRS = sorted(CSR_NUMBERS.values())
LIVELY = [CSR_NUMBERS[name] for name in ("mstatus", "mie", "mepc", "mcause", "mtval", "mscratch", "minstret", "mcycle")]


def instruction(number: int) -> int:
    """An instruction word out of a number of 64 bits."""
    pick = Choices(number)
    kind, rd, rs1, rs2 = pick.below(24), pick.of(VALUES), pick.below(16), pick.below(16)
    small, imm, base = pick.between(-16, 16), pick.between(-2048, 2047), pick.of(BASES)
    near = 4 * (imm % 24 - 10)
    match kind:
        case 0 | 1 | 2 | 3:
            return encode(pick.of(NAMES["R"]), rd, rs1, rs2)
        case 4 | 5 | 6:
            return encode(pick.of([n for n in NAMES["I"] if n not in (*LOADS, "jalr")]), rd, rs1, imm=imm)
        case 7:
            return encode(pick.of(NAMES["I-shift"]), rd, rs1, imm=imm & 31)
        case 8:
            return encode(pick.of(NAMES["U"]), rd, imm=number >> 32)
        case 9 | 10 | 11:
            return encode(pick.of(LOADS), rd, base, imm=small)
        case 12 | 13:
            return encode(pick.of(STORES), rs1=base, rs2=rs2, imm=small)
        case 14:
            return encode(pick.of(STORES), rs1=10, rs2=rs2, imm=imm % 240)  # into the body
        case 15:
            return (
                encode(pick.of((*LOADS, *STORES)), rd, rs1, rs2, imm) if imm % 4 == 0 else encode("add", rd, rs1, rs2)
            )
        case 16 | 17 | 18:
            return encode(pick.of(NAMES["B"]), rs1=rs1, rs2=rs2, imm=6 if small == 0 else near)
        case 19:
            return encode("jal", rd, imm=-6 if small == 0 else near)
        case 20:
            return encode("jalr", rd, rs1, imm=imm) if small == 0 else encode("jalr", rd, 10, imm=imm % 240)
        case 21:
            number = pick.of(LIVELY) if small % 2 else pick.of(CSRS) if small < 12 else pick.below(4096)
            return encode(pick.of(NAMES["CSR"] + NAMES["CSRI"]), rd, rs1, imm=number)
        case 22:
            return encode(
                pick.of(("fence", "fence.i", "ecall", "ebreak", "mret" if small % 4 == 0 else "ecall", "wfi"))
            )
        case _:
            return 0 if small == 0 else (number >> 32) & 0xFFFF_FFFF if small < 4 else encode("addi", rd, rs1, imm=imm)


INSTRUCTION = st.integers(0, 2**64 - 1).map(instruction)
#: What a handler does before it returns: go behind the instruction, or not; clobber something, or not.
SKIP = (csr("csrrs", "mepc", rd=31), encode("addi", 31, 31, imm=4), csr("csrrw", "mepc", rs1=31))
HANDLERS = (
    (*SKIP, encode("mret")),
    (*SKIP, csr("csrrs", "mcause", rd=30), encode("mret")),
    (csr("csrrw", "mscratch", rd=31, rs1=31), *SKIP[1:], encode("mret")),
    (csr("csrrs", "mstatus", rd=29), csr("csrrci", "mie", rd=28, rs1=8), *SKIP, encode("mret")),
    (encode("jal", 0, imm=BODY - HANDLER),),
    (encode("mret"),),
)
#: Vectored mode: the entry of each interrupt jumps to the one handler.
VECTORS = [encode("jal", 0, imm=0x40 - 4 * n) for n in range(16)]


@dataclass
class Program:
    body: list[int]
    handler: tuple[int, ...]
    vectored: bool
    values: list[int]
    mie: int
    mstatus: int
    #: (position, address, value): stores to the CLINT by the outside, that is, interrupts raised and lowered.
    pokes: list[tuple[int, int, int]] = field(default_factory=list)

    def code(self) -> bytes:
        back = encode("jal", 0, imm=-4 * len(self.body))
        parts = {0: assemble(encode("jal", 0, imm=BODY)), HANDLER: assemble(*self.handler)}
        if self.vectored:
            parts = {**parts, HANDLER: assemble(*VECTORS), HANDLER + 0x40: assemble(*self.handler)}
        body = b"".join(w.to_bytes(4, "little") for w in (*self.body, back))
        data = b"".join(w.to_bytes(4, "little") for w in self.values)
        return image({**parts, BODY: body, DATA - 32: data, DATA: data})

    def registers(self) -> dict[int, int]:
        return {**dict(zip((1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15), self.values, strict=False)), **ADDRESSES}

    def hart(self) -> dict[str, int]:
        return {"mtvec": RAM_BASE + HANDLER + self.vectored, "mie": self.mie, "mstatus": 0x1800 | self.mstatus}


POKE = st.one_of(
    st.tuples(st.integers(0, STEPS - 1), st.just(CLINT_MSIP), st.integers(0, 1)),
    st.tuples(st.integers(0, STEPS - 1), st.just(CLINT_MTIMECMP), st.one_of(st.integers(0, 8), st.just(NONE))),
)
PROGRAMS = st.builds(
    Program,
    body=st.lists(INSTRUCTION, min_size=12, max_size=60),
    handler=st.sampled_from(HANDLERS),
    vectored=st.booleans(),
    values=st.lists(WORDS, min_size=11, max_size=11),
    mie=st.sampled_from((0, 0x888, 0x80, 0x8)),
    mstatus=st.sampled_from((0, 8, 0x80)),
    pokes=st.lists(POKE, max_size=6).map(lambda pokes: sorted(pokes)),
)

# --------------------------------------------------------------------------------------------------- the definition


@dataclass
class Story:
    """What the definition did: rows, and what it looked like at the positions asked for."""

    rows: list[Row]
    looks: dict[int, dict[str, Any]]
    memory: bytes
    icount: int
    end: int
    waits: bool


def look(hart: Toy | Machine) -> dict[str, Any]:
    registers = hart.x if isinstance(hart, Toy) else hart.regs
    return {"pc": hart.pc, "x": list(registers), "csrs": hart.csrs}


def on_a_device(address: int) -> bool:
    return any(base <= address < base + size for base, size in DEVICES)


class Clint:
    """The two interrupt lines that the outside pulls, for the definition, which has no devices."""

    def __init__(self) -> None:
        self.msip, self.mtimecmp = 0, NONE

    def poke(self, address: int, value: int) -> None:
        if address == CLINT_MSIP:
            self.msip = value
        else:
            self.mtimecmp = value

    def lines(self, toy: Toy) -> int:
        return (MSIP if self.msip else 0) | (MTIP if toy.time >= self.mtimecmp else 0)

    def sleep(self, toy: Toy) -> bool:
        """Lets a waiting hart sleep until its timer; False if nothing will wake it."""
        if self.mtimecmp == NONE or not toy.mie & MTIP:
            return False
        toy.sleep(self.mtimecmp * STEPS_PER_TICK - toy.position - toy.idle)
        toy.mip = self.lines(toy)
        return True


def tell(program: Program, cuts: set[int], rom: bytes) -> Story:
    toy = Toy(program.code(), ram_size=RAM_SIZE_MIN, rom=rom)
    for number, value in program.registers().items():
        toy.x[number] = value
    for name, value in program.hart().items():
        setattr(toy, name, value)
    clint = Clint()
    rows: list[Row] = []
    looks = {}
    pokes = list(program.pokes)
    waits = False
    while True:
        toy.mip = clint.lines(toy)
        if toy.position in cuts or (pokes and pokes[0][0] == toy.position):
            looks[toy.position] = look(toy)
        while pokes and pokes[0][0] == toy.position:
            clint.poke(*pokes.pop(0)[1:])
            toy.mip = clint.lines(toy)
        if toy.position == STEPS:
            break
        if toy.waiting and not clint.sleep(toy):
            waits = True
            break
        before = list(toy.x)
        row = toy.step()
        if row.cause in (5, 7) and on_a_device(toy.mtval):
            # The machine would have done this access: what was before it is compared.
            end = row.position
            looks[end] = {"pc": row.pc, "x": before}
            return Story(rows, looks, bytes(toy.ram), toy.icount, end, waits=False)
        rows.append(row)
        if row.cause in (1, 2) and row.pc == toy.mtvec & ~3:
            break  # it would do this for ever: the machine stops
    toy.mip = clint.lines(toy)
    looks.setdefault(toy.position, look(toy))
    return Story(rows, looks, bytes(toy.ram), toy.icount, toy.position, waits)


# ------------------------------------------------------------------------------------------------------------- tests


def start(program: Program) -> Run:
    return Run(boot(program.code(), x=program.registers(), **program.hart()))


def rom_of_any_machine() -> bytes:
    with boot(assemble(encode("jal", 0))) as machine:
        return machine.read_memory(0x1000, 0xF000)


ROM = rom_of_any_machine()


def compare(run: Run, story: Story) -> None:
    machine = run.machine
    expected = story.looks[machine.position]
    seen = look(machine)
    assert {name: seen[name] for name in expected} == expected
    if "csrs" in expected:
        assert list(seen["csrs"]) == list(expected["csrs"])


def follow(run: Run, program: Program, story: Story, engine: Any) -> None:
    """Runs the machine to the story's end, stopping wherever it has a look to compare with, or a poke to do."""
    stops = sorted({*story.looks, *(p for p, _, _ in program.pokes if p < story.end)})
    for stop in stops:
        exit_ = run.to(stop, engine)
        assert run.machine.position == stop
        assert exit_ is Exit.POSITION or (stop == story.end and exit_ is Exit.STOPPED)
        if stop in story.looks:
            compare(run, story)
        for position, address, value in program.pokes:
            if position == stop < story.end:
                assert run.machine.bus_write(address, 8 if address == CLINT_MTIMECMP else 4, value)
    assert run.machine.icount == story.icount or run.machine.icount == len([r for r in story.rows if r.cause is None])
    assert run.machine.read_memory(RAM_BASE, RAM_SIZE_MIN) == story.memory


@settings(FIXED, max_examples=250)
@given(program=PROGRAMS, cuts=st.sets(st.integers(0, STEPS), max_size=5))
def test_the_machine_does_what_the_definition_says(program: Program, cuts: set[int]) -> None:
    story = tell(program, cuts, ROM)
    for engine in ENGINES:
        run = start(program)
        follow(run, program, story, engine)
        if story.waits and not [p for p, _, _ in program.pokes if p == story.end]:
            assert run.to(STEPS + 1, engine) is Exit.STOPPED
            assert run.machine.stop_reason == "waiting-for-ever"
        run.close()


@settings(FIXED, max_examples=150)
@given(program=PROGRAMS, cuts=st.sets(st.integers(0, STEPS), max_size=5))
def test_captured_rows_are_those_of_the_definition(program: Program, cuts: set[int]) -> None:
    story = tell(program, cuts, ROM)
    run = start(program)
    run.capture()
    follow(run, program, story, "auto")
    run.stop_capture()
    run.close()
    seen = [(r.position, r.pc, r.word, r.trap, [tuple_of(a) for a in r.accesses]) for r in run.rows]
    assert seen == [(r.position, r.pc, r.word, r.cause is not None, [tuple(a) for a in r.accesses]) for r in story.rows]


def tuple_of(access: Any) -> tuple[str, int, int, int]:
    return access.kind, access.address, access.size, access.value
