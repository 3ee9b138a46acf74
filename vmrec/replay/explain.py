# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a replay differs from its recording, as far as that can be found out without another tool.

    an output, an event, a row    is exact already; the stretch is replayed once more: is it the same again?
    a digest                      names an interval (last good, first bad); where not every digest was compared, the
                                  first bad one of them is found. Then:
                                  1. a full trace is replayed with its rows compared, which is exact
                                  2. registers that differ are in the recorded digest, pages and devices in the next
                                     checkpoint
                                  3. the interval is replayed twice. If these two disagree, they are compared to the
                                     instruction, and the host is to blame; if they agree, whoever in the replay last
                                     wrote what differs is listed: of a drive's block the store to QueueNotify

Nothing here raises for what it cannot find out: it is left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from vmrec.guest.symbols import Symbols
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, SECTOR
from vmrec.machine.machine import Digest
from vmrec.machine.watch import RegisterLog, flat_registers
from vmrec.replay.divergence import Divergence, Writer
from vmrec.replay.lockstep import part
from vmrec.replay.names import Names, number, record_text
from vmrec.replay.player import Player, trace_guest
from vmrec.replay.rows import Step, checkpoint_before, last_events, player_from, walk
from vmrec.trace.objects import CheckpointMark
from vmrec.trace.reader import TraceReader

__all__ = ["explain", "render"]

#: Steps between two looks at which pages were stored to.
STRETCH = 1 << 16
#: Steps before the end in which the last change of a register is looked for, one after the other.
WINDOWS = (1 << 12, 1 << 18, 1 << 64)
#: Pages whose last writer is looked for, and lines of each kind that `render` shows.
PAGES = 16
#: The parts of a digest, as a trace holds them.
PARTS = ("registers", "ram", "devices", "outputs")

_SAME_AGAIN = (
    "Two replays do the same, so the recording does not hold what its events lead to: it was altered, or recorded by a "
    "vmrec or a host that computed differently. Compare with another copy or another recording (`vmrec diff`), and "
    "look at the place with `vmrec trace --from {first} --to {last}`."
)
_HOST = (
    "Two replays of the same stretch do not agree with each other: this host does not compute reliably (memory, "
    "overclocking), or vmrec is not deterministic here. Check the host's memory, replay elsewhere, and report it if "
    "it happens there too."
)


def explain(trace: TraceReader, divergence: Divergence) -> Divergence:
    """`divergence`, which a replay of `trace` has met, with everything that further replays say about it.

    Kind and position change only if something more exact was found: the row in a full trace behind a wrong digest.
    """
    if divergence.kind == "digest":
        divergence = _first_bad(trace, divergence)
    events = last_events(trace, divergence.position, 1)
    divergence = replace(divergence, last_event=events[0] if events else None)
    if divergence.kind == "digest":
        row = _row_before(trace, divergence)
        divergence = _explain_digest(trace, divergence) if row is None else _explain_exact(trace, row)
    else:
        divergence = _explain_exact(trace, divergence)
    step = _HOST if divergence.host_to_blame else _SAME_AGAIN
    at = divergence.parted_at if divergence.parted_at is not None else divergence.position
    return replace(divergence, next_step=step.format(first=max(at - 20, 0), last=at + 5))


def _first_bad(trace: TraceReader, divergence: Divergence) -> Divergence:
    """The first digest that differs: the replay that met `divergence` may not have compared all."""
    between = (mark for mark in trace.digests if divergence.last_good < mark.position < divergence.position)
    if next(between, None) is None:
        return divergence
    with Player(trace, checkpoint=_start(trace, divergence.last_good)) as player:
        player.last_good = divergence.last_good
        found = player.run()
    return found if found is not None and found.kind == "digest" else divergence


# --------------------------------------------------------------------------------------------------- exact divergences


