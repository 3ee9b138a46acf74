# SPDX-License-Identifier: GPL-2.0-or-later
"""Backtraces: who called the function that is running, from registers, memory and call frame information.

    for each frame     call frame information, if there is some for its pc; it may say that the pc was interrupted
                       else ra, if the function has saved nothing (yet) and all registers are known
                       else the frame pointer s0, if what it points at looks like a frame

A guest's stack may hold anything, so a caller is believed only if it lies in the guest's code behind an instruction
that calls, and a frame only if it lies above the one before. Whatever is not so ends the backtrace: it never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vmrec.errors import UsageError
from vmrec.guest.cfi import REGISTERS, Rule, Rules
from vmrec.guest.symbols import Function, Symbols

__all__ = ["DEPTH_MAX", "Frame", "ReadMemory", "is_call", "unwind"]

#: Frames that a backtrace has at most, unless the caller asks for another number.
DEPTH_MAX = 256

#: Bytes of guest memory from an address on. Raises UsageError where there is no memory.
ReadMemory = Callable[[int, int], bytes]

RA, SP, GP, TP, S0 = 1, 2, 3, 4, 8
#: Registers that a function gives back as it found them (RISC-V ABIs, calling convention): gp, tp, s0..s11.
_KEPT = (GP, TP, 8, 9, *range(18, 28))


@dataclass(frozen=True, slots=True)
class Frame:
    """One function that is running or waits for another one to return.

    `pc`: where it goes on. `site`: an address inside of the instruction that it is at, which is what its line and its
    function are looked up by: `pc`, or in a caller one byte before. `cfa`: sp before the function was called, where
    its frame ends; None if not known. `function`: None if it has no name. `registers`: x0..x31 as the function sees
    them, None for those that the functions it called have not kept. `found`: how this frame was reached.
    """

    pc: int
    site: int
    cfa: int | None
    function: Function | None
    registers: tuple[int | None, ...]
    found: Literal["here", "cfi", "interrupted", "frame-pointer", "return-address"]


def unwind(
    symbols: Symbols,
    pc: int,
    registers: Sequence[int],
    read: ReadMemory,
    *,
    interrupted_pc: int | None = None,
    depth: int = DEPTH_MAX,
) -> list[Frame]:
    """The frames from the one at `pc` outwards: at least that one, at most `depth`.

    `registers` are x0..x31. `interrupted_pc` is where the last trap came from (mepc, sepc): with it the backtrace goes
    on behind a trap handler written in C; without it, and behind a second handler, it ends there.
    """
    walker = _Walker(symbols, read, interrupted_pc)
    frames: list[Frame] = []
    found: _Found | None = _Found(pc, tuple(registers), "here", None)
    while found is not None and len(frames) < max(depth, 1):
        site = found.pc - (found.how in ("cfi", "frame-pointer", "return-address"))
        caller = walker.caller(found, site)
        cfa = None if caller is None else caller.cfa
        frames.append(Frame(found.pc, site, cfa, symbols.function(site), found.registers, found.how))
        found = caller
    return frames


def is_call(word: int, xlen: int) -> bool:
    """Whether an instruction (2 or 4 bytes, little endian) leaves its return address in ra: jal, jalr, c.jalr, c.jal.

    c.jal exists with 32-bit registers only; with 64 its code is another instruction's.
    """
    if word & 3 == 3:
        return word & 0xFFF in (0x0EF, 0x0E7)
    return (word & 0xF07F == 0x9002 and word & 0x0F80 != 0) or (xlen == 32 and word & 0xE003 == 0x2001)


@dataclass(frozen=True, slots=True)
class _Found:
    """A frame before it is known where it ends. `cfa` is that of the frame that it called."""

    pc: int
    registers: tuple[int | None, ...]
    how: Literal["here", "cfi", "interrupted", "frame-pointer", "return-address"]
    cfa: int | None

    @property
    def whole(self) -> bool:
        """Whether all registers are known, and the function may have saved nothing yet."""
        return self.how in ("here", "interrupted")


class _Walker:
    def __init__(self, symbols: Symbols, read: ReadMemory, interrupted_pc: int | None) -> None:
        self._symbols = symbols
        self._read = read
        self._interrupted_pc = interrupted_pc
        self._size = symbols.xlen // 8
        self._mask = (1 << symbols.xlen) - 1

    def caller(self, found: _Found, site: int) -> _Found | None:
        """The frame that called the one in `found`; None if there is none, or none that can be believed."""
        rules = self._symbols.frames.rules(site)
        if rules is not None:
            return self._by_rules(found, rules)
        saved = self._by_frame_pointer(found)
        kept = self._by_return_address(found) if found.whole else None
        # If both say the same, the frame is set up and sp and s0 can be told; else s0 is still the caller's.
        return kept if saved is None or (kept is not None and kept.pc != saved.pc) else saved

    def _by_rules(self, found: _Found, rules: Rules) -> _Found | None:
        base = found.registers[rules.cfa_register]
        if base is None:
            return None
        cfa = base + rules.cfa_offset & self._mask
        below = found.registers[SP]
        # A function that has no frame (yet) shares its end with its caller's; a caller has saved ra at least.
        if below is None or cfa < below or (cfa == below and not found.whole):
            return None
        before = list(found.registers)
        after: list[int | None] = [None] * 32
        after[0] = 0
        for number in range(1, 32) if rules.handler else _KEPT:
            after[number] = before[number]
        after[SP] = cfa
        for number, rule in rules.registers.items():
            if 0 < number < 32:
                after[number] = self._value(rule, cfa, before, number)
        if rules.return_register >= REGISTERS:
            where = rules.registers.get(rules.return_register)
            pc = None if where is None else self._value(where, cfa, before, rules.return_register)
            return None if pc is None else _Found(pc, tuple(after), "interrupted", cfa)
        if rules.handler:
            pc, self._interrupted_pc = self._interrupted_pc, None
            return None if pc is None else _Found(pc, tuple(after), "interrupted", cfa)
        back = rules.return_register
        ra = after[back] if back in rules.registers else (before[RA] if found.whole else None)
        if ra is None or not self._is_return_address(ra):
            return None
        after[RA] = ra
        return _Found(ra, tuple(after), "cfi", cfa)

    def _value(self, rule: Rule, cfa: int, before: list[int | None], number: int) -> int | None:
        if rule.kind == "saved":
            return self._word(cfa + rule.value)
        if rule.kind == "is":
            return cfa + rule.value & self._mask
        if rule.kind == "register":
            return before[rule.value] if rule.value < 32 else None
        return before[number] if rule.kind == "same" and number < 32 else None

    def _by_frame_pointer(self, found: _Found) -> _Found | None:
        """gcc and clang keep ra and the caller's s0 just below what s0 points at (psABI, frame pointer convention)."""
        pointer, below = found.registers[S0], found.registers[SP]
        if pointer is None or below is None or pointer % self._size or pointer <= below:
            return None
        ra, outer = self._word(pointer - self._size), self._word(pointer - 2 * self._size)
        if ra is None or not self._is_return_address(ra):
            return None
        after: list[int | None] = [None] * 32
        after[0], after[RA], after[SP], after[S0] = 0, ra, pointer, outer
        after[GP], after[TP] = found.registers[GP], found.registers[TP]
        return _Found(ra, tuple(after), "frame-pointer", pointer)

    def _by_return_address(self, found: _Found) -> _Found | None:
        ra, below = found.registers[RA], found.registers[SP]
        if ra is None or below is None or not self._is_return_address(ra):
            return None
        here = self._symbols.function(found.pc)
        if here is not None and here.start <= ra < here.end:
            return None  # left over from a call that this function made itself
        after = list(found.registers)
        for number in (*range(5, 8), *range(10, 18), *range(28, 32)):
            after[number] = None
        return _Found(ra, tuple(after), "return-address", below)

    def _is_return_address(self, address: int) -> bool:
        """Whether an instruction that calls stands right before `address`, in the guest's code."""
        if address & 1 or not self._symbols.is_code(address - 1):
            return False
        word = self._bytes(address - 4, 4)
        if word is None or word & 3 != 3 or not is_call(word, self._symbols.xlen):
            word = self._bytes(address - 2, 2)
            return word is not None and word & 3 != 3 and is_call(word, self._symbols.xlen)
        return True

    def _word(self, address: int) -> int | None:
        return self._bytes(address, self._size)

    def _bytes(self, address: int, size: int) -> int | None:
        """The number of `size` bytes at an address; None where there is no memory."""
        try:
            return int.from_bytes(self._read(address & self._mask, size), "little")
        except UsageError:
            return None
