# SPDX-License-Identifier: GPL-2.0-or-later
"""The first difference of two recordings: where, what, and why; also when there is none, or nothing to compare."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import pytest
import recordings
from forging import Change, changed, forge, moved
from kernels import BANK, record_kernel
from recordings import record

from vmrec.cli.main import main
from vmrec.diff.first import Difference, Fact, Same, diff
from vmrec.diff.report import Report
from vmrec.events import Input
from vmrec.machine.board import GRID
from vmrec.machine.machine import Engine
from vmrec.machine.watch import fingerprint, registers
from vmrec.record.sources import ChaosClock
from vmrec.replay.lockstep import Opener, Parting, part, part_ways, same_step
from vmrec.replay.names import number
from vmrec.replay.player import Player
from vmrec.replay.rows import last_events, player_at, rows, steps
from vmrec.trace.reader import TraceReader

ECHO = ((5_000, b"hello\n"), (40_000, b"quit\n"))

Make = Callable[..., TraceReader]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Records a guest and opens the recording."""
    opened: list[TraceReader] = []

    def record_it(guest: str, *, change: Change | None = None, **options: Any) -> TraceReader:
        path = record(tmp_path / f"{len(opened)}.vmrec", guest, **options).path
        if change is not None:
            path = forge(path, tmp_path / f"{len(opened)}-forged.vmrec", change)
        opened.append(TraceReader(path))
        return opened[-1]

    yield record_it
    for trace in opened:
        trace.close()


def differ(a: TraceReader, b: TraceReader, **options: Any) -> Difference:
    """The difference of two recordings, which there must be; and what must hold for every one."""
    found = diff(a, b, **options)
    assert isinstance(found, Difference)
    mirrored = diff(b, a, **options)
    assert isinstance(mirrored, Difference)
    assert (mirrored.kind, mirrored.position) == (found.kind, found.position)
    assert mirrored.registers == {name: (y, x) for name, (x, y) in found.registers.items()}
    if found.cause is not None:
        assert mirrored.cause == found.cause[::-1]
    assert (mirrored.ways is None) == (found.ways is None)
    if found.ways is not None and mirrored.ways is not None:
        assert mirrored.ways.parting.position == found.ways.parting.position > found.position
        assert mirrored.ways.events == found.ways.events[::-1]
    for facts in found.events:
        assert all(fact.position <= found.position for fact in facts)
    report = Report(found, a, b)
    lines = report.lines()
    assert max(len(line.text) for line in lines) <= 80
    document = json.loads(json.dumps(report.to_dict(), default=bytes.hex))
    assert document["same"] is False
    assert document["position"] == found.position
    return found


def agree(a: TraceReader, b: TraceReader) -> Same:
    found = diff(a, b)
    assert isinstance(found, Same)
    report = Report(found, a, b)
    assert report.same
    assert max(len(line.text) for line in report.lines()) <= 80
    assert report.to_dict()["same"] is True
    return found


def by_hand(a: TraceReader, b: TraceReader, last: int) -> int | None:
    """The first step that differs, found by looking at every one of them."""
    for one, other in zip(steps(a, 0, last), steps(b, 0, last), strict=False):
        if not same_step(one, other):
            return one.position
    return None


def ways_by_hand(a: TraceReader, b: TraceReader, first: int, last: int) -> int | None:
    """The first step that is of other instructions, found by looking at every row."""
    for one, other in zip_longest(rows(a, first, last), rows(b, first, last)):
        if one is None or other is None or (one.pc, one.code, one.trap) != (other.pc, other.code, other.trap):
            return int((one or other).position)  # type: ignore[union-attr]
    return None


def opener(trace: TraceReader) -> Opener:
    return lambda position: player_at(trace, position)


# ------------------------------------------------------------------------------------------------------------ the same


