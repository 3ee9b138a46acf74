# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading guests: what is accepted, and that everything else is a GuestError with a remedy, never anything else."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from vmrec.errors import GuestError
from vmrec.guest import elf
from vmrec.guest.builtin import builtin_guest, builtin_names, resolve_guest
from vmrec.guest.elf import check_fits, load_guest, parse_guest
from vmrec.guest.symbols import Symbols

RAM = 0x80000000
CODE = bytes.fromhex("13000000") * 4


@dataclass
class Load:
    """A segment of a made-up ELF file."""

    address: int = RAM
    data: bytes = CODE
    memory_size: int | None = None
    flags: int = 5
    offset: int | None = None


def make_elf(
    *loads: Load,
    xlen: int = 32,
    entry: int = RAM,
    kind: int = 2,
    machine: int = 243,
    flags: int = 0,
    symbols: tuple[tuple[str, int, int, int], ...] = (),
    arch: str | None = None,
) -> bytes:
    """An ELF file with these segments; `symbols` are (name, address, size, info), all in section 1 (the first load)."""
    wide = xlen == 64
    header_size, program_size, section_size = (64, 56, 64) if wide else (52, 32, 40)
    body = b""
    programs = b""
    start = header_size + program_size * len(loads)
    for load in loads:
        offset = start + len(body) if load.offset is None else load.offset
        body += load.data
        size = len(load.data) if load.memory_size is None else load.memory_size
        if wide:
            programs += struct.pack(
                "<IIQQQQQQ", 1, load.flags, offset, load.address, load.address, len(load.data), size, 4
            )
        else:
            programs += struct.pack(
                "<IIIIIIII", 1, offset, load.address, load.address, len(load.data), size, load.flags, 4
            )
    strings = b"\0"
    table = b"\0" * (24 if wide else 16)
    for name, address, size, info in symbols:
        if wide:
            table += struct.pack("<IBBHQQ", len(strings), info, 0, 1, address, size)
        else:
            table += struct.pack("<IIIBBH", len(strings), address, size, info, 0, 1)
        strings += name.encode() + b"\0"
    attributes = b""
    if arch is not None:
        tag = b"\x04\x10\x05" + arch.encode() + b"\0"
        file_part = b"\x01" + struct.pack("<I", len(tag) + 5) + tag
        attributes = b"A" + struct.pack("<I", len(file_part) + 10) + b"riscv\0" + file_part
    names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0.riscv.attributes\0"

    place = start + len(body)
    sections = [(0, 0, 0, 0, 0, 0)]  # name, type, flags, address, size, link
    contents = [b""]
    sections.append((names.index(b".text"), 1, 6, loads[0].address if loads else 0, len(body), 0))
    for name, number, data, link in (
        (b".symtab", 2, table, 3),
        (b".strtab", 3, strings, 0),
        (b".shstrtab", 3, names, 0),
        (b".riscv.attributes", 0x70000003, attributes, 0),
    ):
        sections.append((names.index(name), number, 0, 0, len(data), link))
        contents.append(data)
    packed = b""
    for index, (name_at, number, section_flags, address, size, link) in enumerate(sections):
        offset = start if index == 1 else place
        if index > 1:
            place += size
        layout = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
        packed += struct.pack(layout, name_at, number, section_flags, address, offset, size, link, 0, 0, 0)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    layout = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    header = ident + struct.pack(
        layout, kind, machine, 1, entry, header_size, place, flags, header_size, program_size, len(loads),
        section_size, len(sections), 4,
    )  # fmt: skip
    return header + programs + body + b"".join(contents[1:]) + packed


def refusal(data: bytes) -> str:
    with pytest.raises(GuestError) as caught:
        parse_guest(data, "guest.elf")
    return caught.value.reason


# ------------------------------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize("xlen", [32, 64])
def test_a_guest_is_what_the_file_says(xlen: int, tmp_path: Path) -> None:
    data = make_elf(Load(), Load(RAM + 0x1000, b"data", memory_size=100, flags=6), xlen=xlen, entry=RAM + 4)
    path = tmp_path / "small.elf"
    path.write_bytes(data)
    guest = load_guest(path)
    assert (guest.name, guest.path, guest.data, guest.hash) == ("small", str(path), data, blake3(data).digest())
    assert (guest.xlen, guest.entry, guest.tohost) == (xlen, RAM + 4, None)
    first, second = guest.segments
    assert (first.address, first.data, first.memory_size, first.flags, first.number) == (RAM, CODE, 16, 5, 0)
    assert (second.address, second.data, second.end, second.number) == (RAM + 0x1000, b"data", RAM + 0x1064, 1)
    assert parse_guest(data, "small", path=str(path)) == guest


def test_segments_come_in_the_order_of_addresses_and_keep_their_numbers() -> None:
    guest = parse_guest(make_elf(Load(RAM + 0x1000), Load(RAM)), "guest")
    assert [(segment.address, segment.number) for segment in guest.segments] == [(RAM, 1), (RAM + 0x1000, 0)]


