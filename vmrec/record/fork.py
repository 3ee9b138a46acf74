# SPDX-License-Identifier: GPL-2.0-or-later
"""Forking: a recording, brought to a past position, goes on live from there, with changed state or input.

    parent ──replayed to N──▶ Fork ──machine, header, sink──▶ LiveRun ──▶ child: what happens from N on
                               └──── world: clock, entropy, what is kept of the parent's later events

The child names its parent by hash and holds its own part only; included (`--self-contained`) it holds the parent's
events and checkpoints up to N as well. The parent is only ever read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, Self

from vmrec.errors import PositionError, TraceError, UsageError
from vmrec.events import Disk, Entropy, Poke, SetRegister
from vmrec.guest.elf import Guest
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import PAGE_SIZE, RAM_BASE, MachineConfig
from vmrec.machine.edits import HELD, canonical
from vmrec.machine.machine import Machine
from vmrec.record.drives import BlockSource
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.sources import KeptEvents
from vmrec.replay.rows import checkpoint_before, player_from, replay_error
from vmrec.trace.codec import pack
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

__all__ = ["Fork", "parse_edits"]

#: Edits that one fork may make.
MOST_EDITS = 256


class Fork:
    """`trace` at `position`, events there not yet given, ready to go on live. A context manager.

    Raises PositionError for a position that the trace does not have, UsageError if its machine has ended its run
    there, TraceError if it does not replay as recorded up to there.
    """

    def __init__(self, trace: TraceReader, position: int) -> None:
        last = trace.last_position
        if not 0 <= position <= last:
            raise PositionError(f"{trace.path}: has no position {position} to fork at; it goes from 0 to {last}.")
        self.trace = trace
        self.position = position
        self._point = trace.fork_point(position)
        mark = checkpoint_before(trace, position)
        self._known = {} if mark is None else dict(trace.page_hashes(mark))
        self._player = player_from(trace, mark)
        self.machine: Machine = self._player.machine
        self.guest: Guest = self._player.guest
        try:
            if mark is not None:
                self.machine.take_changed()  # what was put there is no change since the checkpoint
            self._player.bring_all()
            if self._player.run_to(position) is not None:
                assert self._player.divergence is not None
                raise replay_error(trace, self._player.divergence)
            if self.machine.stopped:
                raise UsageError(
                    f"{trace.path}: at position {position} the machine has ended its run ({self.machine.stop_reason}); "
                    f"fork at an earlier one."
                )
            if self.machine.position != position:
                raise TraceError(trace.path, None, f"cannot be replayed to position {position}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Gives the machine back."""
        self._player.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def seed(self) -> int | None:
        """The seed of the parent's entropy, None if it had none."""
        seed: int | None = self._point.header["seed"]
        return seed

    @property
    def chaos(self) -> int | None:
        """The seed of the parent's chaos, None if its clock was another."""
        chaos: int | None = self._point.header["chaos"]
        return chaos

    def pulled(self) -> int:
        """How many bytes of the parent's entropy stream were used before the fork."""
        before = self._point.header.get("parent") or {"position": 0, "pulled": 0}
        if before["position"] > self.position:  # it lies in what a self-contained fork has included
            before = {"position": 0, "pulled": 0}
        records = self.trace.records(before["position"], self.position)
        return int(before["pulled"]) + sum(len(found.data) for found in records if isinstance(found, Entropy))

    def blocks(self, images: BlockSource) -> BlockSource:
        """Blocks of drives: those that the parent was given later on come from it, others from `images`."""
        return _ParentBlocks(self.trace, self.position, images)

    def kept(self) -> KeptEvents:
        """What came into the parent from here on, but for entropy."""
        stepped = self.machine.config.time_rule == "stepped"
        return KeptEvents(self.trace.records(self.position), self.trace.last_position if stepped else 0)

    def header(
        self, child: str | os.PathLike[str], *, capture: str, seed: int, pulled: int, chaos: int | None,
        included: bool, created: str,
    ) -> dict[str, Any]:  # fmt: skip
        """The header of the child, which is going to be at `child`. `pulled`: bytes used of `seed`'s stream before."""
        drives = self.trace.header.get("drives", [])
        header = make_header(self.machine, capture=capture, seed=seed, chaos=chaos, created=created, drives=drives)
        folder = os.path.dirname(os.path.realpath(child))
        name = os.path.relpath(os.path.realpath(self._point.path), folder)
        return {
            **header,
            "machine": self.trace.header["machine"],
            "guest": self.trace.header["guest"],
            **({"boot": self.trace.header["boot"]} if "boot" in self.trace.header else {}),
            "parent": {
                "hash": self._point.hash,
                "frame": self._point.frame,
                "position": self.position,
                "name": name,
                "pulled": pulled,
                "included": int(included),
            },
        }

    def try_edits(self, edits: Iterable[Poke | SetRegister]) -> None:
        """Raises UsageError if the machine cannot take these registers' values. It stays as it is."""
        state = self.machine.state()
        try:
            for edit in edits:
                if isinstance(edit, SetRegister):
                    self.machine.push(edit)
        except UsageError as error:
            raise UsageError(f"--poke: {error}.") from error
        finally:
            self.machine.set_state(state)

    def sink(self, writer: TraceWriter, *, included: bool) -> TraceSink:
        """Where the child's own part goes. With `included` the parent's is written first."""
        if included:
            try:
                self._copy(writer)
            except BaseException:
                writer.abort()
                raise
        return TraceSink(writer, start=self.position, known=self._known)

    def _copy(self, writer: TraceWriter) -> None:
        """Writes the parent's history into the child."""
        for obj in self.trace.history(self.position):
            if obj[0] == "page":
                writer.append_page(obj[1], obj[2])
            else:
                writer.append(pack(obj), obj[1], obj[1])
        writer.append(b"", self.position, self.position)
        writer.flush()