def _explain_exact(trace: TraceReader, divergence: Divergence) -> Divergence:
    """Replays to it once more, and finds the instruction that belongs to it."""
    checked = divergence.kind == "row"
    with Player(trace, checkpoint=_start(trace, divergence.last_good), check_rows=checked) as player:
        again = player.run()
    same = again is not None and _what(again) == _what(divergence)
    found = replace(divergence, host_to_blame=not same)
    if same and divergence.kind != "row":
        step = _step_at(trace, divergence)
        found = replace(found, pc=divergence.pc if step is None else step.row.pc)
    return found


def _what(divergence: Divergence) -> tuple[Any, ...]:
    return divergence.kind, divergence.position, divergence.expected, divergence.actual


def _step_at(trace: TraceReader, divergence: Divergence) -> Step | None:
    """The step of the replay that the divergence belongs to, if the replay gets there."""
    with player_from(trace, _start(trace, divergence.last_good)) as player:
        if player.run_to(divergence.position) is not None and player.machine.position != divergence.position:
            return None
        player.divergence = None
        return next((step for step in walk(player, divergence.position + 1)), None)


def _row_before(trace: TraceReader, divergence: Divergence) -> Divergence | None:
    """The divergence that a full trace's rows show in the interval of a wrong digest, if they do."""
    if trace.header["capture"] != "full":
        return None
    with Player(trace, checkpoint=_start(trace, divergence.last_good), check_rows=True) as player:
        player.last_good = divergence.last_good
        found = player.run()
    if found is None or found.kind != "row":
        return None
    return replace(found, last_event=divergence.last_event)


def _start(trace: TraceReader, position: int) -> CheckpointMark | None:
    """The checkpoint to replay from so as to pass `position`: one that holds what the digest at its place says."""
    mark = checkpoint_before(trace, position)
    if mark is None:
        return None
    value = next((digest.value for digest in trace.digests if digest.position == mark.position), None)
    with Player(trace, checkpoint=mark) as player:
        return mark if value is None or player.machine.digest().value == value else None


# ------------------------------------------------------------------------------------------------------- wrong digests


class _Interval:
    """Replays of the interval in which something went differently, digests on the way ignored."""

    def __init__(self, trace: TraceReader, divergence: Divergence) -> None:
        self.trace = trace
        self.first = divergence.last_good
        self.last = divergence.position
        self._mark = _start(trace, self.first)
        final = trace.digests[-1]
        self._at_end = final.value == divergence.expected and final.position == trace.last_position == self.last

    def open(self, position: int) -> Player:
        """A player at `position`."""
        player = player_from(self.trace, self._mark)
        try:
            self.go(player, position)
        except BaseException:
            player.close()
            raise
        return player

    def digest(self, player: Player) -> Digest:
        """The digest at the end of the interval. The last one of a trace comes after the events there."""
        if self._at_end:
            player.finish()
        return player.machine.digest()

    @staticmethod
    def go(player: Player, position: int) -> bool:
        """Moves on to `position`; False if it cannot be reached."""
        while player.machine.position < min(position, player.last_position) and not player.machine.stopped:
            divergence = player.run_to(position)
            if divergence is not None:
                if divergence.kind != "digest":
                    return False
                player.divergence = None
        if player.divergence is not None and player.divergence.kind == "digest":
            player.divergence = None
        return player.machine.position == position

    def steps(self, player: Player, last: int) -> Iterator[Step]:
        """The steps from where `player` is to `last`."""
        while player.machine.position < last:
            yield from walk(player, last)
            if not self.go(player, player.machine.position):
                return


