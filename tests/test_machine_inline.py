# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks that count without a call (native/inline_x86.c): the same runs as with a call for each, at every position."""

from __future__ import annotations

import platform
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from machines import Run, assemble, encode, guest, image, same, shipped
from supervisors import entry, open_to_all, satp_of
from unicorn.unicorn_py3.unicorn import uclib

from vmrec.machine import cpu
from vmrec.machine import machine as machine_module
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, MachineConfig
from vmrec.machine.cpu import open_core, open_engine
from vmrec.machine.machine import Engine, Exit, Machine
from vmrec.machine.pointlog import BreakPoint, PointLog

FOREVER = 10**9
FOREIGN = sys.platform == "win32" or platform.machine().lower() not in ("x86_64", "amd64")
only_here = pytest.mark.skipif(FOREIGN, reason="only x86-64 hosts with the System V calls have rewritten blocks")
GUESTS = ("hello", "sort", "timer", "dice", "traps", "smc", "mixed", "counters", "race", "lrsc64", "fp", "loop-smc")
UART = 0x1000_0000
RAM_PAGES = {"root": 1, "middle": 2, "leaves": 3}


def booted(code: bytes, *, inline: bool = True, ram_size: int = 1 << 20, isa: str = "rv64gc", **hart: int) -> Machine:
    """A machine about to execute the first instruction of `code`."""
    machine = Machine(MachineConfig(isa=isa, ram_size=ram_size), guest(code, isa), inline=inline)
    state = machine.state()
    state["hart"].update(hart, pc=RAM_BASE)
    machine.set_state(state)
    return machine


def run_of(name: str, *, inline: bool) -> Run:
    elf = shipped(name)
    return Run(Machine(MachineConfig(isa=elf.isa, ram_size=1 << 20), elf, inline=inline))


def inlined(machine: Machine) -> int:
    return machine.statistics["inlined_blocks"]


def finished(name: str, cuts: int | None, *, inline: bool, engine: Engine = "engine") -> tuple[int, bytes, bytes]:
    """Where a guest ends; `cuts`: the seed of the positions at which its run is cut."""
    run = run_of(name, inline=inline)
    rng = random.Random(cuts)
    while run.to(FOREVER if cuts is None else run.machine.position + rng.choice((7, 500, 60_000)), engine) is not (
        Exit.STOPPED
    ):
        pass
    assert (inlined(run.machine) > 0) == (inline and not FOREIGN) or engine == "auto"
    result = run.machine.position, run.outputs, run.machine.digest().value
    run.close()
    return result


@pytest.mark.parametrize("name", GUESTS)
def test_a_guest_runs_the_same_with_a_call_for_each_block(name: str) -> None:
    expected = finished(name, None, inline=False)
    assert finished(name, None, inline=True) == expected
    assert finished(name, 1, inline=True) == expected
    assert finished(name, 2, inline=False) == expected
    assert finished(name, None, inline=True, engine="auto") == expected


@pytest.mark.parametrize("inline", [True, False])
def test_nobody_asks_behind_loads_and_stores_whether_to_stop(inline: bool) -> None:
    """The checks of heads stay: a run that is cut would else go on."""
    words = [encode("ld", 5, 6), encode("ld", 7, 6, imm=8), encode("sd", 0, 6, 7, 16)] * 10
    code = assemble(*words, encode("jal", imm=-4 * len(words)))
    with booted(code, inline=inline) as machine:
        state = machine.state()
        state["hart"]["x"][6] = RAM_BASE + 0x8000
        machine.set_state(state)
        machine.run(10_000, engine="engine")
        assert (machine.statistics["dropped_checks"] >= 30) == (inline and not FOREIGN)


# ------------------------------------------------------------------------------------------ inside and between blocks


def wandering(blocks: int) -> bytes:
    """Short blocks, each of which goes on to the next; the last goes back to the first for ever."""
    parts = []
    for i in range(blocks):
        away = 8 if i < blocks - 1 else -8 * (blocks - 1) - 4
        parts += [encode("addi", 5, 5, imm=i % 2000), encode("jal", imm=4 if i < blocks - 1 else away)]
    return assemble(*parts)


