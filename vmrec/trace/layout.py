# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace file looks like: its picture, its objects, its limits. Nothing here does anything.

    offset 0
    ┌──────────────────────────┬──────┬──────────────────────────┬──────┬─ ─ ─┬───────────┬──────┬────────────┐
    │ zstd frame 0             │ link │ zstd frame 1             │ link │     │ last frame│ link │ seek table │
    │ ["header", {…}]          │  0   │ ["input",n,…] ["rows",…] │  1   │     │ ["index"…]│      │            │
    └──────────────────────────┴──────┴──────────────────────────┴──────┴─ ─ ─┴───────────┴──────┴────────────┘
      └─ on disk before the guest starts      written as the run goes on ─┘     └─ only once the trace is closed

    frame       an ordinary zstd frame (checksum on, no dictionary) of whole msgpack objects
    link        a zstd skippable frame, so that every zstd tool passes over it:

                  u32 0x184D2A51 │ u32 size │ msgpack [version, frame, first, last, length, rows, hash]

                  frame        number of the frame before it, counted from 0
                  first, last  positions: no object of the frame lies outside them; whatever belongs before
                               `last` is in this frame or an earlier one (rows may still follow)
                  length       bytes of the frame on disk
                  rows         1 if the frame holds nothing but rows, so that others may pass over it; else 0
                  hash         blake3(previous hash ‖ the frame's bytes on disk ‖ msgpack of the six numbers as
                               one array); before frame 0 the previous hash is 32 zero bytes
    seek table  the table of zstd's seekable format, one entry per frame and one per link:

                  u32 0x184D2A5E │ u32 size │ (u32 bytes on disk, u32 bytes unpacked) … │ u32 entries │ u8 0 │
                  u32 0x8F92EAB1

A trace of version 3 is one of a machine of revision 2 or later, whatever else it is; its pages are those of RAM and
behind them the blocks (4096 bytes) of the drives in the header's machine, one drive after the other.

A trace whose header names a parent (`vmrec fork` made it: version 2, or 3) is read as if the parent's objects before
`position` stood in front of its own; its frame 0 has first = last = `position`, unless it holds these itself.

Numbers outside msgpack are little-endian. The hash of the last link is the *head*: it names the whole trace.
A trace without index and seek table is whole as far as it goes: its recorder is at work, or died.

Objects are msgpack arrays, the kind first; `OBJECTS` is the table of them, `MAPS` of the maps inside. Events and
outputs are defined in `vmrec.events` and only repeated from there. Bins of the index are packed numbers:

    digests      (u64 position, u32 frame, 32 bytes value)…      in order of position
    checkpoints  (u64 position, u32 frame)…                      in order of position
    pages        (first 8 bytes of the hash, u32 frame)…         where each page's content is
    whole        (u32 number)…                                   checkpoints, counted from 0, that name every page
                                                                 changed since reset; older traces lack it
