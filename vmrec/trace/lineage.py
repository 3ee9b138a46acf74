# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the parents of a fork are, and whether a file is the one.

    header.parent: hash, frame, position, name ──▶ beside the fork, as named
                                                   in the places of places.py, as named
                                                   any *.vmrec there whose frame has that hash

A file is never taken for its name: the hash of the link of the named frame must be that of the header, and the frame
must have it. Forks of forks begin later and later, so that no trace can be among its own ancestors.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from vmrec.errors import TraceError, UsageError
from vmrec.trace.layout import MAX_LINEAGE
from vmrec.trace.places import places
from vmrec.trace.tracefile import TraceFile, inherits

__all__ = ["ancestors"]

#: Files of a folder that are looked at in search of a parent.
MOST_FILES = 4096
SUFFIX = ".vmrec"


def ancestors(own: TraceFile) -> list[tuple[TraceFile, int, int]]:
    """(file, last frame, position) of the traces that `own` continues, oldest first; the files are open.

    `position` is where the history leaves the file. Raises TraceError if one is not to be found, or does not fit.
    """
    found: list[tuple[TraceFile, int, int]] = []
    try:
        child = own
        while inherits(child.header):
            if len(found) == MAX_LINEAGE:
                raise TraceError(own.path, 0, f"has more than {MAX_LINEAGE} ancestors; fork with --self-contained")
            parent = child.header["parent"]
            file = _find(child, parent)
            found.insert(0, (file, parent["frame"], parent["position"]))
            _check(child, file, parent)
            child = file
    except BaseException:
        for file, _, _ in found:
            file.close()
        raise
    return found


def _check(child: TraceFile, file: TraceFile, parent: Mapping[str, Any]) -> None:
    """Raises TraceError if the child cannot be a fork of `file` at that position."""
    begin = file.header["parent"]["position"] if inherits(file.header) else -1
    reach = file.frames[parent["frame"]].last
    if not begin < parent["position"] <= reach:
        raise TraceError(
            child.path,
            0,
            f"says that it was forked at position {parent['position']} of {file.path}, which goes from "
            f"{max(begin, 0)} to {reach} in the frames that it names",
        )
    for name in ("machine", "guest"):
        one, other = (header[name] for header in (child.header, file.header))
        same = one["hash"] == other["hash"] if name == "guest" else one == other
        if not same:
            raise TraceError(child.path, 0, f"is of another {name} than its parent {file.path}")


def _find(child: TraceFile, parent: Mapping[str, Any]) -> TraceFile:
    """The parent's file, open. Raises TraceError with all that is known about it."""
    tried = set()
    for path in _candidates(child, parent):
        real = os.path.realpath(path)
        if real not in tried:
            tried.add(real)
            file = _opened(path, parent)
            if file is not None:
                return file
    raise TraceError(
        child.path,
        None,
        f"is a fork, and its parent is not to be found: {parent['name']!r} up to position {parent['position']}, whose "
        f"frame {parent['frame']} has the hash {parent['hash'].hex()}. Put that recording beside this one or into "
        f"$VMREC_DIR, or name it with --parent",
    )


def _candidates(child: TraceFile, parent: Mapping[str, Any]) -> Iterator[str]:
    """Files that may be the parent, the likeliest first."""
    folder = os.path.dirname(child.path)
    folders = [folder, *(place for place in places() if os.path.isdir(place))]
    yield from (place for place in places() if os.path.isfile(place))
    for place in folders:
        for name in (parent["name"], os.path.basename(parent["name"])):
            if "\0" not in name and os.path.isfile(os.path.join(place, name)):
                yield os.path.join(place, name)
    for place in folders:
        with contextlib.suppress(OSError), os.scandir(place or ".") as entries:
            names = (entry.name for entry in islice(entries, MOST_FILES))
            yield from sorted(os.path.join(place, name) for name in names if name.endswith(SUFFIX))


def _opened(path: str, parent: Mapping[str, Any]) -> TraceFile | None:
    """The file at `path` if it is the parent; a damaged or unreadable one is none."""
    try:
        file = TraceFile(path)
    except (TraceError, UsageError):
        return None
    try:
        if parent["frame"] < len(file.frames) and file.frames[parent["frame"]].link == parent["hash"]:
            file.frame_records(parent["frame"])  # reads the frame, which the hash covers
            return file
    except TraceError:
        pass
    file.close()
    return None