#: x6: the UART, x7: memory, x11: what x7 grows by. Loads from a device and stores to a page that becomes writable only
#: then, both in the middle of their blocks; a block that only some rounds reach; jumps that are taken and not.
FAULTING = assemble(
    encode("addi", 5, 5, imm=1),
    encode("lbu", 8, 6, imm=5),  # line status
    encode("addi", 9, 9, imm=3),
    encode("sd", rs1=7, rs2=9, imm=8),
    encode("add", 10, 10, 8),
    encode("add", 7, 7, 11),
    encode("andi", 12, 5, imm=7),
    encode("bne", rs1=12, imm=8),
    encode("addi", 10, 10, imm=5),
    encode("addi", 5, 5, imm=1),
    encode("sd", rs1=7, rs2=10, imm=16),
    encode("jal", imm=-44),
)


@pytest.mark.parametrize("step", [0, 16, PAGE_SIZE])
def test_a_fault_in_the_middle_of_a_block_is_where_the_stepper_has_it(step: int) -> None:
    state_of = {}
    rng = random.Random(step)
    cuts = sorted({rng.randrange(1, 2300) for _ in range(60)})
    for engine, inline in (("stepper", True), ("engine", True), ("engine", False), ("auto", True)):
        with booted(FAULTING, inline=inline) as machine:
            state = machine.state()
            state["hart"]["x"][6], state["hart"]["x"][7], state["hart"]["x"][11] = UART, RAM_BASE + 0x8000, step
            machine.set_state(state)
            for cut in cuts:
                assert machine.run(cut, engine=engine) is Exit.POSITION
                assert machine.position == cut
                look = machine.state(), machine.read_memory(RAM_BASE, 1 << 20)
                same(look, state_of.setdefault(cut, look))
            assert (inlined(machine) > 0) == (engine != "stepper" and inline and not FOREIGN) or engine == "auto"


@pytest.mark.parametrize("window", [0, 0x4000_0000, 0x3F_8000_0000, 2**64 - (1 << 31)])
def test_translated_blocks(window: int) -> None:
    """Where the engine loads the pc as 32 bits, with or without sign, or as 64; faults in the middle of blocks."""
    code = assemble(
        encode("addi", 5, 5, imm=1),
        encode("lbu", 8, 6, imm=5),
        encode("addi", 9, 9, imm=3),
        encode("sd", rs1=7, rs2=9, imm=8),
        encode("jal", imm=-16),
    )
    gigabyte, table = window >> 30 & 511, bytearray(PAGE_SIZE)
    leaves = [0, entry(0, 0xCF), entry(4, 0xCF), UART >> 12 << 10 | 0xCF]
    table[8 * gigabyte : 8 * gigabyte + 8] = entry(RAM_PAGES["middle"], 1).to_bytes(8, "little")
    parts = {
        0: code,
        RAM_PAGES["root"] * PAGE_SIZE: bytes(table),
        RAM_PAGES["middle"] * PAGE_SIZE: entry(RAM_PAGES["leaves"], 1).to_bytes(8, "little"),
        RAM_PAGES["leaves"] * PAGE_SIZE: b"".join(leaf.to_bytes(8, "little") for leaf in leaves),
    }
    state_of: dict[int, Any] = {}
    for engine, inline in (("stepper", True), ("engine", True), ("engine", False), ("auto", True)):
        with booted(image(parts), inline=inline, isa="rv64gcsu") as m:
            state = m.state()
            state["hart"] |= {"pc": window + PAGE_SIZE, "priv": 1}
            for number, page in ((7, 2), (6, 3)):
                state["hart"]["x"][number] = window + page * PAGE_SIZE
            state["supervisor"] |= {"satp": satp_of(64, 3, RAM_PAGES["root"]), **open_to_all(64)}
            m.set_state(state)
            for cut in (1, 2, 3, 4, 5, 6, 17, 98, 1000, 1001, 30_003):
                assert m.run(cut, engine=engine) is Exit.POSITION
                look = m.state(), m.read_memory(RAM_BASE, 1 << 20)
                same(look, state_of.setdefault(cut, look))
            assert m.icount == m.position
            assert (inlined(m) > 0) == (engine != "stepper" and inline and not FOREIGN) or engine == "auto"