def _explain_digest(trace: TraceReader, divergence: Divergence) -> Divergence:
    interval = _Interval(trace, divergence)
    with interval.open(interval.last) as player:
        once = interval.digest(player)
        devices, differing, pages_at = _at_next_checkpoint(interval, player)
    places = {index: player.config.block_of(index) for index in differing}
    pages = tuple(index for index, place in places.items() if place is None)
    blocks = tuple(place for place in places.values() if place is not None)
    with interval.open(interval.last) as player:
        twice = interval.digest(player)
    if once.value != twice.value or once.value != divergence.actual:
        parting = part(interval.open, interval.open, interval.first, interval.last)
        where = None if parting is None else parting.position
        return replace(divergence, host_to_blame=True, parted_at=where)
    recorded = _recorded(trace, divergence)
    registers = {} if recorded is None else _differing_registers(recorded["registers"], once.registers)
    return replace(
        divergence,
        host_to_blame=False,
        parts=() if recorded is None else _differing_parts(recorded, once),
        registers=registers,
        devices=devices,
        pages=tuple(RAM_BASE + index * PAGE_SIZE for index in pages),
        pages_at=pages_at,
        blocks=blocks,
        writers=_writers(interval, tuple(registers), pages, blocks, pages_at or interval.last),
    )


def _recorded(trace: TraceReader, divergence: Divergence) -> dict[str, Any] | None:
    """The digest's map in the trace."""
    marks = (mark for mark in trace.digests if mark.position == divergence.position)
    return next((trace.digest(mark) for mark in marks if mark.value == divergence.expected), None)


def _differing_parts(recorded: dict[str, Any], actual: Digest) -> tuple[str, ...]:
    return tuple(part for part in PARTS if recorded[part] != getattr(actual, part))


