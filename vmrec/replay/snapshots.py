# SPDX-License-Identifier: GPL-2.0-or-later
"""States of a replay that one can go back to: RAM by content, kept within a budget.

    Snapshot(position)  ──▶  machine: registers, devices, outputs so far       (machine.Snapshot)
                        ──▶  pages:   PageMap  index ──▶ Content(hash, data)

Equal contents are one object, however many snapshots have them, and go when the last snapshot that has them goes.
Contents that the trace's checkpoints hold stay there: their data is None until somebody reads them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from vmrec.machine.board import PAGE_SIZE
from vmrec.machine.machine import Snapshot as MachineSnapshot

__all__ = ["Content", "Contents", "PageMap", "Snapshot", "Snapshots"]

_SHIFT = 6


class Content:
    """4096 bytes by their hash; `data` is None while they are only in the trace.

    `page`: a page that has had this content, or has been about to.
    """

    __slots__ = ("__weakref__", "data", "hash", "page")

    def __init__(self, hash_: bytes, data: bytes | None) -> None:
        self.hash = hash_
        self.data = data
        self.page = 0


class Contents:
    """All contents that some snapshot has."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[bytes, Content] = WeakValueDictionary()

    def get(self, hash_: bytes, data: bytes | None = None) -> Content:
        """The content with this hash; new with `data` if there is none."""
        content = self._known.get(hash_)
        if content is None:
            content = self._known[hash_] = Content(hash_, data)
        return content

    def named(self, hashes: Mapping[int, bytes]) -> dict[int, Content]:
        """The contents of pages, by page, that a checkpoint names by their hashes."""
        found = {index: self.get(hash_) for index, hash_ in hashes.items()}
        for index, content in found.items():
            content.page = index
        return found

    def find(self, hash_: bytes) -> Content | None:
        """The content with this hash, if some snapshot has it."""
        return self._known.get(hash_)

    def known(self, hash_: bytes) -> bool:
        """Whether there is one with this hash."""
        return hash_ in self._known

    @property
    def size(self) -> int:
        """Bytes of data kept; costs a look at each."""
        return PAGE_SIZE * sum(content.data is not None for content in list(self._known.values()))


class PageMap:
    """Page index → content; immutable. A page that it does not have is untouched. Maps made from each other share."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: Mapping[int, Mapping[int, Content]] | None = None) -> None:
        self._chunks: Mapping[int, Mapping[int, Content]] = chunks or {}

    def get(self, index: int) -> Content | None:
        """The content of a page; None if nobody touched it: RAM that is zero, or a drive's block that is elsewhere."""
        chunk = self._chunks.get(index >> _SHIFT)
        return None if chunk is None else chunk.get(index)

    def changed(self, pages: Mapping[int, Content]) -> PageMap:
        """This map with other contents for `pages`."""
        if not pages:
            return self
        chunks = dict(self._chunks)
        fresh: dict[int, dict[int, Content]] = {}
        for index, content in pages.items():
            number = index >> _SHIFT
            chunk = fresh.get(number)
            if chunk is None:
                chunks[number] = chunk = fresh[number] = dict(chunks.get(number, ()))
            chunk[index] = content
        return PageMap(chunks)

    def difference(self, other: PageMap) -> Iterator[int]:
        """The pages that the two maps do not agree about."""
        for number in self._chunks.keys() | other._chunks.keys():
            mine, its = self._chunks.get(number, {}), other._chunks.get(number, {})
            if mine is not its:
                yield from (index for index in mine.keys() | its.keys() if mine.get(index) is not its.get(index))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state at `position`, where events have not been given yet."""

    position: int
    machine: MachineSnapshot
    pages: PageMap


class Snapshots:
    """Snapshots by position, thinned when their contents pass `budget` bytes: the further away, the sparser."""

    def __init__(self, contents: Contents, budget: int) -> None:
        self._contents = contents
        self._budget = budget
        self._positions: list[int] = []
        self._at: dict[int, Snapshot] = {}
        self._added = 0

    def __contains__(self, position: int) -> bool:
        return position in self._at

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, snapshot: Snapshot, pages: int, here: int) -> None:
        """Keeps a snapshot that brought `pages` new contents; `here` is where its user is."""
        if snapshot.position not in self._at:
            insort(self._positions, snapshot.position)
        self._at[snapshot.position] = snapshot
        self._added += (pages + 1) * PAGE_SIZE
        if self._added > self._budget:
            self._thin(here)

    def before(self, position: int) -> Snapshot | None:
        """The last at or before `position`."""
        place = bisect_right(self._positions, position)
        return self._at[self._positions[place - 1]] if place else None

    def between(self, first: int, last: int) -> list[int]:
        """The positions behind `first` and before `last` that have one."""
        return self._positions[bisect_right(self._positions, first) : bisect_left(self._positions, last)]

    def _thin(self, here: int) -> None:
        """Drops every other one where they lie too densely for their distance, until half of the budget is free."""
        spacing = 1.0
        while (size := self._contents.size + PAGE_SIZE * len(self)) > self._budget // 2 and len(self) > 1:
            kept = [self._positions[0]]
            for position in self._positions[1:]:
                if position - kept[-1] < spacing / 64 * abs(here - position):
                    del self._at[position]
                else:
                    kept.append(position)
            self._positions = kept
            spacing *= 2
            if spacing > 1 << 40:
                break
        self._added = size
