# SPDX-License-Identifier: GPL-2.0-or-later
"""What a hart with supervisor and user mode can hold: the ranges of its registers, for states that come from files.

    hart        mstatus, mie and mip have more bits than with machine mode alone
    supervisor  the registers of native/vmrec.h's supervisor_state
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["impossible_supervisor"]

MSTATUS = 0x7E_79AA
INTERRUPTS = 0xAAA
SUPERVISOR_INTERRUPTS = 0x222
CAUSES = 0xB3FF
ENVIRONMENT = 1 << 63 | 1
#: Where the VMM is the firmware: every cause but its own calls.
DELEGATED = 0xB1FF


def impossible_supervisor(
    xlen: int, hart: Mapping[str, Any], supervisor: Mapping[str, Any], *, sbi: bool = False
) -> str | None:
    """The first field with a value that no run of a hart of `xlen` bits leaves there, or None.

    `sbi`: the VMM is the firmware (native/sbi.c), so that no trap may lead to machine mode.
    """
    word = (1 << xlen) - 1
    address = word if xlen == 32 else (1 << 54) - 1
    ranges = {
        "hart.priv": hart["priv"] in (0, 1, 3),
        "hart.mstatus": hart["mstatus"] & ~MSTATUS == 0 and hart["mstatus"] >> 11 & 3 != 2,
        "hart.mie": hart["mie"] & ~INTERRUPTS == 0,
        "hart.mip": hart["mip"] & ~INTERRUPTS == 0,
        "supervisor.medeleg": supervisor["medeleg"] & ~CAUSES == 0,
        "supervisor.mideleg": supervisor["mideleg"] & ~SUPERVISOR_INTERRUPTS == 0,
        "supervisor.soft_mip": supervisor["soft_mip"] & ~SUPERVISOR_INTERRUPTS == 0,
        "supervisor.mcounteren": supervisor["mcounteren"] < 1 << 32,
        "supervisor.scounteren": supervisor["scounteren"] < 1 << 32,
        "supervisor.menvcfg": supervisor["menvcfg"] & ~ENVIRONMENT == 0,
        "supervisor.senvcfg": supervisor["senvcfg"] <= 1,
        "supervisor.stvec": supervisor["stvec"] & ~word == 0 and supervisor["stvec"] & 3 < 2,
        "supervisor.sepc": supervisor["sepc"] & ~(word & -2) == 0,
        **{f"supervisor.{name}": supervisor[name] <= word for name in ("sscratch", "scause", "stval")},
        "supervisor.fault_pc": supervisor["fault_pc"] & ~(word & -2) == 0,
        "supervisor.faults": supervisor["faults"] <= 1 << 16,
        "supervisor.satp": supervisor["satp"] <= word and (xlen == 32 or supervisor["satp"] >> 60 in (0, 8, 9)),
        "supervisor.pmpaddr": all(value <= address for value in supervisor["pmpaddr"]),
        "supervisor.pmpcfg": all(_legal(value) for value in supervisor["pmpcfg"]),
        "supervisor.plic_enable": supervisor["plic_enable"][0] & 1 == 0,
        "supervisor.plic_threshold": supervisor["plic_threshold"] <= 7,
    }
    if sbi:
        ranges |= {
            "hart.priv": hart["priv"] in (0, 1),
            "hart.mie": hart["mie"] & ~SUPERVISOR_INTERRUPTS == 0,
            "supervisor.medeleg": supervisor["medeleg"] == DELEGATED,
            "supervisor.mideleg": supervisor["mideleg"] == SUPERVISOR_INTERRUPTS,
            "supervisor.menvcfg": supervisor["menvcfg"] == 1 << 63,
            "supervisor.pmpcfg": supervisor["pmpcfg"] == bytes([0x1F, *bytes(15)]),
            "supervisor.pmpaddr": supervisor["pmpaddr"] == [address, *[0] * 15],
        }
    return next((name for name, possible in ranges.items() if not possible), None)


def _legal(pmpcfg: int) -> bool:
    """No reserved bits, not writable without being readable, and not NA4."""
    return pmpcfg & 0x60 == 0 and pmpcfg & 3 != 2 and pmpcfg & 0x18 != 0x10
