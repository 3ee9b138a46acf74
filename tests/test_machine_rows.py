# SPDX-License-Identifier: GPL-2.0-or-later
"""Captured rows against a reference that shares nothing with the machine: Unicorn as it comes, with Python hooks.

Programs that cannot trap run on a stock engine with its own TLB, where a code hook and memory hooks write down what
happens; full capture must give the same rows. Then: how rows are cut and taken makes no difference.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import unicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import ENGINES, FIXED, MSTATUS_FS, Choices, Run, assemble, boot, encode, image, little, words_of
from unicorn import riscv_const

from vmrec.isa.instructions import Instruction
from vmrec.isa.profiles import PROFILES, matches, profile
from vmrec.machine.board import RAM_BASE, RAM_SIZE_MIN
from vmrec.machine.machine import Engine
from vmrec.machine.rows import RowDecoder
from vmrec.trace.codec import unpack_stream

DATA = 0x8000
LOOPS = 12
POINTERS = (8, 9)
#: x8 and x9 point to data, sp too; x16 counts; x10..x15 and x5..x7 are for values.
VALUES = (5, 6, 7, 10, 11, 12, 13, 14, 15)
LOADS = ("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu", "flw", "fld")
STORES = ("sb", "sh", "sw", "sd", "fsw", "fsd")

RowValues = tuple[int, bytes, list[tuple[str, int, int, int]]]


# ---------------------------------------------------------------------------------------------------------- programs


def usable(row: Instruction, isa: str) -> bool:
    """Not a jump, nothing that traps or reads a clock, and no arithmetic on floats, whose flags are not rows.

    lr and sc are of one size, as a pair of two is the one case in which a failed sc stores (see stepper.c).
    """
    if row.name.startswith(("lr.", "sc.")) and row.name.endswith(".w" if isa == "rv64imac" else ".d"):
        return False
    if row.format in ("B", "J", "CJ", "CSR", "CSRI", "fence", "none") or row.name in ("jalr", "c.beqz", "c.bnez"):
        return False
    if "S" in row.extensions:
        return False
    if row.name.startswith(("c.j", "c.ebreak", "c.addi16sp")):
        return False
    return not row.extensions & {"F", "D"} or row.name in (*LOADS, *STORES) or row.length == 2


def instruction(number: int, isa: str) -> int:
    pick = Choices(number)
    rows = [row for row in profile(isa).instructions if usable(row, isa)]
    atomic = [row for row in rows if row.format in ("amo", "lr")]
    memory = [row for row in rows if row.name in (*LOADS, *STORES)]
    row = pick.of(pick.of([group for group in (rows, memory, atomic) if group]))
    rd, rs1, rs2, base = pick.of(VALUES), pick.of(VALUES), pick.of(VALUES), pick.of(POINTERS)
    offset, bits = pick.between(-64, 63), pick.below(1 << 32)
    if row.name in (*LOADS, *STORES):
        return encode(row.name, rd, base, rs2, offset, isa=isa)
    if row.length == 2:
        return compressed(row, isa, rd, rs2, bits)
    if row.format in ("amo", "lr"):
        return row.match | bits & 0x0600_0000 | (0 if row.format == "lr" else rs2) << 20 | base << 15 | rd << 7
    word = row.match | bits & ~row.mask
    for low, register in ((7, rd), (15, rs1), (20, rs2)):
        if row.format == "R" or low != 20:
            word = word & ~(31 << low) | register << low
    return word


def compressed(row: Instruction, isa: str, rd: int, rs2: int, bits: int) -> int:
    """With a pointer where it takes an address, and without writing one."""
    memory = row.format in ("CL", "CS") or row.name.endswith("sp")
    if row.format in ("CL", "CS"):  # rd' or rs2' in bits 4..2, the address in rs1' = x8 or x9
        bits = bits & ~0x39C | (2 + bits % 6) << 2 | (bits & 1) << 7
    elif row.format in ("CB", "CA"):
        bits = bits & ~0x380 | (2 + bits % 6) << 7
    elif row.format == "CIW":
        bits = bits & ~0x1C | (2 + bits % 6) << 2
    else:
        bits = bits & ~0xF80 | rd << 7
        if row.format == "CSS" or row.format == "CR":
            bits = bits & ~0x7C | rs2 << 2
        if row.format == "CSS":
            bits = bits & ~0x1F80 | (rd & 7) << 10
    found = [word for word in words_of(row, isa, [bits]) if memory or word >> 7 & 31 not in (1, 2, 8, 9, 16)]
    return found[0] if found else 0x0001


def layout(numbers: list[int], isa: str) -> tuple[bytes, int]:
    """A loop of LOOPS rounds over these instructions, with short branches forward between them; and where it ends."""
    words = [instruction(number, isa) for number in numbers]
    body = b""
    for at, word in enumerate(words):
        skipped = words[at + 1 : at + 1 + numbers[at] % 4]
        if numbers[at] % 5 == 0 and skipped and len(skipped) == numbers[at] % 4:
            distance = 4 + sum(len(little(other)) for other in skipped)
            name = ("beq", "bne", "blt", "bgeu")[numbers[at] // 5 % 4]
            body += little(encode(name, rs1=5 + at % 3, rs2=10 + at % 6, imm=distance))
            body += b"".join(little(other) for other in skipped)
        else:
            body += little(word)
    tail = (encode("addi", 16, 16, imm=-1), encode("bne", rs1=16, imm=-len(body) - 4), encode("jal"))
    data = random.Random(len(numbers)).randbytes(0x2000)
    return image({0: body + b"".join(map(little, tail)), DATA: data}), len(body) + 8


def registers(isa: str, seed: int) -> dict[int, int]:
    rng, xlen = random.Random(seed), profile(isa).xlen
    values = {number: rng.choice((rng.getrandbits(xlen), rng.getrandbits(8))) for number in VALUES}
    return {**values, 2: RAM_BASE + DATA + 0x800, 8: RAM_BASE + DATA + 0x400, 9: RAM_BASE + DATA + 0x900, 16: LOOPS}


# --------------------------------------------------------------------------------------------------- the two executors


def plain(code: bytes, end: int, isa: str, x: dict[int, int]) -> list[RowValues]:
    """What a stock engine does, by its hooks."""
    guest = profile(isa)
    uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32 if guest.xlen == 32 else unicorn.UC_MODE_RISCV64)
    uc.mem_map(RAM_BASE, RAM_SIZE_MIN)
    uc.mem_write(RAM_BASE, code)
    for number, value in x.items():
        uc.reg_write(riscv_const.UC_RISCV_REG_X0 + number, value)
    if "F" in guest.extensions:
        uc.reg_write(riscv_const.UC_RISCV_REG_MSTATUS, MSTATUS_FS)
    rows: list[RowValues] = []

    def on_code(_: Any, address: int, size: int, __: Any) -> None:
        if rows:
            settle(rows[-1])
        rows.append((address, bytes(uc.mem_read(address, size)), []))

    def settle(row: RowValues) -> None:
        """The engine's sc reads, compares, and stores what was there if it fails: that is no store of the row's."""
        word, accesses = int.from_bytes(row[1], "little"), row[2]
        instruction_ = matches(guest, word)
        assert instruction_ is not None
        if instruction_.name.startswith("sc.") and accesses:
            (_, _, _, before), write = accesses
            failed = uc.reg_read(riscv_const.UC_RISCV_REG_X0 + (word >> 7 & 31))
            accesses[:] = [] if failed and write[3] == before else [write]

    def on_read(_: Any, __: int, address: int, size: int, ___: int, ____: Any) -> None:
        rows[-1][2].append(("r", address, size, int.from_bytes(uc.mem_read(address, size), "little")))

    def on_write(_: Any, __: int, address: int, size: int, value: int, ___: Any) -> None:
        rows[-1][2].append(("w", address, size, value % (1 << 8 * size)))

    uc.hook_add(unicorn.UC_HOOK_CODE, on_code)
    uc.hook_add(unicorn.UC_HOOK_MEM_READ, on_read)
    uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, on_write)
    uc.emu_start(RAM_BASE, RAM_BASE + end)
    return rows


def rows_of(run: Run) -> list[RowValues]:
    assert not any(row.trap for row in run.rows)
    return [(r.pc, r.code, [(a.kind, a.address, a.size, a.value) for a in r.accesses]) for r in run.rows]


def captured(code: bytes, isa: str, x: dict[int, int]) -> Run:
    run = Run(boot(code, isa, x=x, mstatus=0x1800 | (MSTATUS_FS if "F" in profile(isa).extensions else 0)))
    run.capture()
    return run


@pytest.mark.parametrize("isa", PROFILES)
def test_rows_are_those_of_a_stock_engine_with_hooks(isa: str) -> None:
    @settings(FIXED, max_examples=25)
    @given(numbers=st.lists(st.integers(0, 2**64 - 1), min_size=5, max_size=40), seed=st.integers(0, 1000))
    def check(numbers: list[int], seed: int) -> None:
        (code, end), x = layout(numbers, isa), registers(isa, seed)
        expected = plain(code, end, isa, x)
        assert len(expected) > 2 * LOOPS
        run = captured(code, isa, x)
        run.to(len(expected))
        run.stop_capture()
        assert rows_of(run) == expected
        run.close()

    check()


@settings(FIXED, max_examples=60)
@given(
    numbers=st.lists(st.integers(0, 2**64 - 1), min_size=5, max_size=40),
    cuts=st.lists(st.tuples(st.integers(1, 60), st.sampled_from(ENGINES), st.sampled_from("-tcf")), max_size=12),
)
def test_rows_do_not_depend_on_when_they_are_taken(numbers: list[int], cuts: list[tuple[int, Engine, str]]) -> None:
    """Taken (t), taken with the open block closed (c), or so that the next can be read alone (f)."""
    (code, _), x = layout(numbers, "rv64gc"), registers("rv64gc", 1)
    whole, parts = captured(code, "rv64gc", x), captured(code, "rv64gc", x)
    position = 0
    for steps, engine, how in cuts:
        position += steps
        parts.to(position, engine)
        if how != "-":
            parts.take_rows(close=how in "cf", fresh=how == "f")
    for run in (whole, parts):
        run.to(position + 500)
        run.stop_capture()
    assert parts.rows == whole.rows
    assert len(whole.rows) == position + 500
    whole.close()
    parts.close()


def test_more_new_blocks_than_a_list_of_a_trace_may_hold() -> None:
    """Definitions are columns, so that their number is not limited as lists are."""
    blocks = 6000
    run = Run(boot(assemble(*[encode("jal", imm=4)] * blocks, encode("jal"))))
    run.machine.start_capture()
    run.machine.run(blocks)
    captured = run.machine.take_captured(close=True)

    assert captured is not None
    (columns,) = unpack_stream(captured.columns)
    assert columns["definitions"] == blocks
    assert sum(1 for _ in RowDecoder(run.machine.config).decode(0, columns)) == blocks
    run.close()


def test_blocks_do_not_depend_on_whether_a_page_is_clean() -> None:
    """A store to the begin of the page behind the executing one, with nothing across that begin, ends no block."""
    nop = encode("addi")
    near = [encode("sw", rs1=9, rs2=10, imm=0x100), encode("sw", rs1=9, rs2=11), *[nop] * 6]
    code = image({0: little(encode("jal", imm=0xFE0)), 0xFE0: assemble(*near), 0x1000: assemble(nop, encode("jal"))})
    columns = []
    for clean in (False, True):
        run = Run(boot(code, x={9: RAM_BASE + 0x1000, 11: nop}))
        run.machine.start_capture()
        run.machine.run(2)
        if clean:
            assert run.machine.take_changed()
        run.machine.run(20)
        found = run.machine.take_captured(close=True)
        assert found is not None
        columns.append(found.columns)
        run.close()
    assert columns[0] == columns[1]


def test_an_instruction_that_stores_into_its_own_second_half() -> None:
    """The row has the bytes that were executed."""
    store = encode("sh", rs1=9, rs2=11)
    code = image({0: little(encode("jal", imm=0xFFE)), 0xFFE: little(store), 0x1002: assemble(encode("jal"))})
    run = captured(code, "rv64gc", {9: RAM_BASE + 0x1000, 11: 0x1234})
    run.to(4)
    run.stop_capture()
    assert run.rows[1].code == little(store)
    assert run.machine.read_memory(RAM_BASE + 0x1000, 2) == b"\x34\x12"
    run.close()
