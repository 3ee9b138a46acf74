# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run through a trace can look for, and what it reports when it has found it.

    point             step n is a hit if                        forwards stops at    backwards stops at
    Break             its instruction is at an address          n                    n
    Watch             it loads from or stores into a range      n + 1                n
    Traps             it traps                                  n + 1                n
                      an interrupt is entered before it         n                    n
    PrivilegeChange   the privilege differs after it            n + 1                n
                      it differs by an interrupt before it      n                    n
    Records           an output was made by it                  n + 1                n
                      an event was given before it              n                    n

Addresses are those that instructions name: virtual ones, if a page table translates them. The same address may mean
another thing in another address space, of which each value of satp is one; a Break or Watch with a `space` looks there
alone. One that is set while looking at a moment mostly means the space of that moment: `State.space_of` tells it.

Forwards from p the first hit counts that stops behind p, backwards the last that stops before p: what has just been
done is found when going back, and what is about to be done when going on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from vmrec.machine.rows import Access

__all__ = [
    "Break", "Condition", "Hit", "Point", "PrivilegeChange", "Records", "State", "Stop", "Traps", "Watch", "holds",
]  # fmt: skip


class State(Protocol):
    """What can be seen of a machine at a position. Reading has no effect on it, on devices neither."""

    @property
    def position(self) -> int:
        """Steps since reset."""

    @property
    def icount(self) -> int:
        """Instructions retired since reset."""

    @property
    def pc(self) -> int:
        """Address of the instruction that the next step executes."""

    @property
    def xlen(self) -> int:
        """32 or 64."""

    @property
    def has_float(self) -> bool:
        """Whether the hart has the registers f0 to f31."""

    @property
    def regs(self) -> list[int]:
        """x0 to x31, unsigned, XLEN bits."""

    @property
    def fregs(self) -> list[int]:
        """f0 to f31, raw 64-bit values; zeros without the F extension."""

    @property
    def csrs(self) -> dict[str, int]:
        """Every CSR that the hart has and may read now, by name."""

    @property
    def privilege(self) -> int:
        """Privilege mode: 3 is machine mode."""

    @property
    def space(self) -> int:
        """The address space that addresses are translated in: a value of satp; 0 if nothing is translated."""

    @property
    def mtime(self) -> int:
        """Guest time in ticks of the timebase (10 MHz)."""

    def space_of(self, address: int) -> int | None:
        """What `space` a watch of `address` has that means what the address means here.

        That is the present address space; None, for any, if nothing is translated or the page is a global one, the
        same in all address spaces (most kernels mark their own so).
        """

    def physical(self, address: int) -> int:
        """Where `address` leads here. Raises UsageError where nothing is mapped."""

    def read_memory(self, address: int, size: int) -> bytes:
        """`size` bytes of RAM or boot ROM at a physical address. Raises UsageError where there is neither."""

    def read_virtual(self, address: int, size: int) -> bytes:
        """As `read_memory`, at an address as the hart's present mode has it, whatever rights its page has.

        Raises UsageError where nothing is mapped, or what is mapped is neither RAM nor boot ROM.
        """


#: Asked with the state where the run would stop. It must not move the timeline.
Condition = Callable[[State], bool]


@dataclass(frozen=True, slots=True)
class Break:
    """The instruction at `address`; with `space` in that address space alone.

    `register`: (number, value), only where that x register (1 to 31) holds it. Unlike a condition the machine sees to
    that itself, so that millions of places where it does not hold cost little. `Timeline.hits` leaves them out too,
    unless another point is at the same address.
    """

    address: int
    condition: Condition | None = None
    space: int | None = None
    register: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """Accesses to `size` bytes (1 to 2**32) from `address` on: memory or a device; fetches are none.

    `kind`: write any store, change one that changes a byte of the range (any store, if it is a device), read any
    load, access either. `space`: only accesses in that address space, under that address. `physical`: the address is a
    physical one, and all accesses count that get there, whatever address they use: a kernel may store into a page by
    another one than the process whose page it is.
    """

    address: int
    size: int
    kind: Literal["write", "read", "access", "change"] = "write"
    condition: Condition | None = None
    space: int | None = None
    physical: bool = False


@dataclass(frozen=True, slots=True)
class Traps:
    """Synchronous traps (`exceptions`), and entries into `interrupts`."""

    condition: Condition | None = None
    exceptions: bool = True
    interrupts: bool = True


@dataclass(frozen=True, slots=True)
class PrivilegeChange:
    """Traps, interrupts and returns from them that change the privilege mode; none without supervisor mode."""

    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """Events and outputs of some `kinds` (vmrec.events)."""

    kinds: frozenset[str]
    condition: Condition | None = None


Point = Break | Watch | Traps | PrivilegeChange | Records


def holds(point: Point, state: State) -> bool:
    """Whether a hit of `point` counts, with the state as it is where the run would stop."""
    if isinstance(point, Break) and point.register is not None:
        number, value = point.register
        if state.regs[number] != value:
            return False
    return point.condition is None or point.condition(state)


@dataclass(frozen=True, slots=True)
class Hit:
    """A point that step `step` hits (of an event: the step that it comes before).

    `forward`, `backward`: the positions at which runs of the two directions stop. `pc`: the instruction of the step
    (of an interrupt: the first of its handler), None for events and outputs. `access`: what a watch saw, `before` the
    old content of those bytes of RAM if it is a store. `cause`: of a trap or interrupt, as in mcause.
    """

    step: int
    forward: int
    backward: int
    point: Point
    pc: int | None = None
    access: Access | None = None
    before: bytes | None = None
    cause: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a move ended, and why.

    `reason`: hit (then `hits` are the points hit there), step or seek (it got where it was told to), begin or end (of
    the trace), interrupted.
    """

    reason: Literal["hit", "step", "seek", "begin", "end", "interrupted"]
    position: int
    hits: tuple[Hit, ...] = ()
