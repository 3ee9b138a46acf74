# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines for tests: guests made of instruction words, and runs that are cut, moved and compared.

A program is laid out in one small RAM. Whoever needs registers or CSRs with certain values writes them into the state
at position 0 instead of running a prologue, so that the first step is the first instruction under test.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgpack
from hypothesis import HealthCheck, settings

from vmrec.events import Entropy
from vmrec.guest.elf import Guest, Segment, load_guest
from vmrec.isa.instructions import Instruction
from vmrec.isa.profiles import matches, profile
from vmrec.isa.registers import CSR_NUMBERS
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN, MachineConfig
from vmrec.machine.machine import Captured, Engine, Exit, Machine
from vmrec.machine.rows import Row, RowDecoder

#: Hypothesis without chance: the same examples in every run, on every host.
FIXED = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
ENGINES: tuple[Engine, ...] = ("auto", "engine", "stepper")
GUESTS = Path(__file__).resolve().parent.parent / "guests" / "bin"
NONE = 2**64 - 1
MSTATUS_FS = 3 << 13
MSTATUS_MPP = 3 << 11
#: Guests that need supervisor mode, which no ELF file says.
SUPERVISED = {
    **dict.fromkeys(("paging", "live-tables", "loop-fault", "loop-tick"), "rv64gcsu"),
    **dict.fromkeys(("paging32", "live-tables32"), "rv32gcsu"),
}
T = TypeVar("T")


# --------------------------------------------------------------------------------------------------- making programs


@functools.cache
def row_of(name: str, isa: str) -> Instruction:
    return next(row for row in profile(isa).instructions if row.name == name)


def encode(
    name: str, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0, *, rs3: int = 0, rm: int = 0, isa: str = "rv64gc"
) -> int:
    """An instruction word of four bytes; `imm` is what the manual calls it: bytes for jumps, all 32 bits for lui."""
    row = row_of(name, isa)

    def bits(high: int, low: int) -> int:
        return imm >> low & ((1 << (high - low + 1)) - 1)

    fields = {
        "R": rs2 << 20 | rs1 << 15 | rd << 7,
        "R-rm": rs2 << 20 | rs1 << 15 | rm << 12 | rd << 7,
        "R4": rs3 << 27 | rs2 << 20 | rs1 << 15 | rm << 12 | rd << 7,
        "R1": rs1 << 15 | rd << 7,
        "R1-rm": rs1 << 15 | rm << 12 | rd << 7,
        "amo": rs2 << 20 | rs1 << 15 | rd << 7,
        "lr": rs1 << 15 | rd << 7,
        "I": bits(11, 0) << 20 | rs1 << 15 | rd << 7,
        "I-shift": bits(5, 0) << 20 | rs1 << 15 | rd << 7,
        "S": bits(11, 5) << 25 | rs2 << 20 | rs1 << 15 | bits(4, 0) << 7,
        "B": bits(12, 12) << 31 | bits(10, 5) << 25 | rs2 << 20 | rs1 << 15 | bits(4, 1) << 8 | bits(11, 11) << 7,
        "U": bits(31, 12) << 12 | rd << 7,
        "J": bits(20, 20) << 31 | bits(10, 1) << 21 | bits(11, 11) << 20 | bits(19, 12) << 12 | rd << 7,
        "CSR": bits(11, 0) << 20 | rs1 << 15 | rd << 7,
        "CSRI": bits(11, 0) << 20 | rs1 << 15 | rd << 7,
        "fence": 0,
        "none": 0,
    }
    return row.match | fields[row.format]


def csr(name: str, csr_name: str, rd: int = 0, rs1: int = 0) -> int:
    """A CSR instruction; `rs1` is the immediate of csrrwi and its like."""
    return encode(name, rd, rs1, imm=CSR_NUMBERS[csr_name])


def little(word: int) -> bytes:
    """The bytes of an instruction: two or four, as its low bits say."""
    return word.to_bytes(4, "little") if word & 3 == 3 else (word & 0xFFFF).to_bytes(2, "little")


def assemble(*words: int) -> bytes:
    return b"".join(map(little, words))


def image(parts: Mapping[int, bytes]) -> bytes:
    """Bytes from the start of RAM on, with each part at its offset and zeros between them."""
    size = max(offset + len(part) for offset, part in parts.items())
    memory = bytearray(size)
    for offset, part in parts.items():
        memory[offset : offset + len(part)] = part
    return bytes(memory)


def guest(code: bytes, isa: str = "rv32im", *, tohost: int | None = None) -> Guest:
    """A guest with `code` at the start of RAM."""
    segments = (Segment(RAM_BASE, code, len(code), 7, 0),)
    return Guest("test", "test", b"", bytes(32), profile(isa).xlen, RAM_BASE, segments, isa, tohost)


def boot(
    code: bytes,
    isa: str = "rv32im",
    *,
    x: Mapping[int, int] | None = None,
    f: Mapping[int, int] | None = None,
    tohost: int | None = None,
    ram_size: int = RAM_SIZE_MIN,
    config: Mapping[str, Any] | None = None,
    **hart: int,
) -> Machine:
    """A machine with `code` in RAM that is about to execute its first instruction, registers set as given."""
    machine = Machine(MachineConfig(isa=isa, ram_size=ram_size, **config or {}), guest(code, isa, tohost=tohost))
    state = machine.state()
    state["hart"]["pc"] = RAM_BASE
    for number, value in (x or {}).items():
        state["hart"]["x"][number] = value
    for number, value in (f or {}).items():
        state["hart"]["f"][number] = value
    state["hart"].update(hart)
    machine.set_state(state)
    return machine


@functools.cache
def shipped(name: str) -> Guest:
    """One of the committed guests."""
    return load_guest(GUESTS / f"{name}.elf")


