# SPDX-License-Identifier: GPL-2.0-or-later
"""Divergence: what a replay found that is not as recorded. A result, not an exception.

Outputs, pulled events and captured rows are exact at once: `position` is the step. A digest only says that between
`last_good` and `position` something went differently; `vmrec.replay.explain` looks closer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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
    `vmrec.replay.explain.explain`:

    registers, devices   name → (expected, actual) of those that differ; devices by record and field, "uart.ier"
    parts                which parts of a digest differ: registers, ram, devices, outputs
    pages, pages_at      addresses of the pages that differ at the checkpoint at `pages_at` (None: there is none)
    blocks               (drive, block of 4096 bytes) that differ there
    host_to_blame        whether two replays of the stretch disagree with each other, the first time at `parted_at`
    writers              the replay's last writers of what differs
    last_event           the last event that was given before, as it is on the wire
    """

    kind: str
    position: int
    last_good: int
    expected: Any
    actual: Any
    message: str
    pc: int | None = None
    registers: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    devices: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    pages: tuple[int, ...] = ()
    pages_at: int | None = None
    blocks: tuple[tuple[int, int], ...] = ()
    host_to_blame: bool | None = None
    parted_at: int | None = None
    writers: tuple[Writer, ...] = ()
    last_event: list[Any] | None = None
    next_step: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The divergence as plain values, for JSON (bytes as they are)."""
        return {
            **asdict(self),
            "registers": _pairs(self.registers),
            "devices": _pairs(self.devices),
        }


def _pairs(found: dict[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {"expected": expected, "actual": actual} for name, (expected, actual) in found.items()}
