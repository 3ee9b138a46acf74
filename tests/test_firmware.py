# SPDX-License-Identifier: GPL-2.0-or-later
"""Firmware that nobody here wrote: Debian's OpenSBI and U-Boot, driven by recorded input and compared with QEMU's run.

    u-boot in machine mode · u-boot in supervisor mode over the VMM's own SBI · the same under OpenSBI
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Inside

from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader

UBOOT, SMODE = (Path("/usr/lib/u-boot", name) for name in ("qemu-riscv64", "qemu-riscv64_smode"))
OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic")
#: How each is started, as vmrec and QEMU call it.
WAYS: dict[str, tuple[str | Path, ...]] = {
    "machine mode": ("--bios", UBOOT / "u-boot.bin"),
    "own SBI": ("--kernel", SMODE / "u-boot.bin"),
    "OpenSBI": ("--bios", OPENSBI / "fw_dynamic.bin", "--kernel", SMODE / "u-boot.bin"),
}
#: On QEMU U-Boot looks for Ctrl-C while it works, and what is there then is lost: spaces are what it may lose.
PAUSE = " " * 40
#: Any key stops the countdown; the last command ends the run.
COMMANDS = ("", "version", "bdinfo", "mw.l 84000000 cafe1234 4", "md.l 84000000 4", "poweroff")


def typed(*commands: str, pause: str = PAUSE) -> bytes:
    return "".join(f"{pause}{command}\n" for command in commands).encode()


@dataclass(frozen=True)
class Session:
    trace: Path
    console: bytes

    def lines(self) -> list[str]:
        return shown(self.console)


def shown(console: bytes) -> list[str]:
    """The console's lines, without what the typed spaces left of them."""
    text = console.decode().replace("\r", "")
    return [" ".join(line.split()) for line in text.split("\n") if line.split()]


def needed(way: tuple[str | Path, ...]) -> None:
    for part in way:
        if isinstance(part, Path) and not part.exists():
            pytest.skip(f"{part} is not installed (Debian: u-boot-qemu, opensbi): no firmware to run")


def record(run: Inside, folder: Path, way: str, *commands: str, pause: str = PAUSE) -> Session:
    """A session at U-Boot's prompt."""
    needed(WAYS[way])
    trace, console, keys = folder / "session.vmrec", folder / "console.txt", folder / "keys.txt"
    keys.write_bytes(typed(*commands, pause=pause))
    run("record", *WAYS[way], "--input", keys, "--console", console, "--max-insns", 10**9, "-o", trace, "--force")
    return Session(trace, console.read_bytes())


@pytest.mark.parametrize("way", WAYS)
def test_a_session_at_the_prompt_replays(way: str, run: Inside, tmp_path: Path) -> None:
    session = record(run, tmp_path, way, *COMMANDS, pause="")  # a byte comes when it is waited for: none is lost
    lines = session.lines()
    assert [line for line in lines if line.startswith("=> ")] == [f"=> {command}" for command in COMMANDS[1:]]
    assert "84000000: cafe1234 cafe1234 cafe1234 cafe1234 4...4...4...4..." in lines
    assert "DRAM bank = 0x0000000000000000" in lines
    assert "-> size = 0x0000000008000000" in lines
    with TraceReader(session.trace) as trace:
        assert trace.end is not None
        assert trace.end["reason"] == "poweroff"
        console: list[bytes] = []
        with Player(trace, console=console.append) as player:
            assert player.run() is None
            assert player.compared > 500
        assert b"".join(console) == session.console


def test_opensbi_says_what_the_machine_is(run: Inside, tmp_path: Path) -> None:
    lines = record(run, tmp_path, "OpenSBI", *COMMANDS).lines()
    assert lines[0].startswith("OpenSBI v")
    for line in (
        "Platform Name : riscv-virtio,vmrec",
        "Platform HART Count : 1",
        "Platform Timer Device : aclint-mtimer @ 10000000Hz",
        "Platform Console Device : uart8250",
        "Platform Shutdown Device : sifive_test",
        "Domain0 Next Address : 0x0000000080200000",
        "Domain0 Next Arg1 : 0x0000000087e00000",
        "Boot HART Base ISA : rv64imafdc",
        "Boot HART PMP Count : 16",
    ):
        assert line in lines


