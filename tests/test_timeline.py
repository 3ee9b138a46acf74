# SPDX-License-Identifier: GPL-2.0-or-later
"""The timeline against the plain one, which replays from a checkpoint for every move and looks at every step."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import plain_timeline
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from recordings import record

from vmrec.errors import TraceError, UsageError
from vmrec.events import EVENT_KINDS, OUTPUT_KINDS
from vmrec.machine.board import GRID, RAM_BASE
from vmrec.machine.rows import Row
from vmrec.replay import timeline as timeline_module
from vmrec.replay.player import Player
from vmrec.replay.points import Break, Hit, Point, Records, State, Stop, Traps, Watch
from vmrec.replay.rewinder import Rewinder
from vmrec.replay.rows import steps
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import FRAME_PAGES

TRACES = Path(__file__).parent.parent / "traces"
#: Short enough for the plain timeline, and between them: traps, interrupts, inputs, entropy, floats, changing code.
NAMES = ("traps-full", "echo-full", "echo-inputs", "dice-full", "smc-nofence-full", "counters-full", "nowhere-full")
RAM_SEEN = 1 << 16
AnyTimeline = Timeline | plain_timeline.Timeline


def seen(timeline: AnyTimeline) -> tuple[Any, ...]:
    """Everything that a state shows."""
    state = timeline.state
    memory = state.read_memory(RAM_BASE, RAM_SEEN)
    return state.position, state.icount, state.pc, state.regs, state.fregs, state.csrs, state.mtime, memory


def comparable(stop: Stop) -> tuple[str, int, frozenset[Hit]]:
    """A stop; the order of hits at one position says nothing."""
    return stop.reason, stop.position, frozenset(stop.hits)


class Both(RuleBasedStateMachine):
    """Whatever is done to one is done to the other."""

    @initialize(name=st.sampled_from(NAMES))
    def open(self, name: str) -> None:
        path = TRACES / f"{name}.vmrec"
        self.readers = TraceReader(path), TraceReader(path)
        self.rows: list[Row] = [step.row for step in steps(self.readers[1])]
        self.accesses = [access for row in self.rows for access in row.accesses]
        self.timeline, self.plain = Timeline(self.readers[0]), plain_timeline.Timeline(self.readers[1])

    def teardown(self) -> None:
        if hasattr(self, "timeline"):
            self.timeline.close()
            self.plain.close()
            for reader in self.readers:
                reader.close()

    def points(self, data: st.DataObject, *, registers: bool = True) -> list[Point]:
        """`registers`: also instructions where a register holds what it holds here."""
        kinds = st.frozensets(st.sampled_from((*EVENT_KINDS, *OUTPUT_KINDS)), min_size=1)
        point: st.SearchStrategy[Point] = st.one_of(
            st.sampled_from(self.rows).map(lambda row: Break(row.pc)),
            st.sampled_from(self.rows).map(lambda row: Break(row.pc, lambda state: state.regs[10] % 3 == 0)),
            st.just(Traps()),
            kinds.map(Records),
        )
        if registers:
            held = st.sampled_from((1, 2, 10, 15)).map(lambda number: (number, self.plain.state.regs[number]))
            place = st.sampled_from(self.rows).map(lambda row: row.pc)
            point = st.one_of(point, st.builds(lambda pc, register: Break(pc, register=register), place, held))
        if self.accesses:
            size = st.sampled_from((1, 4, 8, 64, 5000))
            kind = st.sampled_from(("write", "read", "access", "change"))
            near = st.integers(-1, 1)
            watch = st.builds(
                lambda access, off, size, kind: Watch(access.address + off, size, kind),
                st.sampled_from(self.accesses), near, size, kind,
            )  # fmt: skip
            point = st.one_of(point, watch)
        return data.draw(st.lists(point, max_size=3))

    def both(self, move: str, *arguments: Any, **named: Any) -> None:
        mine, plain = (getattr(side, move)(*arguments, **named) for side in (self.timeline, self.plain))
        assert comparable(mine) == comparable(plain)

    @rule(data=st.data())
    def seek(self, data: st.DataObject) -> None:
        self.both("seek", data.draw(st.integers(0, self.plain.last)))

    @rule(count=st.sampled_from((0, 1, 2, 3, 100, 5000)))
    def step(self, count: int) -> None:
        self.both("step", count)

    @rule(count=st.sampled_from((0, 1, 2, 3, 100, 5000)))
    def reverse_step(self, count: int) -> None:
        self.both("reverse_step", count)

    @rule(data=st.data(), limited=st.booleans())
    def run(self, data: st.DataObject, limited: bool) -> None:
        until = data.draw(st.integers(0, self.plain.last)) if limited else None
        self.both("run", self.points(data), until=until)

    @rule(data=st.data(), limited=st.booleans())
    def reverse_run(self, data: st.DataObject, limited: bool) -> None:
        until = data.draw(st.integers(0, self.plain.last)) if limited else None
        self.both("reverse_run", self.points(data), until=until)

    @rule(data=st.data(), newest_first=st.booleans())
    def hits(self, data: st.DataObject, newest_first: bool) -> None:
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, self.plain.last)] * 2)))
        points = self.points(data, registers=False)
        mine, plain = (
            list(islice(side.hits(points, first, last, newest_first=newest_first), 3000))
            for side in (self.timeline, self.plain)
        )
        assert [hit.step for hit in mine] == [hit.step for hit in plain]
        if len(mine) < 3000:
            assert frozenset(mine) == frozenset(plain)

    @rule()
    def step_here(self) -> None:
        assert self.timeline.step_here() == self.plain.step_here()

    @invariant()
    def same(self) -> None:
        if hasattr(self, "timeline"):
            assert seen(self.timeline) == seen(self.plain)


Both.TestCase.settings = settings(
    max_examples=16, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBoth = Both.TestCase


# ---------------------------------------------------------------------------------------------------- longer traces


@pytest.fixture(scope="module")
def long_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several checkpoints, and pages that change between them."""
    path = tmp_path_factory.mktemp("long") / "loop.vmrec"
    record(path, "loop-mem", capture="inputs", max_insns=150_000_000)
    return path


