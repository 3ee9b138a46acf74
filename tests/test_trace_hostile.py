# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever bytes a trace is made of: a result or a TraceError, in bounded memory."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trace_files import chained, digest, full_header, outcome, segments, with_header, write_sample

from vmrec.errors import TraceError
from vmrec.trace.codec import Malformed, compress, decompress, pack, unpack_all, unpack_pages, unpack_stream
from vmrec.trace.digests import blake3_of
from vmrec.trace.objects import check, check_records
from vmrec.trace.recovery import repair, verify_chain

MiB = 1 << 20
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(path: Path) -> None:
    """Every way of looking at a file ends in a result or a TraceError; what repair saves is good."""
    result = outcome(path)
    assert isinstance(result, list | TraceError)
    out = path.with_name("repaired")
    try:
        report = verify_chain(path)
        repair(path, out, force=True)
    except TraceError:
        return
    assert report.good >= 1
    assert verify_chain(out).ok
    if report.ok:
        assert isinstance(result, list)


# -------------------------------------------------------------------------------------------------------------- fuzz


@FUZZ
@given(st.binary(max_size=400), st.sampled_from([b"", b"\x28\xb5\x2f\xfd", b"\x51\x2a\x4d\x18", b"\x5e\x2a\x4d\x18"]))
def test_any_bytes(tmp_path: Path, data: bytes, start: bytes) -> None:
    path = tmp_path / "fuzz.vmrec"
    path.write_bytes(start + data)
    survives(path)
    path.write_bytes(with_header() + start + data)
    survives(path)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "repeat", "swap", "link"]), st.integers(0, 2**20), st.integers(0, 255)
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, parts: list[bytes], edits: list[tuple[str, int, int]]) -> bytes:
    for edit, where, value in edits:
        at = where % (len(data) + 1)
        if edit == "set":
            data = data[:at] + bytes([value]) + data[at + 1 :]
        elif edit == "cut":
            data = data[:at] + data[at + value :]
        elif edit == "insert":
            data = data[:at] + bytes([value]) * (value % 9) + data[at:]
        elif edit == "repeat":
            data = data[:at] + data[max(0, at - value) : at] + data[at:]
        elif edit == "swap":
            part = parts[value % len(parts)]
            data = data.replace(part, parts[where % len(parts)], 1)
        else:
            data = data[:at] + parts[value % len(parts)][-60:] + data[at:]
    return data


@FUZZ
@given(EDITS)
def test_edited_traces(tmp_path: Path, edits: list[tuple[str, int, int]]) -> None:
    sample = tmp_path / "sample.vmrec"
    if not sample.exists():
        write_sample(sample)
    parts, _ = segments(sample)
    path = tmp_path / "fuzz.vmrec"
    path.write_bytes(edited(sample.read_bytes(), parts, edits))
    survives(path)


