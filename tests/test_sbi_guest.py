# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest that asks its firmware for everything, over the VMM's own SBI, over OpenSBI, and over OpenSBI on QEMU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import Inside
from machines import ENGINES
from test_firmware import OPENSBI, needed

from vmrec.guest.symbols import Symbols
from vmrec.replay.player import Player
from vmrec.replay.points import PrivilegeChange, Traps
from vmrec.replay.rows import steps
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader

GUESTS = Path(__file__).resolve().parent.parent / "guests" / "bin" / "sbi"
WIDTHS = ("64", "32")
#: Firmware may lose what is typed before it has looked at its console: spaces, then.
TYPED = b"     hello there\n"
EXPECTED = """\
hart 0, a device tree
version: error 0, value 33554432
implementation: error 0, value 1986884197
printed at once
debug console: write: error 0, value 16
debug console: outside: error -3, value 0
!debug console: byte: error 0, value 0
timers: 3
send to hart 0: error 0, value 0
send to all: error 0, value 0
send to hart 7: error -3, value 0
state of hart 0: error 0, value 0
state of hart 9: error -3, value 0
start hart 0: error -6, value 0
fence.i: error 0, value 0
sfence.vma: error 0, value 0
suspend: error 0, value 0
no such extension: error -2, value 0
no such function: error -2, value 0
illegal instructions: 1
typed: hello there
woken: hart 0, took along 4711
"""
#: What an older firmware answers in its own way, or has not.
OF_THE_FIRMWARE = re.compile(r"version:|implementation:|.*debug console|printed at once")


def lines(console: bytes) -> list[str]:
    text = console.decode().replace("\r", "").replace("typed:" + " " * 6, "typed: ")
    return re.sub("typed: +", "typed: ", text[text.index("hart 0, a") :]).split("\n")


def common(console: bytes) -> list[str]:
    return [line for line in lines(console) if not OF_THE_FIRMWARE.match(line)]


def record(run: Inside, folder: Path, width: str, *options: object, capture: str = "full") -> tuple[Path, bytes]:
    keys, console, trace = folder / "keys.txt", folder / "console.txt", folder / f"{width}-{capture}.vmrec"
    keys.write_bytes(TYPED)
    images = ("--kernel", GUESTS / f"sbi{width}.elf", *options)
    run("record", *images, "--input", keys, "--console", console, "--capture", capture, "-o", trace, "--force")
    return trace, console.read_bytes()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_call_is_answered(width: str, run: Inside, tmp_path: Path) -> None:
    _, console = record(run, tmp_path, width)
    assert "\n".join(lines(console)) == EXPECTED


@pytest.mark.parametrize("width", WIDTHS)
def test_recordings_replay_on_each_executor_and_row_by_row(width: str, run: Inside, tmp_path: Path) -> None:
    trace, _ = record(run, tmp_path, width)
    plain, _ = record(run, tmp_path, width, capture="inputs")
    with TraceReader(trace) as full, TraceReader(plain) as inputs:
        assert [mark.value for mark in full.digests] == [mark.value for mark in inputs.digests]
        for engine in ENGINES:
            with Player(inputs, engine=engine) as player:
                assert player.run() is None
        with Player(full, check_rows=True) as player:
            assert player.run() is None
            assert player.rows_checked == full.last_position
        calls = [step for step in steps(full) if step.cause == 9]
        assert len(calls) > 500
        assert all(set(call.writes) <= {"a0", "a1", "mip", "soft_mip", "stimecmp", "mstatus", "satp"} for call in calls)


@pytest.mark.parametrize("clock", [("--chaos", 7), ("--clock", "host")], ids=["chaos", "host"])
def test_clocks_know_the_supervisors_timer(clock: tuple[object, ...], run: Inside, tmp_path: Path) -> None:
    digests = []
    for width in WIDTHS:
        trace, console = record(run, tmp_path, width, *clock)
        assert "\n".join(lines(console)) == EXPECTED
        run("verify", trace)
        again, _ = record(run, tmp_path, width, *clock, capture="inputs")
        with TraceReader(trace) as first, TraceReader(again) as second:
            digests.append([mark.value for mark in first.digests] == [mark.value for mark in second.digests])
    assert all(digests) or clock[0] == "--clock"  # chaos is a function of its seed, the host's clock of the host


def test_debuggers_see_calls_as_traps(run: Inside, tmp_path: Path) -> None:
    trace, _ = record(run, tmp_path, "64")
    with TraceReader(trace) as reader, Timeline(reader) as timeline:
        names = Symbols(*timeline.guest.elfs)
        causes: dict[int | None, set[str]] = {}
        for hit in timeline.hits([Traps()]):
            causes.setdefault(hit.cause, set()).add((names.lookup(hit.pc or 0) or "").split("+")[0])
        assert set(causes) == {9, 2, 1 << 63 | 1, 1 << 63 | 5}
        assert causes[9] == {"call"}
        assert list(timeline.hits([PrivilegeChange()])) == []  # firmware that is not there has no mode


@pytest.mark.parametrize("firmware", ["fw_dynamic.bin", "fw_dynamic.elf"])
def test_opensbi_answers_the_same(firmware: str, run: Inside, tmp_path: Path) -> None:
    needed((OPENSBI / firmware,))
    trace, console = record(run, tmp_path, "64", "--bios", OPENSBI / firmware, capture="inputs")
    assert common(console) == common(EXPECTED.encode())
    run("verify", trace)


@pytest.mark.qemu
def test_qemu_with_opensbi_answers_the_same() -> None:
    if shutil.which("qemu-system-riscv64") is None:
        pytest.skip("qemu-system-riscv64 is not installed: nothing to compare the answers with")
    needed((OPENSBI / "fw_dynamic.bin",))
    images = ("-bios", str(OPENSBI / "fw_dynamic.bin"), "-kernel", str(GUESTS / "sbi64.elf"))
    options = ("-machine", "virt", "-m", "128M", "-display", "none", "-monitor", "none", "-serial", "stdio")
    command = ["qemu-system-riscv64", *options, *images]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        console = b""
        while b"illegal instructions: " not in console:  # what is typed before that may be lost
            line = qemu.stdout.readline()
            assert line, console.decode()
            console += line
        console += qemu.communicate(TYPED, timeout=60)[0]
    assert common(console) == common(EXPECTED.encode())