@pytest.mark.parametrize(
    ("xlen", "flags", "arch", "isa"),
    [
        (32, 0, "rv32i2p1_m2p0_zicsr2p0_zifencei2p0_zmmul1p0", "rv32im"),
        (32, 0, "rv32im", "rv32im"),
        (32, 0, None, "rv32im"),
        (32, 1, None, "rv32gc"),
        (32, 1, "rv32im", "rv32gc"),
        (32, 2, None, "rv32gc"),
        (32, 0, "rv32i2p1_m2p0_a2p1_zicsr2p0", "rv32gc"),
        (32, 0, "rv32g", "rv32gc"),
        (32, 0, "rv32im_zba1p0", "rv32gc"),
        (64, 0, "rv64im", "rv64gc"),
        (64, 5, "rv64i2p1_m2p0_a2p1_f2p2_d2p2_c2p0_zicsr2p0", "rv64gc"),
    ],
)
def test_the_profile_follows_from_the_file(xlen: int, flags: int, arch: str | None, isa: str) -> None:
    data = make_elf(Load(), xlen=xlen, flags=flags, arch=arch)
    assert elf.ElfFile(data, "guest").arch() == arch
    assert parse_guest(data, "guest").isa == isa


def test_tohost_is_found() -> None:
    data = make_elf(Load(), symbols=(("fromhost", RAM + 8, 8, 0x11), ("tohost", RAM + 16, 8, 0x11)))
    assert parse_guest(data, "guest").tohost == RAM + 16


def test_a_stripped_file_is_a_guest() -> None:
    data = bytearray(make_elf(Load()))
    data[32:36] = bytes(4)  # e_shoff
    assert parse_guest(bytes(data), "guest").tohost is None
    assert Symbols(bytes(data)).names == ()


# ------------------------------------------------------------------------------------------------ what is refused


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fifo_writer = os.open(fifo, os.O_RDWR)  # else opening it would wait for one
    for path, reason in (
        (tmp_path / "absent", "no such file"),
        (tmp_path, "is a directory"),
        (fifo, "not a regular file"),
        ("bad\0name", "cannot be a path"),
    ):
        with pytest.raises(GuestError, match=reason) as caught:
            load_guest(path)
        assert caught.value.path == str(path)
    os.close(fifo_writer)
    if os.geteuid() != 0:  # root reads everything
        secret = tmp_path / "secret"
        secret.touch(0)
        with pytest.raises(GuestError, match="Permission denied"):
            load_guest(secret)


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(elf, "FILE_SIZE_MAX", 1 << 20)
    path = tmp_path / "large.elf"
    path.write_bytes(make_elf(Load()) + bytes(1 << 20))
    with pytest.raises(GuestError, match=r"larger than 1 MiB; strip it"):
        load_guest(path)


