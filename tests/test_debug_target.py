# SPDX-License-Identifier: GPL-2.0-or-later
"""The target of debuggers: moves, places as people type them, and the table of commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import record

from vmrec.debug.commands import COMMANDS, complete, execute
from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import RAM_BASE
from vmrec.replay.points import Break
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "race.vmrec"
    record(path, "race", chaos=1, max_insns=60_000)
    return path


@pytest.fixture
def target(race: Path) -> Iterator[Target]:
    with TraceReader(race) as trace, Timeline(trace) as timeline:
        yield Target(timeline, Symbols(timeline.guest.data))


def say(target: Target, line: str) -> str:
    return execute(target, line)[1]


def hits(target: Target, name: str) -> list[int]:
    return [hit.step for hit in target.timeline.hits([Break(target.symbols.resolve(name))])]


def test_places_are_the_positions_that_they_say(target: Target) -> None:
    target.seek(5000)
    deposits = hits(target, "deposit")
    events = [event.position for event in target.timeline.events()]
    places = {
        "begin": 0, "end": target.last, "0": 0, "12_345": 12345, "0x1000": 4096, "+7": 5007, "-5_000": 0,
        "50%": round(target.last / 2), "0 %": 0, "100%": target.last, "12.5%": round(target.last / 8),
        "event:1": events[0], "event:3": events[2],
        "deposit:1": deposits[0], "deposit:3": deposits[2], "deposit:-1": deposits[-1],
        "deposit": next(position for position in deposits if position > 5000),
        f"*{target.symbols.resolve('deposit'):#x}": next(position for position in deposits if position > 5000),
    }  # fmt: skip
    assert {text: target.place(text) for text in places} == places
    assert target.position == 5000
    target.seek(0)
    target.seek(target.place("console:deposits"))
    assert say(target, "console").endswith("1000 deposits")
    target.seek(0)
    line = target.place("race.c:23")
    target.seek(line)
    assert target.symbols.line(target.state.pc) == "race.c:23"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-1", "outside of the recording"),
        ("99999999999999999999999", "outside of the recording"),
        ("101%", "0% to 100%"),
        ("event:0", "from 1 on"),
        ("event:x", "from 1 on"),
        ("event:99999999", "no event 99999999"),
        ("deposit:0", "counted from 1"),
        ("deposit:99999999", "less than 99999999 times"),
        ("deposi", "Did you mean deposit"),
        ("race.c:9999", "no code is known for line 9999"),
        ("other.c:1", "no code is known"),
        ("console:never printed", "does not print"),
        ("", "no symbol"),
    ],
)
def test_places_that_are_none_are_refused(target: Target, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        target.place(text)
    assert target.position == 0


def test_back_and_forward_go_through_the_places_left_by_jumps(target: Target) -> None:
    first, second, *_ = hits(target, "deposit")
    points = [Break(target.symbols.resolve("deposit"))]
    assert target.resume(points).position == first
    target.step(3)
    target.seek(target.last)
    assert target.resume(points, backwards=True).reason == "hit"
    assert [target.back().position for _ in range(3)] == [target.last, first + 3, 0]
    with pytest.raises(UsageError, match="no earlier place"):
        target.back()
    assert target.forward().position == first + 3
    assert target.resume(points).position == second
    with pytest.raises(UsageError, match="no later place"):
        target.forward()


def test_memory_is_read_as_far_as_there_is_some(target: Target) -> None:
    ram = target.memory_map[1]
    assert target.read_memory(RAM_BASE, 16) == target.state.read_memory(RAM_BASE, 16)
    assert len(target.read_memory(ram.end - 5000, 1 << 20)) == 5000
    assert target.read_memory(RAM_BASE, 0) == b""
    for address in (0, RAM_BASE - 1, ram.end, 0x1000_0000, 2**64 - 1):
        with pytest.raises(UsageError, match="no memory"):
            target.read_memory(address, 4)


def test_commands(target: Target) -> None:
    say(target, "seek end")
    write = next(iter(target.timeline.events()))
    assert say(target, "when").startswith(f"position {target.last} of {target.last} (100.0 %)")
    assert "about to write 4 bytes at" in say(target, "last-write counter")
    access = target.timeline.step_here()
    assert access is not None
    assert [a.address for a in access.row.accesses] == [target.symbols.resolve("counter")]
    assert say(target, "checkpoint") == f"checkpoint 1 at position {target.position}"
    marked = target.position
    say(target, "restart")
    assert target.position == 0
    assert f"position {marked}" in say(target, "checkpoints")
    say(target, "restart 1")
    assert target.position == marked
    say(target, "back 2")
    assert target.position == marked
    say(target, "forward")
    assert target.position == 0
    assert say(target, "delete-checkpoint 1") == "checkpoint 1 is forgotten"
    assert "no checkpoints" in say(target, "checkpoints")
    say(target, f"seek {write.position}")
    listed = say(target, "events 2").splitlines()
    assert len(listed) == 4
    assert listed[0].split()[:3] == ["event:1", str(write.position), "clock"]
    assert listed[1].endswith("you are here")
    say(target, "seek 100")
    assert "not written before position 100" in say(target, "last-write counter")
    assert target.position == 100
    assert "0000000080000000-0000000088000000 0000000008000000 -rwx" in say(target, "info mem")
    assert all(name in say(target, "help") for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sek 5", "Did you mean seek"),
        ("quux", "`help` lists them"),
        ("seek", "usage: seek PLACE"),
        ("when now", "usage: when"),
        ("back x", "not a number"),
        ("back 0", "from 1 on"),
        ("back", "no earlier place"),
        ("restart 7", "no checkpoint 7"),
        ("last-write counte", "Did you mean counter"),
        ("last-write counter 0", "cannot be watched"),
        ("events 0", "from 1 to 1000"),
    ],
)
def test_commands_that_make_no_sense_are_refused(target: Target, line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        execute(target, line)


def test_completion(target: Target) -> None:
    assert complete(target, "check") == ["checkpoint", "checkpoints"]
    assert complete(target, "seek depo") == ["deposit"]
    assert "event:" in complete(target, "seek e")


def test_an_interrupt_that_came_too_late_can_be_forgotten(target: Target) -> None:
    target.interrupt()
    target.calm()
    assert target.resume([Break(target.symbols.resolve("deposit"))]).reason == "hit"
