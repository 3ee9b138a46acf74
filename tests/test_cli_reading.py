# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs that read a recording without running it: ls, info, events."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgpack
import pytest
from blake3 import blake3

from vmrec.cli.main import main
from vmrec.events import Clock, Console, Entropy, Idle, Input, Record, Stop
from vmrec.trace.writer import TraceWriter

ELF = b"\x7fELF" + bytes(100)
HEADER = {
    "machine": {"revision": 1, "isa": "rv32im", "ram_size": 128 << 20, "time_rule": "virtual", "rtc_base_ns": 0},
    "guest": {"name": "echo", "elf": ELF, "hash": blake3(ELF).digest()},
    "capture": "inputs",
    "seed": 7,
    "chaos": None,
    "recorder": "vmrec 0.1.0",
    "created": "2026-01-02T03:04:05Z",
}
RECORDS: list[Record] = [
    Input(120, b"ls\n"),
    Entropy(500, b"\x01\x02\x03\x04"),
    Clock(600, 12345),
    Idle(600, 1000),
    Console(7_000, b'say "hi"\n'),
    Console(8_000, b"\x1b[1m"),
    Stop(9_000, "poweroff", 3),
]


def make_trace(path: Path, *, closed: bool = True, records: list[Record] | None = None) -> Path:
    """A recording with one of everything."""
    trace = TraceWriter(path, HEADER)
    for record in RECORDS if records is None else records:
        trace.append(msgpack.packb(record.wire()), record.position, record.position)
    value = {"value": bytes(32), "registers": {}, "ram": bytes(32), "outputs": bytes(32), "devices": bytes(32)}
    trace.append(msgpack.packb(["digest", 9_001, value]), 9_001, 9_001)
    if not closed:
        trace.flush()
        trace.abort()
        return path
    end = {"reason": "poweroff", "exit_code": 3, "icount": 8_990}
    trace.append(msgpack.packb(["end", 9_001, end]), 9_001, 9_001)
    trace.close()
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What `vmrec` prints: stdout if the status is 0, else stderr."""
    assert main(arguments) == status
    printed = capsys.readouterr()
    return printed.err if status else printed.out


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    report = json.loads(run(capsys, *arguments, "--json"))
    assert report.pop("schema") == f"vmrec-{arguments[0]}/1"
    return report


# -------------------------------------------------------------------------------------------------------------- ls


def test_ls_lists_recordings_oldest_first(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, time in (("echo-10", 1), ("echo-9", 1), ("old", 0)):
        os.utime(make_trace(place / f"{name}.vmrec"), (time, time))
    make_trace(place / "cut.vmrec", closed=False)
    (place / "notes.txt").touch()
    (place / "folder.vmrec").mkdir()
    lines = run(capsys, "ls").splitlines()
    assert lines[0].split() == ["NAME", "GUEST", "CAPTURE", "STEPS", "SIZE", "RECORDED", "ENDED"]
    assert [line.split()[0] for line in lines[1:]] == ["old.vmrec", "echo-9.vmrec", "echo-10.vmrec", "cut.vmrec"]
    assert "echo   inputs   9 001" in lines[1]
    assert lines[1].endswith("2026-01-02T03:04:05Z  poweroff, exit code 3")
    assert lines[4].endswith("not closed")


def test_ls_lists_what_cannot_be_read_with_the_reason(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "bad.vmrec").write_bytes(b"something else")
    (place / "empty.vmrec").touch()
    text = run(capsys, "ls")
    assert "bad.vmrec    -" in text
    assert "is not a vmrec trace" in text
    assert "is empty" in text
    found = run_json(capsys, "ls")["recordings"]
    assert [Path(one["path"]).name for one in found] == ["bad.vmrec", "empty.vmrec"]
    assert all(one["error"] for one in found)


def test_ls_in_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_trace(place / "echo-1.vmrec")
    assert run_json(capsys, "ls", ".") == {
        "directory": ".",
        "recordings": [
            {
                "path": "echo-1.vmrec",
                "guest": "echo",
                "isa": "rv32im",
                "capture": "inputs",
                "created": "2026-01-02T03:04:05Z",
                "last_position": 9_001,
                "size": path.stat().st_size,
                "closed": True,
                "reason": "poweroff",
                "exit_code": 3,
                "error": None,
            }
        ],
    }


def test_ls_says_when_there_is_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "There is no recording in the current directory. `vmrec record GUEST` makes one.\n"
    assert "absent: cannot be read: No such file" in run(capsys, "ls", "absent", status=2)


# ------------------------------------------------------------------------------------------------------------- info


def test_info_shows_what_a_recording_holds(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_trace(place / "echo-1.vmrec")
    lines = dict(line.split(maxsplit=1) for line in run(capsys, "info").splitlines())
    head = lines.pop("head")
    assert lines.pop("recording") == f"echo-1.vmrec, {path.stat().st_size} B, closed"
    assert lines == {
        "guest": f"echo, 104 B, blake3 {blake3(ELF).hexdigest()[:16]}…",
        "machine": "rv32im, 128 MiB RAM, virtual time, machine revision 1",
        "recorded": "2026-01-02T03:04:05Z by vmrec 0.1.0",
        "capture": "inputs",
        "seed": "7",
        "length": "9 001 steps, 8 990 instructions",
        "ended": "poweroff, exit code 3",
        "holds": "3 frames, 1 digest, 0 checkpoints",
        "events": "1 input (3 B), 1 clock, 1 idle, 1 entropy (4 B)",
        "outputs": "2 console (13 B), 1 stop",
    }
    report = run_json(capsys, "info", "echo-1")
    assert report["head"] == head
    assert report["counts"]["console"] == {"records": 2, "bytes": 13}
    assert report["end"]["reason"] == "poweroff"
    assert report["guest"]["hash"] == blake3(ELF).hexdigest()


def test_info_of_an_unfinished_recording(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_trace(place / "cut.vmrec", closed=False, records=[])
    with path.open("ab") as file:
        file.write(b"\x28\xb5\x2f\xfd")
    text = run(capsys, "info", "cut.vmrec")
    assert "not closed: its recorder is at work, or died; torn at byte" in text
    assert "the recorder did not write how" in text
    assert "events     none" in text


def test_info_counts_a_large_file_only_when_asked(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrec.cli.info.COUNTED_UNASKED", 10)
    make_trace(place / "echo-1.vmrec")
    assert "not counted in a file of this size" in run(capsys, "info")
    assert run_json(capsys, "info")["counts"] is None
    assert "1 input (3 B)" in run(capsys, "info", "--count")


def test_a_damaged_recording_is_reported_with_its_place(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_trace(place / "echo-1.vmrec")
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    text = " ".join(run(capsys, "info", status=2).split())
    assert text.startswith("vmrec: error: echo-1.vmrec at byte 0: ")
    assert "vmrec verify" in text


# ----------------------------------------------------------------------------------------------------------- events


EVENTS = """\
  120  input    "ls\\n"
  500  entropy  01020304
  600  clock    guest time 12 345 ticks
  600  idle     waited 1 000 steps
