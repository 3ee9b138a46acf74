# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests' consoles on vmrec and on QEMU's `virt` board: the same bytes, where QEMU is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from machines import GUESTS, Run, shipped

from vmrec.machine.board import MachineConfig
from vmrec.machine.machine import Exit, Machine

pytestmark = pytest.mark.qemu

#: Seconds after which something is wrong; each run takes a fraction of one.
TIMEOUT = 60
#: The guests that guests/README.md says print the same; `counters` needs QEMU to count instructions.
SAME = ("hello", "sort", "timer", "traps", "smc", "mixed", "lrsc", "lrsc64", "loop-smc", "loop-mmio", "paging",
        "paging32")  # fmt: skip
COUNTED = ("counters",)

#: Where Unicorn 2.1.4 departs from the manual in floating point, QEMU 7.2 does not, and machine revision 1 keeps it.
BOXING = "a single result has zeros above it, not ones"
UNBOXED = "a single operand that is not boxed is taken as it is, not as a NaN"
SIGNALLING = "fmin and fmax of a number and a signalling NaN give NaN, not the number"
FUSED = "inf * 0 + NaN is not an invalid operation"


def on_qemu(name: str, *options: str, stdin: bytes = b"") -> tuple[bytes, int]:
    guest = shipped(name)
    program = f"qemu-system-riscv{guest.xlen}"
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: nothing to compare {name} with")
    cpu = ("-cpu", "rv32,c=false") if guest.isa == "rv32im" else ()
    command = [program, "-machine", "virt", "-bios", "none", "-display", "none", "-serial", "stdio", "-monitor", "none",
               *cpu, *options, "-kernel", str(GUESTS / f"{name}.elf")]  # fmt: skip
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT, check=False)
    assert result.stderr == b"", result.stderr.decode()
    return result.stdout.replace(b"\r\n", b"\n"), result.returncode


def on_vmrec(name: str, isa: str | None = None) -> tuple[bytes, int]:
    run = Run.of(name) if isa is None else Run(Machine(MachineConfig(isa=isa, ram_size=1 << 20), shipped(name)))
    assert run.to(10**9) is Exit.STOPPED
    result = run.console().replace(b"\r\n", b"\n"), run.machine.exit_code
    run.close()
    return result


@pytest.mark.parametrize("name", SAME)
def test_the_same_console(name: str) -> None:
    assert on_qemu(name) == on_vmrec(name)


@pytest.mark.parametrize("name", COUNTED)
def test_the_same_console_when_instructions_are_counted(name: str) -> None:
    assert on_qemu(name, "-icount", "shift=0") == on_vmrec(name)


def departure(qemu: str, vmrec: str, section: str) -> str | None:
    """Which of the known departures a line shows; None if it is another."""
    name, value, _, flags = qemu.split()
    other_name, other, _, other_flags = vmrec.split()
    if name != other_name:
        return None
    if name in ("fmin.s", "fmax.s", "fmin.d", "fmax.d") and flags == other_flags == "16":
        return SIGNALLING
    if flags == other_flags and int(value, 16) == 0xFFFF_FFFF << 32 | int(other, 16):
        return BOXING
    if name.startswith("fmadd") and value == other and (flags, other_flags) == ("16", "0"):
        return FUSED
    return UNBOXED if section == "nan boxing" and name in ("fadd.s", "fsgnj.s", "fclass.s") else None


def test_floating_point_is_the_same_but_for_what_is_known() -> None:
    theirs, ours = (console.decode().split("\n") for console in (on_qemu("fp")[0], on_vmrec("fp")[0]))
    section, found = "", set()
    assert len(theirs) == len(ours) > 300
    for qemu, vmrec in zip(theirs, ours, strict=True):
        section = section if " " in qemu and "0x" in qemu else qemu
        if qemu != vmrec:
            reason = departure(qemu, vmrec, section)
            assert reason, f"QEMU: {qemu}, vmrec: {vmrec}"
            found.add(reason)
    assert found == {BOXING, UNBOXED, SIGNALLING, FUSED}, "a departure that is gone must go from here too"


def test_floating_point_of_revision_2_is_the_same() -> None:
    assert on_qemu("fp") == on_vmrec("fp", "rv64gcsu")
