# SPDX-License-Identifier: GPL-2.0-or-later
"""What the verbs that replay share: replaying with progress, and what came out of it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from vmrec.cli.output import note, plural, progress, quantity
from vmrec.guest.symbols import Symbols
from vmrec.replay.divergence import Divergence
from vmrec.replay.explain import explain, render
from vmrec.replay.player import Player, trace_guest
from vmrec.trace.reader import TraceReader

__all__ = ["agreement", "divergence_text", "explained", "play", "replayed"]

#: A stretch is as many steps as took about this long: between stretches progress is shown and Ctrl-C seen.
STRETCH_SECONDS = 0.2
STRETCH_FIRST = 1 << 20
STRETCH_MAX = 1 << 30


def play(player: Player, to: int | None = None, *, quiet: bool = False) -> Divergence | None:
    """Replays to position `to`, or to the end and compares how it ended; returns the divergence met, if any.

    Shows progress on stderr if somebody watches there, unless `quiet`. Where the stretches between are cut makes no
    difference to the replay.
    """
    target = player.last_position if to is None else to
    machine = player.machine
    stretch = STRETCH_FIRST
    watched = contextlib.nullcontext() if quiet else progress(f"replaying {player.guest.name}", target)
    with watched as line:
        while machine.position < target and not machine.stopped:
            begin, first = time.perf_counter(), machine.position
            if player.run_to(min(first + stretch, target)) is not None:
                return player.divergence
            seconds = max(time.perf_counter() - begin, 1e-6)
            stretch = max(1, min(int((machine.position - first) * STRETCH_SECONDS / seconds), STRETCH_MAX))
            if line is not None:
                line.update(machine.position, f"{quantity(machine.position)} steps")
    return player.run() if to is None else None


def replayed(player: Player, seconds: float) -> dict[str, Any]:
    """What a replay has done so far, for JSON."""
    position = player.machine.position
    return {
        "position": position,
        "icount": player.machine.icount,
        "pc": player.machine.pc,
        "same": player.divergence is None,
        "compared": player.compared,
        "rows_compared": player.rows_checked,
        "run_seconds": seconds,
        "steps_per_second": position / max(seconds, 1e-9),
    }


def agreement(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for people: what was replayed and compared, all of which is the same."""
    compared = plural(found["compared"], "output") + " and digests"
    if found["rows_compared"]:
        compared = f"{plural(found['rows_compared'], 'row')}, {compared}"
    speed = f"{found['steps_per_second'] / 1e6:.3g} M steps/s in {found['run_seconds']:.3g} s"
    return [
        ("replayed", f"{plural(found['position'], 'step')}, all as recorded"),
        ("compared", compared),
        ("speed", speed),
    ]


def explained(trace: TraceReader, divergence: Divergence) -> Divergence:
    """The divergence, with what further replays find out about it."""
    note(f"The replay differs at position {quantity(divergence.position)}; looking closer …")
    return explain(trace, divergence)


def divergence_text(trace: TraceReader, divergence: Divergence) -> str:
    """The divergence for people."""
    return render(divergence, Symbols(*trace_guest(trace).elfs))
