# SPDX-License-Identifier: GPL-2.0-or-later
"""Names and source lines for guest addresses. For reports only: nothing that runs depends on them.

A damaged symbol table or line table gives no names or no lines, never an error: the guest has been loaded already, and
a report without names is better than none.
"""

from __future__ import annotations

import bisect
from functools import cached_property

from vmrec.errors import GuestError
from vmrec.guest.dwarf import DebugSections
from vmrec.guest.elf import ElfFile, Section, Symbol
from vmrec.guest.lines import Lines

__all__ = ["Symbols"]

STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3
STT_FILE = 4
STT_TLS = 6
STB_LOCAL = 0


class Symbols:
    """The symbols and lines of one ELF file.

    Left out: mapping symbols ($x, $d), compiler-made local labels (.L…), names of files and sections.
    """

    def __init__(self, elf: bytes) -> None:
        self._addresses: dict[str, int] = {}
        self.sections = DebugSections(elf)
        self.lines = Lines(self.sections)
        try:
            file = ElfFile(elf, "guest")
            sections = file.sections()
            symbols = [symbol for symbol in file.symbols() if _is_named(symbol)]
        except GuestError:
            sections, symbols = [], []
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
        """The source line of the instruction at `address`, e.g. "race.c:41", or None."""
        row = self.lines.row(address)
        return None if row is None else f"{row.file}:{row.line}"


def _is_named(symbol: Symbol) -> bool:
    return symbol.info & 15 not in (STT_SECTION, STT_FILE, STT_TLS) and not symbol.name.startswith(("$", ".L"))


def _with_offset(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name
