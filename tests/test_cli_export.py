# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec export: everything in a recording as plain maps, in order, for readers that know nothing of vmrec."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import pytest
from command_line import command, environment, finished, reader_leaves, started, terminal, vmrec
from recordings import record

from vmrec.replay.rows import rows
from vmrec.trace.reader import TraceReader

README = Path(__file__).resolve().parent.parent / "README.md"
ECHO = ((5_000, b"hi\n"), (40_000, b"quit\n"))
Map = dict[str, Any]


def exported(*arguments: object, cwd: Path) -> list[Map]:
    """What `vmrec export` writes to a pipe."""
    done = vmrec("export", *arguments, "--msgpack", cwd=cwd)
    assert done.err == ""
    return list(msgpack.Unpacker(io.BytesIO(done.out)))


def of(maps: list[Map], *types: str) -> list[Map]:
    return [item for item in maps if item["type"] in types]


KEYS = {
    "recording": "format version guest isa capture seed chaos from to",
    "instruction": "position pc bytes text trap",
    "access": "position kind address size value",
    "input": "position data",
    "clock": "position ticks",
    "idle": "position steps",
    "entropy": "position data",
    "console": "position data",
    "stop": "position reason code",
    "end": "position reason exit_code icount",
}


@pytest.mark.parametrize("capture", ["inputs", "full"])
def test_everything_is_there_in_order(capture: str, tmp_path: Path) -> None:
    made = record(tmp_path / "echo.vmrec", "echo", capture=capture, script=ECHO)
    maps = exported("echo", cwd=tmp_path)

    for item in maps:
        assert ["type", *KEYS[item["type"]].split()] == list(item)
    with TraceReader(made.path) as trace:
        executed = list(rows(trace))
        records = list(trace.records())
        assert maps[-1] == {
            "type": "end", "position": trace.last_position, "reason": "poweroff", "exit_code": 0,
            "icount": made.ended.icount,
        }  # fmt: skip
    assert [item["type"] for item in (maps[0], maps[-1])] == ["recording", "end"]
    assert (maps[0]["guest"], maps[0]["capture"], maps[0]["to"]) == ("echo", capture, made.ended.position)
    instructions = of(maps, "instruction")
    assert [(item["position"], item["pc"], item["bytes"], item["trap"]) for item in instructions] == [
        (row.position, row.pc, row.code, row.trap) for row in executed
    ]
    assert all(re.fullmatch(r"[a-z.]+( .*)?", item["text"]) for item in instructions)
    assert [(a["position"], a["kind"], a["address"], a["size"], a["value"]) for a in of(maps, "access")] == [
        (row.position, a.kind, a.address, a.size, a.value) for row in executed for a in row.accesses
    ]
    assert [list(item.values()) for item in of(maps, "input", "console", "stop")] == [
        record.wire() for record in records
    ]
    assert_order(maps)


def assert_order(maps: list[Map]) -> None:
    """By position; at one position: events, the instruction, its accesses, what it put out."""
    ranks = {"input": 0, "clock": 0, "idle": 0, "entropy": 0, "instruction": 1, "access": 2, "console": 3, "stop": 3}
    places = [(item["position"], ranks[item["type"]]) for item in maps if item["type"] in ranks]
    assert places == sorted(places)


def test_every_kind_of_event(tmp_path: Path) -> None:
    record(tmp_path / "dice.vmrec", "dice", chaos=2)
    record(tmp_path / "timer.vmrec", "timer", chaos=2, max_insns=200_000)
    dice, timer = exported("dice", cwd=tmp_path), exported("timer", cwd=tmp_path)
    assert len(of(dice, "entropy")) > 10
    assert len(of(timer, "clock")) >= 5
    for maps in (dice, timer):
        assert_order(maps)


def test_traps_have_no_accesses_and_are_marked(tmp_path: Path) -> None:
    record(tmp_path / "traps.vmrec", "traps", capture="full")
    maps = exported("traps", cwd=tmp_path)
    trapped = {item["position"] for item in of(maps, "instruction") if item["trap"]}
    assert trapped
    assert not trapped & {item["position"] for item in of(maps, "access")}
    assert of(maps, "end")[0]["icount"] == of(maps, "end")[0]["position"] - len(trapped)


def test_captured_or_regenerated_makes_no_difference(tmp_path: Path) -> None:
    for capture in ("inputs", "full"):
        record(tmp_path / f"{capture}.vmrec", "race", capture=capture, chaos=3, max_insns=150_000)
    inputs, full = (exported(capture, cwd=tmp_path) for capture in ("inputs", "full"))
    assert inputs[1:] == full[1:]
    assert inputs[0] == {**full[0], "capture": "inputs"}


