# SPDX-License-Identifier: GPL-2.0-or-later
"""What the verbs that run a guest live share: options, signals that end a run, and the summary.

    options ──▶ Live ──▶ machine, console in and out, signals ──▶ Ended ──▶ summary

`record` adds a trace to it, `run` nothing, `hunt` only takes the options.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated, Any, Literal, Self

import typer

from vmrec.cli.console import GuestConsole, open_input
from vmrec.cli.drives import open_images
from vmrec.cli.output import EXIT_TROUBLE, columns, note, plural, print_json, progress, quantity, size
from vmrec.errors import UsageError
from vmrec.guest.builtin import builtin_names, resolve_guest
from vmrec.guest.elf import Guest, load_guest
from vmrec.isa.profiles import PROFILES
from vmrec.machine.board import MachineConfig
from vmrec.machine.boot import BootOptions, place, read_boot_files
from vmrec.machine.machine import Machine
from vmrec.record.drives import ImageSet
from vmrec.record.session import Ended, LiveRun, Sink, World
from vmrec.record.sources import (
    ChaosClock,
    HostClock,
    InputPlan,
    ScriptedInput,
    SeededEntropy,
    draw_seed,
    wall_clock_ns,
)
from vmrec.record.terminal import KEYS, RawTerminal

__all__ = [
    "CaptureOption",
    "ChaosOption",
    "ClockOption",
    "ConsoleOption",
    "ExitCodeOption",
    "InputAtOption",
    "InputOption",
    "IsaOption",
    "Live",
    "LiveOptions",
    "MaxInsnsOption",
    "RamOption",
    "SeedOption",
    "SignalsEnd",
    "complete_isa",
    "default_capture",
    "exit_status",
    "find_guest",
    "memory_size",
    "report",
    "summary",
]

SEED_MAX = 2**64 - 1

# --------------------------------------------------------------------------------------------------------- options


def complete_isa(incomplete: str) -> list[str]:
    """Profiles that a shell completes `incomplete` to."""
    return [name for name in PROFILES if name.startswith(incomplete)]


BiosOption = Annotated[
    str | None,
    typer.Option(
        metavar="F",
        help="Firmware, at 0x80000000 in machine mode: ELF or raw; none: the kernel starts in machine mode. If left "
        "out, vmrec itself is the firmware (SBI) of --kernel.",
        show_default=False,
    ),
]
KernelOption = Annotated[
    str | None,
    typer.Option(
        metavar="F",
        help="A kernel instead of GUEST: ELF, Linux Image or raw; kernel.elf is the teaching kernel of vmrec.",
        show_default=False,
    ),
]
InitrdOption = Annotated[
    str | None, typer.Option(metavar="F", help="The kernel's initial RAM disk.", show_default=False)
]
AppendOption = Annotated[
    str | None, typer.Option(metavar="S", help="The kernel's command line.", show_default=False)
]
DtbOption = Annotated[
    str | None,
    typer.Option(metavar="F", help="A device tree to hand over; vmrec's own if left out.", show_default=False),
]
SymbolsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="F", help="An ELF file to take more names from; may be given several times.", show_default=False
    ),
]
IsaOption = Annotated[
    str | None,
    typer.Option(
        metavar="PROFILE",
        help=f"What the machine can execute ({', '.join(PROFILES)}); as the ELF says if left out.",
        autocompletion=complete_isa,
        show_default=False,
    ),
]
RamOption = Annotated[str, typer.Option(metavar="SIZE", help="Memory of the machine: a number and K, M or G.")]
InputOption = Annotated[
    str | None,
    typer.Option(
        metavar="F",
        help="Where the console's input comes from: a file, or - for stdin. A regular file is read at the guest's "
        "pace. If left out: the terminal, if stdin is one.",
        show_default=False,
    ),
]
InputAtOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N:S",
        help="Console input S at position N, for example 120000:'ls\\n'; may be given several times.",
        show_default=False,
    ),
]
ClockOption = Annotated[
    Literal["virtual", "host"],
    typer.Option(help="Guest time: a function of the position, or as it passes on the host (and its date)."),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=0, max=SEED_MAX, help="Seed of the guest's entropy; drawn if left out.", show_default=False
    ),
]
ChaosOption = Annotated[
    int | None,
    typer.Option(
        metavar="SEED",
        min=0,
        max=SEED_MAX,
        help="Make timers early and late, as this seed decides.",
        show_default=False,
    ),
]
MaxInsnsOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="End after N instructions.", show_default=False)
]
CaptureOption = Annotated[
    Literal["inputs", "full"] | None,
    typer.Option(
        help="What goes into the recording: what came in, or also every instruction and memory access. Default: full "
        "for rv32im, inputs otherwise.",
        show_default=False,
    ),
]
ConsoleOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the guest's console there instead of to stdout.", show_default=False),
]
ExitCodeOption = Annotated[
    Literal["guest"] | None,
    typer.Option(help="Exit with the guest's exit code (2 if it gave none).", show_default=False),
]


def memory_size(text: str) -> int:
    """The bytes that a value of --ram means: 65536, 512K, 128M, 2G. Raises UsageError."""
    match = re.fullmatch(r"([0-9]+)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"--ram {text!r} is not a size; give a number with K, M or G behind it, for example 128M.")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """The options of a live run, as given. `json`: stdout is for the report."""

    guest: str | None
    isa: str | None = None
    ram: str = "128M"
    input: str | None = None
    input_at: Sequence[str] = ()
    clock: Literal["virtual", "host"] = "virtual"
    seed: int | None = None
    chaos: int | None = None
    max_insns: int | None = None
    console: Path | None = None
    json: bool = False
    boot: BootOptions = field(default_factory=BootOptions)
    drives: Sequence[Path] = ()
    devices: Sequence[str] = ()
    virtio: Literal["modern", "legacy"] = "modern"

    def config(self, guest: Guest, drives: tuple[int, ...] = ()) -> MachineConfig:
        """The machine for `guest`, with drives of these sizes. Raises UsageError for options that contradict others."""
        return self.machine(guest.isa, sbi=guest.boot is not None and self.boot.bios is None, drives=drives)

    def machine(self, isa: str, *, sbi: bool = False, drives: tuple[int, ...] = ()) -> MachineConfig:
        """The machine for a guest built for `isa`. Raises UsageError for options that contradict each other.

        Unless the clock is the host's, the real-time clock starts at 1970: so a run without input is the same always.
        """
        if self.chaos is not None and self.clock == "host":
            raise UsageError("--chaos and --clock host both set the guest's time; choose one.")
        stepped = self.chaos is not None or self.clock == "host"
        return MachineConfig(
            isa=isa if self.isa is None else self.isa.strip().lower(),
            ram_size=memory_size(self.ram),
            time_rule="stepped" if stepped else "virtual",
            rtc_base_ns=wall_clock_ns() if self.clock == "host" else 0,
            sbi=sbi,
            drives=drives,
            devices=tuple(self.devices),
            virtio=self.virtio,
        )

    def find(self, verb: str) -> Guest:
        """The guest that the options of `vmrec VERB` name. Raises UsageError or GuestError, which say what there is."""
        if not self.boot:
            return find_guest(self.guest, verb)
        if self.guest is not None:
            raise UsageError(
                f"{self.guest}: GUEST is a program on the bare machine; leave out either it or the options that boot "
                "images."
            )
        files = read_boot_files(self.boot)
        return place(files, self.machine(files.isa, sbi=files.sbi))

    def time_source(self) -> HostClock | ChaosClock | None:
        """The clock outside the machine, None under the virtual time rule."""
        if self.chaos is not None:
            return ChaosClock(self.chaos)
        return HostClock() if self.clock == "host" else None


def default_capture(config: MachineConfig) -> str:
    """What is captured if nobody says: everything on the toy ISA, which is what a small guest is recorded for."""
    return "full" if config.isa == "rv32im" else "inputs"


def find_guest(argument: str | None, verb: str) -> Guest:
    """The guest that `vmrec VERB GUEST` means. Raises UsageError or GuestError, which say what there is."""
    if argument is None:
        raise UsageError(
            f"which guest? Name an ELF file, or one of the guests that come with vmrec: {', '.join(builtin_names())}. "
            f"For example: `vmrec {verb} hello`."
        )
    return load_guest(resolve_guest(argument))


# --------------------------------------------------------------------------------------------------------- signals


class SignalsEnd:
    """While the block lasts, SIGINT, SIGTERM and SIGHUP call `end` instead of ending the process.

    `end` is called from a thread: it may take locks, and is called even while the main thread is busy in C. Signals
    that are ignored (as under nohup) stay ignored. Outside the main thread, where Python has no signals, nothing
    happens.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._watch, name="vmrec-signals", daemon=True)
        self._thread.start()
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self.SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, _noted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handlers and threading.current_thread() is not threading.main_thread():
            return
        while self._handlers:
            signal.signal(*self._handlers.popitem())
        signal.set_wakeup_fd(self._before)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _watch(self) -> None:
        while numbers := os.read(self._reader, 64):
            if any(number in self.SIGNALS for number in numbers):
                self._end()