def test_a_jump_that_faults_at_the_end_of_a_block() -> None:
    code = assemble(
        encode("addi", 5, 5, imm=1), encode("andi", 6, 5, imm=63), encode("bne", rs1=6, imm=-8),
        encode("addi", 7, 7, imm=1), encode("jal", imm=6),
    )  # fmt: skip
    looks = []
    for engine, inline in (("stepper", False), ("engine", True), ("engine", False)):
        with booted(code, isa="rv32im", inline=inline, mtvec=RAM_BASE) as machine:
            for cut in (194, 195, 196, 197, 5000):
                machine.run(cut, engine=engine)
                looks.append((machine.state(), b""))
    for i in range(5):
        same(looks[5 + i], looks[i])
        same(looks[10 + i], looks[i])


def test_every_place_in_short_blocks_can_be_stopped_at() -> None:
    code = wandering(5)
    with booted(code) as machine, booted(code) as stepped:
        machine.run(5000, engine="engine")
        stepped.run(5000, engine="stepper")
        rng = random.Random(7)
        for _ in range(300):
            to = machine.position + rng.choice((1, 2, 3, 9, 65_535, 65_536, 65_537))
            assert machine.run(to, engine="engine") is Exit.POSITION
            stepped.run(to, engine="stepper")
            assert (machine.position, machine.pc, machine.regs) == (to, stepped.pc, stepped.regs)


# ------------------------------------------------------------------------------------------- code that does not stay


