# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives: the guest `disk` recorded, replayed, cut, moved about in, with its image gone, killed, forked, forged."""

from __future__ import annotations

import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from command_line import Inside, environment
from forging import changed, forge
from machines import ENGINES, GUESTS, Run, shipped
from test_crash_safety import check_prefix, killed
from trace_files import noise

from vmrec.errors import TraceError, UsageError
from vmrec.events import Disk, Input, Written
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import PAGE_SIZE, VIRTIO_BASE, MachineConfig
from vmrec.machine.machine import Engine, Exit, Machine
from vmrec.record.drives import DriveImage, ImageSet, NoBlocks
from vmrec.record.fork import Fork
from vmrec.replay import names
from vmrec.replay.player import Player
from vmrec.replay.points import Records, Watch
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import verify_chain
from vmrec.trace.writer import TraceWriter

DISK = GUESTS / "disk.elf"
SIZE = 100_000  # no whole number of sectors, or of blocks
PADDED = 100_352
IMAGE = noise(SIZE, "image")
BLOCKS = [IMAGE[at : at + PAGE_SIZE].ljust(PAGE_SIZE, b"\0") for at in range(0, SIZE, PAGE_SIZE)]
FOREVER = 10**9
CLEARED = 20_000  # a position by which the guest has cleared its memory, and not read the drive yet
LAYOUTS = ("modern", "legacy")
#: What the guest does to its drive, in order: (kind, block or sector).
HISTORY = [("disk", 0), ("disk", 1), ("disk", 2), ("written", 13), ("disk", 5), ("written", 40), ("written", 40)]
WRITTEN = bytes((i * 7 + (i >> 8)) & 255 for i in range(7 * 512))


def config(virtio: str = "modern", *, chaos: bool = False) -> MachineConfig:
    rule: Any = "stepped" if chaos else "virtual"
    layout: Any = virtio
    return MachineConfig(
        isa="rv64gcsu", ram_size=1 << 20, time_rule=rule, drives=(PADDED,), devices=("virtio-rng",), virtio=layout
    )


def after() -> bytes:
    """What the drive holds in the end."""
    content = bytearray(IMAGE.ljust(PADDED, b"\0"))
    content[13 * 512 : 20 * 512] = WRITTEN
    code = b"".join(word.to_bytes(4, "little") for word in (0x513 | 22 << 20, 0x8067))  # li a0, 22; ret
    content[40 * 512 : 41 * 512] = code.ljust(512, b"\0")
    return bytes(content)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "drive.img"
    path.write_bytes(IMAGE)
    return path


@pytest.fixture
def inside(capsysbinary: pytest.CaptureFixture[bytes]) -> Inside:
    return Inside(capsysbinary)


def options(image: Path, *more: object) -> list[object]:
    return ["record", DISK, "--isa", "rv64gcsu", "--ram", "1M", "--seed", 1, "--drive", image,
            "--device", "virtio-rng", *more]  # fmt: skip


@pytest.fixture
def recorded(inside: Inside, image: Path, tmp_path: Path) -> Path:
    path = tmp_path / "disk.vmrec"
    inside(*options(image, "-o", path))
    return path


def history(path: Path) -> list[tuple[str, int]]:
    with TraceReader(path) as trace:
        found = [record for record in trace.records() if isinstance(record, Disk | Written)]
    return [(record.kind, record.block if isinstance(record, Disk) else record.sector) for record in found]


# ------------------------------------------------------------------------------------------------ record and replay


@pytest.mark.parametrize("virtio", LAYOUTS)
@pytest.mark.parametrize("capture", ["inputs", "full"])
@pytest.mark.parametrize("chaos", [(), ("--chaos", 7)], ids=["virtual", "chaos"])
def test_record_and_replay(
    virtio: str, capture: str, chaos: tuple[object, ...], inside: Inside, image: Path, tmp_path: Path
) -> None:
    path = tmp_path / "disk.vmrec"
    inside(*options(image, "-o", path, "--virtio", virtio, "--capture", capture, *chaos))
    console = inside.out
    assert b"same 1\n" in console
    assert b"code 11\ncode 22\n" in console
    assert history(path) == HISTORY
    assert image.read_bytes() == IMAGE
    image.unlink()
    assert "all as recorded" in inside("replay", path, "--check")
    assert inside.out == console
    assert verify_chain(path).ok
    for engine in ENGINES:
        with TraceReader(path) as trace, Player(trace, engine=engine) as player:
            assert trace.header["version"] == 3
            assert player.run() is None