REFUSED = [
    (b"", "is empty"),
    (b"#!/bin/sh\n", "is not an ELF file"),
    (b"\x7fELF", "damaged ELF header"),
    (make_elf(Load(), xlen=64)[:60], "is cut off: the ELF header lies outside the file's 60 bytes"),
    (make_elf(Load())[:4] + b"\x03" + make_elf(Load())[5:], "damaged ELF header"),
    (make_elf(Load())[:5] + b"\x02" + make_elf(Load())[6:], "is big-endian"),
    (make_elf(Load(), machine=62), "is built for x86-64, not for RISC-V"),
    (make_elf(Load(), machine=9999), "another machine (number 9999)"),
    (make_elf(Load(), kind=3), "link it with `-static -no-pie`"),
    (make_elf(Load(), kind=1), "relocatable object; link it first"),
    (make_elf(Load(), kind=4), "is a core dump"),
    (make_elf(), "no loadable segment (PT_LOAD)"),
    (make_elf(Load(data=b"")), "no loadable segment (PT_LOAD)"),
    (make_elf(Load(offset=100_000)), "is cut off: segment 0 needs bytes 100000…100015"),
    (make_elf(Load(memory_size=3)), "segment 0 has more bytes in the file (16) than in memory (3)"),
    (make_elf(Load(0xFFFFFFF8), entry=0xFFFFFFF8), "past the end of the 32-bit address space"),
    (make_elf(Load(), entry=0), "entry point 0x0 is in none of its segments"),
    (make_elf(Load(), Load(RAM + 15)), "segments 0 (0x80000000…0x8000000f) and 1 (0x8000000f…0x8000001e) overlap"),
    (make_elf(Load())[:-50], "is cut off: section header 4 lies outside"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_be_a_guest_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


def test_segments_outside_ram_are_refused_by_number_and_range() -> None:
    def message(*loads: Load, ram_size: int = 1 << 20) -> str:
        guest = parse_guest(make_elf(*loads, xlen=64, entry=loads[0].address), "guest.elf")
        with pytest.raises(GuestError) as caught:
            check_fits(guest, RAM, ram_size)
        return str(caught.value)

    text = message(Load(), Load(RAM + 0x1000, memory_size=5 << 20))
    assert "guest.elf: segment 1 occupies 0x80001000…0x80500fff, outside RAM, which is 0x80000000…0x800fffff" in text
    assert "--ram 6M" in text
    assert "Link the guest at 0x80000000; programs for Linux" in message(Load(0x10000))
    assert "Link the guest at 0x80000000" in message(Load(RAM - 1))
    assert "--ram" not in message(Load(0xFFFFFFFF80000000))
    exact = parse_guest(make_elf(Load(memory_size=1 << 20)), "guest.elf")
    check_fits(exact, RAM, 1 << 20)


BASE = make_elf(
    Load(),
    Load(RAM + 0x1000, b"data", memory_size=64),
    symbols=(("_start", RAM, 8, 0x12), ("tohost", RAM + 8, 8, 0x11)),
    arch="rv32im",
)


@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.binary(min_size=1, max_size=4)), max_size=6))
def test_a_damaged_file_is_a_guest_or_a_guest_error(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(BASE)
    for place, change in changes:
        data[place : place + len(change)] = change
    survives(bytes(data))


@given(st.binary(max_size=200), st.sampled_from([b"", BASE[:16], BASE[:52], BASE[:84]]))
def test_any_bytes_are_a_guest_or_a_guest_error(tail: bytes, head: bytes) -> None:
    survives(head + tail)


def survives(data: bytes) -> None:
    symbols = Symbols(data)
    symbols.lookup(RAM)
    symbols.line(RAM)
    try:
        guest = parse_guest(data, "fuzzed")
    except GuestError:
        return
    assert all(segment.end <= 1 << guest.xlen for segment in guest.segments)


# -------------------------------------------------------------------------------------------------- names and lines


def test_lookup_names_the_nearest_symbol_that_reaches_so_far() -> None:
    symbols = Symbols(
        make_elf(
            Load(data=bytes(0x100)),
            symbols=(
                ("main", RAM, 0x20, 0x12),
                ("alias_of_main", RAM, 0x20, 0x02),
                ("in_between", RAM + 0x30, 0, 0x10),
                ("table", RAM + 0x40, 8, 0x11),
                ("inside_table", RAM + 0x44, 0, 0x10),
                ("last", RAM + 0x80, 0, 0x10),
                ("$x", RAM + 0x24, 0, 0x00),
                (".L1", RAM + 0x28, 0, 0x00),
                ("guest.c", 0, 0, 0x04),
            ),
        )
    )
    expected = {
        RAM - 1: None,
        RAM: "main",
        RAM + 0x1F: "main+0x1f",
        RAM + 0x20: None,  # main has ended, and mapping symbols are no names
        RAM + 0x34: "in_between+0x4",
        RAM + 0x44: "table+0x4",  # data that holds the address comes before a label
        RAM + 0x48: "inside_table+0x4",
        RAM + 0xFF: "last+0x7f",
        RAM + 0x100: None,  # the section has ended
    }
    assert {address: symbols.lookup(address) for address in expected} == expected
    assert symbols.address("table") == RAM + 0x40
    assert symbols.address("alias_of_main") == RAM
    assert symbols.address("absent") is None
    assert symbols.names == ("alias_of_main", "in_between", "inside_table", "last", "main", "table")


def test_lines_of_a_builtin_guest_are_those_of_its_source() -> None:
    symbols = Symbols(builtin_guest("hello").read_bytes())
    main = symbols.address("main")
    assert main is not None
    file, _, line = (symbols.line(main) or "").rpartition(":")
    assert file == "hello.c"
    source = Path(__file__).parents[1] / "guests" / "hello.c"
    around = source.read_text().splitlines()[int(line) - 2 : int(line)]  # the line of main's name or of its brace
    assert any("main" in text for text in around)
    assert symbols.line(0) is None
    assert symbols.line(2**64 - 1) is None


def test_a_compressed_line_table_is_not_unpacked() -> None:
    data = bytearray(BASE)
    section = struct.unpack_from("<I", data, 32)[0] + 40  # header of section 1
    struct.pack_into("<I", data, section + 8, 0x800)  # SHF_COMPRESSED
    assert Symbols(bytes(data)).line(RAM) is None


# ---------------------------------------------------------------------------------------------- the argument GUEST


def test_every_builtin_guest_loads_and_fits() -> None:
    assert "hello" in builtin_names()
    for name in builtin_names():
        guest = load_guest(builtin_guest(name))
        assert guest.name == name
        check_fits(guest, RAM, 128 << 20)


def test_a_guest_is_an_existing_file_or_comes_with_vmrec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_guest("hello") == builtin_guest("hello")
    Path("hello").mkdir()
    assert resolve_guest("hello") == builtin_guest("hello"), "a directory of that name is not meant"
    assert resolve_guest(tmp_path) == tmp_path
    Path("sort").touch()
    assert resolve_guest("sort") == Path("sort"), "a file of that name wins"


def test_an_unknown_guest_gets_near_names() -> None:
    with pytest.raises(GuestError, match=r"Did you mean hello\?"):
        resolve_guest("helo")
    with pytest.raises(GuestError, match=r"come with vmrec: .*hello"):
        resolve_guest("zzzz")
