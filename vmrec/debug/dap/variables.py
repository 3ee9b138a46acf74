# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stopped recording shows as variables: the registers of a frame, CSRs, and where in time it is.

    frame ──▶ scopes: Registers, Float registers, CSRs, Time ──▶ variables

References are numbers that hold until the target moves; then there are others, so that an old one is never taken for
a new one.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.guest.unwind import DEPTH_MAX, Frame, unwind
from vmrec.isa.privileged import MACHINE
from vmrec.isa.registers import ABI_NAMES, FLOAT_ABI_NAMES, cause_text
from vmrec.replay.names import number, record_text

__all__ = ["Frames"]

#: Steps before the position in which the last event is looked for.
RECENT = 1 << 24
_PRIVILEGES = {0: "user", 1: "supervisor", 3: "machine"}
Variables = Iterator[dict[str, Any]]


class Frames:
    """The frames where `target` stands, and the variables of each. `forget` when it moves."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._frames: list[Frame] | None = None
        self._first = 1  # the number of the innermost frame
        self._scopes: dict[int, Callable[[], Variables]] = {}
        self._next = 1

    def forget(self) -> None:
        """All numbers that were given are stale from here on."""
        self._first += len(self._frames or ())
        self._frames = None
        self._scopes.clear()

    @property
    def all(self) -> list[Frame]:
        """The frames, innermost first."""
        if self._frames is None:
            state = self._target.state
            self._frames = unwind(
                self._target.symbols, state.pc, state.regs, state.read_virtual,
                interrupted_pc=state.csrs.get("mepc" if state.privilege == MACHINE else "sepc"), depth=DEPTH_MAX,
            )  # fmt: skip
        return self._frames

    def number(self, level: int) -> int:
        """What a client calls the frame at `level`."""
        return self._first + level

    def frame(self, reference: int) -> Frame:
        """The frame of that number. Raises UsageError if it is stale."""
        level = reference - self._first
        if not 0 <= level < len(self.all):
            raise UsageError(f"frame {reference} is not there any more: the recording has moved")
        return self.all[level]

    def scopes(self, reference: int) -> list[dict[str, Any]]:
        """The scopes of a frame. Raises UsageError if it is stale."""
        frame = self.frame(reference)
        found = [self._scope("Time", self._time, hint=None)]
        found.insert(0, self._scope("Registers", lambda: self._registers(frame), hint="registers"))
        if self._target.has_float and frame is self.all[0]:
            found.append(self._scope("Float registers", self._floats, hint="registers"))
        found.append(self._scope("CSRs", self._csrs, hint=None, expensive=True))
        return found

    def variables(self, reference: int, start: int, count: int) -> list[dict[str, Any]]:
        """`count` (0: all) variables of a scope from `start` on. Raises UsageError if it is stale."""
        scope = self._scopes.get(reference)
        if scope is None:
            raise UsageError(f"variables {reference} are not there any more: the recording has moved")
        found = list(scope())
        return found[start : start + count] if count else found[start:]

    def _scope(
        self, name: str, variables: Callable[[], Variables], *, hint: str | None, expensive: bool = False
    ) -> dict[str, Any]:
        reference, self._next = self._next, self._next + 1
        self._scopes[reference] = variables
        scope = {"name": name, "variablesReference": reference, "expensive": expensive}
        return {**scope, "presentationHint": hint} if hint else scope

    # --- variables ---

    def _registers(self, frame: Frame) -> Variables:
        """pc and x registers as the function of the frame sees them; those that nobody kept are not known."""
        yield self._variable("pc", frame.pc, self._target.symbols.lookup(frame.pc))
        for name, value in zip(ABI_NAMES, frame.registers, strict=True):
            if value is None:
                yield {"name": name, "value": "not known in this frame", "variablesReference": 0}
            else:
                yield self._variable(name, value, self._target.symbols.lookup(value))

    def _floats(self) -> Variables:
        for name, bits in zip(FLOAT_ABI_NAMES, self._target.state.fregs, strict=True):
            (double,) = struct.unpack("<d", bits.to_bytes(8, "little"))
            yield self._variable(name, bits, repr(double), digits=16)

    def _csrs(self) -> Variables:
        for name, value in self._target.state.csrs.items():
            yield self._variable(name, value, cause_text(value, self._target.xlen) if name == "mcause" else None)

    def _time(self) -> Variables:
        target, state = self._target, self._target.state
        recent = deque(target.timeline.events(max(target.position - RECENT, 0), target.position + 1), maxlen=1)
        facts = {
            "position": number(target.position),
            "end": number(target.last),
            "percent": f"{100 * target.position / max(target.last, 1):.2f} %",
            "instructions": number(state.icount),
            "mtime": f"{number(state.mtime)} ticks",
            "privilege": _PRIVILEGES.get(state.privilege, str(state.privilege)),
        }
        for event in recent:
            facts["last event"] = f"{number(event.position)}: {event.kind} {record_text(event.wire())}".rstrip()
        for name, value in facts.items():
            yield {"name": name, "value": value, "variablesReference": 0}

    def _variable(self, name: str, value: int, more: str | None, digits: int = 0) -> dict[str, Any]:
        shown = f"{value:#0{(digits or self._target.xlen // 4) + 2}x}"
        found = {
            "name": name,
            "value": f"{shown} {more}" if more else shown,
            "type": f"u{self._target.xlen}",
            "evaluateName": f"${name}",
            "variablesReference": 0,
        }
        physical = any(region.start <= value < region.end for region in self._target.memory_map)
        if physical or self._target.has_paging:
            found["memoryReference"] = f"{value:#x}"
        return found
