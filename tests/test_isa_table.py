# SPDX-License-Identifier: GPL-2.0-or-later
"""The instruction table against itself, an assembler's words, capstone, and the guests that are shipped."""

from __future__ import annotations

import random
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile
from machines import SUPERVISED

import vmrec.isa.instructions
from vmrec.errors import UsageError
from vmrec.guest.elf import load_guest
from vmrec.isa.disasm import disassemble
from vmrec.isa.document import toy_isa_page
from vmrec.isa.instructions import INSTRUCTIONS, Instruction
from vmrec.isa.profiles import PROFILES, Profile, matches, profile
from vmrec.isa.registers import (
    ABI_NAMES,
    CSR_NUMBERS,
    CSRS,
    FLOAT_ABI_NAMES,
    cause_text,
    csr_exists,
    csr_name,
    register_number,
)

GUESTS = sorted((Path(__file__).parent.parent / "guests" / "bin").glob("*.elf"))

# One word per instruction as GNU as 2.40 assembles it, with different registers in each place (rd a7, rs1 s3,
# rs2 t4, frd fa1, frs1 fs5, frs2 ft9, frs3 fa7; compressed a2, a4, s1), and targets 44 bytes ahead.
ASSEMBLED: dict[str, int] = {
    "lui": 0x000078b7, "auipc": 0x00007897, "jal": 0x02c008ef, "jalr": 0xfec988e7, "beq": 0x03d98663,
    "bne": 0x03d99663, "blt": 0x03d9c663, "bge": 0x03d9d663, "bltu": 0x03d9e663, "bgeu": 0x03d9f663,
    "lb": 0xfec98883, "lh": 0xfec99883, "lw": 0xfec9a883, "lbu": 0xfec9c883, "lhu": 0xfec9d883, "sb": 0xffd98623,
    "sh": 0xffd99623, "sw": 0xffd9a623, "addi": 0xfe398893, "slti": 0xfe39a893, "sltiu": 0xfe39b893,
    "xori": 0xfe39c893, "ori": 0xfe39e893, "andi": 0xfe39f893, "slli": 0x00d99893, "srli": 0x00d9d893,
    "srai": 0x40d9d893, "add": 0x01d988b3, "sub": 0x41d988b3, "sll": 0x01d998b3, "slt": 0x01d9a8b3,
    "sltu": 0x01d9b8b3, "xor": 0x01d9c8b3, "srl": 0x01d9d8b3, "sra": 0x41d9d8b3, "or": 0x01d9e8b3,
    "and": 0x01d9f8b3, "fence": 0x0310000f, "ecall": 0x00000073, "ebreak": 0x00100073, "fence.i": 0x0000100f,
    "csrrw": 0x340998f3, "csrrs": 0x3409a8f3, "csrrc": 0x3409b8f3, "csrrwi": 0x340ad8f3, "csrrsi": 0x340ae8f3,
    "csrrci": 0x340af8f3, "mret": 0x30200073, "wfi": 0x10500073, "mul": 0x03d988b3, "mulh": 0x03d998b3,
    "mulhsu": 0x03d9a8b3, "mulhu": 0x03d9b8b3, "div": 0x03d9c8b3, "divu": 0x03d9d8b3, "rem": 0x03d9e8b3,
    "remu": 0x03d9f8b3, "lr.w": 0x1009a8af, "sc.w": 0x19d9a8af, "amoswap.w": 0x09d9a8af, "amoadd.w": 0x01d9a8af,
    "amoxor.w": 0x21d9a8af, "amoand.w": 0x61d9a8af, "amoor.w": 0x41d9a8af, "amomin.w": 0x81d9a8af,
    "amomax.w": 0xa1d9a8af, "amominu.w": 0xc1d9a8af, "amomaxu.w": 0xe1d9a8af, "flw": 0xfec9a587, "fsw": 0xffd9a627,
    "fld": 0xfec9b587, "fsd": 0xffd9b627, "fmv.x.w": 0xe00a88d3, "fmv.w.x": 0xf00985d3, "fcvt.s.d": 0x401af5d3,
    "fcvt.d.s": 0x420a85d3, "fmadd.s": 0x89daf5c3, "fmsub.s": 0x89daf5c7, "fnmsub.s": 0x89daf5cb,
    "fnmadd.s": 0x89daf5cf, "fadd.s": 0x01daf5d3, "fsub.s": 0x09daf5d3, "fmul.s": 0x11daf5d3, "fdiv.s": 0x19daf5d3,
    "fsqrt.s": 0x580af5d3, "fsgnj.s": 0x21da85d3, "fsgnjn.s": 0x21da95d3, "fsgnjx.s": 0x21daa5d3,
    "fmin.s": 0x29da85d3, "fmax.s": 0x29da95d3, "fle.s": 0xa1da88d3, "flt.s": 0xa1da98d3, "feq.s": 0xa1daa8d3,
    "fclass.s": 0xe00a98d3, "fcvt.w.s": 0xc00af8d3, "fcvt.wu.s": 0xc01af8d3, "fcvt.s.w": 0xd009f5d3,
    "fcvt.s.wu": 0xd019f5d3, "fmadd.d": 0x8bdaf5c3, "fmsub.d": 0x8bdaf5c7, "fnmsub.d": 0x8bdaf5cb,
    "fnmadd.d": 0x8bdaf5cf, "fadd.d": 0x03daf5d3, "fsub.d": 0x0bdaf5d3, "fmul.d": 0x13daf5d3, "fdiv.d": 0x1bdaf5d3,
    "fsqrt.d": 0x5a0af5d3, "fsgnj.d": 0x23da85d3, "fsgnjn.d": 0x23da95d3, "fsgnjx.d": 0x23daa5d3,
    "fmin.d": 0x2bda85d3, "fmax.d": 0x2bda95d3, "fle.d": 0xa3da88d3, "flt.d": 0xa3da98d3, "feq.d": 0xa3daa8d3,
    "fclass.d": 0xe20a98d3, "fcvt.w.d": 0xc20af8d3, "fcvt.wu.d": 0xc21af8d3, "fcvt.d.w": 0xd20985d3,
    "fcvt.d.wu": 0xd21985d3, "c.addi4spn": 0x1030, "c.fld": 0x2f10, "c.lw": 0x4f10, "c.fsd": 0xaf04, "c.sw": 0xcf04,
    "c.nop": 0x0001, "c.addi": 0x188d, "c.li": 0x588d, "c.addi16sp": 0x7139, "c.lui": 0x689d, "c.srli": 0x8235,
    "c.srai": 0x8635, "c.andi": 0x9a0d, "c.sub": 0x8e05, "c.xor": 0x8e25, "c.or": 0x8e45, "c.and": 0x8e65,
    "c.j": 0xa035, "c.beqz": 0xc715, "c.bnez": 0xe715, "c.slli": 0x08b6, "c.fldsp": 0x35c2, "c.lwsp": 0x58c2,
    "c.jr": 0x8982, "c.mv": 0x88f6, "c.ebreak": 0x9002, "c.jalr": 0x9982, "c.add": 0x98f6, "c.fsdsp": 0xb876,
    "c.swsp": 0xd876,
}
ASSEMBLED_32: dict[str, int] = {
    "c.flw": 0x6f10, "c.fsw": 0xef04, "c.jal": 0x2035, "c.flwsp": 0x75c2, "c.fswsp": 0xf876,
}
ASSEMBLED_64: dict[str, int] = {
    "ld": 0xfec9b883, "lwu": 0xfec9e883, "sd": 0xffd9b623, "addiw": 0xfe39889b, "slliw": 0x00d9989b,
    "srliw": 0x00d9d89b, "sraiw": 0x40d9d89b, "addw": 0x01d988bb, "subw": 0x41d988bb, "sllw": 0x01d998bb,
    "srlw": 0x01d9d8bb, "sraw": 0x41d9d8bb, "mulw": 0x03d988bb, "divw": 0x03d9c8bb, "divuw": 0x03d9d8bb,
    "remw": 0x03d9e8bb, "remuw": 0x03d9f8bb, "lr.d": 0x1009b8af, "sc.d": 0x19d9b8af, "amoswap.d": 0x09d9b8af,
    "amoadd.d": 0x01d9b8af, "amoxor.d": 0x21d9b8af, "amoand.d": 0x61d9b8af, "amoor.d": 0x41d9b8af,
    "amomin.d": 0x81d9b8af, "amomax.d": 0xa1d9b8af, "amominu.d": 0xc1d9b8af, "amomaxu.d": 0xe1d9b8af,
    "fmv.x.d": 0xe20a88d3, "fmv.d.x": 0xf20985d3, "fcvt.l.s": 0xc02af8d3, "fcvt.lu.s": 0xc03af8d3,
    "fcvt.s.l": 0xd029f5d3, "fcvt.s.lu": 0xd039f5d3, "fcvt.l.d": 0xc22af8d3, "fcvt.lu.d": 0xc23af8d3,
    "fcvt.d.l": 0xd229f5d3, "fcvt.d.lu": 0xd239f5d3, "c.ld": 0x6f10, "c.sd": 0xef04, "c.addiw": 0x388d,
    "c.subw": 0x9e05, "c.addw": 0x9e25, "c.ldsp": 0x78c2, "c.sdsp": 0xf876,
}


