# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting: images go where QEMU's board puts them, the hart is handed what it expects, the recording holds it all."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Inside
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import FIXED, assemble, encode
from test_guest_loading import Load, make_elf

from vmrec.errors import GuestError, TraceError, UsageError, VmrecError
from vmrec.guest.boot import Boot
from vmrec.guest.devicetree import Node, Tree, parse_tree, text
from vmrec.guest.elf import Guest
from vmrec.guest.images import linux_header
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, MachineConfig
from vmrec.machine.boot import BootOptions, place, read_boot_files
from vmrec.machine.machine import Machine
from vmrec.replay.player import Player
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

MIB = 1 << 20
A0, A1, A2, A6, A7 = 10, 11, 12, 16, 17
#: Prints a byte and powers off, by calls of SBI 0.1.
GOODBYE = assemble(
    encode("addi", A0, 0, imm=ord("x")),
    encode("addi", A7, 0, imm=1),
    encode("ecall"),
    encode("addi", A7, 0, imm=8),
    encode("ecall"),
)
SPIN = assemble(encode("jal", 0, imm=0))


class Files:
    """Image files by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, data: bytes) -> str:
        path = self._folder / name
        path.write_bytes(data)
        return str(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def placed(options: BootOptions, *, ram: int = 128 * MIB, isa: str | None = None) -> Guest:
    found = read_boot_files(options)
    return place(found, MachineConfig(isa=isa or found.isa, ram_size=ram, sbi=found.sbi))


def booted(options: BootOptions, *, ram: int = 128 * MIB, isa: str | None = None) -> Machine:
    found = read_boot_files(options)
    config = MachineConfig(isa=isa or found.isa, ram_size=ram, sbi=found.sbi)
    return Machine(config, place(found, config))


def where(guest: Guest) -> dict[str, tuple[int, int]]:
    assert guest.boot is not None
    return {image.kind: (image.address, image.size) for image in guest.boot.images}


def tree_of(machine: Machine) -> Tree:
    boot = machine.guest.boot
    assert boot is not None
    return parse_tree(machine.read_memory(boot.tree, where(machine.guest)["dtb"][1]))


def chosen(machine: Machine) -> dict[str, bytes]:
    node = tree_of(machine).root.child("chosen")
    assert node is not None
    return node.properties


def linux(size: int, *, text_offset: int = 0x200000, code: bytes = SPIN) -> bytes:
    head = struct.pack("<IIQQQIIQ8s4sI", 0, 0, text_offset, size, 0, 2, 0, 0, b"RISCV\0\0\0", b"RSC\x05", 0)
    return code[:4].ljust(8, b"\0") + head[8:]


# ------------------------------------------------------------------------------------------------------- where it goes


def test_a_kernel_without_firmware_starts_in_supervisor_mode(files: Files) -> None:
    with booted(BootOptions(kernel=files("k", GOODBYE), append="root=/dev/vda")) as machine:
        boot = machine.guest.boot
        assert boot is not None
        assert (machine.pc, machine.privilege) == (0x80200000, 1)
        assert (machine.regs[A0], machine.regs[A1]) == (0, boot.tree) == (0, 0x87E00000)
        assert machine.read_memory(0x80200000, len(GOODBYE)) == GOODBYE
        assert chosen(machine)["bootargs"] == text("root=/dev/vda")
        assert machine.config.sbi
        machine.run(1000)
        assert (machine.stop_reason, machine.privilege) == ("poweroff", 1)


def test_rv32_kernels_lie_at_multiples_of_four_mebibytes(files: Files) -> None:
    with booted(BootOptions(kernel=files("k", GOODBYE)), isa="rv32gcsu") as machine:
        assert (machine.pc, machine.privilege) == (0x80400000, 1)
        machine.run(1000)
        assert machine.stop_reason == "poweroff"


@pytest.mark.parametrize("isa", ["rv64gcsu", "rv32gcsu"])
def test_firmware_finds_the_kernel_as_opensbi_expects_it(files: Files, isa: str) -> None:
    options = BootOptions(bios=files("fw", SPIN), kernel=files("k", GOODBYE))
    with booted(options, isa=isa) as machine:
        boot = machine.guest.boot
        assert boot is not None
        machine.run(6)
        word = 4 if isa == "rv32gcsu" else 8
        kernel = 0x80400000 if isa == "rv32gcsu" else 0x80200000
        assert (machine.pc, machine.privilege) == (RAM_BASE, 3)
        assert machine.regs[A0:A2] == [0, boot.tree]
        information = machine.read_memory(machine.regs[A2], 6 * word)
        found = [int.from_bytes(information[at : at + word], "little") for at in range(0, 6 * word, word)]
        assert found == [0x4942534F, 2, kernel, 1, 0, 0]


def test_without_firmware_the_kernel_has_the_whole_machine(files: Files) -> None:
    with booted(BootOptions(bios="none", kernel=files("k", SPIN))) as machine:
        machine.run(6)
        assert (machine.pc, machine.privilege, machine.regs[A1]) == (RAM_BASE, 3, 0x87E00000)
    elf = make_elf(Load(RAM_BASE + 0x1000, SPIN * 8), xlen=64, entry=RAM_BASE + 0x1010)
    with booted(BootOptions(bios="none", kernel=files("k.elf", elf))) as machine:
        machine.run(6)
        assert (machine.pc, machine.privilege) == (RAM_BASE + 0x1010, 3)


def test_an_initial_ram_disk_lies_above_the_kernel(files: Files) -> None:
    data = random.Random(1).randbytes(5 * PAGE_SIZE + 7)
    with booted(BootOptions(kernel=files("k", SPIN), initrd=files("i", data))) as machine:
        assert where(machine.guest)["initrd"] == (0x80200000 + 64 * MIB, len(data))
        start, end = (int.from_bytes(chosen(machine)[f"linux,initrd-{name}"], "big") for name in ("start", "end"))
        assert machine.read_memory(start, end - start) == data


@pytest.mark.parametrize(
    ("ram", "tree"),
    [(4, 0x80200000), (64, 0x83E00000), (1024, 0xBFE00000), (2048, 0xBFE00000), (8192, 0xBFE00000)],
)
def test_the_tree_lies_at_the_end_of_ram_below_three_gibibytes(files: Files, ram: int, tree: int) -> None:
    guest = placed(BootOptions(bios=files("fw", SPIN)), ram=ram * MIB)
    assert where(guest)["dtb"][0] == tree


def test_a_linux_image_takes_the_memory_that_its_header_says(files: Files) -> None:
    guest = placed(BootOptions(kernel=files("Image", linux(3 * MIB))))
    assert where(guest)["kernel"] == (0x80200000, 3 * MIB)
    assert guest.entry == 0x80200000
    guest = placed(BootOptions(kernel=files("Image", linux(3 * MIB, text_offset=4 * MIB))))
    assert where(guest)["kernel"] == (0x80400000, 3 * MIB)


def test_an_elf_kernel_linked_at_virtual_addresses_begins_at_a_physical_one(files: Files) -> None:
    elf = bytearray(make_elf(Load(0x80200000, GOODBYE), xlen=64, entry=0xFFFF_FFFF_8000_0004))
    struct.pack_into("<Q", elf, struct.unpack_from("<Q", elf, 32)[0] + 16, 0xFFFF_FFFF_8000_0000)  # p_vaddr
    assert placed(BootOptions(kernel=files("vmlinux", bytes(elf)))).entry == 0x80200004


def test_a_given_tree_is_handed_over_as_it_is_or_with_what_is_chosen(files: Files) -> None:
    given_tree = Tree(Node("", {"model": text("mine")}, [Node("chosen", {"bootargs": text("old")})]))
    path = files("mine.dtb", given_tree.pack() + b"padding")
    with booted(BootOptions(kernel=files("k", SPIN), dtb=path)) as machine:
        assert tree_of(machine) == given_tree
    with booted(BootOptions(kernel=files("k", SPIN), dtb=path, append="new")) as machine:
        assert chosen(machine) == {"bootargs": text("new")}


# ------------------------------------------------------------------------------------------------------- what is wrong


def refused(options: BootOptions, message: str, *, ram: int = 128 * MIB, isa: str | None = None) -> None:
    with pytest.raises(VmrecError, match=message) as found:
        placed(options, ram=ram, isa=isa)
    assert isinstance(found.value, GuestError | UsageError)


def test_options_that_do_not_go_together(files: Files) -> None:
    kernel, other = files("k", SPIN), files("i", b"i")
    refused(BootOptions(initrd=other), "--initrd and --append are for a kernel")
    refused(BootOptions(append="x"), "--initrd and --append are for a kernel")
    refused(BootOptions(bios=kernel, append="x"), "--initrd and --append are for a kernel")
    refused(BootOptions(bios="none"), "nothing to boot")
    refused(BootOptions(dtb=other), "nothing to boot")
    refused(BootOptions(kernel=kernel, append="x" * 20000), "longer than 16 KiB")
    with pytest.raises(UsageError, match="no supervisor mode"):
        place(read_boot_files(BootOptions(bios=kernel)), MachineConfig(isa="rv64gc"))


@pytest.mark.parametrize("option", ["bios", "kernel", "initrd", "dtb"])
def test_files_that_cannot_be_read(files: Files, tmp_path: Path, option: str) -> None:
    def with_file(path: object) -> BootOptions:
        return replace(BootOptions(kernel=files("k", SPIN)), **{option: str(path)})

    refused(with_file(tmp_path / "absent"), "there is no such file")
    refused(with_file(tmp_path), "is a directory")
    refused(with_file(files("empty", b"")), "is empty")
    refused(with_file("a\0b"), "cannot be a path")
    os.symlink("/dev/null", tmp_path / "null")
    refused(with_file(tmp_path / "null"), "is not a regular file")


def test_images_that_are_not_what_they_should_be(files: Files) -> None:
    kernel = files("k", SPIN)
    refused(BootOptions(kernel=files("z", b"\x1f\x8b" + bytes(100))), "is compressed with gzip; unpack it first")
    refused(BootOptions(kernel=files("e", b"\x7fELF" + bytes(100))), "damaged ELF header")
    refused(BootOptions(kernel=files("h", linux(1 << 60))), "is a Linux Image whose header asks for")
    refused(BootOptions(kernel=kernel, dtb=files("d", b"no tree")), "is not a device tree")
    refused(BootOptions(kernel=kernel, symbols=[kernel]), "is not an ELF file, and has no symbols")
    elf32 = files("k32.elf", make_elf(Load(0x80400000, SPIN), entry=0x80400000))
    elf64 = files("k64.elf", make_elf(Load(0x80200000, SPIN), xlen=64, entry=0x80200000))
    assert placed(BootOptions(kernel=elf32)).isa == "rv32gcsu"
    refused(BootOptions(kernel=elf32), "is a 32-bit ELF file, and the machine is rv64gcsu", isa="rv64gcsu")
    refused(BootOptions(kernel=elf64, bios=elf32), "is a 32-bit ELF file, and the machine is rv64gcsu")


def test_what_does_not_fit(files: Files) -> None:
    kernel = files("k", SPIN)
    refused(BootOptions(kernel=files("big", bytes(3 * MIB))), "--kernel needs 0x80200000…0x804fffff", ram=4 * MIB)
    refused(BootOptions(kernel=files("big", bytes(9 * MIB))), "overlap", ram=12 * MIB)
    refused(BootOptions(kernel=kernel, initrd=files("i", bytes(3 * MIB))), "/i: --initrd needs", ram=8 * MIB)
    tight = BootOptions(kernel=kernel, initrd=files("i", bytes(61 * MIB)))
    refused(tight, "--initrd .* and the device tree .* overlap")
    refused(BootOptions(bios=files("fw", SPIN)), "no place for a device tree", ram=MIB)
    low = files("low.elf", make_elf(Load(0x1000, SPIN), xlen=64, entry=0x1000))
    refused(BootOptions(kernel=low), "below RAM")
    over = files("o.elf", make_elf(Load(RAM_BASE, SPIN), xlen=64, entry=RAM_BASE))
    refused(BootOptions(kernel=over, bios=kernel), "--bios .* and --kernel .* overlap")


@settings(FIXED, max_examples=200)
@given(data=st.binary(max_size=100), magic=st.booleans())
def test_any_bytes_are_an_image_or_not(data: bytes, magic: bool) -> None:
    if magic and len(data) > 60:
        data = data[:56] + b"RSC\x05" + data[60:]
    try:
        found = linux_header(data, "image")
    except GuestError:
        assert magic
    else:
        assert found is None or (magic and len(data) > 60)


# ------------------------------------------------------------------------------------------------------- recordings


#: Reads the first byte of each of 300 pages from the initial RAM disk on, and powers off.
READER = assemble(
    encode("addi", 9, 0, imm=300),
    encode("addi", 5, 0, imm=0x421),
    encode("slli", 5, 5, imm=21),
    encode("lbu", 6, 5, imm=0),
    encode("add", 7, 7, 6),
    encode("lui", 8, imm=0x1000),
    encode("add", 5, 5, 8),
    encode("addi", 9, 9, imm=-1),
    encode("bne", 0, 9, 0, imm=-20),
    encode("addi", A7, 0, imm=8),
    encode("ecall"),
)


def test_a_recording_holds_the_images(files: Files, tmp_path: Path, run: Inside) -> None:
    data = random.Random(2).randbytes(400 * PAGE_SIZE)
    kernel, initrd, trace = files("reader.bin", READER), files("i", data), tmp_path / "t.vmrec"
    run("record", "--kernel", kernel, "--initrd", initrd, "--append", "quiet", "-o", trace)
    Path(kernel).unlink()
    Path(initrd).unlink()
    run("verify", trace)
    info = run.json("info", trace)
    assert [(image["kind"], image["name"], image["address"], image["size"]) for image in info["boot"]["images"]] == [
        ("kernel", "reader.bin", 0x80200000, len(READER)),
        ("initrd", "i", 0x84200000, len(data)),
        ("dtb", "", 0x87E00000, info["boot"]["images"][2]["size"]),
    ]
    run("info", trace)
    assert b"initrd" in run.out
    with TraceReader(trace) as reader, Timeline(reader) as timeline:
        assert timeline.guest.boot is not None
        assert timeline.state.read_memory(0x84200000, len(data)) == data
        timeline.seek(timeline.last)
        assert timeline.state.regs[7] == sum(data[at * PAGE_SIZE] for at in range(300))
        timeline.seek(3)
        assert timeline.state.read_memory(0x80200000, len(READER)) == READER


def test_opening_brings_nothing_that_is_not_touched(files: Files, tmp_path: Path, run: Inside) -> None:
    data, trace = random.Random(3).randbytes(1000 * PAGE_SIZE), tmp_path / "t.vmrec"
    run("record", "--kernel", files("k", READER), "--initrd", files("i", data), "-o", trace)
    with TraceReader(trace) as reader, Player(reader) as player:
        machine = player.machine
        assert all(machine.is_missing(index) for index in machine.initial_pages)
        assert player.run() is None
        here = sum(not machine.is_missing(index) for index in machine.initial_pages)
        assert here == 301  # the kernel's page, and those that it read


def test_forks_go_on_from_images(files: Files, tmp_path: Path, run: Inside) -> None:
    data, trace = random.Random(4).randbytes(400 * PAGE_SIZE), tmp_path / "t.vmrec"
    run("record", "--kernel", files("k", READER), "--initrd", files("i", data), "-o", trace)
    for at, included in ((0, ()), (100, ()), (100, ("--self-contained",)), (0, ("--self-contained",))):
        child = tmp_path / f"child-{at}-{len(included)}.vmrec"
        run("fork", trace, "--at", at, "--poke", "0x842a0000=11", *included, "-o", child)
        run("verify", child)
        with TraceReader(child) as reader, Timeline(reader) as timeline:
            timeline.seek(timeline.last)
            assert timeline.state.read_memory(0x842A0000, 2) == b"\x11" + data[0xA0001:][:1]


def test_recordings_of_other_images_are_of_other_guests(files: Files, tmp_path: Path, run: Inside) -> None:
    data = bytearray(random.Random(5).randbytes(400 * PAGE_SIZE))
    traces = [tmp_path / f"{name}.vmrec" for name in "abc"]
    for trace, byte in zip(traces, (1, 2, 2), strict=True):
        data[7 * PAGE_SIZE] = byte
        run("record", "--kernel", files("k", READER), "--initrd", files("i", bytes(data)), "-o", trace)
    found = run.json("diff", *traces[:2], status=1)
    assert (found["kind"], found["cause"]["a"]["kind"], found["memory"]) == (
        "step", "guest", [{"kind": "r", "address": 0x84200000 + 7 * PAGE_SIZE, "size": 1, "a": 1, "b": 2}],
    )  # fmt: skip
    assert run.json("diff", *traces[1:])["same"]


def test_images_lie_in_ram(files: Files) -> None:
    with booted(BootOptions(kernel=files("k", SPIN))) as machine, pytest.raises(UsageError, match="not among"):
        machine.put_initial({machine.config.ram_size // PAGE_SIZE: bytes(32)})


def changed(trace: Path, path: Path, **header: Any) -> Path:
    """The trace with another header, and nothing behind it."""
    with TraceReader(trace) as reader:
        writer = TraceWriter(path, {**reader.header, **header})
        writer.append(b"", 0, 5)
        writer.close()
    return path


def test_hostile_headers_are_refused(files: Files, tmp_path: Path, run: Inside) -> None:
    trace = tmp_path / "t.vmrec"
    run("record", "--kernel", files("k", READER), "--max-insns", 10, "-o", trace)
    with TraceReader(trace) as reader:
        boot = reader.header["boot"]
    for number, wrong in enumerate(({"rom": bytes(5000)}, {})):
        path = changed(trace, tmp_path / f"{number}.vmrec", boot={**boot, **wrong})
        with TraceReader(path) as reader, pytest.raises(TraceError, match=r"boot|does not hold what was in memory"):
            Player(reader)
    for wrong in ({"images": [1]}, {"images": [{"kind": "bios"}]}, {"entry": -1}, {"symbols": [{"name": "x"}]}):
        with pytest.raises(ValueError, match=r"header\.boot"):
            changed(trace, tmp_path / "never.vmrec", boot={**boot, **wrong})
    with pytest.raises(UsageError):
        Boot.from_dict({**boot, "images": [{**boot["images"][0], "size": "big"}]})


def test_names_come_from_every_image(files: Files, tmp_path: Path, run: Inside) -> None:
    kernel = make_elf(
        Load(0x80200000, GOODBYE), xlen=64, entry=0x80200000, symbols=(("kernel_main", 0x80200000, 20, 2),)
    )
    firmware = make_elf(
        Load(RAM_BASE, SPIN * 5), xlen=64, entry=RAM_BASE, symbols=(("firmware_main", RAM_BASE, 20, 2),)
    )
    both = Symbols(kernel, firmware)
    assert both.lookup(0x80200004) == "kernel_main+0x4"
    assert both.lookup(RAM_BASE + 4) == "firmware_main+0x4"
    assert both.resolve("firmware_main") == RAM_BASE
    trace = tmp_path / "t.vmrec"
    options = ("--bios", files("fw.elf", firmware), "--kernel", files("k.elf", kernel))
    run("record", *options, "--max-insns", 20, "-o", trace)
    with TraceReader(trace) as reader, Timeline(reader) as timeline:
        assert timeline.guest.elfs == (kernel, firmware)


def test_a_program_and_images_are_too_much(files: Files, run: Inside) -> None:
    said = run("run", "hello", "--kernel", files("k", SPIN), status=2)
    assert "GUEST is a program on the bare machine" in said
