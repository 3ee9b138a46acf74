# SPDX-License-Identifier: GPL-2.0-or-later
"""Corners that random programs hardly reach, each by a program made for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import pytest
from machines import ENGINES, MSTATUS_FS, MSTATUS_MPP, NONE, Run, assemble, boot, csr, encode, image

from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN
from vmrec.machine.machine import Engine, Exit, Machine

NOP = encode("addi")
MTIMECMP, MTIME = 0x0200_4000, 0x0200_BFF8
RTC = 0x0010_1000
MTIE, MEIE = 1 << 7, 1 << 11
ALARM_LOW, ALARM_HIGH, TIME_LOW = RTC + 8, RTC + 12, RTC


@contextmanager
def no_longer_than(seconds: float, machine: Machine) -> Iterator[None]:
    """Ends a run that would never return: it then comes back with Exit.ATTENTION."""
    timer = threading.Timer(seconds, machine.set_attention)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# --------------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("isa", ["rv64gc", "rv64gcsu"])
@pytest.mark.parametrize("word", [csr("csrrs", "mscratch", 5), encode("fadd.d", 1, 1, 1)], ids=["a CSR", "a float"])
def test_attention_is_seen_in_code_that_stays_on_the_stepper(word: int, isa: str) -> None:
    """It is such a loop for ever, and no slice of the engine ends in it."""
    code = assemble(word, word, encode("jal", imm=-8))
    with boot(code, isa, mstatus=MSTATUS_FS | (MSTATUS_MPP if isa == "rv64gc" else 0)) as machine:
        with no_longer_than(0.01, machine):
            assert machine.run(1 << 40) is Exit.ATTENTION
        assert machine.position < 1 << 29
        assert machine.statistics["stepper_steps"] == machine.position


# ----------------------------------------------------------------------------------------------------------- waiting


def waiting(mie: int) -> Machine:
    """A machine that has just begun to wait, a thousand steps after the start of time."""
    code = assemble(*[NOP] * 999, encode("wfi"), encode("jal"))
    machine = boot(code, mie=mie)
    assert machine.run(1000) is Exit.POSITION
    assert machine.waiting
    return machine


def test_a_wait_ends_where_the_timer_does_although_mtime_was_set_back() -> None:
    with waiting(MTIE) as machine:
        machine.bus_write(MTIME, 8, 0)
        machine.bus_write(MTIMECMP, 8, 5)
        assert machine.deadline_steps() == 500
        assert machine.run(2000) is Exit.POSITION
        assert machine.state()["time"]["idle"] == 500


def test_no_timer_is_no_deadline_although_mtime_was_set_back() -> None:
    with waiting(MTIE) as machine:
        machine.bus_write(MTIME, 8, 0)
        assert machine.deadline_steps() is None
        with no_longer_than(10, machine):
            assert machine.run(2000) is Exit.STOPPED
        assert (machine.stop_reason, machine.position) == ("waiting-for-ever", 1000)


def test_an_alarm_at_the_end_of_time_is_no_deadline() -> None:
    with waiting(MEIE) as machine:
        machine.bus_write(TIME_LOW, 4, 0)
        machine.bus_write(ALARM_HIGH, 4, 0xFFFF_FFFF)
        machine.bus_write(ALARM_LOW, 4, 0xFFFF_FFFF)
        with no_longer_than(10, machine):
            assert machine.run(2000) is Exit.STOPPED
        assert machine.stop_reason == "waiting-for-ever"


def test_a_wait_goes_on_behind_an_alarm_that_interrupts_nobody() -> None:
    with waiting(MEIE) as machine:
        machine.bus_write(ALARM_LOW, 4, 4321)
        assert machine.deadline_steps() == 3400  # to the first tick at or after 4321 ns
        assert machine.run(2000) is Exit.STOPPED
        assert machine.state()["time"]["idle"] == 3400
        assert machine.state()["rtc"]["irq_pending"] == 1


def test_time_that_wraps_around_ends_in_a_stop() -> None:
    with waiting(MTIE) as machine:
        state = machine.state()
        state["time"]["idle"] = 2**62 - 1
        state["clint"]["mtimecmp"] = 2**62
        machine.set_state(state)
        machine._vm.time.idle = 2**64 - 5
        with no_longer_than(10, machine):
            assert machine.run(2000) is Exit.STOPPED


# ------------------------------------------------------------------------------------------------------------- stops


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("until", [2**62, 2**63, NONE])
def test_a_target_at_the_end_of_time(engine: Engine, until: int) -> None:
    """The first CSR instruction is not the engine's, however far away the target is."""
    code = assemble(*[NOP] * 2002, csr("csrrwi", "mscratch", rs1=7), encode("sw", rs1=5, rs2=6))
    with boot(code, x={5: 0x10_0000, 6: 0x5555}) as machine:
        assert machine.run(until, engine=engine) is Exit.STOPPED
        assert (machine.position, machine.stop_reason) == (2004, "poweroff")
        assert machine.csrs["mscratch"] == 7