def test_a_range_is_that_part_of_the_whole(tmp_path: Path) -> None:
    record(tmp_path / "echo.vmrec", "echo", capture="full", script=ECHO)
    whole = exported("echo", cwd=tmp_path)
    part = exported("echo", "--from", 300, "--to", 700, cwd=tmp_path)
    assert part[1:] == [item for item in whole if 300 <= item.get("position", -1) < 700]
    assert (part[0]["from"], part[0]["to"]) == (300, 700)
    assert exported("echo", "--from", 10**9, cwd=tmp_path)[1:] == whole[-1:]


def test_files_are_whole_and_never_overwritten(tmp_path: Path) -> None:
    path = record(tmp_path / "hello.vmrec", "hello", capture="full").path
    done = vmrec("export", "hello", "--msgpack", "-o", "out", cwd=tmp_path)
    data = (tmp_path / "out").read_bytes()
    count = len(list(msgpack.Unpacker(io.BytesIO(data))))
    assert done.err.startswith(f"out: {count} maps, ")
    assert data == vmrec("export", "--msgpack", cwd=tmp_path).out
    assert "--force" in vmrec("export", "hello", "--msgpack", "-o", "out", cwd=tmp_path, status=2).err
    vmrec("export", "hello", "--msgpack", "-o", "out", "--force", cwd=tmp_path)
    done = vmrec("export", "hello", "--msgpack", "-o", path, "--force", cwd=tmp_path, status=2)
    assert "is the recording itself" in done.err
    assert (tmp_path / "out").read_bytes() == data


def test_trouble_leaves_no_file_behind(tmp_path: Path) -> None:
    path = record(tmp_path / "race.vmrec", "race", capture="full", max_insns=300_000).path
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)
    done = vmrec("export", "race", "--msgpack", "-o", "out", cwd=tmp_path, status=2)
    assert "vmrec verify" in done.err
    assert not (tmp_path / "out").exists()
    for place, reason in (("none/out", "No such file or directory"), ("/dev/full", "exists already")):
        done = vmrec("export", "race", "--msgpack", "-o", place, cwd=tmp_path, status=2)
        assert reason in " ".join(done.err.split())
    done = vmrec("export", "race", cwd=tmp_path, status=2)
    assert "which format? --msgpack" in done.err


def test_a_torn_recording_is_exported_to_its_last_good_position(tmp_path: Path) -> None:
    path = record(tmp_path / "race.vmrec", "race", capture="full", max_insns=300_000).path
    os.truncate(path, path.stat().st_size * 3 // 4)
    done = vmrec("export", "race", "--msgpack", cwd=tmp_path)
    maps = list(msgpack.Unpacker(io.BytesIO(done.out)))
    with TraceReader(path) as trace:
        assert len(of(maps, "instruction")) == trace.last_position > 1000
    assert "is torn; exported up to its last good position" in done.err


def test_the_reader_may_stop(tmp_path: Path) -> None:
    record(tmp_path / "race.vmrec", "race", max_insns=300_000)
    with started("export", "race", "--msgpack", cwd=tmp_path) as process:
        done = reader_leaves(process)
    assert (done.status, done.err) == (141, "")


def test_a_terminal_is_spared(tmp_path: Path) -> None:
    record(tmp_path / "hello.vmrec", "hello")
    with terminal() as screen, started("export", "--msgpack", cwd=tmp_path, stdout=screen.slave) as process:
        done = finished(process)
    assert done.status == 2
    assert "not for a terminal" in done.err


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """The peak of a long export is that of a short one, but for what is cached."""
    record(tmp_path / "long.vmrec", "loop-mem", capture="full", max_insns=400_000)
    program = "import resource, sys; from vmrec.cli.main import main; main(sys.argv[1:]); "
    program += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    peaks = []
    for last in (1_000, 400_000):
        arguments = command("export", "long", "--msgpack", "--to", last)[3:]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True,
        )  # fmt: skip
        peaks.append(int(done.stderr))
    assert peaks[1] < peaks[0] + (32 << 10)  # KiB


def test_the_readme_shows_how_to_read_it(tmp_path: Path) -> None:
    """Its lines run as they stand there, with msgpack alone, and see everything."""
    shown = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in shown if "import msgpack" in block)
    assert "vmrec" not in code
    assert len([line for line in code.splitlines() if line]) <= 5
    record(tmp_path / "hello.vmrec", "hello")
    vmrec("export", "hello", "--msgpack", "-o", "hello.msgpack", cwd=tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    maps = list(msgpack.Unpacker(io.BytesIO((tmp_path / "hello.msgpack").read_bytes())))
    assert done.stdout == "".join(f"{item}\n" for item in maps)
    kinds = Counter(item["type"] for item in maps)
    assert kinds["instruction"] == 275
    assert b"".join(item["data"] for item in of(maps, "console")) == b"hello from the guest\n"
