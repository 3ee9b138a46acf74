# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments and options that several verbs share, so that they mean and say the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmrec.cli.paths import complete_trace
from vmrec.errors import UsageError
from vmrec.events import EVENT_KINDS, OUTPUT_KINDS
from vmrec.guest.builtin import builtin_names
from vmrec.trace.places import look_in

__all__ = [
    "FromOption",
    "GuestArgument",
    "JsonOption",
    "KindOption",
    "ParentOption",
    "ToOption",
    "TraceArgument",
    "check_range",
    "complete_guest",
    "complete_kind",
    "parents_also_in",
]


def complete_guest(incomplete: str) -> list[str]:
    """Guests that come with vmrec (files are the shell's business)."""
    return [name for name in builtin_names() if name.startswith(incomplete)]


def complete_kind(incomplete: str) -> list[str]:
    """Kinds of events and outputs."""
    return [kind for kind in (*EVENT_KINDS, *OUTPUT_KINDS) if kind.startswith(incomplete)]


TraceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="T",
        help="The recording, with or without .vmrec; the latest one if left out.",
        autocompletion=complete_trace,
        show_default=False,
    ),
]
GuestArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="GUEST",
        help="An ELF file, or the name of a guest that comes with vmrec.",
        autocompletion=complete_guest,
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
FromOption = Annotated[
    int, typer.Option("--from", metavar="N", min=0, help="Leave out what is before position N.", show_default=False)
]
ToOption = Annotated[
    int | None,
    typer.Option("--to", metavar="M", min=0, help="Leave out what is at position M or after.", show_default=False),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help=f"Only this kind ({', '.join((*EVENT_KINDS, *OUTPUT_KINDS))}); may be given several times.",
        autocompletion=complete_kind,
        show_default=False,
    ),
]
ParentOption = Annotated[
    Path | None,
    typer.Option(
        "--parent",
        metavar="P",
        help="Where the recording is that T was forked from: that file, or a folder with it.",
        show_default=False,
    ),
]


def parents_also_in(parent: Path | None) -> None:
    """Looks for parents of forks there too. Raises UsageError if there is no such file or folder."""
    if parent is None:
        return
    if not parent.exists():
        raise UsageError(f"--parent {parent}: there is no such file or folder.")
    look_in(parent)


def check_range(first: int, last: int | None) -> None:
    """Raises UsageError if --from lies after --to."""
    if last is not None and first > last:
        raise UsageError(f"--from {first} lies after --to {last}; a range goes forwards.")