def test_two_sessions_differ_in_what_was_typed(run: Inside, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder, value in zip(folders, ("1", "2"), strict=True):
        folder.mkdir()
        record(run, folder, "own SBI", "", f"mw.l 84000000 {value}", "poweroff")
    found = run.json("diff", *(folder / "session.vmrec" for folder in folders), status=1)
    assert not found["same"]
    causes = [found["cause"][side] for side in ("a", "b")]
    assert [(cause["kind"], cause["data"]) for cause in causes] == [("input", b"1".hex()), ("input", b"2".hex())]
    assert causes[0]["position"] <= found["position"] < causes[0]["position"] + 10_000


@pytest.mark.parametrize("executor", ["engine", "stepper"])
def test_the_executors_agree_on_the_way_to_the_prompt(executor: str, run: Inside, tmp_path: Path) -> None:
    """On three million steps of OpenSBI and U-Boot, and one of each of the others."""
    for way, steps in (("OpenSBI", 3_000_000), ("machine mode", 1_000_000), ("own SBI", 1_000_000)):
        needed(WAYS[way])
        trace = tmp_path / "begin.vmrec"
        run("record", *WAYS[way], "--max-insns", steps, "-o", trace, "--force")
        with TraceReader(trace) as reader, Player(reader, engine=executor) as player:  # type: ignore[arg-type]
            assert player.run() is None
            assert player.compared > 0


# ------------------------------------------------------------------------------------------------------------- QEMU

#: What OpenSBI finds out about the hart, and QEMU's has more of.
OF_THE_HART = re.compile(
    r"Boot HART (PMP Granularity|PMP Address Bits|MHPM Count|MIDELEG|MEDELEG|ISA Extensions|Base ISA) :"
)
#: U-Boot puts the tree behind its own data, and QEMU writes into the tree that it is given.
WHERE_THE_TREE_IS = re.compile(r"Working FDT set to|fdt_blob|new_fdt|fdt_size|reserved\[")


def comparable(console: bytes) -> list[str]:
    return [line for line in shown(console) if not OF_THE_HART.match(line) and not WHERE_THE_TREE_IS.match(line)]


@pytest.mark.qemu
@pytest.mark.parametrize("way", ["machine mode", "OpenSBI"])
def test_qemu_shows_the_same(way: str, run: Inside, tmp_path: Path) -> None:
    """Given the same device tree; what is not deterministic there, or another hart's, is left out."""
    if shutil.which("qemu-system-riscv64") is None:
        pytest.skip("qemu-system-riscv64 is not installed: nothing to compare the consoles with")
    ours = record(run, tmp_path, way, *COMMANDS)
    tree = tmp_path / "board.dtb"
    run("run", *WAYS[way], "--dump-dtb", tree)
    options = [str(part).replace("--", "-") if isinstance(part, str) else str(part) for part in WAYS[way]]
    command = ["qemu-system-riscv64", "-machine", "virt", "-m", "128M", "-display", "none", "-monitor", "none",
               "-serial", "stdio", "-dtb", str(tree), *options]  # fmt: skip
    result = subprocess.run(command, input=typed(*COMMANDS), capture_output=True, timeout=120, check=False)
    assert result.stderr == b""
    assert comparable(ours.console) == comparable(result.stdout)


# ------------------------------------------------------------------------------------------------------------- a disk


def boot_script(text: str) -> bytes:
    """A script as U-Boot's `source` takes it: a legacy image of type 6 (include/image.h), checksums and all."""
    data = struct.pack(">II", len(text), 0) + text.encode()

    def header(checksum: int) -> bytes:
        fields = (0x2705_1956, checksum, 0, len(data), 0, 0, zlib.crc32(data))
        return struct.pack(">7I4B32s", *fields, 5, 26, 6, 0, b"script")

    return header(zlib.crc32(header(0))) + data


def fat_image(folder: Path, **files: bytes) -> Path:
    """A disk of 2 MiB that is one FAT file system with these files; in their names _ stands for a dot."""
    if shutil.which("mformat") is None:
        pytest.skip("mformat and mcopy are not installed (Debian: mtools): nobody to make a FAT file system")
    image = folder / "fat.img"
    image.write_bytes(bytes(2 << 20))
    subprocess.run(["mformat", "-i", image, "::"], check=True, timeout=60)
    for name, content in files.items():
        file = folder / name.replace("_", ".")
        file.write_bytes(content)
        subprocess.run(["mcopy", "-i", image, file, "::"], check=True, timeout=60)
    return image


@pytest.mark.parametrize("layout", ["modern", "legacy"])
def test_u_boot_reads_files_and_runs_a_script_from_a_disk(layout: str, run: Inside, tmp_path: Path) -> None:
    needed(WAYS["own SBI"])
    script = boot_script("echo begins\nmw.l 84000000 11223344\nmd.l 84000000 1\n")
    image = fat_image(tmp_path, read_me=b"nobody here wrote this\n", run_scr=script)
    keys, console, trace = tmp_path / "keys.txt", tmp_path / "console.txt", tmp_path / "disk.vmrec"
    commands = ("virtio scan", "fatls virtio 0", "fatload virtio 0 84000000 read.me", "md.b 84000000 10",
                "fatload virtio 0 84100000 run.scr", "source 84100000", "fatwrite virtio 0 84000000 new.txt 4",
                "poweroff")  # fmt: skip
    keys.write_bytes(typed("", *commands))
    before = image.read_bytes()
    drive = ("--drive", image, "--virtio", layout)
    run("record", *WAYS["own SBI"], *drive, "--input", keys, "--console", console, "-o", trace)
    assert image.read_bytes() == before
    lines = shown(console.read_bytes())
    assert "23 read.me" in lines
    assert "84000000: 6e 6f 62 6f 64 79 20 68 65 72 65 20 77 72 6f 74 nobody here wrot" in lines
    begins = lines.index("begins")
    assert lines[begins - 1] == "## Executing script at 84100000"
    assert lines[begins + 1] == "84000000: 11223344 D3\"."
    assert "4 bytes written in" in "\n".join(lines)
    image.unlink()
    run("verify", trace)
    with TraceReader(trace) as reader:
        pulled = [record for record in reader.records() if record.kind == "disk"]
        assert pulled
