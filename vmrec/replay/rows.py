# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording executed, step by step, whether it was captured or is regenerated here.

    full trace ──── its columns ────────────────┐
                                                ├──▶ rows(): Row    pc, code, accesses
    any trace ──▶ Player from a checkpoint ─────┤
                  with capture and register log └──▶ steps(): Step  a row, and what it did to the registers

Who reads rows cannot tell which it was. Regeneration is a replay: the trace's outputs and digests are compared on the
way, and a stretch that does not replay as recorded is an error, never made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from vmrec.errors import TraceError, UsageError
from vmrec.events import EVENT_KINDS
from vmrec.machine.board import GRID
from vmrec.machine.rows import Row, RowDecoder
from vmrec.machine.watch import INTERRUPT, STEP_ROOM, TRAP, RegisterLog, registers
from vmrec.replay.divergence import Divergence
from vmrec.replay.player import Player, trace_config
from vmrec.trace.codec import unpack_stream
from vmrec.trace.objects import CheckpointMark
from vmrec.trace.reader import TraceReader

__all__ = [
    "Step", "checkpoint_before", "last_events", "player_at", "player_from", "replay_error", "rows", "steps", "walk",
]  # fmt: skip

#: Steps regenerated at a time. More could define more blocks than one object may hold.
CHUNK = 4096
#: Steps whose register changes are regenerated at a time.
LOGGED_CHUNK = 1024
#: Chunks after which the dictionary of blocks begins anew, so that self-modifying code cannot fill the memory.
FRESH = 256


@dataclass(frozen=True, slots=True)
class Step:
    """A row and its effect on the hart.

    `writes`: name → (value before, value after) of each register that changed: x and f by ABI names, CSRs and the
    reservation by the names of the native core's hart record; the pc is in the rows. Counters that count are left out.
    `interrupt`: the interrupt that was entered before this step, so that the row is of its handler; what the entry
    wrote is among the writes. `cause`: of the trap, if the step is one.
    """

    row: Row
    writes: dict[str, tuple[int, int]]
    interrupt: int | None
    cause: int | None

    @property
    def position(self) -> int:
        """Steps before this one."""
        return self.row.position


# ------------------------------------------------------------------------------------------------------ getting there


def replay_error(trace: TraceReader, divergence: Divergence) -> TraceError:
    """The error for a reader who needs steps beyond a divergence."""
    where = f"does not replay as recorded beyond position {divergence.position}"
    return TraceError(trace.path, None, f"{where}: {divergence.message}; `vmrec verify` explains it")


def checkpoint_before(trace: TraceReader, position: int) -> CheckpointMark | None:
    """The last checkpoint at or before `position`, None if there is none."""
    return max((mark for mark in trace.checkpoints if mark.position <= position), default=None)


def player_from(trace: TraceReader, mark: CheckpointMark | None) -> Player:
    """A player at a checkpoint, or at the start. Raises TraceError if the checkpoint is not what its digest says."""
    player = Player(trace, checkpoint=mark)
    try:
        digests = () if mark is None else (digest for digest in trace.digests if digest.position == mark.position)
        value = next((digest.value for digest in digests), None)
        if value is not None and player.machine.digest().value != value:
            where = f"the checkpoint at {player.machine.position}"
            raise TraceError(trace.path, None, f"{where} does not hold the state that the digest there names")
    except BaseException:
        player.close()
        raise
    return player


def player_at(trace: TraceReader, position: int) -> Player:
    """A player that stands at `position`, events there not yet given, or at the divergence on the way."""
    player = player_from(trace, checkpoint_before(trace, position))
    try:
        player.run_to(position)
    except BaseException:
        player.close()
        raise
    return player


def last_events(trace: TraceReader, position: int, count: int) -> list[list[Any]]:
    """The last `count` events at or before `position`, in order, as they are on the wire."""
    frame, reach = min(trace.frame_at(position), len(trace.frames) - 1), 1
    while True:
        events = (wire for _, wire in trace.objects(frame, frozenset(EVENT_KINDS)))
        found = list(takewhile(lambda wire: wire[1] <= position, events))
        if len(found) >= count or frame == 0:
            return found[-count:]
        frame, reach = max(frame - reach, 0), 2 * reach


# ---------------------------------------------------------------------------------------------------------------- rows


