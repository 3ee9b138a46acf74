# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec record: runs a guest and writes down the run."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from vmrec.cli.drives import CommitOption, DeviceOption, DriveOption, VirtioOption, check_commits, commit
from vmrec.cli.gdb import PORT, PortOption, serve_recording
from vmrec.cli.live import (
    AppendOption,
    BiosOption,
    CaptureOption,
    ChaosOption,
    ClockOption,
    ConsoleOption,
    DtbOption,
    ExitCodeOption,
    InitrdOption,
    InputAtOption,
    InputOption,
    IsaOption,
    KernelOption,
    Live,
    LiveOptions,
    MaxInsnsOption,
    RamOption,
    SeedOption,
    SymbolsOption,
    default_capture,
    exit_status,
    summary,
)
from vmrec.cli.options import GuestArgument, JsonOption
from vmrec.cli.output import print_json
from vmrec.cli.paths import new_trace_paths
from vmrec.errors import TraceError, UsageError
from vmrec.machine.boot import BootOptions
from vmrec.record.recorder import TraceSink, make_header
from vmrec.trace.writer import TraceWriter

__all__ = ["check_apart", "command", "create", "record"]


def command(
    guest: GuestArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="T",
            help="The recording to make. If left out: GUEST-1.vmrec or the next free number, in the current "
            "directory or $VMREC_DIR.",
            show_default=False,
        ),
    ] = None,
    capture: CaptureOption = None,
    bios: BiosOption = None,
    kernel: KernelOption = None,
    initrd: InitrdOption = None,
    append: AppendOption = None,
    dtb: DtbOption = None,
    symbols: SymbolsOption = None,
    isa: IsaOption = None,
    ram: RamOption = "128M",
    input: InputOption = None,
    input_at: InputAtOption = None,
    clock: ClockOption = "virtual",
    seed: SeedOption = None,
    chaos: ChaosOption = None,
    max_insns: MaxInsnsOption = None,
    drive: DriveOption = None,
    drive_commit: CommitOption = None,
    device: DeviceOption = None,
    virtio: VirtioOption = "modern",
    durable: Annotated[
        bool, typer.Option("--durable", help="Have each piece on the disk before going on: survives a power cut.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing recording, or image.")] = False,
    console: ConsoleOption = None,
    gdb: Annotated[
        bool, typer.Option("--gdb", help="Let gdb decide when the guest runs; it can go back in what is recorded.")
    ] = False,
    port: PortOption = None,
    json: JsonOption = False,
    exit_code: ExitCodeOption = None,
) -> int:
    """Run a guest and record the run, to be replayed bit for bit.

    The guest's console is stdout; a summary follows on stderr. Stdin is the guest's console input if it is a terminal,
    or with --input -. On a terminal Ctrl-A x ends the run and Ctrl-A h helps. Ctrl-C, SIGTERM and SIGHUP end the
    recording cleanly too; what was written replays even after kill -9.

    GUEST is a program for the bare machine. Instead of it, --kernel and --bios boot images as QEMU's virt board does;
    the recording holds them, and replays without their files.

    With --json the summary goes to stdout, and the console to --console FILE or nowhere.

    With --gdb the guest stands at reset until gdb is connected, and runs when it says so. All that `vmrec gdb` can do
    works on what has been recorded so far, reverse commands too; going on from the end of it records on. When gdb
    detaches, the guest runs by itself until another one comes. The recording is the same as without gdb.

    Images of drives are only read. What the guest reads of them is in the recording, so that it replays without them.

    Exit status: 0 for any recording that ended cleanly (the summary says why), 2 for trouble; with --exit-code guest
    the guest's own.

    \b
    Examples:
      vmrec record hello
      vmrec record race --chaos 7 -o race-7.vmrec
      vmrec record echo --input typed.txt --json
      vmrec record --kernel Image --initrd initramfs.cpio --append console=ttyS0
      vmrec record race --chaos 7 --gdb --port 4000
      vmrec record firmware.elf --max-insns 1000000000 --exit-code guest
      vmrec record kernel --isa rv64gcsu --drive fs.img --device virtio-rng
    """
    options = LiveOptions(
        guest, isa, ram, input, input_at or (), clock, seed, chaos, max_insns, console=console, json=json,
        boot=BootOptions(bios, kernel, initrd, append, dtb, tuple(symbols or ())),
        drives=drive or (), devices=device or (), virtio=virtio,
    )  # fmt: skip
    found = options.find("record")
    if port is not None and not gdb:
        raise UsageError("--port is for --gdb.")
    if output is not None:
        named: dict[str, str | Path | None] = {**(options.boot.paths() or {"GUEST": found.path})}
        named |= {f"--drive {path}": path for path in drive or ()}
        check_apart(output, {**named, "--input": input, "--console": console})
    check_commits(drive_commit or (), len(drive or ()), drive or (), force=force)
    with Live(options, found) as live:
        level = capture or default_capture(live.machine.config)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        notes = [image.note() for image in live.images.images]
        header = make_header(
            live.machine, capture=level, seed=live.seed, chaos=chaos, created=created, drives=notes
        )
        writer = create(output, found.name, header, durable=durable, force=force)
        chosen = (PORT if port is None else port) if gdb else None
        made = record(live, TraceSink(writer), "record", level, gdb_port=chosen)
        if drive_commit:
            made["committed"] = commit(live.machine, live.images, drive_commit, force=force)
        live.tell("record", made)
    return exit_status(made, exit_code)


