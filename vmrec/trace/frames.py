# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames, links and the seek table as bytes in a file: where they are, and whether each follows the one before.

No object is looked at here. The functions raise Malformed, with the offset in the file as `at`; who knows the path
makes a TraceError of it.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from blake3 import blake3

from vmrec.errors import TraceError, UsageError
from vmrec.trace.codec import Malformed, decompress, pack, unpack_stream
from vmrec.trace.layout import (
    HASH_SIZE,
    LINK_FIELDS,
    LINK_MAGIC,
    LINK_VERSION,
    MAX_FRAME_DISK,
    MAX_FRAMES,
    MAX_LINK_PAYLOAD,
    NO_HASH,
    SEEK_FOOTER_MAGIC,
    SEEK_MAGIC,
    ZSTD_MAGIC,
)

__all__ = [
    "ByteSource",
    "CutShort",
    "Damaged",
    "FrameInfo",
    "FrameTable",
    "link_bytes",
    "link_hash",
    "packed_frame",
    "parse_link",
    "read_frame",
    "seek_table",
]

_SKIPPABLE = struct.Struct("<II")
_SEEK_ENTRY = struct.Struct("<II")
_SEEK_FOOTER = struct.Struct("<IBI")
_BLOCK_MAX = 128 << 10  # zstd's largest block
_MAX_BLOCKS = 1 << 17
_SMALL_READ = 1 << 12
_LARGE_READ = 1 << 20
_RLE, _RESERVED = 1, 3  # two of zstd's block types


class Damaged(Malformed):
    """A place in the file does not hold what it should; `at` is its offset."""

    def __init__(self, at: int, reason: str) -> None:
        self.at = at
        super().__init__(reason)


class CutShort(Damaged):
    """The file ends where more is needed."""


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """What the link says of one frame: number, byte offset and length in the file, positions, hash (32 bytes).

    `rows`: it holds nothing but rows.
    """

    index: int
    offset: int
    length: int
    first: int
    last: int
    rows: bool
    link: bytes


# ----------------------------------------------------------------------------------------------------------- bytes


class ByteSource:
    """A regular file, read by offset.

    Not mapped into memory: a mapped file that someone truncates kills the process that looks at it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises UsageError if there is no such file or it may not be read, TraceError if it is not a regular file."""
        self.path = os.fspath(path)
        try:
            # O_NONBLOCK: opening a FIFO must not wait for its other end.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"{self.path}: cannot be opened ({reason}); `vmrec ls` lists traces") from error
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise TraceError(self.path, None, f"is {what}; name a trace, usually *.vmrec")
        self._file = io.FileIO(descriptor, "rb")
        self.size = 0
        self.refresh()

    def refresh(self) -> None:
        """Looks at the file's size again. Raises UsageError if it was closed."""
        self.require_open()
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer at the end of the file.

        Raises Damaged if the disk fails, UsageError if the file was closed.

        An `offset` before the file, where the end of a short one may be looked for, means its beginning.
        """
        offset = max(offset, 0)
        self.require_open()
        try:
            return os.pread(self._file.fileno(), max(0, min(size, self.size - offset)), offset)
        except OSError as error:
            raise Damaged(offset, f"cannot be read ({error.strerror})") from error

    def close(self) -> None:
        """Gives the file back; harmless when closed already."""
        self._file.close()

    def require_open(self) -> None:
        """Raises UsageError if the file was closed."""
        if self._file.closed:
            raise UsageError(f"{self.path}: was closed before this was asked; open it again")


# ----------------------------------------------------------------------------------------------------------- links


def link_hash(previous: bytes, frame: bytes, fields: list[int]) -> bytes:
    """The hash (32 bytes) that binds a frame to the link before it; `fields` are the link's numbers."""
    hasher = blake3(previous)
    hasher.update(frame)
    hasher.update(pack(fields))
    return hasher.digest()


def link_bytes(fields: list[int], hash_: bytes) -> bytes:
    """A link as it stands in the file."""
    payload = pack([*fields, hash_])
    return _SKIPPABLE.pack(LINK_MAGIC, len(payload)) + payload


