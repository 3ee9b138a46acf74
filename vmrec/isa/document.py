# SPDX-License-Identifier: GPL-2.0-or-later
"""The one-page documentation of the toy ISA, printed from the table that the decoders are made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmrec.isa.definition import PRIORITY, RAM_BASE, ROM_BASE, ROM_SIZE, STEPS_PER_TICK
from vmrec.isa.instructions import Instruction
from vmrec.isa.profiles import profile
from vmrec.isa.registers import CSRS, EXCEPTIONS, INTERRUPTS, Csr

__all__ = ["toy_isa_page"]

_TOY = profile("rv32im")

# What each instruction does; mem[a] is memory at address a, s(x) is x as a signed number.
_OPERATION: dict[str, str] = {
    "lui": "rd = imm << 12",
    "auipc": "rd = pc + (imm << 12)",
    "jal": "rd = pc + 4; pc = target",
    "jalr": "rd = pc + 4; pc = (rs1 + offset) & ~1",
    "beq": "if rs1 == rs2: pc = target",
    "bne": "if rs1 != rs2: pc = target",
    "blt": "if s(rs1) < s(rs2): pc = target",
    "bge": "if s(rs1) >= s(rs2): pc = target",
    "bltu": "if rs1 < rs2: pc = target",
    "bgeu": "if rs1 >= rs2: pc = target",
    "lb": "rd = 1 byte at rs1 + offset, sign-extended",
    "lh": "rd = 2 bytes at rs1 + offset, sign-extended",
    "lw": "rd = 4 bytes at rs1 + offset",
    "lbu": "rd = 1 byte at rs1 + offset",
    "lhu": "rd = 2 bytes at rs1 + offset",
    "sb": "1 byte at rs1 + offset = rs2",
    "sh": "2 bytes at rs1 + offset = rs2",
    "sw": "4 bytes at rs1 + offset = rs2",
    "addi": "rd = rs1 + imm",
    "slti": "rd = s(rs1) < imm",
    "sltiu": "rd = rs1 < imm, imm sign-extended, then unsigned",
    "xori": "rd = rs1 ^ imm",
    "ori": "rd = rs1 | imm",
    "andi": "rd = rs1 & imm",
    "slli": "rd = rs1 << shamt",
    "srli": "rd = rs1 >> shamt",
    "srai": "rd = s(rs1) >> shamt",
    "add": "rd = rs1 + rs2",
    "sub": "rd = rs1 - rs2",
    "sll": "rd = rs1 << (rs2 & 31)",
    "slt": "rd = s(rs1) < s(rs2)",
    "sltu": "rd = rs1 < rs2",
    "xor": "rd = rs1 ^ rs2",
    "srl": "rd = rs1 >> (rs2 & 31)",
    "sra": "rd = s(rs1) >> (rs2 & 31)",
    "or": "rd = rs1 | rs2",
    "and": "rd = rs1 & rs2",
    "fence": "nothing: one hart sees its own accesses in order",
    "fence.i": "nothing: stores into code are seen at once",
    "ecall": "trap 11",
    "ebreak": "trap 3",
    "csrrw": "rd = csr; csr = rs1",
    "csrrs": "rd = csr; csr |= rs1, not written if rs1 is x0",
    "csrrc": "rd = csr; csr &= ~rs1, not written if rs1 is x0",
    "csrrwi": "rd = csr; csr = uimm",
    "csrrsi": "rd = csr; csr |= uimm, not written if uimm is 0",
    "csrrci": "rd = csr; csr &= ~uimm, not written if uimm is 0",
    "mret": "pc = mepc; MIE = MPIE; MPIE = 1",
    "wfi": "sleep until mip & mie is not 0",
    "mul": "rd = rs1 * rs2",
    "mulh": "rd = s(rs1) * s(rs2) >> 32",
    "mulhsu": "rd = s(rs1) * rs2 >> 32",
    "mulhu": "rd = rs1 * rs2 >> 32",
    "div": "rd = s(rs1) / s(rs2) towards zero; -1 if rs2 is 0; -2^31 / -1 = -2^31",
    "divu": "rd = rs1 / rs2; all ones if rs2 is 0",
    "rem": "rd = remainder of div, with the sign of rs1; rs1 if rs2 is 0",
    "remu": "rd = remainder of divu; rs1 if rs2 is 0",
}

_MTVAL: dict[int, str] = {
    0: "the target; the jump is in mepc, its rd is not written",
    1: "pc",
    2: "the instruction's word (16 bits of it if the low two are not 3)",
    3: "pc",
    5: "the access's first byte, wherever it leaves memory",
    7: "the access's first byte, wherever it leaves memory",
    11: "0",
}

_MEMORY_MAP: tuple[tuple[int, str], ...] = (
    (ROM_BASE, f"boot ROM, {ROM_SIZE:#x} bytes: a0 = mhartid, a1 = 0, jumps to the ELF's entry; stores trap"),
    (0x0010_0000, "test finisher: a 32-bit write of 0x5555 ends the run, of code << 16 | 0x3333 fails it"),
    (0x0010_1000, "goldfish real-time clock, interrupt 11"),
    (0x0200_0000, "CLINT: msip at +0x0, mtimecmp at +0x4000, mtime at +0xbff8"),
    (0x0C00_0000, "PLIC: interrupt controller"),
    (0x1000_0000, "16550 UART, interrupt 10"),
    (0x1020_0000, "entropy: a 32-bit read at +0 gives 4 random bytes, at +4 0x656e7431"),
    (RAM_BASE, "RAM: 128 MiB unless another size is asked for"),
)

_GROUPS: tuple[tuple[str, frozenset[str]], ...] = (
    ("RV32I: base", frozenset({"I"})),
    ("M: multiplication and division", frozenset({"M"})),
    ("Zicsr: control and status registers", frozenset({"Zicsr"})),
    ("Zifencei and machine mode", frozenset({"Zifencei", "Priv"})),
)


def toy_isa_page() -> str:
    """The page as Markdown, ending in a newline; the same text every time."""
    return "\n".join([*_head(), *_instructions(), *_traps(), *_registers(), *_memory(), *_time()]) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def _head() -> Iterator[str]:
    yield "# The toy ISA"
    yield ""
    yield (
        f"`rv32im` with Zicsr and Zifencei, machine mode only: {len(_TOY.instructions)} instructions, 32 registers "
        "`x0`..`x31` of 32 bits (`x0` is zero), a `pc`, little-endian memory. Every word that is not listed is "
        f"illegal. At reset pc is {ROM_BASE:#x}, registers and RAM are zero and interrupts off."
    )
    yield ""
    yield (
        "This page is printed by `vmrec/isa/document.py` from the table that the decoders are made from "
        "(`vmrec/isa/instructions.py`); what is said here in a line is said exactly in `vmrec/isa/definition.py`. "
        "The manuals are the RISC-V Instruction Set Manual, Volume I, 20191213 and Volume II, 20211203."
    )
    yield ""


def _instructions() -> Iterator[str]:
    yield "## Instructions"
    yield ""
    yield (
        "A word is the instruction if `word & mask == match`. Results are cut to 32 bits; numbers are unsigned, "
        "`s(x)` is x as a signed one; immediates are sign-extended, `uimm` and `shamt` are not."
    )
    yield ""
    for title, extensions in _GROUPS:
        rows = [row for row in _TOY.instructions if row.extensions <= extensions]
        yield f"### {title}"
        yield ""
        yield from _table(("instruction", "mask", "match", "does"), [_instruction(row) for row in rows])


def _instruction(row: Instruction) -> tuple[str, str, str, str]:
    return (
        f"`{row.name} {row.syntax}`".replace(" `", "`"),
        f"`{row.mask:08x}`",
        f"`{row.match:08x}`",
        _OPERATION[row.name],
    )


def _traps() -> Iterator[str]:
    yield "## Traps"
    yield ""
    yield (
        "mepc = pc, mcause = cause, MPIE = MIE, MIE = 0, pc = mtvec's base. The instruction has no effect and does "
        "not retire. Misaligned loads and stores are performed, so causes 4 and 6 do not occur. A handler whose own "
        "first instruction cannot be fetched or is illegal would trap for ever: the machine stops there instead."
    )
    yield ""
    yield from _table(
        ("mcause", "trap", "mtval"), [(str(cause), EXCEPTIONS[cause], value) for cause, value in _MTVAL.items()]
    )
    order = ", then ".join(f"{INTERRUPTS[cause]} ({int(cause)})" for cause in PRIORITY)
    yield (
        f"Interrupts are taken between instructions while mstatus.MIE is set and `mip & mie` is not 0: {order}. "
        "mcause has its top bit set, mtval is 0, and with bit 0 of mtvec set pc goes to base + 4 * cause. The devices "
        "alone drive mip. wfi ends when `mip & mie` is not 0, whatever MIE says."
    )
    yield ""


def _registers() -> Iterator[str]:
    yield "## Control and status registers"
    yield ""
    yield (
        "Any other number is illegal, and so is a write to one from 0xc00 on. mstatus has MIE (bit 3), MPIE (bit 7) "
        f"and MPP (always 3); misa is {_TOY.misa:#x}; mepc's low two bits are 0; a write to mtvec with mode 2 or 3 is "
        "ignored. Counters do not include the instruction that reads them; what is written to mcycle or minstret is "
        "what the next instruction reads."
    )
    yield ""
    present = [csr for csr in CSRS.values() if _TOY.xlen in csr.xlens and csr.extensions <= _TOY.extensions]
    plain = [csr for csr in present if "hpm" not in csr.name and not csr.meaning.startswith("upper half")]
    yield from _table(("number", "name", "meaning"), [_csr(csr) for csr in plain])
    yield (
        "mcycle, minstret, cycle, time and instret have upper halves 0x80 above: mcycleh and so on. mhpmcounter3..31, "
        "their halves, mhpmevent3..31, hpmcounter3..31 and theirs read as zero."
    )
    yield ""


def _csr(csr: Csr) -> tuple[str, str, str]:
    return f"`{csr.number:#05x}`", csr.name, csr.meaning


def _memory() -> Iterator[str]:
    yield "## Memory"
    yield ""
    yield from _table(("address", "what"), [(f"`{base:#010x}`", text) for base, text in _MEMORY_MAP])
    yield "An access with any byte outside traps, and so does a fetch from a device (causes 5, 7 and 1)."
    yield ""


def _time() -> Iterator[str]:
    yield "## Time"
    yield ""
    yield (
        "A step is an instruction that retires, or a synchronous trap; taking an interrupt is none. The position "
        "counts steps since reset, and steps slept through in wfi are counted apart as idle. "
        f"`mcycle = position + idle`, `time = mtime = (position + idle) / {STEPS_PER_TICK}`, rounded down; "
        "`minstret` counts the instructions that retired. A step is thus 1 ns, and the timer runs at 10 MHz. "
        "(Recorded with `--clock host` or `--chaos`, mtime instead stands still between recorded clock events.)"
    )
