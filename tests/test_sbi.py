# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of a supervisor whose firmware is the VMM: what each answers, in one step, the same in each executor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import ENGINES, FIXED, Run, assemble, boot, csr, encode, image, same
from supervisors import TABLES, entry, satp_of

from vmrec.errors import UsageError
from vmrec.events import Input
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, MachineConfig
from vmrec.machine.machine import Engine, Exit, Machine
from vmrec.machine.pointlog import PointKind, PointLog, WatchRange

XLENS = (32, 64)
A0, A1, A2, A3, A4, A5, A6, A7 = range(10, 18)
BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN = 0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x53525354, 0x4442434E
SUCCESS, NOT_SUPPORTED, INVALID_PARAM, INVALID_ADDRESS, ALREADY_AVAILABLE = 0, -2, -3, -5, -6
RAM_SIZE = 16 * PAGE_SIZE
SSIP, STIP = 1 << 1, 1 << 5
HANDLER = 2 * PAGE_SIZE


def machine(code: bytes, xlen: int = 64, *, x: Mapping[int, int] | None = None, **hart: int) -> Machine:
    return boot(code, f"rv{xlen}gcsu", x=x, config={"sbi": True}, ram_size=RAM_SIZE, **hart)


def arguments(extension: int, function: int, *given: int, xlen: int = 64) -> dict[int, int]:
    word = (1 << xlen) - 1
    return {A7: extension, A6: function, **{A0 + number: value & word for number, value in enumerate(given)}}


ECALL = assemble(encode("ecall"), encode("addi", 5, 0, imm=7))


def answer(
    extension: int, function: int, *given: int, xlen: int = 64, engine: Engine = "auto", code: bytes = ECALL
) -> tuple[int, int, Run]:
    """a0 as a signed number, a1, and the run behind the call."""
    run = Run(machine(code, xlen, x=arguments(extension, function, *given, xlen=xlen)))
    run.to(1, engine)
    a0, a1 = run.machine.regs[A0], run.machine.regs[A1]
    return a0 - (a0 >> (xlen - 1) << xlen), a1, run


WORDS = [2**64 - 1, 0]


