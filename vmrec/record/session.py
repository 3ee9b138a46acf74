# SPDX-License-Identifier: GPL-2.0-or-later
"""A live run: the world's events are given to a machine as they come, and what happened to a sink.

    InputPlan ─┐                      ┌──▶ console (bytes, as the guest prints)
    entropy ───┼──▶ LiveRun ⇄ Machine ┤
    clock ─────┤                      └──▶ Sink: events, outputs, observations, rows
    drives ────┘

`vmrec run` and `vmrec record` are this loop with different sinks, so that recording is nothing but writing down.

The order at one position (also in replay/player.py): outputs of earlier steps, then observations at a grid position,
then events. Two rules make waits replayable, where positions stand still: a wait that ends early is logged as an
`Idle` event before the input; and when a wait was ended by its deadline, which is not logged, no event is given at
that position any more. So a replay that finds the machine waiting knows: an event at this position ends the wait, or
else the deadline does. Nor is one given where an interrupt has been entered: a replay enters it behind all events.

A debugger runs it in pieces (`start`, `go` …, `finish`); that leaves no trace in what is recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from vmrec.events import UINT64_MAX, Clock, Disk, Entropy, Event, Idle, Input, Poke, SetRegister
from vmrec.machine.board import GRID, STEPS_PER_TICK
from vmrec.machine.machine import Captured, Exit, Machine
from vmrec.record.drives import BlockSource, NoBlocks
from vmrec.record.sources import ChaosClock, HostClock, InputPlan, KeptEvents, LiveInput, SeededEntropy
from vmrec.record.terminal import Key
from vmrec.trace.codec import unpack_stream
from vmrec.trace.digests import blake3_of

__all__ = ["Ended", "LiveRun", "Sink", "World", "console_bytes"]

#: How often, at least, a live run comes back from the machine: for flushing, live input and the host's clock.
TICK_SECONDS = 0.2
HOST_CLOCK_TICK_SECONDS = 0.001
_NS = 1_000_000_000


class Sink(Protocol):
    """Where a live run's history goes. Every call comes in the order of positions."""

    def outputs(self, packed: bytes, position: int) -> None:
        """Outputs of steps before `position`, as msgpack objects (maybe none)."""

    def event(self, event: Event) -> None:
        """An event was given to the machine."""

    def content(self, hash_: bytes, content: bytes) -> None:
        """The content (4096 bytes) of a block that the next event names by its hash."""

    def observe(self, machine: Machine) -> None:
        """The machine stands at a grid position."""

    def rows(self, captured: Captured) -> None:
        """Captured rows."""

    def tick(self, machine: Machine) -> None:
        """Some time has passed: a good moment to write."""


