# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing of the host shows in a recording: its load, the engine's caches, what is captured, where runs are cut.

The guest edits page tables that are in use (guests/live-tables.c), for which the manual allows a hart to go on with
what it has cached: whatever can depend on caches would show in it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from machines import shipped
from recordings import CREATED

from vmrec.guest.elf import ElfFile, Guest, parse_guest
from vmrec.machine import machine as machine_module
from vmrec.machine.board import GRID, RAM_BASE, MachineConfig
from vmrec.machine.cpu import open_engine
from vmrec.machine.machine import Engine, Machine
from vmrec.record import recorder
from vmrec.record.recorder import TraceSink, make_header
from vmrec.record.session import LiveRun, World
from vmrec.record.sources import SeededEntropy
from vmrec.replay.player import Player
from vmrec.replay.timeline import MachineState, State, Timeline
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

LONG = 600_000  # rounds: beyond three positions of the grid
SHORT = 20_000
Digests = list[tuple[int, bytes]]


def live_tables(rounds: int, name: str = "live-tables") -> Guest:
    """The guest with as many rounds."""
    elf = shipped(name)
    address = next(symbol.address for symbol in ElfFile(elf.data, name).symbols() if symbol.name == "rounds")
    segment = next(part for part in elf.segments if part.address <= address < part.address + len(part.data))
    place = elf.data.index(segment.data) + address - segment.address
    assert elf.data[place : place + 4] == struct.pack("<I", 40_000)
    return parse_guest(elf.data[:place] + struct.pack("<I", rounds) + elf.data[place + 4 :], name)


def record(path: Path, rounds: int, *, capture: str = "inputs", name: str = "live-tables", **options: Any) -> Digests:
    """Records it, and returns the digests by position."""
    elf = live_tables(rounds, name)
    with Machine(MachineConfig(isa=f"rv{elf.xlen}gcsu", ram_size=1 << 20), elf, **options) as machine:
        header = make_header(machine, capture=capture, seed=1, chaos=None, created=CREATED)
        sink = TraceSink(TraceWriter(path, header))
        ended = LiveRun(machine, World(SeededEntropy(1)), sink=sink, capture=capture == "full").run()
        sink.close(machine, ended)
    assert (ended.reason, ended.exit_code) == ("poweroff", 0)
    return digests_in(path)


def digests_in(path: Path) -> Digests:
    with TraceReader(path) as reader:
        return [(mark.position, mark.value) for mark in reader.digests]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.vmrec"
    assert [position for position, _ in record(path, LONG)][:3] == [GRID, 2 * GRID, 3 * GRID]
    return path


def replayed(path: Path, engine: Engine = "auto") -> bool:
    with TraceReader(path) as reader, Player(reader, engine=engine) as player:
        return player.run() is None and player.compared > 0


# ------------------------------------------------------------------------------------------------------ the engine


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Machines whose engine keeps so little code that it forgets all of it again and again; as many as were made."""
    made = []

    def open_small(xlen: int) -> tuple[Any, Any]:
        owner, handle = open_engine(xlen)
        owner.ctl_set_tcg_buffer_size(1 << 20)
        assert owner.ctl_get_tcg_buffer_size() == 1 << 20
        made.append(xlen)
        return owner, handle

    monkeypatch.setattr(machine_module, "open_engine", open_small)
    yield made
    assert made


def test_the_size_of_the_translation_cache_does_not_show(long: Path, small_cache: list[int], tmp_path: Path) -> None:
    assert replayed(long)
    assert record(tmp_path / "small.vmrec", LONG) == digests_in(long)


@pytest.mark.parametrize("options", [{}, {"inline": False}], ids=["inlined", "called"])
@pytest.mark.parametrize("capture", ["inputs", "full"])
@pytest.mark.parametrize("name", ["live-tables", "live-tables32"])
def test_what_is_captured_does_not_show(name: str, capture: str, options: dict[str, bool], tmp_path: Path) -> None:
    plain = record(tmp_path / "plain.vmrec", SHORT, name=name)
    assert record(tmp_path / "other.vmrec", SHORT, name=name, capture=capture, **options) == plain
    for engine in ("auto", "engine", "stepper"):
        assert replayed(tmp_path / "other.vmrec", engine)


def test_the_spacing_of_checkpoints_does_not_show(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "CHECKPOINT_STEPS", GRID)
    monkeypatch.setattr(recorder, "KERNEL_CHECKPOINT_STEPS_PER_PAGE", 0)
    often = tmp_path / "often.vmrec"
    assert record(often, LONG) == digests_in(long)
    with TraceReader(often) as many, TraceReader(long) as few:
        assert len(many.checkpoints) > len(few.checkpoints)
        for mark in many.checkpoints[-2:]:
            with Player(many, checkpoint=mark) as player:
                assert player.run() is None


# -------------------------------------------------------------------------------------------------- cuts and jumps


def test_where_runs_are_cut_does_not_show(long: Path) -> None:
    """From a checkpoint on, cut at random, each piece by another executor."""
    rng = random.Random(7)
    with TraceReader(long) as reader:
        for _ in range(3):
            with Player(reader, checkpoint=reader.checkpoints[-1]) as player:
                while player.machine.position < reader.last_position - 1000:
                    player._engine = rng.choice(("auto", "engine", "stepper"))
                    ahead = player.machine.position + rng.choice((1, 7, 999, rng.randrange(400_000)))
                    assert player.run_to(min(ahead, reader.last_position)) is None
                assert player.run() is None


def seen(state: State) -> tuple[Any, ...]:
    """Registers and memory."""
    return state.pc, state.privilege, state.regs, state.csrs, state.read_memory(RAM_BASE, 1 << 20)


def test_the_way_to_a_position_does_not_show(long: Path) -> None:
    """Seeks forwards and backwards see the state that a straight replay sees."""
    rng = random.Random(11)
    with TraceReader(long) as reader, Player(reader) as player, Timeline(reader) as timeline:
        places = sorted(rng.randrange(reader.last_position) for _ in range(12))
        straight = {}
        for place in places:
            assert player.run_to(place) is None
            straight[place] = seen(MachineState(player.machine, player.machine.read_memory))
        rng.shuffle(places)
        for place in places:
            timeline.seek(place)
            assert seen(timeline.state) == straight[place]


# ------------------------------------------------------------------------------------------------------------- load


def test_load_does_not_show(long: Path) -> None:
    """More processes than processors, each replaying the same recording."""
    with ProcessPoolExecutor(4) as pool:
        assert all(pool.map(replayed, [long] * 4))
