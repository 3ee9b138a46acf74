# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written is read back: by the reader, by a reader that follows, and by programs that are not vmrec."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import record
from trace_files import (
    PAGES,
    append,
    content,
    digest,
    header,
    noise,
    read_all,
    sample_objects,
    segments,
    with_header,
    write_sample,
)

from vmrec.errors import TraceError, UsageError
from vmrec.events import Clock, Console, Entropy, Idle, Input, Stop, from_wire
from vmrec.trace.codec import pack, unpack_stream
from vmrec.trace.digests import blake3_of
from vmrec.trace.layout import MAX_GUEST
from vmrec.trace.objects import Index
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import verify_chain
from vmrec.trace.writer import FRAME_PAGES, TraceWriter

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a trace.vmrec"


@pytest.mark.parametrize("close", [True, False])
def test_everything_comes_back(path: Path, close: bool) -> None:
    written = write_sample(path, close=close)
    objects = read_all(path)
    assert objects[0] == ["header", {**header(), "format": "vmrec", "version": 1}]
    assert objects[1 : len(written) + 1] == written
    assert [obj[0] for obj in objects[len(written) + 1 :]] == ["index"] * close
    with TraceReader(path) as trace:
        assert trace.header == objects[0][1]
        assert (trace.closed, trace.torn, trace.torn_at) == (close, False, None)
        assert trace.last_position == 400
        assert trace.end == {"reason": "poweroff", "exit_code": 0, "icount": 400}
        assert [mark.position for mark in trace.digests] == [100, 200, 300, 400]
        assert [trace.digest(mark) for mark in trace.digests] == [obj[2] for obj in written if obj[0] == "digest"]
        assert [(mark.position, mark.frame) for mark in trace.checkpoints] == [(100, 1), (200, 2), (300, 3), (400, 4)]
        assert trace.checkpoint(trace.checkpoints[2])[0] == {"x": [200] * 4}
        assert [info.index for info in trace.frames] == list(range(len(trace.frames)))
        assert [info.last for info in trace.frames[:5]] == [0, 100, 200, 300, 400]
        assert trace.frames[-1] == trace.frames[len(trace.frames) - 1]
        with pytest.raises(IndexError):
            trace.frames[len(trace.frames)]
    assert verify_chain(path).ok


def test_records_by_position(path: Path) -> None:
    written = write_sample(path)
    expected = [from_wire(obj) for obj in written if obj[0] in ("input", "clock", "idle", "entropy", "console", "stop")]
    kinds = (Input, Clock, Idle, Entropy, Console)
    assert tuple(type(record) for record in expected[:5]) == kinds
    with TraceReader(path) as trace:
        assert list(trace.records()) == expected
        assert list(trace.records())[-1] == Stop(400, "poweroff", 0)
        for first, last in ((0, 1), (2, 103), (104, 400), (5, 5), (399, None), (1000, None), (0, 401)):
            wanted = [record for record in expected if first <= record.position < (last or 999)]
            assert list(trace.records(first, last)) == wanted
        for first, last, starts in (
            (0, 1, [0]),
            (99, 101, [0, 100]),
            (100, 200, [100]),
            (350, None, [300]),
            (400, 9, []),
        ):
            assert [rows[1] for rows in trace.rows(first, last)] == starts
        assert [trace.frame_at(position) for position in (0, 1, 100, 101, 400, 401)] == [0, 1, 1, 2, 4, 6]
        assert {obj[0] for _, obj in trace.objects(2, {"page", "rows"})} == {"page", "rows"}


@pytest.mark.parametrize("close", [True, False])
def test_pages_at_each_checkpoint(path: Path, close: bool) -> None:
    write_sample(path, frames=6, close=close)
    expected: dict[int, bytes] = {}
    history = []
    for frame in sample_objects(6):
        contents = {obj[1]: obj[2] for obj in frame if obj[0] == "page"} | {blake3_of(c): c for c in expected.values()}
        for obj in frame:
            if obj[0] == "checkpoint":
                expected |= {index: contents.get(hash_) or content_by(hash_) for index, hash_ in obj[3]}
        history.append(dict(expected))
    with TraceReader(path) as trace:
        for number in (5, 0, 3, 2, 4, 1, 5, 0):
            mark = trace.checkpoints[number]
            assert {index: ref.load() for index, ref in trace.pages(mark).items()} == history[number]
            assert dict(trace.contents(mark)) == history[number]
        with pytest.raises(TraceError, match="missing"):
            trace.page(bytes(32))


def content_by(hash_: bytes) -> bytes:
    """The sample's page with this hash."""
    return next(obj[2] for frame in sample_objects(6) for obj in frame if obj[0] == "page" and obj[1] == hash_)