def assembled(xlen: int) -> dict[str, int]:
    return ASSEMBLED | (ASSEMBLED_32 if xlen == 32 else ASSEMBLED_64)


def samples(row: Instruction, count: int, seed: int = 1) -> list[int]:
    """Random words that fit the row."""
    rng = random.Random(seed)
    words = []
    while len(words) < count:
        word = rng.getrandbits(8 * row.length) & ~row.mask | row.match
        if row.fits(word):
            words.append(word)
    return words


def row_id(row: Instruction) -> str:
    return f"{row.name}-{'-'.join(map(str, row.xlens))}"


# ---------------------------------------------------------------------------------------------------------- the rows


@pytest.mark.parametrize("row", INSTRUCTIONS, ids=row_id)
def test_a_row_is_well_formed(row: Instruction) -> None:
    limit = 1 << 8 * row.length
    assert row.match & ~row.mask == 0
    assert row.mask < limit
    assert row.mask & 3 == 3, "the length of an instruction is part of its opcode"
    assert all(0 < field < limit and field & row.mask == 0 for field in row.nonzero)
    assert row.extensions
    assert row.xlens in ((32,), (64,), (32, 64))
    assert ("C" in row.extensions) == (row.length == 2) == row.name.startswith("c.")


def test_rows_of_one_name_are_of_different_widths() -> None:
    seen: set[tuple[str, int]] = set()
    for row in INSTRUCTIONS:
        for xlen in row.xlens:
            assert (row.name, xlen) not in seen
            seen.add((row.name, xlen))


