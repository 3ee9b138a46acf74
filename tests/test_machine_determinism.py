# SPDX-License-Identifier: GPL-2.0-or-later
"""Both sides of the claim: equal events give equal runs, whatever the host does; other events give other runs."""

from __future__ import annotations

import random

import pytest
from machines import ENGINES, Run, answer

from vmrec.events import Clock, Entropy, Idle, Input
from vmrec.machine.machine import Engine, Exit

FOREVER = 10**9
GUESTS = (
    "hello", "sort", "timer", "dice", "traps", "smc", "mixed", "counters", "race", "lrsc", "lrsc64", "fp", "loop-smc",
    "paging", "paging32", "live-tables", "live-tables32",
)  # fmt: skip


def finished(name: str, engine: Engine = "auto", chunk: int = FOREVER) -> tuple[int, bytes, bytes]:
    run = Run.of(name)
    position = 0
    while run.to(position + chunk, engine) is not Exit.STOPPED:
        position += chunk
    result = run.machine.position, run.outputs, run.machine.digest().value
    run.close()
    return result


@pytest.mark.parametrize("name", GUESTS)
def test_equal_runs(name: str) -> None:
    first = finished(name)
    assert finished(name) == first
    assert finished(name, "stepper") == first
    assert finished(name, "engine") == first
    for chunk in (9973, 65_537, 1 << 20):
        for engine in ENGINES:
            assert finished(name, engine, chunk) == first


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["timer", "race", "echo", "hello"])
def test_the_live_sides_wishes_change_nothing(name: str, engine: Engine) -> None:
    """Exits for the recorder's sake: the run goes on as if there had been none."""
    plain, watched = Run.of(name), Run.of(name)
    plain.to(FOREVER)
    watched.machine.watch_deadline = watched.machine.rx_paced = True
    exits = 0
    while (exit_ := watched.to(FOREVER, engine)) is not Exit.STOPPED:
        exits += 1
        assert exit_ in (Exit.DEADLINE, Exit.RX_WANTED)
        watched.machine.set_attention()
        assert watched.to(FOREVER, engine) is Exit.ATTENTION
    assert exits > 2
    assert (watched.outputs, watched.machine.digest()) == (plain.outputs, plain.machine.digest())


# --------------------------------------------------------------------------------------------- time by clock events


def scheduled(seed: int, engine: Engine) -> tuple[bytes, int, bytes]:
    """Race with its timer interrupts where the seed puts them."""
    rng = random.Random(seed)
    run = Run.of("race", time_rule="stepped")
    machine = run.machine
    machine.watch_deadline = True
    while run.to(FOREVER, engine) is Exit.DEADLINE:
        deadline = machine.clock_deadline
        if deadline is None or deadline > machine.clock_ticks + 100_000:
            continue  # half of it is written
        if run.to(machine.position + 30_000 + rng.randrange(20_000), engine) is Exit.STOPPED:
            break
        machine.push(Clock(machine.position, deadline))
    result = run.console(), machine.exit_code, machine.digest().value
    run.close()
    return result


def test_where_a_clock_event_falls_decides_the_race() -> None:
    results = [scheduled(seed, "auto") for seed in range(40)]
    assert len({digest for _, _, digest in results}) == 40, "each schedule is a run of its own"
    good = [console for console, code, _ in results if code == 0]
    bad = [console for console, code, _ in results if code == 1]
    assert len(good) + len(bad) == 40
    assert good
    assert bad
    assert all(b"good" in console for console in good)
    assert all(b"LOST UPDATES" in console for console in bad)


@pytest.mark.parametrize("engine", ["engine", "stepper"])
def test_the_same_schedule_is_the_same_run(engine: Engine) -> None:
    for seed in range(8):
        assert scheduled(seed, engine) == scheduled(seed, "auto")


# ------------------------------------------------------------------------------------------------- input and entropy


def echoed(position: int, text: bytes, engine: Engine = "auto") -> tuple[bytes, bytes]:
    run = Run.of("echo")
    machine = run.machine
    machine.auto_idle = False
    assert run.to(position, engine) is (Exit.POSITION if machine.position == position else Exit.WAITING)
    while text:
        if machine.input_room:
            text = text[machine.push(Input(machine.position, text[: machine.input_room])) :]
        if run.to(machine.position + 100, engine) is Exit.STOPPED:
            break
    run.to(FOREVER, engine)
    result = run.console(), machine.digest().value
    run.close()
    return result


def test_where_input_falls_shows_and_what_it_does_not() -> None:
    runs = {(at, engine): echoed(at, b"one\nquit\n", engine) for at in (100, 250, 400) for engine in ENGINES}
    assert {console for console, _ in runs.values()} == {b"> one\nyou said: one\n> quit\nbye\n"}
    for at in (100, 250):
        assert len({digest for (place, _), (_, digest) in runs.items() if place == at}) == 1
    assert len({digest for _, digest in runs.values()}) >= 2


def test_other_entropy_is_another_run() -> None:
    def thrown(salt: int) -> tuple[bytes, bytes]:
        run = Run.of("dice")
        while run.machine.run(FOREVER) is not Exit.STOPPED:
            machine = run.machine
            machine.supply(Entropy(machine.position, answer(machine.position + salt)))
        run.outputs = run.machine.take_outputs()
        return run.console(), run.machine.digest().value

    assert thrown(0) == thrown(0)
    assert thrown(0) != thrown(1)


def test_an_idle_event_moves_time_alone() -> None:
    plain, moved = Run.of("counters"), Run.of("counters")
    for run in (plain, moved):
        run.to(1000)
    moved.machine.push(Idle(1000, 250))
    assert moved.machine.mtime == plain.machine.mtime + 2 or moved.machine.mtime == plain.machine.mtime + 3
    assert moved.machine.csrs["mcycle"] == plain.machine.csrs["mcycle"] + 250
    assert moved.machine.csrs["minstret"] == plain.machine.csrs["minstret"]
