# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures the rows: which runs a row needs, in which order they are made, and what becomes of their times.

Hosts are noisy, so the two sides of a ratio run alternately, several times: a figure is the median of the ratios of
pairs that ran one after the other. Short guests are repeated until there is something to measure. What the same side
takes for `hello` (some hundred instructions) is start-up, and taken off.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vmrec.cli.benchmark import peers, sides
from vmrec.cli.benchmark.rows import PARTS, ROWS, Figure, Result
from vmrec.cli.benchmark.sides import KERNELS, Timing, guest_named
from vmrec.diff.first import Difference, diff
from vmrec.errors import MachineError
from vmrec.guest.symbols import Symbols
from vmrec.replay.points import Watch
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader

__all__ = ["SUITE", "Bench", "Plan"]

SUITE = (
    "loop-reg", "loop-mem", "loop64-mem", "loop-branchy", "loop-mmio", "loop-trap", "loop-fp", "loop-mixed", "loop-smc",
    "timer-long", "kernel",
)  # fmt: skip
#: Guests whose instructions all run on the engine: the others are the stepper's, which counts for nothing.
_ENGINE_ONLY = ("loop-reg", "loop-mem", "loop64-mem", "loop-branchy", "loop-fp")
#: The kernel waits for no timer; where time stands still it only has no switches by the timer.
_UNCOUNTED = (*_ENGINE_ONLY, "kernel")
#: Beside QEMU with its disk apart: QEMU's rr waits some 30 ms for each request.
_KERNELS_ON_QEMU = ("kernel-nodisk", "kernel-disk")
_STEPPED = "runs on the stepper or needs the time: there is no uncounted limit"
#: Rounds that a side outside vmrec takes part in, at most: they are slow, and vary less.
_PEER_ROUNDS_MAX = 3
_STARTUP_RUNS = (15, 3)  #: inside this process, and with one of its own
_REPEATS_MAX = 40
_DISTANCES = {"shortest": 10**8, "longest": 2 * 10**9, "long": 3 * 10**10}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `runs`: rounds; `quick`: shorter guests and one round; `long`: what takes minutes as well.

    `cpu`: the clock is the CPU time of all threads.
    """

    rows: tuple[str, ...] = tuple(ROWS)
    guests: tuple[str, ...] = SUITE
    runs: int = 5
    quick: bool = False
    long: bool = False
    cpu: bool = False

    @property
    def least_seconds(self) -> float:
        """Short guests are repeated until a sample took this long."""
        return 0.05 if self.quick else 0.25

    @property
    def cap(self) -> int | None:
        """Instructions after which runs are ended that are compared with others of vmrec."""
        return 50_000_000 if self.quick else None

    @property
    def full_cap(self) -> int:
        """Instructions after which full recordings are ended."""
        return 3_000_000 if self.quick else 20_000_000


class Job(NamedTuple):
    """One side of a ratio: how a guest is run, and how many instructions of it (None: all)."""

    side: str
    guest: str
    cap: int | None


class Sample(NamedTuple):
    """Seconds that a job took, start-up apart, and the instructions it executed (None: nobody counted)."""

    seconds: float
    icount: int | None


class Ratio(NamedTuple):
    """What a row of ratios compares; `capped`: both sides can be ended early."""

    fast: str
    slow: str
    capped: bool


_RATIOS = {
    "A": Ratio("record", "run", True),
    "B": Ratio("record", "uncounted", False),
    "C": Ratio("record", "stock", False),
    "D": Ratio("record", "qemu", False),
    "D plain": Ratio("record", "qemu plain", False),
    "D replay": Ratio("replay", "qemu replay", False),
    "E": Ratio("replay", "record", True),
}
_PEERS = frozenset({"stock", "qemu", "qemu plain", "qemu replay"})
#: What leaves a run: guest that does it again and again, and how often.
_EXITS = {
    "MMIO in C": ("loop-mmio", 10**6),
    "ecall": ("loop-trap", 10**6),
    "page fault": ("loop-fault", 10**6),
    "timer interrupt": ("loop-tick", 10**5),
}


class Bench:
    """Measures a plan in `folder`, step by step; `results` are there at any time, of what is done so far."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self._folder = folder
        self._clock = time.process_time if plan.cpu else time.perf_counter
        self._peer_clock = peers.children_cpu if plan.cpu else time.perf_counter
        self._samples: dict[Job, list[Sample]] = {}
        self._consoles: dict[str, bytes] = {}
        self._failed: dict[Job, str] = {}
        self._startups: dict[tuple[str, str, int], float] = {}
        self._own: dict[str, Result] = {}
        self._sizes: dict[str, tuple[int, int]] = {}  # guest → bytes of an uncapped inputs recording, instructions

    # ------------------------------------------------------------------------------------------------- the plan

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Everything that there is to do: what to say about it, and a function that does it."""
        found: list[tuple[str, Callable[[], None]]] = []
        for number, job in self._rounds():
            found.append((f"{job.guest}: {job.side}", partial(self._take, job, number)))
        for guest in self._full_guests():
            found.append((f"{guest}: record full", partial(self._full, guest)))
        own: dict[str, Callable[[], None]] = {
            "F": self._hooks, "H": self._log, "I": self._checkpoints, "J": self._seek, "K": self._go_back,
            "L": self._diff, "M": self._exits, "N": self._memory, "O": self._start,
        }  # fmt: skip
        found += [(f"row {letter}", own[letter]) for letter in own if letter in self.plan.rows]
        return found

    def _jobs(self, guest: str) -> list[Job]:
        """The jobs of one guest in a round, each once, those of a pair near each other."""
        jobs: dict[Job, None] = {}
        for name, ratio in _RATIOS.items():
            for variant in _variants(name, guest):
                if name[0] in self.plan.rows and not self._excluded(name, variant):
                    cap = self.plan.cap if ratio.capped else None
                    jobs.update({Job(ratio.fast, variant, cap): None, Job(ratio.slow, variant, cap): None})
        return list(jobs)

    def _rounds(self) -> Iterator[tuple[int, Job]]:
        for number in range(self.plan.runs):
            for guest in self.plan.guests:
                jobs = self._jobs(guest)
                turn = number % max(len(jobs), 1)
                for job in jobs[turn:] + jobs[:turn]:
                    if job.side not in _PEERS or number < _PEER_ROUNDS_MAX:
                        yield number, job

    def _excluded(self, letter: str, guest: str) -> str | None:
        """Why a row does not hold for a guest."""
        if letter == "B" and guest not in _UNCOUNTED:
            return _STEPPED
        if letter == "C":
            return peers.NOT_FOR_STOCK.get(guest)
        return None

    def _full_guests(self) -> Sequence[str]:
        if {"E", "G"} & set(self.plan.rows):
            return self.plan.guests
        return ("loop-mem",) if "F" in self.plan.rows else ()

    # ------------------------------------------------------------------------------------------- one job, timed

    def _take(self, job: Job, number: int) -> None:
        """Adds a sample of `job`: of round `number`, so that it meets its partner of the same round."""
        if job in self._failed:
            return
        startup = self._startup(job.side, job.guest, number)
        timings: list[Timing] = []
        while not timings or (
            sum(timing.seconds for timing in timings) < self.plan.least_seconds and len(timings) < _REPEATS_MAX
        ):
            timing = self._once(job)
            if isinstance(timing, str):
                self._failed[job] = timing
                return
            timings.append(timing)
        if job.cap is None:
            expected = self._consoles.setdefault(job.guest, timings[0].console)
            if timings[0].console != expected:
                self._failed[job] = f"prints something else there: {timings[0].console[-40:]!r}"
                return
        seconds = statistics.median(timing.seconds for timing in timings) - startup
        samples = self._samples.setdefault(job, [])
        assert len(samples) == number
        samples.append(Sample(max(seconds, 1e-6), timings[0].icount))

    def _once(self, job: Job) -> Timing | str:
        path = self._folder / f"{job.guest}-{job.cap}.vmrec"
        match job.side:
            case "run":
                return sides.run(job.guest, self._clock, max_insns=job.cap)
            case "record":
                return self._record(job, path)
            case "replay":
                if not path.exists():
                    self._record(job, path)
                return sides.replay(path, self._clock)
            case "uncounted":
                return sides.run_uncounted(job.guest, self._clock)
            case "stock":
                return peers.stock_unicorn(job.guest, self._clock)
            case "qemu plain":
                return peers.qemu(job.guest, self._folder, self._peer_clock, "plain")
            case "qemu replay":
                return peers.qemu(job.guest, self._folder, self._peer_clock, "replay")
            case _:
                return peers.qemu(job.guest, self._folder, self._peer_clock)

    def _record(self, job: Job, path: Path) -> Timing:
        timing = sides.record(job.guest, path, self._clock, max_insns=job.cap)
        if job.cap is None and timing.icount:
            self._sizes[job.guest] = path.stat().st_size, timing.icount
        return timing

    def _startup(self, side: str, guest: str, number: int) -> float:
        """Seconds that `side` takes for a guest that does nothing: measured in each round, for it varies too."""
        apart = side.startswith("qemu")
        if guest in KERNELS:
            shortest = "kernel-boot"
        else:  # the shortest that there is for that width
            shortest = "lrsc64" if apart and guest_named(guest).xlen == 64 else "hello"
        key = (side, shortest, 0 if apart else number)
        if key not in self._startups:
            found = [self._once(Job(side, shortest, None)) for _ in range(_STARTUP_RUNS[apart])]
            self._startups[key] = statistics.median(
                0.0 if isinstance(timing, str) else timing.seconds for timing in found
            )
        return self._startups[key]

    # ------------------------------------------------------------------------------------------------- results

    def results(self) -> list[Result]:
        """What is known so far, in the order of the rows."""
        found = []
        for letter in self.plan.rows:
            result = self._ratios(letter) if letter in _RATIOS else Result(ROWS[letter])
            found.append(self._own.get(letter, result))
            for part, row in PARTS.items():
                if row.letter == letter and part in _RATIOS and "kernel" in self.plan.guests:
                    found.append(self._ratios(part))
                elif row.letter == letter and part in self._own:
                    found.append(self._own[part])
        return found

    def _ratios(self, letter: str) -> Result:
        result = Result(PARTS.get(letter) or ROWS[letter])
        ratio = _RATIOS[letter]
        cap = self.plan.cap if ratio.capped else None
        for guest in (variant for name in self.plan.guests for variant in _variants(letter, name)):
            fast, slow = Job(ratio.fast, guest, cap), Job(ratio.slow, guest, cap)
            reason = self._excluded(letter, guest) or self._failed.get(fast) or self._failed.get(slow)
            pairs = list(zip(self._samples.get(fast, ()), self._samples.get(slow, ()), strict=False))
            if reason or not pairs:
                result.missing.append((guest, reason or "not reached"))
                continue
            values = [other.seconds / one.seconds for one, other in pairs]
            icount = next((sample.icount for pair in pairs for sample in pair if sample.icount), 0)
            speeds = [icount / statistics.median(pair[side].seconds for pair in pairs) / 1e6 for side in (0, 1)]
            detail = f"{_number(speeds[0])} : {_number(speeds[1])} M/s"
            result.figures.append(Figure(guest, values, result.row.bounds_of(guest), detail=detail))
        return result

    def _add(self, name: str, figure: str, values: Sequence[float], digits: int = 2, detail: str = "") -> None:
        """Adds a figure to the row or part `name`, unless nobody asked for it."""
        row = PARTS.get(name) or ROWS[name]
        if row.letter in self.plan.rows:
            result = self._own.setdefault(name, Result(row))
            result.figures.append(Figure(figure, values, row.bounds_of(figure), digits, detail))

    # ------------------------------------------------------------------------------------------- full recordings

    def _full(self, guest: str) -> None:
        """Records a guest in full, and replays that with and without looking at the rows."""
        path = self._folder / "full.vmrec"
        recorded, free, checked = [], [], []
        icount = size = 0
        for _ in range(1 if self.plan.quick else min(self.plan.runs, 3)):
            timing = sides.record(guest, path, self._clock, max_insns=self.plan.full_cap, capture="full")
            icount, size = timing.icount or 1, path.stat().st_size
            recorded.append(timing.seconds)
            if "E" in self.plan.rows:
                free.append(sides.replay(path, self._clock).seconds)
                checked.append(sides.replay(path, self._clock, check_rows=True).seconds)
        if guest in self.plan.guests:
            self._add("G", guest, [size / icount], detail=f"{_number(icount / 1e6)} M insns, {_number(size / 1e6)} MB")
            self._add_replays("E full", guest, icount, recorded, free)
            self._add_replays("E rows", guest, icount, recorded, checked)
        if guest == "loop-mem":
            values = [icount / seconds / 1e6 for seconds in recorded]
            self._add("F", "loop-mem", values, 1, f"{_number(size / 1e6)} MB of {_number(icount / 1e6)} M insns")
        path.unlink()

    def _add_replays(
        self, part: str, guest: str, icount: int, recorded: Sequence[float], replayed: Sequence[float]
    ) -> None:
        values = [one / other for one, other in zip(recorded, replayed, strict=False)]
        if values:
            speeds = [icount / statistics.median(seconds) / 1e6 for seconds in (replayed, recorded)]
            self._add(part, guest, values, detail=f"{_number(speeds[0])} : {_number(speeds[1])} M/s")

    def _hooks(self) -> None:
        """Row F's second figure: what a tracer in Python reaches on the same loop."""
        speeds = []
        for _ in range(1 if self.plan.quick else 3):
            timing, _ = peers.python_hooks("loop-mem", 200_000, self._clock)
            speeds.append((timing.icount or 1) / timing.seconds / 1e6)
        own = self._own["F"].figures[0].value
        detail = f"hooks and msgpack: {statistics.median(speeds):.2f} M insn/s"
        self._add("F", "/ Python", [own / speed for speed in speeds], 1, detail)

    # --------------------------------------------------------------------------------------- sizes, diff, memory

    def _size(self, guest: str) -> tuple[int, int]:
        """Bytes of a whole inputs recording, header and digests and checkpoints included, and its instructions."""
        if guest not in self._sizes:
            self._record(Job("record", guest, None), self._folder / f"{guest}-None.vmrec")
        return self._sizes[guest]

    def _log(self) -> None:
        for guest in ("timer-long", "kernel"):
            size, icount = self._size(guest)
            self._add("H", guest, [8 * size / icount], 4, f"{size} bytes, {_number(icount / 1e6)} M insns")

    def _checkpoints(self) -> None:
        """All of the file counts as checkpoints, which are most of it."""
        size, icount = self._size("kernel")
        detail = f"{_number(size / 1e6)} MB of {_number(icount / 1e6)} M insns"
        self._add("I", "kernel", [size / icount * 1e3], 2, detail)

    def _exits(self) -> None:
        """What is left when the instructions are taken off, at the speed of a plain loop, divided by the exits."""
        for name, (guest, count) in _EXITS.items():
            values = []
            for _ in range(1 if self.plan.quick else self.plan.runs):
                plain = sides.run("loop-reg", self._clock, max_insns=10**8)
                timing = sides.run(guest, self._clock)
                assert plain.icount is not None
                assert timing.icount is not None
                values.append(1e6 * (timing.seconds - timing.icount * plain.seconds / plain.icount) / count)
            self._add("M", name, values, 3, f"{count} in {guest}")

    def _diff(self) -> None:
        """Two recordings of one guest; in the second a byte comes in that the first does not have.

        Steps are executed from there on until one differs: when timer-long next prints, and so reads the UART's
        status. `forever` never does: everything must be executed to know that no step differs.
        """
        lengths = [10**7] if self.plan.quick else [10**8]
        lengths += [10**9] if self.plan.long else []
        for length in lengths:
            for name, guest, position in (
                ("early", "timer-long", length // 100),
                ("late", "timer-long", length // 10 * 9),
                ("unseen", "forever", length // 100),
            ):
                self._add_diff(f"10^{len(str(length)) - 1}, {name}", guest, length, position)

    def _add_diff(self, figure: str, guest: str, length: int, position: int) -> None:
        a, b = self._folder / "a.vmrec", self._folder / "b.vmrec"
        sides.record(guest, a, self._clock, max_insns=length)
        sides.record(guest, b, self._clock, max_insns=length, script=((position, b"x"),))
        with TraceReader(a) as one, TraceReader(b) as other:
            begin = self._clock()
            found = diff(one, other)
            seconds = self._clock() - begin
        if not isinstance(found, Difference):
            raise MachineError("two recordings that differ in an event were said to be the same")
        first, last = found.compared.executed or (0, 0)
        self._add("L", figure, [seconds], detail=f"{guest}, {_number((last - first) / 1e6)} M steps executed")

    def _memory(self) -> None:
        """Of `vmrec record` in a process of its own: the most that was resident at any time."""
        names = ["shortest", "longest"] + (["long"] if self.plan.long else [])
        if self.plan.quick:
            names = names[:1]
        found = []
        for name in names:
            length = _DISTANCES[name]
            found.append(self._resident(length))
            self._add("N", f"{_number(length / 1e6)} M insns", [found[-1] / 1e6], 0)
        if len(found) > 1:
            self._add("N", "growth", [found[-1] / found[0]])

    def _resident(self, length: int) -> int:
        path = str(self._folder / "memory.vmrec")
        return _most_resident(
            "import sys; from vmrec.cli.main import main; assert main(sys.argv[1:]) == 0",
            ["record", "forever", "--force", "--capture", "inputs", "--max-insns", str(length), "-o", path],
        )

    # ---------------------------------------------------------------------------------------------- moving about

    def _travelled(self, guest: str = "loop-mem-long") -> Path:
        """A recording to move about in."""
        path = self._folder / f"travel-{guest}.vmrec"
        if not path.exists():
            length = 10**8 if self.plan.quick else 10**9
            sides.record(guest, path, self._clock, max_insns=length)
        return path

    def _seek(self) -> None:
        """To positions all over the recording: one after the other, and each as the first of a fresh timeline.

        The others start from snapshots that those before left nearby; the second of a fresh timeline hardly does.
        """
        for guest, prefix in (("loop-mem-long", ""), ("kernel", "kernel ")):
            self._seek_in(guest, prefix)
        self._seek_memory()

    def _seek_in(self, guest: str, prefix: str) -> None:
        path, first, second = self._travelled(guest), [], []
        with TraceReader(path) as trace, Timeline(trace) as timeline:
            last = timeline.last
            places = [number * 0x9E3779B97F4A7C15 % last for number in range(1, 20 if self.plan.quick else 61)]
            values = [1e3 * _seconds(partial(timeline.seek, at)) for at in places]
        for at in places:  # the same ones, so that they can be compared
            with TraceReader(path) as trace, Timeline(trace) as timeline:
                first.append(1e3 * _seconds(partial(timeline.seek, at)))
            with TraceReader(path) as trace, Timeline(trace) as timeline:
                timeline.seek((at + last // 2) % last)
                second.append(1e3 * _seconds(partial(timeline.seek, at)))
        for name, found in (("", values), ("first ", first), ("second ", second)):
            self._add("J", f"{prefix}{name}p50", [_percentile(found, 50)], 1, f"{len(found)} seeks in {guest}")
            self._add("J", f"{prefix}{name}p95", [_percentile(found, 95)], 1)

    def _seek_memory(self) -> None:
        """Of a process that goes to many places, looks around at each, and searches far at last."""
        seeks = 100 if self.plan.quick else 1000
        found = _most_resident(
            f"""
            import sys
            from vmrec.replay.points import Watch
            from vmrec.replay.timeline import Timeline
            from vmrec.trace.reader import TraceReader
            with TraceReader(sys.argv[1]) as trace, Timeline(trace) as timeline:
                for number in range(1, {seeks + 1}):
                    timeline.seek(number * 0x9E3779B97F4A7C15 % timeline.last)
                    for _ in range(64):
                        timeline.reverse_step()
                timeline.seek(timeline.last)
                timeline.reverse_run([Watch(timeline.guest.entry, 4, "write")])
            """,
            [str(self._travelled())],
        )
        self._add("J memory", "resident", [found / 1e6], 0, f"{seeks} seeks, RAM included")

    def _go_back(self) -> None:
        """Step by step; and from the end to a write that lies near the begin.

        The word behind the array that the loop writes is cleared at start-up, and never again; a watch for a change
        of it finds none.
        """
        path = self._travelled()
        with TraceReader(path) as trace, Timeline(trace) as timeline:
            timeline.seek(timeline.last // 2)
            timeline.reverse_step()
            steps = [1e3 * seconds for seconds in _repeated(3000, timeline.reverse_step)]
            self._add("K", "p50", [_percentile(steps, 50)], 3, "3000 steps back")
            self._add("K", "p95", [_percentile(steps, 95)], 3)
            array = Symbols(*timeline.guest.elfs).address("data")
            assert array is not None  # it is our guest
            for kind in ("write", "change"):
                timeline.seek(timeline.last)
                watch = Watch(array + (256 << 10), 4, kind)
                seconds = _seconds(partial(timeline.reverse_run, [watch]))
                self._add("K", f"{kind} at the begin", [1e3 * seconds], 0, f"found at {timeline.position}")

    # ------------------------------------------------------------------------------------------------- start-up

    def _start(self) -> None:
        command = [sys.executable, "-m", "vmrec", "--version"]
        values = list(_repeated(9, lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)))
        self._add("O", "--version", [1e3 * seconds for seconds in values[1:]], 0)
        path = self._folder / "open.vmrec"
        sides.record("loop-mem", path, self._clock, max_insns=self.plan.full_cap, capture="full")
        values = list(_repeated(9, lambda: _open(path)))
        size = _number(path.stat().st_size / 1e6)
        self._add("O", "open", [1e3 * seconds for seconds in values[1:]], 1, f"a recording of {size} MB")
        values = list(_repeated(9, lambda: _open_timeline(path)))
        self._add("O", "open a timeline", [1e3 * seconds for seconds in values[1:]], 1, "the same")
        path.unlink()


def _most_resident(program: str, arguments: Sequence[str]) -> int:
    """The most bytes that were ever resident of a Python program in a process of its own."""
    program = textwrap.dedent(program) + textwrap.dedent(
        """
        with open("/proc/self/status") as file:
            print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if result.returncode:
        raise MachineError(f"a program failed whose memory was measured: {result.stderr.decode()[-200:]}")
    return int(result.stdout.split()[-1]) * 1024


def _repeated(times: int, function: Callable[[], object]) -> Iterable[float]:
    for _ in range(times):
        yield _seconds(function)


def _seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _open(path: Path) -> None:
    """What every verb does first: header, length, end, and where digests and checkpoints are."""
    with TraceReader(path) as trace:
        _ = trace.last_position, trace.end, trace.digests, trace.checkpoints


def _open_timeline(path: Path) -> None:
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        _ = timeline.state.pc


def _variants(name: str, guest: str) -> tuple[str, ...]:
    """What of a guest of the suite takes part in a row or part of ratios."""
    if name.startswith("D") and guest == "kernel":
        # Plain QEMU does not wait for its disk, and the short one would be nothing but its start.
        return ("kernel",) if name == "D plain" else _KERNELS_ON_QEMU
    return () if name in PARTS else (guest,)


def _percentile(values: Sequence[float], percent: int) -> float:
    """The least value that at least `percent` of them do not exceed."""
    return sorted(values)[max(-(-len(values) * percent // 100) - 1, 0)]


def _number(value: float) -> str:
    """Three digits or so: 1602, 41.3, 0.82."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