@pytest.mark.parametrize("name", ["rv32gc", "rv64gc"])
def test_no_row_is_shadowed_but_by_a_more_special_one(name: str) -> None:
    guest = profile(name)
    for row in guest.instructions:
        found = [matches(guest, word) for word in samples(row, 100)]
        assert row in found
        for other in found:
            assert other is not None
            assert other is row or (other.mask | row.mask) == other.mask != row.mask


def test_the_table_can_be_loaded_by_its_path_alone() -> None:
    path = vmrec.isa.instructions.__file__
    assert path is not None
    assert runpy.run_path(path)["INSTRUCTIONS"] == INSTRUCTIONS
    imported = re.findall(r"^\s*(?:from|import) ([\w.]+)", Path(path).read_text(encoding="utf-8"), re.MULTILINE)
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names)


# --------------------------------------------------------------------------------------------------------- the words


@pytest.mark.parametrize("xlen", [32, 64])
def test_every_assembled_word_is_the_instruction_that_was_written(xlen: int) -> None:
    guest = profile(f"rv{xlen}gc")
    words = assembled(xlen)
    assert set(words) == {row.name for row in guest.instructions}
    for name, word in words.items():
        row = matches(guest, word)
        assert row is not None
        assert row.name == name


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_has_no_instruction_of_an_extension_it_lacks(name: str) -> None:
    guest = profile(name)
    every = profile(f"rv{guest.xlen}gc")
    for word in assembled(guest.xlen).values():
        row = matches(every, word)
        assert row is not None
        assert (matches(guest, word) == row) == (row.extensions <= guest.extensions)


