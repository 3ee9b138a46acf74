# SPDX-License-Identifier: GPL-2.0-or-later
"""Every exception that vmrec raises, and whose fault each one is.

    VmrecError
    ├── UsageError     the user: a wrong option, path or position
    │   └── PositionError   a position, event or hit that the recording does not have; an IndexError too
    ├── GuestError     the guest image: not an ELF, wrong machine, segment outside RAM
    ├── TraceError     the trace file: damaged, truncated, from another version
    ├── SetupError     the installation: extension not built, wrong engine version
    └── MachineError   vmrec itself or the engine below it: please report

A replay that differs from its recording is not an exception but a result: `vmrec.replay.divergence.Divergence`.

A message says what happened, where, why, and what to do next. The command line prints it as one paragraph and
exits with status 2; a traceback is for our own mistakes only.
"""

from __future__ import annotations

import os

__all__ = [
    "GuestError", "MachineError", "PositionError", "SetupError", "TraceError", "UsageError", "VmrecError",
]  # fmt: skip


class VmrecError(Exception):
    """Base of all errors raised on purpose by vmrec."""


class UsageError(VmrecError):
    """The request cannot be carried out as given; the message names the option or path and the remedy."""


class PositionError(UsageError, IndexError):
    """The recording has no such position, event or hit; the message says which ones there are.

    It is an IndexError as well, so that a run behaves as sequences do.
    """


class GuestError(VmrecError):
    """The guest image cannot be loaded.

    `path` is the file as the user named it, `reason` a sentence without the path.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")


class TraceError(VmrecError):
    """The trace cannot be read, or is not what it claims to be.

    `path` is the file, `offset` the byte offset in the file where the trouble starts (None if it has no place),
    `reason` a sentence without either.
    """

    def __init__(self, path: str | os.PathLike[str], offset: int | None, reason: str) -> None:
        self.path = os.fspath(path)
        self.offset = offset
        self.reason = reason
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{self.path}{where}: {reason}")


class SetupError(VmrecError):
    """vmrec is not installed completely; the message holds the line to type."""


class MachineError(VmrecError):
    """The machine reached a state that should not exist: a mistake in vmrec or in the engine."""