# ------------------------------------------------------------------------- instructions that lie across two pages

EDGE = PAGE_SIZE - 2


def straddling(*at_edge: int) -> bytes:
    """`at_edge` from two bytes before the end of page 0 on; at 0x100 a store of x6 over what is in page 1."""
    store = (encode("sh", rs1=7, rs2=6), encode("jal", imm=EDGE - 0x104))
    back = encode("jal", imm=0x100 - EDGE - 4 * len(at_edge))
    return image({0x100: assemble(*store), EDGE: assemble(*at_edge, back)})


@pytest.mark.parametrize("order", [("stepper", "engine", "stepper"), ("engine", "stepper", "engine"), ("stepper",) * 3])
@pytest.mark.parametrize("capture", [False, True])
def test_the_half_in_the_next_page_is_patched(order: tuple[Engine, ...], capture: bool) -> None:
    old, new = encode("addi", 5, imm=1), encode("addi", 5, imm=2)
    code = straddling(old)
    with boot(code, "rv32imac", x={6: new >> 16, 7: RAM_BASE + PAGE_SIZE}) as machine:
        state = machine.state()
        state["hart"]["pc"] = RAM_BASE + EDGE
        machine.set_state(state)
        if capture:
            machine.start_capture()
        for engine, steps, value in zip(order, (2, 2, 2), (1, 1, 2), strict=True):
            machine.run(machine.position + steps, engine=engine)
            assert machine.regs[5] == value


def test_the_row_of_a_store_over_its_own_second_half() -> None:
    """What was executed is what the row shows, not what it was changed into."""
    store = encode("sh", rs1=7, rs2=6)
    with boot(straddling(store), "rv32imac", x={6: 0xFFFF, 7: RAM_BASE + PAGE_SIZE}) as machine:
        state = machine.state()
        state["hart"]["pc"] = RAM_BASE + EDGE
        machine.set_state(state)
        run = Run(machine)
        run.capture()
        run.to(1)
        run.take_rows(close=True)
        assert machine.read_memory(RAM_BASE + PAGE_SIZE, 2) == b"\xff\xff"
        assert [row.word for row in run.rows] == [store]


STORES = ("sb", "sh", "sw", "sd", "fsw", "fsd", "sc.w", "sc.d", "amoswap.w", "amoswap.d", "amoor.w")


@pytest.mark.parametrize("store", STORES)
def test_the_rows_of_code_that_patches_what_it_has_just_run(store: str) -> None:
    """Each row shows the instruction as it was when it was executed; the next round shows the new one."""
    old, new = encode("addi", 5, imm=1), encode("addi", 5, imm=3)
    address = {"sb": 2, "sh": 2}.get(store, 0)
    value = new | NOP << 32 if store.endswith("d") else new >> 8 * address
    atomic = store.startswith(("sc", "amo"))
    reserve = encode("lr" + store[2:], 6, 8) if store.startswith("sc") else NOP
    patch = encode(store, 7, 8, 9) if atomic else encode(store, rs1=8, rs2=9, imm=address)
    words = (old, NOP, reserve, patch, encode("jal", imm=-16))
    x, f = {8: RAM_BASE, 9: value}, {9: value}
    run = Run(boot(assemble(*words), "rv64gc", x=x, f=f, mstatus=0x1800 | 3 << 13))
    run.capture()
    run.to(10)
    run.stop_capture()
    assert [row.word for row in run.rows] == [*words, new, *words[1:]]
    assert run.machine.regs[5] == 3


