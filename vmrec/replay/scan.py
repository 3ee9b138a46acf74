# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking for hits in a stretch of a trace, without moving anybody's timeline.

`scan` is a plain function of a path and numbers, so that any `concurrent.futures.Executor` can run several at once,
in threads (the native core runs without the interpreter's lock) or in other processes. Each keeps its machine for
the next stretch of the same trace, until `forget`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from vmrec.errors import TraceError
from vmrec.machine.board import PAGE_SIZE
from vmrec.machine.machine import Exit, Machine
from vmrec.machine.pointlog import BreakPoint, PointKind, PointLog, RawHit, WatchRange
from vmrec.machine.rows import Access
from vmrec.replay.points import Break, Hit, Point, PrivilegeChange, Traps, Watch
from vmrec.replay.rewinder import Rewinder
from vmrec.trace.reader import TraceReader

__all__ = ["Found", "Sought", "forget", "hits_of", "last_hits", "scan", "sought"]

#: Bytes of snapshots that a machine for scanning may keep.
BUDGET = 16 << 20
_WATCH_KINDS = {
    "write": PointKind.WRITE,
    "change": PointKind.CHANGE,
    "read": PointKind.READ,
    "access": PointKind.READ | PointKind.WRITE,
}
_idle: dict[tuple[str, bytes], deque[Rewinder]] = {}


@dataclass(frozen=True, slots=True)
class Sought:
    """What points mean to the machine; can be sent to another process."""

    breaks: tuple[BreakPoint, ...]
    ranges: tuple[WatchRange, ...]
    traps: bool
    privilege: bool

    def __bool__(self) -> bool:
        return bool(self.breaks or self.ranges or self.traps or self.privilege)

    def log(self, machine: Machine, *, room: int = 1, keep_last: bool = False) -> PointLog:
        """A log of these things, open."""
        return PointLog(
            machine, breaks=self.breaks, ranges=self.ranges, traps=self.traps, privilege=self.privilege,
            room=room, keep_last=keep_last,
        )  # fmt: skip


def sought(points: Iterable[Point]) -> Sought:
    """What the machine has to look for, for these points. Events and outputs are in the trace."""
    points = tuple(points)
    return Sought(
        tuple({BreakPoint(point.address, *(point.register or ())) for point in points if isinstance(point, Break)}),
        tuple(
            WatchRange(
                point.address, point.size, _WATCH_KINDS[point.kind] | (PointKind.PHYSICAL if point.physical else 0),
                point.space or 0,
            )
            for point in points
            if isinstance(point, Watch)
        ),
        any(isinstance(point, Traps) for point in points),
        any(isinstance(point, PrivilegeChange) for point in points),
    )


@dataclass(frozen=True, slots=True)
class Found:
    """The last hits of a stretch, in order, and how many there are in all."""

    hits: tuple[RawHit, ...]
    count: int


def last_hits(
    rewinder: Rewinder,
    first: int,
    last: int,
    wanted: Sought,
    room: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> Found:
    """The last `room` hits of the steps first … last-1; the rewinder ends somewhere else.

    When the machine's attention is called and `interrupted`, the answer is that there are none.
    """
    rewinder.go(first, fresh=True)
    machine = rewinder.player.machine
    with wanted.log(machine, room=room, keep_last=True) as log:
        log.look_from(first)
        while machine.position < last and not machine.stopped:
            if rewinder.run(last) is Exit.ATTENTION and interrupted():
                return Found((), 0)
        count = log.count
        return Found(tuple(log.take()), count)


def scan(path: str, head: bytes, first: int, last: int, wanted: Sought, room: int) -> Found:
    """As `last_hits`, in the trace at `path` whose head was `head`, on a machine kept for that.

    Raises TraceError if it is another trace now, is damaged, or does not replay as recorded.
    """
    idle = _idle.setdefault((path, head), deque())
    try:
        rewinder = idle.pop()
    except IndexError:
        rewinder = _new(path, head)
    found = last_hits(rewinder, first, last, wanted, room)
    idle.append(rewinder)
    return found


def _new(path: str, head: bytes) -> Rewinder:
    trace = TraceReader(path)
    try:
        if trace.head != head:
            raise TraceError(path, None, "was replaced while it was being read; open it again")
        return Rewinder(trace, BUDGET)
    except BaseException:
        trace.close()
        raise


def forget(path: str, head: bytes) -> None:
    """Gives back the machines that `scan` has kept for this trace, in this process."""
    for rewinder in _idle.pop((path, head), ()):
        rewinder.close()
        rewinder.trace.close()


def hits_of(raw: Iterable[RawHit], points: tuple[Point, ...]) -> Iterator[Hit]:
    """Yields, for each hit of the machine, the points that it is a hit of."""
    for hit in raw:
        for point in points:
            match point:
                case Break(address=address, space=space):
                    if hit.kind & PointKind.BREAK and hit.pc == address and space in (None, hit.space):
                        yield Hit(hit.position, hit.position, hit.position, point, hit.pc)
                case Traps():
                    if hit.kind & PointKind.TRAP and point.exceptions:
                        yield Hit(hit.position, hit.position + 1, hit.position, point, hit.pc, cause=hit.value)
                    elif hit.kind & PointKind.INTERRUPT and point.interrupts:
                        yield Hit(hit.position, hit.position, hit.position, point, hit.pc, cause=hit.value)
                case PrivilegeChange():
                    if hit.kind & PointKind.PRIVILEGE:
                        forward = hit.position + (not hit.kind & PointKind.ENTRY)
                        yield Hit(hit.position, forward, hit.position, point, hit.pc)
                case Watch():
                    if hit.kind & (PointKind.READ | PointKind.WRITE) and _sees(point, hit):
                        access = Access("w" if hit.kind & PointKind.WRITE else "r", hit.address, hit.size, hit.value)
                        ram_store = hit.kind & PointKind.WRITE and not hit.kind & PointKind.DEVICE
                        before = hit.before.to_bytes(hit.size, "little") if ram_store else None
                        yield Hit(hit.position, hit.position + 1, hit.position, point, hit.pc, access, before)
                case _:
                    pass


def _sees(watch: Watch, hit: RawHit) -> bool:
    """Whether a watch sees the access of a hit."""
    if watch.space not in (None, hit.space):
        return False
    if not watch.physical:
        return _sees_bytes(watch, hit, hit.address, 0, hit.size)
    room = min(PAGE_SIZE - hit.address % PAGE_SIZE, hit.size)
    return _sees_bytes(watch, hit, hit.physical, 0, room) or _sees_bytes(watch, hit, hit.beyond, room, hit.size)


def _sees_bytes(watch: Watch, hit: RawHit, address: int, begin: int, end: int) -> bool:
    """Whether it sees the access's bytes `begin` to `end`, which lie from `address` on."""
    first = max(watch.address - address, 0) + begin
    last = min(watch.address + watch.size - address + begin, end)
    if first >= last:
        return False
    if hit.kind & PointKind.READ:
        return watch.kind in ("read", "access")
    if watch.kind == "change" and not hit.kind & PointKind.DEVICE:
        span = ((1 << 8 * last) - 1) & ~((1 << 8 * first) - 1)
        return bool((hit.before ^ hit.value) & span)
    return watch.kind != "read"