class NoSink:
    """Remembers nothing."""

    def outputs(self, packed: bytes, position: int) -> None:
        """Nothing to do."""

    def event(self, event: Event) -> None:
        """Nothing to do."""

    def content(self, hash_: bytes, content: bytes) -> None:
        """Nothing to do."""

    def observe(self, machine: Machine) -> None:
        """Nothing to do."""

    def rows(self, captured: Captured) -> None:
        """Nothing to do."""

    def tick(self, machine: Machine) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class World:
    """Everything outside the machine that may come in. `edits` do so at once, in their order, before anything else."""

    entropy: SeededEntropy
    inputs: InputPlan = field(default_factory=InputPlan)
    clock: HostClock | ChaosClock | None = None
    kept: KeptEvents = field(default_factory=KeptEvents)
    edits: Sequence[Poke | SetRegister] = ()
    drives: BlockSource = field(default_factory=NoBlocks)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a live run ended.

    `reason`: poweroff, reset, waiting-for-ever, trap-loop (the machine's own), max-insns, interrupted or quit.
    `seconds`: host time in all, `machine_seconds` of it inside the machine, `waited_seconds` of it in waits.
    """

    reason: str
    exit_code: int
    position: int
    icount: int
    seconds: float
    machine_seconds: float
    waited_seconds: float


class Ticker:
    """Calls `attention` again and again from a thread, as long as the context lasts."""

    def __init__(self, seconds: float, attention: Callable[[], None]) -> None:
        self._seconds = seconds
        self._attention = attention
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vmrec-ticker", daemon=True)

    def _run(self) -> None:
        while not self._done.wait(self._seconds):
            self._attention()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()


class LiveRun:
    """One run of `machine` in `world`. `interrupt` may be called from a signal handler or another thread."""

    def __init__(
        self,
        machine: Machine,
        world: World,
        *,
        sink: Sink | None = None,
        console: Callable[[bytes], None] | None = None,
        max_insns: int | None = None,
        capture: bool = False,
        help_key: Callable[[], None] | None = None,
    ) -> None:
        self.machine = machine
        self.world = world
        self.sink: Sink = sink or NoSink()
        self._console = console
        self._max_insns = max_insns
        self._capture = capture
        self._help_key = help_key
        self._next_grid = (machine.position // GRID + 1) * GRID
        self._interrupted: str | None = None
        self._machine_ns = 0
        self._waited_ns = 0
        self._ticked = 0
        self._planned: tuple[int, int] | None = None
        self._kept_over = False
        self._wait_began: tuple[int, int] | None = None
        self._pause = threading.Event()
        self._held = False
        self._total_ns = 0
        self._stood_since: int | None = None

    def interrupt(self, reason: str = "interrupted") -> None:
        """Ends the run at the next step boundary that the machine comes back at."""
        self._interrupted = reason
        self._wake()

    def run(self) -> Ended:
        """Runs to the end. Raises what the sink raises (TraceError when the disk is full)."""
        self.start()
        reason = self.go()
        assert reason is not None  # nobody holds it
        return self.finish(reason)

    def start(self) -> None:
        """To be called once, before the first `go`."""
        self.machine.watch_deadline = isinstance(self.world.clock, ChaosClock)
        if self._capture:
            self.machine.start_capture()
        for edit in self.world.edits:
            self._push(edit)

    def go(self, until: int = UINT64_MAX, *, found: Callable[[], bool] | None = None) -> str | None:
        """Runs on, and returns why the run is over; None if it has only been stopped and can go on.

        It stops at the first position from `until` on where a recording could end, or the next such position when
        `hold` is called, or `found` answers True (it is asked whenever the machine comes back). While it stands, the
        host's time does not pass for the guest. Raises what the sink raises.
        """
        begin = time.perf_counter_ns()
        if self._stood_since is not None:
            self._stood(begin - self._stood_since)
        tick = HOST_CLOCK_TICK_SECONDS if isinstance(self.world.clock, HostClock) else TICK_SECONDS
        try:
            with Ticker(tick, self.machine.set_attention):
                return self._loop(until, found)
        finally:
            self._total_ns += time.perf_counter_ns() - begin
            self.stand()

    def stand(self) -> None:
        """From now until the next `go` the host's time does not count."""
        self._stood_since = time.perf_counter_ns()

    def hold(self) -> None:
        """Makes the `go` that runs, or the next one, stop soon. May be called from a signal handler or any thread."""
        self._held = True
        self._wake()

    def release(self) -> None:
        """Forgets a call of `hold` that came too late to stop anything."""
        self._held = False
        self._pause.clear()

    @property
    def interrupted(self) -> str | None:
        """Why the run is to be over, if somebody has said so."""
        return self._interrupted

    def finish(self, reason: str) -> Ended:
        """What there is to say about the run, which is over for `reason`. To be called once, behind the last `go`."""
        machine = self.machine
        self._take_rows(close=True)
        self._drain()
        return Ended(
            reason,
            machine.exit_code,
            machine.position,
            machine.icount,
            self._total_ns / _NS,
            self._machine_ns / _NS,
            self._waited_ns / _NS,
        )

    def _wake(self) -> None:
        self.machine.set_attention()
        self._pause.set()
        if isinstance(self.world.inputs.source, LiveInput):
            self.world.inputs.source.wake()

    def _stood(self, ns: int) -> None:
        if isinstance(self.world.clock, HostClock):
            self.world.clock.skip(ns)
        if self._wait_began is not None:
            self._wait_began = self._wait_began[0], self._wait_began[1] + ns

    # --- the loop ---

    def _loop(self, stop: int, found: Callable[[], bool] | None) -> str | None:
        machine = self.machine
        wanted = hit = False
        while True:
            until = self._give_events(wanted=wanted, stop=stop)
            if not machine.step_begun:  # else a replay could not end there
                if self._interrupted:
                    return self._interrupted
                if self._held or hit or machine.position >= stop:
                    self.release()
                    return None
            before = time.perf_counter_ns()
            exit_ = machine.run(until)
            after = time.perf_counter_ns()
            self._machine_ns += after - before
            self._drain()
            if machine.position == self._next_grid:
                self._observe()
            hit = hit or (found is not None and found())
            if after - self._ticked > TICK_SECONDS * _NS:
                self._ticked = after
                self._take_rows()
                self.sink.tick(machine)
            wanted = exit_ is Exit.RX_WANTED
            match exit_:
                case Exit.STOPPED:
                    return str(machine.stop_reason)
                case Exit.PULL:
                    self._supply()
                case Exit.MISSING_PAGE:
                    self._supply_block()
                case Exit.CAPTURE_FULL:
                    self._take_rows()
                case Exit.WAITING:
                    if not self._wait():
                        return "waiting-for-ever"
                case _:
                    pass
            if self._max_insns is not None and machine.icount >= self._max_insns:
                return "max-insns"

    def _drain(self) -> None:
        outputs = self.machine.take_outputs()
        if outputs:
            self.sink.outputs(outputs, self.machine.position)
            if self._console is not None:
                self._console(console_bytes(outputs))

    def _observe(self) -> None:
        self._take_rows(close=True, fresh=True)
        self.sink.observe(self.machine)
        self._next_grid += GRID

    def _take_rows(self, *, close: bool = False, fresh: bool = False) -> None:
        if self._capture:
            captured = self.machine.take_captured(close=close, fresh=fresh)
            if captured is not None:
                self.sink.rows(captured)

    def _supply(self) -> None:
        machine = self.machine
        event = Entropy(machine.position, self.world.entropy.pull(machine.pull_size))
        self.sink.event(event)
        machine.supply(event)

    def _supply_block(self) -> None:
        machine = self.machine
        wanted = machine.missing_block
        assert wanted is not None  # all of RAM is here
        content = self.world.drives.block(*wanted)
        event = Disk(machine.position, *wanted, blake3_of(content))
        self.sink.content(event.hash, content)
        self.sink.event(event)
        machine.supply_block(event, content)

    def _push(self, event: Input | Clock | Idle | Poke | SetRegister) -> None:
        self.sink.event(event)
        self.machine.push(event)

    # --- events at the current position ---

    def _give_events(self, *, wanted: bool, stop: int) -> int:
        """Gives what is due; returns how far towards `stop` the machine may run before something else is."""
        machine, inputs = self.machine, self.world.inputs
        self._take_keys()
        may_push = not machine.step_begun
        until = min(self._next_grid, max(stop, machine.position + 1))
        if may_push:
            self._give_kept()
            until = min(until, self._give_clock())
            data = inputs.take(machine.position, machine.input_room, wanted=wanted)
            if data:
                self._push_input(data)
        else:
            until = machine.position + 1
        scheduled = inputs.next_position()
        held_up = scheduled is not None and scheduled <= machine.position and may_push
        if scheduled is not None and not held_up:
            until = min(until, max(scheduled, machine.position + 1))
        kept = self.world.kept.next_position()
        if kept is not None and kept > machine.position:
            until = min(until, kept)
        held_up |= kept is not None and kept <= machine.position and may_push
        # Bytes that found the receiver full come when the guest has emptied it.
        machine.rx_paced = inputs.paced or held_up
        waits = inputs.live or not inputs.scripted.exhausted or kept is not None
        machine.auto_idle = not waits and self.world.clock is None
        if self._max_insns is not None:
            until = min(until, machine.position + max(self._max_insns - machine.icount, 1))
        return until

    def _give_kept(self) -> None:
        """Gives what another recording got here, or before here without there being a chance to give it."""
        kept = self.world.kept
        while (due := kept.next_position()) is not None and due <= self.machine.position:
            if not self._give_next_kept():
                return

    def _give_next_kept(self) -> bool:
        """Gives the next of the kept events, whatever its position, as far as it means something here."""
        machine = self.machine
        event = self.world.kept.take(machine.input_room)
        match event:
            case Clock(ticks=ticks):
                self._set_clock(ticks)
                if isinstance(self.world.clock, HostClock):
                    self.world.clock.advance_to(ticks)
            case Idle(steps=steps) if machine.waiting and self.world.clock is None:
                deadline = machine.deadline_steps()
                steps = steps if deadline is None else min(steps, max(deadline - 1, 0))
                if steps:
                    self._push(Idle(machine.position, steps))
            case Input(data=data):
                self._push(Input(machine.position, data))
            case _:
                pass
        return event is not None

    def _give_early(self) -> bool:
        """Nothing else can end the wait: what another recording got later comes now."""
        return not self.machine.step_begun and self._give_next_kept()

    @property
    def _clock(self) -> HostClock | ChaosClock | None:
        """The clock that decides now: none while that of another recording does, up to its end."""
        over = self._kept_over or self.machine.position >= self.world.kept.clock_until
        return self.world.clock if over else None

    def _give_clock(self) -> int:
        """Sets guest time where it is due; returns the position of the next step of the clock."""
        machine, clock = self.machine, self._clock
        if isinstance(clock, HostClock):
            self._set_clock(clock.ticks())
        elif isinstance(clock, ChaosClock):
            if self._planned is not None and self._planned[0] <= machine.position:
                self._set_clock(self._planned[1])
            self._planned = clock.next_step(machine.position, machine.clock_ticks, machine.clock_deadline)
            return self._planned[0]
        return self._next_grid

    def _set_clock(self, ticks: int) -> None:
        if ticks > self.machine.clock_ticks:
            self._push(Clock(self.machine.position, ticks))

    def _take_keys(self) -> None:
        source = self.world.inputs.source
        if isinstance(source, LiveInput):
            for key in source.take_keys():
                if key is Key.QUIT:
                    self._interrupted = "quit"
                elif self._help_key is not None:
                    self._help_key()

    # --- waits ---

    def _wait(self) -> bool:
        """Ends the wait that the machine is in, or waits a while. False if it will never end."""
        self._kept_over = self.world.kept.exhausted  # or time would stand still here
        machine, inputs, clock = self.machine, self.world.inputs, self._clock
        deadline = machine.deadline_steps()
        if inputs.live or (isinstance(clock, HostClock) and deadline is not None):
            return self._wait_in_host_time(deadline)
        return self._end_wait() or self._give_script() or self._give_early()

    def _end_wait(self) -> bool:
        """Lets guest time pass to the deadline. False if there is none."""
        machine, clock = self.machine, self._clock
        if clock is None:
            return machine.idle_to_deadline()
        steps = machine.deadline_steps()  # of the timers that could end it
        deadline = None if steps is None else machine.clock_ticks + steps // STEPS_PER_TICK
        ticks = (
            clock.end_wait(machine.position, machine.clock_ticks, deadline)
            if isinstance(clock, ChaosClock)
            else max(clock.ticks(), deadline or 0)
        )
        if ticks is None or deadline is None:
            return False
        self._planned = None
        self._set_clock(ticks)
        return True

    def _give_script(self) -> bool:
        """Nothing else can end the wait: what is scripted for later comes now."""
        machine, scripted = self.machine, self.world.inputs.scripted
        due = scripted.next_position()
        if due is None or machine.step_begun:
            return False
        data = scripted.take(max(due, machine.position), machine.input_room)
        if data:
            self._push(Input(machine.position, data))
        return bool(data)

    def _wait_in_host_time(self, deadline: int | None) -> bool:
        """Waits for input, the deadline, a signal or a while, whatever comes first."""
        source = self.world.inputs.source
        if self._wait_began is None or self._wait_began[0] != self.machine.position:
            self._wait_began = (self.machine.position, time.perf_counter_ns())
        begin = time.perf_counter_ns()
        left = None if deadline is None else deadline - (begin - self._wait_began[1])
        timeout = TICK_SECONDS if left is None else max(min(left / _NS, TICK_SECONDS), 0.0)
        if isinstance(source, LiveInput) and not source.exhausted:
            came = source.wait(timeout)
        else:
            came = self._pause.wait(timeout)
        now = time.perf_counter_ns()
        self._waited_ns += now - begin
        if not came and deadline is not None and now - self._wait_began[1] >= deadline:
            self._wait_began = None
            self._end_wait()
        return True

    def _push_input(self, data: bytes) -> None:
        """Gives console bytes, and before them the time that the guest has waited for them."""
        machine = self.machine
        if machine.waiting and self._wait_began is not None and self.world.clock is None:
            deadline = machine.deadline_steps()
            idle = time.perf_counter_ns() - self._wait_began[1]
            idle = idle if deadline is None else min(idle, max(deadline - 1, 0))
            if idle > 0:
                self._push(Idle(machine.position, idle))
        self._wait_began = None
        self._push(Input(machine.position, data))


def console_bytes(outputs: bytes) -> bytes:
    """The console bytes among packed outputs."""
    return b"".join(output[2] for output in unpack_stream(outputs) if output[0] == "console")
