# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces for tests: small valid ones of every kind of object, and files put together by hand for bad ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from vmrec.errors import TraceError
from vmrec.trace.codec import compress, pack
from vmrec.trace.digests import blake3_of
from vmrec.trace.frames import link_bytes, link_hash
from vmrec.trace.layout import LINK_VERSION, NO_HASH
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

PAGES = 16


def noise(size: int, seed: object) -> bytes:
    """`size` bytes that do not compress, the same for the same seed."""
    return hashlib.shake_128(repr(seed).encode()).digest(size)


def header(**changes: Any) -> dict[str, Any]:
    elf = b"\x7fELF" + noise(60, "elf")
    return {
        "machine": {"revision": 1, "isa": "rv32im", "ram_size": PAGES * 4096, "time_rule": "virtual"},
        "guest": {"name": "hello", "elf": elf, "hash": blake3_of(elf)},
        "capture": "full",
        "seed": 7,
        "chaos": None,
        "recorder": "vmrec 0.1.0",
        "created": "2026-01-01T00:00:00Z",
        **changes,
    }


def full_header(**changes: Any) -> dict[str, Any]:
    return {**header(), "format": "vmrec", "version": 1, **changes}


def digest(position: int, value: bytes) -> list[Any]:
    fields = {"value": value, "registers": {"pc": position}, "ram": value, "outputs": value, "devices": value}
    return ["digest", position, fields]


def content(seed: object) -> bytes:
    """A page that compresses well and is like no other."""
    return noise(16, seed) * 256


def sample_objects(frames: int = 4, seed: object = 0) -> list[list[list[Any]]]:
    """What `write_sample` writes, frame by frame: every kind of object."""
    result = []
    known: set[bytes] = set()
    for number in range(frames):
        n = 100 * number
        objects: list[list[Any]] = [
            ["input", n, noise(2, (seed, n))],
            ["clock", n + 1, n],
            ["idle", n + 2, 40],
            ["entropy", n + 3, noise(4, (seed, n, "e"))],
            ["console", n + 4, b"x"],
            ["rows", n, n + 100, {"pc": noise(20, (seed, n, "rows")), "count": 5}],
        ]
        pages = [[index, content((seed, number // 2, index))] for index in (number, number + 1)]
        for _, page in pages:
            if blake3_of(page) not in known:
                known.add(blake3_of(page))
                objects.append(["page", blake3_of(page), page])
        objects.append(digest(n + 100, noise(32, (seed, n, "digest"))))
        objects.append(["checkpoint", n + 100, {"x": [n] * 4}, [[i, blake3_of(page)] for i, page in pages]])
        result.append(objects)
    end = 100 * frames
    result[-1].append(["stop", end, "poweroff", 0])
    result[-1].append(["end", end, {"reason": "poweroff", "exit_code": 0, "icount": end}])
    return result


def append(writer: TraceWriter, obj: list[Any]) -> None:
    if obj[0] == "page":
        writer.append_page(obj[1], obj[2])
    else:
        writer.append(pack(obj), obj[1], obj[2] if obj[0] == "rows" else obj[1])


def write_sample(path: Path, frames: int = 4, seed: object = 0, *, close: bool = True) -> list[list[Any]]:
    """Writes a trace of header, `frames` frames and, if closed, the index; returns the objects after the header."""
    objects = sample_objects(frames, seed)
    writer = TraceWriter(path, header())
    for frame in objects:
        for obj in frame:
            append(writer, obj)
        writer.flush()
    if close:
        writer.close()
    else:
        writer.abort()
    return [obj for frame in objects for obj in frame]


def segments(path: Path) -> tuple[list[bytes], bytes]:
    """The frames of a trace, each with its link, and what follows them."""
    data = path.read_bytes()
    with TraceReader(path) as reader:
        starts = [info.offset for info in reader.frames]
        end = reader.frames[-1].offset + reader.frames[-1].length
    end += 8 + int.from_bytes(data[end + 4 : end + 8], "little")
    return [data[a:b] for a, b in pairwise([*starts, end])], data[end:]


def chained(raws: Iterable[tuple[bytes, int, int]], *, packed: bool = False) -> bytes:
    """A trace file whose chain is right, whatever the frames hold: (unpacked bytes, first, last) of each.

    With `packed` the bytes are a zstd frame already.
    """
    result = b""
    head = NO_HASH
    for number, (raw, first, last) in enumerate(raws):
        frame = raw if packed else compress(raw)
        fields = [LINK_VERSION, number, first, last, len(frame), 0]
        head = link_hash(head, frame, fields)
        result += frame + link_bytes(fields, head)
    return result


def with_header(*raws: tuple[bytes, int, int]) -> bytes:
    """`chained`, behind a valid header."""
    return chained([(pack(["header", full_header()]), 0, 0), *raws])


def read_all(path: Path) -> list[list[Any]]:
    """Everything that a reader can do with a trace, once; returns the objects. Raises TraceError."""
    with TraceReader(path) as reader:
        objects = [obj for _, obj in reader.objects()]
        list(reader.records(1))
        list(reader.rows(1))
        for info in reader.frames:
            assert info.last <= reader.last_position
        for mark in reader.digests:
            assert reader.digest(mark)["value"] == mark.value
        for checkpoint in reader.checkpoints:
            reader.checkpoint(checkpoint)
            pages = reader.pages(checkpoint)
            assert {index: ref.load() for index, ref in pages.items()} == dict(reader.contents(checkpoint))
        _ = reader.end, reader.head
        reader.refresh()
    return objects


def outcome(path: Path) -> list[list[Any]] | TraceError:
    """`read_all`, with a TraceError returned instead of raised."""
    try:
        return read_all(path)
    except TraceError as error:
        return error


def flipped(data: bytes, bits: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """(offset, copy of `data` with that bit changed) for each bit number."""
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit // 8, bytes(changed)
