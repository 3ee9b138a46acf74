# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices as the guest sees them, one access at a time: what each register does, and that state is all there is.

The conformance tests run over every device: after any traffic, a machine that is given the state answers alike.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import FIXED, NONE, Choices, Run, assemble, boot, encode

from vmrec.events import Clock, Entropy, Input
from vmrec.machine.board import RAM_BASE, STEPS_PER_TICK
from vmrec.machine.machine import Exit, Machine

FINISHER, RTC, CLINT, PLIC, UART, ENTROPY = 0x10_0000, 0x10_1000, 0x200_0000, 0xC00_0000, 0x1000_0000, 0x1020_0000
VIRTIO = 0x1000_1000
WINDOWS = {FINISHER: 0x1000, RTC: 0x1000, CLINT: 0x1_0000, PLIC: 0x60_0000, UART: 0x100, ENTROPY: 0x1000,
           **{VIRTIO + slot * 0x1000: 0x1000 for slot in range(8)}}  # fmt: skip
MSIP, MTIMECMP, MTIME = CLINT, CLINT + 0x4000, CLINT + 0xBFF8
PENDING, ENABLE, THRESHOLD, CLAIM = PLIC + 0x1000, PLIC + 0x2000, PLIC + 0x20_0000, PLIC + 0x20_0004
MIP_MSIP, MIP_MTIP, MIP_MEIP = 1 << 3, 1 << 7, 1 << 11
LOOP = assemble(encode("jal"))


@pytest.fixture
def machine() -> Iterator[Machine]:
    with boot(LOOP) as made:
        yield made


def mip(machine: Machine) -> int:
    return machine.csrs["mip"]


# ----------------------------------------------------------------------------------------------------- conformance

#: Offsets worth an access, by device; others are drawn from the whole window and a little beyond.
REGISTERS = {
    FINISHER: (0, 2, 4),
    RTC: tuple(range(0, 0x24, 4)),
    CLINT: (0, 4, 0x4000, 0x4004, 0xBFF8, 0xBFFC),
    PLIC: (0, 4, 4 * 10, 4 * 11, 4 * 95, 4 * 96, 0x1000, 0x1008, 0x2000, 0x2004, 0x2008, 0x200C, 0x20_0000, 0x20_0004),
    UART: tuple(range(9)),
    ENTROPY: (0, 4, 8),
    **{VIRTIO + slot * 0x1000: (*range(0, 0xB0, 4), 0xFC, *range(0x100, 0x118)) for slot in range(8)},
}
#: Machines of both revisions; what is not there refuses every access.
BOARDS: dict[str, dict[str, Any]] = {
    "revision 1": {"isa": "rv32im"},
    "modern": {"isa": "rv64gcsu", "config": {"drives": (5120, 512), "devices": ("virtio-rng", "virtio-console")}},
    "legacy": {"isa": "rv32gcsu", "config": {"drives": (512,), "devices": ("virtio-console",), "virtio": "legacy"}},
}
VALUES = (0, 1, 2, 3, 7, 10, 11, 0x80, 0xC7, 0x5555, 0x3333, 0xFFFF_FFFF, 1 << 10, 3 << 10, NONE)


@dataclass(frozen=True)
class Traffic:
    address: int
    size: int
    write: bool
    value: int
    #: What happens besides: bytes arrive, or time passes.
    arrives: bytes
    steps: int


def traffic(number: int) -> Traffic:
    pick = Choices(number)
    device = pick.of(tuple(WINDOWS))
    offset = pick.of(REGISTERS[device]) if pick.below(8) else pick.below(WINDOWS[device] + 16)
    size, write, value = pick.of((4, 4, 4, 1, 2, 8)), bool(pick.below(2)), pick.of(VALUES)
    if device == FINISHER and write and pick.below(20):
        write = False  # most runs should go on
    steps = 150 if pick.below(4) == 0 else 0
    return Traffic(device + offset, size, write, value, b"abcdefgh"[: max(0, pick.below(12) - 4)], steps)


TRAFFIC = st.lists(st.integers(0, 2**64 - 1).map(traffic), max_size=40)


