# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking out, while a machine runs, for instructions, accesses and traps (native/points.c).

While a log is open, `Machine.run` returns Exit.POINT when it is full: before an instruction, after the step of an
access or a trap, right behind the entry into an interrupt. A log that keeps the last hits never fills. The guest
sees nothing of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntFlag
from typing import Any, NamedTuple

from vmrec.errors import MachineError
from vmrec.machine.machine import Machine

__all__ = ["BreakPoint", "PointKind", "PointLog", "RawHit", "WatchRange"]

#: No step has more hits but one for each range: its instruction, an interrupt before it, a trap, and two accesses of
#: an atomic one. A device that it sets to work may store into each range.
STEP_ROOM = 8


class PointKind(IntFlag):
    """What a hit is; of a watched range, what is wanted."""

    BREAK = 1
    READ = 2
    WRITE = 4
    CHANGE = 8  #: only of a range: stores that change a byte of it, and all stores to devices
    TRAP = 16
    INTERRUPT = 32
    DEVICE = 64  #: only of a hit: the access was not to RAM
    PRIVILEGE = 128  #: a trap or return that changes the privilege mode: `before` and `value` are the modes
    ENTRY = 256  #: only of a hit: the entry into an interrupt changed it, before the step
    PHYSICAL = 512  #: only of a range: its addresses are physical


class BreakPoint(NamedTuple):
    """The instruction at `address`, where x register `register` holds `value`; register 0: wherever."""

    address: int
    register: int = 0
    value: int = 0


class WatchRange(NamedTuple):
    """`size` bytes (1 to 2**32) from `address` on; `space`: only accesses that this satp translates, 0 for any."""

    address: int
    size: int
    kinds: PointKind
    space: int = 0


class RawHit(NamedTuple):
    """Step `position` (an interrupt: the step that it comes before) and what it did.

    `value`: of an access, zero-extended; of traps what mcause says. `before`: what the store replaces. `space`: the
    satp that translates the access or the fetch of the instruction, 0 if none does. `physical`: where the first byte of
    an access is, `beyond` where it goes on if it goes on in the next page.
    """

    position: int
    kind: PointKind
    pc: int
    address: int
    size: int
    value: int
    before: int
    space: int
    physical: int
    beyond: int


class PointLog:
    """While it is open, the runs of `machine` look for these things. At most one at a time; a context manager.

    `room`: how many hits make a run return, or with `keep_last` how many of the last are kept.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        breaks: Iterable[BreakPoint] = (),
        ranges: Iterable[WatchRange] = (),
        traps: bool = False,
        privilege: bool = False,
        room: int = 1,
        keep_last: bool = False,
    ) -> None:
        self._lib, self._vm, self._ffi = machine.native
        ranges = list(ranges)
        self._step_room = STEP_ROOM + len(ranges)
        capacity = room + 3 * self._step_room  # `widen` can add to what one step has added
        self._hits = self._ffi.new("point_hit[]", capacity)
        self._log = self._ffi.new(
            "point_log *", {"hits": self._hits, "room": room, "capacity": capacity, "keep_last": keep_last}
        )
        places = sorted({place for place in breaks if 0 <= place.address < 1 << 64})
        kinds = (PointKind.TRAP | PointKind.INTERRUPT if traps else 0) | (PointKind.PRIVILEGE if privilege else 0)
        self._set(places, ranges, kinds, self._log)

    def _set(self, breaks: list[BreakPoint], ranges: list[WatchRange], kinds: int, log: Any) -> None:
        addresses, places = self._ffi.new("break_point[]", breaks), self._ffi.new("watch_range[]", ranges)
        if self._lib.vm_points_set(self._vm, addresses, len(breaks), places, len(ranges), kinds, log):
            raise MachineError("there is no memory left for more points")

    def close(self) -> None:
        """Looks for nothing any more."""
        self._set([], [], 0, self._ffi.NULL)

    def __enter__(self) -> PointLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def look_from(self, position: int) -> None:
        """Instructions and interrupts before `position` are no hits."""
        setattr(self._log, "from", position)

    def widen(self) -> None:
        """The log is not full until it has room for one more step: to see all that happens at one position."""
        self._log.room = self._log.count + self._step_room

    def narrow(self) -> None:
        """The log is full at the next hit. For an empty one, after `widen`."""
        self._log.room = 1

    @property
    def count(self) -> int:
        """Hits since the log was opened or taken from."""
        return int(self._log.count)

    def take(self) -> list[RawHit]:
        """The hits since the last call, in order; with `keep_last` the last of them."""
        room, count = int(self._log.room), self.count
        size = self._ffi.sizeof("point_hit")
        kept = min(count, room) if self._log.keep_last else count
        found = [
            RawHit(position, PointKind(kind), *rest)
            for position, kind, *rest in struct.iter_unpack("=10Q", self._ffi.buffer(self._hits, kept * size))
        ]
        self._log.count = 0
        if self._log.keep_last and count > room:
            at = count % room
            found = found[at:] + found[:at]
        return found
