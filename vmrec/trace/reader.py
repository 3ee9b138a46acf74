# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace as everybody else sees it: one history from reset to its end, in however many files it is.

    grandparent   ├────────────┤╌╌╌╌╌╌╌╌╌╌╌╌┤
    parent                     ├─────────┤╌╌╌╌╌╌╌╌┤        ╌ is not of this history
    the trace itself                     ├──────────────┤
    TraceReader   ├────────────┴─────────┴──────────────┤  positions 0 … last, frames 0 … n

A fork's own file begins at the position where it left its parent. What is before is read from the parent's file, up to
there: events and outputs before the position, digests and checkpoints also at it. Frames are numbered through. A
trace that is no fork is one part.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from vmrec.errors import TraceError
from vmrec.events import Event, Output, from_wire
from vmrec.trace.frames import FrameInfo
from vmrec.trace.layout import RECORD_KINDS
from vmrec.trace.lineage import ancestors
from vmrec.trace.objects import CheckpointMark, DigestMark
from vmrec.trace.tracefile import REMEDY, Frames, TraceFile, trace_error

__all__ = ["ForkPoint", "FrameInfo", "PageRef", "TraceReader"]


class PageRef(NamedTuple):
    """A page at a checkpoint: the hash of its content (32 bytes), and a function that reads it (4096 bytes)."""

    hash: bytes
    load: Callable[[], bytes]


class ForkPoint(NamedTuple):
    """What names a trace's history up to a position: a file with its header, the last frame needed, its link's hash."""

    path: str
    frame: int
    hash: bytes
    header: dict[str, Any]


@dataclass(slots=True)
class _Part:
    """A file's share of the history: its frames `first` … `last` are numbered from `base` on.

    Of an ancestor (`limit` is not None) only what comes before position `limit` belongs to the history.
    """

    file: TraceFile
    first: int
    base: int
    last: int | None = None
    limit: int | None = None

    def frames(self) -> int:
        """How many frames it has."""
        return (len(self.file.frames) if self.last is None else self.last + 1) - self.first

    def info(self, frame: int, found: FrameInfo) -> FrameInfo:
        """What the link of a frame says, in this history."""
        if self.limit is None and not self.base:
            return found
        limit = found.last if self.limit is None else self.limit
        return replace(found, index=frame, first=min(found.first, limit), last=min(found.last, limit))

    def has(self, obj: list[Any]) -> bool:
        """Whether an object of the file belongs to the history."""
        if self.limit is None or obj[0] == "header":
            return True
        if obj[0] in ("rows", "end", "index"):
            return False
        return obj[0] == "page" or obj[1] < self.limit or (obj[0] in ("digest", "checkpoint") and self._at_limit(obj))

    def _at_limit(self, obj: list[Any]) -> bool:
        """Whether an observation was made before the events at the limit: the last digest of a trace was not."""
        return bool(obj[1] == self.limit and (obj[0] == "checkpoint" or self._first_there(obj[2]["value"])))

    def _first_there(self, value: bytes) -> bool:
        there = [mark for mark in self.file.digests if mark.position == self.limit]
        return bool(there) and there[0].value == value and there[0] != self.file.digests[-1]

    def digests(self) -> list[DigestMark]:
        """The digests of the history in this file, frames as numbered in it."""
        marks = self.file.digests
        if self.limit is not None:
            marks = [
                mark
                for mark in marks
                if mark.frame <= self._last()
                and (mark.position < self.limit or self._at_limit(["digest", mark.position, {"value": mark.value}]))
            ]
        return [replace(mark, frame=self.frame(mark.frame)) for mark in marks] if self.base else marks

    def checkpoints(self) -> list[CheckpointMark]:
        """The checkpoints of the history in this file, frames as numbered in it."""
        marks = self.file.checkpoints
        if self.limit is not None:
            marks = [mark for mark in marks if mark.frame <= self._last() and mark.position <= self.limit]
        return [replace(mark, frame=self.frame(mark.frame)) for mark in marks] if self.base else marks

    def _last(self) -> int:
        return len(self.file.frames) - 1 if self.last is None else self.last

    def frame(self, local: int) -> int:
        """The number in the history of a frame of the file."""
        return local - self.first + self.base

    def local(self, frame: int) -> int:
        """The number in the file of a frame of the history."""
        return frame - self.base + self.first


