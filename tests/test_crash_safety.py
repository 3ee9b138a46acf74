# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder is killed at any moment, or its disk is full: what was written is a recording, and replays.

`test_trace_crash.py` does this to the writer alone; here it is `vmrec record`, with its threads and real guests.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import command, environment, finished, recorded_up_to, started, vmrec, wait_for_position

from vmrec.errors import TraceError
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import ChainReport, DamageKind, repair, verify_chain

# Records again and again and kills the recorder each time: when its file has reached a size, and then a while later
# (in rounds of an empty loop), which may be in the middle of anything.
KILLER = """
import json, os, signal, sys, time
from vmrec.cli.main import main

folder, moments = sys.argv[1], json.loads(sys.argv[2])
main(["record", "hello", "--json", "-o", f"{folder}/first.vmrec"])  # everything is imported before the first fork
for number, (arguments, size, rounds) in enumerate(moments):
    path = f"{folder}/{number}.vmrec"
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        os._exit(main(["record", *arguments, "-o", path]))
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if os.path.exists(path) and os.path.getsize(path) >= size:
            break
        time.sleep(0.0001)  # this is no wait for something, but lets the recorder have the processor
    for _ in range(rounds):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def killed(folder: Path, moments: list[tuple[list[str], int, int]]) -> Iterator[Path]:
    """The recordings of recorders that were killed: (arguments, size of the file, rounds after that)."""
    subprocess.run(
        [sys.executable, "-c", KILLER, folder, json.dumps(moments)],
        env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=300,
    )  # fmt: skip
    for number in range(len(moments)):
        yield folder / f"{number}.vmrec"


def check_prefix(path: Path) -> ChainReport | None:
    """What is on the disk is whole but for a torn tail, replays exactly, and can be saved. None: not even a header."""
    if not path.exists():
        return None
    try:
        report = verify_chain(path)
    except TraceError:
        if path.stat().st_size < 8192:
            return None
        raise
    if not report.good:
        return None
    assert report.damage is None or report.damage.kind is DamageKind.TORN, report
    check_replay(path, report)
    if report.damage is not None:
        saved = path.with_suffix(".saved")
        repair(path, saved)
        again = verify_chain(saved)
        assert again.ok
        assert again.closed
        assert again.last_position == report.last_position
        saved.unlink()
    return report


def check_replay(path: Path, report: ChainReport) -> None:
    with TraceReader(path) as trace:
        assert trace.last_position == report.last_position
        assert trace.torn == (report.damage is not None)
        with Player(trace, check_rows=True) as player:
            assert player.run() is None
            assert player.machine.position == report.last_position
            if trace.header["capture"] == "full" and not report.ended:
                rows = [obj[2] for obj in trace.rows()]
                assert player.rows_checked == min(rows[-1], report.last_position) if rows else True


#: Arguments, how large the file may be when the killing begins, how many rounds it may take from there, how often.
MOMENTS: dict[str, tuple[list[str], int, int, int]] = {
    # A short run: creating the file, the header, closing, index and seek table.
    "short": (["dice", "--seed", "1"], 12_000, 200_000, 150),
    # Rows in a hurry: frames all the time.
    "rows": (["loop-mem", "--capture", "full"], 400_000, 400_000, 60),
    "durable": (["loop-mem", "--capture", "full", "--durable"], 300_000, 400_000, 20),
    # Console output, and the frames that close because time has passed.
    "flood": (["flood", "--capture", "inputs"], 30_000, 400_000, 20),
    "quiet": (["timer-long", "--capture", "inputs", "--chaos", "1"], 8_000, 400_000, 8),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_kill_at_any_moment(name: str, tmp_path: Path) -> None:
    arguments, size, rounds, count = MOMENTS[name]
    choice = random.Random(name)
    moments = [(arguments, choice.randrange(size), choice.randrange(rounds)) for _ in range(count)]
    reached = []
    for path in killed(tmp_path, moments):
        report = check_prefix(path)
        if report is not None:
            reached.append(report.last_position)
        path.unlink(missing_ok=True)
    assert max(reached) > 1000
    assert len(set(reached)) > 1, "the moments were no different"


def test_a_killed_recording_is_a_recording(tmp_path: Path) -> None:
    """For a user: every verb takes it, says what it is, and the rest can be saved."""
    path = tmp_path / "killed.vmrec"
    with started("record", "loop-mem", "--capture", "full", "-o", path, cwd=tmp_path) as process:
        wait_for_position(path, 1_000_000)
        process.send_signal(signal.SIGKILL)
        assert finished(process).status == -signal.SIGKILL
    os.truncate(path, path.stat().st_size - 5)  # as if killed inside a write
    last = recorded_up_to(path)
    done = vmrec("verify", path, cwd=tmp_path, status=2)
    assert b"torn tail" in done.out
    assert b"vmrec repair" in done.out
    report = vmrec("replay", path, "--check", "--json", cwd=tmp_path).json
    assert report["same"] is True
    assert report["position"] == last
    assert "is torn" in vmrec("replay", path, cwd=tmp_path).err
    vmrec("repair", path, "-o", "saved.vmrec", cwd=tmp_path)
    verified = vmrec("verify", "saved.vmrec", "--json", cwd=tmp_path).json
    assert (verified["good"], verified["last_position"], verified["closed"]) == (True, last, True)
    assert b"killed.vmrec" in vmrec("ls", cwd=tmp_path).out


# --------------------------------------------------------------------------------------------------------- disk full


def check_full(path: Path, *arguments: str, **options: Any) -> None:
    """The recorder ends with trouble and says where, and what is on the disk is a recording up to there."""
    whole = ["record", "loop-mem", "--capture", "full", "--force", "-o", path]
    process = subprocess.run(
        command(*whole, *arguments), env=environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False,
        **options,
    )  # fmt: skip
    message = " ".join(process.stderr.decode().split())
    assert process.returncode == 2, message
    assert message.startswith("vmrec: error: ")
    if not path.exists():
        assert "writing failed" in message
        return
    report = check_prefix(path)
    assert report is not None
    assert report.ok, "the torn frame was cut off"
    assert f"verified prefix up to position {report.last_position};" in message
    if "--json" in arguments:
        told = json.loads(process.stdout)
        assert told["reason"] == "write-failed"
        assert told["position"] == report.last_position
        assert told["head"] == report.head.hex()
        assert told["size"] == path.stat().st_size
        assert "verified prefix" in told["error"]


def limited(size: int) -> Callable[[], None]:
    """In the child: no file may grow beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("size", [100, 6_000, 8_000, 60_000, 700_000, 3_000_000])
def test_a_file_that_may_not_grow(size: int, tmp_path: Path) -> None:
    path = tmp_path / "full.vmrec"
    check_full(path, "--json", preexec_fn=limited(size))
    assert path.exists() == (size > 1000)
    if path.exists():
        assert path.stat().st_size <= size


def test_disk_full_on_a_small_filesystem(tmp_path: Path) -> None:
    with small_filesystem(tmp_path):
        check_full(tmp_path / "a.vmrec")
        check_full(tmp_path / "b.vmrec", "--json", "--durable")  # no room even for a header
        (tmp_path / "a.vmrec").unlink()
        check_full(tmp_path / "b.vmrec", "--json", "--durable")


@contextlib.contextmanager
def small_filesystem(place: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small filesystem needs root; test_a_file_that_may_not_grow fills a file up instead")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)
