# SPDX-License-Identifier: GPL-2.0-or-later
"""The timeline: a trace opened for moving about in both directions.

This is the plain version: it replays from a checkpoint for every move, and looks at all steps to find a hit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import Self

from vmrec.errors import UsageError
from vmrec.events import EVENT_KINDS
from vmrec.machine.board import RAM_BASE
from vmrec.machine.machine import Machine
from vmrec.machine.rows import Access
from vmrec.replay.player import Player
from vmrec.replay.points import Break, Hit, Point, PrivilegeChange, Records, State, Stop, Traps, Watch
from vmrec.replay.rows import Step, player_at, replay_error, steps
from vmrec.replay.timeline import MachineState
from vmrec.trace.reader import TraceReader

__all__ = ["Timeline"]


class Timeline:
    """`trace`, opened at position 0. A context manager.

    `budget`: bytes that may be kept over guest RAM; `executor`: where searches run side by side.
    Raises TraceError where the trace is damaged, or does not replay as recorded.
    """

    def __init__(self, trace: TraceReader, *, budget: int = 512 << 20, executor: Executor | None = None) -> None:
        self.trace = trace
        self._interrupted = False
        self._steps: list[Step] | None = None
        self._player: Player = player_at(trace, 0)
        self.config = self._player.config
        self.guest = self._player.guest
        self.state: State = MachineState(self._player.machine, self._player.machine.read_memory)
        self.seek(0)

    def close(self) -> None:
        """Gives everything back but the trace."""
        self._player.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def position(self) -> int:
        """Where the timeline stands."""
        return self._player.machine.position

    @property
    def last(self) -> int:
        """The last position of the trace."""
        return self.trace.last_position

    def interrupt(self) -> None:
        """Ends the current or the next run soon. May be called from any thread or signal handler."""
        self._interrupted = True

    def seek(self, position: int) -> Stop:
        """Goes to `position`. Raises UsageError outside of 0 … `last`."""
        if not 0 <= position <= self.last:
            raise UsageError(f"position {position} is outside of the recording, which goes from 0 to {self.last}")
        self._player.close()
        self._player = player_at(self.trace, position)
        if self._player.divergence or self._player.settle():
            assert self._player.divergence is not None
            raise replay_error(self.trace, self._player.divergence)
        self.state = MachineState(self._player.machine, self._player.machine.read_memory)
        return Stop("seek", position)

    def step(self, count: int = 1) -> Stop:
        """Goes `count` steps forwards, or to the end."""
        target = self.position + count
        self.seek(min(target, self.last))
        return Stop("end" if target > self.last else "step", self.position)

    def reverse_step(self, count: int = 1) -> Stop:
        """Goes `count` steps back, or to the begin."""
        target = self.position - count
        self.seek(max(target, 0))
        return Stop("begin" if target < 0 else "step", self.position)

    def run(self, points: Iterable[Point], *, until: int | None = None) -> Stop:
        """Goes forwards to the first hit, to `until` (reason seek) or to the end."""
        begin = self.position
        limit = self.last if until is None else max(min(until, self.last), begin)
        return self._first((hit.forward, hit) for hit in self._ordered(points) if begin < hit.forward <= limit) or (
            self._arrive(limit, "end" if limit == self.last else "seek")
        )

    def reverse_run(self, points: Iterable[Point], *, until: int | None = None) -> Stop:
        """Goes back to the first hit on the way, to `until` (reason seek) or to the begin."""
        begin = self.position
        limit = 0 if until is None else min(max(until, 0), begin)
        hits = [hit for hit in self._ordered(points) if limit <= hit.backward < begin]
        hits.sort(key=lambda hit: -hit.backward)
        return self._first((hit.backward, hit) for hit in hits) or self._arrive(
            limit, "begin" if limit == 0 else "seek"
        )

    def _arrive(self, position: int, reason: str) -> Stop:
        self.seek(position)
        return Stop("end" if reason == "end" else "begin" if reason == "begin" else "seek", position)

    def _first(self, hits: Iterator[tuple[int, Hit]]) -> Stop | None:
        at: int | None = None
        found: list[Hit] = []
        for position, hit in hits:
            if at is not None and position != at:
                break
            if self._interrupted:
                self._interrupted = False
                return Stop("interrupted", self.position)
            if isinstance(hit.point, Break) and hit.point.register is not None:
                number, value = hit.point.register
                self.seek(position)
                if self.state.regs[number] != value:
                    continue
            if hit.point.condition is not None:
                self.seek(position)
                if not hit.point.condition(self.state):
                    continue
            at = position
            found.append(hit)
        if at is None:
            return None
        self.seek(at)
        return Stop("hit", at, tuple(found))

    def _ordered(self, points: Iterable[Point]) -> list[Hit]:
        return sorted(self.hits(points), key=lambda hit: hit.forward)

    def hits(
        self, points: Iterable[Point], first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Hit]:
        """Yields the hits of the steps first … last-1, whatever their conditions say; the timeline stays."""
        points = tuple(points)
        end = self.last if last is None else min(last, self.last)
        found = [hit for hit in self._all_hits(points) if first <= hit.step < end]
        yield from reversed(found) if newest_first else found

    def _all_hits(self, points: tuple[Point, ...]) -> Iterator[Hit]:
        if self._steps is None:
            self._steps = list(steps(self.trace))
        records = [record.wire() for record in self.trace.records()]
        events = [wire for wire in records if wire[0] in EVENT_KINDS]
        outputs = [wire for wire in records if wire[0] not in EVENT_KINDS]
        with Machine(self.config, self.guest) as machine:
            ram = bytearray(machine.read_memory(RAM_BASE, self.config.ram_size))
        for step in self._steps:
            n = step.position
            for point in points:
                match point:
                    case Records(kinds=kinds):
                        for wire in events:
                            if wire[1] == n and wire[0] in kinds:
                                yield Hit(n, n, n, point)
                        for wire in outputs:
                            if wire[1] == n and wire[0] in kinds:
                                yield Hit(n, n + 1, n, point)
                    case Break(address=address):
                        if step.row.pc == address:
                            yield Hit(n, n, n, point, step.row.pc)
                    case Traps():
                        if step.interrupt is not None:
                            cause = step.interrupt | 1 << self.config.profile.xlen - 1
                            yield Hit(n, n, n, point, step.row.pc, cause=cause)
                        if step.row.trap:
                            yield Hit(n, n + 1, n, point, step.row.pc, cause=step.cause)
                    case Watch():
                        for access in step.row.accesses:
                            before = _old(ram, access)
                            if _watched(point, access, before):
                                yield Hit(n, n + 1, n, point, step.row.pc, access, before)
                    case PrivilegeChange():
                        if "priv" in step.writes:
                            assert step.interrupt is None, "whether the entry or the step changed it is not known here"
                            yield Hit(n, n + 1, n, point, step.row.pc)
            for access in step.row.accesses:
                if access.kind == "w" and _old(ram, access) is not None:
                    at = access.address - RAM_BASE
                    ram[at : at + access.size] = access.value.to_bytes(access.size, "little")

    def step_here(self) -> Step | None:
        """What the next step does; None at the end."""
        return next(steps(self.trace, self.position, self.position + 1), None)


def _old(ram: bytearray, access: Access) -> bytes | None:
    at = access.address - RAM_BASE
    return bytes(ram[at : at + access.size]) if access.kind == "w" and 0 <= at < len(ram) else None


def _watched(point: Watch, access: Access, before: bytes | None) -> bool:
    first, last = max(point.address, access.address), min(point.address + point.size, access.address + access.size)
    if first >= last:
        return False
    if access.kind == "r":
        return point.kind in ("read", "access")
    if point.kind == "change" and before is not None:
        new = access.value.to_bytes(access.size, "little")
        span = slice(first - access.address, last - access.address)
        return before[span] != new[span]
    return point.kind != "read"
