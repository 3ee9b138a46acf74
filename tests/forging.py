# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings that are well-formed and chained, and yet do not hold what their machine did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vmrec.machine.cpu import open_core
from vmrec.machine.rows import Columns
from vmrec.trace.codec import pack
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

#: What an object becomes: none, one or several.
Change = Callable[[list[Any]], Iterable[list[Any]]]


def forge(source: Path, target: Path, change: Change) -> Path:
    """Writes `source` anew, each object replaced by what `change` makes of it."""
    with TraceReader(source) as trace:
        header = trace.header
        objects = [obj for _, obj in trace.objects() if obj[0] not in ("header", "index")]
    objects = [new for old in objects for new in change(old)]
    if all(isinstance(obj[1], int) for obj in objects) and header["capture"] == "inputs":
        objects.sort(key=lambda obj: obj[1])  # whoever was moved stands where it belongs
    with TraceWriter(target, header) as writer:
        for obj in objects:
            if obj[0] == "page":
                writer.append_page(obj[1], obj[2])
            else:
                writer.append(pack(obj), obj[1], obj[2] if obj[0] == "rows" else obj[1])
    return target


def changed(kind: str, number: int, edit: Callable[[list[Any]], list[Any] | None]) -> Change:
    """The change of one object: number `number` of its kind, counted from 0; None drops it."""
    seen = -1

    def change(obj: list[Any]) -> Iterable[list[Any]]:
        nonlocal seen
        seen += obj[0] == kind
        if obj[0] != kind or seen != number:
            return [obj]
        edited = edit(list(obj))
        return [] if edited is None else [edited]

    return change


def moved(kind: str, number: int, by: int) -> Change:
    """The change of one object's position."""
    return changed(kind, number, lambda obj: [kind, obj[1] + by, *obj[2:]])


def with_value(rows: list[Any], access: int, value: int) -> list[Any]:
    """A rows object in which one access, counted from 0, has another value."""
    lib, ffi = open_core()
    columns = Columns.unpack(rows[3])
    columns.values[access] = value
    out = ffi.new("uint8_t[]", 8 * (columns.accesses + 1))
    length = lib.column_encode(ffi.cast("uint8_t *", columns.values), out, columns.accesses, 8, 0)
    return [*rows[:3], {**rows[3], "values": bytes(ffi.buffer(out, length))}]
