# SPDX-License-Identifier: GPL-2.0-or-later
"""Backtraces: equal to the calls that were really made, on guests that run; and bounded on stacks that lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st
from machines import FIXED, GUESTS, Run, shipped
from test_guest_lines import compiled_from, needs_compiler

from vmrec.errors import UsageError
from vmrec.guest.builtin import builtin_names
from vmrec.guest.elf import parse_guest
from vmrec.guest.symbols import Symbols
from vmrec.guest.unwind import Frame, unwind
from vmrec.machine.board import RAM_BASE, MachineConfig
from vmrec.machine.machine import Machine

RA, SP = 1, 2
KEPT = (3, 4, 8, 9, *range(18, 28))


# --------------------------------------------------------------------------------------------------- rules, and the ELF


@pytest.mark.parametrize("name", builtin_names())
def test_rules_are_those_that_pyelftools_reads(name: str) -> None:
    elf = (GUESTS / f"{name}.elf").read_bytes()
    same_rules(elf, eh_frame=False)


def same_rules(elf: bytes, *, eh_frame: bool) -> int:
    """Compares the rules at every address; returns how many there were."""
    symbols = Symbols(elf)
    dwarf = ELFFile(io.BytesIO(elf)).get_dwarf_info()
    entries = dwarf.EH_CFI_entries() if eh_frame else dwarf.CFI_entries() if dwarf.has_CFI() else []
    compared = 0
    for entry in entries:
        if not isinstance(entry, FDE) or entry["initial_location"] < RAM_BASE:
            continue
        table, start = entry.get_decoded().table, entry["initial_location"]
        for address in range(start, start + entry["address_range"], 2):
            expected = [row for row in table if row["pc"] <= address][-1]
            rules = symbols.frames.rules(address)
            assert rules is not None
            assert (rules.cfa_register, rules.cfa_offset) == (expected["cfa"].reg, expected["cfa"].offset)
            saved = {number: rule.arg for number, rule in expected.items() if isinstance(number, int)}
            assert {number: rule.value for number, rule in rules.registers.items()} == saved
            assert {rule.kind for rule in rules.registers.values()} <= {"saved"}
            compared += 1
    return compared


# ----------------------------------------------------------------------------------------------- guests that really run


class Call(NamedTuple):
    """A call that has not returned: where it goes on, and the registers that must then be as they were."""

    back: int
    sp: int
    kept: tuple[int, ...]


def is_call(word: int, xlen: int = 32) -> bool:
    """jal ra, jalr ra, c.jalr, and c.jal, which is another instruction under RV64."""
    compressed = (word & 0xF07F == 0x9002 and word & 0xF80 != 0) or (xlen == 32 and word & 0xE003 == 0x2001)
    return word & 0xFFF in (0x0EF, 0x0E7) or compressed


def is_return(word: int) -> bool:
    return word == 0x0000_8067 or word & 0xFFFF == 0x8082


def walk(run: Run, steps: int, calls: list[Call]) -> Iterator[list[Call]]:
    """Steps through a guest without interrupts and yields, before each step, the calls that wait, innermost first."""
    machine = run.machine
    for _ in range(steps):
        yield calls[::-1]
        pc, regs = machine.pc, machine.regs
        word = int.from_bytes(machine.read_memory(pc, 4), "little")
        run.to(machine.position + 1)
        if machine.stopped:
            return
        if is_call(word, machine.config.profile.xlen):
            calls.append(Call(pc + (4 if word & 3 == 3 else 2), regs[SP], tuple(regs[n] for n in KEPT)))
        elif is_return(word):
            calls.pop()


def check(frames: list[Frame], calls: list[Call]) -> None:
    assert [frame.pc for frame in frames[1:]] == [call.back for call in calls]
    for inner, outer, call in zip(frames, frames[1:], calls, strict=False):
        assert inner.cfa == outer.registers[SP] == call.sp
        assert outer.registers[RA] == call.back
        assert tuple(outer.registers[n] for n in KEPT) == call.kept
        assert outer.function is not None


def backtrace(symbols: Symbols, machine: Machine) -> list[Frame]:
    return unwind(
        symbols, machine.pc, machine.regs, machine.read_memory, interrupted_pc=machine.csrs["mepc"]
    )


def names(frames: list[Frame]) -> list[str | None]:
    return [None if frame.function is None else frame.function.name for frame in frames]


def arrive(run: Run, address: int, start: int) -> None:
    """Runs to `start`, then on to the next time that the instruction at `address` is about to execute."""
    run.to(start)
    while run.machine.pc != address:
        assert not run.machine.stopped
        run.to(run.machine.position + 1)


@pytest.mark.parametrize("name", ["hello", "fp"])
def test_the_frames_are_the_calls_that_were_made(name: str) -> None:
    """At every step, also in the midst of prologues and epilogues: callers, their sp, and what they keep."""
    symbols, run, depths = Symbols(shipped(name).data), Run.of(name), set()
    for calls in walk(run, 2500, []):
        if symbols.frames.rules(run.machine.pc) is not None:
            frames = backtrace(symbols, run.machine)
            check(frames, calls)
            depths.add(len(frames))
    run.close()
    assert depths >= {2, 3, 4}


def test_the_frames_of_a_recursion_are_the_calls_that_were_made() -> None:
    symbols, run = Symbols(shipped("sort").data), Run.of("sort")
    arrive(run, symbols.resolve("quick_sort"), 1_258_000)
    frames = backtrace(symbols, run.machine)
    assert names(frames) == ["quick_sort", "main", "_start"]
    outer = [(frame.pc, frame.registers) for frame in frames[:0:-1]]
    calls = [Call(pc, regs[SP] or 0, tuple(regs[n] or 0 for n in KEPT)) for pc, regs in outer]
    deepest: list[Frame] = []
    for position, now in enumerate(walk(run, 15_000, calls)):
        if position % 5 == 0:
            frames = backtrace(symbols, run.machine)
            check(frames, now)
            deepest = max(deepest, frames, key=len)
    run.close()
    assert len(deepest) >= 6
    assert names(deepest)[-3:] == ["quick_sort", "main", "_start"]


def test_a_handler_in_c_leads_back_to_what_it_interrupted() -> None:
    symbols, run = Symbols(shipped("traps").data), Run.of("traps")
    arrive(run, symbols.resolve("on_trap"), 0)
    before, kept = run.machine.csrs["mepc"], run.machine.regs
    expected = names(unwind(symbols, before, kept, run.machine.read_memory))
    assert len(expected) > 1
    steps = 0
    while run.machine.csrs["mepc"] == before:  # until the handler chooses where to go on
        steps += 1
        frames = backtrace(symbols, run.machine)
        assert names(frames)[-len(expected) :] == expected
        place = len(frames) - len(expected)
        assert frames[place].pc == frames[place].site == before
        assert frames[place].found == "interrupted"
        assert frames[place].registers[1:] == tuple(kept[1:])
        assert names(frames)[place - 1] == "on_trap"
        # Without knowing where the trap came from, the handler is the outermost frame, and nothing is made up.
        assert names(unwind(symbols, run.machine.pc, run.machine.regs, run.machine.read_memory))[-1] == "on_trap"
        run.to(run.machine.position + 1)
    run.close()
    assert steps > 30


# ------------------------------------------------------------------------------------------ without frame information

CALLS = {
    "src/main.c": """
