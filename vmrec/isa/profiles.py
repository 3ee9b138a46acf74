# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest profiles: which instructions of the table a machine has."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property, lru_cache

from vmrec.errors import UsageError
from vmrec.isa.instructions import INSTRUCTIONS, Instruction

__all__ = ["PROFILES", "Profile", "matches", "profile"]

#: The names that `profile` accepts; rv32im is the toy ISA. With s and u a hart has supervisor and user mode.
PROFILES = ("rv32im", "rv32imac", "rv32gc", "rv32gcsu", "rv64im", "rv64imac", "rv64gc", "rv64gcsu")

_ALWAYS = frozenset({"Zicsr", "Zifencei", "Priv"})


@dataclass(frozen=True)
class Profile:
    """A named set of extensions for one register width.

    `xlen` is 32 or 64; `extensions` are names as in `Instruction.extensions`. Zicsr, Zifencei and Priv
    (machine mode) belong to every profile.
    """

    name: str
    xlen: int
    extensions: frozenset[str]

    @property
    def misa(self) -> int:
        """The value of misa: width in the top two bits, one bit per letter (Privileged ISA, 3.1.1)."""
        letters = sum(1 << (ord(name) - ord("A")) for name in self.extensions if len(name) == 1)
        return (self.xlen // 32) << (self.xlen - 2) | letters

    @property
    def code_alignment(self) -> int:
        """Bytes that instruction addresses are a multiple of: 2 with compressed instructions, else 4."""
        return 2 if "C" in self.extensions else 4

    @cached_property
    def instructions(self) -> tuple[Instruction, ...]:
        """The rows of the table that this profile has, in the table's order."""
        return tuple(
            row for row in INSTRUCTIONS if self.xlen in row.xlens and row.extensions <= self.extensions
        )

    @cached_property
    def _by_opcode(self) -> tuple[tuple[Instruction, ...], ...]:
        # The low seven bits leave a few rows to try, where the whole table has two hundred.
        return tuple(
            tuple(row for row in self.instructions if (opcode ^ row.match) & row.mask & 0x7F == 0)
            for opcode in range(128)
        )


@lru_cache(maxsize=64)
def profile(name: str) -> Profile:
    """The profile called `name` (any case).

    Raises UsageError for any other name, with the nearest names or, if none is near, all of them.
    """
    wanted = name.strip().lower()
    if wanted not in PROFILES:
        near = difflib.get_close_matches(wanted, PROFILES, n=3, cutoff=0.7) or list(PROFILES)
        raise UsageError(
            f"{name!r} is not a guest profile. Did you mean {', '.join(near)}? "
            "Choose one of these with --isa, or leave it out to follow the ELF."
        )
    letters = wanted[4:].replace("g", "imafd").upper()
    return Profile(wanted, int(wanted[2:4]), frozenset(letters) | _ALWAYS)


def matches(profile: Profile, word: int) -> Instruction | None:
    """The instruction that `word` is in `profile`, or None if it is illegal there.

    `word` holds the bytes at pc, little endian; if its low two bits are not 3, only the low 16 bits count.
    """
    if word & 3 != 3:
        word &= 0xFFFF
    for row in profile._by_opcode[word & 0x7F]:
        if row.fits(word):
            return row
    return None
