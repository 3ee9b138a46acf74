# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading debug sections: a cursor over hostile bytes, and the sections of an ELF file that a debugger wants.

Debug sections come with the guest and are as hostile as it is, and big in a kernel. So they are read here, with a bound
on everything, instead of by a library that reads whole sections and trusts the counts in them. A compressed section is
as good as none: a few bytes could unpack to any size.

Source: DWARF Debugging Information Format, versions 4 and 5, chapter 7.
"""

from __future__ import annotations

from vmrec.errors import GuestError
from vmrec.guest.elf import LOADED_TYPES, SHF_ALLOC, SHT_NOBITS, ElfFile

__all__ = ["Cursor", "Damaged", "DebugSections"]

SHF_EXECINSTR = 0x4
SHF_COMPRESSED = 0x800
#: Longest name of a file or directory, in bytes; Linux allows as much for a path.
STRING_MAX = 4096
_NAMES = (".debug_line", ".debug_line_str", ".debug_str", ".debug_info", ".debug_abbrev", ".debug_frame", ".eh_frame")


class Damaged(ValueError):
    """A debug section does not hold what it should. Never leaves this package."""


class Cursor:
    """A place in `data`, from `place` up to `end`. Reading past the end raises Damaged."""

    __slots__ = ("data", "end", "place")

    def __init__(self, data: bytes, place: int = 0, end: int | None = None) -> None:
        self.data = data
        self.place = place
        self.end = len(data) if end is None else end
        if not 0 <= place <= self.end <= len(data):
            raise Damaged("a place outside of its section")

    @property
    def left(self) -> int:
        """Bytes up to the end."""
        return self.end - self.place

    def skip(self, count: int) -> None:
        """Passes over `count` bytes."""
        if not 0 <= count <= self.end - self.place:
            raise Damaged("cut off")
        self.place += count

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self.place
        self.skip(count)
        return self.data[start : self.place]

    def number(self, size: int, *, signed: bool = False) -> int:
        """A little-endian number of `size` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def byte(self) -> int:
        """The next byte."""
        place = self.place
        if place >= self.end:
            raise Damaged("cut off")
        self.place = place + 1
        return self.data[place]

    def uleb(self) -> int:
        """An unsigned LEB128 number of at most 70 bits."""
        place = self.place
        if place < self.end and (byte := self.data[place]) < 0x80:  # nearly always
            self.place = place + 1
            return byte
        return self._leb()[0]

    def sleb(self) -> int:
        """A signed LEB128 number of at most 70 bits."""
        value, bits = self._leb()
        return value - (1 << bits) if value >> (bits - 1) else value

    def _leb(self) -> tuple[int, int]:
        data, value, bits = self.data, 0, 0
        for here in range(self.place, min(self.place + 10, self.end)):
            byte = data[here]
            value |= (byte & 0x7F) << bits
            bits += 7
            if byte < 0x80:
                self.place = here + 1
                return value, bits
        raise Damaged("a number without an end")

    def text(self) -> str:
        """A zero-terminated string of at most `STRING_MAX` bytes."""
        start = self.place
        stop = self.data.find(b"\0", start, min(self.end, start + STRING_MAX))
        if stop < 0:
            raise Damaged("a string without an end")
        self.place = stop + 1
        return self.data[start:stop].decode("utf-8", "replace")

    def unit(self) -> tuple[Cursor, int]:
        """What an initial length introduces, and the size of an offset in it (4 or 8). The cursor goes past it."""
        size, length = 4, self.number(4)
        if length == 0xFFFF_FFFF:
            size, length = 8, self.number(8)
        start = self.place
        self.skip(length)
        return Cursor(self.data, start, self.place), size


class DebugSections:
    """The debug sections of one ELF file, and where its code and data lie. A damaged file has none."""

    def __init__(self, elf: bytes) -> None:
        self._elf = elf
        self._places: dict[str, tuple[range, int]] = {}
        self._loaded: list[range] = []
        self._code: list[range] = []
        self.xlen = 32
        try:
            file = ElfFile(elf, "guest", types=LOADED_TYPES)
            self.xlen = file.xlen
            sections = file.sections()
        except GuestError:
            return
        for section in sections:
            if section.flags & SHF_ALLOC and section.size:
                where = range(section.address, section.address + section.size)
                self._loaded.append(where)
                if section.flags & SHF_EXECINSTR:
                    self._code.append(where)
            if section.name in _NAMES and section.type != SHT_NOBITS and not section.flags & SHF_COMPRESSED:
                place = range(section.offset, section.offset + section.size)
                self._places.setdefault(section.name, (place, section.address))

    def content(self, name: str) -> bytes:
        """The bytes of the section called `name`; empty if there is none that can be read."""
        place, _ = self._places.get(name, (range(0), 0))
        return self._elf[place.start : place.stop]

    def address(self, name: str) -> int:
        """The address of the section called `name`."""
        return self._places.get(name, (range(0), 0))[1]

    def is_loaded(self, address: int) -> bool:
        """Whether `address` is in a section that is loaded, or just behind one.

        The debug information of a function that the linker dropped stays, at address 0.
        """
        return any(where.start <= address <= where.stop for where in self._loaded)

    def is_code(self, address: int) -> bool:
        """Whether `address` is in a section of instructions."""
        return any(address in where for where in self._code)
