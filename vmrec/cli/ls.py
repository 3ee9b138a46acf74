# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec ls: the recordings in a directory, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vmrec.cli.options import JsonOption
from vmrec.cli.output import columns, note, print_json, quantity, size, write
from vmrec.cli.paths import shown, trace_directory, traces
from vmrec.errors import TraceError, UsageError
from vmrec.trace.tracefile import TraceFile


def command(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="Where to look; the current directory, or $VMREC_DIR, if left out.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """List recordings, oldest first.

    A file that cannot be read is listed with the reason. Exit status: 0, or 2 if the directory cannot be read.

    \b
    Examples:
      vmrec ls
      vmrec ls traces --json
    """
    place = trace_directory() if directory is None else directory
    found = [_look_at(path) for path in traces(place)]
    if json:
        print_json("ls", {"directory": place, "recordings": found})
    elif found:
        write(columns([HEADING, *(_row(one) for one in found)], right=(3, 4), heading=True))
    else:
        note(f"There is no recording in {shown(place)}. `vmrec record GUEST` makes one.")
    return 0


HEADING = ("NAME", "GUEST", "CAPTURE", "STEPS", "SIZE", "RECORDED", "ENDED")


def _look_at(path: Path) -> dict[str, Any]:
    """What there is to say about one file, without reading more of it than its two ends."""
    try:
        with TraceFile(path) as trace:
            header, end = trace.header, trace.end
            return {
                "path": path,
                "guest": header["guest"]["name"],
                "isa": header["machine"].get("isa"),
                "capture": header["capture"],
                "created": header["created"],
                "last_position": trace.last_position,
                "size": trace.size,
                "closed": trace.closed,
                "reason": end and end["reason"],
                "exit_code": end and end["exit_code"],
                "error": None,
            }
    except (TraceError, UsageError) as error:
        return {"path": path, "error": error.reason if isinstance(error, TraceError) else str(error)}


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    name = one["path"].name
    if one["error"] is not None:
        return (name, "-", "-", "-", "-", "-", one["error"])
    ended = one["reason"] or "not closed"
    if one["exit_code"]:
        ended += f", exit code {one['exit_code']}"
    steps = quantity(one["last_position"])
    return (name, one["guest"], one["capture"], steps, size(one["size"]), one["created"], ended)