RESERVED = {
    "all zeros": 0x0000_0000,
    "all ones": 0xFFFF_FFFF,
    "c.addi4spn without immediate": 0x0004,
    "c.lui without immediate": 0x6081,
    "c.addi16sp without immediate": 0x6101,
    "c.lwsp to x0": 0x4002,
    "c.jr of x0": 0x8002,
    "quadrant 0, opcode 100": 0x8000,
    "sret": 0x1020_0073,
    "sfence.vma": 0x1200_0073,
    "mret with a register": 0x3020_80F3,
    "lr.w with rs2": 0x1019_A8AF,
    "addi's neighbour with funct7 of sub": 0x4000_1033,
    "fadd.q": 0x07DA_F5D3,
    "fcvt.s.s": 0x400A_F5D3,
}


@pytest.mark.parametrize("word", RESERVED.values(), ids=RESERVED.keys())
@pytest.mark.parametrize("name", ["rv32gc", "rv64gc"])
def test_reserved_words_are_illegal(name: str, word: int) -> None:
    assert matches(profile(name), word) is None


def test_shift_amounts_of_32_and_more_are_for_rv64() -> None:
    for word, name in {
        0x0209_9893: "slli", 0x0209_D893: "srli", 0x4209_D893: "srai",
        0x1886: "c.slli", 0x9235: "c.srli", 0x9635: "c.srai",
    }.items():
        row = matches(profile("rv64gc"), word)
        assert row is not None
        assert row.name == name
        assert matches(profile("rv32gc"), word) is None
    for word in (0x3881, 0x3001, 0x6002):  # c.addiw a7; c.addiw x0 (reserved); c.ldsp x0 (reserved)
        row = matches(profile("rv64gc"), word)
        assert (row.name if row else None) == ("c.addiw" if word == 0x3881 else None)


HINTS = {
    0x0005: "c.nop", 0x107D: "c.nop", 0x0881: "c.addi", 0x4005: "c.li", 0x6005: "c.lui", 0x8076: "c.mv",
    0x9076: "c.add", 0x0002: "c.slli", 0x0882: "c.slli", 0x8201: "c.srli", 0x8601: "c.srai",
    0x0000_7033: "and", 0x0010_0013: "addi", 0x0000_000F: "fence", 0xFFFF_8F8F: "fence", 0xFFFF_9F8F: "fence.i",
}


@pytest.mark.parametrize(("word", "name"), HINTS.items())
@pytest.mark.parametrize("xlen", [32, 64])
def test_hints_and_fields_to_be_ignored_are_legal(xlen: int, word: int, name: str) -> None:
    row = matches(profile(f"rv{xlen}gc"), word)
    assert row is not None
    assert row.name == name


def test_only_the_low_half_of_a_compressed_word_counts() -> None:
    assert matches(profile("rv32gc"), 0xDEAD_0001) == matches(profile("rv32gc"), 0x0001) is not None


# What else capstone 5 or 6 calls these instructions.
ALIASES = {
    "addi": {"nop", "mv", "li"}, "auipc": {"lpad"}, "xori": {"not"}, "sltiu": {"seqz"}, "ori": {"prefetch"},
    "sub": {"neg"}, "slt": {"sltz", "sgtz"}, "sltu": {"snez"}, "addiw": {"sext.w"}, "subw": {"negw"},
    "beq": {"beqz"}, "bne": {"bnez"}, "blt": {"bltz", "bgtz"}, "bge": {"bgez", "blez"},
    "jal": {"j"}, "jalr": {"jr", "ret"}, "fence": {"pause"},
    "csrrw": {"csrw", "fscsr", "fsrm", "fsflags"}, "csrrwi": {"csrwi", "fsrmi", "fsflagsi"},
    "csrrs": {"csrr", "csrs", "frcsr", "frrm", "frflags", "rdcycle", "rdtime", "rdinstret", "rdcycleh", "rdtimeh",
              "rdinstreth"},
    "csrrsi": {"csrsi"}, "csrrc": {"csrc"}, "csrrci": {"csrci"},
    **{f"fsgnj{kind}.{size}": {f"{alias}.{size}"}
       for kind, alias in (("", "fmv"), ("n", "fneg"), ("x", "fabs")) for size in "sd"},
}