def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine gets so little room for translations that it has to throw them all away again and again."""

    def opened(xlen: int) -> tuple[Any, Any]:
        owner, handle = open_engine(xlen)
        owner.ctl_set_tcg_buffer_size(1 << 20)
        return owner, handle

    monkeypatch.setattr(machine_module, "open_engine", opened)


def test_more_blocks_than_the_engine_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    small_buffer(monkeypatch)
    blocks = 12_000
    code = wandering(blocks)
    with booted(code) as machine, booted(code, inline=False) as called, booted(code) as stepped:
        for position in (1, 3 * blocks + 5, 8 * blocks - 1, 12 * blocks):
            for one, engine in ((machine, "engine"), (called, "engine"), (stepped, "stepper")):
                one.run(position, engine=engine)
                assert (one.position, one.pc, one.regs) == (position, stepped.pc, stepped.regs) or one is not stepped
            assert machine.digest() == called.digest() == stepped.digest()
        if not FOREIGN:
            assert inlined(machine) > 3 * blocks, "blocks are to be translated several times"
        assert inlined(called) == 0


def test_blocks_at_equal_places_of_the_block_table() -> None:
    """The table has 256 KiB of code: these two programs push each other out of it."""
    away = 256 << 10
    code = image({
        0: assemble(
            encode("addi", 5, 5, imm=1), encode("lui", 6, imm=away), encode("add", 6, 6, 8), encode("jalr", 0, 6),
        ),
        away: assemble(
            encode("addi", 7, 7, imm=1), encode("addi", 9, 9, imm=1), encode("lbu", 10, 11, imm=5),
            encode("addi", 9, 9, imm=1), encode("jalr", 0, 8),
        ),
    })  # fmt: skip
    looks: list[list[Any]] = []
    for engine, inline in (("stepper", True), ("engine", True), ("engine", False)):
        with booted(code, inline=inline) as machine:
            state = machine.state()
            state["hart"]["x"][8] = RAM_BASE
            state["hart"]["x"][11] = UART
            machine.set_state(state)
            looks.append([])
            for cut in range(3, 400, 7):
                machine.run(cut, engine=engine)
                looks[-1].append(machine.state())
    assert looks[1] == looks[0]
    assert looks[2] == looks[0]


@pytest.mark.parametrize("inline", [True, False])
def test_code_that_the_host_writes_is_seen_at_once(inline: bool) -> None:
    code = assemble(encode("addi", 5, 5, imm=1), encode("jal", imm=-4))
    with booted(code, inline=inline) as machine:
        machine.run(1000, engine="engine")
        assert machine.regs[5] == 500
        for amount in (2, 3, 4):
            page = bytearray(machine.page(0))
            page[:4] = assemble(encode("addi", 5, 5, imm=amount))
            machine.set_page(0, bytes(page))
            before = machine.regs[5]
            machine.run(machine.position + 1000, engine="engine")
            assert machine.regs[5] == before + 500 * amount


@pytest.mark.parametrize("inline", [True, False])
def test_a_breakpoint_in_code_that_runs_already(inline: bool) -> None:
    code = wandering(6)
    with booted(code, inline=inline) as machine:
        machine.run(10_000, engine="engine")
        for _ in range(3):
            with PointLog(machine, breaks=[BreakPoint(RAM_BASE + 20)]) as log:
                for _ in range(4):
                    assert machine.run(FOREVER, engine="engine") is Exit.POINT
                    assert (machine.pc, machine.position % 12) == (RAM_BASE + 20, 5)
                    (hit,) = log.take()
                    assert hit.position == machine.position
            machine.run(machine.position + 100_000, engine="engine")


# --------------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("inline", [True, False])
def test_attention_at_random_moments_is_never_lost(inline: bool) -> None:
    """Each call ends a run that would not end by itself, and the run goes on as if there had been none."""
    code = wandering(7)
    rng = random.Random(3)
    with booted(code, inline=inline) as machine, booted(code, inline=inline) as plain:
        for _ in range(150):
            timer = threading.Timer(rng.random() * 0.004, machine.set_attention)
            timer.start()
            assert machine.run(1 << 60, engine="engine") is Exit.ATTENTION
            timer.join()
        end = machine.position + 1
        machine.run(end, engine="engine")
        plain.run(end, engine="engine")
        assert machine.digest() == plain.digest()


# ----------------------------------------------------------------------------------------------- where it is not used


@only_here
def test_machines_whose_engines_are_far_from_the_extension() -> None:
    """Each engine reserves a gigabyte for translations, so the calls of later ones do not reach by a direct call."""
    code = wandering(5)
    machines = [booted(code) for _ in range(6)]
    for machine in machines:
        machine.run(100_000, engine="engine")
        assert inlined(machine) >= 5
    assert len({machine.digest().value for machine in machines}) == 1
    for machine in machines:
        machine.close()


@only_here
def test_long_blocks_are_called_for() -> None:
    code = assemble(*[encode("addi", 5, 5, imm=1)] * 40, encode("jal", imm=-160))
    with booted(code) as machine:
        machine.run(1_000_000, engine="engine")
        assert inlined(machine) == 0
        assert machine.regs[5] == 1_000_000 // 41 * 40 + 1_000_000 % 41


@pytest.fixture
def other_check() -> Iterator[None]:
    """The engine's translations call another function than the one that the core was told of."""
    lib, ffi = open_core()
    real, other = cpu._addresses(ffi, uclib), cpu._addresses(ffi, uclib)
    other.exit_check_32, other.exit_check_64 = real.exit_check_64, real.exit_check_32
    lib.vm_set_api(other)
    yield
    lib.vm_set_api(real)


@pytest.mark.usefixtures("other_check")
def test_bytes_that_are_not_the_expected_ones_are_left_alone() -> None:
    code = wandering(9)
    with booted(code) as machine, booted(code) as stepped:
        machine.run(200_000, engine="engine")
        stepped.run(200_000, engine="stepper")
        assert inlined(machine) == 0
        assert machine.digest() == stepped.digest()