def _noted(number: int, frame: FrameType | None) -> None:
    """Nothing: the byte that Python writes for the signal is what counts."""


# -------------------------------------------------------------------------------------------------------- the run


class Live:
    """A guest made ready to run live as `options` say; a context manager. Raises UsageError and GuestError.

    `seed` is the seed of the guest's entropy, given or drawn.
    """

    def __init__(self, options: LiveOptions, guest: Guest) -> None:
        self.options = options
        self.seed = draw_seed() if options.seed is None else options.seed
        self._guest = guest
        self._stack = contextlib.ExitStack()
        self.ending: Callable[[], None] = lambda: None  # called when the run is to end, from any thread
        self.images = ImageSet(())
        self._run: LiveRun | None = None
        self._ended_by: str | None = None

    def __enter__(self) -> Self:
        with self._stack:
            self._prepare()
            self._stack = self._stack.pop_all()
        return self

    def _prepare(self) -> None:
        options, enter = self.options, self._stack.enter_context
        scripted = ScriptedInput.parse(options.input_at)
        self.images = open_images(options.drives, self._stack)
        self.machine = enter(self._open_machine())
        self.console = enter(GuestConsole(options.console, json=options.json))
        source, self.interactive = open_input(options.input, self.machine, self._stack)
        self.world = self._open_world(InputPlan(scripted, source))
        self.console.failed = self._end
        enter(SignalsEnd(self._end))

    def _open_machine(self) -> Machine:
        """The machine that runs."""
        return Machine(self.options.config(self._guest, self.images.sizes), self._guest)

    def _open_world(self, inputs: InputPlan) -> World:
        """What is outside of it."""
        return World(SeededEntropy(self.seed), inputs, self.options.time_source(), drives=self.images)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(
        self,
        sink: Sink | None,
        *,
        capture: bool,
        written: Callable[[], int] | None = None,
        drive: Callable[[LiveRun], Ended] | None = None,
    ) -> Ended:
        """Runs the guest to its end. `written`: bytes in the trace, for people to watch.

        `drive` does it instead, if somebody else decides when the guest runs.
        """
        run = self._run = LiveRun(
            self.machine,
            self.world,
            sink=sink,
            console=self.console.write,
            max_insns=None if self.options.max_insns is None else self.machine.icount + self.options.max_insns,
            capture=capture,
            help_key=_show_keys,
        )
        if self._ended_by is not None:
            run.interrupt(self._ended_by)
        with contextlib.ExitStack() as stack:
            if self.interactive:
                note("vmrec: Ctrl-A x ends the run, Ctrl-A h helps.")
                stack.enter_context(RawTerminal(0))
            if drive is not None:
                return drive(run)
            if not self.console.on_terminal and not self.interactive:
                run.sink = stack.enter_context(_shown(run.sink, self._guest.name, self.options.max_insns, written))
            return run.run()

    def tell(self, verb: str, made: dict[str, Any]) -> None:
        """The summary, to whom it belongs. Raises what made a write of the console fail."""
        self.console.end_line()
        if self.options.json:
            print_json(verb, made)
        else:
            note(report(made))
        self.console.require_written()

    def _end(self) -> None:
        """Ends the run soon, also if it has not begun yet. May be called from any thread."""
        self._ended_by = "interrupted"
        self.console.give_up()
        if self._run is not None:
            self._run.interrupt(self._ended_by)
        self.ending()