@pytest.mark.parametrize("cut", [3, 4, 5])
@pytest.mark.parametrize("isa", ["rv32im", "rv32imac"])
def test_a_block_ends_with_its_page_also_where_a_run_is_cut(isa: str, cut: int) -> None:
    begin = PAGE_SIZE - 16 - (2 if isa == "rv32imac" else 0)
    code = image({begin: assemble(*[NOP] * 8, encode("jal", imm=-32))})

    def columns(*stops: int) -> bytes:
        with boot(code, isa) as machine:
            state = machine.state()
            state["hart"]["pc"] = RAM_BASE + begin
            machine.set_state(state)
            machine.start_capture()
            for stop in (*stops, 40):
                machine.run(stop)
            captured = machine.take_captured(close=True)
            assert captured is not None
            return captured.columns

    assert msgpack.unpackb(columns(cut)) == msgpack.unpackb(columns())


def test_a_fetch_that_fails_behind_the_last_page() -> None:
    """The last instruction of RAM begins in it and ends outside: an access fault at the half that is not there."""
    begin = RAM_SIZE_MIN - 6
    code = image({0: assemble(encode("jal")), begin: assemble(NOP) + b"\x13\x05"})
    for cut in (1, 2, 3):
        with boot(code, "rv32imac", mtvec=RAM_BASE) as machine:
            state = machine.state()
            state["hart"]["pc"] = RAM_BASE + begin
            machine.set_state(state)
            run = Run(machine)
            run.capture()
            run.to(cut)
            run.to(3)
            run.take_rows(close=True)
            csrs = machine.csrs
            assert (csrs["mcause"], csrs["mepc"], csrs["mtval"]) == (1, RAM_BASE + begin + 4, RAM_BASE + RAM_SIZE_MIN)
            assert [(row.pc - RAM_BASE, row.trap) for row in run.rows] == [
                (begin, False),
                (begin + 4, True),
                (0, False),
            ]


# ------------------------------------------------------------------------------------------------------------- lr, sc

WIDE = 0x1_0000_0005


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("isa", "load", "store", "before", "result", "after"),
    [
        ("rv32imac", "lr.w", "sc.w", 5, 0, 99),
        ("rv64imac", "lr.d", "sc.d", WIDE, 0, 99),
        ("rv64imac", "lr.w", "sc.d", 5, 0, 99),
        ("rv64imac", "lr.w", "sc.d", WIDE, 1, WIDE),  # a doubleword that is not the word's extension
        ("rv64imac", "lr.d", "sc.w", 5, 0, 99),
        ("rv64imac", "lr.d", "sc.w", WIDE, 1, 99 | 1 << 32),  # stores, but says that it failed: see stepper.c
    ],
)
def test_pairs_of_lr_and_sc(
    engine: Engine, isa: str, load: str, store: str, before: int, result: int, after: int
) -> None:
    words = assemble(encode(load, 5, 8), encode(store, 6, 8, 7), encode("jal"))
    code = image({0: words, 0x1000: before.to_bytes(8, "little")})
    with boot(code, isa, x={6: 77, 7: 99, 8: RAM_BASE + 0x1000}) as machine:
        machine.run(700, engine=engine)
        assert machine.regs[6] == result
        assert int.from_bytes(machine.read_memory(RAM_BASE + 0x1000, 8), "little") == after
        assert machine.state()["hart"]["reservation"] == NONE


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reserved_word_that_is_no_aligned_doubleword(engine: Engine) -> None:
    code = assemble(encode("lr.w", 5, 8), encode("sc.d", 6, 8, 7), encode("jal"), NOP, encode("jal"))
    with boot(code, "rv64imac", x={6: 77, 8: RAM_BASE + 0x1004}, mtvec=RAM_BASE + 16) as machine:
        machine.run(700, engine=engine)
        assert (machine.csrs["mcause"], machine.csrs["mtval"], machine.regs[6]) == (6, RAM_BASE + 0x1004, 77)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("between", ["trap", "interrupt", "mret"])
