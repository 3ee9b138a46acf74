# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests' consoles on vmrec and on QEMU's `virt` board: the same bytes, where QEMU is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from machines import GUESTS, Run, shipped

from vmrec.machine.machine import Exit

pytestmark = pytest.mark.qemu

#: Seconds after which something is wrong; each run takes a fraction of one.
TIMEOUT = 60
#: The guests that guests/README.md says print the same; `counters` needs QEMU to count as we do.
SAME = ("hello", "sort", "timer", "traps", "smc", "mixed", "lrsc", "lrsc64", "fp", "loop-smc", "loop-trap", "loop-mmio", "flood")
COUNTED = ("counters", "race")


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


def on_vmrec(name: str) -> tuple[bytes, int]:
    run = Run.of(name)
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
