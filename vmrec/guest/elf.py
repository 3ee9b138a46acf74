# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading a guest: an ELF file becomes segments, an entry point and what the machine must know about it.

The file is hostile: it comes from anywhere, also out of a trace. Everything that the machine depends on is read here,
with every offset checked; `vmrec.guest.symbols` gives names and source lines, which only reports depend on.

Sources: Tool Interface Standard, ELF 1.2; System V ABI, ELF-64; RISC-V ELF psABI 1.0 (e_flags, attributes section).
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from blake3 import blake3

from vmrec.errors import GuestError
from vmrec.guest.boot import Boot

__all__ = [
    "FILE_SIZE_MAX", "ElfFile", "Guest", "Segment", "Symbol", "check_fits", "is_program", "load_guest",
    "opened", "parse_guest",
]  # fmt: skip

#: Largest guest file, in bytes. A trace holds the whole file in one frame (vmrec.trace.layout.MAX_GUEST).
FILE_SIZE_MAX = 63 << 20

ET_EXEC = 2
ET_DYN = 3
#: Firmware is often position independent, and is loaded where it says all the same.
LOADED_TYPES = (ET_EXEC, ET_DYN)
EM_RISCV = 243
PT_LOAD = 1
SHT_SYMTAB = 2
SHT_NOBITS = 8
SHT_RISCV_ATTRIBUTES = 0x70000003
SHF_ALLOC = 0x2
EF_RISCV_RVC = 0x1
EF_RISCV_FLOAT_ABI = 0x6
SHN_UNDEF = 0

#: Extensions of the toy ISA, as they appear in an arch string. Zmmul is the multiplying half of M.
_TOY_EXTENSIONS = {"i", "m", "zicsr", "zifencei", "zmmul"}