7 000  console  "say \\"hi\\"\\n"
8 000  console  "\\x1b[1m"
9 000  stop     poweroff, exit code 3
"""


def test_events_are_listed_in_order(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trace(place / "echo-1.vmrec")
    assert run(capsys, "events") == EVENTS


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["--from", "500"], slice(1, None)),
        (["--to", "600"], slice(0, 2)),
        (["--from", "600", "--to", "601"], slice(2, 4)),
        (["--kind", "console"], slice(4, 6)),
        (["--kind", "clock,idle"], slice(2, 4)),
        (["--kind", "clock", "--kind", "idle"], slice(2, 4)),
        (["--from", "9001"], slice(0, 0)),
    ],
)
def test_events_can_be_chosen(
    options: list[str], lines: slice, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trace(place / "echo-1.vmrec")
    assert run(capsys, "events", *options) == "".join(EVENTS.splitlines(keepends=True)[lines])


def test_events_in_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trace(place / "echo-1.vmrec")
    report = run_json(capsys, "events", "--to", "9000")
    records = report.pop("records")
    assert report == {"path": "echo-1.vmrec", "from": 0, "to": 9000}
    assert records[:4] == [
        {"kind": "input", "position": 120, "data": b"ls\n".hex()},
        {"kind": "entropy", "position": 500, "data": "01020304"},
        {"kind": "clock", "position": 600, "ticks": 12345},
        {"kind": "idle", "position": 600, "steps": 1000},
    ]
    assert len(records) == 6
    assert run_json(capsys, "events", "--from", "9001")["records"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "consol"], "--kind consol: there is no such kind. Did you mean console?"),
        (["--kind", "zzz"], "There are input, clock, idle, entropy, disk, poke, set, console, written, stop."),
        (["--from", "5", "--to", "4"], "--from 5 lies after --to 4"),
    ],
)
def test_events_refuses_what_it_cannot_choose(
    options: list[str], message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trace(place / "echo-1.vmrec")
    assert message in " ".join(run(capsys, "events", *options, status=2).split())


# ------------------------------------------------------------------------------------------------- which recording


def test_the_latest_recording_is_meant_if_none_is_named(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = run(capsys, "events", status=2)
    assert "there is no recording (*.vmrec) in the current directory. Make one with" in " ".join(text.split())
    os.utime(make_trace(place / "first.vmrec"), (1, 1))
    os.utime(make_trace(place / "second.vmrec", records=[Input(1, b"2")]), (2, 2))
    assert run(capsys, "events").count("\n") == 1
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    make_trace(elsewhere / "third.vmrec", records=[])
    monkeypatch.setenv("VMREC_DIR", str(elsewhere))
    assert run(capsys, "events") == ""
    assert run(capsys, "events", "third") == ""
    assert run(capsys, "events", "first").count("\n") == 7


def test_a_recording_that_is_not_there_gets_near_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trace(place / "echo-1.vmrec")
    assert "eco-1: there is no such recording. Did you mean echo-1.vmrec?" in run(capsys, "info", "eco-1", status=2)
    text = " ".join(run(capsys, "info", "absent/echo-1", status=2).split())
    assert "absent/echo-1: there is no such recording. `vmrec ls` lists recordings." in text
    assert "is a directory; name a recording in it" in run(capsys, "info", ".", status=2)


def test_new_recordings_are_numbered(place: Path) -> None:
    from vmrec.cli.paths import new_trace_paths

    assert str(next(new_trace_paths("race"))) == "race-1.vmrec"
    for name in ("race-2.vmrec", "race-10.vmrec", "race-x.vmrec", "trace-30.vmrec", "race-11.txt"):
        (place / name).touch()
    names = new_trace_paths("race")
    assert [str(next(names)), str(next(names))] == ["race-11.vmrec", "race-12.vmrec"]


def test_recordings_are_completed(place: Path) -> None:
    from vmrec.cli.paths import complete_trace

    for name in ("echo-1.vmrec", "echo-2.vmrec", "race-1.vmrec", "notes"):
        (place / name).touch()
    (place / "old").mkdir()
    (place / "old" / "echo-0.vmrec").touch()
    assert sorted(complete_trace("echo")) == ["echo-1.vmrec", "echo-2.vmrec"]
    assert len(complete_trace("")) == 3
    assert complete_trace("old/") == ["old/echo-0.vmrec"]
    assert complete_trace("absent/x") == []
