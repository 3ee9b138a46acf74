# SPDX-License-Identifier: GPL-2.0-or-later
"""What a well-formed object is, in what order objects may come, and the index over them.

`check` looks at one object, against the table in `vmrec.trace.layout`; `Order` at their sequence; `Index` remembers
where the few are that a reader wants to jump to. Writer, reader and recovery share all three.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vmrec.trace.codec import Malformed, PageList
from vmrec.trace.digests import blake3_of
from vmrec.trace.layout import (
    CAPTURES,
    FORK_VERSION,
    FORMAT,
    FORMAT_VERSION,
    HASH_SIZE,
    MAPS,
    MAX_CONTENTS,
    MAX_DEPTH,
    MAX_FRAME_RAW,
    MAX_MARKS,
    MAX_TEXT,
    OBJECTS,
    PAGE_PREFIX,
    PAGE_SIZE,
    PLAIN_VERSION,
)

__all__ = [
    "INDEXED_KINDS",
    "CheckpointMark",
    "DigestMark",
    "Index",
    "Order",
    "TooNew",
    "check",
    "check_records",
    "is_page",
]

UINT64_MAX = 2**64 - 1
INT64_MIN = -(2**63)


class TooNew(Malformed):
    """The trace is of a format version that this vmrec does not know."""


# ------------------------------------------------------------------------------------------------------ one object


def _uint(value: object, what: str) -> None:
    if type(value) is not int or not 0 <= value <= UINT64_MAX:
        raise Malformed(f"{what} is not a number from 0 to 2**64-1")


def _int(value: object, what: str) -> None:
    if type(value) is not int or not INT64_MIN <= value <= UINT64_MAX:
        raise Malformed(f"{what} is not a number from -2**63 to 2**64-1")


def _bytes(value: object, what: str) -> None:
    if type(value) is not bytes:
        raise Malformed(f"{what} is not a bin")


def _hash(value: object, what: str) -> None:
    if type(value) is not bytes or len(value) != HASH_SIZE:
        raise Malformed(f"{what} is not a bin of {HASH_SIZE} bytes")


def _page(value: object, what: str) -> None:
    if type(value) is not bytes or len(value) != PAGE_SIZE:
        raise Malformed(f"{what} is not a bin of {PAGE_SIZE} bytes")


def _text(value: object, what: str) -> None:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise Malformed(f"{what} is not a string of at most {MAX_TEXT} characters")


def _pages(value: object, what: str) -> None:
    if type(value) is not PageList:
        raise Malformed(f"{what} is not a list of [page index, hash]")


def _plain(value: object, what: str, depth: int = 1) -> None:
    """Nothing but nil, bool, numbers, text, bins, and lists and text-keyed maps of these, nested at most 16 deep."""
    if depth > MAX_DEPTH:
        raise Malformed(f"{what} is nested more than {MAX_DEPTH} deep")
    if type(value) is dict:
        for key, inner in value.items():
            if type(key) is not str:
                raise Malformed(f"{what} has a key that is not text")
            if type(inner) not in _SCALARS:
                _plain(inner, what, depth + 1)
    elif type(value) is list:
        for inner in value:
            if type(inner) not in _SCALARS:
                _plain(inner, what, depth + 1)
    elif type(value) not in _SCALARS:
        raise Malformed(f"{what} holds a {type(value).__name__}")


_SCALARS = frozenset((type(None), bool, int, float, str, bytes))


def _map(value: object, what: str) -> None:
    if type(value) is not dict:
        raise Malformed(f"{what} is not a map")
    _plain(value, what)


def _checker(wire_type: str) -> Callable[[object, str], None]:
    """The function that checks a value of one type of the layout table."""
    if wire_type.endswith("?"):
        required = _checker(wire_type[:-1])
        return lambda value, what: None if value is None else required(value, what)
    if wire_type.startswith("list:"):
        entry = _checker(f"map:{wire_type[5:]}")

        def listed(value: object, what: str) -> None:
            if type(value) is not list:
                raise Malformed(f"{what} is not an array")
            for inner in value:
                entry(inner, what)

        return listed
    if wire_type.startswith("map:"):
        keys = [(name, _checker(inner)) for name, inner in MAPS[wire_type[4:]].items()]

        def keyed(value: object, what: str) -> None:
            _map(value, what)
            assert type(value) is dict
            for name, inner in keys:
                if name not in value:
                    raise Malformed(f"{what} lacks {name}")
                inner(value[name], f"{what}.{name}")

        return keyed
    return {
        "uint": _uint,
        "int": _int,
        "bytes": _bytes,
        "hash": _hash,
        "page": _page,
        "text": _text,
        "pages": _pages,
        "map": _map,
    }[wire_type]


_CHECKS = {
    kind: tuple((f"{kind}.{name}" if name != kind else kind, _checker(wire_type)) for name, wire_type in table)
    for kind, table in OBJECTS.items()
}


_PARENT = _checker("map:parent")
_BOOT = _checker("map:boot")
_DRIVES = _checker("list:drive")


def check(obj: Any) -> str:
    """The kind of one unpacked object. Raises Malformed unless it is as the layout table says.

    Looks at one object alone: its fields, a header's version and guest hash, a page's hash.
    """
    kind = obj[0] if type(obj) is list and obj else None
    if kind == "console" and _is_console(obj):
        return "console"
    fields = _CHECKS.get(kind) if type(kind) is str else None
    if type(kind) is not str or fields is None:
        what = f"of unknown kind {kind[:40]!r}" if type(kind) is str else "without a kind"
        raise Malformed(f"an object {what}")
    if kind == "header":
        _check_version(obj)
    if len(obj) != len(fields) + 1:
        raise Malformed(f"an object of kind {kind} has {len(fields)} fields, not {len(obj) - 1}")
    for (what, checker), value in zip(fields, obj[1:], strict=True):
        checker(value, what)
    if kind == "page" and blake3_of(obj[2]) != obj[1]:
        raise Malformed(f"the content of page {obj[1].hex()[:16]}… does not have that hash")
    if kind == "header":
        _check_header(obj[1])
    return kind


def check_records(records: Iterable[list[Any]]) -> None:
    """As `check` for each of many events and outputs: no more than a look at those of which there are most."""
    for record in records:
        if len(record) == 3 and record[0] == "console":
            _, at, data = record
            if type(at) is int and at >= 0 and type(data) is bytes:
                continue
        elif len(record) == 5 and record[0] == "written":
            _, at, drive, sector, count = record
            numbers = type(at) is int is type(drive) and type(sector) is int is type(count)
            if numbers and at >= 0 and drive >= 0 and sector >= 0 and count >= 0:  # msgpack has none that are too large
                continue
        check(record)


def is_page(hash_: bytes, content: object) -> bool:
    """Whether `content` is that of the page with this hash."""
    return type(content) is bytes and len(content) == PAGE_SIZE and blake3_of(content) == hash_


def _is_console(obj: list[Any]) -> bool:
    """Whether a console output is as the table says: a quick look, since there may be one for each byte."""
    return len(obj) == 3 and type(obj[1]) is int and 0 <= obj[1] <= UINT64_MAX and type(obj[2]) is bytes


def _check_version(obj: list[Any]) -> None:
    """The part of the header that every version of the format keeps: kind, format and version."""
    header = obj[1] if len(obj) > 1 else None
    if type(header) is not dict or header.get("format") != FORMAT:
        raise Malformed("the header does not say that this is a vmrec trace")
    version: Any = header.get("version")
    _uint(version, "header.version")
    if version > FORMAT_VERSION:
        raise TooNew(
            f"the trace is from a newer vmrec: format version {version}, this vmrec knows {FORMAT_VERSION}; "
            f"upgrade vmrec to read it"
        )
    if version < 1:
        raise Malformed(f"there is no format version {version}")


def _check_header(header: Mapping[str, Any]) -> None:
    """The rules for a header map beyond the types of its fields. Raises Malformed."""
    guest = header["guest"]
    if header["capture"] not in CAPTURES:
        raise Malformed(f"header.capture is {header['capture'][:40]!r}, not one of {', '.join(CAPTURES)}")
    if header["version"] == FORK_VERSION and "parent" not in header:
        raise Malformed("header lacks parent")
    if header["version"] > FORK_VERSION:
        if "boot" in header:
            _BOOT(header["boot"], "header.boot")
        if "drives" in header:
            _DRIVES(header["drives"], "header.drives")
    if header["version"] > PLAIN_VERSION and "parent" in header:
        _PARENT(header["parent"], "header.parent")
        if header["parent"]["included"] > 1:
            raise Malformed("header.parent.included is neither 0 nor 1")
    if blake3_of(guest["elf"]) != guest["hash"]:
        raise Malformed("the guest in the header does not have the hash that the header gives for it")


# -------------------------------------------------------------------------------------------------------- sequence


class Order:
    """The rules on the sequence of objects: positions never go back, the header is first, the end last.

    Rows are a sequence of their own, because they are staged and may be written after an output that is younger.
    """

    def __init__(self, frame: int = 0, covered: int = 0) -> None:
        """`frame` is the first that will be looked at, `covered` the `last` of the link before it."""
        self._frame = frame
        self._first = self._last = self._position = covered
        self._rows = 0
        self._objects = 0
        self._over = ""

    def enter(self, frame: int, first: int, last: int) -> None:
        """The objects that follow are from this frame, whose link gives these positions."""
        self._position = max(self._position, self._last)
        self._frame, self._first, self._last = frame, first, last
        self._objects = 0

    def check(self, obj: list[Any]) -> None:
        """Raises Malformed if `obj` may not come next; it has passed `check`."""
        kind = obj[0]
        self._objects += 1
        if (kind == "header") != (self._frame == 0) or (kind == "header" and self._objects > 1):
            raise Malformed(f"an object of kind {kind} in frame {self._frame}; the header is alone in frame 0")
        if self._over and not (kind == "index" and self._over == "end"):
            raise Malformed(f"an object of kind {kind} after the {self._over}")
        if kind == "index" and self._objects > 1:
            raise Malformed("the index shares its frame with other objects")
        if kind in ("header", "page"):
            return
        first = obj[1]
        last = obj[2] if kind == "rows" else first
        if not self._first <= first <= last <= self._last:
            raise Malformed(
                f"an object of kind {kind} for {first} to {last} in a frame for {self._first} to {self._last}"
            )
        if kind == "rows":
            if first < self._rows:
                raise Malformed(f"rows from {first} on after rows up to {self._rows}")
            self._rows = last
            return
        if first < self._position:
            raise Malformed(f"an object of kind {kind} at {first}, but everything before {self._position} was written")
        self._position = first
        if kind in ("end", "index"):
            self._over = kind


# ----------------------------------------------------------------------------------------------------------- index


@dataclass(frozen=True, slots=True, order=True)
class DigestMark:
    """A digest: at `position`, in frame `frame`, of `value` (32 bytes)."""

    position: int
    frame: int
    value: bytes


@dataclass(frozen=True, slots=True, order=True)
class CheckpointMark:
    """A checkpoint: at `position`, in frame `frame`."""

    position: int
    frame: int


#: Kinds that the index notes.
INDEXED_KINDS = frozenset(("digest", "checkpoint", "page", "end"))

_DIGEST = struct.Struct(f"<QI{HASH_SIZE}s")
_CHECKPOINT = struct.Struct("<QI")
_PAGE = struct.Struct("<QI")
#: So often the stored table of pages is gone through, which takes no more time than making a dict of it once.
SEARCHES = 32


class Index:
    """Where digests, checkpoints, page contents and the end are; built by `add`, or read from a closed trace."""

    def __init__(self) -> None:
        self.digests: list[DigestMark] = []
        self.checkpoints: list[CheckpointMark] = []
        self.contents: dict[bytes, int] = {}  # hash of a page → frame
        self.end: int | None = None
        self.whole: list[int] = []  # numbers of the checkpoints that name every page changed since reset
        self._changed: set[int] = set()
        self._prefixes = b""
        self._by_prefix: dict[int, int] | None = None
        self._searches = 0

    def add(self, frame: int, obj: list[Any]) -> None:
        """Notes one object, which has passed `check`. Raises Malformed if there are too many of its kind."""
        kind = obj[0]
        if kind == "digest":
            self.digests.append(DigestMark(obj[1], frame, obj[2]["value"]))
            if len(self.digests) > MAX_MARKS:
                raise Malformed(f"more than {MAX_MARKS} digests")
        elif kind == "checkpoint":
            if self.checkpoints and self.checkpoints[-1].position >= obj[1]:
                raise Malformed(f"two checkpoints at {obj[1]}")
            self.checkpoints.append(CheckpointMark(obj[1], frame))
            named = {page for page, _ in obj[3]}
            self._changed |= named
            if len(named) == len(self._changed):
                self.whole.append(len(self.checkpoints) - 1)
            if len(self.checkpoints) > MAX_MARKS:
                raise Malformed(f"more than {MAX_MARKS} checkpoints")
        elif kind == "page":
            self.contents.setdefault(obj[1], frame)
            if len(self.contents) > MAX_CONTENTS:
                raise Malformed(f"more than {MAX_CONTENTS} page contents")
        elif kind == "end":
            self.end = frame

    def forget(self, frame: int) -> None:
        """Drops what was noted of frame `frame` and later ones."""
        self.digests = [mark for mark in self.digests if mark.frame < frame]
        self.checkpoints = [mark for mark in self.checkpoints if mark.frame < frame]
        self.whole = [number for number in self.whole if number < len(self.checkpoints)]
        self.contents = {hash_: at for hash_, at in self.contents.items() if at < frame}
        self.end = None if self.end is not None and self.end >= frame else self.end

    def whole_before(self, number: int) -> int:
        """The last checkpoint, not behind checkpoint `number`, that names every changed page; else the first, 0."""
        place = bisect_right(self.whole, number)
        return self.whole[place - 1] if place else 0

    def frame_of(self, page_hash: bytes) -> int | None:
        """The frame that should hold a page's content; look at the full hash there, the index has only 8 bytes."""
        frame = self.contents.get(page_hash)
        if frame is None and self._prefixes:
            prefix = page_hash[:PAGE_PREFIX]
            if self._by_prefix is None and self._searches < SEARCHES:
                self._searches += 1
                return self._search(prefix)
            if self._by_prefix is None:
                self._by_prefix = dict(_PAGE.iter_unpack(self._prefixes))
            frame = self._by_prefix.get(int.from_bytes(prefix, "little"))
        return frame

    def _search(self, prefix: bytes) -> int | None:
        """As `frame_of`, by going through the stored table."""
        at = self._prefixes.find(prefix)
        while at % _PAGE.size and at >= 0:
            at = self._prefixes.find(prefix, at + 1)
        return None if at < 0 else int(_PAGE.unpack_from(self._prefixes, at)[1])

    def to_object(self, position: int) -> list[Any] | None:
        """The index as an object of the trace, or None if it would not fit in a frame."""
        if len(self.contents) * _PAGE.size > MAX_FRAME_RAW // 2:
            return None
        pages = [hash_[:PAGE_PREFIX] + frame.to_bytes(4, "little") for hash_, frame in self.contents.items()]
        return [
            "index",
            position,
            {
                "digests": b"".join(_DIGEST.pack(mark.position, mark.frame, mark.value) for mark in self.digests),
                "checkpoints": b"".join(_CHECKPOINT.pack(mark.position, mark.frame) for mark in self.checkpoints),
                "pages": b"".join(pages),
                "end": self.end,
                "whole": struct.pack(f"<{len(self.whole)}I", *self.whole),
            },
        ]

    @classmethod
    def from_object(cls, obj: list[Any], frames: int) -> Index:
        """The index that an object of kind index holds, in a trace of `frames` frames. Raises Malformed."""
        digests, checkpoints, pages, end = (obj[2][key] for key in MAPS["index"])
        if len(digests) % _DIGEST.size or len(checkpoints) % _CHECKPOINT.size or len(pages) % _PAGE.size:
            raise Malformed("a table of the index has a size that is no multiple of its entries'")
        if len(digests) > MAX_MARKS * _DIGEST.size or len(checkpoints) > MAX_MARKS * _CHECKPOINT.size:
            raise Malformed("a table of the index is too long")
        index = cls()
        index.digests = [DigestMark(*entry) for entry in _DIGEST.iter_unpack(digests)]
        index.checkpoints = [CheckpointMark(*entry) for entry in _CHECKPOINT.iter_unpack(checkpoints)]
        for marks in (index.digests, index.checkpoints):
            positions = [mark.position for mark in marks]
            if positions != sorted(positions) or any(mark.frame >= frames for mark in marks):
                raise Malformed("a table of the index is out of order or names a frame that is not there")
        if end is not None and end >= frames:
            raise Malformed("the index names a frame that is not there")
        index.whole = _whole(obj[2].get("whole", b""), len(index.checkpoints))
        index._prefixes = pages
        index.end = end
        return index

    def same_as(self, stored: list[Any]) -> bool:
        """Whether an object of kind index says what was found."""
        built = self.to_object(stored[1])
        return built is None or all(stored[2].get(key, value) == value for key, value in built[2].items())


def _whole(table: object, checkpoints: int) -> list[int]:
    """The index's table of whole checkpoints. Raises Malformed."""
    if type(table) is not bytes or len(table) % 4 or len(table) // 4 > checkpoints:
        raise Malformed("the table of whole checkpoints in the index has a size that cannot be")
    numbers = list(struct.unpack(f"<{len(table) // 4}I", table))
    if any(a >= b for a, b in pairwise([*numbers, checkpoints])):
        raise Malformed("the table of whole checkpoints in the index is out of order")
    return numbers