_OTHER_MACHINES = {
    2: "SPARC",
    3: "32-bit x86",
    8: "MIPS",
    20: "PowerPC",
    21: "64-bit PowerPC",
    22: "S/390",
    40: "32-bit Arm",
    62: "x86-64",
    183: "64-bit Arm",
    258: "LoongArch",
}
_OTHER_TYPES = {
    1: "is a relocatable object; link it first",
    3: "is position independent (a PIE or a shared library); link it with `-static -no-pie`, so that it has addresses",
    4: "is a core dump, not a program",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """One loadable piece of the guest.

    `address` is physical; `data` are the bytes from the file, followed in memory by zeros up to `memory_size` bytes.
    `flags` are the ELF's (1 execute, 2 write, 4 read) and bind nothing in machine mode. `number` is the index in the
    program header table, as readelf shows it.
    """

    address: int
    data: bytes = field(repr=False)
    memory_size: int
    flags: int
    number: int

    @property
    def end(self) -> int:
        """First address after the segment."""
        return self.address + self.memory_size


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest program, ready to be put into a machine.

    `name` is the file's name without directory and `.elf`; `path` the file as the user named it. `data` is the whole
    file and `hash` its BLAKE3 (32 bytes). `isa` is the profile that the file seems to be built for: "rv32im" (the toy
    ISA), "rv32gc" or "rv64gc". `tohost` is the address of the symbol of that name, or None.

    A guest made of several images has `boot`. Then `data` is the ELF file that reports take names from first, empty if
    there is none, `more_elfs` others, and out of a trace it has no segments: its pages are there.
    """

    name: str
    path: str
    data: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    xlen: int
    entry: int
    segments: tuple[Segment, ...]
    isa: str
    tohost: int | None
    boot: Boot | None = None
    more_elfs: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def elfs(self) -> tuple[bytes, ...]:
        """Every ELF file with names and lines of it."""
        return tuple(elf for elf in (self.data, *self.more_elfs) if elf)


class Section(NamedTuple):
    """A section header; `offset` and `size` lie inside the file unless `type` is SHT_NOBITS."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


class Symbol(NamedTuple):
    """A defined entry of the symbol table. `info` holds binding << 4 | type; `section` is an index."""

    name: str
    address: int
    size: int
    info: int
    section: int


def is_program(head: bytes) -> bool:
    """Whether a file that begins with `head` (64 bytes of it) is, or was meant as, an ELF program for RISC-V.

    Objects, libraries and programs for others are not. What is cut off or otherwise damaged is for `load_guest` to say.
    """
    if head[:4] != b"\x7fELF":
        return False
    return len(head) < 20 or struct.unpack_from("<HH", head, 16) == (ET_EXEC, EM_RISCV)


@contextmanager
def opened(path: str | os.PathLike[str], what: str, wanted: str) -> Iterator[BinaryIO]:
    """The regular file `path`, to read `what` from. Raises GuestError, with the remedy: to name the `wanted`."""
    shown = os.fspath(path)
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise GuestError(shown, f"is not a regular file; copy the {what} into one")
            yield file
    except FileNotFoundError:
        raise GuestError(shown, "there is no such file") from None
    except IsADirectoryError:
        raise GuestError(shown, f"is a directory; name the {wanted} in it") from None
    except OSError as error:
        raise GuestError(shown, f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a zero byte in the path
        raise GuestError(shown, f"cannot be a path: {error}") from None


def load_guest(path: str | os.PathLike[str]) -> Guest:
    """The guest in the ELF file `path`. Raises GuestError, with the remedy, if it cannot be one."""
    with opened(path, "guest", "ELF file") as file:
        data = file.read(FILE_SIZE_MAX + 1)
    shown = os.fspath(path)
    return parse_guest(data, Path(shown).name.removesuffix(".elf"), path=shown)


def parse_guest(data: bytes, name: str, path: str | None = None) -> Guest:
    """The guest whose ELF file has the bytes `data`, as when it is stored in a trace.

    `path` is what errors name, `name` if it is left out. Raises GuestError.
    """
    file = ElfFile(data, path or name)
    segments = file.segments()
    if not any(segment.address <= file.entry < segment.end for segment in segments):
        file.refuse(
            f"its entry point {file.entry:#x} is in none of its segments; name one when linking, "
            "with ENTRY(_start) in the linker script or `-e _start`"
        )
    tohost = next((symbol.address for symbol in file.symbols() if symbol.name == "tohost"), None)
    return Guest(
        name=name,
        path=path or name,
        data=data,
        hash=blake3(data).digest(),
        xlen=file.xlen,
        entry=file.entry,
        segments=segments,
        isa=file.isa(),
        tohost=tohost,
    )


def check_fits(guest: Guest, ram_base: int, ram_size: int) -> None:
    """Raises GuestError unless every byte of every segment lies in the RAM of `ram_size` bytes at `ram_base`."""
    ram_end = ram_base + ram_size
    for segment in guest.segments:
        if ram_base <= segment.address and segment.end <= ram_end:
            continue
        if segment.address < ram_base:
            remedy = f"Link the guest at {ram_base:#x}; programs for Linux and other systems cannot run bare."
        else:
            remedy = f"Give it more memory with --ram {-((ram_base - segment.end) >> 20)}M."
            if segment.end - ram_base > 1 << 40:
                remedy = f"Link the guest at {ram_base:#x}."
        raise GuestError(
            guest.path,
            f"segment {segment.number} occupies {segment.address:#x}…{segment.end - 1:#x}, "
            f"outside RAM, which is {ram_base:#x}…{ram_end - 1:#x}. {remedy}",
        )


class ElfFile:
    """The parts of a RISC-V ELF file, each read when it is asked for. Raises GuestError for whatever is wrong."""

    def __init__(self, data: bytes, path: str, types: tuple[int, ...] = (ET_EXEC,)) -> None:
        self.data = data
        self.path = path
        if not data:
            self.refuse("is empty")
        if len(data) > FILE_SIZE_MAX:
            self.refuse(f"is larger than {FILE_SIZE_MAX >> 20} MiB; strip it with `riscv64-unknown-elf-strip -g`")
        if data[:4] != b"\x7fELF":
            self.refuse("is not an ELF file; vmrec runs ELF programs built for bare RISC-V machines")
        if len(data) < 52 or data[4] not in (1, 2):
            self.refuse("has a damaged ELF header (cut off, or of no known class)")
        if data[5] != 1:
            self.refuse("is big-endian; build it for little-endian RISC-V")
        self.xlen = 32 * data[4]
        layout = "<HHIIIIIHHHHHH" if self.xlen == 32 else "<HHIQQQIHHHHHH"
        header = self.unpack(layout, 16, "the ELF header")
        (kind, machine, _, self.entry, self._phoff, self._shoff, self.flags) = header[:7]
        (_, self._phentsize, self._phnum, self._shentsize, self._shnum, self._shstrndx) = header[7:]
        if machine != EM_RISCV:
            other = _OTHER_MACHINES.get(machine, f"another machine (number {machine})")
            self.refuse(f"is built for {other}, not for RISC-V")
        if kind not in types:
            self.refuse(_OTHER_TYPES.get(kind, f"has ELF type {kind}, which is not an executable"))

    def refuse(self, reason: str) -> NoReturn:
        """Raises GuestError for this file."""
        raise GuestError(self.path, reason)

    def unpack(self, layout: str, offset: int, what: str) -> tuple[int, ...]:
        """`struct.unpack_from`, with an error that names `what` if it is not all inside the file."""
        if offset + struct.calcsize(layout) > len(self.data):
            self.refuse(f"is cut off: {what} lies outside the file's {len(self.data)} bytes")
        return struct.unpack_from(layout, self.data, offset)

    # -- what is loaded

    def segments(self) -> tuple[Segment, ...]:
        """The loadable segments by address: at least one, none overlapping another, none empty."""
        layout = "<IIIIIIII" if self.xlen == 32 else "<IIQQQQQQ"
        if self._phnum and self._phentsize != struct.calcsize(layout):
            self.refuse(f"has program headers of {self._phentsize} bytes instead of {struct.calcsize(layout)}")
        found = []
        for number in range(self._phnum):
            fields = self.unpack(layout, self._phoff + number * self._phentsize, f"program header {number}")
            if self.xlen == 32:
                kind, offset, _, address, file_size, memory_size, flags, _ = fields
            else:
                kind, flags, offset, _, address, file_size, memory_size, _ = fields
            if kind == PT_LOAD and (memory_size or file_size):
                found.append(self._segment(number, address, offset, file_size, memory_size, flags))
        if not found:
            self.refuse("has no loadable segment (PT_LOAD); it has nothing to run")
        found.sort(key=lambda segment: segment.address)
        for before, after in itertools.pairwise(found):
            if before.end > after.address:
                self.refuse(
                    f"its segments {before.number} ({before.address:#x}…{before.end - 1:#x}) and {after.number} "
                    f"({after.address:#x}…{after.end - 1:#x}) overlap; correct the linker script"
                )
        return tuple(found)

    def _segment(self, number: int, address: int, offset: int, file_size: int, memory_size: int, flags: int) -> Segment:
        if file_size > memory_size:
            self.refuse(f"segment {number} has more bytes in the file ({file_size}) than in memory ({memory_size})")
        if offset + file_size > len(self.data):
            self.refuse(
                f"is cut off: segment {number} needs bytes {offset}…{offset + file_size - 1} of a file that has "
                f"{len(self.data)}"
            )
        if address + memory_size > 1 << self.xlen:
            self.refuse(f"segment {number} at {address:#x} goes past the end of the {self.xlen}-bit address space")
        return Segment(address, self.data[offset : offset + file_size], memory_size, flags, number)

    def program_headers(self) -> Iterator[tuple[int, int, int, int]]:
        """(type, virtual address, physical address, size in memory) of each; `segments` checks the table before."""
        layout = "<IIIIIIII" if self.xlen == 32 else "<IIQQQQQQ"
        for number in range(self._phnum):
            fields = self.unpack(layout, self._phoff + number * self._phentsize, f"program header {number}")
            if self.xlen == 32:
                yield fields[0], fields[2], fields[3], fields[5]
            else:
                yield fields[0], fields[3], fields[4], fields[6]

    # -- what is told about it

    def sections(self) -> list[Section]:
        """All section headers, in the order of their indexes (empty if the file has none)."""
        if not self._shoff or not self._shnum:
            return []
        layout = "<IIIIIIIIII" if self.xlen == 32 else "<IIQQQQIIQQ"
        if self._shentsize != struct.calcsize(layout):
            self.refuse(f"has section headers of {self._shentsize} bytes instead of {struct.calcsize(layout)}")
        raw = []
        for number in range(self._shnum):
            fields = self.unpack(layout, self._shoff + number * self._shentsize, f"section header {number}")
            offset, size = fields[4:6]
            if fields[1] not in (0, SHT_NOBITS) and offset + size > len(self.data):
                self.refuse(f"is cut off: section {number} lies outside the file's {len(self.data)} bytes")
            raw.append(fields)
        names = b""
        if self._shstrndx < len(raw) and raw[self._shstrndx][1] != SHT_NOBITS:
            offset, size = raw[self._shstrndx][4:6]
            names = self.data[offset : offset + size]
        return [
            Section(_string(names, f[0]), f[1], f[2], address=f[3], offset=f[4], size=f[5], link=f[6]) for f in raw
        ]

    def symbols(self) -> Iterator[Symbol]:
        """The defined symbols with a name, in the order of the symbol table."""
        sections = self.sections()
        table = next((section for section in sections if section.type == SHT_SYMTAB), None)
        if table is None or table.link >= len(sections):
            return
        strings = sections[table.link]
        names = b"" if strings.type == SHT_NOBITS else self.data[strings.offset : strings.offset + strings.size]
        layout = struct.Struct("<IIIBBH" if self.xlen == 32 else "<IBBHQQ")
        count = table.size // layout.size
        for fields in layout.iter_unpack(self.data[table.offset : table.offset + count * layout.size]):
            if self.xlen == 32:
                name, address, size, info, _, section = fields
            else:
                name, info, _, section, address, size = fields
            if section != SHN_UNDEF and (text := _string(names, name)):
                yield Symbol(text, address, size, info, section)

    def isa(self) -> str:
        """The profile that the file seems to be built for."""
        wide = f"rv{self.xlen}gc"
        if self.xlen != 32 or self.flags & (EF_RISCV_RVC | EF_RISCV_FLOAT_ABI):
            return wide
        arch = self.arch()
        return wide if arch is not None and not _extensions(arch) <= _TOY_EXTENSIONS else "rv32im"

    def arch(self) -> str | None:
        """The arch string that compiler and linker left, e.g. "rv32i2p1_m2p0_zicsr2p0", or None."""
        for section in self.sections():
            if section.type == SHT_RISCV_ATTRIBUTES:
                return _arch_attribute(self.data[section.offset : section.offset + section.size])
        return None


def _string(table: bytes, offset: int) -> str:
    """The zero-terminated string at `offset` of a string table ("" outside of it)."""
    end = table.find(b"\0", offset)
    return table[offset : end if end >= 0 else len(table)].decode("utf-8", "replace")


def _arch_attribute(section: bytes) -> str | None:
    """Tag_RISCV_arch (5) of the file subsection (1) of vendor "riscv"; None if it is not there or damaged."""
    place = section.find(b"riscv\0")
    if section[:1] != b"A" or place != 5:
        return None
    place += 6
    if section[place : place + 1] != b"\x01":
        return None
    place += 5  # subsection tag and its length
    while place < len(section):
        tag, place = _uleb128(section, place)
        if tag % 2:  # odd tags hold a string, even ones a number
            text = _string(section, place)
            if tag == 5:
                return text
            place += len(text.encode("utf-8")) + 1
        else:
            _, place = _uleb128(section, place)
    return None


def _uleb128(data: bytes, place: int) -> tuple[int, int]:
    """An unsigned LEB128 number of at most 64 bits and the place after it (the end of `data` if it is cut off)."""
    value = 0
    for count, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value, place + count + 1
    return value, len(data)


def _extensions(arch: str) -> set[str]:
    """The extension names in an arch string, without versions."""
    found: set[str] = set()
    for part in re.sub(r"^rv(32|64)", "", arch.lower()).split("_"):
        if part[:1] in ("z", "s", "x"):
            found.add(re.sub(r"\d+(p\d+)?$", "", part))
        else:
            found.update(re.findall(r"([a-z])(?:\d+(?:p\d+)?)?", part))
    if "g" in found:
        found |= set("imafd")
    return found
