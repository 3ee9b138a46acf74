# SPDX-License-Identifier: GPL-2.0-or-later
"""What searches find: accesses to memory, and calls of functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from vmrec.query.moment import Moment
from vmrec.query.track import Track
from vmrec.replay.points import Break

__all__ = ["Call", "MemoryAccess"]


@dataclass(frozen=True, slots=True)
class MemoryAccess:
    """A load or store that a step made. An atomic instruction makes one of each.

    `position`: of the step, which is about to execute at `moment` and done at `moment + 1`. `pc`: its instruction.
    `address`, `size` in bytes, `value` (little endian, unsigned): of the whole access, of which the range asked for
    may be a part. `old`: the value before a store into RAM, else None.
    """

    _track: Track = field(repr=False)
    position: int
    pc: int
    kind: Literal["read", "write"]
    address: int
    size: int
    value: int
    old: int | None

    @property
    def moment(self) -> Moment:
        """The moment at which the access is about to be made."""
        return Moment(self._track, self.position)

    @property
    def symbol(self) -> str | None:
        """Where `pc` is, e.g. "deposit+0x10"."""
        return self._track.names.symbol(self.pc)

    @property
    def source(self) -> str | None:
        """The source line of `pc`, e.g. "race.c:41"."""
        return self._track.names.line(self.pc)

    @property
    def name(self) -> str | None:
        """What lies at `address`, e.g. "counter" or "table+0x8"."""
        return self._track.names.symbol(self.address)

    def __str__(self) -> str:
        what = f"{self.name} ({self.address:#x})" if self.name else f"{self.address:#x}"
        value = f"{self.value:#x}" if self.old is None else f"{self.old:#x} → {self.value:#x}"
        place = self._track.names.place(self.pc)
        return f"{self._track.number(self.position)}: {place}: {self.kind} {self.size} at {what}: {value}"

    def __repr__(self) -> str:
        return f"<{self}>"


class Call:
    """A call of a function: how it was entered and, if it came back, what it returned. Immutable."""

    def __init__(self, track: Track, name: str, entry: Moment) -> None:
        self._track = track
        self._name = name
        self._entry = entry

    @property
    def name(self) -> str:
        """The function, as it was asked for."""
        return self._name

    @property
    def entry(self) -> Moment:
        """The moment at which its first instruction is about to execute."""
        return self._entry

    @property
    def position(self) -> int:
        """The position of `entry`."""
        return self._entry.position

    @cached_property
    def args(self) -> tuple[int, ...]:
        """a0 … a7 at the entry, unsigned; how many of them are arguments, the caller knows."""
        return tuple(self._entry.regs[number] for number in range(10, 18))

    @cached_property
    def caller(self) -> str | None:
        """Where it was called from, e.g. "main+0x14"; by ra, so a tail call counts as its caller's."""
        return self._track.names.symbol(self._entry.regs["ra"])

    @cached_property
    def exit(self) -> Moment | None:
        """The moment at which it is back: pc at the return address, sp as before. None if the run has no such."""
        regs = self._entry.regs
        points = [Break(regs["ra"])]
        for hit in self._track.timeline.hits(points, self.position + 1):
            moment = Moment(self._track, hit.step)
            if moment.regs["sp"] == regs["sp"]:
                return moment
        return None

    @property
    def value(self) -> int | None:
        """a0 when it came back, unsigned; None if it did not."""
        return None if self.exit is None else self.exit.regs["a0"]

    @property
    def steps(self) -> int | None:
        """Steps that it took, with all that it called and what interrupted it; None if it did not come back."""
        return None if self.exit is None else self.exit.position - self.position

    def __str__(self) -> str:
        args = ", ".join(f"{value:#x}" for value in self.args[:4])
        where = f"{self._track.number(self.position)}: {self.name}({args}, …)"
        if self.value is None:
            return f"{where} did not return"
        return f"{where} returned {self.value:#x} after {self._track.number(self.steps or 0)} steps"

    def __repr__(self) -> str:
        args = ", ".join(f"{value:#x}" for value in self.args[:4])
        return f"<call at {self._track.number(self.position)}: {self.name}({args}, …) from {self.caller or '?'}>"