@pytest.mark.parametrize("xlen", XLENS)
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ((BASE, 0), (SUCCESS, 2 << 24)),
        ((BASE, 1), (SUCCESS, 0x766D7265)),
        ((BASE, 2), (SUCCESS, 1)),
        *(((BASE, 3, known), (SUCCESS, 1)) for known in (BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, 0, 1, 8)),
        *(((BASE, 3, other), (SUCCESS, 0)) for other in (9, 0x11, 0x504D55, 0x53555350, 0x7FFF_FFFF)),
        *(((BASE, function), (SUCCESS, 0)) for function in (4, 5, 6)),
        ((BASE, 7), (NOT_SUPPORTED, 0)),
        ((TIME, 1), (NOT_SUPPORTED, 0)),
        ((IPI, 0, 1, 0), (SUCCESS, 0)),
        ((IPI, 0, 0, -1), (SUCCESS, 0)),
        ((IPI, 0, 0, 5), (SUCCESS, 0)),
        ((IPI, 0, 2, 0), (INVALID_PARAM, 0)),
        ((IPI, 0, 1, 1), (INVALID_PARAM, 0)),
        ((IPI, 1), (NOT_SUPPORTED, 0)),
        *(((RFENCE, function, 1, 0, 0, -1), (SUCCESS, 0)) for function in (0, 1, 2)),
        ((RFENCE, 1, 4, 0), (INVALID_PARAM, 0)),
        ((RFENCE, 3, 1, 0), (NOT_SUPPORTED, 0)),
        ((HSM, 0, 0, RAM_BASE, 0), (ALREADY_AVAILABLE, 0)),
        ((HSM, 0, 1, RAM_BASE, 0), (INVALID_PARAM, 0)),
        ((HSM, 2, 0), (SUCCESS, 0)),
        ((HSM, 2, 1), (INVALID_PARAM, 0)),
        ((HSM, 3, 5), (INVALID_PARAM, 0)),
        ((HSM, 3, 0x80000000, 0x1000), (INVALID_ADDRESS, 0)),
        ((HSM, 3, 0x80000000, RAM_BASE + 1), (INVALID_ADDRESS, 0)),
        ((HSM, 4), (NOT_SUPPORTED, 0)),
        ((SRST, 0, 3, 0), (INVALID_PARAM, 0)),
        ((SRST, 0, 0, 2), (INVALID_PARAM, 0)),
        ((SRST, 1), (NOT_SUPPORTED, 0)),
        ((DBCN, 0, 4, RAM_BASE, 0), (SUCCESS, 4)),
        ((DBCN, 0, 0, RAM_BASE, 0), (SUCCESS, 0)),
        ((DBCN, 0, 1, 0x1000, 0), (INVALID_PARAM, 0)),
        ((DBCN, 0, 2, RAM_BASE + RAM_SIZE - 1, 0), (INVALID_PARAM, 0)),
        ((DBCN, 0, -1, RAM_BASE, 0), (INVALID_PARAM, 0)),
        ((DBCN, 0, 1, RAM_BASE, 1), (INVALID_PARAM, 0)),
        ((DBCN, 1, 4, 0, 0), (INVALID_PARAM, 0)),
        ((DBCN, 1, 4, RAM_BASE, 0), (SUCCESS, 0)),
        ((DBCN, 2, 0x41), (SUCCESS, 0)),
        ((DBCN, 3), (NOT_SUPPORTED, 0)),
        ((0x504D55, 0), (NOT_SUPPORTED, 0)),
        ((9, 0), (NOT_SUPPORTED, 0)),
        ((0x7FFF_FFFF, 0), (NOT_SUPPORTED, 0)),
    ],
)
def test_what_calls_answer(xlen: int, call: tuple[int, ...], expected: tuple[int, int]) -> None:
    looks = []
    for engine in ENGINES:
        error, value, run = answer(*call, xlen=xlen, engine=engine)
        assert (error, value) == expected
        hart = run.machine.state()["hart"]
        assert (hart["pc"], hart["priv"], run.machine.icount, run.machine.position) == (RAM_BASE + 4, 1, 0, 1)
        run.to(2, engine)
        assert run.machine.regs[5] == 7
        looks.append((run.look(), run.outputs))
        run.close()
    for look, outputs in looks[1:]:
        same(look, looks[0][0])
        assert outputs == looks[0][1]


@pytest.mark.parametrize("xlen", XLENS)
def test_legacy_calls_leave_a1_alone(xlen: int) -> None:
    for extension, expected in ((0, 0), (1, 0), (2, -1), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)):
        error, value, run = answer(extension, 99, ord("y"), 123, xlen=xlen)
        assert (error, value) == (expected, 123), extension
        assert run.console() == (b"y" if extension == 1 else b"")
        run.close()


# ---------------------------------------------------------------------------------------------------------- console


@pytest.mark.parametrize("xlen", XLENS)
def test_the_debug_console_writes_memory_across_pages_and_at_most_a_page_full(xlen: int) -> None:
    text = bytes(range(256)) * 40
    code = image({0: ECALL, PAGE_SIZE - 5: b"", PAGE_SIZE + 10: text})
    _, value, run = answer(DBCN, 0, len(text), RAM_BASE + PAGE_SIZE + 10, 0, code=code, xlen=xlen)
    assert value == 4096
    assert run.console() == text[:4096]


def test_what_was_typed_is_read() -> None:
    code = assemble(encode("ecall"), encode("addi", A0, 0, imm=0x10), encode("addi", A7, 0, imm=2), encode("ecall"))
    run = Run(machine(code, x=arguments(DBCN, 1, 5, RAM_BASE + PAGE_SIZE - 2, 0)))
    run.machine.push(Input(0, b"abcdefg"))
    run.to(1)
    assert run.machine.regs[A0:A2] == [0, 5]
    assert run.machine.read_memory(RAM_BASE + PAGE_SIZE - 2, 6) == b"abcde\0"
    run.to(4)
    assert run.machine.regs[A0] == ord("f")
    assert run.machine.input_room == 15


