# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording that is being made, as a target: back within what is recorded, and on into what is not yet.

    0 ──────────── recorded, a Timeline ────────────▶ last · · · · live, a LiveRun · · · ·▶
        looks and moves, both ways                      only forwards: `resume`, `step`

What is shown always comes from the recording. So a live move ends with everything in the file and, if the guest can
go on at all, one step further than where the target then stands: what comes before that step (events, the end of a
wait, the entry into an interrupt) is settled and seen. The guest notices nothing, and what is recorded is what would
have been without a debugger.
"""

from __future__ import annotations

from collections.abc import Iterable

from vmrec.debug.target import Target
from vmrec.errors import TraceError, UsageError
from vmrec.events import UINT64_MAX
from vmrec.guest.symbols import Symbols
from vmrec.machine.pointlog import PointKind, PointLog, RawHit
from vmrec.record.recorder import TraceSink
from vmrec.record.session import LiveRun
from vmrec.replay.points import Break, Point, Records, State, Stop, holds
from vmrec.replay.scan import hits_of, sought
from vmrec.replay.timeline import MachineState, Timeline

__all__ = ["LiveTarget"]


class LiveTarget(Target):
    """`run`, started and writing into `sink`; `timeline` of the same recording; and `symbols` of its guest.

    `over` says why the run is over, None while it can go on. When nothing can be written any more, because the disk is
    full, a move raises TraceError, which is kept as `failure`, and the run is over.
    """

    def __init__(self, timeline: Timeline, symbols: Symbols, run: LiveRun, sink: TraceSink) -> None:
        super().__init__(timeline, symbols)
        self.over: str | None = None
        self._run = run
        self._sink = sink
        self._asked: State | None = None  # the live machine, while a condition is asked
        self.failure: TraceError | None = None  # what made writing the recording fail
        run.stand()

    @property
    def position(self) -> int:
        """Where it stands: steps since reset."""
        return super().position if self._asked is None else self._asked.position

    @property
    def state(self) -> State:
        """The state here, until the next move."""
        return super().state if self._asked is None else self._asked

    def interrupt(self) -> None:
        """Ends the current move soon, or the next one. May be called from any thread or signal handler."""
        super().interrupt()
        self._run.hold()

    def calm(self) -> None:
        """Forgets a call of `interrupt` that came too late to end anything."""
        super().calm()
        self._run.release()

    # --- moves ---

    def step(self, count: int = 1, *, backwards: bool = False) -> Stop:
        """Goes `count` steps, beyond what was recorded so far too."""
        until = self.position + count
        if backwards or until < self.last or not self._can_go_on:
            return super().step(count, backwards=backwards)
        stop = self.resume((), until=until, remember=False)
        return Stop("step", stop.position) if stop.reason == "seek" else stop

    def resume(
        self,
        points: Iterable[Point],
        *,
        backwards: bool = False,
        until: int | None = None,
        remember: bool = True,
    ) -> Stop:
        """As Target.resume. The end is that of the run: as long as it is not over, it goes on recording.

        Raises UsageError for points of events and outputs, which are looked for in what is recorded only.
        """
        points, origin = tuple(points), self.position
        try:
            while True:
                stop = super().resume(points, backwards=backwards, until=until, remember=False)
                if stop.reason != "end" or backwards or self.over is not None:
                    return stop
                if until is not None and self.position >= until and not self._can_go_on:
                    return Stop("seek", self.position)
                if any(isinstance(point, Records) for point in points):
                    raise UsageError("events and outputs cannot be waited for while recording; look at them afterwards")
                if (found := self._go(points, origin, until)) is not None:
                    return found
        finally:
            if remember:
                self._left(origin)

    @property
    def _can_go_on(self) -> bool:
        """Whether one more step can be recorded without the world's doing anything."""
        return self.over is None and not self._run.machine.waiting

    def record_on(self) -> None:
        """Goes on recording for nobody to look, until `interrupt` or the end, and stands where it stopped."""
        if self.over is None:
            self._go((), self.last, None)

    def _go(self, points: tuple[Point, ...], origin: int, until: int | None) -> Stop | None:
        """Records on, and stands where it stopped; None if that is for nothing that was asked for.

        A hit counts if it stops the target behind `origin`.
        """
        try:
            here, hit = self._run_live(points, origin, until)
        except TraceError as error:
            self.failure, self.over = error, "write-failed"
            raise
        super().calm()
        self.refresh()
        self.timeline.seek(max(origin, here - 1))
        stop = self.timeline.run(points, until=here)
        if stop.reason in ("hit", "interrupted"):
            return stop
        if until is not None and here >= until:
            return Stop("seek", self.position)
        return None if hit or self.over is not None else Stop("interrupted", self.position)

    def _run_live(self, points: tuple[Point, ...], origin: int, until: int | None) -> tuple[int, bool]:
        """Where the run was stopped, with one step more in the file if there can be one; and if by a hit."""
        run, machine = self._run, self._run.machine
        hits: list[RawHit] = []
        with sought(points).log(machine) as log:
            log.look_from(origin + 1)
            limit = UINT64_MAX if until is None else until
            self.over = run.go(limit, found=lambda: self._found(log, points, hits))
        here = min((hit.forward for hit in hits_of(hits, points)), default=machine.position)
        if here == machine.position and self._can_go_on:
            self.over = run.go(here + 1)
        self._sink.flush(machine)
        return here, bool(hits)

    def _found(self, log: PointLog, points: tuple[Point, ...], hits: list[RawHit]) -> bool:
        """Whether the run is to stop for what the log has: a condition is asked while the machine stands there."""
        if not log.count:
            return False
        new = log.take()
        if all(hit.kind is PointKind.BREAK for hit in new) and not self._any_true(new, points):
            return False
        hits += new
        return True

    def _any_true(self, hits: list[RawHit], points: tuple[Point, ...]) -> bool:
        machine = self._run.machine
        self._asked = state = MachineState(machine, machine.read_memory)
        try:
            return any(
                holds(point, state)
                for hit in hits
                for point in points
                if isinstance(point, Break) and point.address == hit.pc and point.space in (None, hit.space)
            )
        finally:
            self._asked = None
