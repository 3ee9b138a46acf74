# SPDX-License-Identifier: GPL-2.0-or-later
"""Two replays side by side, to the first step that they do differently.

    chunk by chunk at full speed      registers and inflow compared at the ends of chunks   (machine/watch.py)
    inside the first chunk that ends  the same again, in small chunks
    differently: from its start       step by step, rows and register writes compared       (replay/rows.py)

Registers and inflow say all only if RAM was equal at the start. Where it was not (two different guests), rows are
captured and compared as well; that is some ten times slower.

Two replays that differ may still execute the same instructions for long: `part_ways` finds where that ends. There only
rows are compared, without what is loaded and stored.

A player cannot go back, so whoever wants to look closer opens another one, from the checkpoint before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

from vmrec.machine.rows import RowDecoder
from vmrec.machine.watch import fingerprint, forget_inflow, registers
from vmrec.replay.divergence import Divergence
from vmrec.replay.player import Player
from vmrec.replay.rows import CHUNK, FRESH, Step, walk
from vmrec.trace.codec import unpack_stream

__all__ = ["Opener", "Parting", "part", "part_ways", "same_step", "same_way"]

#: Gives a fresh player that stands at a position.
Opener = Callable[[int], Player]
#: A chunk of this many steps is walked, one of up to that many is run before it is looked at.
WALKED = CHUNK
LONGEST = 1 << 22
#: Columns of captured rows that say nothing about the way that a machine went.
_ACCESSES = ("accesses", "addresses", "values")


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two replays part.

    `position` is that of the first step that differs. `a` and `b` are that step, None for a replay that did not make
    it: it stopped, or met `divergence_a` or `divergence_b`. `registers`: name → (a, b) of those that differ after it.
    `before` are the last steps that both did, `after_a` and `after_b` what each did next.
    """

    position: int
    a: Step | None
    b: Step | None
    divergence_a: Divergence | None
    divergence_b: Divergence | None
    registers: dict[str, tuple[int, int]]
    before: tuple[Step, ...]
    after_a: tuple[Step, ...]
    after_b: tuple[Step, ...]


def same_step(a: Step, b: Step) -> bool:
    """Whether two steps did the same: row, interrupt, register writes but for interrupts that only became pending."""
    if a.row != b.row or a.interrupt != b.interrupt:
        return False
    if a.writes == b.writes:
        return True
    return all(
        a.writes.get(name) == b.writes.get(name) for name in (*a.writes, *b.writes) if name != "mip"
    )


def same_way(a: Step, b: Step) -> bool:
    """Whether two steps are of the same instruction, with the same interrupt before it, and trap both or neither."""
    return a.interrupt == b.interrupt and (a.row.pc, a.row.code, a.row.trap) == (b.row.pc, b.row.code, b.row.trap)


def part(
    open_a: Opener,
    open_b: Opener,
    first: int,
    last: int,
    *,
    same_ram: bool = True,
    context: int = 0,
    progress: Callable[[int], None] = lambda position: None,
) -> Parting | None:
    """The first of the steps first … last-1 that two replays do differently, None if they are all the same.

    Registers must be equal at `first`, and RAM too if `same_ram`. `context` is how many steps before and after are
    kept. `progress` is told positions. Raises what the openers raise.
    """
    at, longest = first, LONGEST if same_ram else CHUNK
    while at < last:
        with _Pair(open_a, open_b, at, same_ram) as pair:
            found = pair.run(last, min(WALKED, longest), longest, progress)
        if found is not None and found[1] - found[0] > WALKED:
            with _Pair(open_a, open_b, found[0], same_ram) as pair:
                found = pair.run(found[1], WALKED, WALKED, progress)
        if found is None:
            return None
        parting = _walk(open_a, open_b, *found, context)
        if parting is not None:
            return parting
        at = found[1]  # captured columns that differ in form only
    return None