def test_whoever_polls_for_a_byte_is_said_to_wait() -> None:
    for call in (arguments(DBCN, 1, 5, RAM_BASE + PAGE_SIZE, 0), arguments(2, 0)):
        run = Run(machine(ECALL, x=call))
        run.machine.rx_paced = True
        assert (run.to(100), run.machine.position) == (Exit.RX_WANTED, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_page_is_asked_for_before_anything_happens(engine: Engine) -> None:
    text = b"0123456789" * 20
    code = image({0: ECALL, 3 * PAGE_SIZE - 50: text})
    run = Run(machine(code, x=arguments(DBCN, 0, len(text), RAM_BASE + 3 * PAGE_SIZE - 50, 0)))
    run.rob((2, 3))
    run.to(2, engine)
    assert (run.console(), run.fetched, run.machine.regs[A1]) == (text, 2, len(text))

    run = Run(machine(code, x=arguments(DBCN, 1, 100, RAM_BASE + 3 * PAGE_SIZE - 2, 0)))
    run.machine.push(Input(0, b"xyz"))
    run.rob((2, 3))
    run.to(2, engine)
    assert run.machine.read_memory(RAM_BASE + 3 * PAGE_SIZE - 2, 4) == b"xyz1"
    assert run.fetched == 2


def test_code_that_is_read_over_is_executed_anew() -> None:
    """The call stores into the instruction behind it."""
    for engine in ENGINES:
        run = Run(machine(ECALL, x=arguments(DBCN, 1, 4, RAM_BASE + 4, 0)))
        run.to(0)
        run.machine.push(Input(0, encode("addi", 5, 0, imm=9).to_bytes(4, "little")))
        run.to(2, engine)
        assert run.machine.regs[5] == 9
        run.close()


# ------------------------------------------------------------------------------------------- timers, waits, the end


def csrw(name: str, value_in: int) -> int:
    return csr("csrrw", name, 0, value_in)


def interrupted(xlen: int) -> bytes:
    """Sets stvec to x9 and sie to x8, lets interrupts in, calls, and waits; the handler spins."""
    begin = assemble(
        csrw("stvec", 9),
        csrw("sie", 8),
        csr("csrrsi", "sstatus", 0, 2),
        encode("ecall"),
        encode("wfi"),
        encode("addi", 6, 6, imm=1),
    )
    return image({0: begin, HANDLER: assemble(encode("addi", 7, 7, imm=1), encode("jal", 0, imm=0))})


@pytest.mark.parametrize("xlen", XLENS)
@pytest.mark.parametrize("legacy", [False, True])
def test_set_timer_interrupts_the_supervisor(xlen: int, legacy: bool) -> None:
    call = arguments(0 if legacy else TIME, 0, 50, xlen=xlen)
    if xlen == 32:
        call[A1] = 0
    x = {**call, 8: 0x222, 9: RAM_BASE + HANDLER}
    looks = []
    for engine in ENGINES:
        run = Run(machine(interrupted(xlen), xlen, x=x))
        run.machine.auto_idle = True
        run.to(20, engine)
        supervisor, time = run.machine.state()["supervisor"], run.machine.state()["time"]
        assert (supervisor["scause"], run.machine.regs[7]) == (1 << (xlen - 1) | 5, 1)
        assert time["idle"] + 5 == 50 * 100
        looks.append(run.look())
        run.close()
    same(looks[0], looks[1])
    same(looks[0], looks[2])


def test_an_interrupt_between_harts_reaches_the_one_there_is() -> None:
    x = {**arguments(IPI, 0, 1, 0), 8: 0x222, 9: RAM_BASE + HANDLER}
    run = Run(machine(interrupted(64), x=x))
    run.to(20)
    assert run.machine.state()["supervisor"]["scause"] == 1 << 63 | 1
    assert run.machine.csrs["sip"] == SSIP


@pytest.mark.parametrize(
    ("call", "reason", "code"),
    [
        ((SRST, 0, 0, 0), "poweroff", 0),
        ((SRST, 0, 0, 1), "poweroff", 1),
        ((SRST, 0, 1, 0), "reset", 0),
        ((SRST, 0, 2, 0), "reset", 0),
        ((8, 0), "poweroff", 0),
        ((HSM, 1), "waiting-for-ever", 0),
    ],
)
def test_calls_that_end_the_run(call: tuple[int, ...], reason: str, code: int) -> None:
    for engine in ENGINES:
        _, _, run = answer(*call, engine=engine)
        assert run.to(100, engine) is Exit.STOPPED
        assert (run.machine.stop_reason, run.machine.exit_code, run.machine.position) == (reason, code, 1)
        run.close()


def test_a_suspended_hart_waits_and_goes_on() -> None:
    run = Run(machine(ECALL, x=arguments(HSM, 3, 0)))
    run.machine.auto_idle = True
    assert run.to(100) is Exit.STOPPED
    assert (run.machine.stop_reason, run.machine.position) == ("waiting-for-ever", 1)

    x = {**arguments(HSM, 3, 0x80000000, RAM_BASE + HANDLER, 77), 8: 0x20}
    code = image({0: assemble(csrw("sie", 8), csrw("stimecmp", 8), encode("ecall")), HANDLER: ECALL})
    run = Run(machine(code, x=x))
    run.machine.auto_idle = True
    run.to(3)
    assert (run.machine.pc, run.machine.regs[A0], run.machine.regs[A1]) == (RAM_BASE + HANDLER, 0, 77)
    assert run.machine.waiting
    run.to(4)
    assert run.machine.state()["time"]["idle"] > 0


# --------------------------------------------------------------------------------------------- what firmware would be


def test_no_trap_leads_to_machine_mode() -> None:
    """An illegal instruction, a breakpoint, and an access to nothing: the supervisor's own business."""
    for word, cause in (
        (encode("mret"), 2), (csr("csrrs", "mstatus", 5), 2), (encode("ebreak"), 3), (encode("lw", 5, 0, imm=16), 5),
    ):  # fmt: skip
        run = Run(machine(image({0: assemble(csrw("stvec", 9), word), HANDLER: ECALL}), x={9: RAM_BASE + HANDLER}))
        run.to(2)
        assert (run.machine.pc, run.machine.privilege) == (RAM_BASE + HANDLER, 1), hex(word)
        assert run.machine.csrs["scause"] == cause


def test_a_user_who_calls_reaches_the_supervisor() -> None:
    code = image({0: ECALL, HANDLER: ECALL})
    run = Run(machine(code, x=arguments(8, 0), priv=0))
    state = run.machine.state()
    state["supervisor"]["stvec"] = RAM_BASE + HANDLER
    run.machine.set_state(state)
    run.to(1)
    assert (run.machine.pc, run.machine.privilege, run.machine.csrs["scause"]) == (RAM_BASE + HANDLER, 1, 8)
    assert not run.machine.stopped


def test_counters_time_and_memory_are_open() -> None:
    words = [csr("csrrs", name, 5) for name in ("cycle", "time", "instret", "hpmcounter3", "stimecmp")]
    run = Run(machine(image({0: assemble(csrw("stvec", 9), *words), HANDLER: ECALL}), x={9: RAM_BASE + HANDLER}))
    run.to(len(words) + 1)
    assert run.machine.pc == RAM_BASE + 4 * (len(words) + 1)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("hart", "priv", 3),
        ("hart", "mie", 0x80),
        ("supervisor", "medeleg", 0xB3FF),
        ("supervisor", "medeleg", 0),
        ("supervisor", "mideleg", 0x220),
        ("supervisor", "menvcfg", 0),
        ("supervisor", "pmpcfg", bytes(16)),
    ],
)
def test_states_in_which_firmware_would_be_missed_are_refused(part: str, field: str, value: Any) -> None:
    found = machine(ECALL)
    state = found.state()
    state[part][field] = value
    with pytest.raises(UsageError, match=f"{part}.{field}"):
        found.set_state(state)


