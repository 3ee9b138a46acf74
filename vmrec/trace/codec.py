# SPDX-License-Identifier: GPL-2.0-or-later
"""msgpack and zstd behind limits: the only file that imports either.

Packing is plain. Unpacking assumes an enemy: a few bytes may claim an array of two thousand million entries, a
kilobyte may unpack to a gigabyte, and a megabyte of empty maps costs sixty as Python objects. So frames have a
largest unpacked size, arrays and maps a largest length, and what is not a bin is unpacked only in small amounts;
the one legitimate large list, a checkpoint's pages, is unpacked in pieces that are checked as they appear.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types

from vmrec.trace.layout import HASH_SIZE, MAX_FRAME_RAW, MAX_ITEMS, MAX_PAGE_LIST, MAX_PAGES, MAX_PLAIN, PAGE_SIZE

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "Malformed", "PageList", "compress", "decompress", "pack", "unpack_all", "unpack_own", "unpack_pages",
    "unpack_stream",
]  # fmt: skip


class Malformed(ValueError):
    """Bytes are not what the format says; the message is a sentence without file and offset."""


class PageList(list[list[Any]]):
    """A checkpoint's page list as it was unpacked: every entry is [page index, hash], types and ranges checked."""


# ----------------------------------------------------------------------------------------------------------- zstd

_COMPRESS: dict[int, int] = {
    # Level 1: byte-shuffled columns come out smaller than rows at level 19, and a recorder must keep up.
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.checksum_flag: 1,
}
_DECOMPRESS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: (MAX_FRAME_RAW - 1).bit_length()}


def compress(raw: bytes) -> bytes:
    """One zstd frame, with content size and checksum. Raises ValueError beyond 64 MiB."""
    if len(raw) > MAX_FRAME_RAW:
        raise ValueError(f"a frame of {len(raw)} bytes is over the limit of {MAX_FRAME_RAW}")
    return zstd.compress(raw, options=_COMPRESS)


def decompress(frame: bytes) -> bytes:
    """What exactly one zstd frame holds, at most 64 MiB. Raises Malformed for anything else."""
    unpacker = zstd.ZstdDecompressor(options=_DECOMPRESS)
    try:
        declared = zstd.get_frame_info(frame).decompressed_size
        if declared is not None and declared > MAX_FRAME_RAW:
            raise Malformed(f"a frame claims to unpack to {declared} bytes, over the limit of {MAX_FRAME_RAW}")
        raw = unpacker.decompress(frame, max_length=MAX_FRAME_RAW + 1)
    except zstd.ZstdError as error:
        raise Malformed(f"not a valid zstd frame ({error})") from error
    if len(raw) > MAX_FRAME_RAW:
        raise Malformed(f"a frame unpacks to more than {MAX_FRAME_RAW} bytes")
    if not unpacker.eof:
        raise Malformed("the zstd frame is cut short")
    if unpacker.unused_data:
        raise Malformed("bytes follow the zstd frame")
    return raw


# -------------------------------------------------------------------------------------------------------- msgpack

# Everything that msgpack raises on bad bytes; RecursionError comes from its pure Python variant.
_ERRORS = (ValueError, msgpack.exceptions.UnpackException, RecursionError)
_BINS = frozenset((0xC4, 0xC5, 0xC6))
_ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
_MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
_NIL = b"\xc0"
_PAGE_HASH = b"\x93\xa4page\xc4" + HASH_SIZE.to_bytes(1, "big")  # what stands before a page's hash
_PAGE_CONTENT = b"\xc5" + PAGE_SIZE.to_bytes(2, "big")  # and its content
_CHECKPOINT = b"\x94\xaacheckpoint"
_SMALL = 1 << 16  # a part up to this many bytes is unpacked without a look inside
_PIECE = 1024  # entries of a page list unpacked at once
_PAGE_ENTRY = 48  # bytes at most: array of 2, uint, bin of 32


def pack(obj: Any) -> bytes:
    """`obj` as one msgpack object: str as str, bytes as bin, keys in the order they are in.

    Raises TypeError for what msgpack has no form for, OverflowError for an int outside -2**63 … 2**64-1.
    """
    packed: bytes = msgpack.packb(obj)
    return packed


