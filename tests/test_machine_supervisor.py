# SPDX-License-Identifier: GPL-2.0-or-later
"""Supervisor and user mode: engine = stepper = the model of isa/privileged.py, whatever the tables hold."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import ENGINES, FIXED, Run, assemble, csr, encode, image, little, same
from supervisors import (
    CODE,
    DATA,
    HANDLER,
    PAGES,
    TABLES,
    change,
    entry,
    hart_of,
    open_to_all,
    page_at,
    random_address,
    random_machine,
    satp_of,
)

from vmrec.errors import UsageError
from vmrec.isa.privileged import Access, Fault, Hart, Reached, interrupt, translate, trap
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN
from vmrec.machine.machine import Machine
from vmrec.replay.timeline import MachineState

XLENS = (32, 64)
WINDOW = 0x4000_0000
ACCESSES: tuple[Access, ...] = ("load", "store", "fetch")
SEEDS = st.integers(0, 2**32 - 1)


def reader(memory: bytes) -> Any:
    def read(address: int, size: int) -> int | None:
        offset = address - RAM_BASE
        return int.from_bytes(memory[offset : offset + size], "little") if 0 <= offset < RAM_SIZE_MIN else None

    return read


def memory_of(machine: Machine) -> bytes:
    return machine.read_memory(RAM_BASE, RAM_SIZE_MIN)


# ------------------------------------------------------------------------------------------------------------ walking


@pytest.mark.parametrize("xlen", XLENS)
def test_addresses_lead_where_the_model_says(xlen: int) -> None:
    @settings(FIXED, max_examples=150)
    @given(seed=SEEDS)
    def check(seed: int) -> None:
        rng = random.Random(seed)
        machine, levels = random_machine(rng, xlen, {})
        lib, vm, ffi = machine.native
        hart, memory, found = hart_of(machine), memory_of(machine), ffi.new("uint64_t *")
        for _ in range(40):
            address = random_address(rng, xlen, levels)
            for number, access in enumerate(ACCESSES):
                expected = translate(hart, address, access, reader(memory))
                fault = lib.vm_translate(vm, address, number, -1, found)
                if isinstance(expected, Fault):
                    assert fault == expected.cause, (hex(address), access)
                else:
                    assert (fault, found[0]) == (0, expected.physical), (hex(address), access)
        assert memory_of(machine) == memory
        machine.close()

    check()


# ------------------------------------------------------------------------------------------------- one step at a time


def after(hart: Hart, memory: bytes, word: int, address: int, xlen: int) -> tuple[Hart, bytes, int | None]:
    """The model's hart and RAM behind one load or store of a word at an aligned address; and what was loaded."""
    result = translate(hart, hart.pc, "fetch", reader(memory))
    value = hart.pc
    access: Access = "store" if word & 0x7F == 0x23 else "load"
    if isinstance(result, Reached):
        memory = stored(memory, result.entry, xlen)
        if not in_ram(result.physical):
            return trap(hart, 1, value), memory, None
        value = address
        if memory[result.physical - RAM_BASE :][:4] != little(word):
            return hart, memory, -1  # some other instruction: not what is asked here
        result = translate(hart, address, access, reader(memory))
    if isinstance(result, Fault):
        return trap(hart, result.cause, value), memory, None
    memory = stored(memory, result.entry, xlen)
    if not in_ram(result.physical):
        return hart, memory, -1  # a device, or nothing: other tests
    offset = result.physical - RAM_BASE
    moved = replace(hart, pc=hart.pc + 4)
    if access == "store":
        return moved, memory[:offset] + b"\xa5\x5a\xc3\x3c" + memory[offset + 4 :], None
    return moved, memory, int.from_bytes(memory[offset : offset + 4], "little")


def in_ram(physical: int) -> bool:
    return RAM_BASE <= physical < RAM_BASE + RAM_SIZE_MIN


def stored(memory: bytes, change_: tuple[int, int] | None, xlen: int) -> bytes:
    if change_ is None:
        return memory
    offset, size = change_[0] - RAM_BASE, xlen // 8
    return memory[:offset] + change_[1].to_bytes(size, "little") + memory[offset + size :]


def leading(machine: Machine, levels: int, rng: random.Random, access: Access, places: range) -> int:
    """An aligned address; in three cases of four one that leads to these places, if there is such."""
    hart, memory = hart_of(machine), memory_of(machine)
    address = random_address(rng, hart.xlen, levels) & ~3
    for _ in range(300 if rng.randrange(4) else 0):
        found = translate(hart, address, access, reader(memory))
        if isinstance(found, Reached) and found.physical in places:
            break
        address = random_address(rng, hart.xlen, levels) & ~3
    return address


