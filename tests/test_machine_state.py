# SPDX-License-Identifier: GPL-2.0-or-later
"""States from files: what no machine leaves is refused, and what is accepted runs alike on every executor."""

from __future__ import annotations

import copy
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import ENGINES, FIXED, MSTATUS_FS, NONE, Run, assemble, boot, encode, same

from vmrec.errors import UsageError
from vmrec.events import Clock, Entropy, Idle, Input
from vmrec.isa.profiles import PROFILES, profile
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, RAM_SIZE_MIN, MachineConfig
from vmrec.machine.machine import Exit, Machine
from vmrec.trace.digests import digest_of

CODE = assemble(*[encode("addi", 5, 5, imm=3)] * 20, encode("jal", imm=-80))
PARTS = {
    "hart": "x f pc reservation reserved_value fflags frm priv mstatus mie mip mtvec mscratch mepc mcause mtval "
    "mcycle_offset minstret_offset",
    "time": "position traps idle ticks waiting woke_position stopped exit_code",
    "clint": "msip mtimecmp mtime_offset",
    "plic": "priority level pending claimed enable threshold",
    "uart": "fifo fifo_length ier fcr lcr mcr scr dll dlm overrun thre_pending",
    "rtc": "time_offset alarm alarm_armed irq_enabled irq_pending time_high",
    "entropy": "reads",
}
FIELDS = [(part, field) for part, fields in PARTS.items() for field in fields.split()]


def good(isa: str = "rv32im") -> dict[str, Any]:
    with boot(CODE, isa) as machine:
        machine.run(1000)
        return machine.state()


def test_a_state_has_these_fields() -> None:
    """A field that is added or renamed changes what every trace holds: that is a new machine revision."""
    state = good()
    assert {part: list(fields) for part, fields in state.items()} == {
        **{part: fields.split() for part, fields in PARTS.items()},
        "outputs": ["chain", "rest"],
    }
    assert (len(state["hart"]["x"]), len(state["hart"]["f"]), len(state["plic"]["priority"])) == (32, 32, 96)
    assert type(state["uart"]["fifo"]) is bytes
    assert len(state["uart"]["fifo"]) == 16


def refused(machine: Machine, state: Any) -> None:
    """Refused, and the machine is as it was."""
    before = machine.state(), machine.digest().value
    with pytest.raises(UsageError, match="state"):
        machine.set_state(state)
    assert (machine.state(), machine.digest().value) == before


WRONG = (
    None,
    -1,
    1 << 64,
    1.0,
    "1",
    b"",
    b"\0",
    [],
    [0],
    {},
    True,
    [0] * 33,
    b"\0" * 17,
    [None] * 32,
    [-1] * 32,
    [1 << 64] * 32,
)


@pytest.mark.parametrize(("part", "field"), FIELDS)
def test_a_field_of_another_type_or_size_is_refused(part: str, field: str) -> None:
    state = good()
    with boot(CODE) as machine:
        for wrong in WRONG:
            changed = copy.deepcopy(state)
            changed[part][field] = wrong
            refused(machine, changed)
        changed = copy.deepcopy(state)
        del changed[part][field]
        refused(machine, changed)
        changed = copy.deepcopy(state)
        changed[part]["more"] = 0
        refused(machine, changed)


def test_lists_and_bytes_are_not_taken_for_each_other() -> None:
    state = good()
    with boot(CODE) as machine:
        for part, field, wrong in (("hart", "x", bytes(32)), ("plic", "level", bytes(3)), ("uart", "fifo", [0] * 16)):
            changed = copy.deepcopy(state)
            changed[part][field] = wrong
            refused(machine, changed)


@pytest.mark.parametrize("part", [*PARTS, "outputs"])
def test_a_part_that_is_missing_or_another_thing_is_refused(part: str) -> None:
    state = good()
    with boot(CODE) as machine:
        for wrong in (None, [], 1, b"", {}, {"x": 1}):
            refused(machine, {**state, part: wrong})
        refused(machine, {name: value for name, value in state.items() if name != part})
        refused(machine, {**state, part + "2": state[part]})


@pytest.mark.parametrize("rest", [bytes(PAGE_SIZE), "", None, 7])
def test_damaged_outputs_are_refused(rest: Any) -> None:
    state = good()
    with boot(CODE) as machine:
        refused(machine, {**state, "outputs": {**state["outputs"], "rest": rest}})
        refused(machine, {**state, "outputs": {**state["outputs"], "chain": b"short"}})


