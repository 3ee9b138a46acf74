# SPDX-License-Identifier: GPL-2.0-or-later
"""The executable definition of the toy ISA, against arithmetic done another way and against the manual's tables."""

from __future__ import annotations

import functools
import itertools
import math
import random
import re
from ctypes import c_int32, c_int64, c_uint32, c_uint64
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import csr, encode

from vmrec.errors import UsageError
from vmrec.isa.definition import EXECUTE, RAM_BASE, ROM_BASE, Row, Toy
from vmrec.isa.disasm import disassemble
from vmrec.isa.profiles import profile

ROWS = {row.name: row for row in profile("rv32im").instructions}
HANDLER = RAM_BASE + 0x800
NOP = 0x13
WORDS = st.integers(0, 0xFFFF_FFFF)
EDGES = (0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFE, 0xFFFF_FFFF, 0x1234_5678, 0xDEAD_BEEF)


# ----------------------------------------------------------------------------------------------------------- helpers

#: An instruction of the toy ISA.
word = functools.partial(encode, isa="rv32im")


def toy(*words: int, ram_size: int = 0x1000, rom: bytes = b"", pc: int = RAM_BASE, **registers: int) -> Toy:
    """A machine with these words at the start of RAM, a handler address, and registers such as x5=7."""
    machine = Toy(b"".join(w.to_bytes(4, "little") for w in words), ram_size=ram_size, rom=rom, pc=pc)
    machine.mtvec = HANDLER
    for name, value in registers.items():
        machine.x[int(name[1:])] = value
    return machine


def traps(machine: Toy, cause: int, mtval: int) -> None:
    """Assert that the next step traps like this, and changes nothing else."""
    before = (list(machine.x), bytes(machine.ram), machine.pc, machine.position, machine.icount)
    row = machine.step()
    x, ram, pc, position, icount = before
    assert (row.cause, row.pc, row.position, row.accesses) == (cause, pc, position, ())
    assert (machine.mcause, machine.mtval, machine.mepc, machine.pc) == (cause, mtval, pc, HANDLER)
    assert (machine.x, bytes(machine.ram)) == (x, ram)
    assert (machine.position, machine.icount) == (position + 1, icount)


def test_every_instruction_of_the_table_is_defined_and_no_other() -> None:
    assert set(EXECUTE) == set(ROWS)


# ------------------------------------------------------------------------------------------------------- arithmetic


def independent(name: str, a: int, b: int) -> int:
    """The result from C's fixed-width types and exact fractions."""
    sa, sb = c_int32(a).value, c_int32(b).value
    if name in ("div", "rem", "divu", "remu"):
        x, y = (sa, sb) if name in ("div", "rem") else (a, b)
        if y == 0:
            result = 0xFFFF_FFFF if name.startswith("div") else x
        else:
            quotient = math.trunc(Fraction(x, y))
            result = quotient if name.startswith("div") else x - quotient * y
        return c_uint32(result).value
    shift = 2 ** (b % 32)
    result = {
        "add": c_int32(sa + sb).value,
        "sub": c_int32(sa - sb).value,
        "sll": a * shift,
        "srl": a // shift,
        "sra": math.floor(Fraction(sa, shift)),
        "slt": 1 if sb > sa else 0,
        "sltu": 1 if b > a else 0,
        "xor": (a | b) - (a & b),
        "or": (a + b + (a ^ b)) // 2,
        "and": (a + b - (a ^ b)) // 2,
        "mul": c_uint64(c_int64(sa).value * c_int64(sb).value).value,
        "mulh": math.floor(Fraction(sa * sb, 2**32)),
        "mulhu": math.floor(Fraction(a * b, 2**32)),
        "mulhsu": math.floor(Fraction(sa * b, 2**32)),
    }[name]
    return c_uint32(result).value


REGISTER = [name for name, row in ROWS.items() if row.format == "R"]
IMMEDIATE = {"addi": "add", "slti": "slt", "sltiu": "sltu", "xori": "xor", "ori": "or", "andi": "and"}
SHIFTS = {"slli": "sll", "srli": "srl", "srai": "sra"}