def _show_keys() -> None:
    note("\n" + KEYS.rstrip())


class _ShownSink:
    """Another sink, and at each tick what there is to see."""

    def __init__(self, sink: Sink, show: Callable[[Machine], None]) -> None:
        self.outputs = sink.outputs
        self.event = sink.event
        self.content = sink.content
        self.observe = sink.observe
        self.rows = sink.rows
        self._tick = sink.tick
        self._show = show

    def tick(self, machine: Machine) -> None:
        self._tick(machine)
        self._show(machine)


@contextlib.contextmanager
def _shown(sink: Sink, name: str, total: int | None, written: Callable[[], int] | None) -> Iterator[Sink]:
    """The sink, with a line on stderr that shows how the run goes on, if somebody watches."""
    if not sys.stderr.isatty():
        yield sink
        return
    began = time.perf_counter()
    with progress(name, total) as line:

        def show(machine: Machine) -> None:
            icount = machine.icount
            speed = icount / max(time.perf_counter() - began, 1e-9)
            text = f"{quantity(icount)} instructions, {speed / 1e6:.0f} M/s"
            line.update(icount, text + (f", {size(written())}" if written is not None else ""))

        yield _ShownSink(sink, show)


# --------------------------------------------------------------------------------------------------------- summary


def summary(live: Live, ended: Ended, seconds: float, first: int = 0) -> dict[str, Any]:
    """What there is to say about any live run that took `seconds` in all, for JSON.

    `first`: instructions that were retired before it began.

    Speed and overhead leave out what was spent waiting for input and for whoever reads the console.
    """
    waited = ended.waited_seconds + live.console.seconds
    own = max(seconds - ended.machine_seconds - waited, 0.0)
    busy = max(seconds - waited, 1e-9)
    return {
        "reason": ended.reason,
        "exit_code": ended.exit_code if ended.reason in GUEST_ENDED else None,
        "position": ended.position,
        "icount": ended.icount,
        "run_seconds": seconds,
        "machine_seconds": ended.machine_seconds,
        "waited_seconds": waited,
        "overhead_seconds": own,
        "overhead": own / busy,
        "instructions_per_second": (ended.icount - first) / busy,
    }


