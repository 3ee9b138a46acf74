#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Make a disk for the kernel: a file system as fs.h draws it, with the files that are given.

    python guests/kernel/mkfs.py disk.img --blocks 96 greeting=hello.txt guests/bin/kernel-sh.elf
    python guests/kernel/mkfs.py disk.img --list

NAME=FILE puts FILE there under NAME. The same files make the same bytes.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

BLOCK = 4096
MAGIC = 0x736B6474
INODE_BLOCK, INODE_BLOCKS = 2, 2
FIRST_DATA = INODE_BLOCK + INODE_BLOCKS
NAME_SIZE, FILE_BLOCKS = 28, 24
INODE = struct.Struct(f"<{NAME_SIZE}sI{FILE_BLOCKS}I")
INODES = INODE_BLOCKS * BLOCK // INODE.size


def make(files: Mapping[str, bytes], blocks: int) -> bytes:
    """The image, `blocks` * 4096 bytes; names as given, in that order. Raises ValueError for what does not fit."""
    if not FIRST_DATA <= blocks <= 8 * BLOCK:
        raise ValueError(f"a disk has {FIRST_DATA} to {8 * BLOCK} blocks, not {blocks}")
    if len(files) > INODES:
        raise ValueError(f"{len(files)} files; there are {INODES} inodes")
    inodes, contents, free = [], [], FIRST_DATA
    for name, content in files.items():
        encoded = name.encode("ascii")
        needed = -(-len(content) // BLOCK)
        if not 0 < len(encoded) < NAME_SIZE:
            raise ValueError(f"{name!r}: a name has 1 to {NAME_SIZE - 1} characters")
        if needed > FILE_BLOCKS:
            raise ValueError(f"{name}: {len(content)} bytes; a file has {FILE_BLOCKS * BLOCK} at most")
        numbers = [*range(free, free + needed), *[0] * (FILE_BLOCKS - needed)]
        free += needed
        inodes.append(INODE.pack(encoded, len(content), *numbers))
        contents.append(content.ljust(needed * BLOCK, b"\0"))
    if free > blocks:
        raise ValueError(f"the files need {free} blocks; the disk has {blocks}")
    superblock = struct.pack("<II", MAGIC, blocks).ljust(BLOCK, b"\0")
    bitmap = ((1 << free) - 1).to_bytes(BLOCK, "little")
    table = b"".join(inodes).ljust(INODE_BLOCKS * BLOCK, b"\0")
    return (superblock + bitmap + table + b"".join(contents)).ljust(blocks * BLOCK, b"\0")


def read(image: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of an image. Raises ValueError if it is not one."""
    if len(image) < FIRST_DATA * BLOCK or struct.unpack_from("<I", image)[0] != MAGIC:
        raise ValueError("this is not a disk of the kernel")
    for number in range(INODES):
        name, size, *blocks = INODE.unpack_from(image, INODE_BLOCK * BLOCK + number * INODE.size)
        if name[0]:
            content = b"".join(image[block * BLOCK :][:BLOCK] if block else bytes(BLOCK) for block in blocks)
            yield name.rstrip(b"\0").decode("ascii", "replace"), content[:size]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("files", nargs="*", metavar="[NAME=]FILE")
    parser.add_argument("--blocks", type=int, default=96, help="size of the disk in blocks of 4096 bytes; 96")
    parser.add_argument("--list", action="store_true", help="print the files of an image that is there")
    options = parser.parse_args()
    try:
        if options.list:
            for name, content in read(options.image.read_bytes()):
                print(f"{name} {len(content)}")
            return 0
        files = {}
        for argument in options.files:
            name, equals, path = argument.rpartition("=")
            files[name if equals else Path(path).name] = Path(path).read_bytes()
        options.image.write_bytes(make(files, options.blocks))
    except (OSError, ValueError) as error:
        print(f"mkfs.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