class _Pair:
    """Two players at the same position, and what is compared at the ends of chunks."""

    def __init__(self, open_a: Opener, open_b: Opener, position: int, same_ram: bool) -> None:
        self._stack = ExitStack()
        self._same_ram = same_ram
        with ExitStack() as stack:
            self._players = [stack.enter_context(opener(position)) for opener in (open_a, open_b)]
            self._stack = stack.pop_all()
        self._chunks = 0
        for player in self._players:
            forget_inflow(player.machine)
            if not same_ram:
                player.machine.start_capture()

    def __enter__(self) -> _Pair:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def run(self, last: int, chunk: int, longest: int, progress: Callable[[int], None]) -> tuple[int, int] | None:
        """The first chunk in which they part, None if there is none before `last`."""
        a, b = (player.machine for player in self._players)
        if a.position != b.position:
            return min(a.position, b.position), max(a.position, b.position)
        while a.position < last:
            begin = a.position
            end = min(begin + chunk, last)
            for player in self._players:
                player.run_to(end)
            if a.position != b.position or self._differ():
                return begin, end
            if a.position < end:
                return begin, end  # both stopped, or met a divergence, on the way
            chunk = min(2 * chunk, longest)
            progress(end)
        return None

    def _differ(self) -> bool:
        machines = [player.machine for player in self._players]
        differ = fingerprint(machines[0]) != fingerprint(machines[1])
        if not self._same_ram:
            self._chunks += 1
            fresh = self._chunks % FRESH == 0
            rows = [machine.take_captured(close=True, fresh=fresh) for machine in machines]
            differ = differ or rows[0] != rows[1]
        return differ


def part_ways(
    open_a: Opener,
    open_b: Opener,
    first: int,
    last: int,
    *,
    context: int = 0,
    progress: Callable[[int], None] = lambda position: None,
) -> Parting | None:
    """The first of the steps first … last-1 at which two replays execute different instructions, or one has ended.

    None if there is none. State may differ from the start. `context` and `progress` as of `part`; `registers` are all
    that differ there. Raises what the openers raise.
    """
    with ExitStack() as stack:
        players = [stack.enter_context(opener(first)) for opener in (open_a, open_b)]
        for player in players:
            player.machine.start_capture()
        at, where = first, None
        while where is None and at < last:
            end = min(at + CHUNK, last)
            where = _other_way(at, [_columns(player, end) for player in players], players)
            if where is None and any(player.machine.position < end for player in players):
                return None  # both have ended
            at = end
            progress(at)
    return None if where is None else _walk(open_a, open_b, where, where + 1, context, same_way)


def _columns(player: Player, end: int) -> dict[str, Any]:
    """What is captured on the way to `end`, to be read without what was before."""
    player.run_to(end)
    captured = player.machine.take_captured(close=True, fresh=True)
    return {} if captured is None else next(unpack_stream(captured.columns))


def _other_way(first: int, chunks: list[dict[str, Any]], players: list[Player]) -> int | None:
    """The first position from `first` on at which the rows of the two players' chunks are of different instructions."""
    ways = [{name: column for name, column in columns.items() if name not in _ACCESSES} for columns in chunks]
    if ways[0] == ways[1]:
        return None
    decoded = [
        RowDecoder(player.config).decode(first, columns) if columns else iter(())
        for player, columns in zip(players, chunks, strict=True)
    ]
    for position, (one, other) in enumerate(zip_longest(*decoded), first):  # blocks may have been cut differently
        if one is None or other is None or (one.pc, one.code, one.trap) != (other.pc, other.code, other.trap):
            return position
    return None


def _walk(
    open_a: Opener,
    open_b: Opener,
    begin: int,
    end: int,
    context: int,
    same: Callable[[Step, Step], bool] = same_step,
) -> Parting | None:
    """The first step that differs in a chunk that is short enough to look at every step."""
    before: deque[Step] = deque(maxlen=context)
    first, begin = begin, max(begin - context, 0)
    with ExitStack() as stack:
        players = [stack.enter_context(opener(begin)) for opener in (open_a, open_b)]
        states = [registers(player.machine) for player in players]
        walks = [walk(player, player.last_position) for player in players]
        for position in range(begin, end):
            steps = a, b = next(walks[0], None), next(walks[1], None)
            for state, step in zip(states, steps, strict=True):
                if step is not None:
                    state.update((name, after) for name, (_, after) in step.writes.items())
            if a is None or b is None or (position >= first and not same(a, b)):
                return Parting(
                    position,
                    a,
                    b,
                    players[0].divergence if a is None else None,
                    players[1].divergence if b is None else None,
                    _different(*states),
                    tuple(before),
                    tuple(islice(walks[0], context)),
                    tuple(islice(walks[1], context)),
                )
            before.append(a)
    return None


def _different(a: dict[str, int], b: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The registers that differ, but for the pc, which the walk does not keep."""
    return {name: (value, b[name]) for name, value in a.items() if value != b[name] and name != "pc"}
