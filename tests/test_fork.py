# SPDX-License-Identifier: GPL-2.0-or-later
"""Forks: a recording that goes on from another one's past, alone or with it, is one history in every respect.

An unchanged fork that is given the same events must be the parent again, whatever the guest, the clock, the capture
and the position; a changed one must differ where the change is first noticed.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from recordings import CREATED, Recorded, record
from trace_files import full_header

from vmrec.diff.first import Difference, Same, diff
from vmrec.errors import PositionError, TraceError, UsageError
from vmrec.events import Poke, SetRegister
from vmrec.guest.symbols import Symbols
from vmrec.machine.machine import Digest
from vmrec.record.fork import Fork, parse_edits
from vmrec.record.session import Ended, LiveRun, World
from vmrec.record.sources import ChaosClock, InputPlan, KeptEvents, ScriptedInput, SeededEntropy
from vmrec.replay.player import Player
from vmrec.replay.rows import player_from, rows, steps
from vmrec.replay.timeline import Timeline
from vmrec.trace import lineage, objects
from vmrec.trace.codec import Malformed, pack
from vmrec.trace.objects import check
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import repair, verify_chain
from vmrec.trace.tracefile import TraceFile
from vmrec.trace.writer import TraceWriter

TRACES = Path(__file__).resolve().parent.parent / "traces"
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
    "race-full": lambda path: record(path, "race", chaos=3, capture="full"),
    "echo-chaos": lambda path: record(path, "echo", chaos=3, script=ECHO),
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


WFI = bytes.fromhex("73005010")


@pytest.mark.parametrize("name", ["echo", "echo-chaos", "traps"])
def test_a_fork_inside_a_wait_goes_on_waiting(name: str, parents: Callable[[str], Recorded], tmp_path: Path) -> None:
    """Behind a wfi that waits, which is also where a deadline ended the wait, nothing may be lost or doubled."""
    parent = parents(name)
    with TraceReader(parent.path) as trace:
        waits = [row.position + 1 for row in rows(trace) if row.code == WFI]
    waiting = 0
    for position in random.Random(name).sample(waits, min(len(waits), 4)):
        with TraceReader(parent.path) as trace, Fork(trace, position) as forked:
            waiting += forked.machine.waiting
        child = fork(parent.path, position, tmp_path / f"{position}.vmrec")
        assert child.digest == parent.digest
        assert replays(child.path) == parent.digest
    assert waiting or name == "traps"  # its wfi finds an interrupt pending


def test_a_guest_that_waits_for_ever_can_be_given_what_it_waits_for(tmp_path: Path) -> None:
    parent = record(tmp_path / "parent.vmrec", "echo", script=ECHO[:1])
    assert parent.ended.reason == "waiting-for-ever"
    end = parent.ended.position
    child = fork(parent.path, end, tmp_path / "child.vmrec", script=((end, b"more\nquit\n"),))

    assert child.ended.reason == "poweroff"
    assert b"more" in child.console
    assert replays(child.path) == child.digest


@pytest.mark.parametrize("capture", ["inputs", "full"])
@pytest.mark.parametrize("included", [False, True])
def test_an_edit_is_where_it_was_made(
    capture: str, included: bool, parents: Callable[[str], Recorded], tmp_path: Path
) -> None:
    """In events, in the state on both sides, as the cause of the difference, and in no step before."""
    parent = parents("race")
    at = 500_000
    with TraceReader(parent.path) as trace, Fork(trace, at) as forked:
        counter = Symbols(forked.guest.data).resolve("counter")
        before = forked.machine.read_memory(counter, 4)
        value = forked.machine.regs[3]
    edits = (Poke(at, counter, b"\x07\x00\x00\x00"), SetRegister(at, "tp", 0x1234))
    child = fork(parent.path, at, tmp_path / "child.vmrec", edits=edits, capture=capture, included=included)

    assert replays(child.path) == child.digest != parent.digest
    with TraceReader(child.path) as trace, Timeline(trace) as timeline:
        assert list(trace.records(at, at + 1))[:2] == list(edits)
        timeline.seek(at - 1)
        assert timeline.state.read_memory(counter, 4) == before
        timeline.seek(at)
        assert timeline.state.read_memory(counter, 4) == edits[0].data
        assert timeline.state.regs[4] == 0x1234
        assert timeline.state.regs[3] == value
        timeline.seek(trace.last_position)
        timeline.reverse_step(trace.last_position - at + 1)
        assert timeline.state.read_memory(counter, 4) == before
        assert [row.position for row in rows(trace, at - 3, at + 3)] == list(range(at - 3, at + 3))
        assert [step.position for step in steps(trace, at - 3, at + 3)] == list(range(at - 3, at + 3))
    with TraceReader(parent.path) as a, TraceReader(child.path) as b:
        found = diff(a, b)
        assert isinstance(found, Difference)
        assert found.cause is not None
        assert found.cause[1] is not None
        assert (found.cause[1].kind, found.cause[1].position) == ("poke", at)
        assert found.position == at  # the register is seen at once


def test_a_poke_is_noticed_where_it_is_first_read(parents: Callable[[str], Recorded], tmp_path: Path) -> None:
    parent = parents("race")
    at = 500_000
    with TraceReader(parent.path) as trace:
        counter = Symbols(trace.header["guest"]["elf"]).resolve("counter")
        read = next(row.position for row in rows(trace, at) if any(each.address == counter for each in row.accesses))
    child = fork(parent.path, at, tmp_path / "child.vmrec", edits=(Poke(at, counter, bytes(4)),))

    with TraceReader(parent.path) as a, TraceReader(child.path) as b:
        found = diff(a, b)
        assert isinstance(found, Difference)
        assert (found.kind, found.position) == ("step", read)


def test_a_poke_changes_code_that_has_run(parents: Callable[[str], Recorded], tmp_path: Path) -> None:
    """Translations of the old bytes are gone, on the live side and in the replay, whoever executes."""
    parent = parents("race")
    at = 500_000
    with TraceReader(parent.path) as trace:
        pc = next(row.pc for row in rows(trace, at) if len(row.code) == 4)
    for capture in ("inputs", "full"):
        edits = (Poke(at, pc, bytes(4)),)  # an illegal instruction
        child = fork(parent.path, at, tmp_path / f"{capture}.vmrec", edits=edits, capture=capture)
        with TraceReader(child.path) as trace:
            row = next(rows(trace, at))
            assert (row.pc, row.trap) == (pc, True)
        assert replays(child.path) == child.digest


def test_forks_of_forks_are_one_history(parents: Callable[[str], Recorded], tmp_path: Path) -> None:
    parent = parents("race-chaos")
    path, position = parent.path, 0
    for number in range(5):
        position += 300_000
        child = fork(path, position, tmp_path / f"{number}.vmrec", capture=("inputs", "full")[number % 2])
        path = child.path
        assert child.digest == parent.digest
    assert replays(path) == parent.digest
    with TraceReader(path) as trace, TraceReader(parent.path) as whole:
        assert len(trace.lineage) == 5
        assert list(trace.records()) == list(whole.records())
        assert [info.index for info in trace.frames] == list(range(len(trace.frames)))
        lasts = [info.last for info in trace.frames]
        assert lasts == sorted(lasts)
        for middle in (0, 299_999, 300_000, 300_001, 700_000, 1_500_000, whole.last_position):
            assert list(trace.records(middle)) == list(whole.records(middle))
            assert trace.frames[trace.frame_at(middle)].last >= middle
    # A fork before its own beginning belongs to whom the history there belongs to.
    early = fork(path, 450_000, tmp_path / "early.vmrec")
    assert early.digest == parent.digest
    with TraceReader(early.path) as trace:
        assert [Path(older).name for older, _ in trace.lineage] == [parent.path.name, "0.vmrec"]


def test_a_long_fork_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    """Its first names every page; contents that the parent has are not stored twice."""
    parent = record(tmp_path / "parent.vmrec", "timer-long")
    with TraceReader(parent.path) as trace:
        at = trace.checkpoints[0].position + 12_345
        taken = trace.checkpoints[0].position
    for included in (False, True):
        child = fork(parent.path, at, tmp_path / f"child-{included}.vmrec", included=included)
        assert child.digest == parent.digest
        with TraceReader(child.path) as trace, TraceReader(parent.path) as whole:
            marks = trace.checkpoints
            assert marks[0].position == taken
            assert marks[-1].position > at
            values = {mark.position: mark.value for mark in whole.digests}
            assert {mark.position: mark.value for mark in trace.digests} == values
            for mark in marks:
                player_from(trace, mark).close()
            with Timeline(trace) as timeline:
                for position in (trace.last_position, at + 1, at, at - 1, 5, trace.last_position - 5):
                    timeline.seek(position)
                    assert timeline.position == position
        assert verify_chain(child.path).ok
        assert replays(child.path) == parent.digest


@pytest.mark.parametrize("position", [0, 1 << 24, 1 << 25, 1 << 26])
def test_a_fork_on_the_grid_has_the_digests_of_the_grid(position: int, tmp_path: Path) -> None:
    parent = record(tmp_path / "parent.vmrec", "timer-long")
    child = fork(parent.path, position, tmp_path / "child.vmrec")
    with TraceReader(child.path) as trace, TraceReader(parent.path) as whole:
        assert [(mark.position, mark.value) for mark in trace.digests] == [
            (mark.position, mark.value) for mark in whole.digests
        ]
    assert replays(child.path) == parent.digest == child.digest


# ------------------------------------------------------------------------------------------------- parents that changed


def test_a_torn_parent_is_forked_where_it_is_good(parents: Callable[[str], Recorded], tmp_path: Path) -> None:
    whole = parents("race-full")
    data = whole.path.read_bytes()
    with TraceReader(whole.path) as trace:
        cut = trace.frames[len(trace.frames) // 2]
    torn = tmp_path / "torn.vmrec"
    torn.write_bytes(data[: cut.offset + cut.length // 2])
    with TraceReader(torn) as trace:
        last = trace.last_position
        assert trace.torn
        assert 0 < last < whole.ended.position
    for position in (last // 2, last):
        child = fork(torn, position, tmp_path / f"{position}.vmrec", keep=False)
        assert replays(child.path) == child.digest
    with pytest.raises(PositionError, match=str(last)):
        fork(torn, last + 1, tmp_path / "beyond.vmrec")
    # The same history, whole or repaired, is the parent as well.
    repair(torn, tmp_path / "repaired.vmrec")
    torn.unlink()
    assert replays(child.path) == child.digest
    (tmp_path / "repaired.vmrec").unlink()
    with pytest.raises(TraceError, match="not to be found"):
        TraceReader(child.path)
    shutil.copy(whole.path, tmp_path / "of-another-name.vmrec")
    assert replays(child.path) == child.digest


def test_a_parent_that_goes_on_stays_the_parent(parents: Callable[[str], Recorded], tmp_path: Path) -> None:
    whole = parents("race-full")
    data = whole.path.read_bytes()
    with TraceReader(whole.path) as trace:
        ends = [info.offset for info in trace.frames if 0 < info.last]
    assert len(ends) > 3
    growing = tmp_path / "growing.vmrec"
    growing.write_bytes(data[: ends[1]])
    with TraceReader(growing) as trace:
        position = trace.last_position
    child = fork(growing, position, tmp_path / "child.vmrec", keep=False)
    for end in (*ends[2:], len(data)):
        growing.write_bytes(data[:end])
        assert replays(child.path) == child.digest


def test_a_torn_child_is_repaired(parents: Callable[[str], Recorded], tmp_path: Path) -> None:
    parent = parents("race-chaos")
    shutil.copy(parent.path, tmp_path / "parent.vmrec")
    child = fork(tmp_path / "parent.vmrec", 400_000, tmp_path / "child.vmrec", capture="full")
    data = child.path.read_bytes()
    with TraceReader(child.path) as trace:
        ends = [trace.frames[n].offset for n in range(len(trace.frames)) if trace.frames[n].last >= 400_000]
    for cut in (ends[-1] - 7, ends[-2] + 9, len(data) - 3):
        child.path.write_bytes(data[:cut])
        report = repair(child.path, tmp_path / "saved.vmrec", force=True)
        assert report.last_position >= 400_000
        assert verify_chain(tmp_path / "saved.vmrec").ok
        with TraceReader(tmp_path / "saved.vmrec") as trace, Player(trace, check_rows=True) as player:
            assert player.run() is None
            assert trace.last_position == report.last_position


# -------------------------------------------------------------------------------------------------------- hostile ones


def forged(child: Path, target: Path, **changes: object) -> Path:
    """The child with another parent in its header, chained anew."""
    with TraceFile(child) as file:
        header = {**file.header, "parent": {**file.header["parent"], **changes}}
        objects = [obj for _, obj in file.objects() if obj[0] not in ("header", "index")]
    with TraceWriter(target, header, force=True) as writer:
        for obj in objects:
            writer.append(pack(obj), obj[1], obj[1])
    return target


@pytest.fixture
def family(parents: Callable[[str], Recorded], tmp_path: Path) -> tuple[Path, Path]:
    """A parent and its child, alone in a folder."""
    shutil.copy(parents("race-chaos").path, tmp_path / "parent.vmrec")
    return tmp_path / "parent.vmrec", fork(tmp_path / "parent.vmrec", 400_000, tmp_path / "child.vmrec").path


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": bytes(32)},
        {"frame": 2**64 - 1},
        {"frame": 0},
        {"position": 2**64 - 1},
        {"name": "/dev/zero", "hash": bytes(32)},
        {"name": "a\0b", "hash": bytes(32)},
        {"name": "../../../../etc/passwd", "hash": bytes(32)},
    ],
)
def test_a_wrong_parent_is_refused(changes: dict[str, object], family: tuple[Path, Path], tmp_path: Path) -> None:
    _, child = family
    try:
        bad = forged(child, tmp_path / "bad.vmrec", **changes)
    except ValueError:
        assert changes.get("position") == 2**64 - 1  # not even the writer takes that
        return
    with pytest.raises(TraceError, match=r"\$VMREC_DIR|goes from"):
        TraceReader(bad)


def test_a_position_that_is_not_where_the_child_begins(family: tuple[Path, Path], tmp_path: Path) -> None:
    _, child = family
    bad = forged(child, tmp_path / "bad.vmrec", position=2_000_000)
    with TraceReader(bad) as trace:
        with pytest.raises(TraceError, match="byte"):
            list(trace.records())
        with Player(trace) as player, pytest.raises(TraceError, match="before it was forked"):
            player.run()


@pytest.mark.parametrize(
    "parent",
    [
        None,
        7,
        {},
        {"hash": b"", "frame": 0, "position": 0, "name": "", "pulled": 0, "included": 0},
        {"hash": bytes(32), "frame": -1, "position": 0, "name": "", "pulled": 0, "included": 0},
        {"hash": bytes(32), "frame": 0, "position": 2**64, "name": "", "pulled": 0, "included": 0},
        {"hash": bytes(32), "frame": 0, "position": 0, "name": "x" * 5000, "pulled": 0, "included": 0},
        {"hash": bytes(32), "frame": 0, "position": 0, "name": "", "pulled": 0, "included": 2},
    ],
)
def test_a_malformed_parent_is_malformed(parent: object) -> None:
    with pytest.raises((Malformed, OverflowError)):
        check(["header", full_header(version=2, parent=parent)])


def test_a_header_of_version_two_needs_a_parent() -> None:
    with pytest.raises(Malformed, match="lacks parent"):
        check(["header", full_header(version=2)])
    assert check(["header", full_header(version=1)]) == "header"


def test_a_child_that_says_it_is_its_own_parent(family: tuple[Path, Path], tmp_path: Path) -> None:
    """No chain can hold its own hash; whoever forges the links so is refused for the positions."""
    parent, child = family
    own = TraceFile(child)
    link = own.frames[1].link
    own.close()
    bad = forged(child, tmp_path / "bad.vmrec", hash=link, frame=1)
    parent.unlink()
    with pytest.raises(TraceError):
        TraceReader(child)
    with pytest.raises(TraceError):
        TraceReader(bad)  # its parent is then child.vmrec, whose own is gone


def test_a_lineage_is_bounded(
    parents: Callable[[str], Recorded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "MAX_LINEAGE", 3)
    path = parents("dice").path
    for number in range(3):
        path = fork(path, 1_000 * (number + 1), tmp_path / f"{number}.vmrec").path
    last = fork(path, 5_000, tmp_path / "last.vmrec")
    with pytest.raises(TraceError, match="more than 3 ancestors"):
        TraceReader(last.path)


@pytest.mark.parametrize(
    "event",
    [
        ["poke", 400_000, 0x1000, b"x"],
        ["poke", 400_000, 0x8000_0000 + (128 << 20) - 1, b"xy"],
        ["poke", 400_000, 2**64 - 1, b"x"],
        ["poke", 400_000, 0x8000_0000, b""],
        ["poke", 400_000, 0x8000_0000, bytes(4097)],
        ["set", 400_000, "zero", 1],
        ["set", 400_000, "nosuch", 1],
        ["set", 400_000, "f" + "9" * 4000, 1],
        ["set", 400_000, "pc", 3],
        ["set", 400_000, "a0", 2**64 - 1],
        ["set", 400_000, "mstatus", 0],
        ["set", 400_000, "priv", 0],
        ["set", 400_000, "fa0", 0],
    ],
)
def test_a_hostile_edit_is_an_error_of_the_trace(
    event: list[object], family: tuple[Path, Path], tmp_path: Path
) -> None:
    _, child = family
    with TraceFile(child) as file:
        header = file.header
    bad = tmp_path / "bad.vmrec"
    with TraceWriter(bad, header) as writer:
        writer.append(pack(event), 400_000, 400_000)
        writer.append(b"", 500_000, 500_000)
    with TraceReader(bad) as trace, Player(trace) as player, pytest.raises(TraceError, match="400000"):
        player.run()
    with TraceReader(bad) as trace, Timeline(trace) as timeline:
        with pytest.raises(TraceError, match="400000"):
            timeline.seek(450_000)
        timeline.seek(399_000)


def test_an_older_vmrec_refuses_a_fork_with_the_remedy(
    family: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And knows everything else, since it is of version 1."""
    parent, child = family
    monkeypatch.setattr(objects, "FORMAT_VERSION", 1)
    with TraceReader(parent) as trace:
        assert trace.header["version"] == 1
    for action in (TraceReader, verify_chain):
        with pytest.raises(TraceError, match="newer vmrec: format version 2, this vmrec knows 1; upgrade"):
            action(child)


