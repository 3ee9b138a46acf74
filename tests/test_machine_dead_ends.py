# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests with supervisor mode that have lost their way: the machine stops and says why, and never runs in place."""

from __future__ import annotations

from typing import Any

import pytest
from machines import ENGINES, Run, assemble, boot, csr, encode, image, same
from supervisors import ALL_CAUSES, entry, open_to_all, satp_of

from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN
from vmrec.machine.machine import Engine, Exit, Machine

XLENS = (32, 64)
FAULTS_MAX = 1 << 16
CODE, HANDLER, ROOT, SECOND, LAST = 0, 1, 2, 3, 4
#: Where the pages of CODE and HANDLER are mapped.
BASE = 0x4000_0000
STORE_PAGE, FETCH_PAGE = 15, 12
LOAD_ACCESS, STORE_ACCESS, FETCH_ACCESS = 5, 7, 1
UART = 0x1000_0000


def change(run: Machine, *, x: dict[int, int] | None = None, **hart: int) -> None:
    """Puts values into registers."""
    state = run.state()
    state["hart"].update(hart)
    for number, value in (x or {}).items():
        state["hart"]["x"][number] = value
    run.set_state(state)


def machine(xlen: int, parts: dict[int, bytes], **supervisor: Any) -> Machine:
    """A hart in supervisor mode at the first instruction of CODE, with all traps its own."""
    machine_ = boot(image({page * PAGE_SIZE: part for page, part in parts.items()}), f"rv{xlen}gcsu")
    state = machine_.state()
    state["hart"] |= {"pc": BASE, "priv": 1, "mie": 0}
    state["supervisor"] |= {
        "medeleg": ALL_CAUSES, "mideleg": 0x222, "stvec": BASE + PAGE_SIZE, **open_to_all(xlen), **supervisor
    }  # fmt: skip
    machine_.set_state(state)
    return machine_