def carry_out(machine: Machine, acts: list[Traffic]) -> list[object]:
    """What every access gave, and the lines after it."""
    seen: list[object] = []
    for act in acts:
        if act.arrives:
            seen.append(machine.push(Input(machine.position, act.arrives)))
        if act.steps and not machine.stopped:
            machine.run(machine.position + act.steps)
        if act.write:
            seen.append(machine.bus_write(act.address, act.size, act.value))
        else:
            value = machine.bus_read(act.address, act.size)
            if act.address == ENTROPY and act.size == 4:
                assert value is None, "the bytes have to come from outside first"
                machine.supply(Entropy(machine.position, b"\1\2\3\4"))
                value = machine.bus_read(act.address, act.size)
                assert value == 0x0403_0201
            assert value is None or 0 <= value < 1 << 8 * act.size
            seen.append(value)
        seen.append((mip(machine), machine.stopped, machine.take_outputs()))
    return seen


@pytest.mark.parametrize("board", BOARDS)
@settings(FIXED, max_examples=150)
@given(before=TRAFFIC, after=TRAFFIC)
def test_state_is_all_there_is(board: str, before: list[Traffic], after: list[Traffic]) -> None:
    with boot(LOOP, **BOARDS[board]) as first, boot(LOOP, **BOARDS[board]) as second:
        carry_out(first, before)
        saved = first.state()
        packed = msgpack.unpackb(msgpack.packb(saved))
        assert packed == saved
        second.set_state(packed)
        assert second.state() == saved
        assert second.digest() == first.digest()
        assert carry_out(second, after) == carry_out(first, after)
        assert second.state() == first.state()


