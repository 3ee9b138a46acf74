# SPDX-License-Identifier: GPL-2.0-or-later
"""Divergence: what a replay found that is not as recorded. A result, not an exception.

Outputs, pulled events and captured rows are exact at once: `position` is the step. A digest only says that between
`last_good` and `position` something went differently; `vmrec.replay.explain` looks closer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Divergence", "Writer"]


@dataclass(frozen=True, slots=True)
class Writer:
    """The replay's last step before the divergence that wrote a differing register or page: `what` names it."""

    what: str
    position: int
    pc: int
    text: str


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first position at which the replay and its trace differ.

    `kind`: output, event, digest, row or end. `position`: the exact step, for a digest the first bad observation.
    `last_good`: the last position known to agree. `expected` (the trace's) and `actual` (the replay's) are short plain
    values; `message` says it in a sentence and `next_step` what to do. The rest is filled in by
    `vmrec.replay.explain.explain`: `registers` by name → (expected, actual); `pages` that differ by address;
    `host_to_blame` (two replays of the stretch disagree with each other); `writers`.
    """

    kind: str
    position: int
    last_good: int
    expected: Any
    actual: Any
    message: str
    pc: int | None = None
    registers: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    pages: tuple[int, ...] = ()
    host_to_blame: bool | None = None
    writers: tuple[Writer, ...] = ()
    next_step: str = ""