def test_only_a_machine_with_a_supervisor_can_be_called() -> None:
    with pytest.raises(UsageError, match="no supervisor mode"):
        MachineConfig(isa="rv64gc", sbi=True)


# ------------------------------------------------------------------------------------------------- seen from outside


def test_a_call_is_a_trap_of_cause_9() -> None:
    found = machine(ECALL, x=arguments(BASE, 0))
    with PointLog(found, traps=True, room=4) as log:
        found.run(2)
        hits = log.take()
    assert [(hit.position, hit.pc, hit.value) for hit in hits] == [(0, RAM_BASE, 9)]


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("kinds", [PointKind.WRITE, PointKind.WRITE | PointKind.PHYSICAL])
def test_what_a_call_stores_is_seen_by_watches(paged: bool, kinds: PointKind) -> None:
    """Under paging only by those of physical memory: nobody has named it by a virtual address."""
    place = RAM_BASE + PAGE_SIZE
    leaf = entry(0, 0xCF).to_bytes(8, "little")  # all of the gibibyte that RAM is in, as it lies
    code = image({0: ECALL, TABLES[0] * PAGE_SIZE + 16: leaf})
    run = Run(machine(code, x=arguments(DBCN, 1, 12, place, 0)))
    run.machine.push(Input(0, b"abcdefghijkl"))
    state = run.machine.state()
    state["supervisor"]["satp"] = satp_of(64, 3) if paged else 0
    run.machine.set_state(state)
    with PointLog(run.machine, ranges=[WatchRange(place + 9, 2, kinds)], room=4) as log:
        run.to(1)
        hits = log.take()
    assert run.machine.read_memory(place, 12) == b"abcdefghijkl"
    seen = not paged or PointKind.PHYSICAL in kinds
    assert [(hit.pc, hit.physical, hit.size) for hit in hits] == [(RAM_BASE, place + 8, 4)] * seen