def test_each_content_is_written_once(path: Path) -> None:
    page = content("once")
    with TraceWriter(path, header()) as writer:
        assert writer.append_page(blake3_of(page), page)
        assert not writer.append_page(blake3_of(page), page)
        writer.flush()
        assert not writer.append_page(blake3_of(page), page)
    assert [obj[0] for obj in read_all(path)] == ["header", "page", "index"]


def test_a_reader_follows_a_live_recording(path: Path) -> None:
    frames = sample_objects(4)
    writer = TraceWriter(path, header())
    with TraceReader(path) as trace:
        stream = trace.objects()
        assert next(stream)[1][0] == "header"
        assert trace.end is None
        for number, frame in enumerate(frames):
            assert not trace.refresh()
            for obj in frame:
                append(writer, obj)
            assert not trace.refresh()
            writer.flush()
            assert trace.refresh()
            assert [next(stream)[1] for _ in frame] == frame
            assert trace.last_position == writer.position == writer.written_position
            assert trace.head == writer.head
            assert len(trace.digests) == len(trace.checkpoints) == number + 1
            assert not trace.closed
        writer.append(b"", 400, 700)
        with pytest.raises(ValueError, match="after the end"):
            writer.append(pack(["console", 700, b"x"]), 700, 700)
        writer.close()
        assert trace.refresh()
        assert trace.closed
        assert trace.last_position == 700
        assert not trace.refresh()
        assert trace.end == frames[-1][-1][2]


def test_half_written_frames_wait(path: Path, tmp_path: Path) -> None:
    """A follower that looks in the middle of a write sees the frames before it, and the frame itself later."""
    written = write_sample(path)
    data = path.read_bytes()
    growing = tmp_path / "growing"
    with TraceReader(path) as whole:
        ends = [info.offset for info in whole.frames][1:]
    growing.write_bytes(data[: ends[0]])
    with TraceReader(growing) as trace, growing.open("ab", buffering=0) as file:
        for at in range(ends[0], len(data), 97):
            file.write(data[at : at + 97])
            trace.refresh()
            assert len(trace.frames) >= sum(end <= at for end in ends)
            assert trace.closed == (at + 97 >= len(data))
            assert trace.torn == (trace.torn_at is not None)
        assert [obj for _, obj in trace.objects()][1:-1] == written


def test_frames_close_by_themselves(path: Path) -> None:
    with TraceWriter(path, header(), sync=os.fsync) as writer:
        for number in range(40):
            writer.append(pack(["rows", number, number + 1, {"pc": noise(100_000, number)}]), number, number + 1)
        assert writer.written_position == 33
        assert writer.buffered < 1 << 20 < writer.bytes_written
        assert writer.position == 40
    with TraceReader(path) as trace:
        assert [info.last for info in trace.frames] == [0, 11, 22, 33, 40, 40]
        assert [rows[1] for rows in trace.rows()] == list(range(40))


def test_many_pages_get_frames_of_their_own(tmp_path: Path) -> None:
    """So that one page costs no more than its neighbours, and events and checkpoints no page at all."""
    record(tmp_path / "t", "loop-mem-long", max_insns=70_000_000)
    with TraceReader(tmp_path / "t") as trace:
        frames: dict[int, list[str]] = {}
        for info, obj in trace.objects():
            frames.setdefault(info.index, []).append(obj[0])
    pages = [kinds for kinds in frames.values() if "page" in kinds]
    assert len(pages) > 4
    assert max(map(len, pages)) == FRAME_PAGES
    assert {kind for kinds in pages if len(kinds) >= FRAME_PAGES for kind in kinds} == {"page"}
    assert all(kinds == ["checkpoint"] for kinds in frames.values() if "checkpoint" in kinds)


def test_few_pages_go_with_the_rest(path: Path) -> None:
    pages = [content(str(number)) for number in range(FRAME_PAGES - 1)]
    with TraceWriter(path, header()) as writer:
        writer.append(pack(["input", 5, b"x"]), 0, 5)
        for page in pages:
            writer.append_page(blake3_of(page), page)
        assert writer.buffered > len(pages) * 4096


def test_pages_written_together_are_found_together(path: Path) -> None:
    contents = [content(str(number)) for number in range(FRAME_PAGES + 1)]
    hashes = [blake3_of(page) for page in contents]
    with TraceWriter(path, header()) as writer:
        for hash_, page in zip(hashes, contents, strict=True):
            writer.append_page(hash_, page)
        writer.append(pack(["input", 5, b"x"]), 0, 5)
    with TraceReader(path) as trace:
        assert trace.pages_together(hashes[3], lambda hash_: hash_ in (hashes[1], hashes[3], hashes[-1])) == [
            (hashes[3], contents[3]), (hashes[1], contents[1]),
        ]  # fmt: skip
        assert trace.pages_together(hashes[-1], lambda _: True) == [(hashes[-1], contents[-1])]
        with pytest.raises(TraceError, match="is missing"):
            trace.pages_together(bytes(32), lambda _: True)


