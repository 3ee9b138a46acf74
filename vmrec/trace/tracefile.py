# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads one trace file: closed, torn, or still being recorded. The trace of a fork is more than its file: reader.py.

Opening a closed trace reads its header, its seek table (16 bytes a frame) and, when asked for marks, its index; no
other frame is touched, whatever the size. An open-ended one is walked from frame to frame, by block headers only. Each
frame is checked against its link when it is read, so damage is noticed by whoever first touches it, as a TraceError
that names the frame's offset. Memory is bounded by the limits of `vmrec.trace.layout`, not by what the file says.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, overload

from vmrec.errors import TraceError
from vmrec.trace.codec import Malformed, decompress, unpack_all, unpack_pages, unpack_stream
from vmrec.trace.frames import (
    ByteSource,
    CutShort,
    Damaged,
    FrameInfo,
    FrameTable,
    packed_frame,
    read_frame,
    zstd_length,
)
from vmrec.trace.layout import MAX_PAGES, PAGE_SIZE, PLAIN_VERSION, RECORD_KINDS, ZSTD_MAGIC
from vmrec.trace.objects import (
    INDEXED_KINDS,
    CheckpointMark,
    DigestMark,
    Index,
    Order,
    TooNew,
    check,
    check_records,
    is_page,
)

__all__ = ["FrameInfo", "FrameList", "TraceFile", "inherits", "read_header", "trace_error", "trace_errors"]

REMEDY = "`vmrec verify` says how much is good, `vmrec repair` saves that part"
_PAGE_CACHE = 32 << 20  # bytes of page contents kept
_BESIDE = 64  # pages of one frame that belong together, at most
_LIST_KEPT = 4096  # pages of a checkpoint that is kept unpacked, at most
_MAPS_CACHED = 4  # page maps of checkpoints kept
_UNPACKED = 2 << 20  # bytes of frames without rows: one is asked for its checkpoint, its pages, its events


def trace_error(path: str, offset: int | None, error: ValueError) -> TraceError:
    """The error for the user; `offset` is where the trouble is, unless `error` knows better."""
    if isinstance(error, TooNew):
        return TraceError(path, None, str(error))
    return TraceError(path, error.at if isinstance(error, Damaged) else offset, f"{error}; {REMEDY}")


@contextmanager
def trace_errors(path: str, offset: int | None) -> Iterator[None]:
    """Makes a TraceError of what is Malformed inside."""
    try:
        yield
    except Malformed as error:
        raise trace_error(path, offset, error) from error


def inherits(header: Mapping[str, Any]) -> bool:
    """Whether what comes before a trace's own position is in another trace, its parent."""
    return header["version"] > PLAIN_VERSION and "parent" in header and not header["parent"]["included"]


