# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder dies, the disk fills up, two recorders want one file: what was flushed can be read, always."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trace_files import header, noise, read_all, write_sample

from vmrec.errors import TraceError, UsageError
from vmrec.trace.codec import pack
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import DamageKind, repair, verify_chain
from vmrec.trace.writer import TraceWriter


def record(position: int) -> bytes:
    """The object at a position: of any size up to 1 MiB, and the same in every process."""
    size = random.Random(position).choice([1, 100, 5000, 60_000, 1 << 20])
    return pack(["rows", position, position + 1, {"pc": noise(size, position)}])


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


# ----------------------------------------------------------------------------------------------------------- kill -9

# For every line on stdin starts a writer, which tells after each flush how far the trace now reaches, and at the next
# line kills it. A writer stops writing after a while, so that nothing fills the disk if nobody comes to kill it.
KILLED = """
import os, signal, sys
from test_trace_crash import LAST, header, record
from vmrec.trace.writer import TraceWriter
while path := sys.stdin.readline().rstrip():
    pid = os.fork()
    if not pid:
        writer = TraceWriter(path, header(), durable=path.endswith("4"))
        for position in range(LAST):
            os.write(1, b"%d\\n" % position)  # at once: a line of which death takes half would join the next one
            writer.append(record(position), position, position + 1)
            writer.flush()
        os.write(1, b"%d\\n" % LAST)
        signal.pause()
    sys.stdin.readline()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.write(1, b"dead\\n")
"""
LAST = 40
MOMENTS = 36


def test_kill_at_any_moment(tmp_path: Path) -> None:
    choice = random.Random(9)
    torn = 0
    with child(KILLED) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(MOMENTS):
            path = tmp_path / f"killed {number}"
            moment = choice.randrange(LAST)
            print(path, file=process.stdin, flush=True)
            flushed = 0
            for line in process.stdout:
                if line == "dead\n":
                    break
                flushed = int(line)
                if flushed == moment:
                    print("kill", file=process.stdin, flush=True)
            torn += check_prefix(path, flushed)
    assert process.returncode == 0
    assert torn < MOMENTS


def check_prefix(path: Path, flushed: int) -> bool:
    """The trace holds at least what was flushed, nothing wrong, and can be saved; returns whether its tail is torn."""
    report = verify_chain(path)
    assert report.last_position >= flushed
    assert report.damage is None or report.damage.kind == DamageKind.TORN
    with TraceReader(path) as trace:
        assert trace.torn == (report.damage is not None)
        assert trace.last_position == report.last_position
        assert [pack(rows) for rows in trace.rows()] == [record(n) for n in range(report.last_position)]
    if report.damage is not None:
        out = path.with_suffix(".saved")
        repair(path, out)
        assert verify_chain(out).last_position == report.last_position
    path.unlink()
    return report.damage is not None


# --------------------------------------------------------------------------------------------------------- disk full

# Records until the disk is full, once for each limit; tells what the error said and where things stood.
FULL = """
import json, resource, sys
from test_trace_crash import record, header
from vmrec.errors import TraceError
from vmrec.trace.writer import TraceWriter
folder, limits = sys.argv[1], json.loads(sys.argv[2])
results = []
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for number, limit in enumerate(limits):
    if limit:  # writing beyond it fails with EFBIG; Python ignores the signal that comes with it
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    path = f"{folder}/{number}"
    position = written = 0
    try:
        with TraceWriter(path, header(), durable=bool(number % 2)) as writer:
            while position < 400:
                size = len(record(position))
                writer.append(record(position), position, position + 1)
                position += 1
                if position % 3 == 0:
                    writer.flush()
                written = writer.written_position
            outcome = "closed"
    except TraceError as error:
        outcome = [str(error), error.offset, written]
    results.append(outcome)
print(json.dumps(results))
"""


def full_disk(folder: Path, limits: list[int]) -> Iterator[tuple[Path, Any]]:
    process = child(FULL, folder, json.dumps(limits))
    output, _ = process.communicate()
    assert process.returncode == 0
    for number, result in enumerate(json.loads(output)):
        yield folder / str(number), result


def check_full(path: Path, result: Any) -> None:
    message, offset, written = result
    if not path.exists():  # not even the header fitted
        assert offset == 0
        return
    assert f"verified prefix up to position {written}" in message
    assert path.stat().st_size == offset
    report = verify_chain(path)
    assert report.ok
    assert report.last_position == written
    assert [obj[1] for obj in read_all(path)[1:]] == list(range(written))


