# SPDX-License-Identifier: GPL-2.0-or-later
"""Where an instruction can go next: what debuggers need to know of code that they have not run.

Source: The RISC-V Instruction Set Manual, Volume I, 20191213, sections 2.5 and 16.4 (immediates of B, J, CB, CJ).
"""

from __future__ import annotations

from typing import NamedTuple

from vmrec.isa.profiles import Profile, matches

__all__ = ["Flow", "flow"]

#: Instructions whose next address only their execution tells: registers, traps and returns from them.
_ELSEWHERE = frozenset(("jalr", "c.jr", "c.jalr", "mret", "sret", "ecall", "ebreak", "c.ebreak"))


class Flow(NamedTuple):
    """How control leaves the instruction at an address.

    `length` in bytes. `falls`: it may go on behind itself. `target`: where it may jump, if its encoding says.
    `elsewhere`: it goes where only executing it tells. `calls`: it may leave a return address in a register.
    """

    length: int
    falls: bool
    target: int | None
    elsewhere: bool
    calls: bool


def flow(word: int, pc: int, profile: Profile) -> Flow:
    """The flow of `word` (little endian, in its low 16 bits if it is compressed) at `pc`; illegal ones trap."""
    row = matches(profile, word)
    length = 4 if word & 3 == 3 else 2
    if row is None or row.name in _ELSEWHERE:
        name = "" if row is None else row.name
        rd = word >> 7 & 31
        calls = name == "c.jalr" or (name == "jalr" and rd != 0)
        return Flow(length, False, None, True, calls)
    offset = {"B": _b, "J": _j, "CB": _cb, "CJ": _cj}.get(row.format)
    if offset is None or (row.format == "CB" and not row.name.startswith("c.b")):
        return Flow(length, True, None, False, False)
    target = pc + offset(word) & (1 << profile.xlen) - 1
    jumps = row.format in ("J", "CJ")
    calls = row.name == "c.jal" or (row.name == "jal" and word >> 7 & 31 != 0)
    return Flow(length, not jumps, target, False, calls)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _field(word: int, high: int, low: int, place: int) -> int:
    """Bits high…low of a word, at `place`."""
    return (word >> low & (1 << (high - low + 1)) - 1) << place


def _b(word: int) -> int:
    bits = _field(word, 31, 31, 12) | _field(word, 30, 25, 5) | _field(word, 11, 8, 1) | _field(word, 7, 7, 11)
    return _signed(bits, 13)


def _j(word: int) -> int:
    bits = _field(word, 31, 31, 20) | _field(word, 30, 21, 1) | _field(word, 20, 20, 11) | _field(word, 19, 12, 12)
    return _signed(bits, 21)


def _cb(word: int) -> int:
    bits = _field(word, 12, 12, 8) | _field(word, 11, 10, 3) | _field(word, 6, 5, 6) | _field(word, 4, 3, 1)
    return _signed(bits | _field(word, 2, 2, 5), 9)


def _cj(word: int) -> int:
    bits = _field(word, 12, 12, 11) | _field(word, 11, 11, 4) | _field(word, 10, 9, 8) | _field(word, 8, 8, 10)
    bits |= _field(word, 7, 7, 6) | _field(word, 6, 6, 7) | _field(word, 5, 3, 1) | _field(word, 2, 2, 5)
    return _signed(bits, 12)