@pytest.mark.parametrize("other", [b"", bytes(4095), bytes(4096), "text", 7, None])
def test_of_pages_written_together_those_that_are_not_what_they_should_be_stay(path: Path, other: Any) -> None:
    """Who asks for them will see; who asked for the one that is good gets it."""
    pages = [content("a"), content("b")]
    raw = [pack(["page", blake3_of(pages[0]), pages[0]]), pack(["page", blake3_of(pages[1]), other])]
    built = Index()
    for page in pages:
        built.contents[blake3_of(page)] = 1
    index = pack(built.to_object(9))
    path.write_bytes(with_header((b"".join(raw), 0, 9), (index, 9, 9)))
    with TraceReader(path) as trace:
        trace._own._stored = Index.from_object(next(unpack_stream(index)), 3)
        assert trace.pages_together(blake3_of(pages[0]), lambda _: True) == [(blake3_of(pages[0]), pages[0])]
        with pytest.raises(TraceError):
            trace.pages_together(blake3_of(pages[1]), lambda _: True)


def test_the_index_finds_pages_however_often_it_is_asked() -> None:
    """By going through its table, or in a dict; one that straddles two entries is none."""
    hashes = [bytes([number]) * 4 + b"\1\0\0\0" + bytes(24) for number in range(1, 200)]
    built = Index()
    built.contents = dict.fromkeys(hashes, 1)
    stored = Index.from_object(next(unpack_stream(pack(built.to_object(9)))), 2)
    straddling = b"\1\0\0\0" + bytes([2]) * 4 + bytes(24)
    for _ in range(2):
        assert [stored.frame_of(hash_) for hash_ in (bytes(32), straddling, *hashes)] == [None, None, *[1] * 199]


def test_silence_is_recorded(path: Path) -> None:
    """A flush of nothing but a position says that nothing happened up to there."""
    writer = TraceWriter(path, header())
    writer.append(b"", 0, 5000)
    writer.flush()
    writer.abort()
    with TraceReader(path) as trace:
        assert trace.last_position == 5000
        assert list(trace.records()) == []
    assert verify_chain(path).last_position == 5000


def test_positions_that_make_no_sense_are_refused(path: Path) -> None:
    with TraceWriter(path, header()) as writer:
        for first, last in ((5, 4), (-1, 4), (0, 2**64)):
            with pytest.raises(ValueError):
                writer.append(b"", first, last)
        with pytest.raises(ValueError):
            writer.append(pack(["digest", 3, {}]), 3, 3)
    with pytest.raises(ValueError, match="closed"):
        writer.append(b"", 0, 0)
    writer.close()


def test_large_objects(path: Path) -> None:
    """A guest of megabytes, a checkpoint of a hundred thousand pages, rows beyond a frame's usual size."""
    elf = noise(3 << 20, "large")
    guest = {"name": "large", "elf": elf, "hash": blake3_of(elf)}
    machine = {"ram_size": 1 << 30}
    page = content("large")
    pages = [[index, blake3_of(page)] for index in range(100_000)]
    rows = ["rows", 0, 9, {"pc": noise(5 << 20, "rows"), "parts": [noise(3000, 1)] * 4, "count": 2**63}]
    with TraceWriter(path, header(guest=guest, machine=machine)) as writer:
        writer.append(pack(rows), 0, 9)
        writer.append_page(blake3_of(page), page)
        writer.append(pack(["checkpoint", 9, {}, pages]), 9, 9)
        writer.append(pack(digest(9, bytes(32))), 9, 9)
        with pytest.raises(ValueError):
            writer.append(bytes((64 << 20) + 1), 9, 9)
    with TraceReader(path) as trace:
        assert trace.header["guest"]["elf"] == elf
        assert list(trace.rows()) == [rows]
        assert trace.checkpoint(trace.checkpoints[0])[1] == [(index, hash_) for index, hash_ in pages]
        assert len(trace.pages(trace.checkpoints[0])) == 100_000
    assert verify_chain(path).ok


