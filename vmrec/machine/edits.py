# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers that a user may give other values: their names, and the state that comes of it.

    x and f registers by ABI name (a0, fs1) · pc · CSRs that the hart holds as such: `HELD`

What a machine cannot reach by itself is refused by `Machine.set_state`, as for every state that comes from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmrec.errors import UsageError
from vmrec.isa.registers import ABI_NAMES, FLOAT_ABI_NAMES, register_number
from vmrec.machine.board import MachineConfig

__all__ = ["HELD", "canonical", "edited"]

#: Fields of the hart's record that may be set.
HELD = ("pc", "mstatus", "mie", "mtvec", "mscratch", "mepc", "mcause", "mtval", "fflags", "frm")


def canonical(config: MachineConfig, name: str) -> str:
    """The name by which an event calls a register. Raises UsageError if such a machine has none of that name."""
    if name in HELD:
        return name
    floats = "F" in config.profile.extensions
    number = register_number(name)
    is_float = name in FLOAT_ABI_NAMES or (name.startswith("f") and name[1:].isdigit())
    if number is None or (is_float and not floats) or (not is_float and number == 0):
        raise UsageError(
            f"{name[:40]!r} is no register that can be set: x registers (ra, sp, a0, x10, …; not zero), "
            f"{'f registers (fa0, f10, …), ' if floats else ''}and {', '.join(HELD)} can."
        )
    return (FLOAT_ABI_NAMES if is_float else ABI_NAMES)[number]


def edited(config: MachineConfig, state: Mapping[str, Any], name: str, value: int) -> dict[str, Any]:
    """`state` with another value in register `name`. Raises UsageError if there is no such register."""
    name = canonical(config, name)
    hart = dict(state["hart"])
    if name in HELD:
        hart[name] = value
    else:
        kind, names = ("f", FLOAT_ABI_NAMES) if name in FLOAT_ABI_NAMES else ("x", ABI_NAMES)
        values = list(hart[kind])
        values[names.index(name)] = value
        hart[kind] = values
    return {**state, "hart": hart}
