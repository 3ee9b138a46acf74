# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec fork: goes on live from a past position of a recording, with changed state or input."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from vmrec.cli.drives import DriveOption, warn_of_changes
from vmrec.cli.live import (
    CaptureOption,
    ChaosOption,
    ConsoleOption,
    ExitCodeOption,
    InputAtOption,
    InputOption,
    Live,
    LiveOptions,
    MaxInsnsOption,
    default_capture,
    exit_status,
)
from vmrec.cli.options import JsonOption, ParentOption, parents_also_in
from vmrec.cli.paths import complete_trace, trace_directory, trace_path
from vmrec.cli.record import check_apart, create, record
from vmrec.errors import UsageError
from vmrec.guest.symbols import Symbols
from vmrec.machine.machine import Machine
from vmrec.record.fork import Fork, parse_edits
from vmrec.record.session import World
from vmrec.record.sources import ChaosClock, HostClock, InputPlan, KeptEvents, SeededEntropy
from vmrec.trace.reader import TraceReader


def command(
    trace: Annotated[
        str,
        typer.Argument(metavar="T", help="The recording, with or without .vmrec.", autocompletion=complete_trace),
    ],
    at: Annotated[int, typer.Option("--at", metavar="N", min=0, help="The position to go on from.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="U",
            help="The recording to make. If left out: GUEST-1.vmrec or the next free number, in the current "
            "directory or $VMREC_DIR.",
            show_default=False,
        ),
    ] = None,
    poke: Annotated[
        list[str] | None,
        typer.Option(
            metavar="P=V",
            help="Change the state at N: ADDRESS=BYTES (in hexadecimal, as they lie in RAM) or REGISTER=VALUE. Symbols "
            "are understood: counter=01000000, a0=0x10, pc=main. May be given several times.",
            show_default=False,
        ),
    ] = None,
    keep_input: Annotated[
        bool,
        typer.Option(
            "--keep-input", help="Give what came into T from N on once more, at the same positions: input, clock steps."
        ),
    ] = False,
    self_contained: Annotated[
        bool,
        typer.Option("--self-contained", help="Copy what is needed of T, so that U replays without it."),
    ] = False,
    capture: CaptureOption = None,
    input: InputOption = None,
    input_at: InputAtOption = None,
    clock: Annotated[
        Literal["host"] | None,
        typer.Option(help="Guest time as it passes on the host; as in T if left out.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=2**64 - 1,
            help="Another seed of the guest's entropy; that of T goes on if left out.",
            show_default=False,
        ),
    ] = None,
    chaos: ChaosOption = None,
    max_insns: MaxInsnsOption = None,
    drive: DriveOption = None,
    durable: Annotated[
        bool, typer.Option("--durable", help="Have each piece on the disk before going on: survives a power cut.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing recording.")] = False,
    console: ConsoleOption = None,
    parent: ParentOption = None,
    json: JsonOption = False,
    exit_code: ExitCodeOption = None,
) -> int:
    """Go on live from a past position of a recording, with another state or other input, and record that.

    T is replayed to position N and not changed. There --poke changes RAM or registers, before anything else, and from
    there the guest runs as under `vmrec record`: what came into T later does not come again, unless with --keep-input.
    The guest's entropy goes on where it was, and its clock is of the kind that it was. A recording that is torn can be
    forked at any position that it still has.

    U holds what happened from N on, and names T by its hash; for all verbs it is one recording from position 0. T must
    be found again: beside U, where it was, or in $VMREC_DIR. `vmrec diff T U` shows what the change did.

    --drive names the images that T was made from, in their order; they are needed if the guest now reads what it never
    read in T.

    Exit status: 0 for any recording that ended cleanly (the summary says why), 2 for trouble; with --exit-code guest
    the guest's own.

    \b
    Examples:
      vmrec fork race-1 --at 40990 --poke counter=00000000 -o changed.vmrec
      vmrec fork echo-1 --at 1000 --input-at 1500:'quit\\n'
      vmrec fork crash-1 --at 3000 --poke a0=0x10 --keep-input --self-contained
    """
    parents_also_in(parent)
    path = trace_path(trace)
    if output is not None:
        check_apart(output, {"T": path, "--input": input, "--console": console})
    options = LiveOptions(
        None, None, input=input, input_at=input_at or (), seed=seed, chaos=chaos, max_insns=max_insns, console=console,
        clock=clock or "virtual", json=json, drives=drive or (),
    )  # fmt: skip
    with (
        TraceReader(path) as reader,
        Fork(reader, at) as fork,
        ForkedLive(options, fork, poke or (), keep_input=keep_input) as live,
    ):
        if output is not None:
            check_apart(output, {f"T's parent {older}": older for older, _ in reader.lineage})
        level = capture or default_capture(live.machine.config)
        header = fork.header(
            output or trace_directory() / path.name, capture=level, seed=live.seed, pulled=live.pulled,
            chaos=live.chaos, included=self_contained, created=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        writer = create(output, live.guest.name, header, durable=durable, force=force)
        sink = fork.sink(writer, included=self_contained)
        made = record(live, sink, "fork", level)
        parent_ = {"path": str(path), "position": at, "hash": header["parent"]["hash"], "included": self_contained}
        live.tell("fork", {**made, "chaos": live.chaos, "parent": parent_, "edits": len(live.edits)})
    return exit_status(made, exit_code)


class ForkedLive(Live):
    """A fork made ready to go on live."""

    def __init__(self, options: LiveOptions, fork: Fork, pokes: list[str] | tuple[()], *, keep_input: bool) -> None:
        self.chaos = _chaos(options, fork)
        self.edits = parse_edits(pokes, fork.position, fork.machine.config, Symbols(*fork.guest.elfs))
        fork.try_edits(self.edits)
        super().__init__(options, fork.guest)
        self.guest = fork.guest
        self.pulled = 0
        if options.seed is None and fork.seed is not None:
            self.seed, self.pulled = fork.seed, fork.pulled()
        self._fork = fork
        self._keep_input = keep_input

    def _open_machine(self) -> Machine:
        drives, images = self._fork.machine.config.drives, self.images
        if len(images.images) > len(drives) or any(a != b for a, b in zip(images.sizes, drives, strict=False)):
            raise UsageError(
                f"--drive: the images have {', '.join(map(str, images.sizes))} bytes, but the drives of "
                f"{self._fork.trace.path} {', '.join(map(str, drives)) or 'do not exist'}; name those it was made from."
            )
        warn_of_changes(self._fork.trace.header, images)
        return self._fork.machine

    def _open_world(self, inputs: InputPlan) -> World:
        kept = self._fork.kept() if self._keep_input else KeptEvents()
        blocks = self._fork.blocks(self.images)
        return World(SeededEntropy(self.seed, self.pulled), inputs, self._time_source(), kept, self.edits, blocks)

    def _time_source(self) -> HostClock | ChaosClock | None:
        ticks = self.machine.clock_ticks
        if self.machine.config.time_rule != "stepped":
            return None
        return HostClock(ticks) if self.chaos is None else ChaosClock(self.chaos, self._fork.position, ticks)


def _chaos(options: LiveOptions, fork: Fork) -> int | None:
    """The seed of the clock that goes wrong on purpose, None for another clock. Raises UsageError."""
    stepped = fork.machine.config.time_rule == "stepped"
    if options.chaos is not None and options.clock == "host":
        raise UsageError("--chaos and --clock host both set the guest's time; choose one.")
    for name, wanted in (("--chaos", options.chaos is not None), ("--clock host", options.clock == "host")):
        if wanted and not stepped:
            raise UsageError(
                f"{name}: guest time in {fork.trace.path} is a function of the position, and a machine cannot change "
                f"that; fork a recording that was made with --chaos or --clock host."
            )
    return None if options.clock == "host" else fork.chaos if options.chaos is None else options.chaos
