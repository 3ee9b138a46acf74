# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec replay: executes a recording again, and compares."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vmrec.cli.console import GuestConsole
from vmrec.cli.drives import CommitOption, check_commits, commit, open_images, warn_of_changes
from vmrec.cli.gdb import LOOPBACK, PORT, PortOption, debugged, serve
from vmrec.cli.live import ConsoleOption
from vmrec.cli.options import JsonOption, ParentOption, TraceArgument, parents_also_in
from vmrec.cli.output import columns, note, print_json, quantity
from vmrec.cli.paths import trace_path
from vmrec.cli.replaying import agreement, divergence_text, explained, play, replayed
from vmrec.errors import UsageError
from vmrec.replay.names import Names
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader


def command(
    trace: TraceArgument = None,
    to: Annotated[
        int | None, typer.Option("--to", metavar="N", min=0, help="Replay to position N only.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare every digest, and every captured instruction and access.")
    ] = False,
    gdb: Annotated[
        bool, typer.Option("--gdb", help="Debug it with gdb instead, as `vmrec gdb T` does.")
    ] = False,
    port: PortOption = None,
    console: ConsoleOption = None,
    parent: ParentOption = None,
    drive_commit: CommitOption = None,
    drive: Annotated[
        list[Path] | None,
        typer.Option(
            "--drive",
            metavar="IMG",
            help="For --drive-commit: the image that the recording was made from, for what the guest never touched.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing image.")] = False,
    json: JsonOption = False,
) -> int:
    """Execute a recording again, exactly, and print the guest's console.

    Every output is compared with the recording, and the machine's state at the end and each 134 million steps; with
    --check each 17 million, and every row. If the replay differs, it is said where and why, as far as that can be found
    out. A torn recording is replayed to its last good position.

    With --json a report goes to stdout, and the console to --console FILE or nowhere.

    No image of a drive is needed: what the guest read of it is in the recording. --drive-commit writes what a drive
    holds where the replay ends, and needs the image for what the guest never touched.

    Exit status: 0 if the replay is the same, 1 if it differs, 2 for trouble.

    \b
    Examples:
      vmrec replay
      vmrec replay race-1 --check
      vmrec replay race-1.vmrec --to 1000000 --json
      vmrec replay race-1.vmrec --gdb --port 4000
      vmrec replay kernel-1 --drive-commit after.img --drive before.img
    """
    parents_also_in(parent)
    if gdb:
        if check or json or console is not None or drive_commit:
            raise UsageError("--gdb goes with --to and --port only; what the guest printed is `monitor console`.")
        with debugged(trace, "begin" if to is None else str(to)) as target:
            return serve(target, PORT if port is None else port, LOOPBACK)
    if port is not None:
        raise UsageError("--port is for --gdb.")
    if (drive or force) and not drive_commit:
        raise UsageError("--drive and --force are for --drive-commit; a replay needs no image.")
    path = trace_path(trace)
    text = ""
    with GuestConsole(console, json=json) as out, TraceReader(path) as reader, contextlib.ExitStack() as stack:
        out.failed = out.require_written
        if reader.torn:
            last = quantity(reader.last_position)
            note(f"{path}: is torn (its recorder died, or is at work); replaying to its last good position, {last}.")
        if to is not None and to > reader.last_position:
            raise UsageError(f"--to {to} lies beyond the end of {path}, which is at position {reader.last_position}.")
        images = open_images(drive or (), stack)
        warn_of_changes(reader.header, images)
        committed: list[dict[str, Any]] = []
        with Player(reader, console=out.write, check_rows=check, every_digest=check) as player:
            check_commits(drive_commit or (), len(player.config.drives), drive or (), force=force)
            begin = time.perf_counter()
            divergence = play(player, to, quiet=out.on_terminal)
            found = replayed(player, time.perf_counter() - begin)
            if divergence is None and drive_commit:
                committed = commit(player.machine, images, drive_commit, force=force)
        out.end_line()
        if divergence is not None:
            divergence = explained(reader, divergence)
            text = divergence_text(reader, divergence)
        report: dict[str, Any] = {
            "path": path,
            "last_position": reader.last_position,
            "torn_at": reader.torn_at,
            "end": reader.end,
            **found,
            "divergence": None if divergence is None else divergence.to_dict(),
        }
        if committed:
            report["committed"] = committed
        if json:
            print_json("replay", report)
        elif divergence is not None:
            note(text)
        else:
            lines = agreement(found)
            if to is not None:
                lines.insert(1, ("stands at", Names(player.guest).place(found["pc"])))
            note(columns(lines))
    return 0 if divergence is None else 1
