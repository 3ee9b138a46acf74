# SPDX-License-Identifier: GPL-2.0-or-later
"""Call frame information: how to find the caller's registers, from .debug_frame or .eh_frame.

    entry    length  id  …        id all ones (.eh_frame: 0): a CIE, what several functions have in common
                                  else an FDE: offset of its CIE, address and size of a function, instructions
    rules    instructions of the CIE, then of the FDE up to the address in question, make one row of rules:
             the CFA (the value of sp before the call) and where each register of the caller is

Only the headers are read to find a function; instructions are run when somebody asks. The sections are hostile: what is
damaged, too long, or needs a DWARF expression gives no rules. Sources: DWARF 5, section 6.4; Linux Standard Base Core
5.0, chapter 10.6 (.eh_frame); RISC-V DWARF Specification 1.0.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple

from vmrec.guest.dwarf import Cursor, Damaged, DebugSections

__all__ = ["CallFrames", "Rule", "Rules"]

#: Functions that are known at most, bytes of instructions that are run for one, and states remembered on the way.
FUNCTIONS_MAX = 1 << 20
INSTRUCTIONS_MAX = 1 << 16
REMEMBERED_MAX = 64
#: DWARF numbers of x0..x31 and f0..f31; rules for other registers (CSRs, vectors) are passed over.
REGISTERS = 64
#: Those of CSRs. One can be the return register, as sepc in code that a trap enters.
CSRS = range(4096, 8192)


#: t0..t2, a0..a7, t3..t6: what a function need not give back.
_CALLER_SAVED = frozenset((*range(5, 8), *range(10, 18), *range(28, 32)))


class Rule(NamedTuple):
    """Where the caller's value of a register is.

    saved: in memory at CFA + `value`. is: CFA + `value` itself. register: in the register of number `value`.
    same: it still has it. lost: nowhere.
    """

    kind: Literal["saved", "is", "register", "same", "lost"]
    value: int = 0


class Rules(NamedTuple):
    """The rules at one address.

    CFA = register `cfa_register` + `cfa_offset`. `registers` by DWARF number: 0..31 are x0..x31. `return_register`
    holds the return address in the caller's set; if it is neither x nor f, the pc of what was interrupted. `handler`:
    the function was not called, but interrupted another one: somewhere it saves registers that a function may use up.
    """

    cfa_register: int
    cfa_offset: int
    registers: dict[int, Rule]
    return_register: int
    handler: bool


class _Common(NamedTuple):
    """A CIE. `encoding` is how its FDEs write addresses (.eh_frame); `instructions` where its own begin and end."""

    code_align: int
    data_align: int
    return_register: int
    encoding: int
    augmented: bool
    instructions: tuple[int, int]


class _Function(NamedTuple):
    """An FDE for the code from `start` up to `end`; its instructions are in `section`."""

    start: int
    end: int
    common: _Common
    section: bytes
    instructions: tuple[int, int]


class CallFrames:
    """The call frame information of a guest's ELF files. Nothing is read before the first question."""

    def __init__(self, *sections: DebugSections) -> None:
        self._sections = sections

    def rules(self, address: int) -> Rules | None:
        """The rules where the instruction at `address` is about to execute; None if there are none."""
        starts, functions = self._index
        place = bisect.bisect_right(starts, address) - 1
        if place < 0 or address >= functions[place].end:
            return None
        try:
            return _run(functions[place], address)
        except Damaged:
            return None

    @cached_property
    def _index(self) -> tuple[list[int], list[_Function]]:
        """All functions by start. If both sections know one, .debug_frame counts."""
        known: dict[int, _Function] = {}
        for sections, name in itertools.product(self._sections, (".debug_frame", ".eh_frame")):
            for function in _Reader(sections, name).functions():
                if len(known) < FUNCTIONS_MAX and sections.is_loaded(function.start):
                    known.setdefault(function.start, function)
        starts = sorted(known)
        return starts, [known[start] for start in starts]


# ----------------------------------------------------------------------------------------------------------- headers


