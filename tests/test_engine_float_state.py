# SPDX-License-Identifier: GPL-2.0-or-later
"""mstatus.FS says what floating-point instructions did, and nothing that the VMM does for the engine may change it."""

from __future__ import annotations

import pytest
from machines import MSTATUS_FS, assemble, boot, encode

from vmrec.machine.machine import Engine

INITIAL = 1 << 13 | 3 << 11  # FS initial; MPP is always machine mode here


@pytest.mark.parametrize("engine", ["auto", "engine", "stepper"])
def test_integer_code_leaves_fs_as_it_is(engine: Engine) -> None:
    """fflags travel to the engine by a write that dirties FS; the guest must not see it."""
    code = assemble(*[encode("addi", 5, 5, imm=1)] * 600, encode("jal"))
    with boot(code, "rv64gc", mstatus=INITIAL) as machine:
        machine.run(1000, engine=engine)

        assert machine.state()["hart"]["mstatus"] & MSTATUS_FS == INITIAL & MSTATUS_FS


@pytest.mark.parametrize("engine", ["auto", "engine", "stepper"])
def test_a_float_instruction_makes_fs_dirty(engine: Engine) -> None:
    """With either executor."""
    code = assemble(*[encode("addi", 5, 5, imm=1)] * 600, encode("fadd.s", 1, 2, 3, rm=7), encode("jal"))
    with boot(code, "rv64gc", mstatus=INITIAL) as machine:
        machine.run(1000, engine=engine)

        assert machine.state()["hart"]["mstatus"] & MSTATUS_FS == MSTATUS_FS
