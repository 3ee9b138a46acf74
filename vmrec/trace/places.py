# SPDX-License-Identifier: GPL-2.0-or-later
"""Where parents of forks are looked for beside the fork's own folder: set by the command line, read by lineage.py.

It is a file of its own because it loads nothing: every start of vmrec comes by here.
"""

from __future__ import annotations

import os

__all__ = ["begin_with", "look_in", "places"]

_places: list[str] = []


def begin_with(folder: str | os.PathLike[str] | None) -> None:
    """Forgets all places but this folder, if there is one."""
    _places[:] = [os.fspath(folder)] if folder else []


def look_in(place: str | os.PathLike[str]) -> None:
    """From here on, parents are looked for in this folder too, or in this file, before all others."""
    _places.insert(0, os.fspath(place))


def places() -> tuple[str, ...]:
    """All of them."""
    return tuple(_places)