def parse_link(payload: bytes) -> tuple[list[int], bytes]:
    """The numbers and the hash of a link's payload. Raises Malformed."""
    values = list(unpack_stream(payload))
    link = values[0] if len(values) == 1 else None
    if type(link) is not list or len(link) != len(LINK_FIELDS):
        raise Malformed("is not a link")
    *numbers, hash_ = link
    if not all(type(number) is int and 0 <= number < 2**64 for number in numbers):
        raise Malformed("is a link with a field that is not a number from 0 to 2**64-1")
    if numbers[0] != LINK_VERSION:
        raise Malformed(f"is a link of version {numbers[0]}, expected {LINK_VERSION}")
    if type(hash_) is not bytes or len(hash_) != HASH_SIZE:
        raise Malformed(f"is a link whose hash does not have {HASH_SIZE} bytes")
    return numbers, hash_


def _read_link(source: ByteSource, offset: int) -> tuple[list[int], bytes, int]:
    """The link at `offset`: numbers, hash, and its size in the file. Raises CutShort or Damaged."""
    data = source.read(offset, _SKIPPABLE.size + MAX_LINK_PAYLOAD)
    expected = LINK_MAGIC.to_bytes(4, "little")
    if data[:4] != expected[: len(data)]:
        raise Damaged(offset, "is not a link")
    if len(data) < _SKIPPABLE.size:
        raise CutShort(offset, "the file ends inside a link")
    size = int.from_bytes(data[4:8], "little")
    if size > MAX_LINK_PAYLOAD:
        raise Damaged(offset, "is a link of impossible size")
    payload = data[_SKIPPABLE.size : _SKIPPABLE.size + size]
    if len(payload) < size:
        raise CutShort(offset, "the file ends inside a link")
    try:
        numbers, hash_ = parse_link(payload)
    except Malformed as error:
        raise Damaged(offset, str(error)) from error
    return numbers, hash_, _SKIPPABLE.size + size


# ---------------------------------------------------------------------------------------------------------- frames


