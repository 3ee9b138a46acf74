# SPDX-License-Identifier: GPL-2.0-or-later
"""Record = replay: every guest, both captures, several chaos seeds, from the start and from every checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import assemble, encode
from recordings import Recorded, record
from test_guest_loading import Load, make_elf

from vmrec.machine.board import GRID
from vmrec.machine.machine import Engine
from vmrec.replay.player import Player
from vmrec.trace.reader import TraceReader

SCRIPTS: dict[str, tuple[tuple[int, bytes], ...]] = {
    "echo": ((5_000, b"hello\n"), (40_000, b"a longer line than the others\n"), (90_000, b"quit\n")),
    "crash": ((1_000, b"A" * 40 + b"\n"),),
}
#: Guests that run long are cut; what they do is the same all along.
SHORT = (
    "counters", "counters-manual", "crash", "dice", "echo", "fp", "hello", "lrsc", "lrsc64", "mixed", "nowhere", "race",
    "smc", "smc-nofence", "sort", "timer", "traps", "traps-manual", "wfi-forever",
)  # fmt: skip
CUT = ("flood", "forever", "loop-fp", "loop-mem", "loop-mixed", "loop-smc", "loop-trap", "loop64-mem", "timer-long")
CUT_AT = 400_000


def replay(recorded: Recorded, *, engine: Engine = "auto", check_rows: bool = False) -> None:
    """Replays and demands equality of everything that there is."""
    console: list[bytes] = []
    with TraceReader(recorded.path) as trace, Player(
        trace, console=console.append, engine=engine, check_rows=check_rows
    ) as player:
        divergence = player.run()
        assert divergence is None
        assert player.machine.position == recorded.ended.position
        assert player.machine.icount == recorded.ended.icount
        assert player.machine.digest() == recorded.digest
        assert b"".join(console) == recorded.console
        if check_rows:
            assert player.rows_checked == recorded.ended.position


@pytest.mark.parametrize("chaos", [None, 1, 2, 3], ids=lambda seed: f"chaos-{seed}")
@pytest.mark.parametrize("guest", [*SHORT, *CUT])
def test_record_equals_replay(guest: str, chaos: int | None, tmp_path: Path) -> None:
    """Inputs and full captures of one run are one run, and each replays as it was."""
    limit = CUT_AT if guest in CUT else None
    script = SCRIPTS.get(guest, ())
    inputs = record(tmp_path / "inputs.vmrec", guest, chaos=chaos, max_insns=limit, script=script)
    full = record(tmp_path / "full.vmrec", guest, capture="full", chaos=chaos, max_insns=limit, script=script)

    assert inputs.digest == full.digest
    assert inputs.console == full.console
    assert inputs.ended.reason == full.ended.reason
    replay(inputs)
    replay(inputs, engine="stepper")
    replay(full)
    replay(full, check_rows=True)


def test_chaos_seeds_really_differ(tmp_path: Path) -> None:
    """The other side of the claim: another seed is another run."""
    digests = {record(tmp_path / f"{seed}.vmrec", "race", chaos=seed).digest.value for seed in range(8)}

    assert len(digests) == 8


def test_some_seed_loses_updates(tmp_path: Path) -> None:
    """The demo's race shows under chaos, and only under chaos."""
    plain = record(tmp_path / "plain.vmrec", "race")
    codes = {record(tmp_path / f"{seed}.vmrec", "race", chaos=seed).ended.exit_code for seed in range(64)}

    assert plain.ended.exit_code == 0
    assert codes == {0, 1}


@pytest.mark.parametrize("chaos", [None, 5], ids=["virtual", "chaos"])
def test_replay_from_every_checkpoint_equals_replay_from_zero(chaos: int | None, tmp_path: Path) -> None:
    """A checkpoint holds everything that the rest of the run depends on, the outputs so far included."""
    recorded = record(tmp_path / "long.vmrec", "timer-long", chaos=chaos, max_insns=300_000_000)

    with TraceReader(recorded.path) as trace:
        assert len(trace.checkpoints) >= 3
        for mark in trace.checkpoints:
            with Player(trace, checkpoint=mark) as player:
                assert player.machine.position == mark.position
                assert player.run() is None
                assert player.machine.digest() == recorded.digest


def test_two_recordings_are_equal(tmp_path: Path) -> None:
    """Without live input a recording is a function of guest and options, to the last byte of its records."""
    first = record(tmp_path / "a.vmrec", "timer", chaos=11)
    second = record(tmp_path / "b.vmrec", "timer", chaos=11)

    with TraceReader(first.path) as a, TraceReader(second.path) as b:
        assert list(a.records()) == list(b.records())
        assert [mark.value for mark in a.digests] == [mark.value for mark in b.digests]


def test_scripted_bytes_arrive_where_they_were_sent(tmp_path: Path) -> None:
    """`--input-at` means exactly that position; what finds the receiver full waits for room."""
    recorded = record(tmp_path / "t.vmrec", "forever", max_insns=10_000, script=((1_234, b"x"), (5_000, b"yz")))

    with TraceReader(recorded.path) as trace:
        assert [record_.wire() for record_ in trace.records()] == [["input", 1_234, b"x"]]


def test_a_guest_that_would_wait_for_ever_gets_its_script_early(tmp_path: Path) -> None:
    """Positions stand still in a wait, so bytes that are scripted for later end it."""
    recorded = record(tmp_path / "t.vmrec", "echo", script=((10**9, b"quit\n"),))

    assert recorded.ended.reason == "poweroff"
    assert recorded.ended.position < 10**9


@pytest.mark.parametrize(("pages", "places"), [(200, [1, 2]), (300, [2]), (600, [])])
def test_busy_guests_have_digests_further_apart(pages: int, places: list[int], tmp_path: Path) -> None:
    """A page pays for its hash with 2^16 steps."""
    far = 0x1_0000 + 4096 * pages
    code = assemble(
        encode("lui", 5, imm=0x8001_0000), encode("lui", 7, imm=far + 0x8000_0000), encode("lui", 8, imm=0x1000),
        encode("addi", 6, 6, imm=1), encode("sw", 0, 5, 6), encode("add", 5, 5, 8), encode("bne", 0, 5, 7, -12),
        encode("jal", imm=-28),
    )  # fmt: skip
    elf = tmp_path / "busy.elf"
    elf.write_bytes(make_elf(Load(data=code)))
    recorded = record(tmp_path / "busy.vmrec", elf, max_insns=2 * GRID + 1)
    with TraceReader(recorded.path) as trace:
        expected = [*(place * GRID for place in places), 2 * GRID + 1]
        assert [mark.position for mark in trace.digests] == expected
        with Player(trace) as player:
            assert player.run() is None
            assert player.compared == len(expected)