@settings(FIXED, max_examples=100)
@given(acts=TRAFFIC)
def test_lines_follow_from_the_state(acts: list[Traffic]) -> None:
    """mip, told again from the registers of the devices."""
    with boot(LOOP) as machine:
        for act in acts:
            carry_out(machine, [act])
            state = machine.state()
            plic = state["plic"]
            source = [n for n in range(1, 96) if plic["pending"][n // 32] & plic["enable"][n // 32] & 1 << n % 32]
            external = any(plic["priority"][n] > plic["threshold"] for n in source)
            timer = machine.mtime >= state["clint"]["mtimecmp"]
            expected = MIP_MSIP * state["clint"]["msip"] | MIP_MTIP * timer | MIP_MEIP * external
            assert mip(machine) == expected


@pytest.mark.parametrize(
    ("address", "size", "value", "field"),
    [
        (MSIP, 4, 1, "clint.msip"),
        (MTIMECMP, 8, 99, "clint.mtimecmp"),
        (MTIMECMP + 4, 4, 99, "clint.mtimecmp"),
        (MTIME, 8, 99, "clint.mtime_offset"),
        (PLIC + 4 * 10, 4, 5, "plic.priority"),
        (ENABLE, 4, 1 << 10, "plic.enable"),
        (THRESHOLD, 4, 3, "plic.threshold"),
        (UART + 1, 1, 1, "uart.ier"),
        (UART + 2, 1, 1, "uart.fcr"),
        (UART + 3, 1, 3, "uart.lcr"),
        (UART + 4, 1, 8, "uart.mcr"),
        (UART + 7, 1, 0x5A, "uart.scr"),
        (RTC, 4, 5, "rtc.time_offset"),
        (RTC + 0xC, 4, 9, "rtc.alarm"),
        (RTC + 0x10, 4, 1, "rtc.irq_enabled"),
        (FINISHER, 4, 0x5555, "time.stopped"),
    ],
)
def test_a_changed_device_saves_differently(machine: Machine, address: int, size: int, value: int, field: str) -> None:
    before, digest = machine.state(), machine.digest().value
    assert machine.bus_write(address, size, value)
    machine.take_outputs()
    part, name = field.split(".")
    after = machine.state()
    assert after[part][name] != before[part][name]
    assert machine.digest().value != digest
    expected = copy.deepcopy(before)
    expected[part][name] = after[part][name]
    outputs = ("outputs",) if address == FINISHER else ()
    lines = {"hart"}
    assert {k: v for k, v in after.items() if k not in (*lines, *outputs)} == {
        k: v for k, v in expected.items() if k not in (*lines, *outputs)
    }


def test_a_latching_gateway_is_told_once() -> None:
    """Revision 2: a line that stays up when its request is completed makes no other one, until it is driven anew."""
    for isa, again in (("rv32im", 10), ("rv64gcsu", 0)):
        with boot(LOOP, isa) as it:
            for address, value in ((PLIC + 4 * 10, 1), (ENABLE, 1 << 10), (UART + 1, 3)):
                assert it.bus_write(address, 4 if address != UART + 1 else 1, value)
            assert it.bus_read(CLAIM, 4) == 10, "the transmitter is empty"
            it.bus_read(UART + 5, 1)
            it.bus_write(CLAIM, 4, 10)
            assert it.bus_read(CLAIM, 4) == again
            it.bus_write(CLAIM, 4, 10)
            it.bus_write(UART, 1, ord("x"))
            it.take_outputs()
            assert it.bus_read(CLAIM, 4) == 10, "it is empty again"
            it.push(Input(0, b"y"))
            it.bus_write(CLAIM, 4, 10)
            assert it.bus_read(CLAIM, 4) == 10, "and something came"


def test_what_is_refused_changes_nothing(machine: Machine) -> None:
    holes = [0, 0xFFF, 0x10_2000, 0x201_0000, 0x1000_0100, 0x1020_1000, 0x4000_0000, 0x7FFF_FFFF, 0xFFFF_FFFF, NONE - 7]
    crossing = [(base + size - 2, 4) for base, size in WINDOWS.items()]
    wrong = [(CLINT, 1), (CLINT + 2, 4), (MTIMECMP + 4, 8), (PLIC, 1), (PLIC + 2, 4), (THRESHOLD, 8), (RTC, 8)]
    wrong += [(RTC + 1, 4), (ENTROPY, 1), (ENTROPY, 8), (FINISHER, 1), (FINISHER + 1, 2), (FINISHER, 8)]
    before = machine.state()
    for address, size in [(hole, 4) for hole in holes] + crossing + wrong:
        assert machine.bus_read(address, size) is None, hex(address)
        assert machine.bus_write(address, size, NONE) is False, hex(address)
    assert not machine.bus_write(0x1000, 4, 0), "the boot ROM is read only"
    assert machine.state() == before


@pytest.mark.parametrize("isa", ["rv32im", "rv64gc"])
def test_a_refused_access_is_an_access_fault(isa: str) -> None:
    for name, cause in (("lb", 5), ("sb", 7)):
        with boot(
            assemble(encode(name, rs1=8, rs2=5), *[0] * 7, encode("jal")), isa, x={8: PLIC}, mtvec=RAM_BASE + 16
        ) as it:
            it.run(1)
            assert (it.csrs["mcause"], it.csrs["mtval"], it.csrs["mepc"]) == (cause, PLIC, RAM_BASE)


# -------------------------------------------------------------------------------------------------------------- UART


def uart(machine: Machine, offset: int, value: int | None = None) -> int:
    if value is None:
        got = machine.bus_read(UART + offset, 1)
        assert got is not None
        return got
    assert machine.bus_write(UART + offset, 1, value)
    return value


RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7


def arrive(machine: Machine, data: bytes) -> int:
    return machine.push(Input(machine.position, data))


def test_uart_after_reset(machine: Machine) -> None:
    assert [uart(machine, n) for n in range(8)] == [0, 0, 1, 0, 0, 0x60, 0xB0, 0]


def test_uart_without_fifo_holds_one_byte(machine: Machine) -> None:
    assert machine.input_room == 1
    assert arrive(machine, b"xy") == 1
    assert uart(machine, LSR) & 1
    assert uart(machine, RBR) == ord("x")
    assert not uart(machine, LSR) & 1
    assert uart(machine, RBR) == 0, "nothing is left"


def test_uart_fifo_keeps_order_and_takes_sixteen(machine: Machine) -> None:
    uart(machine, FCR, 1)
    assert machine.input_room == 16
    text = bytes(range(65, 90))
    assert arrive(machine, text) == 16
    assert machine.input_room == 0
    assert arrive(machine, b"!") == 0
    assert [uart(machine, RBR) for _ in range(3)] == list(text[:3])
    assert arrive(machine, b"123456") == 3
    assert [uart(machine, RBR) for _ in range(16)] == list(text[3:16] + b"123")
    assert machine.input_room == 16


def test_uart_fcr_clears_the_receiver(machine: Machine) -> None:
    uart(machine, FCR, 1)
    for value, left in ((1, 5), (3, 0), (4 | 1, 5), (0, 0)):
        arrive(machine, b"abcde"[: machine.input_room])
        uart(machine, FCR, value)
        assert machine.input_room == (16 if value & 1 else 1) - left
        uart(machine, FCR, 0)
        uart(machine, FCR, 1)


@pytest.mark.parametrize(("trigger", "level"), [(0, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_uart_receive_interrupt_and_its_time_out(machine: Machine, trigger: int, level: int) -> None:
    """Fewer bytes than the trigger level: character time-out (at once); else data available. Both end by reading."""
    uart(machine, FCR, 1 | trigger)
    uart(machine, IER, 1)
    assert uart(machine, IIR) == 0xC1
    for count in range(1, 17):
        arrive(machine, b"a")
        assert uart(machine, IIR) == (0xC4 if count >= level else 0xCC)
    for count in range(15, -1, -1):
        uart(machine, RBR)
        assert uart(machine, IIR) == (0xC1 if count == 0 else 0xC4 if count >= level else 0xCC)


def test_uart_transmit_interrupt(machine: Machine) -> None:
    assert uart(machine, IIR) == 1
    uart(machine, IER, 2)
    assert uart(machine, IIR) == 2, "THR is empty, and now somebody asks"
    assert uart(machine, IIR) == 1, "reading the cause acknowledged it"
    uart(machine, IER, 2)
    assert uart(machine, IIR) == 1, "it was enabled before: nothing new"
    uart(machine, THR, ord("x"))
    assert uart(machine, IIR) == 2
    uart(machine, THR, ord("y"))
    uart(machine, IER, 0)
    assert uart(machine, IIR) == 1


def test_uart_priority_of_interrupts(machine: Machine) -> None:
    uart(machine, MCR, 0x10)
    uart(machine, IER, 7)
    for byte in b"ab":
        uart(machine, THR, byte)  # looped back: the second byte overruns the first
    assert uart(machine, IIR) == 6, "line status"
    assert uart(machine, LSR) == 0x63
    assert uart(machine, LSR) == 0x61, "reading it cleared the overrun"
    assert uart(machine, IIR) == 4, "received data"
    assert uart(machine, RBR) == ord("a")
    assert uart(machine, IIR) == 2, "transmitter"
    assert uart(machine, IIR) == 1
    assert machine.take_outputs() == b"", "nothing left through the loop"


def test_uart_divisor_latch_hides_data_and_ier(machine: Machine) -> None:
    uart(machine, IER, 5)
    uart(machine, LCR, 0x83)
    uart(machine, DLL, 0x12)
    uart(machine, DLM, 0x34)
    assert (uart(machine, DLL), uart(machine, DLM)) == (0x12, 0x34)
    uart(machine, LCR, 3)
    assert (uart(machine, RBR), uart(machine, IER)) == (0, 5)
    assert machine.take_outputs() == b""


def test_uart_modem_lines_loop_back(machine: Machine) -> None:
    uart(machine, MCR, 0x1F)
    assert uart(machine, MSR) == 0xF0
    uart(machine, MCR, 0x12)
    assert uart(machine, MSR) == 0x20
    uart(machine, MCR, 0xE5)
    assert uart(machine, MCR) == 5, "the top bits do not exist"


def test_uart_output_carries_its_position(machine: Machine) -> None:
    machine.run(123)
    uart(machine, THR, ord("a"))
    uart(machine, THR, 0xFF)
    unpacker = msgpack.Unpacker()
    unpacker.feed(machine.take_outputs())
    assert list(unpacker) == [["console", 123, b"a"], ["console", 123, b"\xff"]]


def test_uart_wide_accesses_see_one_register(machine: Machine) -> None:
    uart(machine, SCR, 0x77)
    assert machine.bus_write(UART + 7, 4, 0x1234_5678)
    assert machine.bus_read(UART + 7, 4) == 0x78
    assert machine.bus_read(UART + 8, 4) == 0


# -------------------------------------------------------------------------------------------------------------- PLIC


def test_plic_claim_and_complete(machine: Machine) -> None:
    uart(machine, IER, 1)
    machine.bus_write(PLIC + 4 * 10, 4, 1)
    arrive(machine, b"x")
    assert machine.bus_read(PENDING, 4) == 1 << 10
    assert mip(machine) == 0, "not enabled"
    machine.bus_write(ENABLE, 4, 1 << 10)
    assert mip(machine) == MIP_MEIP
    assert machine.bus_read(CLAIM, 4) == 10
    assert (machine.bus_read(PENDING, 4), mip(machine)) == (0, 0), "claimed: the gateway holds the line back"
    assert machine.bus_read(CLAIM, 4) == 0
    machine.bus_write(CLAIM, 4, 10)
    assert mip(machine) == MIP_MEIP, "completed, and the line is still up"
    assert machine.bus_read(CLAIM, 4) == 10
    uart(machine, RBR)
    machine.bus_write(CLAIM, 4, 10)
    assert (machine.bus_read(PENDING, 4), mip(machine)) == (0, 0)


def both_sources(machine: Machine) -> None:
    """Sources 10 (UART) and 11 (RTC) are pending and enabled."""
    uart(machine, IER, 1)
    arrive(machine, b"x")
    machine.bus_write(RTC + 0x10, 4, 1)
    machine.bus_write(RTC + 8, 4, 0)
    machine.bus_write(ENABLE, 4, 3 << 10)
    assert machine.bus_read(PENDING, 4) == 3 << 10


@pytest.mark.parametrize(
    ("ten", "eleven", "order"), [(1, 1, [10, 11]), (1, 2, [11, 10]), (7, 3, [10, 11]), (0, 1, [11, 0])]
)
def test_plic_priorities(machine: Machine, ten: int, eleven: int, order: list[int]) -> None:
    both_sources(machine)
    machine.bus_write(PLIC + 40, 4, ten)
    machine.bus_write(PLIC + 44, 4, eleven)
    assert [machine.bus_read(CLAIM, 4) for _ in range(2)] == order


def test_plic_threshold(machine: Machine) -> None:
    both_sources(machine)
    machine.bus_write(PLIC + 40, 4, 3)
    machine.bus_write(PLIC + 44, 4, 5)
    for threshold, found in ((7, 0), (5, 0), (4, 11), (0, 10)):
        machine.bus_write(THRESHOLD, 4, threshold)
        assert mip(machine) == (MIP_MEIP if found else 0)
        assert machine.bus_read(CLAIM, 4) == found


def test_plic_fields_that_do_not_exist(machine: Machine) -> None:
    machine.bus_write(PLIC, 4, 7)
    assert machine.bus_read(PLIC, 4) == 0, "there is no source 0"
    machine.bus_write(ENABLE, 4, 0xFFFF_FFFF)
    assert machine.bus_read(ENABLE, 4) == 0xFFFF_FFFE
    machine.bus_write(PLIC + 4 * 95, 4, 0xFF)
    assert machine.bus_read(PLIC + 4 * 95, 4) == 7
    machine.bus_write(PLIC + 4 * 96, 4, 7)
    assert machine.bus_read(PLIC + 4 * 96, 4) == 0
    machine.bus_write(PENDING, 4, 0xFFFF_FFFF)
    assert machine.bus_read(PENDING, 4) == 0
    for source in (0, 96, 0xFFFF_FFFF):
        assert machine.bus_write(CLAIM, 4, source)


# ------------------------------------------------------------------------------------------------------------- CLINT


def test_clint_halves(machine: Machine) -> None:
    assert machine.bus_read(MTIMECMP, 8) == NONE
    machine.bus_write(MTIMECMP, 4, 0x1111_1111)
    machine.bus_write(MTIMECMP + 4, 4, 0x2222_2222)
    assert machine.bus_read(MTIMECMP, 8) == 0x2222_2222_1111_1111
    assert (machine.bus_read(MTIMECMP, 4), machine.bus_read(MTIMECMP + 4, 4)) == (0x1111_1111, 0x2222_2222)
    machine.bus_write(MTIME + 4, 4, 7)
    machine.bus_write(MTIME, 4, 9)
    assert machine.bus_read(MTIME, 8) == machine.mtime == machine.csrs["time"] | 7 << 32 == 7 << 32 | 9
    assert machine.bus_read(CLINT + 0x100, 4) == 0, "a hart that does not exist"


def test_clint_time_goes_on_from_what_was_written(machine: Machine) -> None:
    machine.run(250)
    assert machine.bus_read(MTIME, 8) == 2
    machine.bus_write(MTIME, 8, 1000)
    machine.run(1050)
    assert machine.bus_read(MTIME, 8) == 1008


def test_clint_timer_line_is_a_comparison(machine: Machine) -> None:
    machine.bus_write(MTIMECMP, 8, 3)
    machine.run(3 * STEPS_PER_TICK - 1)
    assert mip(machine) == 0
    machine.run(3 * STEPS_PER_TICK)
    assert mip(machine) == MIP_MTIP
    machine.bus_write(MTIMECMP, 8, 4)
    assert mip(machine) == 0
    machine.bus_write(MTIMECMP, 8, 0)
    assert mip(machine) == MIP_MTIP


def test_clint_msip_has_one_bit(machine: Machine) -> None:
    machine.bus_write(MSIP, 4, 0xFFFF_FFFE)
    assert (machine.bus_read(MSIP, 4), mip(machine)) == (0, 0)
    machine.bus_write(MSIP, 4, 0xFFFF_FFFF)
    assert (machine.bus_read(MSIP, 4), mip(machine)) == (1, MIP_MSIP)


def test_clock_events_move_time_and_never_back() -> None:
    with boot(LOOP, config={"time_rule": "stepped"}) as machine:
        machine.run(1000)
        assert machine.mtime == 0
        for ticks, now in ((5, 5), (3, 5), (5, 5), (1 << 40, 1 << 40)):
            machine.push(Clock(1000, ticks))
            assert machine.mtime == now


# --------------------------------------------------------------------------------------------------------------- RTC

BASE_NS = 0x1234_5678_9ABC_DEF0


def test_rtc_shows_its_base_and_guest_time() -> None:
    with boot(LOOP, config={"rtc_base_ns": BASE_NS}) as machine:
        machine.run(777)
        low, high = machine.bus_read(RTC, 4), machine.bus_read(RTC + 4, 4)
        assert high << 32 | low == BASE_NS + 700


def test_rtc_latches_the_upper_half() -> None:
    with boot(LOOP, config={"rtc_base_ns": 0xFFFF_FFFF}) as machine:
        assert machine.bus_read(RTC + 4, 4) == 0
        assert machine.bus_read(RTC, 4) == 0xFFFF_FFFF
        machine.run(100)
        assert machine.bus_read(RTC + 4, 4) == 0, "as it was when the lower half was read"
        assert (machine.bus_read(RTC, 4), machine.bus_read(RTC + 4, 4)) == (99, 1)


def test_rtc_is_set(machine: Machine) -> None:
    machine.bus_write(RTC + 4, 4, 5)
    machine.bus_write(RTC, 4, 6)
    machine.run(100)
    assert (machine.bus_read(RTC, 4), machine.bus_read(RTC + 4, 4)) == (106, 5)


def test_rtc_alarm(machine: Machine) -> None:
    machine.bus_write(RTC + 0x10, 4, 1)
    machine.bus_write(RTC + 0xC, 4, 0)
    assert machine.bus_read(RTC + 0x18, 4) == 0, "the upper half arms nothing"
    machine.bus_write(RTC + 8, 4, 1000)
    assert machine.bus_read(RTC + 0x18, 4) == 1
    machine.run(999)
    assert machine.state()["rtc"]["irq_pending"] == 0
    machine.run(1000)
    assert (machine.state()["rtc"]["irq_pending"], machine.bus_read(RTC + 0x18, 4)) == (1, 0)
    assert machine.bus_read(PENDING, 4) == 1 << 11
    machine.bus_write(RTC + 0x1C, 4, 1)
    assert (machine.state()["rtc"]["irq_pending"], machine.bus_read(PENDING, 4)) == (0, 0)


def test_rtc_alarm_is_cleared_and_masked(machine: Machine) -> None:
    machine.bus_write(RTC + 8, 4, 500)
    machine.bus_write(RTC + 0x14, 4, 0)
    machine.run(600)
    assert machine.state()["rtc"]["irq_pending"] == 0
    machine.bus_write(RTC + 8, 4, 100)
    assert machine.state()["rtc"]["irq_pending"] == 1, "in the past: at once"
    assert machine.bus_read(PENDING, 4) == 0, "not enabled"
    machine.bus_write(RTC + 0x10, 4, 1)
    assert machine.bus_read(PENDING, 4) == 1 << 11


@pytest.mark.parametrize("engine", ["auto", "engine", "stepper"])
@pytest.mark.parametrize("name", ["mtime", "alarm"])
def test_a_timer_interrupts_at_its_very_step(engine: str, name: str) -> None:
    code = assemble(*[encode("addi", 5, 5, imm=1)] * 7, encode("jal", imm=-28), *[0] * 8)
    with boot(code, mtvec=RAM_BASE + 32, mie=0x880, mstatus=0x1808) as machine:
        if name == "mtime":
            machine.bus_write(MTIMECMP, 8, 77)
        else:
            machine.bus_write(PLIC + 44, 4, 1)
            machine.bus_write(ENABLE, 4, 1 << 11)
            machine.bus_write(RTC + 0x10, 4, 1)
            machine.bus_write(RTC + 8, 4, 7_700)
        assert machine.run(7_700, engine=engine) is Exit.POSITION  # type: ignore[arg-type]
        assert machine.regs[5] == 7_700 * 7 // 8 + 1
        assert machine.csrs["mcause"] == 0
        machine.run(7_701, engine=engine)  # type: ignore[arg-type]
        assert machine.csrs["mcause"] == 2, "the handler's first word is illegal, and was the step"
        assert machine.statistics["interrupts"] == 1
        assert machine.regs[5] == 7_700 * 7 // 8 + 1


@pytest.mark.parametrize("engine", ["auto", "engine", "stepper"])
@pytest.mark.parametrize(
    ("address", "value", "cause"),
    [
        (MSIP, 1, 3),
        (MTIMECMP + 4, 0, 7),
        (ENABLE, 3 << 10, 11),
        (PLIC + 40, 2, 11),
        (THRESHOLD, 0, 11),
        (CLAIM, 10, 11),
        (UART + 1, 2, 11),
        (RTC + 8, 0, 11),
        (RTC + 0x10, 1, 11),
    ],
)
def test_an_interrupt_that_a_store_raises_is_taken_at_once(engine: str, address: int, value: int, cause: int) -> None:
    """After the step that stores and before the next one, in the middle of straight code too."""
    straight = [encode("addi", 5, 5, imm=1)] * 700
    code = assemble(*straight[:3], encode("sw", rs1=8, rs2=6), *straight, encode("jal"))
    handler = RAM_BASE + len(code) - 4
    with boot(code, x={6: value, 8: address}, mtvec=handler, mie=0x888, mstatus=0x1808) as machine:
        machine.bus_write(MTIMECMP, 4, 0)
        for register, content in ((ENABLE, 3 << 10), (PLIC + 40, 1), (PLIC + 44, 1), (RTC + 0x10, 1)):
            if address != register:
                machine.bus_write(register, 4, content)
        if address == THRESHOLD:
            machine.bus_write(THRESHOLD, 4, 7)
        if address == RTC + 0x10:
            machine.bus_write(RTC + 8, 4, 0)
        if PLIC <= address < PLIC + 0x60_0000:
            uart(machine, IER, 2)
        if address == CLAIM:
            assert machine.bus_read(CLAIM, 4) == 10
        assert mip(machine) == 0
        assert machine.run(600, engine=engine) is Exit.POSITION  # type: ignore[arg-type]
        assert (machine.csrs["mcause"], machine.csrs["mepc"]) == (1 << 31 | cause, RAM_BASE + 16)
        assert (machine.regs[5], machine.pc) == (3, handler)


# ---------------------------------------------------------------------------------------------- finisher and entropy


@pytest.mark.parametrize(
    ("size", "value", "reason", "code"),
    [
        (4, 0x5555, "poweroff", 0),
        (2, 0x5555, "poweroff", 0),
        (4, 0x0007_3333, "poweroff", 7),
        (4, 0xFFFF_3333, "poweroff", 0xFFFF),
        (2, 0x3333, "poweroff", 0),
        (4, 0x7777, "reset", 0),
        (4, 0x1234, None, 0),
        (4, 0, None, 0),
    ],
)
def test_finisher(machine: Machine, size: int, value: int, reason: str | None, code: int) -> None:
    assert machine.bus_write(FINISHER, size, value)
    assert (machine.stop_reason, machine.exit_code) == (reason, code)
    outputs = machine.take_outputs()
    assert outputs == (msgpack.packb(["stop", 0, reason, code]) if reason else b"")
    assert machine.run(10) is (Exit.STOPPED if reason else Exit.POSITION)
    assert machine.bus_read(FINISHER, 4) == 0


def test_the_first_stop_counts(machine: Machine) -> None:
    machine.bus_write(FINISHER, 4, 0x3333 | 5 << 16)
    machine.bus_write(FINISHER, 4, 0x5555)
    assert machine.exit_code == 5


@pytest.mark.parametrize("engine", ["auto", "engine", "stepper"])
def test_entropy_is_pulled_from_outside(engine: str) -> None:
    code = assemble(encode("lw", 5, 8), encode("lw", 6, 8), encode("lw", 7, 8, imm=4), encode("jal"))
    with boot(code, x={8: ENTROPY}) as machine:
        for position, data in ((0, b"\1\0\0\x80"), (1, b"\2\0\0\0")):
            for _ in range(2):
                assert machine.run(1000, engine=engine) is Exit.PULL  # type: ignore[arg-type]
                assert (machine.pull_size, machine.position) == (4, position)
                assert machine.state()["entropy"]["reads"] == position, "nothing is done before the bytes are here"
            machine.supply(Entropy(position, data))
        assert machine.run(1000, engine=engine) is Exit.POSITION  # type: ignore[arg-type]
        assert machine.regs[5:8] == [0x8000_0001, 2, 0x656E_7431]
        assert machine.state()["entropy"]["reads"] == 2


def test_entropy_is_forgotten_with_the_state_it_was_for() -> None:
    with boot(assemble(encode("lw", 5, 8), encode("jal")), x={8: ENTROPY}) as machine:
        state = machine.state()
        assert machine.run(10) is Exit.PULL
        machine.supply(Entropy(0, b"abcd"))
        machine.set_state(state)
        assert machine.run(10) is Exit.PULL


# ------------------------------------------------------------------------------------------------------------ pacing


@pytest.mark.parametrize("engine", ["auto", "engine", "stepper"])
def test_a_guest_that_polls_asks_for_its_byte(engine: str) -> None:
    poll = assemble(encode("lbu", 5, 8, imm=5), encode("andi", 5, 5, imm=1), encode("beq", rs1=5, imm=-8),
                    encode("lbu", 6, 8), encode("jal", imm=-16))  # fmt: skip
    machine = boot(poll, x={8: UART})
    run = Run(machine)
    machine.rx_paced = True
    for byte in b"xyz":
        assert run.to(10_000, engine) is Exit.RX_WANTED  # type: ignore[arg-type]
        arrive(machine, bytes([byte]))
        run.to(machine.position + 8, engine)  # type: ignore[arg-type]
        assert machine.regs[6] == byte
    machine.rx_paced = False
    assert run.to(10_000, engine) is Exit.POSITION  # type: ignore[arg-type]