@pytest.fixture
def timeline(long_trace: Path) -> Iterator[Timeline]:
    with TraceReader(long_trace) as trace, Timeline(trace) as opened:
        yield opened


def test_any_way_to_a_position_leads_to_the_same_state(long_trace: Path, timeline: Timeline) -> None:
    places = random.Random(3).sample(range(timeline.last), 8)
    expected = {}
    for position in places:
        with TraceReader(long_trace) as trace, Timeline(trace) as fresh:
            fresh.seek(position)
            expected[position] = seen(fresh)
    for position in [*places, *reversed(places), *sorted(places)]:
        timeline.seek(position)
        assert seen(timeline) == expected[position]


def test_a_checkpoint_where_something_happens_is_no_other_place(tmp_path: Path) -> None:
    """What is given there comes behind it in the trace, and what was put out before it is not looked for again."""
    there = 2 * GRID
    script = ((there - 1, b"a"), (there, b"b"), (there + 1, b"c"))
    record(tmp_path / "t", "loop-mem", max_insns=there + 1000, script=script)
    with TraceReader(tmp_path / "t") as trace:
        assert [mark.position for mark in trace.checkpoints] == [there]
        for position in (there, there + 1, there + 500):
            with Player(trace) as player, Timeline(trace) as timeline:
                assert player.run_to(position) is None
                assert player.settle() is None
                timeline.seek(position)
                assert timeline._machine.digest() == player.machine.digest()


