# SPDX-License-Identifier: GPL-2.0-or-later
"""Damaged traces: noticed wherever a damaged frame is touched, named for what they are, and saved up to there."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from trace_files import (
    chained,
    flipped,
    full_header,
    header,
    noise,
    outcome,
    read_all,
    segments,
    with_header,
    write_sample,
)

from vmrec.errors import TraceError, UsageError
from vmrec.trace.codec import pack
from vmrec.trace.layout import FORMAT_VERSION
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import ChainReport, DamageKind, repair, verify_chain
from vmrec.trace.writer import TraceWriter


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.vmrec"
    write_sample(path)
    return path


def check_repair(path: Path, report: ChainReport, whole: list[list[Any]]) -> None:
    """The repaired trace is a good, closed one that holds exactly the good frames and an end."""
    out = path.with_suffix(".repaired")
    assert repair(path, out, force=True) == report
    saved = read_all(out)
    after = verify_chain(out)
    assert after.ok
    assert after.closed
    assert after.ended
    assert after.last_position == report.last_position
    assert saved[-1][0] == "index"
    body = saved[:-1]
    if not report.ended:
        kind, position, end = body.pop()
        assert (kind, position, end["reason"]) == ("end", report.last_position, "repaired")
    assert body == whole[: len(body)]
    with TraceReader(out) as trace:
        assert len(trace.frames) >= report.good
        if report.good and not (report.damage and report.damage.kind == DamageKind.INDEX):
            assert trace.frames[report.good - 1].link == report.head


# ---------------------------------------------------------------------------------------------------------- flipped


@pytest.mark.parametrize("close", [True, False])
def test_every_flipped_bit_is_noticed_and_located(tmp_path: Path, close: bool) -> None:
    path = tmp_path / "flipped.vmrec"
    write_sample(path, frames=3, close=close)
    whole = read_all(path)
    data = path.read_bytes()
    parts, _ = segments(path)
    starts = [sum(map(len, parts[:number])) for number in range(len(parts) + 1)]
    choice = random.Random(2)
    bits = {choice.randrange(len(data) * 8) for _ in range(250)}
    # Every byte of a link, a frame's first bytes, and the seek table's ends.
    link = parts[2].index(b"\x51\x2a\x4d\x18") + starts[2]
    bits |= {8 * at + choice.randrange(8) for at in (*range(link, starts[3]), *range(starts[1], starts[1] + 20))}
    bits |= {8 * at for at in range(starts[-1], len(data), 7)}
    for at, changed in flipped(data, sorted(bits)):
        path.write_bytes(changed)
        result = outcome(path)
        frame = sum(start <= at for start in starts) - 1
        if at < 4:  # the magic number: no trace at all
            assert isinstance(result, TraceError)
            continue
        report = verify_chain(path)
        assert report.damage is not None
        assert not report.ok
        if frame == len(parts):  # the seek table: all objects are there
            assert result == whole
            with TraceReader(path) as trace:  # what a table says of unpacked sizes is for other programs
                assert trace.torn_at == (None if trace.closed else starts[-1])
            assert report.damage.kind in (DamageKind.SEEK_TABLE, DamageKind.TORN)
            assert report.good == len(parts)
        else:
            if isinstance(result, TraceError):
                assert result.offset is None or starts[frame] <= result.offset <= starts[frame + 1]
                assert "vmrec repair" in str(result) or frame == 0
            else:  # a link that cannot be recognised ends an open trace
                assert result == whole[: len(result)]
                with TraceReader(path) as trace:
                    assert trace.torn_at == starts[frame]
            assert report.damage.kind in (DamageKind.FLIPPED, DamageKind.TORN)
            if report.damage.kind == DamageKind.TORN:
                assert frame in (0, len(parts) - 1)
            assert (report.good, report.damage.frame) == (frame, frame)
            assert report.good_bytes == starts[frame]
        if report.good:
            check_repair(path, report, whole)
        else:
            with pytest.raises(TraceError, match="nothing in it to save"):
                repair(path, tmp_path / "out")


# --------------------------------------------------------------------------------------------- frames moved about


def rearranged(good: Path, parts: list[bytes], tail: bytes) -> tuple[Path, ChainReport]:
    path = good.with_name("bad.vmrec")
    path.write_bytes(b"".join(parts) + tail)
    return path, verify_chain(path)


@pytest.mark.parametrize("with_tail", [True, False])
def test_reordered_frames(good: Path, with_tail: bool) -> None:
    whole = read_all(good)
    parts, tail = segments(good)
    for a, b in ((1, 2), (1, 4), (2, 4), (3, 4)):
        moved = list(parts)
        moved[a], moved[b] = moved[b], moved[a]
        path, report = rearranged(good, moved, tail * with_tail)
        assert isinstance(outcome(path), TraceError)
        assert report.damage is not None
        assert (report.damage.kind, report.damage.frame, report.good) == (DamageKind.REORDERED, a, a)
        check_repair(path, report, whole)


@pytest.mark.parametrize("with_tail", [True, False])
def test_dropped_frames(good: Path, with_tail: bool) -> None:
    whole = read_all(good)
    parts, tail = segments(good)
    for first, count in ((1, 1), (2, 1), (2, 2), (4, 1)):
        path, report = rearranged(good, parts[:first] + parts[first + count :], tail * with_tail)
        assert isinstance(outcome(path), TraceError)
        assert report.damage is not None
        assert (report.damage.kind, report.damage.frame, report.good) == (DamageKind.DROPPED, first, first)
        check_repair(path, report, whole)
    path, report = rearranged(good, parts[:-2], tail)
    assert report.damage is not None
    assert (report.damage.kind, report.good) == (DamageKind.DROPPED, len(parts) - 2)
    check_repair(path, report, whole)


@pytest.mark.parametrize("with_tail", [True, False])
def test_duplicated_frames(good: Path, with_tail: bool) -> None:
    whole = read_all(good)
    parts, tail = segments(good)
    for frame, place in ((0, 1), (1, 2), (1, 4), (3, 4)):
        path, report = rearranged(good, [*parts[:place], parts[frame], *parts[place:]], tail * with_tail)
        assert isinstance(outcome(path), TraceError)
        assert report.damage is not None
        assert (report.damage.kind, report.damage.frame, report.good) == (DamageKind.DUPLICATED, place, place)
        check_repair(path, report, whole)


@pytest.mark.parametrize("with_tail", [True, False])
def test_frames_spliced_from_another_valid_trace(good: Path, tmp_path: Path, with_tail: bool) -> None:
    whole = read_all(good)
    other = tmp_path / "other.vmrec"
    write_sample(other, seed="another")
    parts, tail = segments(good)
    foreign, _ = segments(other)
    for mixed, frame in (
        ([*parts[:2], foreign[2], *parts[3:]], 2),  # one in place of ours
        ([*parts[:2], foreign[2], *parts[2:]], 2),  # one more
        ([*parts[:3], *foreign[3:]], 3),  # the whole rest
        ([*parts[:2], foreign[4], *parts[3:]], 2),  # from elsewhere in the other trace
    ):
        path, report = rearranged(good, mixed, tail * with_tail)
        assert isinstance(outcome(path), TraceError)
        assert report.damage is not None
        assert (report.damage.kind, report.damage.frame, report.good) == (DamageKind.SPLICED, frame, frame)
        check_repair(path, report, whole)


def test_header_of_another_trace(good: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.vmrec"
    TraceWriter(other, header(seed=8)).close()
    parts, tail = segments(good)
    _, report = rearranged(good, [segments(other)[0][0], *parts[1:]], tail)
    assert report.damage is not None
    assert (report.damage.kind, report.good) == (DamageKind.SPLICED, 1)


# -------------------------------------------------------------------------------------------------------- truncated


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "short.vmrec"
    with TraceWriter(path, header()) as writer:
        for number in range(3):
            writer.append(pack(["console", number, noise(8, number)]), number, number)
            writer.flush()
        writer.append(pack(["end", 3, {"reason": "poweroff", "exit_code": 0, "icount": 3}]), 3, 3)
    whole = read_all(path)
    data = path.read_bytes()
    parts, _ = segments(path)
    ends = [sum(map(len, parts[: number + 1])) for number in range(len(parts))]
    for size in range(len(data)):
        path.write_bytes(data[:size])
        result = outcome(path)
        frames = sum(end <= size for end in ends)
        if not frames:
            assert isinstance(result, TraceError)
            continue
        assert result == whole[:frames]
        with TraceReader(path) as trace:
            assert not trace.closed
            assert trace.torn_at == (None if size in ends else ends[frames - 1])
            assert trace.last_position == trace.frames[frames - 1].last
        if size % 5 == 0 or size in ends:
            report = verify_chain(path)
            assert report.good == frames
            assert (report.damage and report.damage.kind) == (None if size in ends else DamageKind.TORN)
            check_repair(path, report, whole)


def test_zeros_behind_a_trace_are_a_torn_tail(tmp_path: Path) -> None:
    """What a power cut leaves: the file has its new size, but not its new content."""
    path = tmp_path / "zeros.vmrec"
    write_sample(path, close=False)
    whole = read_all(path)
    parts, _ = segments(path)
    for size in (20, 100, 10_000, 1 << 20):
        for kept in (0, 3, 30):
            path.write_bytes(b"".join(parts[:-1]) + parts[-1][:kept] + bytes(size))
            result = outcome(path)
            assert isinstance(result, list)
            assert result == whole[: len(result)]
            report = verify_chain(path)
            assert report.damage is not None
            assert (report.damage.kind, report.good) == (DamageKind.TORN, len(parts) - 1)


def test_bytes_behind_a_closed_trace(good: Path) -> None:
    whole = read_all(good)
    with good.open("ab") as file:
        file.write(b"and more")
    assert outcome(good) == whole
    with TraceReader(good) as trace:
        assert trace.torn
    report = verify_chain(good)
    assert report.damage is not None
    assert report.damage.kind == DamageKind.SEEK_TABLE
    check_repair(good, report, whole)


# ------------------------------------------------------------------------------------- intact chain, bad content


def object_frame(*objects: list[Any], first: int = 0, last: int = 9) -> tuple[bytes, int, int]:
    return b"".join(map(pack, objects)), first, last


DIGEST = {"value": bytes(32), "registers": {}, "ram": bytes(32), "outputs": bytes(32), "devices": bytes(32)}
INDEX = {"digests": b"", "checkpoints": b"", "pages": b"", "end": None}
END = {"reason": "x", "exit_code": None, "icount": 5}


@pytest.mark.parametrize(
    "frames",
    [
        [object_frame(["console", 5, b""], ["console", 4, b""])],  # backwards
        [object_frame(["console", 10, b""])],  # outside the frame's positions
        [object_frame(last=9), object_frame(["input", 8, b""])],  # after a promise
        [object_frame(last=9), object_frame(last=8)],  # a link that goes back
        [object_frame(["rows", 0, 4, {}], ["rows", 3, 5, {}])],
        [object_frame(["rows", 4, 3, {}])],
        [object_frame(["nonsense", 1])],
        [object_frame(["header", full_header()])],
        [object_frame(["end", 5, END], ["console", 5, b""])],
        [object_frame(["end", 5, END]), object_frame(["rows", 0, 1, {}])],
        [object_frame(["index", 5, INDEX], ["end", 5, END])],
        [object_frame(["console", 5, b""], ["index", 5, INDEX])],
        [object_frame(["page", bytes(32), bytes(4096)])],  # not its hash
        [object_frame(["page", bytes(32), bytes(100)])],
        [object_frame(["checkpoint", 5, {}, []], ["checkpoint", 5, {}, []])],
        [object_frame(["console", 5, "text"])],
        [object_frame(["console", -5, b""])],
        [object_frame(["console", True, b""])],
        [object_frame(["console", 5, b"", 0])],
        [object_frame(["console"])],
        [object_frame([])],
        [object_frame(["digest", 5, {**DIGEST, "ram": b"short"}])],
        [object_frame(["digest", 5, {"value": bytes(32)}])],
        [(pack({"kind": "console"}), 0, 9)],
        [(pack(5), 0, 9)],
        [(b"\xc1", 0, 9)],
        [(pack(["console", 5, b""])[:-1], 0, 9)],
        [(b"\xd4\x01\x00", 0, 9)],  # an extension type
    ],
)
def test_malformed_objects_in_an_intact_chain(tmp_path: Path, frames: list[tuple[bytes, int, int]]) -> None:
    path = tmp_path / "malformed.vmrec"
    path.write_bytes(with_header(*frames))
    assert isinstance(outcome(path), TraceError)
    report = verify_chain(path)
    assert report.damage is not None
    assert report.damage.kind == DamageKind.MALFORMED
    assert report.damage.frame == report.good == len(frames)
    out = tmp_path / "out"
    repair(path, out)
    assert verify_chain(out).ok
    read_all(out)


def test_checkpoint_without_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "pages.vmrec"
    path.write_bytes(with_header(object_frame(["checkpoint", 5, {}, [[1, bytes(32)]]])))
    report = verify_chain(path)
    assert report.damage is not None
    assert report.damage.kind == DamageKind.MALFORMED
    with TraceReader(path) as trace, pytest.raises(TraceError, match="missing"):
        trace.pages(trace.checkpoints[0])[1].load()
    path.write_bytes(with_header(object_frame(["checkpoint", 5, {}, [[16, bytes(32)]]])))
    with TraceReader(path) as trace, pytest.raises(TraceError, match="outside RAM"):
        trace.pages(trace.checkpoints[0])


def follow_index(trace: TraceReader) -> None:
    """Goes wherever the index points."""
    for digest_mark in trace.digests:
        trace.digest(digest_mark)
    for checkpoint_mark in trace.checkpoints:
        trace.checkpoint(checkpoint_mark)
    trace.page(bytes(32))


@pytest.mark.parametrize(
    "index",
    [
        {**INDEX, "end": 1},
        {**INDEX, "end": 99},
        {**INDEX, "digests": bytes(44)},
        {**INDEX, "digests": bytes(45)},
        {**INDEX, "checkpoints": bytes(12)},
        {**INDEX, "checkpoints": b"\xff" * 12},
        {**INDEX, "pages": bytes(12) + b"\xff" * 12},
    ],
)
def test_an_index_that_lies(tmp_path: Path, index: dict[str, Any]) -> None:
    path = tmp_path / "lies.vmrec"
    frames = chained(
        [
            (pack(["header", full_header()]), 0, 0),
            object_frame(["console", 5, b"x"]),
            object_frame(["index", 9, index], first=9),
        ]
    )
    path.write_bytes(frames)
    sizes = []
    with TraceReader(path) as trace:
        for info in trace.frames:
            following = [*trace.frames, None][info.index + 1]
            end = len(frames) if following is None else following.offset
            sizes += [info.length, end - info.offset - info.length]
    entries = b"".join(size.to_bytes(4, "little") + bytes(4) for size in sizes)
    footer = len(sizes).to_bytes(4, "little") + b"\0" + (0x8F92EAB1).to_bytes(4, "little")
    table = (0x184D2A5E).to_bytes(4, "little") + len(entries + footer).to_bytes(4, "little") + entries + footer
    path.write_bytes(frames + table)
    with TraceReader(path) as trace:
        assert trace.closed
        with pytest.raises(TraceError):
            follow_index(trace)
    report = verify_chain(path)
    assert report.damage is not None
    assert report.damage.kind == DamageKind.INDEX
    check_repair(path, report, [["header", full_header()], ["console", 5, b"x"]])


# ------------------------------------------------------------------------------------------ versions, not traces


def test_a_newer_version_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "newer.vmrec"
    for newer in ({"version": FORMAT_VERSION + 1}, {"version": 999, "guest": None, "more": 1}):
        path.write_bytes(chained([(pack(["header", full_header(**newer)]), 0, 0)]) + b"whatever comes then")
        for action in (TraceReader, verify_chain, lambda p: repair(p, tmp_path / "out")):
            known = f"newer vmrec: format version {newer['version']}, .* {FORMAT_VERSION}; upgrade"
            with pytest.raises(TraceError, match=known):
                action(path)
    path.write_bytes(chained([(pack(["header", full_header(version=0)]), 0, 0)]))
    with pytest.raises(TraceError, match="no format version 0"):
        TraceReader(path)


def test_what_is_not_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "x"
    elf = b"\x7fELF" + bytes(100)
    some_zstd = chained([(pack(["hello"]), 0, 0)])
    for data, words in (
        (b"", "empty"),
        (elf, "not a vmrec trace"),
        (b"\x28", "not a vmrec trace"),
        (some_zstd, "not a vmrec trace"),
        (chained([(b"", 0, 0)]), "not a vmrec trace"),
        (chained([(pack(["header", {"format": "x"}]), 0, 0)]), "vmrec trace"),
    ):
        path.write_bytes(data)
        with pytest.raises(TraceError, match=words):
            TraceReader(path)
        with pytest.raises(TraceError):
            repair(path, tmp_path / "out")
    with pytest.raises(TraceError, match="directory"):
        TraceReader(tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        verify_chain(tmp_path / "none")
    with pytest.raises(UsageError):
        TraceReader("a\0b")


# -------------------------------------------------------------------------------------------------------- head, repair


def test_the_head_names_the_trace(good: Path, tmp_path: Path) -> None:
    with TraceReader(good) as trace:
        head, early = trace.head, trace.frames[2].link
    assert verify_chain(good, head).ok
    report = verify_chain(good, early)
    assert report.damage is not None
    assert report.damage.kind == DamageKind.HEAD
    assert "frame 2" in report.damage.reason
    other = tmp_path / "other.vmrec"
    write_sample(other, seed=1)
    assert not verify_chain(other, head).ok
    # Cut off cleanly, an open trace is intact: only the head tells.
    parts, _ = segments(good)
    other.write_bytes(b"".join(parts[:3]))
    assert verify_chain(other).ok
    assert not verify_chain(other, head).ok


def test_progress_is_reported(good: Path) -> None:
    calls: list[tuple[int, int]] = []
    verify_chain(good, progress=lambda done, total: calls.append((done, total)))
    assert len(calls) == 6
    assert calls == sorted(calls)
    assert calls[-1][0] <= calls[-1][1] == good.stat().st_size


def test_repair_never_writes_over_its_source(good: Path, tmp_path: Path) -> None:
    before = good.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(good)
    for out in (good, link):
        with pytest.raises(UsageError, match="another name"):
            repair(good, out, force=True)
    out = tmp_path / "out"
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="--force"):
        repair(good, out)
    assert out.read_bytes() == b"mine"
    assert repair(good, out, force=True).ok
    assert out.read_bytes() == before == good.read_bytes()


def test_a_trace_that_shrinks_while_it_is_read(good: Path) -> None:
    with TraceReader(good) as trace:
        good.write_bytes(good.read_bytes()[:200])
        with pytest.raises(TraceError):
            list(trace.objects())
        with pytest.raises(TraceError, match="shorter"):
            trace.refresh()