def tables(xlen: int, entries: dict[int, int], tops: dict[int, int]) -> dict[int, bytes]:
    """Tables whose last level has `entries` from BASE on, and whose first has `tops`; the code is mapped at BASE."""
    size, root = xlen // 8, BASE >> (22 if xlen == 32 else 30)
    entries = {0: entry(CODE, 0xCF), 1: entry(HANDLER, 0xCF), **entries}

    def table(content: dict[int, int]) -> bytes:
        return b"".join(content.get(place, 0).to_bytes(size, "little") for place in range(PAGE_SIZE // size))

    below = entry(LAST if xlen == 32 else SECOND, 1)
    return {ROOT: table({**tops, root: below}), SECOND: table({0: entry(LAST, 1)}), LAST: table(entries)}


def paged(
    xlen: int, code: bytes, handler: bytes, entries: dict[int, int] | None = None, tops: dict[int, int] | None = None,
    **supervisor: Any,
) -> Machine:  # fmt: skip
    parts = {CODE: code, HANDLER: handler, **tables(xlen, entries or {}, tops or {})}
    return machine(xlen, parts, **{"satp": satp_of(xlen, 2 if xlen == 32 else 3, ROOT), **supervisor})


def stopped(run: Machine, engine: Engine, limit: int = 10**7) -> tuple[int, str | None]:
    """The position and reason of the stop."""
    assert run.run(limit, engine=engine) is Exit.STOPPED
    return run.position, run.stop_reason


# ------------------------------------------------------------------------------------- tables that lead to nowhere

#: An address that has a first-level entry of its own.
FAR = 3 << 30
WHERE = {"a device": UART, "the boot ROM": 0x1000, "nothing": 0x0300_0000, "behind RAM": RAM_BASE + RAM_SIZE_MIN}
ACCESSES = {
    LOAD_ACCESS: encode("lw", 5, 10), STORE_ACCESS: encode("sw", 0, 10, 5), FETCH_ACCESS: encode("jalr", 1, 10),
}  # fmt: skip


def pte(physical: int, flags: int) -> int:
    return physical // PAGE_SIZE << 10 | flags


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("physical", WHERE.values(), ids=WHERE)
@pytest.mark.parametrize("xlen", XLENS)
def test_a_table_that_is_not_in_ram_is_an_access_fault(xlen: int, physical: int, engine: Engine) -> None:
    """Of the kind of the access that wanted it, and no device is read."""
    top = FAR >> (22 if xlen == 32 else 30)
    for cause, word in ACCESSES.items():
        run = paged(xlen, assemble(word), assemble(encode("jal")), tops={top: pte(physical, 1)})
        change(run, x={10: FAR + 8})
        run.run(3, engine=engine)
        csrs = run.csrs
        assert (csrs["scause"], csrs["stval"]) == (cause, FAR + 8)
        assert csrs["sepc"] == (FAR + 8 if cause == FETCH_ACCESS else BASE)
        assert run.statistics["mmio_accesses"] == 0
        run.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("xlen", XLENS)
def test_a_page_that_is_a_device_is_used_as_one_but_not_executed(xlen: int, engine: Engine) -> None:
    code = assemble(encode("sb", 0, 10, 11, 7), encode("lbu", 12, 10, imm=7), encode("jalr", 1, 10))
    run = paged(xlen, code, assemble(encode("jal")), {2: pte(UART, 0xCF)})
    change(run, x={10: BASE + 2 * PAGE_SIZE, 11: 0x5A})
    run.run(10, engine=engine)

    assert run.regs[12] == 0x5A  # the scratch register
    assert (run.csrs["scause"], run.csrs["stval"]) == (FETCH_ACCESS, BASE + 2 * PAGE_SIZE)
    run.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("physical", WHERE.values(), ids=WHERE)
@pytest.mark.parametrize("xlen", XLENS)
def test_a_root_that_is_not_in_ram_ends_the_run(xlen: int, physical: int, engine: Engine) -> None:
    """Neither the next instruction nor the trap handler can be fetched."""
    satp = (1 << 31 if xlen == 32 else 8 << 60) | physical // PAGE_SIZE
    run = paged(xlen, assemble(csr("csrrw", "satp", 0, 10)), b"")
    change(run, x={10: satp})

    assert stopped(run, engine) == (3, "trap-loop")
    assert (run.csrs["scause"], run.csrs["sepc"]) == (FETCH_ACCESS, BASE + PAGE_SIZE)
    run.close()


# --------------------------------------------------------------------------------------------- faults that never end


def pushing(xlen: int) -> bytes:
    """A handler that saves a register first."""
    store = encode("sw", 0, 2, 1) if xlen == 32 else encode("sd", 0, 2, 1)
    return assemble(encode("addi", 2, 2, imm=-16), store, csr("csrrs", "scause", 5), encode("sret", isa="rv64gcsu"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("xlen", XLENS)
def test_a_handler_without_a_stack_ends_the_run(xlen: int, engine: Engine) -> None:
    """Its stack pointer is another one each time, so no state comes twice."""
    run = paged(xlen, assemble(encode("ebreak")), pushing(xlen))
    change(run, x={2: 0x7000_0000})

    assert stopped(run, engine) == (1 + 2 * FAULTS_MAX, "trap-loop")
    assert (run.csrs["scause"], run.csrs["sepc"]) == (STORE_PAGE, BASE + PAGE_SIZE + 4)
    assert run.exit_code == 1
    run.close()


@pytest.mark.parametrize("xlen", XLENS)
def test_where_the_run_is_cut_does_not_move_the_stop(xlen: int) -> None:
    whole, pieces = (Run(paged(xlen, assemble(encode("ebreak")), pushing(xlen))) for _ in range(2))
    for run in (whole, pieces):
        change(run.machine, x={2: 0x7000_0000})
    for position in (1, 2, 999, 70_000, 70_001, 131_000):
        pieces.to(position)
        pieces.move()

    assert pieces.to(10**7) is whole.to(10**7, "stepper") is Exit.STOPPED
    same(whole.look(), pieces.look())
    for run in (whole, pieces):
        run.close()


def test_firmware_that_can_still_be_woken_is_not_stopped() -> None:
    """A machine timer interrupt could end it."""
    run = paged(64, assemble(encode("ebreak")), pushing(64))
    change(run, x={2: 0x7000_0000}, mie=1 << 7)
    assert run.run(4 * FAULTS_MAX) is Exit.POSITION
    change(run, mie=0)
    assert stopped(run, "auto") == (4 * FAULTS_MAX + 1, "trap-loop")
    run.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_handler_that_returns_may_be_called_for_ever(engine: Engine) -> None:
    """One load that faults each time, and the handler goes on behind it."""
    handler = assemble(
        csr("csrrs", "sepc", 5), encode("addi", 5, 5, imm=4), csr("csrrw", "sepc", 0, 5), encode("sret", isa="rv64gcsu")
    )
    run = paged(64, assemble(encode("lw", 6, 0), encode("jal", imm=-4)), handler)
    assert run.run(7 * FAULTS_MAX, engine=engine) is Exit.POSITION
    assert run.icount < run.position - FAULTS_MAX
    run.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("xlen", XLENS)
def test_a_handler_that_is_not_mapped_ends_the_run_at_once(xlen: int, engine: Engine) -> None:
    run = paged(xlen, assemble(encode("lw", 6, 0)), b"", stvec=BASE + 2 * PAGE_SIZE)

    assert stopped(run, engine) == (2, "trap-loop")
    assert (run.csrs["scause"], run.csrs["stval"]) == (FETCH_PAGE, BASE + 2 * PAGE_SIZE)
    run.close()


# --------------------------------------------------------------------------------------- waits for what cannot come


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("mie", "extra"),
    [
        (0, {}),
        (1 << 1, {}),  # nobody else sends software interrupts
        (1 << 5, {}),  # the timer is not programmed
        (1 << 5, {"stimecmp": 1000}),  # and without menvcfg.STCE nothing comes of it
        (1 << 9, {}),  # no device has anything to say
        (1 << 7, {"stimecmp": 1000, "menvcfg": 1 << 63}),  # the other timer
    ],
)
def test_a_wait_that_nothing_can_end_ends_the_run(mie: int, extra: dict[str, int], engine: Engine) -> None:
    run = paged(64, assemble(encode("addi"), encode("wfi"), encode("jal")), b"", **extra)
    change(run, mie=mie, mstatus=1 << 1)

    assert stopped(run, engine) == (2, "waiting-for-ever")
    assert run.pc == BASE + 8
    run.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wait_for_the_supervisors_timer_ends(engine: Engine) -> None:
    """Also one whose interrupts are off: it goes on behind the wfi."""
    run = paged(64, assemble(encode("wfi"), encode("jal")), b"", stimecmp=1000, menvcfg=1 << 63)
    change(run, mie=1 << 5)

    assert run.run(2, engine=engine) is Exit.POSITION
    assert (run.pc, run.mtime) == (BASE + 4, 1000)
    run.close()
