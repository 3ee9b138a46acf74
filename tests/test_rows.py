# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows and steps: captured = regenerated, in any range; register writes lead to the machine's registers; the verb."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from forging import changed, forge, with_value
from recordings import record

from vmrec.cli.main import main
from vmrec.errors import TraceError
from vmrec.machine.board import GRID
from vmrec.machine.watch import registers
from vmrec.replay.player import Player
from vmrec.replay.rows import Step, player_at, rows, steps
from vmrec.trace.reader import TraceReader

#: The toy ISA and RV64 with and without C, F and D; traps, interrupts, self-modifying code, entropy, waits, atomics.
GUESTS = (
    "hello", "sort", "traps", "smc", "smc-nofence", "mixed", "timer", "dice", "lrsc", "lrsc64", "fp", "echo", "nowhere",
)  # fmt: skip
SCRIPT = ((5_000, b"hello\n"), (40_000, b"quit\n"))
CUT = 40_000


Both = Callable[..., tuple[TraceReader, TraceReader]]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    """Records one run with both captures, inputs and full, and opens the recordings."""
    with ExitStack() as stack:

        def make(guest: str, chaos: int | None = None, cut: int = CUT) -> tuple[TraceReader, TraceReader]:
            script = SCRIPT if guest == "echo" else ()
            inputs, full = (
                record(tmp_path / f"{capture}.vmrec", guest, capture=capture, chaos=chaos, max_insns=cut, script=script)
                for capture in ("inputs", "full")
            )
            return stack.enter_context(TraceReader(inputs.path)), stack.enter_context(TraceReader(full.path))

        yield make


@pytest.mark.parametrize("chaos", [None, 3], ids=["virtual", "chaos"])
@pytest.mark.parametrize("guest", GUESTS)
def test_captured_rows_are_the_regenerated_ones(guest: str, chaos: int | None, both: Both) -> None:
    """Who reads rows cannot tell which they were, and every step has one."""
    inputs, full = both(guest, chaos)
    captured, regenerated = list(rows(full)), list(rows(inputs))

    assert captured == regenerated
    assert [row.position for row in captured] == list(range(inputs.last_position))


def test_a_range_of_rows_is_that_part_of_them(both: Both) -> None:
    inputs, full = both("timer")
    everything = list(rows(full))

    for first, last in ((0, 1), (17, 17), (4_095, 4_097), (12_345, 13_000), (39_990, 40_000), (39_990, 10**9)):
        assert list(rows(full, first, last)) == everything[first:last]
        assert list(rows(inputs, first, last)) == everything[first:last]
        assert [step.row for step in steps(inputs, first, last)] == everything[first:last]
    assert list(rows(inputs, 10**9)) == list(rows(full, 10**9)) == []


def test_rows_around_a_position_of_the_grid(both: Both) -> None:
    """There a dictionary of blocks begins, and blocks are cut."""
    inputs, full = both("loop-mem", cut=GRID + 1_000)

    for first, last in ((GRID - 40, GRID + 40), (GRID, GRID + 1), (GRID + 500, GRID + 700)):
        assert list(rows(full, first, last)) == list(rows(inputs, first, last))


def test_rows_after_a_checkpoint_come_from_there(tmp_path: Path) -> None:
    recorded = record(tmp_path / "long.vmrec", "timer-long", chaos=5, max_insns=70_000_000)

    with TraceReader(recorded.path) as trace:
        mark = trace.checkpoints[0]
        with Player(trace) as player:  # from the start, past the checkpoint
            player.run_to(mark.position + 1_000)
            far = registers(player.machine)
        with player_at(trace, mark.position + 1_000) as player:
            assert registers(player.machine) == far
        assert next(rows(trace, mark.position + 1_000)).pc == far["pc"]