@pytest.mark.parametrize("chaos", [None, 6])
@pytest.mark.parametrize("guest", ["race", "dice", "hello", "traps", "lrsc64"])
def test_recordings_of_one_run_are_the_same_however_captured(guest: str, chaos: int | None, make: Make) -> None:
    inputs, again, full = (make(guest, chaos=chaos, capture=capture) for capture in ("inputs", "inputs", "full"))

    assert agree(inputs, again).compared.headers == {}
    found = agree(inputs, full)
    assert found.compared.headers == {"capture": ("inputs", "full")}
    assert found.compared.digests == 1
    assert found.compared.executed is None


def test_a_recording_is_itself(make: Make) -> None:
    trace = make("race", chaos=1)

    assert agree(trace, trace).compared.lengths == (trace.last_position,) * 2


# ----------------------------------------------------------------------------------------------------------- races


def test_a_good_and_a_bad_run_of_the_race(make: Make) -> None:
    """The demo: seeds are recorded until one loses updates."""
    good = make("race", chaos=1)
    assert good.end is not None
    assert good.end["exit_code"] == 0
    bad = next(trace for seed in range(2, 64) if (trace := make("race", chaos=seed)).end["exit_code"] == 1)
    found = differ(good, bad)

    assert found.kind == "step"
    assert found.position == by_hand(good, bad, found.position + 1)
    assert found.cause is not None
    clocks = [[obj for _, obj in trace.objects(0, {"clock"})] for trace in (good, bad)]
    number = next(n for n, (x, y) in enumerate(zip(*clocks, strict=False)) if x != y)
    assert found.cause == (Fact.of(clocks[0][number]), Fact.of(clocks[1][number]))
    assert found.parting is not None
    one, other = found.parting.a, found.parting.b
    assert one is not None
    assert other is not None
    assert {one.interrupt, other.interrupt} == {None, 7}
    assert len(found.parting.before) == len(found.parting.after_a) == len(found.parting.after_b) == 3
    assert "takes an interrupt there, the other does not" in found.message


@pytest.fixture
def boots(tmp_path: Path) -> Iterator[list[TraceReader]]:
    """Boots of the teaching kernel with the two tellers, under five seeds."""
    paths = [record_kernel(tmp_path / f"boot-{seed}.vmrec", BANK, chaos=seed).path for seed in range(1, 6)]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(TraceReader(path)) for path in paths]


def test_where_two_boots_of_a_kernel_go_different_ways(boots: list[TraceReader]) -> None:
    """A kernel reads the time long before it matters: then the first step that differs is of the same instruction."""
    for a, b in pairwise(boots):
        found = differ(a, b)
        assert "the same instruction has another effect" in found.message
        assert found.ways is not None
        place = found.ways.parting.position
        assert place == ways_by_hand(a, b, found.position, place + 1)
        assert found.ways.parting.a is not None
        assert found.ways.parting.b is not None
        assert {found.ways.parting.a.interrupt, found.ways.parting.b.interrupt} == {None, 5}
        assert "takes an interrupt there, the other does not" in found.ways.message
        last = tuple(last_events(trace, place, 1)[0] for trace in (a, b))
        assert found.ways.events == tuple(map(Fact.of, last))
        text = "\n".join(line.text for line in Report(found, a, b).lines())
        assert f"They go different ways from position {number(place)} on" in text
        document = Report(found, a, b).to_dict()["ways"]
        assert (document["position"], document["message"]) == (place, found.ways.message)
        assert len(document["before"]) == len(document["after"]["a"]) == 3


def test_a_replay_goes_no_other_way_than_itself(boots: list[TraceReader]) -> None:
    """Also if one of the two was recorded in full, and runs were cut at other places."""
    trace = boots[0]
    assert part_ways(opener(trace), opener(trace), 100_000, 2_000_000) is None
    assert part_ways(opener(trace), opener(trace), trace.last_position - 5_000, trace.last_position + 5_000) is None