#: The reasons that come with an exit code: the guest's own, or 1 for one that ran into a dead end.
GUEST_ENDED = ("poweroff", "reset", "trap-loop")


def report(found: dict[str, Any]) -> str:
    """A summary as text for people."""
    ending = found["reason"]
    if found["exit_code"] is not None:
        ending += f", exit code {found['exit_code']}"
    length = f"{plural(found['position'], 'step')}, {plural(found['icount'], 'instruction')}"
    if "events" in found:
        length += f", {plural(found['events'], 'event')}"
    took = f"{found['run_seconds']:.3g} s"
    if found["waited_seconds"] >= 0.01:
        took += f", waiting {found['waited_seconds']:.3g} s"
    lines = [
        ("ended", ending),
        ("length", length),
        ("time", f"{took}, own overhead {found['overhead']:.1%}"),
        ("speed", f"{found['instructions_per_second'] / 1e6:.3g} M instructions/s"),
    ]
    if "path" in found:
        bits = found["bits_per_instruction"]
        held = "" if bits is None else f", {bits:.3g} bits/instruction"
        lines.insert(0, ("recording", f"{found['path']}, {size(found['size'])}{held}"))
        lines.append(("head", found["head"].hex()))
    return columns(lines)


def exit_status(found: dict[str, Any], wanted: Literal["guest"] | None) -> int:
    """The exit status of a run that ended cleanly, as --exit-code says."""
    if wanted is None:
        return 0
    code = found["exit_code"]
    if code is None:
        note(f"--exit-code guest: the guest gave none; the run ended with {found['reason']}.")
        return EXIT_TROUBLE
    return min(int(code), 255)
