# SPDX-License-Identifier: GPL-2.0-or-later
"""The line programs of .debug_line, run: which source line each stretch of instructions comes from.

    unit_length  version  …  header_length  minimum_instruction_length  [maximum_operations, from 4 on]
    default_is_stmt  line_base  line_range  opcode_base  standard_opcode_lengths
    directories  files                      in version 5 with their own formats, before as lists of strings
    program                                 opcodes up to the end of the unit

A program is damaged, or of an unknown version: the others still count. Source: DWARF 4 and 5, section 6.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vmrec.guest.dwarf import Cursor, Damaged, DebugSections
from vmrec.guest.units import compile_directories

__all__ = ["ROWS_MAX", "FileName", "TableRow", "line_rows"]

#: Rows and names that are read at most, so that a crafted table cannot fill the memory. Linux has some four million.
ROWS_MAX = 1 << 22
FILES_MAX = 1 << 18

# Opcodes: standard ones, then extended ones.
COPY, ADVANCE_PC, ADVANCE_LINE, SET_FILE, SET_COLUMN, NEGATE_STMT = 1, 2, 3, 4, 5, 6
CONST_ADD_PC, FIXED_ADVANCE_PC = 8, 9
END_SEQUENCE, SET_ADDRESS, DEFINE_FILE = 1, 2, 3
# Contents and forms of the entries of version 5.
PATH, DIRECTORY_INDEX = 1, 2
FORM_SIZES = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}
FORM_BLOCK, FORM_STRING, FORM_STRP, FORM_UDATA, FORM_LINE_STRP = 0x09, 0x08, 0x0E, 0x0F, 0x1F


class FileName(NamedTuple):
    """A source file: `short` with its directory if that is a relative one, `path` with all directories known of it."""

    short: str
    path: str


class TableRow(NamedTuple):
    """From `address` on, the instructions come from `line` of `file`; from nowhere if `file` is None.

    `statement`: a good place for a breakpoint (DWARF's is_stmt). `end`: the sequence of rows ends here.
    """

    address: int
    file: FileName | None
    line: int
    statement: bool
    end: bool


def line_rows(sections: DebugSections) -> Iterator[TableRow]:
    """The rows of all line programs, in the order of the section. Damaged programs end early."""
    table = Cursor(sections.content(".debug_line"))
    directories = compile_directories(sections)
    rows = files = 0
    while table.left:
        offset = table.place
        try:
            unit, offset_size = table.unit()
        except Damaged:
            return
        try:
            program = _Program(sections, unit, offset_size, directories.get(offset, ""))
            files += len(program.files)
            if files > FILES_MAX:
                return
            for row in program.rows():
                rows += 1
                if rows > ROWS_MAX:
                    return
                yield row
        except Damaged:
            pass  # what was read until here is good


class _Program:
    """One line program: its header read, ready to be run once."""

    def __init__(self, sections: DebugSections, unit: Cursor, offset_size: int, compile_directory: str) -> None:
        self._sections = sections
        self._unit = unit
        self._offset_size = offset_size
        self.version = unit.number(2)
        if not 2 <= self.version <= 5:
            raise Damaged("a line program of an unknown version")
        if self.version >= 5:
            unit.skip(2)  # sizes of addresses and segment selectors
        header_length = unit.number(offset_size)
        start = unit.place + header_length
        self._minimum_length = unit.byte()
        if self.version >= 4:
            unit.skip(1)  # operations per instruction: RISC-V has no long instruction words
        self._default_statement = bool(unit.byte())
        self._line_base = unit.number(1, signed=True)
        self._line_range = unit.byte()
        self._opcode_base = unit.byte()
        if not self._line_range or not self._opcode_base:
            raise Damaged("a line program that divides by zero")
        self._lengths = unit.take(self._opcode_base - 1)
        if self.version >= 5:
            self._directories = [name for name, _ in self._entries()]
            entries = self._entries()
        else:
            self._directories = [compile_directory, *self._strings()]
            entries = list(self._old_files())
        self.files = [self._file(name, directory) for name, directory in entries]
        if start > unit.end:
            raise Damaged("a line program outside of its unit")
        unit.place = start

    # --- names ---

    def _strings(self) -> Iterator[str]:
        while name := self._unit.text():
            yield name

    def _old_files(self) -> Iterator[tuple[str, int]]:
        yield "?", 0  # they are counted from 1
        for name in self._strings():
            yield name, self._old_file_rest()

    def _old_file_rest(self) -> int:
        directory = self._unit.uleb()
        self._unit.uleb()  # time of modification
        self._unit.uleb()  # size
        return directory

    def _entries(self) -> list[tuple[str, int]]:
        """Directories or files of version 5, as (name, index of the directory)."""
        unit = self._unit
        formats = [(unit.uleb(), unit.uleb()) for _ in range(unit.byte())]
        count = unit.uleb()
        if count > unit.left or (count and not formats):
            raise Damaged("more names than bytes")
        found = []
        for _ in range(count):
            name, directory = "?", 0
            for content, form in formats:
                value = self._value(form)
                if content == PATH and isinstance(value, str):
                    name = value
                elif content == DIRECTORY_INDEX and isinstance(value, int):
                    directory = value
            found.append((name, directory))
        return found

    def _value(self, form: int) -> int | str:
        unit = self._unit
        if form in FORM_SIZES:
            return unit.number(FORM_SIZES[form])
        if form == FORM_STRING:
            return unit.text()
        if form in (FORM_LINE_STRP, FORM_STRP):
            strings = self._sections.content(".debug_line_str" if form == FORM_LINE_STRP else ".debug_str")
            return Cursor(strings, unit.number(self._offset_size)).text()
        if form == FORM_UDATA:
            return unit.uleb()
        if form == FORM_BLOCK:
            unit.skip(unit.uleb())
            return 0
        raise Damaged("a name in an unknown form")

    def _file(self, name: str, directory: int) -> FileName:
        """Directory 0 is the compiler's own. A short name leaves out what only says where somebody compiled."""
        if name.startswith("/") or not 0 <= directory < len(self._directories):
            return FileName(name.rpartition("/")[2], name)
        own, parent = self._directories[0], self._directories[directory]
        if not directory or parent.startswith("/") or parent in ("", "."):
            return FileName(name, _joined(own if parent in ("", ".") else parent, name))
        return FileName(_joined(parent, name), _joined(own, _joined(parent, name)))

    # --- rows ---

    def rows(self) -> Iterator[TableRow]:
        """Runs the program."""
        unit, files = self._unit, self.files
        while unit.left:
            address, file, line, statement = 0, 1, 1, self._default_statement
            ended = False
            while not ended:
                opcode = unit.byte()
                if opcode >= self._opcode_base:
                    advance, step = divmod(opcode - self._opcode_base, self._line_range)
                    address += advance * self._minimum_length
                    line += self._line_base + step
                elif opcode == ADVANCE_PC:
                    address += unit.uleb() * self._minimum_length
                elif opcode == ADVANCE_LINE:
                    line += unit.sleb()
                elif opcode == SET_FILE:
                    file = unit.uleb()
                elif opcode == NEGATE_STMT:
                    statement = not statement
                elif opcode == CONST_ADD_PC:
                    address += (255 - self._opcode_base) // self._line_range * self._minimum_length
                elif opcode == FIXED_ADVANCE_PC:
                    address += unit.number(2)
                elif opcode == 0:
                    kind, operand = self._extended()
                    ended = kind == END_SEQUENCE
                    if kind == SET_ADDRESS:
                        address = operand
                elif opcode != COPY:
                    for _ in range(self._lengths[opcode - 1]):
                        unit.uleb()
                if ended:
                    yield TableRow(address, None, 0, False, True)
                elif opcode == COPY or opcode >= self._opcode_base:
                    known = files[file] if file < len(files) and line > 0 else None
                    yield TableRow(address, known, line, statement, False)
                if not unit.left:
                    break

    def _extended(self) -> tuple[int, int]:
        """An extended opcode and its operand, if it is one that matters here."""
        unit = self._unit
        length = unit.uleb()
        if not 1 <= length <= unit.left:
            raise Damaged("an extended opcode of no length")
        after = unit.place + length
        kind, operand = unit.byte(), 0
        if kind == SET_ADDRESS and length <= 9:
            operand = unit.number(length - 1)
        elif kind == DEFINE_FILE and self.version < 5 and len(self.files) < FILES_MAX:
            name = unit.text()
            self.files.append(self._file(name, self._old_file_rest()))
        unit.place = after
        return kind, operand


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory and not name.startswith("/") else name
