# SPDX-License-Identifier: GPL-2.0-or-later
"""The directories in which the compiler ran, from the first entry of each unit of .debug_info.

Before version 5 only they tell where a relative file name of .debug_line starts.

Source: DWARF 4, sections 3.1.1, 7.5.
"""

from __future__ import annotations

from vmrec.guest.dwarf import Cursor, Damaged, DebugSections

__all__ = ["compile_directories"]

AT_STMT_LIST, AT_COMP_DIR = 0x10, 0x1B
FORM_ADDR, FORM_STRING, FORM_STRP, FORM_INDIRECT, FORM_REF_ADDR = 0x01, 0x08, 0x0E, 0x16, 0x10
_SIZES = {0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8, 0x19: 0, 0x20: 8}
_OFFSETS = (0x17,)  # sec_offset
_BLOCKS = {0x03: 2, 0x04: 4, 0x0A: 1}  # the length is a number of so many bytes
_LEB_BLOCKS = (0x09, 0x18)  # block, exprloc
_LEBS = (0x0D, 0x0F, 0x15)  # sdata, udata, ref_udata
#: Attributes of abbreviations, and units, that are read at most.
WORK_MAX = 1 << 20

_Abbreviations = dict[int, list[tuple[int, int]]]


def compile_directories(sections: DebugSections) -> dict[int, str]:
    """Offset of a line program in .debug_line → directory of its unit, for units before version 5."""
    found: dict[int, str] = {}
    info = Cursor(sections.content(".debug_info"))
    reader = _Reader(sections)
    for _ in range(WORK_MAX):
        if not info.left:
            break
        try:
            unit, offset_size = info.unit()
        except Damaged:
            break
        try:
            program, directory = reader.unit(unit, offset_size)
        except Damaged:
            continue
        if program is not None and directory is not None:
            found.setdefault(program, directory)
    return found


class _Reader:
    def __init__(self, sections: DebugSections) -> None:
        self._strings = sections.content(".debug_str")
        self._abbreviations = sections.content(".debug_abbrev")
        self._tables: dict[int, _Abbreviations] = {}
        self._work = 0

    def unit(self, unit: Cursor, offset_size: int) -> tuple[int | None, str | None]:
        """(offset of the line program, directory) of a unit, as far as it has them."""
        version = unit.number(2)
        if not 2 <= version <= 4:
            raise Damaged("a unit whose line program has the directory itself")
        table = self._table(unit.number(offset_size))
        address_size = unit.byte()
        program = directory = None
        for attribute, form in table.get(unit.uleb(), []):
            value = self._value(unit, form, address_size, offset_size, version)
            if attribute == AT_STMT_LIST and isinstance(value, int):
                program = value
            elif attribute == AT_COMP_DIR and isinstance(value, str):
                directory = value
        return program, directory

    def _value(self, unit: Cursor, form: int, address_size: int, offset_size: int, version: int) -> int | str:
        while form == FORM_INDIRECT:
            form = unit.uleb()
        if form in _SIZES:
            return unit.number(_SIZES[form])
        if form == FORM_ADDR or (form == FORM_REF_ADDR and version == 2):
            return unit.number(address_size)
        if form in _OFFSETS or form == FORM_REF_ADDR:
            return unit.number(offset_size)
        if form == FORM_STRP:
            return Cursor(self._strings, unit.number(offset_size)).text()
        if form == FORM_STRING:
            return unit.text()
        if form in _LEBS:
            return unit.uleb()
        if form in _BLOCKS:
            unit.skip(unit.number(_BLOCKS[form]))
            return 0
        if form in _LEB_BLOCKS:
            unit.skip(unit.uleb())
            return 0
        raise Damaged("an attribute in an unknown form")

    def _table(self, offset: int) -> _Abbreviations:
        """Code → (attribute, form) of each abbreviation in the table at `offset`."""
        if offset not in self._tables:
            table: _Abbreviations = {}
            cursor = Cursor(self._abbreviations, offset)
            while code := cursor.uleb():
                cursor.uleb()  # tag
                cursor.skip(1)  # has children
                attributes = table.setdefault(code, [])
                while True:
                    self._work += 1
                    if self._work > WORK_MAX:
                        raise Damaged("too many abbreviations")
                    pair = cursor.uleb(), cursor.uleb()
                    if pair == (0, 0):
                        break
                    attributes.append(pair)
            self._tables[offset] = table
        return self._tables[offset]