"""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

from vmrec.events import EVENT_KINDS, OUTPUT_KINDS

__all__ = [
    "FORK_VERSION",
    "FORMAT",
    "FORMAT_VERSION",
    "LAYOUT_HASH",
    "MAPS",
    "OBJECTS",
    "PLAIN_VERSION",
    "RECORD_KINDS",
]

FORMAT = "vmrec"
#: Version of everything on this page. A trace of a version that was ever released stays readable; this one is frozen.
FORMAT_VERSION = 3
#: Version of a trace that is no fork, and of one that is, of a machine of revision 1: older readers know them. Whatever
#: machines came later made is of the newest version.
PLAIN_VERSION = 1
FORK_VERSION = 2
#: Freezes this page and the records of vmrec.events: `tests/test_layout.py` says what to do when it differs.
LAYOUT_HASH = "8686883fb201f0d6d402c4375337b5b2"

# --------------------------------------------------------------------------------------------------------- framing

ZSTD_MAGIC = 0xFD2FB528
LINK_MAGIC = 0x184D2A51
SEEK_MAGIC = 0x184D2A5E
SEEK_FOOTER_MAGIC = 0x8F92EAB1

LINK_VERSION = 1
LINK_FIELDS = ("version", "frame", "first", "last", "length", "rows", "hash")
HASH_SIZE = 32
NO_HASH = bytes(HASH_SIZE)  # what the chain starts from
PAGE_SIZE = 4096
PAGE_PREFIX = 8  # bytes of a page's hash that the index keeps

# ---------------------------------------------------------------------------------------------------------- limits
# A reader refuses what is beyond them, so that a hostile file costs bounded memory; a writer never gets there.

FRAME_TARGET = 1 << 20  # a frame is closed when it holds this many unpacked bytes
MAX_FRAME_RAW = 64 << 20  # unpacked bytes of one frame
MAX_FRAME_DISK = 65 << 20  # bytes of one frame on disk
MAX_LINK_PAYLOAD = 96
MAX_FRAMES = 1 << 24
MAX_GUEST = 63 << 20  # bytes of the embedded ELF
MAX_PLAIN = 2 << 20  # bytes of one object apart from bins and a checkpoint's page list
MAX_ITEMS = 4096  # entries of one array or map, apart from a checkpoint's page list
MAX_DEPTH = 16  # nesting inside one object
MAX_PAGES = 1 << 26  # pages of RAM and drives (256 GiB)
MAX_PAGE_LIST = 1 << 21  # pages that one checkpoint names
MAX_MARKS = 1 << 20  # digests, and checkpoints, in one trace
MAX_CONTENTS = 1 << 24  # page contents in one trace
MAX_TEXT = 4096  # characters of one string
MAX_LINEAGE = 64  # traces of which one is the parent of the next

# --------------------------------------------------------------------------------------------------------- objects
# Types: uint 0 … 2**64-1 · int -2**63 … 2**64-1 · bytes · hash (32 bytes) · page (4096 bytes) · text (UTF-8) ·
# map (text keys; none, bool, int, float, text, bytes, arrays and maps as values) · map:NAME (the keys of MAPS[NAME],
# and any others) · list:NAME (an array of these) · pages (array of [uint page index, hash]). A type that ends in "?"
# may also be nil.

_WIRE_TYPES = {int: "uint", bytes: "bytes", str: "text"}


def _record_fields(cls: type) -> tuple[tuple[str, str], ...]:
    """Names and wire types of one event or output, as `vmrec.events` defines it."""
    types = get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    return tuple((name, "hash" if name == "hash" else _WIRE_TYPES[types[name]]) for name in names)


#: Kinds that `vmrec.events` defines: what went in and what came out.
RECORD_KINDS = frozenset((*EVENT_KINDS, *OUTPUT_KINDS))

#: kind → its fields after the kind, as (name, type).
OBJECTS: dict[str, tuple[tuple[str, str], ...]] = {
    # First object of the file, alone in frame 0: what is needed to build the machine again.
    "header": (("header", "map:header"),),
    **{kind: _record_fields(cls) for kind, cls in (*EVENT_KINDS.items(), *OUTPUT_KINDS.items())},
    # State and outputs so far, hashed, at positions of the grid and at the end.
    "digest": (("position", "uint"), ("digest", "map:digest")),
    # Content of a page of RAM or a drive; each content once, before the first checkpoint or disk event that needs it.
    "page": (("hash", "hash"), ("content", "page")),
    # Whole state at a position of the grid, and the pages that changed since the checkpoint before (or since reset).
    "checkpoint": (("position", "uint"), ("state", "map"), ("pages", "pages")),
    # Captured instructions and accesses of the steps first … last-1; vmrec.machine knows the columns.
    "rows": (("first", "uint"), ("last", "uint"), ("columns", "map")),
    # How the recording ended. Only an index may follow.
    "end": (("position", "uint"), ("end", "map:end")),
    # Where digests, checkpoints, pages and the end are. Last object of a closed trace, alone in its frame.
    "index": (("position", "uint"), ("index", "map:index")),
}

#: Keys that a map must have; a reader passes over others.
MAPS: dict[str, dict[str, str]] = {
    "header": {
        "format": "text",
        "version": "uint",
        "machine": "map",
        "guest": "map:guest",
        "capture": "text",  # inputs or full
        "seed": "uint?",
        "chaos": "uint?",
        "recorder": "text",
        "created": "text",
    },
    # From version 2 on the header of a fork holds "parent" as well: the trace that this one goes on from. From version
    # 3 on a header may hold "drives", an array of "drive": for people, where the content of each drive came from.
    "parent": {
        "hash": "hash",  # of the link of `frame`: names the parent's history up to `position`
        "frame": "uint",  # frame of the parent, the last that is needed
        "position": "uint",  # steps done when this trace begins
        "name": "text",  # where the parent was, seen from this trace's folder: a hint
        "pulled": "uint",  # bytes of the entropy stream of `seed` that were used before `position`
        "included": "uint",  # 1 if this trace holds the parent's events and checkpoints itself, else 0
    },
    "drive": {
        "name": "text",  # of the image's file, without its folder
        "size": "uint",  # bytes of the file
        "modified": "uint",  # when it was, ns since 1970
    },
    "guest": {"name": "text", "elf": "bytes", "hash": "hash"},
    # From version 3 on a header may hold "boot": the guest is made of images, the "elf" of "guest" is there for its
    # symbols only (empty if there is none), and the checkpoint at position 0 says what is in RAM at reset.
    "boot": {
        "entry": "uint",  # where the kernel begins, 0 if there is none
        "tree": "uint",  # where the device tree is
        "rom": "bytes",  # what the boot ROM begins with
        "images": "list:image",
        "symbols": "list:symbols",  # more ELF files to take names from
    },
    "image": {"kind": "text", "name": "text", "address": "uint", "size": "uint", "hash": "hash"},
    "symbols": {"name": "text", "elf": "bytes"},
    "digest": {"value": "hash", "registers": "map", "ram": "hash", "outputs": "hash", "devices": "hash"},
    "end": {"reason": "text", "exit_code": "int?", "icount": "uint?"},
    "index": {"digests": "bytes", "checkpoints": "bytes", "pages": "bytes", "end": "uint?"},
}

CAPTURES = ("inputs", "full")
