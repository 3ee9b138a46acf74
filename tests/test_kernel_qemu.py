# SPDX-License-Identifier: GPL-2.0-or-later
"""The teaching kernel on QEMU's `virt` board with QEMU's firmware: both versions of the disk, both of the timer."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which("qemu-system-riscv64") is None, reason="qemu-system-riscv64 is not installed"),
]

KERNEL = Path(__file__).resolve().parent.parent / "guests" / "bin" / "kernel"
TIMEOUT = 60
COMMANDS = (
    "ls; cat greeting; echo one two > note; cat note; ls > note; cat note; rm note; faults; forks; work 2; exit 3"
)


def qemu(folder: Path, append: str, *options: str, legacy: bool = False) -> list[str]:
    """The command, with a copy of the disk."""
    disk = folder / "disk.img"
    shutil.copy(KERNEL / "kernel.img", disk)
    return [
        "qemu-system-riscv64", "-M", "virt", "-m", "128M", "-nographic", "-kernel", str(KERNEL / "kernel.elf"),
        "-append", append, "-global", f"virtio-mmio.force-legacy={'on' if legacy else 'off'}",
        "-drive", f"file={disk},if=none,format=raw,id=d0", "-device", "virtio-blk-device,drive=d0", *options,
    ]  # fmt: skip


def console(command: list[str]) -> list[str]:
    """Lines from the kernel's first on."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=True)
    text = done.stdout.decode()
    return text[text.index("kernel: ") :].replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize(("legacy", "sstc"), [(False, True), (True, False)], ids=["modern-stimecmp", "legacy-sbi"])
def test_every_program_does_what_it_should(tmp_path: Path, legacy: bool, sstc: bool) -> None:
    cpu = ("-cpu", f"rv64,sstc={'on' if sstc else 'off'}")
    lines = console(qemu(tmp_path, f"slice=200 run={COMMANDS}", *cpu, legacy=legacy))
    assert lines[0] == f"kernel: 128 MiB, timer: {'stimecmp' if sstc else 'SBI'}"
    assert lines[1] == f"disk: virtio-mmio version {1 if legacy else 2}, 96 blocks"
    listing = lines[2:13]
    assert listing[0].startswith("init ")
    assert lines[13] == "Welcome to the teaching kernel of vmrec."
    assert lines[15] == "one two"
    assert lines[16:28] == [*listing, lines[27]]
    assert lines[27].startswith("note ")
    assert [line for line in lines if "killed" in line] == lines[28:35]
    assert lines[35:] == [
        "faults: all 8 ended",
        "forks: 3 times 29 processes, mine is 1: ok",
        "work: round 1 of 2, seed f2c4ec01",
        "work: round 2 of 2, seed ff021c02",
        "kernel: init has ended with 3, power off",
    ]


def test_what_is_written_stays_on_the_disk(tmp_path: Path) -> None:
    command = qemu(tmp_path, "run=echo kept > note")
    console(command)
    again = [word if word != "run=echo kept > note" else "run=cat note" for word in command]
    assert console(again)[2:] == ["kept", "kernel: init has ended with 0, power off"]


def test_the_console_edits_lines(tmp_path: Path) -> None:
    with subprocess.Popen(qemu(tmp_path, ""), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        seen = b""
        typed = (b"ech\x08\x7fcho one\r", b"ls nonsense\x15echo two\r", b"cat\r", b"three\r", b"\x04", b"\x10", b"\x04")
        for line in typed:
            while not seen.endswith((b"$ ", b"cat\r\n", b"three\r\nthree\r\n", b"pages free\r\n")):
                byte = process.stdout.read(1)
                assert byte, seen
                seen += byte
            process.stdin.write(line)
            process.stdin.flush()
            seen += process.stdout.read(1)
        rest = process.stdout.read()
        assert process.wait(TIMEOUT) == 0
    text = (seen + rest).replace(b"\r\n", b"\n").decode()
    shown = text[text.index("$ ") :]
    assert "\none\n$ ls nonsense" in shown
    assert "\b \becho two\ntwo\n$ cat\nthree\nthree\n$ " in shown
    assert re.search("^    2 (running |sleeping) sh$", shown, re.MULTILINE)
    assert shown.endswith("\nkernel: init has ended with 0, power off\n")


def test_without_a_disk_it_says_so_and_from_where(tmp_path: Path) -> None:
    command = qemu(tmp_path, "")
    lines = console(command[: command.index("-drive")])
    assert "panic: there is no virtio block device: give the machine a drive" in lines
    assert lines[-1].startswith("  00000000802")
