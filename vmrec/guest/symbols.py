# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for guest addresses, and addresses for names. For reports and debuggers: nothing that runs depends on them.

A damaged symbol table gives no names, never an error: the guest has been loaded already, and a report without names is
better than none. `lines` and `frames` hold what the debug sections say beside.
"""

from __future__ import annotations

import bisect
import difflib
import re
from functools import cached_property
from typing import NamedTuple

from vmrec.errors import GuestError, UsageError
from vmrec.guest.cfi import CallFrames
from vmrec.guest.dwarf import DebugSections
from vmrec.guest.elf import LOADED_TYPES, ElfFile, Section, Symbol
from vmrec.guest.lines import Lines

__all__ = ["Function", "Symbols"]

STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3
STT_FILE = 4
STT_TLS = 6
STB_LOCAL = 0


class Function(NamedTuple):
    """A function's code: from `start` up to, not including, `end`."""

    name: str
    start: int
    end: int


class Symbols:
    """The symbols, lines and call frames of a guest's ELF files, mostly of one; what the first one says counts.

    Left out: mapping symbols ($x, $d), compiler-made local labels (.L…), names of files and sections.
    """

    def __init__(self, *elfs: bytes) -> None:
        parts = [DebugSections(elf) for elf in elfs or (b"",)]
        self._parts = parts
        self.sections = parts[0]
        self.lines = Lines(*parts)
        self.frames = CallFrames(*parts)
        self.xlen = self.sections.xlen
        symbols: list[Symbol] = []
        sections: list[Section] = []
        for elf in elfs:
            try:
                file = ElfFile(elf, "guest", types=LOADED_TYPES)
                found = [symbol for symbol in file.symbols() if _is_named(symbol)]
                more = file.sections()
            except GuestError:
                continue
            symbols += [symbol._replace(section=_moved(symbol.section, len(more), len(sections))) for symbol in found]
            sections += more
        self._build(symbols, sections)

    def _build(self, symbols: list[Symbol], sections: list[Section]) -> None:
        # At one address the first of equals is shown: global before local, typed before bare label, then by name.
        symbols.sort(key=lambda s: (s.address, s.info >> 4 == STB_LOCAL, s.info & 15 == 0, s.name))
        self._sized: dict[int, tuple[int, str]] = {}
        self._labels: dict[int, tuple[int, str]] = {}
        data: set[int] = set()
        for symbol in symbols:
            if symbol.size:
                self._sized.setdefault(symbol.address, (symbol.address + symbol.size, symbol.name))
            elif symbol.section < len(sections):
                section = sections[symbol.section]
                self._labels.setdefault(symbol.address, (section.address + section.size, symbol.name))
            if symbol.info & 15 == STT_OBJECT:
                data.add(symbol.address)
        self._sized_starts = sorted(self._sized)
        self._label_starts = sorted(self._labels)
        self._data = data
        # Static names may be there several times: the global one counts, else that at the lowest address.
        symbols.sort(key=lambda s: s.info >> 4 == STB_LOCAL)
        self._by_name: dict[str, Symbol] = {}
        for symbol in symbols:
            self._by_name.setdefault(symbol.name, symbol)

    # --- names to addresses ---

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._by_name))

    def address(self, text: str) -> int | None:
        """The address that `text` means: a symbol "main", "main+0x10", or a number "0x80000000"; None if nothing."""
        if text in self._by_name:
            return self._by_name[text].address
        name, plus, offset = text.rpartition("+")
        base = 0 if not plus else self._by_name[name.strip()].address if name.strip() in self._by_name else None
        number = _number(offset)
        if base is None or number is None or base + number >= 1 << self.xlen:
            return None
        return base + number

    def resolve(self, text: str) -> int:
        """As `address`. Raises UsageError, with near names, if `text` means nothing."""
        found = self.address(text)
        if found is not None:
            return found
        name = text.rpartition("+")[0].strip() or text
        if _number(name) is not None or name in self._by_name:
            raise UsageError(f"{text!r} is no address of this {self.xlen}-bit guest")
        raise UsageError(f"the guest has no symbol {name!r}. {self._hint(name)}")

    def suggestions(self, name: str) -> list[str]:
        """Up to three names that look like `name`, the nearest first."""
        folded: dict[str, str] = {}
        for known in self.names:
            folded.setdefault(known.casefold(), known)
        return [folded[near] for near in difflib.get_close_matches(name.casefold(), folded, n=3)]

    def _hint(self, name: str) -> str:
        near = self.suggestions(name)
        if near:
            return f"Did you mean {' or '.join(near)}?"
        if self.names:
            return "Give an address such as 0x80000000, or one of the names that `readelf -s` lists."
        return "It was stripped of all symbols: give an address such as 0x80000000."

    def size(self, name: str) -> int | None:
        """How many bytes the object or function called `name` has; None if that is not known."""
        symbol = self._by_name.get(name)
        return symbol.size or None if symbol is not None else None

    # --- addresses to names ---

    def lookup(self, address: int) -> str | None:
        """Where `address` is, e.g. "main" or "main+0x4"; None outside of everything that has a name.

        A symbol with a size covers its own bytes. A bare label covers what follows it, up to the next symbol with a
        size and not past the end of its section.
        """
        start = self._start(address)
        if start is None:
            return None
        _, name = self._covering(start, address)
        return f"{name}+{address - start:#x}" if address > start else name

    def is_code(self, address: int) -> bool:
        """Whether `address` is in a section of instructions."""
        return any(part.is_code(address) for part in self._parts)

    def function(self, address: int) -> Function | None:
        """The function that has code at `address`, also one that is a bare label in assembly; None if there is none."""
        if not self.is_code(address):
            return None
        start = self._start(address)
        if start is None or start in self._data:
            return None
        end, name = self._covering(start, address)
        if start not in self._sized:
            for starts in (self._sized_starts, self._label_starts):
                place = bisect.bisect_right(starts, address)
                end = min(end, starts[place]) if place < len(starts) else end
        return Function(name, start, end)

    def _start(self, address: int) -> int | None:
        """Where the symbol that covers `address` starts."""
        place = bisect.bisect_right(self._sized_starts, address)
        start = self._sized_starts[place - 1] if place else -1
        if place and address < self._sized[start][0]:
            return start
        place = bisect.bisect_right(self._label_starts, address)
        if place and (label := self._label_starts[place - 1]) > start and address < self._labels[label][0]:
            return label
        return None

    def _covering(self, start: int, address: int) -> tuple[int, str]:
        """(end, name) of the symbol at `start` that covers `address`."""
        sized = self._sized.get(start)
        return sized if sized is not None and address < sized[0] else self._labels[start]

    # --- lines ---

    def line(self, address: int) -> str | None:
        """The source line of the instruction at `address`, e.g. "race.c:41", or None."""
        row = self.lines.row(address)
        return None if row is None else str(row)

    def breakpoints(self, file: str, line: int) -> tuple[int, tuple[int, ...]] | None:
        """Where to stop at a line: the line itself, or the next one that has code, and addresses, one per function.

        A line can begin several times in one function (the parts of a `for`): the lowest address is meant. In several
        functions it begins if it was inlined. `file` as in `Lines.matching`; None if there is no such line.
        """
        nearest = self.lines.nearest(file, line)
        if nearest is None:
            return None
        first: dict[int, int] = {}
        for address in self.lines.statements(file, nearest):
            function = self.function(address)
            first.setdefault(address if function is None else function.start, address)
        return nearest, tuple(sorted(first.values()))


def _moved(section: int, count: int, base: int) -> int:
    """The index of a section behind `base` others; what is no index stays none."""
    return section + base if section < count else 0xFFFF_FFFF


def _is_named(symbol: Symbol) -> bool:
    return symbol.info & 15 not in (STT_SECTION, STT_FILE, STT_TLS) and not symbol.name.startswith(("$", ".L"))


def _number(text: str) -> int | None:
    """A number as people write addresses: 0x80000000 or 2147483648."""
    text = text.strip()
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        return int(text, 16)
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None