@pytest.mark.parametrize("seeds", [(1, 2), (3, 4), (5, 6)])
@pytest.mark.parametrize("guest", ["race", "timer", "counters"])
@pytest.mark.parametrize("first", [0, 30_000])
def test_ways_are_found_exactly(guest: str, seeds: tuple[int, int], first: int, make: Make) -> None:
    a, b = (make(guest, chaos=seed, max_insns=100_000) for seed in seeds)
    last = min(a.last_position, b.last_position)
    found = part_ways(opener(a), opener(b), first, last, context=2)
    assert (None if found is None else found.position) == ways_by_hand(a, b, first, last)


def test_one_that_ends_goes_a_way_of_its_own(make: Make) -> None:
    short, long = (make("race", chaos=1, max_insns=count) for count in (60_000, 90_000))
    found = part_ways(opener(short), opener(long), 50_000, 80_000)
    assert found is not None
    assert (found.position, found.a) == (60_000, None)
    assert found.b is not None
    assert part_ways(opener(short), opener(long), 50_000, 60_000) is None


def test_runs_that_differ_in_values_alone_go_the_same_way(make: Make, tmp_path: Path) -> None:
    """And where they part at once, there is nothing more to say."""
    dice = [make("dice", seed=seed) for seed in (1, 2)]
    found = differ(*dice)
    assert found.kind == "step"
    expected = ways_by_hand(*dice, found.position, min(trace.last_position for trace in dice))
    assert (found.ways and found.ways.parting.position) == expected
    raced = differ(make("race", chaos=1), make("race", chaos=2))
    assert "takes an interrupt" in raced.message
    assert raced.ways is None


@pytest.mark.parametrize("seeds", [(1, 2), (3, 4), (5, 6), (7, 8)])
@pytest.mark.parametrize("guest", ["race", "timer"])
def test_the_first_step_is_found_exactly(guest: str, seeds: tuple[int, int], make: Make) -> None:
    """The fast way, with either comparison, finds what looking at every step finds."""
    a, b = (make(guest, chaos=seed, max_insns=100_000) for seed in seeds)
    found = differ(a, b)
    last = min(a.last_position, b.last_position)

    assert found.position == by_hand(a, b, last)
    for same_ram in (True, False):
        parting = part(opener(a), opener(b), 0, last, same_ram=same_ram, context=2)
        assert isinstance(parting, Parting)
        assert parting.position == found.position
        assert (parting.a, parting.b) == (found.parting.a, found.parting.b)
        assert parting.registers == found.registers


def test_registers_are_those_of_the_two_machines(make: Make) -> None:
    a, b = make("timer", chaos=1), make("timer", chaos=2)
    found = differ(a, b)
    with player_at(a, found.position + 1) as one, player_at(b, found.position + 1) as other:
        x, y = registers(one.machine), registers(other.machine)

    assert found.registers == {name: (x[name], y[name]) for name in x if x[name] != y[name] and name != "pc"}


def test_capture_makes_no_difference_to_a_difference(make: Make) -> None:
    traces = [[make("race", chaos=seed, capture=capture) for capture in ("inputs", "full")] for seed in (1, 2)]
    plain, *others = (differ(a, b) for a in traces[0] for b in traces[1])

    for found in others:
        assert (found.kind, found.position, found.cause, found.parting) == (
            plain.kind,
            plain.position,
            plain.cause,
            plain.parting,
        )


class LateClock(ChaosClock):
    """Chaos, but the first deadline after position `AT` is reached one step later."""

    AT = GRID * 4 + 1_000_000
    late: int | None = None

    def next_step(self, position: int, mtime: int, mtimecmp: int | None) -> tuple[int, int]:
        where, ticks = super().next_step(position, mtime, mtimecmp)
        if self.late is None and ticks == mtimecmp and where >= self.AT:
            self.late = ticks
        return (where + 1, ticks) if ticks == self.late else (where, ticks)


