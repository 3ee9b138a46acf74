# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec hunt: the good and the bad run with the lowest seeds, whoever is faster; and nothing is left behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command_line import finished, started, vmrec, wait_until
from kernels import BANK, ELF, IMAGE, record_kernel
from recordings import CREATED, record

from vmrec.cli.workers import workers
from vmrec.errors import UsageError
from vmrec.guest.builtin import builtin_guest
from vmrec.guest.elf import load_guest
from vmrec.machine.board import MachineConfig
from vmrec.machine.boot import BootOptions, device_tree, place, read_boot_files
from vmrec.record.drives import ImageSet
from vmrec.record.hunt import Condition, Job, Outcome, hunt, what_it_is
from vmrec.replay.player import Player
from vmrec.replay.points import Traps
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------------------------------------------------- the order


class Shuffled(Executor):
    """Does jobs in an order of its own, each when somebody waits for a result."""

    def __init__(self, seed: int, work: Callable[[Job], Outcome]) -> None:
        self._choice = random.Random(seed)
        self._work = work
        self._waiting: list[tuple[Future[Any], Job]] = []
        self.done: list[int] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        executor = self

        class Lazy(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                while not self.done():
                    executor.work_on()
                return super().result(timeout)

        future: Future[Any] = Lazy()
        self._waiting.append((future, args[0]))
        return future

    def work_on(self) -> None:
        future, job = self._waiting.pop(self._choice.randrange(len(self._waiting)))
        if future.set_running_or_notify_cancel():
            self.done.append(job.chaos)
            future.set_result(self._work(job))


BAD = Condition.parse("exit!=0")


def job(seed: int, folder: Path, **changes: Any) -> Job:
    guest = load_guest(builtin_guest("race"))
    values: dict[str, Any] = {
        "guest": builtin_guest("race"),
        "guest_hash": what_it_is(guest),
        "config": MachineConfig(time_rule="stepped"),
        "capture": "inputs",
        "seed": 1,
        "chaos": seed,
        "input": None,
        "script": (),
        "max_insns": 10**7,
        "until": (BAD,),
        "path": folder / f"{seed}.vmrec",
        "created": CREATED,
        **changes,
    }
    return Job(**values)


@pytest.mark.parametrize(
    ("bad_seeds", "good", "bad", "tried"),
    [
        ({4, 6}, 1, 4, 4),
        ({1, 2, 3}, 4, 1, 4),
        ({20}, 1, 20, 20),
        (set(), 1, None, 20),
        (set(range(1, 21)), None, 1, 20),
    ],
)
@pytest.mark.parametrize("ahead", [1, 2, 7, 100])
def test_the_lowest_seeds_win_whoever_is_faster(
    bad_seeds: set[int], good: int | None, bad: int | None, tried: int, ahead: int, tmp_path: Path
) -> None:
    def work(job: Job) -> Outcome:
        job.path.touch()
        return Outcome(job.chaos, job.path, bad=BAD if job.chaos in bad_seeds else None)

    seen: list[int] = []
    executor = Shuffled(ahead, work)
    catch = hunt(
        (job(seed, tmp_path) for seed in range(1, 21)),
        executor,
        ahead=ahead,
        seen=lambda outcome: seen.append(outcome.chaos),
    )
    assert (catch.good and catch.good.chaos, catch.bad and catch.bad.chaos, catch.tried) == (good, bad, tried)
    assert seen == list(range(1, tried + 1))
    assert max(executor.done) <= tried + ahead
    kept = {f"{seed}.vmrec" for seed in (good, bad) if seed is not None}
    assert kept <= set(names(tmp_path))
    assert not {f"{seed}.vmrec" for seed in range(1, tried + 1)} - kept & set(names(tmp_path))


def test_trouble_in_a_worker_is_told(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for changes, words in (
        ({"guest_hash": bytes(32)}, "under seed 3: .*race.elf: was changed while it was hunted in"),
        ({"guest": tmp_path / "none"}, "there is no such file"),
        ({"path": tmp_path / "there"}, "exists already"),
    ):
        with ThreadPoolExecutor(1) as executor, pytest.raises(UsageError, match=words):
            hunt([job(3, tmp_path, **changes)], executor, ahead=1)


def test_real_runs(tmp_path: Path) -> None:
    """The catch is what recording these seeds one by one gives."""
    with ThreadPoolExecutor(2) as executor:
        catch = hunt((job(seed, tmp_path) for seed in range(1, 100)), executor, ahead=4)
    assert catch.good is not None
    assert catch.bad is not None
    codes = {}
    for seed in range(1, catch.tried + 1):
        made = record(tmp_path / f"again-{seed}.vmrec", "race", chaos=seed)
        codes[seed] = made.ended.exit_code
        for outcome in (catch.good, catch.bad):
            if outcome.chaos == seed:
                with TraceReader(outcome.path) as one, TraceReader(made.path) as other:
                    assert one.digests[-1].value == other.digests[-1].value
                assert (outcome.exit_code, outcome.position) == (made.ended.exit_code, made.ended.position)
    assert min(seed for seed in codes if codes[seed] == 0) == catch.good.chaos
    assert min(seed for seed in codes if codes[seed] != 0) == catch.bad.chaos == catch.tried


# ------------------------------------------------------------------------------------------------------------- kernels


def kernel_job(seed: int, folder: Path, **changes: Any) -> Job:
    """The tellers on the teaching kernel, from copies of its files that a test may change."""
    for file in (ELF, IMAGE):
        if not (folder / file.name).exists():
            shutil.copy(file, folder)
    boot = BootOptions(kernel=str(folder / ELF.name), append=BANK, symbols=(str(ELF.parent / "bank.elf"),))
    with ImageSet([folder / IMAGE.name]) as images:
        config = MachineConfig(isa="rv64gcsu", sbi=True, time_rule="stepped", drives=images.sizes)
        values = {
            "guest": None, "boot": boot, "config": config, "drives": (str(folder / IMAGE.name),),
            "notes": tuple(image.note() for image in images.images), "max_insns": 10**8,
            "guest_hash": what_it_is(place(read_boot_files(boot), config)),
        }  # fmt: skip
    return job(seed, folder, **{**values, **changes})


def test_boots_are_what_recording_them_one_by_one_gives(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        catch = hunt((kernel_job(seed, tmp_path) for seed in range(1, 50)), executor, ahead=2)
    assert catch.good is not None
    assert catch.bad is not None
    assert catch.bad.reason == "poweroff"
    for outcome in (catch.good, catch.bad):
        made = record_kernel(tmp_path / f"again-{outcome.chaos}.vmrec", BANK, chaos=outcome.chaos)
        assert (outcome.exit_code, outcome.position) == (made.ended.exit_code, made.ended.position)
        assert (outcome.bad is not None) == (b"MONEY LOST" in made.console)
        (tmp_path / IMAGE.name).unlink(missing_ok=True)  # a recording needs no file of those it was made from
        with TraceReader(outcome.path) as trace, Player(trace) as player:
            assert player.run() is None
            assert player.machine.digest() == made.digest
            assert [note["name"] for note in trace.header["drives"]] == [IMAGE.name]
            assert len(trace.header["boot"]["symbols"]) == 1


@pytest.mark.parametrize(
    ("name", "content"), [(ELF.name, None), (IMAGE.name, None), (IMAGE.name, b"x" * 512), ("bank.elf", None)]
)
def test_files_must_stay_what_they_are_while_they_are_hunted_in(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    """Whatever of a kernel has changed since the hunt began: no run of it is recorded."""
    shutil.copy(ELF.parent / "bank.elf", tmp_path)
    first = kernel_job(3, tmp_path)
    boot = BootOptions(kernel=first.boot.kernel, append=BANK, symbols=(str(tmp_path / "bank.elf"),))
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    elif name == IMAGE.name:
        os.utime(file, (1, 1))
    else:
        changed = bytearray(file.read_bytes())
        changed[-1] ^= 1
        file.write_bytes(changed)
    job = kernel_job(3, tmp_path, boot=boot, guest_hash=first.guest_hash, notes=first.notes)
    with ThreadPoolExecutor(1) as executor, pytest.raises(UsageError, match=f"{name}.*was changed while it was hunt"):
        hunt([job], executor, ahead=1)
    assert not job.path.exists()


SUPERVISOR_TIMER = 1 << 63 | 5


@pytest.mark.parametrize("timer", ["stimecmp", "SBI"])
def test_chaos_moves_the_timers_of_kernels(timer: str, tmp_path: Path) -> None:
    """A slice of 50 us is over after 50 000 steps or so by the virtual clock, and under chaos early and late."""
    tree = device_tree(None, MachineConfig(isa="rv64gcsu", sbi=True))
    if timer == "SBI":
        assert tree.count(b"_sstc\0") == 1
        tree = tree.replace(b"_sstc\0", b"_zicy\0")  # so that the kernel does not see it
    (tmp_path / "board.dtb").write_bytes(tree)
    boots = ("--kernel", "kernel.elf", "--drive", "kernel.img", "--append", BANK, "--dtb", "board.dtb")
    spans: list[int] = []
    for chaos in ((), *(("--chaos", seed) for seed in range(1, 5))):
        name = f"run-{len(chaos) and chaos[1]}.vmrec"
        shown = vmrec("record", *boots, *chaos, "-o", name, cwd=tmp_path).out
        assert f"timer: {timer}".encode() in shown
        with TraceReader(tmp_path / name) as trace, Timeline(trace) as timeline:
            taken = [hit.step for hit in timeline.hits([Traps(exceptions=False)]) if hit.cause == SUPERVISOR_TIMER]
        between = [after - before for before, after in pairwise(taken)]
        if chaos:
            spans += between
        else:
            assert sum(50_000 <= span < 55_000 for span in between) == len(between) - 1 > 50  # one begins anew
    assert min(spans) < 20_000
    assert max(spans) > 90_000
    assert len({span // 5_000 for span in spans}) > 12


def test_a_kernel_is_hunted_by_the_verb(tmp_path: Path) -> None:
    boots = ("--kernel", "kernel.elf", "--drive", "kernel.img", "--append", BANK)
    before = IMAGE.read_bytes()
    report = vmrec("hunt", *boots, "--chaos", "1..50", "--seed", 1, "--json", cwd=tmp_path, status=1).json
    assert IMAGE.read_bytes() == before
    assert names(tmp_path) == ["kernel-bad.vmrec", "kernel-good.vmrec"]
    assert (report["good"]["exit_code"], report["bad"]["exit_code"]) == (0, 1)
    assert report["diff"]["cause"]["a"]["kind"] == "clock"
    for name, words in (("kernel-good", b"balance 40 of 40: good"), ("kernel-bad", b"MONEY LOST")):
        assert words in vmrec("replay", name, "--check", cwd=tmp_path).out
    same = ("record", *boots, "--chaos", report["bad"]["chaos"], "--seed", 1, "-o", "by-hand.vmrec")
    vmrec(*same, cwd=tmp_path)
    vmrec("diff", "kernel-bad", "by-hand", cwd=tmp_path, status=0)


def test_what_a_kernel_prints_can_make_a_boot_a_bad_one(tmp_path: Path) -> None:
    boots = ("--kernel", "kernel.elf", "--append", "run=ls", "--device", "virtio-rng", "--virtio", "legacy")
    done = vmrec("hunt", *boots, "--chaos", "1..3", "--until", "console~panic", cwd=tmp_path, status=1)
    assert b"No run was good" in done.out
    assert b"(console~panic): kernel-bad.vmrec" in done.out
    assert b"there is no virtio block device" in vmrec("replay", "kernel-bad", cwd=tmp_path).out


# --------------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("text", "bad", "good"),
    [
        ("exit!=0", ("poweroff", 1, b""), ("poweroff", 0, b"")),
        ("exit==3", ("poweroff", 3, b""), ("poweroff", 1, b"")),
        (" exit == 3 ", ("poweroff", 3, b""), ("poweroff", 1, b"")),
        ("reason==trap-loop", ("trap-loop", 0, b""), ("poweroff", 0, b"")),
        ("reason!=poweroff", ("max-insns", 0, b""), ("poweroff", 1, b"")),
        ("console~LOST UPDATES", ("poweroff", 0, b"so: LOST UPDATES\n"), ("poweroff", 1, b"lost updates")),
        ("console~ä", ("poweroff", 0, "fällt".encode()), ("poweroff", 0, b"faellt")),
    ],
)
def test_conditions(text: str, bad: tuple[str, int, bytes], good: tuple[str, int, bytes]) -> None:
    condition = Condition.parse(text)
    assert condition.holds(*bad)
    assert not condition.holds(*good)
    assert Condition.parse(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not understood. Write exit!=0"),
        ("exit", "is not understood"),
        ("exit=0", "is not understood"),
        ("exit~0", "is not understood"),
        ("console==x", "is not understood"),
        ("console~", "is not understood"),
        ("exit!=zero", "an exit code is a number"),
        ("reason==crash", "there is no reason crash; reasons are poweroff, reset, waiting-for-ever, trap-loop"),
        ("__import__('os')", "is not understood"),
    ],
)
def test_conditions_that_make_no_sense(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        Condition.parse(text)


# ----------------------------------------------------------------------------------------------------------- the verb


def test_a_hunt_ends_with_the_difference(tmp_path: Path) -> None:
    done = vmrec("hunt", "race", "--chaos", "1..200", cwd=tmp_path, status=1)
    assert names(tmp_path) == ["race-bad.vmrec", "race-good.vmrec"]
    text = done.out.decode()
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert "\033" not in text
    assert "poweroff, exit code 1 (exit!=0): race-bad.vmrec" in text
    assert "The first event that differs\na  clock at " in text
    assert "The first step that differs" in text
    assert "race.c:" in text
    for name, words in (("race-good", b"total 2000 of 2000: good\n"), ("race-bad", b"LOST UPDATES\n")):
        assert vmrec("replay", name, "--check", cwd=tmp_path).out.endswith(words)
    assert vmrec("diff", "race-good", "race-bad", cwd=tmp_path, status=1).out.decode() in text


def test_the_number_of_workers_makes_no_difference(tmp_path: Path) -> None:
    reports = []
    for jobs in (1, 3):
        report = vmrec("hunt", "race", "-j", jobs, "--json", "--seed", 4, "-o", ".", cwd=tmp_path, status=1).json
        assert report["schema"] == "vmrec-hunt/1"
        assert report["diff"]["same"] is False
        assert report["diff"]["cause"]["a"]["kind"] == "clock"
        for side in ("good", "bad"):
            assert (tmp_path / report[side].pop("path")).exists()
        report["diff"].pop("compared")
        reports.append(report)
    assert reports[0] == reports[1]
    assert reports[0]["good"]["because"] is None
    assert reports[0]["bad"]["because"] == "exit!=0"
    assert reports[0]["tried"] == max(reports[0]["good"]["chaos"], reports[0]["bad"]["chaos"])
    assert names(tmp_path) == [f"race-{what}.vmrec" for what in ("bad-2", "bad", "good-2", "good")]


def test_a_hunt_without_a_catch(tmp_path: Path) -> None:
    done = vmrec("hunt", "hello", "--chaos", "1..4", cwd=tmp_path, status=0)
    assert b"4 runs recorded, chaos seeds 1 to 4" in done.out
    assert b"Every run was good. Go on with `--chaos 5..8`" in done.out
    assert names(tmp_path) == []
    report = vmrec("hunt", "hello", "--chaos", "7", "--json", cwd=tmp_path, status=0).json
    assert (report["tried"], report["chaos"], report["bad"], report["diff"]) == (1, [7, 7], None, None)


def test_a_hunt_in_which_every_run_is_bad(tmp_path: Path) -> None:
    done = vmrec("hunt", "hello", "--chaos", "1..3", "--until", "console~hello", cwd=tmp_path, status=1)
    assert b"No run was good" in done.out
    assert names(tmp_path) == ["hello-bad.vmrec"]


def test_what_makes_a_run_bad_can_be_chosen(tmp_path: Path) -> None:
    limits = ("--max-insns", 20_000, "--until", "reason==max-insns", "--until", "console~nothing")
    report = vmrec("hunt", "forever", "--chaos", "1..2", *limits, "--json", cwd=tmp_path, status=1).json
    assert report["bad"]["because"] == "reason==max-insns"
    assert report["bad"]["icount"] == 20_000
    assert report["until"] == ["reason==max-insns", "console~nothing"]
    default = vmrec("hunt", "wfi-forever", "--chaos", "1..2", "--json", cwd=tmp_path, status=1).json
    assert default["bad"]["because"] == "reason!=poweroff"


def test_input_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"A" * 60 + b"\n")
    report = vmrec("hunt", "crash", "--input", "long", "--chaos", "1..2", "--json", cwd=tmp_path, status=1).json
    assert report["bad"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which guest?"),
        (("nosuch",), "there is no such file"),
        (("race", "--chaos", "9..1"), "--chaos 9..1: expected a range of seeds"),
        (("race", "--chaos", "some"), "expected a range of seeds"),
        (("race", "--chaos", "1..99999999999999999999"), "expected a range of seeds"),
        (("race", "--until", "bad"), "--until 'bad' is not understood"),
        (("race", "-j", "0"), "Invalid value for '--jobs'"),
        (("race", "-o", "none"), "none: cannot hold recordings: No such file or directory"),
        (("race", "--input", "-"), "--input -: is not a regular file"),
        (("race", "--ram", "64K", "--isa", "rv64gc"), "rv64gc is 64-bit"),
        (("race", "--kernel", "kernel.elf"), "race: GUEST is a program on the bare machine"),
        (("race", "--drive", "kernel.img"), "a machine of rv32im has no virtio devices"),
        (("--kernel", "none"), "none: there is no such file"),
        (("--append", "x"), "name one with --kernel"),
        (("--kernel", "kernel.elf", "--drive", "none"), "--drive none: cannot be read"),
        (("--kernel", "kernel.elf", "--device", "virtio-net"), "there is no device 'virtio-net'"),
    ],
)
def test_mistakes_are_trouble_at_once(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = vmrec("hunt", *arguments, cwd=tmp_path, status=2)
    assert message in " ".join(done.err.split())
    assert names(tmp_path) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_hunt_that_is_ended_leaves_nothing(number: int, status: int, tmp_path: Path) -> None:
    arguments = ("hunt", "forever", "--max-insns", 10**15, "-j", 2)
    with started(*arguments, cwd=tmp_path, start_new_session=True) as process:
        wait_until(lambda: len(list(tmp_path.glob(".vmrec-hunt-*/*.vmrec"))) >= 2, "two recorders at work")
        process.send_signal(number)
        done = finished(process)
    assert (done.status, done.err) == (status, "")
    assert names(tmp_path) == []
    wait_until(lambda: not alive(process.pid), "its processes to end")


def test_leaving_the_workers_waits_for_the_thread_that_looks_after_them() -> None:
    """Else the interpreter's end may find that thread half gone, and print a traceback."""
    before = set(threading.enumerate())
    with workers(2, "vmrec.record.hunt") as executor:
        futures = [executor.submit(time.sleep, 3600) for _ in range(2)]
        wait_until(lambda: all(future.running() for future in futures), "both to be at work")
    assert set(threading.enumerate()) <= before
    assert [type(future.exception()) for future in futures] == [BrokenProcessPool] * 2


def alive(session: int) -> bool:
    """Whether a process of this session is still there."""
    return subprocess.run(["pgrep", "-s", str(session)], stdout=subprocess.DEVNULL, check=False).returncode == 0