@pytest.mark.parametrize(
    ("isa", "part", "field", "value"),
    [
        ("rv32im", "hart", "x", [1] + [0] * 31),
        ("rv32im", "hart", "x", [0] * 31 + [1 << 32]),
        ("rv32im", "hart", "f", [0] * 31 + [1]),
        ("rv32im", "hart", "pc", RAM_BASE + 1),
        ("rv32im", "hart", "pc", RAM_BASE + 2),
        ("rv64gc", "hart", "pc", RAM_BASE + 1),
        ("rv32im", "hart", "pc", 1 << 32),
        ("rv32im", "hart", "mepc", 2),
        ("rv32imac", "hart", "mepc", 1),
        ("rv32im", "hart", "mtvec", 2),
        ("rv32im", "hart", "mtvec", 1 << 32),
        ("rv32im", "hart", "mscratch", 1 << 32),
        ("rv32im", "hart", "mcause", 1 << 32),
        ("rv32im", "hart", "mtval", 1 << 32),
        ("rv32im", "hart", "priv", 0),
        ("rv32im", "hart", "mstatus", 0),
        ("rv32im", "hart", "mstatus", 0x1800 | MSTATUS_FS),
        ("rv64gc", "hart", "mstatus", 0x1801),
        ("rv32im", "hart", "mie", 1),
        ("rv32im", "hart", "mip", 1 << 40),
        ("rv64gc", "hart", "fflags", 32),
        ("rv64gc", "hart", "frm", 8),
        ("rv64imac", "hart", "frm", 1),
        ("rv32imac", "hart", "reservation", RAM_BASE + 2),
        ("rv32imac", "hart", "reservation", 0xFFFF_FFFF),
        ("rv32imac", "hart", "reservation", 1 << 32),
        ("rv32imac", "hart", "reserved_value", 1),
        ("rv32im", "time", "position", 1 << 62),
        ("rv32im", "time", "traps", 1001),
        ("rv32im", "time", "waiting", 2),
        ("rv32im", "time", "stopped", 5),
        ("rv32im", "uart", "fifo_length", 17),
    ],
)
def test_values_that_no_run_leaves_are_refused(isa: str, part: str, field: str, value: Any) -> None:
    state = good(isa)
    state[part][field] = value
    with boot(CODE, isa) as machine:
        refused(machine, state)


VALUES = st.one_of(
    st.sampled_from(
        (0, 1, 2, 3, 7, 10, 0x80, 0x88, 0x1800, 0x1888, 0x888, RAM_BASE, RAM_BASE + 4, NONE, NONE - 5, 1 << 63)
    ),
    st.integers(0, 2**64 - 1),
    st.integers(0, 255),
)
WIDTHS = {"plic": 32, "uart": 8, "rtc": 64, "hart": 64, "time": 64, "clint": 64, "entropy": 64}


def replaced(state: dict[str, Any], part: str, field: str, value: int) -> None:
    old = state[part][field]
    narrow = part == "plic" or (part == "rtc" and field not in ("time_offset", "alarm"))
    bits = 8 if part == "uart" else 32 if narrow else 64
    value %= 1 << bits
    if isinstance(old, list):
        state[part][field] = [0, *(value >> n % 7 for n in range(1, len(old)))]
    elif isinstance(old, bytes):
        state[part][field] = bytes((value + n) % 256 for n in range(len(old)))
    else:
        state[part][field] = value


@pytest.mark.parametrize("isa", PROFILES)
def test_what_is_accepted_runs_alike_everywhere(isa: str) -> None:
    """Whatever the fields hold: if the state is taken, all executors go on from it in the same way."""
    base = good(isa)

    @settings(FIXED, max_examples=120)
    @given(changes=st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=4))
    def check(changes: list[tuple[tuple[str, str], int]]) -> None:
        state = copy.deepcopy(base)
        for (part, field), value in changes:
            replaced(state, part, field, value)
        looks = []
        for engine in ENGINES:
            run = Run(boot(CODE, isa))
            try:
                run.machine.set_state(msgpack.unpackb(msgpack.packb(state)))
            except UsageError:
                run.close()
                return
            taken = run.machine.state()
            taken["hart"]["mip"] = state["hart"]["mip"]  # lines follow the devices, whatever the state says
            for name in ("level", "pending"):
                taken["plic"][name] = state["plic"][name]
            for name in ("alarm_armed", "irq_pending"):
                taken["rtc"][name] = state["rtc"][name]
            taken["time"]["waiting"] = state["time"]["waiting"]
            assert taken == state
            run.to(min(run.machine.position + 700, NONE), engine)
            looks.append(run.look())
            run.close()
        same(looks[0], looks[1])
        same(looks[0], looks[2])

    check()


