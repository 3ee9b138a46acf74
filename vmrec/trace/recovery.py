# SPDX-License-Identifier: GPL-2.0-or-later
"""Says how much of a trace is good, what is wrong behind that, and saves the good part.

Good means: every byte is bound by the chain of links, every object is well-formed and in order. What is wrong is
told from its traces: the kinds of `DamageKind` are what tests and users do to files. A frame that a forger inserted
looks the same as one from another trace.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blake3 import blake3

from vmrec.errors import TraceError, UsageError
from vmrec.trace.codec import Malformed, compress, decompress, pack, unpack_stream
from vmrec.trace.frames import (
    ByteSource,
    CutShort,
    Damaged,
    FrameInfo,
    FrameTable,
    link_hash,
    links_after,
    parse_link,
    read_frame,
    seek_table,
)
from vmrec.trace.layout import NO_HASH
from vmrec.trace.objects import INDEXED_KINDS, Index, Order, TooNew, check
from vmrec.trace.tracefile import inherits, read_header, trace_errors
from vmrec.trace.writer import FrameFile

__all__ = ["ChainReport", "Damage", "DamageKind", "repair", "verify_chain"]


class DamageKind(StrEnum):
    """What happened to the bytes."""

    FLIPPED = "flipped byte"  # in a frame or its link
    TORN = "torn tail"  # the file ends inside a frame, or in bytes that never became one
    DROPPED = "dropped"  # frames are missing
    DUPLICATED = "duplicated"  # a frame is there a second time
    REORDERED = "reordered"  # a frame comes too early
    SPLICED = "spliced"  # a whole frame that does not continue this chain
    MALFORMED = "malformed"  # the chain is intact but an object is not what the format allows
    SEEK_TABLE = "seek table"  # the frames are all there; the table behind them is not theirs
    INDEX = "index"  # the index does not say what the frames hold
    HEAD = "head"  # intact, but not the trace that was asked for


@dataclass(frozen=True, slots=True)
class Damage:
    """The first thing that is wrong: its kind, the frame it is in, its offset in the file, and a sentence."""

    kind: DamageKind
    frame: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What `verify_chain` found.

    frames         frames that can be told apart in the file, good or not
    good           length of the good prefix, in frames
    good_bytes     … and in bytes
    last_position  position up to which the good prefix is complete
    head           hash of the good prefix's last link (32 bytes)
    closed         the recorder closed the trace
    ended          the good prefix holds the end of the run
    damage         None if nothing is wrong
    """

    path: str
    frames: int
    good: int
    good_bytes: int
    last_position: int
    head: bytes
    closed: bool
    ended: bool
    damage: Damage | None

    @property
    def ok(self) -> bool:
        """Nothing is wrong. A trace that was not closed may be ok: it is a prefix."""
        return self.damage is None


# ---------------------------------------------------------------------------------------------------------- verify


