# SPDX-License-Identifier: GPL-2.0-or-later
"""A recorded run as a Python object: a sequence of moments, and searches over all of them.

    with vmrec.open("race.vmrec") as run:
        end = run[-1]
        for write in run.writes("counter", before=end):     # the newest first
            print(write, write.moment.backtrace())

Searches are lazy: they look as far as they are asked to.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import cached_property
from itertools import islice
from typing import Any, Literal, Self, SupportsIndex, overload

from vmrec.errors import PositionError, UsageError
from vmrec.events import Console, Event, Output, Stop
from vmrec.guest.elf import Guest
from vmrec.guest.symbols import Symbols
from vmrec.guest.unwind import is_call
from vmrec.machine.board import MachineConfig
from vmrec.query.found import Call, MemoryAccess
from vmrec.query.html import table
from vmrec.query.moment import Moment
from vmrec.query.records import Records
from vmrec.query.track import Track
from vmrec.replay.points import Break, Hit, Watch

__all__ = ["Moments", "Run", "open_run"]


def open_run(
    path: str | os.PathLike[str], *, budget: int = 512 << 20, executor: Executor | None = None
) -> Run:
    """Opens the recording in the file `path`; `vmrec.open` is this function.

    `budget`: bytes that may be kept, over the guest's RAM, to make moving about fast. `executor`: where far searches
    run side by side (by default threads, one for each CPU). Raises UsageError if the file cannot be opened, TraceError
    if it is no recording, is damaged, or needs another vmrec.
    """
    return Run(Track(path, budget=budget, executor=executor))


class Moments(Sequence[Moment]):
    """The moments at some positions of a run: what a slice of it gives. They are made one at a time."""

    def __init__(self, track: Track, positions: range) -> None:
        self._track = track
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Moment: ...

    @overload
    def __getitem__(self, index: slice) -> Moments: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Moment | Moments:
        if isinstance(index, slice):
            return Moments(self._track, self._positions[index])
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise PositionError(self._missing(place))
        return Moment.at(self._track, self._positions[place])

    def _missing(self, place: int) -> str:
        return f"there is no moment {place} among these {self._track.number(len(self))} of {self._track.name}"

    def __contains__(self, moment: object) -> bool:
        return isinstance(moment, Moment) and moment.belongs_to(self._track) and moment.position in self._positions

    def __repr__(self) -> str:
        return f"<{self._track.number(len(self))} moments of {self._track.name}: {self._positions!r}>"


class Run(Moments):
    """A recorded run, opened: a context manager, and the sequence of its moments from `run[0]`, reset, to `run[-1]`.

    Positions are steps since reset, so `run[n].position == n`. Whatever needs the machine may raise TraceError: where
    the file is damaged, or does not replay as recorded.
    """

    def __init__(self, track: Track) -> None:
        super().__init__(track, range(track.last + 1))

    def close(self) -> None:
        """Closes the file and gives the machine back; moments keep what they have shown."""
        self._track.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _missing(self, place: int) -> str:
        last = self.position
        return f"position {place} is outside of {self._track.name}, which goes from 0 to {last} (or back from -1)"

    # --- the run as a whole ---

    @property
    def path(self) -> str:
        """The file, as it was named."""
        return self._track.trace.path

    @property
    def header(self) -> dict[str, Any]:
        """The header of the file: machine, guest, capture level, seeds, who recorded it when (traces/README.md)."""
        return self._track.trace.header

    @property
    def guest(self) -> Guest:
        """The guest program that ran."""
        return self._track.guest

    @property
    def symbols(self) -> Symbols:
        """The guest's names, functions and source lines."""
        return self._track.symbols

    @property
    def config(self) -> MachineConfig:
        """The machine that it ran on."""
        return self._track.config

    @property
    def position(self) -> int:
        """The last position: how many steps the run has. `len(run)` is one more."""
        return self._track.last

    @cached_property
    def icount(self) -> int:
        """Instructions retired in the whole run."""
        end = self._track.trace.end
        known = None if end is None else end.get("icount")
        return self[-1].icount if known is None else int(known)

    @property
    def ended(self) -> str | None:
        """Why the recording ended, e.g. "poweroff"; None if the recorder died or is still at work."""
        end = self._track.trace.end
        return None if end is None else str(end["reason"])

    @property
    def exit_code(self) -> int | None:
        """The guest's exit code, if it powered off."""
        end = self._track.trace.end
        return None if end is None else end.get("exit_code")

    @property
    def digest(self) -> bytes | None:
        """The hash of the machine's last state and of all outputs (32 bytes), as recorded; None if it did not end."""
        marks = self._track.trace.digests
        return marks[-1].value if marks and marks[-1].position == self.position else None

    @cached_property
    def events(self) -> Records[Event]:
        """What came into the machine, in order: records of `vmrec.events` with a `.position`."""
        return Records("event", lambda: (r for r in self._records() if isinstance(r, Event)))

    @cached_property
    def outputs(self) -> Records[Output]:
        """What the machine did to the outside, in order; an output carries the position of the step that made it."""
        return Records("output", lambda: (r for r in self._records() if isinstance(r, Console | Stop)))

    @property
    def console(self) -> bytes:
        """Everything that the guest wrote on its console."""
        return b"".join(record.data for record in self.outputs if isinstance(record, Console))

    def _records(self) -> Iterator[Event | Output]:
        return self._track.trace.records()

    def refresh(self) -> bool:
        """Takes up what a recorder that is still at work has written since; returns whether there was something.

        Searches that have begun go on to where the run ended then.
        """
        grown = self._track.refresh()
        if grown:
            self._positions = range(self._track.last + 1)
            for name in ("events", "outputs", "icount"):
                self.__dict__.pop(name, None)
        return grown

    # --- moments ---

    def at(
        self,
        where: int | str | None = None,
        *,
        hit: int = 1,
        percent: float | None = None,
        event: int | None = None,
    ) -> Moment:
        """One moment, found by one of these:

        where    the `hit`th time that the instruction there is about to execute: a symbol "main", "main+0x10", or an
                 address. -1 is the last time, -2 the one before
        percent  a part of the run: 0 is reset, 100 the end
        event    the position of `run.events[event]`

        Raises UsageError for an unknown name, with near ones, and PositionError, an IndexError too, for a hit or an
        event that the run does not have.
        """
        if sum(choice is not None for choice in (where, percent, event)) != 1:
            raise UsageError('say where: run.at("main"), run.at(percent=50) or run.at(event=0)')
        if percent is not None:
            if not 0 <= percent <= 100:
                raise PositionError(f"{percent} % of a run: give 0 to 100")
            return self[round(self.position * percent / 100)]
        if event is not None:
            return self[self.events[event].position]
        assert where is not None
        return self._hit(where, hit)

    def _hit(self, where: int | str, hit: int) -> Moment:
        if hit == 0:
            raise UsageError("hits are counted from 1, or backwards from -1")
        moments = self.hits(where, newest_first=hit < 0)
        count = position = 0
        for moment in islice(moments, abs(hit)):
            count, position = count + 1, moment.position
        if count < abs(hit):
            times = "never executes" if not count else f"executes {count} time{'s' if count > 1 else ''} only"
            name = where if isinstance(where, str) else f"{where:#x}"
            raise PositionError(f"{name} {times} in {self._track.name}; there is no hit {hit}")
        return self[position]

    # --- searches ---

    def hits(
        self,
        where: int | str,
        *,
        after: Moment | int | None = None,
        before: Moment | int | None = None,
        newest_first: bool | None = None,
        space: Moment | int | None = None,
    ) -> Iterator[Moment]:
        """The moments at which the instruction at `where` is about to execute.

        `after`, `before`: moments or positions; what is found lies at or after the one, and before the other. Newest
        first if `newest_first`, or if it is left out and `before` is given; else oldest first. `space`: only in that
        address space, a value of satp, or the one of a moment.
        """
        address = self._track.address(where)
        point = Break(address, space=space.space_of(address) if isinstance(space, Moment) else space)
        return (Moment(self._track, found.step) for found in self._search(point, after, before, newest_first))

    def writes(
        self,
        where: int | str,
        size: int | None = None,
        *,
        after: Moment | int | None = None,
        before: Moment | int | None = None,
        newest_first: bool | None = None,
        changes: bool = False,
        space: Moment | int | Literal["any"] | None = None,
        physical: bool = False,
    ) -> Iterator[MemoryAccess]:
        """The stores into `size` bytes at `where`, a symbol or an address; with `changes` those that change a byte.

        `size`: by default that of the symbol, or one register. The rest as in `hits`: stores before a moment are done
        at that moment. The last writer of a variable is `next(run.writes("counter", before=moment))`.

        `space`: the address space in which `where` is meant, a value of satp or the one of a moment, or "any". If left
        out it is that of the moment given as `before`, else `after`; any, if neither is a moment. `physical`: `where`
        is a physical address (`moment.physical`), and stores count whatever address they use.
        """
        kind: Literal["change", "write"] = "change" if changes else "write"
        return self._accesses(kind, where, size, after, before, newest_first, space, physical)

    def reads(
        self,
        where: int | str,
        size: int | None = None,
        *,
        after: Moment | int | None = None,
        before: Moment | int | None = None,
        newest_first: bool | None = None,
        space: Moment | int | Literal["any"] | None = None,
        physical: bool = False,
    ) -> Iterator[MemoryAccess]:
        """The loads from `size` bytes at `where`; as `writes`. Instruction fetches are none."""
        return self._accesses("read", where, size, after, before, newest_first, space, physical)

    def calls(
        self,
        function: int | str,
        *,
        after: Moment | int | None = None,
        before: Moment | int | None = None,
        newest_first: bool | None = None,
    ) -> Iterator[Call]:
        """The calls of a function: entry, arguments, return; as `hits`, by the moments of their entries.

        A loop that comes back to the function's first instruction is no call; a recursion is.
        """
        address = self._track.address(function)
        name = function if isinstance(function, str) else self._track.names.symbol(address) or f"{address:#x}"
        moments = self.hits(address, after=after, before=before, newest_first=newest_first)
        return (Call(self._track, name, moment) for moment in moments if self._is_entry(moment, address))

    def _is_entry(self, moment: Moment, address: int) -> bool:
        """Whether the step before came from outside of the function, or called it."""
        body = self.symbols.function(address)
        if body is None or moment.position == 0:
            return True
        before = Moment(self._track, moment.position - 1)
        if not body.start <= before.pc < body.end:
            return True
        if is_call(int.from_bytes(before.code, "little"), self.guest.xlen):
            return True
        first, step = before.step(), moment.step()  # a handler may be interrupted by itself
        return (first is not None and first.row.trap) or (step is not None and step.interrupt is not None)

    def _accesses(
        self,
        kind: Literal["write", "read", "change"],
        where: int | str,
        size: int | None,
        after: Moment | int | None,
        before: Moment | int | None,
        newest_first: bool | None,
        space: Moment | int | Literal["any"] | None,
        physical: bool,
    ) -> Iterator[MemoryAccess]:
        address = self._track.address(where)
        if space is None:
            space = next((moment for moment in (before, after) if isinstance(moment, Moment)), "any")
        if isinstance(space, Moment):
            space = space.space_of(address)
        within = None if physical or space == "any" else space
        point = Watch(address, self._track.size(where, size), kind, space=within, physical=physical)
        return map(self._access, self._search(point, after, before, newest_first))

    def _access(self, hit: Hit) -> MemoryAccess:
        access = hit.access
        assert access is not None
        assert hit.pc is not None
        old = None if hit.before is None else int.from_bytes(hit.before, "little")
        kind: Literal["read", "write"] = "read" if access.kind == "r" else "write"
        return MemoryAccess(self._track, hit.step, hit.pc, kind, access.address, access.size, access.value, old)

    def _search(
        self,
        point: Break | Watch,
        after: Moment | int | None,
        before: Moment | int | None,
        newest_first: bool | None,
    ) -> Iterable[Hit]:
        first, last = self._bound(after, 0), self._bound(before, self.position)
        newest = before is not None if newest_first is None else newest_first
        return self._track.timeline.hits([point], first, last, newest_first=newest)

    def _bound(self, moment: Moment | int | None, default: int) -> int:
        if moment is None:
            return default
        return self._track.check(moment.position if isinstance(moment, Moment) else operator.index(moment))

    # --- shown ---

    def _facts(self) -> Iterator[tuple[str, str]]:
        machine = self.config
        yield "file", self.path
        if self._track.closed:
            return
        yield "guest", f"{self.guest.name}, {machine.isa}, {machine.ram_size >> 20} MiB RAM"
        yield "length", f"{self._track.number(self.position)} steps"
        yield "events", str(self.events)
        yield "outputs", str(self.outputs)
        yield "ended", self._ending()
        yield "digest", self.digest.hex() if self.digest else ""

    def _ending(self) -> str:
        if self.ended is None:
            return "not yet: its recorder is at work, or died"
        return self.ended + ("" if self.exit_code is None else f", exit code {self.exit_code}")

    def __repr__(self) -> str:
        if self._track.closed:
            return f"<run {self._track.name}, closed>"
        length = self._track.number(self.position)
        return f"<run {self._track.name}: {self.guest.name} ({self.config.isa}), {length} steps, {self._ending()}>"

    def _repr_html_(self) -> str:
        return table(f"run {self._track.name}", self._facts())
