# SPDX-License-Identifier: GPL-2.0-or-later
"""One instruction as text. The only file that imports capstone, when the first instruction is asked for.

Capstone 5 prints branch targets relative to zero and 6 absolute, and they differ in the CSRs they know; so
branches, jumps and CSR instructions are written here, from the table, and capstone writes the rest.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from vmrec.errors import SetupError
from vmrec.isa.instructions import Instruction
from vmrec.isa.profiles import Profile, matches, profile
from vmrec.isa.registers import ABI_NAMES, csr_name

if TYPE_CHECKING:
    import capstone

__all__ = ["disassemble"]


def disassemble(word_bytes: bytes, pc: int, xlen: int) -> str:
    """The instruction at the start of `word_bytes` (2 or 4 bytes, little endian), which stands at `pc`.

    Branch and jump targets are absolute: "jal ra, 0x80000040". What cannot be decoded is ".4byte 0x…".
    `xlen` is 32 or 64. Raises SetupError if capstone is not installed.
    """
    text, offset = _decode(word_bytes[: _length(word_bytes)], xlen)
    if offset is None:
        return text
    return f"{text}{(pc + offset) & ((1 << xlen) - 1):#x}"


def _length(word_bytes: bytes) -> int:
    return 4 if word_bytes and word_bytes[0] & 3 == 3 else 2


@lru_cache(maxsize=1 << 16)
def _decode(code: bytes, xlen: int) -> tuple[str, int | None]:
    """Text, and what to add to pc and append, if anything. Traces repeat: nearly every call is remembered."""
    word = int.from_bytes(code, "little")
    if len(code) == _length(code):
        row = matches(_everything(xlen), word)
        if row is not None:
            own = _transfer(row, word) or _csr_access(row, word)
            if own is not None:
                return own
        for _, _, mnemonic, operands in _engine(xlen).disasm_lite(code, 0):
            return f"{mnemonic} {operands}".rstrip(), None
    return f".{len(code)}byte {word:#x}", None


def _everything(xlen: int) -> Profile:
    return profile(f"rv{xlen}gc")


@lru_cache(maxsize=2)
def _engine(xlen: int) -> capstone.Cs:
    try:
        import capstone
    except ImportError as error:
        raise SetupError(
            "capstone, which prints instructions, is not installed. Type: pip install 'capstone>=5.0.6,<7'"
        ) from error
    mode = capstone.CS_MODE_RISCV32 if xlen == 32 else capstone.CS_MODE_RISCV64
    # Capstone 5 knows one name, 6 renames it and wants A, F and D asked for.
    for option in ("CS_MODE_RISCVC", "CS_MODE_RISCV_C", "CS_MODE_RISCV_A", "CS_MODE_RISCV_FD"):
        mode |= getattr(capstone, option, 0)
    return capstone.Cs(capstone.CS_ARCH_RISCV, mode)


def _bits(word: int, *pieces: tuple[int, int, int]) -> int:
    """Gather an immediate: each piece is (lowest bit in the word, width, lowest bit in the immediate)."""
    return sum((word >> low & ((1 << width) - 1)) << to for low, width, to in pieces)


def _signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


def _transfer(row: Instruction, word: int) -> tuple[str, int] | None:
    """Branches and direct jumps (Unprivileged ISA, 2.3 and 16.4): text up to the target, and its distance."""
    if row.format == "B":
        offset = _signed(_bits(word, (8, 4, 1), (25, 6, 5), (7, 1, 11), (31, 1, 12)), 13)
        rs1, rs2 = word >> 15 & 31, word >> 20 & 31
        if rs2 == 0 and row.name in ("beq", "bne"):
            return f"{row.name}z {ABI_NAMES[rs1]}, ", offset
        return f"{row.name} {ABI_NAMES[rs1]}, {ABI_NAMES[rs2]}, ", offset
    if row.format == "J":
        offset = _signed(_bits(word, (21, 10, 1), (20, 1, 11), (12, 8, 12), (31, 1, 20)), 21)
        rd = word >> 7 & 31
        return ("j " if rd == 0 else f"jal {ABI_NAMES[rd]}, "), offset
    if row.format == "CJ":
        pieces = ((3, 3, 1), (11, 1, 4), (2, 1, 5), (7, 1, 6), (6, 1, 7), (9, 2, 8), (8, 1, 10), (12, 1, 11))
        return f"{row.name} ", _signed(_bits(word, *pieces), 12)
    if row.name in ("c.beqz", "c.bnez"):
        offset = _signed(_bits(word, (3, 2, 1), (10, 2, 3), (2, 1, 5), (5, 2, 6), (12, 1, 8)), 9)
        return f"{row.name} {ABI_NAMES[8 + (word >> 7 & 7)]}, ", offset
    return None


def _csr_access(row: Instruction, word: int) -> tuple[str, None] | None:
    """CSR instructions, with the assembler's shorter names (Unprivileged ISA, table 25.3)."""
    if row.format not in ("CSR", "CSRI"):
        return None
    name = csr_name(word >> 20)
    rd, field = word >> 7 & 31, word >> 15 & 31
    source = ABI_NAMES[field] if row.format == "CSR" else str(field)
    if row.name == "csrrs" and field == 0:
        return f"csrr {ABI_NAMES[rd]}, {name}", None
    if rd == 0:
        return f"{row.name.replace('csrr', 'csr')} {name}, {source}", None
    return f"{row.name} {ABI_NAMES[rd]}, {name}, {source}", None
