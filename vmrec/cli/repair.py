# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec repair: saves the longest good part of a damaged recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmrec.cli.options import JsonOption
from vmrec.cli.output import columns, note, plural, print_json, quantity
from vmrec.cli.paths import complete_trace, trace_path
from vmrec.cli.verify import damage_fields, damage_lines
from vmrec.trace.recovery import repair


def command(
    trace: Annotated[
        str,
        typer.Argument(metavar="T", help="The recording, with or without .vmrec.", autocompletion=complete_trace),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="U", help="The recording to make.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: JsonOption = False,
) -> int:
    """Save the longest good part of a recording as a new one, closed and with its index.

    What is good is copied as it is, so the new recording's chain of hashes begins as the old one's. The damaged file
    stays as it was.

    Exit status: 0, or 2 if there is nothing to save.

    \b
    Examples:
      vmrec repair torn.vmrec -o saved.vmrec
      vmrec repair torn.vmrec -o saved.vmrec --force --json
    """
    path = trace_path(trace)
    found = repair(path, output, force=force)
    if json:
        print_json(
            "repair",
            {
                "path": path,
                "output": output,
                "frames": found.frames,
                "saved_frames": found.good,
                "saved_bytes": found.good_bytes,
                "last_position": found.last_position,
                "head": found.head,
                "damage": damage_fields(found.damage),
            },
        )
        return 0
    chain = [("chain", "whole")] if found.damage is None else damage_lines(found.damage)
    good = f"{found.good} of {plural(found.frames, 'frame')}, up to position {quantity(found.last_position)}"
    note(columns([("recording", str(path)), *chain, ("saved", good), ("as", str(output))]))
    return 0
