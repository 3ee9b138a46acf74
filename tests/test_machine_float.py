# SPDX-License-Identifier: GPL-2.0-or-later
"""Floating point of machine revision 2 follows the manual, on both executors: the stepper and the engine.

That of revision 1 is what the engine does, and so does the stepper, whoever it asks: float_host.h, float.c, the engine.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import random
import struct
from dataclasses import dataclass

import float_model as model
import pytest
from float_model import DOUBLE, NX, SINGLE, Format
from machines import ENGINES, MSTATUS_FS, MSTATUS_MPP, assemble, boot, csr, encode, image

from vmrec.machine.board import RAM_BASE
from vmrec.machine.machine import Engine

FORMATS = {"s": SINGLE, "d": DOUBLE}
BOX = 0xFFFF_FFFF << 32
INITIAL = 1 << 13
X, POINTER = 10, 20
DATA = 0x4000
MODES = range(5)


def number(rng: random.Random, of: Format) -> int:
    """The bits of anything, with much of what lies at the edges."""
    sign = rng.randrange(2) << of.size - 1
    kind = rng.randrange(12)
    fraction = rng.choice((0, 1, (1 << of.fraction) - 1, 1 << of.fraction - 1, rng.getrandbits(of.fraction)))
    if kind < 5:  # near 1, so that sums cancel and products do not overflow
        exponent = of.bias + rng.randrange(-of.fraction - 4, of.fraction + 4)
    elif kind < 8:
        exponent = rng.randrange((1 << of.exponent) - 1)
    else:
        exponent = rng.choice((0, 0, 1, 2, (1 << of.exponent) - 2, (1 << of.exponent) - 1, of.bias + 31, of.bias + 63))
    return sign | exponent << of.fraction | fraction


def operand(rng: random.Random, of: Format) -> tuple[int, int]:
    """A register, and the number in it: a single that is not boxed is a NaN."""
    bits = number(rng, of)
    if of is DOUBLE:
        return bits, bits
    if rng.randrange(8):
        return BOX | bits, bits
    register = rng.choice((bits, rng.getrandbits(32) << 32 | bits, number(rng, DOUBLE)))
    return register, register % (1 << 32) if register >= BOX else SINGLE.nan


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits if value >> bits - 1 else 0)


def expected(name: str, a: int, b: int, c: int, x: int, mode: int) -> tuple[int, int]:
    """The number or integer that an instruction gives, and its flags; `a`, `b`, `c` are numbers, `x` a register."""
    operation, *parts = name.split(".")
    of = FORMATS[parts[-1]] if parts[-1] in FORMATS else FORMATS[parts[0]]
    minus = 1 << of.size - 1
    match operation:
        case "fadd":
            return model.add(a, b, of, mode)
        case "fsub":
            return model.add(a, b ^ minus, of, mode)
        case "fmul":
            return model.multiply(a, b, of, mode)
        case "fdiv":
            return model.divide(a, b, of, mode)
        case "fsqrt":
            return model.square_root(a, of, mode)
        case "fmin" | "fmax":
            return model.extreme(a, b, of, largest=operation == "fmax")
        case "fmadd":
            return model.fused(a, b, c, of, mode)
        case "fmsub":
            return model.fused(a, b, c ^ minus, of, mode)
        case "fnmsub":
            return model.fused(a ^ minus, b, c, of, mode)
        case "fnmadd":
            return model.fused(a ^ minus, b, c ^ minus, of, mode)
        case "fsgnj":
            return model.magnitude(a, of) | b & minus, 0
        case "fsgnjn":
            return model.magnitude(a, of) | ~b & minus, 0
        case "fsgnjx":
            return a ^ b & minus, 0
        case "feq" | "flt" | "fle":
            return model.compare(a, b, of, operation)
        case "fclass":
            return model.classify(a, of), 0
    if parts[0] in FORMATS and parts[1] in FORMATS:
        return model.convert(a, of, FORMATS[parts[0]], mode)
    integer = parts[1] if parts[0] in FORMATS else parts[0]
    bits, is_signed = 64 if integer[0] == "l" else 32, "u" not in integer
    if parts[0] in FORMATS:
        value = signed(x, bits) if is_signed else x % (1 << bits)
        return model.from_integer(value, FORMATS[parts[0]], mode)
    value, flags = model.to_integer(a, of, mode, bits=bits, signed=is_signed)
    return signed(value, bits) % (1 << 64), flags


def names(*operations: str) -> list[str]:
    return [f"{operation}.{width}" for operation in operations for width in FORMATS]


WITH_MODE = [
    *names("fadd", "fsub", "fmul", "fdiv", "fsqrt", "fmadd", "fmsub", "fnmsub", "fnmadd"),
    *names(*(f"fcvt.{integer}" for integer in ("w", "wu", "l", "lu"))),
    *(f"fcvt.{width}.{integer}" for width in FORMATS for integer in ("w", "wu", "l", "lu")),
    "fcvt.s.d",
    "fcvt.d.s",
]
WITHOUT = names("fmin", "fmax", "fsgnj", "fsgnjn", "fsgnjx", "feq", "flt", "fle", "fclass")


def gives_float(name: str) -> Format | None:
    """The format of the result; None for an integer."""
    operation, *parts = name.split(".")
    return None if operation in ("feq", "flt", "fle", "fclass") else FORMATS.get(parts[0])


@dataclass(frozen=True)
class Case:
    """An instruction with its operands as they are in registers, and what it gives there."""

    word: int
    operands: tuple[int, int, int, int]
    before: int
    result: int
    flags: int
    text: str


def case(rng: random.Random, name: str, mode: int) -> Case:
    parts = name.split(".")
    of = FORMATS.get(parts[-1], DOUBLE)
    (ra, a), (rb, b), (rc, c) = (operand(rng, of) for _ in range(3))
    if rng.randrange(4) == 0:
        b = a ^ rng.randrange(2) << of.size - 1
        rb = BOX | b if of is SINGLE else b
    x = rng.choice((rng.getrandbits(64), rng.getrandbits(33), (1 << rng.randrange(64)) - 1))
    value, flags = expected(name, a, b, c, x, mode)
    to = gives_float(name)
    rm = rng.choice((mode, 7)) if name in WITH_MODE else 0
    source = X if to and parts[-1] not in FORMATS else 1
    word = encode(name, X if to is None else 4, source, 2, rs3=3, rm=rm)
    text = f"{name} {ra:#x} {rb:#x} {rc:#x} x {x:#x} mode {mode}"
    return Case(word, (ra, rb, rc, x), rng.choice((0, NX, 31)), BOX | value if to is SINGLE else value, flags, text)


def cases_of(name: str, mode: int, count: int) -> list[Case]:
    rng = random.Random(f"{name} {mode}")
    return [case(rng, name, mode) for _ in range(count)]


def program(cases: list[Case], *, flags: bool) -> bytes:
    """Does one after the other: operands from where x20 points to, results and flags (if wanted) in their place."""
    words = []
    for each in cases:
        floats = gives_float(each.text.split()[0]) is not None
        words += [csr("csrrwi", "fflags", 0, each.before)] if flags else []
        words += [encode("fld", 1 + place, POINTER, imm=8 * place) for place in range(3)]
        words += [encode("ld", X, POINTER, imm=24), each.word]
        words += [encode("fsd", 0, POINTER, 4) if floats else encode("sd", 0, POINTER, X)]
        words += [csr("csrrs", "fflags", 5), encode("sd", 0, POINTER, 5, 8)] if flags else []
        words += [encode("addi", POINTER, POINTER, imm=32)]
    return assemble(*words)


def carried_out(cases: list[Case], mode: int, engine: Engine, *, flags: bool) -> tuple[list[tuple[int, int]], int]:
    """What stands in memory afterwards (result, flags) for each, and all flags together."""
    code = program(cases, flags=flags)
    data = b"".join(value.to_bytes(8, "little") for each in cases for value in each.operands)
    with boot(
        image({0: code, DATA: data}), "rv64gcsu", x={POINTER: RAM_BASE + DATA}, mstatus=MSTATUS_FS, frm=mode
    ) as machine:
        machine.run(len(code) // 4, engine=engine)
        assert machine.icount == len(code) // 4
        if engine == "engine" and not flags and not is_own(cases[0].word):
            assert machine.statistics["engine_steps"] == len(code) // 4, "this compares the stepper with itself"
        found = struct.iter_unpack("<QQ16x", machine.read_memory(RAM_BASE + DATA, len(data)))
        return list(found), machine.state()["hart"]["fflags"]


def is_own(word: int) -> bool:
    """Whether the engine may not run it."""
    double = word >> 25 & 3 == 1
    return word & 0x7F != 0x53 or word >> 27 in (5, 8) or not double


@pytest.mark.parametrize("name", [*WITH_MODE, *WITHOUT])
@pytest.mark.parametrize("mode", MODES)
def test_each_instruction_follows_the_manual(name: str, mode: int) -> None:
    """Random operands, with and without flags raised before, in each rounding mode."""
    cases = cases_of(name, mode, 60)
    found, _ = carried_out(cases, mode, "stepper", flags=True)
    for each, (result, flags) in zip(cases, found, strict=True):
        assert (hex(result), flags) == (hex(each.result), each.before | each.flags), each.text


@pytest.mark.parametrize("name", [*WITH_MODE, *WITHOUT])
def test_the_engine_agrees(name: str) -> None:
    """Where it runs such instructions, and where it may not."""
    for mode in MODES if name in WITH_MODE else (0,):
        cases = cases_of(name, mode, 60)
        raised = functools.reduce(int.__or__, (each.flags for each in cases))
        for engine in ENGINES:
            found, flags = carried_out(cases, mode, engine, flags=False)
            for each, (result, _) in zip(cases, found, strict=True):
                assert hex(result) == hex(each.result), f"{engine}: {each.text}"
            assert flags == raised, engine


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("word", "dirty"),
    [
        (encode("fadd.s", 4, 1, 2), True),
        (encode("fsgnj.d", 4, 1, 2), True),
        (encode("fclass.s", X, 1), False),
        (encode("fclass.d", X, 1), False),
        (encode("feq.s", X, 2, 2), False),
        (encode("feq.s", X, 1, 1), False),
        (encode("flt.s", X, 1, 2), True),  # raises a flag
        (encode("flt.d", X, 1, 2), True),
        (encode("fcvt.w.d", X, 1), True),
        (encode("fcvt.w.d", X, 3), False),
        (encode("fmv.x.w", X, 1), False),
    ],
)
def test_the_unit_is_dirty_when_something_of_it_changed(word: int, dirty: bool, engine: Engine) -> None:
    f = {1: DOUBLE.nan, 2: BOX | 0x3F80_0000, 3: 0}
    with boot(assemble(word, encode("jal")), "rv64gcsu", f=f, mstatus=INITIAL) as machine:
        machine.run(1000, engine=engine)
        assert machine.state()["hart"]["mstatus"] & MSTATUS_FS == (MSTATUS_FS if dirty else INITIAL)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("rm", "frm"), [(5, 0), (6, 0), (7, 5), (7, 6), (7, 7)])
@pytest.mark.parametrize("name", ["fadd.s", "fadd.d", "fmadd.d", "fcvt.d.s", "fcvt.d.w", "fcvt.w.s", "fsqrt.d"])
def test_rounding_modes_that_are_none_are_illegal(name: str, rm: int, frm: int, engine: Engine) -> None:
    code = assemble(encode(name, 4, 1, 2, rs3=3, rm=rm))
    with boot(code, "rv64gcsu", mstatus=MSTATUS_FS, frm=frm, mtvec=RAM_BASE + 0x100) as machine:
        machine.run(1, engine=engine)
        hart = machine.state()["hart"]
        assert (hart["mcause"], hart["mtval"], hart["fflags"]) == (2, int.from_bytes(code, "little"), 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_moves_take_the_bits_as_they_are(engine: Engine) -> None:
    """fmv.x.w and fsw do not look at the box; fmv.w.x and flw make it."""
    words = (
        encode("fmv.x.w", 11, 1), encode("fmv.w.x", 2, 12), encode("fsw", 0, POINTER, 1), encode("flw", 3, POINTER),
    )  # fmt: skip
    with boot(
        assemble(*words), "rv64gcsu", f={1: 0x0123_4567_89AB_CDEF}, x={12: 0xFFFF_3F80_0000, POINTER: RAM_BASE + DATA},
        mstatus=MSTATUS_FS,
    ) as machine:  # fmt: skip
        machine.run(4, engine=engine)
        state = machine.state()["hart"]
        assert state["x"][11] == 0xFFFF_FFFF_89AB_CDEF
        assert state["f"][2] == BOX | 0x3F80_0000
        assert state["f"][3] == BOX | 0x89AB_CDEF


@pytest.mark.parametrize("engine", ENGINES)
def test_single_and_double_on_32_bits(engine: Engine) -> None:
    """Registers of floating point are 64 bits wide there too, and integers 32."""
    words = (
        encode("fcvt.wu.d", 11, 1, isa="rv32gcsu"), encode("fcvt.s.d", 2, 1), encode("fclass.s", 12, 2),
        encode("fmv.x.w", 13, 2),
    )  # fmt: skip
    with boot(assemble(*words), "rv32gcsu", f={1: 0x41EF_FFFF_FFE0_0000}, mstatus=MSTATUS_FS) as machine:
        machine.run(4, engine=engine)
        hart = machine.state()["hart"]
        assert hart["x"][11:14] == [0xFFFF_FFFF, 1 << 6, 0x4F80_0000]
        assert (hart["f"][2], hart["fflags"]) == (BOX | 0x4F80_0000, NX)


# ------------------------------------------------------------------------------------------------------- revision 1


MOVES = ["fmv.x.w", "fmv.w.x", "fmv.x.d", "fmv.d.x"]
#: A jump to the next instruction: the engine does not begin a block that holds a CSR instruction.
NEXT = encode("jal", imm=4)
ISAS = ["rv64gc", "rv32gc"]
BOTH: tuple[Engine, Engine] = ("engine", "stepper")


def names_of(isa: str) -> list[str]:
    """The instructions that the profile has."""
    wide = {*names("fcvt.l", "fcvt.lu"), *(f"fcvt.{width}.{whole}" for width in FORMATS for whole in ("l", "lu"))}
    every = [*WITH_MODE, *WITHOUT, *MOVES]
    return every if isa == "rv64gc" else [name for name in every if name not in {*wide, "fmv.x.d", "fmv.d.x"}]


def first_cases(name: str, mode: int, isa: str) -> list[Case]:
    """Without what the manual says to them; some with one register for both operands."""
    rng = random.Random(f"{name} {mode} {isa}")
    to_x = name.startswith("fmv.x") or (name not in MOVES and gives_float(name) is None)
    from_x = name in ("fmv.w.x", "fmv.d.x") or (name in WITH_MODE and not to_x and name.split(".")[-1] not in FORMATS)
    of = FORMATS.get(name.split(".")[-1], DOUBLE)
    two = name.split(".")[0] not in ("fcvt", "fmv", "fsqrt", "fclass")
    found = []
    for _ in range(40):
        registers = [operand(rng, of)[0] for _ in range(3)]
        x = rng.choice((rng.getrandbits(64), rng.getrandbits(33), (1 << rng.randrange(64)) - 1))
        second = rng.choice((1, 2, 2, 2)) if two else 0
        rm = rng.choice((mode, 7)) if name in WITH_MODE else 0
        word = encode(name, X if to_x else 4, X if from_x else 1, second, rs3=3, rm=rm, isa=isa)
        text = f"{name} {registers} x {x:#x} rs2 {second} mode {mode}"
        found.append(Case(word, (*registers, x), rng.choice((0, NX, 31)), to_x, 0, text))
    return found


def first_program(cases: list[Case], isa: str) -> bytes:
    """As `program`, with flags, in blocks that the engine runs; of 32-bit registers the lower half is kept."""
    load, store = ("ld", "sd") if isa == "rv64gc" else ("lw", "sw")
    words = []
    for each in cases:
        words += [csr("csrrwi", "fflags", 0, each.before), NEXT]
        words += [encode("fld", 1 + place, POINTER, imm=8 * place) for place in range(3)]
        words += [encode("fld", 4, POINTER), encode(load, X, POINTER, imm=24, isa=isa), each.word]
        words += [encode(store, 0, POINTER, X, isa=isa) if each.result else encode("fsd", 0, POINTER, 4)]
        words += [NEXT, csr("csrrs", "fflags", 5), encode("sw", 0, POINTER, 5, 8)]
        words += [encode("addi", POINTER, POINTER, imm=32)]
    return assemble(*words)


def first_results(cases: list[Case], mode: int, engine: Engine, isa: str) -> list[tuple[str, int]]:
    code = first_program(cases, isa)
    assert len(code) <= DATA
    data = b"".join(value.to_bytes(8, "little") for each in cases for value in each.operands)
    memory = image({0: code, DATA: data})
    status = MSTATUS_MPP | MSTATUS_FS
    with boot(memory, isa, x={POINTER: RAM_BASE + DATA}, mstatus=status, frm=mode) as machine:
        machine.run(len(code) // 4, engine=engine)
        assert machine.icount == len(code) // 4
        if engine == "engine":
            assert machine.statistics["engine_steps"] >= 7 * len(cases), "this compares the stepper with itself"
        found = struct.iter_unpack("<QI20x", machine.read_memory(RAM_BASE + DATA, len(data)))
        return [(hex(result), flags) for result, flags in found]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", MODES)
def test_in_the_first_revision_the_stepper_does_as_the_engine(mode: int, isa: str) -> None:
    """Unicorn's way with singles that are not boxed, minima of NaNs and the like is the rule there."""
    for name in names_of(isa):
        if name in WITH_MODE or mode == 0:
            cases = first_cases(name, mode, isa)
            engine, stepper = (first_results(cases, mode, each, isa) for each in BOTH)
            for each, of_engine, of_stepper in zip(cases, engine, stepper, strict=True):
                assert of_engine == of_stepper, f"{each.text}, flags {each.before}"