def result(name: str, a: int, b: int = 0, imm: int = 0) -> int:
    machine = toy(word(name, rd=7, rs1=5, rs2=6, imm=imm), x5=a, x6=b)
    row = machine.step()
    assert (row.cause, row.accesses, machine.pc, machine.icount) == (None, (), RAM_BASE + 4, 1)
    return machine.x[7]


@pytest.mark.parametrize("name", REGISTER)
def test_register_operations(name: str) -> None:
    rng = random.Random(name)
    pairs = [*itertools.product(EDGES, EDGES), *((rng.getrandbits(32), rng.getrandbits(32)) for _ in range(100))]
    for a, b in pairs:
        assert result(name, a, b) == independent(name, a, b), (hex(a), hex(b))


@given(a=WORDS, imm=st.integers(-2048, 2047), name=st.sampled_from(sorted(IMMEDIATE)))
def test_immediate_operations(a: int, imm: int, name: str) -> None:
    assert result(name, a, imm=imm) == independent(IMMEDIATE[name], a, c_uint32(imm).value)


@given(a=WORDS, shamt=st.integers(0, 31), name=st.sampled_from(sorted(SHIFTS)))
def test_shifts_by_an_immediate(a: int, shamt: int, name: str) -> None:
    assert result(name, a, imm=shamt) == independent(SHIFTS[name], a, shamt)


@pytest.mark.parametrize(
    ("name", "a", "b", "expected"),
    [
        # Unprivileged, table 7.1: division by zero and overflow.
        ("div", 7, 0, 0xFFFF_FFFF),
        ("divu", 7, 0, 0xFFFF_FFFF),
        ("rem", 7, 0, 7),
        ("remu", 7, 0, 7),
        ("rem", 0xFFFF_FFF9, 0, 0xFFFF_FFF9),
        ("div", 0x8000_0000, 0xFFFF_FFFF, 0x8000_0000),
        ("rem", 0x8000_0000, 0xFFFF_FFFF, 0),
        ("divu", 0x8000_0000, 0xFFFF_FFFF, 0),
        ("remu", 0x8000_0000, 0xFFFF_FFFF, 0x8000_0000),
        # Rounding is towards zero, and the remainder has the sign of the dividend.
        ("div", 0xFFFF_FFEC, 6, 0xFFFF_FFFD),
        ("rem", 0xFFFF_FFEC, 6, 0xFFFF_FFFE),
        ("div", 20, 0xFFFF_FFFA, 0xFFFF_FFFD),
        ("rem", 20, 0xFFFF_FFFA, 2),
        # The first operand of mulhsu is the signed one.
        ("mulhsu", 0xFFFF_FFFF, 1, 0xFFFF_FFFF),
        ("mulhsu", 1, 0xFFFF_FFFF, 0),
        ("mulhsu", 0x8000_0000, 0xFFFF_FFFF, 0x8000_0000),
        ("mulhsu", 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF),
        ("mulh", 0x8000_0000, 0x8000_0000, 0x4000_0000),
        ("mulh", 0xFFFF_FFFF, 0xFFFF_FFFF, 0),
        ("mulhu", 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFE),
        # Only five bits of a shift amount count.
        ("sll", 1, 33, 2),
        ("srl", 0x8000_0000, 0xFFFF_FFE1, 0x4000_0000),
        ("sra", 0x8000_0000, 63, 0xFFFF_FFFF),
    ],
)
def test_edges_of_the_manual(name: str, a: int, b: int, expected: int) -> None:
    assert result(name, a, b) == expected


def test_upper_immediates() -> None:
    assert result("lui", 0, imm=0xFFFF_F000) == 0xFFFF_F000
    assert result("auipc", 0, imm=0x1000) == RAM_BASE + 0x1000
    assert result("auipc", 0, imm=0x8000_0000) == 0, "cut to 32 bits"


def test_x0_stays_zero() -> None:
    machine = toy(word("addi", rd=0, imm=5), word("lui", rd=0, imm=0x1000), word("jal", rd=0, imm=8))
    for _ in range(3):
        assert machine.step().cause is None
    assert machine.x[0] == 0
    assert machine.pc == RAM_BASE + 16


