# SPDX-License-Identifier: GPL-2.0-or-later
"""Leaving a range of code at full speed, against stepping out of it; and where instructions can go, against a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest

from vmrec.debug.stepping import RANGE_MAX, leave_range
from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.guest.symbols import Symbols
from vmrec.isa.flow import flow
from vmrec.isa.profiles import Profile
from vmrec.replay.points import Break, Stop
from vmrec.replay.rows import steps
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader

TRACES = Path(__file__).parent.parent / "traces"
NAMES = ("traps-full", "echo-full", "dice-full", "smc-nofence-full", "counters-full", "lrsc64-full", "fp-inputs")
ALL = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def target(name: str) -> Iterator[Target]:
    with TraceReader(TRACES / f"{name}.vmrec") as trace, Timeline(trace) as timeline:
        yield Target(timeline, Symbols(timeline.guest.data))


def profile(target: Target) -> Profile:
    return target.timeline.config.profile


@ALL
def test_every_instruction_goes_where_its_flow_says(target: Target, name: str) -> None:
    found_steps = list(islice(steps(target.timeline.trace), 20_000))
    seen = set()
    for step, following in pairwise(found_steps):
        row = step.row
        if row.trap or not row.code or following.interrupt is not None:
            continue
        found = flow(int.from_bytes(row.code, "little"), row.pc, profile(target))
        assert found.length == len(row.code)
        reachable = {row.pc + found.length} if found.falls else set()
        if found.target is not None:
            reachable.add(found.target)
        seen.add((found.falls, found.target is not None, found.elsewhere))
        assert found.elsewhere or following.row.pc in reachable, f"{row} then {following}"
    assert (True, True, False) in seen  # branches
    assert (True, False, False) in seen


def stepped(target: Target, start: int, end: int, breaks: set[int]) -> tuple[str, int]:
    """The same, step by step."""
    while target.position < target.last:
        target.step()
        if target.state.pc in breaks:
            return "hit", target.position
        if not start <= target.state.pc < end:
            return "step", target.position
    return "end", target.position


@ALL
def test_leaving_a_range_is_as_stepping_out_of_it(target: Target, name: str) -> None:
    for number in range(30):
        position = number * 7919 % (target.last - 1)
        target.seek(position)
        pc = target.state.pc
        function = target.symbols.function(pc)
        ranges = [(pc, pc + 4), (pc - 8, pc + 12), (pc, pc)]
        if function is not None:
            ranges.append((function.start, function.end))
        for start, end in ranges:
            for breaks in (set(), {pc + 4}):
                target.seek(position)
                stop = leave_range(target, max(start, 0), end, [Break(address) for address in breaks], profile(target))
                fast = stop.reason, stop.position
                assert target.position == stop.position
                target.seek(position)
                if target.last - position < 3000:
                    assert fast == stepped(target, max(start, 0), end, breaks), (position, start, end, breaks)
                elif fast[1] - position < 3000:
                    slow = stepped(target, max(start, 0), end, breaks)
                    assert fast == slow, (position, hex(start), hex(end), breaks)


@pytest.mark.parametrize("name", ["echo-full"])
def test_ends_and_ranges_that_are_none(target: Target, name: str) -> None:
    target.seek(target.last)
    assert leave_range(target, 0, 16, (), profile(target)) == Stop("end", target.last)
    target.seek(100)
    for start, end in ((8, 0), (0, RANGE_MAX + 1)):
        with pytest.raises(UsageError, match="too long"):
            leave_range(target, start, end, (), profile(target))
    assert leave_range(target, 0, 16, (), profile(target)).reason == "step"
    assert target.position == 101
    target.interrupt()
    assert leave_range(target, 0, 1 << 16, (), profile(target)).reason == "interrupted"
