# SPDX-License-Identifier: GPL-2.0-or-later
"""A player that can be put at any position, backwards too.

    go(n):   nearest snapshot or checkpoint at or before n  ──▶  machine  ──▶  run to n

On the way to n it leaves snapshots, the denser the nearer to n, so that going on from there, back by a few steps most
of all, is cheap; those further away only where it starts from a snapshot, since whoever asks one question never needs
them. Only pages that differ are put back; those whose content is in the trace only are marked missing, and come when
the guest or a reader first touches them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Self

from vmrec.errors import TraceError, UsageError
from vmrec.machine.board import PAGE_SIZE, RAM_BASE
from vmrec.machine.machine import Exit
from vmrec.replay.player import Player
from vmrec.replay.rows import replay_error
from vmrec.replay.snapshots import Contents, PageMap, Snapshot, Snapshots
from vmrec.trace.objects import CheckpointMark
from vmrec.trace.reader import TraceReader

__all__ = ["Rewinder"]

#: Steps before the target of a move at which snapshots are left.
NEAR_BY = tuple(1 << bits for bits in (14, 11, 8))
#: Where a move has come by before: it starts from a snapshot, not from a checkpoint of the trace.
KNOWN_PLACE = tuple(1 << bits for bits in (23, 20, 17)) + NEAR_BY
#: So many steps are run sooner than a snapshot is put back.
SHORT_WAY = 1 << 14
#: Pages that come with a missing one at most, if the guest goes through them in order.
READ_AHEAD = 64
#: From so many on they come although something has to be unpacked for them.
READ_ON = 15


class Rewinder:
    """A player of `trace` that stands at position 0 and can `go` anywhere. A context manager.

    `budget`: bytes that its snapshots may take. Every call may raise TraceError where the trace is damaged, or does
    not replay as recorded.
    """

    def __init__(self, trace: TraceReader, budget: int) -> None:
        self.trace = trace
        self.player = Player(trace)
        self.records = self.player.records
        self.player.page_source = self._bring_page
        machine = self.player.machine
        self._contents = Contents()
        self._pages = PageMap().changed(
            {
                index: self._contents.get(hash_, None if machine.is_missing(index) else machine.page(index))
                for index, hash_ in machine.initial_pages.items()
            }
        )
        self._loaded = self._pages
        self._settled = False
        self._sequence = (0, 0)  # the page behind those that came last, and how many came with it
        self._unusable = False  # an error came while the machine was being put somewhere
        self._snapshots = Snapshots(self._contents, budget)
        self._snapshots.add(Snapshot(0, machine.snapshot(), self._pages), len(machine.initial_pages), 0)
        self._marks: list[CheckpointMark] = []
        self._digests: dict[int, bytes] = {}
        self.refresh()

    def refresh(self) -> None:
        """Takes up checkpoints that a recorder has added."""
        self._marks = self.trace.checkpoints
        self._digests = {mark.position: mark.value for mark in reversed(self.trace.digests)}

    def close(self) -> None:
        """Gives the machine back."""
        self.player.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- going ---

    def go(self, position: int, *, fresh: bool = False) -> None:
        """Puts the player at `position` (0 … last of the trace). It may have stood there already, settled.

        `fresh`: events there have not been given yet, in any case.
        """
        machine = self.player.machine
        steps, distances = position - machine.position, KNOWN_PLACE
        must = self._unusable or self.player.divergence or steps < 0 or (steps == 0 and fresh and self._settled)
        if must or steps > SHORT_WAY:
            base = self._base(position)
            if must or base.position > machine.position:
                self._put(base)
                if isinstance(base, CheckpointMark):
                    distances = NEAR_BY
        for distance in distances:
            stop = position - distance
            if stop > machine.position:
                self._run(stop)
                self.keep()
        self._run(position)

    def settle(self) -> None:
        """Gives the events here, ends a wait, enters an interrupt: the machine's pc is that of the next step."""
        self._check(self.player.settle() is None)
        self._settled = True

    def run(self, position: int) -> Exit:
        """Runs on to `position`, leaving no snapshots, or until an open point log or a call for attention stops it."""
        self._settled = False
        self._check(self.player.run_to(position) is None)
        return self.player.exit

    def _run(self, position: int) -> None:
        """Runs on to `position`, whoever calls for attention."""
        while self.player.machine.position < position:
            if self.run(position) is Exit.POSITION and self.player.machine.stopped:
                break

    def _check(self, good: bool) -> None:
        if not good:
            assert self.player.divergence is not None
            raise replay_error(self.trace, self.player.divergence)

    # --- snapshots ---

    @property
    def kept_bytes(self) -> int:
        """What the contents of snapshots take."""
        return self._contents.size

    @property
    def touched_bytes(self) -> int:
        """What of RAM and drives the guest was loaded into, or had touched by the last checkpoint."""
        pages = self.trace.page_hashes(self._marks[-1]).keys() if self._marks else set()
        return PAGE_SIZE * len(self.player.machine.initial_pages.keys() | pages)

    def bases(self, first: int, last: int) -> list[int]:
        """Where going back is cheap: positions behind `first` and before `last`, ascending."""
        kept = self._snapshots.between(first, last)
        return sorted({*kept, *(mark.position for mark in self._marks if first < mark.position < last)})

    def keep(self) -> None:
        """Leaves a snapshot here, where events must not have been given."""
        machine = self.player.machine
        if machine.position in self._snapshots:
            return
        changed, fresh = {}, 0
        for index, hash_ in machine.take_changed().items():
            known = self._contents.known(hash_)
            changed[index] = self._contents.get(hash_, None if known else machine.page(index))
            fresh += not known
        self._pages = self._pages.changed(changed)
        self._snapshots.add(Snapshot(machine.position, machine.snapshot(), self._pages), fresh, machine.position)

    def _base(self, position: int) -> Snapshot | CheckpointMark:
        kept = self._snapshots.before(position)
        assert kept is not None  # there is one at position 0
        place = bisect_right(self._marks, position, key=lambda mark: mark.position)
        mark = self._marks[place - 1] if place else None
        return mark if mark is not None and mark.position > kept.position else kept

    def _put(self, base: Snapshot | CheckpointMark) -> None:
        self._unusable = True
        if isinstance(base, Snapshot):
            self._put_pages(base.pages)
            self.player.machine.restore(base.machine)
            self.player.place()
        else:
            self._put_checkpoint(base)
            self.player.place(base.frame)
        self._settled = self._unusable = False

    def _put_checkpoint(self, mark: CheckpointMark) -> None:
        machine = self.player.machine
        state, _ = self.trace.checkpoint(mark)
        self._put_pages(self._loaded.changed(self._contents.named(self.trace.page_hashes(mark))))
        where = f"the checkpoint at {mark.position}"
        try:
            machine.set_state(state)
        except UsageError as error:
            raise TraceError(self.trace.path, None, f"{where}: {error}") from error
        if machine.position != mark.position:
            raise TraceError(self.trace.path, None, f"{where} holds another position")
        if self._digests.get(mark.position, machine_value := machine.digest().value) != machine_value:
            raise TraceError(self.trace.path, None, f"{where} does not hold the state that the digest there names")
        self._snapshots.add(Snapshot(mark.position, machine.snapshot(), self._pages), 0, mark.position)

    def _put_pages(self, pages: PageMap) -> None:
        """Makes RAM and drives what `pages` says."""
        machine = self.player.machine
        for index in {*machine.drop_changed(), *self._pages.difference(pages)}:
            content = pages.get(index)
            if content is None:
                machine.put_untouched(index)
            elif content.data is not None:
                machine.put_page(index, content.data, content.hash)
            else:
                machine.put_missing(index, content.hash)
        self._pages = pages

    def _bring_page(self, index: int) -> bool:
        """Puts a missing page where it belongs, and those that were written together with it: they changed together.

        Then those behind them that are at hand, more each time it goes on so.

        False for a drive's block that nobody has touched: nothing else is missing without being in the trace.
        """
        machine = self.player.machine
        content = self._pages.get(index)
        if content is None:
            return False
        if content.data is not None:
            machine.put_page(index, content.data, content.hash)
            together = 1
        else:
            together = self._bring_together(content.hash, index)
        behind, ahead = self._sequence
        ahead = min(2 * ahead + 1, READ_AHEAD) if index == behind else 0
        pages = machine.config.pages
        behind = index + 1
        while behind < min(index + together, pages) and not machine.is_missing(behind):
            behind += 1
        end = min(behind + ahead, pages)
        while behind < end and machine.is_missing(behind) and (content := self._pages.get(behind)) is not None:
            read = self.trace.page if ahead >= READ_ON else self.trace.page_at_hand
            data = content.data or read(content.hash)
            if data is None:
                break
            machine.put_page(behind, data, content.hash)
            behind += 1
        self._sequence = behind, ahead
        return True

    def _bring_together(self, hash_: bytes, index: int) -> int:
        """Puts the page with this hash at `index`, and those written together with it. Returns how many."""
        machine = self.player.machine
        (_, data), *others = self.trace.pages_together(hash_, self._is_wanted)
        machine.put_page(index, data, hash_)
        for other, data in others:
            machine.put_page(self._contents.get(other).page, data, other)
        return 1 + len(others)

    def _is_wanted(self, hash_: bytes) -> bool:
        """Whether a page of which we know is missing its content, which has this hash."""
        content = self._contents.find(hash_)
        if content is None or self._pages.get(content.page) is not content:
            return False
        return self.player.machine.is_missing(content.page)

    # --- looking ---

    def read_memory(self, address: int, size: int) -> bytes:
        """As Machine.read_memory; brings pages that are not here yet."""
        machine = self.player.machine
        pages = machine.config.ram_size // PAGE_SIZE
        first = max((address - RAM_BASE) // PAGE_SIZE, 0)
        last = min((address + size - 1 - RAM_BASE) // PAGE_SIZE, pages - 1)
        for index in range(first, last + 1):
            if machine.is_missing(index):
                self._bring_page(index)
        return machine.read_memory(address, size)
