# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching a machine's hart from outside: which step changed which register, and whether two machines did the same.

    RegisterLog     every step is noted: what it changed (for listings), or only what changed when last (for blame)
    fingerprint     a few hundred bytes that say whether two machines have executed the same steps, at full speed

Neither is seen by the guest. The names of registers are the ABI names, and those of the native core's hart record for
all that is neither x nor f; then, on a hart with supervisor mode, those of its supervisor record: pmpaddr0 to 15, and
pmpcfg0 and pmpcfg2 of eight entries each.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from vmrec.events import UINT64_MAX
from vmrec.isa.registers import ABI_NAMES, FLOAT_ABI_NAMES
from vmrec.machine.machine import Machine

__all__ = [
    "INTERRUPT", "TRAP", "RegisterChange", "RegisterLog", "fingerprint", "flat_registers", "forget_inflow",
    "register_names", "registers",
]  # fmt: skip

#: The name of a change that is no register but the entry into an interrupt.
INTERRUPT = "interrupt"
#: And of one that says that the step was a synchronous trap, whoever took it.
TRAP = "trap"
#: The most changes that one step can add to a log.
STEP_ROOM = 128
_FILES = {"x": ABI_NAMES, "f": FLOAT_ABI_NAMES}


class RegisterChange(NamedTuple):
    """In the step from `position` on the register `name` got `value`.

    With the name `INTERRUPT` it says that before this step the interrupt with the number `value` was entered, with
    `TRAP` that the step was a trap of the cause `value`.
    """

    position: int
    name: str
    value: int


#: The same of the supervisor record; what comes behind is a device's.
_ARRAYS = {"pmpaddr": tuple(f"pmpaddr{number}" for number in range(16)), "pmpcfg": ("pmpcfg0", "pmpcfg2")}
_DEVICE = "plic_enable"


@functools.cache
def _names(ffi: Any) -> tuple[str, ...]:
    """The words of the hart record, in its order."""
    names: list[str] = []
    for field, _ in ffi.typeof("hart_state").fields:
        names.extend(_FILES.get(field, (field,)))
    return tuple(names)


@functools.cache
def _supervisor_names(ffi: Any) -> tuple[str, ...]:
    """The words of the supervisor record up to the device's."""
    names: list[str] = []
    for field, _ in ffi.typeof("supervisor_state").fields:
        if field == _DEVICE:
            break
        names.extend(_ARRAYS.get(field, (field,)))
    return tuple(names)


def register_names(machine: Machine) -> tuple[str, ...]:
    """The names of all registers, in a fixed order."""
    ffi = machine.native[2]
    return _names(ffi) + (_supervisor_names(ffi) if machine.config.supervisor else ())


def _hart(machine: Machine) -> bytes:
    _, vm, ffi = machine.native
    return bytes(ffi.buffer(ffi.addressof(vm, "hart")))


def _supervisor(machine: Machine) -> bytes:
    _, vm, ffi = machine.native
    return bytes(ffi.buffer(ffi.addressof(vm, "supervisor"))) if machine.config.supervisor else b""


def registers(machine: Machine) -> dict[str, int]:
    """The value of every register, pc included."""
    names = register_names(machine)
    return dict(zip(names, struct.unpack_from(f"={len(names)}Q", _hart(machine) + _supervisor(machine)), strict=True))


def flat_registers(digested: Mapping[str, Any]) -> dict[str, Any]:
    """The registers of a digest by these names. A digest from a file may hold anything: that stays as it is."""
    found: dict[str, Any] = {}
    for field, value in digested.items():
        names = (_FILES | _ARRAYS).get(field, ())
        if field == "pmpcfg" and isinstance(value, bytes | list) and len(value) == 16:
            with contextlib.suppress(TypeError, ValueError):
                value = [int.from_bytes(bytes(value[first : first + 8]), "little") for first in (0, 8)]
        if isinstance(value, list) and len(value) == len(names):
            found.update(zip(names, value, strict=True))
        else:
            found[field] = value
    return found


class RegisterLog:
    """While it is open, each step of `machine` is executed by the stepper and its effect on the hart noted.

    Without `room` only `last_changes` is kept. With it also every change: at most that many until they are taken, or
    `Machine.run` returns Exit.CAPTURE_FULL. A step adds at most STEP_ROOM.
    """

    def __init__(self, machine: Machine, room: int | None = None) -> None:
        self._machine = machine
        _, vm, self._ffi = machine.native
        self._names = (*_names(self._ffi), *_supervisor_names(self._ffi), INTERRUPT, TRAP)
        self._last = self._ffi.new("uint64_t[]", [UINT64_MAX] * (len(self._names) - 2))
        self._log = self._ffi.new(
            "register_log *", {"seen": vm.hart, "supervisor": vm.supervisor, "last": self._last}
        )
        if room is not None:
            self._changes = self._ffi.new("register_change[]", room)
            self._log.changes, self._log.room = self._changes, room
        machine.log = self._log

    def close(self) -> None:
        """Ends the log; what was not taken is lost."""
        self._machine.log = None

    def take_changes(self) -> list[RegisterChange]:
        """The changes since the last call, in order."""
        size = int(self._log.count) * self._ffi.sizeof("register_change")
        found = struct.iter_unpack("=QQQ", self._ffi.buffer(self._log.changes, size)) if size else ()
        self._log.count = 0
        return [RegisterChange(position, self._names[word], value) for position, word, value in found]

    def last_changes(self) -> dict[str, int]:
        """Register → position of the last step that changed it, since the log was opened; without the others."""
        last = zip(self._names, self._last, strict=False)
        return {name: int(position) for name, position in last if position != UINT64_MAX}


def forget_inflow(machine: Machine) -> None:
    """Makes `fingerprint` begin here."""
    machine.native[1].inflow = 0


def fingerprint(machine: Machine) -> bytes:
    """What tells, at no cost while running, whether two machines have done the same.

    If their registers and RAM were equal when `forget_inflow` was last called for both, then equal fingerprints mean
    that they executed the same steps since, and that registers and RAM are equal again (native/registers.c says why).
    Pending interrupts that had no effect yet are left out.
    """
    hart, ffi = _hart(machine), machine.native[2]
    mip = ffi.offsetof("hart_state", "mip")
    return hart[:mip] + hart[mip + 8 :] + _supervisor(machine) + int(machine.native[1].inflow).to_bytes(8, "little")
