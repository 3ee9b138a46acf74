# SPDX-License-Identifier: GPL-2.0-or-later
"""A moment: the whole machine at one position of a run, as an object that does not change.

A moment names a position. Its pc and integer registers are kept; what else it shows is looked up when it is first asked
for, by seeking back to it. So moments stay valid while others are looked at. When their run is closed they still know
what they have shown; those that a search has found know nothing before they are asked.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from vmrec.errors import UsageError
from vmrec.guest.unwind import unwind
from vmrec.isa.privileged import MACHINE
from vmrec.query.backtrace import Backtrace, StackFrame
from vmrec.query.html import table
from vmrec.query.track import Track
from vmrec.query.values import Memory, Registers
from vmrec.replay.points import State
from vmrec.replay.rows import Step

__all__ = ["Moment"]

_PRIVILEGES = {0: "user", 1: "supervisor", 3: "machine"}


class _Hart(NamedTuple):
    """What is kept of the state."""

    icount: int
    pc: int
    registers: Registers
    privilege: int
    mtime: int


@functools.total_ordering
class Moment:
    """The machine at `position`: that many steps are done, the next has not begun, what came in there is in.

    Made by `run[position]`, `run.at(…)` and the searches of a run. Moments of one run can be compared, and
    `moment + 10`, `moment - 1` are others of that run (PositionError, which is an IndexError, beyond its ends).
    """

    _track: Track
    _position: int

    def __init__(self, track: Track, position: int) -> None:
        """A moment that looks nothing up yet."""
        self.__dict__.update(_track=track, _position=position)

    @classmethod
    def at(cls, track: Track, position: int) -> Moment:
        """A moment that knows its registers. Raises PositionError."""
        moment = cls(track, track.check(position))
        _ = moment._hart
        return moment

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a moment does not change")

    # --- where ---

    @property
    def position(self) -> int:
        """Steps since reset: instructions and traps."""
        return self._position

    @property
    def icount(self) -> int:
        """Instructions retired since reset."""
        return self._hart.icount

    @property
    def percent(self) -> float:
        """How far into the run this is, 0 to 100."""
        return 100 * self._position / max(self._track.last, 1)

    @property
    def mtime(self) -> int:
        """Guest time in ticks of the board's timer (10 MHz)."""
        return self._hart.mtime

    @property
    def pc(self) -> int:
        """Address of the instruction that is about to execute."""
        return self._hart.pc

    @property
    def privilege(self) -> int:
        """Privilege mode: 0 user, 1 supervisor, 3 machine."""
        return self._hart.privilege

    @property
    def space(self) -> int:
        """The address space that addresses are translated in: a value of satp; 0 if nothing is translated."""
        return self._state.space

    def space_of(self, where: int | str) -> int | None:
        """The address space that a search has to look in so that `where` means what it means here.

        None, for any, if nothing is translated here or the page is global: the same in all.
        """
        return self._state.space_of(self._track.address(where))

    def physical(self, where: int | str) -> int:
        """The physical address that `where` leads to here. Raises UsageError where nothing is mapped."""
        return self._state.physical(self._track.address(where))

    @property
    def symbol(self) -> str | None:
        """Where `pc` is, e.g. "main+0x4"; None if that has no name."""
        return self._track.names.symbol(self.pc)

    @property
    def source(self) -> str | None:
        """The source line of `pc`, e.g. "race.c:41"; None if the guest does not say."""
        return self._track.names.line(self.pc)

    # --- registers and memory ---

    @property
    def regs(self) -> Registers:
        """x0 … x31: `regs["a0"]`, `regs[10]`, `regs.a0`."""
        return self._hart.registers

    @cached_property
    def fregs(self) -> Registers:
        """f0 … f31 as raw bits: `fregs["fa0"]`. Raises UsageError if the guest's machine has none."""
        state = self._state
        if not state.has_float:
            raise UsageError(f"{self._track.config.isa} has no floating-point registers")
        return Registers(state.fregs, 64, float_=True)

    @cached_property
    def csrs(self) -> Mapping[str, int]:
        """The control and status registers that can be read now, by name: `csrs["mepc"]`."""
        return MappingProxyType(dict(self._state.csrs))

    @cached_property
    def mem(self) -> Memory:
        """Memory as the instruction at `pc` sees it: `mem[address]`, `mem[first:end]`, `mem.number("counter")`."""
        return Memory(lambda address, size: self._state.read_virtual(address, size), self._track)

    @cached_property
    def phys(self) -> Memory:
        """Memory by physical address: the same as `mem` where nothing is translated, as in machine mode."""
        return Memory(lambda address, size: self._state.read_memory(address, size), self._track)

    # --- what happens ---

    @property
    def code(self) -> bytes:
        """The bytes of the instruction that is about to execute, 2 or 4; empty if they are not in memory."""
        return self._code(self.pc)

    def disasm(self, count: int = 1) -> str:
        """The instruction that is about to execute, e.g. "lw a5, 0(a0)"; with `count`, a line for each from there on.

        What is not in memory is "fetch failed".
        """
        lines, address = [], self.pc
        for _ in range(count):
            code = self._code(address)
            text = self._track.instruction(code, address)
            lines.append(text if count == 1 else f"{self._track.names.place(address)}: {text}")
            if not code:
                break
            address += len(code)
        return "\n".join(lines)

    def step(self) -> Step | None:
        """What the next step does: its row (code, accesses, trap) and register writes; None at the end of the run."""
        timeline = self._track.timeline
        self._track.look(self._position)
        return timeline.step_here()

    def backtrace(self, limit: int = 256) -> Backtrace:
        """The functions that are running, innermost first, at most `limit`; printed as debuggers do.

        It goes on behind the trap handler in C that took the last trap.
        """
        frames = unwind(
            self._track.symbols,
            self.pc,
            [self.regs[number] for number in range(32)],
            self.mem.read,
            interrupted_pc=self.csrs.get("mepc" if self.privilege == MACHINE else "sepc"),
            depth=limit,
        )
        return Backtrace(StackFrame.of(level, frame, self._track) for level, frame in enumerate(frames))

    # --- other moments ---

    def next(self, count: int = 1) -> Moment | None:
        """The moment `count` steps later; None behind the end of the run."""
        position = self._position + count
        return Moment.at(self._track, position) if 0 <= position <= self._track.last else None

    def prev(self, count: int = 1) -> Moment | None:
        """The moment `count` steps earlier; None before its begin."""
        return self.next(-count)

    def __add__(self, steps: int) -> Moment:
        return Moment.at(self._track, self._position + steps)

    def __sub__(self, steps: int) -> Moment:
        return self + -steps

    def belongs_to(self, track: Track) -> bool:
        """Whether this is a moment of that opened run."""
        return self._track is track

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moment):
            return NotImplemented
        return self._track is other._track and self._position == other._position

    def __lt__(self, other: Moment) -> bool:
        if not isinstance(other, Moment) or self._track is not other._track:
            return NotImplemented
        return self._position < other._position

    def __hash__(self) -> int:
        return hash((id(self._track), self._position))

    # --- shown ---

    def __str__(self) -> str:
        return f"{self._track.number(self._position)}: {self._track.names.place(self.pc)}: {self.disasm()}"

    def __repr__(self) -> str:
        try:
            return f"<moment {self} in {self._track.name}>"
        except UsageError:  # closed, and never shown before
            return f"<moment {self._track.number(self._position)} in {self._track.name}, closed>"

    def _repr_html_(self) -> str:
        facts = [
            ("position", f"{self._track.number(self._position)} of {self._track.number(self._track.last)}"),
            ("at", self._track.names.place(self.pc)),
            ("instruction", self.disasm()),
            ("privilege", _PRIVILEGES.get(self.privilege, str(self.privilege))),
            ("registers", repr(self.regs)),
            ("called by", "\n".join(map(str, self.backtrace(limit=9)[1:]))),
        ]
        return table(f"moment of {self._track.name}", facts)

    # --- looked up ---

    @property
    def _state(self) -> State:
        return self._track.look(self._position)

    @cached_property
    def _hart(self) -> _Hart:
        state = self._state
        return _Hart(state.icount, state.pc, Registers(state.regs, state.xlen), state.privilege, state.mtime)

    def _code(self, address: int) -> bytes:
        """The bytes of the instruction at `address`; empty if they are not in memory."""
        try:
            code = self.mem.read(address, 2)
            return code if code[0] & 3 != 3 else self.mem.read(address, 4)
        except UsageError:
            if self._track.closed:
                raise
            return b""