def test_a_late_difference_is_reached_from_a_checkpoint(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make("timer-long", chaos=1, max_insns=LateClock.AT + 5_000_000)
    monkeypatch.setattr(recordings, "ChaosClock", LateClock)
    b = make("timer-long", chaos=1, max_insns=LateClock.AT + 5_000_000)
    found = differ(a, b)

    assert found.kind == "step"
    assert found.cause is not None
    x, y = found.cause
    assert x is not None
    assert y is not None
    assert (y.position, y.data) == (x.position + 1, x.data)
    assert found.position == x.position
    assert found.position > a.checkpoints[0].position
    assert found.compared.digests == 4
    assert found.compared.executed == (x.position, x.position + 1)


# ------------------------------------------------------------------------------------------------------- input, entropy


def test_another_input_byte(make: Make) -> None:
    a = make("echo", script=ECHO)
    b = make("echo", script=((5_000, b"jello\n"), (40_000, b"quit\n")))
    found = differ(a, b)

    assert found.kind == "step"
    assert found.cause is not None
    x, y = found.cause
    assert x is not None
    assert y is not None
    assert (x.kind, y.kind, x.position) == ("input", "input", y.position)
    assert (x.data[:5], y.data[:5]) == (b"hello", b"jello")
    assert {(access["kind"], access["a"], access["b"]) for access in found.memory} == {("r", ord("h"), ord("j"))}
    assert found.message == "the same instruction has another effect"
    assert found.position == by_hand(a, b, min(a.last_position, b.last_position))


def test_other_entropy(make: Make) -> None:
    a, b = make("dice", seed=1), make("dice", seed=2)
    found = differ(a, b)

    assert found.cause is not None
    x, y = found.cause
    assert x is not None
    assert y is not None
    assert (x.kind, x.position) == (y.kind, y.position) == ("entropy", found.position)
    (access,) = found.memory
    assert (access["a"], access["b"]) == (int.from_bytes(x.data, "little"), int.from_bytes(y.data, "little"))
    assert found.compared.headers == {"seed": (1, 2)}


def test_an_event_without_an_effect(make: Make) -> None:
    """Input that the guest never reads: no step differs, and that is said, not guessed."""
    a = make("timer-long", script=((1_000_000, b"x"),), max_insns=GRID + 1_000_000)
    b = make("timer-long", script=((1_000_000, b"y"),), max_insns=GRID + 1_000_000)
    found = differ(a, b)

    assert (found.kind, found.position, found.parting) == ("event", 1_000_000, None)
    assert found.cause == (Fact("input", 1_000_000, b"x"), Fact("input", 1_000_000, b"y"))
    assert found.compared.executed == (1_000_000, GRID + 1_000_000)


def test_an_event_that_only_one_has(make: Make) -> None:
    a = make("echo", script=ECHO)
    with_more = make("echo", script=(*ECHO[:1], (6_000, b"x"), *ECHO[1:]))
    found = differ(a, with_more)

    assert found.cause is not None
    assert found.cause[1] is not None
    assert found.cause[1].data == b"x"
    assert found.kind == "step"


# --------------------------------------------------------------------------------------------------------------- length


@pytest.mark.parametrize(("limit", "capture"), [(1_000, "inputs"), (777_777, "full")])
def test_one_is_the_beginning_of_the_other(limit: int, capture: str, make: Make) -> None:
    whole, cut = make("race", chaos=1), make("race", chaos=1, max_insns=limit, capture=capture)
    found = differ(whole, cut)

    assert (found.kind, found.position, found.parting, found.cause) == ("length", limit, None, None)
    assert "b ends here (max-insns)" in found.message
    assert found.compared.lengths == (whole.last_position, limit)
    assert "a ends here" in diff(cut, whole).message


def test_a_shorter_recording_that_differs(make: Make) -> None:
    a, b = make("race", chaos=1), make("race", chaos=2, max_insns=1_000_000)

    assert differ(a, b).kind == "step"


def test_one_waits_for_ever_and_the_other_gets_input(make: Make) -> None:
    """It ends where the other one has an event: that is the reason, and it is named."""
    a, b = make("echo", script=ECHO[:1]), make("echo", script=ECHO)
    found = differ(a, b)

    assert (found.kind, found.position) == ("length", a.last_position)
    assert found.cause is not None
    assert found.cause[0] is None
    assert found.cause[1] is not None
    assert (found.cause[1].kind, found.cause[1].position) == ("input", a.last_position)


def test_a_torn_recording_is_a_beginning(make: Make, tmp_path: Path) -> None:
    whole = make("race", chaos=1)
    half = tmp_path / "half.vmrec"
    forge(Path(whole.path), half, lambda obj: [obj] if obj[0] not in ("digest", "end") and obj[1] < 10**6 else [])
    with TraceReader(half) as torn:
        found = differ(whole, torn)

        assert (found.kind, found.position) == ("length", torn.last_position)
        assert found.compared.endings[1] is None


def test_the_end_of_a_beginning_is_checked(make: Make) -> None:
    """A recording that claims to end in another state than its events lead to is no beginning of anything."""
    whole = make("race", chaos=1)
    wrong = changed("digest", 0, lambda obj: [*obj[:2], {**obj[2], "value": bytes(32)}])
    cut = make("race", chaos=1, max_insns=500_000, change=wrong)

    found = differ(whole, cut)
    assert (found.kind, found.position) == ("recording", 500_000)
    assert "b ends in another state than its events lead to" in found.message


def test_a_recording_that_ends_at_the_grid_has_two_digests_there(make: Make) -> None:
    """One before the events at its end, one after them."""
    typed = ["input", GRID, b"x"]

    def change(obj: list[Any]) -> list[list[Any]]:
        if obj[0] == "end":
            return [obj]
        if obj[0] == "digest" and typed not in seen:
            seen.append(typed)
            return [obj, typed]
        return [[*obj[:2], after]] if obj[0] == "digest" else [obj]

    trace = make("loop-reg", max_insns=GRID)
    with Player(trace) as player:
        player.run_to(GRID)
        player.machine.push(Input(GRID, b"x"))
        after = player.machine.digest().to_dict()
    seen: list[list[Any]] = []
    forged, again = (make("loop-reg", max_insns=GRID, change=change) for _ in range(2) if not seen.clear())
    with Player(forged) as player:
        assert player.run() is None
    assert agree(forged, again).compared.digests == 2
    found = differ(trace, forged)
    assert (found.kind, found.position) == ("event", GRID)


# ------------------------------------------------------------------------------------------------- guests and machines


def test_other_guests(make: Make) -> None:
    a, b = make("hello"), make("sort", max_insns=10_000)
    found = differ(a, b)

    assert found.kind == "step"
    assert found.cause == (Fact("guest", 0, a.header["guest"]["hash"]), Fact("guest", 0, b.header["guest"]["hash"]))
    pairs = zip(rows(a), rows(b), strict=False)
    row = next(x.position for x, y in pairs if x != y)
    assert found.position <= row
    assert found.position == by_hand(a, b, row + 1)


def test_other_widths(make: Make) -> None:
    a, b = make("hello"), make("loop64-mem", max_insns=10_000)
    found = differ(a, b)

    assert found.position == 2  # the boot ROM loads a word in one and a doubleword in the other
    assert {(access["size"], access["a"], access["b"]) for access in found.memory} == {(4, 0, None), (8, None, 0)}


def test_other_machines(make: Make) -> None:
    """The same guest under another time rule."""
    a, b = make("race"), make("race", chaos=1)
    found = differ(a, b)

    assert found.cause == (Fact("machine", 0, {"time_rule": "virtual"}), Fact("machine", 0, {"time_rule": "stepped"}))
    assert found.position == by_hand(a, b, found.position + 10)


def test_other_machines_that_do_the_same(make: Make) -> None:
    """Time rules differ, and the guest never looks at the clock."""
    found = differ(make("hello"), make("hello", chaos=1))

    assert found.kind == "header"
    assert found.parting is None
    assert "all steps up to position" in found.message


# ---------------------------------------------------------------------------------------------------------- forgeries


def test_an_output_that_no_event_explains(make: Make) -> None:
    a = make("hello")
    b = make("hello", change=changed("console", 3, lambda obj: [*obj[:2], b"?"]))
    found = differ(a, b)

    assert found.kind == "recording"
    assert found.recorded is not None
    assert [fact.data for fact in found.recorded if fact is not None][1] == b"?"
    assert "vmrec verify" in found.message
    assert found.compared.executed is None


def test_a_digest_that_no_event_explains(make: Make) -> None:
    wrong = changed("digest", 1, lambda obj: [*obj[:2], {**obj[2], "value": bytes(32)}])
    a = make("timer-long", chaos=1, max_insns=3 * GRID)
    b = make("timer-long", chaos=1, max_insns=3 * GRID, change=wrong)
    found = differ(a, b)

    assert (found.kind, found.position) == ("recording", 2 * GRID)
    assert found.recorded is not None
    assert found.recorded[1] == Fact("digest", 2 * GRID, bytes(32))
    assert found.compared.last_digest == GRID


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (changed("input", 0, lambda obj: [*obj[:2], b"J" + obj[2][1:]]), "step"),
        (changed("input", 0, lambda obj: None), "recording"),
        (moved("input", 0, 400), "recording"),
    ],
    ids=["altered", "dropped", "moved"],
)
def test_a_forged_event_differs_from_the_true_one(change: Change, kind: str, make: Make) -> None:
    """The forgery does not replay as recorded: either after the first step that differs, or it makes no step at all."""
    a, b = make("echo", script=ECHO), make("echo", script=ECHO, change=change)
    found = differ(a, b)

    true = next(obj for _, obj in a.objects(0, {"input"}))
    assert found.kind == kind
    assert found.cause is not None
    assert found.cause[0] == Fact.of(true)
    assert found.position >= min(fact.position for fact in found.cause if fact is not None)
    if kind == "recording":
        assert "b does not replay as recorded (the guest's output differs); `vmrec verify`" in found.message