def test_whatever_leaves_the_program_ends_a_reservation(engine: Engine, between: str) -> None:
    skip = (csr("csrrs", "mepc", 31), encode("addi", 31, 31, imm=4), csr("csrrw", "mepc", rs1=31))
    middle = {"trap": encode("ecall"), "interrupt": NOP, "mret": encode("mret")}[between]
    code = image({
        0: assemble(encode("lr.w", 5, 8), middle, encode("sc.w", 6, 8, 7), encode("jal")),
        0x100: assemble(*(skip if between == "trap" else ()), csr("csrrwi", "mie"), encode("mret")),
    })  # fmt: skip
    x = {6: 77, 7: 99, 8: RAM_BASE + 0x1000}
    mie = {"mie": 1 << 3, "mstatus": 0x1808} if between == "interrupt" else {}
    with boot(code, "rv32imac", x=x, mtvec=RAM_BASE + 0x100, mepc=RAM_BASE + 8, **mie) as machine:
        machine.run(1, engine=engine)
        assert machine.state()["hart"]["reservation"] == RAM_BASE + 0x1000
        machine.bus_write(0x200_0000, 4, between == "interrupt")
        machine.run(700, engine=engine)
        assert machine.statistics["interrupts"] == (between == "interrupt")
        assert (machine.regs[6], machine.read_memory(RAM_BASE + 0x1000, 4)) == (1, bytes(4))


# ------------------------------------------------------------------------------------------------------- mstatus.FS

INITIAL, CLEAN, DIRTY = 1 << 13, 2 << 13, 3 << 13


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("word", "after"),
    [
        (csr("csrrwi", "fflags"), DIRTY),
        (csr("csrrsi", "frm", rs1=1), DIRTY),
        (csr("csrrw", "fcsr"), DIRTY),
        (csr("csrrs", "fcsr", 5), CLEAN),
        (csr("csrrs", "mscratch", 5), CLEAN),
        (encode("fsw", rs1=8, rs2=1), CLEAN),
        (encode("flw", 1, 8), DIRTY),
        (encode("fld", 1, 8), DIRTY),
        (encode("fmv.w.x", 1, 8), DIRTY),
        (encode("fadd.d", 1, 2, 3), DIRTY),
    ],
)
def test_what_makes_the_floating_state_dirty(engine: Engine, word: int, after: int) -> None:
    code = assemble(word, encode("jal"))
    with boot(code, "rv64gc", x={8: RAM_BASE + 0x1000}, mstatus=0x1800 | CLEAN) as machine:
        machine.run(700, engine=engine)
        mstatus = machine.csrs["mstatus"]
        assert mstatus & DIRTY == after
        assert mstatus >> 63 == (after == DIRTY), "the summary bit"
        assert machine.icount == 700


@pytest.mark.parametrize("engine", ENGINES)
def test_switching_the_unit_off_and_on(engine: Engine) -> None:
    """The same block runs with the unit off, where its first instruction traps, and with it on."""
    flip = (encode("lui", 6, imm=INITIAL), csr("csrrs", "mstatus", rs1=6), encode("mret"))
    body = (encode("fld", 1, 8), encode("fsgnj.d", 2, 1, 1), encode("fsd", rs1=8, rs2=2, imm=8))
    off = (encode("lui", 6, imm=DIRTY), csr("csrrc", "mstatus", rs1=6), encode("addi", 5, 5, imm=1))
    code = image({0: assemble(*body, *off, encode("jal", imm=-24)), 0x100: assemble(*flip), 0x1000: b"floating"})
    with boot(code, "rv64gc", x={8: RAM_BASE + 0x1000}, mtvec=RAM_BASE + 0x100, mstatus=0x1800) as machine:
        machine.run(1100, engine=engine)
        assert machine.regs[5] == 100, "eleven steps a round: one traps, three are the handler's"
        assert machine.position - machine.icount == 100
        assert machine.read_memory(RAM_BASE + 0x1008, 8) == b"floating"