@pytest.mark.qemu
@pytest.mark.parametrize("virtio", LAYOUTS)
def test_the_console_is_that_of_qemu(virtio: str, inside: Inside, image: Path, tmp_path: Path) -> None:
    qemu = "qemu-system-riscv64"
    if shutil.which(qemu) is None:
        pytest.skip(f"{qemu} is not installed: nothing to compare with")
    done = subprocess.run(
        [qemu, "-machine", "virt", "-bios", "none", "-display", "none", "-serial", "stdio", "-monitor", "none",
         "-kernel", DISK, "-global", f"virtio-mmio.force-legacy={'true' if virtio == 'legacy' else 'false'}",
         "-drive", f"file={image},if=none,format=raw,id=a,snapshot=on",
         "-device", "virtio-blk-device,drive=a,bus=virtio-mmio-bus.0",
         "-device", "virtio-rng-device,bus=virtio-mmio-bus.1"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    inside(*options(image, "-o", tmp_path / "disk.vmrec", "--virtio", virtio))
    ours, theirs = (
        [line for line in out.replace(b"\r", b"").splitlines() if not line.startswith(b"random 0x")]
        for out in (inside.out, done.stdout)
    )
    assert ours == theirs


# ------------------------------------------------------------------------- cuts, executors, missing pages, one state


class DriveRun(Run):
    """A run whose drive comes from IMAGE; `rob` takes its blocks away too, once they were touched."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.blocks = {machine.config.page_of(0, block): content for block, content in enumerate(BLOCKS)}
        self.pages = dict(self.blocks)

    def rob_all(self) -> None:
        self.rob(range(self.machine.config.pages))

    def give_back(self) -> None:
        for index in [index for index in self.pages if self.pages[index] is not self.blocks.get(index)]:
            self.machine.set_page(index, self.pages.pop(index))


def fresh(virtio: str) -> DriveRun:
    return DriveRun(Machine(config(virtio), shipped("disk")))


@functools.cache
def normal(virtio: str) -> tuple[int, bytes, bytes]:
    run = fresh(virtio)
    assert run.to(FOREVER) is Exit.STOPPED
    assert run.machine.exit_code == 0
    return run.machine.position, run.outputs, run.machine.digest().value


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("virtio", LAYOUTS)
def test_where_a_run_is_cut_makes_no_difference(engine: Engine, virtio: str) -> None:
    rng = random.Random(f"{engine} {virtio}")
    run, position = fresh(virtio), 0
    while run.to(position, engine) is Exit.POSITION:
        position += rng.choice((1, 2, 50, 5_000, 20_000))
    assert (run.machine.position, run.outputs, run.machine.digest().value) == normal(virtio)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("capture", [False, True])
def test_where_pages_are_missing_makes_no_difference(engine: Engine, capture: bool) -> None:
    end, outputs, _ = normal("modern")
    plain, run = fresh("modern"), fresh("modern")
    run.rob_all()
    for each in (plain, run):
        if capture:
            each.capture()
    for position in range(0, end, end // 40):
        run.to(position, engine)
        run.rob_all()
    for each in (plain, run):
        each.to(FOREVER, engine)
        if capture:
            each.stop_capture()
    run.give_back()
    assert run.fetched > 100
    assert run.outputs == outputs
    assert run.rows == plain.rows
    assert run.look() == plain.look()
    touched = [index for index in run.blocks if not plain.machine.is_missing(index)]
    assert [run.machine.page(index) for index in touched] == [plain.machine.page(index) for index in touched]


def test_a_machine_that_is_given_state_and_pages_goes_on_alike() -> None:
    end, outputs, _ = normal("modern")
    run, plain = fresh("modern"), fresh("modern")
    for position in range(0, end, end // 10):
        run.to(position)
        old = run.machine
        run.machine = Machine(old.config, old.guest)
        for index in range(old.config.pages):
            if not old.is_missing(index):
                run.machine.set_page(index, old.page(index))
        run.machine.set_state(old.state())
        old.close()
    run.to(FOREVER)
    plain.to(FOREVER)
    assert (run.machine.position, run.outputs) == (end, outputs)
    digests = [each.machine.digest() for each in (run, plain)]
    assert (digests[0].registers, digests[0].devices, digests[0].ram) == (
        digests[1].registers, digests[1].devices, digests[1].ram
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the timeline


def test_moving_about(recorded: Path) -> None:
    with TraceReader(recorded) as trace, Timeline(trace) as timeline:
        rng = random.Random(1)
        places = rng.sample(range(trace.last_position), 30) + [record.position for record in trace.records()][:3]
        expected = {}
        for position in places:
            with Player(trace) as player:
                assert player.run_to(position) is None
                expected[position] = player.machine.digest().value
        rng.shuffle(places)
        for position in places * 2:
            timeline.seek(position)
            timeline._rewinder.go(position, fresh=True)
            assert timeline._machine.digest().value == expected[position]


@pytest.fixture
def fine_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests every 4096 steps and checkpoints every 8192, so that a short run has many."""
    for module in ("vmrec.record.session", "vmrec.record.recorder", "vmrec.replay.player", "vmrec.replay.rows"):
        monkeypatch.setattr(f"{module}.GRID", 1 << 12)
    monkeypatch.setattr("vmrec.record.recorder.CHECKPOINT_STEPS", 1 << 13)
    monkeypatch.setattr("vmrec.record.recorder.DIGEST_STEPS_PER_PAGE", 0)
    monkeypatch.setattr("vmrec.record.recorder.KERNEL_CHECKPOINT_STEPS_PER_PAGE", 1)


@pytest.mark.usefixtures("fine_grid")
@pytest.mark.parametrize("virtio", LAYOUTS)
def test_checkpoints_hold_the_drives(virtio: str, inside: Inside, image: Path, tmp_path: Path) -> None:
    """From each checkpoint on the replay is the same; blocks not touched by then still come from events."""
    path, second = tmp_path / "disk.vmrec", tmp_path / "second.img"
    second.write_bytes(noise(5000, "second"))
    inside(*options(image, "--drive", second, "-o", path, "--virtio", virtio))
    image.unlink()
    with TraceReader(path) as trace:
        marks = trace.checkpoints
        assert len(marks) > 15
        for mark in marks:
            with Player(trace, checkpoint=mark) as player:
                assert player.run() is None
        blocks = MachineConfig.from_dict(trace.header["machine"]).page_of(0, 0)
        held = [sorted(page - blocks for page in trace.page_hashes(mark) if page >= blocks) for mark in marks]
        assert held[0] == []
        assert held[-1] == [0, 1, 2], "block 5 is read behind the last"
        with Timeline(trace) as timeline:
            digests = {mark.position: mark.value for mark in trace.digests}
            rng = random.Random(virtio)
            for position in rng.sample(sorted(digests), 40):
                timeline._rewinder.go(position, fresh=True)
                assert timeline._machine.digest().value == digests[position]


@pytest.mark.usefixtures("fine_grid")
@pytest.mark.parametrize("late", [False, True])
def test_blocks_that_differ_are_named(late: bool, inside: Inside, image: Path, tmp_path: Path) -> None:
    """The recording has another content for a block that was written: the digests and checkpoints behind it say so.

    The first digest behind the write, or one long after it.
    """
    path = tmp_path / "disk.vmrec"
    inside(*options(image, "-o", path))
    with TraceReader(path) as trace:
        hashes = trace.page_hashes(trace.checkpoints[-1])
        page = MachineConfig.from_dict(trace.header["machine"]).page_of(0, 1)
        (store,) = (event.position for event in trace.records() if isinstance(event, Written) and event.sector == 13)
    forged, good = bytes(32), 150_000 if late else store

    def change(obj: list[Any]) -> list[list[Any]]:
        if obj[0] == "digest":
            return [[*obj[:2], {**obj[2], "value": forged, "ram": forged}]] if obj[1] > good else [obj]
        if obj[0] == "checkpoint":
            pages = [[index, hashes[page - 1] if index == page else hash_] for index, hash_ in obj[3]]
            return [[*obj[:3], pages]]
        return [obj]

    forged_path = forge(path, tmp_path / "forged.vmrec", change)
    inside("replay", forged_path, "--check", status=1)
    assert "drive 0 block 1" in inside.err
    assert f"written by drive 0 block 1: {names.number(store)} " in " ".join(inside.err.split())
    report = inside.json("replay", forged_path, "--check", status=1)["divergence"]
    assert (report["last_good"] > store) == late
    (writer,) = (writer for writer in report["writers"] if writer["what"] == "drive 0 block 1")
    assert report["blocks"] == [[0, 1]]
    assert writer["position"] == store
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        timeline.seek(writer["position"])
        step = timeline.step_here()
        assert step is not None
        assert step.row.pc == writer["pc"]
        (access,) = step.row.accesses
        assert (access.kind, access.address) == ("w", VIRTIO_BASE + 0x50)  # QueueNotify


def test_a_diff_names_the_block_that_differs(inside: Inside, image: Path, tmp_path: Path) -> None:
    """Of two images, the first block that the guest reads and that is another one."""
    inside(*options(image, "-o", tmp_path / "a.vmrec"))
    changed = bytearray(image.read_bytes())
    changed[PAGE_SIZE + 1] ^= 1
    image.write_bytes(changed)
    inside(*options(image, "-o", tmp_path / "b.vmrec"))
    inside("diff", tmp_path / "a.vmrec", tmp_path / "b.vmrec", status=1)
    for side, block in (("a", BLOCKS[1]), ("b", bytes(changed[PAGE_SIZE : 2 * PAGE_SIZE]))):
        content = blake3(block).hexdigest()[:16]
        assert re.search(rf"^{side}  disk at [0-9 ]+: drive 0 block 1, content {content}$", inside.out.decode(), re.M)
    cause = inside.json("diff", tmp_path / "a.vmrec", tmp_path / "b.vmrec", status=1)["cause"]["a"]
    assert (cause["kind"], cause["data"]["drive"], cause["data"]["block"]) == ("disk", 0, 1)


@pytest.mark.usefixtures("fine_grid")
@pytest.mark.parametrize("at", [9_000, 50_000, 150_000, 193_000])
@pytest.mark.parametrize("included", [False, True])
def test_a_fork_behind_checkpoints(at: int, included: bool, inside: Inside, image: Path, tmp_path: Path) -> None:
    path, child, again = tmp_path / "disk.vmrec", tmp_path / "child.vmrec", tmp_path / "again.vmrec"
    inside(*options(image, "-o", path))
    image.unlink()
    inside("fork", path, "--at", at, "-o", child, *(["--self-contained"] if included else []))
    with TraceReader(child) as trace:
        later = min(at + 20_000, trace.last_position - 50)
    inside("fork", child, "--at", later, "-o", again)
    for made in (child, again):
        assert "all as recorded" in inside("replay", made)
        assert verify_chain(made).ok
    with TraceReader(again) as trace, Timeline(trace) as timeline:
        for position in (trace.last_position, 100, at + 1, trace.last_position - 1):
            timeline.seek(position)


def test_a_watch_finds_what_the_device_stores(recorded: Path) -> None:
    """The first read fills the buffer from the drive, and no instruction of the guest does."""
    with TraceReader(recorded) as trace, Timeline(trace) as timeline:
        reads = [record.position for record in trace.records() if isinstance(record, Disk)]
        writes = [record for record in trace.records() if isinstance(record, Written)]
        symbols = shipped("disk").data
        buffer = _symbol(symbols, "buffer")
        hits = list(timeline.hits([Watch(buffer + 4096, 4)], CLEARED, reads[0] + 100))
        assert [hit.step for hit in hits] == [reads[0]]
        assert list(timeline.hits([Watch(buffer + 4096, 4)], CLEARED, reads[0] + 100, newest_first=True)) == hits
        timeline.seek(CLEARED)
        assert timeline.run([Watch(buffer + 5000, 8, "change")]).position == reads[0] + 1
        outputs = list(timeline.hits([Records(frozenset({"written"}))]))
        assert [hit.step for hit in outputs] == [record.position for record in writes]


def _symbol(elf: bytes, name: str) -> int:
    address = Symbols(elf).address(name)
    assert address is not None
    return address


def test_a_large_sparse_image_costs_nothing(tmp_path: Path) -> None:
    """What the process holds at most, with 100 KB and with 10 GiB."""
    peak = {}
    for name, size in (("small", SIZE), ("large", 10 << 30)):
        image = tmp_path / f"{name}.img"
        image.write_bytes(IMAGE)
        os.truncate(image, size)
        script = f"""
import resource, sys
from vmrec.cli.main import main
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader
path = {str(tmp_path / name)!r} + ".vmrec"
assert main({[str(option) for option in options(image)]!r} + ["-o", path]) == 0
with TraceReader(path) as trace, Timeline(trace) as timeline:
    timeline.seek(trace.last_position)
    timeline.seek(1000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True
        )
        peak[name] = int(done.stderr.splitlines()[-1])
    assert peak["large"] < peak["small"] + (32 << 10)


# --------------------------------------------------------------------------------------------------- what is recorded


def test_info_and_events_tell_of_the_drive(inside: Inside, recorded: Path, image: Path) -> None:
    report = inside.json("info", recorded)
    assert report["drives"] == [
        {"name": "drive.img", "size": SIZE, "modified": image.stat().st_mtime_ns, "found": "same"}
    ]
    assert report["counts"]["disk"] == {"records": 4, "bytes": 4 * PAGE_SIZE}
    assert report["counts"]["written"] == {"records": 3, "bytes": 9 * 512}
    inside("info", recorded)
    assert b"unchanged since" in inside.out
    image.write_bytes(IMAGE + b"more")
    inside("info", recorded)
    assert b"drive.img, 97.7 KiB; changed since, and not needed to replay" in inside.out
    assert "all as recorded" in inside("replay", recorded)
    image.unlink()
    inside("info", recorded)
    assert b"not to be found here" in inside.out
    inside("events", recorded, "--kind", "disk,written")
    assert b"disk     drive 0 block 5, content" in inside.out
    assert b"written  drive 0 sector 13, 3 584 bytes" in inside.out


@pytest.mark.parametrize(
    ("kind", "number", "edit", "message"),
    [
        ("disk", 1, lambda obj: None, "needs block 1 of drive 0 where the trace has block 2 of drive 0"),
        ("disk", 3, lambda obj: None, "needs block 5 of drive 0 where the trace has none"),
        ("disk", 0, lambda obj: [*obj[:3], 7, obj[4]], "needs block 0 of drive 0 where the trace has block 7"),
        ("disk", 0, lambda obj: [*obj[:2], 1, 0, obj[4]], "where the trace has block 0 of drive 1"),
        ("written", 0, lambda obj: [*obj[:4], 512], "the guest's output differs"),
        ("written", 1, lambda obj: None, "the guest's output differs"),
    ],
)
def test_a_replay_that_differs_says_so(
    kind: str, number: int, edit: Any, message: str, recorded: Path, inside: Inside, tmp_path: Path
) -> None:
    forged = forge(recorded, tmp_path / "forged.vmrec", changed(kind, number, edit))
    assert message in inside("replay", forged, status=1)


def test_a_block_whose_content_is_not_there(recorded: Path, inside: Inside, tmp_path: Path) -> None:
    forged = forge(recorded, tmp_path / "forged.vmrec", changed("page", 0, lambda obj: None))
    assert "is missing" in inside("replay", forged, status=2)
    inside("verify", forged, status=2)
    assert b"does not come before it" in b" ".join(inside.out.split())


def test_a_killed_recorder_leaves_a_recording(image: Path, tmp_path: Path) -> None:
    rng = random.Random("killed")
    arguments = [str(option) for option in options(image, "--capture", "full")[1:]]
    moments = [(arguments, rng.randrange(45_000), rng.randrange(200_000)) for _ in range(30)]
    reports = [check_prefix(path) for path in killed(tmp_path, moments)]
    assert max(report.last_position for report in reports if report is not None) > 1000


# ------------------------------------------------------------------------------------------------------- the image


def test_commit(inside: Inside, image: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "after.img", tmp_path / "disk.vmrec"
    report = inside.json(*options(image, "-o", path, "--drive-commit", out))
    assert report["committed"] == [{"drive": 0, "path": str(out), "touched_blocks": 4}]
    assert out.read_bytes() == after()
    assert image.read_bytes() == IMAGE
    assert "is the image itself" in inside(*options(image, "-o", path, "--force", "--drive-commit", image), status=2)
    assert "exists already" in inside("replay", path, "--drive-commit", out, "--drive", image, status=2)
    again = tmp_path / "again.img"
    assert "for the others" in inside("replay", path, "--drive-commit", again, status=2)
    inside("replay", path, "--drive-commit", again, "--drive", image)
    assert again.read_bytes() == after()
    again.write_bytes(b"old")
    inside("replay", path, "--drive-commit", again, "--drive", image, "--force")
    assert again.read_bytes() == after()
    inside("replay", path, "--to", "1000", "--drive-commit", tmp_path / "early.img", "--drive", image)
    assert (tmp_path / "early.img").read_bytes() == IMAGE.ljust(PADDED, b"\0")
    assert not list(tmp_path.glob(".vmrec-*"))
    image.write_bytes(IMAGE[:-1] + b"x")
    text = inside("replay", path, "--drive-commit", again, "--drive", image, "--force")
    assert "is not, or not any more, what the recording was made from" in text
    image.write_bytes(bytes(512))
    assert "another image" in inside(
        "replay", path, "--drive-commit", again, "--drive", image, "--force", status=2
    )


def test_bad_images_and_options(inside: Inside, image: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.touch()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for bad, message in (
        (tmp_path / "none.img", "cannot be read (No such file or directory)"),
        (tmp_path, "is a directory"),
        (empty, "is empty"),
        (fifo, "is no regular file"),
    ):
        text = inside(*options(bad, "-o", tmp_path / "t.vmrec"), status=2)
        assert message in text
        assert "Traceback" not in text
    many = [option for _ in range(4) for option in ("--drive", image)]
    assert "more than the 4" in inside(*options(image, *many), status=2)
    assert "there is no device 'disk'" in inside(*options(image, "--device", "disk"), status=2)
    assert "takes one virtio-rng" in inside(*options(image, "--device", "virtio-rng"), status=2)
    assert "--isa rv64gcsu" in inside("record", "hello", "--drive", image, status=2)
    assert "a replay needs no image" in inside("replay", "x", "--drive", image, status=2)
    assert "given 2 times" in inside(
        *options(image, "--drive-commit", tmp_path / "a", "--drive-commit", tmp_path / "b"), status=2
    )
    assert "same file" in inside(*options(image, "-o", image, "--force"), status=2)
    huge = tmp_path / "huge.img"
    huge.touch()
    os.truncate(huge, (128 << 30) + 512)
    assert "at most 128 GiB" in inside(*options(huge), status=2)
    assert not (tmp_path / "t.vmrec").exists()


def test_an_image_of_odd_size_is_padded(inside: Inside, image: Path, tmp_path: Path) -> None:
    text = inside(*options(image, "-o", tmp_path / "odd.vmrec"))
    assert "100000 bytes are no whole number of sectors of 512; the guest sees 352 zeros behind them" in text
    assert inside.out.startswith(b"sectors 196\n")


def test_an_image_that_changes_while_it_is_recorded(image: Path) -> None:
    with DriveImage(image) as found, ImageSet([image]) as images:
        assert found.block(24) == BLOCKS[24]
        assert images.block(0, 3) == BLOCKS[3]
        with open(image, "r+b") as file:
            file.write(b"x")
        os.utime(image, ns=(1, 1))
        with pytest.raises(UsageError, match="was changed by somebody while it was in use"):
            found.block(1)
        with pytest.raises(UsageError, match="was changed"):
            images.block(0, 1)
        with pytest.raises(UsageError, match="name the image"):
            images.block(1, 0)


# ------------------------------------------------------------------------------------------------------------- forks


@pytest.mark.parametrize("included", [False, True])
@pytest.mark.parametrize("capture", ["inputs", "full"])
def test_fork(included: bool, capture: str, recorded: Path, inside: Inside, image: Path, tmp_path: Path) -> None:
    image.unlink()
    child = tmp_path / "child.vmrec"
    more = ["--self-contained"] if included else []
    inside("replay", recorded)
    console = inside.out
    inside("fork", recorded, "--at", 50_000, "-o", child, "--capture", capture, *more)
    if included:
        recorded.unlink()
    assert "all as recorded" in inside("replay", child, "--check")
    assert inside.out == console
    assert history(child) == HISTORY
    with TraceReader(child) as trace:
        assert trace.header["version"] == 3
        assert trace.header["drives"][0]["name"] == "drive.img"
    inside("verify", child)


def test_a_fork_reads_new_blocks_from_the_image(recorded: Path, inside: Inside, image: Path, tmp_path: Path) -> None:
    """At the first request the header in memory is changed to name another sector."""
    with TraceReader(recorded) as trace, Timeline(trace) as timeline:
        first = next(record.position for record in trace.records() if isinstance(record, Disk))
        timeline.seek(first)
        queue = timeline.state.read_memory(_symbol(shipped("disk").data, "disk_queue"), 8)
    sector = int.from_bytes(queue, "little") + 8
    fork = ["fork", recorded, "--at", first, "--poke", f"{sector:#x}=7000000000000000", "-o", tmp_path / "child.vmrec"]
    assert "needs block 14 of drive 0" in inside(*fork, status=2)
    inside(*fork, "--force", "--drive", image)
    assert history(tmp_path / "child.vmrec")[:3] == [("disk", 14), ("disk", 15), ("disk", 16)]
    assert "all as recorded" in inside("replay", tmp_path / "child.vmrec")
    other = tmp_path / "other.img"
    other.write_bytes(bytes(512))
    assert "name those it was made from" in inside(*fork, "--force", "--drive", other, status=2)


def test_blocks_of_the_parent_come_before_images(recorded: Path) -> None:
    with TraceReader(recorded) as trace, Fork(trace, 30_000) as fork:
        source = fork.blocks(NoBlocks())
        assert source.block(0, 5) == BLOCKS[5]
        with pytest.raises(UsageError, match="--drive"):
            source.block(0, 6)


# --------------------------------------------------------------------------------------------------------- hostility


@pytest.mark.parametrize(
    "machine",
    [
        {"drives": [513]}, {"drives": [0]}, {"drives": [-512]}, {"drives": [512] * 5}, {"drives": [1 << 50]},
        {"drives": ["x"]}, {"drives": 5}, {"devices": ["x"]}, {"devices": ["virtio-rng"] * 2}, {"devices": [1]},
        {"virtio": "odd"}, {"virtio": 1},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_machine_that_cannot_be(machine: dict[str, Any], recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.vmrec"
    rewritten(recorded, path, machine)
    with TraceReader(path) as trace, pytest.raises(TraceError, match="cannot be replayed"):
        Player(trace)


def rewritten(source: Path, target: Path, machine: dict[str, Any]) -> None:
    """A recording with another machine in its header."""
    with TraceReader(source) as trace:
        header = {**trace.header, "machine": {**trace.header["machine"], **machine}}
    with TraceWriter(target, header) as writer:
        writer.append(b"", 0, 5)


def test_states_that_cannot_be() -> None:
    with Machine(config(), shipped("disk")) as machine:
        good = machine.state()
        machine.set_state(good)
        for field, value in (
            ("status", 256), ("interrupt_status", 4), ("queue_num", [3, 0]), ("queue_num", [512, 0]),
            ("queue_ready", [2, 0]), ("queue_desc", [0]), ("queue_seen", [1 << 16, 0]),
        ):  # fmt: skip
            with pytest.raises(UsageError):
                machine.set_state({**good, "virtio0": {**good["virtio0"], field: value}})
        with pytest.raises(UsageError):
            machine.set_state({**good, "virtio2": good["virtio0"]})
        assert machine.state() == good



# -------------------------------------------------------------------------------------------------- a virtio console

TYPED = b"hello world\nthis is a line\nquit\n"


@pytest.mark.parametrize("virtio", LAYOUTS)
@pytest.mark.parametrize("capture", ["inputs", "full"])
@pytest.mark.parametrize("chaos", [(), ("--chaos", 7)], ids=["virtual", "chaos"])
def test_a_virtio_console(
    virtio: str, capture: str, chaos: tuple[object, ...], inside: Inside, tmp_path: Path
) -> None:
    """Input at the guest's pace, and all of it at one position, as far as there are buffers."""
    typed = tmp_path / "typed.txt"
    typed.write_bytes(TYPED)
    base = ["record", GUESTS / "terminal.elf", "--isa", "rv64gcsu", "--ram", "1M", "--device", "virtio-console",
            "--virtio", virtio, "--capture", capture, *chaos]  # fmt: skip
    script = r"8000:hello world\nthis is a line\nquit\n"
    for number, given in enumerate((["--input", typed], ["--input-at", script])):
        path = tmp_path / f"{number}.vmrec"
        inside(*base, *given, "-o", path)
        assert inside.out.replace(b"> ", b"") == b"HELLO WORLD\nTHIS IS A LINE\nterminal: bye\n"
        assert "all as recorded" in inside("replay", path, "--check")
        for engine in ENGINES:
            with TraceReader(path) as trace, Player(trace, engine=engine) as player:
                assert b"".join(record.data for record in trace.records() if isinstance(record, Input)) == TYPED
                assert player.run() is None


@pytest.mark.usefixtures("fine_grid")
def test_moving_about_in_console_input(inside: Inside, tmp_path: Path) -> None:
    """Buffers for input may be in pages that are not here when it comes."""
    typed, path = tmp_path / "typed.txt", tmp_path / "terminal.vmrec"
    typed.write_bytes(b"a line of some length\n" * 40 + b"quit\n")
    inside("record", GUESTS / "terminal.elf", "--isa", "rv64gcsu", "--ram", "1M", "--device", "virtio-console",
           "--input", typed, "-o", path)  # fmt: skip
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        assert len(trace.checkpoints) > 5
        digests = {mark.position: mark.value for mark in trace.digests}
        for position in random.Random(1).sample(sorted(digests), 15):
            timeline._rewinder.go(position, fresh=True)
            assert timeline._machine.digest().value == digests[position]
        for mark in trace.checkpoints:
            with Player(trace, checkpoint=mark) as player:
                assert player.run() is None


def test_a_watch_finds_where_input_was_stored(inside: Inside, tmp_path: Path) -> None:
    """No instruction sets that off: it belongs to the step behind the input."""
    typed, path = tmp_path / "typed.txt", tmp_path / "terminal.vmrec"
    typed.write_bytes(b"abcdef\nquit\n")
    inside("record", GUESTS / "terminal.elf", "--isa", "rv64gcsu", "--ram", "1M", "--device", "virtio-console",
           "--input", typed, "-o", path)  # fmt: skip
    with TraceReader(path) as trace, Timeline(trace) as timeline:
        inputs = [record.position for record in trace.records() if isinstance(record, Input)]
        watch = Watch(_symbol(shipped("terminal").data, "buffers"), 64)
        first = inputs[0] - 1
        assert [hit.step for hit in timeline.hits([watch], first)] == inputs
        assert [hit.step for hit in timeline.hits([watch], first, newest_first=True)] == inputs[::-1]
        timeline.seek(first)
        assert [timeline.run([watch]).position for _ in inputs] == [position + 1 for position in inputs]
        assert [timeline.reverse_run([watch]).position for _ in inputs] == inputs[::-1]
        change = Watch(watch.address, 64, "change")
        timeline.seek(first)
        assert timeline.run([change]).position == inputs[0] + 1


def test_two_runs_whose_devices_stored_differently_part_where_they_do(inside: Inside, tmp_path: Path) -> None:
    """What a device stores into RAM is no store of the guest's: the first load of it is where the two part."""
    for number in (1, 2):
        typed = tmp_path / "typed.txt"
        typed.write_bytes(b"%d\nquit\n" % number)
        inside("record", GUESTS / "terminal.elf", "--isa", "rv64gcsu", "--ram", "1M", "--device", "virtio-console",
               "--input", typed, "-o", tmp_path / f"{number}.vmrec")  # fmt: skip
    report = inside.json("diff", tmp_path / "1.vmrec", tmp_path / "2.vmrec", status=1)
    assert report["kind"] == "step"
    assert (report["a"]["instruction"], report["b"]["instruction"]) == ("lbu a0, 0(s1)",) * 2
    assert [report[which]["registers"]["a0"]["after"] for which in "ab"] == [ord("1"), ord("2")]