def test_a_forged_clock_differs_from_the_true_one(make: Make) -> None:
    """Without its clock the forgery takes no interrupt, which is no divergence yet."""

    def change(obj: list[Any]) -> list[list[Any]]:
        return [] if obj[0] == "clock" and obj[1] > 500_000 else [obj]

    a = make("timer-long", max_insns=3_000_000, chaos=1)
    b = make("timer-long", max_insns=3_000_000, chaos=1, change=change)
    found = differ(a, b)

    assert found.kind == "step"
    assert found.cause is not None
    assert found.cause[1] is None


# -------------------------------------------------------------------------------------------------------- fingerprints


@pytest.mark.parametrize("guest", ["race", "traps", "echo", "dice", "fp", "lrsc64", "smc", "loop-mmio", "counters"])
def test_a_fingerprint_depends_on_neither_executor_nor_cuts(guest: str, make: Make) -> None:
    trace = make(guest, chaos=3, max_insns=60_000, script=ECHO if guest == "echo" else ())
    last = trace.last_position
    seen: dict[int, set[bytes]] = {}
    ways: tuple[tuple[Engine, int], ...] = (("auto", last), ("engine", 9_973), ("stepper", 1_009), ("auto", 101))
    for engine, cut in ways:
        with Player(trace, engine=engine) as player:
            for stop in sorted({*range(0, last, cut), *range(0, last, 10_000), last}):
                assert player.run_to(stop) is None
                if stop % 10_000 == 0 or stop == last:
                    seen.setdefault(stop, set()).add(fingerprint(player.machine))

    assert {len(found) for found in seen.values()} == {1}


