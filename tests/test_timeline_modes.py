# SPDX-License-Identifier: GPL-2.0-or-later
"""The timeline where there are modes and paging: changes of the privilege mode as points, memory as the mode has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain_timeline
import pytest
from forging import changed, forge
from machines import assemble, csr, encode, image
from recordings import CREATED
from test_guest_loading import Load, make_elf

import vmrec
from vmrec.guest.elf import load_guest
from vmrec.machine.board import RAM_BASE, MachineConfig
from vmrec.machine.machine import Machine
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import LiveRun, World
from vmrec.record.sources import SeededEntropy
from vmrec.replay.explain import explain, render
from vmrec.replay.player import Player
from vmrec.replay.points import PrivilegeChange, Traps
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

T0, T1, A0, A1 = 5, 6, 10, 11
CALLS, USER = 5, 0x4000_0000
FINISHER, CLINT_MTIMECMP = 0x10_0000, 0x0200_4000
SRET = encode("sret", isa="rv64gcsu")


def li(rd: int, value: int) -> bytes:
    """A constant of 32 bits, unsigned, always in four instructions."""
    upper = value + 0x800 & 0xFFFFF000
    shifts = encode("slli", rd, rd, imm=32), encode("srli", rd, rd, imm=32)
    return assemble(encode("lui", rd, imm=upper), encode("addiw", rd, rd, imm=value - upper & 0xFFF), *shifts)


def set_csr(name: str, value: int) -> bytes:
    return li(T0, value) + assemble(csr("csrrw", name, 0, T0))


def program(*, timer: bool) -> bytes:
    """Machine mode sets up and goes to supervisor mode, that to user mode, at an address that paging makes.

    User mode calls supervisor mode a few times, which at last calls machine mode, which powers off. With `timer` an
    interrupt takes user mode to machine mode and back in between.
    """
    table, m_handler, s_code, s_handler, u_code = (RAM_BASE + 0x1000 * number for number in range(1, 6))
    deadline = li(T0, CLINT_MTIMECMP) + li(T1, 2) + assemble(encode("sd", rs1=T0, rs2=T1)) + set_csr("mie", 0x80)
    giga = (  # 0: devices, 1: RAM for user mode, 2: RAM for supervisor mode
        (0x0 << 10 | 0xC7).to_bytes(8, "little")
        + (RAM_BASE >> 12 << 10 | 0xDF).to_bytes(8, "little")
        + (RAM_BASE >> 12 << 10 | 0xCF).to_bytes(8, "little")
    )
    minus = assemble(encode("addi", T0, imm=-1 & 0xFFF))
    parts = {
        RAM_BASE: minus + assemble(csr("csrrw", "pmpaddr0", 0, T0)) + set_csr("pmpcfg0", 0x1F)
        + set_csr("mtvec", m_handler) + set_csr("medeleg", 1 << 8) + (deadline if timer else b"")
        + set_csr("mstatus", 0x800) + set_csr("mepc", s_code) + assemble(encode("mret")),
        table: giga,
        m_handler: assemble(csr("csrrs", "mcause", T0), encode("bge", rs1=T0, imm=36))
        + li(T0, CLINT_MTIMECMP)
        + assemble(encode("addi", T1, imm=0xFFF), encode("sd", rs1=T0, rs2=T1), encode("mret"), encode("addi"))
        + li(T0, FINISHER) + li(T1, 0x5555) + assemble(encode("sw", rs1=T0, rs2=T1)),
        s_code: li(T0, 8) + assemble(encode("slli", T0, T0, imm=60)) + li(T1, table >> 12)
        + assemble(encode("or", T0, T0, T1), csr("csrrw", "satp", 0, T0))
        + set_csr("stvec", s_handler) + set_csr("sepc", USER + u_code - RAM_BASE)
        + assemble(SRET),
        s_handler: assemble(csr("csrrs", "sepc", T0), encode("addi", T0, T0, imm=4), csr("csrrw", "sepc", 0, T0))
        + assemble(encode("addi", A1, A1, imm=1), encode("addi", T1, imm=CALLS), encode("beq", rs1=A1, rs2=T1, imm=8))
        + assemble(SRET, encode("ecall")),
        u_code: (assemble(*[encode("addi", A0, A0, imm=1)] * 50) + assemble(encode("ecall"))) * CALLS,
    }  # fmt: skip
    return image({address - RAM_BASE: part for address, part in parts.items()})


def recorded_program(folder: Path, code: bytes) -> Path:
    """A recording of `code`, the whole of a guest's RAM that is not zero, which powers off by itself."""
    elf, path = folder / "program.elf", folder / "program.vmrec"
    elf.write_bytes(make_elf(Load(data=code, flags=7), xlen=64))
    guest = load_guest(elf)
    with Machine(MachineConfig(isa="rv64gcsu"), guest) as machine:
        writer = TraceWriter(path, make_header(machine, capture="inputs", seed=1, chaos=None, created=CREATED))
        sink = TraceSink(writer)
        ended = LiveRun(machine, World(SeededEntropy(1)), sink=sink, max_insns=5000).run()
        sink.close(machine, ended)
    assert (ended.reason, ended.exit_code) == ("poweroff", 0)
    return path


