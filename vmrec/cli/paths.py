# SPDX-License-Identifier: GPL-2.0-or-later
"""Where recordings are: which file a verb means, and what a new one is called.

Recordings live in the current directory, or in $VMREC_DIR.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from vmrec.errors import UsageError

__all__ = [
    "SUFFIX",
    "complete_trace",
    "latest_trace",
    "new_trace_paths",
    "shown",
    "trace_directory",
    "trace_path",
    "traces",
]

SUFFIX = ".vmrec"


def trace_directory() -> Path:
    """Where recordings are looked for and made: $VMREC_DIR if it is set, else the current directory."""
    return Path(os.environ.get("VMREC_DIR") or ".")


def traces(directory: Path) -> list[Path]:
    """The recordings in `directory`, oldest first. Raises UsageError if it cannot be read."""
    found = []
    try:
        for entry in os.scandir(directory):
            if entry.name.endswith(SUFFIX) and entry.is_file():
                found.append((entry.stat().st_mtime_ns, entry.name))
    except OSError as error:
        raise UsageError(f"{directory}: cannot be read: {error.strerror}. Name a directory with recordings.") from None
    return [directory / name for _, name in sorted(found, key=lambda item: (item[0], _natural(item[1])))]


def latest_trace() -> Path:
    """The newest recording. Raises UsageError if there is none."""
    directory = trace_directory()
    found = traces(directory)
    if not found:
        raise UsageError(
            f"there is no recording (*{SUFFIX}) in {shown(directory)}. "
            "Make one with `vmrec record GUEST`, or name one."
        )
    return found[-1]


def trace_path(argument: str | os.PathLike[str] | None) -> Path:
    """The recording that a verb's argument means: the file, its name without `.vmrec`, or the latest if it is None.

    Raises UsageError, with near names, if there is no such file.
    """
    if argument is None:
        return latest_trace()
    path = Path(argument)
    for candidate in (path, trace_directory() / path):
        for name in (candidate, Path(f"{candidate}{SUFFIX}")):
            if name.is_file():
                return name
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a recording in it.")
    directory = path.parent if path.parent != Path(".") else trace_directory()
    known = [trace.stem for trace in traces(directory)] if directory.is_dir() else []
    near = [name + SUFFIX for name in difflib.get_close_matches(path.name.removesuffix(SUFFIX), known, n=3)]
    hint = f"Did you mean {' or '.join(near)}?" if near else "`vmrec ls` lists recordings."
    raise UsageError(f"{path}: there is no such recording. {hint}")


def new_trace_paths(guest: str) -> Iterator[Path]:
    """Names for a new recording of `guest`, e.g. race-3.vmrec, all free a moment ago, best first.

    The caller creates the file exclusively, and takes the next name if somebody was faster.
    """
    directory = trace_directory()
    pattern = re.compile(re.escape(guest) + r"-([0-9]+)" + re.escape(SUFFIX))
    names = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    used = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    for number in itertools.count(max(used, default=0) + 1):
        yield directory / f"{guest}-{number}{SUFFIX}"


def complete_trace(incomplete: str) -> list[str]:
    """Recordings that a shell completes `incomplete` to."""
    path = Path(incomplete or ".")
    directory = path if incomplete.endswith("/") or not incomplete else path.parent
    if not directory.is_dir():
        return []
    head = incomplete[: incomplete.rfind("/") + 1]
    return [head + trace.name for trace in traces(directory) if (head + trace.name).startswith(incomplete)]


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts race-10 after race-9."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"([0-9]+)", name)]


def shown(directory: Path) -> str:
    """The directory, as a sentence names it."""
    return "the current directory" if directory == Path(".") else str(directory)