@pytest.mark.parametrize("guest", GUESTS)
def test_register_writes_lead_to_the_final_registers(guest: str, both: Both) -> None:
    """Replayed on a register file in Python; each value before is the one that the last write left."""
    inputs, full = both(guest, chaos=7)
    with Player(inputs) as player:
        file = registers(player.machine)
        player.run_to(inputs.last_position)
        wanted = registers(player.machine)
        interrupts = player.machine.statistics["interrupts"]
        traps = player.machine.position - player.machine.icount

    found = list(steps(inputs))
    for step in found:
        for name, (before, after) in step.writes.items():
            assert file[name] == before != after
            file[name] = after
    assert {**file, "pc": wanted["pc"]} == wanted
    assert sum(step.interrupt is not None for step in found) == interrupts
    assert sum(step.cause is not None for step in found) == traps
    assert found == list(steps(full))


def test_interrupts_and_traps_are_where_they_happened(both: Both) -> None:
    inputs, _ = both("traps", cut=400_000)
    found = list(steps(inputs))

    assert {step.interrupt for step in found} == {None, 3, 7, 11}
    assert {0, 1, 2, 3, 5, 7, 11} <= {step.cause for step in found}
    for step in found:
        if step.interrupt is not None and not step.row.trap:
            assert step.writes["mcause"][1] == 1 << 31 | step.interrupt or "mcause" not in step.writes
        assert (step.cause is not None) == step.row.trap
        assert not step.row.trap or not step.row.accesses


def test_the_last_rows_of_a_killed_recorder_are_regenerated(both: Both, tmp_path: Path) -> None:
    _, full = both("sort", cut=5_000_000)
    objects = sum(obj[0] == "rows" for _, obj in full.objects())
    assert objects > 1
    torn = forge(Path(full.path), tmp_path / "torn.vmrec", changed("rows", objects - 1, lambda obj: None))

    with TraceReader(torn) as trace:
        first = full.last_position - 50_000
        assert list(rows(trace, first)) == list(rows(full, first))


def test_missing_rows_in_the_middle_are_damage(both: Both, tmp_path: Path) -> None:
    _, full = both("sort", cut=5_000_000)
    holed = forge(Path(full.path), tmp_path / "holed.vmrec", changed("rows", 0, lambda obj: None))

    with TraceReader(holed) as trace, pytest.raises(TraceError, match="has no rows for the steps 0 to"):
        next(rows(trace, 0))


def test_what_does_not_replay_is_an_error_and_what_does_comes_before_it(both: Both, tmp_path: Path) -> None:
    inputs, full = both("hello")
    position = next(record_.position for record_ in inputs.records())
    forged = forge(Path(inputs.path), tmp_path / "forged.vmrec", changed("console", 0, lambda obj: [*obj[:2], b"?"]))

    with TraceReader(forged) as trace:
        for regenerate in (rows, steps):
            found: list[Any] = []
            with pytest.raises(TraceError, match=f"beyond position {position}.*vmrec verify"):
                found.extend(iter_into(found, regenerate(trace)))
            assert len(found) >= position
            assert [getattr(item, "row", item) for item in found] == list(rows(full, 0, len(found)))


def iter_into(found: list[Any], items: Any) -> Any:
    for item in items:
        found.append(item)
    return ()


def test_steps_compare_the_captured_rows(both: Both, tmp_path: Path) -> None:
    """`rows` gives what was captured, even if it is wrong; `steps` executes, and notices."""
    _, full = both("hello")
    right = list(rows(full))
    access = [access for row in right for access in row.accesses][20]
    edit = changed("rows", 0, lambda obj: with_value(obj, 20, access.value ^ 1))
    forged = forge(Path(full.path), tmp_path / "forged.vmrec", edit)

    with TraceReader(forged) as trace:
        (wrong,) = [a for a, b in zip(rows(trace), right, strict=True) if a != b]
        with pytest.raises(TraceError, match=f"beyond position {wrong.position}: the executed row differs"):
            list(steps(trace))


def test_no_listing_is_longer_than_the_recording_or_shorter(both: Both) -> None:
    """Waits at the end, and a stop that is no step."""
    inputs, full = both("echo")

    assert len(list(steps(inputs))) == inputs.last_position == full.last_position
    assert all(isinstance(step, Step) for step in itertools.islice(steps(inputs), 10))


# ------------------------------------------------------------------------------------------------------------- the verb


