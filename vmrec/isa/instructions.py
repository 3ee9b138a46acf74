# SPDX-License-Identifier: GPL-2.0-or-later
"""The one table of all instructions that a vmrec guest may execute.

The decoder in C, the executable definition, the page about the toy ISA and the tests are all made from it, so
a word is legal in all of them or in none. The build loads this file alone, by path: it may not import vmrec.

Sources: The RISC-V Instruction Set Manual, Volume I, 20191213 (chapters 2, 3, 5-9, 11, 12, 16, 24) and
Volume II, 20211203 (sections 3.3 and 4.2, for mret, sret, wfi and sfence.vma).

Reading a row:

* A word is the instruction if `word & mask == match` and `word & field` is not zero for each field in
  `nonzero`; the first row that fits wins, so the special case stands above the general one (c.ebreak).
* Two rows may share a name, when RV32 and RV64 differ in the bits that must be zero (slli); one name always
  means one operation.
* HINT encodings are legal and do nothing; reserved encodings have no row. Reserved values of the rounding
  mode field (5, 6, and 7 while frm holds 5, 6 or 7) are not seen here: whoever executes must refuse them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["INSTRUCTIONS", "Instruction"]


class Instruction(NamedTuple):
    """One row of the table.

    `extensions` are all needed, of I M A F D C S Zicsr Zifencei Priv. `format` is the manual's name of a format
    (R I S B U J R4, CR CI CSS CIW CL CS CA CB CJ), or one of: I-shift (shamt in the immediate), R-rm (funct3
    is the rounding mode), R1 and R1-rm (rs2 belongs to the opcode), amo (R with aq and rl), lr (amo with
    rs2 = 0), CSR, CSRI (5-bit immediate in rs1), fence, fence.vma (rs1 and rs2), none (no operands). `syntax`
    is the operand order in assembler; rd' and the like are the registers x8..x15 of the compressed formats.
    """

    name: str
    extensions: frozenset[str]
    xlens: tuple[int, ...]
    mask: int
    match: int
    nonzero: tuple[int, ...]
    format: str
    syntax: str

    @property
    def length(self) -> int:
        """Bytes of the encoding: 4 or 2."""
        return 4 if self.match & 3 == 3 else 2

    def fits(self, word: int) -> bool:
        """Whether `word` (32 bits, or 16 in the low half for a compressed row) is this instruction."""
        return word & self.mask == self.match and all(word & field for field in self.nonzero)


BOTH = (32, 64)
RV32 = (32,)
RV64 = (64,)

# Fields that are part of an opcode.
OPCODE = 0x0000007F
RD = 0x00000F80
FUNCT3 = 0x00007000
RS2 = 0x01F00000
FUNCT7 = 0xFE000000
FUNCT6 = 0xFC000000
FUNCT5 = 0xF8000000
FMT = 0x06000000
WORD = 0xFFFFFFFF
UNARY = OPCODE | RS2 | FUNCT7

# Fields of compressed words.
C_RD = 0x0F80
C_RS2 = 0x007C
C_IMM6 = 0x107C
C_IMM8 = 0x1FE0

LOAD = "rd, offset(rs1)"
STORE = "rs2, offset(rs1)"
THREE = "rd, rs1, rs2"
IMMEDIATE = "rd, rs1, imm"
SHIFT = "rd, rs1, shamt"
UPPER = "rd, imm"
BRANCH = "rs1, rs2, target"
CSR = "rd, csr, rs1"
CSRI = "rd, csr, uimm"
AMO = "rd, rs2, (rs1)"
LR = "rd, (rs1)"
F_THREE = "frd, frs1, frs2"
F_FOUR = "frd, frs1, frs2, frs3"
F_COMPARE = "rd, frs1, frs2"
F_ONE = "frd, frs1"
F_TO_X = "rd, frs1"
X_TO_F = "frd, rs1"


def _row(
    name: str, extensions: str, xlens: tuple[int, ...], mask: int, match: int, format: str, syntax: str = "",
    *nonzero: int,
) -> Instruction:
    return Instruction(name, frozenset(extensions.split()), xlens, mask, match, nonzero, format, syntax)


_BASE = (
    _row("lui", "I", BOTH, OPCODE, 0x37, "U", UPPER),
    _row("auipc", "I", BOTH, OPCODE, 0x17, "U", UPPER),
    _row("jal", "I", BOTH, OPCODE, 0x6F, "J", "rd, target"),
    _row("jalr", "I", BOTH, OPCODE | FUNCT3, 0x67, "I", LOAD),
    _row("beq", "I", BOTH, OPCODE | FUNCT3, 0x0063, "B", BRANCH),
    _row("bne", "I", BOTH, OPCODE | FUNCT3, 0x1063, "B", BRANCH),
    _row("blt", "I", BOTH, OPCODE | FUNCT3, 0x4063, "B", BRANCH),
    _row("bge", "I", BOTH, OPCODE | FUNCT3, 0x5063, "B", BRANCH),
    _row("bltu", "I", BOTH, OPCODE | FUNCT3, 0x6063, "B", BRANCH),
    _row("bgeu", "I", BOTH, OPCODE | FUNCT3, 0x7063, "B", BRANCH),
    _row("lb", "I", BOTH, OPCODE | FUNCT3, 0x0003, "I", LOAD),
    _row("lh", "I", BOTH, OPCODE | FUNCT3, 0x1003, "I", LOAD),
    _row("lw", "I", BOTH, OPCODE | FUNCT3, 0x2003, "I", LOAD),
    _row("ld", "I", RV64, OPCODE | FUNCT3, 0x3003, "I", LOAD),
    _row("lbu", "I", BOTH, OPCODE | FUNCT3, 0x4003, "I", LOAD),
    _row("lhu", "I", BOTH, OPCODE | FUNCT3, 0x5003, "I", LOAD),
    _row("lwu", "I", RV64, OPCODE | FUNCT3, 0x6003, "I", LOAD),
    _row("sb", "I", BOTH, OPCODE | FUNCT3, 0x0023, "S", STORE),
    _row("sh", "I", BOTH, OPCODE | FUNCT3, 0x1023, "S", STORE),
    _row("sw", "I", BOTH, OPCODE | FUNCT3, 0x2023, "S", STORE),
    _row("sd", "I", RV64, OPCODE | FUNCT3, 0x3023, "S", STORE),
    _row("addi", "I", BOTH, OPCODE | FUNCT3, 0x0013, "I", IMMEDIATE),
    _row("slti", "I", BOTH, OPCODE | FUNCT3, 0x2013, "I", IMMEDIATE),
    _row("sltiu", "I", BOTH, OPCODE | FUNCT3, 0x3013, "I", IMMEDIATE),
    _row("xori", "I", BOTH, OPCODE | FUNCT3, 0x4013, "I", IMMEDIATE),
    _row("ori", "I", BOTH, OPCODE | FUNCT3, 0x6013, "I", IMMEDIATE),
    _row("andi", "I", BOTH, OPCODE | FUNCT3, 0x7013, "I", IMMEDIATE),
    # Five bits of shift amount on RV32, six on RV64.
    _row("slli", "I", RV32, OPCODE | FUNCT3 | FUNCT7, 0x00001013, "I-shift", SHIFT),
    _row("slli", "I", RV64, OPCODE | FUNCT3 | FUNCT6, 0x00001013, "I-shift", SHIFT),
    _row("srli", "I", RV32, OPCODE | FUNCT3 | FUNCT7, 0x00005013, "I-shift", SHIFT),
    _row("srli", "I", RV64, OPCODE | FUNCT3 | FUNCT6, 0x00005013, "I-shift", SHIFT),
    _row("srai", "I", RV32, OPCODE | FUNCT3 | FUNCT7, 0x40005013, "I-shift", SHIFT),
    _row("srai", "I", RV64, OPCODE | FUNCT3 | FUNCT6, 0x40005013, "I-shift", SHIFT),
    _row("add", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x00000033, "R", THREE),
    _row("sub", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x40000033, "R", THREE),
    _row("sll", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x00001033, "R", THREE),
    _row("slt", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x00002033, "R", THREE),
    _row("sltu", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x00003033, "R", THREE),
    _row("xor", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x00004033, "R", THREE),
    _row("srl", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x00005033, "R", THREE),
    _row("sra", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x40005033, "R", THREE),
    _row("or", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x00006033, "R", THREE),
    _row("and", "I", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x00007033, "R", THREE),
    _row("addiw", "I", RV64, OPCODE | FUNCT3, 0x001B, "I", IMMEDIATE),
    _row("slliw", "I", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0000101B, "I-shift", SHIFT),
    _row("srliw", "I", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0000501B, "I-shift", SHIFT),
    _row("sraiw", "I", RV64, OPCODE | FUNCT3 | FUNCT7, 0x4000501B, "I-shift", SHIFT),
    _row("addw", "I", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0000003B, "R", THREE),
    _row("subw", "I", RV64, OPCODE | FUNCT3 | FUNCT7, 0x4000003B, "R", THREE),
    _row("sllw", "I", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0000103B, "R", THREE),
    _row("srlw", "I", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0000503B, "R", THREE),
    _row("sraw", "I", RV64, OPCODE | FUNCT3 | FUNCT7, 0x4000503B, "R", THREE),
    # The other fields of fence and fence.i are reserved for finer fences and ignored.
    _row("fence", "I", BOTH, OPCODE | FUNCT3, 0x000F, "fence", "pred, succ"),
    _row("ecall", "I", BOTH, WORD, 0x00000073, "none"),
    _row("ebreak", "I", BOTH, WORD, 0x00100073, "none"),
    _row("fence.i", "Zifencei", BOTH, OPCODE | FUNCT3, 0x100F, "none"),
)

_CSR = (
    _row("csrrw", "Zicsr", BOTH, OPCODE | FUNCT3, 0x1073, "CSR", CSR),
    _row("csrrs", "Zicsr", BOTH, OPCODE | FUNCT3, 0x2073, "CSR", CSR),
    _row("csrrc", "Zicsr", BOTH, OPCODE | FUNCT3, 0x3073, "CSR", CSR),
    _row("csrrwi", "Zicsr", BOTH, OPCODE | FUNCT3, 0x5073, "CSRI", CSRI),
    _row("csrrsi", "Zicsr", BOTH, OPCODE | FUNCT3, 0x6073, "CSRI", CSRI),
    _row("csrrci", "Zicsr", BOTH, OPCODE | FUNCT3, 0x7073, "CSRI", CSRI),
)

_MACHINE_MODE = (
    _row("mret", "Priv", BOTH, WORD, 0x30200073, "none"),
    _row("wfi", "Priv", BOTH, WORD, 0x10500073, "none"),
)

_SUPERVISOR_MODE = (
    _row("sret", "S", BOTH, WORD, 0x10200073, "none"),
    _row("sfence.vma", "S", BOTH, OPCODE | RD | FUNCT3 | FUNCT7, 0x12000073, "fence.vma", "rs1, rs2"),
)

_MULTIPLY = (
    _row("mul", "M", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x02000033, "R", THREE),
    _row("mulh", "M", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x02001033, "R", THREE),
    _row("mulhsu", "M", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x02002033, "R", THREE),
    _row("mulhu", "M", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x02003033, "R", THREE),
    _row("div", "M", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x02004033, "R", THREE),
    _row("divu", "M", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x02005033, "R", THREE),
    _row("rem", "M", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x02006033, "R", THREE),
    _row("remu", "M", BOTH, OPCODE | FUNCT3 | FUNCT7, 0x02007033, "R", THREE),
    _row("mulw", "M", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0200003B, "R", THREE),
    _row("divw", "M", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0200403B, "R", THREE),
    _row("divuw", "M", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0200503B, "R", THREE),
    _row("remw", "M", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0200603B, "R", THREE),
    _row("remuw", "M", RV64, OPCODE | FUNCT3 | FUNCT7, 0x0200703B, "R", THREE),
)

_ATOMIC = tuple(
    row
    for suffix, xlens, width in ((".w", BOTH, 0x202F), (".d", RV64, 0x302F))
    for row in (
        _row("lr" + suffix, "A", xlens, OPCODE | FUNCT3 | RS2 | FUNCT5, 0x10000000 | width, "lr", LR),
        _row("sc" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0x18000000 | width, "amo", AMO),
        _row("amoswap" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0x08000000 | width, "amo", AMO),
        _row("amoadd" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0x00000000 | width, "amo", AMO),
        _row("amoxor" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0x20000000 | width, "amo", AMO),
        _row("amoand" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0x60000000 | width, "amo", AMO),
        _row("amoor" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0x40000000 | width, "amo", AMO),
        _row("amomin" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0x80000000 | width, "amo", AMO),
        _row("amomax" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0xA0000000 | width, "amo", AMO),
        _row("amominu" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0xC0000000 | width, "amo", AMO),
        _row("amomaxu" + suffix, "A", xlens, OPCODE | FUNCT3 | FUNCT5, 0xE0000000 | width, "amo", AMO),
    )
)

# The same operations in single and in double precision: only the fmt field differs.
_FLOAT = tuple(
    row
    for suffix, extension, fmt in ((".s", "F", 0x00000000), (".d", "D", 0x02000000))
    for row in (
        _row("fmadd" + suffix, extension, BOTH, OPCODE | FMT, fmt | 0x43, "R4", F_FOUR),
        _row("fmsub" + suffix, extension, BOTH, OPCODE | FMT, fmt | 0x47, "R4", F_FOUR),
        _row("fnmsub" + suffix, extension, BOTH, OPCODE | FMT, fmt | 0x4B, "R4", F_FOUR),
        _row("fnmadd" + suffix, extension, BOTH, OPCODE | FMT, fmt | 0x4F, "R4", F_FOUR),
        _row("fadd" + suffix, extension, BOTH, OPCODE | FUNCT7, fmt | 0x00000053, "R-rm", F_THREE),
        _row("fsub" + suffix, extension, BOTH, OPCODE | FUNCT7, fmt | 0x08000053, "R-rm", F_THREE),
        _row("fmul" + suffix, extension, BOTH, OPCODE | FUNCT7, fmt | 0x10000053, "R-rm", F_THREE),
        _row("fdiv" + suffix, extension, BOTH, OPCODE | FUNCT7, fmt | 0x18000053, "R-rm", F_THREE),
        _row("fsqrt" + suffix, extension, BOTH, UNARY, fmt | 0x58000053, "R1-rm", F_ONE),
        _row("fsgnj" + suffix, extension, BOTH, OPCODE | FUNCT3 | FUNCT7, fmt | 0x20000053, "R", F_THREE),
        _row("fsgnjn" + suffix, extension, BOTH, OPCODE | FUNCT3 | FUNCT7, fmt | 0x20001053, "R", F_THREE),
        _row("fsgnjx" + suffix, extension, BOTH, OPCODE | FUNCT3 | FUNCT7, fmt | 0x20002053, "R", F_THREE),
        _row("fmin" + suffix, extension, BOTH, OPCODE | FUNCT3 | FUNCT7, fmt | 0x28000053, "R", F_THREE),
        _row("fmax" + suffix, extension, BOTH, OPCODE | FUNCT3 | FUNCT7, fmt | 0x28001053, "R", F_THREE),
        _row("fle" + suffix, extension, BOTH, OPCODE | FUNCT3 | FUNCT7, fmt | 0xA0000053, "R", F_COMPARE),
        _row("flt" + suffix, extension, BOTH, OPCODE | FUNCT3 | FUNCT7, fmt | 0xA0001053, "R", F_COMPARE),
        _row("feq" + suffix, extension, BOTH, OPCODE | FUNCT3 | FUNCT7, fmt | 0xA0002053, "R", F_COMPARE),
        _row("fclass" + suffix, extension, BOTH, UNARY | FUNCT3, fmt | 0xE0001053, "R1", F_TO_X),
        _row("fcvt.w" + suffix, extension, BOTH, UNARY, fmt | 0xC0000053, "R1-rm", F_TO_X),
        _row("fcvt.wu" + suffix, extension, BOTH, UNARY, fmt | 0xC0100053, "R1-rm", F_TO_X),
        _row("fcvt.l" + suffix, extension, RV64, UNARY, fmt | 0xC0200053, "R1-rm", F_TO_X),
        _row("fcvt.lu" + suffix, extension, RV64, UNARY, fmt | 0xC0300053, "R1-rm", F_TO_X),
        _row("fcvt" + suffix + ".w", extension, BOTH, UNARY, fmt | 0xD0000053, "R1-rm", X_TO_F),
        _row("fcvt" + suffix + ".wu", extension, BOTH, UNARY, fmt | 0xD0100053, "R1-rm", X_TO_F),
        _row("fcvt" + suffix + ".l", extension, RV64, UNARY, fmt | 0xD0200053, "R1-rm", X_TO_F),
        _row("fcvt" + suffix + ".lu", extension, RV64, UNARY, fmt | 0xD0300053, "R1-rm", X_TO_F),
    )
)

_FLOAT_MOVES = (
    _row("flw", "F", BOTH, OPCODE | FUNCT3, 0x2007, "I", "frd, offset(rs1)"),
    _row("fsw", "F", BOTH, OPCODE | FUNCT3, 0x2027, "S", "frs2, offset(rs1)"),
    _row("fld", "D", BOTH, OPCODE | FUNCT3, 0x3007, "I", "frd, offset(rs1)"),
    _row("fsd", "D", BOTH, OPCODE | FUNCT3, 0x3027, "S", "frs2, offset(rs1)"),
    _row("fmv.x.w", "F", BOTH, UNARY | FUNCT3, 0xE0000053, "R1", F_TO_X),
    _row("fmv.w.x", "F", BOTH, UNARY | FUNCT3, 0xF0000053, "R1", X_TO_F),
    _row("fmv.x.d", "D", RV64, UNARY | FUNCT3, 0xE2000053, "R1", F_TO_X),
    _row("fmv.d.x", "D", RV64, UNARY | FUNCT3, 0xF2000053, "R1", X_TO_F),
    _row("fcvt.s.d", "D", BOTH, UNARY, 0x40100053, "R1-rm", F_ONE),
    _row("fcvt.d.s", "D", BOTH, UNARY, 0x42000053, "R1-rm", F_ONE),
)

# The opcode of a compressed word is its lowest two and highest three bits: 0xE003.
_COMPRESSED = (
    _row("c.addi4spn", "C", BOTH, 0xE003, 0x0000, "CIW", "rd', sp, uimm", C_IMM8),
    _row("c.fld", "C D", BOTH, 0xE003, 0x2000, "CL", "frd', uimm(rs1')"),
    _row("c.lw", "C", BOTH, 0xE003, 0x4000, "CL", "rd', uimm(rs1')"),
    _row("c.flw", "C F", RV32, 0xE003, 0x6000, "CL", "frd', uimm(rs1')"),
    _row("c.ld", "C", RV64, 0xE003, 0x6000, "CL", "rd', uimm(rs1')"),
    _row("c.fsd", "C D", BOTH, 0xE003, 0xA000, "CS", "frs2', uimm(rs1')"),
    _row("c.sw", "C", BOTH, 0xE003, 0xC000, "CS", "rs2', uimm(rs1')"),
    _row("c.fsw", "C F", RV32, 0xE003, 0xE000, "CS", "frs2', uimm(rs1')"),
    _row("c.sd", "C", RV64, 0xE003, 0xE000, "CS", "rs2', uimm(rs1')"),
    _row("c.nop", "C", BOTH, 0xE003 | C_RD, 0x0001, "CI", ""),
    _row("c.addi", "C", BOTH, 0xE003, 0x0001, "CI", "rd, imm"),
    _row("c.jal", "C", RV32, 0xE003, 0x2001, "CJ", "target"),
    _row("c.addiw", "C", RV64, 0xE003, 0x2001, "CI", "rd, imm", C_RD),
    _row("c.li", "C", BOTH, 0xE003, 0x4001, "CI", "rd, imm"),
    _row("c.addi16sp", "C", BOTH, 0xE003 | C_RD, 0x6101, "CI", "sp, imm", C_IMM6),
    _row("c.lui", "C", BOTH, 0xE003, 0x6001, "CI", "rd, imm", C_IMM6),
    # Shift amounts of 32 and more (bit 12) exist on RV64 only.
    _row("c.srli", "C", RV32, 0xFC03, 0x8001, "CB", "rd', shamt"),
    _row("c.srli", "C", RV64, 0xEC03, 0x8001, "CB", "rd', shamt"),
    _row("c.srai", "C", RV32, 0xFC03, 0x8401, "CB", "rd', shamt"),
    _row("c.srai", "C", RV64, 0xEC03, 0x8401, "CB", "rd', shamt"),
    _row("c.andi", "C", BOTH, 0xEC03, 0x8801, "CB", "rd', imm"),
    _row("c.sub", "C", BOTH, 0xFC63, 0x8C01, "CA", "rd', rs2'"),
    _row("c.xor", "C", BOTH, 0xFC63, 0x8C21, "CA", "rd', rs2'"),
    _row("c.or", "C", BOTH, 0xFC63, 0x8C41, "CA", "rd', rs2'"),
    _row("c.and", "C", BOTH, 0xFC63, 0x8C61, "CA", "rd', rs2'"),
    _row("c.subw", "C", RV64, 0xFC63, 0x9C01, "CA", "rd', rs2'"),
    _row("c.addw", "C", RV64, 0xFC63, 0x9C21, "CA", "rd', rs2'"),
    _row("c.j", "C", BOTH, 0xE003, 0xA001, "CJ", "target"),
    _row("c.beqz", "C", BOTH, 0xE003, 0xC001, "CB", "rs1', target"),
    _row("c.bnez", "C", BOTH, 0xE003, 0xE001, "CB", "rs1', target"),
    _row("c.slli", "C", RV32, 0xF003, 0x0002, "CI", "rd, shamt"),
    _row("c.slli", "C", RV64, 0xE003, 0x0002, "CI", "rd, shamt"),
    _row("c.fldsp", "C D", BOTH, 0xE003, 0x2002, "CI", "frd, uimm(sp)"),
    _row("c.lwsp", "C", BOTH, 0xE003, 0x4002, "CI", "rd, uimm(sp)", C_RD),
    _row("c.flwsp", "C F", RV32, 0xE003, 0x6002, "CI", "frd, uimm(sp)"),
    _row("c.ldsp", "C", RV64, 0xE003, 0x6002, "CI", "rd, uimm(sp)", C_RD),
    _row("c.jr", "C", BOTH, 0xF003 | C_RS2, 0x8002, "CR", "rs1", C_RD),
    _row("c.mv", "C", BOTH, 0xF003, 0x8002, "CR", "rd, rs2", C_RS2),
    _row("c.ebreak", "C", BOTH, 0xFFFF, 0x9002, "CR", ""),
    _row("c.jalr", "C", BOTH, 0xF003 | C_RS2, 0x9002, "CR", "rs1", C_RD),
    _row("c.add", "C", BOTH, 0xF003, 0x9002, "CR", "rd, rs2", C_RS2),
    _row("c.fsdsp", "C D", BOTH, 0xE003, 0xA002, "CSS", "frs2, uimm(sp)"),
    _row("c.swsp", "C", BOTH, 0xE003, 0xC002, "CSS", "rs2, uimm(sp)"),
    _row("c.fswsp", "C F", RV32, 0xE003, 0xE002, "CSS", "frs2, uimm(sp)"),
    _row("c.sdsp", "C", RV64, 0xE003, 0xE002, "CSS", "rs2, uimm(sp)"),
)

INSTRUCTIONS: tuple[Instruction, ...] = (
    _BASE + _CSR + _MACHINE_MODE + _SUPERVISOR_MODE + _MULTIPLY + _ATOMIC + _FLOAT_MOVES + _FLOAT + _COMPRESSED
)
