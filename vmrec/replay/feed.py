# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace's events and outputs, by position, without reading further than somebody wants to go.

    Records   the frames read last, unpacked, for reading from any position in both directions
    Feed      a place among them that moves on with a replay

The links of the frames say which positions they cover; so the way to a position costs what lies before it, and
nothing of what lies behind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from vmrec.events import OUTPUT_KINDS
from vmrec.trace.reader import TraceReader

__all__ = ["Feed", "Records"]

#: Records that are kept unpacked.
KEPT = 1 << 18
#: What a frame counts beside its records.
FRAME_COST = 64
#: Outputs looked at in search of the next event.
LOOK_AHEAD = 4096


class Records:
    """The events and outputs of `trace`, as they are on the wire."""

    def __init__(self, trace: TraceReader) -> None:
        self._trace = trace
        self._frames: OrderedDict[int, list[list[Any]]] = OrderedDict()
        self._spans: dict[int, tuple[int, int]] = {}
        self._next: tuple[int, int] | None = None  # the frame last asked for, and what its link says
        self._kept = 0

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._trace.frames)

    def first(self, frame: int) -> int:
        """No record of the frame lies before this position."""
        if self._next is None or self._next[0] != frame:  # a replay asks for the same one at every exit
            self._next = frame, self._trace.frames[frame].first
        return self._next[1]

    def frame(self, frame: int) -> list[list[Any]]:
        """The records of a frame, in order."""
        kept = self._frames.get(frame)
        if kept is not None:
            self._frames.move_to_end(frame)
            return kept
        found = self._trace.frame_records(frame)
        self._frames[frame] = found
        self._spans[frame] = self._trace.frames[frame - 1].last if frame else -1, self._trace.frames[frame].last
        self._kept += len(found) + FRAME_COST
        while self._kept > KEPT and len(self._frames) > 1:
            dropped, records = self._frames.popitem(last=False)
            del self._spans[dropped]
            self._kept -= len(records) + FRAME_COST
        return found

    def frame_at(self, position: int) -> int:
        """The first frame that may hold records at `position` or later."""
        for frame, (covered, last) in self._spans.items():
            if covered < position <= last:
                return frame
        return self._trace.frame_at(position)

    def read(self, first: int, last: int | None = None) -> Iterator[list[Any]]:
        """Yields the records with first ≤ position < last (to the end if None), in order."""
        frame = self.frame_at(first)
        while frame < len(self) and (last is None or self.first(frame) < last):
            found = self.frame(frame)
            for place in range(_place(found, first), len(found)):
                if last is not None and found[place][1] >= last:
                    return
                yield found[place]
            frame += 1

    def read_back(self, last: int) -> Iterator[list[Any]]:
        """Yields the records before position `last`, the last first."""
        frame = min(self.frame_at(last), len(self) - 1)
        while frame >= 0:
            found = self.frame(frame)
            for place in range(_place(found, last) - 1, -1, -1):
                yield found[place]
            frame -= 1


class Feed:
    """The records from position `first` on, one after the other."""

    def __init__(self, records: Records, first: int, frame: int | None = None) -> None:
        """`frame`: one that no record from `first` on lies before; found if None."""
        self._records = records
        self._frame = (records.frame_at(first) if frame is None else frame) - 1
        self._found: list[list[Any]] = []
        self._place = 0
        self._quiet = 0  # there is no event before this position that has not been passed
        if self._next_frame(first):
            self._place = _place(self._found, first)

    def peek(self, last: int) -> list[Any] | None:
        """The next record, if there is one at position `last` or before."""
        while self._place == len(self._found):
            if not self._next_frame(last):
                return None
        wire = self._found[self._place]
        return wire if wire[1] <= last else None

    def next(self) -> None:
        """Passes the record that `peek` showed."""
        self._place += 1

    def pass_equal(self, outputs: list[list[Any]]) -> int:
        """Passes the records that equal `outputs`, one for one; returns how many do."""
        done = 0
        while done < len(outputs) and (self._place < len(self._found) or self._next_frame(outputs[done][1])):
            ahead = min(len(outputs) - done, len(self._found) - self._place)
            wanted, made = self._found[self._place : self._place + ahead], outputs[done : done + ahead]
            equal = ahead if wanted == made else next(i for i in range(ahead) if wanted[i] != made[i])
            self._place += equal
            done += equal
            if equal < ahead:
                break
        return done

    def barrier(self, position: int, limit: int) -> int:
        """How far from `position` towards `limit` the machine may run: the next event, or where looking ahead ends."""
        if position >= self._quiet:
            self._quiet = self._look_ahead(limit)
        return min(self._quiet, limit)

    def _look_ahead(self, limit: int) -> int:
        frame, found, looked = self._frame, self._found, 0
        place = self._place
        while True:
            for wire in found[place : place + LOOK_AHEAD]:
                if wire[1] >= limit:
                    return limit
                if wire[0] not in OUTPUT_KINDS:
                    return int(wire[1])
            looked += len(found) - place
            if looked >= LOOK_AHEAD:
                return min(int(found[min(place + LOOK_AHEAD, len(found)) - 1][1]) + 1, limit)
            frame, place = frame + 1, 0
            if frame >= len(self._records) or self._records.first(frame) >= limit:
                return limit
            found = self._records.frame(frame)

    def _next_frame(self, last: int) -> bool:
        """Goes on to the next frame, if there is one with records at `last` or before."""
        following = self._frame + 1
        if following >= len(self._records) or self._records.first(following) > last:
            return False
        self._frame, self._found, self._place = following, self._records.frame(following), 0
        return True


def _position(wire: list[Any]) -> int:
    position: int = wire[1]
    return position


def _place(found: list[list[Any]], position: int) -> int:
    """The index of the first record at `position` or later."""
    return bisect_left(found, position, key=_position)
