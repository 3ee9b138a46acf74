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

from collections.abc import Iterable
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

    # --- forwards ---

    def over(self, points: Iterable[Point]) -> Stop:
        """To the next statement, passing over calls. Where no source is known: one instruction."""
        own = self._next_statements()
        return self._target.step() if own is None else self._run(points, own)

    def into(self, points: Iterable[Point]) -> Stop:
        """To the next statement, or the first one of a function that has source and is called before that."""
        own = self._next_statements()
        if own is None:
            return self._target.step()
        frame = self._frames(1)[0]
        assert frame.function is not None  # else there are no next statements
        called = self._called_from(frame.function, frame.cfa)
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
        target, points = self._target, tuple(points)
        frame = self._frames(1)[0]
        if frame.function is None or self._symbols.lines.row(frame.pc) is None:
            return target.step(backwards=True)
        if frame.pc == frame.function.start:
            stop = target.step(backwards=True)  # into the caller, or what was interrupted
            return self._begin(points) if stop.reason == "step" else stop
        inside = not self._symbols.lines.is_statement(frame.pc)
        starts = self._starts(frame.function, None if inside else frame.pc)
        return self._run(points, self._in_frame({*starts, frame.function.start}, frame.cfa), backwards=True)

    def _begin(self, points: tuple[Point, ...]) -> Stop:
        """To the begin of the statement that it stands in."""
        frame = self._frames(1)[0]
        if frame.function is None or self._symbols.lines.is_statement(frame.pc):
            return Stop("step", self._target.position)
        starts = {*self._starts(frame.function, None), frame.function.start}
        return self._run(points, self._in_frame(starts, frame.cfa), backwards=True)

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
        frame = self._frames(1)[0]
        if frame.function is None or self._symbols.lines.row(frame.pc) is None:
            return None
        back = self._return()
        return [*self._in_frame(self._starts(frame.function, frame.pc), frame.cfa), *([] if back is None else [back])]

    def _starts(self, function: Function, here: int | None) -> set[int]:
        """Where statements of a function begin, without those of the line at `here`."""
        lines = self._symbols.lines
        starts = lines.starts(function.start, function.end)
        row = None if here is None else lines.row(here)
        if row is None:
            return set(starts)
        own = set(lines.statements(row.path, row.line))
        return {start for start in starts if start not in own}

    def _in_frame(self, addresses: Iterable[int], cfa: int | None) -> list[Point]:
        """Points at addresses of the current function that count in the frame with this CFA."""
        return [Break(address, self._same_frame(cfa)) for address in sorted(addresses)]

    def _same_frame(self, cfa: int | None) -> Condition | None:
        if cfa is None:
            return None
        return lambda state: self._cfa(state) in (cfa, None)

    def _return(self) -> Point | None:
        """Where the current frame returns to; None if that is not known."""
        frames = self._frames(2)
        if len(frames) < 2:
            return None
        cfa = frames[0].cfa
        return Break(frames[1].pc, None if cfa is None else lambda state: state.regs[SP] == cfa)

    def _called_from(self, function: Function, cfa: int | None) -> Condition:
        """Whether the function that is entered was called by the frame `cfa` of `function`."""

        def called(state: State) -> bool:
            if not function.start < state.regs[RA] <= function.end or self._is_handler(state):
                return False
            frames = self._unwound(state, 2)
            return len(frames) == 2 and frames[1].pc == state.regs[RA] and (cfa is None or self._cfa_of(frames) == cfa)

        return called

    def _cfa_of(self, frames: list[Frame]) -> int | None:
        """The CFA of the caller's frame."""
        return frames[1].cfa

    @staticmethod
    def _is_handler(state: State) -> bool:
        """Whether the pc is where traps go to."""
        return any(state.csrs.get(name, 0) & ~3 == state.pc for name in ("mtvec", "stvec"))

    # --- frames ---

    def _frames(self, depth: int) -> list[Frame]:
        return self._unwound(self._target.state, depth)

    def _unwound(self, state: State, depth: int) -> list[Frame]:
        return unwind(self._symbols, state.pc, state.regs, state.read_memory, depth=depth)

    def _cfa(self, state: State) -> int | None:
        return self._unwound(state, 1)[0].cfa

    @cached_property
    def _entries(self) -> tuple[int, ...]:
        """Where the functions begin that have source."""
        found = map(self._symbols.function, self._symbols.lines.starts(0, 1 << self._symbols.xlen))
        return tuple(sorted({function.start for function in found if function is not None}))