def test_disk_full(tmp_path: Path) -> None:
    choice = random.Random(3)
    limits = [10, 400, 700, *(choice.randrange(500, 8 << 20) for _ in range(25))]
    for limit, (path, result) in zip(limits, full_disk(tmp_path, limits), strict=True):
        assert "File too large" in result[0]
        assert result[1] <= limit
        check_full(path, result)
    assert not (tmp_path / "0").exists()


def test_disk_full_on_a_small_filesystem(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small filesystem needs root; test_disk_full fills a file up instead")
    try:
        for path, result in full_disk(tmp_path, [0, 0, 0]):
            assert "No space left on device" in result[0]
            check_full(path, result)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_failed_writer_stays_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "failing.vmrec"
    writer = TraceWriter(path, header())
    writer.append(pack(["console", 1, b"x"]), 1, 1)
    writer.flush()
    size = path.stat().st_size
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if at > size:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, bytes(data[:10]), at)

    writer.append(pack(["console", 2, b"y"]), 2, 2)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(TraceError, match="prefix up to position 1;"):
        writer.flush()
    assert path.stat().st_size == size
    monkeypatch.setattr(os, "pwrite", pwrite)
    for action in (writer.flush, writer.close):
        with pytest.raises(TraceError, match="No space left"):
            action()
    writer.close()
    assert path.stat().st_size == size
    assert verify_chain(path).last_position == 1


def test_an_interrupted_write_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a write: the next flush writes the frame whole, or abort cuts it off."""
    pwrite = os.pwrite
    for finish in (True, False):
        path = tmp_path / f"interrupted {finish}.vmrec"
        writer = TraceWriter(path, header())
        size = path.stat().st_size

        def interrupted(descriptor: int, data: bytes, at: int) -> int:
            pwrite(descriptor, bytes(data[:50]), at)
            raise KeyboardInterrupt

        writer.append(pack(["console", 1, noise(300, 1)]), 1, 1)
        monkeypatch.setattr(os, "pwrite", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.flush()
        monkeypatch.setattr(os, "pwrite", pwrite)
        assert path.stat().st_size == size + 50
        if finish:
            writer.close()
        else:
            writer.abort()
            assert path.stat().st_size == size
        assert verify_chain(path).ok
        assert [obj[0] for obj in read_all(path)] == ["header", *["console", "index"] * finish]


def test_an_exception_leaves_what_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "abandoned.vmrec"

    def interrupted() -> None:
        with TraceWriter(path, header()) as writer:
            writer.append(pack(["console", 1, b"x"]), 1, 1)
            writer.flush()
            writer.append(pack(["console", 2, b"y"]), 2, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with TraceReader(path) as trace:
        assert (trace.closed, trace.torn, trace.last_position) == (False, False, 1)


# ------------------------------------------------------------------------------------------------------------- locks


def test_two_recorders_on_one_file(tmp_path: Path) -> None:
    path = tmp_path / "one.vmrec"
    with TraceWriter(path, header()) as writer:
        writer.append(pack(["console", 1, b"x"]), 1, 1)
        writer.flush()
        before = path.read_bytes()
        for force in (False, True):
            with pytest.raises(UsageError, match="another process is recording into it"):
                TraceWriter(path, header(), force=force)
        assert path.read_bytes() == before
    with pytest.raises(UsageError, match="--force"):
        TraceWriter(path, header())
    TraceWriter(path, header(), force=True).close()
    assert [obj[0] for obj in read_all(path)] == ["header", "index"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    existing = tmp_path / "existing"
    write_sample(existing)
    before = existing.read_bytes()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path, force, words in (
        (tmp_path / "none" / "x", False, "No such file or directory.*-o"),
        (tmp_path, False, "is a directory"),
        (tmp_path, True, "Is a directory"),
        (fifo, True, "not a regular file"),
        (existing, False, "exists already.*--force"),
        (existing / "x", False, "Not a directory"),
        (tmp_path / "dangling", False, "exists already"),
        ("a\0b", False, "null"),
        ("/proc/self/x", False, "cannot be written"),
    ):
        with pytest.raises(UsageError, match=words):
            TraceWriter(path, header(), force=force)
    assert existing.read_bytes() == before