@pytest.mark.parametrize("xlen", [32, 64])
def test_words_that_capstone_decodes_are_what_it_says(xlen: int) -> None:
    mode = capstone.CS_MODE_RISCV32 if xlen == 32 else capstone.CS_MODE_RISCV64
    for option in ("CS_MODE_RISCV_A", "CS_MODE_RISCV_FD"):
        mode |= getattr(capstone, option, 0)
    other = capstone.Cs(capstone.CS_ARCH_RISCV, mode)
    known = 0
    for row in profile(f"rv{xlen}gc").instructions:
        if row.length == 2:  # capstone 6 prints the instruction it stands for; the assembler's words are checked above
            continue
        for word in samples(row, 50):
            for _, _, mnemonic, _ in other.disasm_lite(word.to_bytes(4, "little"), 0):
                plain = re.sub(r"\.(aq|rl|aqrl)$|(?<=prefetch)\..", "", mnemonic)
                assert plain in ALIASES.get(row.name, set()) | {row.name}, f"{word:#010x}"
                known += 1
    assert known > 50 * 60


@pytest.mark.parametrize(
    # GNU objdump 2.40 decodes the same words, and the reserved c.addi16sp of 0 and RV32 shifts by 32 and more.
    ("name", "count"),
    [("rv32im", 0), ("rv32imac", 28823), ("rv32gc", 45207), ("rv64im", 0), ("rv64imac", 38551), ("rv64gc", 46743)],
)
def test_how_many_compressed_words_are_legal(name: str, count: int) -> None:
    guest = profile(name)
    assert sum(matches(guest, word) is not None for word in range(1 << 16) if word & 3 != 3) == count


# -------------------------------------------------------------------------------------------------------- the guests