def test_pages_that_changed_together_come_together(long_trace: Path) -> None:
    with TraceReader(long_trace) as trace, Rewinder(trace, 1 << 28) as rewinder:
        mark, machine = trace.checkpoints[1], rewinder.player.machine
        asked: list[int] = []

        def source(index: int) -> bool:
            asked.append(index)
            return rewinder._bring_page(index)

        rewinder.player.page_source = source
        rewinder.go(mark.position + 1_000_000)
        here = [index for index in trace.page_hashes(mark) if not machine.is_missing(index)]
        assert len(here) > 60
        assert len(asked) <= 2 + -(-len(here) // FRAME_PAGES)
        rewinder.go(mark.position + GRID + 1)  # the digest on the way is compared
        assert rewinder.player.divergence is None


def test_a_far_search_finds_the_one_write(timeline: Timeline) -> None:
    data = RAM_BASE + 0x1000 + 256 * 1024  # the word behind those that the loop writes
    timeline.seek(timeline.last)
    stop = timeline.reverse_run([Watch(data, 4)])
    assert (stop.reason, stop.hits[0].backward) == ("hit", timeline.position)
    assert timeline.position < 1_000_000
    assert [hit.step for hit in timeline.hits([Watch(data, 4)])] == [stop.position]
    assert timeline.run([Watch(data, 4)]).position == stop.position + 1
    assert timeline.run([Watch(data, 4)]).reason == "end"
    assert timeline.reverse_run([Watch(data, 4, "change")]).reason == "begin"


def test_a_search_in_many_hits_gives_each_once(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "ROOM", 20)
    watch, first, last = Watch(RAM_BASE + 0x1000, 64, "access"), 60_000_000, 61_500_000
    forwards = list(timeline.hits([watch], first, last))
    assert len(forwards) > 50
    assert list(timeline.hits([watch], first, last, newest_first=True)) == forwards[::-1]
    monkeypatch.setattr(timeline_module, "ROOM", 4096)
    assert list(timeline.hits([watch], first, last)) == forwards
    timeline.seek(last)
    back = [timeline.reverse_run([watch]).position for _ in range(60)]
    assert back == sorted({hit.backward for hit in forwards}, reverse=True)[:60]


def test_another_executor_finds_the_same(long_trace: Path) -> None:
    watch = Watch(RAM_BASE + 0x1000 + 256 * 1024, 4)
    with (
        ThreadPoolExecutor(3) as executor,
        TraceReader(long_trace) as trace,
        Timeline(trace, executor=executor) as timeline,
    ):
        assert [hit.step for hit in timeline.hits([watch], newest_first=True)] == [
            hit.step for hit in timeline.hits([watch])
        ]


@pytest.mark.parametrize("register", [5, 10, 15])
def test_a_register_is_looked_at_as_a_condition_would(timeline: Timeline, register: int) -> None:
    """Of many visits of an instruction a few count; two points at one address count each by itself."""
    timeline.seek(500_000)
    address, value = timeline.state.pc, timeline.state.regs[register]
    wanted = Break(address, register=(register, value))
    other = Break(address, register=(register, value + 1))
    asked = Break(address, lambda state: state.regs[register] == value)
    for move, starts in ((timeline.run, (0, 400_000)), (timeline.reverse_run, (500_000, 600_000))):
        for start in starts:
            timeline.seek(start)
            expected = move([asked])
            for points in ([wanted], [other, wanted], [wanted, Break(0)]):
                timeline.seek(start)
                stop = move(points)
                assert (stop.reason, stop.position) == (expected.reason, expected.position)
                assert [hit.point for hit in stop.hits] == [wanted] * len(expected.hits)


def test_snapshots_stay_within_the_budget(long_trace: Path) -> None:
    with TraceReader(long_trace) as trace, Rewinder(trace, 2 << 20) as small, Rewinder(trace, 1 << 30) as large:
        for position in random.Random(4).sample(range(trace.last_position), 40):
            for rewinder in (small, large):
                rewinder.go(position)
                rewinder.settle()
            assert small.player.machine.digest() == large.player.machine.digest()
        assert small.kept_bytes <= 2 << 20 < large.kept_bytes


def test_interrupt_ends_a_run_in_which_no_condition_holds(timeline: Timeline) -> None:
    asked = []

    def never(state: State) -> bool:
        asked.append(state.position)
        if len(asked) == 5:
            timeline.interrupt()
        return False

    timeline.seek(1_000_000)
    point = Break(timeline.state.pc, never)
    assert timeline.reverse_run([point]) == Stop("interrupted", 1_000_000)
    assert len(asked) == 5
    asked.clear()
    timeline.seek(0)
    assert timeline.run([point]) == Stop("interrupted", asked[4])


def test_interrupt_ends_the_next_run_where_it_is(timeline: Timeline) -> None:
    timeline.seek(1000)
    timeline.interrupt()
    assert timeline.run([]).reason == "interrupted"
    timeline.interrupt()
    assert timeline.reverse_run([Break(1)]) == Stop("interrupted", timeline.position)
    for newest_first in (False, True):
        timeline.interrupt()
        _ = list(timeline.hits([Break(1)], newest_first=newest_first))
        assert timeline.run([], until=timeline.position + 1).reason == "seek"
    assert timeline.seek(2000).position == 2000
    assert timeline.run([], until=3000) == Stop("seek", 3000)


# -------------------------------------------------------------------------------------------------------- bad requests


def test_what_is_not_there_is_refused(timeline: Timeline) -> None:
    for position in (-1, timeline.last + 1, 2**64):
        with pytest.raises(UsageError, match=f"from 0 to {timeline.last}"):
            timeline.seek(position)
    with pytest.raises(UsageError, match="0 or more"):
        timeline.step(-1)
    for address, size in ((0, 4), (0x10000000, 1), (RAM_BASE - 1, 2), (RAM_BASE + (128 << 20) - 1, 2)):
        with pytest.raises(UsageError, match="neither in RAM"):
            timeline.state.read_memory(address, size)
    assert timeline.run([Break(0), Break(2**64 - 1), Watch(2**64 - 1, 1)], until=100).position == 100


def test_a_damaged_page_is_an_error_where_it_is_touched(long_trace: Path, tmp_path: Path) -> None:
    with TraceReader(long_trace) as trace:
        frame = trace.frames[trace.checkpoints[1].frame]
        last = trace.last_position
    damaged = tmp_path / "damaged.vmrec"
    content = bytearray(long_trace.read_bytes())
    content[frame.offset + frame.length // 2] ^= 1
    damaged.write_bytes(content)
    with TraceReader(damaged) as trace, Timeline(trace) as timeline:
        good = seen(timeline)
        with pytest.raises(TraceError):
            _ = [timeline.seek(position) for position in range(last, 0, -10_000_000)]
        timeline.seek(0)
        assert seen(timeline) == good


def test_a_torn_trace_is_usable_to_its_last_good_position(long_trace: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.vmrec"
    with TraceReader(long_trace) as whole:
        cut = next(info.offset for info in whole.frames if info.last == whole.last_position)
    torn.write_bytes(long_trace.read_bytes()[: cut + 9])
    with TraceReader(torn) as trace, Timeline(trace) as timeline, TraceReader(long_trace) as whole:
        assert 0 < timeline.last < whole.last_position
        timeline.seek(timeline.last)
        with Timeline(whole) as other:
            other.seek(timeline.last - 1)
            other.step()
            timeline.reverse_step()
            other.reverse_step()
            assert seen(timeline) == seen(other)
        with pytest.raises(UsageError):
            timeline.seek(timeline.last + 1)


def test_searches_are_as_many_as_the_budget_allows() -> None:
    """Each has a machine of its own; there is always one."""
    with TraceReader(TRACES / "echo-inputs.vmrec") as trace:
        with Timeline(trace, budget=1) as timeline:
            assert timeline._workers == 1
        with Timeline(trace, budget=1 << 40) as timeline:
            assert timeline._workers == (os.cpu_count() or 1)
