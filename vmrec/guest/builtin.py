# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that come with vmrec, and what the argument GUEST of a command means."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from vmrec.errors import GuestError

__all__ = ["builtin_guest", "builtin_names", "kernel_file", "resolve_guest", "resolve_image"]

_HERE = Path(__file__).resolve()
#: In an installed wheel the guests lie beside this file, in a checkout in `guests/bin`.
_PLACES = (_HERE.parent / "bin", _HERE.parents[2] / "guests" / "bin")


def builtin_names() -> list[str]:
    """The names of all guests that come with vmrec, sorted."""
    return sorted(_builtins())


def builtin_guest(name: str) -> Path:
    """The ELF file of the guest that comes with vmrec under `name`, e.g. "race".

    Raises GuestError, with near names, if there is none.
    """
    found = _builtins()
    if name in found:
        return found[name]
    near = difflib.get_close_matches(name, found, n=3)
    if near:
        hint = f"Did you mean {' or '.join(near)}?"
    elif found:
        hint = f"Name an ELF file, or one of the guests that come with vmrec: {', '.join(sorted(found))}."
    else:
        hint = "Name an ELF file; this installation has no guests of its own."
    raise GuestError(name, f"there is no such file, and no guest of that name comes with vmrec. {hint}")


def resolve_guest(argument: str | os.PathLike[str]) -> Path:
    """The file that the argument GUEST means: an existing file, else a guest that comes with vmrec.

    Raises GuestError if it is neither.
    """
    path = Path(argument)
    name = os.fspath(argument)
    if path.is_file() or (path.exists() and name not in _builtins()):
        return path
    return builtin_guest(name)


def kernel_file(name: str) -> Path | None:
    """A file of the teaching kernel that comes with vmrec, e.g. "kernel.elf" or "kernel.img"; None if there is none."""
    for place in _PLACES:
        path = place / "kernel" / name
        if path.parent.is_dir():
            return path if Path(name).name == name and path.is_file() else None
    return None


def resolve_image(argument: str) -> str:
    """What the argument of --kernel, --drive or --symbols means: a file, else one of the teaching kernel.

    The argument itself if it is neither: whoever opens it will say so.
    """
    found = None if os.path.lexists(argument) else kernel_file(argument)
    return argument if found is None else str(found)


def _builtins() -> dict[str, Path]:
    for place in _PLACES:
        if place.is_dir():
            return {path.stem: path for path in place.glob("*.elf")}
    return {}
