# SPDX-License-Identifier: GPL-2.0-or-later
"""A backtrace as people read it: one frame a line, innermost first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vmrec.guest.unwind import Frame
from vmrec.isa.registers import ABI_NAMES
from vmrec.query.track import Track

__all__ = ["Backtrace", "StackFrame"]


@dataclass(frozen=True, slots=True)
class StackFrame:
    """One function that is running or waits for another to return.

    `level` counts from 0, the innermost. `pc`: where it goes on. `function`: its name, None if not known; `symbol` and
    `source`: where in it the call is. `cfa`: sp before it was called; None if not known. `registers`: those of x0..x31
    whose values in this function are known, by ABI name. `interrupted`: it did not call the frame before, a trap did.
    """

    level: int
    pc: int
    function: str | None
    symbol: str | None
    source: str | None
    cfa: int | None
    interrupted: bool
    registers: Mapping[str, int] = field(repr=False)

    @classmethod
    def of(cls, level: int, frame: Frame, track: Track) -> StackFrame:
        """The frame that `unwind` found."""
        known = {name: value for name, value in zip(ABI_NAMES, frame.registers, strict=True) if value is not None}
        return cls(
            level,
            frame.pc,
            None if frame.function is None else frame.function.name,
            track.names.symbol(frame.pc) if frame.pc == frame.site else _behind(track, frame),
            track.names.line(frame.site),
            frame.cfa,
            frame.found == "interrupted",
            MappingProxyType(known),
        )

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        trap = ", interrupted" if self.interrupted else ""
        return f"#{self.level:<2} {self.pc:08x} {self.symbol or '?'}{source}{trap}"


class Backtrace(tuple[StackFrame, ...]):
    """The frames, innermost first; `print` shows them one a line."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    __repr__ = __str__


def _behind(track: Track, frame: Frame) -> str | None:
    """The return address by name. Behind a last call it is the end of its function, not the begin of the next."""
    if frame.function is None:
        return track.names.symbol(frame.pc)
    return f"{frame.function.name}+{frame.pc - frame.function.start:#x}"
