# SPDX-License-Identifier: GPL-2.0-or-later
"""The teaching kernel on vmrec: it does what it does on QEMU, and a recording of it is replayed however one likes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kernels import BANK, COMMANDS, ENDING, bank_seed, kernel_machine, lines_of, record_kernel
from recordings import Recorded
from test_kernel_qemu import console as on_qemu
from test_kernel_qemu import qemu

from vmrec.diff.first import Difference, diff
from vmrec.events import Disk
from vmrec.machine.machine import Digest, Engine, Exit
from vmrec.record.session import LiveRun
from vmrec.replay.player import Player
from vmrec.replay.rows import rows
from vmrec.trace.reader import TraceReader


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """With its inputs."""
    return record_kernel(tmp_path_factory.mktemp("kernel") / "inputs.vmrec", f"slice=200 run={COMMANDS}")


def test_every_program_does_what_it_should(recorded: Recorded) -> None:
    assert (recorded.ended.reason, recorded.ended.exit_code) == ("poweroff", 1)  # SBI knows only good and bad
    assert recorded.ended.icount < 20_000_000
    lines = lines_of(recorded.console)
    assert lines[0] == "kernel: 128 MiB, timer: stimecmp"
    assert lines[1] == "disk: virtio-mmio version 2, 96 blocks"
    assert lines[-len(ENDING) :] == ENDING


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-riscv64") is None, reason="qemu-system-riscv64 is not installed")
@pytest.mark.parametrize("virtio", ["modern", "legacy"])
def test_the_console_is_that_of_qemu(virtio: str, recorded: Recorded, tmp_path: Path) -> None:
    append = f"slice=200 run={COMMANDS}"
    if virtio == "legacy":
        recorded = record_kernel(tmp_path / "legacy.vmrec", append, virtio="legacy")
    assert lines_of(recorded.console) == on_qemu(qemu(tmp_path, append, legacy=virtio == "legacy"))


OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin")


@pytest.mark.skipif(not OPENSBI.is_file(), reason=f"{OPENSBI} is not there (Debian: opensbi)")
def test_over_opensbi_it_is_the_same() -> None:
    with kernel_machine(f"slice=200 run={COMMANDS}", bios=str(OPENSBI)) as (machine, world):
        console: list[bytes] = []
        LiveRun(machine, world, console=console.append).run()
    shown = b"".join(console)
    assert lines_of(shown[shown.index(b"kernel: ") :])[-len(ENDING) :] == ENDING


def test_a_replay_is_the_same(recorded: Recorded) -> None:
    console: list[bytes] = []
    with TraceReader(recorded.path) as trace, Player(trace, console=console.append) as player:
        assert player.run() is None
        assert player.machine.digest() == recorded.digest
        assert b"".join(console) == recorded.console
        blocks = [event for event in trace.records() if isinstance(event, Disk)]
        assert len({event.block for event in blocks}) == len(blocks) > 8  # each is read from the image once


def digest_at_end(append: str, engine: Engine, cuts: int) -> Digest:
    """Without a recorder: run by one executor, cut into pieces of `cuts` steps."""
    with kernel_machine(append) as (machine, world):
        while not machine.stopped:
            exit_ = machine.run(machine.position + cuts, engine=engine)
            if exit_ is Exit.MISSING_PAGE:
                block = machine.missing_block
                assert block is not None
                machine.set_page(machine.missing_page, world.drives.block(*block))
            machine.take_outputs()
        return machine.digest()


@pytest.mark.parametrize(("engine", "cuts"), [("stepper", 1 << 40), ("engine", 100_003), ("auto", 7_919)])
def test_neither_the_executor_nor_cuts_matter(recorded: Recorded, engine: Engine, cuts: int) -> None:
    found = digest_at_end(f"slice=200 run={COMMANDS}", engine, cuts)
    assert (found.position, found.registers, found.ram, found.devices) == (
        recorded.digest.position, recorded.digest.registers, recorded.digest.ram, recorded.digest.devices
    )  # fmt: skip


def test_capturing_everything_changes_nothing(tmp_path: Path) -> None:
    inputs = record_kernel(tmp_path / "inputs.vmrec", "run=echo hello > file; cat file")
    full = record_kernel(tmp_path / "full.vmrec", "run=echo hello > file; cat file", capture="full")
    assert full.digest == inputs.digest
    assert full.console == inputs.console
    with TraceReader(full.path) as trace, Player(trace, check_rows=True) as player:
        assert player.run() is None
    with TraceReader(full.path) as trace, TraceReader(inputs.path) as other:
        for one, two in zip(rows(trace, 300_000, 303_000), rows(other, 300_000, 303_000), strict=True):
            assert one == two


@pytest.fixture(scope="module")
def seed() -> int:
    return bank_seed()


def test_the_race_shows_with_some_chaos_and_stays(seed: int, tmp_path: Path) -> None:
    with kernel_machine(BANK) as (machine, world):
        console: list[bytes] = []
        assert LiveRun(machine, world, console=console.append).run().exit_code == 0
        assert b"balance 40 of 40: good" in b"".join(console)
    bad = record_kernel(tmp_path / "bad.vmrec", BANK, chaos=seed)
    assert bad.ended.exit_code == 1
    for _ in range(2):
        with TraceReader(bad.path) as trace, Player(trace) as player:
            assert player.run() is None
            assert player.machine.digest() == bad.digest
    good = record_kernel(tmp_path / "good.vmrec", BANK, chaos=seed + 1)
    with TraceReader(bad.path) as trace, TraceReader(good.path) as other:
        assert isinstance(diff(trace, other), Difference)


def test_where_pages_are_missing_does_not_matter(recorded: Recorded) -> None:
    """Again and again pages of RAM and blocks of the disk that were just written go away, until they are wanted."""
    away: dict[int, bytes] = {}
    brought = 0
    with kernel_machine(f"slice=200 run={COMMANDS}") as (machine, world):
        step = 1
        while not machine.stopped:
            if machine.run(machine.position + step, engine="auto") is Exit.MISSING_PAGE:
                index, block = machine.missing_page, machine.missing_block
                content = away.pop(index, None)
                brought += content is not None
                machine.set_page(index, world.drives.block(*block) if content is None and block else content or b"")
                continue
            machine.take_outputs()
            step = step * 5 % 99_991 + 1
            for index, hash_ in list(machine.take_changed().items())[:40]:
                away[index] = machine.page(index)
                machine.put_missing(index, hash_)
        found = machine.digest()
    assert brought > 500
    assert (found.position, found.registers, found.ram) == (
        recorded.digest.position, recorded.digest.registers, recorded.digest.ram
    )  # fmt: skip


def test_typed_input_is_edited_and_replayed(tmp_path: Path) -> None:
    script = ((1_000_000, b"ech\x08\x7fcho one\r"), (3_000_000, b"ls nonsense\x15cat\r"), (4_000_000, b"two\r\x04\x04"))
    typed = record_kernel(tmp_path / "typed.vmrec", "", script=script)
    shown = "\n".join(lines_of(typed.console))
    assert "\none\n$ ls nonsense" in shown
    assert "cat\ntwo\ntwo\n$ " in shown
    assert shown.endswith("kernel: init has ended with 0, power off")
    with TraceReader(typed.path) as trace, Player(trace) as player:
        assert player.run() is None
        assert player.machine.digest() == typed.digest