@pytest.mark.parametrize("isa", ISAS)
def test_in_the_first_revision_the_unit_gets_dirty_by_results_alone(isa: str) -> None:
    """On both executors: a raised flag leaves it as it was."""
    for name in names_of(isa):
        each = first_cases(name, 0, isa)[0]
        code = assemble(each.word, encode("jal"))
        status = []
        for engine in BOTH:
            with boot(code, isa, f={1: DOUBLE.nan, 2: 1, 3: 2}, mstatus=MSTATUS_MPP | INITIAL) as machine:
                machine.run(2, engine=engine)
                assert machine.statistics[f"{engine}_steps"] == 2
                status.append(machine.state()["hart"]["mstatus"])
        assert status == [MSTATUS_MPP | (INITIAL if each.result else MSTATUS_FS)] * 2, name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("isa", ["rv64gc", "rv64gcsu"])
def test_it_does_not_matter_how_the_host_rounds(isa: str, engine: Engine) -> None:
    """A library of the same process may have asked for something else; and it gets it back."""
    host = ctypes.CDLL(None)
    upwards = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())
    if upwards is None:
        pytest.skip(f"the number of FE_UPWARD on {platform.machine()} is not known here")
    words = [encode(name, 4, 4, 2, rm=0) for name in ("fmul.d", "fadd.d", "fdiv.d", "fsub.d")] * 8
    results = []
    for rounding in (host.fegetround(), upwards):
        f = {2: 0x3FF5_5555_5555_5555, 4: 0x3FE9_9999_9999_999A}
        status = MSTATUS_FS | (MSTATUS_MPP if isa == "rv64gc" else 0)
        with boot(assemble(*words), isa, f=f, mstatus=status, fflags=NX) as machine:
            before = host.fegetround()
            try:
                assert host.fesetround(rounding) == 0
                machine.run(len(words), engine=engine)
                assert host.fegetround() == rounding
            finally:
                host.fesetround(before)
            results.append(hex(machine.state()["hart"]["f"][4]))
    assert results[0] == results[1]
