# SPDX-License-Identifier: GPL-2.0-or-later
"""Modes and address spaces that take turns: the engine keeps what it knows of each, and mixes nothing up.

Both executors must agree while the same virtual address is other code in user and supervisor mode, other data with
mstatus.SUM and without, and while entries of tables become valid.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from machines import ENGINES, Run, assemble, boot, csr, encode, image, little, same
from supervisors import ALL_CAUSES, CODE, entry, open_to_all, page_at, satp_of

from vmrec.machine.board import PAGE_SIZE
from vmrec.machine.machine import Engine, Machine

KERNEL = 0x4000_0000  # the page CODE, in both spaces
SHARED = KERNEL + PAGE_SIZE  # other code in each
DATA = KERNEL + 2 * PAGE_SIZE
ROOTS = (2, 5)
USER_CODE, SUPERVISOR_CODE, USER_DATA = 8, 9, 10
SUM, SPP = 1 << 18, 1 << 8
SRET, ECALL = (encode(name, isa="rv64gcsu") for name in ("sret", "ecall"))
TABLE, LEAF, USER_LEAF = 1, 0xCF, 0xDF


def space(root: int, entries: dict[int, int]) -> dict[int, bytes]:
    """Three levels of tables with these entries from KERNEL on."""
    last = b"".join(entries.get(place, 0).to_bytes(8, "little") for place in range(PAGE_SIZE // 8))
    middle = entry(root + 2, TABLE).to_bytes(8, "little")
    return {root: bytes(8) + entry(root + 1, TABLE).to_bytes(8, "little"), root + 1: middle, root + 2: last}


def machine(kernel: bytes, parts: dict[int, bytes], handler: int, x: dict[int, int]) -> Machine:
    made = boot(image({page * PAGE_SIZE: part for page, part in {CODE: kernel, **parts}.items()}), "rv64gcsu", x=x)
    state = made.state()
    state["hart"] |= {"pc": KERNEL, "priv": 1}
    state["supervisor"] |= {
        "medeleg": ALL_CAUSES, "stvec": KERNEL + handler, "satp": satp_of(64, 3, ROOTS[0]), **open_to_all(64)
    }  # fmt: skip
    made.set_state(state)
    return made


def counting(*body: int, back: int) -> bytes:
    """`body` as often as x5 says, then what x1 or an ecall is for."""
    loop = assemble(*body, encode("addi", 5, 5, imm=-1))
    return loop + little(encode("bne", rs1=5, imm=-len(loop))) + little(back)


def compared(make: Callable[[], Machine], steps: int, engine: Engine, *, inline: bool = True) -> Machine:
    """The machine after so many steps, when it is as the stepper leaves it."""
    run, reference = Run(make()), Run(make())
    if not inline:
        lib, vm, _ = run.machine.native
        lib.vm_count_by_calls(vm)
    run.to(steps, engine)
    reference.to(steps, "stepper")
    same(run.look(), reference.look())
    reference.close()
    return run.machine


# --------------------------------------------------------------------------------------- code of two modes at one place


def taking_turns() -> Machine:
    """User mode at SHARED in one space, until its call; then supervisor mode at SHARED in the other; and again."""
    start = assemble(
        csr("csrrw", "satp", 0, 20), csr("csrrw", "sepc", 0, 22), csr("csrrc", "sstatus", 0, 23),
        encode("addi", 5, 24), SRET,
    )  # fmt: skip
    handler = assemble(csr("csrrw", "satp", 0, 21), encode("addi", 5, 24), encode("jalr", 1, 22))
    kernel = start + handler
    kernel += little(encode("jal", imm=-len(kernel)))
    common = {0: entry(CODE, LEAF)}
    user = counting(encode("addi", 6, 6, imm=3), 0x0705, encode("xor", 7, 7, 6), back=ECALL)  # 0x0705: c.addi x14, 1
    supervisor = counting(0x0305, 0x0705, 0x0685, encode("add", 8, 8, 6), back=encode("jalr", rs1=1))
    return machine(
        kernel,
        {
            **space(ROOTS[0], {**common, 1: entry(USER_CODE, USER_LEAF)}),
            **space(ROOTS[1], {**common, 1: entry(SUPERVISOR_CODE, LEAF)}),
            USER_CODE: user,
            SUPERVISOR_CODE: supervisor,
        },
        handler=len(start),
        x={20: satp_of(64, 3, ROOTS[0]), 21: satp_of(64, 3, ROOTS[1]), 22: SHARED, 23: SPP, 24: 2000},
    )


@pytest.mark.parametrize("inline", [True, False], ids=["inlined", "called"])
@pytest.mark.parametrize("engine", ENGINES)
def test_two_modes_have_other_code_at_one_address(engine: Engine, inline: bool) -> None:
    """Blocks of one address and one size, and another number of instructions."""
    made = compared(taking_turns, 400_000, engine, inline=inline)
    if engine != "stepper":
        assert made.statistics["engine_steps"] > 300_000
    if engine == "auto":
        assert made.statistics["tlb_flushes"] < 6, "the spaces take turns 20 times"
    made.close()


# ------------------------------------------------------------------------------------------------------ SUM on and off


def reaching_for_users() -> Machine:
    """Loads from a user's page in a loop with SUM set; then one without, which faults; the handler does it again."""
    start = assemble(csr("csrrs", "sstatus", 0, 23), encode("addi", 5, 24))
    loop = counting(encode("ld", 6, 10), encode("add", 7, 7, 6), encode("sd", 0, 10, 7, 8), back=encode("addi"))
    end = assemble(csr("csrrc", "sstatus", 0, 23), encode("ld", 6, 10, imm=8), encode("jal"))
    back = -8 - len(start + loop + end)
    handler = assemble(csr("csrrs", "scause", 11), encode("add", 12, 12, 11), encode("jal", imm=back))
    return machine(
        start + loop + end + handler,
        {**space(ROOTS[0], {0: entry(CODE, LEAF), 2: entry(USER_DATA, USER_LEAF)}), USER_DATA: b"\x05" + bytes(15)},
        handler=len(start + loop + end),
        x={10: DATA, 23: SUM, 24: 2000},
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_right_that_comes_and_goes_is_not_remembered(engine: Engine) -> None:
    made = compared(reaching_for_users, 200_000, engine)
    faults = made.position - made.icount
    assert faults == 200_000 // (2000 * 5 + 8)
    assert made.regs[12] == 13 * faults
    if engine != "stepper":
        assert made.statistics["engine_steps"] > 100_000
        assert made.statistics["tlb_flushes"] < 5
    made.close()


# ------------------------------------------------------------------------------------------------ entries made valid


def growing() -> Machine:
    """Maps page after page behind DATA, stores to each in a loop; at the end takes all away and begins anew."""
    pages = 32
    each = assemble(encode("sd", 0, 15, 16), encode("addi", 5, imm=600))
    each += assemble(encode("ld", 6, 10), encode("add", 6, 6, 5), encode("sd", 0, 10, 6), encode("addi", 5, 5, imm=-1))
    each += little(encode("bne", rs1=5, imm=-16))
    each += assemble(encode("add", 10, 10, 17), encode("addi", 15, 15, imm=8), encode("addi", 18, 18, imm=-1))
    each += little(encode("bne", rs1=18, imm=-len(each)))
    clear = assemble(encode("addi", 18, imm=pages), encode("addi", 15, 15, imm=-8), encode("sd", 0, 15))
    clear += assemble(encode("addi", 18, 18, imm=-1)) + little(encode("bne", rs1=18, imm=-12))
    clear += assemble(encode("addi", 18, imm=pages), encode("addi", 10, 19))
    kernel = each + clear
    kernel += little(encode("jal", imm=-len(kernel)))
    table = DATA + PAGE_SIZE
    entries = {0: entry(CODE, LEAF), 3: entry(ROOTS[0] + 2, LEAF)}
    return machine(
        kernel,
        space(ROOTS[0], entries),
        handler=0,
        x={10: DATA + 14 * PAGE_SIZE, 15: table + 16 * 8, 16: entry(USER_DATA, LEAF), 17: PAGE_SIZE, 18: pages,
           19: DATA + 14 * PAGE_SIZE},
    )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_entries_that_become_valid_cost_nothing_and_those_that_end_count(engine: Engine) -> None:
    steps = 400_000
    made = compared(growing, steps, engine)
    assert made.icount == made.position, "nothing faults"
    assert made.read_memory(page_at(USER_DATA), 8) != bytes(8)
    if engine != "stepper":
        assert made.statistics["engine_steps"] > steps // 2
        rounds = steps // (32 * 2400)
        assert made.statistics["tlb_flushes"] <= 2 + 34 * (rounds + 1), "32 entries are taken away in each round"
    made.close()
