# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of a full trace, unpacked ahead of whoever compares them.

    file ── read, hash, zstd, msgpack, columns ──▶ CapturedRows … ──▶ Player ──▶ check mode of the native core
            └────── one thread of its own ─────┘

Unpacking costs about as much as executing does, and neither needs the other: the thread only reads. What comes out,
and in which order, is what reading on the spot would give; so is the error for a damaged place, raised when that is
reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from vmrec.errors import TraceError, UsageError
from vmrec.machine.rows import Columns
from vmrec.trace.reader import TraceReader

__all__ = ["CapturedRows", "RowsAhead"]

#: Rows objects that are unpacked and wait. One is about 10 ms of work, and some MB.
AHEAD = 3


class CapturedRows(NamedTuple):
    """The rows of the steps `first` … `last`-1."""

    first: int
    last: int
    columns: Columns


class RowsAhead(Iterator[CapturedRows]):
    """The captured rows of `trace` that hold steps from `first` on, in order.

    While it is open, its thread reads `trace` beside its owner: `TraceReader.rows` allows that. To be closed before the
    trace is. Raises TraceError where the rows are damaged.
    """

    def __init__(self, trace: TraceReader, first: int) -> None:
        self._unpacked = _unpacked(trace, first)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vmrec-rows")
        self._waiting: deque[Future[CapturedRows | None]] = deque()
        for _ in range(AHEAD):
            self._ask()

    def _ask(self) -> None:
        self._waiting.append(self._thread.submit(next, self._unpacked, None))

    def __next__(self) -> CapturedRows:
        found = self._waiting[0].result()
        if found is None:
            raise StopIteration
        self._waiting.popleft()
        self._ask()
        return found

    def close(self) -> None:
        """Ends the thread, when it is done with what it is at; harmless when closed already."""
        self._thread.shutdown(cancel_futures=True)


def _unpacked(trace: TraceReader, first: int) -> Iterator[CapturedRows]:
    for _, begin, end, columns in trace.rows(first):
        try:
            yield CapturedRows(begin, end, Columns.unpack(columns))
        except UsageError as error:
            raise TraceError(trace.path, None, f"rows at position {begin}: {error}") from error