def recorded(folder: Path, *, timer: bool) -> Path:
    return recorded_program(folder, program(timer=timer))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return recorded(tmp_path, timer=False)


def test_changes_of_the_mode_are_found_both_ways(path: Path) -> None:
    point = PrivilegeChange()
    with TraceReader(path) as trace, TraceReader(path) as other, Timeline(trace) as timeline:
        plain = plain_timeline.Timeline(other)
        hits = list(timeline.hits([point]))
        assert len(hits) == 2 + 2 * CALLS  # mret, sret, each call and its return but the last, and the last call of all
        modes = []
        for hit in hits:
            stop = timeline.run([point])
            assert (stop.reason, stop.position, stop.hits) == ("hit", hit.forward, (hit,))
            assert plain.run([point]) == stop
            modes.append(timeline.state.privilege)
        assert modes == [1, *[0, 1] * CALLS, 3]
        assert timeline.run([point]).reason == "end"
        for hit in reversed(hits):
            stop = timeline.reverse_run([point])
            assert (stop.reason, stop.position, stop.hits) == ("hit", hit.backward, (hit,))
        assert timeline.reverse_run([point]).reason == "begin"
        assert list(timeline.hits([point], newest_first=True)) == hits[::-1]
        plain.close()


def test_an_interrupt_that_changes_the_mode_is_one(tmp_path: Path) -> None:
    with TraceReader(recorded(tmp_path, timer=True)) as trace, Timeline(trace) as timeline:
        (entry,) = timeline.hits([Traps(exceptions=False)])
        entries = [hit for hit in timeline.hits([PrivilegeChange()]) if hit.forward == hit.step]
        assert [hit.step for hit in entries] == [entry.step]
        timeline.seek(entry.step - 1)
        assert timeline.state.privilege == 0
        assert timeline.run([PrivilegeChange()]).position == entry.step
        assert timeline.state.privilege == 3


def test_memory_is_what_the_mode_sees(path: Path) -> None:
    with vmrec.open(path) as run:
        code = run[0].phys[RAM_BASE + 0x5000 : RAM_BASE + 0x5010]
        assert run[0].mem[RAM_BASE + 0x5000 : RAM_BASE + 0x5010] == code
        user = next(moment for moment in run if moment.privilege == 0)
        assert user.mem[USER + 0x5000 : USER + 0x5010] == code
        assert user.phys[RAM_BASE + 0x5000 : RAM_BASE + 0x5010] == code
        assert user.disasm() == "addi a0, a0, 1"
        with pytest.raises(vmrec.UsageError, match="nothing is mapped"):
            user.mem.read(0xC000_0000, 4)
        with pytest.raises(vmrec.UsageError):
            user.phys.read(USER, 4)


def test_a_wrong_digest_names_supervisor_registers_and_who_wrote_them(path: Path) -> None:
    wrong = {"sepc": 0x1234, "pmpaddr": [5, *[0] * 15], "pmpcfg": bytes(16), "pc": 0}

    def edit(obj: list[Any]) -> list[Any]:
        return [*obj[:2], {**obj[2], "value": bytes(32), "registers": {**obj[2]["registers"], **wrong}}]

    with TraceReader(path) as trace:
        last = len(list(trace.digests)) - 1
    forged = forge(path, path.with_name("forged.vmrec"), changed("digest", last, edit))
    with TraceReader(forged) as trace:
        with Player(trace) as player:
            found = player.run()
        assert found is not None
        found = explain(trace, found)
    assert {name: expected for name, (expected, _) in found.registers.items()} == {
        "sepc": 0x1234, "pmpaddr0": 5, "pmpcfg0": 0, "pc": 0
    }  # fmt: skip
    assert found.registers["pmpcfg0"][1] == 0x1F
    writers = {writer.what: writer.text for writer in found.writers}
    assert set(writers) == {"sepc", "pmpaddr0", "pmpcfg0"}
    assert writers["pmpcfg0"] == "csrw pmpcfg0, t0"
    assert writers["sepc"] == "csrw sepc, t0"
    text = render(found)
    assert "pmpaddr0: expected 0x5" in text
