# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder: a live run's history, written to a trace by a second thread.

    LiveRun ──▶ TraceSink (this thread: collects) ──▶ queue of batches ──▶ TraceWriter (its own thread: compresses)

The run never waits for the disk, unless the queue is full. What goes wrong in the writer comes out of the next call
here, at the latest of `close`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from vmrec import __version__
from vmrec.events import Event
from vmrec.machine.board import GRID, PAGE_SIZE
from vmrec.machine.machine import Captured, Machine
from vmrec.record.session import Ended
from vmrec.trace.codec import pack
from vmrec.trace.writer import FRAME_PAGES, TraceWriter

__all__ = ["TraceSink", "make_header"]

#: Batches that may wait for the writer. A batch of rows is some 2 MiB.
QUEUE_MAX = 8
#: Packed bytes that are handed over without waiting for the next tick.
BATCH_BYTES = 512 << 10
#: A digest costs a hash for each page that was stored to since the one before. Where many are, not every grid position
#: has one, but each second, fourth or eighth, so that a page has paid for its hash with so many steps. It is every
#: eighth that a replay compares which was not asked for more.
DIGEST_STEPS_PER_PAGE = 1 << 16
DIGEST_STEPS_MAX = GRID << 3
#: Checkpoints are at least this far apart; further, if much of RAM changes (a position's worth of page content must
#: not cost more than the log). All of that depends on machine state only.
CHECKPOINT_STEPS = 1 << 25
CHECKPOINT_STEPS_PER_PAGE = 1 << 17
CHECKPOINT_STEPS_MAX = 1 << 30
#: A kernel changes many pages and is slower than a plain loop, so the way from a checkpoint must not get as long; its
#: pages compress well. At worst these are 125 MB in 10^9 steps before compression.
KERNEL_CHECKPOINT_STEPS_PER_PAGE = 1 << 15
#: So often at least a checkpoint names every page that ever changed, so that a reader need not go through all before;
#: and whenever these are at most so many times those that it would name anyway.
WHOLE_EVERY, WHOLE_WITHIN = 8, 2