@pytest.mark.parametrize("isa", ["rv32im", "rv64gc"])
def test_a_state_of_another_width_is_refused_or_fits(isa: str) -> None:
    other = {"rv32im": "rv64gc", "rv64gc": "rv32im"}[isa]
    state = good(other)
    state["hart"]["x"][5] = 1 << 32
    with boot(CODE, isa) as machine:
        if profile(isa).xlen == 32:
            refused(machine, state)
        else:
            machine.set_state(state)


# ------------------------------------------------------------------------------------------------ events and options


def test_events_for_another_position_are_refused() -> None:
    with boot(CODE, config={"time_rule": "stepped"}) as machine:
        machine.run(10)
        for event in (Input(9, b"x"), Clock(11, 5), Idle(0, 5)):
            with pytest.raises(UsageError, match="position"):
                machine.push(event)
    with boot(CODE) as machine, pytest.raises(UsageError, match="stepped"):
        machine.push(Clock(0, 5))


def test_entropy_of_another_size_or_position_is_refused() -> None:
    with boot(assemble(encode("lw", 5, 8), encode("jal")), x={8: 0x1020_0000}) as machine:
        assert machine.run(5) is Exit.PULL
        for event in (Entropy(0, b"abc"), Entropy(1, b"abcd"), Entropy(0, b"abcde")):
            with pytest.raises(UsageError, match="wants 4 bytes"):
                machine.supply(event)
        machine.supply(Entropy(0, b"abcd"))
        assert machine.run(5) is Exit.POSITION


@pytest.mark.parametrize(
    "values",
    [
        {"revision": 2}, {"isa": "rv32e"}, {"ram_size": 4096}, {"ram_size": RAM_SIZE_MIN + 1}, {"ram_size": 4 << 30},
        {"time_rule": "real"}, {"rtc_base_ns": -1}, {"rtc_base_ns": 1 << 64},
    ],
)  # fmt: skip
def test_configurations_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        MachineConfig(**values)
    with pytest.raises(UsageError):
        MachineConfig.from_dict({**MachineConfig().to_dict(), **values})


def test_a_configuration_comes_back_from_a_header() -> None:
    config = MachineConfig(isa="rv64gc", ram_size=1 << 20, time_rule="stepped", rtc_base_ns=5)
    assert MachineConfig.from_dict(msgpack.unpackb(msgpack.packb(config.to_dict()))) == config
    for wrong in (
        {},
        {**config.to_dict(), "more": 1},
        {**config.to_dict(), "ram_size": "1"},
        {**config.to_dict(), "revision": True},
    ):
        with pytest.raises(UsageError):
            MachineConfig.from_dict(wrong)


def test_memory_outside_is_not_read() -> None:
    with boot(CODE) as machine:
        assert machine.read_memory(RAM_BASE + RAM_SIZE_MIN - 4, 4) == bytes(4)
        for address, size in ((RAM_BASE + RAM_SIZE_MIN - 3, 4), (RAM_BASE - 1, 2), (0, 1), (0x1000_0000, 1)):
            with pytest.raises(UsageError):
                machine.read_memory(address, size)


def test_the_digest_is_the_one_that_digest_of_gives() -> None:
    with boot(assemble(encode("addi", 5, 5, imm=1), encode("sd", rs1=6, rs2=5)), "rv64gc", x={6: RAM_BASE + 64}) as one:
        one.run(2)
        one.push(Input(2, b"typed"))
        digest, state = one.digest(), one.state()
        assert digest.registers == state["hart"]
        del state["hart"], state["outputs"]
        assert digest.devices == digest_of(state)
        parts = {name: getattr(digest, name) for name in ("registers", "devices", "ram", "outputs")}
        assert digest.value == digest_of(parts)