def test_source_and_destination_may_be_the_same_register() -> None:
    machine = toy(word("add", rd=5, rs1=5, rs2=5), word("jalr", rd=5, rs1=5), x5=(RAM_BASE + 0x40) // 2)
    machine.step()
    assert machine.x[5] == RAM_BASE + 0x40
    machine.step()
    assert (machine.pc, machine.x[5]) == (RAM_BASE + 0x40, RAM_BASE + 8)


# ------------------------------------------------------------------------------------------------ jumps and branches


TAKEN = {
    "beq": lambda a, b: c_int32(a).value == c_int32(b).value,
    "bne": lambda a, b: c_int32(a).value != c_int32(b).value,
    "blt": lambda a, b: c_int32(a).value < c_int32(b).value,
    "bge": lambda a, b: c_int32(b).value <= c_int32(a).value,
    "bltu": lambda a, b: c_uint32(a).value < c_uint32(b).value,
    "bgeu": lambda a, b: c_uint32(b).value <= c_uint32(a).value,
}


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("offset", [-4096, -4, 8, 0x7FC, 0x800, 4092])
def test_branches(name: str, offset: int) -> None:
    for a, b in itertools.product(EDGES, EDGES):
        machine = toy(word(name, rs1=5, rs2=6, imm=offset), x5=a, x6=b)
        assert machine.step().cause is None
        assert machine.pc == RAM_BASE + (offset if TAKEN[name](a, b) else 4)


@pytest.mark.parametrize("name", TAKEN)
def test_a_branch_to_a_misaligned_target_traps_only_if_taken(name: str) -> None:
    code = word(name, rs1=5, rs2=6, imm=6)
    for a, b in itertools.product(EDGES, EDGES):
        machine = toy(code, x5=a, x6=b)
        if TAKEN[name](a, b):
            traps(machine, 0, RAM_BASE + 6)
        else:
            assert machine.step().cause is None


@pytest.mark.parametrize("offset", [-(1 << 20), -4, 8, 0x7FC, 0x800, 0xFF000, (1 << 20) - 4])
def test_jal(offset: int) -> None:
    machine = toy(word("jal", rd=1, imm=offset))
    machine.step()
    assert (machine.pc, machine.x[1]) == ((RAM_BASE + offset) & 0xFFFF_FFFF, RAM_BASE + 4)


def test_jalr_clears_bit_0_and_wraps() -> None:
    machine = toy(word("jalr", rd=1, rs1=5, imm=-1), x5=RAM_BASE + 0x102)
    machine.step()
    assert (machine.pc, machine.x[1]) == (RAM_BASE + 0x100, RAM_BASE + 4)
    machine = toy(word("jalr", rd=1, rs1=5, imm=16), x5=0xFFFF_FFF8)
    machine.step()
    assert machine.pc == 8


def test_a_misaligned_jump_traps_at_the_jump_and_does_not_link() -> None:
    traps(toy(word("jal", rd=1, imm=6), x1=77), 0, RAM_BASE + 6)
    traps(toy(word("jalr", rd=1, rs1=5, imm=3), x1=77, x5=RAM_BASE), 0, RAM_BASE + 2)


@given(word=st.sampled_from(["beq", "blt", "jal"]).flatmap(
    lambda name: st.integers(0, (1 << 32) - 1).map(lambda bits: bits & ~ROWS[name].mask | ROWS[name].match)))
def test_targets_are_those_of_the_disassembler(word: int) -> None:
    # The two take immediates apart in different ways; bit 1 is cleared so that no jump is misaligned.
    word &= ~(1 << 8) if word & 0x7F == 0x63 else ~(1 << 21)
    machine = toy(word, x1=1)
    machine.x = [0] * 32
    machine.step()
    text = disassemble(word.to_bytes(4, "little"), RAM_BASE, 32)
    target = int(re.findall(r"0x[0-9a-f]+", text)[-1], 16)
    assert machine.pc == (RAM_BASE + 4 if text.startswith("blt") else target)


# -------------------------------------------------------------------------------------------------- loads and stores


DATA = bytes.fromhex("807f 01fe 8899 aabb")


@pytest.mark.parametrize(
    ("name", "offset", "value", "raw"),
    [
        ("lb", 0, 0xFFFF_FF80, 0x80),
        ("lb", 1, 0x7F, 0x7F),
        ("lbu", 0, 0x80, 0x80),
        ("lh", 0, 0x7F80, 0x7F80),
        ("lh", 2, 0xFFFF_FE01, 0xFE01),
        ("lhu", 2, 0xFE01, 0xFE01),
        ("lw", 0, 0xFE01_7F80, 0xFE01_7F80),
        # Misaligned ones are performed.
        ("lh", 1, 0x017F, 0x017F),
        ("lhu", 3, 0x88FE, 0x88FE),
        ("lw", 1, 0x88FE_017F, 0x88FE_017F),
        ("lw", 3, 0xAA99_88FE, 0xAA99_88FE),
    ],
)
def test_loads(name: str, offset: int, value: int, raw: int) -> None:
    machine = toy(word(name, rd=7, rs1=5, imm=offset - 8), x5=RAM_BASE + 0x108)
    machine.ram[0x100:0x108] = DATA
    row = machine.step()
    size = {"b": 1, "h": 2, "w": 4}[name[1]]
    assert machine.x[7] == value
    assert row == Row(0, RAM_BASE, machine_word(machine, 0), None, (("r", RAM_BASE + 0x100 + offset, size, raw),))


def machine_word(machine: Toy, offset: int) -> int:
    return int.from_bytes(machine.ram[offset : offset + 4], "little")


@pytest.mark.parametrize(("name", "size"), [("sb", 1), ("sh", 2), ("sw", 4)])
@pytest.mark.parametrize("address", range(0x100, 0x105))
def test_stores(name: str, size: int, address: int) -> None:
    machine = toy(word(name, rs1=5, rs2=6, imm=-2048), x5=RAM_BASE + address + 2048, x6=0x89AB_CDEF)
    expected = bytearray(machine.ram)
    expected[address : address + size] = bytes.fromhex("efcdab89")[:size]
    row = machine.step()
    assert machine.ram == expected
    assert row.accesses == (("w", RAM_BASE + address, size, 0x89AB_CDEF % (1 << 8 * size)),)


def test_a_load_to_x0_is_performed() -> None:
    assert toy(word("lw", rd=0, rs1=5), x5=RAM_BASE).step().accesses == (("r", RAM_BASE, 4, word("lw", rs1=5)),)
    traps(toy(word("lw", rd=0, rs1=5), x5=0), 5, 0)


@pytest.mark.parametrize("address", [0, ROM_BASE - 1, 0x1_0000 - 3, RAM_BASE - 1, RAM_BASE + 0xFFD, 0xFFFF_FFFE])
def test_an_access_with_any_byte_outside_memory_traps_with_its_address(address: int) -> None:
    traps(toy(word("lw", rd=7, rs1=5), x5=address, x7=99), 5, address)
    traps(toy(word("sw", rs1=5, rs2=6), x5=address, x6=99), 7, address)


def test_the_last_bytes_of_ram_can_be_used() -> None:
    machine = toy(word("sw", rs1=5, rs2=6), word("lbu", rd=7, rs1=5, imm=3), x5=RAM_BASE + 0xFFC, x6=0x11223344)
    machine.step()
    machine.step()
    assert machine.x[7] == 0x11


def test_rom_can_be_read_and_run_but_not_written() -> None:
    rom = b"".join(w.to_bytes(4, "little") for w in (word("lw", rd=7, rs1=5), word("sw", rs1=5, rs2=6)))
    machine = toy(rom=rom, pc=ROM_BASE, x5=ROM_BASE)
    assert machine.step().accesses == (("r", ROM_BASE, 4, word("lw", rd=7, rs1=5)),)
    traps(machine, 7, ROM_BASE)


def test_a_store_into_code_is_seen_at_once() -> None:
    machine = toy(word("sw", rs1=5, rs2=6, imm=4), NOP, x5=RAM_BASE, x6=word("addi", rd=7, imm=42))
    machine.step()
    machine.step()
    assert machine.x[7] == 42


# ------------------------------------------------------------------------------------------------------------- traps


@pytest.mark.parametrize("pc", [0, ROM_BASE - 4, 0x1_0000, RAM_BASE - 4, RAM_BASE + 0x1000, 0x1000_0000, 0xFFFF_FFFC])
def test_fetching_outside_memory_traps(pc: int) -> None:
    machine = toy(pc=pc)
    traps(machine, 1, pc)


def test_ecall_and_ebreak() -> None:
    traps(toy(word("ecall")), 11, 0)
    traps(toy(word("ebreak")), 3, RAM_BASE)


@pytest.mark.parametrize(
    ("code", "mtval"),
    [(0, 0), (0xFFFF_FFFF, 0xFFFF_FFFF), (0x1020_0073, 0x1020_0073), (0xABCD_0001, 0x0001), (0x0209_9893, 0x0209_9893)],
)
def test_illegal_words(code: int, mtval: int) -> None:
    traps(toy(code), 2, mtval)


def test_trap_and_mret() -> None:
    machine = toy(word("ecall"), NOP)
    machine.mstatus = 0x1808
    machine.ram[0x800:0x804] = word("mret").to_bytes(4, "little")
    machine.step()
    assert machine.mstatus == 0x1880, "MPIE = MIE, MIE = 0"
    machine.mepc = RAM_BASE + 4
    machine.step()
    assert (machine.mstatus, machine.pc) == (0x1888, RAM_BASE + 4)
    assert (machine.position, machine.icount) == (2, 1)


def test_a_trap_with_interrupts_off_clears_mpie() -> None:
    machine = toy(word("ecall"))
    machine.mstatus = 0x1880
    machine.step()
    assert machine.mstatus == 0x1800
    machine.ram[0x800:0x804] = word("mret").to_bytes(4, "little")
    machine.step()
    assert machine.mstatus == 0x1880, "MIE = MPIE, MPIE = 1"


def test_exceptions_go_to_the_base_in_vectored_mode_too() -> None:
    machine = toy(word("ecall"))
    machine.mtvec = HANDLER | 1
    machine.step()
    assert machine.pc == HANDLER


# -------------------------------------------------------------------------------------------------------- interrupts


@pytest.mark.parametrize(
    ("pending", "taken"), [(0x888, 11), (0x088, 3), (0x080, 7), (0x880, 11), (0x808, 11), (0x008, 3), (0x800, 11)]
)
def test_interrupt_priority_and_vectors(pending: int, taken: int) -> None:
    for vectored in (False, True):
        machine = toy(NOP)
        machine.ram[0x800:0x900] = NOP.to_bytes(4, "little") * 64
        machine.mtvec = HANDLER | vectored
        machine.mstatus, machine.mie, machine.mip, machine.mtval = 0x1808, 0x888, pending, 5
        row = machine.step()
        handler = HANDLER + (4 * taken if vectored else 0)
        assert row == Row(0, handler, NOP, None, ())
        assert (machine.mcause, machine.mepc, machine.mtval) == (1 << 31 | taken, RAM_BASE, 0)
        assert (machine.mstatus, machine.pc) == (0x1880, handler + 4)
        assert (machine.position, machine.icount) == (1, 1), "taking it is not a step"


@pytest.mark.parametrize(("mstatus", "mie", "mip"), [(0x1800, 0x888, 0x888), (0x1808, 0x888, 0), (0x1808, 0x80, 0x808)])
def test_interrupts_that_are_not_taken(mstatus: int, mie: int, mip: int) -> None:
    machine = toy(NOP)
    machine.mstatus, machine.mie, machine.mip = mstatus, mie, mip
    machine.step()
    assert machine.pc == RAM_BASE + 4


def test_an_instruction_that_enables_interrupts_completes_first() -> None:
    machine = toy(csr("csrrsi", "mstatus", rs1=8), NOP)
    machine.ram[0x800:0x804] = NOP.to_bytes(4, "little")
    machine.mie = machine.mip = 0x80
    assert machine.step().pc == RAM_BASE
    assert machine.step().pc == HANDLER
    assert machine.mepc == RAM_BASE + 4


def test_wfi_sleeps_until_something_enabled_is_pending() -> None:
    machine = toy(word("wfi"), NOP)
    machine.mie = 0x80
    row = machine.step()
    assert (row.cause, machine.position, machine.icount, machine.waiting) == (None, 1, 1, True)
    with pytest.raises(UsageError, match="mip"):
        machine.step()
    machine.mip = 0x8
    assert machine.waiting, "not enabled"
    machine.sleep(250)
    machine.mip = 0x80
    assert not machine.waiting
    assert machine.step().pc == RAM_BASE + 4, "MIE is clear: goes on behind the wfi"
    assert (machine.position, machine.icount, machine.idle, machine.time) == (2, 2, 250, 2)
    assert machine.csrs["mcycle"] == 252
    assert not machine.waiting


def test_an_interrupt_ends_wfi_with_mepc_behind_it() -> None:
    machine = toy(word("wfi"))
    machine.ram[0x800:0x804] = NOP.to_bytes(4, "little")
    machine.mstatus, machine.mie = 0x1808, 0x800
    machine.step()
    assert machine.waiting
    machine.mip = 0x800
    assert machine.step().pc == HANDLER
    assert machine.mepc == RAM_BASE + 4


def test_wfi_with_something_pending_does_not_sleep() -> None:
    machine = toy(word("wfi"))
    machine.mie = machine.mip = 0x8
    machine.step()
    assert not machine.waiting


# -------------------------------------------------------------------------------------------------------------- CSRs


def after_write(name: str, value: int) -> int:
    """What csrrw leaves in a CSR, as read by the next instruction."""
    machine = toy(csr("csrrw", name, rs1=5), csr("csrrs", name, rd=6), x5=value)
    assert machine.step().cause is None
    assert machine.step().cause is None
    return machine.x[6]


@pytest.mark.parametrize(
    ("name", "ones", "zeros"),
    [
        ("mstatus", 0x1888, 0x1800),
        ("mstatush", 0, 0),
        ("misa", 0x4000_1100, 0x4000_1100),
        ("mie", 0x888, 0),
        ("mtvec", HANDLER, 0),
        ("mscratch", 0xFFFF_FFFF, 0),
        ("mepc", 0xFFFF_FFFC, 0),
        ("mcause", 0xFFFF_FFFF, 0),
        ("mtval", 0xFFFF_FFFF, 0),
        ("mip", 0, 0),
        ("mcountinhibit", 0, 0),
        ("mcycle", 0xFFFF_FFFF, 0),
        ("mcycleh", 0xFFFF_FFFF, 0),
        ("minstret", 0xFFFF_FFFF, 0),
        ("minstreth", 0xFFFF_FFFF, 0),
        ("mhpmcounter3", 0, 0),
        ("mhpmcounter31h", 0, 0),
        ("mhpmevent3", 0, 0),
    ],
)
def test_what_can_be_written(name: str, ones: int, zeros: int) -> None:
    assert after_write(name, 0xFFFF_FFFF) == ones
    assert after_write(name, 0) == zeros


def test_mtvec_modes() -> None:
    assert after_write("mtvec", 0x8000_0101) == 0x8000_0101
    for mode in (2, 3):
        assert after_write("mtvec", 0x8000_0100 | mode) == HANDLER, "ignored as a whole"


READ_ONLY = (
    "cycle", "time", "instret", "cycleh", "timeh", "instreth", "hpmcounter3", "hpmcounter31h",
    "mvendorid", "marchid", "mimpid", "mhartid", "mconfigptr",
)


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only_csrs(name: str) -> None:
    for code in (
        csr("csrrs", name, rd=6), csr("csrrc", name, rd=6), csr("csrrsi", name, rd=6), csr("csrrci", name, rd=6)
    ):
        assert toy(code).step().cause is None
    for code in (
        csr("csrrw", name), csr("csrrwi", name), csr("csrrs", name, rs1=5), csr("csrrc", name, rs1=5),
        csr("csrrsi", name, rs1=1), csr("csrrci", name, rs1=1),
    ):
        traps(toy(code), 2, code)  # x5 is zero: the register's number decides, not its value


@pytest.mark.parametrize("number", [0x001, 0x003, 0x100, 0x180, 0x302, 0x303, 0x306, 0x3A0, 0x3B0, 0x7C0, 0xB01, 0xFFF])
def test_csrs_that_do_not_exist(number: int) -> None:
    for name in ("csrrw", "csrrs"):
        code = word(name, rd=6, imm=number)
        traps(toy(code), 2, code)


@pytest.mark.parametrize(
    ("name", "rs1", "expected"),
    [
        ("csrrw", 5, 0xFF00_FF00),
        ("csrrs", 5, 0xFFF0_FFF0),
        ("csrrc", 5, 0x00F0_00F0),
        ("csrrwi", 0b10101, 0b10101),
        ("csrrsi", 0b10101, 0xF0F0_F0F5),
        ("csrrci", 0b10101, 0xF0F0_F0E0),
    ],
)
def test_csr_instructions(name: str, rs1: int, expected: int) -> None:
    machine = toy(csr(name, "mscratch", rd=5, rs1=rs1), x5=0xFF00_FF00)
    machine.mscratch = 0xF0F0_F0F0
    machine.step()
    assert machine.mscratch == expected
    assert machine.x[5] == 0xF0F0_F0F0, "rd may be rs1: the old value of the CSR is written last"


def test_counters_do_not_count_the_instruction_that_reads_them() -> None:
    reads = [csr("csrrs", name, rd=rd) for rd, name in ((6, "mcycle"), (7, "minstret"), (8, "cycle"), (9, "instret"))]
    machine = toy(word("ecall"))
    machine.ram[0x800:0x810] = b"".join(w.to_bytes(4, "little") for w in reads)
    for _ in range(5):
        machine.step()
    assert machine.x[6:10] == [1, 1, 3, 3]


@pytest.mark.parametrize(("counter", "shadow"), [("mcycle", "cycle"), ("minstret", "instret")])
def test_a_written_counter_reads_so_at_the_next_instruction(counter: str, shadow: str) -> None:
    machine = toy(
        csr("csrrw", counter, rs1=5), csr("csrrs", counter, rd=6), csr("csrrs", shadow, rd=7),
        csr("csrrw", counter + "h", rs1=6), csr("csrrs", counter, rd=8), csr("csrrs", shadow + "h", rd=9),
        x5=0xFFFF_FFFF,
    )
    for _ in range(6):
        machine.step()
    assert machine.x[6] == 0xFFFF_FFFF
    assert machine.x[7] == 0, "it carried into the upper half"
    # The lower half before the write of the upper one was 1; that is what the next instruction reads.
    assert (machine.x[8], machine.x[9]) == (1, 0xFFFF_FFFF)


def test_time_is_a_hundredth_of_the_steps_and_has_two_halves() -> None:
    machine = toy(csr("csrrs", "time", rd=6), csr("csrrs", "timeh", rd=7))
    machine.sleep((5 << 32) * 100 + 1234)
    machine.step()
    machine.step()
    assert (machine.x[6], machine.x[7]) == (12, 5)


def test_all_csrs_can_be_listed() -> None:
    machine = toy()
    assert machine.csrs["mtvec"] == HANDLER
    assert machine.csrs["mstatus"] == 0x1800
    assert "fcsr" not in machine.csrs
    assert len(machine.csrs) == 11 + 29 * 5 + 5 * 2 + 5


def test_a_program_larger_than_ram_is_refused() -> None:
    with pytest.raises(UsageError, match="ram_size"):
        Toy(bytes(5000), ram_size=4096)


# ---------------------------------------------------------------------------------------------------- random programs


@given(st.binary(min_size=4, max_size=256), st.integers(0, 0xFFF))
def test_any_bytes_run_and_every_step_is_counted_once(program: bytes, mip: int) -> None:
    machine = Toy(program, ram_size=0x1000)
    machine.mtvec = RAM_BASE
    retired = 0
    for position in range(64):
        machine.mip = mip & 0x888
        if machine.waiting:
            break
        row = machine.step()
        retired += row.cause is None
        assert (row.position, machine.position, machine.icount) == (position, position + 1, retired)
        assert machine.x[0] == 0
        assert all(0 <= value <= 0xFFFF_FFFF for value in (*machine.x, machine.pc, *machine.csrs.values()))
        assert machine.pc % 4 == 0
        assert not (row.accesses and row.cause is not None)