class _Reader:
    """The entries of one section."""

    def __init__(self, sections: DebugSections, name: str) -> None:
        self._content = sections.content(name)
        self._address = sections.address(name)
        self._exceptions = name == ".eh_frame"
        self._address_size = sections.xlen // 8
        self._commons: dict[int, _Common | None] = {}

    def functions(self) -> Iterator[_Function]:
        """The FDEs, as far as they are whole."""
        section = Cursor(self._content)
        while section.left:
            try:
                entry, size = section.unit()
            except Damaged:
                return
            try:
                function = self._function(entry, size)
            except Damaged:
                continue
            if function is not None and function.end > function.start:
                yield function

    def _function(self, entry: Cursor, size: int) -> _Function | None:
        """The FDE in `entry`; None for a CIE and for the end mark of .eh_frame."""
        if not entry.left:
            return None
        here = entry.place
        pointer = entry.number(size)
        if self._is_common(pointer, size):
            return None
        common = self._common(here - pointer if self._exceptions else pointer)
        if common is None:
            return None
        start = self._pointer(entry, common.encoding)
        length = self._pointer(entry, common.encoding & 0x0F)
        if common.augmented:
            entry.skip(entry.uleb())
        return _Function(start, start + length, common, self._content, (entry.place, entry.end))

    def _is_common(self, pointer: int, size: int) -> bool:
        return pointer == (0 if self._exceptions else (1 << 8 * size) - 1)

    def _common(self, offset: int) -> _Common | None:
        """The CIE at `offset`; None if it is damaged or of an unknown kind."""
        if offset not in self._commons:
            try:
                self._commons[offset] = self._read_common(offset)
            except Damaged:
                self._commons[offset] = None
        return self._commons[offset]

    def _read_common(self, offset: int) -> _Common:
        entry, size = Cursor(self._content, offset).unit()
        if not self._is_common(entry.number(size), size):
            raise Damaged("a CIE that is none")
        version = entry.byte()
        augmentation = entry.text()
        sized = augmentation.startswith("z")
        if version not in (1, 3, 4) or not (sized or augmentation in ("", "S")):  # S: entered by a trap
            raise Damaged("a CIE of an unknown kind")
        if version == 4 and (entry.byte() != self._address_size or entry.byte() != 0):
            raise Damaged("addresses of another size")
        code_align, data_align = entry.uleb(), entry.sleb()
        return_register = entry.byte() if version == 1 else entry.uleb()
        encoding = 0
        if sized:
            length = entry.uleb()
            after = entry.place + length
            for letter in augmentation[1:]:
                if letter == "R":
                    encoding = entry.byte()
                elif letter == "P":
                    self._pointer(entry, entry.byte() & 0x0F)
                elif letter == "L":
                    entry.skip(1)
                elif letter != "S":
                    break
            entry.skip(after - entry.place)
        if return_register >= REGISTERS and return_register not in CSRS:
            raise Damaged("a return address in no register")
        where = entry.place, entry.end
        return _Common(code_align, data_align, return_register, encoding, sized, where)

    def _pointer(self, entry: Cursor, encoding: int) -> int:
        """An address, or a size, written as `encoding` says (0: as a plain address)."""
        base = self._address + entry.place if encoding & 0x70 == 0x10 else 0
        if encoding & 0x70 not in (0, 0x10) or encoding & 0x80:
            raise Damaged("an address relative to something unknown")
        form = encoding & 0x0F
        if form == 1:
            value = entry.uleb()
        elif form == 9:
            value = entry.sleb()
        elif form in _POINTERS:
            value = entry.number(_POINTERS[form] or self._address_size, signed=form >= 0x0A)
        else:
            raise Damaged("an address in an unknown form")
        return base + value & (1 << 8 * self._address_size) - 1


#: Sizes of the fixed forms of addresses; 0: that of the machine's addresses.
_POINTERS = {0x00: 0, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}


# ------------------------------------------------------------------------------------------------------- instructions


class _Row:
    """The row of rules as far as instructions have been run, and those that come back with restore_state."""

    def __init__(self, common: _Common) -> None:
        self.common = common
        self.cfa = (2, 0)
        self.cfa_known = True
        self.registers: dict[int, Rule] = {}
        self.initial: dict[int, Rule] = {}
        self.remembered: list[tuple[tuple[int, int], bool, dict[int, Rule]]] = []
        self.saves_all = False

    def set(self, register: int, rule: Rule) -> None:
        if register < REGISTERS or register == self.common.return_register:
            self.registers[register] = rule
            self.saves_all |= rule.kind == "saved" and register in _CALLER_SAVED

    def restore(self, register: int) -> None:
        if register in self.initial:
            self.registers[register] = self.initial[register]
        else:
            self.registers.pop(register, None)

    def remember(self) -> None:
        if len(self.remembered) >= REMEMBERED_MAX:
            raise Damaged("too many states to remember")
        self.remembered.append((self.cfa, self.cfa_known, dict(self.registers)))

    def recall(self) -> None:
        if not self.remembered:
            raise Damaged("no state to restore")
        self.cfa, self.cfa_known, self.registers = self.remembered.pop()


