# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio devices, one access at a time: registers of both layouts, and rings that an enemy has written.

`Model` says in plain Python what a drive does with any memory and registers. Random ones are given to both, and all of
RAM, the drive, the registers and the outputs must be the same: nothing outside a buffer is touched, whatever the rings
say.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import ENGINES, FIXED, assemble, boot, encode
from trace_files import noise

from vmrec.events import Entropy, Input
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN, VIRTIO_BASE
from vmrec.machine.machine import Exit, Machine

SIZE = 3 * PAGE_SIZE + 1024  # the last block is one in part
DRIVE = noise(SIZE, "drive")
LAYOUTS = ("modern", "legacy")
LOOP = assemble(encode("jal"))
RAM_END = RAM_BASE + RAM_SIZE_MIN
MAGIC, VERSION, ID, VENDOR, FEATURES, FEATURES_SEL = 0, 4, 8, 0xC, 0x10, 0x14
DRIVER_FEATURES, DRIVER_SEL, PAGE_OF_GUEST = 0x20, 0x24, 0x28
SEL, NUM_MAX, NUM, ALIGN, PFN = 0x30, 0x34, 0x38, 0x3C, 0x40
READY, NOTIFY, INTERRUPT, ACK, STATUS, DESC, AVAIL, USED = 0x44, 0x50, 0x60, 0x64, 0x70, 0x80, 0x90, 0xA0
NEXT, WRITE, INDIRECT = 1, 2, 4
NEEDS_RESET = 0x40
BLOCK, RNG, CONSOLE, EMPTY = (VIRTIO_BASE + slot * PAGE_SIZE for slot in range(4))


def made(virtio: str = "modern", drive: bytes = DRIVE) -> Machine:
    """A machine with a drive in slot 0, virtio-rng in 1, virtio-console in 2."""
    config = {"drives": (len(drive),), "devices": ("virtio-rng", "virtio-console"), "virtio": virtio}
    return boot(LOOP, "rv64gcsu", config=config)


