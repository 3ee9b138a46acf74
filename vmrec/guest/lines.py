# SPDX-License-Identifier: GPL-2.0-or-later
"""Source lines and addresses, both ways: where an instruction comes from, and where a line begins.

Nothing is read before the first question. A guest without line information, or with a damaged one, has no lines: an
empty answer, never an error.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from functools import cached_property
from itertools import islice, zip_longest
from typing import NamedTuple

from vmrec.guest.dwarf import DebugSections
from vmrec.guest.linetable import FileName, line_rows

__all__ = ["LineRow", "Lines"]


class LineRow(NamedTuple):
    """The instructions from `start` up to, not including, `end` come from `line` (from 1) of a file.

    `file` is the short name, "race.c" or "runtime/uart.c"; `path` has every directory that the guest knows, absolute
    unless its builder removed what is before. `statement`: `start` is a good place to stop (DWARF's is_stmt).
    """

    start: int
    end: int
    file: str
    path: str
    line: int
    statement: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Lines:
    """The line tables of a guest's ELF files."""

    def __init__(self, *sections: DebugSections) -> None:
        self._sections = sections

    def row(self, address: int) -> LineRow | None:
        """The row that the instruction at `address` is in, or None."""
        place = bisect.bisect_right(self._table.starts, address) - 1
        row = self._table.rows[place] if place >= 0 else None
        return row if row is not None and address < row.end else None

    def is_statement(self, address: int) -> bool:
        """Whether a statement begins exactly at `address`: where a step from line to line may stop."""
        return address in self._table.statements

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all source files that have code, sorted."""
        return tuple(sorted(self._table.places))

    def matching(self, file: str) -> tuple[str, ...]:
        """The paths in `files` that `file` may mean: as many last parts are the same as the shorter one has.

        So "uart.c" and "/anywhere/guests/runtime/uart.c" both mean "guests/runtime/uart.c". If one fits exactly, only
        that one.
        """
        wanted = _parts(file)
        if not wanted:
            return ()
        found = {path: _parts(path) for path in self._table.places}
        exact = tuple(path for path, parts in found.items() if parts == wanted)
        return exact or tuple(
            sorted(path for path, parts in found.items() if all(a == b for a, b in zip(parts, wanted, strict=False)))
        )

    def statements(self, file: str, line: int) -> tuple[int, ...]:
        """The addresses at which a statement of exactly this line begins, ascending. `file` as in `matching`."""
        found: set[int] = set()
        for path in self.matching(file):
            found.update(self._table.places[path].get(line, ()))
        return tuple(sorted(found))

    def starts(self, first: int, end: int) -> tuple[int, ...]:
        """The addresses in first … end-1 at which a statement begins, ascending; each statement once."""
        sorted_ = self._sorted_starts
        return tuple(sorted_[bisect.bisect_left(sorted_, first) : bisect.bisect_left(sorted_, end)])

    def nearest(self, file: str, line: int) -> int | None:
        """The first line from `line` on that has statements, as debuggers place breakpoints; None after the last."""
        lines = (self._sorted_lines[path] for path in self.matching(file))
        places = ((of, bisect.bisect_left(of, line)) for of in lines)
        return min((of[place] for of, place in places if place < len(of)), default=None)

    @cached_property
    def _table(self) -> _Table:
        return _read(self._sections)

    @cached_property
    def _sorted_starts(self) -> list[int]:
        places = self._table.places.values()
        return sorted({start for lines in places for starts in lines.values() for start in starts})

    @cached_property
    def _sorted_lines(self) -> dict[str, list[int]]:
        return {path: sorted(lines) for path, lines in self._table.places.items()}


class _Table(NamedTuple):
    """`rows` at `starts`, None where what has no line begins; `places` by path and line, and all `statements`."""

    starts: list[int]
    rows: list[LineRow | None]
    places: dict[str, dict[int, list[int]]]
    statements: set[int]


def _read(files: Sequence[DebugSections]) -> _Table:
    raw = [row for sections in files for row in line_rows(sections) if sections.is_loaded(row.address)]
    # Where one sequence ends and the next begins, the beginning counts; of several rows of one program, the last.
    raw.sort(key=lambda row: (row.address, not row.end))
    table = _Table([], [], {}, set())
    current: tuple[FileName, int] | None = None  # what the statement that the rows so far belong to is of
    for row, after in zip_longest(raw, islice(raw, 1, None)):
        if row.file is None:
            current = None
        elif row.statement:
            table.statements.add(row.address)
            if current != (row.file, row.line):  # gcc repeats rows: the statement begins at the first of them
                table.places.setdefault(row.file.path, {}).setdefault(row.line, []).append(row.address)
            current = row.file, row.line
        if after is None or after.address == row.address:
            continue
        table.starts.append(row.address)
        if row.file is None:
            table.rows.append(None)
        else:
            short, path = row.file
            table.rows.append(LineRow(row.address, after.address, short, path, row.line, row.statement))
    return table


def _parts(path: str) -> list[str]:
    """The parts of a path, last first, without those that mean nothing."""
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts[::-1]
