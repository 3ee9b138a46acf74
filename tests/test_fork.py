# SPDX-License-Identifier: GPL-2.0-or-later
"""Forks: a recording that goes on from another one's past, alone or with it, is one history in every respect.

An unchanged fork that is given the same events must be the parent again, whatever the guest, the clock, the capture
and the position; a changed one must differ where the change is first noticed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from recordings import CREATED, Recorded, record

from vmrec.diff.first import Same, diff
from vmrec.events import Poke, SetRegister
from vmrec.machine.machine import Digest
from vmrec.record.fork import Fork
from vmrec.record.session import Ended, LiveRun, World
from vmrec.record.sources import ChaosClock, InputPlan, KeptEvents, ScriptedInput, SeededEntropy
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader
from vmrec.trace.writer import TraceWriter

ECHO = ((300, b"hello\n"), (900, b"wor"), (901, b"ld\n"), (1_700, b"quit\n"))


@dataclass(frozen=True)
class Forked:
    """A fork, and how it ended."""

    path: Path
    ended: Ended
    digest: Digest
    console: bytes


def fork(
    parent: Path,
    position: int,
    path: Path,
    *,
    keep: bool = True,
    edits: tuple[Poke | SetRegister, ...] = (),
    script: tuple[tuple[int, bytes], ...] = (),
    capture: str = "inputs",
    included: bool = False,
    max_insns: int | None = None,
) -> Forked:
    """Forks as `vmrec fork` does."""
    with TraceReader(parent) as trace, Fork(trace, position) as forked:
        machine = forked.machine
        seed, pulled = forked.seed, forked.pulled()
        assert seed is not None
        stepped = machine.config.time_rule == "stepped"
        header = forked.header(
            path, capture=capture, seed=seed, pulled=pulled, chaos=forked.chaos, included=included, created=CREATED
        )
        sink = forked.sink(TraceWriter(path, header), included=included)
        world = World(
            SeededEntropy(seed, pulled),
            InputPlan(ScriptedInput(script)),
            ChaosClock(forked.chaos or 0, position, machine.clock_ticks) if stepped else None,
            forked.kept() if keep else KeptEvents(),
            edits,
        )
        console: list[bytes] = []
        run = LiveRun(
            machine, world, sink=sink, console=console.append, capture=capture == "full", max_insns=max_insns
        )
        ended = run.run()
        sink.close(machine, ended)
        return Forked(path, ended, machine.digest(), b"".join(console))


def replays(path: Path) -> Digest:
    """Replays from the start, everything compared; the digest at the end."""
    with TraceReader(path) as trace, Player(trace, check_rows=True) as player:
        assert player.run() is None, player.divergence
        return player.machine.digest()


CASES: dict[str, Callable[[Path], Recorded]] = {
    "race": lambda path: record(path, "race"),
    "race-chaos": lambda path: record(path, "race", chaos=3),
    "timer": lambda path: record(path, "timer"),
    "timer-chaos": lambda path: record(path, "timer", chaos=5),
    "echo": lambda path: record(path, "echo", script=ECHO),
    "dice": lambda path: record(path, "dice", seed=9),
    "traps": lambda path: record(path, "traps"),
    "lrsc64": lambda path: record(path, "lrsc64"),
    "fp": lambda path: record(path, "fp"),
    "smc": lambda path: record(path, "smc"),
    "counters": lambda path: record(path, "counters"),
}


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recorded]:
    """Recordings to fork, each made once."""
    folder = tmp_path_factory.mktemp("parents")
    made: dict[str, Recorded] = {}

    def parent(name: str) -> Recorded:
        if name not in made:
            made[name] = CASES[name](folder / f"{name}.vmrec")
        return made[name]

    return parent


def places(parent: Recorded, count: int = 4) -> list[int]:
    """Positions to fork at: the first, the last but one, where something came in, and others."""
    rng = random.Random(parent.ended.position)
    with TraceReader(parent.path) as trace:
        events = [record.position for record in trace.records()]
    found = {0, 1, parent.ended.position - 1, *rng.sample(events, min(count, len(events)))}
    return sorted(found | {rng.randrange(parent.ended.position) for _ in range(count)})


@pytest.mark.parametrize("name", CASES)
def test_an_unchanged_fork_is_its_parent_again(
    name: str, parents: Callable[[str], Recorded], tmp_path: Path
) -> None:
    parent = parents(name)
    before = hashlib.sha256(parent.path.read_bytes()).digest()

    for number, position in enumerate(places(parent)):
        capture = ("inputs", "full")[number % 2]
        child = fork(parent.path, position, tmp_path / f"{position}.vmrec", capture=capture, included=number % 3 == 2)
        assert (child.ended.position, child.ended.reason) == (parent.ended.position, parent.ended.reason), position
        assert child.digest == parent.digest, position
        assert parent.console.endswith(child.console)
        assert replays(child.path) == parent.digest
        with TraceReader(parent.path) as a, TraceReader(child.path) as b:
            assert isinstance(diff(a, b), Same)
            assert list(a.records()) == list(b.records())

    assert hashlib.sha256(parent.path.read_bytes()).digest() == before