@pytest.mark.parametrize("xlen", XLENS)
def test_a_step_does_what_the_model_says(xlen: int) -> None:
    seen = {"trap": 0, "done": 0}

    @settings(FIXED, max_examples=400)
    @given(seed=SEEDS)
    def check(seed: int) -> None:
        rng = random.Random(seed)
        word = rng.choice((encode("lw", 5, 6), encode("sw", rs1=6, rs2=7)))
        machine, levels = random_machine(rng, xlen, {CODE: little(word) * (PAGE_SIZE // 4)})
        pick = partial(leading, machine, levels, rng)
        address = pick("load", range(RAM_BASE, page_at(PAGES)))
        state = machine.state()
        state["hart"]["pc"] = pick("fetch", range(RAM_BASE, page_at(CODE + 1)))
        state["hart"]["x"][6], state["hart"]["x"][7], state["hart"]["x"][5] = address, 0x3CC35AA5, 0x77
        machine.set_state(state)
        hart, memory, loaded = after(hart_of(machine), memory_of(machine), word, address, xlen)
        if loaded != -1:
            assert machine.run(1, engine="stepper").name in ("POSITION", "STOPPED")
            assert hart_of(machine) == hart
            assert memory_of(machine) == memory
            if loaded is not None:
                sign = (loaded ^ 1 << 31) - (1 << 31)
                assert machine.regs[5] == sign % (1 << xlen)
            seen["trap" if machine.position != machine.icount else "done"] += 1
        machine.close()

    check()
    assert min(seen.values()) > 40, seen


@settings(FIXED, max_examples=200)
@given(seed=SEEDS, mie=st.integers(0, 0xFFF), soft=st.integers(0, 0xFFF))
def test_interrupts_are_taken_by_whom_the_model_says(seed: int, mie: int, soft: int) -> None:
    rng = random.Random(seed)
    machine, _ = random_machine(rng, 64, {})
    change(machine, mie=mie & 0xAAA, soft_mip=soft & 0x222, pc=RAM_BASE)
    state = machine.state()
    state["clint"]["msip"], state["clint"]["mtimecmp"] = rng.randrange(2), rng.choice((0, 2**64 - 1))
    state["hart"]["mtvec"] |= rng.randrange(2)
    state["supervisor"]["stvec"] |= rng.randrange(2)
    machine.set_state(state)
    before = hart_of(machine)
    machine.settle()

    assert hart_of(machine) == (interrupt(before) or before)
    machine.close()


# ------------------------------------------------------------------------------------------------ engine and stepper


def skipping_handler() -> bytes:
    """Goes on behind the instruction that trapped; a fetch that faults goes back to the program's start in x31."""
    skip = (csr("csrrs", "mcause", 28), encode("addi", 29, imm=12))
    return assemble(
        *skip,
        encode("beq", rs1=28, rs2=29, imm=32),
        encode("addi", 29, imm=1),
        encode("beq", rs1=28, rs2=29, imm=24),
        csr("csrrs", "mepc", 28), encode("addi", 28, 28, imm=4), csr("csrrw", "mepc", 0, 28), encode("mret"),
        encode("addi"),
        csr("csrrw", "mepc", 0, 31), encode("mret"),
    )  # fmt: skip


def editor(rng: random.Random, xlen: int) -> tuple[bytes, dict[int, int]]:
    """A loop that loads, stores and edits its own page tables, without any sfence.vma; and its registers."""
    load, store = ("lw", "sw") if xlen == 32 else ("ld", "sd")
    body = []
    for _ in range(rng.randrange(6, 30)):
        base, value = rng.randrange(10, 18), rng.randrange(18, 26)
        body.append(
            rng.choice(
                (
                    encode(load, rng.randrange(5, 9), base, imm=rng.randrange(64) * 8, isa=f"rv{xlen}gc"),
                    encode(store, 0, base, rng.randrange(5, 9), rng.randrange(64) * 8, isa=f"rv{xlen}gc"),
                    encode(store, 0, base, value, rng.randrange(16) * 8, isa=f"rv{xlen}gc"),
                    encode("amoadd.w", 5, base, 6),
                    encode("add", 5, 6, 7),
                    encode("bne", rs1=5, rs2=6, imm=8),
                )
            )
        )
    body += [encode("addi", 5, 5, imm=1), encode("addi", 6, 6, imm=3)]
    code = assemble(*body, encode("jal", imm=-4 * len(body)))
    pages = [rng.randrange(PAGES) for _ in range(4)] + [*rng.choices(TABLES, k=3), rng.randrange(PAGES)]
    registers = {10 + i: WINDOW + page * PAGE_SIZE for i, page in enumerate(pages)}
    flags = (0xCF, 0xC7, 0xC3, 0x47, 0x0F, 0xDF, 0x01, 0x00)
    registers |= {18 + i: entry(rng.randrange(PAGES), rng.choice(flags)) for i in range(8)}
    return code, registers


def self_mapped(rng: random.Random, xlen: int) -> dict[int, bytes]:
    """Tables that map all of RAM at 0x4000_0000, themselves included, with random rights in the last level."""
    size = xlen // 8
    last = b"".join(
        entry(page, 1 | rng.choice((0xCE, 0xCE, 0xC6, 0x0E, 0x4E, 0xC2, 0))).to_bytes(size, "little")
        for page in range(PAGES)
    )
    code = entry(CODE, 0xCF).to_bytes(size, "little")
    last = code + last[size:]
    pointer = entry(TABLES[1], 1).to_bytes(size, "little")
    if xlen == 32:
        return {TABLES[0]: bytes(4 * 0x100) + pointer, TABLES[1]: last}
    return {
        TABLES[0]: bytes(8) + pointer,
        TABLES[1]: entry(TABLES[2], 1).to_bytes(8, "little"),
        TABLES[2]: last,
    }


def editing_run(seed: int, xlen: int) -> Run:
    rng = random.Random(seed)
    code, registers = editor(rng, xlen)
    parts = {CODE: code, HANDLER: skipping_handler(), DATA: rng.randbytes(PAGE_SIZE), **self_mapped(rng, xlen)}
    memory = image({page * PAGE_SIZE: part for page, part in parts.items()})
    machine, _ = random_machine(rng, xlen, {0: memory})
    state = machine.state()
    state["hart"]["pc"] = state["hart"]["x"][31] = 0x4000_0000
    state["hart"]["priv"], state["hart"]["mstatus"] = 1, rng.choice((0, 1 << 19))
    state["supervisor"] |= {"medeleg": 0, "satp": satp_of(xlen, 2 if xlen == 32 else 3), **open_to_all(xlen)}
    for number, value in registers.items():
        state["hart"]["x"][number] = value
    machine.set_state(state)
    return Run(machine)


STEPS = 4000
#: So many steps, by whom, and whether the run goes on in another machine.
CUTS = st.tuples(st.integers(1, 700), st.sampled_from(ENGINES), st.booleans())


@pytest.mark.parametrize("xlen", XLENS)
def test_edits_of_live_page_tables_are_the_same_for_all(xlen: int) -> None:
    """No sfence.vma anywhere: what is kept of translations must not show, with any executor and any cuts."""

    @settings(FIXED, max_examples=60)
    @given(seed=SEEDS, cuts=st.lists(CUTS, max_size=8))
    def check(seed: int, cuts: list[tuple[int, Any, bool]]) -> None:
        reference = editing_run(seed, xlen)
        reference.to(STEPS, "stepper")
        for engine in ENGINES:
            run = editing_run(seed, xlen)
            run.to(STEPS, engine)
            same(run.look(), reference.look())
            run.close()
        run, position = editing_run(seed, xlen), 0
        for steps, engine, moves in cuts:
            position += steps
            run.to(min(position, STEPS), engine)
            if moves:
                run.move()
        run.to(STEPS)
        same(run.look(), reference.look())
        for each in (run, reference):
            each.close()

    check()


@pytest.mark.parametrize("xlen", XLENS)
def test_rows_of_edits_do_not_depend_on_cuts(xlen: int) -> None:
    @settings(FIXED, max_examples=25)
    @given(seed=SEEDS, cuts=st.lists(st.integers(1, 300), max_size=6))
    def check(seed: int, cuts: list[int]) -> None:
        found = []
        for plan in ([], cuts):
            run, position = editing_run(seed, xlen), 0
            run.capture()
            for steps in plan:
                position += steps
                run.to(position)
            run.to(2000)
            captured = run.machine.take_captured(close=True)
            assert captured is not None
            found.append(captured.columns)
            run.close()
        assert found[0] == found[1]

    check()


def test_the_engine_runs_translated_code() -> None:
    """Or the tests above compare the stepper with itself."""
    run = editing_run(1, 64)
    run.to(STEPS, "engine")

    assert run.machine.statistics["engine_steps"] > STEPS // 10
    run.close()


# --------------------------------------------------------------------------------------------- code that moves about

#: The root tables of two address spaces.
SPACES = (2, 8)
#: Four bytes: one instruction or two, for the engine or for the stepper.
SAME_SIZE = (
    little(encode("addi", 6, 6, imm=7)),
    little(0x0315) * 2,  # c.addi x6, 5
    little(csr("csrrs", "satp", 7)),
)


def pages_of_code(rng: random.Random) -> dict[int, bytes]:
    """Two address spaces with other code at the same addresses, and an instruction across the end of the page.

    Each round switches the space: the kernel in the first mapped page writes satp and goes on in the next instruction,
    which is mapped alike in both. Then it calls a page that is another one in each space, whose last instruction has
    its second half in a third page, and that one differs too.
    """
    parts: dict[int, bytes] = {}
    one_page, low_half = rng.randrange(2), little(encode("addi", 5, 5))[:2]
    for number, root in enumerate(SPACES):
        called, behind = 11 if one_page else 11 + 2 * number, 12 + 2 * number
        table = [entry(page, 0xCF).to_bytes(8, "little") for page in (CODE, called, behind)]
        parts[root] = bytes(8) + entry(root + 1, 1).to_bytes(8, "little")
        parts[root + 1] = entry(root + 2, 1).to_bytes(8, "little")
        parts[root + 2] = b"".join(table)
        start = b"".join(rng.choices(SAME_SIZE, (8, 8, 1), k=6))
        jump = little(encode("jal", imm=PAGE_SIZE - 2 - len(start)))
        gap = bytes(PAGE_SIZE - 2 - len(start) - len(jump))
        parts[called] = start + jump + gap + low_half
        high_half = little(encode("addi", 5, 5, imm=rng.randrange(1, 2000)))[2:]
        parts[behind] = high_half + assemble(encode("jalr", rs1=1))
    called_often = assemble(encode("addi", 10, imm=40), encode("jalr", 1, 8), encode("addi", 10, 10, imm=-1))
    loop = called_often + little(encode("bne", rs1=10, imm=-8))
    switch = assemble(csr("csrrw", "satp", 20, 20))
    parts[CODE] = loop + switch + little(encode("jal", imm=-len(loop + switch)))
    return parts


def moving_run(seed: int) -> Run:
    rng = random.Random(seed)
    memory = {page * PAGE_SIZE: part for page, part in pages_of_code(rng).items()}
    machine, _ = random_machine(rng, 64, {0: image(memory)})
    state = machine.state()
    state["hart"] |= {"pc": WINDOW, "priv": 1, "mstatus": 0}
    state["hart"]["x"][8], state["hart"]["x"][20] = WINDOW + PAGE_SIZE, satp_of(64, 3, SPACES[1])
    state["supervisor"] |= {"medeleg": 0, "satp": satp_of(64, 3, SPACES[0]), **open_to_all(64)}
    machine.set_state(state)
    return Run(machine)


def test_code_at_one_address_in_two_spaces() -> None:
    @settings(FIXED, max_examples=40)
    @given(seed=SEEDS)
    def check(seed: int) -> None:
        reference = moving_run(seed)
        reference.to(20_000, "stepper")
        assert reference.machine.position == reference.machine.icount, "the program traps"
        alone, position = moving_run(seed), 0
        while position < 2000:  # a machine that has nothing decoded, each step
            position += 1
            alone.to(position, "stepper")
            if position % 97 == 0:
                alone.move()
        for engine in ENGINES:
            run = moving_run(seed)
            run.to(2000, engine)
            same(run.look(), alone.look())
            run.to(20_000, engine)
            same(run.look(), reference.look())
            run.close()
        for each in (alone, reference):
            each.close()

    check()


# ------------------------------------------------------------------------------------------------ looking from outside


def test_memory_as_the_present_mode_has_it() -> None:
    run = moving_run(3)
    machine = run.machine
    state = MachineState(machine, machine.read_memory)
    code = machine.page(CODE)

    assert state.read_virtual(WINDOW + 16, 100) == code[16:116]
    assert machine.translate(WINDOW + 16) == page_at(CODE) + 16
    assert machine.read_virtual(WINDOW + PAGE_SIZE - 8, 16) == code[-8:] + state.read_virtual(WINDOW + PAGE_SIZE, 8)
    assert machine.translate(WINDOW + 3 * PAGE_SIZE) is None
    with pytest.raises(UsageError, match="nothing is mapped at 0x40003000"):
        state.read_virtual(WINDOW + 3 * PAGE_SIZE - 4, 8)
    with pytest.raises(UsageError, match="nothing is mapped at 0x40003000"):
        machine.read_virtual(WINDOW + 3 * PAGE_SIZE, 1)
    change(machine, priv=3)
    assert state.read_virtual(page_at(CODE), 8) == code[:8]
    run.close()


def test_a_state_that_cannot_be_is_refused() -> None:
    run = moving_run(3)
    for register, value in {
        "priv": 2, "satp": 10 << 60, "mideleg": 1 << 7, "pmpcfg": bytes([2, *[0] * 15]), "mstatus": 2 << 11
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=rf"{register} has a value that this machine cannot reach"):
            change(run.machine, **{register: value})
    run.close()