class Choices:
    """A number of 64 bits taken apart into choices: cheaper for hypothesis than a strategy for each, and it shrinks.

    The number is scrambled before, since hypothesis likes small ones; 0 stays 0, the first of all choices.
    """

    def __init__(self, number: int) -> None:
        number = number * 0x9E37_79B9_7F4A_7C15 % 2**64
        self._number = (number ^ number >> 29) * 0xBF58_476D_1CE4_E5B9 % 2**64

    def below(self, limit: int) -> int:
        self._number, chosen = divmod(self._number, limit)
        return chosen

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]


# ---------------------------------------------------------------------------------------------------- driving a run


def answer(position: int, size: int = 4) -> bytes:
    """What an entropy device gives at a position, in every test."""
    return (position * 2654435761 & 0xFFFF_FFFF).to_bytes(4, "little") * (size // 4)


class Run:
    """A machine being driven: pulls are answered, outputs and rows kept, missing pages fetched from `pages`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.outputs = b""
        self.rows: list[Row] = []
        self.pages: dict[int, bytes] = {}
        self.fetched = 0
        self._decoder: RowDecoder | None = None

    @classmethod
    def of(cls, name: str, *, ram_size: int = 1 << 20, **config: Any) -> Run:
        """A run of a committed guest from reset."""
        elf = shipped(name)
        return cls(Machine(MachineConfig(isa=SUPERVISED.get(name, elf.isa), ram_size=ram_size, **config), elf))

    def to(self, until: int, engine: Engine = "auto") -> Exit:
        """Runs until `until`, or to an exit that is not for bookkeeping."""
        machine = self.machine
        while True:
            exit_ = machine.run(until, engine=engine)
            self.outputs += machine.take_outputs()
            if exit_ is Exit.PULL:
                machine.supply(Entropy(machine.position, answer(machine.position, machine.pull_size)))
            elif exit_ is Exit.MISSING_PAGE:
                index = machine.missing_page
                machine.set_page(index, self.pages.pop(index))
                self.fetched += 1
            elif exit_ is Exit.CAPTURE_FULL:
                self.take_rows()
            elif exit_ is not Exit.OUTPUT_FULL:
                return exit_

    def capture(self) -> None:
        self.machine.start_capture()
        self._decoder = RowDecoder(self.machine.config)

    def take_rows(self, *, close: bool = False, fresh: bool = False) -> None:
        captured = self.machine.take_captured(close=close, fresh=fresh)
        if captured is not None:
            self._decode(captured)

    def _decode(self, captured: Captured) -> None:
        assert self._decoder is not None
        rows = list(self._decoder.decode(captured.first, msgpack.unpackb(captured.columns)))
        assert [row.position for row in rows] == list(range(captured.first, captured.last))
        self.rows += rows

    def stop_capture(self) -> None:
        self.take_rows(close=True)
        self.machine.stop_capture()
        self._decoder = None

    def move(self) -> None:
        """Goes on in a new machine that is given the state and the pages, as one restored from a checkpoint is."""
        old = self.machine
        capturing = self._decoder is not None
        if capturing:
            self.take_rows(close=True)
        self.machine = Machine(old.config, old.guest)
        for index in range(old.config.ram_size // PAGE_SIZE):
            if index in self.pages:
                self._hide(index)
            elif (content := old.page(index)) != self.machine.page(index):
                self.machine.set_page(index, content)
        self.machine.set_state(old.state())
        old.close()
        if capturing:
            self.capture()

    def rob(self, indexes: Iterable[int]) -> None:
        """Takes pages away. They are fetched from `pages` when they are missed; until then RAM has rubbish there."""
        if self._decoder is not None:
            self.take_rows(close=True)  # the code of an open block must stay where it is
        for index in indexes:
            if index not in self.pages:
                self.pages[index] = self.machine.page(index)
                self._hide(index)

    def _hide(self, index: int) -> None:
        self.machine.mark_missing(index)
        self.machine._ram[index * PAGE_SIZE : (index + 1) * PAGE_SIZE] = b"\xa5" * PAGE_SIZE

    def give_back(self) -> None:
        """Brings all the pages that nobody has missed yet."""
        for index in list(self.pages):
            self.machine.set_page(index, self.pages.pop(index))

    def look(self) -> tuple[dict[str, Any], bytes]:
        """Everything there is: the state and RAM. Not the digest, so that a difference can be read."""
        return self.machine.state(), self.machine.read_memory(RAM_BASE, self.machine.config.ram_size)

    def console(self) -> bytes:
        unpacker = msgpack.Unpacker()
        unpacker.feed(self.outputs)
        return b"".join(output[2] for output in unpacker if output[0] == "console")

    def close(self) -> None:
        self.machine.close()


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in which two states differ, with both values."""
    return {
        f"{part}.{field}": (value, b[part][field])
        for part, fields in a.items()
        for field, value in fields.items()
        if value != b[part][field]
    }


def same(a: tuple[dict[str, Any], bytes], b: tuple[dict[str, Any], bytes]) -> None:
    """Asserts that two looks saw the same, and says where they did not."""
    assert differences(a[0], b[0]) == {}
    if a[1] != b[1]:
        places = [i for i, (p, q) in enumerate(zip(a[1], b[1], strict=True)) if p != q]
        raise AssertionError(f"RAM differs at offsets {[hex(i) for i in places[:20]]}")


def words_of(row: Instruction, isa: str, operands: Iterable[int]) -> list[int]:
    """Words that are this row in the profile, with the given bits where the row leaves them open."""
    full = 0xFFFF_FFFF if row.length == 4 else 0xFFFF
    words = (row.match | bits & ~row.mask & full for bits in operands)
    return [word for word in words if matches(profile(isa), word) is row]