class _ParentBlocks:
    """What a recording was given of its drives from a position on, and then another source."""

    def __init__(self, trace: TraceReader, position: int, others: BlockSource) -> None:
        self._trace = trace
        self._position = position
        self._others = others
        self._known: dict[tuple[int, int], bytes] | None = None

    def block(self, drive: int, block: int) -> bytes:
        """The block's content."""
        if self._known is None:
            records = self._trace.records(self._position)
            self._known = {(found.drive, found.block): found.hash for found in records if isinstance(found, Disk)}
        hash_ = self._known.get((drive, block))
        return self._others.block(drive, block) if hash_ is None else self._trace.page(hash_)


# --------------------------------------------------------------------------------------------------------------- edits


def parse_edits(
    options: Iterable[str], position: int, config: MachineConfig, symbols: Symbols
) -> Sequence[Poke | SetRegister]:
    """The edits that the values of --poke describe, each PLACE=VALUE. Raises UsageError.

    A register takes a number or a symbol. An address (a number, a symbol, or a symbol+offset) takes bytes in
    hexadecimal, two digits each: 0x80001000=deadbeef.
    """
    edits: list[Poke | SetRegister] = []
    for option in options:
        place, sign, text = option.partition("=")
        place, text = place.strip(), text.strip()
        if not sign or not place or not text:
            raise UsageError(
                f"--poke {option!r}: expected ADDRESS=BYTES or REGISTER=VALUE, for example counter=01000000 or a0=0x10."
            )
        if len(edits) == MOST_EDITS:
            raise UsageError(f"--poke: at most {MOST_EDITS} edits; put what is more into the guest or its input.")
        register = _register(config, place)
        if register is not None:
            edits.append(SetRegister(position, register, _value(option, text, config, symbols)))
        else:
            edits.append(Poke(position, _address(option, place, symbols), _bytes(option, text)))
            _check_in_ram(option, edits[-1], config)
    return edits


def _register(config: MachineConfig, name: str) -> str | None:
    """The name of a register by which events call it; None if it is the name of none."""
    try:
        return canonical(config, name)
    except UsageError:
        if name in ("zero", "x0"):
            raise
        return name if name in HELD else None


def _address(option: str, text: str, symbols: Symbols) -> int:
    """What `Symbols.resolve` makes of it; to be no register comes before."""
    try:
        return symbols.resolve(text)
    except UsageError as error:
        raise UsageError(f"--poke {option!r}: {text!r} is no register, and {error}") from error


def _value(option: str, text: str, config: MachineConfig, symbols: Symbols) -> int:
    value = symbols.address(text)
    if value is None:
        raise UsageError(f"--poke {option!r}: {text!r} is neither a number (0x… or decimal) nor a symbol.")
    if value >= 1 << 64:
        raise UsageError(f"--poke {option!r}: the value has more than 64 bits.")
    return value


def _bytes(option: str, text: str) -> bytes:
    digits = text.removeprefix("0x")
    if not re.fullmatch(r"([0-9a-fA-F]{2})+", digits) or len(digits) > 2 * PAGE_SIZE:
        raise UsageError(
            f"--poke {option!r}: {text[:40]!r} is not bytes; write 1 to {PAGE_SIZE} of them in hexadecimal, two digits "
            f"each, as they lie in memory, for example 01000000 for a word of 1."
        )
    return bytes.fromhex(digits)


def _check_in_ram(option: str, edit: Poke | SetRegister, config: MachineConfig) -> None:
    assert isinstance(edit, Poke)
    end = RAM_BASE + config.ram_size
    if not RAM_BASE <= edit.address <= end - len(edit.data):
        raise UsageError(
            f"--poke {option[:80]!r}: {len(edit.data)} bytes at {edit.address:#x} are not in RAM, which goes from "
            f"{RAM_BASE:#x} to {end - 1:#x}; devices change by what the guest does."
        )
