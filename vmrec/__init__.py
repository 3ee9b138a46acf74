# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec records the run of a RISC-V guest, replays it bit for bit, and tells two runs apart.

Importing this package does no work: the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmrec.errors import GuestError, MachineError, PositionError, SetupError, TraceError, UsageError, VmrecError
    from vmrec.guest.elf import Guest, load_guest
    from vmrec.query.moment import Moment
    from vmrec.query.run import Run
    from vmrec.query.run import open_run as open

__all__ = [
    "Guest",
    "GuestError",
    "MachineError",
    "Moment",
    "PositionError",
    "Run",
    "SetupError",
    "TraceError",
    "UsageError",
    "VmrecError",
    "__version__",
    "load_guest",
    "open",
]

__version__ = "0.1.0"

#: Where each name comes from: a module, and what it is called there.
_HOME = {
    "Guest": ("vmrec.guest.elf", "Guest"),
    "GuestError": ("vmrec.errors", "GuestError"),
    "MachineError": ("vmrec.errors", "MachineError"),
    "Moment": ("vmrec.query.moment", "Moment"),
    "PositionError": ("vmrec.errors", "PositionError"),
    "Run": ("vmrec.query.run", "Run"),
    "SetupError": ("vmrec.errors", "SetupError"),
    "TraceError": ("vmrec.errors", "TraceError"),
    "UsageError": ("vmrec.errors", "UsageError"),
    "VmrecError": ("vmrec.errors", "VmrecError"),
    "load_guest": ("vmrec.guest.elf", "load_guest"),
    "open": ("vmrec.query.run", "open_run"),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vmrec' has no attribute {name!r}")
    module, attribute = _HOME[name]
    value: object = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