def unpack_stream(raw: bytes, *, rows: bool = False, kinds: frozenset[str] | None = None) -> Iterator[Any]:
    """The msgpack objects that lie one after the other in `raw`, one at a time.

    `rows`: it is said to hold rows alone, so that nobody looks for a checkpoint with its long list. `kinds`: arrays
    that begin with another text may be left out, unless one has to be unpacked to know.

    Raises Malformed, when the iteration gets there, for bytes that are not msgpack, an object that is cut short, or
    one over the limits of `vmrec.trace.layout`: extension types, lists and maps of more than 4096 entries (a
    checkpoint's page list apart), more than 2 MiB in one object that are not bins.
    """
    wanted = None if kinds is None else frozenset(kind.encode() for kind in kinds)
    if wanted is not None and _other_kind(raw, 0, wanted):  # pages, which are many when they come
        return _stream_large(raw, wanted)
    if len(raw) <= MAX_PLAIN and (rows or _CHECKPOINT not in raw):
        return _stream(raw)
    return _stream_large(raw, wanted)


def unpack_all(raw: bytes, kinds: frozenset[str]) -> list[list[Any]]:
    """Those of the objects of `unpack_stream` that are arrays and begin with one of `kinds`: quick where they are many
    and small. Raises Malformed as that does.
    """
    found: list[list[Any]] = []
    if len(raw) <= MAX_PLAIN and _CHECKPOINT not in raw:
        unpacker = _unpacker(len(raw) + 1)
        unpacker.feed(raw)
        try:
            with _uncollected():
                while piece := list(islice(unpacker, _PIECE)):
                    found += [
                        obj for obj in piece if type(obj) is list and obj and type(obj[0]) is str and obj[0] in kinds
                    ]
            unpacker.feed(_NIL)
            if next(unpacker, unpacker) is None:  # it would be a part of an object that was cut short
                return found
        except _ERRORS:
            pass  # what is wrong, and where, is found out by going through them one by one
    objects = unpack_stream(raw, kinds=kinds)
    return [obj for obj in objects if type(obj) is list and obj and type(obj[0]) is str and obj[0] in kinds]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Lists by the thousand are made, and no cycle: the collector need not go through them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def unpack_own(packed: bytes) -> list[list[Any]]:
    """The objects that the native core has just packed, of which all is known."""
    unpacker = _unpacker(len(packed))
    unpacker.feed(packed)
    with _uncollected():
        return list(unpacker)


def unpack_pages(raw: bytes) -> list[list[Any]] | None:
    """As `unpack_all`, of objects of kind page that are whole and packed as `pack` does; None if there are others."""
    size = len(_PAGE_HASH) + HASH_SIZE + len(_PAGE_CONTENT) + PAGE_SIZE
    if not raw or len(raw) % size:
        return None
    found: list[list[Any]] = []
    for at in range(0, len(raw), size):
        hash_ = at + len(_PAGE_HASH)
        content = hash_ + HASH_SIZE + len(_PAGE_CONTENT)
        if raw[at:hash_] != _PAGE_HASH or raw[hash_ + HASH_SIZE : content] != _PAGE_CONTENT:
            return None
        found.append(["page", raw[hash_ : hash_ + HASH_SIZE], raw[content : content + PAGE_SIZE]])
    return found


def _unpacker(size: int, items: int = MAX_ITEMS) -> Any:
    """An Unpacker for `size` bytes; integer keys, extension types and longer lists are errors."""
    return msgpack.Unpacker(
        max_buffer_size=max(size, 1),
        max_str_len=size,
        max_bin_len=size,
        max_array_len=items,
        max_map_len=items,
        max_ext_len=0,
        ext_hook=_refuse_extension,
    )


def _refuse_extension(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code}")


def _malformed(error: BaseException, at: int) -> Malformed:
    if isinstance(error, Malformed):
        return error
    what = str(error) or type(error).__name__
    return Malformed(f"not msgpack within the limits, {at} bytes into the frame ({what:.80})")


def _stream(raw: bytes) -> Iterator[Any]:
    unpacker = _unpacker(len(raw))
    unpacker.feed(raw)
    at = 0
    while at < len(raw):
        try:
            obj = unpacker.unpack()
        except _ERRORS as error:
            raise _malformed(error, at) from error
        yield obj
        at = unpacker.tell()


