# SPDX-License-Identifier: GPL-2.0-or-later
"""Stepping from statement to statement of the source, both ways, without looking at single instructions.

    over        the next statement of this frame, or the caller when it returns
    over, back  the statement of this frame that was executed before; at its first, the call in the caller
    into        the same, but a function that is called here counts too
    out         the caller

Points stand where the statements of the function begin, and where the frame returns to; they count in this frame
alone, so that calls, recursion, interrupts and other tasks in between are passed at full speed. A frame is known by
its CFA: sp before the function was called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.guest.symbols import Function
from vmrec.guest.unwind import Frame, unwind
from vmrec.replay.points import Break, Condition, Point, State, Stop

__all__ = ["Statements"]

RA, SP = 1, 2


class Statements:
    """Steps of `target` through the source. `points` of a step are the user's: a hit of one ends it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._symbols = target.symbols
        self._mask = (1 << target.xlen) - 1

    # --- forwards ---

    def over(self, points: Iterable[Point]) -> Stop:
        """To the next statement, passing over calls. Where no source is known: one instruction."""
        own = self._next_statements()
        return self._target.step() if own is None else self._run(points, own)

    def into(self, points: Iterable[Point]) -> Stop:
        """To the next statement, or the first one of a function that has source and is called before that."""
        own, function = self._next_statements(), self._function()
        if own is None or function is None:
            return self._target.step()
        called = self._called_from(function, self._cfa(self._target.state))
        return self._run(points, [*own, *(Break(start, called) for start in self._entries)])

    def out(self, points: Iterable[Point]) -> Stop:
        """To where this function returns to. Raises UsageError if that is not known."""
        back = self._return()
        if back is None:
            raise UsageError("the caller is not known here, so there is no way out to go")
        return self._run(points, [back])

    # --- backwards ---

    def back(self, points: Iterable[Point]) -> Stop:
        """To the begin of this statement, or if it stands there of the one before, passing over calls."""
        target, points, function = self._target, tuple(points), self._function()
        if function is None:
            return target.step(backwards=True)
        pc = target.state.pc
        if pc == function.start:
            stop = target.step(backwards=True)  # into the caller, or what was interrupted
            return self._begin(points) if stop.reason == "step" else stop
        return self._back_to(self._starts(function, pc if self._symbols.lines.is_statement(pc) else None), points)

    def _begin(self, points: tuple[Point, ...]) -> Stop:
        """To the begin of the statement that it stands in."""
        function = self._function()
        if function is None or self._symbols.lines.is_statement(self._target.state.pc):
            return Stop("step", self._target.position)
        return self._back_to(self._starts(function, None), points)

    def _back_to(self, starts: set[int], points: tuple[Point, ...]) -> Stop:
        """Back to one of these statements of this frame, or to where its function begins."""
        function = self._function()
        assert function is not None  # whose statements they are
        return self._run(points, self._in_frame({*starts, function.start}), backwards=True)

    # --- points of its own ---

    def _run(self, points: Iterable[Point], own: Iterable[Point], *, backwards: bool = False) -> Stop:
        """Runs to a hit; the reason is step if it is not the user's."""
        own = tuple(own)
        stop = self._target.resume([*points, *own], backwards=backwards, remember=False)
        if stop.reason != "hit":
            return stop
        wanted = tuple(hit for hit in stop.hits if not any(hit.point is point for point in own))
        return Stop("hit", stop.position, wanted) if wanted else Stop("step", stop.position)

    def _next_statements(self) -> list[Point] | None:
        """Where a step over may end; None where no source is known."""
        function, back = self._function(), self._return()
        if function is None:
            return None
        return [*self._in_frame(self._starts(function, self._target.state.pc)), *([] if back is None else [back])]

    def _starts(self, function: Function, here: int | None) -> set[int]:
        """Where statements of a function begin, without those of the line at `here`."""
        lines = self._symbols.lines
        starts = lines.starts(function.start, function.end)
        row = None if here is None else lines.row(here)
        if row is None:
            return set(starts)
        return set(starts) - set(lines.statements(row.path, row.line))

    def _in_frame(self, addresses: Iterable[int]) -> list[Point]:
        """Points at addresses of the current function that count in the current frame alone."""
        cfa = self._cfa(self._target.state)
        if cfa is None:
            return [Break(address) for address in sorted(addresses)]
        points: list[Point] = []
        for address in sorted(addresses):
            rules = self._symbols.frames.rules(address)
            if rules is not None and rules.cfa_register:
                points.append(Break(address, register=(rules.cfa_register, cfa - rules.cfa_offset & self._mask)))
        return points

    def _return(self) -> Point | None:
        """Where the current frame returns to; None if that is not known."""
        frames = self._unwound(self._target.state)
        if len(frames) < 2:
            return None
        cfa = frames[0].cfa
        return Break(frames[1].pc, register=None if cfa is None else (SP, cfa))

    def _called_from(self, function: Function, cfa: int | None) -> Condition:
        """Whether the function that is entered was called by the frame `cfa` of `function`."""

        def called(state: State) -> bool:
            if not function.start < state.regs[RA] <= function.end or self._is_handler(state):
                return False
            frames = self._unwound(state)
            if len(frames) < 2 or frames[1].pc != state.regs[RA]:
                return False
            return cfa in (None, self._cfa_by(frames[1].site, frames[1].registers))

        return called

    @staticmethod
    def _is_handler(state: State) -> bool:
        """Whether the pc is where traps go to."""
        return any(state.csrs.get(name, 0) & ~3 == state.pc for name in ("mtvec", "stvec"))

    # --- frames ---

    def _function(self) -> Function | None:
        """The function that it stands in, if it has source here."""
        pc = self._target.state.pc
        return None if self._symbols.lines.row(pc) is None else self._symbols.function(pc)

    def _unwound(self, state: State) -> list[Frame]:
        return unwind(self._symbols, state.pc, state.regs, state.read_virtual, depth=2)

    def _cfa(self, state: State) -> int | None:
        """The CFA of the innermost frame; None where no call frame information tells it."""
        return self._cfa_by(state.pc, state.regs)

    def _cfa_by(self, pc: int, registers: Sequence[int | None]) -> int | None:
        """The CFA of the frame at `pc` with these registers; None if it is not known."""
        rules = self._symbols.frames.rules(pc)
        base = None if rules is None else registers[rules.cfa_register]
        return None if rules is None or base is None else base + rules.cfa_offset & self._mask

    @cached_property
    def _entries(self) -> tuple[int, ...]:
        """Where the functions begin that have source."""
        found = map(self._symbols.function, self._symbols.lines.starts(0, 1 << self._symbols.xlen))
        return tuple(sorted({function.start for function in found if function is not None}))
