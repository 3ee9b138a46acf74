# SPDX-License-Identifier: GPL-2.0-or-later
"""The timeline: a trace opened for moving about in both directions.

    seek, step, reverse_step    replay from the nearest snapshot or checkpoint             (rewinder.py)
    run                         at full speed to the first hit                             (native/points.c)
    reverse_run, hits           stretch by stretch, the latest first; far ones side by side (scan.py)

At position n the step n → n+1 is about to be executed: events at n have been given, a wait has been ended, a pending
interrupt entered. So the pc here is that of row n.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, Self

from vmrec.errors import UsageError
from vmrec.events import OUTPUT_KINDS, Event, Output
from vmrec.isa.privileged import GLOBAL, Fault, Reached, reading_hart, space_of, translate
from vmrec.machine.board import PAGE_SIZE, RAM_BASE
from vmrec.machine.machine import Exit, Machine
from vmrec.machine.pointlog import STEP_ROOM, PointLog
from vmrec.replay.points import Break, Hit, Point, Records, State, Stop, holds
from vmrec.replay.rewinder import Rewinder
from vmrec.replay.rows import Step, walk
from vmrec.replay.scan import Found, Sought, forget, hits_of, last_hits, scan, sought
from vmrec.trace.reader import TraceReader

__all__ = ["MachineState", "Timeline"]

#: Hits of a stretch that are looked at before it is gone through again.
ROOM = 1024
#: Steps that are searched here before others are asked to help.
NEAR = 1 << 24
#: Steps of a stretch, at the most.
STRETCH = 1 << 26
#: Bytes that a machine for searching takes beside its copy of what the guest has touched of RAM.
SEARCHER = 48 << 20


class MachineState:
    """What `machine` shows, as long as it stays where it is. `read_memory` knows where pages are that it lacks."""

    def __init__(self, machine: Machine, read_memory: Callable[[int, int], bytes]) -> None:
        self._machine = machine
        self._read_memory = read_memory

    def __repr__(self) -> str:
        return f"<State position {self.position} pc {self.pc:#x}>"

    @property
    def position(self) -> int:
        return self._machine.position

    @property
    def icount(self) -> int:
        return self._machine.icount

    @property
    def pc(self) -> int:
        return self._machine.pc

    @property
    def xlen(self) -> int:
        return self._machine.config.profile.xlen

    @property
    def has_float(self) -> bool:
        return "F" in self._machine.config.profile.extensions

    @property
    def regs(self) -> list[int]:
        return self._machine.regs

    @property
    def fregs(self) -> list[int]:
        return self._machine.fregs

    @property
    def csrs(self) -> dict[str, int]:
        return self._machine.csrs

    @property
    def privilege(self) -> int:
        return self._machine.privilege

    @property
    def space(self) -> int:
        return space_of(self.xlen, self.privilege, self._machine.satp)

    @property
    def mtime(self) -> int:
        return self._machine.mtime

    def space_of(self, address: int) -> int | None:
        if not self.space:
            return None
        reached = translate(reading_hart(self.xlen, self.space), address, "load", self._entry)
        return None if isinstance(reached, Reached) and reached.leaf & GLOBAL else self.space

    def physical(self, address: int) -> int:
        """By the page tables as they are, missing pages too, which the machine itself could not walk."""
        if not self.space:
            return address
        reached = translate(reading_hart(self.xlen, self.space), address, "load", self._entry)
        if isinstance(reached, Fault):
            raise UsageError(f"nothing is mapped at {address:#x} in the address space of position {self.position}")
        return reached.physical

    def read_memory(self, address: int, size: int) -> bytes:
        return self._read_memory(address, size)

    def read_virtual(self, address: int, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            at = address + len(found)
            piece = min(size - len(found), PAGE_SIZE - at % PAGE_SIZE)
            found += self._read_memory(self.physical(at), piece)
        return bytes(found)

    def _entry(self, address: int, size: int) -> int | None:
        if not RAM_BASE <= address <= RAM_BASE + self._machine.config.ram_size - size:
            return None
        return int.from_bytes(self._read_memory(address, size), "little")


class Timeline:
    """`trace`, opened at position 0. A context manager.

    `budget`: bytes that may be kept over guest RAM (snapshots, for the most part); `executor`: where far searches run
    side by side, threads of its own if None. Moves raise TraceError where the trace is damaged, or does not replay as
    recorded; the timeline can be moved elsewhere then.
    """

    def __init__(self, trace: TraceReader, *, budget: int = 512 << 20, executor: Executor | None = None) -> None:
        self.trace = trace
        self._budget = budget
        self._rewinder = Rewinder(trace, budget // 2)
        self.config = self._rewinder.player.config
        self.guest = self._rewinder.player.guest
        self._machine = self._rewinder.player.machine
        #: The state here, until the timeline moves.
        self.state: State = MachineState(self._machine, self._rewinder.read_memory)
        self._executor = executor
        self._own_executor: ThreadPoolExecutor | None = None
        self._interrupted = False
        self._scanned: set[tuple[str, bytes]] = set()
        try:
            self.seek(0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Gives everything back but the trace."""
        if self._own_executor is not None:
            self._own_executor.shutdown(cancel_futures=True)
        self._forget_scanned()
        self._rewinder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Timeline {self.trace.path} position {self.position} of {self.last}>"

    @property
    def position(self) -> int:
        """Where the timeline stands."""
        return self._machine.position

    @property
    def last(self) -> int:
        """The last position of the trace."""
        return self.trace.last_position

    def refresh(self) -> bool:
        """Takes up what a recorder has written since; returns whether there is more."""
        more = self.trace.refresh()
        if more:
            self._rewinder.refresh()
            self._forget_scanned()  # by the name that the trace had
        return more

    def _forget_scanned(self) -> None:
        for path, head in self._scanned:
            forget(path, head)
        self._scanned.clear()

    def interrupt(self) -> None:
        """Ends the current run or search soon, or the next one. May be called from any thread or signal handler."""
        self._interrupted = True
        self._machine.set_attention()

    def calm(self) -> None:
        """Forgets a call of `interrupt` that came too late to end anything."""
        self._interrupted = False

    def events(self, first: int = 0, last: int | None = None) -> Iterator[Event]:
        """The events with first ≤ position < last (to the end if None), in order."""
        records = self.trace.records(first, last)
        return (record for record in records if isinstance(record, Event))

    def outputs(self, first: int = 0, last: int | None = None) -> Iterator[Output]:
        """The outputs of the steps first … last-1 (to the end if None), in order."""
        records = self.trace.records(first, last)
        return (record for record in records if isinstance(record, Output))

    # --- moves ---

    def seek(self, position: int) -> Stop:
        """Goes to `position`. Raises UsageError outside of 0 … `last`."""
        if not 0 <= position <= self.last:
            raise UsageError(f"position {position} is outside of the recording, which goes from 0 to {self.last}")
        self._rewinder.go(position)
        self._rewinder.settle()
        return Stop("seek", position)

    def step(self, count: int = 1) -> Stop:
        """Goes `count` steps (0 or more) forwards, or to the end."""
        target = self.position + _natural(count)
        self.seek(min(target, self.last))
        return Stop("end" if target > self.last else "step", self.position)

    def reverse_step(self, count: int = 1) -> Stop:
        """Goes `count` steps (0 or more) back, or to the begin."""
        target = self.position - _natural(count)
        self.seek(max(target, 0))
        return Stop("begin" if target < 0 else "step", self.position)

    def run(self, points: Iterable[Point], *, until: int | None = None) -> Stop:
        """Goes forwards to the first hit, to `until` (reason seek) or to the end."""
        points = tuple(points)
        wanted = sought(points)
        limit = self.last if until is None else max(min(until, self.last), self.position)
        with wanted.log(self._machine) as log:  # one for all hits whose condition does not hold: opening it drops code
            while True:
                if self._stop_asked():
                    return Stop("interrupted", self.position)
                begin = self.position
                if begin == limit:
                    return Stop("end" if limit == self.last else "seek", limit)
                record = next((hit for hit in self._records(points, begin) if hit.forward > begin), None)
                stop = limit if record is None else min(record.forward, limit)
                hits = self._run_to(stop, log, points)
                if record is not None and record.forward == (here := self.position):
                    hits += [hit for hit in self._records(points, begin, here + 1) if hit.forward == here]
                true = self._true(hits)
                if true:
                    return Stop("hit", self.position, true)

    def reverse_run(self, points: Iterable[Point], *, until: int | None = None) -> Stop:
        """Goes back to the first hit on the way, to `until` (reason seek) or to the begin."""
        points = tuple(points)
        begin, limit = self.position, max(until or 0, 0)
        group: list[Hit] = []
        for hit in self._backwards(points, min(limit, begin), begin, here=True):
            if group and hit.backward != group[0].backward:
                stop = self._arrived(group)
                if stop is not None:
                    return stop
                group.clear()
                if self._interrupted:  # conditions that do not hold may be asked for millions of hits
                    break
            group.append(hit)
        stop = self._arrived(group) if group else None
        if stop is not None:
            return stop
        if self._stop_asked():
            self.seek(begin)
            return Stop("interrupted", begin)
        self.seek(min(limit, begin))
        return Stop("begin" if self.position == 0 else "seek", self.position)

    def hits(
        self, points: Iterable[Point], first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Hit]:
        """Yields the hits of the steps first … last-1, whatever their conditions say; the timeline stays.

        They are looked for as they are asked for. A call of `interrupt` ends the iteration.
        """
        points = tuple(points)
        first, end = max(first, 0), self.last if last is None else min(last, self.last)
        return self._hits_back(points, first, end) if newest_first else self._forwards(points, first, end)

    def step_here(self) -> Step | None:
        """What the next step does; None at the end."""
        position = self.position
        if position == self.last:
            return None
        self._rewinder.go(position, fresh=True)
        self._rewinder.keep()
        steps = list(walk(self._rewinder.player, position + 1))
        self._rewinder.go(position)
        self._rewinder.settle()
        return steps[0] if steps else None

    # --- forwards ---

    def _run_to(self, stop: int, log: PointLog, points: tuple[Point, ...]) -> list[Hit]:
        """Runs to the first hit of the machine, or to `stop`; returns what is hit there."""
        rewinder, machine = self._rewinder, self._machine
        log.narrow()
        log.look_from(machine.position + 1)
        while machine.position < stop and not machine.stopped and not log.count:
            if rewinder.run(stop) is Exit.ATTENTION and self._interrupted:
                break
        log.widen()
        rewinder.settle()
        found = [hit for hit in hits_of(log.take(), points) if not isinstance(hit.point, Break)]
        here, pc = machine.position, machine.pc
        if here < self.last:  # whether the log was asked about this instruction depends on what else stopped the run
            breaks = (point for point in points if isinstance(point, Break) and point.address == pc)
            found += [Hit(here, here, here, point, pc) for point in breaks if point.space in (None, self.state.space)]
        return found

    def _true(self, hits: Iterable[Hit]) -> tuple[Hit, ...]:
        """Those of the hits here whose condition holds."""
        return tuple(hit for hit in hits if holds(hit.point, self.state))

    def _forwards(self, points: tuple[Point, ...], first: int, last: int) -> Iterator[Hit]:
        """Hits of the steps first … last-1, the oldest first, stretch by stretch."""
        wanted = sought(points)
        while first < last:
            end = min(first + STRETCH, last)
            yield from self._stretch(points, wanted, first, end)
            if self._stop_asked():
                return
            first = end

    def _stretch(self, points: tuple[Point, ...], wanted: Sought, first: int, end: int) -> Iterator[Hit]:
        """Hits of a stretch, oldest first; one with many hits is halved until they fit."""
        found = self._search(first, end, wanted, False) if wanted else Found((), 0)
        if found.count > ROOM and end - first > 1:
            middle = first + (end - first) // 2
            yield from self._stretch(points, wanted, first, middle)
            yield from self._stretch(points, wanted, middle, end)
            return
        hits = [*hits_of(found.hits, points), *self._records(points, first, end)]
        yield from sorted(hits, key=lambda hit: hit.step)

    # --- backwards ---

    def _arrived(self, group: list[Hit]) -> Stop | None:
        """Goes to where the hits of a group are; the stop if one of them counts."""
        self.seek(group[0].backward)
        true = self._true(reversed(group))
        return Stop("hit", self.position, true) if true else None

    def _hits_back(self, points: tuple[Point, ...], first: int, last: int) -> Iterator[Hit]:
        """Hits of the steps first … last-1, the newest first; a call of `interrupt` ends this and nothing else."""
        yield from self._backwards(points, first, last)
        self._stop_asked()

    def _backwards(
        self, points: tuple[Point, ...], first: int, last: int, *, here: bool = False
    ) -> Iterator[Hit]:
        """Hits of the steps first … last-1, the newest first. `here`: the timeline may be moved in search of them."""
        wanted = sought(points)
        records = self._records_back(points, first, last)
        record = next(records, None)
        for begin, found in self._stretches_back(wanted, first, last, here):
            for hit in self._newest(points, begin, found, wanted, here):
                while record is not None and record.step >= hit.step:
                    yield record
                    record = next(records, None)
                yield hit
        while record is not None:
            yield record
            record = next(records, None)

    def _newest(
        self, points: tuple[Point, ...], begin: int, found: Found, wanted: Sought, here: bool
    ) -> Iterator[Hit]:
        """The hits of a stretch, newest first. If there are more than were kept, it is gone through again for them."""
        while found.count > len(found.hits):
            oldest = found.hits[0].position  # of this step some hits may not have been kept
            yield from reversed([*hits_of((hit for hit in found.hits if hit.position > oldest), points)])
            reach = 4 * (found.hits[-1].position - oldest)
            while True:
                low = max(begin, oldest + 1 - reach)
                found = self._search(low, oldest + 1, wanted, here)
                if low == begin or len(found.hits) > STEP_ROOM + len(wanted.ranges):
                    break
                reach *= 4
            if low > begin:
                found = Found(found.hits, len(found.hits) + 1)  # those before `low` are to be looked for as well
        yield from reversed([*hits_of(found.hits, points)])

    def _stretches_back(
        self, wanted: Sought, first: int, last: int, here: bool
    ) -> Iterator[tuple[int, Found]]:
        """Yields (begin, hits found from there on), the latest stretch first."""
        if not wanted or first >= last:
            return
        bounds = [first, *self._bounds(first, last), last]
        stretches = deque(zip(reversed(bounds[:-1]), reversed(bounds[1:]), strict=True))
        while stretches and last - stretches[0][0] <= NEAR:
            begin, end = stretches.popleft()
            found = self._search(begin, end, wanted, here)
            if self._interrupted:
                return
            yield begin, found
        waiting: deque[tuple[int, int, Future[Found]]] = deque()
        workers = self._workers if stretches else 0
        try:
            while stretches or waiting:
                while stretches and len(waiting) < workers:
                    begin, end = stretches.popleft()
                    waiting.append((begin, end, self._submit(begin, end, wanted)))
                begin, end, future = waiting.popleft()
                while not wait([future], timeout=0.05).done:
                    if self._interrupted:
                        return
                yield begin, future.result()
        finally:
            for _, _, future in waiting:
                future.cancel()

    def _bounds(self, first: int, last: int) -> list[int]:
        """Where stretches between begin: cheap places, the denser the nearer to `last`."""
        bounds: list[int] = []
        previous = last
        for position in reversed(self._rewinder.bases(first, last)):
            if previous - position >= (last - position) // 4 and previous - position > 256:
                bounds.append(position)
                previous = position
        return bounds[::-1]

    @property
    def _workers(self) -> int:
        """Machines that may search at once: one for each CPU, as far as half of the budget goes."""
        each = SEARCHER + self._rewinder.touched_bytes
        return max(1, min(os.cpu_count() or 1, self._budget // 2 // each))

    def _pool(self) -> Executor:
        if self._executor is not None:
            return self._executor
        if self._own_executor is None:
            self._own_executor = ThreadPoolExecutor(self._workers, thread_name_prefix="vmrec-scan")
        return self._own_executor

    def _submit(self, begin: int, end: int, wanted: Sought) -> Future[Found]:
        return self._pool().submit(scan, *self._scan_key(), begin, end, wanted, ROOM)

    def _search(self, begin: int, end: int, wanted: Sought, here: bool) -> Found:
        """Searches a stretch now: with the timeline's own machine (`here`), or with another."""
        if here:
            return last_hits(self._rewinder, begin, end, wanted, ROOM, lambda: self._interrupted)
        return scan(*self._scan_key(), begin, end, wanted, ROOM)

    def _scan_key(self) -> tuple[str, bytes]:
        """What `scan` calls the trace; its machines for it are given back in `close`."""
        key = self.trace.path, self.trace.head
        self._scanned.add(key)
        return key

    # --- events and outputs ---

    def _records(self, points: tuple[Point, ...], first: int, last: int | None = None) -> Iterator[Hit]:
        """Hits of the events and outputs of the steps first … last-1 (to the end if None), the oldest first."""
        kinds = _kinds(points)
        if not kinds:
            return
        for wire in self._rewinder.records.read(first, last):
            if wire[0] in kinds:
                yield from _record_hits(wire, points)

    def _records_back(self, points: tuple[Point, ...], first: int, last: int) -> Iterator[Hit]:
        """The same, the newest first."""
        kinds = _kinds(points)
        if not kinds:
            return
        for wire in self._rewinder.records.read_back(last):
            if wire[1] < first:
                return
            if wire[0] in kinds:
                yield from _record_hits(wire, points)

    def _stop_asked(self) -> bool:
        asked, self._interrupted = self._interrupted, False
        return asked


def _natural(count: int) -> int:
    if count < 0:
        raise UsageError(f"{count} steps: give a number of 0 or more, and the direction by the name of the move")
    return count


def _kinds(points: tuple[Point, ...]) -> frozenset[str]:
    return frozenset(kind for point in points if isinstance(point, Records) for kind in point.kinds)


def _record_hits(wire: list[Any], points: tuple[Point, ...]) -> Iterator[Hit]:
    kind, position = wire[0], wire[1]
    for point in points:
        if isinstance(point, Records) and kind in point.kinds:
            yield Hit(position, position + (kind in OUTPUT_KINDS), position, point)