class _Frames(Frames):
    """The frames of all parts."""

    def __init__(self, parts: list[_Part]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return self._parts[-1].base + self._parts[-1].frames()

    def _info(self, number: int) -> FrameInfo:
        part = next(part for part in reversed(self._parts) if part.base <= number)
        return part.info(number, part.file.frames[part.local(number)])


class TraceReader:
    """A trace, opened for reading; a context manager.

    path      the file as it was named
    header    the header map, types and ranges checked (`vmrec.trace.layout.MAPS["header"]`)
    frames    list-like of FrameInfo, read from the links as needed
    lineage   (path, last frame needed) of the files with what was before the fork, the oldest first; mostly empty

    Every method and property may raise TraceError when it touches a damaged frame.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a trace. Raises UsageError if the file cannot be opened, TraceError if it is not a readable trace.

        TraceError too if it is a fork whose parent cannot be found: `vmrec.trace.lineage` says where it is looked for.
        """
        self._own = TraceFile(path)
        self.path = self._own.path
        self.header = self._own.header
        self._parts: list[_Part] = []
        try:
            for file, frame, limit in ancestors(self._own):
                base = self._parts[-1].base + self._parts[-1].frames() if self._parts else 0
                self._parts.append(_Part(file, 1 if self._parts else 0, base, frame, limit))
            before = self._parts[-1].base + self._parts[-1].frames() if self._parts else 0
            self._parts.append(_Part(self._own, 1 if self._parts else 0, before))
        except BaseException:
            self.close()
            raise
        self.frames: Sequence[FrameInfo] = _Frames(self._parts) if len(self._parts) > 1 else self._own.frames
        self.lineage = tuple((part.file.path, part.last or 0) for part in self._parts[:-1])

    # ------------------------------------------------------------------------------------------------- the file

    @property
    def closed(self) -> bool:
        """Whether the recorder closed the trace; if not, it is still at work, or died."""
        return self._own.closed

    @property
    def torn(self) -> bool:
        """Whether the file ends with something that is not a whole frame: the recorder died, or is writing it now."""
        return self._own.torn

    @property
    def torn_at(self) -> int | None:
        """Offset of the torn rest, None if there is none."""
        return self._own.torn_at

    @property
    def size(self) -> int:
        """Bytes in the file, as of opening or the last refresh."""
        return self._own.size

    @property
    def head(self) -> bytes:
        """Hash of the last link (32 bytes): the name of the whole trace, if the chain before it is intact."""
        return self._own.head

    @property
    def last_position(self) -> int:
        """Position up to which the trace is complete."""
        return self._own.last_position

    @property
    def rows_from(self) -> int | None:
        """The position from which on steps were captured; None if they were not."""
        if self.header["capture"] != "full":
            return None
        return int(self.header["parent"]["position"]) if "parent" in self.header else 0

    def refresh(self) -> bool:
        """Takes up what a recorder has written since; returns whether there are new frames.

        Raises TraceError if the file became shorter.
        """
        return self._own.refresh()

    def close(self) -> None:
        """Closes the file; harmless when closed already."""
        for part in self._parts:
            part.file.close()
        self._own.close()

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _part(self, frame: int) -> _Part:
        """The part that a frame is in."""
        return next(part for part in reversed(self._parts) if part.base <= frame)

    def fork_point(self, position: int) -> ForkPoint:
        """What names the history up to `position`: in the youngest file that began before it."""
        part = next((p for p in reversed(self._parts) if p.base and self._begin(p) < position), self._parts[0])
        frames = part.file.frames
        frame = min(bisect_left(frames, position, key=lambda info: info.last), len(frames) - 1)
        marks = [mark for mark in self.checkpoints if mark.position == position and self._part(mark.frame) is part]
        frame = max([frame, *(part.local(mark.frame) for mark in marks)])
        return ForkPoint(part.file.path, frame, frames[frame].link, part.file.header)

    @staticmethod
    def _begin(part: _Part) -> int:
        return int(part.file.header["parent"]["position"])

    # ---------------------------------------------------------------------------------------------- the objects

    def objects(
        self, first_frame: int = 0, kinds: frozenset[str] | set[str] | None = None
    ) -> Iterator[tuple[FrameInfo, list[Any]]]:
        """Yields (FrameInfo, object) from `first_frame` on; the object as a list, kind first, checked.

        `kinds` leaves out all others. Objects come in the order of the file: events, outputs, digests and checkpoints
        by position; rows by position among themselves. A frame is unpacked whole, an object at a time. On a live
        trace the iteration takes in what `refresh` finds meanwhile.
        """
        if len(self._parts) == 1:
            yield from self._own.objects(first_frame, kinds)
            return
        for part in self._parts:
            begin = max(part.local(first_frame), part.first)
            end = None if part.last is None else part.last + 1
            if end is not None and begin >= end:
                continue
            for info, obj in part.file.objects(begin, kinds, end):
                if part.has(obj):
                    yield part.info(part.frame(info.index), info), obj

    def history(self, position: int) -> Iterator[list[Any]]:
        """Yields what happened before `position`, as objects: all but header and rows, and only pages that are needed.

        Observations at `position` itself belong to it, events there do not.
        """
        pages: list[list[Any]] = []
        final = self.digests[-1:]
        for info, obj in self.objects(0, RECORD_KINDS | {"digest", "checkpoint", "page"}):
            kind = obj[0]
            if kind == "page":
                pages.append(obj)
                continue
            if obj[1] > position:
                return
            if obj[1] == position and (kind in RECORD_KINDS or (kind == "digest" and _is(final, info, obj))):
                continue
            if kind in ("checkpoint", "disk"):
                yield from pages
                pages.clear()
            if kind == "checkpoint":
                obj[3] = [[index, hash_] for index, hash_ in obj[3]]
            yield obj

    def records(self, first: int = 0, last: int | None = None) -> Iterator[Event | Output]:
        """Yields the events and outputs with first ≤ position < last (to the end if None), in order."""
        start = self.frame_at(first)
        for info, obj in self.objects(start, RECORD_KINDS):
            if last is not None and obj[1] >= last:
                return
            if obj[1] >= first:
                try:
                    yield from_wire(obj)
                except ValueError as error:
                    raise trace_error(self._part(info.index).file.path, info.offset, error) from error

    def frame_records(self, frame: int) -> list[list[Any]]:
        """The events and outputs of one frame, as they are on the wire, in order.

        May be asked for by another thread, once `digests` was.
        """
        part = self._part(frame)
        found = part.file.frame_records(part.local(frame))
        if part.base and found and found[0][1] < self._begin(part):
            raise TraceError(part.file.path, None, f"holds an event from before it was forked; {REMEDY}")
        return found if part.limit is None else [obj for obj in found if part.has(obj)]

    def rows(self, first: int = 0, last: int | None = None) -> Iterator[list[Any]]:
        """Yields the ["rows", first, last, columns] that hold any of the steps first … last-1, in order.

        Of a fork these are its own; the steps before it are regenerated, whatever its parent captured. The iterator may
        be used by another thread than the reader: it keeps nothing but what links say.
        """
        for _, obj in self.objects(self.frame_at(first), {"rows"}):
            if last is not None and obj[1] >= last:
                return
            if obj[2] > first:
                yield obj

    def frame_at(self, position: int) -> int:
        """The first frame whose last position is `position` or later; the number of frames if there is none."""
        return bisect_left(self.frames, position, key=lambda info: info.last)

    # ---------------------------------------------------------------------------------------------------- marks

    @property
    def digests(self) -> list[DigestMark]:
        """All digests: position, frame and value."""
        if len(self._parts) == 1:
            return self._own.digests
        return [mark for part in self._parts for mark in part.digests()]

    @property
    def checkpoints(self) -> list[CheckpointMark]:
        """All checkpoints: position and frame."""
        if len(self._parts) == 1:
            return self._own.checkpoints
        return [mark for part in self._parts for mark in part.checkpoints()]

    @property
    def end(self) -> dict[str, Any] | None:
        """What the recorder wrote when the run was over, None if it did not get there."""
        return self._own.end

    def digest(self, mark: DigestMark) -> dict[str, Any]:
        """The digest's map: "value", "registers", "ram", "outputs", "devices"."""
        part = self._part(mark.frame)
        return part.file.digest(replace(mark, frame=part.local(mark.frame)))

    def checkpoint(self, mark: CheckpointMark) -> tuple[dict[str, Any], list[tuple[int, bytes]]]:
        """The state at a checkpoint, and (page index, hash) of the pages that changed since the one before it."""
        part = self._part(mark.frame)
        return part.file.checkpoint(replace(mark, frame=part.local(mark.frame)))

    def pages(self, mark: CheckpointMark) -> dict[int, PageRef]:
        """Every page that the guest has changed since reset, as it was at a checkpoint: page index → PageRef.

        To read them all use `contents`, which unpacks each frame once.
        """
        return {index: PageRef(hash_, partial(self.page, hash_)) for index, hash_ in self.page_hashes(mark).items()}

    def page(self, hash_: bytes) -> bytes:
        """The content (4096 bytes) of the page with this hash. Raises TraceError if the trace does not have it."""
        for look in (TraceFile.page_near, TraceFile.page_anywhere):
            for part in reversed(self._parts):
                content = look(part.file, hash_)
                if content is not None:
                    return content
        raise TraceError(self.path, None, f"the content of page {hash_.hex()[:16]}… is missing; {REMEDY}")

    def page_at_hand(self, hash_: bytes) -> bytes | None:
        """As `page`, if nothing has to be read for it: other pages of its frame were asked for. Else None."""
        found = (part.file.page_at_hand(hash_) for part in reversed(self._parts))
        return next((content for content in found if content is not None), None)

    def pages_together(self, hash_: bytes, wanted: Callable[[bytes], bool]) -> list[tuple[bytes, bytes]]:
        """As `page`, with what was written together with it and has a `wanted` hash: (hash, content), itself first."""
        for part in reversed(self._parts):
            found = part.file.pages_together(hash_, wanted)
            if found:
                return found
        return [(hash_, self.page(hash_))]

    def page_hashes(self, mark: CheckpointMark) -> Mapping[int, bytes]:
        """As `pages`: page index → hash. `page` reads the content of one.

        The first checkpoint of a fork's own names every page, so that no other file need be looked at.
        """
        part = self._part(mark.frame)
        return part.file.page_hashes(replace(mark, frame=part.local(mark.frame)))

    def contents(self, mark: CheckpointMark, but: Mapping[int, bytes] | None = None) -> Iterator[tuple[int, bytes]]:
        """Yields (page index, content) for every page of `pages(mark)`, in the order in which the file has them.

        Pages with the hash that `but` has for them are left out.
        """
        file, known = self._part(mark.frame).file, but or {}
        hashes = ((page, hash_) for page, hash_ in self.page_hashes(mark).items() if known.get(page) != hash_)
        wanted = sorted((file.page_frame(hash_), page, hash_) for page, hash_ in hashes)
        for _, page, hash_ in wanted:
            yield page, self.page(hash_)


def _is(marks: list[DigestMark], info: FrameInfo, digest: list[Any]) -> bool:
    """Whether a digest is one of these."""
    return DigestMark(digest[1], info.index, digest[2]["value"]) in marks