# ------------------------------------------------------------------------------------------------------------ tohost


@pytest.mark.parametrize("isa", ["rv32im", "rv64im"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_odd_value_in_tohost_ends_the_run(isa: str, engine: Engine) -> None:
    code = assemble(
        encode("sw", rs1=8, rs2=5), encode("addi", 5, imm=2 * 7 + 1), encode("sw", rs1=8, rs2=5), encode("jal")
    )
    with boot(code, isa, x={8: RAM_BASE + 0x2000}, tohost=RAM_BASE + 0x2000) as machine:
        assert machine.run(5000, engine=engine) is Exit.STOPPED
        assert (machine.position, machine.stop_reason, machine.exit_code) == (3, "poweroff", 7)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_command_in_tohost_prints_a_byte(engine: Engine) -> None:
    code = assemble(encode("sd", rs1=8, rs2=5), encode("jal"))
    machine = boot(code, "rv64im", x={5: 0x0101 << 48 | ord("A"), 8: RAM_BASE + 0x2000}, tohost=RAM_BASE + 0x2000)
    run = Run(machine)
    run.to(5000, engine)
    assert run.console() == b"A"
    assert machine.read_memory(RAM_BASE + 0x2000, 8) == bytes(8)


@pytest.mark.parametrize(
    "place", [RAM_SIZE_MIN - 4, RAM_SIZE_MIN - 1, RAM_SIZE_MIN, -4, -RAM_BASE, 0x2FFC, 0x2001], ids=hex
)
def test_a_tohost_that_cannot_be_one_is_ignored(place: int) -> None:
    """Its last byte is outside RAM, or it is not aligned: symbols come from files."""
    code = assemble(encode("addi", 5, imm=1), encode("sw", rs1=8, rs2=5), encode("jal"))
    with boot(code, "rv64im", x={8: RAM_BASE + min(place, RAM_SIZE_MIN - 4) & ~3}, tohost=RAM_BASE + place) as machine:
        machine.run(5000)
        assert machine.stop_reason != "poweroff"


def test_a_closed_machine_is_an_error_and_not_freed_memory() -> None:
    """A generator that ends its capture late may come after the machine was closed."""
    machine = boot(assemble(encode("jal")))
    machine.start_capture()
    machine.close()

    machine.stop_capture()
    machine.close()
    assert "closed" in repr(machine)
    with pytest.raises((AttributeError, TypeError)):
        machine.run(10)


# --------------------------------------------------------------------------------------------- the corners of memory


@pytest.mark.parametrize("engine", ENGINES)
def test_the_last_word_of_the_address_space(engine: Engine) -> None:
    """2 GiB of RAM end where a 32-bit address does: code there is patched, runs off the end, and traps at 0."""
    top = 0xFFFF_F000
    last, new = encode("addi", 5, 5, imm=1), encode("addi", 5, 5, imm=2)
    loop = (
        encode("addi", 7, imm=30),
        encode("addi", 7, 7, imm=-1),
        encode("bne", rs1=7, imm=-4),
        encode("jalr", rs1=9),
    )
    code = assemble(encode("jalr", 1, 9), *[NOP] * 7, encode("sw", rs1=8, rs2=6), *loop)
    with boot(code, ram_size=2 << 30, x={6: new, 8: 0xFFFF_FFFC, 9: 0xFFFF_FFFC}, mtvec=RAM_BASE + 32) as machine:
        machine.set_page((top - RAM_BASE) // PAGE_SIZE, bytes(PAGE_SIZE - 4) + last.to_bytes(4, "little"))
        machine.run(3, engine=engine)
        assert (machine.regs[5], machine.csrs["mcause"], machine.csrs["mepc"], machine.csrs["mtval"]) == (1, 1, 0, 0)
        machine.run(3000, engine=engine)
        rounds = (3000 - 3) // 64
        assert machine.regs[5] == 1 + 2 * rounds, "once 1, then always 2"
        assert machine.read_memory(0xFFFF_FFFC, 4) == new.to_bytes(4, "little")


@pytest.mark.parametrize("engine", ENGINES)
def test_pages_that_share_their_place_in_the_block_table(engine: Engine) -> None:
    """Functions 256 KiB apart call each other, and one of them is patched all the time."""
    far = 64 * PAGE_SIZE
    near = (encode("jalr", 1, 9), encode("addi", 6, 6, imm=1), encode("sw", rs1=9, rs2=7), encode("add", 7, 7, 8))
    code = image({
        0: assemble(*near, encode("jal", imm=-16)),
        far: assemble(encode("addi", 5, imm=0), encode("add", 10, 10, 5), encode("jalr", rs1=1)),
    })  # fmt: skip
    x = {7: encode("addi", 5, imm=1), 8: 1 << 20, 9: RAM_BASE + far}
    expected = None
    for executor in ("stepper", engine):
        with boot(code, x=x, ram_size=1 << 20) as machine:
            for position in range(900, 9000, 900):
                machine.run(position, engine=executor)  # type: ignore[arg-type]
            look = machine.state(), machine.read_memory(RAM_BASE, 1 << 20)
            assert expected in (None, look)
            expected = look
            assert machine.regs[10] > 1000


@pytest.mark.parametrize("engine", ENGINES)
def test_a_far_away_fetch_traps(engine: Engine) -> None:
    for isa, target in (
        ("rv64gc", 2**64 - 2),
        ("rv64gc", 0xFFFF_FFFF_8000_0000),
        ("rv64im", 1 << 63),
        ("rv32im", 0xFFFF_FFFC),
    ):
        with boot(
            assemble(encode("jalr", rs1=8), *[NOP] * 3, encode("jal")), isa, x={8: target}, mtvec=RAM_BASE + 16
        ) as it:
            it.run(700, engine=engine)
            assert (it.csrs["mcause"], it.csrs["mepc"], it.csrs["mtval"]) == (1, target, target)


def test_the_scratch_page_of_the_engine_is_not_the_guests() -> None:
    """Where the engine keeps its single floating-point instructions, the guest finds nothing."""
    scratch = 0x0FF0_0000
    for name, cause in (("lw", 5), ("sw", 7), ("jalr", 1)):
        for engine in ENGINES:
            code = assemble(encode("fadd.s", 1, 2, 3), encode(name, rs1=8), *[NOP] * 2, encode("jal"))
            with boot(code, "rv64gc", x={8: scratch}, mtvec=RAM_BASE + 16, mstatus=0x1800 | 3 << 13) as machine:
                machine.run(700, engine=engine)
                assert (machine.csrs["mcause"], machine.csrs["mtval"]) == (cause, scratch)


# --------------------------------------------------------------------------------------------------- many rows, bytes


def test_rows_that_fill_the_buffer_are_all_there() -> None:
    """A block a step: the run comes back often enough, and nothing is lost between two takes."""
    run = Run(
        boot(
            assemble(encode("jal", imm=4), encode("sw", rs1=8, rs2=5), encode("jal", imm=-8)), x={8: RAM_BASE + 0x1000}
        )
    )
    run.capture()
    full = 0
    while run.machine.position < 150_000:
        full += run.machine.run(150_000) is Exit.CAPTURE_FULL
        run.take_rows()
    run.stop_capture()
    assert full >= 1
    assert [row.position for row in run.rows] == list(range(150_000))
    assert all(row.pc == RAM_BASE + 4 * (row.position % 3) for row in run.rows)
    assert all(len(row.accesses) == (row.position % 3 == 1) for row in run.rows)


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_that_fill_the_buffer_are_all_there(engine: Engine) -> None:
    code = assemble(encode("sb", rs1=8, rs2=5), encode("addi", 5, 5, imm=1), encode("jal", imm=-8))
    run = Run(boot(code, x={8: 0x1000_0000}))
    full = 0
    while run.machine.position < 30_000:
        full += run.machine.run(30_000, engine=engine) is Exit.OUTPUT_FULL
        run.outputs += run.machine.take_outputs()
    assert full >= 1
    assert run.console() == bytes(n % 256 for n in range(10_000))
