# SPDX-License-Identifier: GPL-2.0-or-later
"""Names and source lines for guest addresses. For reports only: nothing that runs depends on them.

A damaged symbol table or line table gives no names or no lines, never an error: the guest has been loaded already, and
a report without names is better than none.
"""

from __future__ import annotations

import bisect
import io
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from vmrec.errors import GuestError
from vmrec.guest.elf import SHF_ALLOC, ElfFile, Section, Symbol

__all__ = ["Symbols"]

STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3
STT_FILE = 4
STT_TLS = 6
STB_LOCAL = 0
SHF_COMPRESSED = 0x800

#: What pyelftools lets out when the tables that it reads are damaged.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class Symbols:
    """The symbols and lines of one ELF file.

    Left out: mapping symbols ($x, $d), compiler-made local labels (.L…), names of files and sections.
    """

    def __init__(self, elf: bytes) -> None:
        self._elf = elf
        self._addresses: dict[str, int] = {}
        self._lines: list[tuple[int, str | None]] | None = None
        try:
            file = ElfFile(elf, "guest")
            sections = file.sections()
            symbols = [symbol for symbol in file.symbols() if _is_named(symbol)]
        except GuestError:
            sections, symbols = [], []
        self._compressed = any(section.flags & SHF_COMPRESSED for section in sections)
        self._loaded = [range(s.address, s.address + s.size + 1) for s in sections if s.flags & SHF_ALLOC]
        self._build(symbols, sections)

    def _build(self, symbols: list[Symbol], sections: list[Section]) -> None:
        # At one address the first of equals is shown: global before local, typed before bare label, then by name.
        symbols.sort(key=lambda s: (s.address, s.info >> 4 == STB_LOCAL, s.info & 15 == 0, s.name))
        sized: dict[int, tuple[int, str]] = {}
        labels: dict[int, tuple[int, str]] = {}
        for symbol in symbols:
            self._addresses.setdefault(symbol.name, symbol.address)
            if symbol.size:
                sized.setdefault(symbol.address, (symbol.address + symbol.size, symbol.name))
            elif symbol.section < len(sections):
                section = sections[symbol.section]
                labels.setdefault(symbol.address, (section.address + section.size, symbol.name))
        self._sized = sorted(sized)
        self._sized_at = sized
        self._labels = sorted(labels)
        self._labels_at = labels

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._addresses))

    def address(self, name: str) -> int | None:
        """The address of the symbol called `name`, or None."""
        return self._addresses.get(name)

    def lookup(self, address: int) -> str | None:
        """Where `address` is, e.g. "main" or "main+0x4"; None outside of everything that has a name.

        A symbol with a size covers its own bytes. A bare label covers what follows it, up to the next symbol with a
        size and not past the end of its section.
        """
        start = -1
        place = bisect.bisect_right(self._sized, address)
        if place:
            start = self._sized[place - 1]
            end, name = self._sized_at[start]
            if address < end:
                return _with_offset(name, address - start)
        place = bisect.bisect_right(self._labels, address)
        if place and (label := self._labels[place - 1]) > start:
            end, name = self._labels_at[label]
            if address < end:
                return _with_offset(name, address - label)
        return None

    def line(self, address: int) -> str | None:
        """The source line of the instruction at `address`, e.g. "race.c:41", or None. The first call reads DWARF."""
        if self._lines is None:
            self._lines = self._read_lines()
        place = bisect.bisect_right(self._lines, address, key=lambda row: row[0])
        return self._lines[place - 1][1] if place else None

    def _read_lines(self) -> list[tuple[int, str | None]]:
        """(address, "file:line") by address; a gap starts with (address, None)."""
        if self._compressed:  # a few bytes could unpack to any size
            return []
        # Imported here: it costs 50 ms, and most commands show no lines.
        from elftools.common.exceptions import DWARFError, ELFError
        from elftools.elf.elffile import ELFFile

        rows: dict[int, str | None] = {}
        try:
            file = ELFFile(io.BytesIO(self._elf))
            if file.has_dwarf_info(strict=True):
                dwarf = file.get_dwarf_info(relocate_dwarf_sections=False)
                for unit in dwarf.iter_CUs():
                    for address, line in _line_rows(dwarf, unit):
                        # A function that the linker dropped has its lines at address 0. And where one sequence ends
                        # and the next begins, the beginning counts.
                        loaded = any(address in section for section in self._loaded)
                        if loaded and (line is not None or address not in rows):
                            rows[address] = line
        except (*_DAMAGE, DWARFError, ELFError):
            pass  # what was read until here is good
        return sorted(rows.items(), key=lambda row: row[0])


def _is_named(symbol: Symbol) -> bool:
    return symbol.info & 15 not in (STT_SECTION, STT_FILE, STT_TLS) and not symbol.name.startswith(("$", ".L"))


def _with_offset(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name


def _line_rows(dwarf: Any, unit: Any) -> Iterator[tuple[int, str | None]]:
    """(address, "file:line") for each row of a unit's line program, (address, None) at the end of a sequence."""
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return
    names: dict[int, str] = {}
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if state.end_sequence:
            yield state.address, None
        elif state.line:
            if state.file not in names:
                names[state.file] = _file_name(program.header, state.file)
            yield state.address, f"{names[state.file]}:{state.line}"


def _file_name(header: Any, index: int) -> str:
    """The name of file `index` of a line program, with its directory if that is a relative one.

    DWARF 5 counts files and directories from 0; before, files and directories counted from 1, and directory 0 was
    the compiler's own.
    """
    old = header.version < 5
    files = header.file_entry
    place = index - 1 if old else index
    if not 0 <= place < len(files):
        return "?"
    name = _text(files[place].name)
    place = files[place].dir_index - 1 if old else files[place].dir_index
    directories = header.include_directory
    if name.startswith("/") or not 0 <= place < len(directories):
        return name.rpartition("/")[2]
    directory = _text(directories[place])
    return name if directory.startswith("/") or directory in ("", ".") else f"{directory}/{name}"


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
