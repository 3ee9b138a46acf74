# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a machine is booted from: raw binaries, ELF files and Linux's `Image`, taken apart into what lies where.

    raw      all bytes at the place that the board has for such a file
    ELF      each segment at its physical address
    Image    raw, and a header that says how much memory it takes and how far from the place it wants to lie

The files are hostile. Source for `Image`: Linux, Documentation/arch/riscv/boot-image-header.rst.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from vmrec.errors import GuestError
from vmrec.guest.elf import FILE_SIZE_MAX, LOADED_TYPES, PT_LOAD, ElfFile, Segment, opened

__all__ = ["BootFile", "LinuxHeader", "linux_header", "read_boot_file"]

#: Largest image, in bytes: as much as RAM can be.
IMAGE_SIZE_MAX = 4 << 30
_LINUX = struct.Struct("<IIQQQIIQ8s4s")
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x02!L\x18": "lz4"}


class LinuxHeader(NamedTuple):
    """What the header of a Linux `Image` says, in bytes: distance from the start of memory, and memory taken."""

    text_offset: int
    image_size: int


@dataclass(frozen=True, slots=True)
class BootFile:
    """An image file. `pieces` lie at physical addresses if it is ELF; else it is raw, and lies where the board says.

    `memory_size` is what a raw file takes in memory, at least its own size. `entry` is the physical address of the
    first instruction of an ELF file; a raw one begins with it. `xlen` is 32, 64, or None if nothing tells.
    """

    kind: str
    path: str
    name: str
    data: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    pieces: tuple[Segment, ...] = ()
    entry: int | None = None
    xlen: int | None = None
    memory_size: int = 0
    linux: LinuxHeader | None = None

    @property
    def is_elf(self) -> bool:
        """Whether it is an ELF file, which may have symbols."""
        return self.entry is not None


def read_boot_file(kind: str, path: str | os.PathLike[str]) -> BootFile:
    """The image in the file `path`; `kind` as in vmrec.guest.boot. Raises GuestError, with the remedy."""
    shown, data = os.fspath(path), _read(path)
    name, hash_ = Path(shown).name, blake3(data).digest()
    if kind in ("bios", "kernel"):
        if data[:4] == b"\x7fELF":
            return _elf(kind, shown, name, data, hash_)
        packed = next((how for magic, how in _PACKED.items() if data.startswith(magic)), None)
        if packed is not None:
            raise GuestError(shown, f"is compressed with {packed}; unpack it first")
    header = linux_header(data, shown) if kind == "kernel" else None
    size = max(len(data), header.image_size if header is not None else 0)
    return BootFile(kind, shown, name, data, hash_, memory_size=size, linux=header)


def _read(path: str | os.PathLike[str]) -> bytes:
    shown = os.fspath(path)
    with opened(path, "image", "image") as file:
        if os.fstat(file.fileno()).st_size > IMAGE_SIZE_MAX:
            raise GuestError(shown, f"is larger than {IMAGE_SIZE_MAX >> 30} GiB, which no machine can hold")
        data = file.read()
    if not data:
        raise GuestError(shown, "is empty; name an image with something in it")
    return data


def linux_header(data: bytes, path: str) -> LinuxHeader | None:
    """What the header of a Linux `Image` says, None if the file has none. Raises GuestError if it cannot be met."""
    if len(data) < _LINUX.size:
        return None
    _, _, text_offset, image_size, _, _, _, _, _, magic = _LINUX.unpack_from(data)
    if magic != b"RSC\x05":
        return None
    if text_offset >= IMAGE_SIZE_MAX or image_size >= IMAGE_SIZE_MAX:
        raise GuestError(
            path,
            f"is a Linux Image whose header asks for {image_size:#x} bytes of memory at an offset of {text_offset:#x}; "
            "build it again",
        )
    return LinuxHeader(text_offset, image_size)


def _elf(kind: str, path: str, name: str, data: bytes, hash_: bytes) -> BootFile:
    if len(data) > FILE_SIZE_MAX:
        raise GuestError(
            path,
            f"is larger than {FILE_SIZE_MAX >> 20} MiB, and a recording holds the ELF file for its symbols; strip it "
            "with `riscv64-unknown-elf-strip -g`, or make it raw with `objcopy -O binary`",
        )
    file = ElfFile(data, path, types=LOADED_TYPES)
    pieces = file.segments()
    return BootFile(
        kind, path, name, data, hash_, pieces=pieces, entry=_physical_entry(file), xlen=file.xlen,
        memory_size=max(piece.end for piece in pieces) - pieces[0].address,
    )  # fmt: skip


def _physical_entry(file: ElfFile) -> int:
    """Kernels are often linked at virtual addresses and loaded at physical ones; the entry point is a virtual one."""
    for virtual, physical, size in _mapped(file):
        if virtual <= file.entry < virtual + size:
            return file.entry - virtual + physical
    file.refuse(
        f"its entry point {file.entry:#x} is in none of its segments; name one when linking, with ENTRY(_start) in the "
        "linker script or `-e _start`"
    )


def _mapped(file: ElfFile) -> Iterator[tuple[int, int, int]]:
    """(virtual address, physical address, size) of each loaded segment."""
    for fields in file.program_headers():
        kind, virtual, physical, size = fields
        if kind == PT_LOAD and size:
            yield virtual, physical, size