def _differing_registers(recorded: dict[str, Any], actual: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name → (recorded, actual). The recorded ones come from a file: they may be anything."""
    found = {}
    for field, value in actual.items():
        one, other = flat_registers({field: recorded.get(field)}), flat_registers({field: value})
        if one.keys() != other.keys():
            one, other = {field: recorded.get(field)}, {field: value}
        found.update({name: (one[name], other[name]) for name in other if one[name] != other[name]})
    return found


def _at_next_checkpoint(
    interval: _Interval, player: Player
) -> tuple[dict[str, tuple[Any, Any]], tuple[int, ...], int | None]:
    """Device fields and pages (by index) in which the replay and the recorded checkpoint differ, and where that is."""
    trace = interval.trace
    mark = min((mark for mark in trace.checkpoints if mark.position >= interval.last), default=None)
    if mark is None or not interval.go(player, mark.position):
        return {}, (), None
    state, _ = trace.checkpoint(mark)
    devices = {
        f"{name}.{field}": (state.get(name, {}).get(field), value)
        for name, fields in player.machine.state().items()
        if name not in ("hart", "outputs")
        for field, value in fields.items()
        if isinstance(state.get(name, {}), dict) and state.get(name, {}).get(field) != value
    }
    recorded = {index: page.hash for index, page in trace.pages(mark).items()}
    actual = player.machine.take_changed()
    pages, loaded = player.config.pages, player.machine.initial_pages
    touched = sorted(index for index in {*recorded, *actual} if index < pages)
    # A page that only one of them has stored to is compared with what was loaded.
    before = {index: loaded.get(index, player.machine.zero_page_hash) for index in touched}
    differ = (index for index in touched if recorded.get(index, before[index]) != actual.get(index, before[index]))
    return devices, tuple(differ), mark.position


def _writers(
    interval: _Interval,
    registers: tuple[str, ...],
    pages: tuple[int, ...],
    blocks: tuple[tuple[int, int], ...],
    pages_end: int,
) -> tuple[Writer, ...]:
    """The replay's last writer of each of these registers and pages in the interval, and of each block at all.

    In order of position. A block may have been written long ago, if what differs is what the recording says of it.
    """
    wanted = _last_changes(interval, set(registers))
    stores = _last_stores(interval, set(pages[:PAGES]), pages_end)
    written = _last_written(interval, blocks[:PAGES], pages_end)
    alone = [*wanted.values(), *(at for at in written.values() if at >= interval.first)]
    found: dict[str, Writer] = {}
    names = Names(trace_guest(interval.trace))
    with interval.open(interval.first) as player:
        for first, last in _merged([*((at, at + 1) for at in alone), *stores.values()]):
            if not interval.go(player, first):
                break
            for step in interval.steps(player, last):
                for register, at in wanted.items():
                    if at == step.position:
                        found[register] = _writer(names, register, step)
                found.update(_block_writers(names, written, step))
                for access in step.row.accesses:
                    for index in {access.address - RAM_BASE >> 12, access.address + access.size - 1 - RAM_BASE >> 12}:
                        if access.kind == "w" and index in stores and step.position < stores[index][1]:
                            page = f"page {RAM_BASE + index * PAGE_SIZE:#x}"
                            found[page] = _writer(names, page, step)
    earlier = sorted({at for at in written.values() if at < interval.first})
    if earlier:
        with player_from(interval.trace, _start(interval.trace, earlier[0])) as player:
            for position in earlier:
                if not interval.go(player, position):
                    break
                for step in walk(player, position + 1):
                    found.update(_block_writers(names, written, step))
    return tuple(sorted(found.values(), key=lambda writer: (writer.position, writer.what)))


def _block_writers(names: Names, written: dict[tuple[int, int], int], step: Step) -> dict[str, Writer]:
    """What to call each block that was written last by this step, and its writer."""
    whats = [f"drive {drive} block {block}" for (drive, block), at in written.items() if at == step.position]
    return {what: _writer(names, what, step) for what in whats}


def _last_changes(interval: _Interval, registers: set[str]) -> dict[str, int]:
    """Register → position of the last step in the interval that changed it. Looked for from the end on."""
    found: dict[str, int] = {}
    for window in WINDOWS:
        first = max(interval.first, interval.last - window)
        if registers <= found.keys():
            break
        with interval.open(first) as player:
            log = RegisterLog(player.machine)
            interval.go(player, interval.last)
            found = {name: at for name, at in log.last_changes().items() if name in registers}
            log.close()
        if first == interval.first:
            break
    return found


def _last_stores(interval: _Interval, pages: set[int], last: int) -> dict[int, tuple[int, int]]:
    """Page → the last stretch from the start of the interval to `last` in which it was stored to."""
    found: dict[int, tuple[int, int]] = {}
    if not pages:
        return found
    with interval.open(interval.first) as player:
        machine = player.machine
        machine.take_changed()
        while machine.position < last:
            first = machine.position
            if not interval.go(player, min(first + STRETCH, last)):
                break
            found.update((index, (first, machine.position)) for index in pages & machine.take_changed().keys())
    return found


def _last_written(
    interval: _Interval, blocks: tuple[tuple[int, int], ...], last: int
) -> dict[tuple[int, int], int]:
    """(drive, block) → position of the step before `last` that had it written last, if there is one.

    The recorded outputs tell, since the replay's are the same up to there.
    """
    found: dict[tuple[int, int], int] = {}
    trace = interval.trace
    for _, wire in trace.objects(0, frozenset(("written",))) if blocks else ():
        _, at, drive, sector, count = wire
        if at >= last:
            break
        begin, end = sector * SECTOR, sector * SECTOR + count
        for block in blocks:
            start = block[1] * PAGE_SIZE
            if block[0] == drive and max(begin, start) < min(end, start + PAGE_SIZE):
                found[block] = at
    return found


def _writer(names: Names, what: str, step: Step) -> Writer:
    text = names.instruction(step.row)
    if step.interrupt is not None:
        text = f"{names.interrupt(step.interrupt)}, then {text}"
    elif step.cause is not None:
        text = f"{text}: {names.trap(step.cause)}"
    return Writer(what, step.position, step.row.pc, text)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return merged


# ------------------------------------------------------------------------------------------------------------- as text


def render(divergence: Divergence, symbols: Symbols | None = None) -> str:
    """The divergence for people, in lines of at most 80 columns; always the same for the same divergence."""
    lines = [f"The replay differs from its recording at position {number(divergence.position)}."]
    lines.append(f"  {'what':<10}{divergence.message}")
    if divergence.kind == "digest":
        lines.append(f"  {'where':<10}after {number(divergence.last_good)}, the last position known to agree")
    if divergence.pc is not None and divergence.kind != "digest":
        lines.append(f"  {'pc':<10}{_place(divergence.pc, symbols)}")
    lines.append(f"  {'expected':<10}{_short(divergence.expected)}")
    lines.append(f"  {'actual':<10}{_short(divergence.actual)}")
    if divergence.last_event is not None:
        lines.append(f"  {'event':<10}the last one before: {_short(divergence.last_event)}")
    lines.extend(_details(divergence, symbols))
    if divergence.host_to_blame is not None:
        lines.append(f"  {'again':<10}{_again(divergence)}")
    text = "\n".join(
        textwrap.fill(line, 80, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False)
        for line in lines
    )
    if divergence.next_step:
        text += "\n" + textwrap.fill(divergence.next_step, 80, break_long_words=False, break_on_hyphens=False)
    return text


def _details(divergence: Divergence, symbols: Symbols | None) -> Iterator[str]:
    if divergence.parts:
        yield f"  {'parts':<10}{', '.join(divergence.parts)}"
    for title, values in (("registers", divergence.registers), ("devices", divergence.devices)):
        for name, (expected, actual) in list(values.items())[:PAGES]:
            yield f"  {title:<10}{name}: expected {_hex(expected)}, actual {_hex(actual)}"
            title = ""
        if len(values) > PAGES:
            yield f"  {'':<10}and {len(values) - PAGES} more"
    if divergence.pages:
        shown = " ".join(f"{address:08x}" for address in divergence.pages[:PAGES])
        more = f" and {len(divergence.pages) - PAGES} more" if len(divergence.pages) > PAGES else ""
        yield f"  {'pages':<10}at position {number(divergence.pages_at or 0)}: {shown}{more}"
    if divergence.blocks:
        shown = ", ".join(f"drive {drive} block {block}" for drive, block in divergence.blocks[:PAGES])
        more = f" and {len(divergence.blocks) - PAGES} more" if len(divergence.blocks) > PAGES else ""
        yield f"  {'blocks':<10}at position {number(divergence.pages_at or 0)}: {shown}{more}"
    if "ram" in divergence.parts and divergence.pages_at is None:
        yield f"  {'pages':<10}not known: the recording has no checkpoint after this"
    title = "written by"
    for writer in divergence.writers:
        yield f"  {title:<10} {writer.what}: {number(writer.position)} {_place(writer.pc, symbols)} {writer.text}"
        title = ""


def _again(divergence: Divergence) -> str:
    if not divergence.host_to_blame:
        return "a second replay is the same"
    if divergence.parted_at is None:
        return "a second replay is not the same"
    return f"two more replays are not the same, from position {number(divergence.parted_at)} on"


def _place(pc: int, symbols: Symbols | None) -> str:
    symbol, line = (None, None) if symbols is None else (symbols.lookup(pc), symbols.line(pc))
    return f"{pc:08x}" + (f" {symbol}" if symbol else "") + (f" ({line})" if line else "")


def _hex(value: Any) -> str:
    return f"{value:#x}" if isinstance(value, int) else _short(value)


def _short(value: Any) -> str:
    """A plain value in a few characters."""
    match value:
        case None:
            return "nothing"
        case bytes():
            return value.hex() if len(value) <= 16 else f"{value[:16].hex()}…"
        case int():
            return f"{value:#x}"
        case [str(kind), int(position), *_]:
            return f"{kind} at {number(position)}: {record_text(value)}"
        case list():
            return f"[{', '.join(map(_short, value[:8]))}{', …' if len(value) > 8 else ''}]"
        case _:
            return str(value)