@pytest.fixture(params=LAYOUTS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with made(request.param) as it:
        yield it


def legacy(machine: Machine) -> bool:
    return machine.config.virtio == "legacy"


def read(machine: Machine, register: int, device: int = BLOCK) -> int:
    value = machine.bus_read(device + register, 4)
    assert value is not None
    return value


def store(machine: Machine, register: int, value: int, device: int = BLOCK) -> None:
    """A store to a register; blocks of the drive, and RAM, come when they are missed."""
    while not machine.bus_write(device + register, 4, value):
        index = machine.missing_page
        place = machine.config.block_of(index)
        assert place is not None
        machine.set_page(index, DRIVE[place[1] * PAGE_SIZE :][:PAGE_SIZE].ljust(PAGE_SIZE, b"\0"))


def poke(machine: Machine, address: int, data: bytes) -> None:
    """The guest, or anyone, has these bytes in RAM."""
    page = (address - RAM_BASE) // PAGE_SIZE
    at = (address - RAM_BASE) % PAGE_SIZE
    content = bytearray(machine.page(page))
    content[at : at + len(data)] = data
    machine.set_page(page, bytes(content))


def start(machine: Machine, num: int, desc: int, avail: int, used: int, device: int = BLOCK, queue: int = 0) -> None:
    """Sets up a queue, and DRIVER_OK. The legacy layout gets as much of it as it can say."""
    store(machine, STATUS, 3, device)
    store(machine, SEL, queue, device)
    store(machine, NUM, num, device)
    if legacy(machine):
        store(machine, PAGE_OF_GUEST, PAGE_SIZE, device)
        store(machine, ALIGN, PAGE_SIZE, device)
        store(machine, PFN, desc // PAGE_SIZE & 0xFFFF_FFFF, device)
    else:
        for register, address in ((DESC, desc), (AVAIL, avail), (USED, used)):
            store(machine, register, address & 0xFFFF_FFFF, device)
            store(machine, register + 4, address >> 32, device)
        store(machine, READY, 1, device)
    store(machine, STATUS, 0xF, device)


def descriptor(address: int, length: int, flags: int = 0, following: int = 0) -> bytes:
    return (
        address.to_bytes(8, "little") + length.to_bytes(4, "little") + flags.to_bytes(2, "little")
        + following.to_bytes(2, "little")
    )  # fmt: skip


def available(index: int, *heads: int, flags: int = 0) -> bytes:
    return b"".join(value.to_bytes(2, "little") for value in (flags, index, *heads))


def outputs(machine: Machine) -> list[Any]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(machine.take_outputs())
    return list(unpacker)


# -------------------------------------------------------------------------------------------------------- registers


def test_what_a_driver_finds(machine: Machine) -> None:
    for device, kind in ((BLOCK, 2), (RNG, 4), (CONSOLE, 3), (EMPTY, 0)):
        assert read(machine, MAGIC, device) == 0x7472_6976
        assert read(machine, VERSION, device) == (1 if legacy(machine) else 2)
        assert read(machine, ID, device) == kind
        assert read(machine, VENDOR, device) == 0x554D_4551
        for queue, queues in ((0, 1), (1, 2), (2, 3)):
            store(machine, SEL, queue, device)
            there = queue < {2: 1, 4: 1, 3: 2, 0: 0}[kind]
            assert read(machine, NUM_MAX, device) == (256 if there else 0), queues
    for half in (0, 1, 2):
        store(machine, FEATURES_SEL, half)
        assert read(machine, FEATURES) == (0x244, 0 if legacy(machine) else 1, 0)[half]
    assert read(machine, 0x100) == SIZE // 512
    assert [read(machine, 0x100 + at) for at in (0x0C, 0x14)] == [254, 512]
    assert machine.bus_read(BLOCK + 0x100, 1) == SIZE // 512
    refused = ((0x102, 4), (0x100, 8), (0x001, 1), (0x72, 2))
    assert [machine.bus_read(BLOCK + at, size) for at, size in refused] == [None] * 4
    assert machine.bus_write(BLOCK + 0x101, 2, 0) is False


def test_a_driver_that_takes_what_was_not_offered(machine: Machine) -> None:
    store(machine, DRIVER_FEATURES, 1 << 5)
    store(machine, STATUS, 0xB)
    assert read(machine, STATUS) == 3
    store(machine, DRIVER_FEATURES, 1 << 6)
    store(machine, STATUS, 0xB)
    assert read(machine, STATUS) == 0xB
    store(machine, DRIVER_FEATURES, 0)
    assert machine.state()["virtio0"]["driver_features"] == 1 << 6, "they are settled"


def test_reset(machine: Machine) -> None:
    before = machine.state()["virtio0"]
    start(machine, 8, RAM_BASE + 0x1000, RAM_BASE + 0x2000, RAM_BASE + 0x3000)
    assert machine.state()["virtio0"] != before
    started = machine.state()["virtio0"]["guest_page_size"]
    store(machine, STATUS, 0)
    # Linux and U-Boot tell their page size to a legacy device before they reset it, and not again.
    assert machine.state()["virtio0"] == {**before, "guest_page_size": started}


@pytest.mark.parametrize("num", [0, 3, 255, 257, 512, 0xFFFF_FFFF])
def test_a_queue_of_an_impossible_size(num: int, machine: Machine) -> None:
    start(machine, num, RAM_BASE + 0x1000, RAM_BASE + 0x2000, RAM_BASE + 0x3000)
    store(machine, NOTIFY, 0)
    assert read(machine, STATUS) & NEEDS_RESET
    store(machine, STATUS, 0)
    assert read(machine, STATUS) == 0


def test_nothing_happens_before_the_driver_is_there(machine: Machine) -> None:
    before = machine.state()
    for queue in (0, 1, 77, 0xFFFF_FFFF):
        store(machine, NOTIFY, queue)
    assert machine.state() == before


# -------------------------------------------------------------------------------------------------- the device's model

AVAIL_AT, USED_AT, TABLE = RAM_BASE + 0x2000, RAM_BASE + 0x3000, RAM_BASE + 0x1000
HEADERS, DATA = RAM_BASE + 0x4000, RAM_BASE + 0x6000


class Broken(Exception):
    """The queue makes no sense."""


class Model:
    """A drive with one queue; `ram` and `drive` are bytearrays."""

    def __init__(self, ram: bytes, num: int, desc: int, avail: int, used: int) -> None:
        self.ram, self.drive = bytearray(ram), bytearray(DRIVE)
        self.num, self.desc, self.avail, self.used = num, desc, avail, used
        self.broken = self.interrupt = False
        self.written: list[list[Any]] = []

    def at(self, address: int, length: int) -> int:
        offset = address - RAM_BASE
        if not (0 <= offset < len(self.ram) and length <= len(self.ram) - offset):
            raise Broken
        return offset

    def number(self, address: int, size: int) -> int:
        offset = self.at(address, size)
        return int.from_bytes(self.ram[offset : offset + size], "little")

    def notify(self) -> None:
        chains = []
        try:
            if self.num not in (1 << bits for bits in range(9)):
                raise Broken
            for place, size in ((self.desc, 16), (self.avail, 2), (self.used, 8)):
                self.at(place, size * self.num + (0 if size == 16 else 4))
            count = self.number(self.avail + 2, 2)
            silent = self.number(self.avail, 2) & 1
            if count > self.num:
                raise Broken
            total = 0
            for i in range(count):
                head = self.number(self.avail + 4 + 2 * (i % self.num), 2)
                reads, writes = self.chain(head)
                total += sum(length for _, length in reads + writes)
                if total > 512 << 20:
                    raise Broken
                chains.append((head, reads, writes, self.request(reads, writes)))
        except Broken:
            self.broken = True
        for number, (head, reads, writes, (kind, sector, result)) in enumerate(chains):
            length = self.carry_out(reads, writes, kind, sector, result)
            entry = self.used + 4 + 8 * (number % self.num)
            self.put([(entry, 8)], 0, head.to_bytes(4, "little") + length.to_bytes(4, "little"))
            self.put([(self.used + 2, 2)], 0, (number + 1).to_bytes(2, "little"))
            self.interrupt = not silent

    def chain(self, index: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        reads: list[tuple[int, int]] = []
        writes: list[tuple[int, int]] = []
        for _ in range(self.num):
            if index >= self.num:
                raise Broken
            entry = self.desc + 16 * index
            address, length = self.number(entry, 8), self.number(entry + 8, 4)
            flags, following = self.number(entry + 12, 2), self.number(entry + 14, 2)
            if flags & INDIRECT or not length or (writes and not flags & WRITE):
                raise Broken
            self.at(address, length)
            (writes if flags & WRITE else reads).append((address, length))
            if not flags & NEXT:
                return reads, writes
            index = following
        raise Broken

    def request(self, reads: list[tuple[int, int]], writes: list[tuple[int, int]]) -> tuple[int, int, int]:
        header = self.get(reads)[:16]
        if len(header) < 16 or not writes:
            raise Broken
        kind, sector = int.from_bytes(header[:4], "little"), int.from_bytes(header[8:], "little")
        size = sum(n for _, n in reads) - 16 if kind == 1 else sum(n for _, n in writes) - 1
        if kind in (0, 1):
            return kind, sector, int(size % 512 != 0 or sector * 512 + size > SIZE)
        return kind, sector, 0 if kind in (4, 8) else 2

    def carry_out(
        self, reads: list[tuple[int, int]], writes: list[tuple[int, int]], kind: int, sector: int, result: int
    ) -> int:
        size, length = sum(n for _, n in writes), 1
        if kind == 0 and result == 0:
            self.put(writes, 0, bytes(self.drive[sector * 512 :][: size - 1]))
            length = size
        elif kind == 1 and result == 0:
            count = sum(n for _, n in reads) - 16
            self.copy_in(reads, sector * 512)
            self.written.append(["written", 0, 0, sector, count])
        elif kind == 8:
            name = b"vmrec-drive-0".ljust(20, b"\0")[: size - 1]
            self.put(writes, 0, name)
            length = len(name) + 1
        self.put(writes, size - 1, bytes([result]))
        return length

    def copy_in(self, reads: list[tuple[int, int]], at: int) -> None:
        data = self.get(reads)[16:]
        self.drive[at : at + len(data)] = data

    def get(self, buffers: list[tuple[int, int]]) -> bytes:
        return b"".join(bytes(self.ram[address - RAM_BASE :][:length]) for address, length in buffers)

    def put(self, buffers: list[tuple[int, int]], skip: int, data: bytes) -> None:
        for address, length in buffers:
            piece, data = data[: max(length - skip, 0)], data[max(length - skip, 0) :]
            offset = self.at(address, length) + skip
            self.ram[offset : offset + len(piece)] = piece
            skip = max(skip - length, 0)


# ------------------------------------------------------------------------------------------------------ hostile rings


ODD = (0, RAM_BASE, RAM_END - 4, RAM_END, RAM_END + PAGE_SIZE, RAM_BASE - 8, BLOCK, (1 << 64) - 16, 1 << 63)
LENGTHS = (0, 1, 2, 15, 17, 511, 513, 1 << 16, 1 << 31, (1 << 32) - 1)
PIECES: list[tuple[int, ...]] = [
    (512,), (100, 412), (1024,), (1, 4095), (512, 512, 512), (513,), (), (2048,), (20,)
]  # fmt: skip
SECTORS = (0, 1, 3, 7, 8, 16, 22, 24, 25, 26, 1 << 40, (1 << 64) - 1)


def scene(pick: random.Random) -> tuple[dict[int, bytes], int, tuple[int, int, int]]:
    """What lies in RAM, the queue's size, and where its parts are: some requests, and in most scenes a thing or two
    that is not as it should be.
    """
    num = pick.choice((16, 16, 32, 256))
    table: list[list[int]] = []
    heads, headers = [], b""
    for number in range(pick.randint(1, 3)):
        kind = pick.choice((0, 0, 0, 1, 1, 1, 4, 8, 2, 99))
        headers += kind.to_bytes(8, "little") + pick.choice(SECTORS).to_bytes(8, "little")
        heads.append(len(table))
        way = 0 if kind == 1 else WRITE
        pieces = ([DATA + 8 * pick.randrange(1000), length, way] for length in pick.choice(PIECES))
        chain = [[HEADERS + 16 * number, 16, 0], *pieces]
        chain.append([DATA + 8 * pick.randrange(1000), 1, WRITE])
        for place, entry in enumerate(chain):
            more = place < len(chain) - 1
            table.append([entry[0], entry[1], entry[2] | more, len(table) + 1])
    ready, places = len(heads), [TABLE, AVAIL_AT, USED_AT]
    for _ in range(pick.choice((0, 0, 1, 1, 2))):
        entry = table[pick.randrange(len(table))]
        match pick.randrange(9):
            case 0:
                entry[0] = pick.choice(ODD)
            case 1:
                entry[1] = pick.choice(LENGTHS)
            case 2:
                entry[2] = pick.choice((0, NEXT, WRITE, INDIRECT, NEXT | WRITE, 0xFFFF))
            case 3:
                entry[3] = pick.randrange(num + 2)
            case 4:
                entry[0] = pick.choice((TABLE, AVAIL_AT, USED_AT, HEADERS)) + pick.randrange(64)
            case 5:
                ready = pick.choice((0, num, num + 1, 0xFFFF, len(heads) + 1))
            case 6:
                heads[pick.randrange(len(heads))] = pick.choice((num, num - 1, 0xFFFF, pick.randrange(num)))
            case 7:
                places[pick.randrange(3)] = pick.choice((*ODD, DATA + pick.randrange(64)))
            case _:
                num = pick.choice((1, 2, 4, 8))
    ring = available(ready, *heads, flags=pick.choice((0, 0, 1)))
    entries = b"".join(descriptor(*entry) for entry in table)
    parts = {TABLE: entries, AVAIL_AT: ring, HEADERS: headers, DATA: noise(PAGE_SIZE, num)}
    return parts, num, (places[0], places[1], places[2])


def same_as_the_model(number: int, rob: bool, virtio: str = "modern") -> None:
    parts, num, places = scene(random.Random(number))
    with made(virtio) as machine:
        for address, data in parts.items():
            poke(machine, address, data)
        if virtio == "legacy":
            end = TABLE + 16 * num + 2 * (3 + num)
            places = (TABLE, TABLE + 16 * num, -(-end // PAGE_SIZE) * PAGE_SIZE)
            poke(machine, places[1], parts[AVAIL_AT][: PAGE_SIZE - 16 * num])
        start(machine, num, *places)
        ram = machine.read_memory(RAM_BASE, RAM_SIZE_MIN)
        model = Model(ram, num, *places)
        model.notify()
        if rob:
            for index in range(1, RAM_SIZE_MIN // PAGE_SIZE):
                machine.mark_missing(index)
            while not machine.bus_write(BLOCK + NOTIFY, 4, 0):
                index = machine.missing_page
                machine.set_page(index, content_of(machine, index, ram))
            for index in range(1, RAM_SIZE_MIN // PAGE_SIZE):
                if machine.is_missing(index):
                    machine.set_page(index, content_of(machine, index, ram))
        else:
            store(machine, NOTIFY, 0)
        assert machine.read_memory(RAM_BASE, RAM_SIZE_MIN) == bytes(model.ram)
        assert outputs(machine) == model.written
        state = machine.state()["virtio0"]
        assert bool(state["status"] & NEEDS_RESET) == model.broken
        assert state["interrupt_status"] == model.interrupt | model.broken << 1
        for block in range(4):
            index = machine.config.page_of(0, block)
            if not machine.is_missing(index):
                assert machine.page(index)[: SIZE - block * PAGE_SIZE] == model.drive[block * PAGE_SIZE :][:PAGE_SIZE]
            else:
                assert model.drive[block * PAGE_SIZE :][:PAGE_SIZE] == DRIVE[block * PAGE_SIZE :][:PAGE_SIZE]
        saved = machine.state()
        machine.set_state(saved)
        assert machine.state() == saved


def content_of(machine: Machine, index: int, ram: bytes) -> bytes:
    place = machine.config.block_of(index)
    source, at = (ram, index) if place is None else (DRIVE, place[1])
    return source[at * PAGE_SIZE : (at + 1) * PAGE_SIZE].ljust(PAGE_SIZE, b"\0")


@settings(FIXED, max_examples=400)
@given(st.integers(0, 2**64 - 1), st.booleans())
def test_any_rings(number: int, rob: bool) -> None:
    same_as_the_model(number, rob)


@settings(FIXED, max_examples=150)
@given(st.integers(0, 2**64 - 1), st.booleans())
def test_any_rings_of_the_legacy_layout(number: int, rob: bool) -> None:
    same_as_the_model(number, rob, "legacy")


@settings(FIXED, max_examples=150)
@given(st.integers(0, 2**64 - 1), st.sampled_from(LAYOUTS))
def test_any_stores_to_any_registers(number: int, virtio: str) -> None:
    """Nothing fails, nothing but RAM and drive changes, and the state can be given to another machine."""
    pick = random.Random(number)
    parts, *_ = scene(pick)
    addresses = [register + half for register in (DESC, AVAIL, USED) for half in (0, 4)]
    registers = (NOTIFY, NOTIFY, STATUS, SEL, NUM, READY, PFN, ALIGN, PAGE_OF_GUEST, ACK, FEATURES_SEL, DRIVER_SEL,
                 DRIVER_FEATURES, *addresses)  # fmt: skip
    values = (0, 1, 2, 3, 7, 8, 0xF, 0x80, 256, 0x8000_1000, 0x8000_2000, 0x8_0001, PAGE_SIZE, 0xFFFF_FFFF)
    with made(virtio) as machine, made(virtio) as twin:
        for address, data in parts.items():
            poke(machine, address, data)
        for device in (BLOCK, RNG, CONSOLE):
            start(machine, 8, TABLE, AVAIL_AT, USED_AT, device)
        for _ in range(40):
            device = pick.choice((BLOCK, RNG, CONSOLE, EMPTY))
            value = pick.choice(values)
            for _ in range(16):
                if machine.bus_write(device + pick.choice(registers), 4, value):
                    break
                if machine.pull_size <= 65536 and device == RNG:
                    machine.supply(Entropy(machine.position, noise(machine.pull_size, "entropy")))
                elif machine.missing_page < machine.config.pages:
                    machine.set_page(machine.missing_page, bytes(PAGE_SIZE))
            if not pick.randrange(4):
                machine.push(Input(machine.position, b"typed"))
        machine.take_outputs()
        twin.set_state(machine.state())
        assert twin.state() == machine.state()


# ---------------------------------------------------------------------------------------------------- single mischiefs


@pytest.mark.parametrize(
    ("table", "heads"),
    [
        ([descriptor(HEADERS, 16, NEXT, 0)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor(DATA, 1, NEXT | WRITE, 0)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 8)], [0]),
        ([descriptor(HEADERS, 16)], [0]),
        ([descriptor(HEADERS, 15, NEXT, 1), descriptor(DATA, 1, WRITE)], [0]),
        ([descriptor(DATA, 1, NEXT | WRITE, 1), descriptor(HEADERS, 16)], [0]),
        ([descriptor(HEADERS, 16, INDIRECT)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor(RAM_END, 1, WRITE)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor(RAM_END - 1, 2, WRITE)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor(RAM_BASE - 1, 2, WRITE)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor((1 << 64) - 1, 2, WRITE)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor(BLOCK, 4, WRITE)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor(DATA, (1 << 32) - 1, WRITE)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor(DATA, 0, WRITE)], [0]),
        ([descriptor(HEADERS, 16, NEXT, 1), descriptor(DATA, 1, WRITE)], [8]),
    ],
    ids=[
        "points to itself", "circle", "next outside", "no status", "short header", "wrong order", "indirect",
        "behind RAM", "over the end of RAM", "before RAM", "end of everything", "a device", "longer than RAM",
        "no length", "head outside",
    ],
)  # fmt: skip
def test_a_ring_that_makes_no_sense(table: list[bytes], heads: list[int]) -> None:
    with made() as machine:
        poke(machine, TABLE, b"".join(table))
        poke(machine, AVAIL_AT, available(len(heads), *heads))
        start(machine, 8, TABLE, AVAIL_AT, USED_AT)
        before = machine.read_memory(RAM_BASE, RAM_SIZE_MIN)
        store(machine, NOTIFY, 0)
        assert read(machine, STATUS) == 0xF | NEEDS_RESET
        assert read(machine, INTERRUPT) == 2
        assert machine.read_memory(RAM_BASE, RAM_SIZE_MIN) == before
        state = machine.state()["virtio0"]
        store(machine, NOTIFY, 0)
        assert machine.state()["virtio0"] == state, "nothing more until it is reset"
        store(machine, STATUS, 0)
        poke(machine, TABLE, descriptor(HEADERS, 16, NEXT, 1) + descriptor(DATA, 513, WRITE))
        poke(machine, AVAIL_AT, available(1, 0))
        start(machine, 8, TABLE, AVAIL_AT, USED_AT)
        store(machine, NOTIFY, 0)
        assert read(machine, STATUS) == 0xF
        assert machine.read_memory(DATA, 513) == DRIVE[:512] + b"\0"


def test_chains_before_the_bad_one_are_done() -> None:
    with made() as machine:
        poke(machine, TABLE, descriptor(HEADERS, 16, NEXT, 1) + descriptor(DATA, 513, WRITE) + descriptor(RAM_END, 1))
        poke(machine, AVAIL_AT, available(3, 0, 2, 0))
        start(machine, 8, TABLE, AVAIL_AT, USED_AT)
        store(machine, NOTIFY, 0)
        assert read(machine, INTERRUPT) == 3
        assert machine.read_memory(USED_AT, 12) == bytes([0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 0, 0])
        assert machine.state()["virtio0"]["queue_seen"] == [1, 0]


def test_an_enormous_request_is_refused() -> None:
    """512 MiB at once, of a RAM that could hold them: the work of one notification has a limit."""
    with boot(LOOP, "rv64gcsu", ram_size=1 << 30, config={"drives": (2 << 30,)}) as machine:
        table = [descriptor(HEADERS, 16, NEXT, 1), descriptor(RAM_BASE + (1 << 20), (512 << 20) + 1, WRITE)]
        poke(machine, TABLE, b"".join(table))
        poke(machine, AVAIL_AT, available(1, 0))
        start(machine, 8, TABLE, AVAIL_AT, USED_AT)
        assert machine.bus_write(BLOCK + NOTIFY, 4, 0)
        assert read(machine, STATUS) & NEEDS_RESET


# ------------------------------------------------------------------------------------------------------ rng, console


def test_entropy_is_pulled_for_all_chains_at_once(machine: Machine) -> None:
    base = TABLE if legacy(machine) else AVAIL_AT - 128
    avail = base + 128
    second = descriptor(DATA + 100, 1000, NEXT | WRITE, 2)
    table = [descriptor(DATA, 10, WRITE), second, descriptor(DATA + 2000, 4, WRITE)]
    used = base + PAGE_SIZE if legacy(machine) else USED_AT
    poke(machine, base, b"".join(table))
    poke(machine, avail, available(2, 0, 1))
    start(machine, 8, base, avail, used, RNG)
    assert not machine.bus_write(RNG + NOTIFY, 4, 0)
    assert machine.pull_size == 266
    assert not machine.bus_write(RNG + NOTIFY, 4, 0), "asked again, it says the same"
    data = noise(266, "entropy")
    machine.supply(Entropy(machine.position, data))
    assert machine.bus_write(RNG + NOTIFY, 4, 0)
    assert machine.read_memory(DATA, 10) == data[:10]
    assert machine.read_memory(DATA + 100, 257) == data[10:] + b"\0"
    assert machine.read_memory(used, 20)[2:] == b"\2\0" + b"".join(
        value.to_bytes(4, "little") for value in (0, 10, 1, 256)
    )
    assert read(machine, INTERRUPT, RNG) == 1


def test_the_console_puts_out_what_it_is_given(machine: Machine) -> None:
    base = TABLE if legacy(machine) else AVAIL_AT - 128
    used = base + PAGE_SIZE if legacy(machine) else USED_AT
    text = noise(5000, "text")
    first, second = descriptor(DATA, 3000, NEXT, 1), descriptor(DATA + 3000, 1096, NEXT, 2)
    poke(machine, base, first + second + descriptor(HEADERS, 904))
    poke(machine, DATA, text[:4096])
    poke(machine, HEADERS, text[4096:])
    poke(machine, base + 128, available(1, 0))
    start(machine, 8, base, base + 128, used, CONSOLE, 1)
    store(machine, NOTIFY, 1, CONSOLE)
    assert outputs(machine) == [["console", 0, text[:4096]], ["console", 0, text[4096:]]]
    assert read(machine, INTERRUPT, CONSOLE) == 1


def test_input_goes_to_the_console_that_has_a_driver(machine: Machine) -> None:
    base = TABLE if legacy(machine) else AVAIL_AT - 128
    used = base + PAGE_SIZE if legacy(machine) else USED_AT
    assert machine.input_room == 1
    assert machine.push(Input(0, b"ab")) == 1, "the UART has it"
    poke(machine, base, descriptor(DATA, 3, NEXT | WRITE, 1) + descriptor(DATA + 8, 2, WRITE))
    start(machine, 8, base, base + 128, used, CONSOLE, 0)
    assert machine.input_room == 0
    assert machine.push(Input(0, b"ab")) == 0
    poke(machine, base + 128, available(1, 0))
    machine.rx_paced = True
    store(machine, NOTIFY, 0, CONSOLE)
    assert machine.input_room == 5
    machine.mark_missing((DATA - RAM_BASE) // PAGE_SIZE)
    assert machine.input_needs == (DATA - RAM_BASE) // PAGE_SIZE
    machine.set_page((DATA - RAM_BASE) // PAGE_SIZE, bytes(PAGE_SIZE))
    assert machine.input_needs is None
    assert machine.push(Input(0, b"abcdefg")) == 5
    assert machine.read_memory(DATA, 11) == b"abc\0\0\0\0\0de\0"
    assert read(machine, INTERRUPT, CONSOLE) == 1
    assert machine.input_room == 0
    store(machine, STATUS, 0, CONSOLE)
    assert machine.bus_read(0x1000_0000, 1) == ord("a")
    assert machine.input_room == 1


def test_bad_receive_buffers_break_the_console(machine: Machine) -> None:
    base = TABLE if legacy(machine) else AVAIL_AT - 128
    used = base + PAGE_SIZE if legacy(machine) else USED_AT
    poke(machine, base, descriptor(DATA, 3))
    poke(machine, base + 128, available(1, 0))
    start(machine, 8, base, base + 128, used, CONSOLE, 0)
    store(machine, NOTIFY, 0, CONSOLE)
    assert read(machine, STATUS, CONSOLE) & NEEDS_RESET


# ------------------------------------------------------------------------------------ what a device's stores do besides


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("capture", [False, True])
def test_a_drive_may_overwrite_the_code_that_asked_it_to(engine: str, capture: bool) -> None:
    """The store to QueueNotify is followed by instructions that the device replaces."""
    x5, x6, x8 = 5, 6, 8
    program = assemble(
        encode("addi", x6, x6, imm=1), encode("sw", rs1=x8, rs2=0, imm=NOTIFY), encode("addi", x5, imm=1), encode("jal")
    )
    fresh = assemble(
        encode("addi", x6, x6, imm=1), encode("sw", rs1=x8, rs2=0, imm=NOTIFY), encode("addi", x5, imm=2), encode("jal")
    )
    drive = fresh.ljust(512, b"\0")
    with boot(program, "rv64gcsu", x={x8: BLOCK}, config={"drives": (512,)}) as machine:
        poke(machine, TABLE, descriptor(HEADERS, 16, NEXT, 1) + descriptor(RAM_BASE, 512, NEXT | WRITE, 2)
             + descriptor(DATA, 1, WRITE))  # fmt: skip
        poke(machine, AVAIL_AT, available(1, 0))
        start(machine, 8, TABLE, AVAIL_AT, USED_AT)
        if capture:
            machine.start_capture()
        exits = []
        while (exit_ := machine.run(3, engine=engine)) is not Exit.POSITION:  # type: ignore[arg-type]
            exits.append(exit_)
            assert machine.position == 1
            machine.set_page(machine.missing_page, drive.ljust(PAGE_SIZE, b"\0"))
        assert exits == [Exit.MISSING_PAGE]
        assert (machine.regs[x5], machine.regs[x6]) == (2, 1)


def test_an_atomic_operation_on_the_notify_register() -> None:
    """It may have to wait for the block, and is done once."""
    amo = encode("amoadd.w", 5, 8, 6, isa="rv64gcsu")
    with boot(assemble(amo, encode("jal")), "rv64gcsu", x={8: BLOCK + NOTIFY}, config={"drives": (SIZE,)}) as machine:
        poke(machine, TABLE, descriptor(HEADERS, 16, NEXT, 1) + descriptor(DATA, 513, WRITE))
        poke(machine, AVAIL_AT, available(1, 0))
        start(machine, 8, TABLE, AVAIL_AT, USED_AT)
        assert machine.run(1) is Exit.MISSING_PAGE
        assert machine.position == 0
        machine.set_page(machine.missing_page, DRIVE[:PAGE_SIZE])
        assert machine.run(1) is Exit.POSITION
        assert machine.read_memory(DATA, 513) == DRIVE[:512] + b"\0"
        assert machine.state()["virtio0"]["queue_used"] == [1, 0]


def test_no_address_leads_to_a_drive() -> None:
    """It lies behind RAM in the host's memory, and nowhere for the guest."""
    with made() as machine:
        for block, address in itertools.product(range(4), (RAM_END, RAM_END + 8, RAM_END + 4 * PAGE_SIZE)):
            machine.set_page(machine.config.page_of(0, block), b"\xa5" * PAGE_SIZE)
            assert machine.bus_read(address, 4) is None
            assert machine.bus_write(address, 4, 0) is False
    for name, cause in (("lw", 5), ("sw", 7)):
        code = assemble(encode(name, rs1=8, rs2=5), *[0] * 7, encode("jal"))
        with boot(code, "rv64gcsu", x={8: RAM_END}, mtvec=RAM_BASE + 16, config={"drives": (SIZE,)}) as it:
            it.set_page(it.config.page_of(0, 0), b"\xa5" * PAGE_SIZE)
            it.run(1)
            assert (it.csrs["mcause"], it.csrs["mtval"]) == (cause, RAM_END)
