# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec records the run of a RISC-V guest, replays it bit for bit, and tells two runs apart.

Importing this package does no work: the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmrec.errors import GuestError, MachineError, SetupError, TraceError, UsageError, VmrecError
    from vmrec.guest.elf import Guest, load_guest

__all__ = [
    "Guest",
    "GuestError",
    "MachineError",
    "SetupError",
    "TraceError",
    "UsageError",
    "VmrecError",
    "__version__",
    "load_guest",
]

__version__ = "0.1.0"

_HOME = {
    "Guest": "vmrec.guest.elf",
    "GuestError": "vmrec.errors",
    "MachineError": "vmrec.errors",
    "SetupError": "vmrec.errors",
    "TraceError": "vmrec.errors",
    "UsageError": "vmrec.errors",
    "VmrecError": "vmrec.errors",
    "load_guest": "vmrec.guest.elf",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vmrec' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