@FUZZ
@given(EDITS, st.integers(0, 4))
@example([("swap", 5, 58)], 4)  # the index comes before the end
def test_edited_frames_in_an_intact_chain(tmp_path: Path, edits: list[tuple[str, int, int]], which: int) -> None:
    """The forger knows the format: links are right, the msgpack or the zstd frames are not."""
    sample = tmp_path / "sample.vmrec"
    if not sample.exists():
        write_sample(sample)
    frames = [part[: part.index(b"\x51\x2a\x4d\x18")] for part in segments(sample)[0]]
    path = tmp_path / "fuzz.vmrec"
    raw = edited(decompress(frames[which]), frames, edits)
    spans = [(0, 0), (0, 100), (100, 200), (200, 300), (300, 400), (400, 400)]
    changed = [*frames[:which], compress(raw), *frames[which + 1 :]]
    path.write_bytes(chained([(frame, *span) for frame, span in zip(changed, spans, strict=True)], packed=True))
    survives(path)
    changed[which] = edited(frames[which], frames, edits)
    path.write_bytes(chained([(frame, *span) for frame, span in zip(changed, spans, strict=True)], packed=True))
    survives(path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.integers(0, 9) | st.floats() | st.text(max_size=9)
    | st.binary(max_size=40) | st.sampled_from([bytes(32), bytes(4096), blake3_of(bytes(4096))]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
KINDS = ["input", "clock", "idle", "entropy", "console", "stop", "digest", "page", "checkpoint", "rows", "end", "index"]
OBJECT = st.builds(lambda kind, rest: [kind, *rest], st.sampled_from(KINDS), st.lists(ANYTHING, max_size=4)) | ANYTHING


@FUZZ
@given(st.lists(st.lists(OBJECT, max_size=3), max_size=3), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_any_objects_in_an_intact_chain(tmp_path: Path, frames: list[list[Any]], first: int, last: int) -> None:
    path = tmp_path / "fuzz.vmrec"
    path.write_bytes(with_header(*((b"".join(map(pack, objects)), first, last) for objects in frames)))
    survives(path)


@FUZZ
@given(st.dictionaries(st.sampled_from(sorted(full_header())), ANYTHING, max_size=3))
def test_any_header(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "fuzz.vmrec"
    path.write_bytes(chained([(pack(["header", full_header(**changes)]), 0, 0)]))
    survives(path)


LARGE = pack(bytes(2 * MiB))
WANTED = frozenset(("console", "input", "stop"))


@FUZZ
@given(st.binary(max_size=200))
def test_any_msgpack(data: bytes) -> None:
    for raw in (data, b"\x94\xaacheckpoint" + data, LARGE + data):
        try:
            for _ in unpack_stream(raw):
                pass
        except Malformed:
            pass


@FUZZ
@example([["stop"]], b"\x91", b"")
@example([], b"\xc0\xc4", b"")
@given(st.lists(OBJECT, max_size=6), st.binary(max_size=9), st.sampled_from([b"", b"\x94\xaacheckpoint", LARGE]))
def test_unpacking_all_at_once_gives_the_same(objects: list[Any], rest: bytes, more: bytes) -> None:
    raw = b"".join(map(pack, objects)) + more + rest
    try:
        lists = [obj for obj in unpack_stream(raw, kinds=WANTED) if type(obj) is list and obj]
        expected: Any = [obj for obj in lists if type(obj[0]) is str and obj[0] in WANTED]
    except Malformed as error:
        expected = str(error)
    try:
        found: Any = unpack_all(raw, WANTED)
    except Malformed as error:
        found = str(error)
    assert repr(found) == repr(expected)  # of a float that is no number, too


PAGE = pack(["page", bytes(range(32)), bytes(4096)])


@FUZZ
@example([], 1)
@example([("set", len(PAGE), 0x92)], 3)
@example([("set", 0, 0x92)], 1)
@given(st.lists(st.tuples(st.just("set"), st.integers(0, 2 * len(PAGE) - 1), st.integers(0, 255))), st.integers(0, 3))
def test_pages_unpack_as_all_else(edits: list[tuple[str, int, int]], count: int) -> None:
    raw = edited(PAGE * count, [b""], edits)
    found = unpack_pages(raw)
    if found is not None:
        assert found == list(unpack_stream(raw))
    if not edits and count:
        assert found == [["page", bytes(range(32)), bytes(4096)]] * count


RECORD = st.builds(
    lambda kind, rest: [kind, *rest],
    st.sampled_from(["console", "written", "input", "stop"]),
    st.lists(st.integers(-2, 9) | st.booleans() | st.binary(max_size=2) | st.text(max_size=2), max_size=5),
)


@example([["written", 1, 2, 3, -4]])
@example([["written", 1, True, 3, 4]])
@example([["console", 1, "x"], ["written", 1, 2, 3, 4]])
@given(st.lists(RECORD, max_size=4))
def test_a_quick_look_at_records_lets_nothing_pass(records: list[list[Any]]) -> None:
    """Nor does it refuse anything."""

    def good(look: Callable[[], object]) -> bool:
        try:
            look()
        except Malformed:
            return False
        return True

    assert good(lambda: check_records(records)) == good(lambda: [check(record) for record in records])


# ------------------------------------------------------------------------------------------------------------- bombs


def rle_frame(blocks: int, *, window: int = 0x50) -> bytes:
    """A zstd frame, by hand, that unpacks to `blocks` × 128 KiB and does not say so."""
    block = (128 << 10) << 3 | 1 << 1
    body = (block.to_bytes(3, "little") + b"\x90") * (blocks - 1) + (block | 1).to_bytes(3, "little") + b"\x90"
    return b"\x28\xb5\x2f\xfd\x04" + bytes([window]) + body + bytes(4)


def lying_frame(size: int) -> bytes:
    """A zstd frame whose header claims `size` bytes."""
    return b"\x28\xb5\x2f\xfd\xe4" + size.to_bytes(8, "little") + (8 | 1).to_bytes(3, "little") + b"x" + bytes(4)


ROWS = b"\x94\xa4rows\x00\x01\x81\xa1c"
STATE = b"\x94\xaacheckpoint\x05"
CLAIM = b"\xdc\x10\x00"  # an array of 4096

BOMBS = {
    "array of 2**31": b"\xdd\x7f\xff\xff\xff",
    "array of 2**32-1 in rows": ROWS + b"\xdd\xff\xff\xff\xff" + bytes(60),
    "map of 2**32-1": b"\xdf\xff\xff\xff\xff\xc0",
    "bin of 2**32-1": b"\x93\xa5input\x00\xc6\xff\xff\xff\xff",
    "text of 2**32-1": b"\xdb\xff\xff\xff\xff",
    "extension of 2**32-1": b"\xc9\xff\xff\xff\xff\x01",
    "nesting": b"\x91" * 100_000 + b"\xc0",
    "nested maps": ROWS + b"\x81\xa1a" * 100_000 + b"\xc0",
    "nested claims": CLAIM * 900 + b"\xc0" * 10,
    "empty lists": ROWS + b"\xdd" + (20 * MiB).to_bytes(4, "big") + b"\x90" * 20 * MiB,
    "lists of small maps": ROWS + b"\xdc\x02\x58" + (CLAIM + b"\x81\xa0\x80" * 4096) * 600,
    "small maps, few enough": ROWS + b"\xdc\x00\x20" + (CLAIM + b"\x81\xa0\x80" * 4096) * 32,
    "empty lists as objects": b"\x90" * 20 * MiB,
    "nothings in the state": STATE + b"\xdc\x02\x58" + (CLAIM + b"\xc0" * 4096) * 600 + b"\x90",
    "pages that are none": STATE + b"\x80\xdd\x00\x10\x00\x00" + b"\x92\x80\x80" * MiB,
    "pages that are too many": STATE + b"\x80\xdd\x00\x20\x00\x00" + (b"\x92\x00\xc4\x20" + bytes(32)) * MiB,
    "pages that are large": STATE + b"\x80\xdc\x00\x10" + (CLAIM + b"\x90" * 4096) * 16,
    "page of a large page": STATE + b"\x80\x91\x92\x00" + b"\xdc\xff\xff" + b"\x80" * 65535,
    "long text": ROWS + b"\xdb" + (20 * MiB).to_bytes(4, "big") + b"a" * 20 * MiB,
}
ZSTD_BOMBS = {
    "10 GiB unannounced": rle_frame(80_000),
    "2 GiB window": rle_frame(4, window=0xA8),
    "16 EiB announced": lying_frame(2**64 - 1),
    "65 MiB announced": lying_frame(65 * MiB),
    "more announced than there is": lying_frame(64 * MiB),
    "65 MiB of zeros": compress(bytes(64 * MiB))[:-4] + b"\0\0\0\0",
}

CHILD = """
import sys, trace_files
from pathlib import Path
from vmrec.errors import TraceError
from vmrec.trace.recovery import verify_chain
for name in sys.argv[1:]:
    result = type(trace_files.outcome(Path(name))).__name__
    try:
        verify_chain(name)
    except TraceError:
        pass
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
    print(int(peak) >> 10, result, name)
"""


def test_bombs_cost_bounded_memory(tmp_path: Path) -> None:
    """In a process of its own: 64 MiB of a frame, a few copies of it, and no more."""
    paths = []
    for name, raw in BOMBS.items():
        for where in ("header", "frame"):
            if where == "header" and len(raw) > 4 * MiB:
                continue
            paths.append(tmp_path / f"{name}, {where}")
            paths[-1].write_bytes(chained([(raw, 0, 0)]) if where == "header" else with_header((raw, 0, 9)))
    for name, frame in ZSTD_BOMBS.items():
        head = compress(pack(["header", full_header()]))
        for where, frames in (("header", [frame]), ("frame", [head, frame])):
            paths.append(tmp_path / f"{name}, {where}")
            paths[-1].write_bytes(chained([(frame, 0, 9) for frame in frames], packed=True))
    run = subprocess.run(
        [sys.executable, "-c", CHILD, *paths],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = [line.split(" ", 2) for line in run.stdout.splitlines()]
    assert len(lines) == len(paths)
    assert {Path(line[2]).name for line in lines if line[1] != "TraceError"} == {"small maps, few enough, frame"}
    assert [line for line in lines if int(line[0]) > 400] == []


def test_many_false_links_do_not_stall(tmp_path: Path) -> None:
    """A damaged frame makes the reader look for its link; a file made of things like links is no trap."""
    path = tmp_path / "links.vmrec"
    link = b"\x51\x2a\x4d\x18\x20\x00\x00\x00\x96\x01"
    path.write_bytes(with_header() + link * 20_000)
    survives(path)
    path.write_bytes(with_header() + (b"\x28\xb5\x2f\xfd\x04\x50" + b"\x02\x00\x00\x00" * 200_000))
    survives(path)


def test_lying_seek_tables(tmp_path: Path) -> None:
    """Tables of the right form and wrong content never stop a reader from walking."""
    path = tmp_path / "table.vmrec"
    objects = write_sample(path)
    data = path.read_bytes()
    parts, tail = segments(path)
    choice = random.Random(5)
    for _ in range(100):
        entries = [choice.choice([0, 1, len(parts[0]), 2**32 - 1, choice.randrange(5000)]) for _ in range(2 * 8)]
        body = b"".join(entry.to_bytes(4, "little") for entry in entries)
        footer = choice.choice([7, 8, 6, 2**31]).to_bytes(4, "little") + tail[-5:]
        size = len(body) + len(footer)
        table = tail[:4] + choice.choice([size, 0, 2**32 - 1]).to_bytes(4, "little") + body + footer
        path.write_bytes(data[: -len(tail)] + table)
        result = outcome(path)
        assert isinstance(result, list)
        assert result[1:-1] == objects
        assert not verify_chain(path).ok


@pytest.mark.parametrize("size", [0, 1, 5, 100])
def test_decompress_takes_exactly_one_frame(size: int) -> None:
    frame = compress(bytes(size))
    assert decompress(frame) == bytes(size)
    for bad in (frame[:-1], frame + b"x", frame + frame, b"", b"x" + frame):
        with pytest.raises(Malformed):
            decompress(bad)


def test_marks_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrec.trace.objects.MAX_MARKS", 3)
    path = tmp_path / "marks.vmrec"
    path.write_bytes(with_header(*((pack(digest(n, bytes(32))), n, n) for n in range(5))))
    assert isinstance(outcome(path), TraceError)
    assert verify_chain(path).good == 4