def check_apart(output: Path, others: dict[str, str | Path | None]) -> None:
    """Raises UsageError if the recording would be written over something that this command needs."""
    for name, path in others.items():
        with contextlib.suppress(OSError):
            if path is not None and (os.path.realpath(path) == os.path.realpath(output)):
                raise UsageError(f"-o {output} and {name} are the same file; choose another name for the recording.")


def create(output: Path | None, guest: str, header: dict[str, Any], *, durable: bool, force: bool) -> TraceWriter:
    """The recording's file. Without `output` it gets a name that no file has."""
    if output is not None:
        return TraceWriter(output, header, durable=durable, force=force)
    for path in new_trace_paths(guest):
        try:
            return TraceWriter(path, header, durable=durable)
        except UsageError as error:
            if not isinstance(error.__cause__, FileExistsError):  # else somebody was faster
                raise
    raise AssertionError("names for recordings do not run out")


def record(live: Live, sink: TraceSink, verb: str, capture: str, *, gdb_port: int | None = None) -> dict[str, Any]:
    """Runs the guest into `sink`, with gdb at `gdb_port` if there is one; returns the summary.

    If the disk fills up, what was written is a recording.
    """
    writer = sink.writer
    first = live.machine.icount
    begin = time.perf_counter()
    drive = None if gdb_port is None else lambda run: serve_recording(live, run, sink, gdb_port)
    try:
        sink.begin(live.machine)
        ended = live.run(sink, capture=capture == "full", written=lambda: writer.bytes_written, drive=drive)
        sink.close(live.machine, ended)
    except TraceError as error:
        sink.abort()
        if live.options.json:
            print_json(verb, {**_written(live, writer, capture), "reason": "write-failed", "error": str(error)})
        raise
    except BaseException:
        sink.abort()
        raise
    found = summary(live, ended, time.perf_counter() - begin if gdb_port is None else ended.seconds, first)
    own = ended.icount - first
    bits = writer.bytes_written * 8 / own if own else None
    return {**_written(live, writer, capture), **found, "events": sink.events, "bits_per_instruction": bits}


def _written(live: Live, writer: TraceWriter, capture: str) -> dict[str, Any]:
    """What is on the disk."""
    return {
        "path": writer.path,
        "position": writer.written_position,
        "size": writer.bytes_written,
        "head": writer.head,
        "capture": capture,
        "seed": live.seed,
        "chaos": live.options.chaos,
    }