def zstd_length(source: ByteSource, offset: int) -> int:
    """Bytes of the zstd frame at `offset`, by walking its block headers. Raises CutShort or Damaged."""
    start, window = offset, source.read(offset, _SMALL_READ)
    if window[:4] != ZSTD_MAGIC.to_bytes(4, "little")[: len(window)]:
        raise Damaged(offset, "is not a zstd frame")

    def byte_range(at: int, size: int) -> bytes:
        nonlocal start, window
        if not start <= at <= at + size <= start + len(window):
            start, window = at, source.read(at, max(size, _SMALL_READ))
        data = window[at - start : at - start + size]
        if len(data) < size:
            raise CutShort(offset, "the file ends inside a frame")
        return data

    descriptor = byte_range(offset, 5)[4]
    single_segment = descriptor & 0x20
    if descriptor & 0x1B or not descriptor & 0x04:
        raise Damaged(offset, "is not a zstd frame with a checksum and without a dictionary")
    content_size_bytes = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    at = offset + 5 + (0 if single_segment else 1) + content_size_bytes
    for _ in range(_MAX_BLOCKS):
        block = int.from_bytes(byte_range(at, 3), "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        if kind == _RESERVED or size > _BLOCK_MAX or not (size or last):
            raise Damaged(at, "is not a block of a zstd frame")
        at += 3 + (1 if kind == _RLE else size)
        if at - offset > MAX_FRAME_DISK:
            break
        if last:
            byte_range(at, 4)  # the checksum
            return at + 4 - offset
    raise Damaged(offset, "is a frame of impossible size")


#: What a link that this version writes begins with; anything else is not worth a closer look.
_LINK_START = re.compile(
    re.escape(LINK_MAGIC.to_bytes(4, "little"))
    + rb"[\x00-\x60]\0\0\0"
    + re.escape(bytes((0x90 | len(LINK_FIELDS), LINK_VERSION))),
    re.DOTALL,
)
_LINK_START_SIZE = 10


def links_after(source: ByteSource, offset: int, limit: int) -> Iterator[tuple[int, list[int], int]]:
    """Whatever looks like a link from `offset` on, within `limit` bytes: its offset, numbers, and size in the file."""
    end = min(source.size, offset + limit)
    step = _SMALL_READ
    while offset < end:
        window = source.read(offset, min(step, end - offset) + _LINK_START_SIZE - 1)
        for match in _LINK_START.finditer(window):
            try:
                numbers, _, size = _read_link(source, offset + match.start())
            except Damaged:
                continue
            yield offset + match.start(), numbers, size
        offset += step
        step = min(2 * step, _LARGE_READ)


def packed_frame(source: ByteSource, info: FrameInfo, previous: bytes) -> bytes:
    """A frame as it is in the file, after a check against its link. Raises Damaged."""
    frame = source.read(info.offset, info.length)
    if len(frame) < info.length:
        raise CutShort(info.offset, "the file ends inside a frame that was there before")
    fields = [LINK_VERSION, info.index, info.first, info.last, info.length, int(info.rows)]
    if link_hash(previous, frame, fields) != info.link:
        raise Damaged(info.offset, f"frame {info.index} does not match its link: the file was damaged or altered here")
    return frame


def read_frame(source: ByteSource, info: FrameInfo, previous: bytes) -> bytes:
    """The unpacked bytes of a frame, after a check against its link. Raises Damaged."""
    try:
        return decompress(packed_frame(source, info, previous))
    except Malformed as error:
        raise error if isinstance(error, Damaged) else Damaged(info.offset, str(error)) from error


# ------------------------------------------------------------------------------------------------------ seek table


def seek_table(sizes: array[int], unpacked: array[int]) -> bytes:
    """The seek table for entries of these sizes, in the file and unpacked."""
    entries = b"".join(map(_SEEK_ENTRY.pack, sizes, unpacked))
    footer = _SEEK_FOOTER.pack(len(sizes), 0, SEEK_FOOTER_MAGIC)
    return _SKIPPABLE.pack(SEEK_MAGIC, len(entries) + len(footer)) + entries + footer


def _u32s(data: bytes) -> array[int]:
    values = array("I", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _read_seek_table(source: ByteSource) -> tuple[array[int], array[int]] | None:
    """Offsets and lengths of the frames by the table that ends the file; None if that is not one to rely on.

    Each entry is checked when its frame is touched.
    """
    footer = source.read(source.size - _SEEK_FOOTER.size, _SEEK_FOOTER.size)
    if len(footer) < _SEEK_FOOTER.size:
        return None
    entries, descriptor, magic = _SEEK_FOOTER.unpack(footer)
    content = entries * _SEEK_ENTRY.size
    start = source.size - _SEEK_FOOTER.size - content - _SKIPPABLE.size
    if magic != SEEK_FOOTER_MAGIC or descriptor or entries % 2 or not 2 <= entries <= 2 * MAX_FRAMES or start < 0:
        return None
    if source.read(start, _SKIPPABLE.size) != _SKIPPABLE.pack(SEEK_MAGIC, content + _SEEK_FOOTER.size):
        return None
    table = source.read(start + _SKIPPABLE.size, content)
    if len(table) < content:
        return None
    sizes = _u32s(table)[0::2]
    ends = array("Q", accumulate(sizes))
    if ends[-1] != start:
        return None
    return array("Q", [0]) + ends[1:-1:2], sizes[0::2]


# ----------------------------------------------------------------------------------------------------------- table


#: Links that are kept as they were read.
INFOS_KEPT = 256


class FrameTable:
    """Where each frame of a file is; from its seek table, or by walking from frame to link to frame.

    `closed`: a seek table ends the file. `torn_at`: offset from which on the file holds neither whole frames with
    links nor a seek table, None if there is no such rest; `trouble`: why not. `end`: offset behind the last link.
    """

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.lengths = array("I")
        self.closed = False
        self.torn_at: int | None = None
        self.trouble: Damaged | None = None
        self.end = 0
        self._infos: dict[int, FrameInfo] = {}  # what was read last: whoever replays asks for the same again and again

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def load(cls, source: ByteSource) -> FrameTable:
        """The table of a file; for a closed one by reading 16 bytes a frame, no frame being touched."""
        table = cls()
        found = _read_seek_table(source)
        if found is None:
            table.walk(source)
        else:
            table.offsets, table.lengths = found
            table.closed = True
            table.end = table.link_end(source, len(table) - 1)
        return table

    def walk(self, source: ByteSource) -> None:
        """Takes up what follows `end`: again after `source.refresh()`, the frames that were written since.

        A frame that is damaged inside is passed over as long as the link behind it gives its length; who reads it
        will notice.
        """
        self.torn_at = self.trouble = None
        while not self.closed and self.end < source.size:
            try:
                if self._at_seek_table(source):
                    self._close(source)
                    return
                length, size = self._step(source)
            except Damaged as error:
                self.torn_at = self.end
                self.trouble = error
                return
            if len(self) == MAX_FRAMES:
                raise Damaged(self.end, f"more than {MAX_FRAMES} frames")
            self.lengths.append(length)
            self.offsets.append(self.end)  # last: their number is that of the frames, for another thread too
            self.end += length + size

    def _step(self, source: ByteSource) -> tuple[int, int]:
        """Length of the frame at `end` and size of its link. Raises Damaged."""
        trouble: Damaged
        try:
            length = zstd_length(source, self.end)
            numbers, _, size = _read_link(source, self.end + length)
            if numbers[4] == length:
                return length, size
            trouble = Damaged(self.end + length, "is a link that gives another length than its frame has")
        except Damaged as error:
            trouble = error
        for at, numbers, size in links_after(source, self.end, MAX_FRAME_DISK):
            if numbers[4] == at - self.end and at > self.end:
                return numbers[4], size
        raise trouble

    def _at_seek_table(self, source: ByteSource) -> bool:
        head = source.read(self.end, 4)
        return head == SEEK_MAGIC.to_bytes(4, "little")[: len(head)]

    def _close(self, source: ByteSource) -> None:
        found = _read_seek_table(source)
        if found is not None and found[0] == self.offsets and found[1] == self.lengths:
            self.closed = True
            return
        head = source.read(self.end, _SKIPPABLE.size)
        if len(head) < _SKIPPABLE.size or self.end + 8 + int.from_bytes(head[4:], "little") > source.size:
            raise CutShort(self.end, "the file ends inside its seek table")
        raise Damaged(self.end, "is a seek table that does not fit the frames before it")

    def frames_by_footer(self, source: ByteSource) -> int | None:
        """How many frames the seek table behind `end` lists, whether they are there or not; None if there is none."""
        footer = source.read(source.size - _SEEK_FOOTER.size, _SEEK_FOOTER.size)
        if not self._at_seek_table(source) or len(footer) < _SEEK_FOOTER.size:
            return None
        entries, _, magic = _SEEK_FOOTER.unpack(footer)
        whole = source.size - self.end == _SKIPPABLE.size + entries * _SEEK_ENTRY.size + _SEEK_FOOTER.size
        return entries // 2 if whole and magic == SEEK_FOOTER_MAGIC else None

    def link(self, source: ByteSource, place: int) -> tuple[list[int], bytes]:
        """The numbers and the hash of the link behind the frame at `place`, as they are. Raises Damaged."""
        return _read_link(source, self.offsets[place] + self.lengths[place])[:2]

    def link_end(self, source: ByteSource, place: int) -> int:
        """The offset behind the link of the frame at `place`."""
        start = self.offsets[place] + self.lengths[place]
        return start + _SKIPPABLE.size + int.from_bytes(source.read(start + 4, 4), "little")

    def info(self, source: ByteSource, index: int) -> FrameInfo:
        """What the link behind frame `index` says, checked against the frame's place. Raises Damaged."""
        source.require_open()
        known = self._infos.get(index)
        if known is not None:
            return known
        offset, length = self.offsets[index], self.lengths[index]
        (_, frame, first, last, link_length, rows), hash_ = self.link(source, index)
        if frame != index or link_length != length or length > MAX_FRAME_DISK:
            raise Damaged(
                offset + length,
                f"the link of frame {index} is for frame {frame} of {link_length} bytes: frames are missing, "
                f"doubled, out of order or from another trace",
            )
        if first > last:
            raise Damaged(offset + length, f"the link of frame {index} has positions that go backwards")
        if len(self._infos) >= INFOS_KEPT:
            self._infos.clear()
        info = FrameInfo(index, offset, length, first, last, bool(rows), hash_)
        self._infos[index] = info  # another thread may clear them again at once
        return info

    def previous(self, source: ByteSource, index: int) -> tuple[bytes, int]:
        """Hash and last position of the link before frame `index`. Raises Damaged."""
        if index == 0:
            return NO_HASH, 0
        before = self.info(source, index - 1)
        return before.link, before.last
