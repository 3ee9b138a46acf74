# SPDX-License-Identifier: GPL-2.0-or-later
"""What all objects of one opened run share: the trace, the timeline that looks at it, and the guest's names.

Whoever wants the state at a position asks here each time, so that it does not matter who has moved the timeline.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from functools import cached_property
from pathlib import PurePath

from vmrec.errors import PositionError, UsageError
from vmrec.guest.elf import Guest
from vmrec.guest.symbols import Symbols
from vmrec.isa.disasm import disassemble
from vmrec.machine.board import MachineConfig
from vmrec.replay.names import Names, number
from vmrec.replay.player import trace_config, trace_guest
from vmrec.replay.points import State
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader

__all__ = ["Track"]


class Track:
    """An opened trace. Raises UsageError if the file cannot be opened, TraceError if it is no readable trace."""

    def __init__(self, path: str | os.PathLike[str], *, budget: int, executor: Executor | None) -> None:
        self.trace = TraceReader(path)
        self.closed = False
        self._budget = budget
        self._executor = executor
        self._timeline: Timeline | None = None

    def close(self) -> None:
        """Gives everything back; harmless when closed already."""
        if self._timeline is not None:
            self._timeline.close()
            self._timeline = None
        self.trace.close()
        self.closed = True

    @property
    def name(self) -> str:
        """The file's name without directory and `.vmrec`."""
        return PurePath(self.trace.path).name.removesuffix(".vmrec")

    @property
    def last(self) -> int:
        """The last position."""
        return self.trace.last_position

    @property
    def timeline(self) -> Timeline:
        """The timeline, made when it is first wanted."""
        if self.closed:
            raise UsageError(f"the run {self.name} is closed; open it again with vmrec.open({self.trace.path!r})")
        if self._timeline is None:
            self._timeline = Timeline(self.trace, budget=self._budget, executor=self._executor)
        return self._timeline

    def refresh(self) -> bool:
        """Takes up what a recorder has written since; returns whether there was something."""
        return self.trace.refresh() if self._timeline is None else self._timeline.refresh()

    def look(self, position: int) -> State:
        """The state at `position`, to be read before anybody looks somewhere else. Raises PositionError."""
        timeline = self.timeline
        if timeline.position != position:
            timeline.seek(self.check(position))
        return timeline.state

    def check(self, position: int) -> int:
        """`position`, if the trace has it. Raises PositionError, an IndexError too, if it does not."""
        if not 0 <= position <= self.last:
            raise PositionError(f"position {position} is outside of {self.name}, which goes from 0 to {self.last}")
        return position

    # --- names ---

    @cached_property
    def guest(self) -> Guest:
        """The guest in the trace."""
        return trace_guest(self.trace)

    @cached_property
    def config(self) -> MachineConfig:
        """The machine that made the trace."""
        return trace_config(self.trace)

    @cached_property
    def names(self) -> Names:
        """Names of addresses, as reports show them."""
        return Names(self.guest)

    @property
    def symbols(self) -> Symbols:
        """The guest's symbols."""
        return self.names.symbols

    def address(self, where: int | str) -> int:
        """An address given as a number, or as a name that `Symbols.resolve` knows. Raises UsageError."""
        if isinstance(where, str):
            return self.symbols.resolve(where)
        if not 0 <= where < 1 << self.guest.xlen:
            raise UsageError(f"{where:#x} is no address of this {self.guest.xlen}-bit guest")
        return where

    def size(self, where: int | str, size: int | None) -> int:
        """`size`, or that of the object called `where`, or that of a register. Raises UsageError if it is too small."""
        if size is None:
            known = self.symbols.size(where) if isinstance(where, str) else None
            return known or self.guest.xlen // 8
        if size < 1:
            raise UsageError(f"{size} bytes are none; give a size from 1 on")
        return size

    def instruction(self, code: bytes, pc: int) -> str:
        """The instruction at `pc` as text."""
        return disassemble(code, pc, self.guest.xlen) if code else "fetch failed"

    @staticmethod
    def number(value: int) -> str:
        """A position as people read it: 1 234 567."""
        return number(value)