def test_rows_of_a_call() -> None:
    run = Run(machine(ECALL, x=arguments(BASE, 0)))
    run.capture()
    run.to(2)
    run.stop_capture()
    assert [(row.pc, row.trap, row.accesses) for row in run.rows] == [(RAM_BASE, True, ()), (RAM_BASE + 4, False, ())]


# ------------------------------------------------------------------------------------------------------- all together


CALLS = (BASE, TIME, IPI, RFENCE, HSM, DBCN, SRST, *range(10), 0x504D55)
VALUES = st.one_of(
    st.integers(0, 8), st.integers(RAM_BASE - 8, RAM_BASE + RAM_SIZE + 8), st.integers(0, 2**64 - 1),
    st.sampled_from((2**64 - 1, 0x80000000, 0x1000, 0x10000000)),
)  # fmt: skip


@settings(FIXED, max_examples=150)
@given(
    xlen=st.sampled_from(XLENS), extension=st.sampled_from(CALLS), function=st.integers(0, 4),
    given_=st.lists(VALUES, min_size=6, max_size=6), typed=st.binary(max_size=16), missing=st.sets(st.integers(0, 15)),
)  # fmt: skip
def test_any_call_is_the_same_in_every_executor(
    xlen: int, extension: int, function: int, given_: list[int], typed: bytes, missing: set[int]
) -> None:
    looks = []
    for engine in ENGINES:
        run = Run(machine(ECALL, xlen, x=arguments(extension, function, *given_, xlen=xlen)))
        run.machine.auto_idle = True
        run.machine.push(Input(0, typed[: run.machine.input_room]))
        if engine == "engine":
            run.rob(missing)
        run.to(3, engine)
        run.give_back()
        looks.append((run.look(), run.outputs))
        run.close()
    for look, outputs in looks[1:]:
        same(look, looks[0][0])
        assert outputs == looks[0][1]
    assert looks[0][0][0]["hart"]["priv"] == 1