def test_guest_too_large_to_embed(path: Path) -> None:
    elf = bytes(MAX_GUEST + 1)
    with pytest.raises(UsageError, match="strip"):
        TraceWriter(path, header(guest={"name": "x", "elf": elf, "hash": blake3_of(elf)}))
    assert not path.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"capture": "some"},
        {"seed": -1},
        {"seed": "7"},
        {"recorder": None},
        {"machine": []},
        {"guest": {"name": "x", "elf": b"a", "hash": bytes(32)}},
        {"guest": {"name": "x", "elf": b"a"}},
        {"created": "x" * 5000},
    ],
)
def test_bad_headers_are_not_written(path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        TraceWriter(path, header(**change))
    assert not path.exists()


def test_opening_a_closed_trace_touches_few_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening, marks, head and last position cost the same whatever the size: header, table, index, last link."""
    with TraceWriter(path, header()) as writer:
        for number in range(300):
            writer.append(pack(["rows", number, number + 1, {"pc": noise(9000, number)}]), number, number + 1)
            writer.append(pack(digest(number + 1, bytes(32))), number + 1, number + 1)
            writer.flush()
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: reads.append(size) or pread(fd, size, at))
    with TraceReader(path) as trace:
        assert len(trace.digests) == 300
        assert (trace.last_position, len(trace.frames), trace.end) == (300, 302, None)
    assert len(reads) < 40
    assert sum(reads) < 40_000 < path.stat().st_size


def test_file_mode_is_private(path: Path) -> None:
    path.write_bytes(b"old")
    path.chmod(0o644)
    TraceWriter(path, header(), force=True).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_durable_syncs_every_frame(path: Path) -> None:
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)

    with TraceWriter(path, header(), durable=True, sync=sync) as writer:
        assert synced == [writer.bytes_written]
        writer.append(pack(["console", 1, b"x"]), 1, 1)
        writer.flush()
        assert synced[1:] == [writer.bytes_written]
    assert synced[-1] == path.stat().st_size
    with TraceWriter(path, header(), force=True, sync=sync):
        count = len(synced)
    assert len(synced) == count


# ------------------------------------------------------------------------------------------ readers that are not vmrec


def test_any_msgpack_and_zstd_reader_will_do(path: Path) -> None:
    written = write_sample(path)
    with zstd.open(path, "rb") as file:
        objects = list(msgpack.Unpacker(file, max_buffer_size=1 << 30))
    assert objects[1:-1] == written
    assert objects[0][1]["format"] == "vmrec"


def test_zstd_command_line(path: Path) -> None:
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("zstd is not installed")
    written = write_sample(path)
    subprocess.run([program, "-q", "-t", path], check=True)
    output = subprocess.run([program, "-q", "-d", "-c", path], check=True, capture_output=True).stdout
    assert list(msgpack.Unpacker(io.BytesIO(output)))[1:-1] == written
    listing = subprocess.run([program, "-l", "-v", path], check=True, capture_output=True, text=True).stdout
    assert "Check: XXH64" in listing


def test_seek_table_is_the_standard_one(path: Path) -> None:
    """Read by the words of zstd's seekable format, not by our own reader."""
    write_sample(path)
    data = path.read_bytes()
    count, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (magic, descriptor) == (0x8F92EAB1, 0)
    start = len(data) - 9 - 8 * count - 8
    assert struct.unpack("<II", data[start : start + 8]) == (0x184D2A5E, 8 * count + 9)
    at = 0
    for packed, unpacked in struct.iter_unpack("<II", data[start + 8 : -9]):
        piece = data[at : at + packed]
        assert len(zstd.decompress(piece) if unpacked else b"") == unpacked
        assert piece[:4] == (b"\x28\xb5\x2f\xfd" if unpacked else b"\x51\x2a\x4d\x18")
        at += packed
    assert at == start


def test_links_are_what_the_documentation_says(path: Path) -> None:
    write_sample(path)
    parts, _ = segments(path)
    previous = bytes(32)
    for number, part in enumerate(parts):
        at = part.index(b"\x51\x2a\x4d\x18")
        frame, payload = part[:at], part[at + 8 :]
        version, index, first, last, length, rows, hash_ = msgpack.unpackb(payload)
        assert (version, index, length) == (1, number, len(frame))
        assert first <= last
        previous = blake3_of(previous + frame + msgpack.packb([version, index, first, last, length, rows]))
        assert hash_ == previous


# ------------------------------------------------------------------------------------------------------------- codec

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text(max_size=40) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=9), inner, max_size=20),
    max_leaves=30,
)  # fmt: skip


@given(st.lists(PLAIN, max_size=5))
def test_pack_and_unpack_are_inverse(objects: list[Any]) -> None:
    assert list(unpack_stream(b"".join(map(pack, objects)))) == objects


@given(st.lists(PLAIN, max_size=3), st.integers(0, 3))
def test_large_streams_unpack_alike(objects: list[Any], where: int) -> None:
    """Beyond 2 MiB, and with a checkpoint, another way is taken to the same values."""
    objects = [
        *objects[:where],
        ["page", bytes(3 << 20)],
        ["checkpoint", 3, {"a": [1]}, [[4, bytes(32)]] * 2],
        *objects,
    ]
    assert list(unpack_stream(b"".join(map(pack, objects)))) == objects


def test_ram_size_of_the_sample_fits() -> None:
    assert max(obj[0] for frame in sample_objects(6) for o in frame if o[0] == "checkpoint" for obj in o[3]) < PAGES
