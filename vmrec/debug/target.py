# SPDX-License-Identifier: GPL-2.0-or-later
"""The target: a recording as debuggers see one, whatever they speak.

It stands somewhere, shows the state there, and moves both ways; it remembers where it has been, and the places that
were marked. Breakpoints are points of a move (vmrec.replay.points), so guest memory is never touched.

One move at a time; only `interrupt` may be called from another thread, or from a signal handler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from vmrec.debug.places import Places
from vmrec.errors import UsageError
from vmrec.guest.elf import Guest
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, ROM_BASE, ROM_SIZE
from vmrec.replay.points import Point, State, Stop
from vmrec.replay.timeline import Timeline

__all__ = ["MemoryRegion", "Target"]

#: Places that `back` can go to.
HISTORY = 1024


class MemoryRegion(NamedTuple):
    """`size` bytes of physical memory from `start` on that can be read without an effect."""

    start: int
    size: int
    kind: Literal["ram", "rom"]
    name: str

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.start + self.size


class Target:
    """What a debugger is attached to: `timeline`, and `symbols` of its guest.

    Moves raise TraceError where the recording is damaged or does not replay as recorded; the target can be moved
    elsewhere then.
    """

    def __init__(self, timeline: Timeline, symbols: Symbols) -> None:
        self._timeline = timeline
        self.symbols = symbols
        self.guest: Guest = timeline.guest
        self.xlen: int = self.guest.xlen
        self.has_float: bool = timeline.state.has_float
        #: Whether there can be virtual addresses: then anything may be mapped anywhere.
        self.has_paging: bool = timeline.config.supervisor
        #: Where physical memory is. Devices are not in it: reading them has effects.
        self.memory_map: tuple[MemoryRegion, ...] = (
            MemoryRegion(ROM_BASE, ROM_SIZE, "rom", "boot-rom"),
            MemoryRegion(RAM_BASE, timeline.config.ram_size, "ram", "ram"),
        )
        self.places = Places(self)
        self._back: list[int] = []
        self._forward: list[int] = []
        self._marks: dict[int, int] = {}
        self._next_mark = 1
        self._watched: dict[int, int | None] = {}
        self._any_space = False

    @property
    def timeline(self) -> Timeline:
        """For searches, which leave the target where it is."""
        return self._timeline

    @property
    def position(self) -> int:
        """Where it stands: steps since reset."""
        return self._timeline.position

    @property
    def last(self) -> int:
        """The last position that is recorded."""
        return self._timeline.last

    @property
    def state(self) -> State:
        """The state here, until the next move."""
        return self._timeline.state

    def refresh(self) -> bool:
        """Takes up what a recorder has written since; returns whether there is more."""
        return self._timeline.refresh()

    # --- moves ---

    def step(self, count: int = 1, *, backwards: bool = False) -> Stop:
        """Goes `count` steps, to the end or begin at the most. Steps are not remembered as places."""
        return self._timeline.reverse_step(count) if backwards else self._timeline.step(count)

    def resume(
        self,
        points: Iterable[Point],
        *,
        backwards: bool = False,
        until: int | None = None,
        remember: bool = True,
    ) -> Stop:
        """Goes to the next hit of `points`, to `until` (reason seek), or to the end or begin.

        `remember`: `back` can come back here.
        """
        origin = self.position
        move = self._timeline.reverse_run if backwards else self._timeline.run
        try:
            return move(points, until=until)
        finally:
            if remember:
                self._left(origin)

    def seek(self, position: int) -> Stop:
        """Goes to `position`. Raises UsageError if the recording does not have it."""
        origin = self.position
        stop = self._timeline.seek(position)
        self._left(origin)
        return stop

    def interrupt(self) -> None:
        """Ends the current move soon, or the next one. May be called from any thread or signal handler."""
        self._timeline.interrupt()

    def calm(self) -> None:
        """Forgets a call of `interrupt` that came too late to end anything."""
        self._timeline.calm()

    # --- places ---

    def back(self) -> Stop:
        """Goes to where the last move began. Raises UsageError if there was none."""
        return self._return(self._back, self._forward, "there is no earlier place to go back to")

    def forward(self) -> Stop:
        """Undoes `back`. Raises UsageError if there was none since the last move."""
        return self._return(self._forward, self._back, "there is no later place to go forward to")

    def _left(self, origin: int) -> None:
        if origin != self.position:
            self._back.append(origin)
            del self._back[:-HISTORY]
            self._forward.clear()

    def _return(self, places: list[int], others: list[int], nothing: str) -> Stop:
        if not places:
            raise UsageError(f"{nothing}; places are remembered when you jump or run")
        origin = self.position
        stop = self._timeline.seek(places.pop())
        others.append(origin)
        return stop

    @property
    def marks(self) -> Mapping[int, int]:
        """Number → position of the places that were marked."""
        return MappingProxyType(self._marks)

    def mark(self) -> int:
        """Marks where the target stands; returns the mark's number, from 1 on."""
        number, self._next_mark = self._next_mark, self._next_mark + 1
        self._marks[number] = self.position
        return number

    def unmark(self, number: int) -> None:
        """Forgets a mark. Raises UsageError if there is none of that number."""
        self.marked(number)
        del self._marks[number]

    def marked(self, number: int) -> int:
        """The position of a mark. Raises UsageError if there is none of that number."""
        if number not in self._marks:
            known = ", ".join(map(str, self._marks)) or "none"
            raise UsageError(f"there is no checkpoint {number} (there is {known})")
        return self._marks[number]

    def place(self, text: str) -> int:
        """The position that `text` means: see places.py. Raises UsageError if it means none."""
        return self.places.position(text)

    # --- looking ---

    @property
    def translating(self) -> bool:
        """Whether addresses are virtual here."""
        return self.state.space != 0

    def watch_space(self, address: int) -> int | None:
        """The address space that a watch of `address` means: of where it was set first (`State.space_of`).

        Debuggers take their watches out whenever the guest stops, and put them in again to go on, elsewhere maybe.
        """
        if self._any_space:
            return None
        if address not in self._watched:
            self._watched[address] = self.state.space_of(address)
        return self._watched[address]

    @property
    def watched_spaces(self) -> Mapping[int, int | None]:
        """Address → space of the watches so far; None means any."""
        return MappingProxyType({address: self.watch_space(address) for address in self._watched})

    def watch_here(self, *, any_space: bool = False) -> None:
        """Watches mean the address space here from now on, those that were set before too; or any."""
        self._watched = {address: self.state.space_of(address) for address in self._watched}
        self._any_space = any_space

    def _read_translated(self, address: int, size: int) -> bytes:
        found = b""
        try:
            while len(found) < size:
                at = address + len(found)
                found += self.state.read_virtual(at, min(size - len(found), PAGE_SIZE - at % PAGE_SIZE))
        except UsageError:
            if not found:
                raise
        return found

    def read_memory(self, address: int, size: int) -> bytes:
        """Up to `size` bytes from `address` on: as far as there is memory, and no device.

        Raises UsageError if there is none at `address` itself.
        """
        if self.translating:
            return self._read_translated(address, size)
        found = bytearray()
        for region in self.memory_map:
            if region.start <= address < region.end:
                end = min(address + size, region.end)
                while address < end:
                    piece = min(end, address - address % PAGE_SIZE + PAGE_SIZE) - address
                    found += self.state.read_memory(address, piece)
                    address += piece
        if not found and size:
            raise UsageError(f"there is no memory at {address:#x}: neither RAM nor boot ROM")
        return bytes(found)