def _run(function: _Function, address: int) -> Rules:
    """The rules of `function` at `address`."""
    row, whole = _row(function, address), _row(function, function.end)
    if not row.cfa_known:
        raise Damaged("a CFA that is an expression")
    return Rules(*row.cfa, row.registers, function.common.return_register, whole.saves_all)


def _row(function: _Function, address: int) -> _Row:
    row = _Row(function.common)
    _execute(row, Cursor(function.section, *function.common.instructions), 0, 0)
    row.initial = dict(row.registers)
    _execute(row, Cursor(function.section, *function.instructions), function.start, address)
    return row


def _execute(row: _Row, code: Cursor, location: int, address: int) -> None:
    """Runs instructions until they are about what comes after `address`."""
    if code.left > INSTRUCTIONS_MAX:
        raise Damaged("instructions without an end")
    align = row.common.code_align
    while code.left:
        opcode = code.byte()
        high, low = opcode >> 6, opcode & 0x3F
        if high == 1:  # advance_loc
            location += low * align
        elif high == 2:  # offset
            row.set(low, Rule("saved", code.uleb() * row.common.data_align))
        elif high == 3:  # restore
            row.restore(low)
        elif low in _ADVANCES:  # advance_loc1, 2, 4
            location += code.number(_ADVANCES[low]) * align
        elif low == 0x0A:  # remember_state
            row.remember()
        elif low == 0x0B:  # restore_state
            row.recall()
        elif low in _CFA_RULES:
            _define_cfa(row, low, code)
        elif low:  # nop is 0
            _define_register(row, low, code)
        if location > address:
            return


_ADVANCES = {0x02: 1, 0x03: 2, 0x04: 4}
_CFA_RULES = (0x0C, 0x0D, 0x0E, 0x0F, 0x12, 0x13)


def _define_cfa(row: _Row, opcode: int, code: Cursor) -> None:
    register, offset = row.cfa
    if opcode == 0x0F:  # def_cfa_expression
        code.skip(code.uleb())
        row.cfa_known = False
        return
    if opcode in (0x0C, 0x0D, 0x12):  # def_cfa, def_cfa_register, def_cfa_sf
        register = code.uleb()
    if opcode in (0x0C, 0x0E):  # def_cfa, def_cfa_offset
        offset = code.uleb()
    elif opcode in (0x12, 0x13):  # def_cfa_sf, def_cfa_offset_sf
        offset = code.sleb() * row.common.data_align
    if register >= 32:
        raise Damaged("a CFA that is in no integer register")
    row.cfa = register, offset
    row.cfa_known = row.cfa_known or opcode in (0x0C, 0x12)


def _define_register(row: _Row, opcode: int, code: Cursor) -> None:
    scale = row.common.data_align
    if opcode == 0x2E:  # GNU_args_size
        code.uleb()
        return
    register = code.uleb()
    match opcode:
        case 0x05:  # offset_extended
            row.set(register, Rule("saved", code.uleb() * scale))
        case 0x11:  # offset_extended_sf
            row.set(register, Rule("saved", code.sleb() * scale))
        case 0x14:  # val_offset
            row.set(register, Rule("is", code.uleb() * scale))
        case 0x15:  # val_offset_sf
            row.set(register, Rule("is", code.sleb() * scale))
        case 0x06:  # restore_extended
            row.restore(register)
        case 0x07:  # undefined
            row.set(register, Rule("lost"))
        case 0x08:  # same_value
            row.set(register, Rule("same"))
        case 0x09:  # register
            row.set(register, Rule("register", code.uleb()))
        case 0x10 | 0x16:  # expression, val_expression: not evaluated
            code.skip(code.uleb())
            row.set(register, Rule("lost"))
        case _:
            raise Damaged("an unknown instruction")
