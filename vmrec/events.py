# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that can make two runs of one guest differ, and everything a run does to the outside.

One frozen record per kind. *Events* come in, *outputs* go out; nothing else crosses the machine's border.

    kind      way in/out      recorded when                         replay does
    input     pushed          bytes entered the console's receiver  pushes it at the same position
    clock     pushed          guest time was set (stepped rule)     sets it at the same position
    idle      pushed          wfi ended early by an input           adds the idle steps
    entropy   pulled          the guest read an entropy device      answers with the bytes; position must agree
    disk      pulled          a drive's block was first needed      brings it; position and block must agree
    poke      pushed          the user changed RAM (vmrec fork)     changes it at the same position
    set       pushed          the user changed a register           changes it at the same position
    console   output          the guest wrote to the console        compares
    written   output          the guest wrote to a drive            compares
    stop      output          power off, reset, or a dead end       compares

On the wire each record is a msgpack array `[kind, position, field…]`. A position n means: n steps are done. An
event at n is applied before the step n → n+1; an output of that step carries n.

The layout of these records is part of the trace format: `tests/test_layout.py` freezes it. Edits by the user (poke,
set) are only in traces of format version 2 and later, those of drives (disk, written) from version 3 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

__all__ = [
    "EVENT_KINDS",
    "OUTPUT_KINDS",
    "Clock",
    "Console",
    "Disk",
    "Entropy",
    "Event",
    "Idle",
    "Input",
    "Output",
    "Poke",
    "Record",
    "SetRegister",
    "Stop",
    "Written",
    "from_wire",
]

#: Largest position, tick or step count that a record may carry (unsigned 64 bit).
UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Record:
    """Common part: `position` in steps since reset, 0 ≤ position < 2**64."""

    kind: ClassVar[str] = ""
    position: int

    def wire(self) -> list[Any]:
        """The record as the list that msgpack packs."""
        return [self.kind, *(getattr(self, field.name) for field in fields(self))]


@dataclass(frozen=True, slots=True)
class Input(Record):
    """Bytes that entered the UART's receive FIFO (1 to 16) or a virtio console's buffer (1 to 1024), in order."""

    kind: ClassVar[str] = "input"
    data: bytes


@dataclass(frozen=True, slots=True)
class Clock(Record):
    """Guest time was set to `ticks` of the timebase (only under the stepped time rule; never backwards)."""

    kind: ClassVar[str] = "clock"
    ticks: int


@dataclass(frozen=True, slots=True)
class Idle(Record):
    """The guest waited in wfi for `steps` step times before something from outside arrived."""

    kind: ClassVar[str] = "idle"
    steps: int


@dataclass(frozen=True, slots=True)
class Entropy(Record):
    """Bytes that the guest pulled from the entropy device (4) or a virtio-rng (1 to 65536)."""

    kind: ClassVar[str] = "entropy"
    data: bytes


@dataclass(frozen=True, slots=True)
class Disk(Record):
    """A block (4096 bytes) of a drive that nobody had touched before was needed; `hash` names its content."""

    kind: ClassVar[str] = "disk"
    drive: int
    block: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Poke(Record):
    """The user replaced bytes of RAM, from `address` on (1 to 4096)."""

    kind: ClassVar[str] = "poke"
    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SetRegister(Record):
    """The user gave a register (`vmrec.machine.edits` has the names) another value."""

    kind: ClassVar[str] = "set"
    register: str
    value: int


@dataclass(frozen=True, slots=True)
class Console(Record):
    """Bytes that the guest transmitted on its UART or its virtio console."""

    kind: ClassVar[str] = "console"
    data: bytes


@dataclass(frozen=True, slots=True)
class Written(Record):
    """The guest wrote `count` bytes to a drive, from sector (512 bytes) `sector` on; what, the pages' hashes cover."""

    kind: ClassVar[str] = "written"
    drive: int
    sector: int
    count: int


@dataclass(frozen=True, slots=True)
class Stop(Record):
    """The machine ended its own run: `reason` poweroff, reset, waiting-for-ever or trap-loop; `code` the exit code."""

    kind: ClassVar[str] = "stop"
    reason: str
    code: int


Event = Input | Clock | Idle | Entropy | Disk | Poke | SetRegister
Output = Console | Written | Stop

EVENT_KINDS: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Input, Clock, Idle, Entropy, Disk, Poke, SetRegister)
}
OUTPUT_KINDS: dict[str, type[Output]] = {cls.kind: cls for cls in (Console, Written, Stop)}
_NUMBERS = ("position", "ticks", "steps", "code", "address", "value", "drive", "block", "sector", "count")
_FIELD_TYPES = {
    **dict.fromkeys(_NUMBERS, int),
    **dict.fromkeys(("reason", "register"), str),
    **dict.fromkeys(("data", "hash"), bytes),
}
_HASH_SIZE = 32


def from_wire(wire: Sequence[Any]) -> Event | Output:
    """The record that `wire` (kind first) describes.

    Raises ValueError with a sentence if the kind is unknown, a field is missing or of the wrong type, or a number is
    outside 0 … 2**64-1. The input is hostile: it comes from a file.
    """
    kind = wire[0] if wire else None
    cls = (EVENT_KINDS.get(kind) or OUTPUT_KINDS.get(kind)) if isinstance(kind, str) else None
    if cls is None:
        raise ValueError(f"{kind!r:.40} is not a kind of event or output")
    names = [field.name for field in fields(cls)]
    if len(wire) != len(names) + 1:
        raise ValueError(f"a record of kind {kind} has {len(names)} fields, not {len(wire) - 1}")
    for name, value in zip(names, wire[1:], strict=True):
        if type(value) is not _FIELD_TYPES[name]:
            raise ValueError(f"{kind}.{name} is {type(value).__name__}, expected {_FIELD_TYPES[name].__name__}")
        if isinstance(value, int) and not 0 <= value <= UINT64_MAX:
            raise ValueError(f"{kind}.{name} = {value} is outside 0 … 2**64-1")
        if name == "hash" and isinstance(value, bytes) and len(value) != _HASH_SIZE:
            raise ValueError(f"{kind}.{name} has {len(value)} bytes, not {_HASH_SIZE}")
    return cls(*wire[1:])