def functions(path: Path, guest: Profile) -> Iterator[tuple[str, int, int]]:
    """Every instruction in the functions of a guest: function, address, word. .text also holds constants."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        text = elf.get_section_by_name(".text")
        code, base = text.data(), text["sh_addr"]
        for symbol in elf.get_section_by_name(".symtab").iter_symbols():
            if symbol["st_info"]["type"] != "STT_FUNC" or not 0 <= symbol["st_value"] - base < len(code):
                continue
            address = symbol["st_value"]
            while address < symbol["st_value"] + symbol["st_size"]:
                word = int.from_bytes(code[address - base : address - base + 4], "little")
                yield symbol.name, address, word
                address += guest.code_alignment if word & 3 != 3 else 4


@pytest.mark.parametrize("path", GUESTS, ids=lambda path: path.stem)
def test_every_word_of_the_shipped_guests_is_in_their_profile(path: Path) -> None:
    guest = profile(SUPERVISED.get(path.stem, load_guest(path).isa))
    checked = 0
    for name, address, word in functions(path, guest):
        if word in (0, 0xFFFF_FFFF):  # meant to trap
            continue
        assert matches(guest, word), f"{name}: {word:#010x} at {address:#x}"
        checked += 1
    assert checked


def test_there_are_guests_to_check() -> None:
    assert GUESTS


# ---------------------------------------------------------------------------------------------------------- profiles


@pytest.mark.parametrize(
    ("name", "misa"),
    [
        ("rv32im", 0x4000_1100),
        ("rv32imac", 0x4000_1105),
        ("rv32gc", 0x4000_112D),
        ("rv64im", 0x8000_0000_0000_1100),
        ("rv64imac", 0x8000_0000_0000_1105),
        ("rv64gc", 0x8000_0000_0000_112D),
    ],
)
def test_profiles_by_name(name: str, misa: int) -> None:
    guest = profile(name.upper())
    assert guest == profile(name)
    assert (guest.name, guest.xlen, guest.misa) == (name, int(name[2:4]), misa)
    assert guest.extensions >= {"I", "M", "Zicsr", "Zifencei", "Priv"}
    assert guest.code_alignment == (2 if name.endswith("c") else 4)


@pytest.mark.parametrize(("name", "near"), [("rv32imc", "rv32imac"), ("rv64g", "rv64gc"), ("arm", "rv32im, rv32imac")])
def test_an_unknown_profile_is_refused_with_those_meant(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=re.escape(near)):
        profile(name)


# --------------------------------------------------------------------------------------------------------- registers


def test_register_names() -> None:
    assert len(set(ABI_NAMES)) == len(set(FLOAT_ABI_NAMES)) == 32
    assert [register_number(name) for name in ("zero", "sp", "fp", "s0", "a0", "t6", "x31", "fa0", "ft11", "f31")] == [
        0, 2, 8, 8, 10, 31, 31, 10, 31, 31,
    ]
    assert register_number("r0") is None


def test_csr_names() -> None:
    assert [csr_name(n) for n in (0x300, 0x306, 0x31A, 0xB83, 0xC9F, 0xF14, 0x7C0)] == [
        "mstatus", "mcounteren", "menvcfgh", "mhpmcounter3h", "hpmcounter31h", "mhartid", "0x7c0",
    ]
    assert len(CSR_NUMBERS) == len(CSRS)
    assert list(CSRS) == sorted(CSRS)
    assert {csr.number for csr in CSRS.values() if csr.read_only} == {n for n in CSRS if n >= 0xC00}


def test_which_csrs_a_profile_has() -> None:
    toy, full = profile("rv32im"), profile("rv64gc")
    for name in ("mstatush", "mcycleh", "timeh"):
        assert csr_exists(CSR_NUMBERS[name], 32, toy.extensions)
        assert not csr_exists(CSR_NUMBERS[name], 64, full.extensions)
    assert csr_exists(CSR_NUMBERS["fcsr"], 64, full.extensions)
    for number in (0x001, 0x002, 0x003, 0x180, 0x302, 0x303, 0x306, 0x3A0, 0x7C0, 0xB01, 0xB81):
        assert not csr_exists(number, 32, toy.extensions)


def test_cause_text() -> None:
    assert cause_text(2, 32) == "illegal instruction"
    assert cause_text(0x8000_0007, 32) == "machine timer interrupt"
    assert cause_text(1 << 63 | 11, 64) == "machine external interrupt"
    assert cause_text(24, 64) == "exception 24"
    assert cause_text(1 << 31 | 16, 32) == "interrupt 16"


# ------------------------------------------------------------------------------------------------------- disassembly


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0x0015_0513, "addi a0, a0, 1"),
        (0x0400_00EF, "jal ra, 0x80000040"),
        (0xFE00_0EE3, "beqz zero, 0x7ffffffc"),
        (0x03D9_E663, "bltu s3, t4, 0x8000002c"),
        (0x0000_006F, "j 0x80000000"),
        (0x3420_2573, "csrr a0, mcause"),
        (0x3402_9073, "csrw mscratch, t0"),
        (0x3400_90F3, "csrrw ra, mscratch, ra"),
        (0x3004_6073, "csrsi mstatus, 8"),
        (0x7C00_22F3, "csrr t0, 0x7c0"),
        (0xFFFF_FFFF, ".4byte 0xffffffff"),
    ],
)
@pytest.mark.parametrize("xlen", [32, 64])
def test_disassembly(word: int, text: str, xlen: int) -> None:
    assert disassemble(word.to_bytes(4, "little"), 0x8000_0000, xlen) == text


def test_disassembly_of_compressed_instructions() -> None:
    assert disassemble(b"\x35\xa0", 0x8000_0000, 32) == "c.j 0x8000002c"
    assert disassemble(b"\x15\xe7\xff\xff", 0x8000_0000, 64) == "c.bnez a4, 0x8000002c"
    assert disassemble(b"\x35\x20", 0x8000_0000, 32) == "c.jal 0x8000002c"
    assert disassemble(b"\x00\x80", 0, 64) in (".2byte 0x8000", "lbu s0, 0(s0)")  # capstone 6 knows Zcb


def test_targets_follow_pc_and_wrap_at_the_width() -> None:
    jump = (0x0400_00EF).to_bytes(4, "little")
    assert disassemble(jump, 0x8000_0000, 32) == "jal ra, 0x80000040"
    assert disassemble(jump, 0x1000, 32) == "jal ra, 0x1040"
    assert disassemble(jump, 0xFFFF_FFF0, 32) == "jal ra, 0x30"
    assert disassemble(jump, 0xFFFF_FFF0, 64) == "jal ra, 0x100000030"


# ---------------------------------------------------------------------------------------------------------- the page


def test_the_page_lists_the_whole_toy_isa() -> None:
    page = toy_isa_page()
    for row in profile("rv32im").instructions:
        assert re.search(rf"`{re.escape(row.name)}[ `].*`{row.mask:08x}` \| `{row.match:08x}`", page), row.name
    for name in ("mstatus", "mip", "minstret", "mconfigptr"):
        assert f"| {name} |" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5) for line in tables)
    assert toy_isa_page() == page
