# SPDX-License-Identifier: GPL-2.0-or-later
"""Every encoding: a word outside a profile traps as illegal with itself in mtval, a word inside it does not.

All 65536 compressed words, and 32-bit words over every opcode and function field, are executed one by one, for each
profile; a sample is executed by the engine too, and must leave what the stepper leaves.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from machines import MSTATUS_FS, Run, assemble, boot, encode, little, words_of

from vmrec.isa.instructions import Instruction
from vmrec.isa.profiles import PROFILES, Profile, matches, profile
from vmrec.isa.registers import csr_exists
from vmrec.machine.board import RAM_BASE, RAM_SIZE_MIN
from vmrec.machine.machine import Engine

CODE = 0x1000
HANDLER = 0x4000
DATA = 0x8000
#: Opcodes (bits 6..2) whose instructions are told apart by funct7 and rs2 as well: OP, OP-32, shifts, A, F.
DETAILED = (0b01100, 0b01110, 0b00100, 0b00110, 0b01011, 0b10100, 0b10000, 0b10001, 0b10010, 0b10011)
SYSTEM = 0b11100
SLOT = 12
AUTO, ENGINE, STEPPER = 0, 1, 2
LOOP = encode("jal", 0)


def words_of_four_bytes(rng: random.Random) -> Iterator[int]:
    for opcode in range(32):
        for funct3 in range(8):
            base = funct3 << 12 | opcode << 2 | 3
            if opcode == SYSTEM:
                for number in range(4096):
                    yield number << 20 | rng.choice((0, 0, rng.getrandbits(5))) << 15 | rng.choice((0, 5)) << 7 | base
                continue
            for funct7 in range(128):
                for rs2 in (0, 1, 2, 3, rng.getrandbits(5)) if opcode in DETAILED else (rng.getrandbits(5),):
                    yield funct7 << 25 | rs2 << 20 | rng.getrandbits(5) << 15 | rng.getrandbits(5) << 7 | base


def illegal(guest: Profile, row: Instruction | None, word: int, *, frm: int = 0, float_on: bool = True) -> bool:
    """Whether executing `word` traps with cause 2, by the manual."""
    if row is None:
        return True
    if row.extensions & {"F", "D"} and not float_on:
        return True
    if row.format in ("R4", "R-rm", "R1-rm"):
        rounding = word >> 12 & 7
        return (frm if rounding == 7 else rounding) > 4
    if row.format in ("CSR", "CSRI"):
        number, field = word >> 20, word >> 15 & 31
        writes = row.name.startswith("csrrw") or field != 0
        if number < 4 and not float_on:
            return True
        return not csr_exists(number, guest.xlen, guest.extensions) or (writes and number >> 10 == 3)
    return False


class Bench:
    """A machine in which words are executed one after the other, each with the same registers.

    Behind each word, in the handler and wherever else a word can lead, the hart loops in place.
    """

    def __init__(self, isa: str, **hart: int) -> None:
        self.guest = profile(isa)
        self.loop = little(0xA001) * 2 if "C" in self.guest.extensions else little(LOOP)
        hart.setdefault("mstatus", 0x1800 | (MSTATUS_FS if "F" in self.guest.extensions else 0))
        registers = dict.fromkeys(range(1, 32), RAM_BASE + DATA)
        self.machine = boot(self.loop * (RAM_SIZE_MIN // 4), isa, x=registers, mtvec=RAM_BASE + HANDLER, **hart)
        self.lib, self.vm, self.ffi = self.machine.native
        self.hart = self.ffi.addressof(self.vm, "hart")
        self.saved = bytes(self.ffi.buffer(self.hart))

    def place(self, words: list[int]) -> None:
        """Puts words and their loops at every SLOT bytes from CODE on."""
        self.machine._load(CODE, b"".join((little(word) + self.loop).ljust(SLOT, b"\0") for word in words))

    def traps(self, index: int, mode: int) -> bool:
        """Executes the word placed at `index`, and one step of a loop; whether the word trapped."""
        vm = self.vm
        self.ffi.memmove(self.hart, self.saved, len(self.saved))
        vm.time.waiting = 0
        pc = vm.hart.pc = RAM_BASE + CODE + SLOT * index
        position, traps = vm.time.position, vm.time.traps
        steps = 1 if mode == STEPPER else 2 if mode == ENGINE else 600
        exit_ = self.lib.vm_run(vm, position + steps, mode)
        assert exit_ == (2 if vm.time.stopped else 0)
        vm.time.stopped = 0
        return vm.time.traps != traps and vm.hart.mepc == pc


def disagreements(bench: Bench, words: list[int], mode: int, **rules: Any) -> list[str]:
    found = []
    per_round = (HANDLER - CODE) // SLOT
    for at in range(0, len(words), per_round):
        part = words[at : at + per_round]
        bench.place(part)
        for index, word in enumerate(part):
            row = matches(bench.guest, word)
            trapped, hart = bench.traps(index, mode), bench.vm.hart
            expected = illegal(bench.guest, row, word, **rules)
            tval = word if word & 3 == 3 else word & 0xFFFF
            if (trapped and hart.mcause == 2) != expected or (expected and hart.mtval != tval):
                name = row.name if row else "illegal"
                found.append(f"{word:#010x} {name}: trapped {trapped}, {hart.mcause} {hart.mtval:#x}")
    return found


@pytest.mark.parametrize("isa", PROFILES)
def test_every_word_of_two_bytes(isa: str) -> None:
    assert disagreements(Bench(isa), [word for word in range(1 << 16) if word & 3 != 3], STEPPER) == []


@pytest.mark.parametrize("isa", PROFILES)
def test_words_of_four_bytes_over_all_fields(isa: str) -> None:
    assert disagreements(Bench(isa), list(words_of_four_bytes(random.Random(isa))), STEPPER) == []


@pytest.mark.parametrize("isa", PROFILES)
@pytest.mark.parametrize("mode", [AUTO, ENGINE], ids=["auto", "engine"])
def test_the_other_executors_agree_on_what_is_illegal(isa: str, mode: int) -> None:
    rng = random.Random(isa)
    words = rng.sample(list(words_of_four_bytes(rng)), 3000) + [rng.getrandbits(16) & ~2 for _ in range(3000)]
    assert disagreements(Bench(isa), words, mode) == []


def float_words(isa: str, count: int) -> list[int]:
    rng = random.Random(isa)
    rows = [row for row in profile(isa).instructions if row.extensions & {"F", "D"} or row.format in ("CSR", "CSRI")]
    return [word for row in rows for word in words_of(row, isa, (rng.getrandbits(32) for _ in range(count)))]


@pytest.mark.parametrize("isa", ["rv32gc", "rv64gc"])
@pytest.mark.parametrize("mode", [ENGINE, STEPPER], ids=["engine", "stepper"])
def test_without_fs_floating_point_is_illegal(isa: str, mode: int) -> None:
    assert disagreements(Bench(isa, mstatus=0x1800), float_words(isa, 40), mode, float_on=False) == []


@pytest.mark.parametrize("isa", ["rv32gc", "rv64gc"])
@pytest.mark.parametrize("mode", [ENGINE, STEPPER], ids=["engine", "stepper"])
@pytest.mark.parametrize("frm", range(8))
def test_reserved_rounding_modes_are_illegal(isa: str, mode: int, frm: int) -> None:
    assert disagreements(Bench(isa, frm=frm), float_words(isa, 8), mode, frm=frm) == []


# ------------------------------------------------------------------------------------ all that an instruction leaves


def interesting(rng: random.Random, bits: int) -> int:
    top = 1 << bits - 1
    edges = (0, 1, 2, 31, 32, 63, top, top - 1, 2 * top - 1, 0x8000_0000, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 52)
    return rng.choice((rng.choice(edges), rng.getrandbits(bits), rng.getrandbits(8))) % (1 << bits)


def float_bits(rng: random.Random) -> int:
    single = rng.choice(
        (0, 1 << 31, 0x3F80_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x7F80_0001, 1, rng.getrandbits(32))
    )
    double = rng.choice(
        (0, 1 << 63, 0x3FF0 << 48, 0x7FF0 << 48, 0x7FF8 << 48, 0x7FF0 << 48 | 1, 1, rng.getrandbits(64))
    )
    return rng.choice((0xFFFF_FFFF << 32 | single, double))


def lived(run: Run, word: int, hart: dict[str, Any], engine: Engine) -> tuple[dict[str, Any], bytes]:
    """Everything after `word`, and then a loop in place, have run for 600 steps: long enough for the engine."""
    machine = run.machine
    state = machine.state()
    state["hart"].update(hart, pc=RAM_BASE + CODE)
    state["time"].update(position=0, traps=0, idle=0, waiting=0, stopped=0)
    machine._load(CODE, little(word) + little(LOOP) * 2)
    machine._load(DATA, DATA_BYTES)
    machine.set_state(state)
    run.to(600, engine)
    return machine.state(), machine.read_memory(RAM_BASE, RAM_SIZE_MIN)


DATA_BYTES = random.Random("data").randbytes(0x2000)


def sample(isa: str, rng: random.Random) -> Iterator[int]:
    for row in profile(isa).instructions:
        yield from words_of(row, isa, (rng.getrandbits(32) for _ in range(6)))
    for _ in range(150):
        yield rng.getrandbits(32) | 3
        yield rng.getrandbits(16)


@pytest.mark.parametrize("isa", PROFILES)
def test_an_instruction_leaves_the_same_on_every_executor(isa: str) -> None:
    rng = random.Random(isa)
    xlen, floats = profile(isa).xlen, "F" in profile(isa).extensions
    code = bytes(HANDLER) + assemble(LOOP)
    runs = {engine: Run(boot(code, isa)) for engine in ("stepper", "engine", "auto")}
    mask = (1 << xlen) - 1
    for word in sample(isa, rng):
        x = [0, *(interesting(rng, xlen) for _ in range(31))]
        for number in rng.sample(range(1, 32), 16):
            x[number] = RAM_BASE + DATA + 0x1000 + rng.choice((0, 0, 0, 8, 4, 1, 0xFFE)) & mask
        hart = {
            "x": x,
            "f": [float_bits(rng) for _ in range(32)] if floats else [0] * 32,
            "mstatus": 0x1800 | (rng.choice((1, 2, 3)) << 13 if floats else 0),
            "frm": rng.randrange(5) if floats else 0,
            "fflags": rng.choice((0, 0, rng.getrandbits(5))) if floats else 0,
            "mtvec": RAM_BASE + HANDLER,
            "mepc": RAM_BASE + HANDLER,
            "reservation": rng.choice((2**64 - 1, RAM_BASE + DATA + 0x1000)),
        }
        hart["reserved_value"] = 0 if hart["reservation"] == 2**64 - 1 else DATA_WORD
        looks = {engine: lived(run, word, hart, engine) for engine, run in runs.items()}  # type: ignore[arg-type]
        for engine in ("engine", "auto"):
            assert looks[engine] == looks["stepper"], f"{engine}: {word:#x} {matches(profile(isa), word)}"


DATA_WORD = int.from_bytes(DATA_BYTES[0x1000:0x1004], "little", signed=True) & 0x7FFF_FFFF