volatile int seen;
__attribute__((noinline)) int leaf(int x) { return x + seen; }
__attribute__((noinline)) int middle(int x) { seen = leaf(x) + 1; return seen; }
__attribute__((noinline)) int outer(int x) { seen = middle(x + 1) + middle(x); return seen; }
__attribute__((noreturn)) void body(void) { outer(1); outer(2); for (;;) ; }
__asm__(".globl _start; .type _start,@function; _start: la sp, stack+4096; li s0, 0; call body; .size _start,.-_start");
char stack[4096] __attribute__((aligned(16)));
"""
}


def program(place: Path, xlen: int, *flags: str) -> tuple[Symbols, Run]:
    elf = compiled_from(CALLS, place, "-Wl,-e_start", *flags, xlen=xlen)
    guest = parse_guest(elf, "calls")
    return Symbols(elf), Run(Machine(MachineConfig(isa=guest.isa, ram_size=1 << 20), guest))


@pytest.mark.compiler
@needs_compiler
@pytest.mark.parametrize("xlen", [32, 64])
def test_exception_frames_are_as_good_as_debug_frames(tmp_path: Path, xlen: int) -> None:
    symbols, run = program(tmp_path, xlen, "-fasynchronous-unwind-tables", "-g0")
    assert symbols.sections.content(".debug_frame") == b""
    assert same_rules((tmp_path / "guest.elf").read_bytes(), eh_frame=True) > 20
    depths = set()
    for calls in walk(run, 120, []):
        if symbols.frames.rules(run.machine.pc) is not None:
            frames = backtrace(symbols, run.machine)
            check(frames, calls)
            depths.add(len(frames))
    run.close()
    assert depths >= {2, 3, 4, 5}


@pytest.mark.compiler
@needs_compiler
@pytest.mark.parametrize("xlen", [32, 64])
def test_frame_pointers_do_where_there_is_nothing_else(tmp_path: Path, xlen: int) -> None:
    symbols, run = program(tmp_path, xlen, "-g0", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables")
    arrive(run, symbols.resolve("leaf"), 0)
    expected = ["leaf", "middle", "outer", "body", "_start"]
    assert names(backtrace(symbols, run.machine)) == expected  # at its first instruction, where s0 is the caller's
    found = 0
    for calls in walk(run, 6, [Call(0, 0, ())] * 4):
        if len(calls) == 4 and not is_return(int.from_bytes(run.machine.read_memory(run.machine.pc, 4), "little")):
            found += names(backtrace(symbols, run.machine)) == expected
    run.close()
    assert found >= 3


# ------------------------------------------------------------------------------------------------------ stacks that lie


def unwound(read: bytes | None, pc: int, registers: list[int], name: str = "sort") -> list[Frame]:
    def memory(address: int, size: int) -> bytes:
        if read is None or not 0 <= address - RAM_BASE <= len(read) - size:
            raise UsageError("no memory there")
        return read[address - RAM_BASE : address - RAM_BASE + size]

    return unwind(Symbols(shipped(name).data), pc, registers, memory)


def memory_of(name: str) -> bytes:
    with Run.of(name).machine as machine:
        return machine.read_memory(RAM_BASE, machine.config.ram_size)


SORT = Symbols(shipped("sort").data)
IMAGE = memory_of("sort")


def test_a_jump_into_nowhere_still_shows_who_jumped() -> None:
    after_call = SORT.resolve("main") + 0x10
    frames = unwound(IMAGE, 0xDEAD_BEE0, [0, after_call, RAM_BASE + 0x8000, *[0] * 29])
    assert [frame.pc for frame in frames[:2]] == [0xDEAD_BEE0, after_call]
    assert names(frames)[:2] == [None, "main"]
    assert frames[1].site == after_call - 1


def test_without_memory_there_is_one_frame() -> None:
    start = SORT.resolve("quick_sort") + 0x40
    assert len(unwound(None, start, [RAM_BASE] * 32)) == 1
    assert len(unwound(None, 0, [0] * 32)) == 1


def test_an_endless_stack_has_a_bounded_number_of_frames() -> None:
    """A stack full of return addresses into a recursive function."""
    function = SORT.function(SORT.resolve("quick_sort"))
    assert function is not None
    back = next(
        address
        for address in range(function.start + 4, function.end, 4)
        if is_call(int.from_bytes(IMAGE[address - 4 - RAM_BASE : address - RAM_BASE], "little"))
    )
    memory = bytearray(IMAGE)
    for place in range(0x10000, len(memory), 4):
        memory[place : place + 4] = struct.pack("<I", back)
    registers = [0, back, RAM_BASE + 0x10000, *[0] * 29]
    frames = unwound(bytes(memory), back, registers)
    assert len(frames) == 256
    ends = [frame.cfa for frame in frames if frame.cfa is not None]
    assert ends == sorted(set(ends))
    assert {frame.pc for frame in frames} == {back}


@FIXED
@given(
    st.integers(RAM_BASE - 8, RAM_BASE + 0x900) | st.integers(0, 2**32 - 1),
    st.lists(st.integers(RAM_BASE, RAM_BASE + 0x2000) | st.integers(0, 2**32 - 1), min_size=32, max_size=32),
    st.lists(st.integers(RAM_BASE, RAM_BASE + 0x900).map(lambda n: n & ~1), min_size=1, max_size=64),
)
def test_whatever_is_on_the_stack_the_frames_go_up_and_end(pc: int, registers: list[int], stack: list[int]) -> None:
    memory = bytearray(IMAGE)
    filling = struct.pack(f"<{len(stack)}I", *stack)
    memory[0x1000:0x3000] = (filling * 0x2000)[:0x2000]
    frames = unwound(bytes(memory), pc, [0, *registers[1:]])
    assert 1 <= len(frames) <= 256
    ends = [frame.cfa for frame in frames if frame.cfa is not None]
    assert ends == sorted(ends)
    assert all(SORT.sections.is_code(frame.site) for frame in frames[1:])