def _stream_large(raw: bytes, kinds: frozenset[bytes] | None) -> Iterator[Any]:
    """As `_stream`, but each object's size is known before it is unpacked; those of other kinds are not."""
    view = memoryview(raw)
    at = 0
    sizer = _unpacker(len(raw), len(raw))
    sizer.feed(raw)
    while at < len(raw):
        try:
            sizer.skip()
            end = sizer.tell()
            wanted = kinds is None or not _other_kind(raw, at, kinds)
            obj = _object(view[at:end]) if wanted else None
        except _ERRORS as error:
            raise _malformed(error, at) from error
        if wanted:
            yield obj
        at = end


def _other_kind(raw: bytes, at: int, kinds: frozenset[bytes]) -> bool:
    """Is this an array that begins with a text, both of the short forms that ours have, and the text not in `kinds`?"""
    array, text = (*raw[at : at + 2], 0, 0)[:2]
    return array & 0xF0 == 0x90 and text & 0xE0 == 0xA0 and raw[at + 2 : at + 2 + (text & 0x1F)] not in kinds


def _object(view: memoryview) -> Any:
    if view[: len(_CHECKPOINT)] == _CHECKPOINT:
        _, position, state, pages = _parts(view)
        return ["checkpoint", _value(position)[0], _value(state)[0], _pages(pages)]
    return _value(view)[0]


def _one(view: memoryview | bytes, items: int = MAX_ITEMS) -> Any:
    unpacker = _unpacker(len(view), items)
    unpacker.feed(view)
    return unpacker.unpack()


def _parts(view: memoryview) -> list[memoryview]:
    """The bytes of each element of an array, or of each key and value of a map."""
    unpacker = _unpacker(len(view), len(view))
    unpacker.feed(view)
    count = unpacker.read_array_header() if view[0] in _ARRAYS else 2 * unpacker.read_map_header()
    if count > 2 * MAX_ITEMS:
        raise Malformed(f"a list or map of {count} entries")
    parts = []
    at = unpacker.tell()
    for _ in range(count):
        unpacker.skip()
        parts.append(view[at : unpacker.tell()])
        at = unpacker.tell()
    return parts


def _value(view: memoryview, depth: int = 0) -> tuple[Any, int]:
    """The value, and how many of its bytes are not bins; looks three levels deep for bins."""
    if view[0] in _BINS:
        return _one(view), 0
    if len(view) <= _SMALL or depth == 3 or not (view[0] in _ARRAYS or view[0] in _MAPS):
        if len(view) > MAX_PLAIN:
            raise Malformed(f"{len(view)} bytes in one object that are not bins, over the limit of {MAX_PLAIN}")
        return _one(view), len(view)
    values = []
    plain = 0
    for part in _parts(view):
        if part[0] not in _BINS and plain + min(len(part), _SMALL) > MAX_PLAIN:
            raise Malformed(f"more than {MAX_PLAIN} bytes in one object that are not bins")
        value, size = _value(part, depth + 1)
        values.append(value)
        plain += size
    if plain > MAX_PLAIN:
        raise Malformed(f"more than {MAX_PLAIN} bytes in one object that are not bins")
    if view[0] in _ARRAYS:
        return values, plain
    if not all(type(key) is str for key in values[::2]):
        raise Malformed("a map with a key that is not text")
    return dict(zip(values[::2], values[1::2], strict=True)), plain


def _pages(view: memoryview) -> PageList:
    unpacker = _unpacker(len(view), len(view))
    unpacker.feed(view)
    left = unpacker.read_array_header()
    if left > MAX_PAGE_LIST:
        raise Malformed(f"a checkpoint of {left} pages, over the limit of {MAX_PAGE_LIST}")
    entries = PageList()
    at = unpacker.tell()
    while left:
        count = min(left, _PIECE)
        for _ in range(count):
            unpacker.skip()
        end = unpacker.tell()
        if end - at > count * _PAGE_ENTRY:
            raise Malformed("a checkpoint's page list holds something else than [index, hash]")
        piece = _one(b"\xdc" + count.to_bytes(2, "big") + view[at:end], _PIECE)
        for entry in piece:
            if not (
                type(entry) is list
                and len(entry) == 2
                and type(entry[0]) is int
                and type(entry[1]) is bytes
                and len(entry[1]) == HASH_SIZE
                and 0 <= entry[0] < MAX_PAGES
            ):
                raise Malformed("a checkpoint's page list holds something else than [index, hash]")
        entries.extend(piece)
        left -= count
        at = end
    return entries
