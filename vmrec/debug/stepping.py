# SPDX-License-Identifier: GPL-2.0-or-later
"""Leaving a range of code at full speed, which is what debuggers ask for when they step over a line.

Nobody looks at single steps: the code of the range says where it can be left (flow.py), and points are set there.

    falls out at its end, branches out of it     a point at the other side
    jalr, ecall, mret …                          a point at the instruction, then one step to see where it goes
    a trap, an interrupt                         a point at every trap
"""

from __future__ import annotations

from collections.abc import Iterable

from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.isa.flow import flow
from vmrec.isa.profiles import Profile
from vmrec.replay.points import Break, Point, Stop, Traps

__all__ = ["RANGE_MAX", "leave_range"]

#: Bytes of code that are looked at, at the most; a larger range is not a line's.
RANGE_MAX = 1 << 16


def leave_range(target: Target, start: int, end: int, points: Iterable[Point], profile: Profile) -> Stop:
    """Steps once, then goes on while the pc is in start … end-1; stops at hits of `points` too.

    The reason is "step" when the range was left. Raises UsageError for a range of more than 64 KiB.
    """
    if not 0 <= start <= end or end - start > RANGE_MAX:
        raise UsageError(f"a range of {end - start} bytes of code is too long to be stepped over at once")
    points = tuple(points)
    breaks = {point.address for point in points if isinstance(point, Break)}
    exits, unsure = _exits(target, start, end, profile)
    own: list[Point] = [Traps(), *(Break(address) for address in sorted((exits | unsure) - breaks))]
    stop = _one_step(target, points)
    while stop.reason == "step" and start <= target.state.pc < end:
        if target.state.pc not in unsure:
            stop = target.resume([*points, *own], remember=False)
            wanted = tuple(hit for hit in stop.hits if hit.point not in own)
            if stop.reason != "hit" or wanted:
                return Stop(stop.reason, stop.position, wanted)
            if not start <= target.state.pc < end:
                return Stop("step", stop.position)
        stop = _one_step(target, points)
    return stop


def _one_step(target: Target, points: tuple[Point, ...]) -> Stop:
    """One step; what is hit by it counts."""
    origin = target.position
    stop = target.resume(points, until=origin + 1, remember=False)
    return Stop("step", stop.position) if stop.reason in ("seek", "end") and stop.position > origin else stop


def _exits(target: Target, start: int, end: int, profile: Profile) -> tuple[set[int], set[int]]:
    """Where the code of a range can go outside of it, and the instructions of which that is not known."""
    exits: set[int] = {end}
    unsure: set[int] = set()
    try:
        code = target.read_memory(start, end - start + 2)
    except UsageError:
        return exits, unsure
    address = start
    while address < end and address - start + 2 <= len(code):
        found = flow(int.from_bytes(code[address - start : address - start + 4], "little"), address, profile)
        if found.elsewhere:
            unsure.add(address)
        if found.target is not None and not start <= found.target < end:
            exits.add(found.target)
        if found.falls and address + found.length >= end:
            exits.add(address + found.length)
        address += found.length
    return exits, unsure