def verify_chain(
    path: str | os.PathLike[str],
    head: bytes | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ChainReport:
    """Reads every byte of a trace once and reports; `head` (32 bytes) is the hash its last link ought to have.

    `progress` is called with (bytes done, bytes in all) after each frame. Raises UsageError if the file cannot be
    opened, TraceError if it is not a trace at all or from a newer vmrec.
    """
    source = ByteSource(path)
    try:
        with trace_errors(source.path, None):
            return _Verification(source).run(head, progress)
    finally:
        source.close()


class _Verification:
    """One pass over a trace, and what is known when it stops."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.table = FrameTable()
        self.head = NO_HASH
        self.good = 0
        self.last = 0
        self.order = Order()
        self.index = Index()
        self.index_objects: list[list[Any]] = []
        self.inherits = False  # pages may be in the trace that this one was forked from
        self.sizes = array("I")
        self.unpacked = array("I")

    def run(self, head: bytes | None, progress: Callable[[int, int], None] | None) -> ChainReport:
        self._require_trace()
        self.table.walk(self.source)
        damage = None
        while damage is None and self.good < len(self.table):
            damage = self._next()
            if damage is None:
                self.good += 1
                if progress is not None:
                    progress(self._good_bytes(), self.source.size)
        if damage is None:
            damage = self._tail() or self._stored_index() or self._seek_table() or self._compare(head)
        return ChainReport(
            path=self.source.path,
            frames=len(self.table),
            good=self.good,
            good_bytes=self._good_bytes(),
            last_position=self.last,
            head=self.head,
            closed=self.table.closed,
            ended=self.index.end is not None,
            damage=damage,
        )

    def _require_trace(self) -> None:
        """Raises TraceError for what is no trace, or too new; a damaged header is for the report."""
        try:
            read_header(self.source)
        except TraceError as error:
            if not isinstance(error.__cause__, Malformed) or isinstance(error.__cause__, TooNew):
                raise

    def _good_bytes(self) -> int:
        return self.table.offsets[self.good] if self.good < len(self.table) else self.table.end

    def _next(self) -> Damage | None:
        """Checks one more frame; None if it is good."""
        number = self.good
        offset = self.table.offsets[number]
        try:
            info = self.table.info(self.source, number)
            raw = read_frame(self.source, info, self.head)
        except Damaged:
            return _classify(self.source, self.table, number, self.head)
        indexes = len(self.index_objects)
        try:
            if info.last < self.last:
                raise Malformed(f"the link of frame {number} goes back in position")
            self._look_at(info, raw)
        except Malformed as error:
            self.index.forget(number)
            del self.index_objects[indexes:]
            return Damage(DamageKind.MALFORMED, number, offset, str(error))
        self.head, self.last = info.link, info.last
        self.sizes.extend((info.length, self.table.link_end(self.source, number) - info.offset - info.length))
        self.unpacked.extend((len(raw), 0))
        return None

    def _look_at(self, info: FrameInfo, raw: bytes) -> None:
        """Checks the objects of a frame. Raises Malformed."""
        self.order.enter(info.index, info.first, info.last)
        objects = 0
        for obj in unpack_stream(raw):
            objects += 1
            kind = check(obj)
            self.order.check(obj)
            if info.rows and kind != "rows":
                raise Malformed(f"an object of kind {kind} in a frame that is said to hold rows alone")
            if kind == "header":
                self.inherits = inherits(obj[1])
            elif kind == "index":
                self.index_objects.append(obj)
            elif kind == "checkpoint" and not self.inherits:
                self._require_contents(obj)
            elif kind == "disk" and not self.inherits and obj[4] not in self.index.contents:
                raise Malformed(f"the content of the block that was needed at {obj[1]} does not come before it")
            if kind in INDEXED_KINDS:
                self.index.add(info.index, obj)
        if info.index == 0 and not objects:
            raise Malformed("there is no header")

    def _require_contents(self, checkpoint: list[Any]) -> None:
        for page, hash_ in checkpoint[3]:
            if hash_ not in self.index.contents:
                raise Malformed(
                    f"the checkpoint at {checkpoint[1]} needs a content of page {page} that does not come before it"
                )

    def _tail(self) -> Damage | None:
        """What is wrong behind the last frame."""
        at, trouble = self.table.torn_at, self.table.trouble
        if at is None or trouble is None:
            return None
        count = len(self.table)
        claimed = self.table.frames_by_footer(self.source)
        if claimed is not None and claimed > count:
            return Damage(DamageKind.DROPPED, count, at, f"the last {claimed - count} frames are missing")
        later = next(links_after(self.source, at, self.source.size - at), None)
        zeros = not any(self.source.read(self.source.size - 8, 8))  # what a power cut leaves; links end in a hash
        if later is None and (isinstance(trouble, CutShort) or zeros):
            return Damage(DamageKind.TORN, count, at, "the file ends inside a frame: its recorder died, or is at work")
        if self.index_objects:
            return Damage(DamageKind.SEEK_TABLE, count, at, "all frames are there; what follows is not their table")
        return Damage(DamageKind.FLIPPED, count, trouble.at, f"frame {count} or its link was changed: {trouble}")

    def _seek_table(self) -> Damage | None:
        """The sizes that the walk did not need: of unpacked frames."""
        start, size = self.table.end, self.source.size - self.table.end
        if not self.table.closed or self.source.read(start, size) == seek_table(self.sizes, self.unpacked):
            return None
        reason = "the seek table gives other sizes than the frames have"
        return Damage(DamageKind.SEEK_TABLE, len(self.table), start, reason)

    def _stored_index(self) -> Damage | None:
        for obj in self.index_objects:
            if not self.index.same_as(obj):
                number = len(self.table) - 1
                offset = self.table.offsets[number]
                return Damage(DamageKind.INDEX, number, offset, "the index does not say what the frames hold")
        return None

    def _compare(self, head: bytes | None) -> Damage | None:
        if head is None or head == self.head:
            return None
        reason = f"the head is {self.head.hex()}, expected {head.hex()}: another trace, or it was cut or went on since"
        for number in range(len(self.table)):
            if self.table.info(self.source, number).link == head:
                reason = f"the trace went on after the head that was asked for, which is that of frame {number}"
        return Damage(DamageKind.HEAD, len(self.table) - 1, self.table.offsets[-1], reason)


# -------------------------------------------------------------------------------------------------------- diagnosis


def _classify(source: ByteSource, table: FrameTable, number: int, head: bytes) -> Damage:
    """What happened to the frame at place `number`, which does not continue a good chain that ends in `head`."""
    offset, length = table.offsets[number], table.lengths[number]
    frame = source.read(offset, length)
    payload = source.read(offset + length, table.link_end(source, number) - offset - length)[8:]
    fields, hash_ = parse_link(payload)

    def damage(kind: DamageKind, reason: str) -> Damage:
        return Damage(kind, number, offset, reason)

    try:
        decompress(frame)
    except Malformed as error:
        return damage(DamageKind.FLIPPED, f"bytes of frame {number} were changed: {error}")
    hasher = blake3(head)
    hasher.update(frame)
    for variant in _one_bit_away(payload):
        fixed = hasher.copy()
        fixed.update(pack(variant[0]))
        if fixed.digest() == variant[1]:
            return damage(DamageKind.FLIPPED, f"a bit of the link of frame {number} was changed")
    for position in range(min(len(frame), 18) * 8):
        flipped = bytearray(frame)
        flipped[position // 8] ^= 1 << position % 8
        if link_hash(head, bytes(flipped), fields) == hash_:
            return damage(DamageKind.FLIPPED, f"a bit in the first bytes of frame {number} was changed")

    claimed = fields[1]
    if claimed < number and table.link(source, claimed) == (fields, hash_):
        return damage(DamageKind.DUPLICATED, f"frame {claimed} comes a second time, in the place of frame {number}")
    if claimed > number:
        for later in range(number + 1, len(table)):
            link = table.link(source, later)
            if link[0][1] == number and _follows(source, table, later, head):
                return damage(DamageKind.REORDERED, f"frame {number} comes later, in the place of frame {later}")
        if number + 1 == len(table) or (
            table.link(source, number + 1)[0][1] == claimed + 1 and _follows(source, table, number + 1, hash_)
        ):
            return damage(DamageKind.DROPPED, f"frames {number} to {claimed - 1} are missing; frame {claimed} follows")
    return damage(
        DamageKind.SPLICED, f"a whole frame, but not frame {number} of this trace: from another one, or forged"
    )


def _one_bit_away(payload: bytes) -> Iterator[tuple[list[int], bytes]]:
    """Every link that differs from a payload in one bit and is still a link."""
    for position in range(len(payload) * 8):
        flipped = bytearray(payload)
        flipped[position // 8] ^= 1 << position % 8
        try:
            yield parse_link(bytes(flipped))
        except Malformed:
            continue


def _follows(source: ByteSource, table: FrameTable, place: int, head: bytes) -> bool:
    """Whether the frame at `place` is bound to a chain that ends in `head`."""
    fields, hash_ = table.link(source, place)
    return link_hash(head, source.read(table.offsets[place], table.lengths[place]), fields) == hash_


# ---------------------------------------------------------------------------------------------------------- repair


def repair(path: str | os.PathLike[str], out: str | os.PathLike[str], *, force: bool = False) -> ChainReport:
    """Saves the longest good prefix of `path` as a closed trace `out`; returns the report on `path`.

    The frames are copied as they are, so the head of the prefix stays what it was. If the run's end is not among
    them, one is added whose reason is "repaired"; then index and seek table are made anew. `path` is not changed.

    Raises UsageError if `out` exists (without `force`) or is `path` itself, TraceError if not even the header is
    good or the disk is full.
    """
    source = ByteSource(path)
    try:
        if os.path.exists(out) and os.path.samefile(path, out):
            raise UsageError(f"{os.fspath(out)}: is the damaged trace itself; choose another name with -o")
        verification = _Verification(source)
        with trace_errors(source.path, None):
            report = verification.run(None, None)
        if not report.good:
            raise TraceError(source.path, 0, "its header is damaged; there is nothing in it to save")
        target = FrameFile(out, durable=False, force=force, sync=os.fdatasync)
        try:
            _copy(verification, report, target)
            target.finish()
        finally:
            target.release()
        return report
    finally:
        source.close()


def _copy(verification: _Verification, report: ChainReport, target: FrameFile) -> None:
    source, table, index = verification.source, verification.table, verification.index
    # An index that is good but for what it says is left out and made anew.
    stale = not all(map(index.same_as, verification.index_objects))
    for number in range(report.good - stale):
        info = table.info(source, number)
        frame = source.read(info.offset, info.length)
        target.put(frame, len(decompress(frame)), info.first, info.last, rows=info.rows)
    if verification.index_objects and not stale:
        return
    last = report.last_position
    if index.end is None:
        what = None if report.damage is None else report.damage.kind.value
        end = ["end", last, {"reason": "repaired", "exit_code": None, "icount": None, "damage": what}]
        index.add(target.frames, end)
        _put(target, end, last)
    obj = index.to_object(last)
    if obj is not None:
        _put(target, obj, last)


def _put(target: FrameFile, obj: list[Any], position: int) -> None:
    raw = pack(obj)
    target.put(compress(raw), len(raw), position, position)