@pytest.mark.parametrize(
    "option",
    ["", "=", "a0", "a0=", "a0=x", "=00", "0x80000000=0", "0x80000000=zz", "0x10=00", "counter=" + "00" * 4097,
     "zero=1", "a0=99999999999999999999", "nosuch=00", "0x87fffffe=000000"],
)  # fmt: skip
def test_a_poke_that_means_nothing_is_refused(option: str, parents: Callable[[str], Recorded]) -> None:
    with TraceReader(parents("race").path) as trace, Fork(trace, 100) as forked:
        symbols = Symbols(forked.guest.data)
        with pytest.raises(UsageError, match=r"register|--poke"):
            parse_edits([option], 100, forked.machine.config, symbols)


def test_pokes_as_people_write_them(parents: Callable[[str], Recorded]) -> None:
    with TraceReader(parents("race").path) as trace, Fork(trace, 100) as forked:
        symbols = Symbols(forked.guest.data)
        counter, start = symbols.resolve("counter"), symbols.resolve("main")
        options = ["counter=0100", "counter+2=ff", f"{counter:#x}=0x00", "x10=16", "pc=main", "mepc=0x80000000"]
        assert list(parse_edits(options, 100, forked.machine.config, symbols)) == [
            Poke(100, counter, b"\1\0"), Poke(100, counter + 2, b"\xff"), Poke(100, counter, b"\0"),
            SetRegister(100, "a0", 16), SetRegister(100, "pc", start), SetRegister(100, "mepc", 0x8000_0000),
        ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_mutilated_families_never_lie(seed: int, tmp_path: Path) -> None:
    """Whatever is wrong with the child or its parent is an error of the trace, or the file was not needed there."""
    child, parent = ((TRACES / f"{name}.vmrec").read_bytes() for name in ("echo-fork-inputs", "echo-inputs"))
    with TraceReader(TRACES / "echo-fork-inputs.vmrec") as trace:
        whole = list(trace.records())
    rng = random.Random(seed)
    refused = 0
    for _ in range(40):
        files = [bytearray(child), bytearray(parent)]
        victim = files[rng.randrange(2)]
        if rng.randrange(3):
            victim[rng.randrange(len(victim))] ^= 1 << rng.randrange(8)
        else:
            del victim[rng.randrange(len(victim)) :]
        (tmp_path / "child.vmrec").write_bytes(files[0])
        (tmp_path / "echo-inputs.vmrec").write_bytes(files[1])
        try:
            with TraceReader(tmp_path / "child.vmrec") as trace, Player(trace) as player:
                assert player.run() is None
                assert list(trace.records()) == whole[: len(list(trace.records()))]
        except TraceError:
            refused += 1
    assert refused > 20
