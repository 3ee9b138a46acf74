# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec events: what came into the machine and what it gave out, in order."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from vmrec.cli.options import (
    FromOption,
    JsonOption,
    KindOption,
    ParentOption,
    ToOption,
    TraceArgument,
    check_range,
    parents_also_in,
)
from vmrec.cli.output import print_json_list, quantity, quoted, write
from vmrec.cli.paths import trace_path
from vmrec.errors import UsageError
from vmrec.events import (
    EVENT_KINDS,
    OUTPUT_KINDS,
    Clock,
    Disk,
    Entropy,
    Event,
    Idle,
    Output,
    Poke,
    SetRegister,
    Stop,
    Written,
)
from vmrec.trace.reader import TraceReader

KINDS = (*EVENT_KINDS, *OUTPUT_KINDS)


def command(
    trace: TraceArgument = None,
    first: FromOption = 0,
    last: ToOption = None,
    kind: KindOption = None,
    parent: ParentOption = None,
    json: JsonOption = False,
) -> int:
    """List what came into the machine (input, clock, idle, entropy, and edits by the user: poke, set) and what it gave
    out (console, stop).

    Each line: position, kind, what. A position counts steps since reset; an event is applied before the step from
    there, an output comes from that step. In JSON, bytes are hexadecimal.

    Exit status: 0, or 2 if the recording is damaged.

    \b
    Examples:
      vmrec events
      vmrec events race-1 --kind input --kind clock
      vmrec events --from 1000000 --to 2000000 --json
    """
    check_range(first, last)
    parents_also_in(parent)
    wanted = _kinds(kind)
    path = trace_path(trace)
    with TraceReader(path) as reader:
        found = (record for record in reader.records(first, last) if record.kind in wanted)
        if json:
            print_json_list("events", {"path": path, "from": first, "to": last}, "records", map(_fields, found))
        else:
            for line in _lines(found, len(quantity(reader.last_position))):
                write(line)
    return 0


def _kinds(asked: list[str] | None) -> set[str]:
    """The kinds to show. Raises UsageError, with near names, for one that does not exist."""
    kinds = {name for option in asked or KINDS for name in option.split(",")}
    for name in sorted(kinds - set(KINDS)):
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(KINDS)}."
        raise UsageError(f"--kind {name}: there is no such kind. {hint}")
    return kinds


def _lines(records: Iterator[Event | Output], wide: int) -> Iterator[str]:
    for record in records:
        yield f"{quantity(record.position):>{wide}}  {record.kind:<7}  {_what(record)}"


def _what(record: Event | Output) -> str:
    match record:
        case Clock(ticks=ticks):
            return f"guest time {quantity(ticks)} ticks"
        case Idle(steps=steps):
            return f"waited {quantity(steps)} steps"
        case Entropy(data=data):
            return data.hex()
        case Poke(address=address, data=data):
            return f"{address:#x} = {data.hex()}"
        case SetRegister(register=register, value=value):
            return f"{register} = {value:#x}"
        case Disk(drive=drive, block=block, hash=hash_):
            return f"drive {drive} block {quantity(block)}, content {hash_.hex()[:16]}"
        case Written(drive=drive, sector=sector, count=count):
            return f"drive {drive} sector {quantity(sector)}, {quantity(count)} bytes"
        case Stop(reason=reason, code=code):
            return f"{reason}, exit code {code}"
        case _:
            return quoted(record.data)


def _fields(record: Event | Output) -> dict[str, Any]:
    """The record as a map, for JSON."""
    return {"kind": record.kind, **{name: getattr(record, name) for name in record.__match_args__}}
