# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that GDB and its plug-ins read through the connection: the guest's ELF, and a little of Linux's /proc.

So GDB finds the symbols in the recording itself. Nothing of the host can be reached, and nothing can be written.

Source: the GDB manual, appendices E.7 (host I/O packets) and E.13 (file-I/O, for the form of `struct stat`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from vmrec.debug.target import MemoryRegion

__all__ = ["Files", "guest_files"]

_ENOENT, _EBADF, _EACCES, _EMFILE, _EINVAL = 2, 9, 13, 24, 22
_OPEN_MAX = 64
_WRITING = 0x3 | 0x8 | 0x200 | 0x400  # O_WRONLY, O_RDWR, O_APPEND, O_CREAT, O_TRUNC of file-I/O
_REGULAR_READABLE = 0o100444
#: Clients make up a number for a process that has none.
_PROCESS = re.compile(r"^/proc/[0-9]+/")


def guest_files(name: str, elfs: tuple[bytes, ...], regions: tuple[MemoryRegion, ...]) -> dict[str, bytes]:
    """The files of a guest: its ELF under `name`, and of any process number what plug-ins look for.

    Of several ELF files the others are name-1.elf, name-2.elf and so on.
    """
    elf = elfs[0] if elfs else b""
    others = {f"/{name.removesuffix('.elf')}-{number}.elf": more for number, more in enumerate(elfs[1:], 1)}
    maps = "".join(
        f"{region.start:08x}-{region.end:08x} {'rwxp' if region.kind == 'ram' else 'r-xp'} 00000000 00:00 0 "
        f"[{region.name}]\n"
        for region in regions
    )
    return {
        f"/{name}": elf,
        **others,
        "/proc/self/exe": elf,
        "/proc/self/maps": maps.encode(),
        "/proc/self/cmdline": name.encode() + b"\0",
        "/proc/self/environ": b"",
        "/proc/self/auxv": b"",
        "/proc/self/status": b"",
    }


class Files:
    """Open files among `files`, name → content."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._open: dict[int, bytes] = {}

    def answer(self, request: bytes) -> bytes:
        """The reply to a request without its `vFile:`; empty if it is not known here."""
        operation, _, rest = request.partition(b":")
        arguments = rest.split(b",")
        try:
            match operation, len(arguments):
                case b"setfs", 1:
                    return b"F0"
                case b"open", 3:
                    return self._opened(bytes.fromhex(arguments[0].decode()), int(arguments[1], 16))
                case b"close", 1:
                    return _failed(_EBADF) if self._open.pop(int(arguments[0], 16), None) is None else b"F0"
                case b"pread", 3:
                    return self._read(*(int(argument, 16) for argument in arguments))
                case b"fstat", 1:
                    return self._status(int(arguments[0], 16))
                case b"readlink", 1:
                    return _failed(_EINVAL)
                case (b"unlink", 1) | (b"pwrite", _):
                    return _failed(_EACCES)
        except ValueError:
            return _failed(_EINVAL)
        return b""

    def _opened(self, name: bytes, flags: int) -> bytes:
        content = self._files.get(_PROCESS.sub("/proc/self/", name.decode("latin-1")))
        if content is None:
            return _failed(_ENOENT)
        if flags & _WRITING:
            return _failed(_EACCES)
        if len(self._open) >= _OPEN_MAX:
            return _failed(_EMFILE)
        number = next(number for number in range(3, 4 + _OPEN_MAX) if number not in self._open)
        self._open[number] = content
        return b"F%x" % number

    def _read(self, number: int, size: int, offset: int) -> bytes:
        content = self._open.get(number)
        if content is None:
            return _failed(_EBADF)
        piece = content[offset : offset + min(size, 1 << 15)]
        return b"F%x;" % len(piece) + piece

    def _status(self, number: int) -> bytes:
        content = self._open.get(number)
        if content is None:
            return _failed(_EBADF)
        size = len(content)
        return b"F40;" + struct.pack(
            ">7I3Q3I", 0, number, _REGULAR_READABLE, 1, 0, 0, 0, size, 4096, (size + 511) // 512, 0, 0, 0
        )


def _failed(number: int) -> bytes:
    return b"F-1,%x" % number