def test_a_fingerprint_tells_a_value_that_was_read_and_forgotten(make: Make) -> None:
    """Registers and memory may be equal again: what came in between was not."""
    a, b = make("dice", seed=1), make("dice", seed=2)
    with Player(a) as one, Player(b) as other:
        for player in (one, other):
            player.run_to(40)
        assert fingerprint(one.machine) == fingerprint(other.machine)
        for player in (one, other):
            player.run_to(50)
            player.machine.native[1].hart.x[10] = 0
        assert fingerprint(one.machine)[-8:] != fingerprint(other.machine)[-8:]


# ------------------------------------------------------------------------------------------------------------- the verb


def test_diff_says_what_where_and_why(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(place / "good.vmrec", "race", chaos=1)
    record(place / "bad.vmrec", "race", chaos=9)
    assert main(["diff", "good", "bad"]) == 1
    printed = capsys.readouterr()
    text = printed.out

    assert "a  good.vmrec: race, " in text
    assert "b  bad.vmrec: race, " in text
    assert "They differ from position " in text
    assert "The first event that differs\na  clock at " in text
    assert "machine timer interrupt" in text
    assert "earn+" in text
    assert "race.c:" in text
    assert "mcause" in text
    assert "chaos: a 1, b 9" in text
    assert printed.err == ""
    assert main(["diff", "good", "bad", "-C", "0"]) == 1
    assert "and then" not in capsys.readouterr().out
    assert main(["diff", "good", "bad", "-C", "30"]) == 1
    assert len(capsys.readouterr().out.splitlines()) > len(text.splitlines()) + 60


def test_diff_in_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(place / "a.vmrec", "dice", seed=1)
    record(place / "b.vmrec", "dice", seed=2)
    assert main(["diff", "a", "b", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)

    assert found["schema"] == "vmrec-diff/1"
    assert found["same"] is False
    assert found["position"] == found["cause"]["a"]["position"] == found["cause"]["b"]["position"]
    assert set(found["cause"]["a"]) == {"kind", "position", "data"}
    assert found["a"]["symbol"] == found["b"]["symbol"]
    assert found["a"]["instruction"] == found["b"]["instruction"] == "lw a0, 0(a4)"
    assert found["registers"]["a0"] == {"a": found["memory"][0]["a"], "b": found["memory"][0]["b"]}
    assert found["compared"]["headers"] == {"seed": {"a": 1, "b": 2}}
    assert found["compared"]["executed"] == {"first": found["position"], "last": found["position"] + 1}
    assert len(found["before"]) == len(found["after"]["a"]) == 3


def test_diff_of_the_same(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(place / "a.vmrec", "race", chaos=1)
    record(place / "b.vmrec", "race", chaos=1, capture="full")
    assert main(["diff", "a", "b"]) == 0
    assert "They are the same run of 2 105 188 steps." in capsys.readouterr().out
    assert main(["diff", "a", "b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["same"], found["position"], found["cause"]) == (True, None, None)
    assert found["compared"]["headers"] == {"capture": {"a": "inputs", "b": "full"}}


def test_diff_of_what_cannot_be_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(place / "a.vmrec", "hello")
    (place / "b.vmrec").write_bytes(b"something else")
    assert main(["diff", "a", "b"]) == 2
    assert "is not a vmrec trace" in capsys.readouterr().err
    assert main(["diff", "a", "c"]) == 2
    assert main(["diff", "a"]) == 2


def test_diff_colours_only_where_they_are_wanted(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(place / "a.vmrec", "dice", seed=1)
    record(place / "b.vmrec", "dice", seed=2)
    assert main(["diff", "a", "b"]) == 1
    plain = capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["diff", "a", "b"]) == 1
    coloured = capsys.readouterr().out

    assert "\033" not in plain
    for code in ("\033[1m", "\033[36m", "\033[33m", "\033[0m"):
        assert code in coloured
        coloured = coloured.replace(code, "")
    assert coloured == plain
