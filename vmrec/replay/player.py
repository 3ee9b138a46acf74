# SPDX-License-Identifier: GPL-2.0-or-later
"""The player: a machine that is given a trace's events, and whose outputs and digests are compared with it.

    TraceReader ──events──▶ Machine ──outputs, digests──▶ compared
                ──rows────▶ (check mode of the native core)

The order at one position is that of record/session.py: outputs of earlier steps, then observations at a grid
position, then events. A wait that no event of the trace ends at its position is ended by its deadline, as it was in
the recording.

A player starts at position 0 or at a checkpoint, and only goes forward; whoever wants to go back makes another one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from vmrec.errors import TraceError, UsageError
from vmrec.events import OUTPUT_KINDS, Disk, Entropy, Event, Input, Poke, from_wire
from vmrec.guest.boot import Boot
from vmrec.guest.elf import Guest, parse_guest
from vmrec.machine.board import GRID, MachineConfig
from vmrec.machine.machine import Engine, Exit, Machine
from vmrec.machine.rows import Columns
from vmrec.replay.ahead import RowsAhead
from vmrec.replay.divergence import Divergence
from vmrec.replay.feed import Feed, Records
from vmrec.trace.codec import unpack_own
from vmrec.trace.layout import FORK_VERSION
from vmrec.trace.objects import CheckpointMark
from vmrec.trace.reader import TraceReader

__all__ = ["Player", "trace_config", "trace_guest"]

_FAR = 2**64 - 1
#: Without a look at every digest: steps from one that is compared to the next. Hashing what a busy guest has stored to
#: costs some 3 % of a replay when it is done at each position of the grid.
SPARSE = GRID << 3


def trace_config(trace: TraceReader) -> MachineConfig:
    """The machine that made the trace. Raises TraceError if this vmrec does not have it."""
    try:
        config = MachineConfig.from_dict(trace.header["machine"])
    except UsageError as error:
        raise TraceError(trace.path, 0, f"cannot be replayed: {error}") from error
    version = trace.header["version"]
    if (config.revision > 1) != (version > FORK_VERSION):
        raise TraceError(
            trace.path, 0, f"cannot be replayed: a machine of revision {config.revision} in format version {version}"
        )
    return config


def trace_guest(trace: TraceReader) -> Guest:
    """The guest embedded in the trace. Raises GuestError if it is damaged, TraceError if it is another one."""
    header = trace.header["guest"]
    if "boot" in trace.header:
        return _booted(trace)
    guest = parse_guest(header["elf"], header["name"])
    if guest.hash != header["hash"]:
        raise TraceError(trace.path, 0, "holds another guest than its header says; record it again")
    return guest


def _booted(trace: TraceReader) -> Guest:
    """A guest made of images. What they have in RAM is in the checkpoint at position 0."""
    header, boot, config = trace.header["guest"], trace.header["boot"], trace_config(trace)
    try:
        parts = Boot.from_dict(boot)
    except UsageError as error:
        raise TraceError(trace.path, 0, f"cannot be replayed: {error}") from error
    return Guest(
        name=header["name"],
        path=header["name"],
        data=header["elf"],
        hash=header["hash"],
        xlen=config.profile.xlen,
        entry=parts.entry,
        segments=(),
        isa=config.isa,
        tohost=None,
        boot=parts,
        more_elfs=tuple(file["elf"] for file in boot["symbols"]),
    )


class Player:
    """Replays `trace` from `checkpoint` (from the start if None). A context manager.

    `console` gets the guest's console bytes. With `check_rows` each step of a full trace is compared with its row.
    Every output is compared, and every digest; without `every_digest` that at the end and those `SPARSE` steps apart.
    Raises TraceError or GuestError if the trace cannot be replayed here.
    """

    def __init__(
        self,
        trace: TraceReader,
        *,
        checkpoint: CheckpointMark | None = None,
        console: Callable[[bytes], None] | None = None,
        check_rows: bool = False,
        every_digest: bool = True,
        engine: Engine = "auto",
    ) -> None:
        self.trace = trace
        self.config = trace_config(trace)
        self.guest = trace_guest(trace)
        self.machine = Machine(self.config, self.guest)
        self._console = console
        self._engine: Engine = engine
        self._spacing = GRID if every_digest else SPARSE
        # A trace that ends at the grid has two digests there: before and after the events at its end.
        self._digests = {mark.position: mark for mark in reversed(trace.digests)}
        self._last_digest = trace.digests[-1] if trace.digests else None
        self._end = trace.end
        self._covered = 0
        self.records = Records(trace)  #: the trace's events and outputs
        self._rows: RowsAhead | None = None
        self._row_limit = _FAR
        self._columns: Columns | None = None
        self.divergence: Divergence | None = None
        self.last_good = 0
        self.exit = Exit.POSITION  # what the machine came back with last
        #: Brings a missing page here, and says whether it could. A drive's block that nobody touched comes from events.
        self.page_source: Callable[[int], bool] | None = None
        self.compared = 0  # outputs and digests that agreed
        self.rows_checked = 0  # steps whose rows agreed
        try:
            if self.guest.boot is not None:
                self._put_initial()
            if checkpoint is not None and checkpoint.position:
                self._restore(checkpoint)
            first = self.machine.position
            self.last_good = first
            self._feed = Feed(self.records, first)
            self._next_grid = (first // GRID + 1) * GRID
            if check_rows and trace.rows_from is not None:
                self._rows = RowsAhead(trace, first)
                self._row_limit = max(trace.rows_from, first)
                if self._row_limit == first:
                    self._next_rows()
        except BaseException:
            self.close()
            raise

    def _put_initial(self) -> None:
        """What the images have in RAM at reset: the pages come when they are touched."""
        mark = next(iter(self.trace.checkpoints), None)
        if mark is None or mark.position:
            raise TraceError(self.trace.path, None, "does not hold what was in memory at reset; record it again")
        try:
            self.machine.put_initial(self.trace.page_hashes(mark))
        except UsageError as error:
            raise TraceError(self.trace.path, None, f"the checkpoint at 0: {error}") from error
        self.page_source = self._bring_initial

    def _bring_initial(self, index: int) -> bool:
        hash_ = self.machine.initial_pages.get(index)
        if hash_ is None:
            return False
        self.machine.put_page(index, self.trace.page(hash_), hash_)
        return True

    def bring_all(self) -> None:
        """Brings every page that is not here yet: for whoever goes on without the trace."""
        for index in self.machine.initial_pages:
            if self.machine.is_missing(index) and self.page_source is not None:
                self.page_source(index)

    def _restore(self, checkpoint: CheckpointMark) -> None:
        state, _ = self.trace.checkpoint(checkpoint)
        try:
            # Of images, what nobody has stored to stays in the trace until it is touched.
            here = self.machine.initial_pages if self.guest.boot is not None else None
            for index, content in self.trace.contents(checkpoint, here):
                self.machine.set_page(index, content)
            self.machine.set_state(state)
        except UsageError as error:
            raise TraceError(self.trace.path, None, f"the checkpoint at {checkpoint.position}: {error}") from error
        if self.machine.position != checkpoint.position:
            raise TraceError(self.trace.path, None, f"the checkpoint at {checkpoint.position} holds another position")

    def close(self) -> None:
        """Gives the machine back."""
        self._leave_rows()
        self.machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_position(self) -> int:
        """The last position that the trace covers."""
        return self.trace.last_position

    def run(self) -> Divergence | None:
        """Replays to the end of the trace and compares how it ended."""
        return self.run_to(self.last_position) or self.finish() or self._compare_end()

    def run_to(self, position: int) -> Divergence | None:
        """Replays until `position` (not beyond the trace) and returns the divergence met, if any.

        Returns earlier when the machine's attention was called, or a point log is full: `exit` says so. At `position`
        itself, events have not been given yet. Raises UsageError for a position that is behind.
        """
        if position < self.machine.position:
            raise UsageError(f"the player is at {self.machine.position} and cannot go back to {position}")
        if position > self._covered:
            self._covered = self.last_position  # reads the file, which may have grown
        target = min(position, self._covered)
        while self.divergence is None and self.machine.position < target and not self.machine.stopped:
            self._advance(target)
            if self.exit is Exit.POINT or self.exit is Exit.ATTENTION:
                break
        return self.divergence

    def place(self, frame: int | None = None) -> None:
        """To be told that the machine was given another state, and so another position.

        `frame`: the one with the checkpoint, if it is that of one: what happened there and later was written behind it.
        What diverged before is forgotten. Rows are not compared from here on.
        """
        position = self.machine.position
        self._feed = Feed(self.records, position, frame)
        self._next_grid = (position // GRID + 1) * GRID
        self._leave_rows()
        self.divergence, self.last_good, self.exit = None, position, Exit.POSITION

    # --- one stretch ---

    def _advance(self, target: int) -> None:
        machine = self.machine
        if not self._give_events():
            return
        until = min(target, self._next_grid, self._row_limit)
        until = max(self._feed.barrier(machine.position, until), machine.position + 1)
        self.exit = exit_ = machine.run(until, engine=self._engine)
        self._compare_outputs()
        if self.divergence is not None:
            return
        if exit_ is Exit.DIVERGED:
            self._row_differs()
            return
        if machine.position == self._row_limit and (self._columns is None or self._end_rows()):
            self._next_rows()
        if machine.position == self._next_grid:
            self._observe()
        self._handle(exit_)

    def _handle(self, exit_: Exit) -> None:
        """Does what the machine came back for."""
        machine = self.machine
        if exit_ is Exit.PULL:
            self._supply()
        elif exit_ is Exit.MISSING_PAGE:
            if self.page_source is None or not self.page_source(machine.missing_page):
                self._supply_block()
        elif exit_ is Exit.WAITING:
            self._diverge("event", None, "waiting", "the guest waits for an event that the trace does not have")
        elif exit_ is Exit.STOPPED and machine.position < self.last_position:
            self._diverge("end", self.last_position, machine.position, f"the machine stopped: {machine.stop_reason}")

    def finish(self) -> Divergence | None:
        """At the last position: gives the events there, and lets the machine stop itself if it did, without a step."""
        machine = self.machine
        if self._end is not None and not machine.stopped and self._give_events() and self._end.get("stopped"):
            machine.run(machine.position + 1, engine=self._engine)
            self._compare_outputs()
        return self.divergence

    def settle(self) -> Divergence | None:
        """At a position before the last: does what comes before the instruction of the next step.

        Gives the events there, ends a wait, enters an interrupt; then the machine's pc is that of the next step.
        """
        machine = self.machine
        while self.divergence is None and machine.position < self.last_position and self._give_events():
            exit_ = machine.settle()
            self._compare_outputs()
            if exit_ is Exit.POSITION:
                break
            self._handle(exit_)
        return self.divergence

    def _give_events(self) -> bool:
        """Gives all events at the current position. False if the trace's next event lies behind."""
        machine = self.machine
        while (obj := self._feed.peek(machine.position)) is not None:
            event = self._event(obj)
            if event is None:
                return True  # an output: it is compared when the machine makes one
            if event.position < machine.position:
                message = f"the machine went past position {event.position} without the event that belongs there"
                self._diverge("event", event.wire(), None, message, event.position)
                return False
            if isinstance(event, Entropy | Disk):
                return True  # the machine asks for it in its next step
            self._feed.next()
            taken = self._push(event)
            if isinstance(event, Input) and taken != len(event.data):
                self._diverge("event", event.wire(), taken, "the receiver took fewer bytes than recorded")
                return False
        return True

    def _push(self, event: Event) -> int:
        """Applies an event; returns what `Machine.push` does."""
        assert not isinstance(event, Entropy | Disk)
        if self.page_source is not None:
            if isinstance(event, Poke):
                for index in self.machine.missing_in(event.address, len(event.data)):
                    self.page_source(index)
            while isinstance(event, Input) and (needed := self.machine.input_needs) is not None:
                self.page_source(needed)
        try:
            return self.machine.push(event)
        except UsageError as error:
            raise TraceError(self.trace.path, None, f"the {event.kind} at {event.position}: {error}") from error

    def _event(self, obj: list[Any]) -> Event | None:
        try:
            record = from_wire(obj)
        except ValueError as error:
            raise TraceError(self.trace.path, None, f"at position {obj[1]}: {error}") from error
        return record if isinstance(record, Event) else None

    def _supply(self) -> None:
        machine = self.machine
        obj = self._feed.peek(machine.position)
        event = None if obj is None else self._event(obj)
        if not isinstance(event, Entropy) or event.position != machine.position:
            self._diverge("event", obj, "entropy", "the guest pulls entropy where the trace has none")
        elif len(event.data) != machine.pull_size:
            self._diverge("event", len(event.data), machine.pull_size, "the guest pulls another number of bytes")
        else:
            self._feed.next()
            machine.supply(event)

    def _supply_block(self) -> None:
        """The guest needs a block of a drive that nobody had touched before."""
        machine = self.machine
        wanted = machine.missing_block
        assert wanted is not None  # pages of RAM are here, or the page source has them
        obj = self._feed.peek(machine.position)
        event = None if obj is None else self._event(obj)
        if not isinstance(event, Disk) or (event.position, event.drive, event.block) != (machine.position, *wanted):
            there = f"has block {event.block} of drive {event.drive}" if isinstance(event, Disk) else "has none"
            message = f"the guest needs block {wanted[1]} of drive {wanted[0]} where the trace {there}"
            self._diverge("event", obj, ["disk", machine.position, *wanted], message)
            return
        self._feed.next()
        machine.supply_block(event, self.trace.page(event.hash))

    # --- comparing ---

    def _compare_outputs(self) -> None:
        packed = self.machine.take_outputs()
        if not packed:
            return
        outputs = unpack_own(packed)
        if self.divergence is None:
            agreed = self._feed.pass_equal(outputs)
            self.compared += agreed
            if agreed < len(outputs):
                self._output_differs(outputs[agreed])
                del outputs[agreed:]
        console = b"".join([output[2] for output in outputs if output[0] == "console"])
        if self._console is not None and console:
            self._console(console)

    def _output_differs(self, actual: list[Any]) -> None:
        # That of a later position is no answer, but the report names it.
        expected = self._feed.peek(actual[1]) or self._feed.peek(_FAR)
        if expected is not None and expected[0] not in OUTPUT_KINDS:
            expected = None
        self._diverge("output", expected, actual, "the guest's output differs", actual[1])

    def _missed_output(self, before: int) -> bool:
        """Does the trace have an output before this position that the replay did not make?"""
        obj = self._feed.peek(before - 1)
        if obj is None or obj[0] not in OUTPUT_KINDS:
            return False
        self._diverge("output", obj, None, "an output of the recording was not made", obj[1])
        return True

    def _observe(self) -> None:
        position = self.machine.position
        self._next_grid += GRID
        if self._missed_output(position):
            return
        mark = self._digests.get(position)
        if mark is not None and position % self._spacing == 0:
            self._compare_digest(mark.value)

    def _compare_digest(self, expected: bytes) -> None:
        digest = self.machine.digest()
        if digest.value == expected:
            self.compared += 1
            self.last_good = digest.position
        else:
            self._diverge("digest", expected, digest.value, "the machine's state differs from the recorded digest")

    def _compare_end(self) -> Divergence | None:
        machine = self.machine
        if self.divergence is not None:
            return self.divergence
        if self._row_limit != _FAR and self._columns is not None and not self._end_rows():
            return self.divergence
        if self._missed_output(_FAR):
            return self.divergence
        mark = self._last_digest
        if self._end is not None and mark is not None and mark.position == machine.position == self.last_position:
            self._compare_digest(mark.value)
        return self.divergence

    def _diverge(self, kind: str, expected: Any, actual: Any, message: str, position: int | None = None) -> None:
        if self.divergence is None:
            at = self.machine.position if position is None else position
            self.divergence = Divergence(kind, at, self.last_good, expected, actual, message, self.machine.pc)

    # --- rows ---

    def _next_rows(self) -> None:
        """Takes up the next rows object of the trace, or none."""
        lib, vm, _ = self.machine.native
        assert self._rows is not None
        found = next(self._rows, None)
        if found is None:
            self._row_limit = _FAR
            return
        first, last, columns = found
        if first != self.machine.position:
            raise TraceError(self.trace.path, None, f"has no rows for the steps {self.machine.position} to {first}")
        for number, block in columns.definitions:
            if number == 0:
                lib.vm_check_forget(vm)
            if lib.vm_check_define(vm, number, block.pc, block.steps, block.trap, block.code, len(block.code)):
                raise TraceError(self.trace.path, None, f"rows at position {first}: block {number} out of order")
        self._columns = columns  # the native core reads from them
        if lib.vm_check_begin(
            vm, columns.ids, columns.blocks, columns.addresses, columns.values, columns.accesses
        ):
            raise TraceError(self.trace.path, None, f"rows at position {first}: a block that is not defined")
        self._row_limit = last

    def _leave_rows(self) -> None:
        """Rows are not compared from here on."""
        if self._rows is not None:
            self._rows.close()
        self._rows, self._row_limit = None, _FAR

    def _end_rows(self) -> bool:
        """Compares the rows up to here to their end. False if they differ."""
        lib, vm, _ = self.machine.native
        if not lib.vm_check_end(vm):
            self._row_differs()
            return False
        self.rows_checked = self.machine.position
        return True

    def _row_differs(self) -> None:
        lib, vm, ffi = self.machine.native
        result = ffi.new("check_result *")
        lib.vm_check_result(vm, result)
        what = ("", "path", "access address", "access value", "trap", "number of rows")[result.what]
        self.divergence = Divergence(
            "row",
            int(result.position),
            self.last_good,
            int(result.expected),
            int(result.actual),
            f"the executed row differs from the captured one: {what}",
            int(result.pc),
        )