def rows(trace: TraceReader, first: int = 0, last: int | None = None) -> Iterator[Row]:
    """Yields the rows of the steps first … last-1 (to the end of the trace if None), in order.

    Raises TraceError where the trace is damaged, or does not replay as recorded.
    """
    end = trace.last_position if last is None else min(last, trace.last_position)
    at = first
    if trace.rows_from is not None:
        if first < min(trace.rows_from, end):  # before a fork
            at = min(trace.rows_from, end)
            yield from _regenerated(trace, first, at)
        for row in _captured(trace, at, end):
            yield row
            at = row.position + 1
    if at < end:  # not captured; or the recorder died, and the last rows did not get to disk
        yield from _regenerated(trace, at, end)


def _captured(trace: TraceReader, first: int, last: int) -> Iterator[Row]:
    """The captured rows in the range, as far as there are any."""
    decoder = RowDecoder(trace_config(trace))
    assert trace.rows_from is not None
    at = max(first // GRID * GRID, trace.rows_from)  # where a dictionary of blocks begins
    for _, begin, end, columns in trace.rows(at, last):
        if begin != at:
            raise TraceError(trace.path, None, f"has no rows for the steps {at} to {begin}")
        try:
            for row in decoder.decode(begin, columns, skip_to=first):
                if first <= row.position < last:
                    yield row
        except UsageError as error:
            raise TraceError(trace.path, None, f"the rows at position {begin} are damaged: {error}") from error
        at = end


def _regenerated(trace: TraceReader, first: int, last: int) -> Iterator[Row]:
    with player_at(trace, first) as player:
        machine, decoder, chunks = player.machine, RowDecoder(player.config), 0
        machine.start_capture()
        while machine.position < last and not machine.stopped and player.divergence is None:
            chunks += 1
            player.run_to(min(machine.position + CHUNK, last))
            captured = machine.take_captured(close=True, fresh=chunks % FRESH == 0)
            if captured is not None:
                yield from decoder.decode(captured.first, next(unpack_stream(captured.columns)))
        if player.divergence is not None:
            raise replay_error(trace, player.divergence)


# --------------------------------------------------------------------------------------------------------------- steps


def steps(trace: TraceReader, first: int = 0, last: int | None = None) -> Iterator[Step]:
    """Yields the steps first … last-1 (to the end of the trace if None), in order, with their register writes.

    They are executed here; where the trace has captured rows, both are compared. Raises TraceError where the trace is
    damaged, or does not replay as recorded.
    """
    end = trace.last_position if last is None else min(last, trace.last_position)
    begin = end if trace.rows_from is None else max(first, trace.rows_from)
    captured = _captured(trace, begin, end) if begin < end else iter(())
    with player_at(trace, first) as player:
        for step in walk(player, end):
            row = next(captured, None) if step.position >= begin else None
            if row is not None and row != step.row:
                message = "the executed row differs from the captured one"
                raise replay_error(trace, Divergence("row", step.position, first, row, step.row, message, row.pc))
            yield step
        if player.divergence is not None:
            raise replay_error(trace, player.divergence)


def walk(player: Player, last: int) -> Iterator[Step]:
    """Moves `player` on to position `last`, or to a divergence or the machine's end, and yields each step.

    The player must be left alone until the walk is over or closed; it runs ahead of what is yielded.
    """
    machine, decoder, chunks = player.machine, RowDecoder(player.config), 0
    values = registers(machine)
    log = RegisterLog(machine, LOGGED_CHUNK * STEP_ROOM)
    machine.start_capture()
    try:
        while machine.position < last and not machine.stopped and player.divergence is None:
            chunks += 1
            player.run_to(min(machine.position + LOGGED_CHUNK, last))
            captured = machine.take_captured(close=True, fresh=chunks % FRESH == 0)
            if captured is None:
                continue
            changes = iter(log.take_changes())
            change = next(changes, None)
            for row in decoder.decode(captured.first, next(unpack_stream(captured.columns))):
                writes: dict[str, tuple[int, int]] = {}
                interrupt = cause = None
                while change is not None and change.position == row.position:
                    _, name, value = change
                    if name == INTERRUPT:
                        interrupt = value
                    elif name == TRAP:
                        cause = value
                    else:
                        writes[name] = values[name], value
                        values[name] = value
                    change = next(changes, None)
                yield Step(row, writes, interrupt, cause)
    finally:
        log.close()
        machine.stop_capture()