def page_limit(machine: Mapping[str, Any]) -> int:
    """Pages of RAM and drives, as far as a header's description of the machine can be read."""
    drives = machine.get("drives", [])
    sizes: list[Any] = [machine.get("ram_size"), *(drives if type(drives) is list else [])]
    pages = 0
    for size in sizes:
        if type(size) is not int or size < 0:
            return MAX_PAGES
        pages += -(-size // PAGE_SIZE)
    return min(MAX_PAGES, pages)


def read_header(source: ByteSource) -> dict[str, Any]:
    """The header of a trace. Raises TraceError if there is none, or its format version is not known here."""
    magic = ZSTD_MAGIC.to_bytes(4, "little")
    if not source.size:
        raise TraceError(source.path, None, "is empty: not a trace, or its recorder died before it wrote anything")
    with trace_errors(source.path, 0):
        if source.read(0, 4) != magic:
            raise TraceError(source.path, None, "is not a vmrec trace; `vmrec record` makes one")
        try:
            length = zstd_length(source, 0)
        except CutShort as error:
            raise TraceError(source.path, 0, "ends inside its header; there is nothing in it to save") from error
        objects = unpack_stream(decompress(source.read(0, length)))
        first = next(objects, None)
        if type(first) is not list or not first or first[0] != "header":
            raise TraceError(source.path, None, "is not a vmrec trace: it does not begin with a header")
        check(first)
        if next(objects, None) is not None:
            raise Malformed("the header shares its frame with other objects")
        header: dict[str, Any] = first[1]
        return header


class Frames(Sequence[FrameInfo]):
    """What links say, read when asked for. Raises TraceError for a damaged one."""

    @abstractmethod
    def _info(self, number: int) -> FrameInfo:
        """What the link of frame `number` says, which there is."""

    @overload
    def __getitem__(self, index: int) -> FrameInfo: ...

    @overload
    def __getitem__(self, index: slice) -> list[FrameInfo]: ...

    def __getitem__(self, index: int | slice) -> FrameInfo | list[FrameInfo]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._info(number)


class FrameList(Frames):
    """The frames of one file."""

    def __init__(self, source: ByteSource, table: FrameTable) -> None:
        self._source = source
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def _info(self, number: int) -> FrameInfo:
        with trace_errors(self._source.path, None):
            return self._table.info(self._source, number)


class TraceFile:
    """A trace's file, opened for reading; a context manager.

    path      the file as it was named
    header    the header map, types and ranges checked (`vmrec.trace.layout.MAPS["header"]`)
    frames    list-like of FrameInfo, read from the links as needed

    Every method and property may raise TraceError when it touches a damaged frame.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a trace. Raises UsageError if the file cannot be opened, TraceError if it is not a readable trace."""
        self.path = os.fspath(path)
        self._source = ByteSource(path)
        try:
            self.header = read_header(self._source)
            with trace_errors(self.path, None):
                self._table = FrameTable.load(self._source)
            if not len(self._table):
                raise TraceError(self.path, 0, "ends inside its header; there is nothing in it to save")
            self.frames = FrameList(self._source, self._table)
            self._frame(0)
        except BaseException:
            self._source.close()
            raise
        self._stored: Index | None = None  # from the file
        self._built = Index()  # from walking the first _built_frames frames
        self._built_frames = 0
        self._page_cache: dict[int, dict[bytes, bytes]] = {}
        self._maps: dict[int, dict[int, bytes]] = {}
        self._last: int | None = None
        self._unpacked: dict[int, tuple[FrameInfo, bytes]] = {}
        self._last_checkpoint: tuple[CheckpointMark, list[Any]] | None = None

    # ------------------------------------------------------------------------------------------------- the file

    @property
    def closed(self) -> bool:
        """Whether the recorder closed the trace; if not, it is still at work, or died."""
        return self._table.closed

    @property
    def torn(self) -> bool:
        """Whether the file ends with something that is not a whole frame: the recorder died, or is writing it now."""
        return self._table.torn_at is not None

    @property
    def torn_at(self) -> int | None:
        """Offset of the torn rest, None if there is none."""
        return self._table.torn_at

    @property
    def size(self) -> int:
        """Bytes in the file, as of opening or the last refresh."""
        return self._source.size

    @property
    def head(self) -> bytes:
        """Hash of the last link (32 bytes): the name of the whole trace, if the chain before it is intact."""
        return self.frames[-1].link

    @property
    def last_position(self) -> int:
        """Position up to which the trace is complete."""
        if self._last is None:  # asked for at every stop of a search
            self._last = self.frames[-1].last
        return self._last

    def refresh(self) -> bool:
        """Takes up what a recorder has written since; returns whether there are new frames.

        Raises TraceError if the file became shorter.
        """
        frames, end = len(self._table), self._table.end
        self._last = None
        self._source.refresh()
        if self._source.size < end:
            raise TraceError(self.path, self._source.size, "became shorter while it was read: recorded over?")
        if not self.closed:
            with trace_errors(self.path, None):
                self._table.walk(self._source)
        return len(self._table) > frames

    def close(self) -> None:
        """Closes the file; harmless when closed already."""
        self._last = None
        self._source.close()

    def __enter__(self) -> TraceFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _frame(self, index: int, *, skip_rows: bool = False) -> tuple[FrameInfo, bytes]:
        """What the link of a frame says, and the frame's unpacked bytes, checked against each other.

        With `skip_rows` a frame of rows alone is checked, but not unpacked: its bytes are given as empty.
        """
        with trace_errors(self.path, None):
            info = self._table.info(self._source, index)
            previous, covered = self._table.previous(self._source, index)
            if info.last < covered:
                raise Damaged(info.offset + info.length, f"the link of frame {index} goes back in position")
            if skip_rows and info.rows:
                packed_frame(self._source, info, previous)
                return info, b""
            return info, read_frame(self._source, info, previous)

    # ---------------------------------------------------------------------------------------------- the objects

    def objects(
        self, first_frame: int = 0, kinds: frozenset[str] | set[str] | None = None, frames: int | None = None
    ) -> Iterator[tuple[FrameInfo, list[Any]]]:
        """Yields (FrameInfo, object) from `first_frame` on; the object as a list, kind first, checked.

        `kinds` leaves out all others. Objects come in the order of the file: events, outputs, digests and checkpoints
        by position; rows by position among themselves. A frame is unpacked whole, an object at a time. With `frames`
        it ends before frame `frames`; else, on a live trace, it takes in what `refresh` finds meanwhile.
        """
        order = Order()
        if first_frame > 0:
            order.enter(first_frame - 1, 0, self.frames[first_frame - 1].last)
        frame = first_frame
        while frame < (len(self._table) if frames is None else frames):
            yield from self._frame_objects(frame, order, kinds)
            frame += 1

    def _frame_objects(
        self, frame: int, order: Order, kinds: frozenset[str] | set[str] | None = None
    ) -> Iterator[tuple[FrameInfo, list[Any]]]:
        info, raw = self._frame(frame, skip_rows=kinds is not None and "rows" not in kinds)
        order.enter(frame, info.first, info.last)
        objects = unpack_stream(raw, rows=info.rows)
        while True:
            try:
                obj = next(objects, None)
                if obj is None:
                    return
                kind = check(obj)
                order.check(obj)
                if info.rows and kind != "rows":
                    raise Malformed(f"an object of kind {kind} in a frame that is said to hold rows alone")
            except Malformed as error:
                raise trace_error(self.path, info.offset, error) from error
            if kinds is None or kind in kinds:
                yield info, obj

    def _one_frame(
        self, frame: int, kinds: frozenset[str] | set[str], *, checked: bool = True
    ) -> Iterator[list[Any]]:
        """The objects of some kinds in one frame, no other frame being touched but for the link before it.

        Those of other kinds are passed over unchecked: that they are what was written is known from the link. Those
        of these kinds too unless `checked`.
        """
        info, raw = self._unpacked_frame(frame, kinds)
        with trace_errors(self.path, info.offset):
            for obj in unpack_stream(raw, rows=info.rows, kinds=frozenset(kinds)):
                if type(obj) is list and obj and type(obj[0]) is str and obj[0] in kinds:
                    if checked:
                        check(obj)
                    yield obj

    def _unpacked_frame(self, frame: int, kinds: frozenset[str] | set[str]) -> tuple[FrameInfo, bytes]:
        """As `_frame`, for who wants objects of these kinds; kept for who wants others."""
        self._source.require_open()
        info, raw = self._unpacked.get(frame) or self._frame(frame, skip_rows="rows" not in kinds)
        if not info.rows and frame not in self._unpacked:
            others = list(self._unpacked.items())  # another thread may be here too
            kept = len(raw) + sum(len(other) for _, (_, other) in others)
            for number, (_, other) in others:
                if kept > _UNPACKED:
                    self._unpacked.pop(number, None)
                    kept -= len(other)
            self._unpacked[frame] = info, raw
        return info, raw

    def frame_records(self, frame: int) -> list[list[Any]]:
        """The events and outputs of one frame, as they are on the wire, in order."""
        info, raw = self._unpacked_frame(frame, RECORD_KINDS)
        with trace_errors(self.path, info.offset):
            found = unpack_all(raw, RECORD_KINDS)
            check_records(found)
        return found

    # ---------------------------------------------------------------------------------------------------- marks

    @property
    def digests(self) -> list[DigestMark]:
        """All digests: position, frame and value."""
        return self._index().digests

    @property
    def checkpoints(self) -> list[CheckpointMark]:
        """All checkpoints: position and frame."""
        return self._index().checkpoints

    @property
    def end(self) -> dict[str, Any] | None:
        """What the recorder wrote when the run was over, None if it did not get there."""
        stored = self._stored_index()
        last = len(self._table) - 1
        # Nothing but an index, in the last frame, can follow it.
        for frame in (last, last - 1) if stored is None else () if stored.end is None else (stored.end,):
            for obj in self._one_frame(frame, {"end"}) if frame > 0 else ():
                end: dict[str, Any] = obj[2]
                return end
        return None

    def digest(self, mark: DigestMark) -> dict[str, Any]:
        """The digest's map: "value", "registers", "ram", "outputs", "devices"."""
        found: dict[str, Any] = self._marked(mark, "digest")[2]
        return found

    def checkpoint(self, mark: CheckpointMark) -> tuple[dict[str, Any], list[tuple[int, bytes]]]:
        """The state at a checkpoint, and (page index, hash) of the pages that changed since the one before it."""
        self._source.require_open()
        last = self._last_checkpoint
        if last is None or last[0] != mark:
            last = mark, self._marked(mark, "checkpoint")
            # Who asks for its state asks for its pages next. The long lists of large guests are not worth the memory.
            self._last_checkpoint = last if len(last[1][3]) <= _LIST_KEPT else None
        _, _, state, pages = last[1]
        return state, [(index, hash_) for index, hash_ in pages]

    def page_near(self, hash_: bytes) -> bytes | None:
        """The content (4096 bytes) of the page with this hash, if it is where the index says; None otherwise."""
        frame = self._index().frame_of(hash_)
        if frame is None or frame >= len(self._table):
            return None
        return self._content(frame, hash_, self._pages_of(frame))

    def page_at_hand(self, hash_: bytes) -> bytes | None:
        """As `page_near`, if nothing has to be read for it."""
        frame = self.page_frame(hash_)
        return self._content(frame, hash_, self._page_cache.get(frame, {}))

    def pages_together(self, hash_: bytes, wanted: Callable[[bytes], bool]) -> list[tuple[bytes, bytes]]:
        """As `page_near`, with those in its frame that have a `wanted` hash: (hash, content), itself first; else none.

        Of a large frame it is alone: who made that did not put together what belongs together.
        """
        frame = self._index().frame_of(hash_)
        pages = {} if frame is None or frame >= len(self._table) else self._pages_of(frame)
        content = None if frame is None else self._content(frame, hash_, pages)
        if content is None:
            return []
        beside = pages.items() if len(pages) <= _BESIDE else ()
        others = ((other, data) for other, data in beside if other != hash_ and wanted(other))
        return [(hash_, content), *((other, data) for other, data in others if is_page(other, data))]

    def page_anywhere(self, hash_: bytes) -> bytes | None:
        """The content of the page with this hash, None if the file does not have it. Reads all of it.

        The index knows pages by the first bytes of their hash: of two that share them it has only one.
        """
        contents = (self._content(frame, hash_, self._pages_of(frame)) for frame in range(len(self._table)))
        return next((content for content in contents if content is not None), None)

    def page_frame(self, hash_: bytes) -> int:
        """Where the content of a page should be; 0 if nobody knows."""
        return self._index().frame_of(hash_) or 0

    def page_hashes(self, mark: CheckpointMark) -> Mapping[int, bytes]:
        """As `pages`: page index → hash. `page` reads the content of one."""
        return self._map(mark)

    def _stored_index(self) -> Index | None:
        """The index that the recorder left, if it closed the trace."""
        if self._stored is None and self.closed:
            last = len(self._table) - 1
            for obj in self._one_frame(last, {"index"}):
                with trace_errors(self.path, self._table.offsets[last]):
                    self._stored = Index.from_object(obj, len(self._table))
        return self._stored

    def _index(self) -> Index:
        """The stored index, or one built by reading every frame once."""
        stored = self._stored_index()
        if stored is not None:
            return stored
        while self._built_frames < len(self._table):
            found = list(self._one_frame(self._built_frames, INDEXED_KINDS))
            for obj in found:
                with trace_errors(self.path, self._table.offsets[self._built_frames]):
                    self._built.add(self._built_frames, obj)
            self._built_frames += 1
        return self._built

    def _marked(self, mark: DigestMark | CheckpointMark, kind: str) -> list[Any]:
        """The object that a mark stands for."""
        for obj in self._one_frame(mark.frame, {kind}):
            if obj[1] == mark.position:
                return obj
        raise TraceError(self.path, None, f"the index names a {kind} at {mark.position} that is not there; {REMEDY}")

    def _map(self, mark: CheckpointMark) -> dict[int, bytes]:
        """Page index → hash at a checkpoint, of all pages that changed since reset."""
        marks = self.checkpoints
        number = marks.index(mark)
        known = max((cached for cached in self._maps if cached <= number), default=-1)
        whole = self._index().whole_before(number)
        if known < whole:
            known, pages = whole - 1, {}
        else:
            pages = dict(self._maps.get(known, ()))
        limit = page_limit(self.header["machine"])
        for step in marks[known + 1 : number + 1]:
            for index, hash_ in self.checkpoint(step)[1]:
                if index >= limit:
                    raise TraceError(
                        self.path,
                        None,
                        f"the checkpoint at {step.position} has a page {index} outside RAM and drives; {REMEDY}",
                    )
                pages[index] = hash_
        if number not in self._maps:
            while len(self._maps) >= _MAPS_CACHED:
                del self._maps[next(iter(self._maps))]
            self._maps[number] = pages
        return pages

    def _pages_of(self, frame: int) -> dict[bytes, bytes]:
        """The page contents in one frame, by the hash that each is said to have: `_content` looks whether it has."""
        found = self._page_cache.pop(frame, None)
        if found is None:
            # Unchecked: of many, one may be all that is wanted.
            _, raw = self._unpacked_frame(frame, {"page"})
            objects = unpack_pages(raw) or self._one_frame(frame, {"page"}, checked=False)
            found = {obj[1]: obj[2] for obj in objects if len(obj) == 3 and type(obj[1]) is bytes}
            kept = sum(map(len, self._page_cache.values())) * PAGE_SIZE
            while self._page_cache and kept > _PAGE_CACHE:
                kept -= len(self._page_cache.pop(next(iter(self._page_cache)))) * PAGE_SIZE
        self._page_cache[frame] = found
        return found

    def _content(self, frame: int, hash_: bytes, pages: Mapping[bytes, bytes]) -> bytes | None:
        """The content with this hash, if it is among `pages` of `frame`."""
        content = pages.get(hash_)
        if content is not None:
            with trace_errors(self.path, self._table.offsets[frame]):
                check(["page", hash_, content])
        return content
