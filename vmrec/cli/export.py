# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec export: a recording as plain msgpack maps, for programs that know nothing of vmrec."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

import typer

from vmrec.cli.options import FromOption, ParentOption, ToOption, TraceArgument, check_range, parents_also_in
from vmrec.cli.output import note, plural, progress, size
from vmrec.cli.paths import trace_path
from vmrec.errors import UsageError
from vmrec.events import Event, Output
from vmrec.machine.rows import Row
from vmrec.replay.names import Names
from vmrec.replay.player import trace_guest
from vmrec.replay.rows import rows
from vmrec.trace.codec import pack
from vmrec.trace.reader import TraceReader

#: Version of the maps: a reader that knows it knows every key. Keys may be added without a new one.
EXPORT_VERSION = 1
#: Rows between two looks at the progress.
STRETCH = 10_000


def command(
    trace: TraceArgument = None,
    msgpack: Annotated[bool, typer.Option("--msgpack", help="As msgpack maps, one after the other.")] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="F", help="The file to write; - is stdout.")
    ] = "-",
    first: FromOption = 0,
    last: ToOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    parent: ParentOption = None,
) -> int:
    """Write a recording as plain maps: one for each instruction, memory access, event and output, in order.

    Every map has a "type" and names its fields itself, so any msgpack reader will do:

    \b
      recording    format, version, guest, isa, capture, seed, chaos, from, to
      instruction  position, pc, bytes, text, trap (true if it did not retire)
      access       position, kind ("r" or "w"), address, size, value
      input        position, data        clock    position, ticks
      idle         position, steps       entropy  position, data
      disk         position, drive, block, hash
      written      position, drive, sector, count
      console      position, data        stop     position, reason, code
      end          position, reason, exit_code, icount

    It makes no difference whether the instructions were captured or are regenerated. Everything is written as it is
    read, in memory that does not grow.

    Exit status: 0, or 2 for trouble.

    \b
    Examples:
      vmrec export hello.vmrec --msgpack -o hello.msgpack
      vmrec export race-1 --msgpack --from 1000 --to 2000 | python reader.py
    """
    check_range(first, last)
    if not msgpack:
        raise UsageError("which format? --msgpack is the one there is. For example: `vmrec export --msgpack -o F`.")
    parents_also_in(parent)
    path = trace_path(trace)
    if output != "-" and os.path.realpath(output) == os.path.realpath(path):
        raise UsageError(f"-o {output} is the recording itself; choose another name.")
    with TraceReader(path) as reader, _opened(output, force=force) as file:
        end = reader.last_position if last is None else min(last, reader.last_position)
        if reader.torn and last is None:
            note(f"{path}: is torn; exported up to its last good position, {end}.")
        with progress(f"exporting {path.name}", end) as line:
            count = 0
            for position, item in _items(reader, first, end, whole=last is None):
                file.write(pack(item))
                count += 1
                if count % STRETCH == 0:
                    line.update(position, plural(count, "map"))
        file.flush()
        if output != "-":
            note(f"{output}: {plural(count, 'map')}, {size(file.tell())}.")
    return 0


@contextlib.contextmanager
def _opened(output: str, *, force: bool) -> Iterator[BinaryIO]:
    """The file to write to. One that could not be finished is removed."""
    if output == "-":
        if sys.stdout.isatty():
            raise UsageError("msgpack is not for a terminal; name a file with -o, or use a pipe.")
        yield sys.stdout.buffer
        return
    try:
        file = open(output, "wb" if force else "xb")  # noqa: SIM115 - closed below
    except FileExistsError:
        raise UsageError(f"-o {output}: exists already; choose another name, or --force to overwrite it.") from None
    except OSError as error:
        raise UsageError(f"-o {output}: cannot be written: {error.strerror}.") from None
    try:
        with file:
            yield file
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(output)
        if isinstance(error, OSError) and error.filename is None:
            raise UsageError(f"-o {output}: cannot be written: {error.strerror}.") from None
        raise


def _items(trace: TraceReader, first: int, last: int, *, whole: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """(position, map) of everything in the steps first … last-1; with `whole` also how the recording ended."""
    guest, header = trace_guest(trace), trace.header
    names = Names(guest)
    yield first, {
        "type": "recording",
        "format": "vmrec-export",
        "version": EXPORT_VERSION,
        "guest": guest.name,
        "isa": header["machine"]["isa"],
        "capture": header["capture"],
        "seed": header["seed"],
        "chaos": header["chaos"],
        "from": first,
        "to": last,
    }
    records = trace.records(first, None if whole else last)
    record = next(records, None)
    for row in rows(trace, first, last):
        while record is not None and _comes_before(record, row.position):
            yield record.position, _record_map(record)
            record = next(records, None)
        yield row.position, _instruction_map(row, names)
        for access in row.accesses:
            yield (
                row.position,
                {
                    "type": "access",
                    "position": row.position,
                    "kind": access.kind,
                    "address": access.address,
                    "size": access.size,
                    "value": access.value,
                },
            )
    while record is not None:
        yield record.position, _record_map(record)
        record = next(records, None)
    if whole and trace.end is not None:
        end = trace.end
        yield (
            last,
            {
                "type": "end",
                "position": last,
                "reason": end["reason"],
                "exit_code": end["exit_code"],
                "icount": end["icount"],
            },
        )


def _comes_before(record: Event | Output, position: int) -> bool:
    """Whether a record is to be told before the step from `position`: events there are, outputs come of it."""
    is_event = isinstance(record, Event)
    return record.position < position or (is_event and record.position == position)


def _instruction_map(row: Row, names: Names) -> dict[str, Any]:
    return {
        "type": "instruction",
        "position": row.position,
        "pc": row.pc,
        "bytes": row.code,
        "text": names.instruction(row),
        "trap": row.trap,
    }


def _record_map(record: Event | Output) -> dict[str, Any]:
    return {"type": record.kind, **{name: getattr(record, name) for name in record.__match_args__}}