def listing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], str]:
    """What `vmrec trace` writes: lines of stdout, and stderr."""
    assert main(["trace", *arguments]) == 0
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err


def test_trace_names_what_it_shows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(place / "race.vmrec", "race", chaos=1, max_insns=60_000)
    lines, error = listing(capsys, "race", "--from", "40980", "--to", "41010", "--accesses")

    text = "\n".join(lines)
    assert lines[0] == "earn"
    assert "race.c:32" in text
    assert "--> clock: guest time" in text
    assert "*** machine timer interrupt" in text
    assert "task_trap" in lines
    assert "csrrw a0, mscratch, a0" in text
    assert "mcause=0x80000007" in text
    assert "write 4 at" in text
    assert sum(line.lstrip()[:6].replace(" ", "").isdigit() for line in lines) == 31  # 30 steps and a clock event
    assert max(map(len, lines)) <= 80
    assert error == ""


@pytest.mark.parametrize("guest", ["fp", "lrsc64", "traps", "echo", "nowhere"])
def test_trace_fits_into_80_columns(guest: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(place / "t.vmrec", guest, capture="full", max_insns=20_000, script=SCRIPT if guest == "echo" else ())
    lines, _ = listing(capsys, "--accesses", "--from", "0", "--to", "20000")

    assert max(map(len, lines)) <= 80


def test_trace_shows_a_part_of_a_long_recording_and_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(place / "t.vmrec", "sort", max_insns=20_000)
    begin, said = listing(capsys, "t")
    assert said == "1 000 steps shown, 19 000 left out; --from and --to choose others.\n"
    assert listing(capsys, "t", "--from", "0", "--to", "1000") == (begin, "")
    assert listing(capsys, "t", "--to", "19000")[0] == listing(capsys, "t", "--from", "18000", "--to", "19000")[0]
    assert listing(capsys, "t", "--from", "18000")[0] == listing(capsys, "t", "--from", "18000", "--to", "19000")[0]
    record(place / "short.vmrec", "hello", max_insns=500)
    assert listing(capsys, "short")[1] == ""


def test_trace_in_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line; the same for both captures."""
    for capture in ("inputs", "full"):
        record(place / f"{capture}.vmrec", "traps", capture=capture, max_insns=20_000)
    lines, _ = listing(capsys, "inputs", "--json", "--from", "0", "--to", "20000")
    again, _ = listing(capsys, "full", "--json", "--from", "0", "--to", "20000")

    assert lines[1:] == again[1:]
    head, *items = map(json.loads, lines)
    assert head == {
        "schema": "vmrec-trace/1", "path": "inputs.vmrec", "guest": "traps", "isa": "rv32im", "from": 0, "to": 20_000,
    }  # fmt: skip
    found = [item for item in items if item["type"] == "step"]
    assert [item["position"] for item in found] == list(range(20_000))
    assert set(found[0]) == {
        "type", "position", "pc", "symbol", "line", "code", "instruction", "interrupt", "trap", "registers", "accesses",
    }  # fmt: skip
    assert found[0]["pc"] == 0x1000
    assert {"kind": "r", "address": 0x1018, "size": 4, "value": 0x80000000} in found[3]["accesses"]
    assert found[3]["registers"] == {"t0": {"before": 0x1000, "after": 0x80000000}}
    assert "illegal instruction" in {item["trap"] for item in found}
    order = [(item["position"], item["type"] != "event") for item in items]
    assert order == sorted(order)
    assert any(item["type"] == "output" and item["kind"] == "console" for item in items)


def test_trace_of_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(place / "t.vmrec", "hello", max_insns=200)

    assert main(["trace", "t", "--from", "200"]) == 2
    assert "ends at position 200" in capsys.readouterr().err
    assert main(["trace", "t", "--from", "9", "--to", "3"]) == 2
    assert "a range goes forwards" in capsys.readouterr().err


def test_trace_stops_quietly_when_its_reader_goes_away(place: Path) -> None:
    record(place / "t.vmrec", "sort", max_insns=200_000)
    command = [sys.executable, "-m", "vmrec", "trace", "t", "--from", "0", "--to", "200000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "boot-rom\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141