def make_header(
    machine: Machine, *, capture: str, seed: int | None, chaos: int | None, created: str,
    drives: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:  # fmt: skip
    """The header of a recording that `machine` is about to make. `created`: wall-clock time, for people only.

    `drives`: what each image was (`vmrec.trace.layout.MAPS["drive"]`), if there are drives.
    """
    guest = machine.guest
    boot: dict[str, Any] = {}
    if guest.boot is not None:
        symbols = [{"name": f"symbols-{number}", "elf": elf} for number, elf in enumerate(guest.more_elfs, 1)]
        boot = {"boot": {**guest.boot.to_dict(), "symbols": symbols}}
    header = {
        "machine": machine.config.to_dict(),
        "guest": {"name": guest.name, "elf": guest.data, "hash": guest.hash},
        **boot,
        "capture": capture,
        "seed": seed,
        "chaos": chaos,
        "recorder": f"vmrec {__version__}",
        "created": created,
    }
    return {**header, "drives": [dict(note) for note in drives]} if drives else header


@dataclass(frozen=True, slots=True)
class _Piece:
    """Packed objects for one `TraceWriter.append`; put together by the writer's thread."""

    parts: tuple[bytes, ...]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Page:
    hash: bytes
    content: bytes


class _Cut:
    """What comes behind gets frames of its own."""


class TraceSink:
    """A `vmrec.record.session.Sink` that writes a trace. `close` must be called, `abort` after an error.

    As a context manager it does the latter.
    """

    def __init__(self, writer: TraceWriter, *, start: int = 0, known: Mapping[int, bytes] | None = None) -> None:
        """`start`: the position at which the recording begins; `known`: pages (index → hash) changed before.

        The contents of known pages are there already, in the trace or in its parent.
        """
        self.writer = writer
        self.events = 0
        known = known or {}
        self._contents = frozenset(known.values())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vmrec-writer")
        self._running: deque[Future[None]] = deque()
        self._batch: list[_Piece | _Page | _Cut] = []
        self._small: list[bytes] = []
        self._small_first = 0
        self._size = 0
        self._last = start
        self._checkpoint = start
        self._ever_changed: dict[int, bytes] = dict(known)  # the hash of each page as of the last checkpoint
        self._since_whole = WHOLE_EVERY if start or known else 0  # the first of a fork names every page

    def begin(self, machine: Machine) -> None:
        """To be called before a run: what a guest made of images has in RAM at reset goes to disk."""
        if machine.guest.boot is None or self._contents:  # of a fork, the parent has it
            return
        for index, hash_ in machine.initial_pages.items():
            self._batch.append(_Page(hash_, machine.page(index)))
        self._ever_changed |= machine.initial_pages
        changed = [[index, hash_] for index, hash_ in machine.initial_pages.items()]
        self._add(pack(["checkpoint", 0, machine.state(), changed]), 0, 0)
        self.flush(machine)

    # --- the Sink ---

    def outputs(self, packed: bytes, position: int) -> None:
        """Outputs of steps before `position`."""
        self._add_small(packed, position)

    def event(self, event: Event) -> None:
        """An event at its position."""
        self.events += 1
        self._add_small(pack(event.wire()), event.position)

    def content(self, hash_: bytes, content: bytes) -> None:
        """The content of a block that the next event names."""
        if hash_ not in self._contents:
            self._end_small()
            self._batch.append(_Page(hash_, content))
            self._size += PAGE_SIZE

    def observe(self, machine: Machine) -> None:
        """A digest at a grid position, if not too much has changed for it, and now and then a checkpoint."""
        spacing = GRID
        while spacing < min(machine.dirty_pages * DIGEST_STEPS_PER_PAGE, DIGEST_STEPS_MAX):
            spacing *= 2
        if machine.position % spacing:
            return
        digest = machine.digest()
        self._add(pack(["digest", machine.position, digest.to_dict()]), machine.position, machine.position)
        pages = machine.changed_pages
        per_page = KERNEL_CHECKPOINT_STEPS_PER_PAGE if machine.config.supervisor else CHECKPOINT_STEPS_PER_PAGE
        distance = max(CHECKPOINT_STEPS, min(pages * per_page, CHECKPOINT_STEPS_MAX))
        if machine.position - self._checkpoint >= distance // GRID * GRID:
            self._write_checkpoint(machine)
        if self._size >= BATCH_BYTES:
            self._hand_over(flush=False)

    def rows(self, captured: Captured) -> None:
        """Captured rows, as they come from the native core."""
        prefix = b"\x94" + pack("rows") + pack(captured.first) + pack(captured.last)
        self._end_small()
        self._batch.append(_Piece((prefix, captured.columns), captured.first, max(self._last, captured.last)))
        self._last = max(self._last, captured.last)
        self._size += len(captured.columns)
        if self._size >= BATCH_BYTES:
            self._hand_over(flush=False)

    def tick(self, machine: Machine) -> None:
        """Everything so far goes to disk, and that nothing else has happened."""
        self._add(b"", machine.position, machine.position)
        self._hand_over(flush=True)

    def flush(self, machine: Machine) -> None:
        """As `tick`, and it is in the file when this returns."""
        self.tick(machine)
        self._wait(0)

    # --- the end ---

    def close(self, machine: Machine, ended: Ended) -> None:
        """Writes the last digest and how the run ended, and closes the trace."""
        position = machine.position
        digest = machine.digest()
        self._add(pack(["digest", position, digest.to_dict()]), position, position)
        end: Mapping[str, Any] = {
            "reason": ended.reason,
            "exit_code": ended.exit_code,
            "icount": ended.icount,
            "stopped": machine.stopped,
        }
        self._add(pack(["end", position, end]), position, position)
        self._hand_over(flush=True)
        try:
            self._wait(0)
            self._thread.submit(self.writer.close).result()
        finally:
            self._thread.shutdown()

    def abort(self) -> None:
        """Closes the trace as it is, after an error."""
        self._thread.shutdown(cancel_futures=True)
        self.writer.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.abort()

    # --- collecting ---

    def _add_small(self, packed: bytes, position: int) -> None:
        if not self._small:
            self._small_first = self._last
        self._small.append(packed)
        self._size += len(packed)
        self._last = max(self._last, position)
        if self._size >= BATCH_BYTES:
            self._hand_over(flush=False)

    def _end_small(self) -> None:
        if self._small:
            self._batch.append(_Piece(tuple(self._small), self._small_first, self._last))
            self._small.clear()

    def _add(self, packed: bytes, first: int, last: int) -> None:
        self._end_small()
        self._batch.append(_Piece((packed,), min(first, self._last), last))
        self._last = max(self._last, last)
        self._size += len(packed)

    def _write_checkpoint(self, machine: Machine) -> None:
        pages = machine.take_changed()
        self._since_whole += 1
        self._ever_changed |= pages
        self._end_small()
        fresh = {index: hash_ for index, hash_ in pages.items() if hash_ not in self._contents}
        if len(fresh) >= FRAME_PAGES:  # who goes on from the checkpoint before reads events and no contents
            self._batch.append(_Cut())
        for index, hash_ in fresh.items():
            self._batch.append(_Page(hash_, machine.page(index)))
            self._size += PAGE_SIZE
        if self._since_whole >= WHOLE_EVERY or len(self._ever_changed) <= WHOLE_WITHIN * len(pages):
            pages = dict(sorted(self._ever_changed.items()))
        if len(pages) == len(self._ever_changed):
            self._since_whole = 0
        changed = [[index, hash_] for index, hash_ in pages.items()]
        self._batch.append(_Cut())
        self._add(
            pack(["checkpoint", machine.position, machine.state(), changed]), machine.position, machine.position
        )
        self._batch.append(_Cut())
        self._checkpoint = machine.position

    def _hand_over(self, *, flush: bool) -> None:
        self._end_small()
        batch, self._batch, self._size = self._batch, [], 0
        self._wait(QUEUE_MAX - 1)
        self._running.append(self._thread.submit(self._write, batch, flush))

    def _wait(self, most: int) -> None:
        while self._running and (len(self._running) > most or self._running[0].done()):
            self._running.popleft().result()

    def _write(self, batch: list[_Piece | _Page | _Cut], flush: bool) -> None:
        for piece in batch:
            if isinstance(piece, _Page):
                self.writer.append_page(piece.hash, piece.content)
            elif isinstance(piece, _Cut):
                self.writer.flush()
            else:
                self.writer.append(b"".join(piece.parts), piece.first, piece.last)
        if flush:
            self.writer.flush()
